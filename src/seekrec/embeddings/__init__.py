# SPDX-License-Identifier: Apache-2.0
"""Item vectors: semantic ones from text, collaborative ones from user behaviour."""

from transformers import AutoConfig, AutoModel

from seekrec.embeddings.configuration_lightgcn import LightGCNConfig
from seekrec.embeddings.configuration_sasrec import SASRecConfig
from seekrec.embeddings.frozen_sasrec import FrozenSASRec, recommender_sizes
from seekrec.embeddings.item_knn import ItemNeighbors, NeighborTables
from seekrec.embeddings.modeling_lightgcn import LightGCNModel, LightGCNOutput
from seekrec.embeddings.modeling_sasrec import SASRecCollator, SASRecForNextItem, SASRecModel, SASRecOutput
from seekrec.embeddings.semantic import DEFAULT_ENCODER, embed_texts, load_semantic_encoder
from seekrec.embeddings.sequences import (
    InteractionGraph,
    interaction_graph,
    last_interactions,
    sasrec_sequences,
    write_sequences,
)

__all__ = [
    "DEFAULT_ENCODER",
    "FrozenSASRec",
    "InteractionGraph",
    "ItemNeighbors",
    "LightGCNConfig",
    "LightGCNModel",
    "LightGCNOutput",
    "NeighborTables",
    "SASRecCollator",
    "SASRecConfig",
    "SASRecForNextItem",
    "SASRecModel",
    "SASRecOutput",
    "embed_texts",
    "interaction_graph",
    "load_semantic_encoder",
    "last_interactions",
    "recommender_sizes",
    "sasrec_sequences",
    "write_sequences",
]

AutoConfig.register("sasrec", SASRecConfig, exist_ok=True)
AutoModel.register(SASRecConfig, SASRecModel, exist_ok=True)
AutoConfig.register("lightgcn", LightGCNConfig, exist_ok=True)
AutoModel.register(LightGCNConfig, LightGCNModel, exist_ok=True)
