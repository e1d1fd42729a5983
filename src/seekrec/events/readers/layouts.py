# SPDX-License-Identifier: Apache-2.0
"""Helpers of readers for published tables with known columns: find, read, select and name them.

Everything works on whole columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, is_blank, refuse
from seekrec.events.readers.columns import to_category_paths
from seekrec.events.readers.delimited import open_delimited
from seekrec.events.readers.quotes import Quoting
from seekrec.util.arrow import one_array, to_lists, to_mask

# No name of a category holds it.
_NEVER = "\x1f"


def find_table(folder: Path, name: str, suffixes: Sequence[str] = (".csv",)) -> Path | None:
    """Find a table in a folder: a file of this name and one of the suffixes, packed or not; or a folder of Parquet."""
    names = [f"{name}{suffix}{packed}" for suffix in suffixes for packed in ("", ".gz")]
    found = next((folder / one for one in names if (folder / one).is_file()), None)
    if found is None and ".parquet" in suffixes and any((folder / name).glob("*.parquet")):
        return folder / name
    return found


def read_columns(
    path: Path,
    needed: Sequence[str],
    *,
    optional: Sequence[str] = (),
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    renamed: Mapping[str, str] | None = None,
    quoting: Quoting | None = None,
) -> tuple[pa.Table, Source]:
    """Read columns of a published table; the others are not parsed.

    Args:
        path (`Path`): Text with fields between `delimiter`, a Parquet file, or a folder of Parquet files.
        needed (`Sequence[str]`): Columns that must be there.
        optional (`Sequence[str]`): Columns that are read where they are there.
        delimiter (`str`): Between the fields of text.
        names (`Sequence[str]`, *optional*): Names of the columns of text whose first line is data.
        renamed (`Mapping[str, str]`, *optional*): From names that copies of the text have to those above.
        quoting (`str`, *optional*): Meaning of quotes in text, as [`open_delimited`] takes it.

    Returns:
        `tuple`: The table, all text where the file is; and where its rows stand.

    Raises:
        DataError: If the file cannot be read or a needed column is missing.
    """
    if path.is_dir() or path.suffix == ".parquet":
        return _read_parquet(path, needed, optional)
    opened = open_delimited(path, delimiter=delimiter, names=names, quoting=quoting)
    given = {(renamed or {}).get(name, name): name for name in opened.names}
    _need(path, list(given), needed)
    wanted = [name for name in (*needed, *optional) if name in given]
    table, source = opened.read([given[name] for name in wanted])
    if not table.num_rows:
        where = f": {source.unreadable}" if source.unreadable else ""
        raise DataError(f"{path.name} contains no row that can be read{where}; fetch the published file.")
    return table.rename_columns(wanted), source


def _read_parquet(path: Path, needed: Sequence[str], optional: Sequence[str]) -> tuple[pa.Table, Source]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    try:
        names = pq.read_schema(files[0]).names
        _need(path, names, needed)
        wanted = [name for name in (*needed, *optional) if name in names]
        table = pa.concat_tables([pq.read_table(file, columns=wanted) for file in files])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    if not table.num_rows:
        raise DataError(f"{path} is empty; a log needs at least one row of it.")
    return table, Source(path.name)


def _need(path: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"{path.name} has no column {missing[0]!r}, only {', '.join(names) or 'none'}; fetch the published file."
        )


def column_or_nulls(table: pa.Table, name: str) -> pa.Array:
    """Return a column as one array; nulls of text where the table lacks it."""
    return one_array(table[name]) if name in table.column_names else pa.nulls(table.num_rows, pa.string())


def one_line(text: pa.Array | pa.ChunkedArray, nothing: Sequence[str] = ()) -> pa.Array:
    """Return text with single spaces for its white space; null where it is blank or one of `nothing`."""
    line = pc.utf8_trim_whitespace(pc.replace_substring_regex(one_array(text).cast(pa.string()), r"[\s\p{Z}]+", " "))
    is_nothing = pc.or_(is_blank(line), pc.is_in(line, value_set=pa.array(list(nothing), pa.string())))
    return pc.if_else(is_nothing, pa.scalar(None, pa.string()), line)


def written_numbers(text: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the numbers of lists written as text, with single spaces between: "[20, 34]" becomes "20 34"."""
    return one_line(pc.replace_substring_regex(one_array(text).cast(pa.string()), r"[\[\],'\"]+", " "))


def to_paths(levels: Sequence[pa.Array], source: Source) -> pa.Array:
    """Return a category path a row from its names by level, root first; nulls are left out."""
    num_rows = len(levels[0])
    places = np.arange(len(levels) * num_rows).reshape(len(levels), num_rows).T.ravel()
    names = pa.concat_arrays(levels).take(pa.array(places))
    is_name = ~np.asarray(names.is_null())
    lists = to_lists(names.filter(pa.array(is_name)), is_name.reshape(num_rows, len(levels)).sum(axis=1))
    return to_category_paths(pa.chunked_array([lists]), "categories", source, separator=_NEVER)


def most_frequent(keys: pa.Array, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return every key once, in order of appearance, with its most frequent value: of several the first to appear."""
    pairs = pa.table({"key": keys, "value": values})
    counts = pairs.group_by(["key", "value"], use_threads=False).aggregate([([], "count_all")])
    codes = one_array(counts["key"]).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((-counts["count_all"].to_numpy(), codes))
    first = order[np.flatnonzero(np.diff(codes[order], prepend=-1))]
    return one_array(counts["key"]).take(pa.array(first)), one_array(counts["value"]).take(pa.array(first))


def name_items(items: pa.Table | None, ids: pa.Array, noun: str) -> tuple[pa.Table, list[str]]:
    """Add the items that the published metadata lack: their title is a noun and their id.

    Args:
        items (`pyarrow.Table`, *optional*): Columns of `ITEM_FEATURES`; `None` where nothing is published about items.
        ids (`pyarrow.Array`): Ids of items that events name, repeated or not.
        noun (`str`): What an item is.

    Returns:
        `tuple`: The items; what was added, for the notes.
    """
    known = pa.table({"item_id": pa.array([], pa.string()), "title": pa.array([], pa.string())})
    items = known if items is None else items
    distinct = pc.unique(one_array(ids)).drop_null()
    absent = distinct.filter(pc.invert(pc.is_in(distinct, value_set=one_array(items["item_id"]))))
    if not len(absent):
        return items, []
    added = pa.table({"item_id": absent, "title": pc.binary_join_element_wise(noun, absent, " ")})
    note = (
        f"Nothing is published about {len(absent)} of {items.num_rows + len(absent)} items: their title is their id."
    )
    return pa.concat_tables([items, added], promote_options="default"), [note]


def leave_out(
    table: pa.Table, source: Source, known: Sequence[tuple[str, np.ndarray | pa.Array | pa.ChunkedArray, str]]
) -> tuple[pa.Table, Source, list[str]]:
    """Leave out the rows that the publication is known to have and no log can use.

    Args:
        table (`pyarrow.Table`): The table.
        source (`Source`): Where its rows stand.
        known (`Sequence`): Of each kind the words after "42 rows ...", a mask, and the column to show.

    Returns:
        `tuple`: The other rows, where they stand, and what was left out.

    Raises:
        DataError: If no row is left.
    """
    findings = []
    for problem, is_so, column in known:
        mask = is_so if isinstance(is_so, np.ndarray) else to_mask(is_so)
        if mask.any():
            findings.append(Finding(problem, np.flatnonzero(mask), column))
    readable = replace(source, num_unreadable=0, unreadable=None)
    kept, keep, note = refuse(table, findings, readable, max_refused=1.0)
    if note is None:
        return table, source, []
    return kept, at_rows(source, np.flatnonzero(keep)), [note]


def at_rows(source: Source, rows: np.ndarray) -> Source:
    """Return where the rows of a table stand that was made of rows of another: int64 `rows`, one a row."""
    return replace(source, name_row=lambda row: source.name_row(int(rows[row])))


__all__ = [
    "at_rows",
    "column_or_nulls",
    "find_table",
    "leave_out",
    "most_frequent",
    "name_items",
    "one_line",
    "read_columns",
    "to_paths",
    "written_numbers",
]
