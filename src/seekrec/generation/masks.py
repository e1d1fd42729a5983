# SPDX-License-Identifier: Apache-2.0
"""Which items below the prefixes of a trie may be returned."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

# Bytes of masks that one trie keeps: so many of a few, or of many. A mask over a million items takes about 8 MB and
# long to make. One over a thousand takes 40 kB, and most of them, what a user has seen, are never asked for again.
_FEW, _CACHE_BYTES, _CACHE_BYTES_OF_MANY = 32, 256 * 2**20, 16 * 2**20
# What an array takes besides its numbers: the objects of torch and numpy around it.
_BYTES_OF_AN_ARRAY = 600

# One array a depth, or none.
Arrays: TypeAlias = "tuple[np.ndarray, ...]"


@dataclass(frozen=True, eq=False)
class TrieMask:
    """The items that may be returned, counted for every prefix. Made by `IdentifierTrie.mask`.

    Args:
        where (`torch.Tensor`): bool of shape `(num_items,)` over item rows.
        counts (`tuple[torch.Tensor, ...]`): `counts[d]`, int32 with one entry for each node of depth `d`: how many
            allowed items are below it. Empty where few items of many are forbidden.
        closed (`tuple[torch.Tensor, ...]`): In place of `counts` there: `closed[d]`, int64, the nodes of depth `d`
            with no allowed item.
        owner ([`MaskCache`]): The `masks` of the trie it belongs to.
    """

    where: Tensor
    counts: tuple[Tensor, ...]
    closed: tuple[Tensor, ...]
    owner: MaskCache
    _copies: dict[torch.device, TrieMask] = field(default_factory=dict, repr=False)

    @cached_property
    def num_allowed(self) -> int:
        """Items that may be returned."""
        return int(self.counts[0][0]) if self.counts else int(np.count_nonzero(self.where.cpu().numpy()))

    def is_open(self, depth: int, nodes: Tensor) -> Tensor:
        """Return which nodes of a depth have an allowed item: bool of the shape of `nodes`."""
        if self.counts:
            return self.counts[depth][nodes] > 0
        return ~torch.isin(nodes, self.closed[depth])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays and of what contains them."""
        return sum(
            _BYTES_OF_AN_ARRAY + array.numel() * array.element_size()
            for array in (self.where, *self.counts, *self.closed)
        )

    def to(self, device: torch.device) -> TrieMask:
        """Return a copy on a device; the copy is kept."""
        if device == self.where.device:
            return self
        if device not in self._copies:
            counts, closed = (tuple(array.to(device) for array in own) for own in (self.counts, self.closed))
            self._copies[device] = TrieMask(self.where.to(device), counts, closed, self.owner)
        return self._copies[device]


class MaskCache:
    """The masks last made for one trie, found again by content; the least recently used go first.

    Args:
        max_bytes (`int`): What they may take together, but for the last.
        max_bytes_of_many (`int`): The same, where there are more than 32.
    """

    def __init__(self, max_bytes: int = _CACHE_BYTES, max_bytes_of_many: int = _CACHE_BYTES_OF_MANY) -> None:
        self._max_bytes, self._max_bytes_of_many = max_bytes, max_bytes_of_many
        self._masks: OrderedDict[bytes, TrieMask] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._masks)

    def get(self, allowed: np.ndarray, find: Callable[[np.ndarray], tuple[Arrays, Arrays]]) -> TrieMask:
        """Find the mask of `allowed`, or make it.

        Args:
            allowed (`np.ndarray`): bool of shape `(num_items,)`.
            find (`Callable`): Gives the counts of every depth, root first, or in their place the closed nodes.

        Returns:
            `TrieMask`: On the CPU.
        """
        key = hashlib.blake2b(np.packbits(allowed).tobytes(), digest_size=16).digest()
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        # Outside the lock: two threads may count the same mask, none waits for another's.
        counts, closed = (tuple(torch.from_numpy(np.ascontiguousarray(one)) for one in own) for own in find(allowed))
        mask = TrieMask(torch.from_numpy(allowed.copy()), counts, closed, self)
        with self._lock:
            if key in self._masks:  # another thread was first
                return self._masks[key]
            self._masks[key] = mask
            self._num_bytes += mask.nbytes
            while len(self._masks) > 1 and self._num_bytes > self._room:
                self._num_bytes -= self._masks.popitem(last=False)[1].nbytes
        return mask

    @property
    def _room(self) -> int:
        return self._max_bytes_of_many if len(self._masks) > _FEW else self._max_bytes


__all__ = ["MaskCache", "TrieMask"]
