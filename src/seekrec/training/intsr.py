# SPDX-License-Identifier: Apache-2.0
"""What the IntSR recipe is made of: windows, processor, model and Trainer, each from its settings."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
from transformers import TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora.targets import report_questions
from seekrec.corpora.training_windows import (
    TrainingWindows,
    build_training_windows,
    choose_session_ids,
    log_actions,
    log_geohashes,
)
from seekrec.embeddings import SASRecForNextItem
from seekrec.errors import ConfigurationError, LeakageError
from seekrec.events import Split
from seekrec.events.sessions import guess_session_ids
from seekrec.models import IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH
from seekrec.training.event_windows import WindowCollator, fusion_settings, make_window_collator
from seekrec.training.intsr_arguments import IntSRArguments
from seekrec.training.negatives import SampledKind
from seekrec.training.window_arguments import WindowArguments

logger = logging.getLogger(__name__)


def with_lifetimes(catalog: Catalog, split: Split, settings: WindowArguments) -> Catalog:
    """Set when items are on offer, where the settings ask for it: from the first act on an item in training on.

    Items on which nobody acted in training keep what the catalogue says of them: what came later is not known.
    """
    if settings.item_lifetimes == "catalog":
        return catalog
    timeline = split.timeline
    rows = split.training_interactions()
    first = np.full(timeline.num_items, np.iinfo(np.int64).max)
    np.minimum.at(first, timeline.item[rows], timeline.time[rows])
    has_event = first < np.iinfo(np.int64).max
    place = catalog.items.column_names.index("available_from")
    old = catalog.items["available_from"].to_pylist()
    values = [int(own) if known else before for own, known, before in zip(first, has_event, old, strict=True)]
    items = catalog.items.set_column(place, "available_from", pa.array(values, pa.int64()))
    return replace(catalog, items=items)


def make_windows(
    split: Split,
    catalog: Catalog,
    settings: WindowArguments,
    *,
    geohashes: Sequence[str] = (),
    use_session_mask: bool = True,
) -> TrainingWindows:
    """Cut training into windows, keep the questions of the tasks, and warn of what they leave out.

    Args:
        split (`Split`): Whose training events to use.
        catalog ([`Catalog`]): The items.
        settings ([`WindowArguments`]): Length, tasks, and what `session_id` means.
        geohashes (`Sequence[str]`): Those of the processor.
        use_session_mask (`bool`): Of the model: off, its questions see their own session.

    Raises:
        DataError: If nothing is left to ask.
        LeakageError: If a question of a strict split sees its own answer.
    """
    if settings.session_ids == "auto" and (guess := guess_session_ids(split)) is not None:
        logger.info("%s: %s", split.log.name, guess)
    windows = build_training_windows(
        split,
        catalog.id_map,
        actions=log_actions(split),
        geohashes=geohashes,
        max_history=settings.max_history,
        recommend_searched_items=settings.recommend_searched_items,
        session_ids=settings.session_ids,
        use_session_mask=use_session_mask,
    )
    if split.protocol == "strict" and (num_leaks := windows.count_leaks()):
        raise LeakageError(
            f"{num_leaks} of {len(windows.behavior)} training questions of {split.log.name!r} see their own answer."
        )
    behaviors = BEHAVIORS if settings.tasks == "joint" else (settings.tasks,)
    windows = windows if settings.tasks == "joint" else windows.select(settings.tasks)
    rows = windows.windows.values[windows.places]
    report_questions(split, rows, windows.behavior, behaviors=behaviors, is_blind=windows.is_blind)
    return windows


def make_intsr_processor(
    split: Split, catalog: Catalog, settings: WindowArguments, model: IntSRArguments
) -> IntSRProcessor:
    """Make the processor that lays requests out as windows are; queries are embedded as items are.

    Raises:
        ConfigurationError: If the scenario shall hold a geohash of no character.
        DataError: If the scenario shall hold a geohash and training has none.
    """
    geohashes: list[str] = []
    if "geohash" in model.scenario_features:
        if not 1 <= model.geohash_precision <= 12:
            raise ConfigurationError(f"`geohash_precision` is {model.geohash_precision}; give a number from 1 to 12.")
        geohashes = log_geohashes(split, model.geohash_precision)
    return IntSRProcessor(
        catalog,
        max_history=settings.max_history,
        actions=log_actions(split),
        geohashes=geohashes,
        session_ids=choose_session_ids(split, settings.session_ids),
        text_folding=settings.text_folding,
    )


def make_intsr_model(
    catalog: Catalog,
    processor: IntSRProcessor,
    settings: IntSRArguments,
    windows: WindowArguments,
    sasrec: SASRecForNextItem | None = None,
) -> IntSRForSearchAndRecommendation:
    """Make a model over a catalogue, with the SASRec that the settings may fuse with it."""
    windows, sizes = windows.for_catalog(len(catalog)), asdict(settings)
    del sizes["geohash_precision"]
    width = catalog.embeddings["semantic"].shape[1]
    config = IntSRConfig(
        num_items=len(catalog),
        text_size=width if sizes.pop("use_text") else 0,
        query_size=width,
        num_actions=max(1, len(processor.actions)),
        num_geohashes=len(processor.geohashes),
        max_history=windows.max_history,
        max_position_distance=4 * windows.max_history,
        negatives={"uniform": "sampled", "popularity": "sampled"}.get(windows.negatives, windows.negatives),
        num_hard_negatives=windows.num_training_negatives,
        align_candidates=windows.align_candidates,
        correct_sampling=windows.correct_sampling,
        **fusion_settings(windows, sasrec),
        **sizes,
    )
    model = IntSRForSearchAndRecommendation(config)
    model.set_catalog(catalog)
    if windows.start_from_sasrec:
        model.items.start_ids(catalog.embeddings["collaborative"])
    if windows.recommender_weight and sasrec is not None:
        model.set_recommender(sasrec)
    return model


def make_intsr_collator(
    windows: TrainingWindows,
    catalog: Catalog,
    processor: IntSRProcessor,
    settings: WindowArguments,
    *,
    ranks: bool,
    seed: int,
) -> WindowCollator:
    """Make what gives batches: with negatives where the retrieval or the ranking loss needs them."""
    settings = settings.for_catalog(len(catalog))
    kind: SampledKind | None = "uniform" if ranks or settings.negatives == "uniform" else None
    if settings.negatives == "popularity":
        kind = "popularity"
    return make_window_collator(windows, catalog, processor.query_vectors, settings, kind=kind, seed=seed)


def training_stages(
    windows: TrainingWindows, settings: WindowArguments, training: TrainingArguments
) -> list[tuple[str, TrainingWindows, TrainingArguments]]:
    """Give what is trained one after the other: one stage, or recommendation and then search (IntSR, KuaiSAR).

    Returns:
        `list[tuple]`: The name of each stage's folder, its windows, and its arguments.

    Raises:
        ConfigurationError: If two stages are asked for one task.
    """
    if not settings.search_stage_num_epochs:
        return [("trainer", windows, training)]
    if settings.tasks != "joint":
        raise ConfigurationError(
            f"`search_stage_num_epochs` is {settings.search_stage_num_epochs} and `tasks` {settings.tasks!r}; two "
            "stages need `tasks: joint`."
        )
    second = copy.deepcopy(training)
    second.num_train_epochs = settings.search_stage_num_epochs
    return [
        ("trainer-recommendation", windows.select(RECOMMENDATION), training),
        ("trainer-search", windows.select(SEARCH), second),
    ]


__all__ = [
    "make_intsr_collator",
    "make_intsr_model",
    "make_intsr_processor",
    "make_windows",
    "training_stages",
    "with_lifetimes",
]
