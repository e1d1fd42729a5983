# SPDX-License-Identifier: Apache-2.0
"""The settings of a GenSAR model: those of T5, its corpus, and the position of identifiers in its vocabulary."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict

from seekrec.models.configuration_t5 import IdentifierT5Config

ItemPart = Literal["codes", "catalog", "vector", "words"]
QueryPart = Literal["tokens", "words", "text", "recommendation"]
# What the encoder of a stream reads of an item and of a query unless something else is asked for.
_ITEM_READING: tuple[ItemPart, ...] = ("codes", "catalog")
_QUERY_READING: tuple[QueryPart, ...] = ("tokens",)
_STREAM_ALONE = {"item_reading": _ITEM_READING, "query_reading": _QUERY_READING, "next_item_weight": (1.0,)}

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


@strict
class GenSARConfig(IdentifierT5Config):
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
        reads_behavior (`bool`):
            Whether the encoder reads what follows: `<R_I>` a recommended item, `<S_Q>` a query, `<S_I>` an item
            searched for. Without, it reads the first for all three (a row of table 5); the decoder is still told what
            to write.
        item_reading (`list[str]`):
            With `corpus: stream`: what the encoder reads of an item, added up, and so what an item is scored by.
            `codes` of its identifier, `catalog` the catalogue's frozen vectors of it, `vector` a learned one of its
            own (left out at `dropout_rate` in training; items that came later have none), `words` those of its text.
        query_reading (`list[str]`):
            With `corpus: stream`: what the state that answers a search is made of. Of a query the encoder reads its
            `tokens`; `words`, the vectors that items have for them; `text`, the frozen vector of the whole.
            `recommendation` adds the state before a query to that after it.
        next_item_weight (`float`):
            With `corpus: stream`: weight of the loss that lets a state pick the next item among all items.
        max_history_recommendations (`int`): Maximum number of recommendations read from a history, the latest (R).
        max_history_searches (`int`): Maximum number of searches read from a history, the latest (S).
        max_query_tokens (`int`): Maximum number of tokens read from a query.
        max_text_tokens (`int`): Maximum number of tokens read from an item's title and description.
        item_vector_size (`int`):
            Size of the catalogue's vector of an item, semantic and collaborative joined, which the encoder of a stream
            reads; 0 where it does not.
        query_size (`int`): Size of the frozen vector of a query; 0 where it is not read.
        num_words (`int`): Words of items, and of queries where they are read, that the model has learned.
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
        *IdentifierT5Config.fields_from_data,
        "item_vector_size",
        "query_size",
        "num_words",
        "trained_tasks",
        *_FOLLOWS["stream"],
    )

    corpus: Literal["instructions", "stream"] = "instructions"
    recommend_searched_items: bool = False
    reads_behavior: bool = True
    item_reading: list[ItemPart] | tuple[ItemPart, ...] = _ITEM_READING
    query_reading: list[QueryPart] | tuple[QueryPart, ...] = _QUERY_READING
    next_item_weight: float = 1.0
    # The released code keeps five of each; so do we.
    max_history_recommendations: int = 5
    max_history_searches: int = 5
    max_query_tokens: int = 64
    max_text_tokens: int = 256
    item_vector_size: int = 0
    query_size: int = 0
    num_words: int = 0
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
            kwargs.pop("distillation_weight", None)
            self.next_item_weight = 1.0
        for name, value in follows.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        super().__post_init__(**kwargs)

    def validate_lengths(self) -> None:
        """Check that there is room for what is read."""
        for name, smallest in (
            ("max_history_recommendations", 0),
            ("max_history_searches", 0),
            ("max_query_tokens", 1),
            ("max_text_tokens", 1),
            ("item_vector_size", 0),
            ("query_size", 0),
            ("num_words", 0),
            ("next_item_weight", 0),
        ):
            if getattr(self, name) < smallest:
                raise ValueError(f"`{name}` is {getattr(self, name)}; give {smallest} or more.")

    def validate_reading(self) -> None:
        """Check that items and queries are read by something, each part named once."""
        for name in ("item_reading", "query_reading"):
            parts = list(getattr(self, name))
            if not parts or len(set(parts)) != len(parts):
                raise ValueError(f"`{name}` is {parts}; name at least one part, and each once.")
        if set(self.query_reading) == {"recommendation"}:
            raise ValueError("`query_reading` is ['recommendation']; add a part of the query, such as 'tokens'.")
        if "words" in self.query_reading and "words" not in self.item_reading:
            raise ValueError(
                "`query_reading` has 'words', which queries share with items; add 'words' to `item_reading` as well."
            )

    def validate_corpus(self) -> None:
        """Check that nothing is set that only another corpus has."""
        names = ("recommend_searched_items", "merge_events", "item_vector_size")
        given = [name for name in names if getattr(self, name)]
        if self.corpus == "instructions" and given:
            raise ValueError(
                f"`{given[0]}` is {getattr(self, given[0])} and `corpus` 'instructions'; it needs `corpus: stream`."
            )
        for name, usual in _STREAM_ALONE.items():
            value = getattr(self, name)
            is_usual = tuple(value if isinstance(value, (list, tuple)) else [value]) == usual
            if self.corpus == "instructions" and not is_usual:
                raise ValueError(f"`{name}` is {value} and `corpus` 'instructions'; it needs `corpus: stream`.")
        if not self.merge_events and {"vector", "words", "text"}.intersection(self.item_reading, self.query_reading):
            raise ValueError("`item_reading` or `query_reading` is given and `merge_events` False; leave them out.")
        needed = [name for name in ("summarize_history", "item_vector_size") if getattr(self, name)]
        if needed and not self.merge_events:
            raise ValueError(f"`{needed[0]}` is {getattr(self, needed[0])} and `merge_events` False; leave both out.")
        if self.order_by == "next_item" and self.corpus == "instructions":
            raise ValueError("`order_by` is 'next_item', which only a model with `corpus: stream` supports.")


__all__ = ["GenSARConfig"]
