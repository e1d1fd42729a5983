# SPDX-License-Identifier: Apache-2.0
"""Servers of small models with random weights, in this process, each with a store of its own."""

import copy
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from small_shop import (
    CODEBOOK_SIZE,
    VECTOR_SIZES,
    AisleVectors,
    aisle_vector,
    make_aisles,
    make_gensar,
    make_gensr,
    make_intsr,
    make_synergen,
)

from seekrec.identifiers.configuration_dual_rqvae import ResidualKMeansConfig
from seekrec.identifiers.residual_kmeans import ResidualKMeans
from seekrec.models.dense import QueryVectors
from seekrec.serving import create_app


@pytest.fixture(scope="session")
def shops():
    """A model and its processor of each family; a server changes their catalogue, so it gets a copy."""
    split, catalog, *rest = make_aisles()
    aisles = (split, replace(catalog, identifier_model=make_identifier_model()), *rest)
    return {
        "gensar": make_gensar(aisles, corpus="stream", item_vector_size=8),
        "gensr": make_gensr(aisles),
        "intsr": make_intsr(),
        "synergen": make_synergen(),
    }


def make_identifier_model():
    """Codes of new items by random codebooks, of the sizes of the small catalogue."""
    sizes = {f"{view}_size": size for view, size in VECTOR_SIZES.items()}
    levels = {"num_shared_levels": 1, "num_specific_levels": 1, "codebook_size": CODEBOOK_SIZE}
    model, draws = ResidualKMeans(ResidualKMeansConfig(**sizes, **levels)), np.random.default_rng(1)
    for name, size in {"shared": sum(VECTOR_SIZES.values()), **VECTOR_SIZES}.items():
        model.quantizers[name].set_codebooks(draws.normal(size=(1, CODEBOOK_SIZE, size)).astype(np.float32))
    return model


@pytest.fixture
def text_encoder(monkeypatch):
    """`text_encoder(size)`: new items' texts to the direction of the aisle that they name, in so many numbers."""

    def use(size):
        def embed(texts, **_):
            return np.stack([aisle_vector(text)[:size] for text in texts])

        monkeypatch.setattr("seekrec.embeddings.embed_texts", embed)
        # Of queries, too, where a model comes from a folder.
        monkeypatch.setattr(QueryVectors, "_embed", AisleVectors._embed)

    return use


@pytest.fixture
def store_url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def serve(shops, store_url):
    """Start a server of a family, or of a folder: `serve("intsr", max_batch=4)` returns its client."""
    with ExitStack() as stack:

        def start(family="intsr", *, headers=None, **options):
            options = {"store": store_url, "batch_wait_ms": 0.0, **options}
            app = create_app(copy.deepcopy(shops[family]) if family in shops else family, **options)
            return stack.enter_context(TestClient(app, headers=headers))

        yield start
