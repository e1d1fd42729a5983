# SPDX-License-Identifier: Apache-2.0
"""Map the columns of your own tables to ours: recognised once, before rows are read at once or in parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import Source, check_names
from seekrec.events.readers.column_names import ITEM_NAMES, count_known, find_named, is_flag_name
from seekrec.events.readers.columns import drop_nothing
from seekrec.events.readers.json_lines import Kind
from seekrec.events.readers.raw_tables import FileFormat, RawTable, open_table
from seekrec.events.readers.recognition import (
    Recognition,
    recognize_events,
    recognize_item_ids,
    recognize_items,
    require,
    start_recognition,
)
from seekrec.events.readers.times import TimeUnit
from seekrec.schema import EVENT_FEATURES, ITEM_FEATURES, OPTIONAL_EVENT_FEATURES

logger = logging.getLogger(__name__)

_EVENT_ROLES = (*EVENT_FEATURES, *OPTIONAL_EVENT_FEATURES)
_ITEM_ROLES = (*ITEM_FEATURES, "queries")
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("user_id", "item_id", "session_id"), "id"),
    **dict.fromkeys(("behavior", "query", "action", "geohash", "title", "description"), "text"),
    **dict.fromkeys(("timestamp", "categories", "available_from", "available_until"), "value"),
}

# Columns of items that stand in the table of events where there is no other.
_ITEMS_OF_EVENTS = ("title", "description", "categories")


@dataclass(frozen=True)
class Reading:
    """What was recognised in both tables; `raw_items` is `None` where items are made from events."""

    events: Recognition
    items: Recognition
    raw_events: RawTable
    raw_items: RawTable | None

    def kinds_of_events(self) -> dict[str, Kind]:
        """Return what the columns to read are to us: only those that are used."""
        used = {column: role for role, column in self.events.taken.items()}
        if self.raw_items is None:
            used |= {column: role for role, column in self.items.taken.items() if column not in used}
            used |= dict.fromkeys(self.items.texts(), "title")
        return {name: _kind(role, name) for name, role in used.items()}

    def kinds_of_items(self) -> dict[str, Kind]:
        """Return what the columns to read are to us: all of them."""
        of_role = {column: role for role, column in self.items.taken.items()}
        return {name: _kind(of_role.get(name), name) for name in self.items.columns} | dict.fromkeys(
            self.items.levels, "text"
        )

    def _unread(self, found: Recognition) -> list[str]:
        """Return the columns of a table that are not read: none of those of items."""
        return [] if found is self.items else [one for one in found.columns if one not in self.kinds_of_events()]

    def report(self) -> list[str]:
        """Return what was taken for what, to print."""
        lines = []
        for found, raw in ((self.events, self.raw_events), (self.items, self.raw_items)):
            if raw is None and not found.taken:
                continue
            dialect = f" ({raw.dialect})" if raw is not None and raw.dialect else ""
            lines.append(f"{found.name}{dialect} is read as{'' if raw is not None else ' items'}")
            lines += [*found.lines(self._unread(found)), *found.remarks]
        return lines

    def notes(self, form_of_times: str) -> list[str]:
        """Return the same as sentences, without anything of the rows."""
        notes = []
        for found, raw in ((self.events, self.raw_events), (self.items, self.raw_items)):
            form = form_of_times if found is self.events else None
            if note := found.note(form, self._unread(found)):
                notes.append(note)
            if raw is not None and raw.dialect:
                notes.append(f"{found.name} has {raw.dialect}.")
            notes += [*found.remarks, *found.hints]
        return notes


def start_reading(
    events: str | Path | pa.Table,
    items: str | Path | pa.Table | None,
    form: FileFormat,
    *,
    column_map: Mapping[str, str] | None,
    time_unit: TimeUnit | None,
    timezone: str | None,
    has_time: bool | None,
) -> Reading:
    """Recognise the columns of both tables, and log what was taken for what; see [`read_tables`]."""
    mapping = _split_map(column_map or {})
    raw_events = _open(events, "events", form, mapping)
    raw_items = None if items is None else _open(items, "items", form, mapping)
    if raw_items is not None:
        _leave_to_the_other(mapping, column_map or {}, {"events": raw_events, "items": raw_items})
    reading = _recognize(raw_events, raw_items, mapping, time_unit, timezone, has_time)
    reading.events.sort(_EVENT_ROLES)
    reading.items.sort(_ITEM_ROLES)
    for line in reading.report():
        logger.info(line)
    for hint in (*reading.events.hints, *reading.items.hints):
        logger.warning(hint)
    return reading


def _open(
    table: str | Path | pa.Table, argument: str, form: FileFormat, mapping: Mapping[str, Mapping[str, str]]
) -> RawTable:
    mapped = set(mapping[argument].values())
    return open_table(
        table, argument, form, count_known=lambda names: count_known(names) + len(mapped.intersection(names))
    )


def _kind(role: str | None, column: str) -> Kind:
    if role == "action" and is_flag_name(column):
        return "value"
    return "other" if role is None else _KINDS.get(role, "other")


def _split_map(column_map: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Map our names of columns to those in the file, for each table."""
    ours = {"events": _EVENT_ROLES, "items": _ITEM_ROLES}
    mapping: dict[str, dict[str, str]] = {"events": {}, "items": {}}
    # Names for one table come last: they win over the name for both.
    for name in sorted(column_map, key=lambda name: "." in name):
        table, _, column = name.rpartition(".")
        tables = [table] if table else [table for table, columns in ours.items() if column in columns]
        if not tables or tables[0] not in ours or column not in ours[tables[0]]:
            known = ", ".join(dict.fromkeys([*ours["events"], *ours["items"]]))
            raise ConfigurationError(
                f"`column_map` has the key {name!r}, which is not one of our columns; keys are {known}, optionally "
                "prefixed with 'events.' or 'items.'; values are column names in the file."
            )
        for table in tables:
            mapping[table][column] = column_map[name]
    for table, columns in mapping.items():
        check_names(list(columns.values()), f"`column_map` for {table}")
    return mapping


def _leave_to_the_other(
    mapping: Mapping[str, dict[str, str]], column_map: Mapping[str, str], tables: Mapping[str, RawTable]
) -> None:
    """Drop from a map what was named for both tables and is a column of the other one alone."""
    for table, other in (("events", "items"), ("items", "events")):
        for role in mapping[table].keys() & mapping[other].keys():
            column, is_for_both = mapping[table][role], f"{table}.{role}" not in column_map
            if is_for_both and column not in tables[table].columns and column in tables[other].columns:
                del mapping[table][role]


def _recognize(
    raw_events: RawTable,
    raw_items: RawTable | None,
    mapping: Mapping[str, Mapping[str, str]],
    unit: TimeUnit | None,
    timezone: str | None,
    has_time: bool | None,
) -> Reading:
    """Find out which column is what.

    Raises:
        DataError: If a column is missing or has two readings; the message names all of them.
    """
    events = start_recognition(raw_events.name, raw_events.columns, mapping["events"], _EVENT_ROLES)
    sample = _peek(raw_events)
    if raw_items is None:
        recognize_item_ids(events, sample, None, None)
        recognize_events(events, sample, unit=unit, timezone=timezone)
        named = {role: column for role, column in mapping["items"].items() if role in _ITEMS_OF_EVENTS}
        for role, column in mapping["items"].items():
            if role not in named and mapping["events"].get(role) != column:
                raise DataError(
                    f"`column_map` names {column!r} for {role!r} of the items, and there is no table of items; pass "
                    "`items`, or leave the name out."
                )
        free = [name for name in raw_events.columns if name in events.free() or name in named.values()]
        items = start_recognition(raw_events.name, free, named, _ITEMS_OF_EVENTS)
        recognize_items(items, sample)
        require((events, ("user_id", "item_id", *(("timestamp",) if has_time is not False else ()))), (items, ()))
        return Reading(events, items, raw_events, None)
    items = start_recognition(raw_items.name, raw_items.columns, mapping["items"], _ITEM_ROLES)
    # Whole columns of ids: those of some of the items would say little.
    named_ids = [name for group in find_named(items.columns, ITEM_NAMES["item_id"]) for name in group]
    ids = [items.taken["item_id"]] if "item_id" in items.taken else named_ids or [*items.columns]
    recognize_item_ids(events, sample, items, raw_items.read(dict.fromkeys(ids, "id" if named_ids else "value"))[0])
    recognize_items(items, _peek(raw_items))
    recognize_events(events, sample, unit=unit, timezone=timezone)
    needed = ("user_id", "item_id", *(("timestamp",) if has_time is not False else ()))
    require((events, needed), (items, ("item_id",)))
    return Reading(events, items, raw_events, raw_items)


def _peek(raw: RawTable) -> pa.Table:
    table = raw.peek()
    return drop_nothing(table, table.column_names, Source(raw.name))[0]


__all__ = ["Reading", "start_reading"]
