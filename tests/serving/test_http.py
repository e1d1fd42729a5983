# SPDX-License-Identifier: Apache-2.0
"""What every request passes: token, limits, request ids; and errors that name the field and echo nothing."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from seekrec.serving.http import MAX_BODY_BYTES
from seekrec.serving.logs import JsonLines

SECRET = "correct horse battery"


def field_of(answer):
    return answer.json()["detail"][0]["loc"][1:]


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


def test_who_goes_away_leaves_the_queue(serve):
    client = serve("intsr", max_batch=1)
    service = client.app.state.service
    gate, answered = threading.Event(), []
    answer = service.model.answer

    def slow(questions):
        assert gate.wait(10)
        answered.append(len(questions))
        return answer(questions)

    service.model.answer = slow
    timed = client.portal.start_task_soon(ask_and_leave, client.app)
    other = threading.Thread(target=lambda: client.post("/recommend", json={}))
    other.start()
    assert timed.result(10) == 499
    gate.set()
    other.join(10)
    time.sleep(0.05)
    # One was being answered when its client left, or none was; the one that stayed was.
    assert 1 <= sum(answered) <= 2
    assert len(service.batcher._waiting) == 0


async def ask_and_leave(app):
    """Send a request, and close the connection while it waits."""
    import asyncio

    sent, status = asyncio.Event(), []
    messages = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            status.append(message["status"])
        sent.set()

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
    await app(scope, receive, send)
    return status[0]


def test_what_there_is_no_room_for_is_refused_unread(serve):
    client = serve("intsr", max_batch=1, max_queue=3)
    service = client.app.state.service
    read, started, may_read = service.histories.read, threading.Semaphore(0), threading.Event()

    def slow(user_id):
        started.release()
        may_read.wait(30)
        return read(user_id)

    service.histories.read = slow
    with ThreadPoolExecutor(5) as threads:
        # Three may wait, one be answered and one be read.
        asked = [threads.submit(client.post, "/recommend", json={"user_id": "ann"}) for _ in range(5)]
        for _ in asked:
            assert started.acquire(timeout=30)
        refused = client.post("/recommend", content=b"no JSON")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert client.get("/health").status_code == 200
        may_read.set()
        statuses = [one.result().status_code for one in asked]
    # They come to the queue at once: whether one of them has left it for the model by then is a matter of time.
    assert statuses.count(200) >= 3 and set(statuses) <= {200, 429}
    assert client.post("/recommend", content=b"no JSON").status_code == 422
