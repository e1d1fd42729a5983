# SPDX-License-Identifier: Apache-2.0
"""Every request of the pages about serving is sent to a small server, which answers it as they say."""

import json
import re
from dataclasses import replace

import pyarrow as pa
import pytest
from curls import PAGES, ROUTES, Asked, differences, read_page, shown_answer
from fastapi.testclient import TestClient
from small_shop import VECTOR_SIZES, make_aisles, make_gensar

from seekrec.events import write_examples
from seekrec.schema import Event, Request
from seekrec.serving import create_app

SECRET = "correct horse battery"
IDS = ["50", "172", "181", "210", "1"]


@pytest.fixture
def client(shops, text_encoder, store_url, tmp_path):
    """A server of a small GenSAR with the ids and columns that the pages name."""
    text_encoder(VECTOR_SIZES["semantic"])
    split, _, *rest = make_aisles()
    catalog = shops["gensar"][0].catalog
    titles, number = catalog.items["title"].to_pylist(), len(catalog)
    items = pa.table(
        {
            "item_id": [*IDS, *(f"film-{row}" for row in range(len(IDS), number))],
            "title": [f"A star, {title}" for title in titles],
            "description": titles,
            "categories": [[["Movies", "Action"]], [["Movies", "Sci-Fi"]], [["Movies", "War"]]] * (number // 3),
            "available_from": pa.nulls(number, pa.int64()),
            "available_until": pa.nulls(number, pa.int64()),
            "year": [*range(1990, 1990 + number)],
            "queries": [["space"]] * number,
        }
    )
    settings = {"corpus": "stream", "item_vector_size": 8, "trained_tasks": ["nsqp"]}
    model, processor = make_gensar((split, replace(catalog, items=items), *rest), **settings)
    examples = tmp_path / "examples.json"
    write_examples(examples, [Request([Event("50", timestamp=1)], user_id="1")])
    app = create_app((model, processor), store=store_url, token=SECRET, examples=str(examples))
    with TestClient(app) as client:
        # Queries that several users searched for; what the small model writes is not known.
        events = [
            {"event_id": f"{user} {query}", "user_id": user, "behavior": "search", "query": query, "timestamp": 1}
            for user in ("ben", "eva", "lee")
            for query in ("space", "star wars", "sci-fi")
        ]
        headers = {"Authorization": f"Bearer {SECRET}"}
        assert client.post("/events", json={"events": events}, headers=headers).status_code == 200
        yield client


def test_each_route_answers_as_its_page_shows(client):
    asked = read_page(ROUTES)
    for one in asked:
        if one.path == "/admin/model":  # each server has models of its own
            one = replace(one, line=one.line.replace("gensar-movielens-100k", client.get("/health").json()["model"]))
        answer = one.send(client, SECRET)
        if "json" not in answer.headers["content-type"]:
            names = {re.match(r"\w+", line)[0] for line in one.answer.splitlines()}
            assert names == {re.match(r"\w+", line)[0] for line in shown_answer(answer).splitlines()}
            continue
        shown = json.loads(one.answer)
        assert differences(shown, answer.json()) == [], one.line
        assert ("detail" in shown) == (answer.status_code != 200), one.line
    # No route is left out, and each has a server of its own behind it.
    templates = client.get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, operations in templates.items() for method in operations}
    patterns = {(method, path): re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for method, path in routes}
    shown = {
        route
        for one in asked
        for route, pattern in patterns.items()
        if route[0] == one.method and pattern.fullmatch(one.path.split("?")[0])
    }
    assert shown == routes
    assert all(f"`{method} {path}`" in ROUTES.read_text("utf-8") for method, path in routes)


def test_requests_of_the_first_page_are_answered(client):
    page = (PAGES / "serving.md").read_text("utf-8")
    lines = re.search(r"<!-- curl -->\n```bash\n(.*?)```", page, flags=re.DOTALL)[1].splitlines()
    for line in lines:
        assert Asked(line).send(client, SECRET).status_code == 200, line
    routes = {path.split("/")[1] for path in client.get("/openapi.json").json()["paths"]}
    assert len(lines) > 3 and all(f"/{route}" in page for route in routes)


def test_answers_that_differ_from_a_page_are_found():
    shown = {"items": [{"score": 1.5, "title": None}, "..."], "name": "a"}
    assert differences(shown, {"items": [{"score": 2, "title": "t"}] * 3, "name": "b"}) == []
    assert differences(shown, {"items": [], "name": None}) == []
    wrong = differences(shown, {"items": [{"score": "2", "titel": "t"}], "name": 3})
    assert wrong == [
        "answer.items[0]: ['score', 'title'] shown, ['score', 'titel'] answered",
        "answer.name: 'a' shown, 3 answered",
    ]
