# SPDX-License-Identifier: Apache-2.0
"""MIND (Wu et al., 2020): impressions and clicks of Microsoft News.

A folder contains `behaviors.tsv` and `news.tsv`, or several such folders (`MINDsmall_train`, `MINDsmall_dev`), which
are read as one log. An impression of the publication is one page view: each article in it becomes an event at its
time, with `action` "click" (`-1`) or "impression" (`-0`) and the number of the impression as `session_id`. Articles
without either, as in the published test part, are left out.

The column of earlier clicks has an order and no time. They were made in the weeks before the log begins, so each
user's first such list becomes clicks one second apart that end one second before the first impression of the log.
Times have no zone and are taken as UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, check_max_refused
from seekrec.events.log import EventLog
from seekrec.events.readers.columns import to_ids
from seekrec.events.readers.layouts import at_rows, find_table, one_line, read_columns, to_paths
from seekrec.events.readers.published import (
    ReadTable,
    build_log,
    find_release,
    put_together,
    usable_events,
    usable_items,
)
from seekrec.schema import IMPRESSION
from seekrec.util.arrow import one_array, to_mask

_BEHAVIORS = ("session_id", "user_id", "time", "history", "shown")
_NEWS = ("item_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_UNUSED = ("url", "title_entities", "abstract_entities")
_TIME = "%m/%d/%Y %I:%M:%S %p"


@dataclass(frozen=True)
class MindFiles:
    """The parts of a folder.

    Args:
        name (`str`): Name of the folder.
        parts (`tuple[tuple[Path, Path], ...]`): Behaviors and news of each part.
    """

    name: str
    parts: tuple[tuple[Path, Path], ...]


def read_mind(folder: str | Path, *, max_refused: float = 0.01) -> EventLog:
    """Read impressions, clicks and earlier clicks of MIND.

    Args:
        folder (`str` or `Path`): Folder of a part, or of several parts.
        max_refused (`float`): The largest share of rows of a table that may be left out.

    Returns:
        `EventLog`: Recommendation events; items are news with title, abstract, category and subcategory.

    Raises:
        DataError: If files are missing or too many rows cannot be used.
    """
    check_max_refused(max_refused)
    files = find_release(folder, _files_of, what="MIND", expected="behaviors.tsv and news.tsv")
    several = len(files.parts) > 1
    items, notes = usable_items(
        _read_news(put_together([_read(news, _NEWS) for _, news in files.parts])), max_refused=max_refused
    )
    raw, source = put_together([_read_behaviors(path, several) for path, _ in files.parts])
    events, remarks = usable_events(_as_events(raw, source), items, max_refused=max_refused)
    notes += [
        *remarks,
        "Earlier clicks have an order and no time: each user's stand one second apart before the first impression of "
        "the log.",
        "Times name no zone: they count as UTC.",
    ]
    parts = ", ".join(f"{path.parent.name}/{path.name}" for part in files.parts for path in part)
    return build_log("mind", f"MIND: {parts}.", events, items, notes)


def _files_of(folder: Path) -> MindFiles | None:
    found = []
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        behaviors, news = (find_table(place, name, (".tsv",)) for name in ("behaviors", "news"))
        if behaviors is not None and news is not None:
            found.append((behaviors, news))
            if place == folder:
                break
    return MindFiles(folder.name, tuple(found)) if found else None


def _read(path: Path, names: tuple[str, ...]) -> tuple[pa.Table, Source]:
    used = [name for name in names if name not in _UNUSED]
    return read_columns(path, used, delimiter="\t", names=names, quoting="none")


def _read_news(read: tuple[pa.Table, Source]) -> ReadTable:
    raw, source = read
    table = pa.table(
        {
            "item_id": to_ids(raw["item_id"], "item_id", source),
            "title": one_line(raw["title"]),
            "description": one_line(raw["abstract"]),
            "categories": to_paths([one_line(raw[name]) for name in ("category", "subcategory")], source),
        }
    )
    return ReadTable(table, source)


def _read_behaviors(path: Path, several: bool) -> tuple[pa.Table, Source]:
    raw, source = _read(path, _BEHAVIORS)
    if several:
        # Each part counts its impressions from 1.
        names = pc.binary_join_element_wise(path.parent.name, one_array(raw["session_id"]), "-")
        raw = raw.set_column(0, "session_id", names)
    return raw, source


def _as_events(raw: pa.Table, source: Source) -> ReadTable:
    seconds = pc.strptime(one_line(raw["time"]), format=_TIME, unit="s", error_is_null=True).cast(pa.int64())
    if not pc.any(pc.is_valid(seconds)).as_py():
        raise DataError(
            f"{source.name} contains no time such as 11/15/2019 1:24:44 PM, but {raw['time'][0].as_py()!r:.40} "
            f"({source.name_row(0)}); fetch the published file."
        )
    lists = one_array(pc.split_pattern(one_line(raw["shown"]), " "))
    rows, tokens = pc.list_parent_indices(lists), lists.flatten()
    parts = pc.extract_regex(tokens, r"^(?P<item>\S+)-(?P<label>[01])$")
    users, label = to_ids(raw["user_id"], "user_id", source), pc.struct_field(parts, "label")
    shown = pa.table(
        {
            "user_id": users.take(rows),
            "timestamp": seconds.take(rows),
            "item_id": pc.coalesce(pc.struct_field(parts, "item"), tokens),
            "action": pc.if_else(pc.equal(pc.fill_null(label, "1"), "1"), "click", IMPRESSION),
            "session_id": one_array(raw["session_id"]).take(rows),
        }
    )
    earlier, first_rows = _earlier_clicks(raw, users, seconds)
    unlabelled = np.flatnonzero(np.asarray(label.is_null())) + earlier.num_rows
    known = [Finding("do not say whether the user clicked", unlabelled, "item_id")] if len(unlabelled) else []
    table = pa.concat_tables([earlier, shown], promote_options="default")
    undated = np.flatnonzero(to_mask(pc.is_null(table["timestamp"])))
    findings = [Finding("have a time that cannot be read", undated, "item_id")] if len(undated) else []
    return ReadTable(table, at_rows(source, np.concatenate([first_rows, rows.to_numpy()])), findings, known)


def _earlier_clicks(raw: pa.Table, users: pa.Array, seconds: pa.Array) -> tuple[pa.Table, np.ndarray]:
    """Return the earlier clicks of each user's first row that has any, dated before the log, and their rows."""
    lists = one_array(pc.split_pattern(one_line(raw["history"]), " "))
    codes = pc.fill_null(users.dictionary_encode().indices, -1).to_numpy()
    with_clicks = np.flatnonzero(~np.asarray(lists.is_null()) & (codes >= 0))
    first = with_clicks[np.unique(codes[with_clicks], return_index=True)[1]]
    lists = lists.take(pa.array(first))
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(first, lengths)
    before = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(rows))
    table = pa.table(
        {
            "user_id": users.take(pa.array(rows)),
            "timestamp": pa.array(pc.min(seconds).as_py() - before, pa.int64()),
            "item_id": lists.flatten(),
            "action": pa.repeat("click", len(rows)),
        }
    )
    return table, rows


__all__ = ["read_mind"]
