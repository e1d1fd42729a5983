# SPDX-License-Identifier: Apache-2.0
"""A text scorer times a recommender: the forms by hand, the choice on validation."""

from __future__ import annotations

from math import exp, log, log2

import numpy as np
import pyarrow as pa
import pytest

from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation import (
    ReweightedBM25,
    ReweightedText,
    Scorer,
    Tuning,
    combine_scores,
    evaluate_cases,
    evaluate_systems,
)
from seekrec.evaluation.reweighted import DEFAULT_WEIGHTS
from seekrec.evaluation.tuning import for_protocol
from seekrec.schema import Request


class Fixed:
    behaviors = ("recommendation", "search")

    def __init__(self, scores):
        self.scores = np.asarray(scores, dtype=np.float64)

    def score_all(self, requests):
        return np.tile(self.scores, (len(requests), 1))


TEXT = np.array([[8.0, 4.0, 0.0]])
LOGITS = np.array([[0.0, 1.0, 2.0]])
SEARCHES = {"part": "validation", "behaviors": ["search"], "show_progress": False}


def test_forms_by_hand():
    assert combine_scores(TEXT, LOGITS, "sum", 2.0).tolist() == [[8, 4 + 2, 0 + 4]]
    product = combine_scores(TEXT, LOGITS, "product", 0.5)
    expected = [log(1 + 1e-3), log(0.5 + 1e-3) + 0.5, log(1e-3) + 1.0]
    assert product[0].tolist() == pytest.approx(expected, abs=1e-6)
    # The same order, and the same ratios, as text times the softmax to the power of the weight.
    p = [exp(logit) / (1 + exp(1) + exp(2)) for logit in (0, 1, 2)]
    direct = [(text / 8 + 1e-3) * q**0.5 for text, q in zip((8, 4, 0), p, strict=True)]
    assert np.exp(product[0, 1] - product[0, 0]) == pytest.approx(direct[1] / direct[0])
    assert np.exp(product[0, 2] - product[0, 0]) == pytest.approx(direct[2] / direct[0])


def test_weight_zero_leaves_the_recommender_out():
    ruled_out = np.array([[0.0, -np.inf, 0.0]])
    for form in ("sum", "product"):
        combined = combine_scores(TEXT, ruled_out, form, 0.0)
        assert (np.argsort(-combined[0]) == [0, 1, 2]).all()
    assert combine_scores(TEXT, ruled_out, "sum", 1.0)[0, 1] == -np.inf


def test_no_match_at_all_leaves_the_order_to_the_recommender():
    for form in ("sum", "product"):
        assert np.argsort(-combine_scores(0 * TEXT, LOGITS, form, 0.1)[0]).tolist() == [2, 1, 0]


def test_inputs_are_not_written_to():
    text = TEXT.astype(np.float32)
    combined = combine_scores(text, LOGITS, "sum", 0.0)
    combined[:] = -1
    assert (text == TEXT).all()


def test_fit_finds_the_only_combination_that_works(toy_split, toy_id_map):
    # Validation targets c and a. Seen are a, b for the first and b, c for the second. Left: c d e f, and a d e f.
    # Text alone puts d level with both; the recommender alone puts e first. Together a and c win if the recommender
    # breaks ties only: sum with weight 0.003 gives 2.003 against d 2.0 and e 0.03.
    text = Fixed([2, 0, 2, 2, 0, 0])
    useless = Fixed([0, 0, 0, 0, 0, 1])
    prior = Fixed([1, 0, 1, 0, 10, 0])
    system = ReweightedText({"useless": useless, "text": text}, prior)
    assert (system.text, system.form, system.weight) == ("useless", "product", 0.1)
    fitted = system.fit(
        Tuning(toy_split, toy_id_map).cases("search"), weights=(0.0, 0.003, 10.0), forms=("sum",), show_progress=False
    )
    assert fitted is system
    assert (system.text, system.form, system.weight) == ("text", "sum", 0.003)
    assert system.details["validation"]["ndcg@10"] == 1
    assert system.details["validation"]["num_cases"] == 2
    assert system.details["validation"]["best_by_choice"]["text, sum"] == {"weight": 0.003, "ndcg@10": 1.0}
    assert system.details["validation"]["best_by_choice"]["useless, sum"]["ndcg@10"] < 1
    (row,) = evaluate_systems({"fitted": system}, toy_split, toy_id_map, **SEARCHES)
    assert row.metrics["ndcg@10"] == system.details["validation"]["ndcg@10"]
    assert row.details["weight"] == 0.003


@pytest.mark.parametrize(
    ("remove_seen", "hides_b", "chosen"), [(True, False, "told"), (False, False, "flat"), (False, True, "told")]
)
def test_fit_ranks_validation_as_the_test_is_ranked(remove_seen, hides_b, chosen, toy_split, toy_id_map):
    # Targets are c and a; both users know b. By `told`, b is first, then a and c; by `flat`, a, c and d are level.
    # Without what was seen `told` has 1 and `flat` (1 + 1/log2(3)) / 2; with it (1/log2(3) + 1/2) / 2 and the mean of
    # 1, 1/log2(3) and 1/2; where b alone is left out `told` has what `flat` had first, and `flat` that mean.
    texts = {"told": Fixed([2, 3, 2, 0, 0, 0]), "flat": Fixed([2, 0, 2, 2, 0, 0])}
    ends = np.full(6, 100)
    ends[1] = 0 if hides_b else 100
    tuning = Tuning(toy_split, toy_id_map, remove_seen=remove_seen, periods=(np.zeros(6, int), ends))
    system = ReweightedText(texts, Fixed([0] * 6)).fit(tuning.cases("search"), show_progress=False)
    assert system.text == chosen
    tie = (1 / log2(3) + 1 / 2) / 2, (1 + 1 / log2(3) + 1 / 2) / 3
    expected = {True: 1.0, False: tie[1]}[remove_seen] if not hides_b else (1 + 1 / log2(3)) / 2
    assert system.details["validation"]["ndcg@10"] == pytest.approx(expected)


def test_each_protocol_has_a_choice_of_its_own(toy_split, toy_id_map):
    # One negative a case. In full ranking e (and what is seen) is in the way of `told`; among candidates seldom.
    tuning = Tuning(toy_split, toy_id_map, ("uniform",), num_negatives=2)
    cases = tuning.cases("search")
    texts = {"told": Fixed([1, 0, 1, 0, 3, 0]), "flat": Fixed([2, 2, 2, 2, 1, 2]), "e": Fixed([0, 0, 0, 0, 1, 0])}
    system = ReweightedText(texts, Fixed([0] * 6)).fit(cases, show_progress=False)
    assert list(system.by_protocol) == ["full", "uniform"]
    for protocol, own in cases.items():
        values = {}
        for name, text in texts.items():
            (row,) = evaluate_cases({name: text}, own, toy_split, toy_id_map, show_progress=False)
            values[name] = row.metrics["ndcg@10"]
        tuned = for_protocol(system, protocol)
        assert tuned.text == max(values, key=values.get)
        assert tuned.details["validation"]["ndcg@10"] == pytest.approx(max(values.values()))
    # Rows of each protocol are of the system tuned for it.
    rows = evaluate_systems(
        {"both": system}, toy_split, toy_id_map, protocols=("full", "uniform"), num_negatives=2, show_progress=False
    )
    texts_by_protocol = {row.protocol: row.details["text"] for row in rows}
    assert texts_by_protocol == {"full": system.text, "uniform-2": system.by_protocol["uniform"].text}


def test_one_recommender_weighs_another_in_recommendations(toy_split, toy_id_map):
    system = ReweightedText(
        Fixed([1, 2, 3, 0, 0, 0]), Fixed([4, 0, 0, 0, 9, 0]), form="sum", behavior="recommendation"
    )
    assert system.behaviors == ("recommendation",)
    assert system.score_all([Request()])[0, :3].tolist() == pytest.approx([1.4, 2, 3])
    system.fit(Tuning(toy_split, toy_id_map).cases("recommendation"), show_progress=False)
    (row,) = evaluate_systems({"both": system}, toy_split, toy_id_map, part="validation", show_progress=False)
    assert system.details["validation"]["ndcg@10"] == row.metrics["ndcg@10"] > 0


def test_fit_on_the_whole_default_grid_is_no_worse_than_its_parts(toy_split, toy_id_map, toy_items):
    prior = Fixed([0.3, 0.1, 0.2, 0.0, 0.5, 0.4])
    system = ReweightedBM25(toy_items, prior)
    texts = system.texts
    system.fit(Tuning(toy_split, toy_id_map).cases("search"), show_progress=False)
    best = system.details["validation"]["ndcg@10"]
    assert list(system.texts) == [system.text]
    for text in texts.values():
        (row,) = evaluate_systems({"text": text}, toy_split, toy_id_map, **SEARCHES)
        assert best >= row.metrics["ndcg@10"]
    assert len(system.details["validation"]["best_by_choice"]) == 3 * 4 * 2  # fields, settings, forms
    assert 0.0 in DEFAULT_WEIGHTS
    assert isinstance(system, Scorer)
    assert system.behaviors == ("search",)


def test_reweighted_scorers_nest(toy_items):
    inner = ReweightedText(Fixed([1, 2, 3, 0, 0, 0]), Fixed([0, 0, 0, 1, 1, 1]), form="sum", weight=1.0)
    outer = ReweightedText(inner, Fixed([10, 0, 0, 0, 0, 0]), form="sum", weight=2.0)
    assert outer.score_all([Request(query="x")]).tolist() == [[21, 2, 3, 1, 1, 1]]
    assert outer.details == {"text": "ReweightedText", "form": "sum", "weight": 2.0}


def test_text_scores_must_be_finite():
    system = ReweightedText(Fixed([1.0, -np.inf]), Fixed([0, 0]))
    with pytest.raises(DataError, match="Text scorer 'Fixed' returned a score that is not finite"):
        system.score_all([Request(query="x")])


def test_choices_are_checked():
    with pytest.raises(DataError, match="`texts` is empty"):
        ReweightedText({}, Fixed([0]))
    with pytest.raises(ConfigurationError, match="`text` is 'other'; use one of 'one'"):
        ReweightedText({"one": Fixed([0])}, Fixed([0]), text="other")
    with pytest.raises(ConfigurationError, match="`form` is 'max'; use one of 'sum', 'product'"):
        ReweightedText(Fixed([0]), Fixed([0]), form="max")


def test_field_sets_without_words_are_left_out(toy_items):
    bare = toy_items.set_column(3, "categories", pa.array([None] * 6, toy_items.schema.field("categories").type))
    system = ReweightedBM25(bare, Fixed([0] * 6))
    assert {name.split(",")[0] for name in system.texts} == {
        "BM25(title+description+categories",
        "BM25(title+categories",
    }
    for name in ("title", "description"):
        place = bare.column_names.index(name)
        bare = bare.set_column(place, name, pa.array([None] * 6, bare.schema.field(name).type))
    with pytest.raises(DataError, match="`texts` is empty"):
        ReweightedBM25(bare, Fixed([0] * 6))
