"""What every family of vectors promises; what each has of its own is in its own file."""

import torch
from dense_questions import collate

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
