# SPDX-License-Identifier: Apache-2.0
"""User-item sequences with an items file: only the order is known, so the position is used as the time.

There are two published layouts, named after the data sets that use them:

- `"scientific"`: `NAME.inter.json` (`{"user": [item, item, ...]}`) and `NAME.item.json`
  (`{"item": {"title", "description", "brand", "categories"}}`, categories one path with commas between its names);
- `"beauty"`: `sequences.txt` (`user item item ...`, one user per line) and `items.tsv` (`item_id`, `asin`, `text`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import (
    Finding,
    Source,
    check_choice,
    check_max_refused,
    is_blank,
    refuse,
    repeats,
)
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import clean_text, to_ids
from seekrec.events.readers.delimited import read_delimited, read_lines
from seekrec.events.readers.kept_rows import keep_events, keep_items
from seekrec.events.readers.text_files import check_file

logger = logging.getLogger(__name__)

SequenceLayout = Literal["scientific", "beauty"]

# A comma inside a name ("Tapes, Adhesives & Sealants") is followed by a space, one between names is not.
_COMMA_BETWEEN_NAMES = r",([^ ])"
_NEXT_NAME = "\x1f"


def read_sequences(
    data_dir: str | Path, *, layout: SequenceLayout | None = None, max_refused: float = 0.01
) -> EventLog:
    """Read user-item sequences and the items they name.

    The timestamp of an event is its position in the user's sequence, counted from 0, and `has_time` is False. Texts
    lose HTML tags and entities. Items without any text cannot be embedded: they are refused, and so are the events
    that name them; the positions of the other events stay as they were.

    Args:
        data_dir (`str` or `Path`): The folder.
        layout (`str`, *optional*): `"scientific"` or `"beauty"`; found out from the file names if not given.
        max_refused (`float`): The largest share of rows (items, users, events) that may be left out with a warning.

    Returns:
        `EventLog`: Without searches. Extra columns of items: `brand`, or `asin`.

    Raises:
        DataError: If the files are missing, cannot be read, or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"`data_dir` {folder} is not a folder; pass the folder with the sequences.")
    found = _find_layout(folder) if layout is None else layout
    check_choice("layout", found, get_args(SequenceLayout))
    if found == "scientific":
        events_path, items_path = _one(folder, "*.inter.json"), _one(folder, "*.item.json")
        items, item_source = _read_json_items(items_path)
        (events, event_source), warning = _read_json_sequences(events_path), None
        name = events_path.name.removesuffix(".inter.json")
    else:
        events_path, items_path = folder / "sequences.txt", folder / "items.tsv"
        items, item_source = _read_tsv_items(items_path)
        events, event_source, warning = _read_text_sequences(events_path, max_refused)
        name = folder.resolve().name
    items, item_warning = keep_items(items, item_source, max_refused=max_refused)
    events, event_warning = keep_events(events, items, event_source, max_refused=max_refused, may_repeat=True)
    notes = [
        f"Sequences from {events_path.name}, items from {items_path.name}.",
        "The log has order but no time: timestamps are positions in each user's sequence.",
        *(note for note in (item_warning, warning, event_warning) if note),
    ]
    log = EventLog(name, events, items, has_time=False, notes=tuple(notes), is_checked=True)
    logger.info("%s %d events of %d users, %d items.", notes[0], log.num_events, log.num_users, log.num_items)
    return log


def _find_layout(folder: Path) -> SequenceLayout:
    has_json = bool(list(folder.glob("*.inter.json")))
    has_text = (folder / "sequences.txt").exists()
    if has_json == has_text:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise DataError(
            f"{folder} contains {names}: {'both' if has_json else 'neither'} of the layouts 'scientific' "
            "(NAME.inter.json, NAME.item.json) and 'beauty' (sequences.txt, items.tsv). Pass `layout`."
        )
    return "scientific" if has_json else "beauty"


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} must contain exactly one {pattern}; it holds {names}.")
    return found[0]


def _read_json(path: Path) -> dict[str, object]:
    check_file(path)

    def refuse_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content = dict(pairs)
        if len(content) != len(pairs):
            twin = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise DataError(f"{path.name}: the key {twin!r} occurs more than once; merge or drop one.")
        return content

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=refuse_twins)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not JSON: {error}. Fetch the file again.") from error
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{path.name} contains half of a surrogate pair (\\ud800 to \\udfff): correct the text."
        ) from None
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path.name} contains {content!r:.40}; it must contain an object that is not empty.")
    return content


def _read_json_sequences(path: Path) -> tuple[pa.Table, Source]:
    sequences: dict[str, list[object]] = {}
    for user_id, sequence in _read_json(path).items():
        if not isinstance(sequence, list) or not sequence:
            raise DataError(f"{path.name}: user {user_id!r} has {sequence!r:.40}; give a list of at least one item.")
        sequences[user_id] = sequence
    lengths = np.fromiter(map(len, sequences.values()), np.int64, count=len(sequences))
    items = list(chain.from_iterable(sequences.values()))
    wrong = next((position for position, item in enumerate(items) if type(item) not in (int, str)), None)
    users = list(sequences)
    starts = np.cumsum(lengths) - lengths

    def name_row(row: int) -> str:
        owner = int(np.searchsorted(starts, row, side="right")) - 1
        return f"user {users[owner]!r}, position {row - starts[owner]} (from 0)"

    if wrong is not None:
        raise DataError(f"{path.name}: {name_row(wrong)} is {items[wrong]!r:.40}; an item is text or a whole number.")
    events = _sequence_table(pa.array(users, pa.string()), lengths, pa.array(map(str, items), pa.string()))
    return events, Source(path.name, name_row, names_people=True)


def _read_json_items(path: Path) -> tuple[pa.Table, Source]:
    content = _read_json(path)
    columns: dict[str, list[str | None]] = {"title": [], "description": [], "brand": [], "categories": []}
    for item_id, fields in content.items():
        if not isinstance(fields, dict):
            raise DataError(f"{path.name}: item {item_id!r} is {fields!r:.40}; give an object with a title.")
        for name, values in columns.items():
            value = fields.get(name)
            if value is not None and not isinstance(value, str):
                raise DataError(f"{path.name}: {name} of item {item_id!r} is {value!r:.40}; it must be text.")
            values.append(value)
    ids = list(content)
    table = pa.table(
        {
            "item_id": pa.array(ids, pa.string()),
            "title": clean_text(pa.array(columns["title"], pa.string())),
            "description": clean_text(pa.array(columns["description"], pa.string())),
            "categories": _one_path(pa.array(columns["categories"], pa.string())),
            "brand": clean_text(pa.array(columns["brand"], pa.string())),
        }
    )
    return table, Source(path.name, lambda row: f"item {ids[row]!r}")


def _one_path(column: pa.Array) -> pa.Array:
    """Turn "Root,Branch, with a comma,Leaf" into a list of one path; null where there is no text."""
    text = pc.if_else(is_blank(column), pa.scalar(None, pa.string()), column)
    marked = pc.replace_substring_regex(text, _COMMA_BETWEEN_NAMES, rf"{_NEXT_NAME}\1")
    names = [None if path is None else [path.split(_NEXT_NAME)] for path in marked.to_pylist()]
    return pa.array(names, pa.list_(pa.list_(pa.string())))


def _read_text_sequences(path: Path, max_refused: float) -> tuple[pa.Table, Source, str | None]:
    lines, source = read_lines(path)
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines))
    table = pa.table({"user_id": pc.list_element(words, 0), "line": lines, "words": words})
    num_items = pc.list_value_length(words).to_numpy(zero_copy_only=False) - 1
    findings = [
        Finding("name no item", np.flatnonzero(num_items < 1), "line"),
        Finding("repeat the user of an earlier line", np.flatnonzero(repeats(table.select(["user_id"]))), "user_id"),
    ]
    table, keep, warning = refuse(table, findings, source, max_refused=max_refused)
    lengths, lines_kept = num_items[keep], np.flatnonzero(keep)
    starts = np.cumsum(lengths) - lengths
    flat = table["words"].combine_chunks().flatten()
    is_item = np.ones(len(flat), dtype=bool)
    is_item[starts + np.arange(len(starts))] = False

    def name_row(row: int) -> str:
        owner = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{source.name_row(int(lines_kept[owner]))}, position {row - starts[owner]} (from 0)"

    events = _sequence_table(table["user_id"].combine_chunks(), lengths, flat.filter(pa.array(is_item)))
    return events, Source(path.name, name_row), warning


def _read_tsv_items(path: Path) -> tuple[pa.Table, Source]:
    raw, source = read_delimited(path, delimiter="\t", quoting="none")
    for name in ("item_id", "text"):
        if name not in raw.column_names:
            raise DataError(f"{path.name} has no column {name!r}; it has {', '.join(raw.column_names)}. Rename it.")
    columns = {"item_id": to_ids(raw["item_id"], "item_id", source), "title": clean_text(raw["text"])}
    if "asin" in raw.column_names:
        columns["asin"] = to_ids(raw["asin"], "asin", source)
    return pa.table(columns), source


def _sequence_table(users: pa.Array, lengths: np.ndarray, items: pa.Array) -> pa.Table:
    owner = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(items)) - (np.cumsum(lengths) - lengths)[owner]
    return pa.table({"user_id": users.take(pa.array(owner)), "timestamp": pa.array(place), "item_id": items})
