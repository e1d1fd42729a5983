# SPDX-License-Identifier: Apache-2.0
"""Two servers over one store: what one acknowledged the other knows within a second."""

import time

import numpy as np
import pytest
from small_shop import aisle_vector


@pytest.fixture
def text_encoder(monkeypatch):
    monkeypatch.setattr(
        "seekrec.embeddings.embed_texts", lambda texts, **_: np.stack([aisle_vector(text) for text in texts])
    )


def test_what_one_server_acknowledged_the_other_says_within_a_second(serve, text_encoder):
    one, other = serve(), serve()
    new = {"item_id": "stool", "title": "kitchen stool"}
    assert one.put("/items/stool", json=new).json() == {"changed": 1, "catalog_version": 1}
    assert one.get("/items/stool").json()["item"]["title"] == "kitchen stool"
    time.sleep(1)
    assert other.get("/items/stool").json() == one.get("/items/stool").json()
    # Both found the same place for it, so both answer alike, and a change of the other builds on it.
    asked = {"query": "kitchen", "top_k": 24, "exclude_seen": False}
    answers = [client.post("/search", json=asked).json() for client in (one, other)]
    assert answers[0] == answers[1]
    assert "stool" in [item["item_id"] for item in answers[0]["items"]]
    assert other.delete("/items/stool").json() == {"changed": 1, "catalog_version": 2}
    assert other.delete("/items/stool").json() == {"changed": 0, "catalog_version": 2}
    time.sleep(1)
    assert one.get("/items/stool").status_code == 404
    # Events need no second: they are read from the store.
    line = {"event_id": "1", "user_id": "ann", "item_id": "i3", "timestamp": 5}
    assert one.post("/events", json={"events": [line]}).json() == {"appended": 1, "already_there": 0}
    assert other.post("/events", json={"events": [line]}).json() == {"appended": 0, "already_there": 1}
    assert [event["item_id"] for event in other.get("/users/ann/history").json()["events"]] == ["i3"]
