# SPDX-License-Identifier: Apache-2.0
"""Yoochoose, RecSys Challenge 2015: clicks and purchases in sessions of a shop.

A folder contains `yoochoose-clicks.dat` and, optionally, `yoochoose-buys.dat`; neither has a header. Users are not
identified, so each session is a user, and there is no `session_id`. A click has `action` "click", a purchase
"purchase", with `price` and `quantity` as extra columns.

Items have no text: the title is the id. The category of an item is the number it was clicked under most often: 1 to 12
are categories, larger numbers brands; 0 (unknown) and S (a special offer) say nothing about the item.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import Source, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers, to_seconds
from seekrec.events.readers.layouts import find_table, most_frequent, name_items, read_columns, to_paths
from seekrec.events.readers.published import ReadTable, build_log, find_release, put_together, usable_events
from seekrec.util.arrow import one_array

_CLICKS = ("session", "timestamp", "item_id", "category")
_BUYS = ("session", "timestamp", "item_id", "price", "quantity")


@dataclass(frozen=True)
class YoochooseFiles:
    """The files of a folder.

    Args:
        name (`str`): Name of the folder.
        clicks (`Path`): Clicks.
        buys (`Path`, *optional*): Purchases.
    """

    name: str
    clicks: Path
    buys: Path | None


def read_yoochoose(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read clicks and purchases of Yoochoose.

    Args:
        folder (`str` or `Path`): Folder of the files, see above.
        max_refused (`float`): The largest share of rows that may be left out.

    Returns:
        `EventLog`: Recommendation events; a session is a user.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    files = find_release(folder, _files_of, what="Yoochoose", expected="yoochoose-clicks.dat (and yoochoose-buys.dat)")
    raw, clicks_source = read_columns(files.clicks, _CLICKS, names=_CLICKS, quoting="none")
    parts = [_as_events(raw, clicks_source, "click")]
    if files.buys is not None:
        bought, source = read_columns(files.buys, _BUYS, names=_BUYS, quoting="none")
        parts.append(_as_events(bought, source, "purchase"))
    table, source = put_together(parts)
    seconds, findings = to_seconds(table["timestamp"], "timestamp", source)
    table = table.set_column(table.column_names.index("timestamp"), "timestamp", seconds)
    items, notes = name_items(_categories(raw, clicks_source), one_array(table["item_id"]), "item")
    events, remarks = usable_events(ReadTable(table, source, findings), items, max_refused=max_refused)
    notes = ["Items have no text: their title is their id. A session counts as a user.", *remarks]
    found = f"Yoochoose: {', '.join(path.name for path in (files.clicks, files.buys) if path is not None)}."
    return build_log("yoochoose", found, events, items, notes)


def _files_of(folder: Path) -> YoochooseFiles | None:
    clicks, buys = (find_table(folder, f"yoochoose-{name}", (".dat", ".csv")) for name in ("clicks", "buys"))
    return YoochooseFiles(folder.name, clicks, buys) if clicks is not None else None


def _as_events(raw: pa.Table, source: Source, action: str) -> tuple[pa.Table, Source]:
    columns = {
        "user_id": to_ids(raw["session"], "session", source),
        "timestamp": one_array(raw["timestamp"]),
        "item_id": to_ids(raw["item_id"], "item_id", source),
        "action": pa.repeat(action, raw.num_rows),
    }
    extra = {name: pa.array(to_numbers(raw[name])) for name in ("price", "quantity") if name in raw.column_names}
    return pa.table(columns | extra), source


def _categories(raw: pa.Table, source: Source) -> pa.Table:
    """Return the items that were clicked under a category or a brand."""
    ids, category = to_ids(raw["item_id"], "item_id", source), one_array(raw["category"])
    is_named = pc.and_(pc.fill_null(pc.match_substring_regex(category, "^[1-9][0-9]*$"), False), pc.is_valid(ids))
    item, number = most_frequent(ids.filter(is_named), category.filter(is_named))
    kind = pc.if_else(pc.match_substring_regex(number, "^([1-9]|1[0-2])$"), "category", "brand")
    return pa.table(
        {
            "item_id": item,
            "title": pc.binary_join_element_wise("item", item, " "),
            "categories": to_paths([pc.binary_join_element_wise(kind, number, " ")], source),
        }
    )


__all__ = ["read_yoochoose"]
