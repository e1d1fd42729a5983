# SPDX-License-Identifier: Apache-2.0
"""The recipe of IntSR, and of plain HSTU."""

from __future__ import annotations

from dataclasses import dataclass

from seekrec.corpora.training_windows import log_geohashes
from seekrec.models import IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor
from seekrec.recipes.window_recipe import WindowRecipe
from seekrec.schema import RECOMMENDATION, Behavior

# Characters of a geohash that tell areas apart; five are about five kilometres.
GEOHASH_PRECISION = 5


@dataclass
class IntSRRecipe(WindowRecipe[IntSRForSearchAndRecommendation, IntSRProcessor]):
    """IntSR, or plain HSTU.

    Args:
        config ([`IntSRConfig`]): The decoder and its losses.
    """

    config: IntSRConfig

    @property
    def model_type(self) -> type[IntSRForSearchAndRecommendation]:
        """The family's model."""
        return IntSRForSearchAndRecommendation

    @property
    def processor_type(self) -> type[IntSRProcessor]:
        """The family's processor."""
        return IntSRProcessor

    @property
    def name(self) -> str:
        """IntSR, or HSTU without placeholders."""
        return "HSTU" if "placeholders" in self.config.without else "IntSR"

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """Behaviors that the model is trained and evaluated on; plain HSTU reads no query and only recommends."""
        return (RECOMMENDATION,) if "placeholders" in self.config.without else super().behaviors

    @property
    def geohashes(self) -> list[str]:
        """The areas that the model tells apart.

        Raises:
            DataError: If the scenario shall hold a geohash and training has none.
        """
        if not self.geohash_length:
            return []
        if self.parts is not None:
            return self.parts.geohashes()
        return log_geohashes(self.split, GEOHASH_PRECISION)

    @property
    def geohash_length(self) -> int:
        """Characters of the geohashes that the model reads; 0 if it reads none."""
        return GEOHASH_PRECISION if "geohash" in self.config.scenario_features else 0

    @property
    def use_session_mask(self) -> bool:
        """Whether the events of a session are hidden from its questions."""
        return "session_mask" not in self.config.without

    @property
    def is_aligned(self) -> bool:
        """Whether items are drawn among those available at the time."""
        return "alignment" not in self.config.without

    @property
    def num_ranked_negatives(self) -> int:
        """Number of items that the ranking head sees alongside a target in training."""
        return self.config.num_ranking_negatives

    def from_data(self) -> dict[str, object]:
        """Return the fields of the configuration that the log decides."""
        return {"num_geohashes": len(self.processor.geohashes)}

    def report(self, model: IntSRForSearchAndRecommendation) -> None:
        """Print how well the probabilities of the ranking head are calibrated."""
        if model.ranking_head is not None:
            self.print_calibration(model)


__all__ = ["GEOHASH_PRECISION", "IntSRRecipe"]
