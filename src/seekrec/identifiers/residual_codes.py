# SPDX-License-Identifier: Apache-2.0
"""Residual quantization with given codebooks: codes, distances, and reconstructed vectors.

Both identifier learners produce a vector for each item and view, and a stack of codebooks. The common rest (nearest
codes, the cost of any other code, the vector of an identifier) is here, in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from seekrec.schema import View

# Rows that are quantized at once: 16,384 x 256 distances are 16 MB.
_CHUNK_ROWS = 16_384


@dataclass(frozen=True)
class ResidualCodebooks:
    """The codebooks of all levels.

    Args:
        shared (`np.ndarray`): float32 of shape `(num_shared_levels, codebook_size, sum of view sizes)`; the views
            stand one after the other in the order of `specific`.
        specific (`dict[str, np.ndarray]`): For each view, float32 of shape
            `(num_specific_levels, codebook_size, view size)`.
    """

    shared: np.ndarray
    specific: dict[View, np.ndarray]

    @property
    def views(self) -> tuple[View, ...]:
        """The views, in the order of concatenation."""
        return tuple(self.specific)

    @property
    def num_shared_levels(self) -> int:
        """Levels over the concatenation of all views."""
        return len(self.shared)

    @property
    def num_levels(self) -> int:
        """Levels of an identifier."""
        return len(self.shared) + len(next(iter(self.specific.values())))

    @property
    def codebook_size(self) -> int:
        """Codes of every level."""
        return int(self.shared.shape[1])

    def columns(self, view: View) -> slice:
        """The columns of a view in the concatenation."""
        start = 0
        for other, codebooks in self.specific.items():
            if other == view:
                return slice(start, start + codebooks.shape[2])
            start += codebooks.shape[2]
        raise KeyError(view)

    def quantized(self, view: View, prefix: np.ndarray) -> np.ndarray:
        """Sum the codewords of a prefix, as seen by one view (GenSAR, equation 6).

        Args:
            view (`str`): The view.
            prefix (`np.ndarray`): int64 codes of shape `(n, num_prefix_levels)`, at most `num_levels` of them.

        Returns:
            `np.ndarray`: float32 of shape `(n, view size)`.
        """
        columns = self.columns(view)
        total = np.zeros((len(prefix), columns.stop - columns.start), np.float32)
        for level in range(prefix.shape[1]):
            if level < self.num_shared_levels:
                total += self.shared[level, prefix[:, level], columns]
            else:
                total += self.specific[view][level - self.num_shared_levels, prefix[:, level]]
        return total


class LatentRows(Protocol):
    """Latents of items, float32 of shape `(num_items, size)`: an array, or what computes rows when asked for them."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return the latents of some rows."""


@dataclass(frozen=True)
class EncodedItems:
    """Items as a residual quantizer sees them, with their nearest codes.

    Args:
        latents (`Mapping[str, LatentRows]`): For each view, float32 rows of `(num_items, view size)`.
        codebooks ([`ResidualCodebooks`]): The codebooks.
        codes (`dict[str, np.ndarray]`): For each view, int64 of shape `(num_items, num_levels)`; the shared levels
            come first and are equal in all views. Identifiers may collide: see [`assign_unique`].
    """

    latents: Mapping[View, LatentRows]
    codebooks: ResidualCodebooks
    codes: dict[View, np.ndarray]

    def costs(self, view: View, rows: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Return the squared distance of residuals to every codeword of the level after a prefix (equations 3 and 4).

        Args:
            view (`str`): The view; on shared levels all views have the same.
            rows (`np.ndarray`): int64 item rows of shape `(n,)`.
            prefix (`np.ndarray`): int64 codes of shape `(n, level)`: what was chosen before, not necessarily the
                nearest.

        Returns:
            `np.ndarray`: float32 of shape `(n, codebook_size)`.
        """
        level, books = prefix.shape[1], self.codebooks
        if level < books.num_shared_levels:
            residual = np.concatenate(
                [self.latents[each][rows] - books.quantized(each, prefix) for each in books.views], axis=1
            )
            return squared_distances(residual, books.shared[level])
        residual = self.latents[view][rows] - books.quantized(view, prefix)
        return squared_distances(residual, books.specific[view][level - books.num_shared_levels])


def squared_distances(points: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """Return the squared distance of each point to each codeword.

    Args:
        points (`np.ndarray`): float32 of shape `(n, size)`.
        codewords (`np.ndarray`): float32 of shape `(codebook_size, size)`.

    Returns:
        `np.ndarray`: float32 of shape `(n, codebook_size)`, never negative.
    """
    distances = points @ codewords.T
    distances *= -2
    distances += np.einsum("nd,nd->n", points, points)[:, None]
    distances += np.einsum("kd,kd->k", codewords, codewords)[None, :]
    return np.maximum(distances, 0, out=distances)


def quantize(latents: Mapping[View, LatentRows], codebooks: ResidualCodebooks) -> EncodedItems:
    """Return the nearest codes of each item, level by level (GenSAR, equations 3 to 5).

    Args:
        latents (`Mapping[str, LatentRows]`): For each view, float32 rows of `(num_items, view size)`.
        codebooks ([`ResidualCodebooks`]): The codebooks.

    Returns:
        [`EncodedItems`]: The items with codes that may collide.
    """
    num_items = len(next(iter(latents.values())))
    codes = {view: np.zeros((num_items, codebooks.num_levels), np.int64) for view in codebooks.views}
    encoded = EncodedItems(dict(latents), codebooks, codes)
    for start in range(0, num_items, _CHUNK_ROWS):
        rows = np.arange(start, min(start + _CHUNK_ROWS, num_items))
        fill_nearest(codes, encoded.costs, rows, 0, codebooks.num_shared_levels)
    return encoded


class CodeCosts(Protocol):
    """What a code would cost: `costs(view, rows, prefix)`, as [`EncodedItems.costs`]."""

    def __call__(self, view: View, rows: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Return the cost of every code of the level after `prefix`, of shape `(len(rows), codebook_size)`."""


def fill_nearest(
    codes: Mapping[View, np.ndarray], costs: CodeCosts, rows: np.ndarray, first_level: int, num_shared_levels: int
) -> None:
    """Write the cheapest codes of some items from a level on, in place; shared levels are written to every view.

    Args:
        codes (`Mapping[str, np.ndarray]`): For each view, int64 of shape `(num_items, num_levels)`; changed in place.
        costs ([`CodeCosts`]): The cost of each code.
        rows (`np.ndarray`): int64 item rows.
        first_level (`int`): The first level to write; the levels before it are kept.
        num_shared_levels (`int`): The levels that are the same in every view.
    """
    for view, own in codes.items():
        for level in range(first_level, own.shape[1]):
            if level >= num_shared_levels:
                own[rows, level] = costs(view, rows, own[rows, :level]).argmin(axis=1)
            elif view == next(iter(codes)):
                nearest = costs(view, rows, own[rows, :level]).argmin(axis=1)
                for every in codes.values():
                    every[rows, level] = nearest
