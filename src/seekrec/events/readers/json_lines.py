# SPDX-License-Identifier: Apache-2.0
"""JSON lines: one object a line, as shops and review sites publish them.

Arrow reads a file in which every column has one type. What it refuses (a column that is a number here and text there)
or would change (ids that it takes for floats) is read line by line: columns that seekrec uses keep what stands in the
file, others with values of several types become text, and lines that are not objects count for the limit of
refused rows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import json as arrow_json

from seekrec.errors import DataError
from seekrec.events.checks import Source
from seekrec.events.readers.text_files import Lines, find_lines, read_text_bytes

logger = logging.getLogger(__name__)

# Arrow's own size of a block; a longer line needs a larger one.
_BLOCK_SIZE = 1 << 20

# The first integer that a float64 cannot tell from its neighbour.
_FIRST_INEXACT = 2**53


def read_json_lines(
    path: Path, *, ids: Sequence[str], texts: Sequence[str], others: Sequence[str], encoding: str | None = None
) -> tuple[pa.Table, Source]:
    """Read a file with one object a line.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        ids (`Sequence[str]`): Columns of ids: text or whole numbers, whose digits are kept.
        texts (`Sequence[str]`): Columns of text; lists of text are kept.
        others (`Sequence[str]`): Further columns of the schema: in them, text that looks like a date stays text.
        encoding (`str`, *optional*): Encoding of the file; if not given, by its byte order mark, else UTF-8.

    Returns:
        `tuple`: The table, empty lines left out, and on which lines its rows stand.

    Raises:
        DataError: If the file is missing, empty, or holds no JSON lines.
    """
    data = read_text_bytes(path, encoding=encoding)
    first = data[: 1 << 16].tobytes().lstrip()[:1]
    if first == b"[":
        raise DataError(
            f"{path.name} cannot be read as JSON lines: it is one list. Write one object a line, as `jq -c '.[]'` "
            "does."
        )
    lines = find_lines(data).without_empty()
    table = _read_with_arrow(data, lines, ids, texts, others)
    if table is not None:
        numbers = lines.numbers
        return table, Source(path.name, lambda row: f"line {numbers[row]}")
    return _read_by_line(data, lines, path, ids, texts)


def _read_with_arrow(
    data: np.ndarray, lines: Lines, ids: Sequence[str], texts: Sequence[str], others: Sequence[str]
) -> pa.Table | None:
    """Read the file with Arrow; `None` where that fails or would change what stands in it."""
    longest = int((lines.ends - lines.starts).max(initial=0))
    options = arrow_json.ReadOptions(block_size=min(max(_BLOCK_SIZE, 2 * longest), 2**31 - 1))

    def read(schema: pa.Schema | None = None) -> pa.Table:
        parse_options = arrow_json.ParseOptions(explicit_schema=schema)
        return arrow_json.read_json(pa.BufferReader(pa.py_buffer(data)), options, parse_options)

    try:
        table = read()
        ours = [field for field in table.schema if field.name in (*ids, *texts, *others)]
        dated = [pa.field(field.name, _undated(field.type)) for field in ours]
        changed = [field for field, old in zip(dated, ours, strict=True) if field.type != old.type]
        if changed:
            table = read(pa.schema(changed))
        # Arrow's reader of lists of nothing but null writes offsets that point nowhere.
        table.validate(full=True)
    except pa.ArrowException:
        return None
    exact = (*ids, *texts)
    if any(pa.types.is_floating(field.type) for field in table.schema if field.name in exact):
        return None
    # More objects than lines, or fewer: not one a line.
    return table if table.num_rows == len(lines.numbers) else None


def _undated(kind: pa.DataType) -> pa.DataType:
    """Write text for the timestamps in a type."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_undated(kind.value_type))
    return kind


def _read_by_line(
    data: np.ndarray, lines: Lines, path: Path, ids: Sequence[str], texts: Sequence[str]
) -> tuple[pa.Table, Source]:
    rows: list[dict[str, object]] = []
    kept: list[int] = []
    bad: list[str] = []
    num_bad = 0
    convert: dict[str, Callable[[object], str | None]] = {name: _text for name in texts}
    convert |= {name: _id for name in ids}
    for start, end, number in zip(lines.starts.tolist(), lines.ends.tolist(), lines.numbers.tolist(), strict=True):
        line = data[start:end].tobytes()
        if not line.strip():
            continue
        try:
            row = _parse(line)
            for name in convert.keys() & row.keys():
                try:
                    row[name] = convert[name](row[name])
                except ValueError as error:
                    raise ValueError(f"{name} {error}") from None
        except (ValueError, RecursionError) as error:
            num_bad += 1
            bad = bad or [f"line {number}, which {error}"]
            continue
        rows.append(row)
        kept.append(number)
    if not rows:
        detail = f": {bad[0]}" if bad else ""
        raise DataError(f"{path.name} cannot be read as JSON lines{detail}. It must hold one object a line.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns, mixed = {}, []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            columns[name] = pa.array([_as_text(value) for value in values], pa.string())
            mixed.append(name)
    remarks = tuple(
        f"{path.name}: column {name} holds values of several types; it was read as text." for name in mixed
    )
    for remark in remarks:
        logger.warning(remark)
    source = Source(path.name, lambda row: f"line {kept[row]}", num_bad, bad[0] if bad else None, remarks)
    return pa.table(columns), source


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
        raise ValueError(f"holds {type(row).__name__}, not an object")
    if b"\\u" in line:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair") from None
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


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


__all__ = ["read_json_lines"]
