# SPDX-License-Identifier: Apache-2.0
"""Instructions are put together from segments that are encoded once: queries, items, titles, pieces of wordings.

A [`SegmentTable`] holds the segments. A row of a corpus is first a short list of segment numbers, then one gather
gives its tokens; nothing loops over rows. Training and inference both come through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora.text import shared_encoder
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import CatalogError, ConfigurationError
from seekrec.events.columns import EventColumns
from seekrec.schema import BEHAVIORS, Behavior, View
from seekrec.util.ragged import Ragged, join_rows


class CorpusSettings(Protocol):
    """The fields of the model's configuration that a corpus reads; see `GenSARConfig` for their meaning."""

    recommend_searched_items: bool
    max_history_recommendations: int
    max_history_searches: int
    max_query_tokens: int
    max_text_tokens: int


class SegmentTable:
    """Segments by number, and which of them an event is written with.

    Args:
        events ([`EventColumns`]): The events that histories and targets may name.
        catalog ([`Catalog`]): The items that events name, and their identifiers.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary; encodes queries, titles and wordings.
        settings ([`CorpusSettings`]): Maximum lengths.
        separator (`str`): Text behind each query and each item of an event.

    Raises:
        CatalogError: If the vocabulary does not fit the catalogue.
        ConfigurationError: If the tokenizer has no end of sequence.
    """

    def __init__(
        self,
        events: EventColumns,
        catalog: Catalog,
        vocabulary: IdentifierVocabulary,
        tokenizer: PreTrainedTokenizerBase,
        settings: CorpusSettings,
        *,
        separator: str = "",
    ) -> None:
        _check_vocabulary(catalog, vocabulary)
        if not isinstance(tokenizer.eos_token_id, int):
            raise ConfigurationError("The tokenizer has no `eos_token`; set one, as T5 has.")
        self.events = events
        self.vocabulary = vocabulary
        self.settings = settings
        self.encoder = shared_encoder(tokenizer)
        self._codes = catalog.codes
        self._parts: list[Ragged] = []
        self._num_segments = 0
        self._table: Ragged | None = None
        self._pieces: dict[tuple[str, bool], int] = {}

        # The segment that ends an instruction, and every answer that is text.
        self.end = self.add(Ragged.from_lists([[tokenizer.eos_token_id]]))
        self._first_written_query: int | None = None
        # The segments of each event's query, with `<S_Q>`, and of its item, with its behavior token. Only items that
        # occur: a request names a few out of millions.
        items = np.unique(events.item[events.item >= 0])
        first_recommended, first_searched = [self.add(self.item_tokens(items, behavior)) for behavior in BEHAVIORS]
        self.query_segments = self.add_queries(events.queries) + events.query
        self.item_segments = np.searchsorted(items, events.item) + np.where(
            events.is_search, first_searched, first_recommended
        )
        # By event, its segments: query, separator, item, separator, as far as it has them. One that no model reads has
        # none.
        parts = []
        for numbers, present in (
            (self.query_segments, events.is_search & ~events.is_shown),
            (self.item_segments, (events.item >= 0) & ~events.is_shown),
        ):
            parts.append(Ragged.from_lengths(numbers[present], present))
            if separator:
                parts.append(Ragged(np.full(int(present.sum()), self.add_piece(separator)), parts[-1].offsets))
        self.event_segments = join_rows(parts)

    def add(self, segments: Ragged) -> int:
        """Add segments and return the number of the first."""
        first = self._num_segments
        self._parts.append(segments)
        self._num_segments += len(segments)
        self._table = None
        return first

    def add_queries(self, queries: Sequence[str], *, as_written: bool = False) -> int:
        """Add queries, each behind `<S_Q>`, and return the number of the first.

        Args:
            queries (`Sequence[str]`): Queries as users typed them.
            as_written (`bool`): As a model that writes queries learns them; otherwise as a model reads them, folded.
        """
        token = self.vocabulary.behavior_token_ids["search_query"]
        marks = Ragged(np.full(len(queries), token, dtype=np.int32), np.arange(len(queries) + 1))
        texts = self.encoder.encode(queries, self.settings.max_query_tokens, as_written=as_written)
        return self.add(join_rows([marks, texts]))

    def add_piece(self, text: str, *, starts_text: bool = False) -> int:
        """Add a piece of a wording, once, and return its number.

        Args:
            text (`str`): Our own text.
            starts_text (`bool`): Whether nothing comes before it.
        """
        key = (text, starts_text)
        if key not in self._pieces:
            token_ids = self.encoder.encode_piece(text, starts_text=starts_text)
            self._pieces[key] = self.add(Ragged.from_lists([token_ids]))
        return self._pieces[key]

    def tokens(self, segments: Ragged) -> Ragged:
        """Write out rows of segment numbers as rows of token ids (int32)."""
        if self._table is None:
            self._parts = [Ragged.stack(self._parts)]
            self._table = self._parts[0]
        return self._table.expand(segments)

    def written_query_segments(self, rows: np.ndarray) -> np.ndarray:
        """Return the segment of each event's query as the user typed it (with `<S_Q>`), for a model that writes it."""
        if self._first_written_query is None:
            self._first_written_query = self.add_queries(self.events.queries, as_written=True)
        return self._first_written_query + self.events.query[rows]

    def item_tokens(self, items: np.ndarray, behavior: Behavior) -> Ragged:
        """Return the behavior token and identifier of items, as an event of a behavior has them (equation 11)."""
        view, size = self.vocabulary.view_of_behavior[behavior], 1 + self.vocabulary.num_levels
        tokens = np.full((len(items), size), self.vocabulary.item_token_ids[behavior], dtype=np.int32)
        tokens[:, 1:] = self._codes[view][items] + self.vocabulary.level_offsets[view]
        return Ragged(tokens.ravel(), np.arange(len(items) + 1) * size)

    def identifier_tokens(self, items: np.ndarray, view: View) -> Ragged:
        """Return the identifier of items in a view, without a behavior token."""
        return Ragged.from_matrix(self.vocabulary.encode(self._codes[view][items], view).astype(np.int32))


def repeat_segment(segment: int, num_rows: int) -> Ragged:
    """Return rows that all hold the same segment."""
    return Ragged(np.full(num_rows, segment), np.arange(num_rows + 1))


def single_segment(segments: np.ndarray) -> Ragged:
    """Return rows of one segment each."""
    return Ragged(segments, np.arange(len(segments) + 1))


def _check_vocabulary(catalog: Catalog, vocabulary: IdentifierVocabulary) -> None:
    """Refuse a vocabulary made for other identifiers."""
    for name in ("num_shared_levels", "num_specific_levels", "codebook_size"):
        ours, theirs = getattr(vocabulary, name), getattr(catalog, name)
        if ours != theirs:
            raise CatalogError(
                f"`{name}` of the tokens is {ours}, of the catalogue {theirs}; use the catalogue that the tokens were "
                "made for."
            )
    missing = [view for view in vocabulary.views if view not in catalog.codes]
    if missing:
        raise CatalogError(
            f"There are tokens for a {missing[0]} identifier, but the catalogue has only {', '.join(catalog.codes)}; "
            "use the catalogue that the tokens were made for."
        )


__all__ = ["CorpusSettings", "SegmentTable", "repeat_segment", "single_segment"]
