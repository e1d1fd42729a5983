# SPDX-License-Identifier: Apache-2.0
"""Text files as UTF-8 bytes, whatever they were written in, and the lines in them.

Nothing is guessed but what a file says of itself by its byte order mark. Bytes that are not UTF-8 are named with their
line.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seekrec.errors import ConfigurationError, DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # The mark of UTF-32 starts with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Bytes looked at or decoded at a time.
_BLOCK = 1 << 24

_LINE_FEED, _RETURN = 10, 13


@dataclass(frozen=True, eq=False)
class Lines:
    """Where the lines, or the records of several lines, of a text stand.

    Args:
        starts (`np.ndarray`): int64 position of the first byte of each.
        ends (`np.ndarray`): int64 position after the last byte of each, without the line break.
        numbers (`np.ndarray`): int64 number of the line on which each starts, from 1.
    """

    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray

    def without_empty(self) -> Lines:
        """Leave out those without a byte."""
        keep = self.ends > self.starts
        return Lines(self.starts[keep], self.ends[keep], self.numbers[keep])


def check_file(path: Path) -> None:
    """Refuse a path that is not a file, and an empty file.

    Raises:
        DataError: Naming the path.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file; check the path.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; a log needs at least one row of it.")


def read_text_bytes(path: Path, *, encoding: str | None = None) -> np.ndarray:
    """Read a text file as UTF-8 without a byte order mark.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        encoding (`str`, *optional*): Encoding of the file; if not given, by its byte order mark, else UTF-8.

    Returns:
        `np.ndarray`: uint8, mapped from the file where nothing had to be changed.

    Raises:
        DataError: If the file is missing, empty, or no text of this encoding. Names the line.
        ConfigurationError: If Python knows no such encoding.
    """
    check_file(path)
    if path.suffix == ".gz":
        try:
            with gzip.open(path, "rb") as file:
                raw = np.frombuffer(file.read(), dtype=np.uint8)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be unpacked: {error}; unpack it, or give it a name without .gz."
            ) from error
    else:
        raw = np.memmap(path, dtype=np.uint8, mode="r")
    marked = next((name for mark, name in _MARKS if raw[: len(mark)].tobytes() == mark), None)
    name = _codec_name(encoding or marked or "utf-8")
    if name == "utf-8" and marked == "utf-8-sig":
        name = marked
    if name not in ("utf-8", "utf-8-sig"):
        return _transcode(raw.tobytes(), name, path)
    text = raw[len(codecs.BOM_UTF8) :] if marked == "utf-8-sig" else raw
    if (text[:1000] == 0).any():
        raise DataError(
            f"{path.name} holds zero bytes in its first characters: it is UTF-16 without a byte order mark, or no "
            "text. Pass `encoding`, such as 'utf-16-le'."
        )
    _check_utf8(text, path)
    return text


def find_lines(data: np.ndarray, *, enclosing: np.ndarray | None = None) -> Lines:
    r"""Find the lines of a text; `\n`, `\r\n` and a lone `\r` end one.

    Args:
        data (`np.ndarray`): uint8, the text.
        enclosing (`np.ndarray`, *optional*): int64 ascending positions of the quotes that enclose fields, opening and
            closing in turn: line breaks between them end no record.

    Returns:
        `Lines`: All lines, empty ones too; with `enclosing`, all records.
    """
    breaks = find_byte(data, _LINE_FEED)
    returns = find_byte(data, _RETURN)
    has_return = np.zeros(len(breaks), dtype=bool)
    if len(returns):
        is_paired = np.zeros(len(returns), dtype=bool)
        followed = returns + 1 < len(data)
        is_paired[followed] = data[returns[followed] + 1] == _LINE_FEED
        breaks = np.sort(np.concatenate([breaks, returns[~is_paired]]))
        after_first = breaks > 0
        has_return = np.zeros(len(breaks), dtype=bool)
        has_return[after_first] = (data[breaks[after_first]] == _LINE_FEED) & (
            data[breaks[after_first] - 1] == _RETURN
        )
    numbers_of_ends = np.arange(1, len(breaks) + 1)
    if enclosing is not None and len(enclosing):
        outside = np.searchsorted(enclosing, breaks) % 2 == 0
        breaks, has_return, numbers_of_ends = breaks[outside], has_return[outside], numbers_of_ends[outside]
    starts = np.concatenate([[0], breaks + 1])
    ends = np.concatenate([breaks - has_return, [len(data)]])
    numbers = np.concatenate([[1], numbers_of_ends + 1])
    if starts[-1] == len(data):
        starts, ends, numbers = starts[:-1], ends[:-1], numbers[:-1]
    return Lines(starts.astype(np.int64), ends.astype(np.int64), numbers.astype(np.int64))


def find_byte(data: np.ndarray, value: int) -> np.ndarray:
    """Return the positions of a byte: int64, ascending."""
    found = [np.flatnonzero(data[at : at + _BLOCK] == value) + at for at in range(0, len(data), _BLOCK)]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _codec_name(encoding: str) -> str:
    try:
        "".encode(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, UnicodeError, TypeError, ValueError):
        raise ConfigurationError(
            f"`encoding` is {encoding!r}, an encoding unknown to Python; use 'utf-8', 'utf-16', 'cp1252', 'latin-1' "
            "or another of its names."
        ) from None


def _transcode(raw: bytes, encoding: str, path: Path) -> np.ndarray:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].decode(encoding, errors="ignore").count("\n") + 1
        raise DataError(
            f"{path.name}, line {line}: byte 0x{raw[error.start]:02x} is not {encoding} text ({error.reason}); pass "
            "another `encoding`."
        ) from None
    return np.frombuffer(text.removeprefix("\ufeff").encode(errors="replace"), dtype=np.uint8)


def _check_utf8(data: np.ndarray, path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    try:
        for done in range(0, len(data), _BLOCK):
            pending = len(decoder.getstate()[0])
            decoder.decode(data[done : done + _BLOCK].tobytes(), final=done + _BLOCK >= len(data))
    except UnicodeDecodeError as error:
        position = done - pending + error.start
        line = int((find_lines(data[:position]).starts <= position).sum())
        line = max(line, 1) + bool(position and data[position - 1] in (_LINE_FEED, _RETURN))
        raise DataError(
            f"{path.name}, line {line}: byte 0x{int(data[position]):02x} is not UTF-8 text ({error.reason}). Pass the "
            "file's `encoding`, such as 'cp1252' or 'latin-1' (Western Europe), 'gb18030' or 'utf-16'."
        ) from None


__all__ = ["Lines", "check_file", "find_byte", "find_lines", "read_text_bytes"]
