# SPDX-License-Identifier: Apache-2.0
"""Negatives for training: items a user did not act on, drawn by a hash of what asks for them.

What a row gets in an epoch depends on the seed, the epoch and the row alone: not on the batch it stands in, on the
process that collates it, or on whether the run was interrupted. Nothing has to be saved or restored, and a batch is
drawn at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from seekrec.corpora import MixtureSampler
from seekrec.errors import ConfigurationError, DataError
from seekrec.events.negatives import NEGATIVE_KINDS, NegativeKind, best_matches
from seekrec.events.timeline import is_among

# Draws that hit an item of the user are drawn again so often; what is left then is picked from all others.
_ROUNDS = 6
# Likewise of [`ItemNegatives`], where what is left then is no negative.
_ITEM_ROUNDS = 32

SampledKind = Literal["uniform", "popularity"]


class NegativeSampler:
    """Draws items that are not among a user's own.

    Args:
        num_items (`int`): Items to draw from.
        users (`np.ndarray`): int64 user rows of the known pairs.
        items (`np.ndarray`): int64 item rows of the known pairs: never drawn for their user.
        counts (`dict[str, int]`): How many of each kind: `"uniform"`; `"popularity"`, in proportion to the
            interactions an item has; `"bm25"`, among the best matches of a text.
        interactions (`np.ndarray`, *optional*): int64 item row of every interaction; needed for `"popularity"`.
        matches (`np.ndarray`, *optional*): int64 item rows of shape `(num_texts, most)`, -1 for none: what each text
            matches; needed for `"bm25"`. Where a text has no match left, the draw is uniform.
        seed (`int`): Of all draws.

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
            raise ConfigurationError("Negatives of kind 'popularity' need `interactions`; pass them, or draw others.")
        if counts.get("bm25") and matches is None:
            raise ConfigurationError("Negatives of kind 'bm25' need `matches`; pass them, or draw others.")
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
            keys (`np.ndarray`): int64 of the same shape: what tells a row in an epoch from every other.
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
        for attempt in range(_ROUNDS):
            numbers = hash_numbers(self.seed, key[left], column[left], attempt)
            drawn[left] = self._pick(numbers, kind[left], None if text is None else text[left])
            left = left[is_among(owner[left] * self.num_items + drawn[left], self._known)]
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
            number = hash_numbers(self.seed, key[place : place + 1], column[place : place + 1], _ROUNDS)
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
    """Draws negatives for questions, each by a probability that depends on who asks by what is left out alone.

    Args:
        counts (`np.ndarray`): Interactions of each item in training, of shape `(num_items,)`.
        count (`int`): Negatives of a question.
        kind (`str`): `"uniform"`, or `"popularity"`: in proportion to `counts ** power`.
        power (`float`): Of `"popularity"` (alpha of IntSR section 4.3).
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is on offer, int64; only
            items that were when the question was asked are negatives (temporal alignment, IntSR equation 15).
        acts (`tuple[np.ndarray, np.ndarray]`, *optional*): int64 user rows and item rows: what users acted on is no
            negative of theirs.
        draws_target (`bool`): A draw may be the target, as the correction for sampling asks for (see
            `seekrec.embeddings.softmax`); off: it is drawn again.
        seed (`int`): Of all draws.

    Raises:
        ConfigurationError: If `count` is below 1, the kind is unknown, or no item can be drawn.
    """

    def __init__(
        self,
        counts: np.ndarray,
        count: int,
        kind: SampledKind = "uniform",
        *,
        power: float = 1.0,
        periods: tuple[np.ndarray, np.ndarray] | None = None,
        acts: tuple[np.ndarray, np.ndarray] | None = None,
        draws_target: bool = False,
        seed: int = 0,
    ) -> None:
        if count < 1 or kind not in ("uniform", "popularity"):
            raise ConfigurationError(
                f"The negatives are {count} of kind {kind!r}; ask for at least one, uniform or by popularity."
            )
        weights = np.ones(len(counts)) if kind == "uniform" else np.asarray(counts, dtype=np.float64) ** power
        weights[np.asarray(counts) == 0] *= kind == "uniform"
        if not weights.sum() > 0:
            raise ConfigurationError(f"No item has an interaction, so negatives of kind {kind!r} cannot be drawn.")
        self.count, self.seed, self.periods, self.draws_target = count, seed, periods, draws_target
        # Sorted, so that a pair is found in it.
        users, items = (np.empty(0, dtype=np.int64),) * 2 if acts is None else acts
        self._acts = np.unique(users * np.int64(len(counts)) + items)
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
            keys (`np.ndarray`): int64 of any shape: what tells a question in an epoch from every other.
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
            is_fine = is_fine | ~(is_target | self._is_own(user[left], picked))
            if self.periods is not None:
                start, end = self.periods
                is_fine &= (start[picked] <= time[left]) & (time[left] < end[picked])
            drawn[left[is_fine]] = picked[is_fine]
            left = left[~is_fine]
            if not len(left):
                break
        return drawn.reshape(shape)

    def _is_own(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Say which items their users acted on."""
        if not len(self._acts):
            return np.zeros(len(items), dtype=bool)
        pairs = users * np.int64(len(self._sums)) + items
        return self._acts[np.minimum(np.searchsorted(self._acts, pairs), len(self._acts) - 1)] == pairs


class CodedRows(Dataset[int]):
    """Row codes as a data set: a collator makes batches of them; see [`CodeSampler`].

    Args:
        num_rows (`int`): Rows of an epoch's data.
    """

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> int:
        return index


class CodeSampler(Sampler[int]):
    """Gives `epoch * num_rows + row` in place of a row, so that a collator can tell the epochs apart.

    Args:
        rows ([`MixtureSampler`]): Draws the rows.
    """

    def __init__(self, rows: MixtureSampler) -> None:
        self.rows = rows
        self.num_rows = sum(rows.num_rows.values())

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        first = self.rows.epoch * self.num_rows
        return (first + row for row in self.rows)


def match_table(item_texts: list[str], texts: list[str], num_best: int) -> np.ndarray:
    """Find the items that share the rarest words with each text, by BM25.

    Args:
        item_texts (`list[str]`): One an item.
        texts (`list[str]`): What is matched.
        num_best (`int`): Matches kept of each text.

    Returns:
        `np.ndarray`: int64 item rows of shape `(len(texts), num_best)`, best first, -1 where there are no more.

    Raises:
        DataError: If no item has a word.
    """
    match = best_matches(item_texts, num_best=num_best)
    table = np.full((len(texts), num_best), -1, dtype=np.int64)
    for row, text in enumerate(texts):
        found = match(text)
        table[row, : len(found)] = found
    return table


def hash_fractions(*parts: int | np.ndarray) -> NDArray[np.float64]:
    """Hash columns of integers, as [`hash_numbers`], to numbers from 0 up to 1."""
    return hash_numbers(*parts) / float(2**64)


def hash_numbers(*parts: int | np.ndarray) -> NDArray[np.uint64]:
    """Hash columns of integers to evenly spread 64 bit numbers (the finaliser of splitmix64 over each part).

    Args:
        parts (`int` or `np.ndarray`): Integers that broadcast to one shape; at least one is an array.

    Returns:
        `np.ndarray`: uint64.
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = state ^ np.atleast_1d(np.asarray(part)).astype(np.uint64)
        state = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


__all__ = [
    "CodeSampler",
    "CodedRows",
    "ItemNegatives",
    "NegativeSampler",
    "SampledKind",
    "hash_fractions",
    "hash_numbers",
    "match_table",
]
