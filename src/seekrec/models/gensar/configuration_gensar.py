# SPDX-License-Identifier: Apache-2.0
"""The settings of a GenSAR model: T5's, and how identifiers stand in its vocabulary."""

from huggingface_hub.dataclasses import strict
from transformers import T5Config


# Identical to T5Config except: the fields below. As there, `tie_word_embeddings=False` at creation says that decoder
# states are not scaled (`scale_decoder_outputs`), nothing else.
@strict
class GenSARConfig(T5Config):
    """Configuration of [`GenSARForConditionalGeneration`].

    Args:
        untied_head (`bool`):
            The output layer is one of its own, as in T5 1.1, Flan-T5 and mT5; otherwise it is the token embeddings.
        first_identifier_token_id (`int`):
            Token id of the first behavior token; the three behavior tokens and then every level's codes follow it
            without gaps.
        num_shared_levels (`int`): Levels that both identifiers of an item share (L_m, GenSAR section 3.2.2).
        num_specific_levels (`int`): Levels of each identifier's own (L_n).
        codebook_size (`int`): Codes a level (K).
        views (`list[str]`): The identifiers that exist: `"semantic"`, `"collaborative"` or both.
        identifier_hash (`str`, *optional*):
            Hash of the codebooks the identifiers come from. A catalogue with another hash is refused.
        shared_history (`bool`):
            One encoded history serves every target of a user in training: the encoder is causal and a target attends
            only to what came before it. Off in the paper's setting.
        merge_events (`bool`):
            The encoder reads each item, and each query, as one vector: the sum of its token embeddings. A history is
            then four to five times shorter; the order of words in a query is lost. Needs `shared_history`.
        loss_norm (`str`):
            What a code competes with in the loss: `"vocab"`, all tokens (the paper), or `"level"`, the codes of its
            level, which is all that constrained decoding compares. `retrieve` and `rank` follow it.
        summarize_history (`bool`):
            The decoder reads one vector, the encoder's state of the last event, in place of the whole history. Off in
            the paper's setting. Needs `merge_events`.
        next_item_weight (`float`):
            Weight of a second loss in training, on the encoder alone: the state of the last event before a target
            picks the target among all items, each the sum of its code embeddings. 0 in the paper's setting. Needs
            `merge_events`.
        distillation_weight (`float`):
            Weight of a third loss in training: the decoder's next code should be as likely as the encoder's state
            holds the items that have it. 0 in the paper's setting. Needs `next_item_weight`.
        item_vector_size (`int`):
            Numbers the catalogue keeps of an item, semantic and collaborative vector joined, which the encoder reads
            beside the item's codes; 0, it reads the codes alone, as in the paper. Needs `merge_events`.
        order_by (`str`):
            What orders the items that the decoder's beams found, and candidates: `"identifier"`, the log-probability
            of their identifiers (the paper), or `"next_item"`, the encoder's score of `next_item_weight`, which it
            needs.
        num_items (`int`):
            Items of the catalogue that the model was trained with, its first rows; 0 before it has one. Later items
            are scored beside the beams.
        trained_tasks (`list[str]`):
            What the model was trained on, by the names of `task_weights`; `suggest_queries` and `describe` refuse what
            is not among them.
        max_history_recommendations (`int`): Recommendations kept of a history, the latest (R).
        max_history_searches (`int`): Searches kept of a history, the latest (S).
        max_query_tokens (`int`): Tokens kept of a query.
        max_text_tokens (`int`): Tokens kept of an item's description.

    Raises:
        StrictDataclassClassValidationError: If the levels, views or token rows contradict each other.
    """

    model_type = "gensar"

    untied_head: bool = False
    first_identifier_token_id: int = 32100
    num_shared_levels: int = 2
    num_specific_levels: int = 2
    codebook_size: int = 256
    views: list[str] | tuple[str, ...] = ("semantic", "collaborative")
    identifier_hash: str | None = None
    shared_history: bool = False
    merge_events: bool = False
    loss_norm: str = "vocab"
    summarize_history: bool = False
    next_item_weight: float = 0.0
    distillation_weight: float = 0.0
    item_vector_size: int = 0
    order_by: str = "identifier"
    num_items: int = 0
    trained_tasks: list[str] | tuple[str, ...] = ()
    # The released code keeps five of each; so do we.
    max_history_recommendations: int = 5
    max_history_searches: int = 5
    max_query_tokens: int = 64
    max_text_tokens: int = 256

    @property
    def num_levels(self) -> int:
        """Codes in an identifier."""
        return self.num_shared_levels + self.num_specific_levels

    @property
    def num_identifier_tokens(self) -> int:
        """Behavior tokens and codes together."""
        return 3 + self.codebook_size * (self.num_shared_levels + len(self.views) * self.num_specific_levels)

    def validate_identifiers(self) -> None:
        """Check that the identifier fields agree with each other."""
        if self.num_shared_levels < 0 or self.num_specific_levels < 0 or self.num_levels < 1:
            raise ValueError(
                f"`num_shared_levels` is {self.num_shared_levels} and `num_specific_levels` is "
                f"{self.num_specific_levels}; an identifier needs at least one level."
            )
        unknown = set(self.views) - {"semantic", "collaborative"}
        if unknown or not self.views or len(set(self.views)) != len(self.views):
            raise ValueError(f"`views` is {list(self.views)}; use 'semantic', 'collaborative' or both, each once.")
        if self.merge_events and not self.shared_history:
            raise ValueError("`merge_events` is True and `shared_history` False; set both, or neither.")
        if self.loss_norm not in ("vocab", "level"):
            raise ValueError(f"`loss_norm` is {self.loss_norm!r}; use 'vocab' or 'level'.")
        if not self.merge_events:
            for name in ("summarize_history", "next_item_weight", "distillation_weight", "item_vector_size"):
                if getattr(self, name):
                    raise ValueError(
                        f"`{name}` is {getattr(self, name)} and `merge_events` False; set both, or neither."
                    )
        if self.item_vector_size < 0:
            raise ValueError(f"`item_vector_size` is {self.item_vector_size}; it must be 0 or more.")
        if self.next_item_weight < 0 or self.distillation_weight < 0:
            raise ValueError(
                f"`next_item_weight` is {self.next_item_weight} and `distillation_weight` {self.distillation_weight}; "
                "neither may be negative."
            )
        if self.distillation_weight and not self.next_item_weight:
            raise ValueError(
                "`distillation_weight` needs `next_item_weight`: without it the encoder learns no scores."
            )
        if self.order_by not in ("identifier", "next_item"):
            raise ValueError(f"`order_by` is {self.order_by!r}; use 'identifier' or 'next_item'.")
        if self.order_by == "next_item" and not self.next_item_weight:
            raise ValueError(
                "`order_by='next_item'` needs `next_item_weight`: without it the encoder learns no scores."
            )
        if self.codebook_size < 1:
            raise ValueError(f"`codebook_size` is {self.codebook_size}; it must be at least 1.")
        needed = self.first_identifier_token_id + self.num_identifier_tokens
        if self.identifier_hash is not None and needed > self.vocab_size:
            raise ValueError(
                f"`vocab_size` is {self.vocab_size}, but the identifier tokens end at {needed}; resize the token "
                "embeddings before setting `identifier_hash`."
            )
