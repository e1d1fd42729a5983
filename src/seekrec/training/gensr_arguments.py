# SPDX-License-Identifier: Apache-2.0
"""Settings of the GenSR recipe that GenSAR's has not; see `arguments.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seekrec.models.gensr.configuration_gensr import VIEW_NAMES


@dataclass
class GenSRArguments:
    """Prompts, tasks, negatives and losses of GenSR."""

    tasks: Literal["joint", "search", "recommendation"] = field(
        default="joint", metadata={"help": "What is trained; an epoch has the same number of requests in all three."}
    )
    task_weights: list[str] = field(
        default_factory=list,
        metadata={"help": "Shares of joint training, as recommendation=1 search=2; by number if not given."},
    )
    recommend_searched_items: bool = field(
        default=False, metadata={"help": "Ask for a searched item as a recommendation too, without its query."}
    )
    search_recommended_items: bool = field(
        default=False,
        metadata={"help": "Ask for a recommended item as a search too, by a query its categories give."},
    )
    item_queries: bool = field(
        default=False,
        metadata={
            "help": "Ask for every item of the catalogue by the queries its categories give, without a history."
        },
    )
    negatives: list[str] = field(
        default_factory=lambda: ["uniform=4"],
        metadata={"help": "Negatives of a request in training, as kind=number: uniform, popularity, bm25."},
    )
    num_bm25_matches: int = field(
        default=100, metadata={"help": "Best matches of a query that bm25 negatives are drawn from."}
    )
    yes_no_weight: float = field(default=1.0, metadata={"help": "Weight of the Yes/No loss; 0: no candidates."})
    identifier_weight: float = field(
        default=0.0, metadata={"help": "Weight of the loss of writing identifiers; 0: no full ranking."}
    )
    retrieve_by: Literal["identifier", "answer"] = field(
        default="identifier",
        metadata={"help": "Search all items by the identifiers written, or by the answer to each of them."},
    )
    identifiers: Literal["dual", "atomic"] = field(
        default="dual", metadata={"help": "What is written: GenSAR's identifiers, or one token an item (BSR)."}
    )
    contrast_weight: float = field(default=0.01, metadata={"help": "beta of equation 11."})
    contrast_temperature: float = field(default=0.07, metadata={"help": "tau of equation 10."})
    yes_no_loss: Literal["token", "listwise"] = field(
        default="token", metadata={"help": "Equation 12, or the positive among its request's candidates."}
    )
    prompt_views: list[str] = field(
        default_factory=lambda: list(VIEW_NAMES), metadata={"help": "Views in the prompt: collaborative, semantic."}
    )
    soft_filter: bool = field(default=True, metadata={"help": "Weigh the history by the candidate; else its mean."})
    agreement_in_prompt: bool = field(
        default=False, metadata={"help": "A filtered vector also says where the candidate agrees with the history."}
    )
    recommender_state: bool = field(
        default=False,
        metadata={"help": "A filtered vector also says where the candidate agrees with SASRec's state."},
    )
    num_unseen_events: int = field(
        default=0,
        metadata={
            "help": "Ask in training for this many last events of each user, and for no others; the SASRec behind the "
            "collaborative view learns them only afterwards. 0: ask for all, which it has seen."
        },
    )
    num_finishing_epochs: int = field(
        default=15, metadata={"help": "Passes in which that SASRec then learns all events."}
    )
    history_in_prompt: Literal["filtered", "whole", "both"] = field(
        default="filtered", metadata={"help": "One filtered vector of each view, every event, or both."}
    )
    query_as_event: bool = field(
        default=False, metadata={"help": "What is searched for now is also the last event of the history."}
    )
    shared_prompt: bool = field(
        default=False, metadata={"help": "Compute what stands before the candidate once for all candidates."}
    )
    wording: Literal["sentence", "compact", "short"] = field(
        default="sentence", metadata={"help": "Prompts in full, with all words first, or a word."}
    )
    train_collaborative_table: bool = field(default=False, metadata={"help": "Train the table with the rest."})
    view_num_heads: int = field(default=2, metadata={"help": "Heads of a view's encoder and filter."})
    view_dropout_rate: float = field(default=0.1, metadata={"help": "Dropout in the views."})
    view_positions: int = field(default=32, metadata={"help": "Places of a history that the views tell apart."})
    item_text_fields: list[str] = field(
        default_factory=lambda: ["title"],
        metadata={"help": "What describes an item: title, description, categories, in order."},
    )
    max_item_tokens: int = field(default=10, metadata={"help": "Tokens kept of an item's text."})
    max_query_tokens: int = field(default=32, metadata={"help": "Tokens kept of a query."})
    max_history: int = field(default=20, metadata={"help": "Latest events kept of a history."})
    selection_protocols: list[Literal["full", "uniform", "popularity", "bm25"]] = field(
        default_factory=lambda: ["uniform"],
        metadata={"help": "Protocols whose mean NDCG@10 on validation chooses the checkpoint."},
    )


__all__ = ["GenSRArguments"]
