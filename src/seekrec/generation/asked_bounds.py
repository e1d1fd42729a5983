# SPDX-License-Identifier: Apache-2.0
"""Bounds of selected trie nodes, for boosts that differ by request.

Each request's numbers are scanned once, for the few largest. The bound of a node is known if one of them is below it
in the trie; every other bound is at most the threshold. Beams are chosen by sums, so a node is discarded once score
plus threshold is below the last sum needed; for the remaining nodes, the numbers of their items are read, first of
those that may be the best, which raises that sum. The result is the same as with the bounds of all nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seekrec.generation.trie import Layout

_Rows = npt.NDArray[np.int64]
# About so many numbers of a line are the large ones; the threshold comes from a sample of so many.
_NUM_LARGE, _NUM_SAMPLED = 2048, 8192
_NEIGHBOURS = 16
# Of numbers that are made where they are asked for, fewer are worth making.
_NUM_MADE = 256
# Items that are looked at before all of a node are: often one has the threshold itself, as most have of few boosts.
_FIRST_FEW = 32
# Items that are looked at together: what is between stays in the cache.
_TOGETHER = 2**16
# Of so many times the nodes that are wanted, the bounds are looked at first.
_TIMES_WANTED = 2
_NEVER = np.float32("-inf")


# Requests and item rows, both int64, ascending by request, and float32 numbers.
Pairs = tuple[Tensor, Tensor, Tensor]


class AddedNumbers(Protocol):
    """What is added to the scores of items for a batch of requests, made where it is asked for."""

    @property
    def num_items(self) -> int:
        """Length of the catalogue."""

    @property
    def num_requests(self) -> int:
        """Size of the batch."""

    def numbers(self) -> Tensor:
        """Return all: float32 of shape `(num_items,)`, for all requests, or `(num_requests, num_items)`."""

    def take(self, requests: Sequence[int]) -> AddedNumbers:
        """Return those of some requests."""

    def sample(self, count: int) -> Tensor:
        """Return those of about so many items, which are the same each time: float32 `(num_requests, any)`."""

    def above(self, least: Tensor) -> Pairs:
        """Return all pairs to which more is added than `least`, float32 of shape `(num_requests,)`, says."""

    def of_pairs(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Return those of pairs of a request and an item, ascending by request: float32 of their shape."""


class ArrayNumbers:
    """Numbers that are there; see [`AddedNumbers`].

    Args:
        values (`np.ndarray`): float32 of shape `(1, num_items)`, for all requests, or `(num_requests, num_items)`.
        num_requests (`int`): Requests.
    """

    def __init__(self, values: np.ndarray, num_requests: int) -> None:
        self._values = values
        self.num_requests: int = num_requests
        self.num_items: int = values.shape[1]

    def numbers(self) -> Tensor:
        """Return all; see [`AddedNumbers`]."""
        return torch.from_numpy(self._values[0] if len(self._values) == 1 else self._values)

    def take(self, requests: Sequence[int]) -> ArrayNumbers:
        """Take requests; see [`AddedNumbers`]."""
        chosen = self._values if len(self._values) == 1 else self._values[list(requests)]
        return ArrayNumbers(chosen, len(requests))

    def sample(self, count: int) -> Tensor:
        """Look some up; see [`AddedNumbers`]."""
        chosen = self._values
        if count < self.num_items:
            # Neighbours share a line of the cache.
            near = min(_NEIGHBOURS, count)
            apart = self.num_items * near // count
            pieces = self._values[:, : self.num_items // apart * apart].reshape(len(self._values), -1, apart)
            chosen = pieces[:, :, :near].reshape(len(self._values), -1)
        return torch.from_numpy(chosen).expand(self.num_requests, -1)

    def above(self, least: Tensor) -> Pairs:
        """Read all; see [`AddedNumbers`]."""
        limits = least.numpy()
        lowest = limits if len(self._values) > 1 else limits.min(keepdims=True)
        # Eight marks are looked at as one byte: hardly any is set.
        marks = np.zeros(-(-self.num_items // 8) * 8, np.bool_)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for numbers, limit in zip(self._values, lowest, strict=True):
            np.greater(numbers, limit, out=marks[: self.num_items])
            marked = np.flatnonzero(np.packbits(marks).view(np.bool_))
            inside = np.flatnonzero(marks.reshape(-1, 8).take(marked, 0, mode="clip"))
            rows = 8 * marked[inside >> 3] + (inside & 7)
            found.append((rows, numbers.take(rows, mode="clip")))
        if len(self._values) == 1:
            rows, values = found[0]
            found = [(rows[values > limit], values[values > limit]) for limit in limits]
        lines = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
        all_rows, all_values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return torch.from_numpy(lines), torch.from_numpy(all_rows), torch.from_numpy(all_values)

    def of_pairs(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Look up; see [`AddedNumbers`]."""
        places = rows.numpy() if len(self._values) == 1 else requests.numpy() * self.num_items + rows.numpy()
        # All places are real; not to check them again takes a fifth of the time.
        return torch.from_numpy(self._values.reshape(-1).take(places, mode="clip"))


class AskedBounds:
    """See [`Bounds`].

    Args:
        layout ([`Layout`]): Of the trie.
        added ([`AddedNumbers`]): What each item gets.
        masks (`Sequence`): For each request bool of shape `(num_items,)`; `None` where every item may be returned.
    """

    def __init__(self, layout: Layout, added: AddedNumbers, masks: Sequence[np.ndarray | None]) -> None:
        self._layout, self._added, self._masks = layout, added, masks
        # Of requests of which much is asked, all numbers.
        self._whole: dict[int, np.ndarray] = {}
        self._is_array = isinstance(added, ArrayNumbers)
        self._num_large = _NUM_LARGE if self._is_array else _NUM_MADE
        self._large = self._find_large()
        # Which node of depth 1 of which request each of them is below, those of a request together.
        lines, rows, _ = self._large
        self._num_tops = len(layout.starts[1]) - 1
        self._tops = layout.tops.take(rows, mode="clip") + lines * self._num_tops
        # Where they were asked for, they are sorted: the place among the leaves of all requests, and the number.
        self._is_sorted = np.zeros(len(masks) * self._num_tops, np.bool_)
        self._keys, self._values = np.empty(0, np.int64), np.empty(0, np.float32)

    def keys(self, depth: int, lines: Tensor, scores: Tensor, nodes: Tensor, limits: Tensor | None = None) -> Tensor:
        """Look at what may be among the best; see [`Bounds`]."""
        batch, width, most = scores.shape
        owners = np.repeat(lines.numpy(), width)
        used = np.flatnonzero(scores.amax(-1).numpy() > _NEVER)
        first, last = (edge.expand(batch, width).reshape(-1).numpy()[used] for edge in (nodes[..., 0], nodes.amax(-1)))
        given, children = scores.reshape(-1).numpy(), nodes.expand_as(scores).reshape(-1).numpy()
        starts = self._layout.starts[depth]
        keys = given + np.repeat(self._thresholds[owners], most)
        is_open = keys > _NEVER

        def look_at(places: _Rows) -> None:
            is_open[places] = False
            keys[places] = given[places] + self._look_at(depth, owners[places // most], children[places])

        if self._is_array and (starts[last + 1] - starts[first]).sum() <= len(given):
            # Hardly more items than nodes: to look at all of them takes less than to find out at which.
            look_at(np.flatnonzero(given > _NEVER))
            return torch.from_numpy(keys).view(scores.shape)
        places, bounds = self._look_up(depth, owners[used], first, last, most)
        places = used[places // most] * most + places % most
        keys[places], is_open[places] = given[places] + bounds, False
        if limits is None:
            look_at(np.flatnonzero(is_open))
            return torch.from_numpy(keys).view(scores.shape)
        # First those that may be the best: what they have rules most of the others out.
        table, size, numbers = keys.reshape(batch, -1), width * most, limits.numpy()[:, None]
        wanted = min(_TIMES_WANTED * int(limits.max()), size)
        best = torch.from_numpy(table).topk(wanted, sorted=False).indices.numpy() + np.arange(batch)[:, None] * size
        best.sort(axis=1)
        for is_last in (False, True):
            known = np.sort(np.where(is_open[best], _NEVER, keys[best]), axis=1)
            least = np.take_along_axis(known, np.maximum(wanted - numbers, 0), axis=1)
            least[numbers > wanted] = _NEVER
            if is_last:
                look_at(np.flatnonzero(is_open & (table >= least).reshape(-1)))
            else:
                look_at(best[is_open[best] & (keys[best] >= least)])
        return torch.from_numpy(keys).view(scores.shape)

    def of_items(self, lines: Tensor, rows: Tensor) -> Tensor:
        """Look numbers up; see [`Bounds`]."""
        return torch.from_numpy(self._of_rows(lines.numpy().ravel(), rows.numpy().ravel())).view(rows.shape)

    def _line(self, line: int) -> np.ndarray:
        if line not in self._whole:
            self._whole[line] = self._added.take([line]).numbers().view(-1).numpy()
        return self._whole[line]

    def _find_large(self) -> tuple[_Rows, _Rows, np.ndarray]:
        """Find each request's largest numbers: requests, rows and numbers; and what all others are at most."""
        size = self._layout.num_items
        self._thresholds = self._threshold(self._added.sample(_NUM_SAMPLED), size)
        few: list[tuple[int, np.ndarray]] = []
        for line, mask in enumerate(self._masks):
            count = size if mask is None else int(np.count_nonzero(mask))
            if mask is not None and count < size // 2:
                # Few may be returned: of those, not of all, the largest.
                rows = np.flatnonzero(mask)[:: max(1, count // _NUM_SAMPLED)]
                few += [(line, rows)] if count <= self._num_large else []
                numbers = torch.from_numpy(self._of_rows(np.full(len(rows), line), rows))
                self._thresholds[line] = self._threshold(numbers[None], count)[0]
        least = np.maximum(self._thresholds, np.finfo(np.float32).min)
        least[[line for line, _ in few]] = np.inf
        lines, rows, values = (part.numpy() for part in self._added.above(torch.from_numpy(least)))
        for line, mask in enumerate(self._masks):
            if mask is not None and least[line] < np.inf:
                is_kept = mask[rows] | (lines != line)
                lines, rows, values = lines[is_kept], rows[is_kept], values[is_kept]
        if few:
            more = np.repeat([line for line, _ in few], [len(own) for _, own in few])
            all_of = np.concatenate([own for _, own in few])
            lines, rows = np.concatenate([lines, more]), np.concatenate([rows, all_of])
            values = np.concatenate([values, self._of_rows(more, all_of)])
        return lines, rows, values

    def _threshold(self, samples: Tensor, count: int) -> np.ndarray:
        """Return what about as many of `count` numbers as are large are above, of each line of samples.

        Args:
            samples (`torch.Tensor`): float32 of shape `(lines, any)`.
            count (`int`): Numbers of each line; with fewer than are large, minus infinity is returned.
        """
        if count <= self._num_large:
            return np.full(len(samples), _NEVER)
        wanted = min(samples.shape[1], 1 + round(samples.shape[1] * self._num_large / count))
        return samples.topk(wanted, sorted=False).values.amin(1).numpy()

    def _look_up(self, depth: int, lines: _Rows, first: _Rows, last: _Rows, most: int) -> tuple[_Rows, np.ndarray]:
        """Return the bounds of children that are known, and where they are in the flat table of families.

        Args:
            depth (`int`): Depth of the children.
            lines (`np.ndarray`): int64 request of each family.
            first (`np.ndarray`): int64 first child of each family.
            last (`np.ndarray`): int64 last child.
            most (`int`): Columns of the table.
        """
        if depth == 1:
            best = np.full(len(self._is_sorted), _NEVER)
            np.maximum.at(best, self._tops, self._large[2])
            best = best.reshape(-1, self._num_tops)[lines]
            families, columns = np.nonzero(best > _NEVER)
            return families * most + columns, best[families, columns]
        starts, own = self._layout.starts[depth], lines * self._layout.num_items
        self._sort(lines * self._num_tops + np.searchsorted(self._layout.starts[1], starts[first], side="right") - 1)
        low = np.searchsorted(self._keys, own + starts[first])
        count = np.searchsorted(self._keys, own + starts[last + 1]) - low
        families = np.repeat(np.arange(len(lines)), count)
        places = np.arange(len(families)) + np.repeat(low - np.cumsum(count) + count, count)
        below = np.searchsorted(starts, (self._keys[places] - own[families]).astype(starts.dtype), side="right") - 1
        flat = families * most + below - first[families]
        # The items of a node are neighbours.
        heads = np.flatnonzero(np.diff(flat, prepend=-1))
        return flat[heads], np.maximum.reduceat(self._values[places], heads) if len(heads) else self._values[:0]

    def _sort(self, tops: _Rows) -> None:
        """Sort the large numbers below these nodes of depth 1, too."""
        if self._is_sorted[tops].all():
            return
        self._is_sorted[tops] = True
        chosen = np.flatnonzero(self._is_sorted.take(self._tops, mode="clip"))
        lines, rows, values = self._large
        keys = self._layout.places[rows[chosen]] + lines[chosen] * self._layout.num_items
        order = np.argsort(keys)
        self._keys, self._values = keys[order], values[chosen[order]]

    def _look_at(self, depth: int, lines: _Rows, nodes: _Rows) -> np.ndarray:
        """Return the bounds of nodes from the numbers of all their items."""
        starts = self._layout.starts[depth]
        begin, end = starts[nodes].astype(np.int64), starts[nodes + 1].astype(np.int64)
        if (end - begin).max(initial=0) <= _FIRST_FEW:
            return self._most(lines, begin, end)
        best = self._most(lines, begin, np.minimum(end, begin + _FIRST_FEW))
        open_ = np.flatnonzero((end - begin > _FIRST_FEW) & (best < self._thresholds[lines]))
        if not len(open_):
            return best
        # Where much of a line is needed, all of it is read in order.
        totals = np.bincount(lines[open_], (end - begin)[open_], minlength=len(self._masks))
        whole = np.flatnonzero(totals > self._layout.num_items // 8)
        for line in whole.tolist():
            numbers, mask = self._line(line), self._masks[line]
            numbers = numbers if mask is None else np.where(mask, numbers, _NEVER)
            every = np.maximum.reduceat(numbers[self._layout.item_rows], starts[:-1])
            chosen = open_[lines[open_] == line]
            best[chosen] = every[nodes[chosen]]
        rest = open_[~np.isin(lines[open_], whole)]
        best[rest] = self._most(lines[rest], begin[rest], end[rest])
        return best

    def _most(self, lines: _Rows, begin: _Rows, end: _Rows) -> np.ndarray:
        """Return the largest number of each range of leaves; none is empty."""
        count = end - begin
        total = np.cumsum(count)
        if len(lines) > 1 and total[-1] > _TOGETHER:
            middle = min(max(1, int(np.searchsorted(total, total[-1] // 2))), len(lines) - 1)
            halves = (self._most(lines[part], begin[part], end[part]) for part in (slice(middle), slice(middle, None)))
            return np.concatenate(list(halves))
        offsets = total - count
        places = np.repeat(begin - offsets, count)
        places += np.arange(len(places))
        numbers = self._of_rows(np.repeat(lines, count), self._layout.item_rows.take(places, mode="clip"))
        return np.maximum.reduceat(numbers, offsets) if len(lines) else numbers

    def _of_rows(self, lines: _Rows, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of pairs of a request and an item; minus infinity for what may not be returned."""
        # An array is read in any order.
        is_sorted = self._is_array or (lines[1:] >= lines[:-1]).all()
        order = None if is_sorted else np.argsort(lines, kind="stable")
        own, items = (lines, rows) if order is None else (lines[order], rows[order])
        made = self._added.of_pairs(torch.from_numpy(own), torch.from_numpy(items.astype(np.int64, copy=False)))
        numbers = made.numpy()
        if order is not None:
            numbers = np.empty_like(numbers)
            numbers[order] = made.numpy()
        for line in np.unique(lines).tolist() if any(mask is not None for mask in self._masks) else []:
            if (mask := self._masks[line]) is not None:
                masked = np.flatnonzero(lines == line)
                numbers[masked[~mask[rows[masked]]]] = _NEVER
        return numbers


__all__ = ["AddedNumbers", "ArrayNumbers", "AskedBounds", "Pairs"]
