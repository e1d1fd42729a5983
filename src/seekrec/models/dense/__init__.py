# SPDX-License-Identifier: Apache-2.0
"""What the families that compare vectors share: a processor, item vectors, their index, `retrieve` and `rank`."""

from seekrec.models.dense.interface_dense import DenseRetrievalMixin
from seekrec.models.dense.item_index import ItemIndex
from seekrec.models.dense.item_tower import ItemTower
from seekrec.models.dense.losses import candidate_loss, full_softmax, hard_negatives, info_nce
from seekrec.models.dense.processing_dense import EventSequenceProcessor
from seekrec.models.dense.query_vectors import QueryVectors

__all__ = [
    "DenseRetrievalMixin",
    "EventSequenceProcessor",
    "ItemIndex",
    "ItemTower",
    "QueryVectors",
    "candidate_loss",
    "full_softmax",
    "hard_negatives",
    "info_nce",
]
