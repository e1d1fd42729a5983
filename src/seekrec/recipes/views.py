# SPDX-License-Identifier: Apache-2.0
"""Add views of the log to a model: with fixed weights before training, or with weights from validation after it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from seekrec.catalog import Catalog
from seekrec.embeddings import NeighborTables
from seekrec.evaluation.view_weights import choose_view_weights
from seekrec.events import Split
from seekrec.models.processing import CatalogProcessor
from seekrec.models.views import (
    ANSWER_VIEWS,
    BY_VALIDATION,
    LexicalSettings,
    ViewedModel,
    Views,
    used_views,
    write_view_weights,
)
from seekrec.recipes.arguments import SPLIT_SEED, EvaluationArguments
from seekrec.recipes.fit import as_answering, count_view_cases, time_cases
from seekrec.recipes.items import PreparedItems
from seekrec.recipes.partitioned import PartitionedData
from seekrec.recipes.stages import StageCache
from seekrec.schema import Behavior

logger = logging.getLogger(__name__)

# Weighing views may take so much of the time that is left: training is worth more than what is added to its answers.
_MOST_OF_TIME = 0.25
_LEFT_OUT = "weighing them; the model answers without"

# What stands behind the name of a model in tables that answers by its own scores alongside one with views.
ALONE = " without views"

ModelT = TypeVar("ModelT", bound=ViewedModel)


class RunOfRecipe(Protocol):
    """What is read of a [`Recipe`] that has its items."""

    split: Split
    parts: PartitionedData | None
    catalog: Catalog
    items: PreparedItems
    evaluation: EvaluationArguments
    views: Views | None
    neighbors: NeighborTables | None
    finishing_cases: int | None
    cache: StageCache

    @property
    def processor(self) -> CatalogProcessor:
        """The processor."""

    @property
    def behaviors(self) -> Sequence[Behavior]:
        """Behaviors that the model is trained and evaluated on."""

    @property
    def remove_seen(self) -> bool:
        """Whether full ranking rules out the items of the history."""

    @property
    def available_only(self) -> bool:
        """Whether full ranking rules out items that are not available when a request is made."""


def add_views(recipe: RunOfRecipe, model: ModelT) -> ModelT:
    """Add views to the answers of a model that is to be trained, where its settings weigh them, and return it.

    Args:
        recipe ([`RunOfRecipe`]): The run.
        model ([`ViewedModel`]): With start weights.
    """
    if names := used_views(model.view_weights):
        model.set_views(_fit_views(recipe, names))
    return model


def fixed_views(model: ViewedModel) -> list[str]:
    """Return the weights of views by which a model answers while it is trained."""
    return write_view_weights(model.view_weights)


def choose_views(recipe: RunOfRecipe, model: ViewedModel) -> None:
    """Add views to the answers of a trained model, weighed by validation, where its settings ask for it.

    Args:
        recipe ([`RunOfRecipe`]): The run.
        model ([`ViewedModel`]): As it will answer.
    """
    if not asks_validation(model):
        return
    if recipe.finishing_cases == 0 and not model.finds_by_views:
        model.config.view_weights = []
        recipe.cache.leave_out("views", _LEFT_OUT)
        return
    views = _fit_views(recipe) if recipe.views is None else recipe.views
    recipe.views = None
    is_timed = recipe.finishing_cases is not None
    wanted = count_view_cases(recipe.evaluation.max_validation_cases, is_timed=is_timed)
    most = wanted if recipe.finishing_cases is None else min(recipe.finishing_cases, wanted)
    if most < wanted:
        recipe.cache.leave_out("views", f"{wanted - most:,} of {wanted:,} validation cases that weigh them")
    for behavior, found in _choose(recipe, model, views, most).items():
        logger.info("views of %s: %s", behavior, ", ".join(f"{name} {value:.4g}" for name, value in found.items()))


@contextmanager
def timed_views(recipe: RunOfRecipe, model: ViewedModel) -> Iterator[tuple[float, float]]:
    """Time how long choosing the weights of views will take, and let the model answer with those found meanwhile.

    Afterwards the model is as it was. The views are kept for `choose_views`, so that what they take is spent before
    training. Where choosing takes so long that training would get little, the model is left without.

    Args:
        recipe ([`RunOfRecipe`]): The run.
        model ([`ViewedModel`]): The model, trained or not.

    Yields:
        `tuple[float, float]`: Seconds without cases, and of a validation case of each behavior together; 0 where the
        settings do not ask for it.
    """
    if not asks_validation(model):
        yield 0.0, 0.0
        return
    if recipe.cache.seconds_left() < recipe.cache.reserve and not model.finds_by_views:
        # Making them would take what training and saving need.
        recipe.finishing_cases = 0
        yield 0.0, 0.0
        return
    views = recipe.views = _fit_views(recipe) if recipe.views is None else recipe.views
    settings = list(model.config.view_weights)

    try:
        with as_answering(model):
            seconds = time_cases(lambda number: _choose(recipe, model, views, number))
        if seconds[0] > _MOST_OF_TIME * recipe.cache.seconds_left() and not model.finds_by_views:
            recipe.cache.leave_out("views", _LEFT_OUT)
            recipe.views, settings, seconds = None, [], (0.0, 0.0)
            model.set_views(None)
            model.config.view_weights = settings
        yield seconds
    finally:
        model.set_views(None)
        model.config.view_weights = settings


def asks_validation(model: ViewedModel) -> bool:
    """Return whether the weights of a model's views are still to be chosen by validation."""
    return list(model.config.view_weights) == [BY_VALIDATION]


def without_views(name: str, model: ModelT) -> dict[str, ModelT]:
    """Return, by its name in tables, a model by its own scores; nothing where it answers by them anyway."""
    return {} if model.views is None else {f"{name}{ALONE}": model.without_views()}


def count_neighbors(recipe: RunOfRecipe) -> NeighborTables:
    """Return the nearest items of each by who acted on them in training, for baselines; counted by the first call.

    Args:
        recipe ([`RunOfRecipe`]): The run.
    """
    if recipe.neighbors is None:
        splits = [recipe.split] if recipe.parts is None else recipe.parts.split
        recipe.neighbors = NeighborTables.fit(splits, recipe.catalog.id_map)
    return recipe.neighbors


def relearn_views(recipe: RunOfRecipe, model: ViewedModel, chosen: ViewedModel) -> None:
    """Add views to a model's answers, made of this run's events as those of another were that validation chose.

    Args:
        recipe ([`RunOfRecipe`]): The run.
        model ([`ViewedModel`]): Gets them.
        chosen ([`ViewedModel`]): Has the views, and the weights in its configuration.
    """
    if (before := chosen.views) is None:
        return
    words = None if before.lexical is None else before.lexical.settings
    model.set_views(_fit_views(recipe, used_views(chosen.view_weights), words))


def _fit_views(
    recipe: RunOfRecipe, names: Collection[str] = ANSWER_VIEWS, words: LexicalSettings | None = None
) -> Views:
    whole = None if recipe.parts is None else recipe.parts.split
    # What baselines count, too, is counted once.
    is_shared = "item_knn" in names and "item_knn" in recipe.evaluation.more_baselines
    others = [name for name in names if name != "item_knn"] if is_shared else names
    views = Views.fit(recipe.split, recipe.catalog, recipe.items.sasrec, words, whole=whole, names=others)
    return replace(views, item_knn=count_neighbors(recipe).of_view()) if is_shared else views


def _choose(recipe: RunOfRecipe, model: ViewedModel, views: Views, max_cases: int) -> dict[Behavior, dict[str, float]]:
    return choose_view_weights(
        model,
        recipe.processor,
        recipe.split,
        views,
        behaviors=recipe.behaviors,
        remove_seen=recipe.remove_seen,
        available_only=recipe.available_only,
        max_cases=max_cases,
        seed=SPLIT_SEED,
    )


__all__ = [
    *(
        "ALONE",
        "RunOfRecipe",
        "add_views",
        "asks_validation",
        "choose_views",
        "count_neighbors",
        "fixed_views",
        "relearn_views",
        "timed_views",
    ),
    "without_views",
]
