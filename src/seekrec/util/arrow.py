# SPDX-License-Identifier: Apache-2.0
"""Small helpers for Arrow columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, whatever its chunks."""
    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    # More than an array of its type can hold stays in chunks.
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def to_mask(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a bool column as an array that can be written to, null as False."""
    return np.array(pc.fill_null(column, False), dtype=bool)


def alphabetical_ranks(names: pa.Array) -> np.ndarray:
    """Return for each of several distinct names how many of them come before it: int64."""
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[pc.sort_indices(names).to_numpy()] = np.arange(len(names))
    return ranks


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is text of any width."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is lists of any length."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def to_lists(values: pa.Array, lengths: np.ndarray) -> pa.ListArray:
    """Cut an array into lists: `lengths` contains the int64 length of each, one after the other."""
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values)


__all__ = ["alphabetical_ranks", "is_list", "is_text", "one_array", "to_lists", "to_mask"]
