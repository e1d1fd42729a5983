# SPDX-License-Identifier: Apache-2.0
"""Every request of the page about serving is sent to a small server, and answered."""

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest
from small_shop import TEXT_SIZE, make_dense_catalog, make_intsr

from seekrec.catalog import Catalog
from seekrec.serving import create_app

PAGE = Path(__file__).parents[2] / "recipes" / "serving.md"


@pytest.fixture
def films(text_encoder):
    """A catalogue with the ids and columns that the page names."""
    text_encoder(TEXT_SIZE)
    catalog = make_dense_catalog()
    items = catalog.items
    ids = ["50", "172", "181", "210", "1", *items["item_id"].to_pylist()[5:]]
    items = items.set_column(0, "item_id", pa.array(ids)).append_column("year", pa.array([1990] * len(ids)))
    return make_intsr(catalog=Catalog.build(items, embeddings=dict(catalog.embeddings)))


def test_requests_of_the_page_are_answered(films, store_url):
    from fastapi.testclient import TestClient

    block = re.search(r"<!-- curl -->\n```bash\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)[1]
    asked = set()
    with TestClient(create_app(films, store=store_url)) as client:
        for line in block.splitlines():
            words = shlex.split(line)
            path = next(word for word in words if word.startswith("localhost"))
            body = words[words.index("-d") + 1].encode() if "-d" in words else None
            method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
            headers = {} if body is None else {"Content-Type": "application/json"}
            answer = client.request(method, path.removeprefix("localhost:8000"), content=body, headers=headers)
            assert answer.status_code == 200, (line, answer.text)
            asked.add(path.split("/")[1])
        routes = {path.split("/")[1] for path in client.get("/openapi.json").json()["paths"]}
    table = PAGE.read_text("utf-8")
    assert asked <= routes and all(f"/{route}" in table for route in routes)
