# SPDX-License-Identifier: Apache-2.0
"""Read a table of events in pieces, with the same result as [`~seekrec.events.read_tables`]."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, conform
from seekrec.events.readers.columns import drop_nothing
from seekrec.events.readers.counted import Counted, count_odd_times
from seekrec.events.readers.json_lines import Kind
from seekrec.events.readers.parquet_folders import folder_values, refuse_versioned, unify_columns
from seekrec.events.readers.raw_tables import RawTable
from seekrec.events.readers.tables import build_events
from seekrec.events.readers.times import Times, TimeUnit, decoded, read_times
from seekrec.schema import EVENT_FEATURES, OPTIONAL_EVENT_FEATURES
from seekrec.util.arrow import is_text, to_mask

_DAY_OR_MONTH_FIRST = r"^\s*[0-9]{1,2}[/-][0-9]{1,2}[/-][0-9]{4}"
# Rows of a row group where a table of another format is written as Parquet.
_ROWS_OF_GROUP = 1 << 18


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
        origin ([`Source`], *optional*): The source that the files were made from, for messages.
    """

    name: str
    pieces: tuple[Piece, ...]
    schema: pa.Schema
    origin: Source | None = None

    @property
    def num_rows(self) -> int:
        """Rows of all pieces."""
        return sum(piece.num_rows for piece in self.pieces)

    def describe(self) -> Source:
        """Return the source for messages: rows are named by file and number."""
        if self.origin is not None:
            return self.origin
        starts = np.cumsum([0, *(piece.num_rows for piece in self.pieces)]).tolist()
        one_file = len({piece.path for piece in self.pieces}) == 1

        def name_row(row: int) -> str:
            number = bisect_right(starts, row) - 1
            piece = self.pieces[number]
            place = f"row {piece.first_row + row - starts[number]} (from 0)"
            return place if one_file else f"{Path(piece.path).name} {place}"

        return Source(self.name, name_row)


def find_parquet(root: Path) -> ParquetEvents:
    """Find the Parquet files of a table.

    Args:
        root (`Path`):
            A file or a folder. In a folder, all files that end in `.parquet` count, those in its folders included, in
            the order of their paths; names that begin with `_` or `.` do not (`_SUCCESS`, checksums). Folders such as
            `date=2019-01-31` give a column of that name.

    Raises:
        DataError: If there is no such file, one is no Parquet file, or the columns of two contradict each other.
    """
    pieces: list[Piece] = []
    schemas: list[pa.Schema] = []
    for path in _files(root):
        try:
            metadata = pq.read_metadata(path)
            schemas.append(metadata.schema.to_arrow_schema().remove_metadata())
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a Parquet file: {error}") from error
        values = folder_values(path.relative_to(root)) if path != root else {}
        first_row = 0
        for group in range(metadata.num_row_groups):
            num_rows = metadata.row_group(group).num_rows
            if num_rows:
                pieces.append(Piece(str(path), group, first_row, num_rows, values))
            first_row += num_rows
    try:
        schema = unify_columns(schemas)
    except pa.ArrowException as error:
        raise DataError(
            f"The Parquet files of {root.name} have columns with the same name but different types: {error}"
        ) from error
    if not pieces:
        raise DataError(f"{root} is empty; a log needs at least one row of it.")
    return ParquetEvents(root.name, tuple(pieces), schema)


def write_parquet(raw: RawTable, columns: Mapping[str, Kind], path: Path) -> ParquetEvents:
    """Write a table of another format as Parquet: a file of fields a block at a time, others at once.

    Args:
        raw ([`RawTable`]): The table.
        columns (`Mapping[str, str]`): What the columns to read are to us, by their names.
        path (`Path`): The file to write.
    """
    waiting: list[pa.Table] = []
    writers: list[pq.ParquetWriter] = []

    def write(table: pa.Table | None) -> None:
        if table is not None:
            waiting.append(table)
        if waiting and (table is None or sum(one.num_rows for one in waiting) >= _ROWS_OF_GROUP):
            joined = pa.concat_tables(waiting).combine_chunks()
            waiting.clear()
            if not writers:
                writers.append(pq.ParquetWriter(path, joined.schema, compression="lz4"))
            writers[0].write_table(joined, row_group_size=_ROWS_OF_GROUP)

    try:
        if raw.write_rows is not None:
            origin = raw.write_rows([*columns], write)
        else:
            table, origin = raw.read(columns)
            write(table)
        write(None)
    finally:
        for writer in writers:
            writer.close()
    if not writers:
        raise DataError(f"{raw.name} is empty; a log needs at least one row of it.")
    return replace(find_parquet(path), name=raw.name, origin=origin)


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"{root} does not exist; pass a Parquet file, or a folder of Parquet files.")
    refuse_versioned(root)
    files = sorted(
        path
        for path in root.rglob("*.parquet")
        if path.is_file() and not any(part.startswith(("_", ".")) for part in path.relative_to(root).parts)
    )
    if not files:
        raise DataError(
            f"{root} contains no file that ends in .parquet; pass the folder that, for example, Spark has written."
        )
    return files


def read_pieces(
    pieces: Sequence[Piece], schema: pa.Schema, names: Sequence[str], batch_rows: int
) -> Iterator[pa.Table]:
    """Read the rows of pieces in order, in tables of about `batch_rows` rows.

    Args:
        pieces (`Sequence[Piece]`): The pieces.
        schema (`pyarrow.Schema`): Columns of all files.
        names (`Sequence[str]`): Columns to read; a file that lacks one gives nulls.
        batch_rows (`int`): Rows to read at once.
    """
    waiting: list[pa.Table] = []
    for piece in pieces:
        with pq.ParquetFile(piece.path) as file:
            in_file = [name for name in names if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_rows, row_groups=[piece.row_group], columns=in_file):
                columns = {}
                for name in names:
                    if name in in_file:
                        columns[name] = batch[name].cast(schema.field(name).type)
                    elif name in schema.names:
                        columns[name] = pa.nulls(batch.num_rows, schema.field(name).type)
                    else:
                        columns[name] = pa.repeat(pa.scalar(piece.values.get(name), pa.string()), batch.num_rows)
                # Small row groups are put together: the checks look all items up once for each table.
                waiting.append(pa.table(columns))
                if sum(table.num_rows for table in waiting) * 2 > batch_rows:
                    yield pa.concat_tables(waiting).combine_chunks()
                    waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


@dataclass
class Columns:
    """How the columns of a source become ours, and what was found on the way.

    Args:
        taken (`Mapping[str, str]`): From our column names to those in the files.
        has_time (`bool`): Whether timestamps are times; else positions.
        time_unit (`str`, *optional*): See [`~seekrec.events.read_tables`].
        timezone (`str`, *optional*): See [`~seekrec.events.read_tables`].
        notes (`dict[str, None]`): What was done, as sentences.
        counted ([`Counted`]): What was noticed in rows.
        forms (`dict[str, None]`): What times look like, such as "seconds since 1970".
        are_days (`bool`): Whether all times read so far are days without hours.
        whole_floats (`dict[str, bool]`): Of columns of ids that are text: whether every one ended in ".0".
    """

    taken: Mapping[str, str]
    has_time: bool = True
    time_unit: TimeUnit | None = None
    timezone: str | None = None
    notes: dict[str, None] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)
    forms: dict[str, None] = field(default_factory=dict)
    are_days: bool = True
    whole_floats: dict[str, bool] = field(default_factory=dict)

    def convert(self, table: pa.Table, first_row: int, source: Source) -> tuple[pa.Table, list[Finding]]:
        """Turn rows of the source into rows of `EVENT_FEATURES`.

        Args:
            table (`pyarrow.Table`): The rows.
            first_row (`int`): Number of the first of them in the source.
            source ([`Source`]): The source, for messages.

        Returns:
            `tuple`: The rows, and the values that could not be used.

        Raises:
            DataError: If a column is of the wrong type, or read one way in some rows and another way in others.
        """
        here = Source(source.name, lambda row: source.name_row(first_row + row))
        if "timestamp" in self.taken:
            column = table[self.taken["timestamp"]]
            self._check_dates(column, here)
            times = read_times(
                column, "timestamp", here, unit=self.time_unit, timezone=self.timezone, has_time=self.has_time
            )
        else:
            times = Times(pa.array(np.arange(first_row, first_row + table.num_rows)), form="positions")
        self.forms[times.form] = None
        self.are_days &= times.are_days and self.has_time
        names = [name for role, name in self.taken.items() if role != "timestamp"]
        table, nothing = drop_nothing(table, names, source)
        events, notes, counted = build_events(table, here, self.taken, times.seconds)
        if self.has_time:
            count_odd_times(times.seconds, here, counted)
        self.counted.join(counted.found)
        self._check_ids(table, events, here)
        self.notes |= dict.fromkeys([*nothing, *notes])
        required = ("user_id", "timestamp", "item_id")
        events = conform(events, EVENT_FEATURES, source.name, required=required, optional=OPTIONAL_EVENT_FEATURES)
        return events, times.findings

    def _check_dates(self, column: pa.ChunkedArray, source: Source) -> None:
        """Refuse dates of which other rows than these may say what is the day and what the month."""
        if not is_text(column.type):
            return
        rows = np.flatnonzero(to_mask(pc.match_substring_regex(column, _DAY_OR_MONTH_FIRST)))
        if len(rows):
            raise DataError(
                f"{source.name}: column 'timestamp' contains {column[int(rows[0])].as_py()!r:.40}; day and month "
                "cannot be told apart where a log is read a part at a time. Write dates as 2019-01-31."
            )

    def _check_ids(self, table: pa.Table, events: pa.Table, source: Source) -> None:
        """Refuse ids of text that were taken for whole numbers (1.0 is 1) in some of the parts only."""
        for role in ("user_id", "item_id", "session_id"):
            if role not in self.taken or not is_text(table[self.taken[role]].type):
                continue
            if not pc.any(pc.is_valid(events[role])).as_py():
                continue
            ends = pc.any(pc.ends_with(decoded(table[self.taken[role]]), ".0")).as_py()
            was_cut = bool(ends and not pc.any(pc.ends_with(events[role], ".0")).as_py())
            if self.whole_floats.setdefault(role, was_cut) != was_cut:
                raise DataError(
                    f"{source.name}: all ids of column {role!r} end in '.0' up to {source.name_row(0)}, as if they "
                    "had been floats, but not from there on, or the other way round. Write the column again from the "
                    "original, as text or integers (in pandas: dtype=str or 'Int64')."
                )


__all__ = ["Columns", "ParquetEvents", "Piece", "find_parquet", "read_pieces", "write_parquet"]
