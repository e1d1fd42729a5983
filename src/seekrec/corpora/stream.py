# SPDX-License-Identifier: Apache-2.0
"""Write each user's history once for all its targets (`corpus: stream`).

The paper writes one instruction for each target and encodes the history again each time. Here a row contains a user's
events once, `History: <R_I> <M1_30> ... <S_Q> piano <S_I> <M1_247> ...`, and every event of it is a target that sees
only what came before: the encoder is causal, and each decoder token carries the number of encoder tokens it may attend
to.

What a target may see, in tokens from the start of the row:

| task | may see |
|---|---|
| `nrip`, `nsqp` | all events with an earlier timestamp |
| `nsip` | the same, and the event's own query |

Under the strict protocol a target never sees its own item: `targets.py` decides which targets whose item appears
earlier get a separate row, for example a search that is a copy of a recommendation. A search with the same timestamp
as an earlier event of another item is left out too: its query could not be seen without that event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora.segments import (
    CorpusSettings,
    SegmentTable,
    single_segment,
)
from seekrec.corpora.targets import choose_questions, cut_windows, own_windows, report_questions
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import DataError
from seekrec.events import Split
from seekrec.events.columns import EventColumns, RequestColumns
from seekrec.events.queries import category_queries
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior, Event, Request
from seekrec.util.hashing import hash_fractions
from seekrec.util.ragged import Ragged, join_rows

LEAD_IN = "History:"
HISTORY_TASKS = ("nrip", "nsip", "nsqp")
# Bounds what is held while a partition is written.
_EVENTS_AT_A_TIME = 1 << 19


def build_stream(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    draw_keys: np.ndarray | None = None,
) -> Dataset:
    """Write the training part of a split, a row for each user.

    A user with more than `max_history_recommendations + max_history_searches` events gets several rows of that many;
    each starts half of that after the one before, and only the events that the one before lacks are targets again.

    Args:
        split (`Split`): Split whose training events are written.
        catalog (`Catalog`): Identifiers of the items.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths, and whether to ask `nrip` for the items of searches too.
        shares (`Mapping[str, float]`, *optional*): Tasks out of nrip, nsip and nsqp, and the share of its targets that
            each asks for, above 0 up to 1; all targets of all three if not given.
        seed (`int`): Seed of the draw of targets.
        draw_keys (`np.ndarray`, *optional*): uint64 key of each event of the log, to draw its tasks by; by the order
            of the targets if not given, which is another one where a log is written a part at a time.

    Returns:
        `datasets.Dataset`: Columns, all lists of int32: `input_ids`; `decoder_input_ids`, `labels` (the token that
        follows each decoder input), `decoder_segment_ids` (number of the target) and `decoder_history_lengths`.
    """
    tasks = dict.fromkeys(HISTORY_TASKS, 1.0) if shares is None else shares
    columns = EventColumns.from_table(split.log.events, catalog.id_map)
    writer = _StreamWriter(columns, catalog, vocabulary, tokenizer, settings)
    return Dataset(_write_users(split, split.training_acts(), writer, tasks, seed, draw_keys, reports=True))


def write_stream(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    *,
    shares: Mapping[str, float],
    seed: int,
    draw_keys: np.ndarray,
    num_events: int = _EVENTS_AT_A_TIME,
) -> Iterator[pa.Table]:
    """Write what [`build_stream`] writes, some users at a time; the arguments are the same but for the last.

    Args:
        split (`Split`): A partition of a larger split; there need not be anything to train on.
        catalog (`Catalog`): Identifiers of the items.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        shares (`Mapping[str, float]`): Tasks, and the share of its targets that each asks for.
        seed (`int`): Seed of the draw of targets.
        draw_keys (`np.ndarray`): uint64 key of each event.
        num_events (`int`): Events at a time, at least; those of a user stay together.

    Yields:
        `pyarrow.Table`: Some rows.
    """
    columns = EventColumns.from_table(split.log.events, catalog.id_map)
    writer = _StreamWriter(columns, catalog, vocabulary, tokenizer, settings)
    rows = split.training_acts()
    user = split.timeline.user[rows]
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(user, user[min(start + num_events, len(rows)) - 1], side="right"))
        yield _write_users(split, rows[start:stop], writer, shares, seed, draw_keys)
        start = stop


def _write_users(
    split: Split,
    rows: np.ndarray,
    writer: _StreamWriter,
    tasks: Mapping[str, float],
    seed: int,
    draw_keys: np.ndarray | None,
    *,
    reports: bool = False,
) -> pa.Table:
    """Write the training events `rows`, which are those of whole users; see [`build_stream`]."""
    columns, settings = writer.segments.events, writer.segments.settings
    timeline = split.timeline
    user, time = timeline.user[rows], timeline.timestamp[rows]
    cut = cut_windows(user, settings.max_history_recommendations + settings.max_history_searches)
    windows = cut.events

    # From here on one entry for each event of each window.
    place = windows.values
    event = rows[place]
    window = windows.owners()
    is_target = np.arange(len(place)) - windows.offsets[window] >= cut.first_target[window]
    is_target &= np.isin(event, split.training_targets(include_queries=True))
    is_search = columns.is_search[event]
    counts_as = np.stack([settings.recommend_searched_items | ~is_search, is_search], axis=1)
    is_asked = counts_as & (is_target & (columns.item[event] >= 0))[:, None]
    if split.protocol == "strict":
        # A recommendation sees earlier timestamps, a search all that stands before its query.
        moment, stream = timeline.moment[event], np.arange(len(place))
        action = split.log.events["action"].combine_chunks().dictionary_encode().indices.to_numpy()[event]
        is_asked, alone = choose_questions(
            window, columns.item[event], action, counts_as, is_asked, np.stack([moment, stream], axis=1)
        )
        if len(places := np.flatnonzero(alone.any(1))):
            # Each is the last event of its own row; these rows stand behind all others and have no query target.
            added = own_windows(windows, places, moment, columns.item[event])
            windows = Ragged.stack([windows, added])
            last = np.zeros((len(added.values), 2), dtype=bool)
            last[added.offsets[1:] - 1] = alone[places]
            is_asked = np.concatenate([is_asked, last])
            is_target = np.concatenate([is_target, np.zeros(len(last), dtype=bool)])
            place = windows.values
            event, window = rows[place], windows.owners()
            is_search = columns.is_search[event]
    histories = Ragged(event, windows.offsets)
    inputs, starts = writer.write(histories), writer.starts(histories)
    if split.protocol == "strict":
        first_of_time = _first_of_run(np.stack([window, time[place]]))
        visible, is_searchable = starts[first_of_time], first_of_time == np.arange(len(place))
    else:
        visible, is_searchable = starts, np.ones(len(place), dtype=bool)
    is_asked[:, 1] &= is_searchable
    behaviors = [one for one, task in ((RECOMMENDATION, "nrip"), (SEARCH, "nsip")) if task in tasks]
    if behaviors and reports:
        number, behavior = np.nonzero(is_asked & np.isin([RECOMMENDATION, SEARCH], behaviors))
        report_questions(split, event[number], behavior, behaviors=behaviors)

    def draw(task: str, wanted: np.ndarray) -> np.ndarray:
        if draw_keys is not None:
            drawn = hash_fractions(seed, HISTORY_TASKS.index(task), draw_keys[event])
            return np.flatnonzero(wanted & (drawn < tasks[task]))
        generator = np.random.default_rng([seed, HISTORY_TASKS.index(task)])
        return np.flatnonzero(wanted & (generator.random(len(wanted)) < tasks[task]))

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
    """Write every item as an answer to the queries of its categories, without a history, in a row for each query.

    The released GenSAR code trains on generated queries of each item for the same purpose. Nothing here comes from a
    user: it is what the catalogue says about itself, as a text index of it would.

    Args:
        catalog (`Catalog`): Items with category paths; removed ones are left out.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        max_items (`int`): A query with more items gets several rows.

    Returns:
        `datasets.Dataset`: The columns of [`build_stream`].

    Raises:
        DataError: If no item has a query.
    """
    pairs: dict[str, list[int]] = {}
    for row, query in list_item_queries(catalog):
        pairs.setdefault(query, []).append(row)
    asked, items = [], []
    for query, rows in pairs.items():
        for start in range(0, len(rows), max_items):
            asked.append(Request([Event(None, behavior=SEARCH, query=query)]))
            items.append(rows[start : start + max_items])
    columns = RequestColumns.read(asked, catalog.id_map).events
    writer = _StreamWriter(columns, catalog, vocabulary, tokenizer, settings)
    inputs = writer.write(single_segment(np.arange(len(asked))))
    targets = Ragged.from_lists(items)
    tokens = writer.segments.item_tokens(targets.values.astype(np.int64), SEARCH)
    owners = targets.owners()
    return Dataset(_assemble(inputs, owners, [(np.arange(len(owners)), inputs.lengths[owners], tokens)]))


def list_item_queries(catalog: Catalog) -> list[tuple[int, str]]:
    """List the queries made of the categories of each item, as pairs of a catalogue row and a query.

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


def encode_stream(
    asked: RequestColumns,
    catalog: Catalog,
    vocabulary: IdentifierVocabulary,
    tokenizer: PreTrainedTokenizerBase,
    settings: CorpusSettings,
) -> Ragged:
    """Write the encoder input of each request: the history and, for a search, the query.

    Args:
        asked ([`RequestColumns`]): The questions.
        catalog ([`Catalog`]): The items and their identifiers. Removed items may occur in histories.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        settings ([`CorpusSettings`]): Those of the model.

    Returns:
        `Ragged`: int32 token ids, a row per request.
    """
    requests = asked.requests
    writer = _StreamWriter(asked.events, catalog, vocabulary, tokenizer, settings)
    histories = asked.events.cut(asked.histories, settings.max_history_recommendations, settings.max_history_searches)
    queries = [request.query for request in requests if request.query is not None]
    counts = np.cumsum([0, *(request.query is not None for request in requests)])
    questions = Ragged(np.arange(len(queries)) + writer.segments.add_queries(queries), counts)
    return writer.write(histories, questions)


class _StreamWriter:
    """Writes events one after the other, without separators; the arguments are those of [`SegmentTable`]."""

    def __init__(
        self,
        events: EventColumns,
        catalog: Catalog,
        vocabulary: IdentifierVocabulary,
        tokenizer: PreTrainedTokenizerBase,
        settings: CorpusSettings,
    ) -> None:
        self.segments = SegmentTable(events, catalog, vocabulary, tokenizer, settings)
        self._lead_in = self.segments.add_piece(LEAD_IN, starts_text=True)

    def write(self, histories: Ragged, questions: Ragged | None = None) -> Ragged:
        """Write rows of event numbers, and behind each the segments of a question, as rows of tokens."""
        parts = [
            single_segment(np.full(len(histories), self._lead_in)),
            self.segments.event_segments.expand(histories),
        ]
        return self.segments.tokens(join_rows(parts if questions is None else [*parts, questions]))

    def starts(self, histories: Ragged) -> np.ndarray:
        """Return where each event of `histories.values` starts in its row, in tokens."""
        lengths = self.segments.tokens(self.segments.event_segments.take(histories.values)).lengths
        before = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        starts = before - before[np.minimum(histories.offsets[:-1], max(len(before) - 1, 0))][histories.owners()]
        return starts + int(self.segments.tokens(single_segment(np.array([self._lead_in]))).lengths[0])

    def query_lengths(self, events: np.ndarray) -> np.ndarray:
        """Count the tokens of the query of each event, its behavior token included."""
        return self.segments.tokens(single_segment(self.segments.query_segments[events])).lengths

    def items(self, events: np.ndarray, behavior: Behavior) -> Ragged:
        """Return the behavior token and identifier of each event's item, in the view of a behavior."""
        return self.segments.item_tokens(self.segments.events.item[events], behavior)

    def queries(self, events: np.ndarray) -> Ragged:
        """Return the query of each event as the user typed it, with its behavior token and the end of sequence."""
        numbers = single_segment(self.segments.written_query_segments(events))
        return self.segments.tokens(join_rows([numbers, single_segment(np.full(len(events), self.segments.end))]))


def _assemble(
    inputs: Ragged, window: np.ndarray, targets: Sequence[tuple[np.ndarray, np.ndarray, Ragged]]
) -> pa.Table:
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
    return pa.table({name: column.take(has_target).to_arrow() for name, column in columns.items()})


def _first_of_run(keys: np.ndarray) -> np.ndarray:
    """For each column of `keys` the index of the first of its run of equal columns."""
    changes = np.ones(keys.shape[1], dtype=bool)
    changes[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return np.flatnonzero(changes)[np.cumsum(changes) - 1]


__all__ = [
    "HISTORY_TASKS",
    "LEAD_IN",
    "build_item_queries",
    "build_stream",
    "encode_stream",
    "list_item_queries",
    "write_stream",
]
