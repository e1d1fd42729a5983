# SPDX-License-Identifier: Apache-2.0
"""RecBole's atomic files: `NAME.inter` and `NAME.item`, tab-separated, with a type after each name of the header.

`user_id:token`, `rating:float`, `title:token_seq`: ids and texts, numbers, words with spaces between them. Names and
types identify the columns; those without a meaning for seekrec are kept as extra columns. A log whose events come in
parts (`NAME.train.inter`, ...) is read as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, check_max_refused, is_blank
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds, to_text
from seekrec.events.readers.delimited import open_delimited
from seekrec.events.readers.published import (
    ReadTable,
    build_log,
    find_release,
    flat_categories,
    put_together,
    usable_events,
    usable_items,
)
from seekrec.schema import EVENT_FEATURES, ITEM_FEATURES, OPTIONAL_EVENT_FEATURES
from seekrec.util.arrow import is_text, one_array, to_mask

_USERS = ("user_id", "session_id")
_TIMES = ("timestamp", "date", "time")
_TITLES = ("title", "name")
_CATEGORIES = ("categories", "category", "genres", "genre", "class")

# What stands around names of categories that were lists.
_AROUND = " '\"[]"


@dataclass(frozen=True)
class _AtomicFiles:
    name: str
    events: tuple[Path, ...]
    items: Path


def read_recbole(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read a log in RecBole's atomic files.

    The id of an item is `item_id`, or the column of ids that both files have (`business_id`). A log of sessions counts
    each as a user. Without a column of times the order of the rows counts.

    Args:
        folder (`str` or `Path`): Folder with one `NAME.inter` (or its parts) and `NAME.item`.
        max_refused (`float`): The largest share of rows of a file that may be left out with a warning. Events of items
            without a text, items listed twice and events that repeat another one do not count.

    Returns:
        `EventLog`: All columns of tokens and numbers that are not ours are extra columns.

    Raises:
        DataError: If a file or column is missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    files = find_release(folder, _files_of, what="RecBole", expected="NAME.inter and NAME.item")
    raw_items, item_source = _read(files.items)
    raw, source = put_together([_read(path) for path in files.events])
    key = _name_item_id(raw, raw_items, files)
    items, notes = usable_items(_make_items(raw_items, item_source, key), max_refused=max_refused)
    events, has_time, remarks = _make_events(raw, source, key)
    kept, event_notes = usable_events(events, items, max_refused=max_refused)
    names = ", ".join(path.name for path in (*files.events, files.items))
    return build_log(
        files.name,
        f"RecBole's atomic files {names}.",
        kept,
        items,
        [*notes, *remarks, *event_notes],
        has_time=has_time,
    )


def _files_of(folder: Path) -> _AtomicFiles | None:
    items = sorted(folder.glob("*.item"))
    events = sorted(folder.glob("*.inter"))
    if not events or not items:
        return None
    if len(items) > 1:
        raise DataError(f"{folder} contains several logs ({', '.join(path.name for path in items)}); keep one in it.")
    name = items[0].stem
    whole = folder / f"{name}.inter"
    parts = (whole,) if whole in events else tuple(path for path in events if path.name.startswith(f"{name}."))
    if not parts:
        raise DataError(f"{folder} contains {items[0].name} but no {name}.inter; the two files need the same name.")
    return _AtomicFiles(name, parts, items[0])


def _read(path: Path) -> tuple[pa.Table, Source]:
    """Read one file; numbers become float64, sequences of numbers are left out."""
    file = open_delimited(path, delimiter="\t", quoting="none")
    kinds = {}
    for header in file.names:
        name, colon, kind = header.rpartition(":")
        if not colon or kind not in ("token", "token_seq", "float", "float_seq"):
            raise DataError(
                f"{path.name} has a column {header!r}; in RecBole's atomic files a type follows the name, such as "
                "user_id:token. Read other files with `dataset: tables`."
            )
        if kind != "float_seq":
            kinds[name] = kind
    if not kinds:
        raise DataError(f"{path.name} has no columns except sequences of numbers; it needs columns of users or items.")
    raw, source = file.read([f"{name}:{kind}" for name, kind in kinds.items()])
    columns = {
        name: pa.array(to_numbers(column), from_pandas=True) if kind == "float" and name not in _TIMES else column
        for (name, kind), column in zip(kinds.items(), raw.columns, strict=True)
    }
    return pa.table(columns), source


def _name_item_id(raw: pa.Table, raw_items: pa.Table, files: _AtomicFiles) -> str:
    both = [name for name in raw_items.column_names if name in raw.column_names and is_text(raw[name].type)]
    if not both:
        raise DataError(
            f"{files.items.name} ({', '.join(raw_items.column_names)}) and {files.events[0].name} "
            f"({', '.join(raw.column_names)}) have no column of tokens in common; the id of the item must be in both."
        )
    return "item_id" if "item_id" in both else both[0]


def _make_items(raw: pa.Table, source: Source, key: str) -> ReadTable:
    columns = {"item_id": to_ids(raw[key], "item_id", source)}
    title = _find(raw, _TITLES)
    if title is None:
        raise DataError(
            f"{source.name} has no column that ends in {' or '.join(_TITLES)}, only {', '.join(raw.column_names)}; "
            "items need a text. Rename the column that holds it to title:token_seq."
        )
    columns["title"] = to_text(raw[title], "title", source)
    if "description" in raw.column_names:
        columns["description"] = to_text(raw["description"], "description", source)
    categories = next((name for name in _CATEGORIES if name in raw.column_names), None)
    if categories is not None:
        columns["categories"], columns["queries"] = flat_categories(*_cut_categories(one_array(raw[categories])))
    used = {key, title, "description", categories}
    return ReadTable(pa.table(columns | _others(raw, used, columns)), source)


def _make_events(raw: pa.Table, source: Source, key: str) -> tuple[ReadTable, bool, list[str]]:
    user = next((name for name in _USERS if name in raw.column_names), None)
    if user is None:
        raise DataError(f"{source.name} has no column {' or '.join(_USERS)}, only {', '.join(raw.column_names)}.")
    remarks = ["Each session counts as a user: the log names none."] if user == "session_id" else []
    columns = {"user_id": to_ids(raw[user], "user_id", source), "item_id": to_ids(raw[key], "item_id", source)}
    time = next((name for name in _TIMES if name in raw.column_names), None)
    findings: list[Finding] = []
    if time is None:
        columns["timestamp"] = pa.array(np.arange(raw.num_rows))
        remarks.append("The log has order but no time: the number of the row counts as the time.")
    else:
        columns["timestamp"], findings = to_seconds(raw[time], "timestamp", source)
    used = {user, key, time}
    return ReadTable(pa.table(columns | _others(raw, used, columns)), source, findings), time is not None, remarks


def _find(raw: pa.Table, endings: Sequence[str]) -> str | None:
    """Return the column that is called like one of the endings, else one that ends so: `movie_title`."""
    names = raw.column_names
    exact = [ending for ending in endings if ending in names]
    return next(iter([*exact, *(name for end in endings for name in names if name.endswith(f"_{end}"))]), None)


def _cut_categories(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return all names of categories end to end, and their number in each row.

    Between words of a sequence stand spaces; where the publisher wrote commas, names of several words stand between
    them.
    """
    has_commas = 2 * int(pc.sum(pc.match_substring(column, ",")).as_py() or 0) > len(column) - column.null_count
    lists = pc.split_pattern(column, ",") if has_commas else pc.utf8_split_whitespace(column)
    names = pc.utf8_trim(lists.flatten(), characters=_AROUND)
    has_text = ~to_mask(is_blank(names))
    rows = pc.list_parent_indices(lists).to_numpy()[has_text]
    return names.filter(pa.array(has_text)), np.bincount(rows, minlength=len(column))


def _others(raw: pa.Table, used: set[str | None], ours: Mapping[str, object]) -> dict[str, pa.ChunkedArray]:
    """Return the columns without a meaning for seekrec; one that is called like ours stays out."""
    reserved = {*EVENT_FEATURES, *ITEM_FEATURES, *OPTIONAL_EVENT_FEATURES, *ours}
    return {name: raw[name] for name in raw.column_names if name not in used and name not in reserved}


__all__ = ["read_recbole"]
