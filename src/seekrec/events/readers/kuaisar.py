# SPDX-License-Identifier: Apache-2.0
"""KuaiSAR (Sun et al., 2023): searches and recommendations of the short-video app Kuaishou.

A folder contains `src_inter.csv`, `rec_inter.csv` (either alone will do) and `item_features.csv`.

Each row of `rec_inter.csv` is a video that was played: `action` "click" or "impression", as its column `click` says;
the extra column `page_time` contains the seconds that it played. Each row of `src_inter.csv` is a result of a search:
"click" or "impression", as `click_cnt` says, with the search as `session_id`.

Words are published as numbers: a query is the numbers of its words ("20 34 3"), a title those of its caption, so a
text encoder finds no meaning in them. Names of categories are real text; they become the categories and the
description.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import Source, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids, to_numbers
from seekrec.events.readers.layouts import (
    column_or_nulls,
    find_table,
    one_line,
    read_columns,
    to_paths,
    written_numbers,
)
from seekrec.events.readers.published import (
    ReadTable,
    build_log,
    find_release,
    put_together,
    usable_events,
    usable_items,
)
from seekrec.events.readers.times import read_times
from seekrec.schema import IMPRESSION, RECOMMENDATION, SEARCH
from seekrec.util.arrow import one_array

_LEVELS = [f"{level}_level_category_name" for level in ("first", "second", "third", "fourth")]

# What stands for no category and for no text.
_NOTHING = ("空", "empty", "null", "UNKNOWN", "0", "nan")


@dataclass(frozen=True)
class KuaisarFiles:
    """The files of a folder.

    Args:
        name (`str`): Name of the folder.
        searches (`Path`, *optional*): Results of searches.
        plays (`Path`, *optional*): Recommended videos.
        items (`Path`): Videos.
    """

    name: str
    searches: Path | None
    plays: Path | None
    items: Path


def read_kuaisar(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read searches and recommendations of KuaiSAR.

    Args:
        folder (`str` or `Path`): Folder of the files, see above.
        max_refused (`float`): The largest share of rows of a table that may be left out.

    Returns:
        `EventLog`: One event a row of the two tables. Results that `item_features.csv` does not describe (users, live
            streams) are left out.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    expected = "item_features.csv and src_inter.csv or rec_inter.csv"
    files = find_release(folder, _files_of, what="KuaiSAR", expected=expected)
    items, notes = usable_items(_read_items(files.items), max_refused=max_refused)
    parts = [_read_searches(files.searches)] if files.searches else []
    parts += [_read_plays(files.plays)] if files.plays else []
    table, source = put_together(parts)
    times = read_times(table["timestamp"], "timestamp", source, unit="ms")
    table = table.set_column(table.column_names.index("timestamp"), "timestamp", times.seconds)
    events, remarks = usable_events(ReadTable(table, source, times.findings), items, max_refused=max_refused)
    notes += [*remarks, "Words of queries and captions are published as numbers: a text encoder cannot read them."]
    paths = [path.name for path in (files.searches, files.plays, files.items) if path is not None]
    found = f"KuaiSAR: {', '.join(paths)}."
    return build_log("kuaisar", found, events, items, notes, query_source="logged" if files.searches else "none")


def _files_of(folder: Path) -> KuaisarFiles | None:
    items, searches, plays = (find_table(folder, name) for name in ("item_features", "src_inter", "rec_inter"))
    return KuaisarFiles(folder.name, searches, plays, items) if items and (searches or plays) else None


def _read_items(path: Path) -> ReadTable:
    raw, source = read_columns(path, ["item_id"], optional=["caption", *_LEVELS])
    names = [one_line(column_or_nulls(raw, level), _NOTHING) for level in _LEVELS]
    caption = one_line(written_numbers(column_or_nulls(raw, "caption")), _NOTHING)
    described = one_line(pc.binary_join_element_wise(*(pc.fill_null(name, "") for name in names), " "))
    table = pa.table(
        {
            "item_id": to_ids(raw["item_id"], "item_id", source),
            "title": pc.coalesce(caption, described),
            "description": described,
            "categories": to_paths(names, source),
        }
    )
    return ReadTable(table, source)


def _read_searches(path: Path) -> tuple[pa.Table, Source]:
    needed = ["user_id", "search_session_id", "search_session_timestamp", "keyword", "item_id", "click_cnt"]
    raw, source = read_columns(path, needed)
    table = pa.table(
        {
            "user_id": to_ids(raw["user_id"], "user_id", source),
            "timestamp": one_array(raw["search_session_timestamp"]),
            "behavior": pa.repeat(SEARCH, raw.num_rows),
            "query": written_numbers(raw["keyword"]),
            "item_id": to_ids(raw["item_id"], "item_id", source),
            "action": _action(raw["click_cnt"]),
            "session_id": to_ids(raw["search_session_id"], "search_session_id", source),
        }
    )
    return table, source


def _read_plays(path: Path) -> tuple[pa.Table, Source]:
    raw, source = read_columns(path, ["user_id", "item_id", "timestamp", "click"], optional=["playing_time"])
    played = to_numbers(column_or_nulls(raw, "playing_time")) / 1000
    table = pa.table(
        {
            "user_id": to_ids(raw["user_id"], "user_id", source),
            "timestamp": one_array(raw["timestamp"]),
            "behavior": pa.repeat(RECOMMENDATION, raw.num_rows),
            "item_id": to_ids(raw["item_id"], "item_id", source),
            "action": _action(raw["click"]),
            "page_time": pa.array(played, mask=np.isnan(played)),
        }
    )
    return table, source


def _action(clicks: pa.ChunkedArray) -> pa.Array:
    """Return "click" where a column counts any, "impression" where it counts none, null where it is not a number."""
    counts = to_numbers(clicks)
    action = pc.if_else(pa.array(counts > 0), "click", IMPRESSION)
    return pc.if_else(pa.array(np.isnan(counts)), pa.scalar(None, pa.string()), action)


__all__ = ["read_kuaisar"]
