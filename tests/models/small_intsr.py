# SPDX-License-Identifier: Apache-2.0
"""A small IntSR over the marketplace of `small_gensar`, with text vectors that say the aisle."""

import numpy as np
import torch
from small_gensar import AISLES, ITEMS_PER_AISLE, NUM_ITEMS, make_log

from seekrec.catalog import Catalog
from seekrec.models import IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor
from seekrec.models.dense import QueryVectors

TEXT_SIZE = 8
HSTU = {
    "use_placeholders": False,
    "use_dsfnet": False,
    "num_dsf_layers": 0,
    "use_scenario_tokens": False,
    "use_session_mask": False,
    "time_bias": "buckets",
    "attention_scale": "length",
}
INTSR_WAYS = {
    "paper": {},
    "merged": {"merge_event_tokens": True, "time_bias": "buckets"},
    "no_session_mask": {"use_session_mask": False},
    "hstu": HSTU,
    "latest": {"starts_from_latest_item": True},
    "latest_merged": {"starts_from_latest_item": True, "merge_event_tokens": True},
    "cosine": {"similarity": "cosine", "temperature": 0.1, "ranking_weight": 0.0, "attention_scale": "length"},
}


class AisleVectors(QueryVectors):
    """Queries to the direction of the aisle they name; no encoder."""

    def _embed(self, texts, show_progress):
        return np.stack([aisle_vector(text) for text in texts]).astype(np.float16)


def aisle_vector(text):
    vector = np.zeros(TEXT_SIZE, np.float32)
    for number, aisle in enumerate(AISLES):
        vector[number] = float(aisle in text)
    vector[3:] = [((len(text) * prime) % 7) / 14 for prime in (2, 3, 5, 11, 13)]
    return vector


def make_dense_catalog(log=None):
    log = log or make_log()
    titles = log.items["title"].to_pylist()
    vectors = np.stack([aisle_vector(title) for title in titles])
    vectors[:, 4] = (np.arange(NUM_ITEMS) % ITEMS_PER_AISLE) / ITEMS_PER_AISLE
    return Catalog.build(log.items, embeddings={"semantic": vectors})


def make_intsr(seed: int = 0, *, catalog=None, **settings):
    """A model in evaluation mode with random weights far from their start values, and its processor."""
    catalog = catalog or make_dense_catalog()
    torch.manual_seed(seed)
    config = IntSRConfig(
        **{
            "num_items": len(catalog),
            "text_size": TEXT_SIZE,
            "query_size": TEXT_SIZE,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "max_history": 12,
            "initializer_range": 0.3,
            "ranking_weight": float(settings.get("use_placeholders", True)),
            **settings,
        }
    )
    model = IntSRForSearchAndRecommendation(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.1)
    model.set_catalog(catalog)
    return model, IntSRProcessor(catalog, max_history=12, query_vectors=AisleVectors())
