# SPDX-License-Identifier: Apache-2.0
"""The settings of an IntSR model.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from seekrec.models.dense.checks import check_settings

# What a scenario can say; every log has the first three.
SCENARIO_FEATURES = ("hour", "weekday", "page", "geohash")
DEFAULT_SCENARIO = SCENARIO_FEATURES[:3]


@strict
class IntSRConfig(PreTrainedConfig):
    """Configuration of [`IntSRForSearchAndRecommendation`]. The paper's sizes are those of its public data sets.

    The items and texts it is made for:

    Args:
        num_items (`int`): Items with an id embedding.
        text_size (`int`): Width of the items' text vectors; 0 for ids alone.
        query_size (`int`): Width of query vectors.
        use_ids (`bool`): Whether items have id embeddings; off for text alone.
        num_actions (`int`): Actions that are told apart; one more stands for all others.
        num_geohashes (`int`): Places that are told apart; one more stands for all others.
        max_history (`int`): Latest events read of a history.
        items_hash (`str`, *optional*): Hash of the ids of the items. A catalogue that begins otherwise is refused.
        texts_hash (`str`, *optional*): Likewise of the text vectors of the items.

    The sequence (section 3.1):

    Args:
        merge_event_tokens (`bool`):
            An event is one token, the sum of its parts, in place of up to four (S, Q, I, F). Off in the paper; three
            to four times fewer tokens.
        use_scenario_tokens (`bool`):
            An S token opens each session. Off: table 4, "w/o S"; DSFNet still reads the scenario.
        scenario_features (`list[str]`):
            What a scenario says: `"hour"` and `"weekday"` (UTC) of the timestamp and the place (`"geohash"`), in S
            tokens; and the `"page"`, a feed or the results of a search, in the tokens of items and placeholders,
            because a session may hold both.
        use_queries (`bool`): Off: queries are read nowhere (table 4, "w/o search queries").

    The decoder (section 3.3):

    Args:
        hidden_size (`int`): Width d.
        num_hidden_layers (`int`): Query-driven blocks h.
        num_attention_heads (`int`): Heads.
        dropout (`float`): On the output of each block.
        embedding_dropout (`float`): On the tokens.
        use_placeholders (`bool`):
            Off: plain HSTU. The state of the last token is what is compared with items; queries of requests are not
            read, and `rank` orders by retrieval.
        starts_from_latest_item (`bool`): A placeholder that retrieves begins with the vector of the latest item it
            sees too, as the state of SASRec does. Off in the paper.
        use_session_mask (`bool`): Off: a token sees all that came before it (table 4, "w/o session mask").
        use_position_bias (`bool`): A learned bias by distance in tokens, in the buckets of T5.
        num_position_buckets (`int`): Buckets; half of them for one distance each.
        max_position_distance (`int`): From here on one bucket.
        time_bias (`str`):
            `"alibi"`: minus a slope a head times `log2(1 + seconds)`; `"buckets"`: learned, by the logarithm of
            seconds, as in HSTU; `"none"`. Table 4, "w/o relative bias": `"none"` and no position bias.
        attention_scale (`str`): What a row of attention is divided by: `"visible"`, the keys it sees; `"length"`,
            `max_history`, as in HSTU.

    What follows it (section 3.4):

    Args:
        use_dsfnet (`bool`): Off: layers without scenarios in its place (table 4, "w/o DSFNet").
        num_scenarios (`int`): N_g.
        num_dsf_layers (`int`): Layers of DSFNet; 0 for none, nor any in its place.

    Learning (section 3.5):

    Args:
        similarity (`str`): `"dot"`, or `"cosine"`.
        temperature (`float`): Divides similarities.
        negatives (`str`): What a target is compared with: `"full"`, every item; `"sampled"`, the `negative_rows` of
            the batch; `"hard"`, the `num_hard_negatives` most similar items at that moment.
        num_hard_negatives (`int`): Of `"hard"`.
        align_candidates (`bool`): Compare only with items that were on offer when the question was asked.
        correct_sampling (`bool`): Take the log-probability of being drawn off sampled similarities.
        ranking_weight (`float`): Weight of the ranking loss on candidates; 0 leaves the ranking head untrained, and
            `rank` orders by retrieval.
        num_ranking_negatives (`int`): Of the batch's `negative_rows`, so many are ranked beside each target.
        recommender (`dict`, *optional*): Sizes of the SASRec whose score is added to that of recommendations, in
            `retrieve` and where there is no ranking head in `rank`; `set_recommender` brings it. In neither paper.
        recommender_weight (`float`): Of that score; 0 for none.
        text_weight (`float`): Of the cosine between an item's text and those of the latest items of the history, added
            likewise; 0 for none.
        initializer_range (`float`): Spread of embeddings at the start.
        layer_norm_eps (`float`): Of every layer norm.

    Raises:
        StrictDataclassClassValidationError: If a number or a choice is out of range.
    """

    model_type = "intsr"

    num_items: int = 1
    text_size: int = 384
    query_size: int = 384
    use_ids: bool = True
    num_actions: int = 1
    num_geohashes: int = 0
    max_history: int = 50
    items_hash: str | None = None
    texts_hash: str | None = None

    merge_event_tokens: bool = False
    use_scenario_tokens: bool = True
    scenario_features: list[str] | tuple[str, ...] = DEFAULT_SCENARIO
    use_queries: bool = True

    hidden_size: int = 32
    num_hidden_layers: int = 3
    # The paper does not say; two are HSTU's for MovieLens.
    num_attention_heads: int = 2
    dropout: float = 0.2
    embedding_dropout: float = 0.2
    use_placeholders: bool = True
    starts_from_latest_item: bool = False
    use_session_mask: bool = True
    use_position_bias: bool = True
    num_position_buckets: int = 32
    max_position_distance: int = 128
    time_bias: str = "alibi"
    attention_scale: str = "visible"

    use_dsfnet: bool = True
    num_scenarios: int = 2
    num_dsf_layers: int = 3

    similarity: str = "dot"
    temperature: float = 1.0
    negatives: str = "full"
    num_hard_negatives: int = 20
    align_candidates: bool = True
    correct_sampling: bool = False
    ranking_weight: float = 0.0
    num_ranking_negatives: int = 4
    # What is added to the score of recommendations: see `dense/fusion.py`.
    recommender: dict[str, Any] | None = None
    recommender_weight: float = 0.0
    text_weight: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6

    def validate_sizes(self) -> None:
        """Check that numbers and choices are within range."""
        check_settings(
            self,
            ("num_position_buckets", "num_scenarios", "num_hard_negatives", "num_ranking_negatives"),
            {
                "time_bias": ("alibi", "buckets", "none"),
                "attention_scale": ("visible", "length"),
                "negatives": ("full", "sampled", "hard"),
            },
        )
        unknown = sorted(set(self.scenario_features) - set(SCENARIO_FEATURES))
        if unknown:
            raise ValueError(f"`scenario_features` holds {unknown[0]!r}; choose among {', '.join(SCENARIO_FEATURES)}.")
        if self.num_geohashes < 0 or ("geohash" in self.scenario_features and not self.num_geohashes):
            raise ValueError(
                f"`num_geohashes` is {self.num_geohashes}; with 'geohash' in `scenario_features` it must be at least "
                "1, otherwise not below 0."
            )
        if not self.temperature > 0 or self.ranking_weight < 0:
            raise ValueError(
                f"`temperature` is {self.temperature} and `ranking_weight` {self.ranking_weight}; the first must be "
                "above 0, the second not below."
            )
        if self.ranking_weight and not self.use_placeholders:
            raise ValueError("`ranking_weight` needs `use_placeholders`: candidates stand in placeholders.")
        if self.starts_from_latest_item and not self.use_placeholders:
            raise ValueError(
                "`starts_from_latest_item` needs `use_placeholders`: plain HSTU compares the state of the latest item "
                "as it is."
            )
