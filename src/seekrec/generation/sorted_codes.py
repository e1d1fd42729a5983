# SPDX-License-Identifier: Apache-2.0
"""Check the codes of all items, and sort them level by level, to build a trie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from seekrec.errors import CatalogError


def check_codes(
    codes: np.ndarray | Tensor | Sequence[Sequence[int]], codebook_size: int | Sequence[int]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Check the identifiers of items.

    Args:
        codes (`np.ndarray`): Integers of shape `(num_items, num_levels)`.
        codebook_size (`int` or `Sequence[int]`): Codes per level, one number for all levels or one each.

    Returns:
        `tuple`: The codes as an array, and the number of codes of each level.

    Raises:
        CatalogError: If there are no items or no levels, or a code is outside its codebook.
    """
    table = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "iu":
        raise CatalogError(
            f"`codes` is {table.dtype} of shape {table.shape}; pass integers of shape (num_items, num_levels) with at "
            "least one item and one level."
        )
    num_levels = table.shape[1]
    given = np.full(num_levels, codebook_size) if np.ndim(codebook_size) == 0 else np.asarray(codebook_size)
    if given.shape != (num_levels,) or given.dtype.kind not in "iu" or given.min() < 1:
        raise CatalogError(
            f"`codebook_size` is {codebook_size}; pass one positive number, or one for each of the {num_levels} "
            "levels."
        )
    sizes = tuple(given.tolist())
    for level, size in enumerate(sizes):
        column = table[:, level]
        if column.min() < 0 or column.max() >= size:
            row = int(np.flatnonzero((column < 0) | (column >= size))[0])
            raise CatalogError(
                f"`codes` has code {int(column[row])} at row {row}, level {level}; the codebook of that level has "
                f"{size} codes (0..{size - 1}). Pass the right `codebook_size` or leave the row out."
            )
    return table, sizes


def code_type(codebook_size: int) -> type[np.generic]:
    """Return the narrowest type for codes that torch can gather from on every device."""
    return np.uint8 if codebook_size <= 2**8 else np.int16 if codebook_size <= 2**15 else np.int32


def sort_identifiers(table: np.ndarray, sizes: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sort rows of codes lexicographically, ties by row.

    Returns:
        `tuple`: The row order, and the sorted codes level by level.
    """
    num_items = len(table)
    bits = [max(1, (size - 1).bit_length()) for size in sizes]
    row_bits = max(1, (num_items - 1).bit_length())
    if sum(bits) + row_bits > 63:
        order = np.lexsort(table.T[::-1])  # stable: ties stay in row order
        return order, [table[order, level] for level in range(len(sizes))]
    # Codes and row in one integer: a plain sort of it is several times faster than lexsort.
    packed = np.zeros(num_items, np.int64)
    for level, width in enumerate(bits):
        packed = (packed << width) | table[:, level].astype(np.int64)
    packed = (packed << row_bits) | np.arange(num_items)
    packed.sort()
    order = packed & ((1 << row_bits) - 1)
    columns = []
    shift = row_bits
    for width, size in zip(reversed(bits), reversed(sizes), strict=True):
        columns.append(((packed >> shift) & ((1 << width) - 1)).astype(code_type(size)))
        shift += width
    return order, columns[::-1]
