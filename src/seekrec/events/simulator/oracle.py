# SPDX-License-Identifier: Apache-2.0
"""The oracle: a scorer with the probabilities that the simulator drew from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from seekrec.errors import RequestError
from seekrec.events.simulator.blocks import BlockMaker, user_number
from seekrec.events.simulator.choices import Choices, buying_chance, leaf_chances
from seekrec.events.simulator.people import (
    BLOCK_USERS,
    FOLLOWS,
    NO_LEAF,
    REQUEST_SECONDS,
    STAYS,
    VISIT_SECONDS,
    next_leaves,
)
from seekrec.events.simulator.queries import BRAND_ALONE
from seekrec.events.simulator.shelves import NUM_STYLES, department_numbers
from seekrec.schema import BEHAVIORS, Behavior, Request
from seekrec.util.actions import action_of_word

# Users of so many blocks are kept, not drawn again.
_KEPT_BLOCKS = 16
# Further apart than any two times.
_APART = 2**40


class Oracle:
    """A system that knows users as the simulator does: the best that any model can come to.

    It knows the tastes of the user, what they clicked last, what is for sale, what sells and what the query means, and
    not what the dice will show. Its scores are the true chances of the click.

    Args:
        maker ([`BlockMaker`]): What makes the blocks of the log.
    """

    behaviors: tuple[Behavior, ...] = BEHAVIORS

    def __init__(self, maker: BlockMaker) -> None:
        self.shelves, self.language = maker.shelves, maker.language
        self._people = lru_cache(_KEPT_BLOCKS)(lambda block: maker.make(block)[0])

    def score_all(self, requests: Sequence[Request]) -> np.ndarray:
        """Return the chance of each item for each request.

        Args:
            requests (`Sequence[Request]`): Each with `user_id` and `timestamp`, those of the log. The history is not
                read: the oracle knows it.

        Returns:
            `np.ndarray`: float64 `(len(requests), num_items)`, by row of the table of items; rows sum to 1.

        Raises:
            RequestError: If a request has no user or time, or a user or query that the shop does not know.
        """
        for row, request in enumerate(requests):
            if request.user_id is None or request.timestamp is None:
                raise RequestError(
                    f"Request {row} has user_id {request.user_id!r} and timestamp {request.timestamp!r}; the oracle "
                    "needs both."
                )
        return self.score(
            [request.user_id or "" for request in requests],
            np.array([request.timestamp or 0 for request in requests], dtype=np.int64),
            [request.query for request in requests],
            purchase=np.array(
                [action_of_word(request.action or "") == "purchase" for request in requests], dtype=bool
            ),
        )

    def score(
        self,
        user_ids: Sequence[str],
        timestamps: np.ndarray,
        queries: Sequence[str | None],
        candidates: np.ndarray | None = None,
        *,
        purchase: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the chances of items.

        Args:
            user_ids (`Sequence[str]`): Users of the log.
            timestamps (`np.ndarray`): int64 seconds, one each: of a request of the log or of what was done in it, or
                any other.
            queries (`Sequence[str | None]`): What is searched for; `None` for a recommendation.
            candidates (`np.ndarray`, *optional*): int64 `(num_requests, num_candidates)` rows of the table of items;
                all items if not given.
            purchase (`np.ndarray`, *optional*): bool; whether the chance that the item is bought is asked for, not
                that it is clicked.

        Returns:
            `np.ndarray`: float64 `(num_requests, num_items)` or `(num_requests, num_candidates)`. Chances of all items
                sum to 1.

        Raises:
            RequestError: If a user or a query is not of this shop.
        """
        people, local = self._find_users(user_ids)
        choices, leaf_share = self._read_state(people, local, np.asarray(timestamps, dtype=np.int64))
        self._read_queries(queries, choices, leaf_share)
        shelves = self.shelves
        shape = (len(choices), shelves.num_items) if candidates is None else np.shape(candidates)
        chances, total = np.zeros(shape), np.zeros(len(choices))
        places = None if candidates is None else np.argsort(shelves.row)[candidates]
        for leaf in range(shelves.num_leaves):
            rows = np.flatnonzero(leaf_share[:, leaf])
            if not len(rows):
                continue
            part = choices.select(rows)
            of_leaf, found = leaf_chances(shelves, leaf, part)
            found *= leaf_share[rows, leaf][:, None]
            if purchase is not None:
                bought = buying_chance(shelves.price_level[of_leaf], part.budget[:, None])
                found *= np.where(purchase[rows][:, None], bought, 1.0)
            total[rows] += found.sum(axis=1)
            if places is None:
                chances[np.ix_(rows, shelves.row[of_leaf])] = found
            else:
                row, column = np.nonzero((places[rows] >= of_leaf.start) & (places[rows] < of_leaf.stop))
                chances[rows[row], column] = found[row, places[rows[row], column] - of_leaf.start]
        return chances / total[:, None]

    def _find_users(self, user_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the block of each user and the number there."""
        numbers = np.array([user_number(user) for user in user_ids], dtype=np.int64)
        return numbers // BLOCK_USERS, numbers % BLOCK_USERS

    def _read_state(self, blocks: np.ndarray, local: np.ndarray, timestamps: np.ndarray) -> tuple[Choices, np.ndarray]:
        """Return how each user chooses at a time, and float64 `(count, num_leaves)`: where."""
        count, num_leaves = len(blocks), self.shelves.num_leaves
        time, budget = timestamps.copy(), np.zeros(count)
        styles, leaf_share = np.zeros((count, NUM_STYLES)), np.zeros((count, num_leaves))
        after = next_leaves(num_leaves)
        for block in np.unique(blocks).tolist():
            people = self._people(block)
            rows = np.flatnonzero(blocks == block)
            user, when = local[rows], timestamps[rows]
            # The user's last request up to then.
            order = people.user * _APART + people.time
            at = np.searchsorted(order, user * _APART + when, side="right") - 1
            is_known = (at >= 0) & (people.user[at] == user)
            since = np.where(is_known, when - people.time[at], VISIT_SECONDS)
            in_request = is_known & (since < REQUEST_SECONDS)
            clicked = np.where(people.num_clicks[at] > 0, people.leaf[at], people.last_leaf[at])
            last = np.where(in_request, people.last_leaf[at], np.where(is_known, clicked, NO_LEAF))
            is_visit = np.where(in_request, people.is_visit[at], since >= VISIT_SECONDS).astype(np.int64)
            time[rows] = np.where(in_request, people.time[at], when)
            budget[rows], styles[rows] = people.budget[user], people.style_liking[user]
            stays = np.where(last == NO_LEAF, 0.0, np.array(STAYS)[is_visit])
            follows = np.where(last == NO_LEAF, 0.0, np.array(FOLLOWS)[is_visit])
            share = people.leaf_liking[user] * (1 - stays - follows)[:, None]
            share[np.arange(len(rows)), last] += stays
            share[np.arange(len(rows)), after[last]] += follows
            leaf_share[rows] = share
        empty = np.zeros(count, dtype=np.int64)
        return Choices(time, empty, styles, budget, empty.copy(), empty.copy()), leaf_share

    def _read_queries(self, queries: Sequence[str | None], choices: Choices, leaf_share: np.ndarray) -> None:
        """Put queries into the choices, and leave of the leaves those that a query can mean."""
        rows = np.flatnonzero([query is not None for query in queries])
        asked = self.language.understand([query for query in queries if query is not None])
        choices.kind[rows], choices.value[rows] = asked.kind, asked.value
        departments = department_numbers()[: self.shelves.num_leaves]
        is_meant = asked.leaf[:, None] == np.arange(self.shelves.num_leaves)
        alone = asked.kind == BRAND_ALONE
        is_meant[alone] = departments == self.shelves.department_of_brand[asked.value[alone]][:, None]
        share = leaf_share[rows] * is_meant
        # A leaf that is named is looked for, however unlikely it was.
        share[~alone] = is_meant[~alone]
        leaf_share[rows] = share / share.sum(axis=1, keepdims=True)


__all__ = ["Oracle"]
