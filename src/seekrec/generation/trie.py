# SPDX-License-Identifier: Apache-2.0
"""The identifiers of a catalogue as a trie of flat arrays.

Unusual here:

- Nodes are not objects. The nodes of depth `d` (prefixes of `d` codes) are numbered 0, 1, ... in lexicographic order,
  so the children of a node are neighbours, and so are the items of an identifier.
- Arrays are as narrow as the codebook allows (one byte per code up to 256 codes): two or three bytes per item for four
  levels of 256, and 4 for its row.
- A mask does not change the trie. It counts, for every node, the items below it that are allowed; a prefix with
  count 0 is never entered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seekrec.errors import RequestError
from seekrec.generation.masks import Arrays, MaskCache, TrieMask
from seekrec.generation.sorted_codes import check_codes, code_type, sort_identifiers

# Where less than one item in so many is forbidden, as those that a user has seen, allowed ones are not counted.
_SELDOM = 1000


@dataclass(frozen=True, eq=False)
class Families:
    """Parents 0..n-1 with at least one child each; children are numbered in the order of their parents.

    A family is a range of children, so the first child of each parent says all. Two forms of it, the smaller is kept:

    - `"starts"`: the first child of every parent, and the number of children at the end;
    - `"extras"`: for every child that is not a first child, its parent. Small where nearly every parent has one child,
      as deep in a trie. The first child of parent `n` is then `n` plus the number of entries below `n`.

    Args:
        form (`str`): `"starts"` or `"extras"`.
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


class Layout:
    """Where items lie in the order of a trie's leaves; on the CPU.

    Args:
        families (`Sequence[Families]`): Those of the trie.
        item_rows (`torch.Tensor`): Item rows in the order of the leaves.
    """

    def __init__(self, families: Sequence[Families], item_rows: Tensor) -> None:
        self._families, self.num_items = families, len(item_rows)
        self.item_rows: np.ndarray = item_rows.cpu().numpy()

    @cached_property
    def starts(self) -> tuple[np.ndarray, ...]:
        """By depth where the items of each node begin, and their number: `(num_nodes + 1,)`."""
        starts = [np.arange(self.num_items + 1, dtype=self.item_rows.dtype)]
        for family in reversed(self._families):
            below = starts[-1]
            own = below if family.num_children == family.num_parents else below[family.first_children()]
            starts.append(own if own is below else np.append(own, below[-1]))
        return tuple(reversed(starts[1:]))

    @cached_property
    def places(self) -> np.ndarray:
        """The place of each item row."""
        places = np.empty_like(self.item_rows)
        places[self.item_rows] = np.arange(self.num_items, dtype=self.item_rows.dtype)
        return places

    @cached_property
    def tops(self) -> np.ndarray:
        """The node of depth 1 above each item row: integers as narrow as their number allows."""
        counts = np.diff(self.starts[1])
        tops = np.empty(self.num_items, np.min_scalar_type(len(counts) - 1))
        tops[self.item_rows] = np.repeat(np.arange(len(counts), dtype=tops.dtype), counts)
        return tops

    def closed(self, forbidden: np.ndarray) -> Arrays:
        """Return for each depth the nodes below which there are forbidden items alone: int64, rising.

        Args:
            forbidden (`np.ndarray`): int64 rows of the forbidden items.
        """
        places, found = self.places[forbidden], []
        for starts in self.starts:
            nodes, counts = np.unique(np.searchsorted(starts, places, side="right") - 1, return_counts=True)
            found.append(nodes[counts == starts[nodes + 1] - starts[nodes]])
        return tuple(found)


class Children(NamedTuple):
    """The children of some nodes, padded to the largest family `M`.

    Args:
        nodes (`torch.Tensor`): int64 of shape `(..., M)`, numbers of nodes one level down; 0 where padded.
        codes (`torch.Tensor`): int64 of shape `(..., M)`, the code that leads there; any valid code where padded.
        is_real (`torch.Tensor`): bool of shape `(..., M)`, false where padded.
    """

    nodes: Tensor
    codes: Tensor
    is_real: Tensor


@dataclass(frozen=True, eq=False)
class IdentifierTrie:
    """All identifiers of one view of a catalogue. Build it with [`IdentifierTrie.from_codes`].

    Depth 0 is the root (node 0); depth `num_levels` are the identifiers ("leaves"), each with one or more items.

    Args:
        codebook_sizes (`tuple[int, ...]`): Codes per level, `L` of them.
        codes (`tuple[torch.Tensor, ...]`): `codes[l]` is the last code of every node of depth `l + 1`.
        families (`tuple[Families, ...]`): `families[d]` links depth `d` to depth `d + 1`; the last one links leaves to
            positions in `item_rows`. `L + 1` of them.
        item_rows (`torch.Tensor`): Item rows in the order of the leaves; within a leaf they rise.
        masks ([`MaskCache`]): The masks last made. It marks them as this trie's, on whatever device.
    """

    codebook_sizes: tuple[int, ...]
    codes: tuple[Tensor, ...]
    families: tuple[Families, ...]
    item_rows: Tensor
    masks: MaskCache = field(default_factory=MaskCache, repr=False)
    _copies: dict[torch.device, IdentifierTrie] = field(default_factory=dict, repr=False)

    @classmethod
    def from_codes(
        cls, codes: np.ndarray | Tensor | Sequence[Sequence[int]], codebook_size: int | Sequence[int]
    ) -> IdentifierTrie:
        """Build the trie with one sort of the identifiers.

        Args:
            codes (`np.ndarray`): Integers of shape `(num_items, num_levels)`, in any order; equal rows are items
                that share an identifier.
            codebook_size (`int` or `Sequence[int]`): Codes per level, one number for all levels or one each.

        Returns:
            `IdentifierTrie`: On the CPU. Node numbers depend only on the set of identifiers.

        Raises:
            CatalogError: If there are no items or no levels, or a code is outside its codebook.
        """
        table, sizes = check_codes(codes, codebook_size)
        num_items = len(table)
        order, columns = sort_identifiers(table, sizes)
        level_codes, families = [], []
        is_start = np.zeros(num_items, bool)  # at sorted position i: does a prefix of the current depth begin here?
        is_start[0] = True
        parents = np.zeros(1, np.int64)  # where the prefixes of the depth above begin
        for column, size in zip(columns, sizes, strict=True):
            begins_parent = is_start.copy()
            is_start[1:] |= column[1:] != column[:-1]
            parents = np.flatnonzero(is_start)
            level_codes.append(torch.from_numpy(column[parents].astype(code_type(size))))
            # A child that begins where its parent begins is the parent's first.
            families.append(Families.from_first_children(np.flatnonzero(begins_parent[parents]), len(parents)))
        families.append(Families.from_first_children(parents, num_items))
        rows = order.astype(np.int32 if num_items < 2**31 else np.int64)
        return cls(sizes, tuple(level_codes), tuple(families), torch.from_numpy(rows))

    @cached_property
    def layout(self) -> Layout:
        """Where items lie in the order of the leaves: 4 bytes per item and a node, made at first use."""
        return Layout([family.to(torch.device("cpu")) for family in self.families], self.item_rows)

    @cached_property
    def num_levels(self) -> int:
        """Codes per identifier."""
        return len(self.codebook_sizes)

    @cached_property
    def num_items(self) -> int:
        """Items, those with a shared identifier counted one by one."""
        return len(self.item_rows)

    @property
    def num_identifiers(self) -> int:
        """Distinct identifiers."""
        return len(self.codes[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (*self.codes, *(family.array for family in self.families), self.item_rows)
        return sum(array.numel() * array.element_size() for array in arrays)

    @cached_property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self.item_rows.device

    def num_nodes(self, depth: int) -> int:
        """Count the prefixes of `depth` codes; 1 for depth 0."""
        return 1 if depth == 0 else len(self.codes[depth - 1])

    def children(self, depth: int, nodes: Tensor) -> Children:
        """Gather the children of nodes.

        Args:
            depth (`int`): Depth of `nodes`, from 0 to `num_levels - 1`.
            nodes (`torch.Tensor`): int64 node numbers of any shape.

        Returns:
            `Children`: Of shape `(*nodes.shape, M)`, `M` being the largest number of children among `nodes`. Codes
            rise.
        """
        first, count = self.families[depth].ranges(nodes)
        steps = torch.arange(int(count.max()) if count.numel() else 0, device=nodes.device)
        is_real = steps < count[..., None]
        child = torch.where(is_real, first[..., None] + steps, 0)
        return Children(child, self.codes[depth][child].long(), is_real)

    def find(self, prefixes: Tensor) -> Tensor:
        """Look prefixes up.

        Args:
            prefixes (`torch.Tensor`): int64 codes of shape `(n, depth)`; any value is allowed.

        Returns:
            `torch.Tensor`: int64 node numbers of shape `(n,)`; -1 where the trie has no such prefix.
        """
        prefixes = prefixes.to(self.device)
        nodes = torch.zeros(len(prefixes), dtype=torch.int64, device=self.device)
        is_found = torch.ones(len(prefixes), dtype=torch.bool, device=self.device)
        for depth in range(prefixes.shape[1]):
            level_codes, wanted = self.codes[depth], prefixes[:, depth]
            last = len(level_codes) - 1
            low, count = self.families[depth].ranges(nodes)
            end = high = low + count
            # The codes of siblings rise: halve all ranges at once.
            for _ in range(int(count.max()).bit_length() if count.numel() else 0):
                middle = torch.div(low + high, 2, rounding_mode="floor")
                is_below = (low < high) & (level_codes[middle.clamp(max=last)].long() < wanted)
                low, high = torch.where(is_below, middle + 1, low), torch.where(is_below, high, middle)
            nodes = low.clamp(max=last)
            is_found &= (low < end) & (level_codes[nodes].long() == wanted)
            nodes = torch.where(is_found, nodes, 0)
        return torch.where(is_found, nodes, -1)

    def expand_leaves(self, leaves: Tensor) -> tuple[Tensor, Tensor]:
        """Replace leaves by their items.

        Args:
            leaves (`torch.Tensor`): int64 of shape `(n,)`, nodes of depth `num_levels`.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: int64 item rows, and for each the position in `leaves` it comes from
            (rising; rows of one leaf rise).
        """
        first, count = self.families[-1].ranges(leaves)
        source = torch.repeat_interleave(torch.arange(len(leaves), device=leaves.device), count)
        within = torch.arange(len(source), device=leaves.device) - (torch.cumsum(count, 0) - count)[source]
        return self.item_rows[first[source] + within].long(), source

    def mask(self, where: np.ndarray | Tensor) -> TrieMask:
        """Find the nodes with allowed items, in time linear in the catalogue; faster where few are forbidden.

        The last masks are kept: asking again with equal content costs one hash of `where`.

        Args:
            where (`np.ndarray`): bool of shape `(num_items,)` over item rows, true where the item may be returned.

        Returns:
            `TrieMask`: For this trie only.

        Raises:
            RequestError: If `where` is not bool or has another length.
        """
        allowed = where.detach().cpu().numpy() if isinstance(where, Tensor) else np.asarray(where)
        if allowed.dtype != np.bool_ or allowed.shape != (self.num_items,):
            raise RequestError(
                f"`where` is {allowed.dtype} of shape {allowed.shape}; pass bool of shape ({self.num_items},), one "
                "entry for each item of the catalogue."
            )
        return self.masks.get(allowed, self._find_open).to(self.device)

    def _find_open(self, allowed: np.ndarray) -> tuple[Arrays, Arrays]:
        """Count bottom-up, one int32 array per depth, root first; or find the closed nodes where that is faster."""
        forbidden = np.flatnonzero(~allowed)
        if (1 + len(forbidden)) * _SELDOM < self.num_items:
            return (), self.layout.closed(forbidden)
        counts = allowed[self.item_rows.cpu().numpy()].astype(np.int32)
        result = []
        for family in reversed(self.families):
            if family.num_children > family.num_parents:
                counts = np.add.reduceat(counts, family.first_children())  # no parent is childless: no empty range
            result.append(counts)
        return tuple(reversed(result)), ()

    def to(self, device: torch.device | str) -> IdentifierTrie:
        """Return a copy on a device; the copy is kept, and shares the masks."""
        target = torch.device(device)
        if target == self.device:
            return self
        if target not in self._copies:
            self._copies[target] = IdentifierTrie(
                codebook_sizes=self.codebook_sizes,
                codes=tuple(array.to(target) for array in self.codes),
                families=tuple(family.to(target) for family in self.families),
                item_rows=self.item_rows.to(target),
                masks=self.masks,
            )
        return self._copies[target]
