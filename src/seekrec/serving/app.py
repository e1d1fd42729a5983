# SPDX-License-Identifier: Apache-2.0
"""The HTTP routes: requests are checked by [`messages`] and answered by a [`Service`]."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse

from seekrec.serving import messages as m
from seekrec.serving import page, replies
from seekrec.serving.engine import Answered, ModelSource, Question
from seekrec.serving.http import PROBLEMS, ItemId, Served, add_errors, add_middleware, check_token, deadline_of
from seekrec.serving.item_routes import item_router
from seekrec.serving.query_counts import fold_query
from seekrec.serving.service import Service
from seekrec.serving.settings import ServingSettings
from seekrec.serving.store import StoredEvent

ResultT = TypeVar("ResultT")

# What nobody reads: the client has closed the connection. The number is that of nginx.
CLIENT_IS_GONE = 499

router = APIRouter()


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
    for own in (router, item_router, page.router):
        app.include_router(own, dependencies=[Depends(check_token)])
    for own in (open_router, page.open_router):
        app.include_router(own)
    add_errors(app)
    add_middleware(app, service)
    return app


# ---- questions ----


@router.post("/recommend")
async def recommend(message: m.RecommendMessage, service: Served, request: Request) -> replies.Answer:
    """Recommend items to a user."""
    return _items(await _ask(message, service, request))


@router.post("/search")
async def search(message: m.SearchMessage, service: Served, request: Request) -> replies.FoundItems:
    """Find items for a query, of a user or of nobody."""
    answered = await _ask(message, service, request)
    read_as = answered.processor.read_query(message.query)
    return replies.FoundItems(**dict(_items(answered)), read_as=read_as)


@router.post("/rank")
async def rank(message: m.RankMessage, service: Served, request: Request) -> replies.Answer:
    """Order some items for a user."""
    return _items(await _ask(message, service, request))


@router.post("/suggest")
async def suggest(message: m.SuggestMessage, service: Served, request: Request) -> replies.Suggestions:
    """Suggest queries: those that the model writes for the user, then those that many users searched for."""
    found: list[str] = []
    model = service.models.named(message.model)
    catalog_version = model.catalog_version
    if model.writes_queries:
        answered = await _ask(message, service, request)
        model, catalog_version, found = answered.model, answered.catalog_version, answered.queries
    begins = fold_query(message.prefix)
    found = [query for query in found if fold_query(query).startswith(begins)]
    if len(found) < message.top_k:
        found += await service.common_queries(message.prefix, message.top_k, deadline_of(request))
    different: dict[str, str] = {}
    for query in found:
        different.setdefault(fold_query(query), query)
    return replies.Suggestions(
        model=model.name,
        model_version=model.version,
        catalog_version=catalog_version,
        queries=list(different.values())[: message.top_k],
    )


async def _ask(message: m.Question, service: Service, request: Request) -> Answered:
    """Have a message answered in the time that it has, from reading the history on, and as long as somebody waits."""
    return await _while_connected(request, _answer(message, service, deadline_of(request)))


async def _answer(message: m.Question, service: Service, deadline: float) -> Answered:
    service.batcher.check_room(deadline)  # before anything is done for it
    return await service.ask(await _question(message, service, deadline), deadline)


async def _question(message: m.Question, service: Service, deadline: float) -> Question:
    """Bring a message to what the model is asked."""
    asked = message.to_request()
    if message.user_id is None:
        question = Question(asked, message.given_history(), model=message.model)
    else:
        kept = await service.history(message.user_id, deadline)
        until = message.timestamp
        if until is None or not kept.events or kept.events[-1].timestamp <= until:
            question = Question(asked, kept.events, kept, model=message.model)
        else:
            earlier = [event for event in kept.events if event.timestamp <= until]
            question = Question(asked, earlier, model=message.model)
    if isinstance(message, m.RankMessage):
        return replace(question, candidates=message.candidates)
    if isinstance(message, m.SuggestMessage):
        return replace(question, top_k=message.top_k, writes_queries=True)
    if isinstance(message, m.RecommendMessage):
        return replace(
            question,
            top_k=message.top_k,
            where=message.where,
            exclude_seen=message.exclude_seen,
            boosts=message.boosts,
        )
    return question


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
            replies.AnswerItem(item_id=one.item_id, title=one.title, score=float(one.score), probability=probability)
            for one, probability in zip(answered.items, answered.probabilities, strict=True)
        ],
    )


# ---- events ----


@router.post("/events")
async def append_events(message: m.EventsMessage, service: Served) -> replies.Appended:
    """Keep what users did. An event that is sent again is kept once."""
    events = [StoredEvent(one.event_id, one.user_id, one.to_event()) for one in message.events]
    appended = await service.append_events(events)
    return replies.Appended(appended=appended, already_there=len(events) - appended)


@router.get("/users/{user_id:path}/history")
async def read_history(user_id: ItemId, service: Served) -> replies.History:
    """Return what a user did, oldest first."""
    events = (await service.history(user_id)).events
    catalog, _ = service.model.served
    rows = catalog.id_map.convert_to_rows([event.item_id or "" for event in events], strict=False)
    lines = [{**asdict(one), "title": title} for one, title in zip(events, catalog.titles_of_rows(rows), strict=True)]
    return replies.History(user_id=user_id, events=lines)


# ---- the server ----


@router.post("/admin/model")
async def use_model(message: m.ModelMessage, service: Served) -> replies.Health:
    """Let another model answer from the next batch on, in all processes. Needs the token of the server."""
    await service.models.use(message.model)
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
        beside=sorted(service.models.beside.keys() - {model.name}),
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
