# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from small_shop import log_of

from seekrec.embeddings import last_interactions, sasrec_sequences, write_sequences
from seekrec.errors import UnknownItemError
from seekrec.events import Cases, Split, split_log
from seekrec.schema import IdMap
from seekrec.util.ragged import Ragged


def split_of(*events, train=True):
    """All events are training events, each a second after the one before."""
    lines = [(user, second, item, None if item else "words") for second, (user, item) in enumerate(events)]
    log = log_of(lines, items=list("abx"), name="letters")
    empty = np.empty(0, dtype=np.int64)
    cases = Cases([], [], [], [], empty, Ragged.from_lists([]))
    return Split(log, "leave_one_out", "strict", 0, np.arange(log.num_events if train else 0), cases, cases)


def test_sequences_follow_users_and_order():
    # u: a, then b told twice (a search, then a click), then a again; v: a search without a click, then b; w: no item.
    split = split_of(("u", "a"), ("u", "b"), ("u", "b"), ("u", "a"), ("v", None), ("v", "b"), ("w", None))
    sequences = sasrec_sequences(split, IdMap(["b", "a", "x"]))
    assert [sequence.tolist() for sequence in sequences] == [[1, 0, 1], [0]]
    assert sequences.values.dtype == "int32"


def test_same_item_of_two_users_in_a_row_is_kept():
    assert [s.tolist() for s in sasrec_sequences(split_of(("u", "a"), ("v", "a")), IdMap(["a"]))] == [[0], [0]]


def test_no_events_give_no_sequences():
    assert len(sasrec_sequences(split_of(("u", "a"), train=False), IdMap(["a"]))) == 0


def test_sequences_of_several_parts_are_mapped_end_to_end(tmp_path):
    id_map = IdMap(["a", "b", "x"])
    splits = [
        split_of(("u", "a"), ("u", "b"), ("v", "x")),
        split_of(("w", "a"), train=False),
        split_of(("w", "b")),
    ]
    parts = [sasrec_sequences(split, id_map) for split in splits]
    found = write_sequences(parts, tmp_path / "sequences")
    assert [sequence.tolist() for sequence in found] == [[0, 1], [2], [1]]
    assert isinstance(found.values, np.memmap) and found.values.dtype == "int32"
    assert len(write_sequences(parts[1:2], tmp_path / "none")) == 0


def test_unknown_item_is_refused():
    with pytest.raises(UnknownItemError, match="1 training events have an item .* first 'x'"):
        sasrec_sequences(split_of(("u", "a"), ("u", "x")), IdMap(["a"]))


def test_sequences_can_end_before_the_last_interactions():
    """Leave-one-out holds out the last two of each user: u trains on a, b, c, d, v on e and w on b and a."""
    lines = {"u": "abc+dfe", "v": "ead", "w": "badc"}  # "+": d is shown before it is acted on
    events = [
        (user, time, item.replace("+", "d"), None, "impression" if item == "+" else "click")
        for user, items in lines.items()
        for time, item in enumerate(items)
    ]
    split = split_log(log_of(events, name="letters"), keep_impressions=True)
    id_map = IdMap(list("abcdef"))
    item_ids = [event[2] for event in events]
    assert [item_ids[row] for row in last_interactions(split, 1).tolist()] == ["d", "a"]
    assert [item_ids[row] for row in last_interactions(split, 2).tolist()] == ["c", "d", "a"]
    # A user's first interaction is never left out.
    assert [item_ids[row] for row in last_interactions(split, 9).tolist()] == ["b", "c", "d", "a"]
    whole = [[0, 1, 2, 3], [4], [1, 0]]
    for count, expected in {0: whole, 1: [[0, 1, 2], [4], [1]], 2: [[0, 1], [4], [1]], 9: [[0], [4], [1]]}.items():
        found = sasrec_sequences(split, id_map, num_unseen_events=count)
        assert [sequence.tolist() for sequence in found] == expected, count
