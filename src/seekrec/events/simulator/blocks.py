# SPDX-License-Identifier: Apache-2.0
"""Make one block of the simulated log: from requests to a table of events."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from seekrec.errors import RequestError
from seekrec.events.simulator.choices import Choices, buying_chance, draw_items
from seekrec.events.simulator.items import numbered
from seekrec.events.simulator.people import BLOCK_EVENTS, BLOCK_USERS, People
from seekrec.events.simulator.queries import Language, Queries
from seekrec.events.simulator.shelves import Shelves
from seekrec.schema import EVENT_FEATURES, IMPRESSION, RECOMMENDATION, SEARCH, shown

# What is done in a request, in the order of time, and so many seconds after it: from, and how many are possible.
ACTIONS = (IMPRESSION, "search", "click", "click", "purchase")
_SHOWN, _SEARCHED, _CLICKED, _CLICKED_AGAIN, _BOUGHT = range(len(ACTIONS))
_DELAYS = ((0, 1), (0, 1), (3, 30), (35, 30), (70, 40))
_REDRAWS = 2

# Ten billion events have users and sessions of so many digits.
_USER_DIGITS = 9
_SESSION_DIGITS = 11


@dataclass(frozen=True, eq=False)
class BlockMaker:
    """Makes the blocks of a log.

    Args:
        shelves ([`Shelves`]): The items.
        language ([`Language`]): What can be typed.
        item_ids (`pyarrow.Array`): Ids by row of the table of items.
        seed (`int`): Seed of the shop.
        search_fraction (`float`): Share of requests that are searches.
        impression_fraction (`float`): Share of events that are impressions.
    """

    shelves: Shelves
    language: Language
    item_ids: pa.Array
    seed: int
    search_fraction: float
    impression_fraction: float

    def make(self, block: int) -> tuple[People, pa.Table]:
        """Make the users and the events of a block, which depend on its number alone.

        Returns:
            `tuple`: [`People`], and `BLOCK_EVENTS` rows of `EVENT_FEATURES` by user and time.
        """
        excess, table = 1.1, None
        while table is None:
            draws = np.random.default_rng(np.random.SeedSequence([self.seed, 2, block]))
            people = People.draw(
                draws,
                self.shelves,
                search_fraction=self.search_fraction,
                impression_fraction=self.impression_fraction,
                excess=excess,
            )
            table = self._make_events(people, draws, block)
            # Lists of a small shop repeat themselves, and make fewer events.
            excess *= 1.3
        return people, table

    def _make_events(self, people: People, draws: np.random.Generator, block: int) -> pa.Table | None:
        """Draw what is typed, chosen and shown; `None` if that makes too few events for a block."""
        shelves, count = self.shelves, len(people.user)
        searches = np.flatnonzero(people.is_search)
        asked, texts = self.language.draw(draws, people, searches)
        queries = Queries(*(_spread(values, searches, count) for values in (asked.kind, asked.value, asked.leaf)))

        clicked = np.repeat(np.arange(count), people.num_clicks)
        is_second = np.diff(clicked, prepend=-1) == 0
        items = draw_items(draws, shelves, Choices.of_requests(people, queries, clicked, by_user=True))
        first, second = np.full((2, count), -1, dtype=np.int64)
        first[clicked[~is_second]], second[clicked[is_second]] = items[~is_second], items[is_second]
        chance = buying_chance(shelves.price_level[first], people.budget[people.user])
        is_bought = (first >= 0) & (draws.random(count) < chance)

        page = np.repeat(np.arange(count), people.num_shown)
        asked_of_shop = Choices.of_requests(people, queries, page, by_user=False)
        listed = draw_items(draws, shelves, asked_of_shop)
        # An item stands on a page once; what cannot be changed in a few draws is left out.
        for _ in range(_REDRAWS):
            repeated = np.flatnonzero(_is_repeated(page, listed, first, second))
            if not len(repeated):
                break
            listed[repeated] = draw_items(draws, shelves, asked_of_shop.select(repeated))
        is_new = ~_is_repeated(page, listed, first, second)
        page, listed = page[is_new], listed[is_new]

        counts = np.stack(
            [
                np.bincount(page, minlength=count),
                people.is_search & (people.num_clicks == 0),
                first >= 0,
                second >= 0,
                is_bought,
            ],
            axis=1,
        )
        num_events = counts.sum(axis=1)
        if num_events.sum() < BLOCK_EVENTS:
            return None
        # One row an act, in the order of requests and of time; impressions of a request follow each other.
        request = np.repeat(np.arange(count), num_events)[:BLOCK_EVENTS]
        act = np.repeat(np.tile(np.arange(len(ACTIONS)), count), counts.ravel())[:BLOCK_EVENTS]
        item = np.select(
            [act == _SEARCHED, act == _CLICKED_AGAIN], [np.full(BLOCK_EVENTS, -1), second[request]], first[request]
        )
        is_shown = act == _SHOWN
        item[is_shown] = listed[: is_shown.sum()]
        delays = np.array(_DELAYS)
        fractions = draws.random(len(act))
        time = people.time[request] + delays[act, 0] + (fractions * delays[act, 1]).astype(np.int64)

        is_search = people.is_search[request]
        query = _spread(np.arange(len(searches)), searches, count)[request]
        rows = shelves.row[item]
        users, sessions = np.unique(people.user[request]), np.arange(request[-1] + 1)
        columns = {
            "user_id": user_ids(block, users).take(pa.array(np.searchsorted(users, people.user[request]))),
            "timestamp": pa.array(time),
            "behavior": pa.array([RECOMMENDATION, SEARCH]).take(pa.array(is_search.astype(np.int8))),
            "query": texts.take(pa.array(query, mask=~is_search)),
            "item_id": self.item_ids.take(pa.array(rows, mask=item < 0)),
            "action": pa.array(ACTIONS).take(pa.array(act.astype(np.int8))),
            "session_id": numbered("s", block * BLOCK_EVENTS + sessions, _SESSION_DIGITS).take(pa.array(request)),
        }
        return pa.table(columns, schema=EVENT_FEATURES.arrow_schema)


def user_ids(block: int, users: np.ndarray) -> pa.Array:
    """Return the ids of users of a block, ordered as their numbers are."""
    return numbered("u", block * BLOCK_USERS + users, _USER_DIGITS)


def user_number(user_id: str) -> int:
    """Return the number behind an id of [`user_ids`].

    Raises:
        RequestError: If it is no such id.
    """
    if not re.fullmatch(rf"u[0-9]{{{_USER_DIGITS}}}", user_id, re.ASCII):
        raise RequestError(f"The simulated shop has no user {shown(user_id)}; ask about users of its log.")
    return int(user_id[1:])


def _is_repeated(page: np.ndarray, listed: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mark the entries of lists that were clicked on their page, or stand there before."""
    entries = page << 32 | listed
    order = np.argsort(entries, kind="stable")
    is_again = np.zeros(len(page), dtype=bool)
    is_again[order[1:]] = np.diff(entries[order]) == 0
    return is_again | (listed == first[page]) | (listed == second[page])


def _spread(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Put values in some places of `count`, and 0 elsewhere."""
    spread = np.zeros(count, dtype=np.int64)
    spread[places] = values
    return spread


__all__ = ["ACTIONS", "BlockMaker", "user_ids", "user_number"]
