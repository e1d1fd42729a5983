# SPDX-License-Identifier: Apache-2.0
"""Arrays that grow at the end without being copied: there is spare room behind each view of the rows.

Existing rows never change, so older views, with fewer rows, stay valid.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np

# One row in so many is left free behind an array.
_SPARE = 8
# By the number of a buffer: the buffer, and the rows of it that are taken.
_TAKEN: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}
_LOCK = threading.Lock()


def empty_rows(shape: tuple[int, ...], dtype: np.dtype | type[np.generic]) -> np.ndarray:
    """Return an array to be filled, behind which [`append_rows`] finds room; what is free takes no memory yet."""
    buffer = np.empty((shape[0] + shape[0] // _SPARE + 1, *shape[1:]), dtype)
    number = id(buffer)
    with _LOCK:
        _TAKEN[number] = (weakref.ref(buffer, lambda _: _TAKEN.pop(number, None)), shape[0])
    return buffer[: shape[0]]


def append_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return an array with more rows; the first are a copy only where there is no room behind them.

    Args:
        array (`np.ndarray`): The first rows; stays as it is.
        rows (`np.ndarray`): The others, of the same dtype and shape but for their number.
    """
    total = len(array) + len(rows)
    buffer = array.base
    with _LOCK:
        found, taken = _TAKEN.get(id(buffer), (None, 0))
        # Of two that grow from one array, the second gets a buffer of its own.
        has_room = (
            isinstance(buffer, np.ndarray)
            and found is not None
            and found() is buffer
            and begins_with(buffer, array)
            and taken == len(array)
            and total <= len(buffer)
        )
        if has_room and isinstance(buffer, np.ndarray) and found is not None:
            _TAKEN[id(buffer)] = (found, total)
    if not (has_room and isinstance(buffer, np.ndarray)):
        grown = empty_rows((total, *array.shape[1:]), array.dtype)
        grown[: len(array)] = array
        grown[len(array) :] = rows
        return grown
    buffer[len(array) : total] = rows
    return buffer[:total]


def begins_with(array: np.ndarray, first: np.ndarray) -> bool:
    """Return whether an array begins with the very rows of another, as one that [`append_rows`] made may."""
    return (
        array is first
        or len(array) >= len(first)
        and array.ctypes.data == first.ctypes.data
        and (array.dtype, array.strides, array.shape[1:]) == (first.dtype, first.strides, first.shape[1:])
    )


__all__ = ["append_rows", "begins_with", "empty_rows"]
