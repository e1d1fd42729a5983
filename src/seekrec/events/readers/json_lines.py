# SPDX-License-Identifier: Apache-2.0
"""Read JSON of many objects: one per line, as shops and review sites publish them, or all in one list.

Arrow reads the objects of a block of the file at once, and only the requested columns. A block that it rejects (a
column of mixed numbers and text, a damaged line) or would change (ids that it takes for floats) is read object by
object: columns that seekrec uses keep the values in the file, others with values of several types become text, and
lines that are not objects count towards the limit of refused rows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from seekrec.errors import DataError
from seekrec.events.checks import Source
from seekrec.events.readers.json_objects import Objects, find_objects
from seekrec.events.readers.text_files import Text, open_text
from seekrec.util.arrow import is_list, is_text

logger = logging.getLogger(__name__)

# What a column is to us: ids keep their digits, text is kept or joined, in "value" text that looks like a date stays
# text, and "other" is whatever Arrow makes of it.
Kind = Literal["id", "text", "value", "other"]

# Bytes of objects that are read at once.
_STRETCH = 1 << 25

# Objects looked at for the names of columns: at the start, and in groups all over the file; and their bytes.
_FIRST, _GROUPS, _GROUP, _SAMPLE_BYTES = 2_000, 200, 20, 1 << 25

# The first integer that a float64 cannot tell from its neighbour.
_FIRST_INEXACT = 2**53


@dataclass(frozen=True, eq=False)
class JsonFile:
    """A file of objects whose columns are not read yet.

    Args:
        path (`Path`): The file.
        text ([`Text`]): Its content.
        objects ([`Objects`]): Where its objects stand.
        names (`tuple[str, ...]`): Names of columns, in the order of their first use. A name that fewer than one in
            a thousand objects of a large file have may be missing.
        sample (`tuple[dict[str, object], ...]`): Objects that were looked at for names.
    """

    path: Path
    text: Text
    objects: Objects
    names: tuple[str, ...] = ()
    sample: tuple[dict[str, object], ...] = ()

    def peek(self) -> pa.Table:
        """Return some of the rows, all columns; values that are not text, numbers or lists of text are JSON."""
        return pa.table({name: _to_array([row.get(name) for row in self.sample])[0] for name in self.names})

    def read(self, columns: Mapping[str, Kind]) -> tuple[pa.Table, Source]:
        """Read columns, given what each is to us; see [`read_json_lines`]."""
        reading = _Reading(self, columns)
        parts = [reading.read(first, last) for first, last in self._stretches()]
        return reading.finish([part for part in parts if part.num_rows])

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Yield the first object and the one after the last of each stretch."""
        records = self.objects.records
        first = 0
        while first < len(records.starts):
            limit = int(records.starts[first]) + _STRETCH
            last = max(int(np.searchsorted(records.ends, limit, side="right")), first + 1)
            yield first, last
            first = last

    def bytes_of(self, row: int) -> bytes:
        """Return the text of an object."""
        records = self.objects.records
        return self.text.data[records.starts[row] : records.ends[row]].tobytes()


def open_json(path: Path, *, encoding: str | None = None) -> JsonFile:
    """Find the objects of a file, and the names in them.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        encoding (`str`, *optional*): Encoding of the file; if not given, it is found out.

    Raises:
        DataError: If the file is missing, empty, or contains no object.
    """
    text = open_text(path, encoding=encoding)
    objects = find_objects(text.data)
    file = JsonFile(path, text, objects)
    rows: list[dict[str, object]] = []
    problem = None
    for row in _sample(objects):
        try:
            rows.append(_parse(file.bytes_of(row)))
        except ValueError as error:
            problem = problem or f"line {objects.records.numbers[row]}, which {error}"
    names = tuple(dict.fromkeys(name for entry in rows for name in entry))
    if not names:
        problem = problem or (f"line {objects.bad[0][0]}, {objects.bad[0][1]}" if objects.bad else None)
        raise DataError(
            f"{path.name} cannot be read as JSON{f': {problem}' if problem else ''}. It must contain one object per "
            "line, or one list of objects."
        )
    return JsonFile(path, text, objects, names, tuple(rows))


def read_json_lines(path: Path, kinds: Mapping[str, Kind]) -> tuple[pa.Table, Source]:
    """Read columns of a file of objects; only these are parsed.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        kinds (`Mapping[str, str]`): The columns, and what each is to us; those that the file lacks are left out.

    Returns:
        `tuple`: The table, empty lines left out, and on which lines its rows stand.

    Raises:
        DataError: If the file is missing, empty, or contains no objects or none of the columns.
    """
    file = open_json(path)
    found = {name: kind for name, kind in kinds.items() if name in file.names}
    if not found:
        raise DataError(f"{path.name} has no column {' or '.join(kinds)}, only {', '.join(file.names)}.")
    return file.read(found)


class _Reading:
    """One reading of a file: what was found in its stretches."""

    def __init__(self, file: JsonFile, kinds: Mapping[str, Kind]) -> None:
        self.file, self.columns, self.kinds = file, list(kinds), kinds
        self.schema = self._learn_from_sample()
        self.kept: list[np.ndarray] = []
        self.bad: list[tuple[int, str]] = list(file.objects.bad)
        self.mixed: set[str] = set()

    def read(self, first: int, last: int) -> pa.Table:
        """Read a stretch of objects."""
        table = self._read_with_arrow(first, last)
        if table is None:
            table, rows = self._read_each(first, last)
            self.kept.append(self.file.objects.records.numbers[rows])
        else:
            self.kept.append(self.file.objects.records.numbers[first:last])
        return table

    def finish(self, parts: list[pa.Table]) -> tuple[pa.Table, Source]:
        """Join the stretches."""
        name = self.file.path.name
        self.bad.sort()
        if not parts:
            line, problem = self.bad[0]
            raise DataError(
                f"{name} cannot be read as JSON: line {line}, {problem}. It must contain one object per line, or one "
                "list of objects."
            )
        columns = {}
        for column in self.columns:
            arrays = [chunk for part in parts for chunk in part[column].chunks]
            columns[column] = self._join(column, arrays)
        remarks = tuple(
            f"{name}: column {column} contains values of several types; it was read as text."
            for column in self.columns
            if column in self.mixed
        )
        for remark in remarks:
            logger.warning(remark)
        numbers = np.concatenate(self.kept)
        first_bad = f"line {self.bad[0][0]}, {self.bad[0][1]}" if self.bad else None
        source = Source(name, lambda row: f"line {numbers[row]}", len(self.bad), first_bad, remarks)
        return pa.table(columns), source

    def _join(self, column: str, arrays: list[pa.Array]) -> pa.ChunkedArray:
        kinds = {array.type for array in arrays}
        if len(kinds) == 1:
            return pa.chunked_array(arrays)
        try:
            tables = [pa.table({column: array}) for array in arrays]
            if any(is_text(kind) for kind in kinds) and not all(
                is_text(kind) or pa.types.is_null(kind) for kind in kinds
            ):
                raise pa.ArrowInvalid("text and something else")
            return pa.concat_tables(tables, promote_options="permissive")[column]
        except pa.ArrowException:
            if self.kinds[column] == "other":
                self.mixed.add(column)
            return pa.chunked_array([_to_text(array) for array in arrays])

    def _read_with_arrow(self, first: int, last: int) -> pa.Table | None:
        """Read a stretch with Arrow; `None` where that fails or would change what stands in it."""
        records = self.file.objects.records
        begin, end = int(records.starts[first]), int(records.ends[last - 1])
        stretch = self.file.text.data[begin:end]
        if not self.file.objects.is_lines:
            stretch = np.array(stretch)
            gaps = records.starts[first + 1 : last] - records.ends[first : last - 1]
            where = np.repeat(records.ends[first : last - 1] - np.cumsum(gaps) + gaps, gaps) + np.arange(gaps.sum())
            stretch[where - begin] = 10
        buffer = pa.py_buffer(np.ascontiguousarray(stretch))
        options = arrow_json.ReadOptions(use_threads=False, block_size=min(len(stretch) + 16, 2**31 - 1))

        def read(schema: pa.Schema | None, unexpected: str) -> pa.Table:
            parse = arrow_json.ParseOptions(
                explicit_schema=schema,
                unexpected_field_behavior=unexpected,
                newlines_in_values=not self.file.objects.is_lines,
            )
            return arrow_json.read_json(pa.BufferReader(buffer), options, parse)

        try:
            table = self._read_with_schema(read)
            # Arrow's reader of lists of nothing but null writes offsets that point nowhere.
            table.validate(full=True)
        except pa.ArrowException:
            return None
        # More objects than there are, or fewer: some is not an object.
        return table if table.num_rows == last - first else None

    def _read_with_schema(self, read: Callable[[pa.Schema | None, str], pa.Table]) -> pa.Table:
        """Read a stretch with the types that the sample or earlier stretches have, or with its own.

        Raises:
            pyarrow.ArrowException: If Arrow cannot read it, or a column of ids or text contains numbers that are not
                whole.
        """
        if self.schema is not None:
            try:
                return read(self.schema, "ignore").select(self.columns)
            except pa.ArrowException:
                self.schema = None
        table = read(None, "infer")
        self.schema = self._learn(table)
        kinds = {name: self._kind(table, name) for name in self.columns}
        if any(kind != table.schema.field(name).type for name, kind in kinds.items() if name in table.column_names):
            known = [pa.field(name, kind) for name, kind in kinds.items() if not pa.types.is_null(kind)]
            table = read(pa.schema(known), "ignore")
        nothing = pa.nulls(table.num_rows)
        return pa.table({name: table[name] if name in table.column_names else nothing for name in self.columns})

    def _learn_from_sample(self) -> pa.Schema | None:
        """Return the types of the columns in the objects that were looked at, whatever the other columns hold."""
        names = set(self.columns)
        lines = [json.dumps({name: row[name] for name in names & row.keys()}) for row in self.file.sample]
        try:
            return self._learn(arrow_json.read_json(pa.BufferReader("\n".join(lines).encode())))
        except pa.ArrowException:
            return None

    def _learn(self, table: pa.Table) -> pa.Schema | None:
        """Return the types of the columns; `None` as long as one is empty: it is learned when it is not."""
        fields = [pa.field(name, self._kind(table, name)) for name in self.columns]
        return None if any(pa.types.is_null(one.type) for one in fields) else pa.schema(fields)

    def _kind(self, table: pa.Table, name: str) -> pa.DataType:
        found = table.schema.field(name).type if name in table.column_names else pa.null()
        kind = found if self.kinds[name] == "other" else _undated(found)
        if self.kinds[name] in ("id", "text") and pa.types.is_floating(kind):
            raise pa.ArrowInvalid("digits would be lost")
        return kind

    def _read_each(self, first: int, last: int) -> tuple[pa.Table, np.ndarray]:
        """Read a stretch object by object; returns the table and the numbers of the objects in it."""
        values: dict[str, list[object]] = {name: [] for name in self.columns}
        convert = {name: _CONVERT[kind] for name, kind in self.kinds.items() if kind in _CONVERT}
        numbers = self.file.objects.records.numbers
        kept: list[int] = []
        for row in range(first, last):
            line = self.file.bytes_of(row)
            if not line.strip():
                continue
            try:
                entry = _parse(line)
                for name in convert.keys() & entry.keys():
                    try:
                        entry[name] = convert[name](entry[name])
                    except ValueError as error:
                        raise ValueError(f"{name} {error}") from None
            except ValueError as error:
                self.bad.append((int(numbers[row]), f"which {error}"))
                continue
            for name, column in values.items():
                column.append(entry.get(name))
            kept.append(row)
        arrays = {}
        for name, column in values.items():
            arrays[name], is_mixed = _to_array(column)
            if is_mixed and self.kinds[name] == "other":
                self.mixed.add(name)
        return pa.table(arrays), np.array(kept, dtype=np.int64)


def _sample(objects: Objects) -> list[int]:
    """Choose objects to look at, in the order of the file."""
    count = len(objects.records.starts)
    if count <= _FIRST + _GROUPS * _GROUP:
        rows = np.arange(count)
    else:
        spread = np.linspace(_FIRST, count - _GROUP, _GROUPS).astype(np.int64)
        rows = np.unique(np.concatenate([np.arange(_FIRST), (spread[:, None] + np.arange(_GROUP)).ravel()]))
    lengths = objects.records.ends[rows] - objects.records.starts[rows]
    # The shortest first, until there is enough to read; at least one.
    order = np.argsort(lengths, kind="stable")
    enough = np.searchsorted(np.cumsum(lengths[order]), _SAMPLE_BYTES) + 1
    return [int(row) for row in np.sort(rows[order[:enough]])]


def _undated(kind: pa.DataType) -> pa.DataType:
    """Write text for the timestamps in a type."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_undated(kind.value_type))
    return kind


def _parse(line: bytes) -> dict[str, object]:
    def refuse_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("names a key twice")
        return content

    try:
        row = json.loads(line, object_pairs_hook=refuse_twins)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at character {error.pos})") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(row, dict):
        raise ValueError(f"contains {type(row).__name__}, not an object")
    if b"\\u" in line:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("contains half of a surrogate pair") from None
    return row


def _id(value: object) -> str | None:
    if isinstance(value, float) and value.is_integer() and abs(value) < _FIRST_INEXACT:
        return str(int(value))
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"is {type(value).__name__}, not text or a whole number below 2**53")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    raise ValueError(f"is {type(value).__name__}, not text")


_CONVERT: dict[Kind, Callable[[object], str | None]] = {"id": _id, "text": _text}


def _to_array(values: list[object]) -> tuple[pa.Array, bool]:
    """Return values as an array, and whether they had to be written as text because they are of several types."""
    try:
        return pa.array(values), False
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return pa.array([_as_text(value) for value in values], pa.string()), True


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _to_text(array: pa.Array) -> pa.Array:
    """Write the values of a column as text, as [`_as_text`] does."""
    if is_list(array.type) and is_text(array.type.value_type):
        return pc.binary_join(array, " ")
    if pa.types.is_nested(array.type):
        return pa.array([value if value is None else json.dumps(value, default=str) for value in array.to_pylist()])
    return array.cast(pa.string())


__all__ = ["JsonFile", "Kind", "open_json", "read_json_lines"]
