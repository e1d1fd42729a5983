# SPDX-License-Identifier: Apache-2.0
"""trivago, RecSys Challenge 2019: visits of a hotel site, with typed destinations and impressions.

A folder contains `train.csv` and `test.csv` (either alone will do), or one CSV or Parquet file with their columns
under another name; optionally `item_metadata.csv`. Rows of a visit are read in the order of `step`:

- A "search for destination" or "search for poi" is a typed query. What the user does with hotels from then on is a
  search that found them, until the next search or the end of the visit. A query that led to no hotel is a search
  without an item.
- A "search for item" names the hotel, not the typed text: it counts as an act on that hotel, and ends the query.
- Interactions (image, info, rating, deals) and clickouts are acts. Acts on the same hotel in a row are one event, at
  the time of the first: `action` is "clickout" if one of them is, else "interaction". The extra column `num_acts` is
  their number.
- Hotels in the list of a clickout that the user did nothing with during the visit are impressions, once per query.
- Filters and sort orders are not events, and do not end a query.

`session_id` is the visit. Hotels have no names: the title is the id and the city for which it was shown most often,
the description the published properties.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, check_max_refused, refuse, repeats
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds
from seekrec.events.readers.layouts import (
    at_rows,
    find_table,
    leave_out,
    most_frequent,
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
from seekrec.schema import IMPRESSION, RECOMMENDATION, SEARCH
from seekrec.util.arrow import one_array, to_mask

_COLUMNS = ("user_id", "session_id", "timestamp", "step", "action_type", "reference", "city", "impressions")
_TYPED = pa.array(["search for destination", "search for poi"])
_BY_NAME = "search for item"
_CLICKOUT = "clickout item"
_ACTS = pa.array([f"interaction item {what}" for what in ("image", "info", "rating", "deals")] + [_CLICKOUT, _BY_NAME])


@dataclass(frozen=True)
class TrivagoFiles:
    """The files of a folder.

    Args:
        name (`str`): Name of the folder.
        sessions (`tuple[Path, ...]`): Visits.
        metadata (`Path`, *optional*): Properties of hotels.
    """

    name: str
    sessions: tuple[Path, ...]
    metadata: Path | None


@dataclass(frozen=True)
class _Rows:
    """The rows of all visits, ordered by visit and step.

    Args:
        table (`pyarrow.Table`): The columns, `timestamp` in seconds.
        source (`Source`): Where they stand.
        visit (`np.ndarray`): int64 number of the visit.
        query_row (`np.ndarray`): int64 row of the query that holds at a row, -1 for none.
    """

    table: pa.Table
    source: Source
    visit: np.ndarray
    query_row: np.ndarray


def read_trivago(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read the visits of trivago.

    Args:
        folder (`str` or `Path`): Folder of the files, see above.
        max_refused (`float`): The largest share of rows that may be left out.

    Returns:
        `EventLog`: Acts, searches and impressions; `session_id` is the visit.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    expected = "train.csv and test.csv, or one table with the columns of the challenge"
    files = find_release(folder, _files_of, what="trivago", expected=expected)
    rows, notes = _read_rows(files, max_refused)
    (acts, acted_at), is_act = _acts(rows)
    (unanswered, asked_at), (shown, shown_at) = _unanswered(rows, is_act), _impressions(rows, is_act)
    table = pa.concat_tables([acts, unanswered, shown], promote_options="default")
    source = at_rows(rows.source, np.concatenate([acted_at, asked_at, shown_at]))
    items, item_notes = _hotels(rows, table, files.metadata, max_refused)
    events, remarks = usable_events(ReadTable(table, source), items, max_refused=max_refused)
    has_searches = bool(pc.any(pc.is_valid(events["query"])).as_py())
    notes += [
        *item_notes,
        *remarks,
        f"{int(is_act.sum())} acts are {acts.num_rows} events: acts on one hotel in a row are one. An act is a "
        "search where a destination or place was typed before it in the visit, and no other search stands between; "
        f"{unanswered.num_rows} queries led to no hotel.",
    ]
    paths = [*files.sessions, *([files.metadata] if files.metadata else [])]
    found = f"trivago, RecSys Challenge 2019: {', '.join(path.name for path in paths)}."
    return build_log("trivago", found, events, items, notes, query_source="logged" if has_searches else "none")


def _files_of(folder: Path) -> TrivagoFiles | None:
    suffixes = (".csv", ".parquet")
    sessions = [path for name in ("train", "test") if (path := find_table(folder, name, suffixes)) is not None]
    if not sessions:
        sessions = [path for path in sorted(folder.iterdir()) if path.is_file() and _has_visits(path)]
        if len(sessions) > 1:
            names = ", ".join(path.name for path in sessions)
            raise DataError(
                f"`data_dir` {folder} contains several tables of visits ({names}); give a folder with one."
            )
    metadata = find_table(folder, "item_metadata", suffixes)
    return TrivagoFiles(folder.name, tuple(sessions), metadata) if sessions else None


def _has_visits(path: Path) -> bool:
    try:
        if path.suffix == ".parquet":
            names = pq.read_schema(path).names
        elif path.name.endswith(".csv"):
            with path.open(encoding="utf-8", errors="replace") as file:
                names = file.readline(1 << 12).strip().split(",")
        else:
            return False
    except (pa.ArrowException, OSError):
        return False
    return set(_COLUMNS) <= set(names)


def _read_rows(files: TrivagoFiles, max_refused: float) -> tuple[_Rows, list[str]]:
    raw, source = put_together([read_columns(path, _COLUMNS) for path in files.sessions])
    seconds, findings = to_seconds(raw["timestamp"], "timestamp", source)
    step = to_numbers(one_array(raw["step"]).cast(pa.string()))
    columns = {name: one_array(raw[name]) for name in _COLUMNS}
    columns |= {name: to_ids(raw[name], name, source) for name in ("user_id", "session_id", "reference")}
    raw = pa.table({**columns, "timestamp": seconds, "step": pa.array(step)})
    for name in ("user_id", "session_id", "timestamp", "action_type"):
        absent = np.flatnonzero(to_mask(pc.is_null(raw[name])))
        findings += [Finding(f"have no {name}", absent, name)] if len(absent) else []
    findings += [Finding("have no step", np.flatnonzero(np.isnan(step)), "step")] if np.isnan(step).any() else []
    kept, keep, note = refuse(raw, findings, source, max_refused=max_refused)
    source = at_rows(source, np.flatnonzero(keep))
    is_act = pc.is_in(kept["action_type"], value_set=_ACTS)
    withheld = to_mask(pc.and_(is_act, pc.is_null(kept["reference"])))
    nameless = to_mask(pc.and_(is_act, pc.invert(pc.match_substring_regex(kept["reference"], r"^[0-9]+$"))))
    kept, source, known = leave_out(
        kept,
        source,
        [
            ("are acts on a hotel that the challenge withholds", withheld, "action_type"),
            ("are acts on a hotel without a number", nameless, "reference"),
        ],
    )
    codes = [
        one_array(kept[name]).dictionary_encode().indices.to_numpy().astype(np.int64)
        for name in ("user_id", "session_id")
    ]
    visit = codes[0] * (int(codes[1].max()) + 1) + codes[1]
    order = np.lexsort((kept["timestamp"].to_numpy(), kept["step"].to_numpy(), visit))
    kept, visit = kept.take(pa.array(order)), visit[order]
    return _Rows(kept, at_rows(source, order), visit, _query_rows(kept, visit)), [
        *source.remarks,
        *([note] if note else []),
        *known,
    ]


def _query_rows(table: pa.Table, visit: np.ndarray) -> np.ndarray:
    """Return the row of the query that holds at each row: int64, -1 for none."""
    is_typed = to_mask(pc.is_in(table["action_type"], value_set=_TYPED)) & ~to_mask(pc.is_null(table["reference"]))
    ends = to_mask(pc.equal(table["action_type"], _BY_NAME))
    ends |= np.diff(visit, prepend=-1) != 0
    rows = np.arange(len(visit))
    last = np.maximum.accumulate(np.where(is_typed | ends, rows, 0))
    return np.where(is_typed[last], last, -1) if len(rows) else last


def _as_events(rows: _Rows, at: np.ndarray, hotels: pa.Array, action: pa.Array) -> pa.Table:
    """Return events that happened at rows: with the user, time, visit and query of the row."""
    query_row = rows.query_row[at]
    place = pa.array(np.maximum(query_row, 0), mask=query_row < 0)
    table = rows.table.take(pa.array(at))
    return pa.table(
        {
            "user_id": table["user_id"],
            "timestamp": table["timestamp"],
            "behavior": pc.if_else(pa.array(query_row >= 0), SEARCH, RECOMMENDATION),
            "query": one_array(rows.table["reference"]).take(place),
            "item_id": hotels,
            "action": action,
            "session_id": table["session_id"],
        }
    )


def _acts(rows: _Rows) -> tuple[tuple[pa.Table, np.ndarray], np.ndarray]:
    """Return an event for each run of acts on one hotel, the rows they happened at, and which rows are acts."""
    is_act = to_mask(pc.is_in(rows.table["action_type"], value_set=_ACTS))
    at = np.flatnonzero(is_act)
    hotels = one_array(rows.table["reference"]).take(pa.array(at))
    keys = [rows.visit[at], rows.query_row[at], hotels.dictionary_encode().indices.to_numpy()]
    is_first = np.any([np.diff(key, prepend=-2) != 0 for key in keys], axis=0)
    run = np.cumsum(is_first) - 1
    is_clickout = to_mask(pc.equal(rows.table["action_type"], _CLICKOUT))[at]
    action = pc.if_else(pa.array(np.bincount(run, is_clickout) > 0), "clickout", "interaction")
    events = _as_events(rows, at[is_first], hotels.filter(pa.array(is_first)), action)
    return (events.append_column("num_acts", pa.array(np.bincount(run))), at[is_first]), is_act


def _unanswered(rows: _Rows, is_act: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Return a search without an item for each query that led to no hotel, and its row."""
    is_query = rows.query_row == np.arange(len(is_act))
    is_query[rows.query_row[is_act & (rows.query_row >= 0)]] = False
    at = np.flatnonzero(is_query)
    return _as_events(rows, at, pa.nulls(len(at), pa.string()), pa.repeat("search", len(at))), at


def _impressions(rows: _Rows, is_act: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Return an event for each hotel that a clickout shows and the visit does not act on, and its row."""
    lists = pc.split_pattern(rows.table["impressions"].cast(pa.string()), "|")
    lists = one_array(pc.if_else(pc.equal(rows.table["action_type"], _CLICKOUT), lists, None))
    at, hotels = pc.list_parent_indices(lists).to_numpy(), lists.flatten()
    codes = pa.concat_arrays([hotels, one_array(rows.table["reference"])]).dictionary_encode().indices
    width = int(pc.max(codes).as_py() or 0) + 1
    hotel, acted = np.split(pc.fill_null(codes, 0).to_numpy().astype(np.int64), [len(hotels)])
    is_new = ~np.isin(rows.visit[at] * width + hotel, rows.visit[is_act] * width + acted[is_act])
    key = {"visit": rows.visit[at], "query": rows.query_row[at], "hotel": hotel}
    is_new[is_new] = ~repeats(pa.table({name: pa.array(column[is_new]) for name, column in key.items()}))
    at = at[is_new]
    return _as_events(rows, at, hotels.filter(pa.array(is_new)), pa.repeat(IMPRESSION, len(at))), at


def _hotels(rows: _Rows, events: pa.Table, metadata: Path | None, max_refused: float) -> tuple[pa.Table, list[str]]:
    """Return the hotels that events name."""
    lists = one_array(pc.split_pattern(rows.table["impressions"].cast(pa.string()), "|"))
    is_act = pc.is_in(rows.table["action_type"], value_set=_ACTS)
    cities = one_array(rows.table["city"])
    named = one_array(pc.if_else(is_act, rows.table["reference"], pa.scalar(None, pa.string())))
    ids = pa.concat_arrays([named, lists.flatten()])
    places = pa.concat_arrays([cities, cities.take(pc.list_parent_indices(lists))])
    is_named = pc.and_(pc.is_valid(ids), pc.is_valid(places))
    hotel, city = most_frequent(ids.filter(is_named), places.filter(is_named))
    wanted = pc.unique(one_array(events["item_id"])).drop_null()
    city = city.take(pc.index_in(wanted, value_set=hotel))
    # "Marseille, France": the country stands last.
    parts = pc.extract_regex(city, r"^(?P<city>.*?)(?:, (?P<country>[^,]+))?$")
    town, country = (one_line(pc.struct_field(parts, name)) for name in ("city", "country"))
    title = pc.binary_join_element_wise(
        "Hotel", wanted, pc.fill_null(pc.binary_join_element_wise("in", city, " "), ""), " "
    )
    source = Source("the hotels of the visits")
    table = {"item_id": wanted, "title": one_line(title), "categories": to_paths([country, town], source)}
    notes = ["Hotels have no names: the title is the id and the city for which the hotel was shown most often."]
    if metadata is not None:
        raw, read = read_columns(metadata, ["item_id", "properties"])
        row = pc.index_in(wanted, value_set=to_ids(raw["item_id"], "item_id", read))
        # Rows of the hotels are not those of the file.
        source = Source(f"hotels and {read.name}", num_unreadable=read.num_unreadable, unreadable=read.unreadable)
        properties = pc.replace_substring(one_array(raw["properties"]).cast(pa.string()), "|", ", ")
        table["description"] = properties.take(one_array(row))
    items, remarks = usable_items(ReadTable(pa.table(table), source), max_refused=max_refused)
    return items, [*notes, *remarks]


__all__ = ["read_trivago"]
