# SPDX-License-Identifier: Apache-2.0
"""The settings of a GenSAR model: T5's, what its corpus looks like, and how identifiers stand in its vocabulary."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import T5Config

from seekrec.schema import View

# What follows from `corpus`. Checkpoints of older versions have other combinations: they answer, but cannot learn.
_FOLLOWS: dict[str, dict[str, bool | str]] = {
    "instructions": {
        "merge_events": False,
        "summarize_history": False,
        "order_by": "identifier",
        "loss_norm": "vocab",
    },
    "stream": {"merge_events": True, "summarize_history": True, "order_by": "next_item", "loss_norm": "level"},
}


# Identical to T5Config except: the fields below. As there, `tie_word_embeddings=False` at creation says that decoder
# states are not scaled (`scale_decoder_outputs`), nothing else.
@strict
class GenSARConfig(T5Config):
    """Configuration of [`GenSARForConditionalGeneration`].

    Args:
        corpus (`str`):
            What the model learns from. `"instructions"`, as in the paper: an instruction for each target, with its
            history. `"stream"`: a user's history once for all its targets; the encoder is causal and reads each event
            as one vector, the sum of its tokens and of the catalogue's vector of the item, the decoder reads the state
            of the last event, and that state learns to pick the next item, teaches the decoder and orders what it
            finds.
        recommend_searched_items (`bool`):
            With `corpus: stream`: ask for a searched item as a recommendation too, without its query.
        max_history_recommendations (`int`): Maximum number of recommendations read from a history, the latest (R).
        max_history_searches (`int`): Maximum number of searches read from a history, the latest (S).
        max_query_tokens (`int`): Maximum number of tokens read from a query.
        max_text_tokens (`int`): Maximum number of tokens read from an item's title and description.
        d_model (`int`): Without a backbone: width of the model.
        d_ff (`int`): Without a backbone: width of the feed-forward layers.
        num_layers (`int`): Without a backbone: number of encoder layers and, if not set apart, of decoder layers.
        num_heads (`int`): Without a backbone: number of attention heads.
        dropout_rate (`float`): Without a backbone: dropout.
        num_shared_levels (`int`): Levels that both identifiers of an item share (L_m, GenSAR section 3.2.2).
        num_specific_levels (`int`): Levels that each identifier has for itself (L_n).
        codebook_size (`int`): Codes a level (K).
        views (`list[str]`): The identifiers that exist: `"semantic"`, `"collaborative"` or both.
        untied_head (`bool`):
            The output layer is one of its own, as in T5 1.1, Flan-T5 and mT5; otherwise it is the token embeddings.
        first_identifier_token_id (`int`):
            Token id of the first behavior token; the three behavior tokens and then every level's codes follow it
            without gaps.
        identifier_hash (`str`, *optional*):
            Hash of the codebooks the identifiers come from. A catalogue with another hash is refused.
        item_vector_size (`int`):
            Size of the catalogue's vector of an item, semantic and collaborative joined, which the encoder of a stream
            reads beside the item's codes; 0, it reads the codes alone.
        num_items (`int`):
            Items of the catalogue that the model was trained with, its first rows; 0 before it has one. Later items
            are scored beside the beams.
        trained_tasks (`list[str]`):
            What the model was trained on, by the names of `task_weights`; `suggest_queries` and `describe` refuse what
            is not among them.
        merge_events (`bool`, *optional*):
            The encoder reads each item, and each query, as one vector. Follows from `corpus`, as do the fields below.
        summarize_history (`bool`, *optional*):
            The decoder reads one vector, the encoder's state of the last event, in place of the whole history.
        order_by (`str`, *optional*):
            What orders the items that the decoder's beams found, and candidates: `"identifier"`, the log-probability
            of their identifiers, or `"next_item"`, the dot product of the last event's state with each item.
        loss_norm (`str`, *optional*):
            What a code competes with in the loss: `"vocab"`, all tokens (the paper), or `"level"`, the codes of its
            level, which is all that constrained decoding compares. `retrieve` and `rank` follow it.

    Raises:
        StrictDataclassClassValidationError: If the levels, views or token rows contradict each other.
    """

    model_type = "gensar"
    fields_from_data: ClassVar[tuple[str, ...]] = (
        "num_shared_levels",
        "num_specific_levels",
        "codebook_size",
        "views",
        "untied_head",
        "first_identifier_token_id",
        "identifier_hash",
        "item_vector_size",
        "num_items",
        "trained_tasks",
        *_FOLLOWS["stream"],
    )
    fields_from_base: ClassVar[tuple[str, ...]] = ("d_model", "d_ff", "num_layers", "num_heads", "dropout_rate")

    corpus: Literal["instructions", "stream"] = "instructions"
    recommend_searched_items: bool = False
    # The released code keeps five of each; so do we.
    max_history_recommendations: int = 5
    max_history_searches: int = 5
    max_query_tokens: int = 64
    max_text_tokens: int = 256
    num_shared_levels: int = 2
    num_specific_levels: int = 2
    codebook_size: int = 256
    views: list[View] | tuple[View, ...] = ("semantic", "collaborative")
    untied_head: bool = False
    first_identifier_token_id: int = 32100
    identifier_hash: str | None = None
    item_vector_size: int = 0
    num_items: int = 0
    trained_tasks: list[str] | tuple[str, ...] = ()
    merge_events: bool | None = None
    summarize_history: bool | None = None
    order_by: Literal["identifier", "next_item"] | None = None
    loss_norm: Literal["vocab", "level"] | None = None

    def __post_init__(self, **kwargs: object) -> None:
        follows = _FOLLOWS[self.corpus]
        if "shared_history" in kwargs:
            # A checkpoint of an older version: what its configuration does not name did not exist, and was off.
            self.corpus = "stream" if kwargs.pop("shared_history") else "instructions"
            follows = _FOLLOWS["instructions"]
            for name in ("next_item_weight", "distillation_weight"):
                kwargs.pop(name, None)
        for name, value in follows.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        super().__post_init__(**kwargs)

    @property
    def num_levels(self) -> int:
        """Codes in an identifier."""
        return self.num_shared_levels + self.num_specific_levels

    @property
    def num_identifier_tokens(self) -> int:
        """Behavior tokens and codes together."""
        return 3 + self.codebook_size * (self.num_shared_levels + len(self.views) * self.num_specific_levels)

    def validate_lengths(self) -> None:
        """Check that there is room for what is read."""
        for name, smallest in (
            ("max_history_recommendations", 0),
            ("max_history_searches", 0),
            ("max_query_tokens", 1),
            ("max_text_tokens", 1),
            ("item_vector_size", 0),
        ):
            if getattr(self, name) < smallest:
                raise ValueError(f"`{name}` is {getattr(self, name)}; give {smallest} or more.")

    def validate_corpus(self) -> None:
        """Check that nothing is set that only another corpus has."""
        names = ("recommend_searched_items", "merge_events", "item_vector_size")
        given = [name for name in names if getattr(self, name)]
        if self.corpus == "instructions" and given:
            raise ValueError(
                f"`{given[0]}` is {getattr(self, given[0])} and `corpus` 'instructions'; it needs `corpus: stream`."
            )
        needed = [name for name in ("summarize_history", "item_vector_size") if getattr(self, name)]
        if needed and not self.merge_events:
            raise ValueError(f"`{needed[0]}` is {getattr(self, needed[0])} and `merge_events` False; leave both out.")
        if self.order_by == "next_item" and self.corpus == "instructions":
            raise ValueError("`order_by` is 'next_item', which only a model with `corpus: stream` learns.")

    def validate_identifiers(self) -> None:
        """Check that the identifier fields agree with each other."""
        if self.num_shared_levels < 0 or self.num_specific_levels < 0 or self.num_levels < 1:
            raise ValueError(
                f"`num_shared_levels` is {self.num_shared_levels} and `num_specific_levels` is "
                f"{self.num_specific_levels}; an identifier needs at least one level."
            )
        if not self.views or len(set(self.views)) != len(self.views):
            raise ValueError(f"`views` is {list(self.views)}; use 'semantic', 'collaborative' or both, each once.")
        if self.codebook_size < 1:
            raise ValueError(f"`codebook_size` is {self.codebook_size}; it must be at least 1.")
        needed = self.first_identifier_token_id + self.num_identifier_tokens
        if self.identifier_hash is not None and needed > self.vocab_size:
            raise ValueError(
                f"`vocab_size` is {self.vocab_size}, but the identifier tokens end at {needed}; resize the token "
                "embeddings before setting `identifier_hash`."
            )


__all__ = ["GenSARConfig"]
