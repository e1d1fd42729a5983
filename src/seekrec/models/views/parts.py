# SPDX-License-Identifier: Apache-2.0
"""The terms that [`AddedScores`] sums: scores of a few items, and a caller's boosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seekrec.util.ragged import Ragged

# Numbers of items stay below.
_STRIDE = 2**40


class Part(Protocol):
    """One of the scores that are added up."""

    def add_to(self, total: Tensor, begin: int) -> None:
        """Add the scores of the items from `begin` on to `total`, float32 of shape `(num_items_of_block, batch)`."""

    def of(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Return the scores of pairs of a request and an item, ascending by request: float32 of their shape `(n,)`."""

    def take(self, requests: list[int]) -> Part:
        """Return the scores of some requests."""


@dataclass(frozen=True)
class Entries:
    """Scores of a few items of each request; those of all others are zero.

    Args:
        rows (`Ragged`): int64 rows of items, ascending, each once, a row per request.
        values (`np.ndarray`): float32 score of each of them.
        device (`torch.device`): Where they are added.
    """

    rows: Ragged
    values: np.ndarray
    device: torch.device

    @classmethod
    def from_lines(cls, lines: Sequence[tuple[np.ndarray, np.ndarray]], device: torch.device) -> Entries:
        """Build it from the rows and the scores of each request."""
        values = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in lines)]).astype(np.float32)
        return cls(Ragged.from_arrays([rows for rows, _ in lines]), values, device)

    @cached_property
    def _keys(self) -> np.ndarray:
        """Numbers of the pairs of a request and an item, ascending."""
        return self.rows.owners() * _STRIDE + self.rows.values

    def add_to(self, total: Tensor, begin: int) -> None:
        """Add them where they are; see [`Part`]."""
        num_items, batch = total.shape
        firsts = np.arange(batch) * _STRIDE + begin
        low, high = np.searchsorted(self._keys, firsts), np.searchsorted(self._keys, firsts + num_items)
        inside = Ragged.from_ranges(low, high - low)
        places = torch.from_numpy((self.rows.values[inside.values] - begin) * batch + inside.owners())
        values = torch.from_numpy(self.values[inside.values])
        total.view(-1).index_add_(0, places.to(self.device), values.to(self.device))

    def of(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Look up; see [`Part`]."""
        if not len(self.values):
            return torch.zeros(len(rows), device=self.device)
        wanted = requests.cpu().numpy() * _STRIDE + rows.cpu().numpy()
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self.values) - 1)
        found = np.where(self._keys[places] == wanted, self.values[places], np.float32(0))
        return torch.from_numpy(found).to(self.device)

    def take(self, requests: list[int]) -> Entries:
        """Take requests; see [`Part`]."""
        chosen = self.rows.take(requests)
        return Entries(chosen, Ragged(self.values, self.rows.offsets).take(requests).values, self.device)


@dataclass(frozen=True)
class Numbers:
    """Numbers that a caller gives.

    Args:
        values (`torch.Tensor`): float32 of shape `(num_items,)`, for all requests, or `(batch, num_items)`.
    """

    values: Tensor

    def add_to(self, total: Tensor, begin: int) -> None:
        """Add them; see [`Part`]."""
        own = self.values[..., begin : begin + len(total)]
        total += own[:, None] if own.ndim == 1 else own.T

    def of(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Look up; see [`Part`]."""
        return self.values[rows] if self.values.ndim == 1 else self.values[requests, rows]

    def take(self, requests: list[int]) -> Numbers:
        """Take requests; see [`Part`]."""
        return self if self.values.ndim == 1 else Numbers(self.values[requests])


__all__ = ["Entries", "Numbers", "Part"]
