# SPDX-License-Identifier: Apache-2.0
"""Scores that are added to a model's own: of any items of a batch of requests, in blocks of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seekrec.util.ragged import Ragged


class Part(Protocol):
    """One of the scores that are added up."""

    def block(self, begin: int, end: int) -> Tensor:
        """Return the scores of the items `begin..end - 1`, float32 that broadcasts to `(batch, end - begin)`."""

    def at(self, request: int, rows: np.ndarray) -> np.ndarray:
        """Return the scores of some items for one request, float32 of the shape of `rows`."""


@dataclass(frozen=True)
class Products:
    """Dot products of a vector for each request and one for each item.

    Args:
        questions (`torch.Tensor`): float32 of shape `(batch, size)`.
        items (`torch.Tensor`): float32 of shape `(num_items, size)`.
        shift (`torch.Tensor`, *optional*): float32 of shape `(size,)`, taken off every item's vector.
        scales (`torch.Tensor`, *optional*): float32 of shape `(num_items,)`, by which its product is multiplied.
    """

    questions: Tensor
    items: Tensor
    shift: Tensor | None = None
    scales: Tensor | None = None

    def block(self, begin: int, end: int) -> Tensor:
        """Multiply; see [`Part`]."""
        scores = self.questions @ self.items[begin:end].T
        if self.shift is not None:
            scores -= (self.questions @ self.shift)[:, None]
        return scores if self.scales is None else scores.mul_(self.scales[begin:end])

    def at(self, request: int, rows: np.ndarray) -> np.ndarray:
        """Multiply; see [`Part`]."""
        chosen = torch.from_numpy(rows).to(self.items.device)
        question = self.questions[request]
        scores = self.items[chosen] @ question
        if self.shift is not None:
            scores = scores - self.shift @ question
        scores = scores if self.scales is None else scores * self.scales[chosen]
        values: np.ndarray = scores.cpu().numpy()
        return values


@dataclass(frozen=True)
class Entries:
    """Scores of a few items of each request; those of all others are zero.

    Args:
        rows (`Ragged`): int64 rows of items, ascending, each once, a row a request.
        values (`np.ndarray`): float32 score of each of them.
        device (`torch.device`): Where blocks are made.
    """

    rows: Ragged
    values: np.ndarray
    device: torch.device

    @classmethod
    def from_lines(cls, lines: Sequence[tuple[np.ndarray, np.ndarray]], device: torch.device) -> Entries:
        """Build it from the rows and the scores of each request."""
        values = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in lines)]).astype(np.float32)
        return cls(Ragged.from_arrays([rows for rows, _ in lines]), values, device)

    def block(self, begin: int, end: int) -> Tensor:
        """Lay out; see [`Part`]."""
        rows, requests = self.rows.values, self.rows.owners()
        inside = (rows >= begin) & (rows < end)
        scores = torch.zeros(len(self.rows), end - begin, device=self.device)
        places = (torch.from_numpy(part[inside]).to(self.device) for part in (requests, rows - begin))
        scores[tuple(places)] = torch.from_numpy(self.values[inside]).to(self.device)
        return scores

    def at(self, request: int, rows: np.ndarray) -> np.ndarray:
        """Look up; see [`Part`]."""
        begin, end = self.rows.offsets[request : request + 2]
        own, values = self.rows.values[begin:end], self.values[begin:end]
        if not len(own):
            return np.zeros(rows.shape, np.float32)
        place = np.searchsorted(own, rows).clip(max=len(own) - 1)
        return np.where(own[place] == rows, values[place], np.float32(0))


@dataclass(frozen=True)
class Numbers:
    """Numbers that a caller gives.

    Args:
        values (`torch.Tensor`): float32 of shape `(num_items,)`, for all requests, or `(batch, num_items)`.
    """

    values: Tensor

    def block(self, begin: int, end: int) -> Tensor:
        """Return a view; see [`Part`]."""
        return self.values[..., begin:end]

    def at(self, request: int, rows: np.ndarray) -> np.ndarray:
        """Look up; see [`Part`]."""
        line = self.values if self.values.ndim == 1 else self.values[request]
        values: np.ndarray = line[torch.from_numpy(rows).to(line.device)].cpu().numpy()
        return values


@dataclass(frozen=True)
class AddedScores:
    """What is added to a model's own scores of the items of a catalogue, for a batch of requests.

    Args:
        parts (`Sequence[Part]`): What is added up, at least one.
        num_requests (`int`): Size of the batch.
        num_items (`int`): Length of the catalogue.
    """

    parts: Sequence[Part]
    num_requests: int
    num_items: int

    def block(self, begin: int, end: int) -> Tensor:
        """Return what is added to the items `begin..end - 1`, float32 that broadcasts to `(batch, end - begin)`."""
        total = self.parts[0].block(begin, end)
        for part in self.parts[1:]:
            total = total + part.block(begin, end)
        return total

    def at(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what is added to some items: float32, a line a request in the shape of its rows."""
        return [
            sum((part.at(request, line) for part in self.parts), np.zeros(line.shape, np.float32))
            for request, line in enumerate(rows)
        ]

    def best(self, counts: Sequence[int], allowed: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """Find the items to which most is added.

        Args:
            counts (`Sequence[int]`): Items wanted, for each request.
            allowed (`Sequence`): For each request a bool mask of shape `(num_items,)`, or `None` for all.

        Returns:
            `list[np.ndarray]`: For each request int64 rows, best first; fewer where fewer are allowed.
        """
        scores = self.block(0, self.num_items)
        scores = scores.expand(self.num_requests, -1).clone()
        for line, mask in zip(scores, allowed, strict=True):
            if mask is not None:
                line[torch.from_numpy(~mask).to(line.device)] = float("-inf")
        values, rows = scores.topk(min(max(counts, default=0), self.num_items))
        found = zip(rows.cpu().numpy(), values.cpu().numpy(), counts, strict=True)
        return [line[: min(count, int(np.isfinite(own).sum()))] for line, own, count in found]


__all__ = ["AddedScores", "Entries", "Numbers", "Part", "Products"]
