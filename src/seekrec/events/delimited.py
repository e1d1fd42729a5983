# SPDX-License-Identifier: Apache-2.0
"""Text files cut into columns, with the number of the line each row came from.

Lines that cannot be cut into the expected number of fields do not stop the reading: they are counted, and the reader's
cap on refused rows decides.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from seekrec.errors import DataError
from seekrec.events.checks import Source, one_array

# A character that no text file holds: with it as the delimiter a line is one field.
_NEVER = "\x1f"


def read_delimited(
    path: Path,
    *,
    delimiter: str,
    names: Sequence[str] | None = None,
    text_columns: Sequence[str] | None = None,
    encoding: str = "utf8",
    is_quoted: bool = True,
) -> tuple[pa.Table, Source]:
    """Read a file of fields between single characters.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        delimiter (`str`): One character.
        names (`Sequence[str]`, *optional*): Names of the columns, where the first line is data.
        text_columns (`Sequence[str]`, *optional*): Columns to keep as text; all if not given. The type of the others
            is guessed.
        encoding (`str`): Of the file.
        is_quoted (`bool`): Whether `"` encloses fields (which may then hold line breaks).

    Returns:
        `tuple`: The table, empty fields null and empty lines left out, and where its rows stand.

    Raises:
        DataError: If the file is missing, empty, or not in this encoding.
    """
    check_file(path)
    bad_lines: list[tuple[int, str]] = []

    def skip(row: csv.InvalidRow) -> str:
        bad_lines.append((row.number, f"{row.actual_columns}, not {row.expected_columns}"))
        return "skip"

    read_options = csv.ReadOptions(use_threads=False, encoding=encoding, column_names=names)
    parse_options = csv.ParseOptions(
        delimiter=delimiter,
        quote_char='"' if is_quoted else False,
        newlines_in_values=is_quoted,
        invalid_row_handler=skip,
    )
    try:
        if names is None:
            with csv.open_csv(path, read_options=read_options, parse_options=parse_options) as reader:
                in_file = reader.schema.names
            bad_lines.clear()
        else:
            in_file = list(names)
        as_text = in_file if text_columns is None else [name for name in in_file if name in text_columns]
        table = csv.read_csv(
            path,
            read_options=read_options,
            parse_options=parse_options,
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(as_text, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no {encoding} text with {delimiter!r} between fields: {error}") from error
    first_line = 1 if names is not None else 2
    return table, _locate(path, table.num_rows, first_line, bad_lines)


def read_lines(path: Path, *, encoding: str = "utf8") -> tuple[pa.Array, Source]:
    """Read the lines of a file as one array of text; empty lines are left out."""
    table, source = read_delimited(path, delimiter=_NEVER, names=["line"], encoding=encoding, is_quoted=False)
    return one_array(table["line"]), source


def read_double_colons(path: Path, names: Sequence[str], *, encoding: str) -> tuple[pa.Table, Source]:
    """Read a file with `::` between fields, as the older MovieLens releases have.

    Args:
        path (`Path`): The file; no header.
        names (`Sequence[str]`): Names of the columns.
        encoding (`str`): Of the file.

    Returns:
        `tuple`: The table, all text, and where its rows stand.
    """
    lines, source = read_lines(path, encoding=encoding)
    fields = pc.split_pattern(lines, "::")
    num_fields = pc.list_value_length(fields).to_numpy(zero_copy_only=False)
    is_good = num_fields == len(names)
    bad_lines = [(int(row) + 1, f"{num_fields[row]}, not {len(names)}") for row in np.flatnonzero(~is_good)]
    flat = fields.filter(pa.array(is_good)).flatten()
    table = pa.table(
        {name: flat.take(pa.array(np.arange(place, len(flat), len(names)))) for place, name in enumerate(names)}
    )
    return table, _locate(path, table.num_rows, 1, bad_lines)


def check_file(path: Path) -> None:
    """Refuse a path that is no file or an empty one.

    Raises:
        DataError: Naming the path.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; check the path.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; a log needs at least one row of it.")


def _locate(path: Path, num_rows: int, first_line: int, bad_lines: list[tuple[int, str]]) -> Source:
    """Say on which line a row stands, if every row is one line; else its number among the rows."""
    unreadable = f"line {bad_lines[0][0]}, where the number of fields is {bad_lines[0][1]}" if bad_lines else None
    num_lines = first_line - 1 + num_rows + len(bad_lines)
    name_row: Callable[[int], str] = "data row {} (from 0)".format
    if _count_lines(path) == num_lines:
        is_bad = np.zeros(num_lines + 1, dtype=bool)
        is_bad[[number for number, _ in bad_lines]] = True
        is_bad[:first_line] = True
        lines = np.flatnonzero(~is_bad)

        def name_row(row: int) -> str:
            return f"line {lines[row]}"

    return Source(path.name, name_row, len(bad_lines), unreadable)


def _count_lines(path: Path) -> int:
    opener = gzip.open if path.suffix == ".gz" else open
    num_lines, last = 0, b"\n"
    with opener(path, "rb") as file:
        while block := file.read(1 << 22):
            num_lines += block.count(b"\n")
            last = block[-1:]
    return num_lines + (last != b"\n")
