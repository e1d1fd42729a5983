# SPDX-License-Identifier: Apache-2.0
"""Settings that the recipes of the families of vectors share: what is learned from, and against what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from seekrec.embeddings.softmax import LARGE_CATALOG
from seekrec.util.text import TEXT_FOLDING


@dataclass
class WindowArguments:
    """Windows of events, their questions, and the negatives."""

    tasks: Literal["joint", "search", "recommendation"] = field(
        default="joint", metadata={"help": "What is trained and measured."}
    )
    max_history: int = field(default=50, metadata={"help": "Latest events read of a history."})
    session_ids: Literal["auto", "page_view", "visit"] = field(
        default="auto",
        metadata={"help": "What `session_id` means: events of a page view do not see each other; auto: a guess."},
    )
    text_folding: list[str] = field(
        default_factory=lambda: list(TEXT_FOLDING),
        metadata={"help": "What is folded of queries: case, punctuation, plurals, accents."},
    )
    history_dropout: float = field(
        default=0.0, metadata={"help": "Share of a window's events that no question sees, drawn anew in each epoch."}
    )
    recommend_searched_items: bool = field(
        default=True, metadata={"help": "Ask for a searched item as a recommendation too, without its query."}
    )
    query_pool: list[str] = field(
        default_factory=lambda: ["logged", "category", "item_text"],
        metadata={"help": "Queries that may stand for an item: logged, category, item_text."},
    )
    pool_probability: float = field(
        default=0.0, metadata={"help": "How often the pool makes a search of a recommendation; joint alone."}
    )
    pool_questions: Literal["replace", "add"] = field(
        default="replace", metadata={"help": "Whether they are asked in its place, as in the paper, or beside it."}
    )
    negatives: Literal["auto", "full", "uniform", "popularity", "hard"] = field(
        default="auto",
        metadata={
            "help": "What a target is compared with; full: every item of the catalogue; auto: full up to 50,000 "
            "items, then drawn by popularity and corrected."
        },
    )
    num_training_negatives: int = field(default=20, metadata={"help": "Negatives of a question, unless full."})
    popularity_power: float = field(default=1.0, metadata={"help": "Of negatives by popularity: counts ** power."})
    correct_sampling: bool = field(
        default=False, metadata={"help": "Take the log-probability of being drawn off sampled similarities."}
    )
    align_candidates: bool = field(
        default=True, metadata={"help": "Compare only with items that were on offer at the time of the question."}
    )
    item_lifetimes: Literal["catalog", "first_event"] = field(
        default="catalog",
        metadata={"help": "When items are on offer: what the catalogue says, or from their first event on."},
    )
    sparse_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Step size of the embeddings of items and actions; that of the rest if not given."},
    )
    start_from_sasrec: bool = field(
        default=False,
        metadata={"help": "Id embeddings begin as those of SASRec, which every recipe trains as a rival."},
    )
    recommender_weight: float = field(
        default=0.0, metadata={"help": "Of SASRec's score, added to that of recommendations when they are answered."}
    )
    text_weight: float = field(
        default=0.0, metadata={"help": "Of the cosine with the texts of the latest items, added likewise."}
    )
    search_stage_num_epochs: float = field(
        default=0.0,
        metadata={"help": "Above 0: train recommendation first, then search for so many epochs, as on KuaiSAR."},
    )

    remove_seen: bool = field(default=True, metadata={"help": "Leave the history's items out of full ranking."})
    on_offer_only: bool = field(
        default=False,
        metadata={"help": "Leave items out of full ranking that are not available when a request is made."},
    )

    def for_catalog(self, num_items: int) -> WindowArguments:
        """Give these settings with the negatives that `auto` stands for in a catalogue of so many items."""
        if self.negatives != "auto":
            return self
        if num_items <= LARGE_CATALOG:
            return replace(self, negatives="full")
        return replace(self, negatives="popularity", popularity_power=1.0, correct_sampling=True)


__all__ = ["WindowArguments"]
