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

    The sequence (section 3.1):

    Args:
        merge_event_tokens (`bool`):
            Whether an event is one token, the sum of its parts, in place of up to four (S, Q, I, F). Off in the paper;
            three to four times fewer tokens.
        use_scenario_tokens (`bool`):
            Whether an S token opens each session. Off: table 4, "w/o S"; DSFNet still reads the scenario.
        scenario_features (`list[str]`):
            What a scenario says: `hour` and `weekday` (UTC) of the timestamp and the area (`geohash`), in S tokens;
            and the `page`, a feed or the results of a search, in the tokens of items and placeholders, because a
            session may hold both.
        use_queries (`bool`): Whether queries are read. Off: table 4, "w/o search queries".

    The decoder (section 3.3):

    Args:
        use_placeholders (`bool`):
            Whether questions are placeholders. Off: plain HSTU. The state of the last token is then compared with
            items, attention is divided by `max_history`, queries of requests are not read, and `rank` orders by
            retrieval.
        use_session_mask (`bool`): Whether the events of a session are hidden from its questions. Off: table 4, "w/o
            session mask".
        relative_bias (`str`):
            What attention adds for the distance of two tokens: `position`, a learned number by distance in tokens, in
            the buckets of T5; `alibi`, that and minus a slope a head times `log2(1 + seconds)`; `buckets`, that and a
            learned number by the logarithm of seconds, as in HSTU; `none` (table 4, "w/o relative bias").
        num_position_buckets (`int`): Number of buckets by distance in tokens; half of them for one distance each, the
            others up to four times `max_history`.

    What follows it (section 3.4):

    Args:
        use_dsfnet (`bool`): Whether scenarios mix the layers. Off: plain layers (table 4, "w/o DSFNet").
        num_dsf_layers (`int`): Layers of DSFNet; 0 for none, nor any in its place.

    Learning (section 3.5):

    Args:
        align_candidates (`bool`): Whether targets are compared only with items that were available at the time.
        ranking_weight (`float`): Weight of the ranking loss on candidates; 0 for no ranking head, and `rank` orders by
            retrieval.
        num_ranking_negatives (`int`): Number of drawn items that are ranked beside each target.

    Raises:
        StrictDataclassClassValidationError: If a number is out of range, or settings contradict each other.
    """

    model_type = "intsr"
    fields_from_data: ClassVar[tuple[str, ...]] = (*DenseConfig.fields_from_data, "num_geohashes")
    fixed_settings: ClassVar[dict[str, object]] = {
        **DenseConfig.fixed_settings,
        "temperature": 1.0,
        "num_scenarios": 2,
    }

    num_geohashes: int = 0

    merge_event_tokens: bool = False
    use_scenario_tokens: bool = True
    scenario_features: list[Literal["hour", "weekday", "page", "geohash"]] = field(
        default_factory=lambda: ["hour", "weekday", "page"]
    )
    use_queries: bool = True

    use_placeholders: bool = True
    use_session_mask: bool = True
    relative_bias: Literal["alibi", "buckets", "position", "none"] = "alibi"
    num_position_buckets: int = 32

    use_dsfnet: bool = True
    num_dsf_layers: int = 3

    align_candidates: bool = True
    ranking_weight: float = 0.0
    num_ranking_negatives: int = 4

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
        # Both follow from other settings today.
        length = settings.get("max_history")
        own = {
            "max_position_distance": 4 * (length if isinstance(length, int) else cls.max_history),
            "attention_scale": "visible" if settings.get("use_placeholders", True) else "length",
        }
        cls._drop_fixed(settings, own)
        if "num_hard_negatives" in settings:
            settings["num_training_negatives"] = settings.pop("num_hard_negatives")
        if "time_bias" in settings:
            time_bias, has_position = settings.pop("time_bias"), settings.pop("use_position_bias", True)
            if time_bias != "none" and not has_position:
                raise ValueError(
                    f"`time_bias` is {time_bias!r} without `use_position_bias`, which is no longer known."
                )
            settings["relative_bias"] = "position" if time_bias == "none" and has_position else time_bias
        if settings.get("negatives") == "sampled":
            settings["negatives"] = "popularity" if settings.get("correct_sampling") else "uniform"
        return settings

    def validate_intsr(self) -> None:
        """Check what IntSR has beside the settings of [`DenseConfig`]."""
        self._check_at_least(1, "num_position_buckets", "num_ranking_negatives")
        self._check_at_least(0, "num_geohashes", "num_dsf_layers", "ranking_weight")
        if "geohash" in self.scenario_features and self.num_items and not self.num_geohashes:
            raise ValueError("`num_geohashes` is 0; with 'geohash' in `scenario_features` it must be at least 1.")
        if self.ranking_weight and not self.use_placeholders:
            raise ValueError("`ranking_weight` needs `use_placeholders`: candidates stand in placeholders.")
        if self.starts_from_latest_item and not self.use_placeholders:
            raise ValueError(
                "`starts_from_latest_item` needs `use_placeholders`: plain HSTU compares the state of the latest item "
                "as it is."
            )


__all__ = ["IntSRConfig"]
