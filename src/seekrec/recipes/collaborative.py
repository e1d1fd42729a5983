# SPDX-License-Identifier: Apache-2.0
"""The recommenders behind collaborative vectors, as stages of a recipe: SASRec and LightGCN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Required, TypedDict, Unpack

import numpy as np

from seekrec.embeddings import (
    InteractionGraph,
    LightGCNConfig,
    LightGCNModel,
    SASRecConfig,
    SASRecForNextItem,
    interaction_graph,
    sasrec_sequences,
    write_sequences,
)
from seekrec.embeddings.softmax import LARGE_CATALOG, NUM_SHARED_NEGATIVES
from seekrec.errors import ConfigurationError
from seekrec.evaluation.baselines import SASRecScorer
from seekrec.events import Split
from seekrec.events.partitions import PartitionedSplit
from seekrec.recipes.arguments import CollaborativeArguments, EmbeddingArguments
from seekrec.recipes.stages import TRAINING_FOLDER, StageCache
from seekrec.schema import RECOMMENDATION, IdMap
from seekrec.training.collaborative import graph_validation, validation_histories
from seekrec.training.lightgcn import train_lightgcn
from seekrec.training.sasrec import train_sasrec
from seekrec.util.ragged import Ragged

# Epochs in which a SASRec trained without the last events learns all of them, at most as many as it had before.
NUM_FINISHING_EPOCHS = 15
# Validation cases of a SASRec that is trained from partitions: a partition may have a hundred thousand.
MAX_VALIDATION_CASES = 10_000
# Of the SASRec that is trained by a sampled softmax.
MAX_SAMPLED_EPOCHS = 200
SAMPLED_PATIENCE = 10


class SASRecSchedule(TypedDict, total=False):
    """How long a SASRec is trained; see [`train_sasrec`]."""

    num_epochs: Required[int]
    num_evaluations: int
    patience: int | None
    start_from: SASRecForNextItem | None


def prepare_sasrec(
    split: Split,
    settings: EmbeddingArguments,
    cache: StageCache,
    *,
    seed: int,
    num_unseen_events: int = 0,
    start_from: tuple[SASRecForNextItem, dict[str, object]] | None = None,
    num_finishing_epochs: int = 0,
    whole: PartitionedSplit | None = None,
) -> tuple[SASRecForNextItem, dict[str, object]]:
    """Train SASRec on the training events of a split; the best epoch by validation is kept.

    Args:
        split (`Split`): The log.
        settings ([`EmbeddingArguments`]): Width and epochs.
        cache (`StageCache`): Finds what was done before.
        seed (`int`): Seed of SASRec.
        num_unseen_events (`int`): Number of last interactions of each user that are left out: `last_interactions`.
        start_from (`tuple`, *optional*): Earlier result of this function, to continue for `num_finishing_epochs`.
        num_finishing_epochs (`int`): Epochs of a training that continues.
        whole ([`PartitionedSplit`], *optional*): What is trained on, where `split` is a sample of it, which chooses
            the epoch.

    Returns:
        `tuple[SASRecForNextItem, dict]`: The model, and the settings it depends on.
    """
    num_items = split.log.items.num_rows
    config = SASRecConfig(
        num_items=num_items,
        hidden_size=settings.sasrec_hidden_size,
        num_sampled_negatives=NUM_SHARED_NEGATIVES if num_items > LARGE_CATALOG else 0,
    )
    name, num_epochs, started = "sasrec", settings.sasrec_num_epochs, None
    key: dict[str, object] = {"hidden_size": settings.sasrec_hidden_size, "num_epochs": num_epochs}
    if num_unseen_events:
        name, key["num_unseen_events"] = "sasrec-unseen", num_unseen_events
    if start_from is not None:
        started, before = start_from
        name, num_epochs = "sasrec-finished", num_finishing_epochs
        key = {**before, "num_finishing_epochs": num_finishing_epochs}
    return _train_once(
        name,
        key,
        split,
        whole or split,
        config,
        cache,
        num_unseen_events=num_unseen_events,
        seed=seed,
        num_epochs=num_epochs,
        start_from=started,
    )


def _train_once(
    name: str,
    key: Mapping[str, object],
    split: Split,
    whole: Split | PartitionedSplit,
    config: SASRecConfig,
    cache: StageCache,
    *,
    num_unseen_events: int = 0,
    max_cases: int | None = None,
    seed: int,
    **schedule: Unpack[SASRecSchedule],
) -> tuple[SASRecForNextItem, dict[str, object]]:
    """Train a SASRec as a stage.

    Args:
        name (`str`): Name of the stage.
        key (`Mapping`): What it depends on, in addition to the logs and the seed.
        split (`Split`): Has the validation cases.
        whole (`Split` or [`PartitionedSplit`]): Its training events are learned from.
        config ([`SASRecConfig`]): The model.
        cache (`StageCache`): Finds what was done before.
        num_unseen_events (`int`): Number of last interactions of each user that are left out.
        max_cases (`int`, *optional*): Validation cases; `MAX_VALIDATION_CASES` of a log in partitions or in a run
            with a budget.
        seed (`int`): Seed of SASRec.
        schedule: More of [`train_sasrec`].

    Returns:
        `tuple[SASRecForNextItem, dict]`: The model, and all that it depends on.
    """
    id_map, time = IdMap(split.log.items["item_id"].to_pylist()), cache.make_time()
    if time is not None or not isinstance(whole, Split):
        max_cases = MAX_VALIDATION_CASES
    found: dict[str, object] = {**key, "split": whole.fingerprint, "seed": seed}
    if not isinstance(whole, Split):
        # They decide who validates.
        found["num_partitions"] = whole.num_partitions
    elif max_cases is not None and len(split.targets("validation", RECOMMENDATION)) > max_cases:
        found["max_validation_cases"] = max_cases

    def make(folder: Path) -> None:
        model = train_sasrec(
            _write_sequences(whole, id_map, folder, num_unseen_events=num_unseen_events),
            validation_histories(split, id_map, max_cases=max_cases),
            config,
            output_dir=folder / TRAINING_FOLDER,
            seed=seed,
            time=time,
            **schedule,
        )
        model.save_pretrained(folder)

    model = cache.run(
        name,
        found,
        make,
        lambda folder: SASRecForNextItem.from_pretrained(folder).eval(),
        libraries=("torch", "transformers"),
        time=time,
    )
    # What is made of a training that was cut short is not what is made of a whole one.
    if time is not None and time.left_out is not None:
        found["left_out"] = time.left_out
    return model, found


def _write_sequences(
    whole: Split | PartitionedSplit, id_map: IdMap, folder: Path, *, num_unseen_events: int = 0
) -> Ragged:
    """Write the sequences of a log into the folder of a stage that trains on them, one partition at a time."""
    parts = [whole] if isinstance(whole, Split) else whole
    return write_sequences(
        (sasrec_sequences(part, id_map, num_unseen_events=num_unseen_events) for part in parts),
        folder / f"{TRAINING_FOLDER}-sequences",
    )


def sampled_sasrec(
    split: Split,
    whole: Split | PartitionedSplit,
    cache: StageCache,
    *,
    seed: int,
    num_epochs: int = MAX_SAMPLED_EPOCHS,
) -> SASRecScorer:
    """Train the SASRec that has the best published results on Amazon Beauty, for comparison.

    Sizes, loss and schedule are those of <https://github.com/blondered/transformer_benchmark>: one wide layer, 256
    negatives (here shared by a batch), a constant learning rate, and at most 200 epochs until validation no longer
    gets better.

    Args:
        split (`Split`): Its validation cases end the training.
        whole (`Split` or [`PartitionedSplit`]): Its training events are learned from.
        cache (`StageCache`): Finds what was done before.
        seed (`int`): Seed of SASRec.
        num_epochs (`int`): The most epochs; without validation all of them.
    """
    id_map = IdMap(split.log.items["item_id"].to_pylist())
    config = SASRecConfig(
        num_items=len(id_map),
        hidden_size=256,
        num_hidden_layers=1,
        num_attention_heads=1,
        embedding_dropout=0.2,
        dropout=0.2,
        attention_dropout=0.2,
        num_sampled_negatives=256,
    )
    model, _ = _train_once(
        "sasrec-sampled",
        {"num_epochs": num_epochs, "patience": SAMPLED_PATIENCE},
        split,
        whole,
        config,
        cache,
        max_cases=MAX_VALIDATION_CASES,
        seed=seed,
        num_epochs=num_epochs,
        num_evaluations=num_epochs,
        patience=SAMPLED_PATIENCE,
    )
    return SASRecScorer(model, id_map)


def best_epochs(model: SASRecForNextItem | LightGCNModel) -> int:
    """Return the epochs after which a recommender that [`fit_embedding`] trained was best, at least one."""
    return max(1, round(float(model.config.trained_epochs)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class CollaborativeSource:
    """Source of the collaborative view: a table of item vectors, or a SASRec whose states are read too.

    Args:
        training (`np.ndarray` or [`SASRecForNextItem`]): Source during training.
        answering (`np.ndarray` or [`SASRecForNextItem`]): Source afterwards; often the same.
    """

    training: np.ndarray | SASRecForNextItem
    answering: np.ndarray | SASRecForNextItem


def prepare_collaborative(
    split: Split,
    sasrec: SASRecForNextItem,
    lightgcn: LightGCNModel | None,
    settings: EmbeddingArguments,
    collaborative: CollaborativeArguments,
    cache: StageCache,
    *,
    seed: int,
    reads_states: bool = False,
    num_unseen_events: int = 0,
    whole: PartitionedSplit | None = None,
) -> CollaborativeSource:
    """Return the vectors that the settings name; with `num_unseen_events` train the SASRec behind them in two parts.

    The first part does not train on the events that are targets of the model. The second continues from it with all
    events, in which its vectors hardly turn, so a model that learned to read the first can read it.

    Args:
        split (`Split`): The log.
        sasrec ([`SASRecForNextItem`]): SASRec, trained on all events.
        lightgcn ([`LightGCNModel`], *optional*): LightGCN, trained on all events.
        settings ([`EmbeddingArguments`]): Width and epochs of SASRec.
        collaborative ([`CollaborativeArguments`]): Says which of the two is read.
        cache ([`StageCache`]): Finds what was done before.
        seed (`int`): Seed of SASRec.
        reads_states (`bool`): Whether the model reads the recommender's states, too.
        num_unseen_events (`int`): Number of last events of each user that the first part leaves out.
        whole ([`PartitionedSplit`], *optional*): See [`prepare_sasrec`].

    Raises:
        ConfigurationError: If states or unseen events are wanted of LightGCN, which has none.
    """
    if collaborative.collaborative_source == "lightgcn" and lightgcn is not None:
        wanted = "filtered_history: recommender" if reads_states else f"num_unseen_events: {num_unseen_events}"
        if reads_states or num_unseen_events:
            raise ConfigurationError(f"`{wanted}` needs SASRec; pass --collaborative_source sasrec.")
        table = lightgcn.item_embeddings()
        return CollaborativeSource(table, table)
    started = finished = sasrec
    if num_unseen_events:
        first = prepare_sasrec(split, settings, cache, seed=seed, num_unseen_events=num_unseen_events, whole=whole)
        started = first[0]
        finished, _ = prepare_sasrec(
            split,
            settings,
            cache,
            seed=seed,
            start_from=first,
            num_finishing_epochs=min(NUM_FINISHING_EPOCHS, settings.sasrec_num_epochs),
            whole=whole,
        )
    if reads_states:
        return CollaborativeSource(started, finished)
    table = started.item_embeddings()
    return CollaborativeSource(table, table if finished is started else finished.item_embeddings())


def prepare_lightgcn(
    split: Split, settings: CollaborativeArguments, cache: StageCache, *, hidden_size: int, seed: int
) -> tuple[LightGCNModel, InteractionGraph]:
    """Train LightGCN on the training events of a split; the best epoch by validation is kept.

    Returns:
        `tuple[LightGCNModel, InteractionGraph]`: The model, and the graph with its user ids.
    """
    id_map = IdMap(split.log.items["item_id"].to_pylist())
    graph = interaction_graph(split, id_map, behaviors=settings.lightgcn_behaviors)
    key: dict[str, object] = {
        "split": split.fingerprint,
        "behaviors": sorted(settings.lightgcn_behaviors),
        "hidden_size": hidden_size,
        "num_epochs": settings.lightgcn_num_epochs,
        "seed": seed,
    }

    time = cache.make_time()

    def make(folder: Path) -> None:
        model = train_lightgcn(
            graph,
            graph_validation(split, graph, id_map),
            LightGCNConfig(num_items=len(id_map), hidden_size=hidden_size),
            output_dir=folder / TRAINING_FOLDER,
            num_epochs=settings.lightgcn_num_epochs,
            seed=seed,
            time=time,
        )
        model.save_pretrained(folder)

    model = cache.run(
        "lightgcn",
        key,
        make,
        lambda folder: LightGCNModel.from_pretrained(folder).eval(),
        libraries=("torch", "transformers"),
        time=time,
    )
    return model, graph


__all__ = [
    "CollaborativeSource",
    "best_epochs",
    "prepare_collaborative",
    "prepare_lightgcn",
    "prepare_sasrec",
    "sampled_sasrec",
]
