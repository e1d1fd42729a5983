# SPDX-License-Identifier: Apache-2.0
r"""Detect the meaning of quotes in a delimited file: there are three conventions, and files do not name theirs.

- `doubled`: as RFC 4180 and pandas write it. Quotes enclose a field that contains a delimiter, a line break or a
  quote, and a quote inside is doubled.
- `escaped`: as Spark, Hive and MySQL write it: the same, but `\"` inside.
- `none`: a quote is a letter, as in most published `.tsv` files.

A file is `doubled` or `escaped` if *every* quote in it obeys the rule; otherwise quotes of tab-separated files are
letters, and in other files those that enclose no field are. If two readings are equally good, an error asks the user.
Positions are found for the whole file at once; only files that obey no rule are scanned quote by quote.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from seekrec.errors import DataError
from seekrec.events.checks import check_choice
from seekrec.events.readers.text_files import find_byte, find_lines

Quoting = Literal["doubled", "escaped", "none"]

_QUOTE, _BACKSLASH = 34, 92


@dataclass(frozen=True, eq=False)
class Quoted:
    """A text whose enclosing quotes are known.

    Args:
        data (`np.ndarray`): uint8, what Arrow is to read.
        mark (`str`, *optional*): The character that encloses fields in `data`; `None` if none does.
        is_doubled (`bool`): Whether `mark` twice inside a field stands for one.
        enclosing (`np.ndarray`): int64 positions *in the file* of the quotes that enclose fields, opening and closing
            in turn.
        remarks (`tuple[str, ...]`): Remarks on how the quotes were read, without any value.
    """

    data: np.ndarray
    mark: str | None
    is_doubled: bool
    enclosing: np.ndarray
    remarks: tuple[str, ...] = ()


def apply_quoting(
    data: np.ndarray, path: Path, *, delimiter: str, num_fields: int, quoting: Quoting | None = None
) -> Quoted:
    """Find the quotes that enclose fields, and return a text in which nothing else looks like one.

    Args:
        data (`np.ndarray`): uint8, the file as UTF-8.
        path (`Path`): The file, for messages.
        delimiter (`str`): Character between fields.
        num_fields (`int`): Fields of a row, as the header has them.
        quoting (`str`, *optional*): Convention of the quotes; found from the file if not given.

    Raises:
        DataError: If a field in quotes spans lines of which each could be a row, and `quoting` is not given.
        ConfigurationError: If `quoting` is unknown.
    """
    if quoting is not None:
        check_choice("quoting", quoting, get_args(Quoting))
    quotes = find_byte(data, _QUOTE)
    as_letters = Quoted(data, None, False, np.empty(0, dtype=np.int64))
    if quoting == "none" or not len(quotes):
        return as_letters
    text = _Text(data, path, delimiter, num_fields)
    if quoting != "escaped" and text.is_well_paired(quotes, may_double=True):
        if quoting is None:
            text.refuse_if_rows_may_be_enclosed(quotes)
            if delimiter == "\t" and not text.needs_quotes(quotes):
                return Quoted(data, None, False, as_letters.enclosing, text.remark_on_letters(quotes))
        return Quoted(data, '"', True, quotes)
    if quoting != "doubled":
        is_escaped, dropped = text.find_escapes(quotes)
        unescaped = quotes[~is_escaped]
        if quoting == "escaped" or (is_escaped.any() and text.is_well_paired(unescaped, may_double=False)):
            if quoting is None:
                text.refuse_if_rows_may_be_enclosed(unescaped)
                enclosing = unescaped
            else:
                enclosing, _ = text.walk(unescaped, may_double=False, may_span=True)
            # Outside of quotes a backslash before another is one of two letters: Spark writes them so.
            is_dropped = (np.searchsorted(enclosing, dropped) % 2 == 1) | (data[dropped + 1] == _QUOTE)
            return text.marked(enclosing, dropped[is_dropped], ())
    if quoting is None and delimiter == "\t":
        return Quoted(data, None, False, as_letters.enclosing, text.remark_on_letters(quotes))
    enclosing, doubled = text.walk(quotes, may_double=True, may_span=quoting is not None)
    letters = np.setdiff1d(quotes, np.concatenate([enclosing, doubled, doubled - 1]), assume_unique=True)
    return text.marked(enclosing, doubled, text.remark_on_letters(letters) if quoting is None else ())


class _Text:
    def __init__(self, data: np.ndarray, path: Path, delimiter: str, num_fields: int) -> None:
        self.data, self.path, self.num_fields, self.delimiter = data, path, num_fields, ord(delimiter)
        self.lines = find_lines(data)
        self._is_row: np.ndarray | None = None

    def _opens(self, quotes: np.ndarray) -> np.ndarray:
        before = self.data[np.maximum(quotes - 1, 0)]
        return (quotes == 0) | (before == self.delimiter) | (before == 10) | (before == 13)

    def _closes(self, quotes: np.ndarray) -> np.ndarray:
        after = self.data[np.minimum(quotes + 1, len(self.data) - 1)]
        at_end = quotes == len(self.data) - 1
        return at_end | (after == self.delimiter) | (after == 10) | (after == 13)

    def is_well_paired(self, quotes: np.ndarray, *, may_double: bool) -> bool:
        """Return whether each odd quote stands at the start of a field and each even one at its end.

        A quote that stands twice inside a field closes it and opens it again at once.
        """
        if len(quotes) % 2:
            return False
        opening, closing = quotes[::2], quotes[1::2]
        opens, closes = self._opens(opening), self._closes(closing)
        if may_double:
            is_twice = opening[1:] == closing[:-1] + 1
            opens[1:] |= is_twice
            closes[:-1] |= is_twice
        return bool(opens.all() and closes.all())

    def needs_quotes(self, quotes: np.ndarray) -> bool:
        """Return whether well paired quotes cannot be letters.

        They cannot if a field contains two in a row, a delimiter or a line break, or if names of columns stand in
        them.
        """
        opening, closing = quotes[::2], quotes[1::2]
        if (opening[1:] == closing[:-1] + 1).any() or bool(opening[0] <= self.lines.without_empty().starts[0]):
            return True
        for value in (self.delimiter, 10, 13):
            if (np.searchsorted(quotes, find_byte(self.data, value)) % 2 == 1).any():
                return True
        return False

    def _rows_before(self) -> np.ndarray:
        """Count the lines before each line that have the right number of fields if quotes are letters."""
        if self._is_row is None:
            delimiters = find_byte(self.data, self.delimiter)
            in_line = np.searchsorted(delimiters, self.lines.ends) - np.searchsorted(delimiters, self.lines.starts)
            self._is_row = np.concatenate([[0], np.cumsum(in_line == self.num_fields - 1)])
        return self._is_row

    def _line_of(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.lines.starts, positions, side="right") - 1

    def refuse_if_rows_may_be_enclosed(self, enclosing: np.ndarray) -> None:
        """Raise where a quoted field spans lines that could each be a row, and ask which is meant."""
        first, last = self._line_of(enclosing[::2]), self._line_of(enclosing[1::2])
        spans = np.flatnonzero(last > first)
        if self.num_fields < 2 or not len(spans):
            return
        first, last = first[spans], last[spans]
        rows = self._rows_before()
        are_rows = np.flatnonzero(rows[last + 1] - rows[first] == last + 1 - first)
        if len(are_rows):
            begin, end = int(first[are_rows[0]]) + 1, int(last[are_rows[0]]) + 1
            raise DataError(
                f"{self.path.name}: the quotes on lines {begin} and {end} may enclose one field of {end - begin + 1} "
                "lines, or be letters of rows that are each one line. Pass quoting='doubled' for the former, "
                "quoting='none' for the latter (`--quote` of a command)."
            )

    def find_escapes(self, quotes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mark the quotes behind an odd number of backslashes, and find the backslashes that only escape."""
        slashes = find_byte(self.data, _BACKSLASH)
        if not len(slashes):
            return np.zeros(len(quotes), dtype=bool), slashes
        starts_run = np.append(True, slashes[1:] != slashes[:-1] + 1)
        in_run = np.arange(len(slashes)) - np.flatnonzero(starts_run)[np.cumsum(starts_run) - 1]
        # The first, third, ... of a run escapes what follows: the next backslash, or a quote.
        before_quote = np.searchsorted(slashes, quotes - 1)
        before_quote = np.minimum(before_quote, len(slashes) - 1)
        is_escaped = (slashes[before_quote] == quotes - 1) & (in_run[before_quote] % 2 == 0)
        after = self.data[np.minimum(slashes + 1, len(self.data) - 1)]
        escapes = (in_run % 2 == 0) & ((after == _BACKSLASH) | (after == _QUOTE))
        return is_escaped, slashes[escapes]

    def walk(self, quotes: np.ndarray, *, may_double: bool, may_span: bool) -> tuple[np.ndarray, np.ndarray]:
        """Go from quote to quote; one that encloses no field is a letter.

        Args:
            quotes (`np.ndarray`): int64 positions.
            may_double (`bool`): Whether two in a row inside a field stand for one.
            may_span (`bool`): Whether a field may span lines of which each could be a row.

        Returns:
            `tuple`: int64 positions of the enclosing quotes; of the second of two in a row inside fields.
        """
        opens, closes = self._opens(quotes).tolist(), self._closes(quotes).tolist()
        line_of, rows = self._line_of(quotes).tolist(), self._rows_before()
        positions = quotes.tolist()
        enclosing: list[int] = []
        doubled: list[int] = []
        number, count = 0, len(positions)
        while number < count:
            if not opens[number]:
                number += 1
                continue
            place, twice = number + 1, []
            while may_double and place + 1 < count and positions[place + 1] == positions[place] + 1:
                twice.append(positions[place + 1])
                place += 2
            is_closed = place < count and closes[place]
            if is_closed and line_of[place] > line_of[number] and not may_span and self.num_fields > 1:
                num_lines = line_of[place] - line_of[number] + 1
                is_closed = rows[line_of[place] + 1] - rows[line_of[number]] < num_lines
            if is_closed:
                enclosing += [positions[number], positions[place]]
                doubled += twice
                number = place + 1
            else:
                number += 1
        return np.array(enclosing, dtype=np.int64), np.array(doubled, dtype=np.int64)

    def marked(self, enclosing: np.ndarray, dropped: np.ndarray, remarks: tuple[str, ...]) -> Quoted:
        """Write a character that the file does not hold for the enclosing quotes, and leave the dropped bytes out."""
        free = next((value for value in (*range(1, 9), *range(14, 31)) if not (self.data == value).any()), None)
        if free is None:
            raise DataError(f"{self.path.name} contains every control character: it is not text. Check the file.")
        data = np.array(self.data)
        data[enclosing] = free
        return Quoted(np.delete(data, dropped), chr(free), False, enclosing, remarks)

    def remark_on_letters(self, letters: np.ndarray) -> tuple[str, ...]:
        if not len(letters):
            return ()
        line = int(self._line_of(letters[:1])[0]) + 1
        return (
            f'{self.path.name}: {len(letters)} quotes (") were taken for letters (first: line {line}); if they '
            "enclose fields, pass quoting='doubled' (`--quote` of a command).",
        )


__all__ = ["Quoted", "Quoting", "apply_quoting"]
