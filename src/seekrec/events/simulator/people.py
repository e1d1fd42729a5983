# SPDX-License-Identifier: Apache-2.0
"""The users of the simulated shop, in blocks: their preferences, their visits, and what they look for.

A *request* is one page view: a list of search results or recommendations. The user looks for a leaf category: that of
their last click, one that goes with it, or one they like. Everything in a block is drawn from the seed and the block
number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seekrec.events.simulator.shelves import DAY, NUM_TASTES, START, Shelves, department_numbers

# A block has so many events, and at most so many users.
BLOCK_EVENTS = 65_536
BLOCK_USERS = 4_096
# Everything that is done in a request is done in so many seconds, and the next request is later.
REQUEST_SECONDS = 120
# After so many seconds without a request a user comes again.
VISIT_SECONDS = 1_800

# Chances that a request is for the leaf of the last click, and for the one that goes with it: within a visit, and when
# one begins.
STAYS = (0.5, 0.15)
FOLLOWS = (0.15, 0.15)
NO_LEAF = -1

_REQUESTS_OF_USER = (2.2, 0.9)
_MAX_REQUESTS = 500
_NEW_VISIT = 0.35
_LEAF_LIKING = 1.0
_STYLE_LIKING = 0.7
_CLICKED_SHARE = 0.88
_SECOND_CLICK = 0.15
_LANGUAGE_SHARES = (0.94, 0.98)  # English up to the first, Chinese up to the second, then Arabic
_ACTS_OF_REQUEST = 1.3


@dataclass(frozen=True, eq=False)
class People:
    """Users, one entry per user of the block, and their requests, one entry per request, by user and time.

    Args:
        style_liking (`np.ndarray`): float64 `(num_users, NUM_STYLES)`, weights of styles in the user's choice.
        leaf_liking (`np.ndarray`): float64 `(num_users, num_leaves)`, chances of leaves when the user starts afresh.
        budget (`np.ndarray`): float64 price level that the user likes best.
        language (`np.ndarray`): int64: 0 English, 1 Chinese, 2 Arabic.
        user (`np.ndarray`): int64 user of each request.
        time (`np.ndarray`): int64 second.
        is_search (`np.ndarray`): bool.
        num_clicks (`np.ndarray`): int64, 0 to 2.
        num_shown (`np.ndarray`): int64, how many items are shown together with those that are clicked.
        leaf (`np.ndarray`): int64 leaf that is looked for.
        last_leaf (`np.ndarray`): int64 leaf of the user's last click before; `NO_LEAF` for none.
        is_visit (`np.ndarray`): bool; the user comes again.
    """

    style_liking: np.ndarray
    leaf_liking: np.ndarray
    budget: np.ndarray
    language: np.ndarray
    user: np.ndarray
    time: np.ndarray
    is_search: np.ndarray
    num_clicks: np.ndarray
    num_shown: np.ndarray
    leaf: np.ndarray
    last_leaf: np.ndarray
    is_visit: np.ndarray

    @classmethod
    def draw(
        cls,
        draws: np.random.Generator,
        shelves: Shelves,
        *,
        search_fraction: float,
        impression_fraction: float,
        excess: float = 1.1,
    ) -> People:
        """Draw a block.

        Args:
            draws (`np.random.Generator`): That of the block.
            shelves ([`Shelves`]): What there is to look for.
            search_fraction (`float`): Share of requests that are searches.
            impression_fraction (`float`): Share of events that are impressions.
            excess (`float`): How many times as many requests as a block needs on average.
        """
        shown = _ACTS_OF_REQUEST * impression_fraction / (1 - impression_fraction)
        num_requests = int(excess * BLOCK_EVENTS / (_ACTS_OF_REQUEST + shown))
        tastes = draws.normal(size=(BLOCK_USERS, NUM_TASTES))
        liking = np.exp(_LEAF_LIKING * tastes @ shelves.leaf_tastes.T)
        budget = draws.normal(0.0, 0.8, size=BLOCK_USERS)
        language = np.searchsorted(_LANGUAGE_SHARES, draws.random(BLOCK_USERS), side="right")
        per_user = 2 + np.minimum(draws.lognormal(*_REQUESTS_OF_USER, size=BLOCK_USERS), _MAX_REQUESTS).astype(
            np.int64
        )
        per_user = per_user[: int(np.searchsorted(np.cumsum(per_user), num_requests)) + 1]
        user = np.repeat(np.arange(len(per_user)), per_user)
        count = len(user)

        is_first = np.ones(count, dtype=bool)
        is_first[1:] = user[1:] != user[:-1]
        time = _times(draws, per_user, user, is_first, shelves.num_days)
        gap = np.diff(time, prepend=0)
        is_visit = is_first | (gap >= VISIT_SECONDS)
        is_search = draws.random(count) < search_fraction
        num_shown = draws.poisson(shown, size=count)
        coin = draws.random(count)
        # A page of which nothing is known, neither query nor list nor click, is not an event.
        is_clicked = (coin < _CLICKED_SHARE) | (~is_search & (num_shown == 0))
        num_clicks = is_clicked + (coin < _SECOND_CLICK * _CLICKED_SHARE).astype(np.int64)
        liking /= liking.sum(axis=1, keepdims=True)
        leaf, last_leaf = _leaves(draws, shelves, liking, user, is_first, is_visit, is_clicked)
        return cls(
            style_liking=np.exp(_STYLE_LIKING * tastes @ shelves.style_tastes.T),
            leaf_liking=liking,
            budget=budget,
            language=language,
            user=user,
            time=time,
            is_search=is_search,
            num_clicks=num_clicks,
            num_shown=num_shown,
            leaf=leaf,
            last_leaf=last_leaf,
            is_visit=is_visit,
        )


def next_leaves(num_leaves: int) -> np.ndarray:
    """Return the leaf that goes with each: int64. Those of a department form a ring that changes aisles."""
    departments = department_numbers()[:num_leaves]
    after = np.arange(num_leaves)
    for department in range(int(departments.max()) + 1):
        ring = np.flatnonzero(departments == department)
        ring = ring[np.argsort(ring % 3, kind="stable")]  # aisles have three leaves
        after[ring] = np.roll(ring, -1)
    return after


def _times(
    draws: np.random.Generator, per_user: np.ndarray, user: np.ndarray, is_first: np.ndarray, num_days: int
) -> np.ndarray:
    """Draw when requests are made: visits anywhere in the time that a user is active, requests minutes apart."""
    seconds = num_days * DAY
    joined = np.where(draws.random(len(per_user)) < 0.4, 0.0, draws.random(len(per_user)) * 0.9) * seconds
    left = joined + (seconds - joined) * draws.uniform(0.3, 0.98, size=len(per_user))
    starts_visit = is_first | (draws.random(len(user)) < _NEW_VISIT)
    part = draws.exponential(size=len(user)) * starts_visit
    step = draws.integers(REQUEST_SECONDS, 3 * REQUEST_SECONDS, size=len(user)) * ~starts_visit
    first = np.flatnonzero(is_first)
    ends = np.append(first[1:], len(user)) - 1
    total = np.cumsum(part)
    total -= (total[first] - part[first])[user]
    scale = (left - joined) / (total[ends] + draws.exponential(size=len(per_user)))
    at_visit = joined[user] + scale[user] * total
    in_visit = np.cumsum(step)
    visit = np.cumsum(starts_visit) - 1
    in_visit -= in_visit[np.flatnonzero(starts_visit)][visit]
    time = at_visit.astype(np.int64) + in_visit
    # A visit that begins before the last one is over waits for it; users stand far apart meanwhile.
    place = np.arange(len(user)) * REQUEST_SECONDS
    apart = user * (4 * seconds)
    time = np.maximum.accumulate(time + apart - place) + place - apart
    return START + time


def _leaves(
    draws: np.random.Generator,
    shelves: Shelves,
    liking: np.ndarray,
    user: np.ndarray,
    is_first: np.ndarray,
    is_visit: np.ndarray,
    is_clicked: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the leaf of each request; return it and the leaf of the user's last click before."""
    count = len(user)
    new = is_visit.astype(np.int64)
    coin = draws.random(count)
    stays = coin < np.array(STAYS)[new]
    follows = ~stays & (coin < (np.array(STAYS) + np.array(FOLLOWS))[new])
    # Clicks that the user has made before the request, and whether there is one.
    clicks = np.cumsum(is_clicked)
    before = clicks - is_clicked
    first = np.flatnonzero(is_first)
    has_last = before > before[first][user]
    is_fresh = ~(stays | follows) | ~has_last
    totals = np.cumsum(liking, axis=1)
    width = totals.shape[1]
    # One search among the chances of all users: those of user u lie between u and u + 1.
    flat = (np.minimum(totals, 1.0) + np.arange(len(totals))[:, None]).ravel()
    drawn = np.searchsorted(flat, user + draws.random(count), side="right") - user * width
    drawn = np.clip(drawn, 0, width - 1)

    # Clicked requests are a chain: each starts afresh, or steps on from the one before. So a leaf is the last fresh
    # one, and as many steps along its ring as there were since.
    at = np.flatnonzero(is_clicked)
    origin = np.maximum.accumulate(np.where(is_fresh[at], np.arange(len(at)), 0))
    steps = np.cumsum(follows[at] & ~is_fresh[at])
    after = next_leaves(shelves.num_leaves)
    ring, position, length = _rings(after)
    by_place = np.zeros((len(length), int(length.max())), dtype=np.int64)
    by_place[ring, position] = np.arange(len(after))

    def step_on(leaf: np.ndarray, number: np.ndarray) -> np.ndarray:
        place = (position[leaf] + number) % length[ring[leaf]]
        return by_place[ring[leaf], place]

    clicked_leaf = step_on(drawn[at[origin]], steps - steps[origin]) if len(at) else drawn[:0]
    last_leaf = np.full(count, NO_LEAF, dtype=np.int64)
    last_leaf[has_last] = clicked_leaf[before[has_last] - 1]
    leaf = np.where(is_fresh, drawn, step_on(np.maximum(last_leaf, 0), follows.astype(np.int64)))
    return leaf, last_leaf


def _rings(after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ring of each leaf, its place there, and the length of each ring."""
    ring = np.full(len(after), -1, dtype=np.int64)
    position = np.zeros(len(after), dtype=np.int64)
    lengths: list[int] = []
    for start in range(len(after)):
        leaf, place = start, 0
        while ring[leaf] < 0:
            ring[leaf], position[leaf] = len(lengths), place
            leaf, place = int(after[leaf]), place + 1
        if place:
            lengths.append(place)
    return ring, position, np.array(lengths)


__all__ = [
    "BLOCK_EVENTS",
    "BLOCK_USERS",
    "FOLLOWS",
    "NO_LEAF",
    "REQUEST_SECONDS",
    "STAYS",
    "VISIT_SECONDS",
    "People",
    "next_leaves",
]
