# SPDX-License-Identifier: Apache-2.0
"""The page and what it asks for: filters of the catalogue, users of an example file, and why an item."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_shop import HISTORY

from seekrec.catalog import Catalog
from seekrec.events import write_examples
from seekrec.schema import Request
from seekrec.serving.page import _facets as facets_of


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(serve):
    client = serve("intsr", token="secret")
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert sorted(names) == ["page/icon.svg", "page/page.css", "page/page.js"]
    for name in names:
        assert client.get(f"/{name}").status_code == 200
        assert "http" not in client.get(f"/{name}").text.replace("http://www.w3.org/2000/svg", "")
    # Of everything else the token is asked for, and no path leads out of the folder.
    assert client.get("/facets").status_code == 401
    for name in ("page.py", "..%2Fpage.py", "../page.py", "index.html/.."):
        assert client.get(f"/page/{name}").status_code == 404


def test_filters_are_those_of_the_items(serve):
    found = serve("intsr").get("/facets").json()
    assert found == {
        "categories": [{"name": name, "num_items": 8} for name in ("garden", "kitchen", "office")],
        "root": "Store",
        "ranges": [],
        "has_lifetimes": False,
    }


def test_categories_are_counted_once_an_item_at_any_depth_of_its_paths():
    """Of items without, with several, with empty and with missing paths; removed ones do not count."""
    paths = [
        [["Shop", "Toys"], ["Shop", "Games", "Cards"]],
        None,
        [["Cards"], []],
        [],
        [["Shop", "Toys"]],
        [["Shop", "Books"]],
        [["Elsewhere", "Toys"]],
        [["Elsewhere", None], [None, "Toys"]],
    ]
    items = pa.table(
        {
            "item_id": [f"i{row}" for row in range(len(paths))],
            "title": [f"thing {row}" for row in range(len(paths))],
            "categories": pa.array(paths, pa.list_(pa.list_(pa.string()))),
        }
    )
    catalog = Catalog.build(items)
    found = facets_of(catalog)
    assert [(one.name, one.num_items) for one in found.categories] == [
        ("Toys", 4),
        ("Shop", 3),
        ("Cards", 2),
        ("Elsewhere", 2),
        ("Games", 1),
        ("Books", 1),
    ]
    assert all(catalog.where(categories=one.name).sum() == one.num_items for one in found.categories)
    assert found.root is None
    found = facets_of(catalog.remove_items(["i0", "i6", "i7"]))
    assert [(one.name, one.num_items) for one in found.categories] == [("Cards", 1), ("Toys", 1), ("Books", 1)]
    assert found.root == "Shop"


def test_the_ends_of_a_column_are_numbers():
    """Neither what is infinite nor what is no number, and of a type that filters compare."""
    prices = [np.nan, np.inf, None, 2.5, 1.0]
    items = pa.table({"item_id": list("abcde"), "title": list("abcde"), "price": prices})
    halves = pa.array(np.arange(5, dtype=np.float16))
    found = facets_of(Catalog.build(items.append_column("half", halves)))
    assert [(one.column, one.lowest, one.highest) for one in found.ranges] == [("price", 1.0, 2.5)]


@pytest.mark.parametrize("family", ["gensar", "intsr"])
def test_why_names_what_is_nearest_words_and_the_identifier(serve, shops, family):
    client, catalog = serve(family), shops[family][0].catalog
    # What was only shown is nothing that the user did.
    history = [{"item_id": "i2", "action": "impression"}, *({"item_id": f"i{row}"} for row in (3, 20, 1))]
    body = {"item_id": "i3", "query": "GARDENS things", "history": history}
    why = client.post("/why", json=body).json()
    assert why["item"] == {"item_id": "i3", "title": "garden thing 3"}
    assert why["words"] == ["garden", "thing"]
    assert why["categories"] == ["garden"]
    for near, (view, vectors) in zip(why["nearest"], catalog.embeddings.items(), strict=True):
        assert near["by"] == ("text" if view == "semantic" else "behavior")
        unit = vectors - vectors.mean(0)
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        expected = {f"i{row}": float(unit[row] @ unit[3]) for row in (20, 1)}
        found = {one["item_id"]: one["similarity"] for one in near["items"]}
        assert found == pytest.approx({name: value for name, value in expected.items() if value > 0}, abs=1e-5)
    assert [path["view"] for path in why["identifiers"]] == list(catalog.codes)
    for path, codes in zip(why["identifiers"], catalog.codes.values(), strict=True):
        assert [level["code"] for level in path["levels"]] == codes[3].tolist()
        for depth, level in enumerate(path["levels"], start=1):
            assert level["num_items"] == (codes[:, :depth] == codes[3, :depth]).all(1).sum()
    assert client.post("/why", json={"item_id": "nothing"}).status_code == 404


def test_users_of_an_example_file_are_kept_once(serve, tmp_path):
    path = tmp_path / "examples.json"
    write_examples(path, [Request(HISTORY, user_id="ann")])
    for _ in range(2):
        client = serve("intsr", examples=str(path))
        assert client.get("/users").json() == {"users": ["ann"]}
        assert [event["item_id"] for event in client.get("/users/ann/history").json()["events"]] == ["i0", "i9", "i1"]


@pytest.mark.slow
def test_visitors_can_use_it(shops, tmp_path):
    pytest.importorskip("playwright", reason='a browser is needed: pip install "seekrec[browser]", and chromium')
    import uvicorn
    from click_through import CHROMIUM, run, wrong

    from seekrec.serving import create_app

    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    write_examples(tmp_path / "examples.json", [Request(HISTORY, user_id="ann")])
    app = create_app(
        shops["gensar"], store=f"sqlite:///{tmp_path / 's.sqlite'}", examples=str(tmp_path / "examples.json")
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        found = run(f"http://127.0.0.1:{port}/", "kitchen", None, None, adds=False)
    finally:
        server.should_exit = True
        thread.join()
    assert not wrong(found), found
