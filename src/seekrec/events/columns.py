# SPDX-License-Identifier: Apache-2.0
"""Convert events to arrays of numbers for models, from a log or from requests.

A log and the histories of requests use the same class, so inference matches training. The event order of a whole log
is in `timeline.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.schema import SEARCH, Event, IdMap, Request
from seekrec.util.actions import IMPRESSION, action_of_word, number_action
from seekrec.util.arrow import one_array, to_mask
from seekrec.util.ragged import Ragged

RowArray = npt.NDArray[np.int64]

SessionIds = Literal["page_view", "visit"]
SESSION_IDS: tuple[SessionIds, ...] = ("page_view", "visit")


@dataclass(frozen=True, eq=False)
class EventColumns:
    """The columns of events, one entry per event.

    Args:
        item (`np.ndarray`): int64 row of the catalogue, -1 where the event has no item.
        is_search (`np.ndarray`): bool.
        is_shown (`np.ndarray`): bool; no model reads it: an impression, or an event with neither item nor query.
        query (`np.ndarray`): int64 number in `queries`, -1 where the event has none.
        queries (`list[str]`): Distinct queries.
        action (`np.ndarray`): int64: 1 + the position in the list of actions, 0 for one that is not in it; see
            [`~seekrec.util.actions.number_action`].
        timestamp (`np.ndarray`): int64 seconds.
        session (`np.ndarray`): int64 number of the event's page view, -1 for none.
        geohash (`np.ndarray`): int64 number of the event's geohash; see [`number_geohashes`].
    """

    item: np.ndarray
    is_search: np.ndarray
    is_shown: np.ndarray
    query: np.ndarray
    queries: list[str]
    action: np.ndarray
    timestamp: np.ndarray
    session: np.ndarray
    geohash: np.ndarray

    @classmethod
    def from_table(
        cls,
        events: pa.Table,
        id_map: IdMap,
        actions: Sequence[str] = (),
        geohashes: Sequence[str] = (),
        *,
        session_ids: SessionIds = "page_view",
    ) -> EventColumns:
        """Read the columns from a table.

        Args:
            events (`pyarrow.Table`): Rows of `EVENT_FEATURES`; `session_id` and `geohash` may be absent.
            id_map ([`IdMap`]): Items of the catalogue.
            actions (`Sequence[str]`): Actions that the model tells apart.
            geohashes (`Sequence[str]`): Places that the model tells apart, all of one length.
            session_ids (`str`): Meaning of the column `session_id`: `"page_view"` or `"visit"`.

        Raises:
            UnknownItemError: If the catalogue lacks an item.
        """
        items = one_array(events["item_id"]).dictionary_encode()
        queries = one_array(events["query"]).dictionary_encode()
        words = one_array(events["action"]).dictionary_encode()
        # The extra entry is what -1 (null) finds.
        rows = np.append(id_map.convert_to_rows(items.dictionary.to_pylist()), -1)
        known = tuple(actions)
        numbers = np.array([*(number_action(word, known) for word in words.dictionary.to_pylist()), 0], dtype=np.int64)
        has_sessions = session_ids == "page_view" and "session_id" in events.column_names
        sessions = events["session_id"] if has_sessions else pa.nulls(events.num_rows, pa.string())
        has_places = "geohash" in events.column_names
        places = events["geohash"] if has_places else pa.nulls(events.num_rows, pa.string())
        item, is_search = rows[_numbers(items.indices)], to_mask(pc.equal(events["behavior"], SEARCH))
        return cls(
            item=item,
            is_search=is_search,
            is_shown=impression_mask(events) | (~is_search & (item < 0)),
            query=_numbers(queries.indices),
            queries=queries.dictionary.to_pylist(),
            action=numbers[_numbers(words.indices)],
            timestamp=events["timestamp"].to_numpy(),
            session=_numbers(one_array(sessions).dictionary_encode().indices),
            geohash=number_geohashes(places, geohashes),
        )

    def latest(self, histories: Ragged, max_events: int) -> Ragged:
        """Keep the latest events of each history, without those that no model reads.

        Args:
            histories (`Ragged`): Event numbers, each row oldest first.
            max_events (`int`): Events to keep.
        """
        read = histories.keep(~self.is_shown[histories.values])
        from_end = np.repeat(read.offsets[1:], read.lengths) - np.arange(len(read.values))
        return read.keep(from_end <= max_events)

    def cut(self, histories: Ragged, max_recommendations: int, max_searches: int) -> Ragged:
        """Keep the latest so many recommendations and searches of each history, in their common order.

        Args:
            histories (`Ragged`): Event numbers, each row oldest first.
            max_recommendations (`int`): Recommendations to keep.
            max_searches (`int`): Searches to keep.

        Returns:
            `Ragged`: The histories without events that no model reads.
        """
        written = histories.keep(~self.is_shown[histories.values])
        searched = self.is_search[written.values]
        # Counted from the start of the flat array; the difference to a row's end counts from an entry to that end.
        searches = np.concatenate([[0], np.cumsum(searched)])
        ends = np.repeat(written.offsets[1:], written.lengths)
        searches_left = searches[ends] - searches[:-1]
        others_left = ends - np.arange(len(searched)) - searches_left
        return written.keep(np.where(searched, searches_left <= max_searches, others_left <= max_recommendations))

    def pad(self, histories: Ragged, sessions: np.ndarray) -> dict[str, np.ndarray]:
        """Lay out histories as the matrices that models of vectors read.

        Args:
            histories (`Ragged`): Event numbers, each row oldest first.
            sessions (`np.ndarray`): int64 session of each of `histories.values`; see
                [`number_sessions`].

        Returns:
            `dict[str, np.ndarray]`: Matrices of shape `(num_histories, longest)`: `history_mask` (bool: there is an
            event) and, int64, `history_item_rows` and `history_query_rows` (-1 for none; queries as numbers in
            `queries`), `history_behavior_ids` (numbers into `BEHAVIORS`), `history_action_ids`, `history_timestamps`,
            `history_session_ids`, `history_geohash_ids`.
        """
        event = histories.values
        return {
            "history_mask": histories.pad(False, np.ones(len(event), dtype=bool)),
            "history_item_rows": histories.pad(-1, self.item[event]),
            "history_behavior_ids": histories.pad(0, self.is_search[event].astype(np.int64)),
            "history_action_ids": histories.pad(0, self.action[event]),
            "history_timestamps": histories.pad(0, self.timestamp[event]),
            "history_session_ids": histories.pad(0, sessions),
            "history_geohash_ids": histories.pad(0, self.geohash[event]),
            "history_query_rows": histories.pad(-1, self.query[event]),
        }


@dataclass(frozen=True, eq=False)
class RequestColumns:
    """Requests, and the events of their histories as columns.

    Args:
        requests (`Sequence[Request]`): The requests.
        event_list (`list[Event]`): The events of all histories, one history after the other.
        events ([`EventColumns`]): Their columns.
        histories (`Ragged`): Event numbers, a row per request, oldest first.
        behavior_ids (`np.ndarray`): int64 numbers into `BEHAVIORS`, one a request: whether it has a query.
    """

    requests: Sequence[Request]
    event_list: list[Event]
    events: EventColumns
    histories: Ragged
    behavior_ids: np.ndarray

    @classmethod
    def read(
        cls,
        requests: Sequence[Request],
        id_map: IdMap,
        actions: Sequence[str] = (),
        geohashes: Sequence[str] = (),
        *,
        session_ids: SessionIds = "page_view",
    ) -> RequestColumns:
        """Read the histories of requests.

        Args:
            requests (`Sequence[Request]`): The requests.
            id_map ([`IdMap`]): Items of the catalogue; the row of an item that it lacks is -1.
            actions (`Sequence[str]`): As in [`EventColumns.from_table`], like the next two.
            geohashes (`Sequence[str]`): Places.
            session_ids (`str`): Meaning of `session_id`.
        """
        events = list(chain.from_iterable(request.history for request in requests))
        rows, item_ids = id_map.rows, [event.item_id for event in events]
        item = np.array([-1 if name is None else rows.get(name, -1) for name in item_ids], dtype=np.int64)
        is_search = np.array([event.behavior == SEARCH for event in events], dtype=bool)
        is_impression = np.array([action_of_word(event.action) == IMPRESSION for event in events], dtype=bool)
        texts = [event.query for event in events]
        query_numbers: dict[str | None, int] = {None: -1}
        for text in texts:
            query_numbers.setdefault(text, len(query_numbers) - 1)
        sessions = [event.session_id if session_ids == "page_view" else None for event in events]
        session_numbers: dict[str | None, int] = {None: -1}
        for name in sessions:
            session_numbers.setdefault(name, len(session_numbers) - 1)
        known, geohash = tuple(actions), np.zeros(len(events), dtype=np.int64)
        if geohashes:
            geohash = number_geohashes(pa.array([event.geohash for event in events], pa.string()), geohashes)
        columns = EventColumns(
            item=item,
            is_search=is_search,
            is_shown=is_impression | (~is_search & (item < 0)),
            query=np.array([query_numbers[text] for text in texts], dtype=np.int64),
            queries=[text for text in query_numbers if text is not None],
            action=np.array([number_action(event.action, known) for event in events], dtype=np.int64),
            timestamp=np.array([event.timestamp for event in events], dtype=np.int64),
            session=np.array([session_numbers[name] for name in sessions], dtype=np.int64),
            geohash=geohash,
        )
        lengths = np.array([len(request.history) for request in requests], dtype=np.int64)
        behavior_ids = np.array([request.query is not None for request in requests], dtype=np.int64)
        return cls(requests, events, columns, Ragged.from_lengths(np.arange(len(events)), lengths), behavior_ids)


def history_rows(requests: Sequence[Request], id_map: IdMap) -> Ragged:
    """Return the items that the users of the requests acted on, oldest first.

    Searches without a click, items that were only shown and items that the catalogue does not contain are left out.

    Args:
        requests (`Sequence[Request]`): The requests.
        id_map ([`IdMap`]): Items of the catalogue.

    Returns:
        `Ragged`: int64 rows of `id_map`, one row of them a request.
    """
    ids = [
        [event.item_id for event in request.history if event.item_id is not None and event.is_interaction]
        for request in requests
    ]
    owners = np.repeat(np.arange(len(requests)), [len(items) for items in ids])
    rows = id_map.convert_to_rows(chain.from_iterable(ids), strict=False)
    known = rows >= 0
    return Ragged.from_owners(rows[known], owners[known], len(requests))


def number_sessions(timestamp: np.ndarray, page_view: np.ndarray, rows: Ragged) -> np.ndarray:
    """Number the sessions within each row of events, from 0 up, in the order of time.

    A session is a run of events that cannot see each other: those of one timestamp, and all from the first to the last
    event of one page view.

    Args:
        timestamp (`np.ndarray`): int64, an entry for each of `rows.values`.
        page_view (`np.ndarray`): int64 number of the page view of each, -1 for none.
        rows (`Ragged`): Event numbers, each row oldest first.

    Returns:
        `np.ndarray`: int64, an entry for each of `rows.values`; never falls along a row.
    """
    owner = rows.owners()
    count = len(timestamp)
    starts = np.ones(count, dtype=bool)
    starts[1:] = (owner[1:] != owner[:-1]) | (timestamp[1:] != timestamp[:-1])
    named = np.flatnonzero(page_view >= 0)
    if len(named):
        # A boundary inside the span of one page view does not count: add one at each span's start, take it off at its
        # end.
        key = owner[named] * (page_view.max() + 1) + page_view[named]
        _, first = np.unique(key, return_index=True)
        _, last = np.unique(key[::-1], return_index=True)
        depth = np.zeros(count + 1, dtype=np.int64)
        np.add.at(depth, named[first] + 1, 1)
        np.add.at(depth, named[len(named) - 1 - last] + 1, -1)
        starts &= np.cumsum(depth)[:count] == 0
    number = np.cumsum(starts)
    return number - number[np.minimum(rows.offsets[:-1], max(count - 1, 0))][owner] if count else number


def impression_mask(events: pa.Table) -> np.ndarray:
    """Mark the rows of `EVENT_FEATURES` whose item was only shown: bool."""
    words = pc.unique(one_array(events["action"])).drop_null().to_pylist()
    shown = [word for word in words if action_of_word(word) == IMPRESSION]
    return to_mask(pc.is_in(events["action"], value_set=pa.array(shown, pa.string())))


def number_geohashes(places: pa.Array | pa.ChunkedArray, geohashes: Sequence[str]) -> np.ndarray:
    """Number geohashes by their first characters.

    Args:
        places (`pyarrow.Array`): Geohashes, null where unknown.
        geohashes (`Sequence[str]`): The beginnings that a model tells apart, all of one length.

    Returns:
        `np.ndarray`: int64: 1 + the position in `geohashes`, 0 for a place that is unknown or not among them.
    """
    if not geohashes:
        return np.zeros(len(places), dtype=np.int64)
    begins = pc.utf8_slice_codeunits(places, 0, len(geohashes[0]))
    return _numbers(pc.index_in(begins, value_set=pa.array(list(geohashes), pa.string()))) + 1


def _numbers(indices: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return Arrow indices as int64, -1 for null."""
    return np.asarray(pc.fill_null(indices, -1)).astype(np.int64)


__all__ = [
    "SESSION_IDS",
    "EventColumns",
    "RequestColumns",
    "RowArray",
    "SessionIds",
    "history_rows",
    "impression_mask",
    "number_geohashes",
    "number_sessions",
]
