# SPDX-License-Identifier: Apache-2.0
"""The response messages of the server; requests are in [`messages`]."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from seekrec.serving.messages import Message


class Appended(Message):
    """What became of events."""

    appended: int = Field(description="Events that are new.")
    already_there: int = Field(description="Events that were sent before.")


class AnswerItem(Message):
    """One item of an answer."""

    item_id: str
    title: str | None
    score: float = Field(description="Higher is better; comparable within one answer.")
    probability: float | None = Field(default=None, description="Of an act, where a model that ranks gives one.")


class Versions(Message):
    """What an answer was made from."""

    model: str = Field(description="Name of the model.")
    model_version: str = Field(description="Digest of its weights and settings.")
    catalog_version: int = Field(description="Number of changes of the catalogue so far.")


class Answer(Versions):
    """Items, best first."""

    items: list[AnswerItem]
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "intsr",
                    "model_version": "b32999284b75",
                    "catalog_version": 3,
                    "items": [{"item_id": "50", "title": "Star Wars (1977)", "score": 4.2, "probability": None}],
                }
            ]
        }
    )


class FoundItems(Answer):
    """What was found for a query, best first."""

    read_as: str = Field(description="The query as it was read: a slip in a word that nobody knows is mended.")


class Suggestions(Versions):
    """Queries, best first."""

    queries: list[str]


class Changed(Message):
    """What became of a change of the catalogue."""

    changed: int = Field(description="Items that were not so before.")
    catalog_version: int


class ItemState(Message):
    """An item as the catalogue holds it."""

    item: dict[str, object]
    catalog_version: int


class ItemList(Message):
    """Some items of the catalogue."""

    items: list[dict[str, object]]
    catalog_version: int


class History(Message):
    """What a user did, oldest first, with the titles of the items."""

    user_id: str
    events: list[dict[str, object]]


class Fault(BaseModel):
    """What is wrong with a request, and where."""

    loc: list[str | int] = Field(description="Path to the field, from `body`, `path` or `query`; empty if none.")
    msg: str


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: list[Fault]


class Health(Message):
    """Whether the server answers, and from what."""

    status: Literal["ready", "starting", "stopping"]
    model: str | None = None
    model_version: str | None = None
    catalog_version: int | None = None
    beside: list[str] = []
    tasks: list[str] = []
    num_items: int | None = None


class Models(Message):
    """The models of the server."""

    model: str = Field(description="That which serves.")
    models: list[str]


class Users(Message):
    """Users whom the server was started with."""

    users: list[str]


class CategoryFacet(Message):
    """A category that items can be filtered by, at any depth of their paths."""

    name: str
    num_items: int


class RangeFacet(Message):
    """A column of numbers that items can be filtered by, and its ends."""

    column: str
    lowest: float | int
    highest: float | int


class Facets(Message):
    """What items can be filtered by."""

    categories: list[CategoryFacet] = Field(description="The commonest first.")
    root: str | None = Field(description="What all paths of categories begin with.")
    ranges: list[RangeFacet]
    has_lifetimes: bool = Field(description="Whether some item is available from, or until, a time.")


class ItemName(Message):
    """An item, as people read it."""

    item_id: str
    title: str | None


class NearItem(ItemName):
    """An item of a history, and how like another it is."""

    similarity: float = Field(description="Cosine of their vectors, less what all items share.")


class Nearest(Message):
    """The items of a history that are most like an item."""

    by: Literal["text", "behavior"]
    items: list[NearItem]


class IdentifierLevel(Message):
    """One code of an identifier."""

    code: int
    num_items: int = Field(description="Items with this code after the codes before it.")


class IdentifierPath(Message):
    """An identifier, from the code that most items share to the one that is the item's alone."""

    view: str
    levels: list[IdentifierLevel]
    siblings: list[ItemName] = Field(description="Items that share most of it.")


class Why(Message):
    """What speaks for an item."""

    item: ItemName
    categories: list[str]
    words: list[str] = Field(description="Words of the query that it has, folded.")
    nearest: list[Nearest]
    identifiers: list[IdentifierPath]
