# SPDX-License-Identifier: Apache-2.0
"""What the server answers is what the model answers, and what it keeps is what it was sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from small_shop import HISTORY

from seekrec.schema import Request

EVENTS = [
    {"event_id": "1", "user_id": "ann", "item_id": "i0", "timestamp": 1},
    {"event_id": "2", "user_id": "ann", "item_id": "i9", "timestamp": 2, "behavior": "search", "query": "kitchen"},
    {"event_id": "3", "user_id": "ann", "item_id": "i1", "timestamp": 3},
]


def pairs(items):
    return [(item["item_id"], pytest.approx(item["score"], abs=1e-4)) for item in items]


@pytest.mark.parametrize("family", ["gensar", "gensr", "intsr", "synergen"])
def test_a_kept_history_is_answered_as_the_model_answers_it(serve, shops, family):
    model, processor = shops[family]
    client = serve(family)
    assert client.post("/events", json={"events": EVENTS}).json() == {"appended": 3, "already_there": 0}
    for query in (None, "office"):
        asked = Request(HISTORY, query=query)
        expected = model.retrieve(processor([asked]), top_k=5)[0]
        route, body = ("/recommend", {}) if query is None else ("/search", {"query": query})
        answer = client.post(route, json={"user_id": "ann", "top_k": 5, **body}).json()
        assert pairs(answer["items"]) == [(item.item_id, item.score) for item in expected]
        assert [item["title"] for item in answer["items"]] == [item.title for item in expected]
        ranked = model.rank(processor([asked], candidates=[["i3", "i12", "i20"]]))[0]
        body = {"user_id": "ann", "candidates": ["i3", "i12", "i20"], **body}
        answer = client.post("/rank", json=body).json()
        assert pairs(answer["items"]) == [(item.item_id, item.score) for item in ranked]


def test_suggestions_are_the_models_and_what_several_users_searched(serve):
    client = serve("gensar")
    client.app.state.service.model.model.config.trained_tasks = ["nsqp"]
    wrote = client.post("/suggest", json={"user_id": "ann", "top_k": 3}).json()["queries"]
    assert len(wrote) <= 3
    shared = [("ann", "Quiet lamps"), ("ben", "Quiet lamps"), ("cat", "Quiet lamps"), ("ann", "quiet secret")]
    shared += [(user, "quills") for user in ("ann", "ben", "cat", "dan")]
    events = [
        {"event_id": str(n), "user_id": user, "timestamp": n, "behavior": "search", "query": query}
        for n, (user, query) in enumerate(shared)
    ]
    client.post("/events", json={"events": events})
    for prefix, expected in (("qui", ["quills", "quiet lamps"]), ("QUIET", ["quiet lamps"]), ("%", [])):
        found = client.post("/suggest", json={"prefix": prefix}).json()["queries"]
        assert [query for query in found if query not in wrote] == expected


def test_a_batch_of_everything_answers_each_as_alone(serve):
    """Searches, recommendations, orders and suggestions, with filters, numbers and boosts of their own, at once."""
    client = serve("intsr", batch_wait_ms=50.0)
    client.post("/events", json={"events": EVENTS})
    asked = [
        ("/recommend", {"user_id": "ann", "top_k": 3}),
        ("/recommend", {"user_id": "ann", "top_k": 7, "exclude_seen": False}),
        ("/search", {"query": "office", "top_k": 24, "where": {"in": {"categories": ["office", "garden"]}}}),
        ("/search", {"user_id": "ann", "query": "kitchen", "boosts": {"i20": 1000.0}, "exclude_seen": True}),
        ("/rank", {"user_id": "ann", "candidates": ["i3", "i9", "i20"]}),
        ("/rank", {"query": "garden", "candidates": ["i20", "i3"]}),
        ("/recommend", {"where": {"equals": {"colour": "red"}}}),
        ("/recommend", {"user_id": "ann", "timestamp": 2, "top_k": 3}),
    ]
    alone = [client.post(route, json=body).json() for route, body in asked]
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(lambda one: client.post(one[0], json=one[1]).json(), asked))
    for own, answer in zip(alone, together, strict=True):
        if "detail" in own:
            assert answer == own
        else:
            assert pairs(answer["items"]) == [(item["item_id"], item["score"]) for item in own["items"]]
    assert alone[3]["items"][0]["item_id"] == "i20"
    assert all(0 <= item["probability"] <= 1 for answer in alone[4:6] for item in answer["items"])
    sizes = client.get("/metrics").text
    assert 'seekrec_batch_size_bucket{le="1.0"}' in sizes
    total = float(sizes.split("seekrec_batch_size_sum ")[1].split()[0])
    count = float(sizes.split("seekrec_batch_size_count ")[1].split()[0])
    assert total == 2 * len(asked) and count < total


def test_items_that_were_only_shown_are_no_history_whatever_their_word(serve):
    """Kept or sent along, "not_clicked" is what the reader of tables makes of it: as if there were no such event."""
    client = serve("synergen")
    shown = [{"item_id": f"i{n}", "timestamp": n, "action": word} for n, word in enumerate(("not_clicked", "Served"))]
    events = [{"event_id": str(n), "user_id": "ann", **event} for n, event in enumerate(shown)]
    assert client.post("/events", json={"events": events}).json()["appended"] == 2
    nobody = client.post("/recommend", json={"timestamp": 9, "top_k": 24}).json()["items"]
    assert len(nobody) == 24
    for who in ({"user_id": "ann"}, {"history": shown}):
        assert client.post("/recommend", json={"timestamp": 9, "top_k": 24, **who}).json()["items"] == nobody
    # An act by any word is one: the item is not answered again, and the model reads a click.
    acts = [{"item_id": "i3", "timestamp": 5, "action": word} for word in ("click", "Product Click")]
    own, other = (client.post("/recommend", json={"timestamp": 9, "history": [act]}).json() for act in acts)
    assert own == other and "i3" not in [item["item_id"] for item in own["items"]]
    wanted = [client.post("/recommend", json={"action": word}).json() for word in ("click", "clicked")]
    assert wanted[0] == wanted[1]
