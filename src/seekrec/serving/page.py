# SPDX-License-Identifier: Apache-2.0
"""What the page asks for besides: why an item was answered."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter
from pydantic import ConfigDict, Field

from seekrec.catalog import Catalog
from seekrec.serving import messages as m
from seekrec.serving.http import Served
from seekrec.serving.reasons import find_reasons
from seekrec.serving.replies import Versions

page_router = APIRouter()


class WhyMessage(m.Question):
    """Ask what an item has in common with a user's history and a query."""

    item_id: m.Id
    query: m.Query | None = None
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item_id": "50", "user_id": "ann", "query": "space adventure"}]}
    )


class SimilarItem(m.Message):
    """An item of a history."""

    item_id: str
    title: str | None
    similarity: float = Field(description="Cosine of the vectors of the texts.")


class Sibling(m.Message):
    """An item with almost the same identifier."""

    item_id: str
    title: str | None


class CodePath(m.Message):
    """An item's identifier in one view."""

    codes: list[int] = Field(description="From the coarsest level to the finest.")
    siblings: list[Sibling] = Field(description="Some of the items that differ in the last code alone.")
    num_siblings: int


class Why(Versions):
    """What an item has in common with a history, a query and other items: facts of the catalogue."""

    item_id: str
    title: str | None
    history: list[SimilarItem] = Field(description="The items of the history that are most like it, best first.")
    words: list[str] = Field(description="Words of the query that the item's text has, folded.")
    identifiers: dict[str, CodePath] = Field(description="By view; empty where items have none.")


@page_router.post("/why")
async def why(message: WhyMessage, service: Served) -> Why:
    """Say what an item has in common with a user's history, a query and other items."""
    model = service.models.named(message.model)
    catalog, version = model.served
    if message.user_id is not None:
        events = (await service.history(message.user_id)).events
    else:
        events = tuple(message.given_history())
    acted_on = [event.item_id for event in events if event.item_id is not None and not event.is_impression]

    def find() -> Why:
        found = find_reasons(catalog, message.item_id, acted_on, message.query)
        return Why(
            model=model.name,
            model_version=model.version,
            catalog_version=version,
            item_id=message.item_id,
            title=catalog.titles([message.item_id])[0],
            history=[
                SimilarItem(item_id=item_id, title=title, similarity=similarity)
                for (item_id, similarity), title in zip(
                    found.nearest, catalog.titles([item_id for item_id, _ in found.nearest]), strict=True
                )
            ],
            words=found.words,
            identifiers={
                view: CodePath(
                    codes=path.codes, siblings=_siblings(catalog, path.siblings), num_siblings=path.num_siblings
                )
                for view, path in found.paths.items()
            },
        )

    return await run_sync(find)


def _siblings(catalog: Catalog, item_ids: list[str]) -> list[Sibling]:
    titles = catalog.titles(item_ids)
    return [Sibling(item_id=item_id, title=title) for item_id, title in zip(item_ids, titles, strict=True)]


__all__ = ["page_router"]
