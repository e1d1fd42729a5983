# SPDX-License-Identifier: Apache-2.0
"""Read a table of events a piece at a time, as [`~seekrec.events.read_tables`] reads it whole."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, check_names, conform
from seekrec.events.readers.columns import to_ids, to_seconds, to_text
from seekrec.schema import EVENT_FEATURES, OPTIONAL_EVENT_FEATURES, RECOMMENDATION, SEARCH

_IDS = ("user_id", "item_id", "session_id")
_TEXTS = ("behavior", "query", "action", "geohash")
_HIVE_COLUMN = re.compile(r"([^=/]+)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Piece:
    """Row group of a Parquet file.

    Args:
        path (`str`): The file.
        row_group (`int`): Number of the row group.
        first_row (`int`): Number of its first row in the file.
        num_rows (`int`): Its rows.
        values (`dict[str, str | None]`): Columns that stand in the names of the folders, as Hive and Spark write them.
    """

    path: str
    row_group: int
    first_row: int
    num_rows: int
    values: dict[str, str | None]


@dataclass(frozen=True)
class ParquetEvents:
    """A table of events in Parquet files.

    Args:
        name (`str`): Name of the file or folder, for messages.
        pieces (`tuple[Piece, ...]`): The row groups, in order.
        schema (`pyarrow.Schema`): Columns of all files, without those in the names of folders.
    """

    name: str
    pieces: tuple[Piece, ...]
    schema: pa.Schema

    @property
    def num_rows(self) -> int:
        """Rows of all pieces."""
        return sum(piece.num_rows for piece in self.pieces)

    @property
    def column_names(self) -> list[str]:
        """All columns, those in the names of folders included."""
        return [*self.schema.names, *dict.fromkeys(name for piece in self.pieces for name in piece.values)]

    def describe(self) -> Source:
        """Return the source for messages: rows are named by file and number."""
        starts = np.cumsum([0, *(piece.num_rows for piece in self.pieces)]).tolist()
        one_file = len({piece.path for piece in self.pieces}) == 1

        def name_row(row: int) -> str:
            number = bisect_right(starts, row) - 1
            piece = self.pieces[number]
            place = f"row {piece.first_row + row - starts[number]} (from 0)"
            return place if one_file else f"{Path(piece.path).name} {place}"

        return Source(self.name, name_row)


def find_parquet(source: str | Path | Sequence[str | Path]) -> ParquetEvents:
    """Find the Parquet files of a table.

    Args:
        source (`str`, `Path` or a sequence of them):
            A file, a folder, or several. In a folder, all files that end in `.parquet` count, those in its folders
            included, in the order of their paths; names that begin with `_` or `.` do not (`_SUCCESS`, checksums).
            Folders such as `date=2019-01-31` give a column of that name.

    Raises:
        DataError: If there is no such file, one is no Parquet file, or the columns of two contradict each other.
    """
    roots = [Path(one) for one in ([source] if isinstance(source, (str, Path)) else source)]
    pieces: list[Piece] = []
    schemas: list[pa.Schema] = []
    for root in roots:
        for path in _files(root):
            try:
                metadata = pq.read_metadata(path)
                schemas.append(metadata.schema.to_arrow_schema().remove_metadata())
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path} is not a Parquet file: {error}") from error
            values = _folder_values(path.relative_to(root)) if path != root else {}
            first_row = 0
            for group in range(metadata.num_row_groups):
                num_rows = metadata.row_group(group).num_rows
                if num_rows:
                    pieces.append(Piece(str(path), group, first_row, num_rows, values))
                first_row += num_rows
    name = roots[0].name if len(roots) == 1 else f"{roots[0].name} and {len(roots) - 1} more"
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"The Parquet files of {name} have columns of one name and several types: {error}") from error
    if not pieces:
        raise DataError(f"{name} holds no rows; a log needs at least one event.")
    return ParquetEvents(name, tuple(pieces), schema)


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"{root} does not exist; pass a Parquet file, or a folder that holds some.")
    files = sorted(
        path
        for path in root.rglob("*.parquet")
        if path.is_file() and not any(part.startswith(("_", ".")) for part in path.relative_to(root).parts)
    )
    if not files:
        raise DataError(f"{root} holds no file that ends in .parquet; pass the folder that Spark, say, has written.")
    return files


def _folder_values(path: Path) -> dict[str, str | None]:
    values = {}
    for part in path.parent.parts:
        found = _HIVE_COLUMN.fullmatch(part)
        if found:
            values[unquote(found[1])] = None if found[2] == _HIVE_NULL else unquote(found[2])
    return values


def read_pieces(pieces: Sequence[Piece], schema: pa.Schema, batch_rows: int) -> Iterator[pa.Table]:
    """Read the rows of pieces in order, in tables of about `batch_rows` rows with the columns of all files."""
    folder_names = list(dict.fromkeys(name for piece in pieces for name in piece.values))
    waiting: list[pa.Table] = []
    for piece in pieces:
        with pq.ParquetFile(piece.path) as file:
            for batch in file.iter_batches(batch_rows, row_groups=[piece.row_group]):
                table = pa.Table.from_batches([batch])
                columns = {}
                for field in schema:
                    if field.name in table.column_names:
                        columns[field.name] = table[field.name].cast(field.type)
                    else:
                        columns[field.name] = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
                for name in folder_names:
                    value = pa.scalar(piece.values.get(name), pa.string())
                    columns[name] = pa.chunked_array([pa.repeat(value, table.num_rows)])
                # Small row groups are put together: the checks look all items up once for each table.
                waiting.append(pa.table(columns))
                if sum(table.num_rows for table in waiting) * 2 > batch_rows:
                    yield pa.concat_tables(waiting).combine_chunks()
                    waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


@dataclass(frozen=True)
class Columns:
    """How the columns of a source become ours.

    Args:
        names (`Mapping[str, str]`): From our column name to the one in the files, where they differ.
        has_time (`bool`): Whether timestamps are times; else positions.
    """

    names: Mapping[str, str]
    has_time: bool = True

    def check(self, columns: Sequence[str], name: str) -> None:
        """Refuse a table that lacks a needed column, or one that is mapped.

        Raises:
            DataError: Naming it.
        """
        check_names(columns, name)
        for mine, theirs in self.names.items():
            if theirs not in columns:
                raise DataError(
                    f"{name} has no column {theirs!r}, which `column_map` names for {mine!r}; it has "
                    f"{', '.join(columns)}."
                )
        needed = ("user_id", "timestamp", "item_id") if self.has_time else ("user_id", "item_id")
        for mine in needed:
            if self.names.get(mine, mine) not in columns:
                raise DataError(
                    f"{name} has no column {mine!r}, only {', '.join(columns)}. Say which one holds it: "
                    f"`column_map={{{mine!r}: 'its name'}}`."
                )

    def convert(self, table: pa.Table, first_row: int, source: Source) -> tuple[pa.Table, list[Finding]]:
        """Turn rows of the source into rows of `EVENT_FEATURES`.

        Args:
            table (`pyarrow.Table`): The rows.
            first_row (`int`): Number of the first of them in the source.
            source ([`Source`]): The source, for messages.

        Returns:
            `tuple`: The rows, and the values that could not be used.

        Raises:
            DataError: If a column is of the wrong type.
        """
        here = Source(source.name, lambda row: source.name_row(first_row + row))
        ours = {theirs: mine for mine, theirs in self.names.items()}
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        findings: list[Finding] = []
        for theirs in table.column_names:
            name, column = ours.get(theirs, theirs), table[theirs]
            # A column that has one of our names but was mapped away would be taken for ours.
            if (theirs not in ours and name in self.names) or name.startswith("__index_level_"):
                continue
            if name in _IDS:
                columns[name] = to_ids(column, name, here)
            elif name in _TEXTS:
                columns[name] = to_text(column, name, here)
            elif name == "timestamp":
                columns[name], findings = to_seconds(column, name, here, has_time=self.has_time)
            else:
                columns[name] = column
        if "timestamp" not in columns:
            columns["timestamp"] = pa.array(np.arange(first_row, first_row + table.num_rows))
        if "behavior" not in columns and "query" in columns:
            columns["behavior"] = pc.if_else(pc.is_valid(columns["query"]), SEARCH, RECOMMENDATION)
        if "action" in columns:
            columns["action"] = pc.fill_null(columns["action"], "click")
        required = ("user_id", "timestamp", "item_id")
        made = pa.table(columns)
        return conform(
            made, EVENT_FEATURES, source.name, required=required, optional=OPTIONAL_EVENT_FEATURES
        ), findings


__all__ = ["Columns", "ParquetEvents", "Piece", "find_parquet", "read_pieces"]
