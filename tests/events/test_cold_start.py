# SPDX-License-Identifier: Apache-2.0
"""Items that training knows nothing of."""

from __future__ import annotations

import pyarrow as pa
import pytest
from small_shop import log_of

from seekrec.errors import ConfigurationError
from seekrec.events import ColdStart, has_training_events, hold_out_items, split_log

# Of each user the last event is the test, the one before validation. "shown" was never acted on in training, "last"
# is a target only, "never" has no event at all.
LINES = [
    ("ann", 1, "a"),
    ("ann", 2, "b"),
    ("ann", 3, "shown", None, "impression"),
    ("ann", 4, "c"),
    ("ann", 5, "last", "last words"),
    ("bob", 1, "b"),
    ("bob", 2, "a"),
    ("bob", 3, "c"),
    ("bob", 4, "a2", "other words"),
]


@pytest.fixture
def split():
    return split_log(log_of(LINES, items=["a", "a2", "b", "c", "last", "never", "shown"]))


def test_items_without_training_events_are_told(split):
    known = dict(zip(split.log.items["item_id"].to_pylist(), has_training_events(split).tolist(), strict=True))
    assert known == {"a": True, "b": True, "a2": False, "c": False, "last": False, "never": False, "shown": False}
    cold = ColdStart.of_untrained(split)
    assert cold.item_ids == {"a2", "c", "last", "never", "shown"} and not cold.held_out
    assert cold.split is split


def test_held_out_items_leave_the_log_with_their_events(split):
    rest, cold = hold_out_items(split, 1, seed=0)
    (taken,) = cold.item_ids
    assert taken in {"last", "a2"} and cold.held_out and cold.split is split
    assert set(rest.items["item_id"].to_pylist()) == {"a", "a2", "b", "c", "last", "never", "shown"} - cold.item_ids
    assert rest.events["item_id"].to_pylist() == [line[2] for line in LINES if line[2] != taken]
    assert rest.notes[-1] == "1 items and the 1 events on them were held out."
    # What is trained on a user is earlier than the question that asks the user for the item.
    again = split_log(rest)
    asker = "ann" if taken == "last" else "bob"
    trained = again.train_events().filter(
        pa.array([user == asker for user in again.train_events()["user_id"].to_pylist()])
    )
    assert max(trained["timestamp"].to_pylist()) < (5 if taken == "last" else 4)


def test_the_draw_is_seeded_and_both_can_be_taken(split):
    first = hold_out_items(split, 1, seed=3)[1].item_ids
    assert hold_out_items(split, 1, seed=3)[1].item_ids == first
    assert {next(iter(hold_out_items(split, 1, seed=seed)[1].item_ids)) for seed in range(20)} == {"last", "a2"}
    assert hold_out_items(split, 2, seed=0)[1].item_ids == {"last", "a2"}


@pytest.mark.parametrize("count", [0, 3])
def test_too_many_are_refused(split, count):
    with pytest.raises(ConfigurationError, match=f"`num_cold_items` is {count}, .* has 2 different targets"):
        hold_out_items(split, count, seed=0)
