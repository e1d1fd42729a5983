# SPDX-License-Identifier: Apache-2.0
"""The settings of an IntSR model.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from dataclasses import field
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict

from seekrec.models.dense.configuration_dense import DenseConfig


@strict
class IntSRConfig(DenseConfig):
    """Configuration of [`IntSRForSearchAndRecommendation`]; what SynerGen has too stands in [`DenseConfig`].

    The data it is made for:

    Args:
        num_geohashes (`int`): Areas that are told apart; one more stands for all others.
        num_position_buckets (`int`): Number of buckets by distance in tokens; half of them for one distance each, the
            others up to four times `max_history`. 0 for the 32 of T5 where the largest is within 128, as there, and 64
            where it is farther.

    The sequence (section 3.1):

    Args:
        merge_event_tokens (`bool`):
            Whether an event is one token, the sum of its parts, in place of up to four (S, Q, I, F). Off in the paper;
            three to four times fewer tokens.
        scenario_features (`list[str]`):
            What a scenario says: `hour` and `weekday` (UTC) of the timestamp and the area (`geohash`), in S tokens,
            which there are if any of these is named; and the `page`, a feed or the results of a search, in the tokens
            of items and placeholders, because a session may contain both.

    The decoder (section 3.3):

    Args:
        relative_bias (`str`):
            What attention adds for the distance of two tokens: `position`, a learned number by distance in tokens, in
            the buckets of T5; `alibi`, that and minus a slope a head times `log2(1 + seconds)`; `buckets`, that and a
            learned number by the logarithm of seconds, as in HSTU; `none` (table 4, "w/o relative bias").

    What follows it (section 3.4):

    Args:
        num_dsf_layers (`int`): Layers of DSFNet; 0 for none, nor any in its place.

    Learning (section 3.5):

    Args:
        num_ranking_negatives (`int`): Number of drawn items that are ranked together with each target.

    What is left out (tables 3 and 4):

    Args:
        without (`list[str]`):
            Parts of the model that are left out: `scenario_tokens`, "w/o S", where DSFNet still reads the scenario;
            `session_mask`, so that questions see the events of their session;
            `dsfnet`, plain layers in its place; `alignment`, targets are compared with items that were not available
            at the time, too; `placeholders`, plain HSTU: the state of the last token is compared with items,
            attention is divided by `max_history`, queries of requests are not read, and `rank` orders by retrieval.

    Raises:
        StrictDataclassClassValidationError: If a number is out of range, or settings contradict each other.
    """

    model_type = "intsr"
    fields_from_data: ClassVar[tuple[str, ...]] = (
        *DenseConfig.fields_from_data,
        *("num_geohashes", "num_position_buckets"),
    )
    fixed_settings: ClassVar[dict[str, object]] = {
        **DenseConfig.fixed_settings,
        "num_scenarios": 2,
    }

    num_geohashes: int = 0
    num_position_buckets: int = 0

    merge_event_tokens: bool = False
    scenario_features: list[Literal["hour", "weekday", "page", "geohash"]] = field(
        default_factory=lambda: ["hour", "weekday", "page"]
    )

    relative_bias: Literal["alibi", "buckets", "position", "none"] = "alibi"

    num_dsf_layers: int = 3

    num_ranking_negatives: int = 4

    without: list[Literal["scenario_tokens", "session_mask", "dsfnet", "alignment", "placeholders"]] = field(
        default_factory=list
    )

    def __post_init__(self, **kwargs: object) -> None:
        if not self.num_position_buckets:
            self.num_position_buckets = 32 if 4 * self.max_history <= 128 else 64
        super().__post_init__(**kwargs)

    @property
    def has_scenario_tokens(self) -> bool:
        """Whether an S token opens each session: only if it says something."""
        return "scenario_tokens" not in self.without and any(name != "page" for name in self.scenario_features)

    @property
    def drawn_negatives(self) -> Literal["uniform", "popularity"] | None:
        """How items are drawn that a target is compared with or ranked among; None where no loss needs them."""
        if self.negatives == "popularity":
            return "popularity"
        return "uniform" if self.ranking_weight or self.negatives == "uniform" else None

    @classmethod
    def _upgrade(cls, settings: dict[str, object]) -> dict[str, object]:
        """Return saved settings under the names of today."""
        settings = dict(settings)
        # A switch each.
        switches = {
            "use_scenario_tokens": "scenario_tokens",
            "use_session_mask": "session_mask",
            "use_dsfnet": "dsfnet",
            "align_candidates": "alignment",
            "use_placeholders": "placeholders",
        }
        features, is_merged = settings.get("scenario_features"), settings.get("merge_event_tokens")
        if settings.get("use_scenario_tokens") and features in ([], ["page"]) and not is_merged:
            raise ValueError(
                f"The saved model uses S tokens of {features}, which were removed; load it with the version that "
                "wrote it."
            )
        left_out = [part for switch, part in switches.items() if not settings.pop(switch, True)]
        named = settings.get("without", left_out)
        left_out = [str(part) for part in named] if isinstance(named, list) else left_out
        if not settings.pop("use_queries", True) or "queries" in left_out:
            settings["query_reading"] = []
        settings["without"] = [part for part in left_out if part != "queries"]
        # Both follow from other settings today.
        length = settings.get("max_history")
        own = {
            "max_position_distance": 4 * (length if isinstance(length, int) else cls.max_history),
            "attention_scale": "length" if "placeholders" in left_out else "visible",
        }
        cls._drop_fixed(settings, own)
        if "num_hard_negatives" in settings:
            settings["num_training_negatives"] = settings.pop("num_hard_negatives")
        if "time_bias" in settings:
            time_bias, has_position = settings.pop("time_bias"), settings.pop("use_position_bias", True)
            if time_bias != "none" and not has_position:
                raise ValueError(
                    f"`time_bias` is {time_bias!r} without `use_position_bias`, which is no longer supported."
                )
            settings["relative_bias"] = "position" if time_bias == "none" and has_position else time_bias
        if settings.get("negatives") == "sampled":
            settings["negatives"] = "popularity" if settings.get("correct_sampling") else "uniform"
        return settings

    def validate_intsr(self) -> None:
        """Check what IntSR has in addition to the settings of [`DenseConfig`]."""
        self._check_at_least(1, "num_position_buckets", "num_ranking_negatives")
        self._check_at_least(0, "num_geohashes", "num_dsf_layers")
        if "geohash" in self.scenario_features and self.num_items and not self.num_geohashes:
            raise ValueError("`num_geohashes` is 0; with 'geohash' in `scenario_features` it must be at least 1.")
        if self.ranking_weight and "placeholders" in self.without:
            raise ValueError(
                f"`ranking_weight` is {self.ranking_weight}, but `without` names the placeholders, in which "
                "candidates are ranked; set the weight to 0."
            )
        if self.starts_from_latest_item and "placeholders" in self.without:
            raise ValueError(
                "`starts_from_latest_item` is on, but `without` names the placeholders: plain HSTU compares the state "
                "of the latest item as it is; switch it off."
            )


__all__ = ["IntSRConfig"]
