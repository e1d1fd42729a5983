"""What every family of vectors promises; what each has of its own is in its own file."""

import pytest
import torch
from dense_questions import collate
from small_gensar import NUM_ITEMS

from seekrec.errors import RequestError
from seekrec.schema import Event, Request


def test_a_model_is_asked_as_it_was_taught(windows, dense_family):
    """The question of a window is the request that the user would have made at that moment."""
    model, processor = dense_family
    split, _, table = windows
    batch = collate(windows, processor, [0, 7])
    with torch.no_grad():
        taught = model.encode_questions(batch)
    events = split.log.events.to_pylist()
    for row, number in enumerate([0, 7]):
        own = [events[event] for event in table.windows.take([number]).values]
        for question, place in enumerate(table.questions.take([number]).values.tolist()):
            is_search = bool(batch["question_behavior_ids"][row, question])
            request = Request(
                [Event(one["item_id"], one["behavior"], one["timestamp"], one["query"]) for one in own[:place]],
                query=own[place]["query"] if is_search else None,
                timestamp=own[place]["timestamp"],
            )
            asked = model.encode_questions(processor(request)).detach()
            torch.testing.assert_close(taught[row, question], asked[0, 0], atol=1e-5, rtol=1e-5)


def test_a_question_does_not_know_its_answer_nor_what_came_later(windows, dense_family):
    model, processor = dense_family
    batch = collate(windows, processor, [3])
    asked = batch["question_events"][0]
    with torch.no_grad():
        before = model.encode_questions(batch)[0]
        for place in range(batch["history_mask"].shape[1]):
            changed = {name: value.clone() for name, value in batch.items()}
            changed["history_item_rows"][0, place:] = 23
            changed["history_action_ids"][0, place:] = 0
            after = model.encode_questions(changed)[0]
            untouched = asked <= place
            torch.testing.assert_close(after[untouched], before[untouched])
            assert not torch.allclose(after[~untouched], before[~untouched]) or not (~untouched).any()


SEEN = [Event(f"i{row}", timestamp=10 + row) for row in range(12)]


def test_what_was_seen_is_no_recommendation(dense_family):
    """All of the history counts, be it more than a model reads; an item that was only shown does not."""
    model, processor = dense_family
    shown = Event("i20", timestamp=30, action="impression")
    asked = [Request([*SEEN, shown]), Request(SEEN, query="office")]
    inputs = processor(asked)

    def found(**options):
        return [{item.item_id for item in answer} for answer in model.retrieve(inputs, top_k=50, **options)]

    everything = {f"i{row}" for row in range(NUM_ITEMS)}
    rest = everything - {f"i{row}" for row in range(12)}
    assert found() == [rest, everything]
    assert found(exclude_seen=True) == [rest, rest]
    assert found(exclude_seen=False) == [everything, everything]
    assert found(where=["i1", "i13"]) == [{"i13"}, {"i1", "i13"}]
    # The same as a mask without these items.
    mask = model.catalog.where(ids=rest)
    assert model.retrieve(inputs, top_k=5, exclude_seen=True) == model.retrieve(
        inputs, top_k=5, where=mask, exclude_seen=False
    )
    del inputs["seen_rows"]
    assert found(exclude_seen=False) == [everything, everything]
    with pytest.raises(RequestError, match="do not say what was seen; .*`exclude_seen=False`"):
        model.retrieve(inputs)


def test_what_a_state_has_read_was_seen_too(dense_family):
    model, processor = dense_family
    state = model.encode_history(processor(Request(SEEN[:3])))
    state = model.extend(state, processor.events([[Event("i5", timestamp=40)]]))
    answer = model.retrieve(processor(Request(timestamp=50)), top_k=50, state=state)[0]
    assert {item.item_id for item in answer} == {f"i{row}" for row in range(NUM_ITEMS)} - {"i0", "i1", "i2", "i5"}
    assert len(model.retrieve(processor(Request(timestamp=50)), top_k=50, state=state, exclude_seen=False)[0]) == 24
