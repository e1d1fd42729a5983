# SPDX-License-Identifier: Apache-2.0
"""Bounds of selected trie nodes, for boosts that differ by request.

Each request's numbers are scanned once, for the few largest. The bound of a node is known if one of them is below it
in the trie; every other bound is at most the threshold. Beams are chosen by sums, so a node is discarded once score
plus threshold is below the last sum needed; for the remaining nodes, the numbers of their items are read. The result
is the same as with the bounds of all nodes.
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
_FIRST_FEW = 16
# Items that are looked at together: what is between stays in the cache.
_TOGETHER = 2**15
_NEVER, _LOWEST = np.float32("-inf"), np.finfo(np.float32).min


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
            apart = self.num_items * _NEIGHBOURS // count
            pieces = self._values[:, : self.num_items // apart * apart].reshape(len(self._values), -1, apart)
            chosen = pieces[:, :, :_NEIGHBOURS].reshape(len(self._values), -1)
        return torch.from_numpy(chosen).expand(self.num_requests, -1)

    def above(self, least: Tensor) -> Pairs:
        """Read all; see [`AddedNumbers`]."""
        limits, is_large = least.numpy(), np.empty(self.num_items, np.bool_)
        found: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for line, limit in enumerate(limits):
            if len(self._values) > 1 or not found:
                numbers = self._values[line]
                lowest = limit if len(self._values) > 1 else limits.min()
                of_all = np.flatnonzero(np.greater(numbers, lowest, out=is_large))
                numbers = numbers[of_all]
            is_own = numbers > limit
            found.append(of_all[is_own])
            values.append(numbers[is_own])
        lines = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
        return (
            torch.from_numpy(lines),
            torch.from_numpy(np.concatenate(found)),
            torch.from_numpy(np.concatenate(values)),
        )

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
        self._num_large = _NUM_LARGE if isinstance(added, ArrayNumbers) else _NUM_MADE
        lines, rows, values = self._find_large()
        # What is known of each line, in the order of lines and leaves.
        keys = layout.places[rows] + lines * layout.num_items
        order = np.argsort(keys)
        self._keys, self._values = keys[order], values[order]

    def keys(self, depth: int, lines: Tensor, scores: Tensor, nodes: Tensor, limits: Tensor | None = None) -> Tensor:
        """Look at what may be among the best; see [`Bounds`]."""
        batch, width, most = scores.shape
        given, owners = scores.reshape(-1, most).numpy(), np.repeat(lines.numpy(), width)
        children = nodes.expand_as(scores).reshape(-1, most).numpy()
        keys = given + self._thresholds[owners][:, None]
        flat, bounds = self._look_up(depth, owners, children, np.flatnonzero((given > _NEVER).any(1)))
        found = given.reshape(-1)[flat] + bounds
        least = np.full(batch, _LOWEST)
        if limits is not None:
            least = np.maximum(least, _least_of(found, flat // (width * most), limits.numpy()))
        is_needed = keys.reshape(batch, -1) >= least[:, None]
        is_needed.reshape(-1)[flat] = False
        needed = np.flatnonzero(is_needed)
        keys.reshape(-1)[flat] = found
        looked = self._look_at(depth, owners[needed // most], children.reshape(-1)[needed])
        keys.reshape(-1)[needed] = given.reshape(-1)[needed] + looked
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
        size, sample = self._layout.num_items, self._added.sample(_NUM_SAMPLED).numpy()
        self._thresholds = np.empty(len(self._masks), np.float32)
        few: list[tuple[int, np.ndarray]] = []
        for line, mask in enumerate(self._masks):
            count = size if mask is None else int(np.count_nonzero(mask))
            if mask is not None and count < size // 2:
                # Few may be returned: of those, not of all, the largest.
                rows = np.flatnonzero(mask)[:: max(1, count // _NUM_SAMPLED)]
                few += [(line, rows)] if count <= self._num_large else []
                self._thresholds[line] = self._threshold(self._of_rows(np.full(len(rows), line), rows), count)
            else:
                self._thresholds[line] = self._threshold(sample[line], size)
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

    def _threshold(self, sample: np.ndarray, count: int) -> np.float32:
        """Return what about as many of `count` numbers as are large are above; minus infinity for fewer."""
        if count <= self._num_large:
            return _NEVER
        place = max(0, len(sample) - 1 - round(len(sample) * self._num_large / count))
        found: np.float32 = np.partition(sample, place)[place]
        return found

    def _look_up(self, depth: int, lines: _Rows, children: _Rows, used: _Rows) -> tuple[_Rows, np.ndarray]:
        """Return the bounds of children that are known, and where they are in the flat table, of the families used."""
        starts, size = self._layout.starts[depth], self._layout.num_items
        first, last, own = children[used, 0], children[used].max(1), lines[used] * size
        low = np.searchsorted(self._keys, own + starts[first])
        count = np.searchsorted(self._keys, own + starts[last + 1]) - low
        if count.sum() > children[used].size:
            # More items than nodes: look for nodes.
            edges = starts[np.minimum(first[:, None] + np.arange(children.shape[1] + 1), last[:, None] + 1)]
            edges = np.searchsorted(self._keys, own[:, None] + edges)
            has_any = edges[:, 1:] > edges[:, :-1]
            cuts = np.stack([edges[:, :-1][has_any], edges[:, 1:][has_any]], axis=1).reshape(-1)
            best = np.maximum.reduceat(np.append(self._values, _NEVER), cuts)[::2]
            return (used[:, None] * children.shape[1] + np.arange(children.shape[1]))[has_any], best
        families = np.repeat(np.arange(len(used)), count)
        places = np.arange(len(families)) + np.repeat(low - np.cumsum(count) + count, count)
        below = np.searchsorted(starts, (self._keys[places] - own[families]).astype(starts.dtype), side="right") - 1
        flat = used[families] * children.shape[1] + below - first[families]
        # The items of a node are neighbours.
        heads = np.flatnonzero(np.diff(flat, prepend=-1))
        return flat[heads], np.maximum.reduceat(self._values[places], heads) if len(heads) else self._values[:0]

    def _look_at(self, depth: int, lines: _Rows, nodes: _Rows) -> np.ndarray:
        """Return the bounds of nodes from the numbers of all their items."""
        starts = self._layout.starts[depth]
        begin, end = starts[nodes].astype(np.int64), starts[nodes + 1].astype(np.int64)
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
        best = np.empty(len(lines), np.float32)
        count = end - begin
        total = np.cumsum(count)
        # Cut behind every so many items.
        cuts = np.flatnonzero(np.diff(total // _TOGETHER, prepend=0)) + 1
        for low, high in zip([0, *cuts.tolist()], [*cuts.tolist(), len(lines)], strict=True):
            if low == high:
                continue
            own = count[low:high]
            offsets = np.cumsum(own) - own
            places = np.arange(int(own.sum())) + np.repeat(begin[low:high] - offsets, own)
            numbers = self._of_rows(np.repeat(lines[low:high], own), self._layout.item_rows[places])
            best[low:high] = np.maximum.reduceat(numbers, offsets)
        return best

    def _of_rows(self, lines: _Rows, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of pairs of a request and an item; minus infinity for what may not be returned."""
        order = None if (lines[1:] >= lines[:-1]).all() else np.argsort(lines, kind="stable")
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


def _least_of(found: np.ndarray, owners: _Rows, limits: _Rows) -> np.ndarray:
    """Return the last of each request's `limits` largest keys; minus infinity for fewer.

    Args:
        found (`np.ndarray`): float32 keys of all requests.
        owners (`np.ndarray`): int64, ascending, the request of each of them.
        limits (`np.ndarray`): int64, by request.
    """
    counts = np.bincount(owners, minlength=len(limits))
    keys = np.full((len(limits), counts.max(initial=1)), _NEVER)
    keys[owners, np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]] = found
    keys.sort(axis=1)
    least: np.ndarray = keys[np.arange(len(limits)), keys.shape[1] - np.minimum(limits, np.maximum(counts, 1))]
    return np.where(limits > counts, _NEVER, least)


__all__ = ["AddedNumbers", "ArrayNumbers", "AskedBounds", "Pairs"]
