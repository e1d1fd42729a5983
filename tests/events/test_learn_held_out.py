# SPDX-License-Identifier: Apache-2.0
"""Splits whose training has what validation held out, and those that train on everything; by hand."""

import pytest
from small_shop import log_of

from seekrec.events import audit
from seekrec.events.splits import learn_held_out, split_log

DAY = 86_400


def trained(split):
    """User, item and time of the training events."""
    events = split.train_events().select(["user_id", "item_id", "timestamp"]).to_pylist()
    return [tuple(event.values()) for event in events]


def test_the_last_but_one_is_learned_by_hand():
    # a: the test is (E, 6); what lies before 6 and is not E is learned, the validation (D, 5) among it. b has no test.
    rows = [("a", 1, "E"), ("a", 2, "B"), ("a", 3, "D"), ("a", 4, "C"), ("a", 5, "D"), ("a", 6, "E")]
    split = split_log(log_of([*rows, ("b", 1, "A"), ("b", 9, "B")]))
    learning = learn_held_out(split)
    assert trained(learning) == [
        *(("a", "B", 2), ("a", "D", 3), ("a", "C", 4), ("a", "D", 5)),
        *(("b", "A", 1), ("b", "B", 9)),
    ]
    assert not len(learning.validation)
    assert learning.test.to_table().equals(split.test.to_table())
    assert audit(learning).num_leaks == 0
    assert learning.fingerprint != split.fingerprint


def test_the_tenth_before_the_last_is_learned_by_hand():
    # a: 21 interactions, the last two are the test. b: the test is C at 2, so B, at 2 as well, is not earlier.
    items = "ABRDEFGHIJKLMNOPQRSTU"
    rows = [("a", step, item) for step, item in enumerate(items, start=1)]
    rows += [("b", 1, "A"), ("b", 2, "B"), ("b", 2, "C"), ("c", 1, "A"), ("c", 99, "B")]
    learning = learn_held_out(split_log(log_of(rows), method="last_tenth"))
    assert [item for user, item, _ in trained(learning) if user == "a"] == list(items[:19])
    assert [entry for entry in trained(learning) if entry[0] != "a"] == [("b", "A", 1), ("c", "A", 1), ("c", "B", 99)]
    assert learning.test.item_id == ["T", "U", "C"]


def test_the_day_of_validation_is_learned_by_hand():
    # Days 0, 1, 2: the test is day 2, validation each user's first of day 1. User a looks for B on day 2, so its B of
    # day 0 is not learned; all of day 1 is, what came after the validation interaction as well.
    rows = [("a", 5, "B"), ("a", 6, "A"), ("a", DAY + 1, "C"), ("a", DAY + 2, "D"), ("a", 2 * DAY + 1, "B")]
    rows += [("b", 7, "B"), ("b", DAY + 3, "A")]
    split = split_log(log_of(rows), method="last_days")
    assert trained(split) == [("a", "A", 6), ("b", "B", 7)]
    assert trained(learn_held_out(split)) == [
        *(("a", "A", 6), ("a", "C", DAY + 1), ("a", "D", DAY + 2)),
        *(("b", "B", 7), ("b", "A", DAY + 3)),
    ]


def test_protocol_paper_keeps_its_leaks():
    rows = [("a", step, item) for step, item in enumerate("ABCDE", start=1)]
    split = split_log(log_of(rows), protocol="paper")
    learning = learn_held_out(split)
    assert {entry[1] for entry in trained(learning)} - {entry[1] for entry in trained(split)} == {
        *split.validation.item_id
    }
    assert learning.test.item_id == split.test.item_id == ["E"]


@pytest.mark.parametrize("method", ["leave_one_out", "last_tenth", "last_days"])
def test_everything_is_learned_and_nothing_asked(method):
    rows = [("a", DAY * step, item, "find it" if item == "C" else None) for step, item in enumerate("ABCDE")]
    split = split_log(log_of([*rows, ("b", 3 * DAY, "A", None)]), method=method)
    learning = learn_held_out(split, "everything")
    assert len(learning.train_rows) == split.log.num_events
    assert not len(learning.validation) and not len(learning.test)
    assert dict(learning.training_queries()) == {"find it": 1}
