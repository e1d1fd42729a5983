# SPDX-License-Identifier: Apache-2.0
"""States of a stream: what GenSAR's causal encoder reads in pieces equals what it reads at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_questions import assert_same_scores
from safetensors.torch import load_file, save_file
from small_shop import GENSAR_WAYS, NUM_ITEMS, AisleVectors, make_gensar, make_gensr

from seekrec.errors import DataError, NotFiniteError, RequestError
from seekrec.schema import Event, Request

BEAMS = {**GENSAR_WAYS["stream"], "order_by": "identifier"}
MAKERS = {
    "beams": BEAMS,
    "next_item": {**BEAMS, "order_by": "next_item", "query_reading": ["tokens", "words", "recommendation"]},
    "texts": {**BEAMS, "order_by": "next_item", "query_reading": ["text"], "query_size": 8},
    "codes": {"corpus": "stream", "reads_behavior": False},
}
LIMITS = {"max_history_recommendations": 5, "max_history_searches": 4}


@pytest.fixture(params=MAKERS)
def streamed(request, aisles):
    """A model and its processor, which read five recommendations and four searches."""
    model, processor = make_gensar(aisles, **MAKERS[request.param], **LIMITS)
    processor._query_vectors = AisleVectors()
    return model, processor


def draw_history(rng, length):
    """Recommendations, searches with and without a click, and items that were only shown."""
    events = []
    for time in range(length):
        item, kind = f"i{rng.integers(NUM_ITEMS)}", rng.integers(5)
        if kind < 2:
            query = str(rng.choice(["kitchen", "garden tool", "office thing with words"]))
            events.append(Event(item if kind else None, "search", timestamp=time, query=query))
        else:
            events.append(Event(item, timestamp=time, action="impression" if kind == 4 else "click"))
    return events


def read_in_pieces(model, processor, history, rng):
    cut = int(rng.integers(len(history) + 1))
    state = model.encode_history(processor(Request(history[:cut], query="left out")))
    while cut < len(history):
        step = int(rng.integers(1, 4))
        state = model.extend(state, processor.events([history[cut : cut + step]]))
        cut += step
    return state


def test_pieces_equal_the_whole(streamed):
    """Whatever the pieces, of users with histories of any length, alone and in one batch of both tasks."""
    model, processor = streamed
    rng = np.random.default_rng(0)
    histories = [draw_history(rng, length) for length in (0, 1, 3, 7, 12, 30)]
    states = [read_in_pieces(model, processor, history, rng) for history in histories]
    queries = [None, "garden", None, "office", "kitchen tool", None]
    candidates = [["i3", "i4", "i20"]] * len(histories)
    whole = processor([Request(*one) for one in zip(histories, queries, strict=True)], candidates)
    asked = processor([Request(query=query) for query in queries], candidates)
    options = {
        "top_k": [1, 5, NUM_ITEMS, 2, 9, 4],
        "num_beams": [NUM_ITEMS, 5, NUM_ITEMS, 9, 9, 9],
        "where": model.catalog.where(title_contains="e"),
        "boost": {"i3": 0.5},
    }
    # What was seen before the events that are read is excluded, too.
    expected = model.retrieve(whole, **options)
    joined = model.join_states([model.join_states(states[:2]), states[2], model.join_states(states[3:])])
    assert_same_scores(model.retrieve(asked, **options, state=joined), expected)
    assert_same_scores(model.retrieve(asked, exact=True, state=joined), model.retrieve(whole, exact=True))
    assert_same_scores(model.rank(asked, state=joined), model.rank(whole))
    order = torch.tensor([4, 4, 0, 5])
    for state in (joined.select(order), joined.select(order).compact()):
        again = processor([Request(query=queries[row]) for row in order])
        assert_same_scores(
            model.retrieve(again, state=state),
            model.retrieve(processor([Request(histories[row], query=queries[row]) for row in order])),
        )
    # A batch grows as its rows do, also where one of them gets nothing.
    more = [draw_history(rng, count) for count in (2, 0, 1, 1, 3, 0)]
    later = [[Event(e.item_id, e.behavior, e.timestamp + 50, e.query, e.action) for e in line] for line in more]
    grown = model.extend(joined, processor.events(later))
    longer = [Request([*one, *events], query) for one, events, query in zip(histories, later, queries, strict=True)]
    assert_same_scores(model.retrieve(asked, state=grown), model.retrieve(processor(longer)))


def test_a_saved_state_is_read_again_and_grows(streamed, tmp_path):
    model, processor = streamed
    rng, path = np.random.default_rng(1), tmp_path / "state.safetensors"
    histories = [draw_history(rng, length) for length in (0, 4, 30)]
    joined = model.join_states([read_in_pieces(model, processor, history, rng) for history in histories])
    model.save_state(joined, path)
    loaded = model.load_state(path)
    asked = processor([Request(query=query) for query in (None, "garden", None)])
    assert_same_scores(model.retrieve(asked, state=loaded), model.retrieve(asked, state=joined))
    more = processor.events([[Event("i5", "search", 100, "kitchen")]] * 3)
    assert_same_scores(
        model.retrieve(asked, state=model.extend(loaded, more)),
        model.retrieve(asked, state=model.extend(joined, more)),
    )


def test_damaged_states_are_refused_by_name(aisles, tmp_path):
    model, processor = make_gensar(aisles, **MAKERS["texts"])
    processor._query_vectors = AisleVectors()
    path, about = tmp_path / "state.safetensors", {"format": "seekrec-stream-state", "version": "1"}
    model.save_state(model.encode_history(processor(Request([Event("i1", "search", 3, "kitchen")]))), path)
    arrays = load_file(path)
    negative = torch.zeros_like(arrays["input_ids"])
    negative[0, 0] = arrays["input_ids"][0, 0] + 1
    wrong = {
        "its format is None": (arrays, None),
        "times": ({name: part for name, part in arrays.items() if name != "times"}, about),
        "other tensors": (arrays | {"seen_rows": arrays["seen_rows"].float()}, about),
        "other tensors than a state: .*'more'": (arrays | {"more": arrays["times"].clone()}, about),
        "contradict each other": (arrays | {"is_token": arrays["is_token"][:, :1].clone()}, about),
        "its queries are not": (arrays | {"num_queries": arrays["num_queries"] + 1}, about),
        "contains tokens that the model": (arrays | {"input_ids": arrays["input_ids"] - negative}, about),
    }
    for message, (parts, metadata) in wrong.items():
        save_file(parts, path, metadata=metadata)
        with pytest.raises(DataError, match=f"contains no state of streams .*{message}"):
            model.load_state(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="contains no state of streams"):
        model.load_state(path)
    save_file(arrays | {"seen_rows": arrays["seen_rows"] + 100}, path, metadata=about)
    with pytest.raises(RequestError, match=f"`seen_rows` contains row .* {NUM_ITEMS} items"):
        model.load_state(path)
    save_file(arrays | {"query_vectors": arrays["query_vectors"] * torch.nan}, path, metadata=about)
    with pytest.raises(NotFiniteError):
        model.load_state(path)
    save_file({name: part for name, part in arrays.items() if name != "query_vectors"}, path, metadata=about)
    with pytest.raises(RequestError, match="contains tokens alone of queries, the model reads query_vectors"):
        model.load_state(path)
    with pytest.raises(RequestError, match="not made with `corpus: stream`"):
        make_gensar(aisles)[0].load_state(path)


def test_queries_are_suggested_from_a_state(aisles):
    model, processor = make_gensar(aisles, **BEAMS, **LIMITS, trained_tasks=["nsqp"])
    rng = np.random.default_rng(2)
    histories = [draw_history(rng, length) for length in (0, 3, 30)]
    state = model.join_states([read_in_pieces(model, processor, history, rng) for history in histories])
    options = {"processor": processor, "num_queries": 3, "max_new_tokens": 4}
    whole = model.suggest_queries([Request(history) for history in histories], **options)
    assert model.suggest_queries([Request()] * 3, **options, state=state) == whole
    assert len({tuple(line) for line in whole}) > 1
    assert model.suggest_queries(Request(), **options, state=state.select(torch.tensor([2]))) == whole[2]
    with pytest.raises(RequestError, match="`state` contains the histories of 3 users for 1 requests"):
        model.suggest_queries(Request(), **options, state=state)


def test_only_what_is_new_is_encoded(aisles):
    model, processor = make_gensar(aisles, **BEAMS, **LIMITS)
    read = []
    attention = model.encoder.block[0].layer[0].SelfAttention
    attention.q.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    state = model.encode_history(processor(Request([Event(f"i{row}", timestamp=row) for row in range(3)])))
    lead_in = len(processor.tokenizer("History:", add_special_tokens=False)["input_ids"])
    assert read == [lead_in + 3] == state.num_positions.tolist()
    bytes_of_three = state.nbytes
    state = model.extend(state, processor.events([[Event("i9", "search", 3, "kitchen")]]))
    model.retrieve(processor(Request()), state=state)  # nothing to encode
    model.retrieve(processor(Request(query="garden")), state=state)
    assert read[1:] == [2, 1]
    # Two positions more: keys and values of both layers, as wide as the model, and a few tokens.
    assert 2 * 2 * 2 * 32 * 4 <= state.nbytes - bytes_of_three <= 2 * 2 * 2 * 32 * 4 + 200
    for row in range(3):  # the sixth recommendation drops the first, which all others saw
        state = model.extend(state, processor.events([[Event(f"i{row}", timestamp=5 + row)]]))
    assert read[3:] == [1, 1, lead_in + 2 + 5]


def test_what_does_not_fit_a_state_is_refused(aisles):
    model, processor = make_gensar(aisles, **BEAMS)
    state = model.encode_history(processor(Request([Event("i1", timestamp=3)])))
    with pytest.raises(RequestError, match="An event of user 0 has timestamp 1, the one before it 3: a state accepts"):
        model.extend(state, processor.events([[Event("i1", timestamp=1)]]))
    with pytest.raises(RequestError, match="The state contains the histories of 1 users, the events are of 3"):
        model.extend(state, processor.events([[Event("i1", timestamp=9)]] * 3))
    for call in (model.retrieve, model.rank):
        with pytest.raises(RequestError, match="`state` contains the histories of 1 users for 3 requests"):
            call(processor([Request()] * 3, candidates=[["i1"]] * 3), state=state)
    with pytest.raises(RequestError, match="`states` is empty"):
        model.join_states([])
    # Who cannot keep a history says so.
    for other, others in (make_gensar(aisles), make_gensr(aisles)):
        assert not other.keeps_states
        for call in (other.retrieve, other.rank):
            with pytest.raises(RequestError, match="reads the whole history again for each question"):
                call(others(Request(), candidates=[["i1"]]), state=state)
    instructed, writer = make_gensar(aisles)
    with pytest.raises(RequestError, match="not made with `corpus: stream`"):
        instructed.encode_history(writer(Request()))
