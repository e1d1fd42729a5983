# SPDX-License-Identifier: Apache-2.0
"""The data model: events, items, requests and answers.

External ids (`user_id`, `item_id`) are strings; rows are int64 positions in a table. Only [`IdMap`] converts between
them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value

from seekrec.errors import DataError, RequestError, UnknownItemError
from seekrec.util.actions import IMPRESSION as IMPRESSION
from seekrec.util.actions import action_of_word

Behavior = Literal["recommendation", "search"]
View = Literal["semantic", "collaborative"]

RECOMMENDATION: Behavior = "recommendation"
SEARCH: Behavior = "search"
BEHAVIORS: tuple[Behavior, ...] = (RECOMMENDATION, SEARCH)

# A search writes the semantic identifier, a recommendation the collaborative one (GenSAR, equation 11).
VIEW_OF_BEHAVIOR: dict[Behavior, View] = {RECOMMENDATION: "collaborative", SEARCH: "semantic"}

# 10**11 seconds is the year 5138; anything larger counts milliseconds or finer.
MAX_SECONDS = 10**11

# Characters of the longest query. Longer text is a pasted document: it is refused, not cut.
MAX_QUERY_CHARACTERS = 1000

EVENT_FEATURES = Features(
    {
        "user_id": Value("string"),
        "timestamp": Value("int64"),  # seconds since the epoch, UTC; the position where a log has order but no time
        "behavior": Value("string"),  # "recommendation" or "search"
        "query": Value("string"),  # null unless a search
        "item_id": Value("string"),  # null for a search without a click
        "action": Value("string"),  # "click", "purchase", ...; "impression" = shown, not clicked
        "session_id": Value("string"),  # one page view, or one visit: see `events/sessions.py`; null where unknown
    }
)

# Columns that a log of events has only if its source has them.
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
        timestamp (`int`): Seconds since the epoch, UTC; 0 to `MAX_SECONDS`. Integers of numpy become plain ones.
        query (`str`, *optional*): The text searched for; `None` unless `behavior` is `"search"`.
        action (`str`): What was done with the item; kept as written, and read as tables are: "page_view" is a view.
        session_id (`str`, *optional*): The page view (or the visit: see `events/sessions.py`) it belongs to; `None`
            where unknown.
        geohash (`str`, *optional*): Geohash of the user, in lower case; `None` where unknown.

    Raises:
        RequestError: If a field is of the wrong type, `behavior` is unknown or contradicts `query`, `timestamp` counts
            milliseconds or finer, or `geohash` is invalid.
    """

    item_id: str | None
    behavior: Behavior = RECOMMENDATION
    timestamp: int = 0
    query: str | None = None
    action: str = "click"
    session_id: str | None = None
    geohash: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.behavior, str) or self.behavior not in BEHAVIORS:
            raise RequestError(f"`behavior` of an event is {shown(self.behavior)}; use one of {', '.join(BEHAVIORS)}.")
        if (self.query is not None) != (self.behavior == SEARCH):
            raise RequestError(
                f"An event of behavior {self.behavior!r} has query {shown(self.query)}; a search needs the text "
                "searched for, a recommendation must have none."
            )
        if self.query is not None:
            check_query(self.query)
        _check_text(self.item_id, "item_id", "an item's id, or None for a search without a click")
        if self.action is None:
            raise RequestError("`action` of an event is None; pass text, such as 'click'.")
        _check_text(self.action, "action", "an action, such as 'click'")
        _check_text(self.session_id, "session_id", "text, or None")
        check_geohash(self.geohash)
        object.__setattr__(self, "timestamp", _check_seconds(self.timestamp))

    @property
    def is_impression(self) -> bool:
        """Whether the item was only shown."""
        return action_of_word(self.action) == IMPRESSION

    @property
    def is_interaction(self) -> bool:
        """Whether the user acted on an item; `Timeline.is_interaction` is the same for a whole log."""
        return self.item_id is not None and not self.is_impression


@dataclass(frozen=True)
class Request:
    """A question to a model: the next item (no query), or the item for this query.

    Args:
        history (`Iterable[Event]`): The user's earlier events, oldest first. May be empty; read once into a tuple.
        query (`str`, *optional*): The text searched for; `None` asks for a recommendation.
        timestamp (`int`, *optional*): Time of the request, seconds since the epoch, UTC.
        user_id (`str`, *optional*): User who asks; no model needs it, reports show it.
        geohash (`str`, *optional*): Geohash of the user, in lower case; `None` where unknown.
        session_id (`str`, *optional*): The page view of the request. A model trained with page views (IntSR, SynerGen)
            does not read the events of that page view. `None`: the whole history is read.
        action (`str`, *optional*): Action that the answer should lead to ("purchase"); `None` leaves it to the model.
            SynerGen reads it.

    Raises:
        RequestError: If a field is of the wrong type, if the query is empty or longer than `MAX_QUERY_CHARACTERS`, if
            the history contains anything but events, is not ordered by time or contains events after `timestamp`, if
            `timestamp` counts milliseconds or finer, or if `geohash` is invalid.
    """

    history: Sequence[Event] = ()
    query: str | None = None
    timestamp: int | None = None
    user_id: str | None = None
    geohash: str | None = None
    session_id: str | None = None
    action: str | None = None

    def __post_init__(self) -> None:
        if self.query is not None:
            check_query(self.query)
        _check_text(self.user_id, "user_id", "text, or None")
        _check_text(self.session_id, "session_id", "text, or None")
        _check_text(self.action, "action", "an action, such as 'purchase', or None")
        check_geohash(self.geohash)
        if self.timestamp is not None:
            object.__setattr__(self, "timestamp", _check_seconds(self.timestamp))
        object.__setattr__(self, "history", _read_history(self.history))
        times = [event.timestamp for event in self.history]
        for position, (earlier, later) in enumerate(zip(times, times[1:], strict=False)):
            if later < earlier:
                raise RequestError(
                    f"`history` is not ordered by time: event {position + 1} has timestamp {later}, the one before it "
                    f"{earlier}; sort the events, oldest first."
                )
        if self.timestamp is not None and times and times[-1] > self.timestamp:
            raise RequestError(
                f"`history` ends at timestamp {times[-1]}, after the request's own {self.timestamp}; leave out the "
                "later events."
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
        title (`str`, *optional*): What the item is called, for display; see [`Catalog.titles_of_rows`].
    """

    item_id: str
    score: float
    title: str | None = None


def check_query(query: str) -> None:
    """Refuse text that cannot be a query.

    Raises:
        RequestError: If it is not text, contains no visible character, or is longer than `MAX_QUERY_CHARACTERS`.
    """
    if not isinstance(query, str):
        raise RequestError(
            f"`query` is {shown(query)} of type {type(query).__name__}; pass text, or None to recommend."
        )
    check_characters(query, "query")
    if not query.strip():
        raise RequestError(f"`query` is {query!r}, which has no visible character; pass text, or None to recommend.")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise RequestError(
            f"`query` has {len(query)} characters and starts {query[:40]!r}; the maximum is {MAX_QUERY_CHARACTERS}. "
            "Shorten it."
        )


def name_time_unit(number: float) -> tuple[str, int]:
    """Return the unit that a number too large for seconds since 1970 seems to count, and how many make a second."""
    units = (("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9))
    return next(((unit, factor) for unit, factor in units if number <= MAX_SECONDS * factor), units[-1])


def shown(value: object) -> str:
    """Return the start of the `repr` of a value, for messages; works for any argument."""
    try:
        return f"{value!r:.60}"
    except Exception:  # a stranger's __repr__, or an integer of thousands of digits
        return "a value that cannot be shown"


def _check_seconds(timestamp: object) -> int:
    """Return a timestamp as a plain integer, or refuse it."""
    if isinstance(timestamp, bool) or not isinstance(timestamp, (int, np.integer)):
        raise RequestError(
            f"`timestamp` is {shown(timestamp)} of type {type(timestamp).__name__}; pass whole seconds since 1970, "
            "UTC, such as int(date.timestamp())."
        )
    seconds = int(timestamp)
    if seconds < 0:
        raise RequestError("`timestamp` is negative; pass seconds since 1970, from 0 up.")
    if seconds > MAX_SECONDS:
        unit, factor = name_time_unit(seconds)
        # An integer of thousands of digits cannot be printed.
        printed = str(seconds) if seconds < 10**30 else "larger than 10**30"
        raise RequestError(
            f"`timestamp` is {printed}, which looks like {unit}; timestamps are seconds since 1970, so divide it by "
            f"{factor}."
        )
    return seconds


def _read_history(history: object) -> tuple[Event, ...]:
    """Read the events of a history once, from any ordered iterable."""
    if isinstance(history, (str, bytes, Mapping, Set)) or not isinstance(history, Iterable):
        raise RequestError(
            f"`history` is {shown(history)} of type {type(history).__name__}; pass a list of events, oldest first, or "
            "() for a user without any."
        )
    events = tuple(history)
    for position, event in enumerate(events):
        if not isinstance(event, Event):
            raise RequestError(
                f"`history` contains {shown(event)} of type {type(event).__name__} at position {position} (from 0); "
                "pass an Event."
            )
    return events


def _check_text(text: object, argument: str, expected: str) -> None:
    """Refuse a value that is neither `None` nor text with a visible character."""
    if text is None:
        return
    if not isinstance(text, str):
        raise RequestError(f"`{argument}` is {shown(text)} of type {type(text).__name__}; pass {expected}.")
    if not text or text.isspace():
        raise RequestError(f"`{argument}` is {text!r}, which has no visible character; pass {expected}.")
    check_characters(text, argument)


def check_characters(text: str, argument: str) -> None:
    """Refuse text that cannot be written as UTF-8: halves of surrogate pairs, as a wrong decoding leaves them.

    Raises:
        RequestError: If it holds one.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"`{argument}` contains {text[error.start]!r} at position {error.start}: half of a surrogate pair, which "
            "is not a character; decode the text again, or drop it with text.encode(errors='ignore').decode()."
        ) from None


def check_geohash(geohash: str | None) -> None:
    """Refuse text that is not a geohash.

    Raises:
        RequestError: If it is neither `None` nor 1 to 12 of a geohash's characters.
    """
    if geohash is not None and not (isinstance(geohash, str) and re.fullmatch(GEOHASH_PATTERN, geohash)):
        raise RequestError(
            f"`geohash` is {shown(geohash)}; a geohash has 1 to 12 characters, each a digit or a lower case letter "
            "other than a, i, l and o. Pass one, or None."
        )


class IdMap:
    """Outside ids to rows and back; the one place where the two meet.

    Args:
        ids (`Iterable[str]`): Distinct outside ids, in row order.

    Attributes:
        rows (`Mapping[str, int]`): The row of each outside id.

    Raises:
        DataError: If an id occurs twice.
    """

    rows: Mapping[str, int]

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = list(ids)
        self.rows = {outside: row for row, outside in enumerate(self._ids)}
        if len(self.rows) != len(self._ids):
            twice = next(outside for outside, count in Counter(self._ids).items() if count > 1)
            raise DataError(f"The id {twice!r} occurs more than once; ids must be distinct.")

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, outside: object) -> bool:
        return outside in self.rows

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
        rows = np.fromiter((self.rows.get(outside, -1) for outside in outside_ids), np.int64, count=len(outside_ids))
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
    """Return the text that stands for each item: title, then description.

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
