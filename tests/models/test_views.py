# SPDX-License-Identifier: Apache-2.0
"""Views: what is added to the scores of a model, and that the models add it everywhere alike."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from dense_questions import HISTORY, assert_same_scores, scores_of
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array
from small_shop import HSTU, aisle_vector, grow, make_gensar, make_gensr, make_intsr, make_synergen
from torch.nn import functional as F
from transformers import AutoModel

from seekrec.catalog import Catalog
from seekrec.embeddings import ItemNeighbors, SASRecConfig, SASRecForNextItem, recommender_sizes
from seekrec.errors import CheckpointError, ConfigurationError, RequestError, UnknownItemError
from seekrec.events.query_log import QueryLog
from seekrec.models.dense import QueryVectors
from seekrec.models.dense.item_index import ItemIndex
from seekrec.models.views import (
    ANSWER_VIEWS,
    AddedScores,
    CatalogViews,
    LexicalIndex,
    LexicalSettings,
    UnsearchedWords,
    ViewRequests,
    Views,
    products,
    read_view_weights,
    write_view_weights,
)
from seekrec.models.views import added as added_scores
from seekrec.models.views.parts import Entries, Numbers
from seekrec.models.views.products import Products, VectorTable
from seekrec.schema import Event, Request
from seekrec.util.ragged import Ragged

WEIGHTS = ["recommendation.collaborative=1.5", "recommendation.semantic=4.0"]
FUSED = [
    Request(HISTORY, timestamp=300_000),
    Request(HISTORY[:1], timestamp=2000),
    Request(),
]
SEARCH = Request(HISTORY, query="garden", timestamp=300_000)
MAKERS = [
    (make_synergen, {"ranking_weight": 0.0, "temperature": 0.1}),
    (make_synergen, {"queries_in_context": True}),
    (make_intsr, {}),
    (make_intsr, {"merge_event_tokens": True, "ranking_weight": 0.0}),
    (make_intsr, HSTU),
]


def make_sasrec(num_items=24, **changes):
    torch.manual_seed(5)
    settings = {"hidden_size": 8, "num_attention_heads": 2, "max_history": 6, "initializer_range": 0.5, **changes}
    return SASRecForNextItem(SASRecConfig(num_items=num_items, **settings)).eval()


def make_fused(make, sasrec, *, view_weights=WEIGHTS, **settings):
    model, processor = make(view_weights=view_weights, **settings)
    model.set_views(Views(len(model.catalog)).with_recommender(sasrec))
    return model, processor


def make_near(num_items=24):
    table = np.random.default_rng(9).random((num_items, num_items)).astype(np.float32)
    np.fill_diagonal(table, 0)
    return ItemNeighbors(csr_array(np.where(table > 0.8, table, 0)), decay=0.5)


def near_scores(near, rows):
    """Similarities to the latest items, 1, 1/2, 1/4, ... parts of each, softened, by hand."""
    table = near.similarities.toarray()
    sums = (0.5 ** np.arange(len(rows))[::-1, None] * table[rows]).sum(0)
    return np.log1p(1000 * sums / sums.max())


def own_answers(model, inputs):
    """The model's own scores of all items, without views."""
    rows = np.arange(len(model.catalog))
    scores = model.score_items(inputs, [rows] * len(inputs["seen_rows"]))
    return [dict(zip(model.catalog.id_map.ids, line.tolist(), strict=True)) for line in scores]


def text_scores(catalog, rows):
    """The cosines with the latest items, 1, 0.7, 0.49, ... parts of each, by hand; nothing for these items."""
    texts = catalog.embeddings["semantic"]
    texts = texts - texts[:24].mean(0)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    if not len(rows):
        return np.zeros(len(texts))
    weights = 0.7 ** np.arange(len(rows))[::-1]
    found = texts @ (weights[:, None] * texts[rows]).sum(0) / weights.sum()
    found[rows] = 0.0
    return found


@pytest.mark.parametrize(("make", "settings"), MAKERS)
def test_scores_are_added_to_those_of_recommendations(make, settings):
    sasrec = make_sasrec()
    model, processor = make_fused(make, sasrec, **settings)
    ids, temperature = model.catalog.id_map, model.score_unit
    found = scores_of(model.retrieve(processor([*FUSED, SEARCH]), top_k=100, exclude_seen=False))
    own = own_answers(model, processor([*FUSED, SEARCH]))
    alone = scores_of(model.without_views().retrieve(processor([*FUSED, SEARCH]), top_k=100, exclude_seen=False))
    for line, expected in zip(alone, own, strict=True):
        assert line == pytest.approx(expected, abs=2e-5)
    assert model.views is not None
    histories = [
        ids.convert_to_rows([event.item_id for event in request.history if event.item_id]) for request in FUSED
    ]
    for number, (rows, by_sasrec) in enumerate(zip(histories, sasrec.score(histories).numpy(), strict=True)):
        more = temperature * (1.5 * by_sasrec + 4.0 * text_scores(model.catalog, rows))
        expected = [own[number][item] + more[row] for row, item in enumerate(ids.ids)]
        np.testing.assert_allclose([found[number][item] for item in ids.ids], expected, atol=2e-5)
    # A search has its query.
    np.testing.assert_allclose([found[3][item] for item in ids.ids], [own[3][item] for item in ids.ids], atol=2e-5)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_of_a_long_history_sasrec_reads_its_latest(make):
    sasrec = make_sasrec()
    model, processor = make_fused(make, sasrec, view_weights=WEIGHTS[:1])
    names = ["i0", "i9", "i1", "i2", "i5", "i7", "i20"]
    asked = processor(
        Request([Event(name, timestamp=1000 * place) for place, name in enumerate(names)], timestamp=9000)
    )
    found, own = scores_of(model.retrieve(asked, top_k=100, exclude_seen=False))[0], own_answers(model, asked)[0]
    by_sasrec = sasrec.score([model.catalog.id_map.convert_to_rows(names)])[0].numpy()
    expected = 1.5 * by_sasrec * model.score_unit
    np.testing.assert_allclose([found[item] - own[item] for item in model.catalog.id_map.ids], expected, atol=2e-5)


@pytest.mark.parametrize("backend", ["exact", "faiss"])
def test_the_best_few_are_the_first_of_all(backend):
    # With so much for texts, items of the history are the best of the index, and none of the best.
    model, processor = make_fused(make_synergen, make_sasrec(), view_weights=["recommendation.semantic=50"])
    model.item_index = backend
    again = [Event(event.item_id, timestamp=300_000) for event in HISTORY if event.item_id]
    requests = [*FUSED, Request([*HISTORY, *again], timestamp=400_000)]
    whole = model.retrieve(processor(requests), top_k=100, exclude_seen=False)
    for top_k in (1, 3):
        few = model.retrieve(processor(requests), top_k=top_k, exclude_seen=False)
        assert [[item.item_id for item in answer] for answer in few] == [
            [item.item_id for item in answer[:top_k]] for answer in whole
        ]
    only = [["i0", "i5"]] * len(requests)
    assert [
        len(answer) for answer in model.retrieve(processor(requests), top_k=3, where=only, exclude_seen=False)
    ] == [2] * 4
    with pytest.raises(RequestError, match="`top_k` is 0"):
        model.retrieve(processor(requests), top_k=0, exclude_seen=False)


@pytest.mark.parametrize(("make", "settings"), [MAKERS[0], MAKERS[3]])
def test_candidates_are_ranked_by_the_same_sum(make, settings):
    model, processor = make_fused(make, make_sasrec(), **settings)
    names = ["i3", "i17", "i9"]
    whole = scores_of(model.retrieve(processor(FUSED), top_k=100, exclude_seen=False))
    ranked = scores_of(model.rank(processor(FUSED, candidates=[names] * 3)))
    for scores, chosen in zip(whole, ranked, strict=True):
        assert chosen == pytest.approx({name: scores[name] for name in names}, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_either_part_stands_alone(make, part):
    model, processor = make_fused(make, make_sasrec(), view_weights=WEIGHTS[part : part + 1])
    inputs = processor(FUSED[:1])
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))[0], own_answers(model, inputs)[0]
    rows = model.catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id])
    more = 4.0 * text_scores(model.catalog, rows)
    if part == 0:
        more = 1.5 * make_sasrec().score([rows])[0].numpy()
    more = more * model.score_unit
    np.testing.assert_allclose([found[item] - own[item] for item in model.catalog.id_map.ids], more, atol=2e-5)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_a_history_read_before_is_fused_as_one_read_now(make):
    # SASRec reads six places, so of seven items its state must forget the oldest.
    model, processor = make_fused(make, make_sasrec())
    first, second = HISTORY[:2], [*HISTORY[2:], *HISTORY[:1], *HISTORY[2:3], *HISTORY[1:2]]
    later = [Event(event.item_id, timestamp=400_000 + place) for place, event in enumerate(second)]
    state = model.encode_history(processor(Request(first)))
    state = model.extend(state, processor.events([later]))
    asked = Request([*first, *later], timestamp=900_000)
    whole = model.retrieve(processor(asked), top_k=100, exclude_seen=False)
    assert_same_scores(
        model.retrieve(processor(Request(timestamp=900_000)), top_k=100, state=state, exclude_seen=False),
        whole,
        atol=1e-4,
    )


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_views_are_saved_with_the_model_and_no_part_of_its_training(make, windows, tmp_path):
    model, processor = make_fused(make, make_sasrec())
    before = model.retrieve(processor(FUSED), top_k=100, exclude_seen=False)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert_same_scores(loaded.retrieve(processor(FUSED), top_k=100, exclude_seen=False), before)
    model.item_index = "faiss"
    assert_same_scores(model.retrieve(processor(FUSED), top_k=100, exclude_seen=False), before)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "recommender" in name]
    # A changed file is refused, and what is saved without views leaves none behind.
    loaded.config.view_weights = []
    loaded.set_views(None)
    file = tmp_path / "views" / "collaborative.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="collaborative.safetensors is not the file that was saved"):
        AutoModel.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path)
    assert not (tmp_path / "views").exists()
    assert AutoModel.from_pretrained(tmp_path).views is None


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_what_an_earlier_version_added_is_read(make, tmp_path):
    sasrec = make_sasrec()
    model, processor = make_fused(make, sasrec)
    before = model.retrieve(processor(FUSED), top_k=100, exclude_seen=False)
    model.set_views(None)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("view_weights") == WEIGHTS
    del config["views_hash"]
    config |= {"recommender_weight": 1.5, "text_weight": 4.0, "recommender": recommender_sizes(sasrec)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    kept = sasrec.model.state_dict()
    table = kept.pop("item_embedding.weight")
    fused = {f"fusion.recommender.{name}": value for name, value in kept.items()}
    fused |= {"fusion.table.ids.weight": table[1:-1], "fusion.recommender.item_embedding.weight": table[[0, 1, -1]]}
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, **{name: value.clone() for name, value in fused.items()}}, tmp_path / "model.safetensors")
    (tmp_path / "model_manifest.json").unlink()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert_same_scores(loaded.retrieve(processor(FUSED), top_k=100, exclude_seen=False), before)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_a_new_item_has_its_text_and_the_mean_of_those_like_it(make):
    sasrec = make_sasrec()
    model, processor = make_fused(make, sasrec)
    catalog = model.catalog
    text = aisle_vector("kitchen")[None]
    grown = catalog.add_items([{"item_id": "new", "title": "kitchen thing"}], semantic_embeddings=text)
    model.set_catalog(grown)
    processor.set_catalog(grown)
    inputs = processor(FUSED[:1])
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))[0], own_answers(model, inputs)[0]
    rows = catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id])
    by_sasrec = sasrec.score([rows])[0].numpy()
    neighbors = model.current_snapshot().text_neighbors(24, "recommendation")
    like_it = by_sasrec[neighbors.rows[neighbors.of_new[0]]].mean()
    more = 1.5 * like_it + 4.0 * text_scores(grown, rows)[24]
    assert found["new"] - own["new"] == pytest.approx(more * model.score_unit, abs=2e-5)
    ranked = scores_of(model.rank(processor(FUSED[:1], candidates=[["new", "i3"]])))[0]
    if not model.judges_candidates:
        assert ranked["new"] == pytest.approx(found["new"], abs=2e-5)
    # In a history it stands at the same place.
    table = torch.from_numpy(sasrec.item_embeddings())
    later = [*HISTORY, Event("new", timestamp=250_000)]
    inputs = processor([Request(later, timestamp=300_000)])
    model.config.view_weights = WEIGHTS[:1]
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))[0], own_answers(model, inputs)[0]
    start = sasrec.model.item_embedding.weight[sasrec.config.start_token_id]
    place = table[neighbors.rows[neighbors.of_new[0]]].mean(0)
    embeds = torch.stack([start, *table[rows], place])[None]
    with torch.no_grad():
        state = sasrec.model(torch.ones(embeds.shape[:2], dtype=torch.long), inputs_embeds=embeds).last_hidden_state
    expected = 1.5 * (state[0, -1] @ table.T).numpy() * model.score_unit
    np.testing.assert_allclose([found[item] - own[item] for item in catalog.id_map.ids], expected, atol=2e-5)


def test_an_item_without_events_has_the_mean_of_those_like_it():
    sasrec = make_sasrec()
    model, processor = make_fused(make_synergen, sasrec, view_weights=WEIGHTS[:1], ranking_weight=0.0)
    is_predicted = np.arange(len(model.catalog)) == 7
    catalog = replace(model.catalog, is_predicted=is_predicted)
    model.set_catalog(catalog)
    processor.set_catalog(catalog)
    inputs = processor(FUSED[:1])
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))[0], own_answers(model, inputs)[0]
    rows = catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id])
    assert 7 not in rows
    neighbors = model.current_snapshot().text_neighbors(24, "recommendation")
    (like_it,) = neighbors.rows[neighbors.of_new]
    by_sasrec = sasrec.score([rows])[0].numpy()
    by_sasrec[7] = by_sasrec[like_it].mean()
    expected = 1.5 * by_sasrec * model.score_unit
    np.testing.assert_allclose([found[item] - own[item] for item in catalog.id_map.ids], expected, atol=2e-5)


@pytest.mark.parametrize(("make", "settings"), MAKERS)
def test_being_new_counts_once_for_new_items_of_a_task(make, settings):
    weights = ["recommendation.new=0.5", "search.new=-2"]
    model, processor = make(view_weights=weights, **settings)
    model.set_views(Views(24))
    inputs = processor([*FUSED[:1], SEARCH])
    assert scores_of(model.retrieve(inputs, top_k=99)) == scores_of(model.without_views().retrieve(inputs, top_k=99))
    text = aisle_vector("kitchen")[None]
    grown = model.catalog.add_items([{"item_id": "new", "title": "kitchen thing"}], semantic_embeddings=text)
    grown = replace(grown, is_predicted=grown.is_predicted | (np.arange(25) == 7))
    for part in (model, processor):
        part.set_catalog(grown)
    inputs = processor([*FUSED[:1], SEARCH])
    found = scores_of(model.retrieve(inputs, top_k=99, exclude_seen=False))
    alone = scores_of(model.without_views().retrieve(inputs, top_k=99, exclude_seen=False))
    for line, own, weight in zip(found, alone, (0.5, -2.0), strict=True):
        more = {item: line[item] - own[item] for item in grown.id_map.ids}
        assert more["new"] == pytest.approx(weight * model.score_unit, abs=2e-5) == more.pop("i7")
        del more["new"]
        assert max(map(abs, more.values())) < 1e-5


def make_items(titles):
    none = [None] * len(titles)
    columns = {"item_id": [f"i{number}" for number in range(len(titles))], "title": titles, "description": none}
    return pa.table({**columns, "categories": pa.array(none, pa.list_(pa.list_(pa.string())))})


def test_words_are_weighed_by_hand_and_new_items_by_the_same_numbers():
    index = LexicalIndex.fit(make_items(["red pan", "red pan pan lid", "blue cup"]), LexicalSettings(("title",)))
    # idf = log(1 + (3 - n + 0.5) / (n + 0.5)); 8 words of 3 items: a length of 8 / 3 is usual.
    rare, common = np.log(1 + 2.5 / 1.5), np.log(1 + 1.5 / 2.5)

    def weight(idf, count, length):
        return idf * count / (count + 1.5 * (0.25 + 0.75 * length * 3 / 8))

    expected = [weight(common, 1, 2), weight(common, 2, 4) + weight(rare, 1, 4), 0]
    np.testing.assert_allclose(index.scores(["a lid for pans"]).toarray()[0], expected, rtol=1e-6)
    grown = index.grown(make_items(["red pan", "red pan pan lid", "blue cup", "lid lid teapot"]))
    found = grown.scores(["a lid for pans", "teapot", "\u8336"]).toarray()
    np.testing.assert_allclose(found[0], [*expected, weight(rare, 2, 3)], rtol=1e-6)
    new = np.log(1 + 3.5 / 0.5)
    np.testing.assert_allclose(found[1], [0, 0, 0, weight(new, 1, 3)], rtol=1e-6)
    assert not found[2].any()
    again = LexicalIndex.from_arrays(index.arrays(), json.loads(json.dumps(index.describe())), 3)
    assert (again.scores(["red cup"]) != index.scores(["red cup"])).nnz == 0


def test_a_changed_catalogue_has_the_views_of_one_made_anew(monkeypatch):
    """After additions, updates and removals in any order; of what both have, nothing is made again."""
    for name in ("_FEW_ITEMS", "_ROWS_AT_ONCE"):
        monkeypatch.setattr(products, name, {"_FEW_ITEMS": 0, "_ROWS_AT_ONCE": 7}[name])
    monkeypatch.setattr(products, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr("seekrec.models.views.lexical._MOST_STRETCHES", 3)
    weights = write_view_weights({"search": dict.fromkeys(ANSWER_VIEWS, 1.0)})
    model, processor = make_synergen(view_weights=weights)
    catalog, rng = model.catalog, np.random.default_rng(0)
    log = QueryLog.count(["garden", "thing"], np.array([0, 0, 1]), np.array([3, 5, 7]), num_items=len(catalog))
    words = LexicalIndex.fit(catalog.items, LexicalSettings(("title",)))
    near, unsearched = make_near(len(catalog)), UnsearchedWords.fit(catalog.items, log)
    views = Views(len(catalog), None, words, log, near, unsearched).with_recommender(make_sasrec(len(catalog)))
    model.set_views(views)
    request = Request(HISTORY, query="garden thing 5 new4", timestamp=300_000)
    texts: list[object] = []
    for step, change in enumerate(["none", *"aauaraaurasaaaa"]):
        if change == "a":
            names = [f"new{step}-{number}" for number in range(int(rng.integers(1, 4)))]
            vectors = rng.normal(size=(len(names), catalog.embeddings["semantic"].shape[1])).astype(np.float32)
            records = [{"item_id": name, "title": f"garden {name} thing"} for name in names]
            catalog = catalog.add_items(records, semantic_embeddings=vectors)
        elif change == "u":
            catalog = catalog.update_items([{"item_id": "i4", "available_from": step}])
        elif change in "rs":
            ids = [catalog.id_map.ids[2], catalog.id_map.ids[-1]]
            catalog = catalog.remove_items(ids) if change == "r" else catalog.restore_items(ids[1:])
        model.set_catalog(catalog)
        processor.set_catalog(catalog)
        snapshot, inputs = model.current_snapshot(), processor([request])
        found = model.retrieve(inputs, top_k=20)
        kept = snapshot.value("views", lambda: pytest.fail("not made"), (views, model.device))
        new = snapshot.new_rows(model.config.num_items)
        asked_of = ("recommendation", "search") if len(new) else ()
        neighbors = {name: snapshot.text_neighbors(model.config.num_items, name) for name in asked_of}
        anew = CatalogViews(views, catalog, model.device, neighbors, new)
        asked = model.view_requests(inputs, [1]), model.view_weights, 1.0
        total, expected = (
            AddedScores(one.added(*asked), 1, len(catalog), model.device).numbers() for one in (kept, anew)
        )
        np.testing.assert_allclose(total, expected, atol=1e-5)
        for one, other in ((kept.texts, anew.texts), (kept.item_table, anew.item_table)):
            assert torch.equal(one.rounded.items, other.rounded.items)
            assert one.rounded.error == pytest.approx(other.rounded.error)
            assert one.longest == pytest.approx(other.longest)
        assert [item.item_id for item in found[0]]
        texts.append(kept.texts.rounded.items.data_ptr())
    assert len(set(texts)) < len(texts)  # grown in place where there was room
    # What grew twice from one catalogue stays apart.
    vectors = rng.normal(size=(2, 1, catalog.embeddings["semantic"].shape[1])).astype(np.float32)
    both = [
        catalog.add_items([{"item_id": f"twin{number}", "title": "a"}], semantic_embeddings=vector)
        for number, vector in enumerate(vectors)
    ]
    for one, vector in zip(both, vectors, strict=True):
        np.testing.assert_array_equal(one.embeddings["semantic"][-1], vector[0].astype(np.float16))


def test_words_that_nobody_searched_for_by_hand(tmp_path):
    """Ten clicks after "red", eight of them on red items; "kite" is a word of one item of four, "wooden" of two."""
    titles = ["red kite", "red wooden blocks", "wooden boat", "chess"]
    items = pa.table({"item_id": list("abcd"), "title": titles})
    catalog = Catalog.build(items)
    clicks = np.array([0] * 5 + [1] * 3 + [3] * 2)
    log = QueryLog.count(["red"], np.zeros(10, np.int64), clicks, num_items=4)
    words = UnsearchedWords.fit(catalog.items, log)
    # 8.5 of 11: what is counted, and half a click each way.
    assert words.trust == pytest.approx(8.5 / 11)
    odds = np.log(8.5 / 2.5)
    kite, wooden = odds + np.log(3 / 1), odds + np.log(2 / 2)
    expected = [[0] * 4, [kite, 0, 0, 0], [kite, wooden, wooden, 0], [0] * 4]
    queries = ["red", "red kite", "wooden KITES kite", "tent"]
    np.testing.assert_allclose(words.scores(queries).toarray(), expected, rtol=1e-6)
    # Of later items, a word that the first ones have counts as theirs does, and one that they have not as of one item.
    more = [{"item_id": "e", "title": "red tent"}, {"item_id": "f", "title": "kite tent"}, {"item_id": "g"}]
    more[-1]["title"] = "!"
    rows = pa.Table.from_pylist([*items.to_pylist(), *more])
    grown = words.grown(Catalog.build(rows).items)
    assert grown.num_items == 7 and grown.grown(Catalog.build(rows).items) is grown
    assert grown.grown(items) is grown  # an earlier catalogue again
    tent = odds + np.log(3)
    np.testing.assert_allclose(
        grown.scores(["kite tent red"]).toarray(), [[kite, 0, 0, 0, tent, kite + tent, 0]], rtol=1e-6
    )
    # Trust has a limit; and with views it is saved.
    sure = UnsearchedWords.fit(catalog.items, QueryLog.count(["red"], [0] * 90, [0] * 90, num_items=4))
    assert sure.trust == 0.9
    views = Views(4, unsearched=words)
    views.save(tmp_path)
    again = Views.load(tmp_path)[0].unsearched
    assert again.trust == words.trust
    np.testing.assert_array_equal(again.scores(queries).toarray(), words.scores(queries).toarray())
    assert views.only(["lexical"]).unsearched is None and views.only(["unsearched"]).unsearched is words


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_a_search_for_what_nobody_searched_for_gets_its_words(make):
    model, processor = make(view_weights=["search.unsearched=2"])
    catalog = model.catalog
    log = QueryLog.count(["garden"], np.array([0, 0]), np.array([3, 5]), num_items=len(catalog))
    model.set_views(Views(len(catalog), unsearched=UnsearchedWords.fit(catalog.items, log)))
    inputs = processor([Request(HISTORY, query="garden 7", timestamp=300_000), Request(HISTORY, timestamp=300_000)])
    found = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))
    own = own_answers(model, inputs)
    assert found[1] == pytest.approx(own[1], abs=1e-4)
    titles = dict(zip(catalog.id_map.ids, catalog.titles(catalog.id_map.ids), strict=True))
    (holder,) = (item for item, title in titles.items() if "7" in title.split())
    trust = model.views.unsearched.trust
    gain = np.log(trust / (1 - trust)) + np.log(len(catalog) - 1)
    for item, score in found[0].items():
        assert score - own[0][item] == pytest.approx(2 * gain * model.score_unit * (item == holder), abs=1e-3)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_a_search_gets_words_clicks_and_cosines(make, tmp_path):
    model, processor = make(view_weights=["search.lexical=2", "search.query_log=0.5", "search.semantic=3"])
    catalog = model.catalog
    log = QueryLog.count(["garden", "kitchen"], np.array([0, 0, 0, 1]), np.array([3, 3, 5, 7]), num_items=len(catalog))
    words = LexicalIndex.fit(catalog.items, LexicalSettings())
    model.set_views(Views(len(catalog), None, words, log))
    requests = [Request(HISTORY, query="garden", timestamp=300_000), Request(HISTORY, timestamp=300_000)]
    inputs = processor(requests)
    found = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))
    own = own_answers(model, inputs)
    texts = catalog.embeddings["semantic"] - catalog.embeddings["semantic"].mean(0)
    query = processor.query_vectors.encode(["garden"])[0]
    expected = 3 * texts @ query / np.linalg.norm(query) / np.linalg.norm(texts, axis=1)
    for weight, matches in ((2, words), (0.5, log)):
        scores = matches.scores(["garden"]).toarray()[0]
        expected = expected + weight * np.log1p(1000 * scores / scores.max())
    ids = catalog.id_map.ids
    np.testing.assert_allclose([found[0][one] - own[0][one] for one in ids], expected * model.score_unit, atol=5e-5)
    np.testing.assert_allclose([found[1][one] for one in ids], [own[1][one] for one in ids], atol=1e-6)
    # Alone as in a batch, with `where`, ranked, and saved.
    alone = scores_of(model.retrieve(processor(requests[0]), top_k=100, exclude_seen=False, where=["i3", "i7"]))[0]
    assert alone == pytest.approx({name: found[0][name] for name in ("i3", "i7")}, abs=1e-4)
    ranked = scores_of(model.rank(processor(requests[:1], candidates=[["i3", "i7"]])))[0]
    if not model.judges_candidates:
        assert ranked == pytest.approx(alone, abs=1e-4)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert scores_of(loaded.retrieve(inputs, top_k=100, exclude_seen=False))[0] == pytest.approx(found[0], abs=1e-5)


@pytest.mark.parametrize("make", [make_synergen, make_intsr, make_gensar, make_gensr])
def test_views_are_weighed_by_the_history_that_answers_are_given_by(make, aisles):
    """A dense model reads the latest 12 events, and so do its views; the others look at all."""
    if make in (make_gensar, make_gensr):
        model, processor = make(aisles, view_weights=["recommendation.item_knn=0.5"])
    else:
        model, processor = make(view_weights=["recommendation.item_knn=0.5"])
    near = ItemNeighbors(make_near().similarities, decay=0.95)
    model.set_views(Views(24, item_knn=near))
    request = Request([Event(f"i{step}", timestamp=step) for step in range(20)], timestamp=30)
    inputs = processor([request])
    views = model.catalog_views(model.current_snapshot(), model.views)
    parts = views.added(model.view_requests(inputs, [0]), model.view_weights, model.score_unit)
    found = scores_of(model.retrieve(inputs, top_k=24, exclude_seen=False))[0]
    plain = own_answers(model, inputs)[0]
    rows = np.arange(24)
    weighed = AddedScores(parts, 1, 24, torch.device("cpu")).at([rows])[0]
    given = np.array([found[one] - plain[one] for one in model.catalog.id_map.ids if one in found])
    told = np.array([weighed[row] for row, one in enumerate(model.catalog.id_map.ids) if one in found])
    np.testing.assert_allclose(given, told, atol=5e-5)
    read = model.catalog.id_map.convert_to_rows([f"i{step}" for step in range(20)])
    read = read[-12:] if make in (make_synergen, make_intsr) else read
    sums = (0.95 ** np.arange(len(read))[::-1, None] * near.similarities.toarray()[read]).sum(0)
    np.testing.assert_allclose(weighed, 0.5 * model.score_unit * np.log1p(1000 * sums / sums.max()), rtol=1e-4)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_both_tasks_get_what_the_same_users_acted_on(make, tmp_path):
    model, processor = make(view_weights=["search.item_knn=2", "recommendation.item_knn=0.5"])
    near, catalog = make_near(), model.catalog
    model.set_views(Views(24, item_knn=near))
    inputs = processor([SEARCH, FUSED[0], Request(timestamp=300_000)])
    rows = catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id])
    expected = np.stack([2 * near_scores(near, rows), 0.5 * near_scores(near, rows), np.zeros(24)])
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False)), own_answers(model, inputs)
    for line, plain, more in zip(found, own, expected, strict=True):
        np.testing.assert_allclose(
            [line[one] - plain[one] for one in catalog.id_map.ids], more * model.score_unit, atol=5e-5
        )
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert scores_of(loaded.retrieve(inputs, top_k=100, exclude_seen=False))[1] == pytest.approx(found[1], abs=1e-5)
    # A new item has the mean of the sums of those with texts like it, and is near to nothing itself.
    grown = catalog.add_items([{"item_id": "new"}], semantic_embeddings=aisle_vector("kitchen")[None])
    model.set_catalog(grown)
    processor.set_catalog(grown)
    neighbors = model.current_snapshot().text_neighbors(24, "recommendation")
    sums = near.scores(Ragged.from_arrays([np.asarray(rows)])).toarray()[0]
    mean = sums[neighbors.rows[neighbors.of_new[0]]].mean()
    later = Request([*HISTORY, Event("new", timestamp=250_000)], timestamp=300_000)
    inputs = processor([FUSED[0], later])
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False)), own_answers(model, inputs)
    for line, plain, share in zip(found, own, (1, 1), strict=True):
        expected = 0.5 * np.log1p(1000 * share * mean / max(sums.max(), mean))
        assert line["new"] - plain["new"] == pytest.approx(expected * model.score_unit, abs=5e-5)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_boosts_are_added_to_all_scores(make):
    model, processor = make_fused(make, make_sasrec())
    inputs = processor([FUSED[0], SEARCH])
    plain = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))
    ids = model.catalog.id_map.ids
    boosts = np.random.default_rng(0).normal(size=(2, len(ids))).astype(np.float32)
    for boost in (boosts, boosts[0], dict(zip(ids[:5], boosts[0, :5].tolist(), strict=True))):
        wide = np.zeros_like(boosts)
        wide += np.array([boost.get(one, 0) for one in ids]) if isinstance(boost, dict) else boost
        best = model.retrieve(inputs, top_k=4, exclude_seen=False, boost=boost, where=[ids[:20], None])
        if not isinstance(boost, dict):
            tensor = torch.from_numpy(boost.astype(np.float64)).requires_grad_()
            assert model.retrieve(inputs, top_k=4, exclude_seen=False, boost=tensor, where=[ids[:20], None]) == best
        for answer, scores, line, allowed in zip(best, plain, wide, (ids[:20], ids), strict=True):
            total = {one: scores[one] + line[ids.index(one)] for one in allowed}
            expected = sorted(total, key=total.get, reverse=True)[:4]
            assert [item.item_id for item in answer] == expected
            assert scores_of([answer])[0] == pytest.approx({one: total[one] for one in expected}, abs=1e-4)
    for wrong, message in (
        (boosts[:, 1:], "`boost` has shape \\(2, 23\\)"),
        (np.full(24, np.nan), "`boost` is nan for the item in row 0"),
        ({"i1": "much"}, "`boost` maps 'i1' to 'much'"),
        ("i1", "`boost` is 'i1'"),
        ({"i1": 1e39}, "`boost` is inf for the item in row 1"),
        ({"i1": 10**400}, "`boost` is "),
        (np.full(24, -1e39), "`boost` is -inf for the item in row 0"),
        ({"i2": -10_001}, r"`boost` is -10001.0 for the item in row 2; give numbers from -10,000 to 10,000"),
    ):
        with pytest.raises(RequestError, match=message):
            model.retrieve(inputs, boost=wrong)
    with pytest.raises(UnknownItemError, match="`boost`: 1 of 2 ids are unknown, the first is 'i99'"):
        model.retrieve(inputs, boost={"i1": 1.0, "i99": 1.0})
    with pytest.raises(UnknownItemError, match="`where`: 1 of 2 ids are unknown, the first is 'i99'"):
        model.retrieve(inputs, where=["i1", "i99"])


@pytest.mark.parametrize("seed", range(6))
def test_products_with_limits_are_made_of_the_best_alone(seed):
    """By the sum of everything: with few and many items near the best, masks, and what earlier blocks hold."""
    rng, counts = np.random.default_rng(seed), [3, 1, 7, 20]
    texts = F.normalize(torch.from_numpy(rng.normal(size=(400, 6)).astype(np.float32)), dim=1)
    questions = torch.from_numpy((rng.normal(size=(4, 6)) * [0.01, 1, 30][seed % 3]).astype(np.float32))
    late = Products(questions, VectorTable(texts), limits=questions.norm(dim=1) * 1.001)
    lines = [(np.arange(5 * number), rng.normal(size=5 * number).astype(np.float32)) for number in range(4)]
    numbers = Numbers(torch.from_numpy(rng.normal(size=(4, 400)).astype(np.float32)))
    entries = Entries.from_lines(lines, torch.device("cpu"))
    added = AddedScores([numbers, late, entries], 4, 400, torch.device("cpu"))
    allowed = [None, rng.random(400) < 0.5, np.arange(400) < 2, np.zeros(400, bool)]
    total = numbers.values + questions @ texts.T
    for line, (rows, values) in zip(total, lines, strict=True):
        line[torch.from_numpy(rows)] += torch.from_numpy(values)
    np.testing.assert_allclose(added.numbers(), total, atol=1e-4)
    for line, mask in zip(total, allowed, strict=True):
        line[torch.zeros(400, dtype=torch.bool) if mask is None else torch.from_numpy(~mask)] = float("-inf")
    kept = [min(count, int(own.isfinite().sum())) for own, count in zip(total, counts, strict=True)]
    expected = [own.argsort(descending=True)[:count] for own, count in zip(total, kept, strict=True)]
    for found, best in zip(added.best(counts, allowed), expected, strict=True):
        assert found.tolist() == best.tolist()
    index = ItemIndex(torch.zeros(400, 2))
    given = np.arange(3, 400, 2)
    spoken_for = given, torch.from_numpy(rng.normal(size=(4, len(given))).astype(np.float32))
    with_given = total.clone()
    with_given[:, torch.from_numpy(given)] += spoken_for[1]
    by_given = [own.argsort(descending=True)[:count] for own, count in zip(with_given, kept, strict=True)]
    for cells in (10**6, 4 * 90):  # in one block, in five
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(added_scores, "_BLOCK_CELLS", cells)
            patch.setattr(added_scores, "_LEAST_ITEMS", 1)
            answers = index.search(torch.zeros(4, 2), counts, allowed, added)
            others = index.search(torch.zeros(4, 2), counts, allowed, added, spoken_for)
            # A few items are looked up, many are found among all.
            few, many = np.array([2, 5, 399]), np.flatnonzero(np.arange(400) % 3)
            told = [added.of_items(few), added.of_items(many)]
        for (rows, scores), best, own in zip(answers, expected, total, strict=True):
            assert rows.tolist() == best.tolist()
            np.testing.assert_allclose(scores, own[best], atol=1e-4)
        for (rows, scores), best, own in zip(others, by_given, with_given, strict=True):
            assert rows.tolist() == best.tolist()
            np.testing.assert_allclose(scores, own[best], atol=1e-4)
        for rows, scores in zip((few, many), told, strict=True):
            np.testing.assert_allclose(scores, added.numbers()[:, torch.from_numpy(rows)], atol=1e-4)


@pytest.mark.parametrize("cost", [0, 10**6])
def test_rough_products_find_what_exact_ones_do(cost, monkeypatch):
    """Of vectors of any length, and of those less a mean, looked through in halves where the processor has them."""
    rng, counts = np.random.default_rng(cost % 7), [5, 1, 40]
    monkeypatch.setattr(products, "_FEW_ITEMS", 0)
    monkeypatch.setattr(products, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(added_scores, "_COST_OF_PAIR", cost)
    vectors, texts = (torch.from_numpy(rng.normal(size=(9_000, 32)).astype(np.float32)) for _ in range(2))
    unit = F.normalize(texts - texts.mean(0), dim=1)
    questions = [torch.from_numpy(rng.normal(size=(3, 32)).astype(np.float32)) for _ in range(2)]
    table = VectorTable(texts, texts.mean(0), 1 / (texts - texts.mean(0)).norm(dim=1))
    late = Products(questions[1], table, questions[1].norm(dim=1) * 1.001)
    lines = [
        (np.arange(0, 9_000, 7), rng.normal(size=1286)),
        (np.empty(0, int), np.empty(0)),
        (np.arange(3), np.ones(3)),
    ]
    parts = [Products(questions[0], VectorTable(vectors)), Entries.from_lines(lines, torch.device("cpu")), late]
    added = AddedScores(parts, 3, 9_000, torch.device("cpu"))
    total = questions[0] @ vectors.T + questions[1] @ unit.T
    for line, (rows, values) in zip(total, lines, strict=True):
        line[torch.from_numpy(rows)] += torch.from_numpy(values).float()
    rough = torch.zeros(9_000, 3)
    parts[0].add_roughly(rough, 0)
    error = (rough - vectors @ questions[0].T).abs().amax(0)
    assert (error > 1e-4).all() and (error <= parts[0].slack).all()  # rounded, and by no more than is said
    allowed = [None, rng.random(9_000) < 0.3, np.arange(9_000) != int(total[2].argmax())]
    own = torch.from_numpy(rng.normal(size=(9_000, 3)).astype(np.float32))
    closed = torch.from_numpy(np.stack([np.ones(9_000, bool) if mask is None else mask for mask in allowed]))
    expected = torch.where(closed, total + own.T, float("-inf"))
    values, rows = added.best_sums(counts, allowed, lambda begin, end: own[begin:end])
    for line, count in enumerate(counts):
        best = expected[line].argsort(descending=True)[:count]
        assert rows[line, :count].tolist() == best.tolist()
        np.testing.assert_allclose(values[line, :count], expected[line, best], atol=1e-5)
    least = total.topk(30).values[:, -1] - 1e-4
    requests, rows, sums = added.above(least)
    assert {(int(line), int(row)) for line, row in zip(requests, rows, strict=True)} == {
        (line, row) for line in range(3) for row in total[line].argsort(descending=True)[:30].tolist()
    }
    np.testing.assert_allclose(sums, total[requests, rows], atol=1e-5)
    np.testing.assert_allclose(added.take([2, 0]).numbers(), total[[2, 0]], atol=1e-4)
    np.testing.assert_allclose(added.sample(10**6), total, atol=1e-4)


def test_weights_are_written_as_they_are_read():
    settings = ["search.lexical=0.5", "recommendation.collaborative=1"]
    assert write_view_weights(read_view_weights(settings)) == settings
    assert read_view_weights(["validation"]) == read_view_weights(["none"]) == {}
    for wrong in ("search=1", "search.words=1", "buy.lexical=1", "search.lexical=nan", "search.lexical"):
        with pytest.raises(StrictDataclassClassValidationError, match="`view_weights` has '"):
            make_intsr(view_weights=[wrong])


def test_views_leave_out_items_that_only_a_larger_catalogue_has():
    """A processor may have a larger catalogue than the model that answers."""
    model, _ = make_fused(make_intsr, make_sasrec())
    views = CatalogViews(
        replace(model.views, item_knn=make_near()), model.catalog, torch.device("cpu"), {}, np.empty(0, np.int64)
    )
    weights = {"recommendation": {"collaborative": 1.0, "item_knn": 1.0, "semantic": 1.0}}

    def added(history):
        asked = ViewRequests(["recommendation"], np.array([history]), [""], lambda: torch.zeros(1, 8))
        return AddedScores(views.added(asked, weights, 1.0), 1, 24, torch.device("cpu")).numbers()

    torch.testing.assert_close(added([24, 3, 30, 1]), added([3, 1, -1, -1]))
    assert added([3, 1]).abs().max() > 0.1


def test_items_like_new_ones_are_looked_for_where_a_view_reads_them():
    """SASRec and item-kNN read those of recommendations, a query log those of searches, words and texts neither."""
    model, processor = make_intsr()
    grow(model, processor)
    log = QueryLog.count(["garden"], np.array([0]), np.array([3]), num_items=24)
    words = LexicalIndex.fit(model.catalog.items.slice(0, 24), LexicalSettings())
    for views, asked in (
        (Views(24, lexical=words), []),
        (Views(24, make_sasrec()), ["recommendation"]),
        (Views(24, item_knn=make_near()), ["recommendation"]),
        (Views(24, query_log=log), ["search"]),
        (Views(24, make_sasrec(), words, log), ["recommendation", "search"]),
    ):
        made = model.catalog_views(model.current_snapshot(), views)
        assert list(made.neighbors) == asked and all(made.neighbors.values())


def test_views_of_other_items_are_refused():
    model, _ = make_intsr()
    with pytest.raises(ConfigurationError, match="knows 23 items, the catalogue has 24"):
        Views(24).with_recommender(make_sasrec(23))
    with pytest.raises(ConfigurationError, match="contain no recommender"):
        model.set_views(Views(24))
        model.config.view_weights = ["search.collaborative=1"]
        rows = model.catalog_views(model.current_snapshot(), replace(Views(24), lexical=None))
        _ = rows.item_vectors


def test_views_that_nothing_weighs_are_neither_made_nor_kept(aisles):
    split, catalog, *_ = aisles
    made = Views.fit(split, catalog, make_sasrec(len(catalog)), names=["item_knn", "collaborative"])
    assert made.names(catalog) == ["collaborative", "item_knn", "semantic"]
    kept = Views.fit(split, catalog, make_sasrec(len(catalog))).only(["lexical", "semantic"])
    assert kept.names(catalog) == ["lexical", "semantic"] and kept.only([]) is None


class FixedVectors(QueryVectors):
    """Every query to one vector; no encoder."""

    def _embed(self, texts):
        return np.tile(np.float16([1, -2, 3, 0, 0.5]), (len(texts), 1))


GENERATIVE = {
    "gensar-instructions": (make_gensar, {}),
    "gensar-stream": (make_gensar, {"corpus": "stream"}),
    "gensr-identifiers": (make_gensr, {}),
    "gensr-answer": (make_gensr, {"retrieve_by": "answer", "identifier_weight": 0.0}),
    "gensr-views": (make_gensr, {"retrieve_by": "views"}),
}


@pytest.mark.parametrize("way", GENERATIVE)
def test_generative_families_answer_by_the_same_sum(way, aisles, tmp_path, monkeypatch):
    make, settings = GENERATIVE[way]
    weights = [*WEIGHTS, *(f"search.{name}={weight}" for name, weight in [("lexical", 2), ("query_log", 0.5)])]
    near = [f"{task}.item_knn=0.5" for task in ("search", "recommendation")]
    model, processor = make(aisles, view_weights=[*weights, *near, "search.semantic=3"], **settings)
    monkeypatch.setattr("seekrec.models.interface.QueryVectors", FixedVectors)
    catalog, ids = model.catalog, model.catalog.id_map.ids
    sasrec = make_sasrec(len(catalog))
    log = QueryLog.count(["garden"], np.array([0, 0]), np.array([3, 5]), num_items=len(catalog))
    words = LexicalIndex.fit(catalog.items, LexicalSettings())
    item_knn = make_near(len(catalog))
    model.set_views(Views(len(catalog), None, words, log, item_knn).with_recommender(sasrec))
    inputs = processor([FUSED[0], SEARCH])
    found = scores_of(model.retrieve(inputs, top_k=100, num_beams=100, exclude_seen=False))
    own = own_answers(model, inputs)
    rows = catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id])
    texts = catalog.embeddings["semantic"].astype(np.float32)
    texts = texts - texts.mean(0)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    shares = 0.7 ** np.arange(len(rows))[::-1]
    like = texts @ (shares[:, None] * texts[rows]).sum(0) / shares.sum()
    like[rows] = 0
    query = np.float32([1, -2, 3, 0, 0.5])
    expected = [
        1.5 * sasrec.score([rows])[0].numpy() + 4 * like,
        3 * texts @ query / np.linalg.norm(query),
    ]
    for weight, matches in ((2, words), (0.5, log)):
        scores = matches.scores(["garden"]).toarray()[0]
        expected[1] = expected[1] + weight * np.log1p(1000 * scores / scores.max())
    expected = [more + 0.5 * near_scores(item_knn, rows) for more in expected]
    for scores, plain, more in zip(found, own, expected, strict=True):
        assert len(scores) == len(ids)
        np.testing.assert_allclose([scores[one] - plain[one] for one in ids], more, atol=1e-3)
    # Boosts on top, with few beams, `where`, and in `rank` what views add.
    boost = np.random.default_rng(0).normal(size=len(ids)).astype(np.float32) * 5
    for scores, answer in zip(
        found,
        model.retrieve(inputs, top_k=4, exclude_seen=False, boost=boost, where=ids[:15], exact=True),
        strict=True,
    ):
        total = {one: scores[one] + boost[ids.index(one)] for one in ids[:15]}
        assert scores_of([answer])[0] == pytest.approx(
            {one: total[one] for one in [x.item_id for x in answer]}, abs=1e-3
        )
        assert [item.item_id for item in answer] == sorted(total, key=total.get, reverse=True)[:4]
    model.save_pretrained(tmp_path)
    again = scores_of(
        AutoModel.from_pretrained(tmp_path).retrieve(inputs, top_k=100, num_beams=100, exclude_seen=False)
    )
    assert again[0] == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize("make", [make_gensar, make_gensr])
def test_a_change_of_the_catalogue_keeps_the_vectors_of_queries(make, aisles, monkeypatch):
    model, processor = make(aisles, view_weights=["search.semantic=3"])
    model.set_views(Views(len(model.catalog)))
    embedded = []

    class CountedVectors(FixedVectors):
        def _embed(self, texts):
            embedded.extend(texts)
            return super()._embed(texts)

    monkeypatch.setattr("seekrec.models.interface.QueryVectors", CountedVectors)
    model.retrieve(processor(SEARCH))
    for removed in ("i0", "i1"):
        catalog = model.catalog.remove_items([removed])
        model.set_catalog(catalog)
        processor.set_catalog(catalog)
        assert removed not in scores_of(model.retrieve(processor(SEARCH), top_k=100))[0]
    assert embedded == [SEARCH.query]
    # Another encoder, other vectors.
    model.set_catalog(replace(model.catalog, semantic_encoder_name="another"))
    model.retrieve(processor(SEARCH))
    assert embedded == [SEARCH.query] * 2


@pytest.mark.parametrize("make", [make_gensar, make_gensr])
def test_ranked_candidates_get_what_views_add(make, aisles):
    model, processor = make(aisles, view_weights=WEIGHTS)
    sasrec = make_sasrec(len(model.catalog))
    names = ["i3", "i1", "i20"]
    inputs = processor(FUSED[:1], candidates=[names])
    plain = scores_of(model.rank(inputs))[0]
    model.set_views(Views(len(model.catalog)).with_recommender(sasrec))
    views = model.catalog_views(model.current_snapshot(), model.views)
    rows = model.catalog.id_map.convert_to_rows(names)
    parts = views.added(model.view_requests(inputs, [0]), model.view_weights, 1.0)
    more = AddedScores(parts, 1, len(model.catalog), model.device).at([rows])[0]
    expected = {name: plain[name] + value for name, value in zip(names, more.tolist(), strict=True)}
    assert scores_of(model.rank(inputs))[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_a_ranking_head_that_begins_with_retrieval_knows_views(make):
    """Its logit less that without views is what the views add, in units of the loss, times factor and scale."""
    settings = {"ranks_with_retrieval": True, "ranking_weight": 1.0, "temperature": 2.0, "hidden_size": 8}
    model, processor = make_fused(make, make_sasrec(), **settings)
    model.retrieval_logit.factor.data.fill_(0.5)
    model.config.ranking_scales = [0.7, 0.3, 0.3, 0.0, 0.0] * 2
    names = list(model.catalog.id_map.ids)
    inputs = processor(FUSED, candidates=[names] * len(FUSED))
    with_views, alone = (
        [{item.item_id: np.log(item.score / (1 - item.score)) for item in line} for line in one.rank(inputs)]
        for one in (model, model.without_views())
    )
    added = [
        {item.item_id: item.score - own[item.item_id] for item in line}
        for line, own in zip(
            model.retrieve(inputs, top_k=len(names), exclude_seen=False), own_answers(model, inputs), strict=True
        )
    ]
    for line, plain, more in zip(with_views, alone, added, strict=True):
        for name in names:
            assert line[name] - plain[name] == pytest.approx(0.3 * 0.5 * more[name] / 2.0, abs=2e-4)
    assert max(map(abs, added[0].values())) > 0.1
