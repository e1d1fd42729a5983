# SPDX-License-Identifier: Apache-2.0
"""Rows of different lengths as two flat arrays, and how to join millions of them without a loop over rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths.

    Args:
        values (`np.ndarray`): The rows one after the other, any integer dtype.
        offsets (`np.ndarray`): int64 of length `num_rows + 1`, from 0 to `len(values)`; row `k` is
            `values[offsets[k]:offsets[k + 1]]`.

    Example:
        >>> words = Ragged.from_lists([[7], [], [8, 9]])
        >>> words.take([2, 0, 2]).to_lists()
        [[8, 9], [7], [8, 9]]
        >>> join_rows([words, words]).to_lists()
        [[7, 7], [], [8, 9, 8, 9]]
        >>> words.expand(Ragged.from_lists([[0, 2], []])).to_lists()
        [[7, 8, 9], []]
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]], dtype: type[np.integer] = np.int32) -> Ragged:
        """Build it from a list for each row."""
        kept = list(rows)
        lengths = np.fromiter((len(row) for row in kept), np.int64, count=len(kept))
        values = np.fromiter(chain.from_iterable(kept), dtype, count=int(lengths.sum()))
        return cls.from_lengths(values, lengths)

    @classmethod
    def from_arrays(cls, rows: Sequence[np.ndarray], dtype: type[np.integer] = np.int64) -> Ragged:
        """Build it from an array for each row."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return cls.from_lengths(np.concatenate([np.empty(0, dtype), *rows]).astype(dtype, copy=False), lengths)

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> Ragged:
        """Build it from the rows of a matrix, all of one length."""
        return cls(matrix.ravel(), np.arange(len(matrix) + 1, dtype=np.int64) * matrix.shape[1])

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Build it from the entries of all rows, end to end, and the length of each row."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @classmethod
    def from_ranges(cls, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Build rows of consecutive int64 numbers: row `k` contains `starts[k]` up to `starts[k] + lengths[k] - 1`."""
        shifts = cls.from_lengths(np.repeat(starts, lengths), lengths)
        within = np.arange(len(shifts.values)) - np.repeat(shifts.offsets[:-1], lengths)
        return cls(shifts.values + within, shifts.offsets)

    @classmethod
    def from_owners(cls, values: np.ndarray, owners: np.ndarray, num_rows: int) -> Ragged:
        """Build it from entries that stand in the order of their rows.

        Args:
            values (`np.ndarray`): The entries.
            owners (`np.ndarray`): int64 row number of each entry, ascending.
            num_rows (`int`): Number of rows, those without an entry included.
        """
        return cls.from_lengths(values, np.bincount(owners, minlength=num_rows))

    @classmethod
    def stack(cls, parts: Sequence[Ragged]) -> Ragged:
        """Concatenate the rows of several."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls.from_lengths(np.concatenate([part.values for part in parts]), lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> np.ndarray:
        """Return one row, a view of `values`."""
        return self.values[self.offsets[:-1][row] : self.offsets[1:][row]]

    @property
    def lengths(self) -> np.ndarray:
        """int64 length of each row."""
        return np.diff(self.offsets)

    def owners(self) -> np.ndarray:
        """int64 row number of each entry of `values`."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def spread(self, of_row: np.ndarray) -> np.ndarray:
        """Repeat a value of each row for each entry of that row: as long as `values`."""
        return np.repeat(of_row, self.lengths)

    def any(self, mask: np.ndarray) -> np.ndarray:
        """Mark the rows with at least one marked entry: bool, one entry per row. `mask` is as long as `values`."""
        marked = np.concatenate([[0], np.cumsum(mask)])[self.offsets]
        return marked[1:] > marked[:-1]

    def take(self, rows: np.ndarray | Sequence[int]) -> Ragged:
        """Return some of the rows, in the order given, repeated if given twice."""
        numbers = np.asarray(rows, dtype=np.int64)
        # Of these rows alone: there may be millions.
        lengths = self.offsets[1:][numbers] - self.offsets[:-1][numbers]
        # Entry j of the result lies at j plus a shift that is constant along a row.
        ends = np.cumsum(lengths)
        places = np.repeat(self.offsets[:-1][numbers] - ends + lengths, lengths)
        places += np.arange(len(places))
        return Ragged.from_lengths(self.values[places], lengths)

    def slice(self, start: int, stop: int) -> Ragged:
        """Return the rows `start..stop - 1`; `values` are a view."""
        first, last = self.offsets[start], self.offsets[stop]
        return Ragged(self.values[first:last], self.offsets[start : stop + 1] - first)

    def expand(self, numbers: Ragged) -> Ragged:
        """Write out rows of row numbers.

        Args:
            numbers (`Ragged`): Each row names rows of this one.

        Returns:
            `Ragged`: As many rows as `numbers`, each the concatenation of the rows it names.
        """
        named = self.take(numbers.values)
        return Ragged(named.values, named.offsets[numbers.offsets])

    def keep(self, mask: np.ndarray) -> Ragged:
        """Drop entries: `mask` is bool with one entry for each of `values`."""
        kept = np.concatenate([[0], np.cumsum(mask)])
        return Ragged(self.values[mask], kept[self.offsets])

    def pad(self, fill: int, values: np.ndarray | None = None, *, width: int = 0, on_left: bool = False) -> np.ndarray:
        """Lay out the rows as a matrix.

        Args:
            fill (`int`): The padding.
            values (`np.ndarray`, *optional*): Other values to lay out, one for each of `values`.
            width (`int`): Columns at least; more if a row is longer.
            on_left (`bool`): Whether the padding stands before the row, not behind.

        Returns:
            `np.ndarray`: A matrix of shape `(num_rows, longest)` in the dtype of the values.
        """
        laid_out = self.values if values is None else values
        lengths = self.lengths[:, None]
        matrix = np.full((len(lengths), max(width, int(lengths.max(initial=0)))), fill, dtype=laid_out.dtype)
        column = np.arange(matrix.shape[1])
        matrix[column >= matrix.shape[1] - lengths if on_left else column < lengths] = laid_out
        return matrix

    def to_lists(self) -> list[list[int]]:
        """Return a list for each row."""
        values, offsets = self.values.tolist(), self.offsets.tolist()
        return [values[start:stop] for start, stop in zip(offsets, offsets[1:], strict=False)]

    def to_arrow(self) -> pa.ListArray:
        """Return an Arrow list array of int32, without a copy if `values` are int32."""
        return pa.ListArray.from_arrays(
            pa.array(self.offsets.astype(np.int32)), pa.array(self.values.astype(np.int32, copy=False))
        )


def join_rows(parts: Sequence[Ragged]) -> Ragged:
    """Join several of equal length row by row: row `k` is row `k` of the first, then of the second, and so on."""
    lengths = [part.lengths for part in parts]
    total = np.sum(lengths, axis=0)
    values = np.empty(total.sum(), dtype=np.result_type(*[part.values for part in parts]))
    joined = Ragged.from_lengths(values, total)
    starts = joined.offsets[:-1].copy()
    for part, length in zip(parts, lengths, strict=True):
        places = np.repeat(starts - part.offsets[:-1], length)
        places += np.arange(len(places))
        values[places] = part.values
        starts += length
    return joined
