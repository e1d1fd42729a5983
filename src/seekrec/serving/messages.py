# SPDX-License-Identifier: Apache-2.0
"""The request messages of the server: every field with its limits, and an example for each route."""

from __future__ import annotations

import math
import re
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WrapValidator,
    model_validator,
)
from pydantic.config import JsonDict

from seekrec.models.views.boosts import MAX_BOOST
from seekrec.schema import (
    GEOHASH_PATTERN,
    MAX_QUERY_CHARACTERS,
    MAX_SECONDS,
    RECOMMENDATION,
    SEARCH,
    Behavior,
    Event,
    Request,
    check_query,
)

MAX_ID_CHARACTERS = 200
MAX_HISTORY = 1_000
MAX_TOP_K = 100
MAX_CANDIDATES = 1_000
MAX_SUGGESTIONS = 20
# Items or events of one request.
MAX_CHANGES = 1_000
# Columns of a filter, and values of one column.
MAX_FILTERS = 20
MAX_VALUES = 1_000
MAX_TEXT = 10_000


# A character that can be seen, in the words of regular expressions that all languages share.
_SEEN = r"[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]"
_VISIBLE = rf"^[^\u0000]*{_SEEN}[^\u0000]*$"


def _check_characters(text: str) -> str:
    """Refuse what databases cannot keep."""
    if "\x00" in text:
        raise ValueError("contains the character NUL; remove it")
    if re.search("[\ud800-\udfff]", text):
        raise ValueError("contains half of a surrogate pair, which is not a character; remove it")
    return text


def _check_text(text: str) -> str:
    """Refuse what databases cannot keep, and text without a visible character."""
    if re.search(_SEEN, _check_characters(text)) is None:
        raise ValueError("contains no visible character; pass text, or leave the field out")
    return text


def _whole(value: object) -> object:
    """Take 3.0 for 3: to JSON they are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seconds(value: object) -> object:
    """Take 3.0 for 3, and say what a time must be where it is something else."""
    seconds = _whole(value)
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise ValueError("is not a whole number; pass seconds since 1970, UTC, such as 1700000000")
    if seconds > MAX_SECONDS:
        raise ValueError(
            "is too far in the future for seconds since 1970; if it is in milliseconds, divide it by 1000"
        )
    return seconds


def _check_scalar(value: object) -> object:
    """Check a value of an item's column by its own type; pydantic names every type that it might have been."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError(f"is text of {len(value)} characters; pass at most {MAX_TEXT}")
        return _check_text(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("is a whole number of more than 64 bits; pass a smaller one")
    elif not isinstance(value, float) or not math.isfinite(value):
        raise ValueError("is not text, a number, true or false; pass one of these")
    return value


# The same for readers of the schema. What a schema cannot say is no reason to refuse a message as malformed.
_PATTERN = Field(json_schema_extra={"pattern": _VISIBLE})
# Limits stand before what checks a value, or neither the schema nor a refusal says them.
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS), AfterValidator(_check_text), _PATTERN]
Query = Annotated[
    str,
    Field(min_length=1, max_length=MAX_QUERY_CHARACTERS, examples=["space"]),
    AfterValidator(_check_text),
    _PATTERN,
]
Seconds = Annotated[
    int,
    Field(ge=0, le=MAX_SECONDS, description="Seconds since 1970, UTC.", examples=[1_700_000_000]),
    BeforeValidator(_seconds),
]
Geohash = Annotated[str, Field(pattern=GEOHASH_PATTERN)]
Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_check_text), _PATTERN]
# A value of an item's column, or of a filter.
Scalar = Annotated[
    bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | Text,
    WrapValidator(lambda value, _: _check_scalar(value)),
]
Column = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]


class Message(BaseModel):
    """What all have in common: no unknown field, no guessing of types, no number that is not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _one_of_two(first: JsonValue, second: JsonValue) -> JsonDict:
    """Say in a schema that one of two must hold; what pydantic checks by a function, readers cannot see."""
    return {"anyOf": [first, second]}


def _is_given(name: str, type_: str) -> JsonDict:
    return {"properties": {name: {"type": type_}}, "required": [name]}


def _is_left_out(name: str) -> JsonDict:
    return {"properties": {name: {"type": "null"}}}


class EventMessage(Message):
    """One act of one user."""

    model_config = ConfigDict(
        json_schema_extra=_one_of_two(
            {
                "properties": {"behavior": {"const": SEARCH}, "query": {"type": "string"}},
                "required": ["behavior", "query"],
            },
            {"properties": {"behavior": {"const": RECOMMENDATION}, "query": {"type": "null"}}},
        )
    )
    item_id: Id | None = Field(default=None, description="The item acted on; null for a search without a click.")
    behavior: Behavior = RECOMMENDATION
    timestamp: Seconds = 0
    query: Query | None = Field(default=None, description='The text searched for; only where `behavior` is "search".')
    action: Id = Field(
        default="click",
        description="What was done; words are read as in tables: of an item shown and not acted on, `impression` or a "
        "word that means it.",
    )
    session_id: Id | None = None
    geohash: Geohash | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.to_event()
        return self

    def to_event(self) -> Event:
        """Return it as models read it."""
        return Event(
            self.item_id, self.behavior, self.timestamp, self.query, self.action, self.session_id, self.geohash
        )


class UserEvent(EventMessage):
    """One act of a named user, to be kept; the id makes sending it twice safe."""

    event_id: Id
    user_id: Id
    timestamp: Seconds


class EventsMessage(Message):
    """What users did."""

    events: list[UserEvent] = Field(min_length=1, max_length=MAX_CHANGES)
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"event_id": "e-1", "user_id": "ann", "item_id": "168", "timestamp": 1_700_000_000},
                        {
                            "event_id": "e-2",
                            "user_id": "ann",
                            "item_id": "50",
                            "behavior": "search",
                            "query": "space adventure",
                            "timestamp": 1_700_000_060,
                        },
                    ]
                }
            ]
        }
    )


class Range(Message):
    """Numbers from `lowest` to `highest`, both included; an end left out is open."""

    model_config = ConfigDict(
        json_schema_extra=_one_of_two(_is_given("lowest", "number"), _is_given("highest", "number"))
    )
    lowest: int | float | None = None
    highest: int | float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lowest is None and self.highest is None:
            raise ValueError("names neither `lowest` nor `highest`; give at least one")
        return self


class Where(Message):
    """Which items may be answered: all of its conditions must hold. Columns are those of the catalogue's items."""

    equals: dict[Column, Scalar] = Field(default={}, max_length=MAX_FILTERS)
    one_of: dict[Column, Annotated[list[Scalar], Field(min_length=1, max_length=MAX_VALUES)]] = Field(
        default={}, alias="in", max_length=MAX_FILTERS
    )
    range: dict[Column, Range] = Field(default={}, max_length=MAX_FILTERS)
    available_at: Seconds | None = None


# Of these two at most one.
_WHO = _one_of_two(_is_left_out("history"), _is_left_out("user_id"))


class Question(Message):
    """Who asks: a history, or a user whose history the server keeps; neither is a user without one."""

    history: Annotated[list[EventMessage], Field(max_length=MAX_HISTORY)] | None = Field(
        default=None, description="The user's events; they are read in the order of time."
    )
    user_id: Id | None = Field(default=None, description="A user whose events were sent to `/events`.")
    timestamp: Seconds | None = Field(default=None, description="When it is asked; events after it are not read.")
    geohash: Geohash | None = None
    session_id: Id | None = None
    action: Id | None = Field(default=None, description="What the answer should lead to; SynerGen reads it.")
    model: Id | None = Field(default=None, description="A model that is loaded together with the one that answers.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.history is not None and self.user_id is not None:
            raise ValueError("has both `history` and `user_id`; give one of them")
        return self

    def given_history(self) -> list[Event]:
        """Return the events that came with it, in the order of time; those of one second as they were given."""
        events = sorted((event.to_event() for event in self.history or []), key=lambda event: event.timestamp)
        return [event for event in events if self.timestamp is None or event.timestamp <= self.timestamp]

    def to_request(self) -> Request:
        """Return it as models read it, without a history."""
        query: str | None = getattr(self, "query", None)
        return Request((), query, self.timestamp, self.user_id, self.geohash, self.session_id, self.action)


_HISTORY: list[JsonValue] = [
    {"item_id": "168", "timestamp": 1_700_000_000},
    {"item_id": "50", "timestamp": 1_700_000_060},
]


class RecommendMessage(Question):
    """Ask for recommendations."""

    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K), BeforeValidator(_whole)] = 10
    where: Where | None = None
    exclude_seen: bool | None = Field(
        default=None,
        description="Leave out what the user acted on; if not given in recommendations and not in searches.",
    )
    boosts: dict[Id, Annotated[float, Field(ge=-MAX_BOOST, le=MAX_BOOST)]] | None = Field(
        default=None,
        max_length=MAX_CANDIDATES,
        description="Numbers that are added to the scores of items.",
        json_schema_extra={"propertyNames": {"pattern": _VISIBLE, "maxLength": MAX_ID_CHARACTERS}},
    )
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ann", "top_k": 5}, {"history": _HISTORY, "top_k": 5}], **_WHO}
    )


class SearchMessage(RecommendMessage):
    """Search."""

    query: Query
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "space adventure", "user_id": "ann", "top_k": 5}], **_WHO}
    )

    @model_validator(mode="after")
    def _check_query(self) -> Self:
        check_query(self.query)
        return self


class RankMessage(Question):
    """Order some items, for a query or without one."""

    query: Query | None = None
    candidates: list[Id] = Field(min_length=1, max_length=MAX_CANDIDATES, json_schema_extra={"uniqueItems": True})
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ann", "candidates": ["168", "50", "172"]}], **_WHO}
    )

    @model_validator(mode="after")
    def _check_candidates(self) -> Self:
        seen: set[str] = set()
        for item_id in self.candidates:
            if item_id in seen:
                raise ValueError(f"names the candidate {item_id!r} more than once; name each once")
            seen.add(item_id)
        return self


class WhyMessage(Question):
    """Ask what speaks for an item."""

    item_id: Id
    query: Query | None = None
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "ann", "item_id": "50", "query": "space adventure"}], **_WHO}
    )


class SuggestMessage(Question):
    """Ask what the user may search for."""

    top_k: Annotated[int, Field(ge=1, le=MAX_SUGGESTIONS), BeforeValidator(_whole)] = 5
    prefix: Annotated[str, Field(max_length=MAX_QUERY_CHARACTERS), AfterValidator(_check_characters)] = Field(
        default="", description="What was typed so far."
    )
    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "ann", "top_k": 5}], **_WHO})


class ItemMessage(BaseModel):
    """An item of the catalogue: its text, when it is available, and the columns that the catalogue has besides.

    Of an item that is there, columns that are left out stay as they are.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [{"item_id": "new-1", "title": "A Quiet Voyage (2026)", "categories": [["Movies", "Drama"]]}],
            "propertyNames": {"minLength": 1, "maxLength": MAX_ID_CHARACTERS},
        },
    )
    __pydantic_extra__: dict[Column, Scalar | Annotated[list[Scalar], Field(max_length=MAX_VALUES)] | None]

    item_id: Id
    title: Text | None = None
    description: Text | None = None
    categories: Annotated[list[Annotated[list[Text], Field(max_length=50)]], Field(max_length=50)] | None = None
    available_from: Seconds | None = None
    available_until: Seconds | None = None


class ItemsMessage(Message):
    """Items to add or to change."""

    items: list[ItemMessage] = Field(min_length=1, max_length=MAX_CHANGES)


class ItemIdsMessage(Message):
    """Items to take out of answers."""

    item_ids: list[Id] = Field(min_length=1, max_length=MAX_CHANGES)


class ModelMessage(Message):
    """Which model answers from now on."""

    model: Id
    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "intsr-2"}]})
