# SPDX-License-Identifier: Apache-2.0
"""Helpers of readers of published logs: find their files, and leave out rows with known flaws.

Published logs have well-known flaws: reviews of products without metadata, products listed twice. Such rows are no
sign of damage, so they do not count towards the cap on refused rows; the notes of the log count them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import (
    Finding,
    Source,
    conform,
    find_items_without_text,
    find_repeated_events,
    is_blank,
    refuse,
    repeats,
)
from seekrec.events.log import EventLog, QuerySource
from seekrec.events.readers.kept_rows import keep_events, keep_items
from seekrec.events.readers.layouts import at_rows
from seekrec.schema import EVENT_FEATURES, ITEM_FEATURES, OPTIONAL_EVENT_FEATURES, SEARCH
from seekrec.util.arrow import one_array, to_lists, to_mask

logger = logging.getLogger(__name__)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


# What a reader of a log with user tags makes of them.
Queries = Literal["none", "tags"]

Files = TypeVar("Files", bound=_Named)
Table = TypeVar("Table")

# Where more events than this share name items without metadata, the metadata are those of another log.
_MAX_UNKNOWN = 0.5


@dataclass(frozen=True)
class ReadTable:
    """A table with our columns as it was read.

    Args:
        table (`pyarrow.Table`): The rows.
        source (`Source`): Where they stand.
        findings (`Sequence[Finding]`): Rows that cannot be used, which the cap on refused rows counts.
        known (`Sequence[Finding]`): Rows that cannot be used, as is known of the publication: not counted.
    """

    table: pa.Table
    source: Source
    findings: Sequence[Finding] = ()
    known: Sequence[Finding] = ()


def find_release(folder: str | Path, files_of: Callable[[Path], Files | None], *, what: str, expected: str) -> Files:
    """Find the files of a log in a folder, or in the single folder inside it that contains them (an unpacked archive).

    Args:
        folder (`str` or `Path`): The folder.
        files_of (`Callable`): Returns the files that one folder holds, or `None`.
        what (`str`): Name of the log, for messages.
        expected (`str`): Names of the files, for messages.

    Raises:
        DataError: If the folder does not exist, contains no such files, or several logs.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"`data_dir` {root} is not a folder; give the one that contains the {what} files.")
    found = files_of(root)
    if found is not None:
        return found
    inside = [files for path in sorted(root.iterdir()) if path.is_dir() and (files := files_of(path)) is not None]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise DataError(
            f"`data_dir` {root} contains several releases ({', '.join(files.name for files in inside)}); give the "
            "folder of one."
        )
    names = ", ".join(sorted(path.name for path in root.iterdir())[:10]) or "nothing"
    raise DataError(f"`data_dir` {root} contains no {what} files, only {names}. Expected {expected}.")


def usable_items(read: ReadTable, *, max_refused: float) -> tuple[pa.Table, list[str]]:
    """Return the items that have an id and a text, each once; and what was left out.

    Raises:
        DataError: If too many rows cannot be used.
    """
    table = conform(read.table, ITEM_FEATURES, read.source.name, required=("item_id", "title"))
    again = repeats(table.select(["item_id"])) & ~to_mask(is_blank(table["item_id"]))
    known = [
        *read.known,
        *find_items_without_text(table),
        Finding("repeat the item_id of an earlier row", np.flatnonzero(again), "item_id"),
    ]
    rest, note = _leave_out(table, known, read)
    items, refused = keep_items(rest.table, rest.source, max_refused=max_refused, findings=rest.findings)
    return items, [*read.source.remarks, *(one for one in (note, refused) if one)]


def usable_events(read: ReadTable, items: pa.Table, *, max_refused: float) -> tuple[pa.Table, list[str]]:
    """Return the events that can be used and name an item of `items`, each once; and what was left out.

    Raises:
        DataError: If too many rows cannot be used, or most name no item of `items`.
    """
    required = ("user_id", "timestamp", "item_id")
    table = conform(read.table, EVENT_FEATURES, read.source.name, required=required, optional=OPTIONAL_EVENT_FEATURES)
    has_item = ~to_mask(is_blank(table["item_id"]))
    unknown = np.flatnonzero(has_item & ~to_mask(pc.is_in(table["item_id"], value_set=one_array(items["item_id"]))))
    if len(unknown) > _MAX_UNKNOWN * table.num_rows:
        first = int(unknown[0])
        raise DataError(
            f"{read.source.name}: {len(unknown)} of {table.num_rows} rows name an item without metadata (first: "
            f"{read.source.name_row(first)}, {table['item_id'][first].as_py()!r}). Check that the metadata belong to "
            "this log: fetch the file of the same name and release."
        )
    known = [
        *read.known,
        Finding("name an item without a text", unknown, "item_id"),
        *find_repeated_events(table),
    ]
    rest, note = _leave_out(table, known, read)
    events, refused = keep_events(
        rest.table, items, rest.source, max_refused=max_refused, findings=rest.findings, may_repeat=True
    )
    return events, [*read.source.remarks, *(one for one in (note, refused) if one)]


def tag_searches(
    tagged: ReadTable, tags: pa.Array | pa.ChunkedArray, items: pa.Table, *, max_refused: float
) -> tuple[pa.Table, list[str]]:
    """Return a search for each tag that a user gave an item: the tag is the query, and the item was found.

    Args:
        tagged ([`ReadTable`]): Who tagged what and when: `user_id`, `timestamp`, `item_id`.
        tags (`pyarrow.Array`): Text of the tag of each row.
        items (`pyarrow.Table`): Items of the log.
        max_refused (`float`): The largest share of rows that may be left out.

    Returns:
        `tuple`: The searches; notes that say what they are, and what was left out.

    Raises:
        DataError: If too many rows cannot be used.
    """
    typed = {"behavior": pa.repeat(SEARCH, len(tags)), "query": pc.utf8_trim_whitespace(one_array(tags))}
    for name, column in typed.items():
        tagged = replace(tagged, table=tagged.table.append_column(name, column))
    searches, notes = usable_events(tagged, items, max_refused=max_refused)
    remark = (
        f"{searches.num_rows} searches are tags: texts that users typed to describe an item, not to find it. Each "
        "counts as a search that found the item."
    )
    return searches, [remark, *notes]


def utf8_or_latin1(read: Callable[[str], Table]) -> Table:
    """Read a file in UTF-8, and in latin-1, which reads any bytes, where it is something else."""
    try:
        return read("utf8")
    except DataError:
        return read("latin-1")


def flat_categories(names: pa.Array, lengths: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Return categories that have no order among them as paths of one level, and as queries.

    Args:
        names (`pyarrow.Array`): Names of the categories of all items, end to end.
        lengths (`np.ndarray`): int64 number of categories of each item.

    Returns:
        `tuple`: The paths of each item; what people type who look for such an item: each category, in lower case.
    """
    paths = to_lists(to_lists(names, np.ones(len(names), dtype=np.int64)), lengths)
    return paths, to_lists(pc.utf8_lower(names), lengths)


def build_log(
    name: str,
    found: str,
    events: pa.Table,
    items: pa.Table,
    notes: Sequence[str],
    *,
    has_time: bool = True,
    query_source: QuerySource = "none",
) -> EventLog:
    """Return the log of rows that were checked, and say in one line what was found.

    Args:
        name (`str`): Name of the log.
        found (`str`): Release and files, one sentence.
        events (`pyarrow.Table`): Events that [`usable_events`] or `keep_events` returned.
        items (`pyarrow.Table`): Items, likewise.
        notes (`Sequence[str]`): Further notes.
        has_time (`bool`): Whether timestamps are seconds.
        query_source (`str`): Origin of the queries.
    """
    log = EventLog(name, events, items, has_time, query_source=query_source, notes=(found, *notes), is_checked=True)
    num_searches = int(pc.sum(pc.is_valid(log.events["query"])).as_py())
    logger.info(
        "%s %d events of %d users, %d of them searches; %d items.",
        *(found, log.num_events, log.num_users, num_searches, log.num_items),
    )
    return log


def with_events(items: pa.Table, events: pa.Table, source: Source) -> tuple[pa.Table, list[str]]:
    """Leave out the items that no event names; and how many they were."""
    kept = items.filter(pc.is_in(items["item_id"], value_set=pc.unique(one_array(events["item_id"]))))
    num_left = items.num_rows - kept.num_rows
    return kept, [f"{num_left} items of {source.name} without an event were left out."] if num_left else []


def put_together(parts: Sequence[tuple[pa.Table, Source]]) -> tuple[pa.Table, Source]:
    """Put the rows of several files under each other."""
    if len(parts) == 1:
        return parts[0]
    sources = [source for _, source in parts]
    starts = np.cumsum([0, *(table.num_rows for table, _ in parts)])

    def name_row(row: int) -> str:
        place = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{sources[place].name}, {sources[place].name_row(int(row - starts[place]))}"

    source = Source(
        ", ".join(one.name for one in sources),
        name_row,
        sum(one.num_unreadable for one in sources),
        next((f"{one.name}, {one.unreadable}" for one in sources if one.unreadable), None),
        tuple(remark for one in sources for remark in one.remarks),
    )
    return pa.concat_tables([table for table, _ in parts], promote_options="permissive"), source


def _leave_out(table: pa.Table, known: Sequence[Finding], read: ReadTable) -> tuple[ReadTable, str | None]:
    """Leave out what does not count; rows of the findings and names of the rows follow."""
    readable = replace(read.source, num_unreadable=0, unreadable=None)
    kept, keep, note = refuse(table, known, readable, max_refused=1.0)
    if note is None:
        return replace(read, table=table), None
    moved = np.cumsum(keep) - 1
    findings = [
        replace(
            finding,
            rows=moved[finding.rows[keep[finding.rows]]],
            values=None if finding.values is None else finding.values.filter(pa.array(keep)),
        )
        for finding in read.findings
    ]
    return ReadTable(kept, at_rows(read.source, np.flatnonzero(keep)), findings), note


__all__ = [
    "Queries",
    "ReadTable",
    "build_log",
    "find_release",
    "flat_categories",
    "put_together",
    "tag_searches",
    "usable_events",
    "usable_items",
    "utf8_or_latin1",
    "with_events",
]
