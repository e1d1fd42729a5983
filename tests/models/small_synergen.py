# SPDX-License-Identifier: Apache-2.0
"""A small SynerGen over the marketplace of `small_gensar`, with text vectors that say the aisle."""

import torch
from small_intsr import TEXT_SIZE, AisleVectors, make_dense_catalog

from seekrec.models import SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor

SYNERGEN_WAYS = {
    "paper": {},
    "order": {"time_encoding": "order", "use_ids": False},
    "both": {"time_encoding": "both", "queries_in_context": True, "rotary_fraction": 0.5},
    "latest": {"starts_from_latest_item": True, "queries_in_context": True},
    "retrieval_only": {"ranking_weight": 0.0, "similarity": "cosine", "use_target_time": False},
    "unmasked": {"use_session_mask": False, "align_tasks": False, "learn_time_scales": True},
}


def make_synergen(seed: int = 0, *, catalog=None, **settings):
    """A model in evaluation mode with random weights far from their start values, and its processor."""
    catalog = catalog or make_dense_catalog()
    torch.manual_seed(seed)
    config = SynerGenConfig(
        **{
            "num_items": len(catalog),
            "text_size": TEXT_SIZE,
            "query_size": TEXT_SIZE,
            "hidden_size": 16,
            "fusion_size": 24,
            "intermediate_size": 32,
            "max_history": 12,
            "initializer_range": 0.3,
            **settings,
        }
    )
    model = SynerGenForSearchAndRecommendation(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.1)
    model.set_catalog(catalog)
    return model, SynerGenProcessor(catalog, max_history=12, query_vectors=AisleVectors())
