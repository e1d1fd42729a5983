# SPDX-License-Identifier: Apache-2.0
"""Sample items that a user did not act on, as negatives for training.

They are drawn for whole batches by a hash of the seed, the epoch and the row: a row's negatives do not depend on its
batch, on the process that collates it, or on interruptions. There is no state to save or restore.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.negatives import NEGATIVE_KINDS, NegativeKind
from seekrec.events.timeline import is_in_sorted
from seekrec.util.hashing import hash_fractions, hash_numbers

SampledKind = Literal["uniform", "popularity"]

# Draws of [`NegativeSampler`] that hit an item of the user are repeated so often; then one of all others is picked.
_SAMPLER_ROUNDS = 6
# The same of [`ItemNegatives`], which then finds no negative.
_ITEM_ROUNDS = 32


class MatchTable(Protocol):
    """What [`NegativeSampler`] needs of a table of matches; an array has it."""

    def __getitem__(self, texts: np.ndarray, /) -> np.ndarray:
        """Return the matches of some texts: int64 of shape `(len(texts), most)`, -1 for none."""
        ...


def number_pairs(users: np.ndarray, items: np.ndarray, num_items: int) -> np.ndarray:
    """Number pairs of a user and an item: the distinct int64 `user row * num_items + item row`, ascending."""
    return np.unique(users * np.int64(num_items) + items)


class NegativeSampler:
    """Draw items that a user did not act on.

    Args:
        num_items (`int`): Items to draw from.
        acts (`np.ndarray`): int64 `user row * num_items + item row`, ascending: items that are never drawn for their
            user; see [`number_pairs`]. It may be memory-mapped.
        counts (`dict[str, int]`): Number of each kind: `"uniform"`; `"popularity"`, in proportion to the
            interactions an item has; `"bm25"`, among the best matches of a text.
        interactions (`np.ndarray`, *optional*): int64 item row of every interaction; needed for `"popularity"`.
        matches (`np.ndarray`, *optional*): int64 item rows of shape `(num_texts, most)`, -1 for none: what each text
            matches; needed for `"bm25"`. Where a text has no match left, the draw is uniform. Whatever returns such
            rows for numbers of texts will do.
        seed (`int`): Seed of all draws.

    Raises:
        ConfigurationError: If a kind is unknown, a count negative, all are 0, or what a kind needs is missing.
    """

    def __init__(
        self,
        num_items: int,
        acts: np.ndarray,
        counts: dict[NegativeKind, int],
        *,
        interactions: np.ndarray | None = None,
        matches: MatchTable | None = None,
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
                "Negatives of kind 'popularity' need `interactions`; pass them, or choose another kind."
            )
        if counts.get("bm25") and matches is None:
            raise ConfigurationError("Negatives of kind 'bm25' need `matches`; pass them, or choose another kind.")
        self.num_items = num_items
        self.counts = {kind: counts.get(kind, 0) for kind in NEGATIVE_KINDS}
        self.seed = seed
        self._known = acts
        self._interactions = interactions
        self._matches = matches

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
                    f"User row {owner[place]} acted on all {self.num_items} items, so there are no negatives; leave "
                    "the user out."
                )
            number = hash_numbers(self.seed, key[place : place + 1], column[place : place + 1], _SAMPLER_ROUNDS)
            drawn[place] = free[int(number[0] % np.uint64(len(free)))]
        return drawn.reshape(len(users), len(self))

    def _pick(self, numbers: NDArray[np.uint64], kind: np.ndarray, text: np.ndarray | None) -> np.ndarray:
        picked = (numbers % np.uint64(self.num_items)).astype(np.int64)
        if self.counts["popularity"] and self._interactions is not None:
            of_kind = kind == NEGATIVE_KINDS.index("popularity")
            picked[of_kind] = self._interactions[numbers[of_kind] % np.uint64(len(self._interactions))]
        if self.counts["bm25"] and self._matches is not None and text is not None:
            rows = np.flatnonzero(kind == NEGATIVE_KINDS.index("bm25"))
            matches = self._matches[text[rows]]
            num_matches = (matches >= 0).sum(1)
            has_any = num_matches > 0
            rows, matches = rows[has_any], matches[has_any]
            place = numbers[rows] % num_matches[has_any].astype(np.uint64)
            picked[rows] = matches[np.arange(len(rows)), place.astype(np.int64)]
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
        if not weights.sum() > 0:
            raise ConfigurationError(f"No item has an interaction, so negatives of kind {kind!r} cannot be drawn.")
        self.count, self.seed, self.periods, self.draws_target = count, seed, periods, draws_target
        self._acts = np.empty(0, dtype=np.int64) if acts is None else acts
        self._sums = np.cumsum(weights / weights.sum())
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


__all__ = ["ItemNegatives", "MatchTable", "NegativeSampler", "SampledKind", "number_pairs"]
