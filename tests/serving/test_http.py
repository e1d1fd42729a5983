# SPDX-License-Identifier: Apache-2.0
"""What every request passes: token, limits, request ids; and errors that name the field and echo nothing."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from small_shop import TEXT_SIZE, AisleVectors

from seekrec.errors import MissingDependencyError
from seekrec.events import Spelling, write_examples
from seekrec.schema import Event, Request
from seekrec.serving import create_app
from seekrec.serving.http import MAX_BODY_BYTES
from seekrec.serving.logs import JsonLines
from seekrec.serving.store import NUM_READERS

SECRET = "correct horse battery"


def field_of(answer):
    return answer.json()["detail"][0]["loc"][1:]


def test_a_slip_in_a_query_is_mended_and_said(shops, store_url):
    model, processor = copy.deepcopy(shops["intsr"])
    processor.spelling = Spelling.fit({"garden kitchen": 3}, processor.catalog.items)
    with TestClient(create_app((model, processor), store=store_url)) as client:
        meant, typed = (client.post("/search", json={"query": query}).json() for query in ("garden", "Gadren"))
    assert (meant["read_as"], typed["read_as"]) == ("garden", "garden")
    assert meant["items"] == typed["items"]


def test_a_query_is_said_to_be_read_as_the_answer_read_it(shops, store_url, text_encoder, monkeypatch):
    """A new title makes the typed word known after the answer and before it is sent."""
    text_encoder(TEXT_SIZE)
    model, processor = copy.deepcopy(shops["intsr"])
    processor.spelling = Spelling.fit({"garden kitchen": 3}, processor.catalog.items)
    with TestClient(create_app((model, processor), store=store_url, batch_wait_ms=0.0)) as client:
        meant = client.post("/search", json={"query": "garden"}).json()
        service = client.app.state.service
        ask = service.ask

        async def ask_and_put(*question):
            answered = await ask(*question)
            await service.models.put_items([{"item_id": "new", "title": "Gadren lamp for a garden"}])
            return answered

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(service, "ask", ask_and_put)
            before = client.post("/search", json={"query": "gadren"}).json()
        after = client.post("/search", json={"query": "gadren"}).json()
    assert (before["read_as"], before["catalog_version"]) == ("garden", 0) and before["items"] == meant["items"]
    assert (after["read_as"], after["catalog_version"]) == ("gadren", 1)


def test_a_server_that_lacks_its_text_encoder_says_so_at_the_start(serve, monkeypatch, caplog):
    def embed(*_):
        raise MissingDependencyError("run pip install an-encoder")

    monkeypatch.setattr(AisleVectors, "_embed", embed)
    client = serve("intsr")
    assert "the model cannot answer some requests: run pip install an-encoder" in caplog.text
    assert client.post("/recommend", json={}).status_code == 200
    assert client.post("/search", json={"query": "made up"}).status_code == 500


def test_examples_of_another_training_leave_what_the_store_has(serve, tmp_path, caplog):
    path = tmp_path / "examples.json"
    for item in ("i0", "i1"):
        write_examples(path, [Request([Event(item, timestamp=1)], user_id="ann")])
        client = serve("intsr", examples=str(path))
    assert client.get("/users").json() == {"users": ["ann"]}
    assert [event["item_id"] for event in client.get("/users/ann/history").json()["events"]] == ["i0"]
    assert "the store has other histories for 1 of 1 users of `examples`" in caplog.text


def test_a_token_is_asked_for_where_there_is_one(serve):
    client = serve("intsr", token=SECRET)
    for headers in ({}, {"Authorization": SECRET}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ü"}):
        encoded = {name: value.encode() for name, value in headers.items()}
        for method, path in (("POST", "/recommend"), ("GET", "/items"), ("POST", "/admin/model")):
            refused = client.request(method, path, json={}, headers=encoded)
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
            assert SECRET not in refused.text
    allowed = {"Authorization": f"Bearer {SECRET}"}
    assert client.post("/recommend", json={}, headers=allowed).status_code == 200
    assert client.post("/admin/model", json={"model": "other"}, headers=allowed).status_code == 404
    # Whoever looks after the server asks without.
    assert client.get("/health").status_code == client.get("/metrics").status_code == 200


def test_admin_routes_are_off_without_a_token(serve):
    refused = serve("intsr").post("/admin/model", json={"model": "intsr"})
    assert refused.status_code == 403 and "without a token" in refused.text


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/recommend", {"top_k": 0}, ["top_k"]),
        ("/recommend", {"top_k": 101}, ["top_k"]),
        ("/recommend", {"top_k": "5"}, ["top_k"]),
        ("/recommend", {"top_k": 10**400}, ["top_k"]),
        ("/recommend", {"unknown": 1}, ["unknown"]),
        ("/recommend", {"\ud800": 1}, []),
        ("/recommend", {"user_id": ""}, ["user_id"]),
        ("/recommend", {"user_id": "a\x00"}, ["user_id"]),
        ("/recommend", {"user_id": "\ud800"}, ["user_id"]),
        ("/recommend", {"user_id": "a" * 201}, ["user_id"]),
        ("/recommend", {"history": [{"item_id": "i0"}] * 1001}, ["history"]),
        ("/recommend", {"history": [{"item_id": "i0", "timestamp": 10**12}]}, ["history", 0, "timestamp"]),
        ("/recommend", {"history": [{"item_id": "i0", "query": "x"}]}, ["history", 0]),
        ("/recommend", {"where": {"range": {"title": {}}}}, ["where", "range", "title"]),
        ("/recommend", {"where": {"code": "__import__('os')"}}, ["where", "code"]),
        ("/search", {}, ["query"]),
        ("/search", {"query": "  "}, ["query"]),
        ("/search", {"query": "a" * 1001}, ["query"]),
        ("/rank", {"candidates": []}, ["candidates"]),
        ("/rank", {"candidates": ["i0"] * 1001}, ["candidates"]),
        ("/events", {"events": []}, ["events"]),
        ("/events", {"events": [{"event_id": "1", "user_id": "a", "item_id": "i0"}]}, ["events", 0, "timestamp"]),
    ],
)
def test_what_cannot_be_answered_is_named(serve_once, route, body, field):
    answer = serve_once.post(route, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert field_of(answer) == field
    assert all(set(line) == {"loc", "msg"} for line in answer.json()["detail"])


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b'{"query": "a"}', "text/plain", "; is it JSON, and sent with `Content-Type: application/json`?"),
        (b"{", "application/json", "The body is not JSON: Expecting property name"),
        (json.dumps({"query": "a" * 1001}).encode(), "application/json", "String should have at most 1000 characters"),
        (b'{"query": " "}', "application/json", "contains no visible character; pass text, or leave the field out"),
        (b'{"query": "a", "where": {"equals": {"title": [1]}}}', "application/json", "is not text, a number, true"),
        (
            b'{"query": "a", "where": {"equals": {"title": "\\u0000"}}}',
            "application/json",
            "contains the character NUL",
        ),
        (b'{"query": "a", "where": {"equals": {"title": 1e999}}}', "application/json", "is not text, a number, true"),
        (
            b'{"query": "a", "tok_k": 3}',
            "application/json",
            "There is no such field; leave it out, or look at `/docs`",
        ),
        (
            b'{"query": "a", "history": [{"item_id": "i0", "timestamp": "2025-02-01T10:00:00"}]}',
            "application/json",
            "is not a whole number; pass seconds since 1970, UTC, such as 1700000000",
        ),
        (
            b'{"query": "a", "history": [{"item_id": "i0", "timestamp": 1738000200000}]}',
            "application/json",
            "is too far in the future for seconds since 1970; if it is in milliseconds, divide it by 1000",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_in_words_of_the_client(serve_once, body, content_type, message):
    answer = serve_once.post("/search", content=body, headers={"Content-Type": content_type})
    (line,) = answer.json()["detail"]
    assert answer.status_code == 422 and message in line["msg"]
    assert not line["msg"].startswith("Value error") and "function" not in str(line)


def test_ids_with_slashes_have_paths(serve_once):
    event = {"event_id": "s", "user_id": "a/b c", "item_id": "i0", "timestamp": 1}
    serve_once.post("/events", json={"events": [event]})
    assert len(serve_once.get("/users/a%2Fb%20c/history").json()["events"]) == 1
    unknown = serve_once.get("/items/a%2Fb")
    assert unknown.status_code == 404 and unknown.json()["detail"][0]["loc"] == ["path", "item_id"]
    assert 'route="/users/{user_id}/history",status="200"' in serve_once.get("/metrics").text
    assert serve_once.patch("/items/a%2Fb").headers["allow"] == "DELETE, GET, PUT"
    assert serve_once.post("/").headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("route", "body", "field", "status"),
    [
        ("/recommend", {"where": {"equals": {"colour": "red"}}}, ["where"], 409),
        ("/recommend", {"where": {"range": {"title": {"lowest": 3}}}}, ["where"], 409),
        ("/recommend", {"where": {"equals": {"categories": "nothing"}}}, ["where"], 409),
        ("/recommend", {"boosts": {"nothing": 1.0}}, ["boosts"], 409),
        ("/rank", {"candidates": ["i0", "nothing"]}, ["candidates"], 404),
    ],
)
def test_what_does_not_fit_the_catalogue_is_named(serve_once, route, body, field, status):
    answer = serve_once.post(route, json=body)
    assert answer.status_code == status, answer.text
    assert field_of(answer) == field
    assert not any(word in answer.text for word in ("kernel", "candidates[0]"))


def test_histories_are_read_in_the_order_of_time_up_to_the_time_asked(serve_once):
    """As those that the server keeps, so a client need not sort."""
    events = [{"item_id": f"i{number}", "timestamp": number} for number in (5, 2, 9)]
    answers = [
        serve_once.post("/recommend", json={"history": history, "timestamp": 7}).json()
        for history in (events, [events[1], events[0]])
    ]
    assert answers[0] == answers[1]
    assert serve_once.request("PATCH", "/items").headers["allow"] == "DELETE, GET, PUT"


@pytest.fixture(scope="module")
def serve_once(shops, tmp_path_factory):
    """One server for what changes nothing."""
    import copy

    from fastapi.testclient import TestClient

    from seekrec.serving import create_app

    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.sqlite'}"
    with TestClient(create_app(copy.deepcopy(shops["intsr"]), store=store, batch_wait_ms=0.0)) as client:
        yield client


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"top_k": NaN}', b'{"top_k": 1e999}', b"null", b""])
def test_what_is_no_json_object_is_refused(serve_once, body):
    answer = serve_once.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize("has_length", [True, False])
def test_a_body_that_is_too_large_is_refused_while_it_comes(serve_once, has_length):
    size = MAX_BODY_BYTES + 1
    body = b" " * size if has_length else (b" " * 2**16 for _ in range(size // 2**16 + 1))
    answer = serve_once.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_requests_have_an_id_and_logs_hold_no_text_of_users(serve_once, caplog):
    caplog.set_level(logging.INFO, "seekrec.serving")
    caplog.handler.setFormatter(JsonLines())
    given = serve_once.get("/health", headers={"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = serve_once.get("/health", headers={"X-Request-ID": "a b\t"})
    assert len(made.headers["x-request-id"]) == 32
    serve_once.post("/search", json={"query": "a very private matter", "user_id": "ann"})
    serve_once.post("/search", json={"query": "a very private matter", "user_id": "ann", "wrong": 1})
    serve_once.get("/users/ann/history")
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [
        *[("/health", 200)] * 2,
        *[("/search", 200), ("/search", 422), ("/users/{user_id}/history", 200)],
    ]
    assert lines[0]["request_id"] == "abc-1"
    assert "private" not in caplog.text and "ann" not in caplog.text


def test_openapi_has_examples_that_are_answered(serve):
    client = serve("intsr")
    described = client.get("/openapi.json").json()
    examples = {
        name: schema["examples"] for name, schema in described["components"]["schemas"].items() if "examples" in schema
    }
    assert {"RecommendMessage", "SearchMessage", "RankMessage", "EventsMessage", "ItemMessage"} <= examples.keys()
    assert client.post("/events", json=examples["EventsMessage"][0]).json() == {"appended": 2, "already_there": 0}
    for example in examples["RecommendMessage"] + [{"query": "office", "user_id": "ann"}]:
        assert client.post("/recommend" if "query" not in example else "/search", json=example).status_code == 200


class Gate:
    """Stands before a method: says that it was called, and holds it until it may go on."""

    def __init__(self, owner, name):
        self.calls, self.called, self.open, self._method = [], threading.Semaphore(0), threading.Event(), None
        self._method = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *args):
        self.calls.append(args)
        self.called.release()
        assert self.open.wait(30)
        return self._method(*args)


def test_who_goes_away_leaves_the_queue(serve):
    client = serve("intsr", max_batch=1)
    gate = Gate(client.app.state.service.model, "answer")
    with ThreadPoolExecutor(1) as thread:
        stays = thread.submit(client.post, "/recommend", json={})
        assert gate.called.acquire(timeout=30)
        assert client.portal.call(ask_and_leave, client.app) == 499
        gate.open.set()
        assert stays.result().status_code == 200
    # Were the first still in the queue, it would come before the second.
    assert client.post("/recommend", json={}).status_code == 200
    assert len(gate.calls) == 2


def test_who_goes_away_while_the_history_is_read_leaves_at_once(serve):
    client = serve("intsr")
    gate = Gate(client.app.state.service.histories, "read")
    assert client.portal.call(ask_and_leave, client.app, b'{"user_id": "ann"}') == 499
    assert len(gate.calls) == 1
    gate.open.set()


def test_the_timeout_covers_the_reading_of_the_history(serve):
    """Who waits for a thread is refused; who waits for the store hears that it takes too long."""
    client = serve("intsr", timeout_s=0.5)
    gate = Gate(client.app.state.service.histories, "read")
    with ThreadPoolExecutor(NUM_READERS) as threads:
        asked = [threads.submit(client.post, "/recommend", json={"user_id": "ann"}) for _ in range(NUM_READERS)]
        for _ in asked:
            assert gate.called.acquire(timeout=30)
        assert client.post("/recommend", json={"user_id": "ann"}).status_code == 429
        assert {one.result().status_code for one in asked} == {503}
    gate.open.set()


def test_events_are_kept_and_acknowledged_or_refused_and_not_kept(serve):
    client = serve("intsr")
    service = client.app.state.service
    gate = Gate(service.store, "append_events")
    event = {"user_id": "ann", "item_id": "i0", "timestamp": 1}
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(client.post, "/events", json={"events": [{"event_id": "1", **event}]})
        assert gate.called.acquire(timeout=30)
        service.settings = replace(service.settings, timeout_s=0.01)
        refused = client.post("/events", json={"events": [{"event_id": "2", **event}]})
        assert refused.status_code == 429 and refused.headers["retry-after"]
        gate.open.set()
        # However long it took.
        assert first.result().json() == {"appended": 1, "already_there": 0}
    assert len(client.get("/users/ann/history").json()["events"]) == 1


def test_a_store_that_others_keep_locked_refuses(serve, store_url, monkeypatch):
    monkeypatch.setattr("seekrec.serving.store._LOCK_S", 0.01)
    client = serve("intsr")
    body = {"events": [{"event_id": "1", "user_id": "ann", "item_id": "i0", "timestamp": 1}]}
    other = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert client.post("/events", json=body).status_code == 429
    other.execute("ROLLBACK")
    other.close()
    assert client.post("/events", json=body).json()["appended"] == 1


def test_who_is_cut_off_at_the_stop_is_told_so(serve):
    client = serve("intsr")
    gate = Gate(client.app.state.service.model, "answer")

    async def cut_off():
        asking = asyncio.ensure_future(ask_and_leave(client.app, leaves=False))
        await asyncio.to_thread(gate.called.acquire, timeout=30)
        asking.cancel()
        status = await asking
        gate.open.set()
        return status

    assert client.portal.call(cut_off) == 503


async def ask_and_leave(app, body=b"{}", leaves=True):
    """Send a request, and close the connection while it waits; return the status of the answer."""
    status = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.sleep(0.1 if leaves else 60)
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            status.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/recommend",
        "raw_path": b"/recommend",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "root_path": "",
        "app": app,
    }
    with suppress(asyncio.CancelledError):
        await app(scope, receive, send)
    return status[0]


def test_what_there_is_no_room_for_is_refused_unread(serve):
    client = serve("intsr", max_batch=1, max_queue=3)
    gate = Gate(client.app.state.service.histories, "read")
    with ThreadPoolExecutor(5) as threads:
        # Three may wait, one be answered and one be read.
        asked = [threads.submit(client.post, "/recommend", json={"user_id": "ann"}) for _ in range(5)]
        for _ in asked:
            assert gate.called.acquire(timeout=30)
        refused = client.post("/recommend", content=b"no JSON")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert client.get("/health").status_code == 200
        gate.open.set()
        statuses = [one.result().status_code for one in asked]
    # They come to the queue at once: whether one of them has left it for the model by then is a matter of time.
    assert statuses.count(200) >= 3 and set(statuses) <= {200, 429}
    assert client.post("/recommend", content=b"no JSON").status_code == 422
