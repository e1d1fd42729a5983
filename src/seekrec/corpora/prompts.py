# SPDX-License-Identifier: Apache-2.0
"""Writing instructions and answers: the one code path of training and inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedTokenizerBase

from seekrec.corpora.segments import SegmentTable, list_histories, repeat_segment, single_segment
from seekrec.corpora.settings import CorpusSettings
from seekrec.corpora.tasks import TASK_BY_NAME, TASK_OF_BEHAVIOR, Task
from seekrec.corpora.templates import template_pieces
from seekrec.corpora.text import TextEncoder, shared_encoder
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import CatalogError, ConfigurationError
from seekrec.events.columns import EventColumns
from seekrec.schema import BEHAVIORS, Event, Request, View
from seekrec.util.ragged import Ragged, join_rows

if TYPE_CHECKING:
    from seekrec.catalog import Catalog


class PromptWriter:
    """Writes the rows of any task.

    Args:
        events ([`EventColumns`]): The events that histories and targets may name.
        codes (`Mapping[str, np.ndarray]`): For each view integers of shape `(num_items, num_levels)`.
        vocabulary ([`IdentifierVocabulary`]): Where the identifier tokens are.
        encoder ([`TextEncoder`]): Encodes queries and titles.
        eos_token_id (`int`): Ends every instruction, and every answer that is text.
        settings ([`CorpusSettings`]): Lengths.
    """

    def __init__(
        self,
        events: EventColumns,
        codes: Mapping[View, np.ndarray],
        vocabulary: IdentifierVocabulary,
        encoder: TextEncoder,
        *,
        eos_token_id: int,
        settings: CorpusSettings,
    ) -> None:
        self.segments = SegmentTable(events, codes, vocabulary, encoder, max_query_tokens=settings.max_query_tokens)
        self.settings = settings
        self._encoder = encoder
        self._end = self.segments.add(Ragged.from_lists([[eos_token_id]]))
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
        encoded = self._encoder.encode_ragged(texts, self.settings.max_text_tokens)
        self._items = items
        self._first_text = self.segments.add(encoded)
        written = self._encoder.encode_ragged(texts, self.settings.max_text_tokens, as_written=True)
        self._first_written_text = self.segments.add(written)
        self._first_identifier = {
            view: self.segments.add(self.segments.identifier_tokens(items, view))
            for view in self.segments.vocabulary.views
        }
        return encoded.lengths > 0

    def write_inputs(
        self, task: Task, targets: np.ndarray, templates: np.ndarray, histories: Ragged | None = None
    ) -> Ragged:
        """Write instructions.

        Args:
            task ([`Task`]): What is asked.
            targets (`np.ndarray`): int64 of shape `(n,)`: event numbers, or item rows for a task about items.
            templates (`np.ndarray`): int of shape `(n,)`: the wording of each row.
            histories (`Ragged`, *optional*): Event numbers, `n` rows, cut already; not for a task about items.

        Returns:
            `Ragged`: int32 token ids, `n` rows, each ending with end of sequence.
        """
        history = None if histories is None else self.segments.history_segments(histories)
        has_history = np.zeros(len(targets), dtype=bool) if history is None else history.lengths > 0
        groups = templates.astype(np.int64) * 2 + has_history
        written, order = [], []
        for group in np.unique(groups).tolist():
            rows = np.flatnonzero(groups == group)
            pieces = template_pieces(task.kind, group // 2, view=task.view, has_history=bool(group % 2))
            cells = []
            for position, piece in enumerate(pieces):
                if position % 2:
                    cells.append(
                        self._fill(piece, task, targets[rows], None if history is None else history.take(rows))
                    )
                elif piece:
                    segment = self.segments.add_piece(piece, starts_text=position == 0)
                    cells.append(repeat_segment(segment, len(rows)))
            cells.append(repeat_segment(self._end, len(rows)))
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
            task ([`Task`]): What is asked.
            targets (`np.ndarray`): As in `write_inputs`.

        Returns:
            `Ragged`: int32 token ids, one row a target. Text ends with end of sequence, an identifier with its last
            code: its length is known.
        """
        if task.kind in ("nrip", "nsip"):
            return self.segments.tokens(single_segment(self.segments.item_segments(targets)))
        if task.kind == "desc2id":
            return self.segments.tokens(self._fill("identifier", task, targets, None))
        # What is read is folded; what is written is as people wrote it.
        if task.kind == "nsqp":
            text = single_segment(self.segments.written_query_segments(targets))
        else:
            text = single_segment(self._first_written_text + np.searchsorted(self._items, targets))
        return self.segments.tokens(join_rows([text, repeat_segment(self._end, len(targets))]))

    def _fill(self, slot: str, task: Task, targets: np.ndarray, history: Ragged | None) -> Ragged:
        if slot == "history" and history is not None:
            return history
        if slot == "query":
            return single_segment(self.segments.query_segments(targets))
        place = np.searchsorted(self._items, targets)
        if slot == "identifier" and task.view is not None:
            return single_segment(self._first_identifier[task.view] + place)
        return single_segment(self._first_text + place)


def encode_requests(
    requests: Sequence[Request],
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings | None = None,
) -> list[list[int]]:
    """Write the instruction of each request, as training wrote it (wording 0).

    Args:
        requests (`Sequence[Request]`): With a query it is the instruction of NSIP, without one that of NRIP.
        catalog (`Catalog`): Its identifiers. Removed items may occur in histories.
        vocabulary ([`IdentifierVocabulary`]): Of the tokenizer.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        settings ([`CorpusSettings`], *optional*): Those of the corpus that the model was trained on.

    Returns:
        `list[list[int]]`: Token ids for the encoder, ending with end of sequence.

    Raises:
        UnknownItemError: If a history names an item that the catalogue does not hold.
        CatalogError: If the vocabulary does not fit the catalogue.
        ConfigurationError: If the tokenizer has no end of sequence.
    """
    settings = CorpusSettings() if settings is None else settings
    check_vocabulary(catalog, vocabulary)
    events, histories = list_histories([request.history for request in requests])
    # The question itself is an event without an item.
    asked = [Event(None, behavior=request.behavior, query=request.query) for request in requests]
    columns = EventColumns.from_events([*events, *asked], catalog.id_map)
    writer = PromptWriter(
        columns,
        catalog.codes,
        vocabulary,
        shared_encoder(tokenizer),
        eos_token_id=end_token_id(tokenizer),
        settings=settings,
    )
    histories = columns.cut(histories, settings.max_history_recommendations, settings.max_history_searches)
    rows: list[list[int]] = [[] for _ in requests]
    for behavior in BEHAVIORS:
        numbers = [number for number, request in enumerate(requests) if request.behavior == behavior]
        if not numbers:
            continue
        inputs = writer.write_inputs(
            TASK_BY_NAME[TASK_OF_BEHAVIOR[behavior]],
            np.array(numbers, dtype=np.int64) + len(events),
            np.zeros(len(numbers), dtype=np.int64),
            histories.take(numbers),
        )
        for number, row in zip(numbers, inputs.to_lists(), strict=True):
            rows[number] = row
    return rows


def check_vocabulary(catalog: Catalog, vocabulary: IdentifierVocabulary) -> None:
    """Refuse a vocabulary made for other identifiers.

    Raises:
        CatalogError: If the sizes differ, or the catalogue lacks a view of the vocabulary.
    """
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


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of end of sequence.

    Raises:
        ConfigurationError: If the tokenizer has none.
    """
    number = tokenizer.eos_token_id
    if not isinstance(number, int):
        raise ConfigurationError("The tokenizer has no `eos_token`; set one, as T5 has.")
    return number
