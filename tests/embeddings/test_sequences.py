# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pyarrow as pa
import pytest

from seekrec.embeddings import sasrec_sequences
from seekrec.errors import UnknownItemError
from seekrec.schema import IdMap


def split_of(*events):
    users, items = zip(*events, strict=True) if events else ((), ())
    table = pa.table({"user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string())})
    return SimpleNamespace(train_events=lambda: table)


def test_sequences_follow_users_and_order():
    # u: a, then b told twice (a search, then a click), then a again; v: a search without a click, then b; w: no item.
    split = split_of(("u", "a"), ("u", "b"), ("u", "b"), ("u", "a"), ("v", None), ("v", "b"), ("w", None))
    sequences = sasrec_sequences(split, IdMap(["b", "a"]))
    assert [sequence.tolist() for sequence in sequences] == [[1, 0, 1], [0]]
    assert all(sequence.dtype == "int64" for sequence in sequences)


def test_same_item_of_two_users_in_a_row_is_kept():
    assert [s.tolist() for s in sasrec_sequences(split_of(("u", "a"), ("v", "a")), IdMap(["a"]))] == [[0], [0]]


def test_no_events_give_no_sequences():
    assert sasrec_sequences(split_of(), IdMap(["a"])) == []


def test_unknown_item_is_refused():
    with pytest.raises(UnknownItemError, match="1 training events have an item .* the first is 'x'"):
        sasrec_sequences(split_of(("u", "a"), ("u", "x")), IdMap(["a"]))
