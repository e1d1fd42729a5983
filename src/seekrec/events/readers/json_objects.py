# SPDX-License-Identifier: Apache-2.0
"""Find the objects of a JSON text without parsing it: one per line, consecutive over many lines, or in a list.

Unusual here: brackets and quotes are found for a block of bytes at once, so that a list of any length is read in the
memory of a block, and the starting line of every object is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from seekrec.events.readers.text_files import Lines, find_lines

# Bytes looked at at a time.
_BLOCK = 1 << 23

_QUOTE, _BACKSLASH, _COMMA, _NEWLINE, _OPEN, _CLOSE = (ord(character) for character in '"\\,\n{}')
_IS_SPACE = np.zeros(256, dtype=bool)
_IS_SPACE[[32, 9, 10, 13]] = True


@dataclass(frozen=True, eq=False)
class Objects:
    """Where the objects of a JSON text stand.

    Args:
        records ([`Lines`]): Start and end of each, and the line it starts on.
        is_lines (`bool`): Whether each is a line; if not, an object may span lines, and what stands between two is
            not part of either.
        bad (`tuple[tuple[int, str], ...]`): Line and problem of what stands between objects and belongs to none.
    """

    records: Lines
    is_lines: bool
    bad: tuple[tuple[int, str], ...] = ()


def find_objects(data: np.ndarray) -> Objects:
    """Find the objects of a text.

    Args:
        data (`np.ndarray`): uint8, the text.
    """
    start = 0
    while start < len(data) and _IS_SPACE[data[start]]:
        start += 1
    is_list = start < len(data) and data[start] == ord("[")
    if not is_list:
        lines = find_lines(data).without_empty()
        if not _spans_lines(data, lines):
            return Objects(lines, is_lines=True)
    records, rest = _scan(data, base=int(is_list))
    bad = _check_between(data, records, is_list=is_list)
    if rest is not None:
        bad.append((rest, "which starts an object that does not end"))
    return Objects(records, False, tuple(bad))


def _spans_lines(data: np.ndarray, lines: Lines) -> bool:
    """Return whether the first object continues in the second line."""
    if len(lines.starts) < 2:
        return False
    first, second = (data[lines.starts[row] : lines.ends[row]].tobytes().strip() for row in (0, 1))
    if not first.startswith(b"{") or second.startswith(b"{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return True
    return False


def _scan(data: np.ndarray, base: int) -> tuple[Lines, int | None]:
    """Find the objects at a depth, and the line of one that does not end."""
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    depth, in_string, slashes, num_lines = 0, False, 0, 0
    for at in range(0, len(data), _BLOCK):
        block = np.asarray(data[at : at + _BLOCK])
        # Square and curly brackets differ by one bit.
        curly = block | 0x20
        marks = np.flatnonzero((block == _QUOTE) | (curly == _OPEN) | (curly == _CLOSE))
        values = block[marks]
        is_quote = values == _QUOTE
        escaped, slashes = _find_escaped(block, marks, slashes)
        is_quote &= ~escaped
        # An odd number of quotes before a bracket: it stands in a string. Of a count of quotes the last bit is enough.
        num_quotes = np.cumsum(is_quote, dtype=np.uint8) + np.uint8(in_string)
        outside = np.flatnonzero((values != _QUOTE) & (num_quotes & 1 == 0))
        in_string = bool(num_quotes[-1] & 1) if len(marks) else in_string
        positions, values = marks[outside], values[outside]
        steps = np.where(values | 0x20 == _OPEN, 1, -1)
        after = depth + np.cumsum(steps)
        depth = int(after[-1]) if len(after) else depth
        opens = positions[(values == _OPEN) & (after == base + 1)]
        breaks = np.flatnonzero(block == _NEWLINE)
        starts.append(opens + at)
        numbers.append(num_lines + 1 + np.searchsorted(breaks, opens))
        ends.append(positions[(values == _CLOSE) & (after == base)] + at + 1)
        num_lines += len(breaks)
    first, last, line = (np.concatenate([*parts, []]).astype(np.int64) for parts in (starts, ends, numbers))
    # One that does not end is the last, or what follows it would be inside of it.
    rest = int(line[len(last)]) if len(first) > len(last) else None
    count = min(len(first), len(last))
    return Lines(first[:count], last[:count], line[:count]), rest


def _find_escaped(block: np.ndarray, marks: np.ndarray, slashes: int) -> tuple[np.ndarray, int]:
    """Mark the positions behind an odd number of backslashes.

    Args:
        block (`np.ndarray`): uint8.
        marks (`np.ndarray`): int64 positions in it, ascending.
        slashes (`int`): Number of backslashes right before the block.

    Returns:
        `tuple`: bool for each position; the number of backslashes at the end of the block.
    """
    escaped = np.zeros(len(marks), dtype=bool)
    found = np.flatnonzero(block == _BACKSLASH)
    if len(marks) and marks[0] == 0:
        escaped[0] = slashes % 2 == 1
    if not len(found):
        return escaped, 0
    is_first = np.append(True, found[1:] != found[:-1] + 1)
    firsts = np.flatnonzero(is_first)
    # Of each backslash, how many stand in a row up to it.
    lengths = np.arange(len(found)) - firsts[np.cumsum(is_first) - 1] + 1
    if found[0] == 0:
        lengths[: firsts[1] if len(firsts) > 1 else len(found)] += slashes
    before = np.minimum(np.searchsorted(found, marks - 1), len(found) - 1)
    escaped |= (found[before] == marks - 1) & (lengths[before] % 2 == 1)
    return escaped, int(lengths[-1]) if found[-1] == len(block) - 1 else 0


def _check_between(data: np.ndarray, records: Lines, *, is_list: bool) -> list[tuple[int, str]]:
    """Find what stands between two objects and is neither space nor the one comma of a list."""
    if not len(records.starts):
        return []
    begins, stops = records.ends[:-1], records.starts[1:]
    lengths = stops - begins
    where = np.repeat(begins - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())
    between = data[where]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    commas = np.bincount(owner[between == _COMMA], minlength=len(lengths))
    others = np.bincount(owner[~_IS_SPACE[between] & (between != _COMMA)], minlength=len(lengths))
    wrong = np.flatnonzero((others > 0) | (commas != int(is_list)))
    return [
        (int(records.numbers[row]), "behind which something stands that is not an object") for row in wrong.tolist()
    ]


__all__ = ["Objects", "find_objects"]
