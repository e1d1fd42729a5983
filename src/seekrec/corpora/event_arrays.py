# SPDX-License-Identifier: Apache-2.0
"""Events as arrays of numbers, for families that read vectors of events in place of tokens.

Requests and training windows come through the same functions, so a model is asked as it was taught. A **session** is a
run of events that cannot see each other: those of one timestamp and, where `session_id` means a page view, all from
the first to the last event of one. Where it means a visit (`events/sessions.py`) it is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.corpora.segments import EventColumns
from seekrec.events.checks import one_array
from seekrec.events.sessions import SessionIds
from seekrec.schema import Event, IdMap
from seekrec.util.ragged import Ragged


@dataclass(frozen=True, eq=False)
class EventArrays:
    """What a family of vectors reads of events, one entry an event.

    Args:
        columns (`EventColumns`): `item` (int64 catalogue row, -1 for none), `is_search`, `is_shown`, `query` (int64
            number in `queries`, -1 for none) and `queries`.
        action (`np.ndarray`): int64: 0 for an action that the model does not know, else 1 + its place in the list of
            actions.
        timestamp (`np.ndarray`): int64 seconds.
        session (`np.ndarray`): int64 number of the event's page view, -1 for none.
        geohash (`np.ndarray`): int64 number of the event's place; see [`number_geohashes`].
    """

    columns: EventColumns
    action: np.ndarray
    timestamp: np.ndarray
    session: np.ndarray
    geohash: np.ndarray

    @classmethod
    def from_table(
        cls,
        events: pa.Table,
        id_map: IdMap,
        actions: Sequence[str],
        geohashes: Sequence[str] = (),
        *,
        session_ids: SessionIds = "page_view",
    ) -> EventArrays:
        """Read them from a table of `EVENT_FEATURES`.

        Args:
            events (`pyarrow.Table`): The events.
            id_map ([`IdMap`]): Of the catalogue.
            actions (`Sequence[str]`): Those the model tells apart.
            geohashes (`Sequence[str]`): Places the model tells apart, all of one length.
            session_ids (`str`): What the column `session_id` means: `"page_view"` or `"visit"`.

        Raises:
            UnknownItemError: If the catalogue lacks an item.
        """
        action = pc.index_in(events["action"], value_set=pa.array(list(actions), pa.string()))
        named = events["session_id"] if session_ids == "page_view" else pa.nulls(events.num_rows, pa.string())
        sessions = one_array(named).dictionary_encode().indices
        places = events["geohash"] if "geohash" in events.column_names else pa.nulls(events.num_rows, pa.string())
        return cls(
            EventColumns.from_table(events, id_map),
            pc.fill_null(action, -1).to_numpy().astype(np.int64) + 1,
            events["timestamp"].to_numpy(),
            pc.fill_null(sessions, -1).to_numpy(zero_copy_only=False).astype(np.int64),
            number_geohashes(places, geohashes),
        )

    @classmethod
    def from_events(
        cls,
        events: Sequence[Event],
        id_map: IdMap,
        actions: Sequence[str],
        geohashes: Sequence[str] = (),
        *,
        session_ids: SessionIds = "page_view",
    ) -> EventArrays:
        """Read them from events; see `from_table`."""
        number = {name: place for place, name in enumerate(actions, start=1)}
        names = [event.session_id if session_ids == "page_view" else None for event in events]
        sessions: dict[str | None, int] = {None: -1}
        for name in names:
            sessions.setdefault(name, len(sessions) - 1)
        return cls(
            EventColumns.from_events(events, id_map),
            np.array([number.get(event.action, 0) for event in events], dtype=np.int64),
            np.array([event.timestamp for event in events], dtype=np.int64),
            np.array([sessions[name] for name in names], dtype=np.int64),
            number_geohashes(pa.array([event.geohash for event in events], pa.string()), geohashes),
        )

    def __len__(self) -> int:
        return len(self.timestamp)


def number_geohashes(places: pa.Array | pa.ChunkedArray, geohashes: Sequence[str]) -> np.ndarray:
    """Number places by how their geohash begins.

    Args:
        places (`pyarrow.Array`): Geohashes, null where unknown.
        geohashes (`Sequence[str]`): The beginnings that a model tells apart, all of one length.

    Returns:
        `np.ndarray`: int64: 0 for a place that is unknown or none of them, else 1 + its place in `geohashes`.
    """
    begins = pc.utf8_slice_codeunits(places, 0, len(geohashes[0]) if geohashes else 0)
    found = pc.index_in(begins, value_set=pa.array(list(geohashes), pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64) + 1


def number_sessions(events: EventArrays, rows: Ragged) -> np.ndarray:
    """Number the sessions within each row of events, from 0 up, in the order of time.

    Args:
        events (`EventArrays`): The events.
        rows (`Ragged`): Event numbers, each row oldest first.

    Returns:
        `np.ndarray`: int64, an entry for each of `rows.values`; never falls along a row.
    """
    return sessions_of(events.timestamp[rows.values], events.session[rows.values], rows)


def sessions_of(timestamp: np.ndarray, session: np.ndarray, rows: Ragged) -> np.ndarray:
    """Number sessions from their times and the numbers of their page views; see [`number_sessions`].

    Args:
        timestamp (`np.ndarray`): int64, an entry for each of `rows.values`.
        session (`np.ndarray`): int64, likewise; -1 for none.
        rows (`Ragged`): The rows that the entries belong to.
    """
    owner = rows.owners()
    count = len(timestamp)
    starts = np.ones(count, dtype=bool)
    starts[1:] = (owner[1:] != owner[:-1]) | (timestamp[1:] != timestamp[:-1])
    named = np.flatnonzero(session >= 0)
    if len(named):
        # A boundary inside the span of one session is none: add one at each span's start, take it off at its end.
        key = owner[named] * (session.max() + 1) + session[named]
        _, first = np.unique(key, return_index=True)
        _, last = np.unique(key[::-1], return_index=True)
        depth = np.zeros(count + 1, dtype=np.int64)
        np.add.at(depth, named[first] + 1, 1)
        np.add.at(depth, named[len(named) - 1 - last] + 1, -1)
        starts &= np.cumsum(depth)[:count] == 0
    number = np.cumsum(starts)
    return number - number[np.minimum(rows.offsets[:-1], max(count - 1, 0))][owner] if count else number


def pad_rows(values: np.ndarray, rows: Ragged, fill: int) -> np.ndarray:
    """Lay out flat values as a matrix, padded on the right.

    Args:
        values (`np.ndarray`): An entry for each of `rows.values`.
        rows (`Ragged`): Gives the rows' lengths.
        fill (`int`): The padding.

    Returns:
        `np.ndarray`: Of shape `(num_rows, longest)`, the dtype of `values`.
    """
    lengths = rows.lengths
    matrix = np.full((len(rows), int(lengths.max(initial=0))), fill, dtype=values.dtype)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = values
    return matrix


def pad_histories(events: EventArrays, rows: Ragged, sessions: np.ndarray) -> dict[str, np.ndarray]:
    """Lay out histories as the matrices that models read.

    Args:
        events (`EventArrays`): The events.
        rows (`Ragged`): Event numbers, each row oldest first.
        sessions (`np.ndarray`): What [`number_sessions`] gave.

    Returns:
        `dict[str, np.ndarray]`: Matrices `(num_rows, longest)`: `history_mask` (bool: an event stands there) and, of
        int64, `history_item_rows` and `history_query_rows` (-1 for none; queries as numbers in `events.queries`),
        `history_behavior_ids` (numbers into `BEHAVIORS`), `history_action_ids`, `history_timestamps`,
        `history_session_ids`, `history_geohash_ids`.
    """
    place, columns = rows.values, events.columns
    return {
        "history_mask": pad_rows(np.ones(len(place), dtype=bool), rows, 0),
        "history_item_rows": pad_rows(columns.item[place], rows, -1),
        "history_behavior_ids": pad_rows(columns.is_search[place].astype(np.int64), rows, 0),
        "history_action_ids": pad_rows(events.action[place], rows, 0),
        "history_timestamps": pad_rows(events.timestamp[place], rows, 0),
        "history_session_ids": pad_rows(sessions, rows, 0),
        "history_geohash_ids": pad_rows(events.geohash[place], rows, 0),
        "history_query_rows": pad_rows(columns.query[place], rows, -1),
    }


__all__ = ["EventArrays", "number_geohashes", "number_sessions", "pad_histories", "pad_rows", "sessions_of"]
