# SPDX-License-Identifier: Apache-2.0
"""Train a second time, including the held-out events, with what validation chose the first time.

Held-out events are each user's latest, and a deployed model should know them. So once epochs, weights of views and the
like are chosen, everything trained on events is trained again on more of them: SASRec, identifiers, the model, its
views and, if there is still a test, its baselines. The chosen epochs, weights and settings stay; nothing is validated
again.
"""

from __future__ import annotations

import copy
import logging

from seekrec.events.split import LearnedAlso
from seekrec.recipes.answering import ModelT, ProcessorT
from seekrec.recipes.recipe import Recipe
from seekrec.recipes.record import EVERYTHING, MODEL_FOLDER, save_trained
from seekrec.recipes.views import asks_validation, relearn_views

logger = logging.getLogger(__name__)


def run_twice(recipe: Recipe[ModelT, ProcessorT]) -> None:
    """Run a recipe whose `refit` is set, up to its `stop_after`.

    With `validation` the model of the second training is saved and tested, alongside baselines that have learned from
    the same events. With `everything` the model of the first is saved and tested, then replaced by one that has
    learned from the test, too: `results.json` is the test of the first, and `run.json` says so.

    Args:
        recipe ([`Recipe`]): The recipe, which has not run.
    """
    model = recipe.fit()
    if model is None:
        return
    is_tested = recipe.running.stop_after == "evaluation"
    if recipe.running.refit == "validation":
        again = prepare_again(recipe, "validation")
        trained = train_again(again, model)
        save_trained(trained, again.processor, recipe.split, recipe.output_dir)
        if is_tested:
            again.test(trained)
        return
    save_trained(model, recipe.processor, recipe.split, recipe.output_dir)
    rows = recipe.test(model) if is_tested else []
    again = prepare_again(recipe, EVERYTHING)
    save_trained(train_again(again, model), again.processor, recipe.split, recipe.output_dir)
    if is_tested:
        again.record(rows)
        logger.info("%s contains a model trained on all events; the table is of the model before it.", MODEL_FOLDER)


def prepare_again(recipe: Recipe[ModelT, ProcessorT], also: LearnedAlso) -> Recipe[ModelT, ProcessorT]:
    """Make the recipe of a second training, with its split.

    Args:
        recipe ([`Recipe`]): What has trained the first.
        also (`str`): What it learns besides.
    """
    again = recipe.learn_held_out(also)
    again.trainer_folder = f"{recipe.trainer_folder}-refit"
    again.training = copy.deepcopy(recipe.training)
    again.take_epochs(recipe)
    again.refit_record = {
        "learned_from": also,
        "num_events": _count_events(again),
        "num_events_before": _count_events(recipe),
        "num_train_epochs": again.training.num_train_epochs,
        "sasrec_num_epochs": again.embedding.sasrec_num_epochs,
    }
    logger.info("trained a second time, with what validation chose: %s", again.refit_record)
    return again


def train_again(again: Recipe[ModelT, ProcessorT], chosen: ModelT) -> ModelT:
    """Train the second model; what validation chose for the first it takes over.

    Args:
        again ([`Recipe`]): From [`prepare_again`].
        chosen ([`ViewedModel`]): The first model, complete.
    """
    model = again.fit_split(choose=False)
    assert model is not None
    # Those of fixed weights are there.
    if asks_validation(model):
        relearn_views(again, model, chosen)
    for name in chosen.chosen_fields:
        setattr(model.config, name, copy.copy(getattr(chosen.config, name)))
    return model


def _count_events(recipe: Recipe[ModelT, ProcessorT]) -> int:
    """Return the events that training may use."""
    return len(recipe.split.train_rows) if recipe.parts is None else recipe.parts.split.counts.num_train_events


__all__ = ["prepare_again", "run_twice", "train_again"]
