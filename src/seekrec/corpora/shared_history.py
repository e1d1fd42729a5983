# SPDX-License-Identifier: Apache-2.0
"""One encoded history for all targets of a user.

The paper writes one instruction for each target and encodes the history anew each time. Here a row holds a user's
events once, `History: <R_I> <M1_30> ... <S_Q> piano <S_I> <M1_247> ...`, and every event of it is a target that sees
only what came before: the encoder is causal, and each decoder token carries the number of encoder tokens it may attend
to. A model must be made for it (`GenSARConfig.shared_history`).

What a target may see, in tokens from the start of the row:

| task | may see |
|---|---|
| `nrip`, `nsqp` | all events with an earlier timestamp |
| `nsip` | the same, and the event's own query |

Under the strict protocol a target never sees its own item: `targets.py` says which of those whose item stands before
them get a row of their own, a search told as a copy for example. Passed over besides is a search that shares its
timestamp with an event of another item before it: its query could not be seen without that event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from seekrec.corpora.prompts import check_vocabulary, end_token_id
from seekrec.corpora.segments import SegmentTable, list_histories, repeat_segment, single_segment
from seekrec.corpora.settings import CorpusSettings
from seekrec.corpora.targets import choose_questions, own_windows, report_questions
from seekrec.corpora.text import shared_encoder
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import DataError
from seekrec.events.columns import EventColumns
from seekrec.events.queries import category_queries
from seekrec.schema import RECOMMENDATION, SEARCH, Event, Request
from seekrec.util.ragged import Ragged, join_rows

if TYPE_CHECKING:
    from seekrec.catalog import Catalog
    from seekrec.events import Split

LEAD_IN = "History:"
HISTORY_TASKS = ("nrip", "nsip", "nsqp")


@dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of users' events: which events, and from which on they are targets.

    Args:
        events (`Ragged`): Positions in the sequence of training events.
        first_target (`np.ndarray`): int64 by window: number of the first target within the window.
    """

    events: Ragged
    first_target: np.ndarray


def build_shared_histories(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    recommend_searched_items: bool = False,
    shares: Mapping[str, float] | None = None,
) -> Dataset:
    """Write the training part of a split, a row for each user.

    A user with more than `max_history_recommendations + max_history_searches` events gets several rows of that many;
    each starts half of that after the one before, and only the events that the one before lacks are targets again.

    Args:
        split (`Split`): Whose training events to write.
        catalog (`Catalog`): Identifiers of the items.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): Where they are.
        settings ([`CorpusSettings`]): `tasks` chooses among nrip, nsip and nsqp; the others are not written here.
        recommend_searched_items (`bool`): Also ask `nrip` for the items of searches, without their queries.
        shares (`Mapping[str, float]`, *optional*): Share of a task's targets that are asked for, 0 to 1, by a draw
            seeded with `settings.seed`; all of a task that is left out.

    Returns:
        `datasets.Dataset`: Columns, all lists of int32: `input_ids`; `decoder_input_ids`, `labels` (the token that
        follows each decoder input), `decoder_segment_ids` (number of the target) and `decoder_history_lengths`.
    """
    check_vocabulary(catalog, vocabulary)
    tasks = HISTORY_TASKS if settings.tasks is None else settings.tasks
    columns = EventColumns.from_table(split.log.events, catalog.id_map)
    writer = _StreamWriter(columns, catalog, vocabulary, tokenizer, settings)
    rows = split.training_acts()
    timeline = split.timeline
    user, time = timeline.user[rows], timeline.time[rows]
    cut = cut_windows(user, settings.max_history_recommendations + settings.max_history_searches)
    windows = cut.events

    # From here on one entry for each event of each window.
    place = windows.values
    event = rows[place]
    window = windows.owners()
    is_target = np.arange(len(place)) - windows.offsets[window] >= cut.first_target[window]
    is_target &= np.isin(event, split.training_targets(include_queries=True))
    is_search = columns.is_search[event]
    told = np.stack([recommend_searched_items | ~is_search, is_search], axis=1)
    is_asked = told & (is_target & (columns.item[event] >= 0))[:, None]
    if split.protocol == "strict":
        # A recommendation sees earlier timestamps, a search all that stands before its query.
        moment, stream = timeline.moment[event], np.arange(len(place))
        action = split.log.events["action"].combine_chunks().dictionary_encode().indices.to_numpy()[event]
        is_asked, alone = choose_questions(
            window, columns.item[event], action, told, is_asked, np.stack([moment, stream], axis=1)
        )
        if len(places := np.flatnonzero(alone.any(1))):
            # Each is the last event of its own row; those stand behind all others and ask for no query.
            added = own_windows(windows, places, moment, columns.item[event])
            windows = Ragged.stack([windows, added])
            last = np.zeros((len(added.values), 2), dtype=bool)
            last[added.offsets[1:] - 1] = alone[places]
            is_asked = np.concatenate([is_asked, last])
            is_target = np.concatenate([is_target, np.zeros(len(last), dtype=bool)])
            place = windows.values
            event, window = rows[place], windows.owners()
            is_search = columns.is_search[event]
    inputs, starts = writer.write(windows, rows)
    if split.protocol == "strict":
        first_of_time = _first_of_run(np.stack([window, time[place]]))
        visible, is_searchable = starts[first_of_time], first_of_time == np.arange(len(place))
    else:
        visible, is_searchable = starts, np.ones(len(place), dtype=bool)
    is_asked[:, 1] &= is_searchable
    behaviors = [one for one, task in ((RECOMMENDATION, "nrip"), (SEARCH, "nsip")) if task in tasks]
    if behaviors:
        number, behavior = np.nonzero(is_asked & np.isin([RECOMMENDATION, SEARCH], behaviors))
        report_questions(split, event[number], behavior, behaviors=behaviors)

    def draw(task: str, wanted: np.ndarray) -> np.ndarray:
        share = 1.0 if shares is None else shares.get(task, 1.0)
        generator = np.random.default_rng([settings.seed, HISTORY_TASKS.index(task)])
        return np.flatnonzero(wanted & (generator.random(len(wanted)) < share))

    targets: list[tuple[np.ndarray, np.ndarray, Ragged]] = []
    if "nrip" in tasks:
        chosen = draw("nrip", is_asked[:, 0])
        targets.append((chosen, visible[chosen], writer.items(event[chosen], RECOMMENDATION)))
    if "nsip" in tasks:
        chosen = draw("nsip", is_asked[:, 1])
        own_query = writer.query_lengths(event[chosen])
        targets.append((chosen, starts[chosen] + own_query, writer.items(event[chosen], SEARCH)))
    if "nsqp" in tasks:
        chosen = draw("nsqp", is_target & is_search)
        targets.append((chosen, visible[chosen], writer.queries(event[chosen])))
    return _assemble(inputs, window, targets)


def build_item_queries(
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    max_items: int = 64,
) -> Dataset:
    """Ask for every item by the queries its categories give, without a history; a row holds the items of one query.

    The released GenSAR code trains on generated queries of each item for the same purpose. Nothing here comes from a
    user: it is what the catalogue says about itself, as a text index of it would.

    Args:
        catalog (`Catalog`): Items with category paths; removed ones are left out.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): Where they are.
        settings ([`CorpusSettings`]): Lengths.
        max_items (`int`): A query with more items gets several rows.

    Returns:
        `datasets.Dataset`: The columns of [`build_shared_histories`].

    Raises:
        DataError: If no item has a query.
    """
    pairs: dict[str, list[int]] = {}
    for row, query in list_item_queries(catalog):
        pairs.setdefault(query, []).append(row)
    asked, items = [], []
    for query, rows in pairs.items():
        for start in range(0, len(rows), max_items):
            asked.append(Event(None, behavior=SEARCH, query=query))
            items.append(rows[start : start + max_items])
    columns = EventColumns.from_events(asked, catalog.id_map)
    writer = _StreamWriter(columns, catalog, vocabulary, tokenizer, settings)
    every = Ragged(np.arange(len(asked)), np.arange(len(asked) + 1))
    inputs, _ = writer.write(every, np.arange(len(asked)))
    targets = Ragged.from_lists(items)
    tokens = writer.segments.item_tokens(targets.values.astype(np.int64), SEARCH)
    owners = targets.owners()
    return _assemble(inputs, owners, [(np.arange(len(owners)), inputs.lengths[owners], tokens)])


def list_item_queries(catalog: Catalog) -> list[tuple[int, str]]:
    """Give the queries that the categories of each item give, as pairs of a catalogue row and a query.

    Raises:
        DataError: If no item has one; removed items do not count.
    """
    pairs = [
        (row, query)
        for row, queries in enumerate(category_queries(catalog.items))
        for query in queries
        if catalog.live[row]
    ]
    if not pairs:
        raise DataError("No item of the catalogue has a category path that gives a query; leave `item_queries` out.")
    return pairs


def encode_shared_history(
    requests: Sequence[Request],
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings,
) -> list[list[int]]:
    """Write what the encoder reads for each request: the history and, of a search, the query.

    Args:
        requests (`Sequence[Request]`): The questions.
        catalog (`Catalog`): Its identifiers. Removed items may occur in histories.
        vocabulary ([`IdentifierVocabulary`]): Of the tokenizer.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        settings ([`CorpusSettings`]): Those of the corpus that the model was trained on.

    Returns:
        `list[list[int]]`: Token ids, in the order of the requests.

    Raises:
        UnknownItemError: If a history names an item that the catalogue does not hold.
    """
    check_vocabulary(catalog, vocabulary)
    events, histories = list_histories([request.history for request in requests])
    asked = [Event(None, behavior=request.behavior, query=request.query) for request in requests]
    columns = EventColumns.from_events([*events, *asked], catalog.id_map)
    writer = _StreamWriter(columns, catalog, vocabulary, tokenizer, settings)
    cut = columns.cut(histories, settings.max_history_recommendations, settings.max_history_searches)
    questions = Ragged(np.arange(len(asked)) + len(events), np.arange(len(asked) + 1))
    inputs, _ = writer.write(join_rows([cut, questions]), np.arange(len(columns)))
    return inputs.to_lists()


class _StreamWriter:
    """Writes events one after the other, without separators."""

    def __init__(
        self,
        columns: EventColumns,
        catalog: Catalog,
        vocabulary: IdentifierVocabulary,
        tokenizer: PreTrainedTokenizerBase,
        settings: CorpusSettings,
    ) -> None:
        self.columns = columns
        self.segments = SegmentTable(
            columns,
            catalog.codes,
            vocabulary,
            shared_encoder(tokenizer),
            max_query_tokens=settings.max_query_tokens,
        )
        self._lead_in = self.segments.add_piece(LEAD_IN, starts_text=True)
        self._end = self.segments.add(Ragged.from_lists([[end_token_id(tokenizer)]]))
        events = np.arange(len(columns))
        parts = []
        for present, number in (
            (columns.is_search, self.segments.query_segments),
            (columns.item >= 0, self.segments.item_segments),
        ):
            parts.append(Ragged(number(events[present]), np.concatenate([[0], np.cumsum(present)])))
        self._segments_of_event = join_rows(parts)

    def write(self, histories: Ragged, rows: np.ndarray) -> tuple[Ragged, np.ndarray]:
        """Write rows of events; returns the tokens and where each event starts in its row."""
        events = Ragged(rows[histories.values], histories.offsets)
        lead_in = repeat_segment(self._lead_in, len(events))
        tokens = self.segments.tokens(join_rows([lead_in, self._segments_of_event.expand(events)]))
        lengths = self.segments.tokens(self._segments_of_event.take(events.values)).lengths
        before = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        starts = before - before[np.minimum(events.offsets[:-1], max(len(before) - 1, 0))][events.owners()]
        lead_length = int(self.segments.tokens(repeat_segment(self._lead_in, 1)).lengths[0])
        return tokens, starts + lead_length

    def query_lengths(self, events: np.ndarray) -> np.ndarray:
        """Tokens of the query of each event, its behavior token included."""
        return self.segments.tokens(single_segment(self.segments.query_segments(events))).lengths

    def items(self, events: np.ndarray, behavior: str) -> Ragged:
        """The behavior token and identifier of each event's item, in the view of a behavior."""
        return self.segments.item_tokens(self.columns.item[events], behavior)  # type: ignore[arg-type]

    def queries(self, events: np.ndarray) -> Ragged:
        """The query of each event, as written, with its behavior token and the end of sequence."""
        numbers = single_segment(self.segments.written_query_segments(events))
        return self.segments.tokens(join_rows([numbers, repeat_segment(self._end, len(events))]))


def _assemble(inputs: Ragged, window: np.ndarray, targets: Sequence[tuple[np.ndarray, np.ndarray, Ragged]]) -> Dataset:
    """Put the targets of each window into one decoder row."""
    where = np.concatenate([chosen for chosen, _, _ in targets])
    visible = np.concatenate([lengths for _, lengths, _ in targets])
    tokens = Ragged.stack([answers for _, _, answers in targets])
    order = np.argsort(where, kind="stable")
    owner = window[where[order]]
    visible, tokens = visible[order], tokens.take(order)

    # An answer of n tokens gives n - 1 pairs of an input and the label that follows it.
    positions = np.arange(len(tokens.values))
    is_first = np.zeros(len(positions), dtype=bool)
    is_first[tokens.offsets[:-1]] = True
    is_last = np.zeros(len(positions), dtype=bool)
    is_last[tokens.offsets[1:] - 1] = True
    pairs = tokens.lengths - 1
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, weights=pairs, minlength=len(inputs)).astype(int))])
    number = np.arange(len(owner)) - np.searchsorted(owner, owner)
    columns = {
        "input_ids": inputs,
        "decoder_input_ids": Ragged(tokens.values[~is_last], offsets),
        "labels": Ragged(tokens.values[~is_first], offsets),
        "decoder_segment_ids": Ragged(np.repeat(number, pairs), offsets),
        "decoder_history_lengths": Ragged(np.repeat(visible, pairs), offsets),
    }
    has_target = np.flatnonzero(np.diff(offsets) > 0)
    return Dataset(pa.table({name: column.take(has_target).to_arrow() for name, column in columns.items()}))


def cut_windows(user: np.ndarray, size: int) -> Windows:
    """Cut each user's run of events into windows of at most `size`."""
    begins = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]])) if len(user) else np.empty(0, int)
    counts = np.diff(np.append(begins, len(user)))
    step = max(1, size // 2)
    num_windows = 1 + np.maximum(0, -(-(counts - size) // step))
    owner = np.repeat(np.arange(len(begins)), num_windows)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
    start = number * step
    lengths = np.minimum(size, counts[owner] - start)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(begins[owner] + start, lengths)
    return Windows(Ragged(values, offsets), np.where(number == 0, 0, size - step))


def _first_of_run(keys: np.ndarray) -> np.ndarray:
    """For each column of `keys` the index of the first of its run of equal columns."""
    changes = np.ones(keys.shape[1], dtype=bool)
    changes[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return np.flatnonzero(changes)[np.cumsum(changes) - 1]


__all__ = [
    "HISTORY_TASKS",
    "LEAD_IN",
    "Windows",
    "build_item_queries",
    "build_shared_histories",
    "cut_windows",
    "encode_shared_history",
    "list_item_queries",
]
