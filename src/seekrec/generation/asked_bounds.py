# SPDX-License-Identifier: Apache-2.0
"""Bounds of those nodes of a trie that are asked for, where every request has numbers of its own.

Each line of numbers is read once, for its few largest. The bound of a node is known where one of them lies below it;
that of every other node is at most the threshold. Beams are chosen by sums, so a node counts for nothing once score
plus threshold is below the last sum wanted; of those that are left, the numbers of their items are looked at. What is
chosen is the same as with the bounds of all nodes.
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
_NUM_LARGE, _NUM_SAMPLED = 4096, 8192
# Of numbers that are made where they are asked for, fewer are worth making.
_NUM_MADE = 256
# Items that are looked at before all of a node are: often one has the threshold itself, as most have of few boosts.
_FIRST_FEW = 16
# Items that are looked at together: what is between stays in the cache.
_TOGETHER = 2**15
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
        rows = np.arange(self.num_items)
        rows = rows if count >= self.num_items else np.random.default_rng(0).integers(0, self.num_items, count)
        return torch.from_numpy(self._values[:, rows]).expand(self.num_requests, -1)

    def above(self, least: Tensor) -> Pairs:
        """Read all; see [`AddedNumbers`]."""
        limits, is_large = least.numpy(), np.empty(self.num_items, np.bool_)
        found, of_all = [], None
        for line in range(self.num_requests):
            if len(self._values) > 1 or of_all is None:
                numbers = self._values[min(line, len(self._values) - 1)]
                limit = limits[line] if len(self._values) > 1 else limits.min(initial=np.inf)
                of_all = np.flatnonzero(np.greater(numbers, limit, out=is_large))
            found.append(of_all if len(self._values) > 1 else of_all[numbers[of_all] > limits[line]])
        lines = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
        rows = np.concatenate(found)
        return torch.from_numpy(lines), torch.from_numpy(rows), torch.from_numpy(self._of(lines, rows))

    def of_pairs(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Look up; see [`AddedNumbers`]."""
        return torch.from_numpy(self._of(requests.numpy(), rows.numpy()))

    def _of(self, lines: _Rows, rows: np.ndarray) -> np.ndarray:
        numbers: np.ndarray = self._values[0][rows] if len(self._values) == 1 else self._values[lines, rows]
        return numbers


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
        given = scores.reshape(-1, most).numpy()
        is_asked = given > _NEVER
        used = np.flatnonzero(is_asked.any(1))
        places, own, asked = used // width, given[used], is_asked[used]
        owners = lines.numpy()[places]
        children = nodes.expand_as(scores).reshape(-1, most).numpy()[used]
        bounds, known = self._look_up(depth, owners, children)
        keys = np.full(given.shape, _NEVER)
        if limits is not None:
            keys[used] = np.where(asked & known, own + bounds, _NEVER)
            least = _least_of(keys.reshape(batch, -1), limits.numpy())
            needed = asked & ~known & (own + bounds >= least[places][:, None])
        else:
            needed = asked & ~known
        rows, columns = needed.nonzero()
        bounds[rows, columns] = self._look_at(depth, owners[rows], children[rows, columns])
        keys[used] = own + bounds
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

    def _look_up(self, depth: int, lines: _Rows, children: _Rows) -> tuple[np.ndarray, npt.NDArray[np.bool_]]:
        """Return the bounds of families of nodes by what is known, and whether they are as said: `(n, M)`."""
        starts, size = self._layout.starts[depth], self._layout.num_items
        first = children[:, 0]
        begin, end = starts[first].astype(np.int64), starts[children.max(1) + 1].astype(np.int64)
        low = np.searchsorted(self._keys, lines * size + begin)
        count = np.searchsorted(self._keys, lines * size + end) - low
        owners = np.repeat(np.arange(len(lines)), count)
        places = np.arange(len(owners)) + np.repeat(low - np.cumsum(count) + count, count)
        below = np.searchsorted(starts, self._keys[places] - lines[owners] * size, side="right") - 1
        best = np.full(children.shape, _NEVER)
        np.maximum.at(best.reshape(-1), owners * children.shape[1] + below - first[owners], self._values[places])
        most = self._thresholds[lines][:, None]
        known = (best > _NEVER) | (most == _NEVER)
        return np.where(best > _NEVER, best, most), known

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


def _least_of(keys: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the last of each line's `limits` largest keys; minus infinity for fewer."""
    most = min(int(limits.max(initial=1)), keys.shape[1])
    best = torch.from_numpy(keys).topk(most).values.numpy()
    least: np.ndarray = np.where(limits > most, _NEVER, best[np.arange(len(keys)), np.minimum(limits, most) - 1])
    return least


__all__ = ["AddedNumbers", "ArrayNumbers", "AskedBounds", "Pairs"]
