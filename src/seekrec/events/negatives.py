# SPDX-License-Identifier: Apache-2.0
"""Sample items that a user did not act on, as negatives for a sampled evaluation.

They are drawn once for each case, from a generator seeded by a hash of the seed and the case's key: a case gets the
same negatives whatever other cases there are, and in any order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.cases import case_hash
from seekrec.events.checks import check_choice
from seekrec.events.matching import HardMatches
from seekrec.events.split import Split, SplitPart
from seekrec.events.timeline import item_rows
from seekrec.schema import BEHAVIORS, Behavior

NegativeKind = Literal["uniform", "popularity", "bm25"]
NEGATIVE_KINDS: tuple[NegativeKind, ...] = ("uniform", "popularity", "bm25")

# Rounds of drawing and rejecting before all items that are left are weighed at once.
_ROUNDS = 8


def sample_negatives(
    split: Split,
    part: SplitPart,
    behavior: Behavior,
    *,
    kind: NegativeKind,
    num_negatives: int = 99,
    seed: int = 0,
    chosen: np.ndarray | None = None,
    skip_short: bool = False,
    counts: np.ndarray | None = None,
) -> list[list[str]]:
    """Draw distinct items that the user acts on nowhere in the log, for each case.

    Args:
        split (`Split`): The split.
        part (`str`): `"validation"` or `"test"`.
        behavior (`str`): `"recommendation"` or `"search"`.
        kind (`str`):
            `"uniform"`: each item alike. `"popularity"`: in proportion to its interactions in training; items without
            any are never drawn. `"bm25"`: the best matches for the query (for a recommendation: for the title of the
            target) over title and description, if they share a word with it; what is then missing is filled up
            by popularity, then uniformly.
        num_negatives (`int`): Number of negatives of each case.
        seed (`int`): Changes the draw.
        chosen (`np.ndarray`, *optional*): int64 numbers among the cases: only they are drawn for, and get the same
            items as among all.
        skip_short (`bool`): Give a case for which too few items are left (its user acted on nearly all) an empty list.
        counts (`np.ndarray`, *optional*): Interactions of each item in training; those of the split if not given,
            which may be a part of a larger one.

    Returns:
        `list[list[str]]`: Item ids for each case, in the order of `split.requests(part, behavior)`: BM25's by score,
        others as drawn.

    Raises:
        ConfigurationError: If an argument has an unknown value.
        DataError: If too few items are left to draw from for a case and `skip_short` is not set, or `"bm25"` finds no
            word in any item.
    """
    check_choice("kind", kind, NEGATIVE_KINDS)
    check_choice("behavior", behavior, BEHAVIORS)
    if num_negatives < 1:
        raise ConfigurationError(f"`num_negatives` is {num_negatives!r}; give 1 or more.")
    cases = split.cases(part)
    selected = cases.select(behavior)
    numbers = (selected if chosen is None else selected[chosen]).tolist()
    targets = item_rows(split.log, pa.array(cases.item_id, pa.string()))[numbers]
    known = _known_items(split, part, numbers)
    items = split.log.items
    ids = np.asarray(items["item_id"].to_pylist(), dtype=object)
    popularity = np.cumsum(_training_counts(split) if counts is None else counts)
    matches: HardMatches | None = None
    num_best = 0
    queries = [cases.query[number] for number in numbers]
    if kind == "bm25":
        titles = items["title"].take(targets).to_pylist()
        queries = [query or title or "" for query, title in zip(queries, titles, strict=True)]
        most = max((len(own) for own in known), default=0) + 1
        matches = HardMatches(items)
        num_best = num_negatives + most

    # One mask for all cases, set and cleared by each: a fresh one would cost the size of the catalogue.
    taken = np.zeros(len(ids), dtype=bool)
    negatives: list[list[str]] = []
    for number, target, own, query in zip(numbers, targets.tolist(), known, queries, strict=True):
        taken[own] = True
        taken[target] = True
        named = (cases.user_id[number], behavior, cases.query[number], cases.item_id[number])
        rng = np.random.default_rng(case_hash(seed, kind, *named, int(cases.timestamp[number])))
        drawn = np.empty(0, dtype=np.int64)
        if matches is not None:
            drawn = matches.best(query or "", num_best)
            drawn = drawn[~taken[drawn]][:num_negatives]
            taken[drawn] = True
        if kind != "uniform":
            drawn = np.append(drawn, _draw(rng, taken, num_negatives - len(drawn), popularity))
        if kind != "popularity":
            drawn = np.append(drawn, _draw(rng, taken, num_negatives - len(drawn), None))
        taken[drawn] = False
        taken[own] = False
        taken[target] = False
        if len(drawn) < num_negatives:
            if skip_short:
                negatives.append([])
                continue
            num_popular = np.count_nonzero(np.diff(popularity, prepend=0))
            of = f"the {num_popular} with interactions in training" if kind == "popularity" else "them"
            raise DataError(
                f"`num_negatives` is {num_negatives}, but of {len(ids)} items only {len(drawn)} of {of} are left for "
                f"user {cases.user_id[number]!r} without the target and {len(own)} items of the user; "
                "lower `num_negatives`"
                + (" or use kind='uniform'." if kind == "popularity" else " or rank the whole catalogue.")
            )
        negatives.append(ids[drawn].tolist())
    return negatives


def _known_items(split: Split, part: SplitPart, numbers: list[int]) -> list[np.ndarray]:
    """Return for each case the item rows that are not negatives: of all interactions of its user, before or after."""
    timeline = split.timeline
    cases = split.cases(part)
    acts = np.flatnonzero(timeline.is_interaction)
    users = split.log.events["user_id"].take(timeline.first_rows()).to_pylist()
    starts = np.searchsorted(timeline.user[acts], np.arange(len(users) + 1))
    user_number = {user_id: number for number, user_id in enumerate(users)}
    known = []
    for number in numbers:
        user = user_number[cases.user_id[number]]
        known.append(np.unique(timeline.item[acts[starts[user] : starts[user + 1]]]))
    return known


def _training_counts(split: Split) -> np.ndarray:
    """Count each item's interactions in training: int64 of shape `(num_items,)`."""
    timeline = split.timeline
    return np.bincount(timeline.item[split.training_interactions()], minlength=timeline.num_items)


def _draw(rng: np.random.Generator, taken: np.ndarray, count: int, sums: np.ndarray | None) -> np.ndarray:
    """Draw distinct items one after the other, each in proportion to its weight among those that are left.

    Args:
        rng (`np.random.Generator`): Generator of the case.
        taken (`np.ndarray`): bool of shape `(num_items,)`: not to be drawn. What is drawn is marked in it.
        count (`int`): Number of items; fewer are returned where fewer are left.
        sums (`np.ndarray`, *optional*): int64 of shape `(num_items,)`, running sum of the weights; `None` for equal
            weights.

    Returns:
        `np.ndarray`: int64 item rows, in the order drawn.
    """
    drawn = np.empty(0, dtype=np.int64)
    if count == 0 or (sums is not None and sums[-1] == 0):
        return drawn
    for _ in range(_ROUNDS):
        # Drawing with replacement and dropping what was seen gives the same distribution as drawing without.
        num_tries = 2 * (count - len(drawn)) + 8
        if sums is None:
            tries = rng.integers(len(taken), size=num_tries)
        else:
            tries = np.searchsorted(sums, rng.integers(sums[-1], size=num_tries), side="right")
        tries = tries[~taken[tries]]
        new = tries[np.sort(np.unique(tries, return_index=True)[1])][: count - len(drawn)]
        taken[new] = True
        drawn = np.append(drawn, new)
        if len(drawn) == count:
            return drawn
    # Few are left, or a few weigh nearly all: exponential times at the rate of each weight end in the order of draws.
    weights = np.ones(len(taken)) if sums is None else np.diff(sums, prepend=0)
    left = np.flatnonzero(~taken & (weights > 0))
    times = rng.exponential(size=len(left)) / weights[left]
    last = left[np.argsort(times, kind="stable")][: count - len(drawn)]
    taken[last] = True
    return np.append(drawn, last)


__all__ = ["NEGATIVE_KINDS", "NegativeKind", "sample_negatives"]
