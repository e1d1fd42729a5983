# SPDX-License-Identifier: Apache-2.0
"""Tables of vectors in files: written in blocks, read through a memory map that releases its memory.

Pages read from a mapped file count as memory of the process until the system reclaims them. [`row_blocks`] releases
them after each block, so iterating over a table takes the memory of one block, whether it is a file or an array.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

# Bytes of rows that are worked on at once.
BLOCK_BYTES = 2**26


def write_rows_file(path: str | Path, blocks: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    """Write a `.npy` file of float32 from blocks of rows.

    Args:
        path (`str` or `Path`): The file.
        blocks (`Iterable[np.ndarray]`): The rows in order, a block at a time.
        shape (`tuple[int, ...]`): Shape of the whole.
    """
    with Path(path).open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        )
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float32).reshape(-1).view(np.uint8).data)


def map_rows(path: str | Path) -> np.ndarray:
    """Map a `.npy` file. The array is there to be read: [`release_rows`] forgets what is written to it."""
    return np.load(path, mmap_mode="c", allow_pickle=False)


def row_blocks(rows: np.ndarray, num_rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Go through rows a block at a time.

    Args:
        rows (`np.ndarray`): The rows, in memory or mapped.
        num_rows (`int`, *optional*): Rows of a block; about `BLOCK_BYTES` if not given.

    Yields:
        `tuple[int, np.ndarray]`: The number of the first row of a block, and its rows.
    """
    width = rows[:1].nbytes
    size = num_rows or max(1, BLOCK_BYTES // max(width, 1))
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size]
        release_rows(rows)


def release_rows(rows: np.ndarray) -> None:
    """Give back the memory of what was read of a mapped file; nothing where the rows are in memory."""
    found: object = rows
    while isinstance(found, np.ndarray):
        found = found.base
    # Not every system can be told.
    if isinstance(found, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        found.madvise(mmap.MADV_DONTNEED)


__all__ = ["BLOCK_BYTES", "map_rows", "release_rows", "row_blocks", "write_rows_file"]
