# SPDX-License-Identifier: Apache-2.0
"""Parse delimited text files into columns, with the line number of each row.

Lines with a wrong number of fields do not stop the reading: they are counted, and the reader's cap on refused rows
decides. The delimiter and the meaning of quotes are detected from the file: see [`open_delimited`] and
[`apply_quoting`](quotes.py).
"""

from __future__ import annotations

import csv as python_csv
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import Source
from seekrec.events.readers.quotes import Quoted, Quoting, apply_quoting
from seekrec.events.readers.text_files import Lines, find_lines, open_text
from seekrec.util.arrow import is_text, one_array

logger = logging.getLogger(__name__)

# A character that no text file holds: with it as the delimiter a line is one field.
_NEVER = "\x1f"

_DELIMITERS = (",", ";", "\t", "|")

# What databases write for nothing (MySQL, Hive, PostgreSQL).
_NULLS = ["", "\\N"]

# Arrow's own size of a block; a longer record needs a larger one.
_BLOCK_SIZE = 1 << 20


@dataclass(frozen=True, eq=False)
class Delimited:
    """A file of fields whose columns are not read yet.

    Args:
        path (`Path`): The file.
        names (`tuple[str, ...]`): Names of its columns.
        has_header (`bool`): Whether they are its first line.
        delimiter (`str`): Character between fields.
        encoding (`str`): Its encoding.
        quoted ([`Quoted`]): Its text, with the quotes found that enclose fields.
        records ([`Lines`]): Where its rows stand, the header included.
    """

    path: Path
    names: tuple[str, ...]
    has_header: bool
    delimiter: str
    encoding: str
    quoted: Quoted
    records: Lines

    def describe(self) -> str | None:
        """Say how the file is written, where that is not as its name suggests; `None` where it is."""
        unusual = []
        is_tsv = self.path.name.lower().removesuffix(".gz").endswith(".tsv")
        if self.delimiter != ("\t" if is_tsv else ","):
            between = "tabs" if self.delimiter == "\t" else repr(self.delimiter)
            unusual.append(f"{between} between fields")
        if self.quoted.mark is not None and not self.quoted.is_doubled and not self.quoted.remarks:
            unusual.append("quotes inside of fields escaped by a backslash")
        if self.encoding not in ("utf-8", "ascii"):
            unusual.append(f"encoding {self.encoding}")
        return ", ".join(unusual) or None

    def peek(self) -> pa.Table:
        """Return the first rows, all as text."""
        try:
            with csv.open_csv(
                pa.BufferReader(pa.py_buffer(self.quoted.data)),
                read_options=_read_options(self.records, None if self.has_header else self.names),
                parse_options=_parse_options(self.quoted, self.delimiter, lambda _: "skip"),
                convert_options=_convert_options(self.names),
            ) as reader:
                return pa.Table.from_batches([reader.read_next_batch()])
        except StopIteration:
            return pa.table({name: pa.array([], pa.string()) for name in self.names})
        except pa.ArrowException as error:
            raise _cannot_be_cut(self.path, self.delimiter, error) from error

    def read(
        self, columns: Sequence[str] | None = None, text_columns: Sequence[str] | None = None
    ) -> tuple[pa.Table, Source]:
        """Read columns; only these are parsed.

        Args:
            columns (`Sequence[str]`, *optional*): Their names; all if not given.
            text_columns (`Sequence[str]`, *optional*): Columns to keep as text; all if not given. The type of the
                others is guessed.

        Returns:
            `tuple`: The table, empty fields null and empty lines left out, and where its rows stand.

        Raises:
            DataError: If the file cannot be cut into columns.
        """
        bad_rows, skip = _bad_rows()
        wanted = self.names if columns is None else tuple(columns)
        try:
            table = csv.read_csv(
                pa.BufferReader(pa.py_buffer(self.quoted.data)),
                read_options=_read_options(self.records, None if self.has_header else self.names),
                parse_options=_parse_options(self.quoted, self.delimiter, skip),
                convert_options=_convert_options(wanted if text_columns is None else text_columns, columns or ()),
            )
        except pa.ArrowException as error:
            raise _cannot_be_cut(self.path, self.delimiter, error) from error
        remarks = self.quoted.remarks
        if self.delimiter != "," and text_columns is not None:
            table, found = _read_decimal_commas(table, [name for name in wanted if name not in text_columns])
            remarks += tuple(f"{self.path.name}: numbers of column {name} have a decimal comma." for name in found)
        return table, _locate(self.path, self.records, table.num_rows, self.has_header, bad_rows, remarks)

    def write_rows(self, columns: Sequence[str], write: Callable[[pa.Table], None]) -> Source:
        """Read columns as text a block at a time, as `read` reads them whole.

        Args:
            columns (`Sequence[str]`): Their names.
            write (`Callable`): Called with the rows of each block.

        Returns:
            [`Source`]: Where the rows stand.
        """
        bad_rows, skip = _bad_rows()
        num_rows = 0
        try:
            with csv.open_csv(
                pa.BufferReader(pa.py_buffer(self.quoted.data)),
                read_options=_read_options(self.records, None if self.has_header else self.names),
                parse_options=_parse_options(self.quoted, self.delimiter, skip),
                convert_options=_convert_options(columns, columns),
            ) as reader:
                for batch in reader:
                    num_rows += batch.num_rows
                    write(pa.Table.from_batches([batch]))
        except pa.ArrowException as error:
            raise _cannot_be_cut(self.path, self.delimiter, error) from error
        for remark in self.quoted.remarks:
            logger.warning(remark)
        return _locate(self.path, self.records, num_rows, self.has_header, bad_rows, self.quoted.remarks)


def open_delimited(
    path: Path,
    *,
    delimiter: str,
    count_known: Callable[[Sequence[str]], int] | None = None,
    names: Sequence[str] | None = None,
    encoding: str | None = None,
    quoting: Quoting | None = None,
) -> Delimited:
    r"""Find the columns of a file of fields between single characters.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        delimiter (`str`): One character.
        count_known (`Callable`, *optional*): Counts the names of columns that are known: another delimiter that cuts
            more of them out of the header, or cuts it where this one does not, is taken instead. Without it
            `delimiter` is certain.
        names (`Sequence[str]`, *optional*): Names of the columns, where the first line is data.
        encoding (`str`, *optional*): Encoding of the file; found out if not given.
        quoting (`str`, *optional*): What `"` means: `"doubled"` (it encloses fields, which may then hold line breaks,
            and stands twice inside them), `"escaped"` (the same, but `\"` inside them) or `"none"` (a letter); found
            from the file if not given.

    Raises:
        DataError: If the file is missing, empty, not in this encoding, or `quoting` cannot be found from it.
        ConfigurationError: If `delimiter` or `encoding` is none.
    """
    check_delimiter(delimiter)
    text = open_text(path, encoding=encoding)
    data = text.data
    if count_known is not None:
        candidates = (delimiter, *(one for one in _DELIMITERS if one != delimiter))
        headers = {one: _header(data, one) for one in candidates}
        # Where no name is known (another language), one that cuts the header at all; the first of equals.
        delimiter = max(candidates, key=lambda one: (count_known(headers[one]), len(headers[one]) > 1))
    expected = len(names) if names is not None else len(_header(data, delimiter))
    quoted = apply_quoting(data, path, delimiter=delimiter, num_fields=expected, quoting=quoting)
    records = find_lines(data, enclosing=quoted.enclosing).without_empty()
    if not len(records.starts):
        raise DataError(f"{path} is empty; a log needs at least one row of it.")
    found = names
    if found is None:
        try:
            with csv.open_csv(
                pa.BufferReader(pa.py_buffer(quoted.data)),
                read_options=_read_options(records, None),
                parse_options=_parse_options(quoted, delimiter, lambda _: "skip"),
            ) as reader:
                found = reader.schema.names
        except pa.ArrowException as error:
            raise _cannot_be_cut(path, delimiter, error) from error
    for remark in quoted.remarks:
        logger.warning(remark)
    return Delimited(path, tuple(found), names is None, delimiter, text.encoding, quoted, records)


def read_delimited(
    path: Path,
    *,
    delimiter: str,
    names: Sequence[str] | None = None,
    encoding: str | None = None,
    quoting: Quoting | None = None,
) -> tuple[pa.Table, Source]:
    """Read a file of fields between single characters, all of it as text.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        delimiter (`str`): One character.
        names (`Sequence[str]`, *optional*): Names of the columns, where the first line is data.
        encoding (`str`, *optional*): As for [`open_delimited`].
        quoting (`str`, *optional*): As for [`open_delimited`].

    Returns:
        `tuple`: The table, empty fields null and empty lines left out, and where its rows stand.

    Raises:
        DataError: If the file is missing, empty, not in this encoding, or cannot be cut into columns.
        ConfigurationError: If `delimiter` or `encoding` is none.
    """
    return open_delimited(path, delimiter=delimiter, names=names, encoding=encoding, quoting=quoting).read()


def _bad_rows() -> tuple[list[tuple[int, str]], Callable[[csv.InvalidRow], str]]:
    """Return a list of the numbers and problems of rows that cannot be cut, and what fills it while Arrow reads."""
    bad_rows: list[tuple[int, str]] = []

    def skip(row: csv.InvalidRow) -> str:
        bad_rows.append((row.number, f"{row.actual_columns}, not {row.expected_columns}"))
        return "skip"

    return bad_rows, skip


def _read_options(records: Lines, names: Sequence[str] | None) -> csv.ReadOptions:
    longest = int((records.ends - records.starts).max())
    return csv.ReadOptions(
        use_threads=False, column_names=names, block_size=min(max(_BLOCK_SIZE, 2 * longest), 2**31 - 1)
    )


def _parse_options(quoted: Quoted, delimiter: str, skip: Callable[[csv.InvalidRow], str]) -> csv.ParseOptions:
    return csv.ParseOptions(
        delimiter=delimiter,
        quote_char=quoted.mark or False,
        double_quote=quoted.is_doubled,
        newlines_in_values=quoted.mark is not None,
        invalid_row_handler=skip,
    )


def _convert_options(text_columns: Sequence[str], columns: Sequence[str] = ()) -> csv.ConvertOptions:
    return csv.ConvertOptions(
        column_types=dict.fromkeys(text_columns, pa.string()),
        include_columns=list(columns),
        strings_can_be_null=True,
        null_values=_NULLS,
        quoted_strings_can_be_null=False,
    )


def _read_decimal_commas(table: pa.Table, names: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """Turn columns of numbers, some of them with a decimal comma, into floats; returns their names too."""
    found = []
    for name in names:
        column = table[name]
        if not is_text(column.type) or column.null_count == len(column):
            continue
        if not pc.all(pc.match_substring_regex(column, r"^[+-]?[0-9]{1,15}(,[0-9]+)?$")).as_py():
            continue
        numbers = pc.replace_substring(column, ",", ".", max_replacements=1).cast(pa.float64())
        table = table.set_column(table.column_names.index(name), name, numbers)
        found.append(name)
    return table, found


def _cannot_be_cut(path: Path, delimiter: str, error: Exception) -> DataError:
    return DataError(
        f"{path.name} cannot be cut into columns with {delimiter!r} between fields: {error}. Pass `delimiter`, or "
        "`quoting`, if that is not how it was written."
    )


def check_delimiter(delimiter: str) -> None:
    """Refuse a delimiter that cannot separate fields.

    Raises:
        ConfigurationError: If it is not one ASCII character, or one that has another meaning.
    """
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise ConfigurationError(f"`delimiter` is {delimiter!r}; use one ASCII character, such as ',' ';' or '|'.")


def read_lines(path: Path, *, encoding: str | None = None) -> tuple[pa.Array, Source]:
    """Read the lines of a file as one array of text; empty lines are left out."""
    table, source = read_delimited(path, delimiter=_NEVER, names=["line"], encoding=encoding, quoting="none")
    return one_array(table["line"]), source


def read_double_colons(path: Path, names: Sequence[str], *, encoding: str) -> tuple[pa.Table, Source]:
    """Read a file with `::` between fields, as the older MovieLens releases have.

    Args:
        path (`Path`): The file; no header.
        names (`Sequence[str]`): Names of the columns.
        encoding (`str`): Encoding of the file.

    Returns:
        `tuple`: The table, all text, and where its rows stand.
    """
    lines, source = read_lines(path, encoding=encoding)
    fields = pc.split_pattern(lines, "::")
    num_fields = pc.list_value_length(fields).to_numpy(zero_copy_only=False)
    is_good = num_fields == len(names)
    bad = np.flatnonzero(~is_good)
    flat = fields.filter(pa.array(is_good)).flatten()
    table = pa.table(
        {name: flat.take(pa.array(np.arange(place, len(flat), len(names)))) for place, name in enumerate(names)}
    )
    unreadable = (
        f"{source.name_row(int(bad[0]))}, where the number of fields is {num_fields[bad[0]]}, not {len(names)}"
        if len(bad)
        else None
    )
    good = np.flatnonzero(is_good)
    return table, Source(path.name, lambda row: source.name_row(int(good[row])), len(bad), unreadable)


def _header(data: np.ndarray, delimiter: str) -> list[str]:
    """Cut the first line that is not empty."""
    start = 0
    while start < len(data) and data[start] in b"\r\n":
        start += 1
    end, step = start, 1 << 16
    while end < len(data):
        breaks = np.flatnonzero(np.isin(data[end : end + step], [10, 13]))
        if len(breaks):
            end += int(breaks[0])
            break
        end += step
    line = data[start:end].tobytes().decode(errors="replace")
    # The csv module refuses long fields; a header that long is none.
    return next(python_csv.reader([line[: python_csv.field_size_limit()]], delimiter=delimiter), [])


def _locate(
    path: Path,
    records: Lines,
    num_rows: int,
    has_header: bool,
    bad_rows: list[tuple[int, str]],
    remarks: tuple[str, ...],
) -> Source:
    """Return the line on which a row starts; Arrow numbers records that are not empty from 1, the header included."""
    is_row = np.ones(len(records.numbers), dtype=bool)
    is_row[: int(has_header)] = False
    is_row[[number - 1 for number, _ in bad_rows if number <= len(is_row)]] = False
    lines = records.numbers[is_row]
    are_known = len(lines) == num_rows

    def name_row(row: int) -> str:
        return f"line {lines[row]}" if are_known else f"data row {row} (from 0)"

    unreadable = None
    if bad_rows:
        number, fields = bad_rows[0]
        where = f"line {records.numbers[number - 1]}" if are_known else f"record {number}"
        unreadable = f"{where}, where the number of fields is {fields}"
    return Source(path.name, name_row, len(bad_rows), unreadable, remarks)


__all__ = ["Delimited", "check_delimiter", "open_delimited", "read_delimited", "read_double_colons", "read_lines"]
