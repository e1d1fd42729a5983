# SPDX-License-Identifier: Apache-2.0
"""Assemble instructions and answers from segments that are encoded once: queries, items, titles, wordings.

A [`SegmentTable`] stores the segments. A corpus row is first a short list of segment numbers, then one gather gives
its tokens; nothing loops over rows. Training and inference share this code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora.templates import TASK_BY_NAME, TEMPLATES, Task
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import CatalogError, ConfigurationError
from seekrec.events.columns import EventColumns, RequestColumns
from seekrec.schema import BEHAVIORS, Behavior, View, item_texts
from seekrec.util.ragged import Ragged, join_rows
from seekrec.util.text import shared_encoder


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

    Raises:
        CatalogError: If the vocabulary does not fit the catalogue.
        ConfigurationError: If the tokenizer has no end of sequence.
    """

    # Text behind each query and each item of an event.
    separator: ClassVar[str] = ""

    def __init__(
        self,
        events: EventColumns,
        catalog: Catalog,
        vocabulary: IdentifierVocabulary,
        tokenizer: PreTrainedTokenizerBase,
        settings: CorpusSettings,
    ) -> None:
        for name in ("num_shared_levels", "num_specific_levels", "codebook_size"):
            ours, theirs = getattr(vocabulary, name), getattr(catalog, name)
            if ours != theirs:
                raise CatalogError(
                    f"`{name}` of the tokens is {ours}, of the catalogue {theirs}; use the catalogue that the tokens "
                    "were made for."
                )
        missing = [view for view in vocabulary.views if view not in catalog.codes]
        if missing:
            raise CatalogError(
                f"There are tokens for a {missing[0]} identifier, but the catalogue has only "
                f"{', '.join(catalog.codes)}; use the catalogue that the tokens were made for."
            )
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
            if self.separator:
                separators = np.full(len(parts[-1].values), self.add_piece(self.separator))
                parts.append(Ragged(separators, parts[-1].offsets))
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


def single_segment(segments: np.ndarray) -> Ragged:
    """Return rows of one segment each."""
    return Ragged(segments, np.arange(len(segments) + 1))


class InstructionWriter(SegmentTable):
    """Writes the rows of any task; the arguments are those of [`SegmentTable`]."""

    separator = "; "
    # The items of tasks about items, and the segments of the first: its text as it is read, and as it is written, and
    # its identifier in each view.
    _items = np.empty(0, dtype=np.int64)
    _first_text = _first_written_text = 0
    _first_identifier: Mapping[View, int] = MappingProxyType({})

    def add_items(self, items: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Prepare the tasks about items.

        Args:
            items (`np.ndarray`): int64 rows of the catalogue, ascending.
            texts (`Sequence[str]`): Title and description of each.

        Returns:
            `np.ndarray`: bool, which of them have text that can be encoded; the others cannot be targets.
        """
        max_length = self.settings.max_text_tokens
        encoded = self.encoder.encode(texts, max_length)
        self._items = items
        self._first_text = self.add(encoded)
        self._first_written_text = self.add(self.encoder.encode(texts, max_length, as_written=True))
        self._first_identifier = {
            view: self.add(self.identifier_tokens(items, view)) for view in self.vocabulary.views
        }
        return encoded.lengths > 0

    def write_inputs(
        self,
        task: Task,
        targets: np.ndarray,
        templates: np.ndarray,
        histories: Ragged | None = None,
        queries: np.ndarray | None = None,
    ) -> Ragged:
        """Write instructions.

        Args:
            task ([`Task`]): The task.
            targets (`np.ndarray`): int64 of shape `(n,)`: item rows for a task about items; else only counted.
            templates (`np.ndarray`): int of shape `(n,)`: the wording of each row.
            histories (`Ragged`, *optional*): Event numbers, `n` rows, cut already; not for a task about items.
            queries (`np.ndarray`, *optional*): int64 of shape `(n,)`: the segment of the query, for a task with one.

        Returns:
            `Ragged`: int32 token ids, `n` rows, each ending with end of sequence.
        """
        history, has_history = None, np.zeros(len(targets), dtype=bool)
        if histories is not None:
            # As segments, without the last separator.
            history = self.event_segments.expand(histories)
            has_history = history.lengths > 0
            is_written = np.ones(len(history.values), dtype=bool)
            is_written[history.offsets[1:][has_history] - 1] = False
            history = history.keep(is_written)
        groups = templates.astype(np.int64) * 2 + has_history
        written, order = [], []
        for group in np.unique(groups).tolist():
            rows = np.flatnonzero(groups == group)
            template = TEMPLATES[task.kind][group // 2]
            pieces = template.pieces if group % 2 else template.pieces_without_history
            cells = []
            for position, piece in enumerate(pieces):
                if piece == "history" and history is not None:
                    cells.append(history.take(rows))
                elif piece == "query" and queries is not None:
                    cells.append(single_segment(queries[rows]))
                elif position % 2:
                    cells.append(self._describe(piece, task, targets[rows]))
                elif piece:
                    # The view is a word of the wording, not a slot.
                    wording = piece.replace("{view}", task.view or "")
                    segment = self.add_piece(wording, starts_text=position == 0)
                    cells.append(single_segment(np.full(len(rows), segment)))
            cells.append(single_segment(np.full(len(rows), self.end)))
            written.append(join_rows(cells))
            order.append(rows)
        if not written:
            return Ragged.from_lists([])
        back = np.empty(len(targets), dtype=np.int64)
        back[np.concatenate(order)] = np.arange(len(targets))
        return self.tokens(Ragged.stack(written).take(back))

    def write_labels(self, task: Task, targets: np.ndarray) -> Ragged:
        """Write answers.

        Args:
            task ([`Task`]): The task.
            targets (`np.ndarray`): As in `write_inputs`.

        Returns:
            `Ragged`: int32 token ids, one row per target. Text ends with end of sequence, an identifier with its last
            code: its length is known.
        """
        if task.kind in ("nrip", "nsip"):
            return self.tokens(single_segment(self.item_segments[targets]))
        if task.kind == "desc2id":
            return self.tokens(self._describe("identifier", task, targets))
        # What is read is folded; what is written is as people wrote it.
        if task.kind == "nsqp":
            text = single_segment(self.written_query_segments(targets))
        else:
            text = single_segment(self._first_written_text + np.searchsorted(self._items, targets))
        return self.tokens(join_rows([text, single_segment(np.full(len(targets), self.end))]))

    def _describe(self, slot: str, task: Task, items: np.ndarray) -> Ragged:
        """Return the identifier or the text of items, by the slot of a wording: segment numbers, a row per item."""
        place = np.searchsorted(self._items, items)
        if slot == "identifier" and task.view is not None:
            return single_segment(self._first_identifier[task.view] + place)
        return single_segment(self._first_text + place)


def encode_requests(
    asked: RequestColumns,
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings,
    *,
    asks_for_query: bool = False,
) -> Ragged:
    """Write the instruction of each request, as training wrote it (wording 0).

    Args:
        asked ([`RequestColumns`]): With a query it is the instruction of NSIP, without one that of NRIP.
        catalog ([`Catalog`]): The items and their identifiers. Removed items may occur in histories.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        settings ([`CorpusSettings`]): Those of the model.
        asks_for_query (`bool`): Whether to write the instruction of NSQP instead, which asks for the next query.

    Returns:
        `Ragged`: int32 token ids for the encoder, a row per request, ending with end of sequence.

    Raises:
        CatalogError: If the vocabulary does not fit the catalogue.
        ConfigurationError: If the tokenizer has no end of sequence.
    """
    requests = asked.requests
    writer = InstructionWriter(asked.events, catalog, vocabulary, tokenizer, settings)
    histories = asked.events.cut(asked.histories, settings.max_history_recommendations, settings.max_history_searches)
    queries = np.arange(len(requests)) + writer.add_queries([request.query or "" for request in requests])
    tasks = ["nsqp" if asks_for_query else "nrip" if request.query is None else "nsip" for request in requests]
    written, order = [], []
    for task in dict.fromkeys(tasks):
        rows = np.array([row for row, own in enumerate(tasks) if own == task], dtype=np.int64)
        wording = np.zeros_like(rows)
        written.append(writer.write_inputs(TASK_BY_NAME[task], rows, wording, histories.take(rows), queries[rows]))
        order.append(rows)
    return Ragged.stack(written).take(np.argsort(np.concatenate(order)))


def encode_items(
    items: np.ndarray,
    view: View,
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings,
) -> Ragged:
    """Write the instructions that ask for the description of items (ID2Desc, wording 0).

    Args:
        items (`np.ndarray`): int64 rows of the catalogue.
        view (`str`): The identifier shown.
        catalog ([`Catalog`]): The items and their identifiers.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        settings ([`CorpusSettings`]): Those of the model.

    Returns:
        `Ragged`: int32 token ids for the encoder, a row per item.
    """
    no_events = RequestColumns.read([], catalog.id_map).events
    writer = InstructionWriter(no_events, catalog, vocabulary, tokenizer, settings)
    known = np.unique(items)
    writer.add_items(known, item_texts(catalog.items.take(known)))
    task = TASK_BY_NAME[f"id2desc_{view}"]
    return writer.write_inputs(task, items, np.zeros(len(items), dtype=np.int64))


__all__ = ["CorpusSettings", "InstructionWriter", "SegmentTable", "encode_items", "encode_requests", "single_segment"]
