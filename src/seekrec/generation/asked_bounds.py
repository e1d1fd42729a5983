# SPDX-License-Identifier: Apache-2.0
"""Bounds of those nodes of a trie that are asked for, where every request has numbers of its own.

Each line of numbers is read once, for its few largest. The bound of a node is known where one of them lies below it;
that of every other node is at most the threshold. Beams are chosen by sums, so a node counts for nothing once score
plus threshold is below the last sum wanted; of those that are left, the numbers of their items are looked at. What is
chosen is the same as with the bounds of all nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seekrec.generation.trie import Layout

_Rows = npt.NDArray[np.int64]
# About so many numbers of a line are the large ones; the threshold comes from a sample of so many.
_NUM_LARGE, _NUM_SAMPLED = 4096, 8192
# Items that are looked at before all of a node are: often one has the threshold itself, as most have of few boosts.
_FIRST_FEW = 16
# Items that are looked at together: what is between stays in the cache.
_TOGETHER = 2**15
_NEVER = np.float32("-inf")


class AskedBounds:
    """See [`Bounds`].

    Args:
        layout ([`Layout`]): Of the trie.
        added (`np.ndarray`): float32 of shape `(1, num_items)` or `(num_requests, num_items)`.
        masks (`Sequence`): For each request bool of shape `(num_items,)`; `None` where every item may be returned.
    """

    def __init__(self, layout: Layout, added: np.ndarray, masks: Sequence[np.ndarray | None]) -> None:
        self._layout, self._added, self._masks = layout, added, masks
        # Some item rows, the same each time; all of few.
        size = layout.num_items
        few = size <= _NUM_SAMPLED
        self._sample = np.arange(size) if few else np.random.default_rng(0).integers(0, size, _NUM_SAMPLED)
        large, self._thresholds = self._find_large()
        # What is known of each line, in the order of lines and leaves.
        keys = np.concatenate([layout.places[rows] + line * size for line, rows in enumerate(large)])
        values = np.concatenate([self._line(line)[rows] for line, rows in enumerate(large)])
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
        own: np.ndarray = self._added[0 if len(self._added) == 1 else line]
        return own

    def _find_large(self) -> tuple[list[_Rows], np.ndarray]:
        """Return the rows of each request's largest numbers, and what all others are at most."""
        size, found, thresholds = self._layout.num_items, [], []
        shared: tuple[_Rows, np.float32] | None = None
        is_large = np.empty(size, np.bool_)
        for line, mask in enumerate(self._masks):
            numbers = self._line(line)
            if mask is not None and (count := int(np.count_nonzero(mask))) < size // 2:
                # Few may be returned: of those, not of all, the largest.
                rows = np.flatnonzero(mask)
                own = numbers[rows]
                threshold = _threshold(own[:: max(1, count // _NUM_SAMPLED)], count)
                found.append(rows[own > threshold])
                thresholds.append(threshold)
                continue
            if shared is None or len(self._added) > 1:
                threshold = _threshold(numbers[self._sample], size)
                shared = np.flatnonzero(np.greater(numbers, threshold, out=is_large)), threshold
            rows, threshold = shared
            found.append(rows if mask is None else rows[mask[rows]])
            thresholds.append(threshold)
        return found, np.array(thresholds, np.float32)

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
        numbers: np.ndarray = self._added[0][rows] if len(self._added) == 1 else self._added[lines, rows]
        for line in np.unique(lines).tolist() if any(mask is not None for mask in self._masks) else []:
            if (mask := self._masks[line]) is not None:
                own = np.flatnonzero(lines == line)
                numbers[own[~mask[rows[own]]]] = _NEVER
        return numbers


def _threshold(sample: np.ndarray, count: int) -> np.float32:
    """Return what about `_NUM_LARGE` of `count` numbers are above; minus infinity for fewer."""
    if count <= _NUM_LARGE:
        return _NEVER
    place = max(0, len(sample) - 1 - round(len(sample) * _NUM_LARGE / count))
    found: np.float32 = np.partition(sample, place)[place]
    return found


def _least_of(keys: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the last of each line's `limits` largest keys; minus infinity for fewer."""
    most = min(int(limits.max(initial=1)), keys.shape[1])
    best = torch.from_numpy(keys).topk(most).values.numpy()
    least: np.ndarray = np.where(limits > most, _NEVER, best[np.arange(len(keys)), np.minimum(limits, most) - 1])
    return least


__all__ = ["AskedBounds"]
