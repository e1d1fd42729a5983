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
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, View
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
        self._first_query = self.add_queries(events.queries)
        self._first_written_query: int | None = None
        # Only the items that occur: a request names a few out of millions.
        self._items = np.unique(events.item[events.item >= 0])
        self._first_item: dict[Behavior, int] = {
            behavior: self.add(self.item_tokens(self._items, behavior)) for behavior in BEHAVIORS
        }
        # By event, its segments; an event that is never written has none.
        self.event_segments = self._number_events([self.add_piece(separator)] if separator else [])

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
        token = self.vocabulary.behavior_token_id("search_query")
        marks = Ragged.from_matrix(np.full((len(queries), 1), token, dtype=np.int32))
        texts = self.encoder.encode_ragged(queries, self.settings.max_query_tokens, as_written=as_written)
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

    def query_segments(self, rows: np.ndarray) -> np.ndarray:
        """Return the segment of the query (with `<S_Q>`) of each event."""
        return self._first_query + self.events.query[rows]

    def written_query_segments(self, rows: np.ndarray) -> np.ndarray:
        """Return the segment of each event's query as the user typed it (with `<S_Q>`), for a model that writes it."""
        if self._first_written_query is None:
            self._first_written_query = self.add_queries(self.events.queries, as_written=True)
        return self._first_written_query + self.events.query[rows]

    def item_segments(self, rows: np.ndarray) -> np.ndarray:
        """Return the segment of the item (with its behavior token) of each event."""
        place = np.searchsorted(self._items, self.events.item[rows])
        first = [self._first_item[behavior] for behavior in (RECOMMENDATION, SEARCH)]
        return place + np.where(self.events.is_search[rows], first[1], first[0])

    def item_tokens(self, items: np.ndarray, behavior: Behavior) -> Ragged:
        """Return the behavior token and identifier of items, as an event of a behavior has them (equation 11)."""
        view = self.vocabulary.view_of_behavior(behavior)
        identifiers = self.vocabulary.encode(self._codes[view][items], view)
        tokens = np.full((len(items), 1), self.vocabulary.item_token_id(behavior))
        return Ragged.from_matrix(np.concatenate([tokens, identifiers], axis=1).astype(np.int32))

    def identifier_tokens(self, items: np.ndarray, view: View) -> Ragged:
        """Return the identifier of items in a view, without a behavior token."""
        return Ragged.from_matrix(self.vocabulary.encode(self._codes[view][items], view).astype(np.int32))

    def _number_events(self, separator: list[int]) -> Ragged:
        """List the segments of each event: query, separator, item, separator, as far as it has them."""
        rows = np.arange(len(self.events))
        has_query = self.events.is_search & ~self.events.is_shown
        has_item = (self.events.item >= 0) & ~self.events.is_shown
        parts = []
        for present, numbers in ((has_query, self.query_segments), (has_item, self.item_segments)):
            parts.append(Ragged.from_lengths(numbers(rows[present]), present))
            if separator:
                parts.append(Ragged(np.full(int(present.sum()), separator[0]), parts[-1].offsets))
        return join_rows(parts)


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
