# SPDX-License-Identifier: Apache-2.0
"""A user's own log: two tables in Parquet, CSV or JSON lines, with a map from our column names to theirs.

What is unusual: CSV columns are never guessed. Ids stay text ("007" keeps its zeros), times are parsed here, and only
columns that seekrec does not know get a guessed type. What stands between fields, and what quotes mean, is found from
the file and can be named.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import (
    Finding,
    Source,
    check_max_refused,
    check_names,
    count_out_of_order,
)
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_category_paths, to_ids, to_seconds, to_text
from seekrec.events.readers.delimited import read_delimited
from seekrec.events.readers.json_lines import read_json_lines
from seekrec.events.readers.kept_rows import keep_events, keep_items
from seekrec.events.readers.quotes import Quoting
from seekrec.events.readers.text_files import check_file
from seekrec.schema import EVENT_FEATURES, ITEM_FEATURES, OPTIONAL_EVENT_FEATURES, RECOMMENDATION, SEARCH

logger = logging.getLogger(__name__)

_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_EVENT_IDS = ("user_id", "item_id", "session_id")
_EVENT_TEXTS = ("behavior", "query", "action", "geohash")
_ITEM_TEXTS = ("title", "description")
_ITEM_TIMES = ("available_from", "available_until")


@dataclass(frozen=True)
class _FileFormat:
    """Options of the files: `delimiter`, `quoting` and `encoding` of [`read_tables`]."""

    delimiter: str | None
    quoting: Quoting | None
    encoding: str | None


def read_tables(
    events_path: str | Path,
    items_path: str | Path,
    *,
    column_map: Mapping[str, str] | None = None,
    name: str | None = None,
    max_refused: float = 0.01,
    has_time: bool = True,
    category_separator: str = ">",
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    encoding: str | None = None,
) -> EventLog:
    r"""Read a table of events and a table of items.

    Columns are those of `EVENT_FEATURES` and `ITEM_FEATURES`; others are kept as they are. Needed are `user_id`,
    `item_id` and `timestamp` of events, `item_id` and `title` of items. Without a column `behavior` an event with a
    query is a search and any other a recommendation; without a column `action` every event is a click. A column
    `geohash`, if there is one, says where the user was.

    Timestamps are seconds since 1970 (whole or not, also as text), dates and times, or ISO 8601 text; they are UTC
    where no zone is named. Milliseconds, dates in digits (20190131), years and numbers of days are refused. Categories
    are lists of paths, lists of names (one path), either of them written as text (`['Toys', 'Cars']`), or text (one
    path with `category_separator` between the names). Ids may be text or whole numbers; floats that cannot tell large
    ids apart are refused. In JSON lines, a column of ours that is a list of texts is joined with spaces, and other
    columns with values of several types become text.

    Rows that cannot be used are left out with a warning if they are few. Those are rows without user, item or time,
    with an unknown behavior, a search without query or a query that is too long, an invalid geohash, an item that
    the items table does not hold, a row that repeats an earlier one, and items without id or text or with
    the id of an earlier one.

    Args:
        events_path (`str` or `Path`): `.parquet`, `.csv`, `.tsv`, `.jsonl` (also `.ndjson`, `.json`); the text formats
            also with `.gz`.
        items_path (`str` or `Path`): The items, in any of these formats, also another than the events.
        column_map (`Mapping[str, str]`, *optional*): From our column name to the one in the file, such as
            `{"user_id": "customer", "item_id": "sku"}`. A name holds for both tables where both have such a column;
            `"events.item_id"` and `"items.item_id"` name one table's.
        name (`str`, *optional*): Name of the data set; that of the events file if not given.
        max_refused (`float`): The largest share of rows of a table that may be left out with a warning.
        has_time (`bool`): Whether the log has times. If not, `timestamp` holds positions, or is missing: then the
            order of the rows counts.
        category_separator (`str`): See above.
        delimiter (`str`, *optional*): Character between fields of `.csv` and `.tsv`; a comma or a tab, or another
            character that cuts the names of needed columns out of the header, if not given.
        quoting (`str`, *optional*): What `"` means in them: `"doubled"` (encloses fields and stands twice inside),
            `"escaped"` (encloses fields, `\"` inside) or `"none"` (a letter); found from the file if not given.
        encoding (`str`, *optional*): Encoding of text files, such as `"cp1252"` or `"utf-16"`; the byte order mark,
            else UTF-8, if not given.

    Returns:
        `EventLog`: `query_source` is `"logged"` if there is any search.

    Raises:
        DataError: If a file or column is missing, of the wrong type or empty, or too many rows cannot be used. The
            message names file, row and value.
        ConfigurationError: If `column_map`, `max_refused`, `delimiter`, `quoting` or `encoding` is wrong.
    """
    check_max_refused(max_refused)
    mapping = _split_map(column_map or {})
    events_file, items_file = Path(events_path), Path(items_path)
    form = _FileFormat(delimiter, quoting, encoding)
    items, item_notes = _read_items(items_file, mapping["items"], form, max_refused, category_separator)
    events, notes = _read_events(events_file, mapping["events"], form, max_refused, has_time, items)
    has_searches = pc.any(pc.is_valid(events["query"])).as_py()
    log = EventLog(
        name=name if name is not None else events_file.name.split(".")[0],
        events=events,
        items=items,
        has_time=has_time,
        query_source="logged" if has_searches else "none",
        notes=(
            f"Events from {events_file.name}, items from {items_file.name}.",
            *item_notes,
            *notes,
        ),
        is_checked=True,
    )
    logger.info("%s %d events of %d users, %d items.", log.notes[0], log.num_events, log.num_users, log.num_items)
    return log


def _split_map(column_map: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Map our names of columns to those in the file, for each table."""
    ours = {"events": [*EVENT_FEATURES, *OPTIONAL_EVENT_FEATURES], "items": [*ITEM_FEATURES, "queries"]}
    mapping: dict[str, dict[str, str]] = {"events": {}, "items": {}}
    # Names for one table come last: they win over the name for both.
    for name in sorted(column_map, key=lambda name: "." in name):
        table, _, column = name.rpartition(".")
        tables = [table] if table else [table for table, columns in ours.items() if column in columns]
        if not tables or tables[0] not in ours or column not in ours[tables[0]]:
            known = ", ".join(dict.fromkeys([*ours["events"], *ours["items"]]))
            raise ConfigurationError(
                f"`column_map` has the key {name!r}, which is not one of our columns; keys are {known}, or one of "
                "them after 'events.' or 'items.'; values are names in the file."
            )
        for table in tables:
            mapping[table][column] = column_map[name]
    for table, columns in mapping.items():
        check_names(list(columns.values()), f"`column_map` for {table}")
    return mapping


def _read_items(
    path: Path, mapping: dict[str, str], form: _FileFormat, max_refused: float, separator: str
) -> tuple[pa.Table, list[str]]:
    raw, source = _read_raw(path, mapping, [*ITEM_FEATURES], form, needed=("item_id", "title"))
    columns, findings = {}, []
    for name in raw.column_names:
        column = raw[name]
        if name == "item_id":
            columns[name] = to_ids(column, name, source)
        elif name in _ITEM_TEXTS:
            columns[name] = to_text(column, name, source)
        elif name in _ITEM_TIMES:
            columns[name], found = to_seconds(column, name, source)
            findings += found
        elif name == "categories":
            columns[name] = to_category_paths(column, name, source, separator=separator)
        else:
            columns[name] = column
    items, left_out = keep_items(pa.table(columns), source, max_refused=max_refused, findings=findings)
    return items, [*source.remarks, *([left_out] if left_out else [])]


def _read_events(
    path: Path,
    mapping: dict[str, str],
    form: _FileFormat,
    max_refused: float,
    has_time: bool,
    items: pa.Table,
) -> tuple[pa.Table, list[str]]:
    needed = ("user_id", "timestamp", "item_id") if has_time else ("user_id", "item_id")
    raw, source = _read_raw(path, mapping, [*EVENT_FEATURES, *OPTIONAL_EVENT_FEATURES], form, needed=needed)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    findings: list[Finding] = []
    notes = [*source.remarks]
    if "timestamp" not in raw.column_names:
        columns["timestamp"] = pa.array(np.arange(raw.num_rows))
        notes.append(f"{source.name} has no timestamps: the number of the row counts as the time.")
    elif not has_time:
        notes.append("The log has order but no time: timestamps are positions.")
    for name in raw.column_names:
        column = raw[name]
        if name in _EVENT_IDS:
            columns[name] = to_ids(column, name, source)
        elif name in _EVENT_TEXTS:
            columns[name] = to_text(column, name, source)
        elif name == "timestamp":
            columns[name], findings = to_seconds(column, name, source, has_time=has_time)
        else:
            columns[name] = column
    if "behavior" not in columns and "query" in columns:
        columns["behavior"] = pc.if_else(pc.is_valid(columns["query"]), SEARCH, RECOMMENDATION)
        notes.append(f"{source.name} has no column behavior: an event with a query is a search.")
    if "action" in columns:
        columns["action"] = pc.fill_null(columns["action"], "click")
    events, left_out = keep_events(pa.table(columns), items, source, max_refused=max_refused, findings=findings)
    num_late = count_out_of_order(events)
    if num_late:
        notes.append(f"{num_late} events of {source.name} stood after a later one of the same user; they were sorted.")
    return events, notes + ([left_out] if left_out else [])


def _read_raw(
    path: Path, mapping: dict[str, str], ours: list[str], form: _FileFormat, *, needed: tuple[str, ...]
) -> tuple[pa.Table, Source]:
    """Read a file and rename its columns to ours."""
    check_file(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""

    def theirs(names: Sequence[str]) -> list[str]:
        return [mapping.get(name, name) for name in names if name in ours]

    if kind in (".csv", ".tsv"):
        table, source = read_delimited(
            path,
            delimiter=("," if kind == ".csv" else "\t") if form.delimiter is None else form.delimiter,
            wanted=theirs(needed) if form.delimiter is None else (),
            text_columns=theirs(ours),
            encoding=form.encoding,
            quoting=form.quoting,
        )
    elif kind == ".parquet":
        try:
            table, source = pq.read_table(path), Source(path.name)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a Parquet file: {error}") from error
    elif kind in (".jsonl", ".ndjson", ".json"):
        table, source = read_json_lines(
            path,
            ids=theirs(_EVENT_IDS),
            texts=theirs((*_EVENT_TEXTS, *_ITEM_TEXTS)),
            others=theirs(("timestamp", "categories", *_ITEM_TIMES)),
            encoding=form.encoding,
        )
    else:
        raise DataError(
            f"{path} has a name that does not end in one of {', '.join(_SUFFIXES)}; give it the right ending."
        )
    check_names(table.column_names, path.name)
    absent = [(mine, their) for mine, their in mapping.items() if their not in table.column_names]
    # A name given for both tables may be meant for the other one: then our own name will do.
    for mine, their in absent:
        if mine not in table.column_names:
            raise DataError(
                f"{path.name} has no column {their!r}, which `column_map` names for {mine!r}; it has "
                f"{', '.join(table.column_names)}."
            )
    our_name = {their: mine for mine, their in mapping.items() if (mine, their) not in absent}
    # A column that has one of our names but was mapped away would be taken for ours.
    taken = [name for name in table.column_names if name in our_name.values() and name not in our_name]
    table = table.drop_columns([*taken, *(name for name in table.column_names if name.startswith("__index_level_"))])
    table = table.rename_columns([our_name.get(name, name) for name in table.column_names])
    _need(table, source, needed)
    return table, source


def _need(table: pa.Table, source: Source, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in table.column_names:
            raise DataError(
                f"{source.name} has no column {name!r}, only {', '.join(table.column_names)}. Say which one holds it: "
                f"`column_map={{{name!r}: 'its name'}}`. If names run together, pass the `delimiter` between them."
            )
