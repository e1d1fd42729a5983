# SPDX-License-Identifier: Apache-2.0
"""Servers of small models with random weights, in this process, each with a store of its own."""

import copy
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient
from small_shop import make_aisles, make_gensar, make_gensr, make_intsr, make_synergen

from seekrec.serving import create_app

TOKEN = "a token of tests"


@pytest.fixture(scope="session")
def shops():
    """A model and its processor of each family; a server changes their catalogue, so it gets a copy."""
    aisles = make_aisles()
    return {
        "gensar": make_gensar(aisles, corpus="stream", item_vector_size=8, order_by="identifier"),
        "gensr": make_gensr(aisles),
        "intsr": make_intsr(),
        "synergen": make_synergen(),
    }


@pytest.fixture
def store_url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def serve(shops, store_url):
    """Start a server of a family: `serve("intsr", max_batch=4)` returns its client."""
    with ExitStack() as stack:

        def start(family="intsr", *, headers=None, **options):
            options = {"store": store_url, "batch_wait_ms": 0.0, **options}
            app = create_app(copy.deepcopy(shops[family]), **options)
            return stack.enter_context(TestClient(app, headers=headers))

        yield start
