# SPDX-License-Identifier: Apache-2.0
"""What the server answers is what the model answers, and what it keeps is what it was sent."""

from __future__ import annotations

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
