# SPDX-License-Identifier: Apache-2.0
"""A catalogue that changes while it is served: in the store, in this process and in the others."""

from __future__ import annotations

import re
import time

import pyarrow as pa
import pytest
from small_shop import TEXT_SIZE, VECTOR_SIZES, make_dense_catalog, make_log

from seekrec.catalog import Catalog
from seekrec.serving.live_catalog import merge_puts
from seekrec.serving.store import ItemChange

NEW = {"item_id": "k1", "title": "kitchen lamp", "categories": [["Store", "kitchen"]]}


@pytest.fixture(autouse=True)
def encoder(text_encoder):
    text_encoder(TEXT_SIZE)


def until(is_so, seconds=5.0):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_new_item_is_there_for_the_next_request_and_twice_is_once(serve):
    client = serve("intsr")
    assert client.get("/items/k1").status_code == 404
    assert client.put("/items/k1", json=NEW).json() == {"changed": 1, "catalog_version": 1}
    answer = client.post("/search", json={"query": "kitchen", "top_k": 30}).json()
    assert answer["catalog_version"] == 1
    assert "k1" in [item["item_id"] for item in answer["items"]]
    assert client.put("/items/k1", json=NEW).json() == {"changed": 0, "catalog_version": 1}
    assert client.get("/items/k1").json()["item"] == {
        "item_id": "k1",
        "title": "kitchen lamp",
        "description": None,
        "categories": [["Store", "kitchen"]],
        "available_from": None,
        "available_until": None,
    }
    # Out of answers, and back.
    assert client.delete("/items/k1").json() == {"changed": 1, "catalog_version": 2}
    assert client.delete("/items/k1").json() == {"changed": 0, "catalog_version": 2}
    assert "was deleted" in client.get("/items/k1").json()["detail"][0]["msg"]
    answer = client.post("/search", json={"query": "kitchen", "top_k": 30}).json()
    assert len(answer["items"]) == 24 and "k1" not in [item["item_id"] for item in answer["items"]]
    assert client.put("/items/k1", json=NEW).json() == {"changed": 1, "catalog_version": 3}
    assert client.get("/items/k1").status_code == 200


def test_html_is_read_as_in_a_log_and_the_same_text_again_is_no_change(serve):
    client = serve("intsr")
    raw = {"item_id": "k1", "title": "kitchen &amp; <b>lamp</b>", "categories": [["Store &gt; all"]]}
    assert client.put("/items/k1", json=raw).json() == {"changed": 1, "catalog_version": 1}
    item = client.get("/items/k1").json()["item"]
    assert (item["title"], item["categories"]) == ("kitchen & lamp", [["Store > all"]])
    for same in (raw, {"item_id": "k1", "title": "kitchen & lamp"}):
        assert client.put("/items/k1", json=same).json() == {"changed": 0, "catalog_version": 1}
    assert client.put("/items/k1", json={**raw, "title": "kitchen &amp; bath"}).status_code == 409


def test_a_text_with_html_in_a_catalogue_of_an_earlier_release_may_be_put_again():
    catalog = make_dense_catalog(make_log())
    titles = pa.array(["a &amp; b", *catalog.items["title"].to_pylist()[1:]])
    items = catalog.items.set_column(catalog.items.schema.get_field_index("title"), "title", titles)
    catalog = Catalog.build(items, embeddings=dict(catalog.embeddings))
    assert merge_puts(catalog, [{"item_id": "i0", "title": "a &amp; b"}]) == []


def test_columns_change_and_texts_do_not(serve):
    client = serve("synergen")
    changes = [{"item_id": "i0", "available_until": 50}, {"item_id": "i1", "available_from": 100}]
    assert client.put("/items", json={"items": changes}).json() == {"changed": 2, "catalog_version": 1}

    def answered(at):
        body = {"top_k": 30, "where": {"available_at": at}}
        return {item["item_id"] for item in client.post("/recommend", json=body).json()["items"]}

    assert answered(49) == {f"i{row}" for row in range(24)} - {"i1"}
    assert answered(70) == {f"i{row}" for row in range(2, 24)}
    assert answered(100) == {f"i{row}" for row in range(1, 24)}
    # The text that is there may be sent again; another one may not.
    same = {"item_id": "i0", "title": "garden thing 0", "available_until": 60}
    assert client.put("/items", json={"items": [same]}).json() == {"changed": 1, "catalog_version": 2}
    other = client.put("/items", json={"items": [{"item_id": "i0", "title": "a lamp"}]})
    assert other.status_code == 409
    assert "`title` of item 'i0' differs from the stored one" in other.json()["detail"][0]["msg"]


def test_a_price_of_few_digits_that_is_put_again_changes_nothing():
    catalog = make_dense_catalog(make_log())
    items = catalog.items.append_column("price", pa.array([19.9] * len(catalog), pa.float32()))
    catalog = Catalog.build(items, embeddings=dict(catalog.embeddings))
    assert merge_puts(catalog, [{"item_id": "i3", "price": 19.9}]) == []
    assert merge_puts(catalog, [{"item_id": "i3", "price": 19.8}]) == [ItemChange("i3", {"price": 19.8}, False)]
    assert merge_puts(catalog, [{"item_id": "i3", "price": None}]) == [ItemChange("i3", {"price": None}, False)]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"item_id": "n"}], "`items` cannot be used: .*1 have neither a title nor a description"),
        ([{"item_id": "n", "title": "t", "price": 3.0}], "a column 'price'; the catalogue has item_id, title"),
        ([NEW, NEW], "names 'k1' more than once"),
        ([{"item_id": "n", "title": "t", "available_from": 9, "available_until": 3}], "available"),
    ],
)
def test_items_that_do_not_fit_are_refused_and_nothing_changes(serve, items, message):
    client = serve("intsr")
    refused = client.put("/items", json={"items": [{"item_id": "first", "title": "office pen"}, *items]})
    assert refused.status_code == 409
    assert re.search(message, refused.json()["detail"][0]["msg"]), refused.json()
    assert client.get("/items/first").status_code == 404
    assert client.get("/health").json()["catalog_version"] == 0


def test_unknown_items_cannot_be_deleted(serve):
    client = serve("intsr")
    one, many = client.delete("/items/nothing"), client.request("DELETE", "/items", json={"item_ids": ["i0", "no"]})
    assert one.status_code == 404 and many.status_code == 404
    for refused, field, place in ((many, "item_ids", "body"), (one, "item_id", "path")):
        (line,) = refused.json()["detail"]
        item_id = "no" if refused is many else "nothing"
        assert line["msg"] == f"`{field}` names {item_id!r}, which the catalogue does not hold."
        assert line["loc"] == [place, field]
    assert client.get("/items/i0").status_code == 200


def test_two_processes_agree_within_a_second(serve):
    first, second = serve("intsr", poll_s=0.05), serve("intsr", poll_s=0.05)
    for number in range(6):
        writer = (first, second)[number % 2]
        item = {"item_id": f"k{number}", "title": f"kitchen lamp {number}"}
        assert writer.put("/items", json={"items": [item]}).json()["catalog_version"] == number + 1
    first.delete("/items/k3")
    until(lambda: second.get("/health").json()["catalog_version"] == 7, 1.0)
    answers = [one.post("/search", json={"query": "kitchen", "top_k": 40}).json()["items"] for one in (first, second)]
    assert answers[0] == answers[1]
    assert {"k0", "k5"} < {item["item_id"] for item in answers[0]} and len(answers[0]) == 24 + 5


@pytest.mark.parametrize(("family", "text_size"), [("gensar", VECTOR_SIZES["semantic"]), ("intsr", TEXT_SIZE)])
def test_a_new_process_begins_where_the_others_are(serve, text_encoder, family, text_size):
    text_encoder(text_size)
    client = serve(family)
    for number in range(3):
        client.put("/items", json={"items": [{"item_id": f"k{number}", "title": f"kitchen lamp {number}"}]})
    client.delete("/items/k0")
    # It reads what the first made of the new items, and has no encoder.
    text_encoder(0)
    later = serve(family)
    assert later.get("/health").json() == client.get("/health").json()
    for body in ({"query": "kitchen", "top_k": 40}, {"query": "office", "top_k": 40}):
        answer = later.post("/search", json=body).json()
        assert answer == client.post("/search", json=body).json()
        assert {"k1", "k2"} < {item["item_id"] for item in answer["items"]}
