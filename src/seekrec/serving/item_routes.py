# SPDX-License-Identifier: Apache-2.0
"""Routes of the catalogue: put, delete and read items."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from seekrec.errors import UnknownItemError
from seekrec.serving.http import ItemId, Served
from seekrec.serving.messages import MAX_ID_CHARACTERS, MAX_TOP_K, ItemIdsMessage, ItemMessage, ItemsMessage
from seekrec.serving.replies import Changed, ItemList, ItemState
from seekrec.serving.store import ConflictError

item_router = APIRouter()

# Ids may contain slashes, which come as %2F and are unpacked before a route is chosen: hence `:path`.


@item_router.put("/items")
async def put_items(message: ItemsMessage, service: Served) -> Changed:
    """Add items, or change their columns. Doing it again changes nothing."""
    puts = [one.model_dump(exclude_unset=True) for one in message.items]
    changed, now = await service.models.put_items(puts)
    return Changed(changed=changed, catalog_version=now)


@item_router.delete("/items")
async def delete_items(message: ItemIdsMessage, service: Served) -> Changed:
    """Take items out of answers. Histories may still name them."""
    changed, now = await service.models.delete_items(message.item_ids)
    return Changed(changed=changed, catalog_version=now)


@item_router.put("/items/{item_id:path}")
async def put_item(item_id: ItemId, message: ItemMessage, service: Served) -> Changed:
    """Add an item, or change its columns."""
    if message.item_id != item_id:
        raise ConflictError(f"`item_id` is {message.item_id!r} in the body and {item_id!r} in the path; give one.")
    changed, now = await service.models.put_items([message.model_dump(exclude_unset=True)])
    return Changed(changed=changed, catalog_version=now)


@item_router.delete("/items/{item_id:path}")
async def delete_item(item_id: ItemId, service: Served) -> Changed:
    """Take an item out of answers."""
    changed, now = await service.models.delete_items([item_id], argument="item_id")
    return Changed(changed=changed, catalog_version=now)


@item_router.get("/items/{item_id:path}")
async def read_item(item_id: ItemId, service: Served) -> ItemState:
    """Return an item as the catalogue holds it."""
    catalog, now = service.model.served
    if item_id not in catalog.id_map:
        raise UnknownItemError(f"There is no item {item_id!r} in the catalogue.")
    row = catalog.id_map.rows[item_id]
    if catalog.is_removed[row]:
        raise UnknownItemError(f"Item {item_id!r} was deleted; PUT it again to restore it.")
    return ItemState(item=catalog.items.slice(row, 1).to_pylist()[0], catalog_version=now)


@item_router.get("/items")
async def list_items(
    service: Served,
    search: Annotated[str, Query(max_length=MAX_ID_CHARACTERS, description="Text in the title.")] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_TOP_K)] = 20,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> ItemList:
    """Return items that may be answered, in the order of the catalogue."""
    catalog, now = service.model.served
    mask = catalog.where(title_contains=search) if search else catalog.live
    rows = mask.nonzero()[0][offset : offset + limit]
    return ItemList(items=catalog.items.take(rows).to_pylist(), catalog_version=now)


__all__ = ["item_router"]
