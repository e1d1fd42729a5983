# SPDX-License-Identifier: Apache-2.0
"""Views of the log beside a model: before training at fixed weights, or after it at those that validation chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from seekrec.catalog import Catalog
from seekrec.evaluation.view_weights import choose_view_weights
from seekrec.events import Split
from seekrec.models.processing import CatalogProcessor
from seekrec.models.views import BY_VALIDATION, ViewedModel, Views, read_view_weights
from seekrec.recipes.arguments import SPLIT_SEED, EvaluationArguments
from seekrec.recipes.items import PreparedItems
from seekrec.schema import Behavior

ModelT = TypeVar("ModelT", bound=ViewedModel)
# Validation cases of each task that weights are learned from: a handful of numbers needs no more.
_MAX_CASES = 1000


class RunOfRecipe(Protocol):
    """What is read of a [`Recipe`] that has its items."""

    split: Split
    catalog: Catalog
    items: PreparedItems
    evaluation: EvaluationArguments

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
    if read_view_weights(model.config.view_weights):
        model.set_views(Views.fit(recipe.split, recipe.catalog, recipe.items.sasrec))
    return model


def choose_views(recipe: RunOfRecipe, model: ViewedModel) -> None:
    """Add views to the answers of a trained model, weighed by validation, where its settings ask for it.

    Args:
        recipe ([`RunOfRecipe`]): The run.
        model ([`ViewedModel`]): As it will answer.
    """
    if list(model.config.view_weights) != [BY_VALIDATION]:
        return
    choose_view_weights(
        model,
        recipe.processor,
        recipe.split,
        Views.fit(recipe.split, recipe.catalog, recipe.items.sasrec),
        behaviors=recipe.behaviors,
        remove_seen=recipe.remove_seen,
        available_only=recipe.available_only,
        max_cases=min(recipe.evaluation.max_validation_cases or _MAX_CASES, _MAX_CASES),
        seed=SPLIT_SEED,
    )


__all__ = ["RunOfRecipe", "add_views", "choose_views"]
