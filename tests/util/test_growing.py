# SPDX-License-Identifier: Apache-2.0
"""Arrays that grow at their end, against concatenation."""

from __future__ import annotations

import gc

import numpy as np

from seekrec.util import growing
from seekrec.util.growing import append_rows, begins_with, empty_rows


def test_what_grows_equals_what_is_joined_and_leaves_the_first_alone():
    rng = np.random.default_rng(0)
    known = [rng.normal(size=(16, 3)).astype(np.float32)]  # any array; its first growth is a copy
    in_place = 0
    for _ in range(200):
        first = known[int(rng.integers(len(known)))]
        rows = rng.normal(size=(int(rng.integers(0, 3)), 3)).astype(np.float32)
        expected, before = np.concatenate([first, rows]), first.copy()
        grown = append_rows(first, rows)
        in_place += begins_with(grown, first)
        known.append(grown)
        assert np.array_equal(grown, expected) and np.array_equal(first, before)
    assert 5 < in_place < 200
    copies = [array.copy() for array in known]
    assert all(np.array_equal(array, copy) for array, copy in zip(known, copies, strict=True))


def test_room_is_forgotten_with_its_array():
    filled = empty_rows((8, 2), np.int32)
    filled[:] = 1
    grown = append_rows(filled, np.full((1, 2), 2, np.int32))
    assert begins_with(grown, filled) and not begins_with(grown[1:], filled) and not begins_with(grown[:4], filled)
    again = append_rows(filled, np.full((1, 2), 3, np.int32))  # the room is taken
    assert not begins_with(again, filled) and grown[-1].tolist() == [2, 2] and again[-1].tolist() == [3, 3]
    held = len(growing._TAKEN)
    del filled, grown, again
    gc.collect()
    assert len(growing._TAKEN) <= held - 2
