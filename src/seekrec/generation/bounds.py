# SPDX-License-Identifier: Apache-2.0
"""Upper bounds on what is added to scores: for every prefix, the maximum over the items below it.

With `s` the log-probability of a prefix, which no identifier below it exceeds, `s` plus the bound is at least the sum
of each item below it. Beams chosen by this key keep the best sum if there are enough of them, and the key of a dropped
prefix limits how good the items below it can be.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xxhash
from torch import Tensor

from seekrec.errors import RequestError
from seekrec.generation.asked_bounds import AddedNumbers, ArrayNumbers, AskedBounds
from seekrec.generation.masks import TrieMask
from seekrec.generation.trie import Families, IdentifierTrie

# Bounds of numbers that all requests share, kept for the next call: at 800 thousand items about 10 MB each.
_NUM_KEPT = 4
# Of so few items the bounds of all nodes are made at once, which takes less than looking for those asked for.
_FEW = 2**15


class Bounds(Protocol):
    """Bounds of the nodes of a trie, for the requests of a batch."""

    def keys(self, depth: int, lines: Tensor, scores: Tensor, nodes: Tensor, limits: Tensor | None = None) -> Tensor:
        """Add bounds to the scores of the children of some nodes.

        Args:
            depth (`int`): Depth of the children.
            lines (`torch.Tensor`): int64 of shape `(B,)`: which request each line is of.
            scores (`torch.Tensor`): float32 of shape `(B, K, M)`: of the children of `K` nodes; minus infinity for
                none.
            nodes (`torch.Tensor`): int64, the children, that broadcasts to this shape; those of a node are neighbours
                and the first of them is real.
            limits (`torch.Tensor`, *optional*): int64 of shape `(B,)`: how many sums of each line are wanted. All
                others may then be larger than they are, but stay below these.

        Returns:
            `torch.Tensor`: float32 of shape `(B, K, M)`.
        """

    def of_items(self, lines: Tensor, rows: Tensor) -> Tensor:
        """Return what items get: float32 of the shape of `lines` (requests) and `rows` (of items), both int64."""


@dataclass(frozen=True, eq=False)
class TrieBounds:
    """Bounds of all nodes of a trie. Made by [`make_bounds`]; see [`Bounds`].

    Args:
        added (`torch.Tensor`): float32 of shape `(num_lines, num_items)`: what each item gets.
        best (`tuple[torch.Tensor, ...]`): `best[d]`, float32 of shape `(num_lines, num_nodes)`: the most that an item
            below each node of depth `d` gets.
    """

    added: Tensor
    best: tuple[Tensor, ...]

    def keys(self, depth: int, lines: Tensor, scores: Tensor, nodes: Tensor, limits: Tensor | None = None) -> Tensor:
        """Look bounds up."""
        best = self.best[depth]
        return scores + (best[0][nodes] if len(best) == 1 else best[lines[:, None, None], nodes])

    def of_items(self, lines: Tensor, rows: Tensor) -> Tensor:
        """Look numbers up."""
        return self.added[0][rows] if len(self.added) == 1 else self.added[lines, rows]


class _Step:
    """How maxima go from the children of one depth to their parents."""

    def __init__(self, family: Families, device: torch.device) -> None:
        first = family.first_children()
        is_first = np.zeros(family.num_children, bool)
        is_first[first] = True
        parents, children = np.cumsum(is_first)[~is_first] - 1, np.flatnonzero(~is_first)
        self.first, self.parents, self.children = (
            torch.from_numpy(part).to(device) for part in (first, parents, children)
        )

    def __call__(self, values: Tensor) -> Tensor:
        """Return the largest value among the children of each parent; of each line of `values`."""
        others = values.index_select(1, self.children)
        best = values.index_select(1, self.first)
        return best.scatter_reduce_(1, self.parents.expand(len(values), -1), others, "amax")


class _Kept:
    """What was made of one trie: bounds of numbers that all requests share, found again by content."""

    def __init__(self, trie: IdentifierTrie) -> None:
        self.order = trie.item_rows.long()
        # By depth; `None` where each node has one child.
        self.steps = [
            _Step(family, trie.device) if family.num_children > family.num_parents else None
            for family in trie.families
        ]
        self.bounds: OrderedDict[int, TrieBounds] = OrderedDict()


_KEPT: WeakKeyDictionary[IdentifierTrie, _Kept] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _kept_of(trie: IdentifierTrie) -> _Kept:
    with _LOCK:
        kept = _KEPT.get(trie)
    if kept is None:
        kept = _Kept(trie)
        with _LOCK:
            kept = _KEPT.setdefault(trie, kept)
    return kept


def make_bounds(trie: IdentifierTrie, added: Tensor) -> TrieBounds:
    """Find the most that an item below every node gets of what is added to scores, in time linear in the catalogue.

    Those of one line are kept: asking again with equal content costs one hash.

    Args:
        trie ([`IdentifierTrie`]): The trie.
        added (`torch.Tensor`): float32 of shape `(num_lines, num_items)` on the trie's device; minus infinity where an
            item may not be returned.
    """
    kept = _kept_of(trie)
    key = xxhash.xxh3_128_intdigest(added.cpu().contiguous().numpy().data) if len(added) == 1 else None
    with _LOCK:
        if key is not None and key in kept.bounds:
            kept.bounds.move_to_end(key)
            return kept.bounds[key]
    best = [added.index_select(1, kept.order)]
    for step in reversed(kept.steps):
        best.append(best[-1] if step is None else step(best[-1]))
    made = TrieBounds(added, tuple(reversed(best[1:])))
    if key is not None:
        # The caller may change what it gave.
        made = replace(made, added=added.clone())
        with _LOCK:
            kept.bounds[key] = made
            while len(kept.bounds) > _NUM_KEPT:
                kept.bounds.popitem(last=False)
    return made


def bounds_of_requests(
    trie: IdentifierTrie,
    added: np.ndarray | Tensor | AddedNumbers | None,
    requests: Sequence[int],
    mask_of: Sequence[TrieMask | None],
) -> Bounds:
    """Make the bounds of some requests of a batch.

    Args:
        trie ([`IdentifierTrie`]): Their trie.
        added (`np.ndarray`, *optional*): float32 of shape `(num_items,)`, or a line for each request of the batch,
            or [`AddedNumbers`]; nothing is added to any item if not given.
        requests (`Sequence[int]`): Their places in the batch.
        mask_of (`Sequence`): What each of them allows; `None` where everything is. The rest gets minus infinity.

    Raises:
        RequestError: If there is not a number for each item.
    """
    masks = [None if mask is None else mask.to(trie.device).where for mask in mask_of]
    asks = trie.device.type == "cpu" and trie.num_items > _FEW
    if added is None:
        added = torch.zeros(trie.num_items, device=trie.device)
    elif not isinstance(added, (Tensor, np.ndarray, Sequence)):
        if asks and added.num_items == trie.num_items:
            return AskedBounds(trie.layout, added.take(requests), [_as_array(mask) for mask in masks])
        added = added.numbers()
    values = (added.detach() if isinstance(added, Tensor) else torch.from_numpy(np.asarray(added))).to(trie.device)
    if values.ndim not in (1, 2) or values.shape[-1] != trie.num_items:
        raise RequestError(
            f"`added` has shape {tuple(values.shape)}, the trie {trie.num_items} items; pass one number for each "
            "item, for all requests or for each."
        )
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    if values.ndim == 2 and list(requests) != list(range(len(values))):
        values = values[list(requests)]
    values = values.float()
    lines = values[None] if values.ndim == 1 else values
    is_one = len(lines) == 1 and all(mask is masks[0] for mask in masks)
    if not is_one and asks:
        return AskedBounds(trie.layout, ArrayNumbers(lines.numpy(), len(masks)), [_as_array(mask) for mask in masks])
    if not is_one and any(mask is not None for mask in masks):
        everything = torch.ones(trie.num_items, dtype=torch.bool, device=trie.device)
        allowed = torch.stack([everything if mask is None else mask for mask in masks])
        lines = torch.where(allowed, lines, float("-inf"))
    elif masks[0] is not None:
        lines = torch.where(masks[0], lines, float("-inf"))
    return make_bounds(trie, lines)


def _as_array(mask: Tensor | None) -> np.ndarray | None:
    return None if mask is None else mask.numpy()


def find_parents(family: Families, children: Tensor) -> Tensor:
    """Return the parent of each child: int64 of the shape of `children`."""
    wanted = children.to(family.array.dtype).contiguous()
    if family.form == "starts":
        return torch.searchsorted(family.array, wanted, right=True) - 1
    # As many first children come before as there are children but for the extra ones.
    extra = family.array + 1 + torch.arange(len(family.array), device=wanted.device, dtype=family.array.dtype)
    return children - torch.searchsorted(extra, wanted, right=True)


__all__ = ["Bounds", "TrieBounds", "bounds_of_requests", "find_parents", "make_bounds"]
