# SPDX-License-Identifier: Apache-2.0
"""States of histories: what is read in pieces equals what is read at once, whatever the pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_questions import assert_same_scores
from safetensors.torch import load_file, save_file
from small_shop import HISTORY, HSTU, NUM_ITEMS, make_intsr, make_synergen

from seekrec.errors import DataError, RequestError
from seekrec.schema import Event, Request

MAKERS = {
    "intsr": lambda: make_intsr(),
    "intsr_merged": lambda: make_intsr(
        merge_event_tokens=True, starts_from_latest_item=True, ranks_with_retrieval=True
    ),
    "intsr_hstu": lambda: make_intsr(**HSTU),
    "intsr_views": lambda: make_intsr(view_weights=["recommendation.semantic=1"]),
    "synergen": lambda: make_synergen(),
    "synergen_queries": lambda: make_synergen(
        queries_in_context=True, time_encoding="both", ranks_with_retrieval=True
    ),
}
MAX_HISTORY = 12


@pytest.fixture(scope="module", params=MAKERS)
def dense(request):
    """A model and its processor, both of which read 12 events."""
    return MAKERS[request.param]()


def draw_history(rng, length):
    """Events with times that repeat, page views that are left and taken up again, and searches without a click."""
    events, time = [], 1000
    for _ in range(length):
        time += int(rng.choice([0, 60, 4000]))
        item = f"i{rng.integers(NUM_ITEMS)}"
        session = rng.choice([None, "a", "b", "c"])
        kind = rng.integers(4)
        if kind == 0:
            events.append(Event(None, "search", timestamp=time, query="kitchen", session_id=session))
        elif kind == 1:
            events.append(Event(item, "search", timestamp=time, query="office thing", session_id=session))
        else:
            events.append(Event(item, timestamp=time, session_id=session))
    return events


def read_in_pieces(model, processor, history, rng):
    cut = int(rng.integers(len(history) + 1))
    state = model.encode_history(processor(Request(history[:cut])))
    while cut < len(history):
        step = int(rng.integers(1, 4))
        state = model.extend(state, processor.events([history[cut : cut + step]]))
        cut += step
    return state


# Fewer than 12 events, as many, one more and many more; others are slow by mark.
@pytest.mark.parametrize("length", [3, 12, 13, 30, *(pytest.param(n, marks=pytest.mark.slow) for n in (8, 20))])
def test_pieces_equal_the_whole(dense, length):
    model, processor = dense
    rng = np.random.default_rng(length)
    history = draw_history(rng, length)
    state = read_in_pieces(model, processor, history, rng)
    assert state.num_events.tolist() == [min(len(history), MAX_HISTORY)]
    for asked in ({}, {"query": "garden"}, {"session_id": "a"}, {"session_id": "elsewhere", "query": "office"}):
        whole = processor(Request(history, timestamp=500_000, **asked), candidates=[["i3", "i4"]])
        alone = processor(Request(timestamp=500_000, **asked), candidates=[["i3", "i4"]])
        # What was seen before the latest 12 events is excluded, too.
        assert_same_scores(model.retrieve(alone, top_k=50, state=state), model.retrieve(whole, top_k=50))
        assert_same_scores(model.rank(alone, state=state), model.rank(whole))


def test_states_are_joined_picked_and_saved(dense, tmp_path):
    model, processor = dense
    rng = np.random.default_rng(7)
    histories = [draw_history(rng, length) for length in (5, 0, 20)]
    states = [read_in_pieces(model, processor, history, rng) for history in histories]
    whole = model.retrieve(processor([Request(history, timestamp=500_000) for history in histories]))
    asked = processor([Request(timestamp=500_000)] * 3)
    joined = model.join_states([model.join_states(states[:2]), states[2]])
    assert_same_scores(model.retrieve(asked, state=joined), whole)
    picked = joined.select(torch.tensor([2, 2, 0]))
    assert_same_scores(model.retrieve(asked, state=picked), [whole[2], whole[2], whole[0]])
    # What is picked of a batch is as long as it was alone, and joined as before.
    apart = [joined.select(torch.tensor([row])).compact() for row in range(3)]
    assert [one.nbytes for one in apart] == [one.compact().nbytes for one in states]
    assert apart[1].nbytes == 0 < apart[0].nbytes < apart[2].nbytes
    assert_same_scores(model.retrieve(asked, state=model.join_states(apart)), whole)
    path = tmp_path / "state.safetensors"
    model.save_state(joined, path)
    assert b"office" not in path.read_bytes()  # neither queries nor names of page views
    loaded = model.load_state(path)
    assert_same_scores(model.retrieve(asked, state=loaded), whole)
    # What was loaded grows as what was saved.
    later = [[Event("i5", timestamp=400_000, session_id="b")]] * 3
    grown = model.extend(loaded, processor.events(later))
    at_once = [Request([*one, *more], timestamp=500_000) for one, more in zip(histories, later, strict=True)]
    assert_same_scores(model.retrieve(asked, state=grown), model.retrieve(processor(at_once)))


def test_what_does_not_fit_a_state_is_refused(dense):
    model, processor = dense
    state = model.encode_history(processor(Request(HISTORY)))
    with pytest.raises(RequestError, match="An event of user 0 has timestamp 1, the one before it 3: a state accepts"):
        model.extend(state, processor.events([[Event("i1", timestamp=1)]]))
    with pytest.raises(RequestError, match="event 1 has timestamp 4, the one before it 5"):
        processor.events([[Event("i1", timestamp=5), Event("i1", timestamp=4)]])
    with pytest.raises(RequestError, match="The state contains the histories of 1 users, the events are of 3"):
        model.extend(state, processor.events([[Event("i1", timestamp=9)]] * 3))
    for call in (model.retrieve, model.rank):
        with pytest.raises(RequestError, match="`state` contains the histories of 1 users for 3 requests"):
            call(processor([Request()] * 3, candidates=[["i1"]] * 3), state=state)
    with pytest.raises(RequestError, match="`states` is empty"):
        model.join_states([])
    # No event is no change.
    assert_same_scores(
        model.retrieve(processor(Request()), state=model.extend(state, processor.events([[]]))),
        model.retrieve(processor(Request()), state=state),
    )


def test_damaged_states_are_refused_by_name(dense, tmp_path):
    model, processor = dense
    path = tmp_path / "state.safetensors"
    model.save_state(model.encode_history(processor(Request(HISTORY))), path)
    arrays = load_file(path)
    about = {"format": "seekrec-history-state", "version": "1"}
    wrong = {
        "its format is None": (arrays, None),
        "history_timestamps": ({name: value for name, value in arrays.items() if name != "history_timestamps"}, about),
        "other types": (arrays | {"history_item_rows": arrays["history_item_rows"].float()}, about),
        "its tensors have shapes": (arrays | {"history_mask": arrays["history_mask"][:, :1].clone()}, about),
        "query row 7": (arrays | {"history_query_rows": torch.full_like(arrays["history_query_rows"], 7)}, about),
    }
    for message, (parts, metadata) in wrong.items():
        save_file(parts, path, metadata=metadata)
        with pytest.raises(DataError, match=f"contains no state of histories .*{message}"):
            model.load_state(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="contains no state of histories"):
        model.load_state(path)
    save_file(arrays | {"history_item_rows": arrays["history_item_rows"] + 100}, path, metadata=about)
    with pytest.raises(RequestError, match=f"`history_item_rows` contains row .* {NUM_ITEMS} items"):
        model.load_state(path)
