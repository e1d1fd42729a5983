# SPDX-License-Identifier: Apache-2.0
"""The data model: events, items, requests and answers.

Outside ids (`user_id`, `item_id`) are strings; rows are int64 numbers of a table. Only [`IdMap`] converts between
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value

from seekrec.errors import DataError, RequestError, UnknownItemError

Behavior = Literal["recommendation", "search"]
View = Literal["semantic", "collaborative"]

RECOMMENDATION: Behavior = "recommendation"
SEARCH: Behavior = "search"
BEHAVIORS: tuple[Behavior, ...] = (RECOMMENDATION, SEARCH)

# A search writes the semantic identifier, a recommendation the collaborative one (GenSAR, equation 11).
VIEW_OF_BEHAVIOR: dict[Behavior, View] = {RECOMMENDATION: "collaborative", SEARCH: "semantic"}

# The longest query that is a query. Longer text is a pasted document: it is refused, not cut.
MAX_QUERY_CHARACTERS = 1000

EVENT_FEATURES = Features(
    {
        "user_id": Value("string"),
        "timestamp": Value("int64"),  # seconds since the epoch, UTC; the position where a log has order but no time
        "behavior": Value("string"),  # "recommendation" or "search"
        "query": Value("string"),  # null unless a search
        "item_id": Value("string"),  # null for a search without a click
        "action": Value("string"),  # "click", "purchase", ...; "impression" = shown, not clicked
        "session_id": Value("string"),  # one page view or request; null where unknown
    }
)

# Columns that a log of events has only where it was given them.
OPTIONAL_EVENT_FEATURES = Features(
    {
        "geohash": Value("string"),  # where the user was, a geohash in lower case; null where unknown
    }
)

# The base 32 of geohashes: digits and lower case letters without a, i, l and o. Twelve of them are four centimetres.
GEOHASH_PATTERN = "^[0-9b-hjkmnp-z]{1,12}$"

ITEM_FEATURES = Features(
    {
        "item_id": Value("string"),
        "title": Value("string"),
        "description": Value("string"),
        "categories": List(List(Value("string"))),  # category paths, each from the root down
        "available_from": Value("int64"),  # null = always was
        "available_until": Value("int64"),  # null = open end; exclusive
    }
)


@dataclass(frozen=True)
class Event:
    """One act of one user.

    Args:
        item_id (`str`, *optional*): The item acted on; `None` for a search without a click.
        behavior (`str`): `"recommendation"` or `"search"`.
        timestamp (`int`): Seconds since the epoch, UTC.
        query (`str`, *optional*): The text searched for; `None` unless `behavior` is `"search"`.
        action (`str`): What was done with the item.
        session_id (`str`, *optional*): The page view or request it belongs to; `None` where unknown.
        geohash (`str`, *optional*): Where the user was, in lower case; `None` where unknown.

    Raises:
        RequestError: If `behavior` is unknown or contradicts `query`, or `geohash` is none.
    """

    item_id: str | None
    behavior: Behavior = RECOMMENDATION
    timestamp: int = 0
    query: str | None = None
    action: str = "click"
    session_id: str | None = None
    geohash: str | None = None

    def __post_init__(self) -> None:
        if self.behavior not in BEHAVIORS:
            raise RequestError(f"`behavior` of an event is {self.behavior!r}; use one of {', '.join(BEHAVIORS)}.")
        if (self.query is not None) != (self.behavior == SEARCH):
            raise RequestError(
                f"An event of behavior {self.behavior!r} has query {self.query!r}; a search needs the text searched "
                "for, a recommendation must have none."
            )
        if self.query is not None:
            check_query(self.query)
        check_geohash(self.geohash)


@dataclass(frozen=True)
class Request:
    """A question to a model: what next (no query), or what for this query.

    Args:
        history (`Sequence[Event]`): The user's earlier events, oldest first. May be empty.
        query (`str`, *optional*): The text searched for; `None` asks for a recommendation.
        timestamp (`int`, *optional*): When it is asked, seconds since the epoch, UTC.
        user_id (`str`, *optional*): Who asks; no model needs it, reports show it.
        geohash (`str`, *optional*): Where it is asked, in lower case; `None` where unknown.

    Raises:
        RequestError: If the query is empty or longer than `MAX_QUERY_CHARACTERS`, if the history is not ordered by
            time, if it holds events after `timestamp`, or if `geohash` is none.
    """

    history: Sequence[Event] = ()
    query: str | None = None
    timestamp: int | None = None
    user_id: str | None = None
    geohash: str | None = None

    def __post_init__(self) -> None:
        if self.query is not None:
            check_query(self.query)
        check_geohash(self.geohash)
        times = [event.timestamp for event in self.history]
        for position, (earlier, later) in enumerate(zip(times, times[1:], strict=False)):
            if later < earlier:
                raise RequestError(
                    f"`history` is not ordered by time: event {position + 1} has timestamp {later}, the one before it "
                    f"{earlier}; sort the events, oldest first."
                )
        if self.timestamp is not None and times and times[-1] > self.timestamp:
            raise RequestError(
                f"`history` ends at timestamp {times[-1]}, after the request's own {self.timestamp}; leave later "
                "events out."
            )

    @property
    def behavior(self) -> Behavior:
        """`"search"` with a query, `"recommendation"` without."""
        return RECOMMENDATION if self.query is None else SEARCH


@dataclass(frozen=True)
class ScoredItem:
    """One item of an answer.

    Args:
        item_id (`str`): The outside id.
        score (`float`): Higher is better; its meaning is the model's (log-probability in nats for GenSAR).
        title (`str`, *optional*): For people.
    """

    item_id: str
    score: float
    title: str | None = None


def check_query(query: str) -> None:
    """Refuse text that cannot be a query.

    Raises:
        RequestError: If it is not text, holds no visible character, or is longer than `MAX_QUERY_CHARACTERS`.
    """
    if not isinstance(query, str):
        raise RequestError(f"`query` is {query!r} of type {type(query).__name__}; pass text, or None to recommend.")
    if not query.strip():
        raise RequestError(f"`query` is {query!r}, which holds no visible character; pass text, or None to recommend.")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise RequestError(
            f"`query` has {len(query)} characters and starts {query[:40]!r}; the longest allowed has "
            f"{MAX_QUERY_CHARACTERS}. Shorten it."
        )


def check_geohash(geohash: str | None) -> None:
    """Refuse text that is no geohash.

    Raises:
        RequestError: If it is neither `None` nor 1 to 12 of a geohash's characters.
    """
    if geohash is not None and not (isinstance(geohash, str) and re.fullmatch(GEOHASH_PATTERN, geohash)):
        raise RequestError(
            f"`geohash` is {geohash!r}; a geohash has 1 to 12 characters, each a digit or a lower case letter other "
            "than a, i, l and o. Pass one, or None."
        )


class IdMap:
    """Outside ids to rows and back; the one place where the two meet.

    Args:
        ids (`Iterable[str]`): Distinct outside ids, in row order.

    Raises:
        DataError: If an id occurs twice.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = list(ids)
        self._rows = {outside: row for row, outside in enumerate(self._ids)}
        if len(self._rows) != len(self._ids):
            seen: set[str] = set()
            twice = next(outside for outside in self._ids if outside in seen or seen.add(outside))  # type: ignore[func-returns-value]
            raise DataError(f"The id {twice!r} occurs more than once; ids must be distinct.")

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, outside: object) -> bool:
        return outside in self._rows

    @property
    def ids(self) -> list[str]:
        """All outside ids in row order (a copy)."""
        return list(self._ids)

    def convert_to_rows(self, ids: Iterable[str], *, strict: bool = True) -> np.ndarray:
        """Convert outside ids to rows.

        Args:
            ids (`Iterable[str]`): Outside ids.
            strict (`bool`): Raise on an unknown id; otherwise give it row -1.

        Returns:
            `np.ndarray`: int64 rows, one for each id.

        Raises:
            UnknownItemError: If `strict` and an id is unknown.
        """
        outside_ids = list(ids)
        rows = np.fromiter((self._rows.get(outside, -1) for outside in outside_ids), np.int64, count=len(outside_ids))
        if strict and (rows < 0).any():
            unknown = [outside for outside, row in zip(outside_ids, rows.tolist(), strict=True) if row < 0]
            raise UnknownItemError(
                f"{len(unknown)} of {len(outside_ids)} ids are unknown, the first is {unknown[0]!r}; add the items to "
                "the catalogue or leave them out."
            )
        return rows

    def convert_to_ids(self, rows: Iterable[int]) -> list[str]:
        """Convert rows to outside ids.

        Raises:
            IndexError: If a row is negative or too large.
        """
        numbers = [int(row) for row in rows]
        for row in numbers:
            if not 0 <= row < len(self._ids):
                raise IndexError(f"Row {row} is outside 0..{len(self._ids) - 1}.")
        return [self._ids[row] for row in numbers]


def item_texts(items: pa.Table) -> list[str]:
    """Give the text that stands for each item: title, then description.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.

    Returns:
        `list[str]`: One text a row; empty where an item has neither.
    """
    titles = items.column("title").to_pylist()
    descriptions = items.column("description").to_pylist()
    return [
        " ".join(part.strip() for part in (title, description) if part and part.strip())
        for title, description in zip(titles, descriptions, strict=True)
    ]
