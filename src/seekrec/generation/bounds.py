# SPDX-License-Identifier: Apache-2.0
"""What is added to the scores of items, as an upper bound for every prefix: the most that any item below it gets.

With `s` the log-probability of a prefix, which no identifier below it exceeds, `s` plus the bound is at least the sum
of each item below. A beam that is chosen by it holds the best sum as long as it holds the beams it needs, and a prefix
that was dropped tells how good what it hides can be at most.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xxhash
from torch import Tensor
from torch.nn import functional as F

from seekrec.errors import RequestError
from seekrec.generation.trie import Families, IdentifierTrie, TrieMask

# Bounds of numbers that all requests share, kept for the next call: at 800 thousand items about 10 MB each.
_NUM_KEPT = 4


@dataclass(frozen=True, eq=False)
class TrieBounds:
    """Bounds of all nodes of a trie, for one request or several. Made by [`make_bounds`].

    Args:
        added (`torch.Tensor`): float32 of shape `(num_lines, num_items)`: what each item gets.
        best (`tuple[torch.Tensor, ...]`): `best[d]`, float32 of shape `(num_lines, num_nodes)`: the most that an item
            below each node of depth `d` gets.
    """

    added: Tensor
    best: tuple[Tensor, ...]

    def of(self, depth: int, lines: Tensor, nodes: Tensor) -> Tensor:
        """Return the bounds of nodes.

        Args:
            depth (`int`): Depth of `nodes`.
            lines (`torch.Tensor`): int64, which line each node is asked for; broadcasts with `nodes`.
            nodes (`torch.Tensor`): int64 node numbers.
        """
        best = self.best[depth]
        return best[0][nodes] if len(best) == 1 else best[lines, nodes]

    def of_items(self, lines: Tensor, rows: Tensor) -> Tensor:
        """Return what items get, by item row; see [`of`]."""
        return self.added[0][rows] if len(self.added) == 1 else self.added[lines, rows]


class _Step:
    """How maxima go from the children of one depth to their parents."""

    def __init__(self, family: Families) -> None:
        first = torch.from_numpy(family.first_children())
        self.first, self.offsets = first, F.pad(first, (0, 1), value=family.num_children)
        self.extra: tuple[Tensor, Tensor] | None = None
        if family.form == "extras":
            parents = family.array.cpu().long()
            self.extra = parents, parents + 1 + torch.arange(len(parents))

    def __call__(self, values: Tensor) -> Tensor:
        """Return the largest value among the children of each parent."""
        if self.extra is None:
            return torch.segment_reduce(values, "max", offsets=self.offsets)
        # Nearly every parent has one child.
        parents, children = self.extra
        return values[self.first].scatter_reduce_(0, parents, values[children], "amax")


class _Kept:
    """What was made of one trie: bounds of numbers that all requests share, found again by content."""

    def __init__(self, trie: IdentifierTrie) -> None:
        self.order = trie.item_rows.cpu().long()
        # By depth; `None` where each node has one child.
        self.steps = [_Step(family) if family.num_children > family.num_parents else None for family in trie.families]
        self.bounds: OrderedDict[int, TrieBounds] = OrderedDict()


_KEPT: WeakKeyDictionary[IdentifierTrie, _Kept] = WeakKeyDictionary()
_LOCK = threading.Lock()


def make_bounds(trie: IdentifierTrie, added: np.ndarray) -> TrieBounds:
    """Find the most that an item below every node gets of what is added to scores, in time linear in the catalogue.

    Those of one line are kept: asking again with equal content costs one hash.

    Args:
        trie ([`IdentifierTrie`]): The trie.
        added (`np.ndarray`): float32 of shape `(num_lines, num_items)`; minus infinity where an item may not be
            returned.

    Returns:
        `TrieBounds`: On the trie's device.

    Raises:
        RequestError: If there is not a number for each item.
    """
    if added.ndim != 2 or added.shape[1] != trie.num_items:
        raise RequestError(
            f"`added` has shape {added.shape}, the trie {trie.num_items} items; pass one number for each item, for "
            "all requests or for each."
        )
    with _LOCK:
        kept = _KEPT.get(trie)
    if kept is None:
        kept = _Kept(trie)
        with _LOCK:
            kept = _KEPT.setdefault(trie, kept)
    key = xxhash.xxh3_128_intdigest(np.ascontiguousarray(added).data) if len(added) == 1 else None
    with _LOCK:
        if key is not None and key in kept.bounds:
            kept.bounds.move_to_end(key)
            return kept.bounds[key]
    numbers = torch.from_numpy(added)
    best = [torch.empty(len(added), trie.num_nodes(depth)) for depth in range(trie.num_levels + 1)]
    for number, line in enumerate(numbers):
        values = line.index_select(0, kept.order)
        for depth, step in zip(range(trie.num_levels, -1, -1), reversed(kept.steps), strict=True):
            values = values if step is None else step(values)
            best[depth][number] = values
    made = TrieBounds(numbers.to(trie.device), tuple(level.to(trie.device) for level in best))
    if key is not None:
        with _LOCK:
            kept.bounds[key] = made
            while len(kept.bounds) > _NUM_KEPT:
                kept.bounds.popitem(last=False)
    return made


def bounds_of_requests(
    trie: IdentifierTrie,
    added: np.ndarray | Tensor | None,
    requests: Sequence[int],
    mask_of: Sequence[TrieMask | None],
) -> TrieBounds:
    """Make the bounds of some requests of a batch: a line for each, or one for all.

    Args:
        trie ([`IdentifierTrie`]): Their trie.
        added (`np.ndarray`, *optional*): float32 of shape `(num_items,)`, or a line for each request of the batch;
            nothing is added to any item if not given.
        requests (`Sequence[int]`): Their places in the batch.
        mask_of (`Sequence`): What each of them allows; `None` where everything is. The rest gets minus infinity.
    """
    if added is None:
        added = np.zeros(trie.num_items, np.float32)
    values = added.detach().cpu().numpy() if isinstance(added, Tensor) else np.asarray(added)
    values = values.astype(np.float32, copy=False)
    values = values[None] if values.ndim == 1 else values[list(requests)]
    if any(mask is not mask_of[0] for mask in mask_of):
        values = np.array(np.broadcast_to(values, (len(requests), values.shape[1])))
        for line, mask in zip(values, mask_of, strict=True):
            if mask is not None:
                line[~mask.where.cpu().numpy()] = -np.inf
    elif mask_of[0] is not None:
        values = np.where(mask_of[0].where.cpu().numpy(), values, np.float32(-np.inf))
    return make_bounds(trie, values)


def find_parents(family: Families, children: Tensor) -> Tensor:
    """Return the parent of each child: int64 of the shape of `children`."""
    wanted = children.to(family.array.dtype).contiguous()
    if family.form == "starts":
        return torch.searchsorted(family.array, wanted, right=True) - 1
    # As many first children come before as there are children but for the extra ones.
    extra = family.array + 1 + torch.arange(len(family.array), device=wanted.device, dtype=family.array.dtype)
    return children - torch.searchsorted(extra, wanted, right=True)


__all__ = ["TrieBounds", "bounds_of_requests", "find_parents", "make_bounds"]
