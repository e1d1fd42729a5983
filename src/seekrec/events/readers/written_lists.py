# SPDX-License-Identifier: Apache-2.0
"""Parse lists written as text, as pandas, numpy and JSON write a column of lists."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Source, is_blank

# A name in single or double quotes, a bracket, or what stands between entries: commas, or only spaces (numpy).
_TOKEN = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([\[\]])|(,)|(None|null|nan))""", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def parse_written_lists(column: pa.Array, name: str, source: Source) -> list[list[list[str]] | None] | None:
    """Read the category paths of texts that are lists.

    Args:
        column (`pyarrow.Array`): Text.
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.

    Returns:
        `list[list[list[str]] | None]`, *optional*: The paths of each row, `None` where its text is not a list;
            `None` if no text is one.

    Raises:
        DataError: If all texts stand in brackets and one of them cannot be read.
    """
    in_brackets = pc.fill_null(pc.match_substring_regex(column, r"(?s)^\s*\[.*\]\s*$"), False)
    if not pc.any(in_brackets).as_py():
        return None
    paths = [
        _parse(text) if is_list else None
        for text, is_list in zip(column.to_pylist(), in_brackets.to_pylist(), strict=True)
    ]
    if pc.all(pc.or_(in_brackets, is_blank(column))).as_py():
        unread = pc.and_(in_brackets, pa.array([one is None for one in paths], pa.bool_()))
        wrong = pc.index(unread, True).as_py()
        if wrong >= 0:
            raise DataError(
                f"{source.name}: column {name!r} contains {column[wrong].as_py()!r:.60} ({source.name_row(wrong)}), a "
                'list without quotes around its entries; write ["Toys", "Cars"] or Toys > Cars.'
            )
    return paths if any(one is not None for one in paths) else None


def _parse(text: str) -> list[list[str]] | None:
    """Read one list of names or of lists of names; `None` if the text is not a list."""
    paths: list[list[str]] = []
    alone: list[str] = []
    depth, position, text = 0, 0, text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        single, double, bracket, _, _ = match.groups()
        if bracket == "[":
            depth += 1
            if depth == 2:
                paths.append([])
        elif bracket == "]":
            depth -= 1
            if depth == 0 and position < len(text):
                return None
        elif single is not None or double is not None:
            (paths[-1] if depth == 2 else alone).append(_unescape(single if single is not None else double))
        if not 0 <= depth <= 2:
            return None
    if depth or (alone and paths):
        return None
    return [alone] if alone else paths


def _unescape(text: str) -> str:
    def of(match: re.Match[str]) -> str:
        escaped = match.group(1)
        if escaped[0] in "ux" and len(escaped) > 1:
            return chr(int(escaped[1:], 16))
        return _ESCAPED.get(escaped, escaped)

    plain = _ESCAPE.sub(of, text)
    # JSON writes what lies beyond the first 65,536 characters as a pair.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


__all__ = ["parse_written_lists"]
