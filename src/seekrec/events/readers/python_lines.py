# SPDX-License-Identifier: Apache-2.0
"""Lines that each hold a Python dictionary, as review sites published them before JSON was common.

They are read as literals, never run, and one line at a time: a line that is no dictionary is one refused row.
"""

from __future__ import annotations

import ast
import gzip
import re
import warnings
import zlib
from collections.abc import Collection, Mapping
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
    bad: list[str] = []
    num_bad = num_lines = 0
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
                # A text may hold the same words: then the line is parsed to find out.
                if len(found) == 1 and (found[0][0] or found[0][1]).decode("utf-8", "replace") not in wanted:
                    continue
                try:
                    row = _parse(line, columns)
                except ValueError as error:
                    num_bad += 1
                    bad = bad or [f"line {number}, which {error}"]
                    continue
                if key is None or row[key] is None or row[key] in wanted:
                    rows.append((number, row))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; fetch the file again.") from error
    if not num_lines or num_bad == num_lines:
        detail = f": {bad[0]}" if bad else ""
        raise DataError(f"{path.name} cannot be read as lines of Python dictionaries{detail}. Fetch the file again.")
    table = pa.table({name: pa.array([row[name] for _, row in rows], kind) for name, kind in columns.items()})
    numbers = [number for number, _ in rows]
    source = Source(path.name, lambda row: f"line {numbers[row]}", num_bad, bad[0] if bad else None)
    return table, source


def _parse(line: bytes, columns: Mapping[str, pa.DataType]) -> dict[str, object]:
    try:
        content = ast.literal_eval(line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text ({error.reason})") from None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("is not a Python dictionary") from None
    if not isinstance(content, dict):
        raise ValueError(f"holds {type(content).__name__}, not a dictionary")
    row = {name: content.get(name) for name in columns}
    for name, value in row.items():
        try:
            pa.scalar(value, columns[name])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise ValueError(f"holds a {name} of type {type(value).__name__} that is not {columns[name]}") from None
    return row


__all__ = ["holds_python_lines", "read_python_lines"]
