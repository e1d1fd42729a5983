# SPDX-License-Identifier: Apache-2.0
"""Settings of the IntSR recipe: the fields of [`IntSRConfig`] that are chosen, under their names there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seekrec.models.intsr.configuration_intsr import DEFAULT_SCENARIO


@dataclass
class IntSRArguments:
    """The decoder, and a switch for every ablation of the paper's table 4."""

    merge_event_tokens: bool = field(default=False, metadata={"help": "One token an event, not up to four."})
    use_scenario_tokens: bool = field(default=True, metadata={"help": "Off: table 4, w/o S."})
    scenario_features: list[str] = field(
        default_factory=lambda: list(DEFAULT_SCENARIO), metadata={"help": "Among hour, weekday, page, geohash."}
    )
    geohash_precision: int = field(
        default=5, metadata={"help": "Characters of a geohash that tell places apart; 5 are about 5 km."}
    )
    use_queries: bool = field(default=True, metadata={"help": "Off: table 4, w/o search queries."})
    use_placeholders: bool = field(default=True, metadata={"help": "Off: plain HSTU."})
    starts_from_latest_item: bool = field(
        default=False, metadata={"help": "Questions that retrieve begin with the latest item they see."}
    )
    use_session_mask: bool = field(default=True, metadata={"help": "Off: table 4, w/o session mask."})
    use_dsfnet: bool = field(default=True, metadata={"help": "Off: table 4, w/o DSFNet."})
    use_position_bias: bool = field(
        default=True, metadata={"help": "Off, with time_bias none: table 4, w/o relative bias."}
    )
    time_bias: Literal["alibi", "buckets", "none"] = field(default="alibi", metadata={"help": "By seconds."})
    attention_scale: Literal["visible", "length"] = field(
        default="visible", metadata={"help": "What attention is divided by: keys seen, or max_history."}
    )
    num_position_buckets: int = field(default=32, metadata={"help": "Buckets of distances, as in T5."})
    use_ids: bool = field(default=True, metadata={"help": "Off: items by their text alone."})
    use_text: bool = field(default=True, metadata={"help": "Off: items by their ids alone."})
    hidden_size: int = field(default=64, metadata={"help": "Width."})
    num_hidden_layers: int = field(default=2, metadata={"help": "Query-driven blocks."})
    num_attention_heads: int = field(default=2, metadata={"help": "Heads."})
    num_scenarios: int = field(default=2, metadata={"help": "Scenarios of DSFNet."})
    num_dsf_layers: int = field(default=3, metadata={"help": "Layers of DSFNet; 0: none, nor any in its place."})
    dropout: float = field(default=0.3, metadata={"help": "On the output of each block."})
    embedding_dropout: float = field(default=0.3, metadata={"help": "On the tokens."})
    similarity: Literal["dot", "cosine"] = field(default="dot", metadata={"help": "Of questions and items."})
    temperature: float = field(default=1.0, metadata={"help": "Divides similarities."})
    ranking_weight: float = field(
        default=0.0, metadata={"help": "Weight of the ranking loss; 0: rank orders by retrieval."}
    )
    num_ranking_negatives: int = field(default=4, metadata={"help": "Candidates ranked beside each target."})


__all__ = ["IntSRArguments"]
