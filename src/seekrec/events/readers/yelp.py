# SPDX-License-Identifier: Apache-2.0
"""The Yelp Open Dataset: businesses, and what users wrote about them.

Files are JSON lines, compressed or not, with or without the prefix `yelp_academic_dataset_`: `business`, and `review`
or `tip` or both. Every review and every tip is one event, distinguished by `action`. Categories have no order, so a
query is one of them: what people type to find such a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import check_max_refused, is_blank
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds, to_text
from seekrec.events.readers.json_lines import Kind, read_json_lines
from seekrec.events.readers.published import (
    ReadTable,
    build_log,
    find_release,
    flat_categories,
    usable_events,
    usable_items,
)
from seekrec.util.arrow import is_list, one_array, to_lists, to_mask

_PREFIX = "yelp_academic_dataset_"

# What the columns are to us.
_BUSINESS: dict[str, Kind] = {
    "business_id": "id",
    **dict.fromkeys(("name", "city", "state"), "text"),
    "categories": "value",
}
_ACT: dict[str, Kind] = {
    **dict.fromkeys(("user_id", "business_id"), "id"),
    **dict.fromkeys(("date", "stars"), "value"),
}

# The names of categories that hold what stands between two of them, and what stands for it while they are cut.
_WITH_COMMAS = ("Beer, Wine & Spirits", "Books, Mags, Music & Video", "Used, Vintage & Consignment")
_COMMA = "\x1f"


@dataclass(frozen=True)
class _YelpFiles:
    name: str
    business: Path
    acts: dict[str, Path]


def read_yelp(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read the Yelp Open Dataset.

    Reviews of businesses that the file does not hold, and reviews that repeat another one, are left out with a
    warning and do not count.

    Args:
        folder (`str` or `Path`): Folder with `yelp_academic_dataset_business.json` and
            `yelp_academic_dataset_review.json`, `yelp_academic_dataset_tip.json`, or both.
        max_refused (`float`): The largest share of rows of a file that may be left out with a warning.

    Returns:
        `EventLog`: `action` is "review" or "tip"; the extra column `rating` contains the stars of a review. Items with
            the extra columns `city`, `state` and `queries` (list of text).

    Raises:
        DataError: If a file is missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    expected = f"{_PREFIX}business.json, and {_PREFIX}review.json or {_PREFIX}tip.json"
    files = find_release(folder, _files_of, what="Yelp", expected=expected)
    items, notes = usable_items(_read_businesses(files.business), max_refused=max_refused)
    tables = []
    for action, path in files.acts.items():
        events, event_notes = usable_events(_read_acts(path, action), items, max_refused=max_refused)
        tables.append(events)
        notes += event_notes
    names = ", ".join(path.name for path in (files.business, *files.acts.values()))
    return build_log("yelp", f"Yelp Open Dataset: {names}.", pa.concat_tables(tables), items, notes)


def _files_of(folder: Path) -> _YelpFiles | None:
    found = {
        what: path
        for what in ("business", "review", "tip")
        for path in reversed([folder / f"{prefix}{what}.json{end}" for prefix in (_PREFIX, "") for end in ("", ".gz")])
        if path.is_file()
    }
    business = found.pop("business", None)
    return _YelpFiles(folder.name, business, found) if business is not None and found else None


def _read_businesses(path: Path) -> ReadTable:
    raw, source = read_json_lines(path, _BUSINESS)
    if "business_id" not in raw.column_names or "name" not in raw.column_names:
        raise DataError(f"{path.name} has no column business_id or name, only {', '.join(raw.column_names)}.")
    city, state = (
        to_text(raw[name], name, source) if name in raw.column_names else pa.nulls(raw.num_rows, pa.string())
        for name in ("city", "state")
    )
    column = raw["categories"] if "categories" in raw.column_names else pa.nulls(raw.num_rows, pa.string())
    names, lengths = _cut_categories(one_array(column))
    paths, queries = flat_categories(names, lengths)
    kinds = pc.if_else(pa.array(lengths > 0), pc.binary_join(to_lists(names, lengths), ", "), None)
    place = _join(city, state, ", ")
    table = pa.table(
        {
            "item_id": to_ids(raw["business_id"], "item_id", source),
            "title": to_text(raw["name"], "title", source),
            "description": _join(kinds, place, " in "),
            "categories": paths,
            "city": city,
            "state": state,
            "queries": queries,
        }
    )
    return ReadTable(table, source)


def _cut_categories(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return all names of categories end to end, and their number in each row; older releases have lists."""
    if not is_list(column.type):
        text = column.cast(pa.string())
        for name in _WITH_COMMAS:
            text = pc.replace_substring(text, name, name.replace(",", _COMMA))
        column = pc.split_pattern(text, ",")
    names = pc.utf8_trim_whitespace(pc.replace_substring(column.flatten().cast(pa.string()), _COMMA, ","))
    has_text = ~to_mask(is_blank(names))
    rows = pc.list_parent_indices(column).to_numpy()[has_text]
    return names.filter(pa.array(has_text)), np.bincount(rows, minlength=len(column))


def _join(first: pa.Array, second: pa.Array, between: str) -> pa.Array:
    """Join two texts, or return the one that is there (Arrow's own skipping of nulls drops rows)."""
    return pc.coalesce(pc.binary_join_element_wise(first, second, between), first, second)


def _read_acts(path: Path, action: str) -> ReadTable:
    raw, source = read_json_lines(path, _ACT)
    for name in ("user_id", "business_id", "date"):
        if name not in raw.column_names:
            raise DataError(f"{path.name} has no column {name!r}, only {', '.join(raw.column_names)}.")
    seconds, findings = to_seconds(raw["date"], "timestamp", source)
    has_stars = "stars" in raw.column_names
    stars = to_numbers(one_array(raw["stars"]).cast(pa.string())) if has_stars else np.full(raw.num_rows, np.nan)
    table = pa.table(
        {
            "user_id": to_ids(raw["user_id"], "user_id", source),
            "timestamp": seconds,
            "item_id": to_ids(raw["business_id"], "item_id", source),
            "action": pa.repeat(action, raw.num_rows),
            "rating": pa.array(stars, from_pandas=True),
        }
    )
    return ReadTable(table, source, findings)


__all__ = ["read_yelp"]
