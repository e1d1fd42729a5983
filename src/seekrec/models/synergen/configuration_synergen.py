# SPDX-License-Identifier: Apache-2.0
"""The settings of a SynerGen model.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

import math
from dataclasses import field
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict

from seekrec.models.dense.configuration_dense import DenseConfig

# tau, section 3.5.
PAPER_TEMPERATURE = 0.085
# Of the ranking loss, next to that of retrieval (section 3.5).
PAPER_RANKING_WEIGHT = 1.0


@strict
class SynerGenConfig(DenseConfig):
    """Configuration of [`SynerGenForSearchAndRecommendation`]; what IntSR has too stands in [`DenseConfig`].

    The paper gives no sizes; these are small.

    The data it is made for:

    Args:
        asked_action (`int`): Number of the action that requests ask for, 1 for the first of the processor's list.
        rank_by (`str`): What `rank` answers with: `ranking`, the click probability, or `retrieval`, the score that
            `retrieve` gives; `validation` until the one is chosen that orders validation candidates better.
        fusion_size (`int`): Width inside the MLP that fuses the parts of a token; 0 for
            the geometric mean of `hidden_size` and `intermediate_size`, rounded up to a multiple of eight.

    The tokens (sections 3.2 and 3.3):

    Args:
        queries_in_context (`bool`):
            Whether context tokens read the query of their event too, and searches without an item are tokens. Off in
            the paper, whose context is query-free.

    The decoder (sections 3.3 and 3.4):

    Args:
        intermediate_size (`int`): Width of the feed-forward layers.
        time_encoding (`str`):
            What attention rotates by: `time`, seconds; `order`, the number of the token (table 4, "w/o time-based
            RoPE"); `both`, half of the pairs each. `learned_time` and `learned_both` train the time scales, too.
        time_scales (`list[float]`): Shortest and longest time scale, in seconds: a rotation by one full turn. Those
            between grow geometrically.
        use_target_time (`bool`):
            Whether questions stand at the time they are asked. Off: at that of the last event they see (table 4, "w/o
            target time info.").

    Learning (section 3.5):

    Args:
        easy_weight (`float`): alpha, the weight of easy negatives, which `negatives: full` makes all items, and the
            other targets of the batch otherwise; hard ones, shown or drawn together with a target, have one minus
            that.

    Raises:
        StrictDataclassClassValidationError: If a number is out of range, or settings contradict each other.
    """

    model_type = "synergen"
    fields_from_data: ClassVar[tuple[str, ...]] = (
        *DenseConfig.fields_from_data,
        *("asked_action", "rank_by", "fusion_size"),
    )
    fixed_settings: ClassVar[dict[str, object]] = {
        **DenseConfig.fixed_settings,
        "align_tasks": True,
        "use_question_action": True,
        "rotary_fraction": 1.0,
        "pairwise_weight": 1.0,
        "use_session_mask": True,
    }

    renamed_settings: ClassVar[dict[str, str]] = {
        **DenseConfig.renamed_settings,
        "min_period": "time_scales",
        "max_period": "time_scales",
        "learn_time_scales": "time_encoding",
    }

    asked_action: int = 1
    rank_by: Literal["validation", "ranking", "retrieval"] = "validation"
    fusion_size: int = 0

    queries_in_context: bool = False

    intermediate_size: int = 256
    time_encoding: Literal["time", "order", "both", "learned_time", "learned_both"] = "time"
    # Up to ten years.
    time_scales: list[float] = field(default_factory=lambda: [8.0, 3.2e8])
    use_target_time: bool = True

    temperature: float = PAPER_TEMPERATURE
    easy_weight: float = 0.1
    ranking_weight: float = PAPER_RANKING_WEIGHT

    def __post_init__(self, **kwargs: object) -> None:
        if not self.fusion_size:
            self.fusion_size = 8 * math.ceil(math.sqrt(self.hidden_size * self.intermediate_size) / 8)
        super().__post_init__(**kwargs)

    @property
    def drawn_negatives(self) -> Literal["uniform", "popularity"] | None:
        """How items are drawn that stand next to a target as if shown; None where no loss needs them."""
        if self.negatives == "popularity":
            return "popularity"
        return None if not self.ranking_weight and self.easy_weight == 1 else "uniform"

    @classmethod
    def _upgrade(cls, settings: dict[str, object]) -> dict[str, object]:
        """Return saved settings under the names of today."""
        settings = dict(settings)
        if "easy_negatives" in settings:
            settings["negatives"] = "full" if settings.pop("easy_negatives") == "full" else "popularity"
        settings.pop("correct_popularity", None)
        if settings.pop("learn_time_scales", False) and settings.get("time_encoding", "time") != "order":
            settings["time_encoding"] = f"learned_{settings.get('time_encoding', 'time')}"
        if "min_period" in settings:
            settings["time_scales"] = [settings.pop("min_period"), settings.pop("max_period")]
        return settings

    def validate_synergen(self) -> None:
        """Check what SynerGen has in addition to the settings of [`DenseConfig`]."""
        self._check_at_least(1, "intermediate_size", "fusion_size")
        if not 0 <= self.easy_weight <= 1:
            raise ValueError(f"`easy_weight` is {self.easy_weight}; it must be from 0 to 1.")
        if not 0 <= self.asked_action <= self.num_actions:
            raise ValueError(f"`asked_action` is {self.asked_action}; it must be from 0 to {self.num_actions}.")
        if len(self.time_scales) != 2 or not 0 < self.time_scales[0] <= self.time_scales[1]:
            raise ValueError(
                f"`time_scales` is {self.time_scales}; give the shortest, above 0, and the longest, not below it."
            )

    def validate_negatives(self) -> None:
        """Check that the negatives are among SynerGen's."""
        if self.negatives == "hard":
            raise ValueError(
                "`negatives` is 'hard', but SynerGen's hard negatives are the impressions; choose full, uniform or "
                "popularity."
            )


__all__ = ["SynerGenConfig"]
