# SPDX-License-Identifier: Apache-2.0
"""The settings of a SynerGen model.

No `from __future__ import annotations` here: with types as strings, `strict` checks none of them.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from seekrec.models.dense.checks import check_settings


@strict
class SynerGenConfig(PreTrainedConfig):
    """Configuration of [`SynerGenForSearchAndRecommendation`]. The paper gives no sizes; these are small.

    The items and texts it is made for:

    Args:
        num_items (`int`): Items with an id embedding.
        text_size (`int`): Width of the items' text vectors; 0 for ids alone.
        query_size (`int`): Width of query vectors.
        use_ids (`bool`): Whether items have id embeddings (table 4, "w/o collaborative emb.": off).
        num_actions (`int`): Actions that are told apart; one more stands for all others.
        asked_action (`int`): Number of the action that requests ask for, 1 for the first of the processor's list.
        max_history (`int`): Latest events read of a history.
        items_hash (`str`, *optional*): Hash of the ids of the items. A catalogue that begins otherwise is refused.
        texts_hash (`str`, *optional*): Likewise of the text vectors of the items.

    The tokens (sections 3.2 and 3.3):

    Args:
        fusion_size (`int`): Width inside the MLP that fuses the parts of a token.
        queries_in_context (`bool`):
            Context tokens read the query of their event too, and searches without an item are tokens. Off in the
            paper, whose context is query-free.
        use_question_action (`bool`): Retrieval and ranking tokens read the action asked for; in training the target's.

    The decoder (sections 3.3 and 3.4):

    Args:
        hidden_size (`int`): Width d.
        num_hidden_layers (`int`): Layers L.
        num_attention_heads (`int`): Heads H.
        intermediate_size (`int`): Width of the feed-forward layers.
        dropout (`float`): On the output of attention and of feed-forward layers.
        embedding_dropout (`float`): On the tokens.
        starts_from_latest_item (`bool`): A retrieval token begins with the vector of the latest item it sees too, as
            the state of SASRec does. Off in the paper.
        use_session_mask (`bool`): Off: questions see all earlier events, those of their own session too.
        align_tasks (`bool`): Ranking tokens see the retrieval token of their question.
        time_encoding (`str`):
            What attention rotates by: `"time"`, seconds; `"order"`, the number of the token (table 4, "w/o time-based
            RoPE"); `"both"`, half of the pairs each.
        min_period (`float`): Shortest time scale, in seconds: a rotation by one full turn.
        max_period (`float`): Longest time scale, in seconds; those between grow geometrically.
        learn_time_scales (`bool`): Train the time scales, from where the geometric ones are.
        rotary_fraction (`float`): Part of each head that is rotated; the rest compares content alone.
        use_target_time (`bool`):
            Questions stand at the time they are asked. Off: at that of the last event they see (table 4, "w/o target
            time info.").

    Learning (section 3.5):

    Args:
        similarity (`str`): `"dot"`, or `"cosine"`.
        temperature (`float`): tau, divides similarities.
        easy_weight (`float`): alpha, the weight of easy negatives; hard ones have one minus that.
        easy_negatives (`str`):
            `"in_batch"`, the other targets of the batch, in training that of all processes, corrected by how popular
            they are; `"full"`, every item of the catalogue, for small ones.
        correct_popularity (`bool`): Take the log-probability of being drawn off similarities: of other targets with
            `"in_batch"`, and of what is drawn or was shown beside a target.
        ranking_weight (`float`): Weight of the ranking loss, 1 in the paper; 0 for no ranking head (table 4), and
            `rank` orders by retrieval.
        pairwise_weight (`float`): lambda.
        rank_by (`str`): What `rank` answers with: `"ranking"`, the click probability, or `"retrieval"`, the score that
            `retrieve` gives.
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

    model_type = "synergen"

    num_items: int = 1
    text_size: int = 384
    query_size: int = 384
    use_ids: bool = True
    num_actions: int = 1
    asked_action: int = 1
    max_history: int = 50
    items_hash: str | None = None
    texts_hash: str | None = None

    fusion_size: int = 128
    queries_in_context: bool = False
    use_question_action: bool = True

    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 256
    dropout: float = 0.2
    embedding_dropout: float = 0.2
    starts_from_latest_item: bool = False
    use_session_mask: bool = True
    align_tasks: bool = True
    time_encoding: str = "time"
    min_period: float = 8.0
    # Ten years.
    max_period: float = 3.2e8
    learn_time_scales: bool = False
    rotary_fraction: float = 1.0
    use_target_time: bool = True

    similarity: str = "dot"
    temperature: float = 0.085
    easy_weight: float = 0.1
    easy_negatives: str = "in_batch"
    correct_popularity: bool = True
    ranking_weight: float = 1.0
    pairwise_weight: float = 1.0
    rank_by: str = "ranking"
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
            ("fusion_size", "intermediate_size"),
            {
                "time_encoding": ("time", "order", "both"),
                "easy_negatives": ("in_batch", "full"),
                "rank_by": ("ranking", "retrieval"),
            },
        )
        for name in ("easy_weight", "rotary_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be from 0 to 1.")
        if not 0 <= self.asked_action <= self.num_actions:
            raise ValueError(f"`asked_action` is {self.asked_action}; it must be from 0 to {self.num_actions}.")
        if not 0 < self.min_period <= self.max_period:
            raise ValueError(
                f"`min_period` is {self.min_period} and `max_period` {self.max_period}; the first must be above 0 and "
                "the second not below it."
            )
        if not self.temperature > 0 or self.ranking_weight < 0 or self.pairwise_weight < 0:
            raise ValueError(
                f"`temperature` is {self.temperature}, `ranking_weight` {self.ranking_weight} and `pairwise_weight` "
                f"{self.pairwise_weight}; the first must be above 0, the others not below."
            )
