# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seekrec.util.ragged import Ragged, join_rows

ROWS = st.lists(st.lists(st.integers(-5, 1000), max_size=6), max_size=8)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, data=st.data())
def test_agrees_with_lists(rows, data):
    ragged = Ragged.from_lists(rows)
    assert ragged.to_lists() == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert ragged.owners().tolist() == [number for number, row in enumerate(rows) for _ in row]
    assert ragged.to_arrow().to_pylist() == rows
    assert Ragged.stack([ragged, ragged]).to_lists() == rows + rows
    assert join_rows([ragged, ragged]).to_lists() == [row + row for row in rows]
    assert [row.tolist() for row in ragged] == rows
    assert Ragged.from_lengths(ragged.values, ragged.lengths).to_lists() == rows
    assert Ragged.from_owners(ragged.values, ragged.owners(), len(rows)).to_lists() == rows
    assert Ragged.from_arrays([np.array(row, np.int64) for row in rows]).to_lists() == rows
    ranges = Ragged.from_ranges(ragged.offsets[:-1], ragged.lengths)
    assert ranges.values.tolist() == list(range(len(ragged.values)))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(ragged.values), max_size=len(ragged.values))), bool)
    flags = iter(mask.tolist())
    assert ragged.any(mask).tolist() == [any([next(flags) for _ in row]) for row in rows]
    flags = iter(mask.tolist())
    assert ragged.keep(mask).to_lists() == [[value for value in row if next(flags)] for row in rows]
    if not rows:
        return
    numbers = data.draw(st.lists(st.lists(st.integers(0, len(rows) - 1), max_size=4), max_size=5))
    for chosen in numbers:
        assert ragged.take(chosen).to_lists() == [rows[number] for number in chosen]
    expanded = ragged.expand(Ragged.from_lists(numbers))
    assert expanded.to_lists() == [[value for number in chosen for value in rows[number]] for chosen in numbers]
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(rows)), st.integers(0, len(rows)))))
    part = ragged.slice(start, stop)
    assert part.to_lists() == rows[start:stop]
    # A slice does not start at offset 0 of its parent; it must still be usable on its own.
    assert join_rows([part, part]).to_lists() == [row + row for row in rows[start:stop]]


def test_from_matrix():
    assert Ragged.from_matrix(np.array([[1, 2], [3, 4]])).to_lists() == [[1, 2], [3, 4]]
    assert Ragged.from_matrix(np.empty((0, 3), dtype=np.int32)).to_lists() == []


def test_pad():
    ragged = Ragged.from_lists([[1, 2], [], [3]])
    assert ragged.pad(-1).tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert ragged.pad(0, on_left=True).tolist() == [[1, 2], [0, 0], [0, 3]]
    assert ragged.pad(0, width=3).tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]
    assert ragged.pad(False, np.ones(3, dtype=bool)).tolist() == [[True, True], [False, False], [True, False]]
    assert ragged.pad(-1).dtype == np.int32
    assert Ragged.from_lists([]).pad(-1).shape == (0, 0)
