# SPDX-License-Identifier: Apache-2.0
"""A table as the user has it: a file, a folder of Parquet files, or one in memory.

The names of its columns are known before any is read, so that only the needed columns are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.checks import Source, check_names
from seekrec.events.readers.delimited import open_delimited
from seekrec.events.readers.json_lines import Kind, open_json
from seekrec.events.readers.parquet_folders import folder_values, refuse_versioned, unify_columns
from seekrec.events.readers.quotes import Quoting
from seekrec.events.readers.text_files import check_file

_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")

# Rows that [`RawTable.peek`] returns: so many pieces of so many.
_PIECES, _PIECE = 16, 1_000

# Columns that pandas writes for itself: the numbers of rows, in Parquet and CSV.
_INDEX = re.compile(r"__index_level_|Unnamed: [0-9]+$|\s*$")


@dataclass(frozen=True)
class FileFormat:
    """How text files are written: `delimiter`, `quoting` and `encoding` of [`read_tables`]; `None` is found out."""

    delimiter: str | None = None
    quoting: Quoting | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class RawTable:
    """A table that is not read yet.

    Args:
        name (`str`): Name for messages.
        columns (`tuple[str, ...]`): Names of its columns.
        read (`Callable`): Reads columns, given what each is to us; returns the table and where its rows stand.
        peek (`Callable`): Returns some of the rows, with all columns.
        dialect (`str`, *optional*): How a file of fields is written, for reports.
        write_rows (`Callable`, *optional*): Reads columns a block of rows at a time, where the format allows it, and
            calls a function with each; returns where the rows stand.
    """

    name: str
    columns: tuple[str, ...]
    read: Callable[[Mapping[str, Kind]], tuple[pa.Table, Source]]
    peek: Callable[[], pa.Table]
    dialect: str | None = None
    write_rows: Callable[[Sequence[str], Callable[[pa.Table], None]], Source] | None = None


def open_table(
    source: str | Path | pa.Table,
    argument: str,
    form: FileFormat,
    *,
    count_known: Callable[[Sequence[str]], int],
) -> RawTable:
    """Find out which columns a table has.

    Args:
        source (`str`, `Path` or `pyarrow.Table`): A file, a folder of Parquet files (those of partitions as
            `column=value`), or a table.
        argument (`str`): Name of the argument, for messages about a table in memory.
        form ([`FileFormat`]): How text files are written.
        count_known (`Callable`): Counts the names that could be columns of ours: the delimiter that cuts most of them
            out of a header is the file's.

    Raises:
        DataError: If there is no such file, it is empty or damaged, or names a column twice.
    """
    if isinstance(source, pa.Table):
        raw = _of_memory(source, f"`{argument}`")
    else:
        path = Path(source)
        raw = _of_folder(path) if path.is_dir() else _of_file(path, form, count_known)
    check_names(raw.columns, raw.name)
    return raw


def _of_memory(table: pa.Table, name: str) -> RawTable:
    names = _without_index(table.column_names)

    def peek() -> pa.Table:
        step = max(table.num_rows // _PIECES, _PIECE)
        return pa.concat_tables([table.slice(at, _PIECE) for at in range(0, table.num_rows, step)] or [table])

    return RawTable(name, names, lambda columns: (table.select(list(columns)), Source(name)), peek)


def _of_folder(folder: Path) -> RawTable:
    """Open the Parquet files below a folder, such as those that Spark and DuckDB write."""
    refuse_versioned(folder)
    try:
        # Names that start with a dot or an underscore, such as _SUCCESS, are no data.
        files = pads.dataset(folder, format="parquet").files
        if not files:
            raise DataError(f"{folder} contains no Parquet file; name a file, or a folder of Parquet files.")
        names = [os.path.relpath(path, folder) for path in files]
        # A column that only later files have counts too.
        schema = unify_columns(pq.read_schema(path).remove_metadata() for path in files)
        own = [name for name in dict.fromkeys(chain(*(folder_values(Path(name)) for name in names)))]
        of_folders = pa.schema([(name, pa.string()) for name in own if name not in schema.names])
        schema = pa.schema([*schema, *of_folders])
        found = pads.dataset(
            files,
            schema=schema,
            format="parquet",
            partitioning=pads.partitioning(of_folders, flavor="hive"),
            partition_base_dir=str(folder),
        )
        parts = list(found.get_fragments())
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{folder} cannot be read as a folder of Parquet files of one table: {error}. Remove other files, and "
            "give each column the same type in all files."
        ) from error

    def read(columns: Mapping[str, Kind]) -> tuple[pa.Table, Source]:
        try:
            table = found.to_table(columns=list(columns), use_threads=False)
            ends = np.cumsum([part.count_rows() for part in parts])
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{folder} contains a Parquet file that cannot be read: {error}") from error

        def name_row(row: int) -> str:
            part = int(np.searchsorted(ends, row, side="right"))
            return f"{names[part]}, row {row - (int(ends[part - 1]) if part else 0)} (from 0)"

        return table, Source(folder.name, name_row)

    def peek() -> pa.Table:
        chosen = np.unique(np.linspace(0, len(parts) - 1, _PIECES).astype(int))
        return pa.concat_tables(
            [pads.FileSystemDataset([parts[row]], schema, parts[row].format).head(_PIECE) for row in chosen]
        )

    return RawTable(folder.name, _without_index(schema.names), read, peek)


def _of_file(path: Path, form: FileFormat, count_known: Callable[[Sequence[str]], int]) -> RawTable:
    check_file(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind == ".parquet":
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a Parquet file: {error}") from error

        def read(columns: Mapping[str, Kind]) -> tuple[pa.Table, Source]:
            try:
                # Not the folders above it: those are no columns of a single file.
                return pq.read_table(path, columns=list(columns), partitioning=None), Source(path.name)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is a damaged Parquet file: {error}") from error

        def peek() -> pa.Table:
            with pq.ParquetFile(path) as file:
                groups = np.unique(np.linspace(0, file.num_row_groups - 1, _PIECES).astype(int)).tolist()
                batches = (next(file.iter_batches(_PIECE, row_groups=[group]), None) for group in groups if group >= 0)
                return pa.Table.from_batches([batch for batch in batches if batch is not None], file.schema_arrow)

        return RawTable(path.name, _without_index(schema.names), read, peek)
    if kind in (".csv", ".tsv"):
        opened = open_delimited(
            path,
            delimiter=("," if kind == ".csv" else "\t") if form.delimiter is None else form.delimiter,
            count_known=count_known if form.delimiter is None else None,
            encoding=form.encoding,
            quoting=form.quoting,
        )
        return RawTable(
            path.name,
            _without_index(opened.names),
            lambda columns: opened.read([*columns], [name for name, kind in columns.items() if kind != "other"]),
            opened.peek,
            opened.describe(),
            opened.write_rows,
        )
    if kind in (".jsonl", ".ndjson", ".json"):
        file = open_json(path, encoding=form.encoding)
        return RawTable(path.name, tuple(file.names), file.read, file.peek)
    raise DataError(
        f"{path} has a name that does not end in one of {', '.join(_SUFFIXES)}; rename it with the right suffix."
    )


def _without_index(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not _INDEX.match(name))


__all__ = ["FileFormat", "RawTable", "open_table"]
