# SPDX-License-Identifier: Apache-2.0
"""Dot products of requests with the vectors of a catalogue, roughly or exactly.

In a large catalogue, reading every vector dominates the cost. If only the best items are needed, a half-precision
copy, multiplied by native instructions, tells which can be among them; its maximum error is known, and those few are
multiplied exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from seekrec.util.growing import append_rows
from seekrec.util.precision import cpu_has_bf16

# A half is rounded at the eighth binary digit. A copy of fewer items is not worth its making: of sixteen requests each
# takes 5 % less with one in a dense family at 100 thousand items and as long in GenSR, at a million 10 % less there.
_FEW_ITEMS = 2**16
_ROUNDING = 2.0**-8
_ROWS_AT_ONCE = 2**14
# Fewer pairs of a request are multiplied together with those of the others.
_FEW_OF_REQUEST = 64


@dataclass(frozen=True)
class Rounded:
    """A copy of vectors in bfloat16.

    Args:
        items (`torch.Tensor`): bfloat16 of shape `(num_items, size)`.
        longest (`float`): Length of the longest vector.
        error (`float`): Length of the largest difference to what was rounded.
    """

    items: Tensor
    longest: float
    error: float

    def limits(self, questions: Tensor, halves: Tensor) -> Tensor:
        """Return what products of these questions are off by at most: float32 of shape `(batch,)`.

        By `|q x - q' x'| <= |q| |x - x'| + |q - q'| |x'|`, and what is rounded of the result.
        """
        lengths, missed = questions.norm(dim=1), (questions - halves.float()).norm(dim=1)
        return 1.01 * (lengths * (self.error + _ROUNDING * self.longest) + missed * (self.longest + self.error))


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Vectors of all items.

    Args:
        vectors (`torch.Tensor`): float32 of shape `(num_items, size)`; not copied.
        shift (`torch.Tensor`, *optional*): float32 of shape `(size,)`, taken off every vector.
        scales (`torch.Tensor`, *optional*): float32 of shape `(num_items,)`, by which the rest is multiplied.
    """

    vectors: Tensor
    shift: Tensor | None = None
    scales: Tensor | None = None

    @classmethod
    def of_directions(cls, vectors: Tensor, shift: Tensor) -> VectorTable:
        """Build it from vectors that are to have unit length after the shift."""
        return cls(vectors, shift, _inverse_lengths(vectors, shift))

    def grown(self, vectors: Tensor) -> VectorTable:
        """Return the table of more vectors, which begin with the same; what was made of these is not made again.

        Args:
            vectors (`torch.Tensor`): float32 of shape `(any, size)`.
        """
        num_known, scales = len(self.vectors), self.scales
        if scales is not None and self.shift is not None:
            scales = torch.cat([scales, _inverse_lengths(vectors[num_known:], self.shift)])
        table = VectorTable(vectors, self.shift, scales)
        more = slice(num_known, len(vectors))
        rounded = self.__dict__.get("rounded")
        if "longest" in self.__dict__:
            table.__dict__["longest"] = max(self.longest, _longest(table.of(more)))
        if rounded is not None and len(vectors) > num_known:
            exact = table.of(more)
            halves = exact.to(torch.bfloat16)
            # As integers, which numpy knows.
            items = append_rows(rounded.items.view(torch.int16).numpy(), halves.view(torch.int16).numpy())
            error = max(rounded.error, _longest(exact - halves))
            rounded = Rounded(torch.from_numpy(items).view(torch.bfloat16), table.longest, error)
        if rounded is not None:
            table.__dict__["rounded"] = rounded
        return table

    def of(self, rows: Tensor | slice) -> Tensor:
        """Return the vectors of some items, shifted and scaled."""
        part = self.vectors[rows]
        part = part if self.shift is None else part - self.shift
        return part if self.scales is None else part * self.scales[rows, None]

    @cached_property
    def rounded(self) -> Rounded | None:
        """A copy to look through; `None` where there are few items, or the processor would be slower with it."""
        vectors = self.vectors
        if vectors.device.type != "cpu" or len(vectors) < _FEW_ITEMS or not cpu_has_bf16():
            return None
        items = torch.empty(vectors.shape, dtype=torch.bfloat16)
        error = 0.0
        for begin in range(0, len(vectors), _ROWS_AT_ONCE):
            exact = self.of(slice(begin, begin + _ROWS_AT_ONCE))
            halves = items[begin : begin + len(exact)].copy_(exact)
            error = max(error, _longest(exact - halves))
        return Rounded(items, self.longest, error)

    @cached_property
    def longest(self) -> float:
        """Length of the longest vector."""
        parts = range(0, len(self.vectors), _ROWS_AT_ONCE)
        return max((_longest(self.of(slice(begin, begin + _ROWS_AT_ONCE))) for begin in parts), default=0.0)


def _longest(vectors: Tensor) -> float:
    return float(vectors.norm(dim=1).max()) if len(vectors) else 0.0


def _inverse_lengths(vectors: Tensor, shift: Tensor) -> Tensor:
    """Return the inverse lengths of vectors less a shift, in parts: a second table would take as much as the first."""
    squares = [(part - shift).square().sum(1) for part in vectors.split(_ROWS_AT_ONCE)]
    return torch.cat([vectors.new_empty(0), *squares]).clamp_min(1e-12).rsqrt()


@dataclass(frozen=True, eq=False)
class Products:
    """Dot products of a vector for each request and one for each item.

    Args:
        questions (`torch.Tensor`): float32 of shape `(batch, size)`.
        table ([`VectorTable`]): The items.
        limits (`torch.Tensor`, *optional*): float32 of shape `(batch,)`: what no product of a request exceeds, of
            either sign; not known if not given.
    """

    questions: Tensor
    table: VectorTable
    limits: Tensor | None = None

    def add_to(self, total: Tensor, begin: int) -> None:
        """Multiply; see [`Part`]."""
        table, rows = self.table, slice(begin, begin + len(total))
        if table.shift is None and table.scales is None:
            total.addmm_(table.vectors[rows], self.questions.T)
            return
        scores = table.vectors[rows] @ self.questions.T
        if table.shift is not None:
            scores -= self.questions @ table.shift
        total += scores if table.scales is None else scores.mul_(table.scales[rows, None])

    def add_roughly(self, total: Tensor, begin: int) -> None:
        """Add what is off by [`slack`] at most."""
        if (rounded := self.table.rounded) is None:
            self.add_to(total, begin)
        else:
            products = rounded.items[begin : begin + len(total)] @ self._halves.T
            total += products[:, : total.shape[1]]

    @cached_property
    def slack(self) -> Tensor:
        """What [`add_roughly`] is off by at most: float32 of shape `(batch,)`."""
        questions, rounded = self.questions, self.table.rounded
        # Adding up in another order makes a difference, too.
        order = (questions.shape[1] + 8) * 2.0**-23 * self.table.longest * questions.norm(dim=1)
        return order if rounded is None else order + rounded.limits(questions, self._halves[: len(questions)])

    @cached_property
    def _halves(self) -> Tensor:
        halves = self.questions.to(torch.bfloat16)
        # Two take less than one: the products of a single vector are made by other instructions.
        return halves.expand(2, -1) if len(halves) == 1 else halves

    def of(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Multiply pairs; see [`Part`]."""
        table = self.table
        if len(rows) < _FEW_OF_REQUEST * len(self.questions):
            scores = table.vectors[rows].mul_(self.questions[requests]).sum(1)
        else:
            counts = torch.bincount(requests, minlength=len(self.questions)).tolist()
            lines = zip(self.questions, rows.split(counts), strict=True)
            scores = torch.cat([table.vectors[own] @ question for question, own in lines])
        scores = scores if table.shift is None else scores - (self.questions @ table.shift)[requests]
        return scores if table.scales is None else scores * table.scales[rows]

    def take(self, requests: list[int]) -> Products:
        """Take requests; see [`Part`]."""
        limits = None if self.limits is None else self.limits[requests]
        return replace(self, questions=self.questions[requests], limits=limits)


__all__ = ["Products", "Rounded", "VectorTable"]
