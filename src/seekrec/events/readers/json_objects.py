# SPDX-License-Identifier: Apache-2.0
"""Find the objects of a JSON text without parsing it: one a line, one after the other over many lines, or one list.

What is unusual: brackets and quotes are found for a block of bytes at once, so that a list of any length is read in
the memory of a block, and every object has the line it starts on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from seekrec.events.readers.text_files import Lines, find_lines

# Bytes looked at at a time.
_BLOCK = 1 << 23

_QUOTE, _BACKSLASH, _COMMA, _NEWLINE = 34, 92, 44, 10
_STEP = np.zeros(256, dtype=np.int8)
_STEP[[ord("["), ord("{")]] = 1
_STEP[[ord("]"), ord("}")]] = -1
_IS_MARK = _STEP != 0
_IS_MARK[_QUOTE] = True
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
    records, rest = _scan(data, start, base=int(is_list))
    bad = _check_between(data, start, records, is_list=is_list)
    if rest is not None:
        bad.append((rest, "which starts an object that does not end"))
    return Objects(records, False, tuple(bad))


def _spans_lines(data: np.ndarray, lines: Lines) -> bool:
    """Return whether the first object goes on in the second line."""
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


def _scan(data: np.ndarray, start: int, base: int) -> tuple[Lines, int | None]:
    """Find the objects at a depth, and the line of one that does not end."""
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    depth, in_string, slashes, num_lines = 0, False, 0, 0
    for at in range(0, len(data), _BLOCK):
        block = np.asarray(data[at : at + _BLOCK])
        marks = np.flatnonzero(_IS_MARK[block])
        is_quote = block[marks] == _QUOTE
        # A quote behind an odd number of backslashes is a letter.
        found = np.flatnonzero(block == _BACKSLASH)
        run_before = np.zeros(len(marks), dtype=np.int64)
        if len(found) or slashes:
            is_first = np.append(True, found[1:] != found[:-1] + 1) if len(found) else np.empty(0, dtype=bool)
            firsts = np.flatnonzero(is_first)
            lengths = np.arange(len(found)) - firsts[np.cumsum(is_first) - 1] + 1 if len(found) else found
            if len(found) and found[0] == 0:
                # Goes on from the block before.
                until = firsts[1] if len(firsts) > 1 else len(found)
                lengths[:until] += slashes
            before = np.searchsorted(found, marks - 1)
            hit = (
                (before < len(found)) & (found[np.minimum(before, max(len(found) - 1, 0))] == marks - 1)
                if len(found)
                else np.zeros(len(marks), dtype=bool)
            )
            run_before[hit] = lengths[before[hit]]
            if len(marks) and marks[0] == 0:
                run_before[0] = slashes
            slashes = int(lengths[-1]) if len(found) and found[-1] == len(block) - 1 else 0
        is_quote &= run_before % 2 == 0
        # Whether each mark stands in a string: an odd number of quotes came before it.
        inside = (np.cumsum(is_quote) - is_quote + in_string) % 2 == 1
        steps = np.where(inside | (block[marks] == _QUOTE), 0, _STEP[block[marks]]).astype(np.int64)
        after = depth + np.cumsum(steps)
        opens = (steps == 1) & (after == base + 1) & (block[marks] == ord("{"))
        closes = (steps == -1) & (after == base) & (block[marks] == ord("}"))
        breaks = np.flatnonzero(block == _NEWLINE)
        starts.append(marks[opens] + at)
        numbers.append(num_lines + 1 + np.searchsorted(breaks, marks[opens]))
        ends.append(marks[closes] + at + 1)
        num_lines += len(breaks)
        if len(marks):
            depth = int(after[-1])
            in_string = bool((int(is_quote.sum()) + in_string) % 2)
    first, last, line = (np.concatenate([*parts, []]).astype(np.int64) for parts in (starts, ends, numbers))
    # One that does not end is the last, or what follows it would be inside of it.
    rest = int(line[len(last)]) if len(first) > len(last) else None
    count = min(len(first), len(last))
    return Lines(first[:count], last[:count], line[:count]), rest


def _check_between(data: np.ndarray, start: int, records: Lines, *, is_list: bool) -> list[tuple[int, str]]:
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
    return [(int(records.numbers[row]), "behind which something stands that is no object") for row in wrong.tolist()]


__all__ = ["Objects", "find_objects"]
