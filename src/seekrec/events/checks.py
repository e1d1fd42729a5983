# SPDX-License-Identifier: Apache-2.0
"""Checks shared by the log and the readers: find the rows that break a rule, and raise or drop them.

A finding is a rule and the rows that break it. [`EventLog`] allows none; a reader drops the rows it finds, with a
warning, as long as they are at most `max_refused` of the table. Everything works on whole columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.refused import Finding as Finding
from seekrec.events.refused import Limits as Limits
from seekrec.events.refused import Refused
from seekrec.events.refused import Source as Source
from seekrec.schema import BEHAVIORS, GEOHASH_PATTERN, MAX_QUERY_CHARACTERS, MAX_SECONDS, RECOMMENDATION, SEARCH
from seekrec.util.arrow import is_list, is_text, one_array
from seekrec.util.files import as_stored

# What logs of shops often hold.
_NO_USER, _NO_ITEM = "have no user_id", "are recommendations without an item_id"
_NO_QUERY = "are searches without a query"
_UNKNOWN_ITEM, _REPEATED = "name an item that the items table does not hold", "repeat an earlier row"
_REPEATED_ITEM, _NO_TEXT = "repeat the item_id of an earlier row", "have neither a title nor a description"
_COMMON = {_NO_USER, _NO_ITEM, _NO_QUERY, _UNKNOWN_ITEM, _REPEATED, _REPEATED_ITEM, _NO_TEXT}

# So many of the steps back in time say that the rows of a table are newest first.
_NEWEST_FIRST = 0.9

# Columns whose absence has a meaning; every other absent column is filled with nulls.
DEFAULTS = {"behavior": RECOMMENDATION, "action": "click"}


def conform(
    table: pa.Table, features: Features, what: str, *, required: Sequence[str], optional: Features | None = None
) -> pa.Table:
    """Bring a table to a schema: its columns in its order, then the others; text and numbers of any width are cast.

    The others get the types that they have when they are read again: what is saved is the same when it is loaded.

    Args:
        table (`pyarrow.Table`): The table.
        features (`datasets.Features`): The schema.
        what (`str`): Name of the table for messages.
        required (`Sequence[str]`): Columns that must be there; the others are filled in.
        optional (`datasets.Features`, *optional*): Columns that are cast where they are there, and not filled in.

    Raises:
        DataError: If it is not a table, has no rows, names a column twice, lacks a required column or a type is wrong,
            or one of the others cannot be saved.
    """
    if not isinstance(table, pa.Table):
        raise DataError(
            f"`{what}` is a {type(table).__name__}; pass a pyarrow.Table (pyarrow.Table.from_pandas makes one)."
        )
    names = table.column_names
    check_names(names, f"`{what}`")
    missing = [name for name in required if name not in names]
    if missing:
        raise DataError(
            f"`{what}` has no column {missing[0]!r}, only {', '.join(names) or 'none'}. Rename the column that "
            "contains it."
        )
    if table.num_rows == 0:
        raise DataError(f"`{what}` is empty; a log needs at least one row of it.")
    columns = {}
    for field in features.arrow_schema:
        if field.name in names:
            columns[field.name] = _cast(table.column(field.name), field, what)
        elif field.name in DEFAULTS:
            columns[field.name] = pa.chunked_array([pa.repeat(DEFAULTS[field.name], table.num_rows)])
        else:
            columns[field.name] = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
    for field in optional.arrow_schema if optional else ():
        if field.name in names:
            columns[field.name] = _cast(table.column(field.name), field, what)
    for name in names:
        if name not in columns:
            try:
                columns[name] = as_stored(table.select([name])).column(0)
            except pa.ArrowException as error:
                raise DataError(
                    f"`{what}` has a column {name!r} of type {table.schema.field(name).type}, which a Parquet file "
                    f"cannot hold; convert it, or leave it out: {error}"
                ) from error
    return pa.table(columns)


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse a table that has two columns of one name.

    Raises:
        DataError: Naming the column.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{where} has more than one column {twice[0]!r}; drop or rename one.")


def _cast(column: pa.ChunkedArray, field: pa.Field, what: str) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    # Only lossless and meant: a number is never turned into an id here, nor text into a number.
    families: tuple[Callable[[pa.DataType], bool], ...] = (is_text, pa.types.is_integer, _is_list_of_lists)
    same_family = any(belongs(kind) and belongs(field.type) for belongs in families)
    if same_family or pa.types.is_null(kind):
        try:
            return column.cast(field.type)
        except pa.ArrowInvalid as error:
            raise DataError(f"Column {field.name!r} of `{what}` does not fit {field.type}: {error}") from error
    raise DataError(
        f"Column {field.name!r} of `{what}` has type {column.type}, not {field.type}; convert it, or read the file "
        "with seekrec.events.read_tables, which does."
    )


def _is_list_of_lists(kind: pa.DataType) -> bool:
    return is_list(kind) and (is_list(kind.value_type) or pa.types.is_null(kind.value_type))


def find_event_problems(events: pa.Table, item_ids: pa.Array | pa.ChunkedArray) -> list[Finding]:
    """Find the events that break the schema.

    Args:
        events (`pyarrow.Table`): Rows of `EVENT_FEATURES`.
        item_ids (`pyarrow.Array`): The known items.

    Returns:
        `list[Finding]`: One for each rule that is broken; a row may be in several.
    """
    is_search = pc.equal(events["behavior"], SEARCH)
    is_recommendation = pc.equal(events["behavior"], RECOMMENDATION)
    no_query = is_blank(events["query"])
    no_item = is_blank(events["item_id"])
    known_item = pc.is_in(events["item_id"], value_set=one_array(item_ids))
    rules: list[tuple[str, pa.ChunkedArray, str]] = [
        (_NO_USER, is_blank(events["user_id"]), "user_id"),
        ("have no timestamp", pc.is_null(events["timestamp"]), "timestamp"),
        ("have a negative timestamp", pc.less(events["timestamp"], 0), "timestamp"),
        ("have a timestamp too large for seconds", pc.greater(events["timestamp"], MAX_SECONDS), "timestamp"),
        (
            f"have a behavior other than {', '.join(BEHAVIORS)}",
            pc.invert(pc.is_in(events["behavior"], value_set=pa.array(BEHAVIORS))),
            "behavior",
        ),
        (_NO_QUERY, pc.and_(is_search, no_query), "query"),
        ("are recommendations with a query", pc.and_(is_recommendation, pc.is_valid(events["query"])), "query"),
        (
            f"have a query of more than {MAX_QUERY_CHARACTERS} characters",
            pc.greater(pc.utf8_length(events["query"]), MAX_QUERY_CHARACTERS),
            "query",
        ),
        (_NO_ITEM, pc.and_(is_recommendation, no_item), "item_id"),
        (
            _UNKNOWN_ITEM,
            pc.and_(pc.invert(pc.is_null(events["item_id"])), pc.invert(known_item)),
            "item_id",
        ),
        ("have no action", is_blank(events["action"]), "action"),
        (
            "have a session_id without a visible character (null says that it is unknown)",
            pc.and_(pc.is_valid(events["session_id"]), is_blank(events["session_id"])),
            "session_id",
        ),
    ]
    if "geohash" in events.column_names:
        is_geohash = pc.match_substring_regex(events["geohash"], GEOHASH_PATTERN)
        rules.append(("have an invalid geohash", pc.invert(is_geohash), "geohash"))
    return _findings(rules)


def find_item_problems(items: pa.Table) -> list[Finding]:
    """Find the items that break the schema: no id, an id used before, an availability that ends before it starts.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.

    Returns:
        `list[Finding]`: One for each rule that is broken; a row may be in several.
    """
    ends_early = pc.less_equal(items["available_until"], items["available_from"])
    return _findings(
        [
            ("have no item_id", is_blank(items["item_id"]), "item_id"),
            (_REPEATED_ITEM, pa.array(repeats(items.select(["item_id"]))), "item_id"),
            ("have an available_until that is not after available_from", ends_early, "available_until"),
        ]
    )


def find_items_without_text(items: pa.Table) -> list[Finding]:
    """Find the items that have neither a title nor a description: nothing can be embedded or shown of them."""
    no_text = pc.and_(is_blank(items["title"]), is_blank(items["description"]))
    return _findings([(_NO_TEXT, no_text, "item_id")])


def find_repeated_events(events: pa.Table) -> list[Finding]:
    """Find the events that repeat an earlier row: same user, item, timestamp, behavior, query and action."""
    columns = events.select(["user_id", "item_id", "timestamp", "behavior", "query", "action"])
    return _findings([(_REPEATED, pa.array(repeats(columns)), "item_id")])


def repeats(table: pa.Table) -> np.ndarray:
    """Mark the rows that equal an earlier row in every column.

    Args:
        table (`pyarrow.Table`): Columns of text or integers.

    Returns:
        `np.ndarray`: bool of shape `(num_rows,)`; False at the first of equal rows. Nulls equal each other.
    """
    group, num_groups = np.zeros(table.num_rows, dtype=np.int64), 1
    for column in table.columns:
        codes = one_array(column).dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False)
        num_codes = int(codes.max(initial=0)) + 1
        if num_groups * num_codes >= 2**62:
            group, distinct = pd.factorize(group)
            num_groups = len(distinct)
        group, num_groups = group * num_codes + codes, num_groups * num_codes
    return pd.Series(group).duplicated().to_numpy()


def oldest_first(events: pa.Table) -> tuple[pa.Table, int, bool]:
    """Turn a table around whose rows are newest first, so that a stable sort by time leaves each second in order.

    It is newest first where, of the steps from one event of a user to the next row of the same user that change the
    time, nine of ten go back.

    Returns:
        `tuple`: The table, turned around or as it was; the events that stand in it after a later event of the same
        user; whether it was turned around.
    """
    users = one_array(events["user_id"]).dictionary_encode().indices.to_numpy()
    rows = np.argsort(users, kind="stable")
    users, times = users[rows], events["timestamp"].to_numpy()[rows]
    same_user = users[1:] == users[:-1]
    num_back = int((same_user & (times[1:] < times[:-1])).sum())
    num_on = int((same_user & (times[1:] > times[:-1])).sum())
    if num_back <= _NEWEST_FIRST * (num_back + num_on):
        return events, num_back, False
    return events.take(pa.array(np.arange(events.num_rows)[::-1])), num_on, True


def notes_of_order(name: str, num_late: int, is_turned: bool) -> list[str]:
    """Say what [`oldest_first`] found in the table of this name."""
    notes = []
    if is_turned:
        notes.append(f"The rows of {name} are newest first; of events of one second the lower row came first.")
    if num_late:
        notes.append(f"{num_late} events of {name} stood after a later one of the same user; they were sorted.")
    return notes


def is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Mark the texts that are null or hold no visible character."""
    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), True)


def refuse(
    table: pa.Table, findings: Sequence[Finding], source: Source, *, max_refused: float | Limits | None = None
) -> tuple[pa.Table, np.ndarray, str | None]:
    """Drop the rows that were found, or raise if they are too many. A row counts for the first rule it breaks.

    Args:
        table (`pyarrow.Table`): The table that was looked at.
        findings (`Sequence[Finding]`): Problems that were found.
        source (`Source`): Origin of the table.
        max_refused (`float` or [`Limits`], *optional*): The largest share of rows that may be dropped, from 0 to 1;
            none if not given.

    Returns:
        `tuple`: The rows that are left; bool of shape `(num_rows,)` that marks them; what was left out, for the notes
            of the log, `None` if nothing was. Notes are published: they hold no value of the table, as the logged
            warning does.

    Raises:
        DataError: If more than `max_refused` of the rows, or all of them, were found.
    """
    refused = Refused()
    keep = refused.add(table, findings)
    note = refused.settle(source, max_refused=max_refused)
    return table if note is None else table.filter(pa.array(keep)), keep, note


def check_max_refused(max_refused: float) -> float:
    """Return a limit if it is a share from 0 to 1.

    Raises:
        ConfigurationError: If it is outside 0..1.
    """
    if not 0.0 <= max_refused <= 1.0:
        raise ConfigurationError(f"`max_refused` is {max_refused!r}; give a share of the rows from 0 to 1.")
    return max_refused


def check_choice(argument: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is not one of the choices.

    Raises:
        ConfigurationError: Naming the argument, the value and the choices.
    """
    if value not in choices:
        raise ConfigurationError(f"`{argument}` is {value!r}; use one of {', '.join(map(repr, choices))}.")


def _findings(rules: Sequence[tuple[str, pa.ChunkedArray | pa.Array, str]]) -> list[Finding]:
    findings = []
    for problem, is_bad, column in rules:
        rows = np.flatnonzero(pc.fill_null(is_bad, False).to_numpy(zero_copy_only=False))
        if len(rows):
            findings.append(Finding(problem, rows, column, is_common=problem in _COMMON))
    return findings
