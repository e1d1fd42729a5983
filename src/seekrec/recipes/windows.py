# SPDX-License-Identifier: Apache-2.0
"""What the recipes of IntSR and SynerGen share: windows of events, and trainings on their questions."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from transformers import TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora.targets import report_questions
from seekrec.corpora.training_windows import TrainingWindows, build_training_windows, log_actions
from seekrec.errors import ConfigurationError, LeakageError
from seekrec.events import Split
from seekrec.events.sessions import guess_session_ids
from seekrec.recipes.items import PreparedItems
from seekrec.recipes.recipe import ModelT, ProcessorT, Recipe
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior
from seekrec.training.event_windows import WindowCollator, make_window_trainer
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer
from seekrec.training.window_arguments import WindowArguments

logger = logging.getLogger(__name__)


@dataclass
class WindowRecipe(Recipe[ModelT, ProcessorT]):
    """What the recipes of IntSR and SynerGen share.

    Args:
        window ([`WindowArguments`]): Windows, what they ask and how it is learned.
    """

    window: WindowArguments

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """What the model is trained and asked for."""
        return BEHAVIORS if self.window.tasks == "joint" else (self.window.tasks,)

    @property
    def remove_seen(self) -> bool:
        """Whether full ranking rules out the items of the history."""
        return self.window.remove_seen

    @property
    def on_offer_only(self) -> bool:
        """Whether full ranking rules out items that are not available when a request is made."""
        return self.window.on_offer_only

    def prepare_items(self) -> PreparedItems:
        """Make the catalogue, and set when its items are available."""
        items = super().prepare_items()
        return replace(items, catalog=with_lifetimes(items.catalog, self.split, self.window))

    @abstractmethod
    def make_windows(self) -> TrainingWindows:
        """Cut training into windows."""

    def prepare_corpus(self) -> None:
        """Cut training into windows with their questions."""
        self.windows = self.make_windows()
        logger.info("windows: %d with %d questions", len(self.windows), len(self.windows.behavior))

    @abstractmethod
    def make_collator(self, windows: TrainingWindows) -> WindowCollator:
        """Make what gives batches of windows."""

    def make_trainers(
        self, model: ModelT, evaluate_model: EvaluateModel
    ) -> Iterator[tuple[GenerativeTrainer, Mapping[str, object]]]:
        """Make the training of all questions at once, or of recommendations and then of searches."""
        for folder, windows, training in training_stages(self.windows, self.window, self.training):
            training.output_dir = str(self.output_dir / folder)
            trainer = make_window_trainer(
                model, self.make_collator(windows), training, settings=self.window, evaluate_model=evaluate_model
            )
            yield trainer, {"windows": windows}


def with_lifetimes(catalog: Catalog, split: Split, settings: WindowArguments) -> Catalog:
    """Make items available from the first act on them in training on, where the settings ask for it.

    Items on which nobody acted in training stay as the catalogue has them: what came later is not known.
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
        split (`Split`): Split whose training events are read.
        catalog ([`Catalog`]): The items.
        settings ([`WindowArguments`]): Length, tasks, and what `session_id` means.
        geohashes (`Sequence[str]`): Geohashes that the processor knows.
        use_session_mask (`bool`): Whether the events of a session are hidden from its questions.

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


def training_stages(
    windows: TrainingWindows, settings: WindowArguments, training: TrainingArguments
) -> list[tuple[str, TrainingWindows, TrainingArguments]]:
    """Return what is trained one after the other: one stage, or recommendation and then search (IntSR, KuaiSAR).

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


__all__ = ["WindowRecipe", "make_windows", "training_stages", "with_lifetimes"]
