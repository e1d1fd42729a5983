# SPDX-License-Identifier: Apache-2.0
"""The routes: what is asked over HTTP, checked by [`messages`], answered by a [`Service`]."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Annotated, TypeVar, cast

import pyarrow as pa
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse

from seekrec.errors import UnknownItemError
from seekrec.serving import messages as m
from seekrec.serving import replies
from seekrec.serving.engine import Answered, ModelSource, Question
from seekrec.serving.http import PROBLEMS, add_errors, add_middleware, check_token
from seekrec.serving.service import Service
from seekrec.serving.settings import ServingSettings
from seekrec.serving.store import ConflictError, StoredEvent

ResultT = TypeVar("ResultT")

# What nobody reads: the client has closed the connection. The number is that of nginx.
CLIENT_IS_GONE = 499

router = APIRouter()
ItemId = Annotated[str, Path(min_length=1, max_length=m.MAX_ID_CHARACTERS)]


def make_app(source: ModelSource, settings: ServingSettings) -> FastAPI:
    """Make the application; see [`seekrec.serving.create_app`]."""
    service = Service(source, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="seekrec",
        summary="One model that searches and recommends.",
        version=version("seekrec"),
        lifespan=lifespan,
        responses=PROBLEMS,
    )
    app.state.service = service
    app.include_router(router, dependencies=[Depends(check_token)])
    app.include_router(open_router)
    add_errors(app)
    add_middleware(app, service.metrics)
    return app


def get_service(request: Request) -> Service:
    """Return the service of the application."""
    return cast(Service, request.app.state.service)


Served = Annotated[Service, Depends(get_service)]


# ---- questions ----


@router.post("/recommend")
async def recommend(message: m.RecommendMessage, service: Served, request: Request) -> replies.Answer:
    """Recommend items to a user."""
    return _items(await _ask(message, service, request, await _question(message, service)))


@router.post("/search")
async def search(message: m.SearchMessage, service: Served, request: Request) -> replies.Answer:
    """Find items for a query, of a user or of nobody."""
    return _items(await _ask(message, service, request, await _question(message, service)))


@router.post("/rank")
async def rank(message: m.RankMessage, service: Served, request: Request) -> replies.Answer:
    """Order some items for a user."""
    asked = replace(await _question(message, service), candidates=message.candidates)
    return _items(await _ask(message, service, request, asked))


@router.post("/suggest")
async def suggest(message: m.SuggestMessage, service: Served, request: Request) -> replies.Suggestions:
    """Suggest queries: those that the model writes for the user, then those that many users searched for."""
    found: list[str] = []
    if service.model.writes_queries:
        asked = replace(await _question(message, service), top_k=message.top_k, writes_queries=True)
        found = (await _ask(message, service, request, asked)).queries
    folded = message.prefix.casefold()
    found = [query for query in found if query.casefold().startswith(folded)]
    if len(found) < message.top_k:
        found += await service.common_queries(message.prefix, message.top_k)
    model = service.model
    return replies.Suggestions(
        model=model.name,
        model_version=model.version,
        catalog_version=model.catalog_version,
        queries=list(dict.fromkeys(found))[: message.top_k],
    )


async def _question(message: m.Question, service: Service) -> Question:
    """Bring a message to what the model is asked."""
    asked = message.to_request()
    if message.user_id is None:
        question = Question(asked, message.given_history())
    else:
        kept = await service.history(message.user_id)
        until = message.timestamp
        if until is None or not kept.events or kept.events[-1].timestamp <= until:
            question = Question(asked, kept.events, kept)
        else:
            question = Question(asked, [event for event in kept.events if event.timestamp <= until])
    if not isinstance(message, m.RecommendMessage):
        return question
    return replace(
        question,
        top_k=message.top_k,
        where=message.where,
        exclude_seen=message.exclude_seen,
        boosts=message.boosts,
    )


async def _ask(message: m.Question, service: Service, request: Request, question: Question) -> Answered:
    async with asyncio.timeout(service.settings.timeout_s):
        return await _while_connected(request, service.ask(question))


async def _while_connected(request: Request, work: Awaitable[ResultT]) -> ResultT:
    """Wait for work as long as the one who asked does; else cancel it, so that it leaves the queue."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(CLIENT_IS_GONE)
        return working.result()
    finally:
        gone.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _items(answered: Answered) -> replies.Answer:
    model = answered.model
    return replies.Answer(
        model=model.name,
        model_version=model.version,
        catalog_version=answered.catalog_version,
        items=[
            replies.AnswerItem(item_id=one.item_id, title=one.title, score=float(one.score)) for one in answered.items
        ],
    )


# ---- events ----


@router.post("/events")
async def append_events(message: m.EventsMessage, service: Served) -> replies.Appended:
    """Keep what users did. An event that is sent again is kept once."""
    events = [StoredEvent(one.event_id, one.user_id, one.to_event()) for one in message.events]
    appended = await service.append_events(events)
    return replies.Appended(appended=appended, already_there=len(events) - appended)


@router.get("/users/{user_id}/history")
async def read_history(user_id: ItemId, service: Served) -> replies.History:
    """Return what a user did, oldest first."""
    events = (await service.history(user_id)).events
    catalog, _ = service.model.served
    rows = catalog.id_map.convert_to_rows([event.item_id or "" for event in events], strict=False)
    titles = catalog.items["title"].take(pa.array(rows, mask=rows < 0)).to_pylist()
    lines = [{**asdict(event), "title": title} for event, title in zip(events, titles, strict=True)]
    return replies.History(user_id=user_id, events=lines)


# ---- catalogue ----


@router.put("/items")
async def put_items(message: m.ItemsMessage, service: Served) -> replies.Changed:
    """Add items, or change their columns. Doing it again changes nothing."""
    puts = [one.model_dump(exclude_unset=True) for one in message.items]
    changed, now = await service.put_items(puts)
    return replies.Changed(changed=changed, catalog_version=now)


@router.delete("/items")
async def delete_items(message: m.ItemIdsMessage, service: Served) -> replies.Changed:
    """Take items out of answers. Histories may still name them."""
    changed, now = await service.delete_items(message.item_ids)
    return replies.Changed(changed=changed, catalog_version=now)


@router.put("/items/{item_id}")
async def put_item(item_id: ItemId, message: m.ItemMessage, service: Served) -> replies.Changed:
    """Add an item, or change its columns."""
    if message.item_id != item_id:
        raise ConflictError(f"`item_id` is {message.item_id!r} in the body and {item_id!r} in the path; give one.")
    changed, now = await service.put_items([message.model_dump(exclude_unset=True)])
    return replies.Changed(changed=changed, catalog_version=now)


@router.delete("/items/{item_id}")
async def delete_item(item_id: ItemId, service: Served) -> replies.Changed:
    """Take an item out of answers."""
    changed, now = await service.delete_items([item_id])
    return replies.Changed(changed=changed, catalog_version=now)


@router.get("/items/{item_id}")
async def read_item(item_id: ItemId, service: Served) -> replies.ItemState:
    """Return an item as the catalogue holds it."""
    catalog, now = service.model.served
    if item_id not in catalog.id_map:
        raise UnknownItemError(f"There is no item {item_id!r} in the catalogue.")
    row = catalog.id_map.rows[item_id]
    if catalog.is_removed[row]:
        raise UnknownItemError(f"Item {item_id!r} was deleted; put it to have it back.")
    return replies.ItemState(item=catalog.items.slice(row, 1).to_pylist()[0], catalog_version=now)


@router.get("/items")
async def list_items(
    service: Served,
    search: Annotated[str, Query(max_length=m.MAX_ID_CHARACTERS, description="Text in the title.")] = "",
    limit: Annotated[int, Query(ge=1, le=m.MAX_TOP_K)] = 20,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> replies.ItemList:
    """Return items that may be answered, in the order of the catalogue."""
    catalog, now = service.model.served
    mask = catalog.where(title_contains=search) if search else catalog.live
    rows = mask.nonzero()[0][offset : offset + limit]
    return replies.ItemList(items=catalog.items.take(rows).to_pylist(), catalog_version=now)


# ---- the server ----


@router.post("/admin/model")
async def use_model(message: m.ModelMessage, service: Served) -> replies.Health:
    """Let another model answer from the next batch on, in all processes. Needs the token of the server."""
    await service.use_model(message.model)
    return _health(service)


open_router = APIRouter()


@open_router.get("/health")
async def health(service: Served, response: Response) -> replies.Health:
    """Whether the server is ready to answer; 503 if it is not. That it answers at all says that it lives."""
    if service.status != "ready":
        response.status_code = 503
        return replies.Health(status="stopping" if service.status == "stopping" else "starting")
    return _health(service)


def _health(service: Service) -> replies.Health:
    model = service.model
    return replies.Health(
        status="ready",
        model=model.name,
        model_version=model.version,
        catalog_version=model.catalog_version,
        tasks=model.tasks,
        num_items=int(model.catalog.live.sum()),
    )


@open_router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: Served) -> Response:
    """Numbers for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


__all__ = ["make_app"]
