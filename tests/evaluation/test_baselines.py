# SPDX-License-Identifier: Apache-2.0
"""Baselines on toy items, by hand."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_shop import log_of

from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.errors import ConfigurationError, DataError, RequestError
from seekrec.evaluation import BM25, DenseText, Popularity, SASRecScorer, Scorer
from seekrec.events.splits import split_log
from seekrec.schema import Event, IdMap, Request

SEARCH = Request(query="x")


def history(*items):
    return Request([Event(item, timestamp=place) for place, item in enumerate(items)])


# --- popularity


def test_popularity_counts_training_events(toy_split, toy_id_map):
    popularity = Popularity.fit(toy_split, toy_id_map)
    assert popularity.counts.tolist() == [1, 2, 1, 0, 0, 2]
    scores = popularity.score_all([Request(), SEARCH])
    assert scores.tolist() == [[1, 2, 1, 0, 0, 2]] * 2
    assert isinstance(popularity, Scorer)


def test_popularity_does_not_count_what_was_only_shown(toy_items, toy_id_map):
    acts = [("a", "click"), ("b", "impression"), ("c", "click"), ("a", "impression"), ("d", "click"), ("e", "click")]
    split = split_log(log_of([("u", time, item, None, act) for time, (item, act) in enumerate(acts)], items=toy_items))
    # d and e are held out.
    assert Popularity.fit(split, toy_id_map).counts.tolist() == [1, 0, 1, 0, 0, 0]


def test_popularity_leaves_out_items_that_the_catalogue_lacks(toy_split):
    assert Popularity.fit(toy_split, IdMap(["f", "b"])).counts.tolist() == [2, 2]


# --- BM25


def test_bm25_by_hand(toy_items):
    # Without repetition and length (k1 = 0) a word counts its inverse document frequency, in Lucene's form:
    # log(1 + (N - n + 0.5) / (n + 0.5)) for a word in n of N = 6 items.
    scores = BM25(toy_items, k1=0.0, b=0.0).score_all([Request(query="red chairs"), Request(query="Red, nowhere")])
    red = log(1 + (6 - 2 + 0.5) / (2 + 0.5))
    chair = log(1 + (6 - 3 + 0.5) / (3 + 0.5))
    assert scores[0].tolist() == pytest.approx([red, 0, red + chair, chair, chair, 0])
    assert scores[1].tolist() == pytest.approx([red, 0, red, 0, 0, 0])


def test_bm25_reads_categories(toy_items):
    scores = BM25(toy_items).score_all([Request(query="home")])
    assert (scores[0, :5] > 0).all() and scores[0, 5] == 0
    # Queries made from categories write compounds in one piece.
    films = pa.table({"title": ["One", "Two"], "description": ["", ""], "categories": [[["Sci-Fi"]], [["Drama"]]]})
    for query in ("scifi", "sci fi", "Sci-Fi"):
        assert (BM25(films).score_all([Request(query=query)])[0] > 0).tolist() == [True, False]


def test_bm25_without_known_words_gives_all_items_nothing(toy_items):
    scores = BM25(toy_items).score_all([Request(query="zzz"), Request(query="!?")])
    assert scores.shape == (2, 6)
    assert (scores == 0).all()


def test_bm25_prints_nothing(toy_items, capsys):
    BM25(toy_items).score_all([Request(query="lamp")] * 3)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_bm25_answers_searches_only(toy_items):
    assert BM25.behaviors == ("search",)
    with pytest.raises(RequestError, match="Request 1 has no query, but BM25 answers searches only"):
        BM25(toy_items).score_all([SEARCH, Request()])


def test_bm25_needs_words(toy_items):
    empty = pa.table(
        {
            "title": ["", "?"],
            "description": [None, ""],
            "categories": pa.array([None, None], pa.list_(pa.list_(pa.string()))),
        }
    )
    with pytest.raises(DataError, match="None of the 2 items has a word in title or categories"):
        BM25(empty, fields=("title", "categories"))


def test_bm25_fields(toy_items):
    titles = BM25(toy_items, fields=("title",)).score_all([Request(query="home lamps")])[0]
    assert (titles > 0).tolist() == [True, True, False, False, False, False]
    categories = BM25(toy_items, fields=("categories",)).score_all([Request(query="lamps red")])[0]
    assert categories[0] == categories[1] > 0 == categories[2:].max()
    with pytest.raises(
        ConfigurationError, match="`fields` is 'brand'; use one of 'title', 'description', 'categories'"
    ):
        BM25(toy_items, fields=("brand",))
    with pytest.raises(ConfigurationError, match="`fields` is empty"):
        BM25(toy_items, fields=())


def test_bm25_variants_equal_those_built_alone(toy_items):
    variants = BM25.variants(toy_items, ((1.5, 0.75), (0.0, 0.0)), fields=("title",))
    assert list(variants) == ["BM25(title, k1=1.5, b=0.75)", "BM25(title, k1=0.0, b=0.0)"]
    requests = [Request(query="red chair"), Request(query="lamp")]
    alone = BM25(toy_items, fields=("title",))
    assert (variants["BM25(title, k1=1.5, b=0.75)"].score_all(requests) == alone.score_all(requests)).all()
    assert variants["BM25(title, k1=0.0, b=0.0)"].details == {"k1": 0.0, "b": 0.0, "fields": ["title"]}


@pytest.mark.parametrize("settings", [{"k1": -1.0}, {"b": 1.5}])
def test_bm25_settings_are_checked(toy_items, settings):
    with pytest.raises(ConfigurationError, match="BM25 needs `k1` at least 0 and `b` from 0 to 1"):
        BM25(toy_items, **settings)


# --- dense text

AXES = np.eye(3, dtype=np.float32)


def make_dense():
    calls = []

    def embed(texts):
        calls.append(list(texts))
        return np.array([AXES["xyz".index(text)] for text in texts])

    return DenseText(AXES, IdMap(["a", "b", "c"]), embed), calls


def test_dense_text_searches_by_cosine():
    dense, calls = make_dense()
    scores = dense.score_all([Request(query="z"), Request(query="x"), Request(query="z")])
    assert scores.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]
    dense.score_all([Request(query="x"), Request(query="y")])
    assert calls == [["z", "x"], ["y"]]  # each query is embedded once


def test_dense_text_recommends_by_the_mean_of_the_last_items():
    dense, calls = make_dense()
    scores = dense.score_all([history("a", *"bbbcc"), history(), history("c", "c"), Request(query="x")])
    # The last five: (3 b + 2 c) / 5 has length sqrt(13) / 5.
    assert scores[0].tolist() == pytest.approx([0, 3 / sqrt(13), 2 / sqrt(13)])
    assert scores[1].tolist() == [0, 0, 0]
    assert scores[2].tolist() == pytest.approx([0, 0, 1])
    assert scores[3].tolist() == [1, 0, 0]
    assert calls == [["x"]]
    assert dense.behaviors == ("recommendation", "search")


def test_dense_text_checks_its_embeddings():
    with pytest.raises(DataError, match=r"`item_embeddings` has shape \(3, 3\), the catalogue 2 items"):
        DenseText(AXES, IdMap(["a", "b"]), lambda texts: AXES)
    with pytest.raises(DataError, match="embedding in row 0 has length 2"):
        DenseText(2 * AXES, IdMap(["a", "b", "c"]), lambda texts: AXES)


# --- SASRec


def test_sasrec_gets_collapsed_histories():
    class Model:
        def score(self, histories):
            self.histories = [rows.tolist() for rows in histories]
            return torch.zeros(len(histories), 3)

    model = Model()
    scorer = SASRecScorer(model, IdMap(["a", "b", "c"]))
    shown = Request([Event("a"), Event("b", action="impression"), Event("a"), Event("c", "search", query="q")])
    requests = [history("a", "a", "b", "b", "a"), history(), history("gone", "c"), shown]
    scores = scorer.score_all(requests)
    assert scores.shape == (4, 3) and scores.dtype == np.float32
    assert model.histories == [[0, 1, 0], [], [2], [0, 2]]


def test_sasrec_model_is_a_scorer():
    torch.manual_seed(0)
    config = SASRecConfig(num_items=3, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_history=4)
    model = SASRecForNextItem(config)
    scorer = SASRecScorer(model, IdMap(["a", "b", "c"]))
    requests = [history("a", "b"), Request([Event("a"), Event("b")], query="x"), history()]
    scores = scorer.score_all(requests)
    assert scores.shape == (3, 3)
    assert (scores[0] == scores[1]).all()  # the query plays no part
    assert scores[0].tolist() == pytest.approx(model.score([np.array([0, 1])])[0].tolist(), abs=1e-6)
    assert isinstance(scorer, Scorer)
