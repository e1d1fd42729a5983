# SPDX-License-Identifier: Apache-2.0
"""Shared by the families that compare vectors: settings, a processor, item vectors, `retrieve` and `rank`."""

from seekrec.models.dense.configuration_dense import DenseConfig
from seekrec.models.dense.item_index import ItemIndex
from seekrec.models.dense.item_tower import ItemTower
from seekrec.models.dense.modeling_dense import DenseModel, DenseRetrieval
from seekrec.models.dense.processing_dense import EventSequenceProcessor
from seekrec.models.dense.query_vectors import QueryVectors

__all__ = [
    "DenseConfig",
    "DenseModel",
    "DenseRetrieval",
    "EventSequenceProcessor",
    "ItemIndex",
    "ItemTower",
    "QueryVectors",
]
