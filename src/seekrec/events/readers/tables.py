# SPDX-License-Identifier: Apache-2.0
"""Read your own log: a table of events and a table of items, in Parquet, CSV, JSON or memory.

Columns are recognised by name and content, or named by a map, and the mapping is reported before the rows are read.
Types are not guessed: ids stay text ("007" keeps its zeros), times are read here, and only columns of items that
seekrec does not know get a guessed type.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import ConfigurationError
from seekrec.events.checks import Finding, Limits, Source, check_max_refused, notes_of_order, oldest_first
from seekrec.events.log import EventLog
from seekrec.events.readers.column_names import is_flag_name
from seekrec.events.readers.columns import drop_nothing, to_actions, to_behaviors, to_ids, to_text
from seekrec.events.readers.counted import Counted, count_odd_times
from seekrec.events.readers.item_tables import build_items
from seekrec.events.readers.kept_rows import keep_events, keep_items
from seekrec.events.readers.quotes import Quoting
from seekrec.events.readers.raw_tables import FileFormat
from seekrec.events.readers.recognition import Recognition
from seekrec.events.readers.table_reading import Reading, start_reading
from seekrec.events.readers.times import Times, TimeUnit, are_positions, read_times
from seekrec.schema import IMPRESSION, RECOMMENDATION, SEARCH
from seekrec.util.markup import strip_column

logger = logging.getLogger(__name__)

# Seconds of 1973: numbers below are rarely times.
_EARLY = 94_694_400


def read_tables(
    events: str | Path | pa.Table,
    items: str | Path | pa.Table | None = None,
    *,
    column_map: Mapping[str, str] | None = None,
    name: str | None = None,
    max_refused: float | None = None,
    has_time: bool | None = None,
    time_unit: TimeUnit | None = None,
    timezone: str | None = None,
    category_separator: str | None = None,
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    encoding: str | None = None,
) -> EventLog:
    r"""Read a table of events and a table of items.

    Columns are recognised by their names (`user_id`, `uid`, `customer`; `item_id`, `sku`, `asin`; `timestamp`, `ts`,
    `created_at`; `query`, `search_term`; `action`, `event_type`; `session_id`; `title`, `name`; `category` and many
    more, in any case and with anything between their parts) and by what they hold; `recipes/data.md` has the list.
    What has two readings is refused with the way out. Needed are a user (or a session, which then counts as one), an
    item and, unless the log has only an order, a time. Other columns of items are kept, those of events are not read.

    Without a column `behavior` an event with a query is a search and any other a recommendation; without a column
    `action` every event is a click. Words for views, clicks, purchases, carts, impressions and searches become
    "view", "click", "purchase", "cart", "impression" and "search", other actions stay as they are.

    Times are numbers since 1970 in seconds, milliseconds, microseconds or nanoseconds, told apart by magnitude; dates
    and times; or text, as ISO 8601 or in one of the common forms. Dates in digits (20190131), years and numbers of
    days are refused unless `time_unit` says so. Categories are lists of paths, lists of names (one path), either of
    them written as text (`['Toys', 'Cars']`), or text (one path with a separator between the names). Ids may be text
    or whole numbers; floats that cannot tell large ids apart are refused.

    Rows that cannot be used are left out with a warning if they are few. Those are rows without user, item or time,
    with an unknown behavior, a search without query or a query that is too long, an invalid geohash, an item that
    the items table does not hold, a row that repeats an earlier one, and items without id or with the id of an earlier
    one. Items without title are named by their categories and brands; where no item has any text, by their ids.

    Args:
        events (`str`, `Path` or `pyarrow.Table`): `.parquet`, `.csv`, `.tsv`, `.jsonl` (also `.ndjson`, `.json`; one
            object a line, or one list of objects), the text formats also with `.gz`; a folder of Parquet files, also
            in folders `column=value` as Spark writes them; or a table.
        items (`str`, `Path` or `pyarrow.Table`, *optional*): The items, in any of these forms, also another than the
            events. Made from the events if not given.
        column_map (`Mapping[str, str]`, *optional*): From our column name to the one in the file, such as
            `{"user_id": "customer", "item_id": "sku"}`. A name holds for both tables where both have such a column;
            `"events.item_id"` and `"items.item_id"` name one table's.
        name (`str`, *optional*): Name of the data set; that of the events file if not given.
        max_refused (`float`, *optional*): The largest share of rows of a table that may be left out with a warning. If
            not given, 1 % may be damaged, and 10 % what logs of shops hold: items that are gone, repeated rows,
            events without user or item.
        has_time (`bool`, *optional*): Whether the log has times. If not, `timestamp` contains positions, or is
            missing: then the order of the rows counts. If not given, a column that counts the rows, or each user's
            events, is taken for positions.
        time_unit (`str`, *optional*): Unit of times that are numbers; see [`read_times`].
        timezone (`str`, *optional*): Zone of dates with times that name none, such as "Europe/Berlin"; UTC if not
            given.
        category_separator (`str`, *optional*): Separator of the names of a path in text; `>`, `|`, ` / `, `::` or `»`,
            whichever most texts have, if not given.
        delimiter (`str`, *optional*): Character between fields of `.csv` and `.tsv`; a comma or a tab, or another
            character that cuts more known names out of the header, if not given.
        quoting (`str`, *optional*): What `"` means in them: `"doubled"` (encloses fields and stands twice inside),
            `"escaped"` (encloses fields, `\"` inside) or `"none"` (a letter); found from the file if not given.
        encoding (`str`, *optional*): Encoding of text files, such as `"cp1252"`; that of the byte order mark or the
            zeros of UTF-16, else UTF-8, if not given.

    Returns:
        `EventLog`: `query_source` is `"logged"` if there is any search; `notes` say what was taken for what, and how
        many rows were left out and why.

    Raises:
        DataError: If a file or column is missing, has two readings, is of the wrong type or empty, or too many rows
            cannot be used. The message names file, row and value.
        ConfigurationError: If an argument is wrong.
    """
    limits = Limits() if max_refused is None else check_max_refused(max_refused)
    form = FileFormat(delimiter, quoting, encoding)
    reading = start_reading(
        events, items, form, column_map=column_map, time_unit=time_unit, timezone=timezone, has_time=has_time
    )
    raw_events, raw_items = reading.raw_events, reading.raw_items
    raw, source = raw_events.read(reading.kinds_of_events())
    time = reading.events.taken.get("timestamp")
    raw, nothing = drop_nothing(raw, [name for name in raw.column_names if name != time], source)
    kept_items, item_notes = read_items(reading, limits, category_separator, timezone, of_events=(raw, source))
    clock = _read_clock(raw, source, reading, has_time, time_unit, timezone)
    kept_events, event_notes = _keep_events(raw, source, reading.events, clock, kept_items, limits)
    has_searches = pc.any(pc.is_valid(kept_events["query"])).as_py()
    both = raw_events.name if raw_items is None else f"{raw_events.name}, items from {raw_items.name}"
    log = EventLog(
        name=name if name is not None else raw_events.name.strip("`").split(".")[0],
        events=kept_events,
        items=kept_items,
        has_time=clock.has_time,
        query_source="logged" if has_searches else "none",
        notes=(f"Events from {both}.", *reading.notes(clock.times.form), *item_notes, *nothing, *event_notes),
        is_checked=True,
    )
    logger.info("%s %d events of %d users, %d items.", log.notes[0], log.num_events, log.num_users, log.num_items)
    return log


def read_items(
    reading: Reading,
    limits: Limits | float,
    category_separator: str | None,
    timezone: str | None,
    *,
    of_events: tuple[pa.Table, Source] | None = None,
) -> tuple[pa.Table, list[str]]:
    """Read the table of items, or make it from the table of events where there is none.

    Args:
        reading ([`Reading`]): What was recognised.
        limits ([`Limits`] or `float`): The largest share of rows that may be left out.
        category_separator (`str`, *optional*): See [`read_tables`].
        timezone (`str`, *optional*): See [`read_tables`].
        of_events (`tuple`, *optional*): The table of events and its source, to make items from.

    Returns:
        `tuple`: Rows of `ITEM_FEATURES`; notes for the log.
    """
    findings: list[Finding] = []
    if reading.raw_items is None and of_events is not None:
        raw, source = of_events
        ids = to_ids(raw[reading.events.taken["item_id"]], "item_id", source)
        columns, notes = build_items(raw, reading.items, source, category_separator, ids=ids)
        item_source = Source(f"the items of {source.name}")
    elif reading.raw_items is not None:
        raw, item_source = reading.raw_items.read(reading.kinds_of_items())
        raw, nothing = drop_nothing(raw, raw.column_names, item_source, least=2)
        columns, notes = build_items(raw, reading.items, item_source, category_separator)
        notes += nothing
        for role in ("available_from", "available_until"):
            if role in reading.items.taken:
                times = read_times(raw[reading.items.taken[role]], role, item_source, timezone=timezone)
                columns[role] = times.seconds
                findings += times.findings
    else:
        raise ConfigurationError("`items` is None; pass the table of items.")
    kept, left_out = keep_items(pa.table(columns), item_source, max_refused=limits, findings=findings)
    return kept, [*item_source.remarks, *notes, *([left_out] if left_out else [])]


@dataclass(frozen=True)
class _Clock:
    """The times of the events: seconds, or positions where the log has none."""

    times: Times
    has_time: bool
    notes: tuple[str, ...] = ()


def _read_clock(
    raw: pa.Table,
    source: Source,
    reading: Reading,
    has_time: bool | None,
    unit: TimeUnit | None,
    timezone: str | None,
) -> _Clock:
    taken = reading.events.taken
    if "timestamp" not in taken:
        seconds = pa.array(np.arange(raw.num_rows))
        note = f"{source.name} has no timestamps: the number of the row counts as the time."
        return _Clock(Times(seconds, form="positions"), False, (note,))
    column = raw[taken["timestamp"]]
    if has_time is None and unit is None and are_positions(raw[taken["user_id"]], column):
        note = (
            f"{taken['timestamp']!r} of {source.name} counts the rows, or the events of each user: it was taken for "
            "positions in an order. Pass has_time=True if the numbers are times."
        )
        return _Clock(read_times(column, "timestamp", source, has_time=False), False, (note,))
    times = read_times(column, "timestamp", source, unit=unit, timezone=timezone, has_time=has_time is not False)
    if has_time is False:
        return _Clock(times, False, ("The log has order but no time: timestamps are positions.",))
    notes = []
    if times.are_days:
        notes.append(f"Times of {source.name} are days: events of one day have no order inside it.")
    latest = pc.max(times.seconds).as_py()
    if has_time is None and unit is None and latest is not None and latest < _EARLY:
        notes.append(
            f"Times of {source.name} are all before 1973. If the numbers are positions in an order, pass "
            "has_time=False; if they are no seconds, pass time_unit."
        )
    return _Clock(times, True, tuple(notes))


def build_events(
    raw: pa.Table, source: Source, taken: Mapping[str, str], seconds: pa.Array
) -> tuple[pa.Table, list[str], Counted]:
    """Turn a table of events, or a part of one, into our columns; nothing is left out.

    Args:
        raw (`pyarrow.Table`): The columns that were taken.
        source ([`Source`]): Their source.
        taken (`Mapping[str, str]`): From our names to those in the table.
        seconds (`pyarrow.Array`): The times.

    Returns:
        `tuple`: Our columns; notes for the log; what was counted for more.
    """
    columns: dict[str, pa.Array] = {"timestamp": seconds}
    notes, counted = [], Counted()
    for role, name in taken.items():
        column = raw[name]
        if role in ("user_id", "item_id", "session_id"):
            columns[role] = to_ids(column, role, source)
        elif role == "action":
            columns[role], of_actions = to_actions(column, role, source, is_flag=is_flag_name(name))
            notes += of_actions
            if _views_may_be_impressions(columns[role]):
                notes.append(
                    f"Most actions of {source.name} are views, some are clicks and none is an impression: a view "
                    "counts as an act. If it means that an item was only shown, write 'impression' for it."
                )
        elif role == "behavior":
            columns[role] = to_behaviors(column, role, source)
        elif role in ("query", "geohash"):
            columns[role], had_html = strip_column(to_text(column, role, source))
            counted.add("queries held HTML, which was read as the text it shows", had_html, source)
    if "behavior" not in columns and "query" in columns:
        is_search = pc.is_valid(columns["query"])
        if "action" in columns:
            # A search without text is no recommendation; it is refused for what it is.
            is_search = pc.or_(
                is_search, pc.and_(pc.equal(columns["action"], "search"), pc.is_null(columns["item_id"]))
            )
        columns["behavior"] = pc.if_else(pc.fill_null(is_search, False), SEARCH, RECOMMENDATION)
        notes.append(f"{source.name} has no column behavior: an event with a query is a search.")
    return pa.table(columns), notes, counted


def _keep_events(
    raw: pa.Table, source: Source, found: Recognition, clock: _Clock, items: pa.Table, limits: Limits | float
) -> tuple[pa.Table, list[str]]:
    times = clock.times
    columns, notes, counted = build_events(raw, source, found.taken, times.seconds)
    if clock.has_time:
        count_odd_times(times.seconds, source, counted)
    notes = [*source.remarks, *clock.notes, *notes, *counted.notes(source.name)]
    events, left_out = keep_events(
        columns,
        items,
        source,
        max_refused=limits,
        findings=times.findings,
        # Two acts of one day look like one that is written twice.
        may_repeat=times.are_days and clock.has_time,
    )
    events, num_late, is_turned = oldest_first(events)
    notes += notes_of_order(source.name, num_late, is_turned)
    return events, notes + ([left_out] if left_out else [])


def _views_may_be_impressions(actions: pa.Array) -> bool:
    counts = {str(one["values"]): int(one["counts"]) for one in pc.value_counts(actions).to_pylist()}
    views, clicks = counts.get("view", 0), counts.get("click", 0)
    return 0 < clicks < views and 2 * views > len(actions) and IMPRESSION not in counts


__all__ = ["build_events", "read_items", "read_tables"]
