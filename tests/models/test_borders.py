# SPDX-License-Identifier: Apache-2.0
"""What the four families take at their borders, and how they refuse the rest: alike."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from small_shop import FINDING, HISTORY, NUM_ITEMS, make_gensar, make_gensr, make_intsr, make_synergen

from seekrec.errors import ConfigurationError, NotFiniteError, RequestError, UnknownItemError
from seekrec.schema import Event, Request

MAKERS = {
    "gensar": make_gensar,
    "gensr": make_gensr,
    "gensr_asking": lambda aisles: make_gensr(aisles, retrieve_by="answer", shared_prompt=True, wording="short"),
    "gensr_finding": lambda aisles: make_gensr(aisles, **FINDING),
    "intsr": lambda aisles: make_intsr(),
    "synergen": lambda aisles: make_synergen(),
}
REQUESTS = [Request(HISTORY), Request(HISTORY[:1], query="garden")]


@pytest.fixture(scope="module", params=MAKERS)
def answering(request, aisles):
    """A model and its processor, of each family."""
    return MAKERS[request.param](aisles)


def ids_of(answers):
    return [[item.item_id for item in answer] for answer in answers]


@pytest.mark.parametrize("top_k", [np.int64(3), np.int32(3), np.array(3), torch.tensor(3), [3, np.int64(3)], (3, 3)])
def test_any_whole_number_is_a_top_k(answering, top_k):
    model, processor = answering
    inputs = processor(REQUESTS)
    assert ids_of(model.retrieve(inputs, top_k=top_k, exclude_seen=False)) == ids_of(
        model.retrieve(inputs, top_k=3, exclude_seen=False)
    )


@pytest.mark.parametrize(
    "top_k", [0, -1, 2.5, 3.0, True, [True, 3], None, "3", [3], [3, 0], [3, None], {3: 3}, np.nan]
)
def test_anything_else_is_none(answering, top_k):
    model, processor = answering
    with pytest.raises(RequestError, match="`top_k` is .* one for each of the 2 requests"):
        model.retrieve(processor(REQUESTS), top_k=top_k, exclude_seen=False)


@pytest.mark.parametrize("wish", [True, np.array([True, True]), np.True_, (True, np.True_), torch.ones(2).bool()])
def test_any_truth_says_whether_seen_items_are_left_out(answering, wish):
    model, processor = answering
    seen = [{event.item_id for event in request.history} for request in REQUESTS]
    found = ids_of(model.retrieve(processor(REQUESTS), top_k=NUM_ITEMS, exclude_seen=wish))
    assert [own.isdisjoint(answer) for own, answer in zip(seen, found, strict=True)] == [True, True]


@pytest.mark.parametrize("wish", ["no", 1, [True], [True, "no"], np.array([0, 1]), {True: False}])
def test_what_is_no_truth_is_refused(answering, wish):
    model, processor = answering
    with pytest.raises(RequestError, match="`exclude_seen` is .*; pass True, False or None, .* each of the 2"):
        model.retrieve(processor(REQUESTS), exclude_seen=wish)


@pytest.mark.parametrize("where", [("i3", "i4"), {"i3", "i4"}, [["i3", "i4"], ("i4", "i3")]])
def test_ids_may_come_in_any_collection(answering, where):
    model, processor = answering
    for answer in ids_of(model.retrieve(processor(REQUESTS), where=where, exclude_seen=False)):
        assert sorted(answer) == ["i3", "i4"]


def test_a_table_of_masks_has_one_for_each_request(answering):
    model, processor = answering
    where = np.zeros((2, NUM_ITEMS), bool)
    where[0, 3] = where[1, 4] = True
    tensor = torch.from_numpy(where)
    for given in (where, tensor, list(tensor), [tensor[0], ["i4"]]):
        assert ids_of(model.retrieve(processor(REQUESTS), where=given, exclude_seen=False)) == [["i3"], ["i4"]]
    for one in (where[0], tensor[0]):
        assert ids_of(model.retrieve(processor(REQUESTS), where=one, exclude_seen=False)) == [["i3"], ["i3"]]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (5, "`where` is 5; pass a boolean mask"),
        ("i3", "`where` is 'i3'; pass a boolean mask"),
        ({"i3": True}, "`where` is .*; pass a boolean mask"),
        (iter(["i3"]), "`where` is .*; pass a boolean mask"),
        ([True, False], "`where` contains True; a filter is a boolean mask"),
        ([["i3", None], None], "`where` contains None of type NoneType; a filter is"),
        (["i3", None], "`where` contains None of type NoneType; a filter is"),
        (np.ones(3, bool), r"`where` has dtype bool and shape \(3,\)"),
        (np.ones(NUM_ITEMS), "`where` has dtype float64"),
        (np.array(True), r"`where` has dtype bool and shape \(\)"),
        (torch.tensor(True), r"`where` has dtype bool and shape \(\)"),
        (torch.ones(NUM_ITEMS, dtype=torch.bfloat16), r"`where` has dtype torch\.bfloat16"),
        (torch.ones(NUM_ITEMS, dtype=torch.int64), r"`where` has dtype torch\.int64"),
        (torch.ones(3, dtype=torch.bool), r"`where` has dtype bool and shape \(3,\)"),
        (torch.ones(3, NUM_ITEMS, dtype=torch.bool), "`where` has 3 filters for 2 requests"),
        ([None], "`where` has 1 filters for 2 requests"),
    ],
)
def test_what_is_no_filter_is_refused(answering, where, message):
    model, processor = answering
    with pytest.raises(RequestError, match=message):
        model.retrieve(processor(REQUESTS), where=where, exclude_seen=False)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([None, ["i1"]], r"`candidates\[0\]` is None; give a list of item ids"),
        (5, "`candidates` is 5; give a list of item ids for each request"),
        ("i1", "`candidates` is 'i1'; give a list of item ids for each request"),
        ([["i1"], ["i2", 7]], r"`candidates\[1\]` contains 7 of type int; item ids are text"),
        ([["i1"], ["i2", ["i3"]]], r"`candidates\[1\]` contains \['i3'\] of type list"),
        ([["i1"], ["x", "i2", "y"]], r"`candidates\[1\]` names 2 items that are not in the catalogue: 'x', 'y'"),
    ],
)
def test_what_are_no_candidates_is_refused(answering, candidates, message):
    _, processor = answering
    with pytest.raises(RequestError, match=message):
        processor(REQUESTS, candidates=candidates)


def test_no_candidates_are_no_answer(answering):
    model, processor = answering
    first, second = model.rank(processor(REQUESTS, candidates=[[], ["i1", "i2"]]))
    assert first == [] and sorted(item.item_id for item in second) == ["i1", "i2"]


def test_an_unknown_item_of_one_history_leaves_the_others_their_answers(answering, caplog):
    model, processor = answering
    strange = Request([*HISTORY[:2], Event("nowhere", timestamp=2), HISTORY[2]])
    with caplog.at_level(logging.WARNING):
        found = ids_of(model.retrieve(processor([*REQUESTS, strange]), top_k=5, exclude_seen=False))
    assert "1 events of 1 of 3 histories have items that the catalogue lacks, the first is 'nowhere'" in caplog.text
    # The event is left out, as if it had not been: the third request is the first.
    assert found == [found[0], found[1], found[0]]
    strict = copy.copy(processor)
    strict.unknown = "raise"
    with pytest.raises(UnknownItemError, match="the first is 'nowhere' in history 2"):
        strict([*REQUESTS, strange])


def test_what_is_done_with_unknown_items_is_a_setting(answering, tmp_path):
    _, processor = answering
    settings = {"tokenizer": processor.tokenizer} if hasattr(processor, "tokenizer") else {}
    strict = type(processor)(**settings, catalog=processor.catalog, unknown="raise")
    strict.save_pretrained(tmp_path)
    assert type(processor).from_pretrained(tmp_path).unknown == "raise"
    with pytest.raises(ConfigurationError, match="`unknown` is 'drop'; use one of skip, raise"):
        type(processor)(**settings, unknown="drop")


def test_inputs_made_with_a_larger_catalogue_are_refused(answering):
    model, processor = answering
    inputs = processor(REQUESTS, candidates=[["i1"], ["i2", "i3"]])
    inputs["candidate_rows"] = inputs["candidate_rows"] + NUM_ITEMS
    with pytest.raises(RequestError, match=f"`candidate_rows` contains row .* the model's has {NUM_ITEMS} items"):
        model.rank(inputs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_neither_loaded_nor_answered_with(answering, bad, tmp_path):
    model, processor = copy.deepcopy(answering[0]), answering[1]
    name, weight = next(iter(model.named_parameters()))
    with torch.no_grad():
        weight[0, 0] = bad
    with pytest.raises(NotFiniteError, match="not finite|are not numbers"):
        model.retrieve(processor(REQUESTS), top_k=NUM_ITEMS, exclude_seen=False)
        model.rank(processor(REQUESTS, candidates=[["i0", "i1"]] * 2))
    model.save_pretrained(tmp_path)
    with pytest.raises(NotFiniteError, match=rf"The weights '{name}' of .* hold 1 of \d+ numbers .* first in row 0"):
        type(model).from_pretrained(tmp_path)
