# SPDX-License-Identifier: Apache-2.0
"""Convert windows to rows of an Arrow table: their events, their questions, and the impressions of these."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.corpora.training_windows import TrainingWindows
from seekrec.events.columns import EventColumns, SessionIds
from seekrec.util.arrow import one_array, to_lists
from seekrec.util.ragged import Ragged

# What a batch reads of an event, of a question, and how wide it is kept.
_EVENT_TYPES = {
    "item": pa.int32(),
    "is_search": pa.uint8(),
    "query": pa.int32(),
    "action": pa.int16(),
    "timestamp": pa.int64(),
    "session": pa.int32(),
    "geohash": pa.int32(),
}
_QUESTION_TYPES = {"place": pa.int32(), "behavior": pa.int8()}


def number_queries(windows: TrainingWindows, queries: pa.Array) -> np.ndarray:
    """Return the place in `queries` of each query of some windows, and -1 at the end: int64."""
    own = pa.array(windows.queries, pa.string())
    places = pc.fill_null(pc.index_in(own, value_set=queries), -1).to_numpy(zero_copy_only=False)
    return np.append(places.astype(np.int64), -1)


def windows_to_table(windows: TrainingWindows, first_user: int, queries: pa.Array) -> pa.Table:
    """Lay out windows as a table.

    Args:
        windows ([`TrainingWindows`]): The windows.
        first_user (`int`): Added to their user rows.
        queries (`pyarrow.Array`): The queries that the table's query numbers point to.

    Returns:
        `pyarrow.Table`: Columns `user`, `events`, `questions` and `shown`: the items shown together with each
            question.
    """
    events, rows = windows.events, windows.windows.values
    event = {
        "item": events.item[rows],
        "is_search": events.is_search[rows],
        "query": number_queries(windows, queries)[events.query[rows]],
        "action": events.action[rows],
        "timestamp": events.timestamp[rows],
        "session": windows.sessions,
        "geohash": events.geohash[rows],
    }
    question = {"place": windows.questions.values, "behavior": windows.behavior}
    shown = to_lists(pa.array(windows.shown.values, pa.int32()), windows.shown.lengths)
    return pa.table(
        {
            "user": windows.users + first_user,
            "events": to_lists(_to_structs(event, _EVENT_TYPES), windows.windows.lengths),
            "questions": to_lists(_to_structs(question, _QUESTION_TYPES), windows.questions.lengths),
            "shown": to_lists(shown, windows.questions.lengths),
        }
    )


def _to_structs(columns: Mapping[str, np.ndarray], types: Mapping[str, pa.DataType]) -> pa.StructArray:
    arrays = [pa.array(columns[name].astype(kind.to_pandas_dtype()), kind) for name, kind in types.items()]
    return pa.StructArray.from_arrays(arrays, names=list(types))


def windows_from_table(table: pa.Table, session_ids: SessionIds) -> TrainingWindows:
    """Read windows from rows of such a table; what they hold is copied."""
    of_windows, of_questions, of_shown = (one_array(table[name]) for name in ("events", "questions", "shown"))
    event, question, shown = of_windows.flatten(), of_questions.flatten(), of_shown.flatten()
    column = {name: np.asarray(event.field(name)).astype(np.int64) for name in _EVENT_TYPES}
    is_search = column["is_search"] > 0
    events = EventColumns(
        item=column["item"],
        is_search=is_search,
        is_shown=~is_search & (column["item"] < 0),
        query=column["query"],
        queries=[],
        action=column["action"],
        timestamp=column["timestamp"],
        session=column["session"],
        geohash=column["geohash"],
    )
    return TrainingWindows(
        events,
        Ragged.from_lengths(np.arange(len(event)), _lengths(of_windows)),
        np.asarray(one_array(table["user"])),
        column["session"],
        Ragged.from_lengths(np.asarray(question.field("place")).astype(np.int64), _lengths(of_questions)),
        np.asarray(question.field("behavior")).astype(np.int64),
        Ragged.from_lengths(np.asarray(shown.flatten()).astype(np.int64), _lengths(shown)),
        session_ids,
    )


def _lengths(lists: pa.ListArray) -> np.ndarray:
    return np.asarray(pc.list_value_length(lists)).astype(np.int64)


__all__ = ["number_queries", "windows_from_table", "windows_to_table"]
