# SPDX-License-Identifier: Apache-2.0
"""Validation of the recommenders behind collaborative vectors: histories and the items that come next."""

from __future__ import annotations

import numpy as np

from seekrec.embeddings import InteractionGraph
from seekrec.events import Split
from seekrec.schema import RECOMMENDATION, IdMap
from seekrec.training.lightgcn import GraphValidation


def graph_validation(split: Split, graph: InteractionGraph, id_map: IdMap) -> GraphValidation | None:
    """Return the validation recommendations by user of a graph; None if there are none."""
    pairs = validation_histories(split, id_map, min_length=0)
    if pairs is None:
        return None
    users = IdMap(graph.user_ids).convert_to_rows(
        (request.user_id or "" for request in split.requests("validation", RECOMMENDATION)), strict=False
    )
    histories, targets = zip(*pairs, strict=True)
    return GraphValidation(users, list(histories), np.array(targets, dtype=np.int64))


def validation_histories(
    split: Split, id_map: IdMap, *, min_length: int = 1, max_cases: int | None = None
) -> list[tuple[np.ndarray, int]] | None:
    """Return the histories and targets of the validation recommendations as item rows; None if there are none.

    Cases with less than `min_length` items in their history are left out, and those after the first `max_cases`.
    """
    items = split.targets("validation", RECOMMENDATION)[:max_cases]
    requests = split.requests("validation", RECOMMENDATION, chosen=np.arange(len(items)))
    targets = id_map.convert_to_rows(items)
    pairs = []
    for request, target in zip(requests, targets.tolist(), strict=True):
        acted_on = (event.item_id for event in request.history if event.is_interaction)
        history = id_map.convert_to_rows(item_id for item_id in acted_on if item_id is not None)
        if len(history) >= min_length:
            pairs.append((history, target))
    return pairs or None


__all__ = ["graph_validation", "validation_histories"]
