# SPDX-License-Identifier: Apache-2.0
"""Which children belong to which parent, when the children of each parent are neighbours.

A family is a range of children, so the first child of each parent says all. Two forms of it, the smaller is kept:

- `"starts"`: the first child of every parent, and the number of children at the end;
- `"extras"`: for every child that is not a first child, its parent. Small where nearly every parent has one child, as
  deep in a trie. The first child of parent `n` is then `n` plus the number of entries below `n`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Families:
    """Parents 0..n-1 with at least one child each; children are numbered in the order of their parents.

    Args:
        form (`str`): `"starts"` or `"extras"`, see the module.
        array (`torch.Tensor`): int32 or int64, rising. `num_parents + 1` entries, or `num_children - num_parents`.
        num_parents (`int`): Parents.
        num_children (`int`): Children.
    """

    form: Literal["starts", "extras"]
    array: Tensor
    num_parents: int
    num_children: int

    @classmethod
    def from_first_children(cls, first: np.ndarray, num_children: int) -> Families:
        """Keep the smaller form.

        Args:
            first (`np.ndarray`): Integers of shape `(num_parents,)`, strictly rising from 0: the first child of each
                parent.
            num_children (`int`): Children of all parents together.

        Returns:
            `Families`: On the CPU.
        """
        num_parents = len(first)
        dtype = np.int32 if num_children < 2**31 else np.int64
        if num_children - num_parents > num_parents:
            starts = np.append(first, num_children).astype(dtype)
            return cls("starts", torch.from_numpy(starts), num_parents, num_children)
        is_first = np.zeros(num_children, bool)
        is_first[first] = True
        extra = np.flatnonzero(~is_first)
        # Extra child number i at position p has p - i first children before it, the last of which is its own parent's.
        parents = (extra - np.arange(len(extra)) - 1).astype(dtype)
        return cls("extras", torch.from_numpy(parents), num_parents, num_children)

    def ranges(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the children of parents.

        Args:
            parents (`torch.Tensor`): int64 of any shape.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: int64 first child and number of children, each of that shape.
        """
        if self.form == "starts":
            first = self.array[parents].long()
            return first, self.array[parents + 1].long() - first
        if not len(self.array):
            return parents, torch.ones_like(parents)
        wanted = parents.to(self.array.dtype).contiguous()
        before, end = torch.searchsorted(self.array, wanted), torch.searchsorted(self.array, wanted, right=True)
        return parents + before, 1 + end - before

    def first_children(self) -> np.ndarray:
        """Return the first child of every parent, int64 of shape `(num_parents,)`."""
        array = self.array.cpu().numpy().astype(np.int64)
        if self.form == "starts":
            return array[:-1]
        is_first = np.ones(self.num_children, bool)
        is_first[array + 1 + np.arange(len(array))] = False
        return np.flatnonzero(is_first)

    def to(self, device: torch.device) -> Families:
        """Return a copy on a device."""
        return Families(self.form, self.array.to(device), self.num_parents, self.num_children)

    def check(self) -> str | None:
        """Say what contradicts itself, from lengths and ends alone; `None` if nothing does."""
        if self.form == "extras":
            if self.num_parents + len(self.array) != self.num_children:
                return f"{len(self.array)} entries for {self.num_children} children of {self.num_parents} parents"
            if len(self.array) and not 0 <= int(self.array[0]) <= int(self.array[-1]) < self.num_parents:
                return f"entries from {int(self.array[0])} to {int(self.array[-1])} for {self.num_parents} parents"
            return None
        ends = self.array[[0, -1]].tolist() if len(self.array) else [None, None]
        if len(self.array) == self.num_parents + 1 and ends == [0, self.num_children]:
            return None
        found = f"{len(self.array)} entries from {ends[0]} to {ends[1]}"
        return f"{found} for {self.num_parents} parents of {self.num_children}"
