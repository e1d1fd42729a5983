# SPDX-License-Identifier: Apache-2.0
"""Another model is loaded beside the one that answers, and takes over between two batches, in all processes."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from fastapi.testclient import TestClient
from small_shop import TEXT_SIZE, make_intsr

from seekrec.errors import CheckpointError
from seekrec.models.manifest import save_checkpoint
from seekrec.serving import create_app

HEADERS = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with two models of one shop; the second is where a recipe leaves it."""
    folder = tmp_path_factory.mktemp("models")
    for seed, place in enumerate((folder / "first", folder / "second" / "model")):
        model, processor = make_intsr(seed)
        save_checkpoint(model, processor, place)
    (folder / "notes.txt").write_text("not a model")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def start(models, serve, text_encoder):
    text_encoder(TEXT_SIZE)

    def start(**options):
        options = {"token": "secret", "models": str(models), "poll_s": 0.05, **options}
        return serve(models / "first", headers=HEADERS, **options)

    return start


def test_another_model_answers_from_then_on_with_the_items_that_came(start, models):
    client, other = start(), start()
    asked = {"history": [{"item_id": "i0", "timestamp": 1}], "top_k": 30}
    client.put("/items", json={"items": [{"item_id": "k1", "title": "kitchen lamp"}]})
    before = client.post("/recommend", json=asked).json()
    assert before["model"] == "first"
    assert client.post("/admin/model", json={"model": "second"}).json()["model"] == "second"
    after = client.post("/recommend", json=asked).json()
    assert after["model"] == "second" and after["model_version"] != before["model_version"]
    assert "k1" in {item["item_id"] for item in after["items"]}
    assert [item["score"] for item in after["items"]] != [item["score"] for item in before["items"]]
    # The other process follows, and one that is started later begins with it.
    end = time.monotonic() + 5
    while other.get("/health").json() != client.get("/health").json():
        assert time.monotonic() < end
        time.sleep(0.02)
    later = start()
    for one in (other, later):
        assert one.post("/recommend", json=asked).json() == after
    # And back, to the same version.
    client.post("/admin/model", json={"model": "first"})
    again = client.post("/recommend", json=asked).json()
    assert again["items"] == before["items"] and again["model_version"] == before["model_version"]


@pytest.mark.parametrize("name", ["third", "empty", "notes.txt", "../models/second", "https://example.org/model", "/"])
def test_only_models_that_the_server_has_can_be_named(start, name):
    client = start()
    refused = client.post("/admin/model", json={"model": name})
    assert refused.status_code == 404
    assert refused.json()["detail"][0]["loc"] == ["body", "model"]
    assert "the server has first, second" in refused.json()["detail"][0]["msg"]
    assert client.get("/health").json()["model"] == "first"


def test_a_model_beside_answers_who_names_it_and_lives_with_the_same_items(start):
    client = start(beside=["second"])
    asked = {"top_k": 30}
    client.put("/items", json={"items": [{"item_id": "k1", "title": "kitchen lamp"}]})
    own = client.post("/recommend", json=asked).json()
    other = client.post("/recommend", json={**asked, "model": "second"}).json()
    assert (own["model"], other["model"]) == ("first", "second")
    assert own["catalog_version"] == other["catalog_version"] == client.get("/items/k1").json()["catalog_version"]
    assert {"k1", "i0"} <= {item["item_id"] for item in own["items"]} == {item["item_id"] for item in other["items"]}
    assert client.post("/recommend", json={**asked, "model": "third"}).status_code == 404
    # It takes over, and the first stays to be compared with.
    client.post("/admin/model", json={"model": "second"})
    assert client.post("/recommend", json=asked).json() == other
    assert client.post("/recommend", json={**asked, "model": "first"}).json() == own


def test_no_request_fails_while_a_model_takes_over(start):
    client = start()
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answer = client.post("/recommend", json={"top_k": 3})
            answers.append((answer.status_code, answer.json().get("model")))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for name in ("second", "first", "second"):
        client.post("/admin/model", json={"model": name})
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert {"first", "second"} >= {model for _, model in answers} and len(answers) > 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run", "run does not contain a model: there is no config.json; did you mean .*run/model"),
        ("run/empty", "run/empty does not contain a model: there is no config.json; name the folder of a trained one"),
        (
            "no/such/folder",
            "There is no folder .*no/such/folder; pass the folder of a trained model, or a repository of the Hub",
        ),
        ("name", "There is no folder name;"),
        ("me/no-such-model", "me/no-such-model is not a local folder, and was not found on the Hub either: "),
    ],
)
def test_what_is_no_model_is_named_at_the_start(tmp_path, store_url, monkeypatch, name, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # without waiting for a network
    monkeypatch.chdir(tmp_path)
    for folder in ("run/model", "run/empty"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run/model/config.json").touch()
    with pytest.raises(CheckpointError, match=message), TestClient(create_app(name, store=store_url)):
        pass


def test_why_a_server_does_not_start_is_one_line(tmp_path, store_url):
    """As uvicorn is told; the traceback of what its user can mend would only hide it."""
    said = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        said.append(message)

    app = create_app(tmp_path, store=store_url)
    with pytest.raises(CheckpointError):
        asyncio.run(app({"type": "lifespan", "app": app, "state": {}}, receive, send))
    assert [one["type"] for one in said] == ["lifespan.startup.failed"]
    assert said[0]["message"].startswith(f"{tmp_path} does not contain a model") and "\n" not in said[0]["message"]
