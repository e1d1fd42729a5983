# SPDX-License-Identifier: Apache-2.0
"""The recipe of SynerGen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seekrec.evaluation import build_cases, choose_head, click_calibration, ranking_by
from seekrec.models import SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor
from seekrec.recipes.windows import WindowRecipe


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

    def from_data(self) -> dict[str, object]:
        """Return the fields of the configuration that the log decides: requests ask for its most frequent action."""
        actions = self.split.log.events["action"].take(self.split.training_acts()).to_numpy(zero_copy_only=False)
        counts = [int(np.sum(actions == name)) for name in self.processor.actions]
        return {"asked_action": 1 + int(np.argmax(counts)) if counts else 0}

    def finish(self, model: SynerGenForSearchAndRecommendation) -> None:
        """Choose the head that ranks, where validation shall say which."""
        if model.config.rank_by != "validation":
            return
        if model.ranking_head is None:
            model.config.rank_by = "retrieval"
            return
        validation = self.make_validation(self.evaluation.candidate_protocols or ("uniform",))
        choose_head(model, self.make_retriever(model), validation)

    def report(self, model: SynerGenForSearchAndRecommendation) -> None:
        """Print how well the probabilities of clicks are calibrated."""
        if model.ranking_head is None or model.config.drawn_negatives is None:
            return
        # As many negatives as in training, and drawn alike: the share of clicks that the model learned.
        for behavior in self.behaviors:
            cases = build_cases(
                self.split,
                self.catalog.id_map,
                behavior=behavior,
                protocol=model.config.drawn_negatives,
                num_negatives=model.config.num_training_negatives,
                max_cases=self.evaluation.max_test_cases,
                seed=self.data.split_seed,
            )
            with ranking_by(model, "ranking"):
                error = click_calibration(self.make_retriever(model), cases, self.catalog.id_map)
            print(f"{behavior}: expected calibration error of click probabilities {error:.4f} ({len(cases)} cases)")


__all__ = ["SynerGenRecipe"]
