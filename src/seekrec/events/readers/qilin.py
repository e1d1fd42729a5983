# SPDX-License-Identifier: Apache-2.0
"""Qilin (Chen et al., 2025): searches and recommendations of Xiaohongshu, with notes in Chinese.

A folder contains `notes`, and at least one of `search_train`, `search_test`, `recommendation_train` and
`recommendation_test`: each a folder of Parquet files, as the Hub has them, or a `.csv` of the same columns.

A row is a request with the list that was shown for it. Every entry of the list becomes one event at its own time: with
`action` "click" where the user clicked, liked, collected, commented or shared, else "impression". The `session_id` is
the request. Extra columns are `position` in the list, `page_time` (seconds on the page, null where it was not opened),
`like`, `collect`, `comment` and `share` (0 or 1).

The published split into train and test is not kept, and the column `recent_clicked_note_idxs` is not read: those
clicks have no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds, to_text
from seekrec.events.readers.layouts import (
    at_rows,
    column_or_nulls,
    find_table,
    name_items,
    one_line,
    read_columns,
    to_paths,
)
from seekrec.events.readers.published import (
    ReadTable,
    build_log,
    find_release,
    put_together,
    usable_events,
    usable_items,
)
from seekrec.schema import IMPRESSION, MAX_SECONDS, RECOMMENDATION, SEARCH
from seekrec.util.arrow import is_list, one_array, to_mask

# A table of requests -> the columns of its requests, of what was shown, and of the time in that.
_REQUESTS = {
    "search": ("search_idx", "search_result_details_with_idx", "search_timestamp"),
    "recommendation": ("request_idx", "rec_result_details_with_idx", "request_timestamp"),
}
_TABLES = [f"{kind}_{part}" for kind in _REQUESTS for part in ("train", "test")]
_SUFFIXES = (".parquet", ".csv")

_FEEDBACK = ("like", "collect", "comment", "share")
_TAXONOMY = ("taxonomy1_id", "taxonomy2_id", "taxonomy3_id")


@dataclass(frozen=True)
class QilinFiles:
    """The tables of a folder.

    Args:
        name (`str`): Name of the folder.
        notes (`Path`): Notes.
        requests (`dict[str, Path]`): Requests, by name of the table.
    """

    name: str
    notes: Path
    requests: dict[str, Path]


def read_qilin(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read searches and recommendations of Qilin.

    Args:
        folder (`str` or `Path`): Folder of the tables, see above.
        max_refused (`float`): The largest share of rows of a table that may be left out.

    Returns:
        `EventLog`: One event an entry of a list. A note that `notes` does not contain has its number for a title.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    expected = "notes and search_train, search_test, recommendation_train or recommendation_test (Parquet or .csv)"
    files = find_release(folder, _files_of, what="Qilin", expected=expected)
    items, notes = usable_items(_read_notes(files.notes), max_refused=max_refused)
    table, source = put_together([_read_requests(path, name) for name, path in files.requests.items()])
    seconds, findings = to_seconds(table["timestamp"], "timestamp", source)
    no_note = np.flatnonzero(to_mask(pc.is_null(table["item_id"])))
    findings += [Finding("show an entry without note_idx", no_note, "item_id")] if len(no_note) else []
    table = table.set_column(table.column_names.index("timestamp"), "timestamp", seconds)
    items, named = name_items(items, one_array(table["item_id"]), "笔记")
    events, remarks = usable_events(ReadTable(table, source, findings), items, max_refused=max_refused)
    found = f"Qilin: {', '.join(path.name for path in (files.notes, *files.requests.values()))}."
    has_searches = bool(pc.any(pc.is_valid(events["query"])).as_py())
    notes += [*named, *remarks, "The published split and the clicks without time before a request are not used."]
    return build_log("qilin", found, events, items, notes, query_source="logged" if has_searches else "none")


def _files_of(folder: Path) -> QilinFiles | None:
    notes = find_table(folder, "notes", _SUFFIXES)
    requests = {name: path for name in _TABLES if (path := find_table(folder, name, _SUFFIXES)) is not None}
    return QilinFiles(folder.name, notes, requests) if notes is not None and requests else None


def _read_notes(path: Path) -> ReadTable:
    raw, source = read_columns(path, ["note_idx", "note_title"], optional=["note_content", *_TAXONOMY])
    table = pa.table(
        {
            "item_id": to_ids(raw["note_idx"], "note_idx", source),
            "title": one_line(to_text(raw["note_title"], "note_title", source)),
            "description": one_line(column_or_nulls(raw, "note_content")),
            "categories": to_paths([one_line(column_or_nulls(raw, level)) for level in _TAXONOMY], source),
        }
    )
    return ReadTable(table, source)


def _read_requests(path: Path, name: str) -> tuple[pa.Table, Source]:
    """Read a table of requests as events; times are still numbers, seconds."""
    kind = name.split("_")[0]
    request, details, time = _REQUESTS[kind]
    is_search = kind == "search"
    raw, source = read_columns(path, ["user_idx", request, details, *(["query"] if is_search else [])])
    keys = ("note_idx", "click", "position", "page_time", time, *_FEEDBACK)
    column = one_array(raw[details])
    if is_list(column.type):
        parents, shown = pc.list_parent_indices(column).to_numpy(), _fields(column.flatten(), keys, source)
        bad = to_mask(pc.is_null(column))
    else:
        parents, shown = _parse(column.cast(pa.string()), keys)
        bad = ~to_mask(pc.match_substring_regex(column.cast(pa.string()), r"(?s)^\s*\[.*\]\s*$"))
    if bad.any():
        first = source.name_row(int(np.flatnonzero(bad)[0]))
        source = replace(
            source,
            num_unreadable=source.num_unreadable + int(bad.sum()),
            unreadable=source.unreadable or f"{first}, where {details} is not a list",
        )
    rows = pa.array(parents)
    times = shown[time]
    is_act = np.nan_to_num(np.stack([shown[key] for key in ("click", *_FEEDBACK)])).max(axis=0) > 0
    page_time = shown["page_time"]
    requests = pc.binary_join_element_wise(kind, to_ids(raw[request], request, source), "-").take(rows)
    queries = to_text(raw["query"], "query", source) if is_search else pa.nulls(raw.num_rows, pa.string())
    table = pa.table(
        {
            "user_id": to_ids(raw["user_idx"], "user_idx", source).take(rows),
            # Recommendations have milliseconds, searches seconds.
            "timestamp": pa.array(np.where(times > MAX_SECONDS, times / 1000, times)),
            "behavior": pa.repeat(SEARCH if is_search else RECOMMENDATION, len(rows)),
            "query": queries.take(rows),
            "item_id": _integers(shown["note_idx"]).cast(pa.string()),
            "action": pc.if_else(pa.array(is_act), "click", IMPRESSION),
            "session_id": requests,
            "position": _integers(shown["position"]),
            "page_time": pa.array(page_time, mask=~(is_act & (page_time >= 0))),
            **{key: _integers(shown[key]) for key in _FEEDBACK},
        }
    )
    return table, at_rows(source, parents)


def _fields(entries: pa.StructArray, keys: Sequence[str], source: Source) -> dict[str, np.ndarray]:
    """Return the fields of entries as numbers: float64, NaN where there is none."""
    if not pa.types.is_struct(entries.type):
        raise DataError(f"{source.name}: a list of impressions has entries of type {entries.type}, not named fields.")
    names = [field.name for field in entries.type]
    for key in keys:
        if key not in names:
            raise DataError(f"{source.name}: the list of impressions has no field {key!r}, only {', '.join(names)}.")
    columns = {key: pc.struct_field(entries, key).cast(pa.float64()) for key in keys}
    return {key: np.array(pc.fill_null(column, np.nan), dtype=np.float64) for key, column in columns.items()}


def _parse(text: pa.Array, keys: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Cut lists of dictionaries, as Python and numpy write them, into the number of their row and their fields."""
    pieces = pc.split_pattern(pc.fill_null(text, ""), "}")
    flat = pieces.flatten()
    is_entry = pc.match_substring(flat, "{")
    parents = pc.list_parent_indices(pieces).filter(is_entry).to_numpy()
    flat = flat.filter(is_entry)
    fields = {key: pc.extract_regex(flat, rf"'{key}': *(?P<value>[^,\s]+)") for key in keys}
    return parents, {key: to_numbers(pc.struct_field(found, "value")) for key, found in fields.items()}


def _integers(numbers: np.ndarray) -> pa.Array:
    """Return whole numbers as int64, null where there is none."""
    is_none = np.isnan(numbers)
    return pa.array(np.where(is_none, 0, numbers).astype(np.int64), mask=is_none)


__all__ = ["read_qilin"]
