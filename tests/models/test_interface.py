# SPDX-License-Identifier: Apache-2.0
"""What a model answers does not depend on what else is asked, nor on what the catalogue was before."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_shop import AISLES, NUM_ITEMS

from seekrec.catalog import Catalog
from seekrec.errors import RequestError
from seekrec.generation import IdentifierTrie, packed_linears
from seekrec.models import GenSARConfig
from seekrec.models.base import scored_items
from seekrec.models.dense import DenseRetrieval
from seekrec.models.interface import GenerativeModel
from seekrec.schema import Event, Request, ScoredItem


def assert_same(answer, expected):
    assert [item.item_id for item in answer] == [item.item_id for item in expected]
    np.testing.assert_allclose([item.score for item in answer], [item.score for item in expected], atol=1e-5)


@st.composite
def questions(draw):
    """A request with what is asked of it: history of 0 to 6 events, query or none, k, beams, mask, candidates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    query = draw(st.sampled_from([None, None, "garden", "a thing for the kitchen or the office"]))
    history = [
        Event(
            f"i{rng.integers(NUM_ITEMS)}",
            timestamp=step,
            **({} if rng.random() < 0.5 else {"behavior": "search", "query": "office"}),
        )
        for step in range(draw(st.integers(0, 6)))
    ]
    where = draw(st.sampled_from(["all", "some", "few", "ids", "none"]))
    allowed = {
        "all": None,
        "some": rng.random(NUM_ITEMS) < 0.5,
        "few": rng.random(NUM_ITEMS) < 0.1,
        "ids": [f"i{row}" for row in rng.choice(NUM_ITEMS, 3, replace=False)],
        "none": np.zeros(NUM_ITEMS, bool),
    }[where]
    candidates = [f"i{row}" for row in rng.choice(NUM_ITEMS, draw(st.integers(1, NUM_ITEMS)), replace=False)]
    return Request(history, query=query), draw(st.integers(1, 30)), draw(st.integers(1, 30)), allowed, candidates


@settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=st.lists(questions(), min_size=1, max_size=5), norm=st.sampled_from(["vocab", "level"]))
def test_a_mixed_batch_gives_what_each_request_gives_alone(gensar, asked, norm):
    model, processor = gensar
    requests, top_k, num_beams, where, candidates = map(list, zip(*asked, strict=True))
    found = model.retrieve(
        processor(requests), top_k=top_k, num_beams=num_beams, where=where, norm=norm, exclude_seen=False
    )
    ranked = model.rank(processor(requests, candidates=candidates), norm=norm)
    for index, request in enumerate(requests):
        alone = model.retrieve(
            processor([request]),
            top_k=top_k[index],
            num_beams=num_beams[index],
            where=[where[index]],
            norm=norm,
            exclude_seen=False,
        )
        assert_same(found[index], alone[0])
        assert_same(ranked[index], model.rank(processor([request], candidates=[candidates[index]]), norm=norm)[0])
        if where[index] is None:
            assert len(found[index]) == min(top_k[index], NUM_ITEMS)


def test_both_tasks_are_one_search(gensar, monkeypatch):
    model, processor = gensar
    requests = [Request(query=aisle) if number % 2 else Request() for number, aisle in enumerate([*AISLES, *AISLES])]
    calls = []

    def count_encoder(*args, **kwargs):
        calls.append(1)
        return forward(*args, **kwargs)

    forward = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", count_encoder)
    model.retrieve(processor(requests), exclude_seen=False)
    assert len(calls) == 1
    model.rank(processor(requests, candidates=[["i1", "i2"]] * 6))
    assert len(calls) == 2


def test_packed_layers_answer_the_same(gensar):
    model, processor = gensar
    inputs = processor([Request(), Request(query="office")])
    expected = model.retrieve(inputs, top_k=5, exclude_seen=False)
    with packed_linears(model, min_weights=1):
        for answer, plain in zip(model.retrieve(inputs, top_k=5, exclude_seen=False), expected, strict=True):
            assert [item.item_id for item in answer] == [item.item_id for item in plain]
            np.testing.assert_allclose([item.score for item in answer], [item.score for item in plain], atol=1e-4)


def test_numbers_that_do_not_fit_the_requests_are_refused(gensar):
    model, processor = gensar
    inputs = processor([Request(), Request(query="office")])
    with pytest.raises(RequestError, match=r"`top_k` is \[1, 2, 3\]; .* one for each of the 2 requests"):
        model.retrieve(inputs, top_k=[1, 2, 3], exclude_seen=False)
    with pytest.raises(RequestError, match="`num_beams` is 0; pass a positive number"):
        model.retrieve(inputs, num_beams=0, exclude_seen=False)
    with pytest.raises(RequestError, match="`where` has 3 filters for 2 requests"):
        model.retrieve(inputs, where=[None, None, None], exclude_seen=False)


def test_the_trie_stays_when_items_go_and_come_back(aisles, gensar):
    model, processor = gensar
    full, inputs = model.catalog, processor([Request(query="garden")])
    tries = [model.trie(view) for view in full.views]
    model.set_catalog(full.remove_items(["i3", "i4"]))
    assert [model.trie(view) for view in full.views] == tries
    found = [item.item_id for item in model.retrieve(inputs, top_k=NUM_ITEMS, exclude_seen=False)[0]]
    assert sorted(found) == sorted({f"i{row}" for row in range(NUM_ITEMS)} - {"i3", "i4"})
    model.set_catalog(model.catalog.restore_items(["i3"]))
    assert "i3" in [item.item_id for item in model.retrieve(inputs, top_k=NUM_ITEMS, exclude_seen=False)[0]]
    model.set_catalog(full)


def test_a_grown_catalogue_is_searched_as_one_built_at_once(gensar):
    model, processor = gensar
    small = model.catalog
    hidden = small.where(title_contains="garden")
    model.retrieve(processor([Request()]), where=hidden, exclude_seen=False)  # the old trie and a mask of it exist
    items = pa.table({"item_id": ["new", "newer"], "title": ["attic thing", "attic chest"]})
    grown = dataclasses.replace(
        small,
        items=pa.concat_tables([small.items, items], promote_options="default"),
        codes={view: np.concatenate([codes, [[3, 0], [0, 0]]]) for view, codes in small.codes.items()},
        embeddings={view: np.concatenate([vectors, vectors[:2]]) for view, vectors in small.embeddings.items()},
        is_removed=np.zeros(NUM_ITEMS + 2, bool),
        is_predicted=np.zeros(NUM_ITEMS + 2, bool),
    )
    model.config.identifier_hash = grown.identifier_hash  # as an identifier model would keep it
    model.set_catalog(grown)
    processor.set_catalog(grown)
    for view in grown.views:
        at_once = IdentifierTrie.from_codes(grown.codes[view], grown.codebook_size)
        assert torch.equal(model.trie(view).item_rows, at_once.item_rows)
        assert [codes.tolist() for codes in model.trie(view).codes] == [codes.tolist() for codes in at_once.codes]
    for request in (Request(), Request(query="attic")):
        inputs = processor([request])
        assert {item.item_id for item in model.retrieve(inputs, top_k=50, exclude_seen=False)[0]} == set(
            grown.id_map.ids
        )
        found = model.retrieve(inputs, top_k=50, where=grown.where(title_contains="attic"), exclude_seen=False)
        assert sorted(item.item_id for item in found[0]) == ["new", "newer"]
        with pytest.raises(RequestError, match=rf"a mask is boolean of shape \({NUM_ITEMS + 2},\)"):
            model.retrieve(inputs, where=hidden, exclude_seen=False)
    model.set_catalog(grown.remove_items(["new"]))
    answers = model.retrieve(processor([Request(), Request(query="attic")]), top_k=50, exclude_seen=False)
    assert all("new" not in {item.item_id for item in answer} and len(answer) == NUM_ITEMS + 1 for answer in answers)


@pytest.mark.parametrize("base", [GenerativeModel, DenseRetrieval])
def test_a_family_names_its_configuration(base):
    with pytest.raises(TypeError, match="NoConfiguration has no `config_class` of its own"):
        type("NoConfiguration", (base,), {})


def test_an_incomplete_family_is_refused():
    incomplete = type("Incomplete", (GenerativeModel,), {"config_class": GenSARConfig})
    with pytest.raises(TypeError, match="_make_snapshot"):
        incomplete(GenSARConfig())


def test_an_answer_names_items_without_a_title():
    for title in (None, "", "  "):
        items = pa.table(
            {"item_id": ["a", "b"], "title": ["Kite", title], "description": [None, "Ten  wooden\nblocks"]}
        )
        (answer,) = scored_items(Catalog.build(items), [(np.array([1, 0]), np.array([2.0, 1.0]))])
        assert answer == [ScoredItem("b", 2.0, "Ten wooden blocks"), ScoredItem("a", 1.0, "Kite")]
