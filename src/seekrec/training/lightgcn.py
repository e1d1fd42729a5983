# SPDX-License-Identifier: Apache-2.0
"""Training of LightGCN by `transformers.Trainer`.

A step takes pairs of the graph, each with negatives of its user; every step propagates over the whole graph. The
checkpoint kept is the one with the best NDCG@10 on validation (full ranking, seen items removed).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seekrec.corpora import MixtureSampler
from seekrec.embeddings import InteractionGraph, LightGCNConfig, LightGCNModel
from seekrec.errors import ConfigurationError, DataError
from seekrec.events.training_negatives import NegativeSampler, number_pairs
from seekrec.training.budget import StageTime
from seekrec.training.coded_rows import CodedRows, CodeSampler
from seekrec.training.embedding_runs import fit_embedding, rank_targets


@dataclass(frozen=True)
class GraphValidation:
    """Held-out cases of users of the graph.

    Args:
        users (`np.ndarray`): int64 user row of each case, -1 for a user that the graph does not hold.
        histories (`list[np.ndarray]`): Item rows that the user acted on before.
        targets (`np.ndarray`): int64 item row that followed.
    """

    users: np.ndarray
    histories: list[np.ndarray]
    targets: np.ndarray


def train_lightgcn(
    graph: InteractionGraph,
    validation: GraphValidation | None,
    config: LightGCNConfig,
    *,
    output_dir: str | os.PathLike[str],
    num_epochs: int,
    batch_size: int = 2048,
    num_negatives: int = 1,
    learning_rate: float = 5e-3,
    seed: int,
    num_evaluations: int = 20,
    time: StageTime | None = None,
) -> LightGCNModel:
    """Train LightGCN; see [`train_sasrec`] for a training that was killed or is complete.

    Args:
        graph ([`InteractionGraph`]): Who acted on what; its sizes replace those of `config`.
        validation ([`GraphValidation`], *optional*): `None` keeps the last weights.
        config ([`LightGCNConfig`]): Width, propagations and loss.
        output_dir (`str` or `os.PathLike`): Folder of the checkpoints.
        num_epochs (`int`): Number of epochs over the pairs.
        batch_size (`int`): Number of pairs in one step.
        num_negatives (`int`): Number of uniform negatives of a pair, drawn again in each epoch.
        learning_rate (`float`): Learning rate of AdamW; it falls to zero by a cosine.
        seed (`int`): Seed of the start weights, the order and the negatives.
        num_evaluations (`int`): How often validation is scored, and a checkpoint written (at most).
        time ([`StageTime`], *optional*): What it may take; see [`StageTime.limit_steps`].

    Returns:
        [`LightGCNModel`]: The best model, in evaluation mode.

    Raises:
        ConfigurationError: If a number is not positive.
        DataError: If the graph has no pair, or a user acted on every item.
    """
    counts = {
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "num_negatives": num_negatives,
        "num_evaluations": num_evaluations,
    }
    for name, value in counts.items():
        if value < 1:
            raise ConfigurationError(f"`{name}` is {value}; it must be at least 1.")
    if learning_rate <= 0:
        raise ConfigurationError(f"`learning_rate` is {learning_rate}; it must be positive.")
    if not len(graph.users):
        raise DataError("The graph has no user-item pairs; LightGCN needs at least one.")
    sizes = {"num_users": len(graph.user_ids), "num_edges": len(graph.users)}
    own = {key: value for key, value in config.to_dict().items() if key not in sizes}

    def make_model() -> LightGCNModel:
        model = LightGCNModel(LightGCNConfig.from_dict({**own, **sizes}))
        model.set_graph(graph.users, graph.items)
        return model

    def evaluate(model: LightGCNModel, held_out: GraphValidation) -> dict[str, float]:

        def score(part: slice) -> Tensor:
            return model.score(held_out.histories[part], held_out.users[part])

        return rank_targets(score, held_out.histories, held_out.targets)

    acts = number_pairs(graph.users, graph.items, config.num_items)
    sampler = NegativeSampler(config.num_items, acts, {"uniform": num_negatives}, seed=seed)
    steps_per_epoch = -(-len(graph.users) // batch_size)
    return fit_embedding(
        make_model,
        CodedRows(len(graph.users)),
        _PairCollator(graph, sampler),
        folder=Path(output_dir),
        contents={"pairs": [graph.users, graph.items, num_negatives], "validation": validation},
        arguments={
            "learning_rate": learning_rate,
            "lr_scheduler_type": "cosine",
            "warmup_steps": min(steps_per_epoch, 100),
        },
        seed=seed,
        num_epochs=num_epochs,
        batch_size=batch_size,
        num_evaluations=num_evaluations,
        evaluate=None if validation is None else lambda model: evaluate(model, validation),
        sampler=CodeSampler(MixtureSampler({"pairs": len(graph.users)}, {"pairs": 1.0}, seed=seed)),
        time=time,
    )


class _PairCollator:
    """Codes of pairs to rows of users, items and negatives."""

    def __init__(self, graph: InteractionGraph, sampler: NegativeSampler) -> None:
        self.graph = graph
        self.sampler = sampler

    def __call__(self, codes: list[int]) -> dict[str, Tensor]:
        keys = np.asarray(codes, dtype=np.int64)
        pairs = keys % len(self.graph.users)
        users = self.graph.users[pairs]
        return {
            "user_rows": torch.from_numpy(users),
            "item_rows": torch.from_numpy(self.graph.items[pairs]),
            "negative_rows": torch.from_numpy(self.sampler.draw(users, keys)),
        }
