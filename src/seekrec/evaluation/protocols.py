# SPDX-License-Identifier: Apache-2.0
"""The two interfaces of a system, and the cases that it is evaluated on.

A system is a [`Scorer`] (it can score every item, so its ranks are exact) or a [`Retriever`] (it returns a list; a
target that is not in the list is a miss). [`build_cases`] makes the same cases for both.

Protocols: `"full"` ranks all items of the catalogue; `"uniform"`, `"popularity"` and `"bm25"` rank the target among
sampled negatives. Sampled rankings are easier and order systems differently: never compare them with full ones.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import Split, sample_negatives
from seekrec.events.checks import check_choice
from seekrec.events.columns import RowArray, history_rows
from seekrec.events.split import SPLIT_PARTS, SplitPart
from seekrec.schema import BEHAVIORS, Behavior, IdMap, Request, ScoredItem
from seekrec.util.ragged import Ragged

logger = logging.getLogger(__name__)

RankingProtocol = Literal["full", "uniform", "popularity", "bm25"]

BoolArray = npt.NDArray[np.bool_]

# Requests in a block: enough to keep numpy and BLAS busy, few enough that a block of scores (or masks) of a large
# catalogue stays near 256 MiB.
_MAX_BLOCK = 256
_MAX_BLOCK_CELLS = 64_000_000


@runtime_checkable
class Scorer(Protocol):
    """A system that scores every item.

    `behaviors` says which requests it answers; the evaluator skips the others.
    """

    behaviors: tuple[Behavior, ...]

    def score_all(self, requests: Sequence[Request]) -> np.ndarray:
        """Score every item for each request.

        Args:
            requests (`Sequence[Request]`): All of one behavior.

        Returns:
            `np.ndarray`: Floats of shape `(len(requests), num_items)`, higher is better, -inf = never. Columns are the
                rows of the catalogue.

        Raises:
            RequestError: If a request's behavior is not one of `behaviors`.
        """
        ...


@runtime_checkable
class Retriever(Protocol):
    """A system that answers with lists, best first: a generative model, an index."""

    behaviors: tuple[Behavior, ...]

    def retrieve(
        self, requests: Sequence[Request], *, top_k: int, where: Sequence[BoolArray] | None = None
    ) -> list[list[ScoredItem]]:
        """Return the best `top_k` items of the catalogue for each request.

        Args:
            requests (`Sequence[Request]`): All of one behavior.
            top_k (`int`): Length of the longest list wanted; fewer items are allowed.
            where (`Sequence[np.ndarray]`, *optional*):
                For each request, bool of shape `(num_items,)`: which items may be answered.

        Returns:
            `list[list[ScoredItem]]`: Best first, no item twice.
        """
        ...

    def rank(self, requests: Sequence[Request], candidates: Sequence[Sequence[str]]) -> list[list[ScoredItem]]:
        """Order the candidates of each request, all of them, best first."""
        ...


@dataclass(frozen=True)
class CaseFacts:
    """What the cases of a row of results share; see [`EvaluationCases`].

    Args:
        behavior (`str`): Behavior of the requests.
        part (`str`): Part of the split.
        protocol (`str`): For reports.
        seen_removed (`bool`): Whether items of the user's history cannot be answered.
        num_items (`int`): Items of the catalogue.
    """

    behavior: Behavior
    part: SplitPart
    protocol: str
    seen_removed: bool
    num_items: int


@dataclass(frozen=True, eq=False)
class EvaluationCases:
    """Requests, their targets, and the items that may be returned.

    Args:
        requests (`list[Request]`): The requests, all of one behavior.
        target_ids (`list[str]`): The item that each is looking for.
        target_rows (`np.ndarray`): The same as rows of the catalogue, int64 `(num_cases,)`.
        case_numbers (`np.ndarray`): Where each stands among all cases of the part and behavior, int64 `(num_cases,)`.
        seen (`Ragged`): int64 rows of the catalogue that each case may not be answered with, never its target; empty
            rows if seen items are kept.
        candidate_rows (`np.ndarray`, *optional*): int64 `(num_cases, max_candidates)`, the target among them at a
            seeded random position, padded with -1. `None` ranks the whole catalogue.
        num_items (`int`): Items of the catalogue.
        behavior (`str`), part (`str`): Behavior of the requests, and part of the split.
        protocol (`str`): For reports: `"full"`, `"full, available"` with `periods`, or such as `"uniform-99"`.
        seen_removed (`bool`): Whether items of the user's history cannot be answered.
        seed (`int`): Seed of the choice of cases and negatives.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available, int64
            seconds of shape `(num_items,)`: case i may not be answered with items that are not at the time of its
            request, except the target. `None` allows all items at any time.
    """

    requests: list[Request]
    target_ids: list[str]
    target_rows: RowArray
    case_numbers: RowArray
    seen: Ragged
    candidate_rows: RowArray | None
    num_items: int
    behavior: Behavior
    part: SplitPart
    protocol: str
    seen_removed: bool
    seed: int
    periods: tuple[RowArray, RowArray] | None = None

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def facts(self) -> CaseFacts:
        """What all of the cases share."""
        return CaseFacts(self.behavior, self.part, self.protocol, self.seen_removed, self.num_items)

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over the choice of cases, targets and what may be answered.

        Ranks of two systems can be paired exactly if this and the split's own fingerprint agree.
        """
        digest = hashlib.sha256(f"{self.part};{self.behavior};{self.protocol};{self.num_items}".encode())
        arrays = (self.case_numbers, self.target_rows, self.seen.offsets, self.seen.values, self.candidate_rows)
        for array in arrays:
            digest.update(b"none" if array is None else np.ascontiguousarray(array, dtype="<i8").tobytes())
        for side in self.periods or ():
            digest.update(np.ascontiguousarray(side, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]

    def take(self, rows: RowArray) -> EvaluationCases:
        """Return some of the cases.

        Args:
            rows (`np.ndarray`): int64 positions of the cases, in the order wanted.
        """
        return replace(
            self,
            requests=[self.requests[row] for row in rows.tolist()],
            target_ids=[self.target_ids[row] for row in rows.tolist()],
            target_rows=self.target_rows[rows],
            case_numbers=self.case_numbers[rows],
            seen=self.seen.take(rows),
            candidate_rows=None if self.candidate_rows is None else self.candidate_rows[rows],
        )

    def block_size(self, system: object = None) -> int:
        """Return how many cases to ask a system at once: its own `batch_size` if it has one, fewer of many items."""
        return max(1, min(getattr(system, "batch_size", _MAX_BLOCK), _MAX_BLOCK_CELLS // max(1, self.num_items)))

    def hide_ruled_out(self, scores: np.ndarray, cases: RowArray) -> None:
        """Set the scores of items that may not be answered to -inf, in place.

        Args:
            scores (`np.ndarray`): Floats of shape `(len(cases), num_items)`.
            cases (`np.ndarray`): int64 positions of the cases that the rows of `scores` belong to.
        """
        rows, columns = self._seen_cells(cases)
        scores[rows, columns] = -np.inf
        if self.periods is not None:
            scores[~self._available(cases, *self.periods)] = -np.inf

    def masks(self, cases: RowArray) -> list[BoolArray] | None:
        """Return the `where` argument of a [`Retriever`].

        Args:
            cases (`np.ndarray`): int64 positions of the cases.

        Returns:
            `list[np.ndarray]`, *optional*: For each case, bool of shape `(num_items,)`; `None` if all is allowed.
        """
        if not self.seen_removed and self.periods is None:
            return None
        allowed = np.ones((len(cases), self.num_items), dtype=np.bool_)
        if self.periods is not None:
            allowed &= self._available(cases, *self.periods)
        rows, columns = self._seen_cells(cases)
        allowed[rows, columns] = False
        return list(allowed)

    def _available(self, cases: RowArray, begins: RowArray, ends: RowArray) -> BoolArray:
        """Return for each case which items are available when it is asked: bool of shape `(len(cases), num_items)`."""
        times = np.array([self.requests[case].timestamp for case in cases.tolist()], dtype=np.int64)[:, None]
        available: BoolArray = (begins <= times) & (times < ends)
        available[np.arange(len(cases)), self.target_rows[cases]] = True
        return available

    def _seen_cells(self, cases: RowArray) -> tuple[RowArray, RowArray]:
        """Return row (position in `cases`) and column (item) of every seen item."""
        seen = self.seen.take(cases)
        return seen.owners(), seen.values


def build_cases(
    split: Split,
    id_map: IdMap,
    *,
    part: SplitPart = "test",
    behavior: Behavior = "recommendation",
    protocol: RankingProtocol = "full",
    num_negatives: int = 99,
    remove_seen: bool = True,
    max_cases: int | None = None,
    seed: int = 0,
    periods: tuple[RowArray, RowArray] | None = None,
    only_targets: Collection[str] | None = None,
    chosen: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> EvaluationCases:
    """Build the cases of one part and behavior.

    Args:
        split (`Split`): Where the cases come from.
        id_map ([`IdMap`]): Items of the catalogue; must contain every target.
        part (`str`): `"validation"` or `"test"`.
        behavior (`str`): `"recommendation"` or `"search"`.
        protocol (`str`): `"full"`, or the kind of sampled negatives: `"uniform"`, `"popularity"`, `"bm25"`.
        num_negatives (`int`): Negatives a case, for sampled protocols.
        remove_seen (`bool`):
            In full ranking, rule out the items of the request's history, except the target. Items that were only shown
            (`action` "impression") do not count as seen. Sampled negatives never hold seen items.
        max_cases (`int`, *optional*): Take a seeded sample of so many cases, the same for every system.
        seed (`int`): Seed of that sample and of the negatives.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available (see
            [`item_periods`]). In full ranking, rules out the items that are not when a request is made.
        only_targets (`Collection[str]`, *optional*): Leave out the cases that look for any other item.
        chosen (`np.ndarray`, *optional*): int64 numbers among the cases: no others are built, and maybe none of these.
        counts (`np.ndarray`, *optional*): See [`sample_negatives`].

    Returns:
        [`EvaluationCases`]: The cases in the order of the split, without those for which too few negatives are
            left (a warning counts them).

    Raises:
        ConfigurationError: If an argument is not one of its choices.
        DataError: If the part contains no case of the behavior.
        UnknownItemError: If the catalogue does not contain a target.
    """
    check_choice("part", part, SPLIT_PARTS)
    check_choice("behavior", behavior, BEHAVIORS)
    check_choice("protocol", protocol, get_args(RankingProtocol))
    if max_cases is not None and max_cases < 1:
        raise ConfigurationError(f"`max_cases` is {max_cases}; use at least 1, or None for all cases.")
    target_ids = split.targets(part, behavior)
    if not target_ids:
        raise DataError(
            f"The {part} part of {split.log.name!r} contains no case of behavior {behavior!r}; evaluate another "
            "behavior, or add synthetic searches before splitting."
        )
    if periods is not None:
        if protocol != "full":
            raise ConfigurationError(
                f"`periods` is given with the protocol {protocol!r}, but applies to full rankings only; leave it out."
            )
    case_numbers = np.arange(len(target_ids), dtype=np.int64) if chosen is None else chosen
    if only_targets is not None:
        case_numbers = case_numbers[[item_id in only_targets for item_id in target_ids]]
        if not len(case_numbers):
            raise DataError(f"No {part} case of behavior {behavior!r} has a target in `only_targets`.")
    if max_cases is not None and max_cases < len(case_numbers):
        generator = np.random.default_rng(seed)
        case_numbers = np.sort(generator.choice(case_numbers, size=max_cases, replace=False))
    negatives: list[list[str]] | None = None
    if protocol != "full":
        negatives = sample_negatives(
            split,
            part,
            behavior,
            kind=protocol,
            num_negatives=num_negatives,
            seed=seed,
            chosen=case_numbers,
            skip_short=True,
            counts=counts,
        )
        case_numbers, negatives = _leave_out_short(case_numbers, negatives, split, part, num_negatives)
        if not negatives and chosen is None:
            raise none_left(part, split.log.name, num_negatives)
    requests = split.requests(part, behavior, chosen=case_numbers)
    target_ids = [target_ids[number] for number in case_numbers.tolist()]
    target_rows = id_map.convert_to_rows(target_ids)
    if remove_seen and negatives is None:
        seen = _seen_items(requests, target_rows, id_map)
    else:
        seen = Ragged(np.empty(0, np.int64), np.zeros(len(requests) + 1, np.int64))
    return EvaluationCases(
        requests=requests,
        target_ids=target_ids,
        target_rows=target_rows,
        case_numbers=case_numbers,
        seen=seen,
        candidate_rows=None if negatives is None else _candidates(target_rows, negatives, id_map, seed),
        num_items=len(id_map),
        behavior=behavior,
        part=part,
        protocol=_protocol_name(protocol, num_negatives, periods is not None),
        seen_removed=remove_seen or negatives is not None,
        seed=seed,
        periods=periods,
    )


def _leave_out_short(
    numbers: RowArray, negatives: list[list[str]], split: Split, part: SplitPart, num_negatives: int
) -> tuple[RowArray, list[list[str]]]:
    """Leave out the cases for which too few negatives could be drawn, and say how many they are."""
    drawn = np.array([len(items) > 0 for items in negatives], dtype=bool)
    if not drawn.all():
        logger.warning(
            "%d of %d %s cases of log %s are left out: fewer than %d items are left that their users did not act on.",
            int((~drawn).sum()),
            len(drawn),
            part,
            split.log.name,
            num_negatives,
        )
    return numbers[drawn], [items for items in negatives if items]


def none_left(part: SplitPart, name: str, num_negatives: int) -> DataError:
    """Return the error of a log whose users acted on so much that no case has enough negatives."""
    return DataError(
        f"`num_negatives` is {num_negatives}, but no {part} case of log {name!r} has that many items left that its "
        "user did not act on; lower it, or rank the whole catalogue."
    )


def _seen_items(requests: Sequence[Request], targets: RowArray, id_map: IdMap) -> Ragged:
    found = history_rows(requests, id_map)
    return found.keep(found.values != found.spread(targets))


def _protocol_name(protocol: RankingProtocol, num_negatives: int, available_only: bool) -> str:
    if protocol == "full":
        return "full, available" if available_only else "full"
    return f"{protocol}-{num_negatives}"


def _candidates(targets: RowArray, negatives: list[list[str]], id_map: IdMap, seed: int) -> RowArray:
    """Put each target among its negatives at a random position: keeping the order gains nothing."""
    lengths = np.array([len(items) for items in negatives], dtype=np.int64)
    width = int(lengths.max(initial=0)) + 1
    table = np.full((len(targets), width), -1, dtype=np.int64)
    rows = id_map.convert_to_rows(chain.from_iterable(negatives))
    table[np.arange(width)[None, :] < lengths[:, None]] = rows
    if (table == targets[:, None]).any():
        case = int(np.argmax((table == targets[:, None]).any(axis=1)))
        raise DataError(
            f"The negatives of case {case} hold its target {id_map.convert_to_ids([targets[case]])[0]!r}; sample "
            "negatives for this very split."
        )
    positions = np.random.default_rng(seed).integers(0, lengths + 1)
    everyone = np.arange(len(targets))
    table[everyone, lengths] = table[everyone, positions]
    table[everyone, positions] = targets
    return table
