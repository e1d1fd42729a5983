# SPDX-License-Identifier: Apache-2.0
"""Middleware for every request: its id, a size limit, the token, metrics and logging; and errors as responses."""

from __future__ import annotations

import asyncio
import hmac
import re
import sqlite3
import sys
import uuid
from collections.abc import Sequence
from functools import partial
from time import monotonic, perf_counter
from typing import Annotated, cast

from fastapi import Depends, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seekrec.errors import CatalogError, DataError, RequestError, SeekrecError, UnknownItemError
from seekrec.serving.batching import QueueFullError, StoppingError
from seekrec.serving.living_models import UnknownModelError
from seekrec.serving.logs import logger, request_id
from seekrec.serving.messages import MAX_ID_CHARACTERS
from seekrec.serving.replies import Problem
from seekrec.serving.service import Service
from seekrec.util.command_line import one_line

MAX_BODY_BYTES = 4 * 2**20
# What any route may answer instead.
PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"model": Problem, "description": words}
    for status, words in {
        400: "The body is not JSON",
        401: "The token of the server is missing or wrong",
        403: "Admin routes are off",
        404: "There is no such item, model or page",
        405: "The path has no such method",
        409: "The message is well formed, but does not fit what the catalogue or the store holds",
        413: "The body is too large",
        422: "The message is not well formed; `loc` names the field",
        429: "Too many requests wait; ask again after `Retry-After` seconds",
        500: "The server failed",
        503: "The server is starting or stopping, its store is away, or the model took too long",
    }.items()
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_ADMIN = "/admin/"
# Where the scope of a request says until when it may wait.
_DEADLINE = "seekrec.deadline"


def get_service(request: Request) -> Service:
    """Return the service of the application."""
    return cast(Service, request.app.state.service)


async def _get_service(request: Request) -> Service:
    # A dependency that is no coroutine takes a thread for each request.
    return get_service(request)


# What routes take.
Served = Annotated[Service, Depends(_get_service)]
ItemId = Annotated[str, Path(min_length=1, max_length=MAX_ID_CHARACTERS)]


def deadline_of(request: Request) -> float:
    """Return when the model must have begun a request, by the clock of the batcher: the timeout after it came."""
    return float(request.scope[_DEADLINE])


async def check_token(request: Request) -> None:
    """Refuse who does not hold the token, where there is one; and all who ask for admin routes where there is none.

    Raises:
        HTTPException: 401, or 403 for admin routes of a server without a token.
    """
    token = get_service(request).settings.token
    if token is None:
        if request.url.path.startswith(_ADMIN):
            raise HTTPException(403, "Admin routes are off: the server was started without a token.")
        return
    given = request.headers.get("authorization", "")
    kind, _, own = given.partition(" ")
    # In constant time, whatever was given.
    if not hmac.compare_digest(own.strip().encode(), token.encode()) or kind.lower() != "bearer":
        raise HTTPException(
            401, "Send the server's token as `Authorization: Bearer <token>`.", {"WWW-Authenticate": "Bearer"}
        )


def problem(status: int, message: str, place: Sequence[str | int] = (), **headers: str) -> JSONResponse:
    """Return an error as an answer: where it is, and what it is. What was given is not sent back."""
    line = {"loc": [_printable(part) for part in place], "msg": _printable(message)}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"detail": [line]}, status, named)


def _refusal(error: QueueFullError) -> JSONResponse:
    return problem(429, str(error), Retry_After=str(error.retry_after))


def _stopped(message: str) -> JSONResponse:
    return problem(503, message, Retry_After="1")


def add_errors(app: FastAPI) -> None:
    """Let an application turn errors into answers."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        lines = [
            {"loc": [_printable(part) for part in one["loc"]], "msg": _printable(_message(one, request))}
            for one in error.errors()
        ]
        return JSONResponse({"detail": lines}, 422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the framework names the methods of one route of the path alone
            headers["Allow"] = ", ".join(sorted(_methods(request)))
        place = ["body"] if error.status_code in (400, 413) else []
        return problem(error.status_code, str(error.detail), place, **headers)

    @app.exception_handler(SeekrecError)
    async def failed(request: Request, error: SeekrecError) -> JSONResponse:
        if isinstance(error, QueueFullError):
            return _refusal(error)
        if isinstance(error, StoppingError):
            return _stopped(str(error))
        if isinstance(error, UnknownModelError):
            return problem(404, str(error), ["body", "model"])
        if isinstance(error, UnknownItemError):
            place = ["path", "item_id"] if "item_id" in request.path_params else _place(error)
            # Of one question there is one list, whatever the model was asked at once.
            return problem(404, str(error).replace("`candidates[0]`", "`candidates`"), place)
        # The message is well formed: it does not fit the catalogue or the store.
        if isinstance(error, (RequestError, DataError, CatalogError)):
            return problem(409, str(error), _place(error))
        logger.error("a request failed", exc_info=error)
        return problem(500, "The server failed; its log says why, under the id of this request.")

    @app.exception_handler(SQLAlchemyError)
    async def away(request: Request, error: SQLAlchemyError) -> JSONResponse:
        if _is_busy(error):
            return _refusal(get_service(request).batcher.refuse())
        logger.error("the store failed", exc_info=error)
        return problem(503, "The store cannot be reached; ask again.", Retry_After="1")

    @app.exception_handler(TimeoutError)
    async def late(_: Request, __: TimeoutError) -> JSONResponse:
        return problem(503, "The server took too long; ask again.", Retry_After="1")

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return problem(500, "The server failed; its log says why, under the id of this request.")


def _is_busy(error: SQLAlchemyError) -> bool:
    """Return whether the store is there, but others have kept it from a request for too long."""
    if isinstance(error, OperationalError) and isinstance(error.orig, sqlite3.OperationalError):
        return "locked" in str(error.orig)
    return isinstance(error, PoolTimeoutError)


def _message(error: ErrorDetails, request: Request) -> str:
    """Return what is wrong with a field, without the name of the exception; of a body also what it should be."""
    kind, words = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return f"The body is not JSON: {error['ctx']['error']}"
    if kind == "model_attributes_type" and "json" not in request.headers.get("content-type", ""):
        return f"{words}; is it JSON, and sent with `Content-Type: application/json`?"
    if kind == "extra_forbidden":
        return "There is no such field; leave it out, or look at `/docs`, which names those that there are."
    return words


def _methods(request: Request) -> set[str]:
    """Return the methods that the path of a request has; what the schema leaves out is read alone."""
    found = {
        method.upper()
        for template, operations in request.app.openapi()["paths"].items()
        if compile_path(template.replace("}", ":path}"))[0].fullmatch(request.url.path)
        for method in operations
    }
    return found or {"GET"}


def _place(error: SeekrecError) -> list[str | int]:
    """Return the field that a message names: the first word between backticks."""
    named = re.search(r"`(\w+)", str(error))
    return ["body", named[1]] if named else ["body"]


def _printable(part: str | int) -> str | int:
    """Return text that can be sent: without halves of surrogate pairs, not longer than a line."""
    return part if isinstance(part, int) else part.encode("utf-8", "replace").decode()[:500]


def _too_large() -> HTTPException:
    return HTTPException(413, f"The body is larger than {MAX_BODY_BYTES} bytes; send less at once.")


class Passage:
    """What every request passes; plain ASGI, so that a client that goes away is noticed.

    Args:
        app (`ASGIApp`): What answers.
        service ([`Service`]): Whose limits hold.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service, self._metrics = app, service, service.metrics
        # Those that wait, a batch that is answered and one that is read or sent. More are refused before anything of
        # them is read, or the work of refusing would keep the model from its own.
        self._max_active = service.settings.max_queue + 2 * service.settings.max_batch
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, partial(_send_in_one_line, send))
            return
        headers = {name: value for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        own = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(own)
        start, read = perf_counter(), 0
        status: int | None = None
        scope[_DEADLINE] = monotonic() + self._service.settings.timeout_s

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise _too_large()
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", own.encode())]
            await send(message)

        is_work = scope["method"] not in ("GET", "HEAD")  # what tells how it goes is always answered
        is_refused = is_work and self._active >= self._max_active
        self._active += is_work
        try:
            if is_refused:
                await _refusal(self._service.batcher.refuse())(scope, receive, noted)
                return
            if _content_length(headers) > MAX_BODY_BYTES:
                raise _too_large()
            await self._app(scope, limited, noted)
        except HTTPException as error:  # a body that nothing has read yet
            await problem(error.status_code, str(error.detail), ["body"])(scope, receive, noted)
        except asyncio.CancelledError:  # the server was stopped, and its patience has ended
            if status is None:
                await _stopped("The server was stopped; ask another one.")(scope, receive, noted)
            raise
        finally:
            self._active -= is_work
            self._note(scope, 500 if status is None else status, perf_counter() - start)
            request_id.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        # Not the path itself: it may contain the id of a user, and anybody may make up paths.
        path = getattr(route, "path_format", "unknown")
        # Nor a method that anybody makes up.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(path, method, str(status)).inc()
        self._metrics.latency.labels("request").observe(seconds)
        fields = {
            "method": method,
            "route": path,
            "status": status,
            "milliseconds": round(1000 * seconds, 3),
        }
        logger.info("request", extra={"fields": fields})


async def _send_in_one_line(send: Send, message: Message) -> None:
    """Say in one line why a server does not start, where its user can mend that; the framework says a traceback."""
    error = sys.exc_info()[1]
    if message["type"] == "lifespan.startup.failed" and isinstance(error, (SeekrecError, OSError)):
        message = {**message, "message": one_line(error)}
    await send(message)


def _content_length(headers: dict[bytes, bytes]) -> int:
    given = headers.get(b"content-length", b"0")
    return int(given) if given.isdigit() and len(given) < 20 else 0


def add_middleware(app: FastAPI, service: Service) -> None:
    """Let every request of an application pass through [`Passage`]."""
    app.add_middleware(Passage, service=service)


__all__ = [
    "MAX_BODY_BYTES",
    "ItemId",
    "Passage",
    "Served",
    "add_errors",
    "add_middleware",
    "check_token",
    "deadline_of",
    "get_service",
    "problem",
]
