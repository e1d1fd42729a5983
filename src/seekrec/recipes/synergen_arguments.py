# SPDX-License-Identifier: Apache-2.0
"""Settings of the SynerGen recipe: the fields of [`SynerGenConfig`] that are chosen, under their names there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class SynerGenArguments:
    """The decoder, its losses, and a switch for every ablation of the paper's table 4."""

    use_ids: bool = field(default=True, metadata={"help": "Off: table 4, w/o collaborative emb."})
    use_text: bool = field(default=True, metadata={"help": "Off: items by their ids alone (SynerGen-ID)."})
    queries_in_context: bool = field(default=False, metadata={"help": "The history tells what was searched for."})
    use_question_action: bool = field(default=True, metadata={"help": "Questions name the action asked for."})
    fusion_size: int = field(default=128, metadata={"help": "Width inside the fusion MLP."})
    hidden_size: int = field(default=64, metadata={"help": "Width."})
    num_hidden_layers: int = field(default=2, metadata={"help": "Layers."})
    num_attention_heads: int = field(default=2, metadata={"help": "Heads."})
    intermediate_size: int = field(default=256, metadata={"help": "Width of feed-forward layers."})
    dropout: float = field(default=0.2, metadata={"help": "On attention and feed-forward layers."})
    embedding_dropout: float = field(default=0.2, metadata={"help": "On the tokens."})
    attn_implementation: Literal["auto", "sdpa", "flex_attention"] = field(
        default="auto", metadata={"help": "Of the history; auto: flex_attention on a GPU, sdpa elsewhere."}
    )
    starts_from_latest_item: bool = field(
        default=False, metadata={"help": "Questions that retrieve begin with the latest item they see."}
    )
    use_session_mask: bool = field(default=True, metadata={"help": "Off: questions see their own session."})
    align_tasks: bool = field(default=True, metadata={"help": "Candidates see the retrieval token of their question."})
    time_encoding: Literal["time", "order", "both"] = field(
        default="time", metadata={"help": "What attention rotates by; order: table 4, w/o time-based RoPE."}
    )
    min_period: float = field(default=8.0, metadata={"help": "Shortest time scale in seconds."})
    max_period: float = field(default=3.2e8, metadata={"help": "Longest time scale in seconds."})
    learn_time_scales: bool = field(default=False, metadata={"help": "Train the time scales."})
    rotary_fraction: float = field(default=1.0, metadata={"help": "Part of each head that is rotated."})
    use_target_time: bool = field(default=True, metadata={"help": "Off: table 4, w/o target time info."})
    similarity: Literal["dot", "cosine"] = field(default="dot", metadata={"help": "Of questions and items."})
    temperature: float = field(default=0.085, metadata={"help": "tau, divides similarities."})
    easy_weight: float = field(default=0.1, metadata={"help": "alpha: of easy negatives; hard ones have the rest."})
    ranking_weight: float = field(default=1.0, metadata={"help": "Of the ranking loss; 0: table 4, w/o ranking head."})
    pairwise_weight: float = field(default=1.0, metadata={"help": "lambda."})
    rank_by: Literal["validation", "ranking", "retrieval"] = field(
        default="validation",
        metadata={"help": "The head that ranks; validation: the one that orders validation candidates better."},
    )


__all__ = ["SynerGenArguments"]
