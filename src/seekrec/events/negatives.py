# SPDX-License-Identifier: Apache-2.0
"""Items that a user did not act on: beside the target of a sampled evaluation, and in training.

An evaluation draws once for each case ([`sample_negatives`]), from a generator seeded by a hash of the seed and of
what names the case: the same case gets the same negatives whatever else is asked, and in whatever order.

Training draws for whole batches ([`NegativeSampler`], [`ItemNegatives`]) by a hash of the seed, the epoch and the row:
what a row gets does not depend on the batch it stands in, on the process that collates it, or on whether the run was
interrupted. Nothing has to be saved or restored.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.cases import case_hash
from seekrec.events.checks import check_choice
from seekrec.events.matching import HardMatches
from seekrec.events.split import Split, SplitPart
from seekrec.events.timeline import is_in_sorted, item_rows
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.util.hashing import hash_fractions, hash_numbers

NegativeKind = Literal["uniform", "popularity", "bm25"]
NEGATIVE_KINDS: tuple[NegativeKind, ...] = ("uniform", "popularity", "bm25")
SampledKind = Literal["uniform", "popularity"]

# Rounds of drawing and rejecting before all items that are left are weighed at once.
_ROUNDS = 8
# Draws of [`NegativeSampler`] that hit an item of the user are repeated so often; then one of all others is picked.
_SAMPLER_ROUNDS = 6
# The same of [`ItemNegatives`], which then finds no negative.
_ITEM_ROUNDS = 32


def sample_negatives(
    split: Split,
    part: SplitPart,
    behavior: Behavior,
    *,
    kind: NegativeKind,
    num_negatives: int = 99,
    seed: int = 0,
    exclude_user_items: bool = True,
    chosen: np.ndarray | None = None,
    skip_short: bool = False,
    counts: np.ndarray | None = None,
) -> list[list[str]]:
    """Draw distinct items that are not the answer, for each case.

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
        exclude_user_items (`bool`):
            Leave out every item that the user acts on anywhere in the log. The target and the items of the case's
            history are always left out.
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
        MissingDependencyError: If `"bm25"` negatives are requested and `bm25s` is not installed.
    """
    check_choice("kind", kind, NEGATIVE_KINDS)
    check_choice("behavior", behavior, BEHAVIORS)
    if num_negatives < 1:
        raise ConfigurationError(f"`num_negatives` is {num_negatives!r}; give 1 or more.")
    cases = split.cases(part)
    selected = cases.select(behavior)
    numbers = (selected if chosen is None else selected[chosen]).tolist()
    targets = item_rows(split.log, pa.array(cases.item_id, pa.string()))[numbers]
    known = _known_items(split, part, numbers, exclude_user_items)
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
                f"user {cases.user_id[number]!r} without the target and {len(np.unique(own))} items of the user; "
                "lower `num_negatives`"
                + (", set exclude_user_items=False" if exclude_user_items else "")
                + (" or use kind='uniform'." if kind == "popularity" else " or rank the whole catalogue.")
            )
        negatives.append(ids[drawn].tolist())
    return negatives


def _known_items(split: Split, part: SplitPart, numbers: list[int], exclude_user_items: bool) -> list[np.ndarray]:
    """Return for each case the item rows that are not negatives: of its history, or of all the user's interactions."""
    timeline = split.timeline
    cases = split.cases(part)
    known = []
    for number in numbers:
        history = cases.history(number)
        known.append(np.unique(timeline.item[history[timeline.is_interaction[history]]]))
    if not exclude_user_items:
        return known
    acts = np.flatnonzero(timeline.is_interaction)
    users = split.log.events["user_id"].take(timeline.first_rows()).to_pylist()
    starts = np.searchsorted(timeline.user[acts], np.arange(len(users) + 1))
    user_number = {user_id: number for number, user_id in enumerate(users)}
    for case, number in enumerate(numbers):
        user = user_number[cases.user_id[number]]
        acted_on = timeline.item[acts[starts[user] : starts[user + 1]]]
        known[case] = np.union1d(known[case], acted_on)
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


class NegativeSampler:
    """Draw items that a user did not act on.

    Args:
        num_items (`int`): Items to draw from.
        users (`np.ndarray`): int64 user rows of the known pairs.
        items (`np.ndarray`): int64 item rows of the known pairs: never drawn for their user.
        counts (`dict[str, int]`): Number of each kind: `"uniform"`; `"popularity"`, in proportion to the
            interactions an item has; `"bm25"`, among the best matches of a text.
        interactions (`np.ndarray`, *optional*): int64 item row of every interaction; needed for `"popularity"`.
        matches (`np.ndarray`, *optional*): int64 item rows of shape `(num_texts, most)`, -1 for none: what each text
            matches; needed for `"bm25"`. Where a text has no match left, the draw is uniform.
        seed (`int`): Seed of all draws.

    Raises:
        ConfigurationError: If a kind is unknown, a count negative, all are 0, or what a kind needs is missing.
    """

    def __init__(
        self,
        num_items: int,
        users: np.ndarray,
        items: np.ndarray,
        counts: dict[NegativeKind, int],
        *,
        interactions: np.ndarray | None = None,
        matches: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        for kind, count in counts.items():
            if kind not in NEGATIVE_KINDS or count < 0:
                raise ConfigurationError(
                    f"The negatives are {counts}; name each of {', '.join(NEGATIVE_KINDS)} with a number from 0 up."
                )
        if not sum(counts.values()):
            raise ConfigurationError(f"The negatives are {counts}; at least one number must be above 0.")
        if counts.get("popularity") and (interactions is None or not len(interactions)):
            raise ConfigurationError(
                "Negatives of kind 'popularity' need `interactions`; pass them, or choose others."
            )
        if counts.get("bm25") and matches is None:
            raise ConfigurationError("Negatives of kind 'bm25' need `matches`; pass them, or choose another kind.")
        self.num_items = num_items
        self.counts = {kind: counts.get(kind, 0) for kind in NEGATIVE_KINDS}
        self.seed = seed
        self._known = np.unique(users * np.int64(num_items) + items)
        self._interactions = interactions
        self._matches = matches
        self._num_matches = None if matches is None else (matches >= 0).sum(1)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def draw(self, users: np.ndarray, keys: np.ndarray, texts: np.ndarray | None = None) -> NDArray[np.int64]:
        """Draw the negatives of a batch.

        Args:
            users (`np.ndarray`): int64 user row of each row, shape `(batch,)`.
            keys (`np.ndarray`): int64 of the same shape: a number that is unique to each row of an epoch.
            texts (`np.ndarray`, *optional*): int64 of the same shape: row of `matches`; needed for `"bm25"`.

        Returns:
            `np.ndarray`: int64 item rows of shape `(batch, len(self))`; of one kind after the other.

        Raises:
            DataError: If a user acted on every item.
        """
        owner = np.repeat(users, len(self))
        key = np.repeat(keys, len(self))
        column = np.tile(np.arange(len(self)), len(users))
        kind = np.repeat(np.arange(len(NEGATIVE_KINDS)), list(self.counts.values()))[column]
        text = None if texts is None else np.repeat(texts, len(self))
        drawn = np.zeros(len(owner), dtype=np.int64)
        left = np.arange(len(owner))
        for attempt in range(_SAMPLER_ROUNDS):
            numbers = hash_numbers(self.seed, key[left], column[left], attempt)
            drawn[left] = self._pick(numbers, kind[left], None if text is None else text[left])
            left = left[is_in_sorted(owner[left] * self.num_items + drawn[left], self._known)]
            if not len(left):
                return drawn.reshape(len(users), len(self))
        for place in left.tolist():
            first, end = np.searchsorted(self._known, owner[place] * self.num_items + np.array([0, self.num_items]))
            free = np.setdiff1d(np.arange(self.num_items), self._known[first:end] % self.num_items)
            if not len(free):
                raise DataError(
                    f"User row {owner[place]} acted on all {self.num_items} items, so it has no negatives; leave the "
                    "user out."
                )
            number = hash_numbers(self.seed, key[place : place + 1], column[place : place + 1], _SAMPLER_ROUNDS)
            drawn[place] = free[int(number[0] % np.uint64(len(free)))]
        return drawn.reshape(len(users), len(self))

    def _pick(self, numbers: NDArray[np.uint64], kind: np.ndarray, text: np.ndarray | None) -> np.ndarray:
        picked = (numbers % np.uint64(self.num_items)).astype(np.int64)
        if self.counts["popularity"] and self._interactions is not None:
            of_kind = kind == NEGATIVE_KINDS.index("popularity")
            picked[of_kind] = self._interactions[numbers[of_kind] % np.uint64(len(self._interactions))]
        if self.counts["bm25"] and self._matches is not None and self._num_matches is not None and text is not None:
            rows = np.flatnonzero(kind == NEGATIVE_KINDS.index("bm25"))
            rows = rows[self._num_matches[text[rows]] > 0]
            place = numbers[rows] % self._num_matches[text[rows]].astype(np.uint64)
            picked[rows] = self._matches[text[rows], place.astype(np.int64)]
        return picked


class ItemNegatives:
    """Draw negatives for questions; the user only decides which items are left out.

    Args:
        counts (`np.ndarray`): Interactions of each item in training, of shape `(num_items,)`.
        count (`int`): Negatives of a question.
        kind (`str`): `"uniform"`, or `"popularity"`: in proportion to `counts`.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available, int64; only
            items that were when the question was asked are negatives (temporal alignment, IntSR equation 15).
        acts (`np.ndarray`, *optional*): int64 `user row * num_items + item row`, ascending: what users acted on is no
            negative of theirs. It may be memory-mapped.
        draws_target (`bool`): A draw may be the target, as the correction for sampling asks for (see
            `seekrec.embeddings.softmax`); off: it is drawn again.
        seed (`int`): Seed of all draws.

    Raises:
        ConfigurationError: If `count` is below 1, the kind is unknown, or no item can be drawn.
    """

    def __init__(
        self,
        counts: np.ndarray,
        count: int,
        kind: SampledKind = "uniform",
        *,
        periods: tuple[np.ndarray, np.ndarray] | None = None,
        acts: np.ndarray | None = None,
        draws_target: bool = False,
        seed: int = 0,
    ) -> None:
        if count < 1 or kind not in ("uniform", "popularity"):
            raise ConfigurationError(
                f"The negatives are {count} of kind {kind!r}; ask for at least one, uniform or by popularity."
            )
        weights = np.ones(len(counts)) if kind == "uniform" else np.array(counts, dtype=np.float64)
        weights[np.asarray(counts) == 0] *= kind == "uniform"
        if not weights.sum() > 0:
            raise ConfigurationError(f"No item has an interaction, so negatives of kind {kind!r} cannot be drawn.")
        self.count, self.seed, self.periods, self.draws_target = count, seed, periods, draws_target
        self._acts = np.empty(0, dtype=np.int64) if acts is None else acts
        self._sums = np.cumsum(weights / weights.sum())
        with np.errstate(divide="ignore"):
            # An item without interactions is drawn as one would be that has half of one.
            smallest = weights[weights > 0].min() / 2
            self.log_q = np.log(np.maximum(weights, smallest) / weights.sum()).astype(np.float32)

    def draw(
        self, keys: np.ndarray, labels: np.ndarray, timestamps: np.ndarray, users: np.ndarray | None = None
    ) -> np.ndarray:
        """Draw the negatives of questions.

        Args:
            keys (`np.ndarray`): int64 of any shape: a number that is unique to each question of an epoch.
            labels (`np.ndarray`): int64 targets of that shape.
            timestamps (`np.ndarray`): int64 seconds of that shape.
            users (`np.ndarray`, *optional*): int64 user rows of that shape; needed where there are `acts`.

        Returns:
            `np.ndarray`: int64 item rows of shape `(*keys.shape, count)`, -1 where none was found.
        """
        shape = (*keys.shape, self.count)
        users = keys if users is None else users
        key, label, time, user = (
            np.broadcast_to(array[..., None], shape).ravel() for array in (keys, labels, timestamps, users)
        )
        column = np.broadcast_to(np.arange(self.count), shape).ravel()
        drawn = np.full(len(key), -1, dtype=np.int64)
        left = np.arange(len(key))
        for attempt in range(_ITEM_ROUNDS):
            numbers = hash_fractions(self.seed, key[left], column[left], attempt)
            picked = np.minimum(np.searchsorted(self._sums, numbers, side="right"), len(self._sums) - 1)
            is_target = picked == label[left]
            is_fine = is_target if self.draws_target else np.zeros_like(is_target)
            pairs = user[left] * np.int64(len(self._sums)) + picked
            is_fine = is_fine | ~(is_target | is_in_sorted(pairs, self._acts))
            if self.periods is not None:
                start, end = self.periods
                is_fine &= (start[picked] <= time[left]) & (time[left] < end[picked])
            drawn[left[is_fine]] = picked[is_fine]
            left = left[~is_fine]
            if not len(left):
                break
        return drawn.reshape(shape)


__all__ = ["NEGATIVE_KINDS", "ItemNegatives", "NegativeKind", "NegativeSampler", "SampledKind", "sample_negatives"]
