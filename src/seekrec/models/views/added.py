# SPDX-License-Identifier: Apache-2.0
"""Scores that are added to a model's own: of any items of a batch of requests, in blocks of the catalogue.

Products of long vectors are what costs in a large catalogue. Where it is known how much they can be at most, they are
made of those items alone that can be among the best: all else is added first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seekrec.util.ragged import Ragged

# Of more than one in so many items, products are made of all at once.
_SELDOM = 16


class Part(Protocol):
    """One of the scores that are added up."""

    def add_to(self, total: Tensor, begin: int) -> None:
        """Add the scores of the items from `begin` on to `total`, float32 of shape `(batch, num_items_of_block)`."""

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
        limits (`torch.Tensor`, *optional*): float32 of shape `(batch,)`: what no product of a request exceeds, of
            either sign; not known if not given.
    """

    questions: Tensor
    items: Tensor
    shift: Tensor | None = None
    scales: Tensor | None = None
    limits: Tensor | None = None

    def add_to(self, total: Tensor, begin: int) -> None:
        """Multiply; see [`Part`]."""
        items = self.items[begin : begin + total.shape[1]]
        if self.shift is None and self.scales is None:
            total.addmm_(self.questions, items.T)
            return
        scores = self.questions @ items.T
        if self.shift is not None:
            scores -= (self.questions @ self.shift)[:, None]
        total += scores if self.scales is None else scores.mul_(self.scales[begin : begin + total.shape[1]])

    def of(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Return the products of pairs of a request and an item, ascending by request: float32 of their shape."""
        counts = torch.bincount(requests, minlength=len(self.questions)).tolist()
        return torch.cat([self._of_one(number, own) for number, own in enumerate(rows.split(counts))])

    def at(self, request: int, rows: np.ndarray) -> np.ndarray:
        """Multiply; see [`Part`]."""
        chosen = torch.from_numpy(rows).to(self.items.device)
        values: np.ndarray = self._of_one(request, chosen).cpu().numpy()
        return values

    def _of_one(self, request: int, rows: Tensor) -> Tensor:
        question = self.questions[request]
        scores = self.items[rows] @ question
        scores = scores if self.shift is None else scores - self.shift @ question
        return scores if self.scales is None else scores * self.scales[rows]


@dataclass(frozen=True)
class Entries:
    """Scores of a few items of each request; those of all others are zero.

    Args:
        rows (`Ragged`): int64 rows of items, ascending, each once, a row a request.
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

    def add_to(self, total: Tensor, begin: int) -> None:
        """Add them where they are; see [`Part`]."""
        rows, requests = self.rows.values - begin, self.rows.owners()
        inside = (rows >= 0) & (rows < total.shape[1])
        places = (torch.from_numpy(part[inside]).to(self.device) for part in (requests, rows))
        total.index_put_(tuple(places), torch.from_numpy(self.values[inside]).to(self.device), accumulate=True)

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

    def add_to(self, total: Tensor, begin: int) -> None:
        """Add them; see [`Part`]."""
        total += self.values[..., begin : begin + total.shape[1]]

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
        device (`torch.device`): Where they are.
    """

    parts: Sequence[Part]
    num_requests: int
    num_items: int
    device: torch.device

    def numbers(self) -> Tensor:
        """Return what is added to all items: float32 of shape `(num_items,)` for all requests, or a line for each."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Numbers):
            return self.parts[0].values
        total = torch.zeros(self.num_requests, self.num_items, device=self.device)
        for part in self.parts:
            part.add_to(total, 0)
        return total

    def add_first(self, total: Tensor, begin: int) -> None:
        """Add to the scores of a block what is cheap; [`best_of`] adds the rest.

        Args:
            total (`torch.Tensor`): float32 of shape `(batch, num_items_of_block)`.
            begin (`int`): The first item of the block.
        """
        for part in self.parts:
            if part is not self._late:
                part.add_to(total, begin)

    def best_of(
        self, total: Tensor, begin: int, counts: Sequence[int], least: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add the rest to the scores of a block and find the best.

        Args:
            total (`torch.Tensor`): What [`add_first`] left, minus infinity for items that may not be answered.
            begin (`int`): The first item of the block.
            counts (`Sequence[int]`): How many of the best items of each request are wanted.
            least (`torch.Tensor`, *optional*): float32 of shape `(batch,)`: what an item must reach to be wanted.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Scores, best first, and int64 places in the block, of shape `(batch,
            most wanted)`; minus infinity for none.
        """
        most = min(max(counts, default=1), total.shape[1])
        late = self._late
        if late is None or late.limits is None:
            best, places = total.topk(most)
            return best, places
        first, places = total.topk(most)
        lines = torch.arange(len(total), device=total.device)
        sums = first + late.of(lines[:, None].expand_as(places).reshape(-1), places.reshape(-1) + begin).view_as(first)
        wanted = torch.tensor(counts, device=total.device).clamp(1, most)
        reached = sums.sort(descending=True).values[lines, wanted - 1]
        reached = reached if least is None else torch.maximum(reached, least)
        # Not minus infinity, which those that may not be answered have.
        lowest = (reached - late.limits).clamp_min(torch.finfo(total.dtype).min)
        needed = total >= lowest[:, None]
        # A torch of the CPU takes long to find few places among many.
        flat = np.flatnonzero(needed.numpy()) if total.device.type == "cpu" else needed.view(-1).nonzero()[:, 0]
        if len(flat) * _SELDOM > total.numel():
            late.add_to(total, begin)
            best, places = total.topk(most)
            return best, places
        chosen = torch.as_tensor(flat, device=total.device)
        requests, rows = chosen // total.shape[1], chosen % total.shape[1]
        numbers = torch.bincount(requests, minlength=len(total))
        columns = torch.arange(len(rows), device=total.device) - (numbers.cumsum(0) - numbers)[requests]
        few = total.new_full((len(total), max(most, int(numbers.max()))), float("-inf"))
        rows_of = torch.zeros_like(few, dtype=torch.int64)
        few[requests, columns] = total[requests, rows] + late.of(requests, rows + begin)
        rows_of[requests, columns] = rows
        best, order = few.topk(most)
        return best, rows_of.gather(1, order)

    @cached_property
    def _late(self) -> Products | None:
        """The products that are added last."""
        return next((part for part in self.parts if isinstance(part, Products) and part.limits is not None), None)

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
        scores = torch.zeros(self.num_requests, self.num_items, device=self.device)
        self.add_first(scores, 0)
        for line, mask in zip(scores, allowed, strict=True):
            if mask is not None:
                line[torch.from_numpy(~mask).to(line.device)] = float("-inf")
        values, rows = self.best_of(scores, 0, counts)
        found = zip(rows.cpu().numpy(), values.cpu().numpy(), counts, strict=True)
        return [line[: min(count, int(np.isfinite(own).sum()))] for line, own, count in found]


__all__ = ["AddedScores", "Entries", "Numbers", "Part", "Products"]
