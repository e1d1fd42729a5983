# SPDX-License-Identifier: Apache-2.0
"""Instructions are put together from segments that are encoded once: queries, items, titles, pieces of wordings.

A [`SegmentTable`] holds the segments. A row of a corpus is first a short list of segment numbers, then one gather
gives its tokens; nothing loops over rows. Training and inference both come through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from seekrec.corpora.text import TextEncoder
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.events.columns import EventColumns
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, Event, View
from seekrec.util.ragged import Ragged, join_rows

SEPARATOR = "; "  # between the events of a history, and between a query and the item clicked after it


class SegmentTable:
    """Segments by number, and which of them an event is written with.

    Args:
        events ([`EventColumns`]): The events that histories and targets may name.
        codes (`Mapping[str, np.ndarray]`): For each view integers of shape `(num_items, num_levels)`.
        vocabulary ([`IdentifierVocabulary`]): Where the identifier tokens are.
        encoder ([`TextEncoder`]): Encodes the queries.
        max_query_tokens (`int`): A longer query is cut.
    """

    def __init__(
        self,
        events: EventColumns,
        codes: Mapping[View, np.ndarray],
        vocabulary: IdentifierVocabulary,
        encoder: TextEncoder,
        *,
        max_query_tokens: int,
    ) -> None:
        self.events = events
        self.vocabulary = vocabulary
        self._codes = codes
        self._encoder = encoder
        self._parts: list[Ragged] = []
        self._num_segments = 0
        self._table: Ragged | None = None
        self._pieces: dict[tuple[str, bool], int] = {}

        search_token = vocabulary.behavior_token_id("search_query")
        markers = Ragged.from_matrix(np.full((len(events.queries), 1), search_token, dtype=np.int32))
        self._first_query, self._first_written_query = (
            self.add(join_rows([markers, encoder.encode_ragged(events.queries, max_query_tokens, as_written=written)]))
            for written in (False, True)
        )
        # Only the items that occur: a request names a few out of millions.
        self._items = np.unique(events.item[events.item >= 0])
        self._first_item: dict[Behavior, int] = {
            behavior: self.add(self.item_tokens(self._items, behavior)) for behavior in BEHAVIORS
        }
        self.event_segments = self._number_events()

    def add(self, segments: Ragged) -> int:
        """Add segments; returns the number of the first."""
        first = self._num_segments
        self._parts.append(segments)
        self._num_segments += len(segments)
        self._table = None
        return first

    def add_piece(self, text: str, *, starts_text: bool = False) -> int:
        """Add a piece of a wording (once); returns its number.

        Args:
            text (`str`): Our own text.
            starts_text (`bool`): Whether nothing comes before it.
        """
        key = (text, starts_text)
        if key not in self._pieces:
            token_ids = self._encoder.encode_piece(text, starts_text=starts_text)
            self._pieces[key] = self.add(Ragged.from_lists([token_ids]))
        return self._pieces[key]

    def tokens(self, segments: Ragged) -> Ragged:
        """Write out rows of segment numbers as rows of token ids (int32)."""
        if self._table is None:
            self._parts = [Ragged.stack(self._parts)]
            self._table = self._parts[0]
        return self._table.expand(segments)

    def event_tokens(self, rows: np.ndarray | None = None) -> Ragged:
        """Give the tokens of events, each with the separator that follows it.

        Args:
            rows (`np.ndarray`, *optional*): int64 event numbers; `None` for all. An event that is never written has an
                empty row.

        Returns:
            `Ragged`: int32 token ids.
        """
        return self.tokens(self.event_segments if rows is None else self.event_segments.take(rows))

    def history_segments(self, histories: Ragged) -> Ragged:
        """Turn rows of event numbers into rows of segment numbers, without the last separator."""
        written = self.event_segments.expand(histories)
        mask = np.ones(len(written.values), dtype=bool)
        mask[written.offsets[1:][written.lengths > 0] - 1] = False
        return written.keep(mask)

    def query_segments(self, rows: np.ndarray) -> np.ndarray:
        """Give the segment of the query (with `<S_Q>`) of each event."""
        return self._first_query + self.events.query[rows]

    def written_query_segments(self, rows: np.ndarray) -> np.ndarray:
        """Give the segment of the query (with `<S_Q>`) of each event as it was written, for a model that writes it."""
        return self._first_written_query + self.events.query[rows]

    def item_segments(self, rows: np.ndarray) -> np.ndarray:
        """Give the segment of the item (with its behavior token) of each event."""
        place = np.searchsorted(self._items, self.events.item[rows])
        first = [self._first_item[behavior] for behavior in (RECOMMENDATION, SEARCH)]
        return place + np.where(self.events.is_search[rows], first[1], first[0])

    def item_tokens(self, items: np.ndarray, behavior: Behavior) -> Ragged:
        """Give the behavior token and identifier of items, as an event of this behavior writes them (equation 11)."""
        view = self.vocabulary.view_of_behavior(behavior)
        identifiers = self.vocabulary.encode(self._codes[view][items], view)
        tokens = np.full((len(items), 1), self.vocabulary.item_token_id(behavior))
        return Ragged.from_matrix(np.concatenate([tokens, identifiers], axis=1).astype(np.int32))

    def identifier_tokens(self, items: np.ndarray, view: View) -> Ragged:
        """Give the identifier of items in a view, without a behavior token."""
        return Ragged.from_matrix(self.vocabulary.encode(self._codes[view][items], view).astype(np.int32))

    def _number_events(self) -> Ragged:
        """List the segments of each event: query, separator, item, separator, as far as it has them."""
        rows = np.arange(len(self.events))
        separator = self.add_piece(SEPARATOR)
        has_query = self.events.is_search & ~self.events.is_shown
        has_item = (self.events.item >= 0) & ~self.events.is_shown
        parts = []
        for present, numbers in ((has_query, self.query_segments), (has_item, self.item_segments)):
            values = np.full((int(present.sum()), 2), separator)
            values[:, 0] = numbers(rows[present])
            parts.append(Ragged(values.ravel(), np.concatenate([[0], np.cumsum(present)]) * 2))
        return join_rows(parts)


def repeat_segment(segment: int, num_rows: int) -> Ragged:
    """The same single segment in every row."""
    return Ragged(np.full(num_rows, segment), np.arange(num_rows + 1))


def single_segment(segments: np.ndarray) -> Ragged:
    """Rows of one segment each."""
    return Ragged(segments, np.arange(len(segments) + 1))


def list_histories(histories: Sequence[Sequence[Event]]) -> tuple[list[Event], Ragged]:
    """Give all events one after the other, and the numbers of each history's own."""
    lengths = np.fromiter(map(len, histories), np.int64, count=len(histories))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return list(chain.from_iterable(histories)), Ragged(np.arange(offsets[-1]), offsets)
