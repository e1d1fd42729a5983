# SPDX-License-Identifier: Apache-2.0
"""Write instructions and answers, by one code path for training and inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora.segments import (
    CorpusSettings,
    SegmentTable,
    repeat_segment,
    single_segment,
)
from seekrec.corpora.templates import TASK_BY_NAME, TEMPLATES, Task
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.events.columns import EventColumns, RequestColumns
from seekrec.schema import View, item_texts
from seekrec.util.ragged import Ragged, join_rows

_SEPARATOR = "; "  # between the events of a history, and between a query and the item clicked after it


class InstructionWriter:
    """Writes the rows of any task; the arguments are those of [`SegmentTable`]."""

    def __init__(
        self,
        events: EventColumns,
        catalog: Catalog,
        vocabulary: IdentifierVocabulary,
        tokenizer: PreTrainedTokenizerBase,
        settings: CorpusSettings,
    ) -> None:
        self.segments = SegmentTable(events, catalog, vocabulary, tokenizer, settings, separator=_SEPARATOR)
        self._items = np.empty(0, dtype=np.int64)
        self._first_text = self._first_written_text = 0
        self._first_identifier: dict[View, int] = {}

    def add_items(self, items: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Prepare the tasks about items.

        Args:
            items (`np.ndarray`): int64 rows of the catalogue, ascending.
            texts (`Sequence[str]`): Title and description of each.

        Returns:
            `np.ndarray`: bool, which of them have text that can be encoded; the others cannot be targets.
        """
        encoder, max_length = self.segments.encoder, self.segments.settings.max_text_tokens
        encoded = encoder.encode(texts, max_length)
        self._items = items
        self._first_text = self.segments.add(encoded)
        self._first_written_text = self.segments.add(encoder.encode(texts, max_length, as_written=True))
        self._first_identifier = {
            view: self.segments.add(self.segments.identifier_tokens(items, view))
            for view in self.segments.vocabulary.views
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
            history = self.segments.event_segments.expand(histories)
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
                    segment = self.segments.add_piece(wording, starts_text=position == 0)
                    cells.append(repeat_segment(segment, len(rows)))
            cells.append(repeat_segment(self.segments.end, len(rows)))
            written.append(join_rows(cells))
            order.append(rows)
        if not written:
            return Ragged.from_lists([])
        back = np.empty(len(targets), dtype=np.int64)
        back[np.concatenate(order)] = np.arange(len(targets))
        return self.segments.tokens(Ragged.stack(written).take(back))

    def write_labels(self, task: Task, targets: np.ndarray) -> Ragged:
        """Write answers.

        Args:
            task ([`Task`]): The task.
            targets (`np.ndarray`): As in `write_inputs`.

        Returns:
            `Ragged`: int32 token ids, one row a target. Text ends with end of sequence, an identifier with its last
            code: its length is known.
        """
        if task.kind in ("nrip", "nsip"):
            return self.segments.tokens(single_segment(self.segments.item_segments[targets]))
        if task.kind == "desc2id":
            return self.segments.tokens(self._describe("identifier", task, targets))
        # What is read is folded; what is written is as people wrote it.
        if task.kind == "nsqp":
            text = single_segment(self.segments.written_query_segments(targets))
        else:
            text = single_segment(self._first_written_text + np.searchsorted(self._items, targets))
        return self.segments.tokens(join_rows([text, repeat_segment(self.segments.end, len(targets))]))

    def _describe(self, slot: str, task: Task, items: np.ndarray) -> Ragged:
        """Return the identifier or the text of items, by the slot of a wording: segment numbers, a row an item."""
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
        `Ragged`: int32 token ids for the encoder, a row a request, ending with end of sequence.

    Raises:
        CatalogError: If the vocabulary does not fit the catalogue.
        ConfigurationError: If the tokenizer has no end of sequence.
    """
    requests = asked.requests
    writer = InstructionWriter(asked.events, catalog, vocabulary, tokenizer, settings)
    histories = asked.events.cut(asked.histories, settings.max_history_recommendations, settings.max_history_searches)
    queries = np.arange(len(requests)) + writer.segments.add_queries([request.query or "" for request in requests])
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
        `Ragged`: int32 token ids for the encoder, a row an item.
    """
    writer = InstructionWriter(EventColumns.from_events([], catalog.id_map), catalog, vocabulary, tokenizer, settings)
    known = np.unique(items)
    writer.add_items(known, item_texts(catalog.items.take(known)))
    task = TASK_BY_NAME[f"id2desc_{view}"]
    return writer.write_inputs(task, items, np.zeros(len(items), dtype=np.int64))


__all__ = ["InstructionWriter", "encode_items", "encode_requests"]
