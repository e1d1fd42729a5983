# SPDX-License-Identifier: Apache-2.0
"""Read lines of Python dictionaries, as review sites published them before JSON was common.

They are parsed as literals, never executed, one line at a time: a line that is not a dictionary is one refused row.
"""

from __future__ import annotations

import ast
import gzip
import re
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from seekrec.errors import DataError
from seekrec.events.checks import Source
from seekrec.events.readers.text_files import check_file


def holds_python_lines(path: Path) -> bool:
    """Return whether the first line starts as a Python dictionary and not as JSON: with a single quote."""
    check_file(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4096).lstrip()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; fetch the file again.") from error
    return bool(re.match(rb"\{\s*u?'", start))


def read_python_lines(
    path: Path, columns: Mapping[str, pa.DataType], *, key: str | None = None, wanted: Collection[str] = ()
) -> tuple[pa.Table, Source]:
    """Read a file with one Python dictionary a line.

    Args:
        path (`Path`): The file, in UTF-8; a name that ends in `.gz` is unpacked.
        columns (`Mapping[str, pyarrow.DataType]`): Columns to read and their types; a value of another type makes the
            row one that cannot be read.
        key (`str`, *optional*): Column of text by which rows are chosen.
        wanted (`Collection[str]`): With `key`: rows of another key are left out before they are parsed, which takes
            most of the time.

    Returns:
        `tuple`: The table, absent values null, and on which lines its rows stand.

    Raises:
        DataError: If the file is missing, empty, cannot be unpacked, or no line can be read.
    """
    check_file(path)
    rows: list[tuple[int, dict[str, object]]] = []
    bad: list[tuple[int, str]] = []
    num_lines = 0
    finder = None if key is None else re.compile(rb"'%s':\s*(?:'([^'\\]*)'|\"([^\"\\]*)\")" % key.encode())
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file, warnings.catch_warnings():
            # What Python says of a backslash in a text that is not an escape.
            warnings.simplefilter("ignore")
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                num_lines += 1
                found = finder.findall(line) if finder is not None else []
                # A text may contain the same words: then the line is parsed to find out.
                if len(found) == 1 and (found[0][0] or found[0][1]).decode("utf-8", "replace") not in wanted:
                    continue
                try:
                    content = _parse(line)
                except ValueError as error:
                    bad.append((number, f"which {error}"))
                    continue
                value = None if key is None else content.get(key)
                if not isinstance(value, str) or value in wanted:
                    rows.append((number, {name: content.get(name) for name in columns}))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; fetch the file again.") from error
    table = _make_table(rows, columns)
    if table is None:
        # Rare, so that rows are looked at one by one only now.
        problems = [_problem(row, columns) for _, row in rows]
        bad += [(number, problem) for (number, _), problem in zip(rows, problems, strict=True) if problem]
        rows = [row for row, problem in zip(rows, problems, strict=True) if not problem]
        table = _make_table(rows, columns)
    bad.sort()
    first = f"line {bad[0][0]}, {bad[0][1]}" if bad else None
    if table is None or len(bad) == num_lines:
        detail = f": {first}" if first else ""
        raise DataError(f"{path.name} cannot be read as lines of Python dictionaries{detail}. Fetch the file again.")
    numbers = [number for number, _ in rows]
    return table, Source(path.name, lambda row: f"line {numbers[row]}", len(bad), first)


def _make_table(
    rows: Sequence[tuple[int, Mapping[str, object]]], columns: Mapping[str, pa.DataType]
) -> pa.Table | None:
    """Return the columns; `None` where a value has another type."""
    try:
        return pa.table({name: pa.array([row[name] for _, row in rows], kind) for name, kind in columns.items()})
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def _problem(row: Mapping[str, object], columns: Mapping[str, pa.DataType]) -> str | None:
    for name, kind in columns.items():
        try:
            pa.scalar(row[name], kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return f"which contains a {name} of type {type(row[name]).__name__} that is not {kind}"
    return None


def _parse(line: bytes) -> dict[str, object]:
    try:
        content = ast.literal_eval(line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text ({error.reason})") from None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("is not a Python dictionary") from None
    if not isinstance(content, dict):
        raise ValueError(f"contains {type(content).__name__}, not a dictionary")
    return content


__all__ = ["holds_python_lines", "read_python_lines"]
