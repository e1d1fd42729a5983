# SPDX-License-Identifier: Apache-2.0
"""The recipe of SynerGen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seekrec.evaluation import Retriever, ValidationRanking
from seekrec.evaluation.metrics import SELECTION_METRIC
from seekrec.models import SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor
from seekrec.recipes.window_recipe import WindowRecipe

logger = logging.getLogger(__name__)

# The first is kept where both are equally good: its scores are probabilities of a click.
Head = Literal["validation", "ranking", "retrieval"]
HEADS: tuple[Head, ...] = ("ranking", "retrieval")


@dataclass
class SynerGenRecipe(WindowRecipe[SynerGenForSearchAndRecommendation, SynerGenProcessor]):
    """SynerGen: one decoder with a retrieval and a ranking head.

    Args:
        config ([`SynerGenConfig`]): The decoder and its losses.
    """

    config: SynerGenConfig
    name = "SynerGen"
    # What is drawn stands for items that were shown and not clicked.
    spares_own = True

    @property
    def model_type(self) -> type[SynerGenForSearchAndRecommendation]:
        """The family's model."""
        return SynerGenForSearchAndRecommendation

    @property
    def processor_type(self) -> type[SynerGenProcessor]:
        """The family's processor."""
        return SynerGenProcessor

    @property
    def num_ranked_negatives(self) -> int:
        """Number of items that the ranking head sees alongside a target in training."""
        return self.config.num_training_negatives

    def from_data(self) -> dict[str, object]:
        """Return the fields of the configuration that the log decides: requests ask for its most frequent action."""
        if self.parts is not None:
            counts = [self.parts.facts.action_counts.get(name, 0) for name in self.processor.actions]
        else:
            actions = self.split.log.events["action"].take(self.split.training_acts()).to_numpy(zero_copy_only=False)
            counts = [int(np.sum(actions == name)) for name in self.processor.actions]
        return {"asked_action": 1 + int(np.argmax(counts)) if counts else 0}

    def choose(self, model: SynerGenForSearchAndRecommendation) -> None:
        """Choose the ranking head by validation, if the settings request it, with the views that answers have."""
        with ranking_by(model, "ranking"):
            super().choose(model)
        if model.config.rank_by != "validation":
            return
        if model.ranking_head is None:
            model.config.rank_by = "retrieval"
            return
        if self.finishing_cases == 0:
            self.cache.leave_out("ranking", "choosing the head by validation; it ranks by retrieval")
            model.config.rank_by = "retrieval"
            return
        validation = self.make_validation(
            self.evaluation.candidate_protocols or ("uniform",), max_cases=self.num_finishing_cases
        )
        choose_head(model, self.make_retriever(model), validation)

    def count_finishing(self, model: SynerGenForSearchAndRecommendation) -> int:
        """Return how often `finish` ranks a validation case, in addition to what views take."""
        return super().count_finishing(model) + (2 if model.config.rank_by == "validation" else 0)

    def report(self, model: SynerGenForSearchAndRecommendation) -> None:
        """Print how well the probabilities of clicks are calibrated."""
        if model.ranking_head is not None:
            with ranking_by(model, "ranking"):
                self.print_calibration(model)


@contextmanager
def ranking_by(model: SynerGenForSearchAndRecommendation, head: Head) -> Iterator[None]:
    """Let `model.rank` answer with a head, and afterwards with the one it answered with before.

    Args:
        model (`PreTrainedModel`): Its configuration has `rank_by`.
        head (`str`): One of its choices.
    """
    before = model.config.rank_by
    model.config.rank_by = head
    try:
        yield
    finally:
        model.config.rank_by = before


def choose_head(
    model: SynerGenForSearchAndRecommendation,
    system: Retriever,
    validation: ValidationRanking,
) -> dict[str, float]:
    """Write into `model.config.rank_by` the head that orders the validation candidates better, and log it.

    Of heads that are as good, the first of `HEADS` is taken.

    Args:
        model (`PreTrainedModel`): Its configuration has `rank_by`.
        system ([`Retriever`]): Asks this very model.
        validation ([`ValidationRanking`]): Validation by protocols with candidates.

    Returns:
        `dict[str, float]`: For each head its mean NDCG@10.
    """
    found: dict[str, float] = {}
    for head in HEADS:
        with ranking_by(model, head):
            found[head] = validation(system)[SELECTION_METRIC]
    model.config.rank_by = max(HEADS, key=lambda head: found[head])
    found_text = ", ".join(f"{head} {value:.4f}" for head, value in found.items())
    logger.info("`rank` orders by the %s head; NDCG@10 of validation candidates: %s", model.config.rank_by, found_text)
    return found


__all__ = ["SynerGenRecipe", "choose_head", "ranking_by"]
