# SPDX-License-Identifier: Apache-2.0
"""Scores added to a model's own, for any items of a batch of requests, in blocks of the catalogue.

In a large catalogue the cost is dominated by products of long vectors. The best sums are found without most of them:
cheap scores are added first, then upper bounds of products, then rough products with a known error; the exact sum is
computed only for items that can still be among the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seekrec.models.answers import found_of
from seekrec.models.views.parts import Entries, Numbers, Part
from seekrec.models.views.products import Products
from seekrec.util.ragged import Ragged

# Sums of a block, an item a row, and items that a block has at least. Smaller ones would stay in a processor's own
# cache, but each takes its time to begin with: with blocks of an eighth, a request in 100 thousand items took longer.
_BLOCK_CELLS, _LEAST_ITEMS = 2**20, 2**11
# A device takes its time to begin with a block.
_BLOCK_CELLS_OF_DEVICE = 2**24
# To multiply a pair costs as much as to multiply so many items for all requests, roughly and exactly.
_COST_OF_PAIR, _COST_OF_EXACT_PAIR = 6, 2
# One item in so many, or more, is looked for among all.
_FEW_OF_CATALOG = 16
# Pairs that are multiplied at a time.
_PAIRS_AT_ONCE = 2**16
# Items of a group of which the best is looked at, and groups for each item wanted, so that few of these share one.
_GROUP, _GROUPS_A_WANTED = 64, 16
# Items of a group of which the best tells whether the others are looked at.
_SMALL_GROUP = 16
# Stretches of items that are looked at to know how large scores are.
_NUM_STRETCHES = 16
# Where fewer than one item in so many may not be answered, they are told by their rows.
_SELDOM = 64
_NEVER = float("-inf")

# Requests and items, both int64, ascending by request; and float32 sums.
Pairs = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class AddedScores:
    """What is added to a model's own scores of the items of a catalogue, for a batch of requests.

    Args:
        parts (`Sequence[Part]`): What is added up, if anything.
        num_requests (`int`): Size of the batch.
        num_items (`int`): Length of the catalogue.
        device (`torch.device`): Where they are.
    """

    parts: Sequence[Part]
    num_requests: int
    num_items: int
    device: torch.device

    def numbers(self) -> Tensor:
        """Return what is added to all items: float32 of shape `(num_items,)` for all requests, or a line for each."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Numbers):
            return self.parts[0].values
        return self._of_range(0, self.num_items)

    @property
    def has_numbers(self) -> bool:
        """Whether numbers that a caller gave are among it."""
        return any(isinstance(part, Numbers) for part in self.parts)

    def for_beams(self) -> Tensor | AddedScores:
        """Return what beams are steered by: numbers where a caller's are all there is."""
        return self.numbers() if all(isinstance(part, Numbers) for part in self.parts) else self

    def sample(self, count: int) -> Tensor:
        """Return what is added to some items, in stretches over the catalogue: float32 `(num_requests, any)`."""
        size = max(1, count // _NUM_STRETCHES)
        begins = np.linspace(0, max(0, self.num_items - size), _NUM_STRETCHES if count < self.num_items else 1)
        size = size if count < self.num_items else self.num_items
        return torch.cat([self._of_range(begin, begin + size) for begin in begins.astype(int).tolist()], dim=1)

    def _of_range(self, begin: int, end: int) -> Tensor:
        total = torch.zeros(end - begin, self.num_requests, device=self.device)
        for part in self.parts:
            part.add_to(total, begin)
        return total.T.contiguous()

    def take(self, requests: Sequence[int]) -> AddedScores:
        """Return what is added for some requests of the batch."""
        chosen = list(requests)
        if chosen == list(range(self.num_requests)):
            return self
        return AddedScores([part.take(chosen) for part in self.parts], len(chosen), self.num_items, self.device)

    def of_pairs(self, requests: Tensor, rows: Tensor) -> Tensor:
        """Return what is added to pairs of a request and an item, ascending by request: float32 of their shape."""
        if len(rows) > _PAIRS_AT_ONCE:
            parts = zip(requests.split(_PAIRS_AT_ONCE), rows.split(_PAIRS_AT_ONCE), strict=True)
            return torch.cat([self.of_pairs(*part) for part in parts])
        total = torch.zeros(len(rows), device=self.device)
        for part in self.parts:
            total += part.of(requests, rows)
        return total

    def at(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what is added to some items: float32, a line per request in the shape of its rows."""
        asked = Ragged.from_arrays(rows)
        places = (torch.from_numpy(part).to(self.device) for part in (asked.owners(), asked.values))
        return list(Ragged(self.of_pairs(*places).cpu().numpy(), asked.offsets))

    def of_items(self, rows: np.ndarray) -> np.ndarray:
        """Return what is added to the same items for all requests: float32 of shape `(num_requests, len(rows))`.

        Args:
            rows (`np.ndarray`): int64 rows of the catalogue, ascending.
        """
        if len(rows) * _FEW_OF_CATALOG < self.num_items:
            return np.stack(self.at([rows] * self.num_requests))
        # Products of whole blocks take a fraction of those of as many pairs.
        found = []
        for begin, end in self._blocks(self.num_items):
            low, high = np.searchsorted(rows, [begin, end])
            found.append(self._of_range(begin, end)[:, torch.from_numpy(rows[low:high] - begin).to(self.device)])
        return torch.cat(found, dim=1).cpu().numpy()

    def above(self, least: Tensor) -> Pairs:
        """Return all pairs of a request and an item to which more is added than `least` says.

        Args:
            least (`torch.Tensor`): float32 of shape `(num_requests,)`.
        """
        found = []
        for begin, end in self._blocks(self.num_items):
            found.append(self._candidates(*self._roughly(None, begin, end), begin, least) + begin * self.num_requests)
        requests, rows = self._split(torch.cat(found))
        sums = self.of_pairs(requests, rows)
        is_kept = sums > least[requests]
        return requests[is_kept], rows[is_kept], sums[is_kept]

    def best(
        self, counts: Sequence[int], allowed: Sequence[np.ndarray | None], held: range | None = None
    ) -> list[np.ndarray]:
        """Find the items to which most is added.

        Args:
            counts (`Sequence[int]`): Items wanted, for each request.
            allowed (`Sequence`): As in [`best_sums`], like the next.
            held (`range`, *optional*): The rows to look at.

        Returns:
            `list[np.ndarray]`: For each request int64 rows, best first; fewer where fewer are allowed.
        """
        return [rows for rows, _ in found_of(*self.best_sums(counts, allowed, held=held), counts)]

    def best_sums(
        self,
        counts: Sequence[int],
        allowed: Sequence[np.ndarray | None],
        own_scores: Callable[[int, int], Tensor] | None = None,
        held: range | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Find the best sums of a model's own scores and what is added.

        Args:
            counts (`Sequence[int]`): Items wanted, for each request.
            allowed (`Sequence`): For each request a bool mask over the rows looked at, or `None` for all.
            own_scores (`Callable`, *optional*): Returns the model's own scores of a range of rows, by its first and
                its end: float32 of shape `(num_items_of_range, batch)`; zero if not given.
            held (`range`, *optional*): The rows to look at; all if not given.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Sums, best first, and int64 rows, of shape `(batch, most wanted)`;
            minus infinity for none.
        """
        held = range(self.num_items) if held is None else held
        closed = _Closed.of(allowed, self.device)
        most = min(max(counts, default=1), len(held))
        values = torch.full((self.num_requests, most), _NEVER, device=self.device)
        rows = torch.zeros(values.shape, dtype=torch.int64, device=self.device)
        last = torch.tensor(counts, device=self.device).clamp(1, most) - 1
        for begin, end in self._blocks(len(held)):
            own = None if own_scores is None else own_scores(held.start + begin, held.start + end)
            if closed is not None:
                own = torch.zeros(end - begin, self.num_requests, device=self.device) if own is None else own
                closed.hide(own, begin)
            first = held.start + begin
            total, slack = self._roughly(own, first, held.start + end)
            if begin:
                # More than the last so far: of equal sums the first rows are answered.
                reached = values.gather(1, last[:, None])[:, 0].nextafter(torch.tensor(float("inf")).to(values))
            else:
                reached = self._least_of_best(own, total, first, last)
            requests, places, sums = self._reaching(own, total, slack, first, reached, most)
            values, rows = _join_best(values, rows, (requests, places + first, sums))
        return values, rows

    def _least_of_best(self, own: Tensor | None, total: Tensor, begin: int, last: Tensor) -> Tensor:
        """Return a sum that as many items of a block as are wanted reach: of those with the best rough sums."""
        wanted = int(last.max()) + 1
        # As many items as are wanted reach the last but so many of the best of groups, and hardly more do.
        size = max(1, min(_GROUP, len(total) // (_GROUPS_A_WANTED * wanted)))
        num_groups = len(total) // size
        best = total[: num_groups * size].view(size, num_groups, -1).amax(0).T
        reached = best.topk(min(wanted, num_groups)).values
        lowest = F.pad(reached, (0, 1), value=_NEVER).gather(1, last.clamp_max(reached.shape[1])[:, None])[:, 0]
        places = _places_above(total, lowest)
        if len(places) > _GROUPS_A_WANTED // 4 * wanted * self.num_requests:
            # Very many tie, or few may be answered.
            return torch.full_like(lowest, _NEVER)
        requests, rows = self._split(places)
        sums = self.of_pairs(requests, rows + begin)
        sums = sums if own is None else sums + own[rows, requests]
        nothing = torch.full((self.num_requests, wanted), _NEVER, device=self.device)
        values, _ = _join_best(nothing, torch.zeros_like(nothing, dtype=torch.int64), (requests, rows, sums))
        return values.gather(1, last[:, None])[:, 0]

    def _roughly(self, own: Tensor | None, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Add to the scores of a block all but what is added last; return what the sums are off by, too."""
        total = torch.zeros(end - begin, self.num_requests, device=self.device) if own is None else own.clone()
        slack = torch.zeros(self.num_requests, device=self.device)
        for part in self.parts:
            if part is self._late:
                continue
            if isinstance(part, Products):
                part.add_roughly(total, begin)
                slack += part.slack
            else:
                part.add_to(total, begin)
        return total, slack

    def _candidates(self, total: Tensor, slack: Tensor, begin: int, least: Tensor) -> Tensor:
        """Return the places in the flat table of a block of what may reach as much; `total` is changed."""
        late, num_items = self._late, len(total)
        slack = slack + 1e-6 * least.abs().nan_to_num(posinf=0)
        places = _places_above(
            total, least - slack if late is None or late.limits is None else least - slack - late.limits
        )
        if late is not None and len(places) * _COST_OF_PAIR > num_items:
            if late.table.rounded is not None or len(places) * _COST_OF_EXACT_PAIR > num_items:
                late.add_roughly(total, begin)
                places = _places_above(total, least - slack - late.slack)
        return places

    def _split(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return requests, ascending, and rows of places in the flat table of a block."""
        rows, requests = places // self.num_requests, places % self.num_requests
        order = requests.argsort(stable=True)
        return requests[order], rows[order]

    def _reaching(
        self, own: Tensor | None, total: Tensor, slack: Tensor, begin: int, least: Tensor, wanted: int
    ) -> Pairs:
        """Return requests, places in a block and exact sums of what may reach as much; `total` is changed.

        At least those of the `wanted` best items that do.
        """
        places = self._candidates(total, slack, begin, least)
        if len(places) * _COST_OF_EXACT_PAIR > len(total):
            exact = torch.zeros_like(total) if own is None else own.clone()
            for part in self.parts:
                part.add_to(exact, begin)
            return _best_of_block(exact, wanted)
        requests, rows = self._split(places)
        sums = self.of_pairs(requests, rows + begin)
        return requests, rows, sums if own is None else sums + own[rows, requests]

    @cached_property
    def _late(self) -> Products | None:
        """The products that are added last."""
        return next((part for part in self.parts if isinstance(part, Products) and part.limits is not None), None)

    def _blocks(self, num_items: int) -> list[tuple[int, int]]:
        """Cut a range of items."""
        cells = _BLOCK_CELLS if self.device.type == "cpu" else _BLOCK_CELLS_OF_DEVICE
        size = max(_LEAST_ITEMS, cells // max(1, self.num_requests))
        return [(begin, min(begin + size, num_items)) for begin in range(0, num_items, size)]


class _Closed:
    """Which items may not be answered.

    Args:
        few ([`Entries`]): Minus infinity for those of requests that have few.
        many (`list`): The others' masks, each with the requests that it is of.
    """

    def __init__(self, few: Entries, many: list[tuple[Tensor, list[int]]]) -> None:
        self._few, self._many = few, many

    @classmethod
    def of(cls, allowed: Sequence[np.ndarray | None], device: torch.device) -> _Closed | None:
        """Read masks, each looked at once; `None` where everything may be answered."""
        lines: dict[int, tuple[np.ndarray, list[int]]] = {}
        for line, mask in enumerate(allowed):
            if mask is not None:
                lines.setdefault(id(mask), (~mask, []))[1].append(line)
        rows = [np.empty(0, np.int64)] * len(allowed)
        many = []
        for closed, own in lines.values():
            if np.count_nonzero(closed) * _SELDOM > len(closed):
                many.append((torch.from_numpy(closed).to(device), own))
            else:
                found = np.flatnonzero(closed)
                rows = [found if line in own else before for line, before in enumerate(rows)]
        few = Entries.from_lines([(own, np.full(len(own), _NEVER, np.float32)) for own in rows], device)
        return cls(few, many) if lines else None

    def hide(self, scores: Tensor, begin: int) -> None:
        """Set what may not be answered to minus infinity, in a block of `(num_items_of_block, batch)`."""
        self._few.add_to(scores, begin)
        for closed, own in self._many:
            hidden = closed[begin : begin + len(scores)]
            if len(own) == scores.shape[1]:
                scores.masked_fill_(hidden[:, None], _NEVER)
            else:
                for line in own:
                    scores[:, line].masked_fill_(hidden, _NEVER)


def _places_above(total: Tensor, lowest: Tensor) -> Tensor:
    """Return the places in the flat table of what is not below a number of its request; minus infinity always is."""
    lowest, (num_items, batch) = lowest.clamp_min(torch.finfo(total.dtype).min), total.shape
    if total.device.type != "cpu":
        return (total < lowest).logical_not_().view(-1).nonzero()[:, 0]
    # The best of groups first: to compare all takes longer than to find these.
    num_groups = num_items // _SMALL_GROUP
    grouped = num_groups * _SMALL_GROUP
    groups = _not_below(total[:grouped].view(_SMALL_GROUP, num_groups, batch).amax(0), lowest)
    if len(groups) * _SMALL_GROUP > total.numel() // _SMALL_GROUP:
        return torch.from_numpy(_not_below(total, lowest))
    places = groups + np.arange(0, grouped * batch, num_groups * batch or 1)[:, None]
    # What is not a number is found, too, and refused later.
    is_found = ~(total.numpy().reshape(-1).take(places) < lowest.numpy()[groups % batch])
    rest = _not_below(total[grouped:], lowest) + grouped * batch
    return torch.from_numpy(np.concatenate([places[is_found], rest]))


def _not_below(values: Tensor, lowest: Tensor) -> np.ndarray:
    # A torch of the CPU takes long to find few places among many.
    return np.flatnonzero((values < lowest).logical_not_().numpy())


def _best_of_block(sums: Tensor, wanted: int) -> Pairs:
    """Return requests, places and sums of the best in a table of `(num_items, batch)`; of equal ones the first."""
    by_request = sums.T.contiguous()
    last = by_request.topk(min(wanted, len(sums))).values[:, -1:]
    # What is not a number is found, too.
    requests, places = (by_request <= last).logical_not_().nonzero(as_tuple=True)
    tied, tied_places = ((by_request == last) & (last > _NEVER)).nonzero(as_tuple=True)
    counts = torch.bincount(tied, minlength=len(last))
    is_first = torch.arange(len(tied), device=tied.device) - (counts.cumsum(0) - counts)[tied] < wanted
    requests = torch.cat([requests, tied[is_first]])
    places = torch.cat([places, tied_places[is_first]])
    order = requests.argsort(stable=True)
    return requests[order], places[order], by_request[requests[order], places[order]]


def _join_best(values: Tensor, rows: Tensor, found: Pairs) -> tuple[Tensor, Tensor]:
    """Return the best of what was known of each request and what was found: sums and rows in the shape they had."""
    requests, new_rows, sums = found
    if not len(requests):
        return values, rows
    numbers = torch.bincount(requests, minlength=len(values))
    columns = torch.arange(len(requests), device=values.device) - (numbers.cumsum(0) - numbers)[requests]
    known = values.shape[1]
    all_values = F.pad(values, (0, int(numbers.max())), value=_NEVER)
    all_rows = F.pad(rows, (0, int(numbers.max())))
    all_values[requests, known + columns] = sums
    all_rows[requests, known + columns] = new_rows
    # Of equal sums the first rows, whatever else is in the batch.
    best, order = all_values.sort(descending=True, stable=True)
    return best[:, :known], all_rows.gather(1, order[:, :known])


__all__ = ["AddedScores"]
