# SPDX-License-Identifier: Apache-2.0
"""Recognise the columns of outside tables, by their names and by the content of some rows.

A column is assigned if only one reading is left; an ambiguity raises an error with both names. Names alone are not
trusted where a wrong guess would silently spoil a log: a column of queries must contain words, a column of times must
contain times, and item ids must occur in the items table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from seekrec.errors import DataError
from seekrec.events.readers.column_content import (
    all_equal,
    anything,
    could_be_times,
    holds_actions,
    holds_behaviors,
    holds_flags,
    holds_names,
    holds_only_actions,
    holds_plausible_times,
    holds_words,
    is_id_column,
    is_text_column,
    looks_typed,
    read_sample,
    same_times,
    says_day_of,
    share_known,
    shown,
)
from seekrec.events.readers.column_names import (
    EVENT_NAMES,
    ITEM_NAMES,
    SUBCATEGORY_NAMES,
    TEXT_NAMES,
    Groups,
    find_named,
)
from seekrec.events.readers.hints import hints_of_ids, hints_of_queries
from seekrec.events.readers.times import TimeUnit, decoded
from seekrec.util.actions import plain_name
from seekrec.util.arrow import is_text

# Least share of ids of a column that the other table must hold for the column to be recognised by them, and the
# difference of two shares that says which of two columns is meant.
_SHARE_KNOWN, _CLEAR = 0.5, 0.1
# The same for a column whose name says nothing.
_SHARE_UNNAMED = 0.9

_LEVEL = re.compile(r"^(?:cat|category|categoryname)(?:l|lvl|level)?([0-9])$")


@dataclass
class Recognition:
    """Which columns of a table were taken for what.

    Args:
        name (`str`): Name of the table, for messages.
        columns (`tuple[str, ...]`): Names of its columns.
        taken (`dict[str, str]`): From our name of a column to the one in the table.
        reasons (`dict[str, str]`): Why, by our name.
        problems (`list[str]`): What has two readings, with the way out.
        remarks (`list[str]`): What was not taken although its name suggests it.
        hints (`list[str]`): What to look at: columns that may be meant, ids that nearly agree.
        levels (`list[str]`): Columns that hold a step of the category path each, where several do.
    """

    name: str
    columns: tuple[str, ...]
    taken: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)

    def free(self) -> list[str]:
        """Return the columns that are not taken."""
        used = set(self.taken.values())
        return [name for name in self.columns if name not in used]

    def take(self, role: str, column: str, reason: str) -> None:
        """Take a column."""
        self.taken[role], self.reasons[role] = column, reason

    def is_refused(self, role: str) -> bool:
        """Return whether several columns could be the one."""
        return any(f"the {role};" in problem for problem in self.problems)

    def refuse(self, role: str, columns: Sequence[str]) -> None:
        """Refuse to choose one of several columns."""
        named = " and ".join(map(repr, columns))
        self.problems.append(
            f"{self.name}: {named} could each be the {role}; say which, such as --column_map {role}={columns[0]} "
            f"(column_map={{{role!r}: {columns[0]!r}}})."
        )

    def texts(self) -> list[str]:
        """Return the columns that are no titles but say what an item is: levels of categories, brands, artists."""
        named = [name for name in self.free() if plain_name(name) in TEXT_NAMES]
        return [*self.levels, *sorted(named, key=lambda name: TEXT_NAMES.index(plain_name(name)))]

    def sort(self, roles: Sequence[str]) -> None:
        """Bring what was taken into the order of our names."""
        self.taken = {role: self.taken[role] for role in sorted(self.taken, key=list(roles).index)}

    def lines(self, unread: Sequence[str]) -> list[str]:
        """Return what was taken for what, a line each, and which columns are not read."""
        taken = [
            f"  {role:<16} {column}{f'  ({self.reasons[role]})' if self.reasons[role] else ''}"
            for role, column in self.taken.items()
        ]
        return [*taken, f"  {'not read':<16} {', '.join(unread)}"] if unread else taken

    def note(self, form: str | None, unread: Sequence[str]) -> str | None:
        """Return the same as a sentence; `None` where every column was taken by our own name and nothing else is said.

        Args:
            form (`str`, *optional*): What times look like.
            unread (`Sequence[str]`): Columns that are not read.
        """
        reasons = dict(self.reasons)
        if form is not None and "timestamp" in reasons:
            reasons["timestamp"] = form
        if not any(reasons.values()) and all(role == column for role, column in self.taken.items()):
            return None
        taken = "; ".join(
            f"{role} is {column!r}{f' ({reasons[role]})' if reasons[role] else ''}"
            for role, column in self.taken.items()
        )
        return f"{self.name}: {taken}." + (f" Not read: {', '.join(unread)}." if unread else "")


def require(*tables: tuple[Recognition, Sequence[str]]) -> None:
    """Raise about what has two readings, and about columns that are needed and missing.

    Args:
        *tables (`tuple`): What was recognised in a table, and the columns that it needs.

    Raises:
        DataError: Naming all of them and the way out.
    """
    problems = []
    for found, roles in tables:
        problems += found.problems
        missing = [role for role in roles if role not in found.taken and not found.is_refused(role)]
        if not missing:
            continue
        named = " and no ".join(map(repr, missing))
        given = " ".join(f"{role}=its_name" for role in missing)
        in_python = ", ".join(f"{role!r}: 'its name'" for role in missing)
        also = "".join(
            f" {remark}" for remark in found.remarks if any(f"taken for {role}:" in remark for role in missing)
        )
        if 2 * sum(name.replace(".", "").isdigit() for name in found.columns) >= len(found.columns):
            also += " If the first line is data, write a line of names above it."
        if "timestamp" in missing:
            also += " If the log has an order and no times, pass has_time=False."
        problems.append(
            f"{found.name} has no column {named}, only {', '.join(found.columns)}. Say which one holds it: "
            f"--column_map {given} (column_map={{{in_python}}}). If names run together, pass the `delimiter` between "
            f"them.{also}"
        )
    if problems:
        raise DataError(" ".join(problems))


def start_recognition(
    name: str, columns: Sequence[str], mapping: Mapping[str, str], roles: Sequence[str]
) -> Recognition:
    """Take the columns that a map names, and those that have our own names.

    Args:
        name (`str`): Name of the table.
        columns (`Sequence[str]`): Names of its columns.
        mapping (`Mapping[str, str]`): From our names to those in the table.
        roles (`Sequence[str]`): Our names.

    Raises:
        DataError: If the map names a column that is not there.
    """
    found = Recognition(name, tuple(columns))
    for role, column in mapping.items():
        if column not in columns:
            raise DataError(
                f"{name} has no column {column!r}, which `column_map` names for {role!r}; it has {', '.join(columns)}"
                ". Name one of these, or leave the name out."
            )
        found.take(role, column, "column_map")
    for role in roles:
        # Of times even our own name is one among several; `behavior` is often a name for actions.
        if role in columns and role not in (*found.taken, *found.taken.values(), "timestamp", "behavior", "action"):
            found.take(role, role, "")
    return found


def recognize_items(found: Recognition, sample: pa.Table) -> None:
    """Recognise the columns of a table of items, other than the ids; see [`recognize_item_ids`]."""
    for role in ("title", "description", "available_from", "available_until"):
        _take_named(found, role, ITEM_NAMES[role], sample, is_text_column if "available" not in role else anything)
    _take_named(found, "categories", ITEM_NAMES["categories"], sample, holds_names)
    if "categories" in found.taken:
        first = found.taken["categories"]
        second = [name for name in found.free() if plain_name(name) in SUBCATEGORY_NAMES and holds_words(sample[name])]
        if len(second) == 1 and is_text(decoded(sample[first]).type):
            found.levels = [first, *second]
        return
    levels = sorted(
        (int(match.group(1)), name)
        for name in found.free()
        if (match := _LEVEL.match(plain_name(name))) and holds_words(sample[name])
    )
    if len(levels) > 1:
        found.levels = [name for _, name in levels]
        found.take("categories", found.levels[0], f"with {', '.join(found.levels[1:])} as further steps of the path")


def recognize_events(found: Recognition, sample: pa.Table, *, unit: TimeUnit | None, timezone: str | None) -> None:
    """Recognise the columns of a table of events, other than the ids of items; see [`recognize_item_ids`]."""
    _take_times(found, sample, unit, timezone)
    _take_named(found, "user_id", EVENT_NAMES["user_id"], sample, is_id_column)
    _take_named(found, "behavior", EVENT_NAMES["behavior"], sample, holds_behaviors)
    _take_named(found, "action", EVENT_NAMES["action"][:1], sample, anything)
    _take_named(found, "action", EVENT_NAMES["action"][1:2], sample, holds_actions)
    _take_named(found, "action", EVENT_NAMES["action"][2:], sample, holds_flags)
    _take_named(found, "query", EVENT_NAMES["query"], sample, holds_words)
    _take_named(found, "session_id", EVENT_NAMES["session_id"], sample, is_id_column)
    _take_unnamed(found, "action", sample, holds_only_actions, "all its words are actions")
    _take_unnamed(found, "timestamp", sample, holds_plausible_times, "it contains times")
    _take_unnamed(found, "query", sample, looks_typed, "it contains text as people type it")
    if "query" not in found.taken and not found.is_refused("query"):
        found.hints += hints_of_queries(found.name, sample, found.free())
    if "user_id" not in found.taken and not found.is_refused("user_id"):
        session = found.taken.pop("session_id", None)
        if session is not None:
            found.take("user_id", session, "there are no users: each session counts as one")


def recognize_item_ids(
    events: Recognition, event_sample: pa.Table, items: Recognition | None, item_table: pa.Table | None
) -> None:
    """Recognise the ids of items in both tables, by names and by how many of the ids they share.

    Args:
        events ([`Recognition`]): The table of events.
        event_sample (`pyarrow.Table`): Some of its rows.
        items ([`Recognition`], *optional*): The table of items, if there is one.
        item_table (`pyarrow.Table`, *optional*): The whole of it.
    """
    in_events = _candidates(events, EVENT_NAMES["item_id"])
    if items is None or item_table is None:
        _take_named(events, "item_id", EVENT_NAMES["item_id"], event_sample, is_id_column)
        return
    in_items = _candidates(items, ITEM_NAMES["item_id"])
    if len(in_events) == len(in_items) == 1:
        _take_pair(events, items, in_events[0], in_items[0], event_sample, item_table)
        return
    # A name that says nothing counts only if nearly all of its ids are known.
    least = _SHARE_KNOWN if in_events and in_items else _SHARE_UNNAMED
    ours = in_events or events.free()
    theirs = in_items or items.free()
    shares = {
        (one, other): share
        for one in ours
        for other in theirs
        if (share := share_known(event_sample[one], item_table[other])) is not None and share >= least
    }
    best = max(shares.values(), default=0.0)
    pairs = [pair for pair, share in shares.items() if share >= best - _CLEAR]
    if len(pairs) > 1:
        # Of the columns that know as many, one name in both tables is meant.
        pairs = [pair for pair in pairs if plain_name(pair[0]) == plain_name(pair[1])] or pairs
    if len(pairs) > 1:
        for side, found, sample in ((0, events, event_sample), (1, items, item_table)):
            columns = list(dict.fromkeys(pair[side] for pair in pairs))
            if len(columns) > 1 and not all_equal(sample, columns):
                found.refuse("item_id", columns)
                return
    if not pairs:
        # No ids in common; that is said where rows are refused, of the columns that have one name.
        named = [(one, other) for one in in_events for other in in_items if plain_name(one) == plain_name(other)]
        pairs = named if len(named) == 1 else []
    if pairs:
        _take_pair(events, items, *pairs[0], event_sample, item_table)
        return
    for found, sample, groups in (
        (events, event_sample, EVENT_NAMES["item_id"]),
        (items, item_table, ITEM_NAMES["item_id"]),
    ):
        _take_named(found, "item_id", groups, sample, is_id_column)


def _candidates(found: Recognition, groups: Groups) -> list[str]:
    if "item_id" in found.taken:
        return [found.taken["item_id"]]
    return [name for group in find_named(found.free(), groups) for name in group]


def _take_pair(
    events: Recognition, items: Recognition, one: str, other: str, event_sample: pa.Table, item_table: pa.Table
) -> None:
    share = share_known(event_sample[one], item_table[other])
    known = "" if share is None else f"{share:.1%} of its ids are in {items.name}"
    events.take("item_id", one, known)
    items.take("item_id", other, "")
    which = f"{one!r} of {events.name} and {other!r} of {items.name}"
    events.hints += hints_of_ids(event_sample[one], item_table[other], which)


def _take_named(
    found: Recognition,
    role: str,
    groups: Groups,
    sample: pa.Table,
    fits: Callable[[pa.ChunkedArray], bool],
) -> None:
    """Take the column with the strongest name whose content fits; refuse to choose between equally strong ones."""
    if role in found.taken:
        return
    for group in find_named(found.free(), groups):
        fitting = [name for name in group if fits(sample[name])]
        found.remarks += [
            f"{found.name}: column {name!r} was not taken for {role}: it holds {shown(sample[name])}."
            for name in group
            if name not in fitting and name not in (role, "type", "text", "name")
        ]
        if len(fitting) > 1 and not all_equal(sample, fitting):
            found.refuse(role, fitting)
            return
        if fitting:
            found.take(role, fitting[0], "" if fitting[0] == role else "its name")
            return


def _take_unnamed(
    found: Recognition, role: str, sample: pa.Table, fits: Callable[[pa.ChunkedArray], bool], reason: str
) -> None:
    """Take the column whose content says what it is, if there is just one."""
    if role in found.taken or found.is_refused(role):
        return
    spoken_for = {
        name for groups in EVENT_NAMES.values() for group in find_named(found.free(), groups) for name in group
    }
    fitting = [name for name in found.free() if name not in spoken_for and fits(sample[name])]
    if len(fitting) == 1:
        found.take(role, fitting[0], reason)
    elif fitting and role == "timestamp":
        found.refuse(role, fitting)


def _take_times(found: Recognition, sample: pa.Table, unit: TimeUnit | None, timezone: str | None) -> None:
    if "timestamp" in found.taken:
        return
    for group in find_named(found.free(), EVENT_NAMES["timestamp"]):
        times = {name: read_sample(sample[name], unit, timezone) for name in group if could_be_times(sample[name])}
        found.remarks += [
            f"{found.name}: column {name!r} was not taken for timestamp: it holds {shown(sample[name])}."
            for name in group
            if name not in times and name != "timestamp"
        ]
        # A column of our own name is meant, whatever it holds: what is wrong with it is said when it is read.
        chosen = list(times) or [name for name in group if name == "timestamp"]
        # What says the day is left to what says the hour of it.
        for name in list(times):
            if any(says_day_of(times[name], times[other]) for other in times if other != name):
                chosen.remove(name)
        if len(chosen) > 1 and not all_equal(sample, chosen) and not same_times([times[name] for name in chosen]):
            found.refuse("timestamp", chosen)
            return
        if chosen:
            read = times.get(chosen[0])
            found.take("timestamp", chosen[0], read.form if read is not None else "")
            return


__all__ = [
    "Recognition",
    "recognize_events",
    "recognize_item_ids",
    "recognize_items",
    "require",
    "start_recognition",
]
