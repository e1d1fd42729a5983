# SPDX-License-Identifier: Apache-2.0
"""The recommenders behind collaborative vectors, as stages of a recipe: SASRec and LightGCN."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seekrec.embeddings import (
    InteractionGraph,
    LightGCNConfig,
    LightGCNModel,
    SASRecConfig,
    SASRecForNextItem,
    interaction_graph,
    sasrec_sequences,
)
from seekrec.events import Split
from seekrec.schema import RECOMMENDATION, IdMap
from seekrec.training.arguments import IdentifierArguments
from seekrec.training.gensr_arguments import CollaborativeArguments
from seekrec.training.lightgcn import GraphValidation, train_lightgcn
from seekrec.training.sasrec import train_sasrec
from seekrec.training.stages import StageCache


def prepare_sasrec(
    split: Split, settings: IdentifierArguments, cache: StageCache, *, seed: int
) -> tuple[SASRecForNextItem, dict[str, object]]:
    """Train SASRec on the training events of a split; the best epoch by validation is kept.

    Returns:
        `tuple[SASRecForNextItem, dict]`: The model, and the settings it depends on.
    """
    id_map = IdMap(split.log.items["item_id"].to_pylist())
    key: dict[str, object] = {
        "split": split.fingerprint(),
        "hidden_size": settings.sasrec_hidden_size,
        "num_epochs": settings.sasrec_num_epochs,
        "dropout": settings.sasrec_dropout,
        "learning_rate": settings.sasrec_learning_rate,
        "max_history": settings.sasrec_max_history,
        "seed": seed,
    }

    def make(folder: Path) -> None:
        train_sasrec(
            sasrec_sequences(split, id_map),
            validation_histories(split, id_map),
            SASRecConfig(
                num_items=len(id_map),
                hidden_size=settings.sasrec_hidden_size,
                max_history=settings.sasrec_max_history,
                dropout=settings.sasrec_dropout,
            ),
            output_dir=folder,
            num_epochs=settings.sasrec_num_epochs,
            learning_rate=settings.sasrec_learning_rate,
            seed=seed,
        )

    return cache.run("sasrec", key, make, lambda folder: SASRecForNextItem.from_pretrained(folder).eval()), key


def prepare_lightgcn(
    split: Split, settings: CollaborativeArguments, cache: StageCache, *, seed: int
) -> tuple[LightGCNModel, InteractionGraph]:
    """Train LightGCN on the training events of a split; the best epoch by validation is kept.

    Returns:
        `tuple[LightGCNModel, InteractionGraph]`: The model, and the graph with its user ids.
    """
    id_map = IdMap(split.log.items["item_id"].to_pylist())
    graph = interaction_graph(split, id_map, behaviors=settings.lightgcn_behaviors)  # type: ignore[arg-type]
    key: dict[str, object] = {
        "split": split.fingerprint(),
        "behaviors": sorted(settings.lightgcn_behaviors),
        "hidden_size": settings.lightgcn_hidden_size,
        "num_propagations": settings.lightgcn_num_propagations,
        "num_epochs": settings.lightgcn_num_epochs,
        "learning_rate": settings.lightgcn_learning_rate,
        "loss": settings.lightgcn_loss,
        "num_negatives": settings.lightgcn_num_negatives,
        "seed": seed,
    }

    def make(folder: Path) -> None:
        train_lightgcn(
            graph,
            graph_validation(split, graph, id_map),
            LightGCNConfig(
                num_items=len(id_map),
                hidden_size=settings.lightgcn_hidden_size,
                num_propagations=settings.lightgcn_num_propagations,
                loss=settings.lightgcn_loss,
            ),
            output_dir=folder,
            num_epochs=settings.lightgcn_num_epochs,
            num_negatives=settings.lightgcn_num_negatives,
            learning_rate=settings.lightgcn_learning_rate,
            seed=seed,
        )

    model = cache.run("lightgcn", key, make, lambda folder: LightGCNModel.from_pretrained(folder).eval())
    return model, graph


def graph_validation(split: Split, graph: InteractionGraph, id_map: IdMap) -> GraphValidation | None:
    """Give the validation recommendations by user of a graph; None if there are none."""
    pairs = validation_histories(split, id_map, min_length=0)
    if pairs is None:
        return None
    users = IdMap(graph.user_ids).convert_to_rows(
        (request.user_id or "" for request in split.requests("validation", RECOMMENDATION)), strict=False
    )
    histories, targets = zip(*pairs, strict=True)
    return GraphValidation(users, list(histories), np.array(targets, dtype=np.int64))


def validation_histories(split: Split, id_map: IdMap, *, min_length: int = 1) -> list[tuple[np.ndarray, int]] | None:
    """Give the histories and targets of the validation recommendations as item rows; None if there are none.

    Cases with less than `min_length` items in their history are left out.
    """
    requests = split.requests("validation", RECOMMENDATION)
    targets = id_map.convert_to_rows(split.targets("validation", RECOMMENDATION))
    pairs = []
    for request, target in zip(requests, targets.tolist(), strict=True):
        history = id_map.convert_to_rows(event.item_id for event in request.history if event.item_id is not None)
        if len(history) >= min_length:
            pairs.append((history, target))
    return pairs or None


__all__ = ["graph_validation", "prepare_lightgcn", "prepare_sasrec", "validation_histories"]
