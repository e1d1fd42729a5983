# SPDX-License-Identifier: Apache-2.0
"""Read text files of any encoding as UTF-8 bytes, and count the lines in them.

An encoding is only detected from a byte order mark, or from the zeros of UTF-16. Bytes that are not UTF-8 are reported
with their line.
"""

from __future__ import annotations

import codecs
import gzip
import tempfile
import zlib
from collections.abc import Iterator
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


@dataclass(frozen=True, eq=False)
class Text:
    """Content of a text file.

    Args:
        data (`np.ndarray`): uint8, the text as UTF-8 without a byte order mark, mapped from a file.
        encoding (`str`): Encoding of the file, as Python names it.
    """

    data: np.ndarray
    encoding: str


def open_text(path: Path, *, encoding: str | None = None) -> Text:
    """Open a text file as UTF-8 without a byte order mark.

    What has to be unpacked or written again goes through a temporary file a block at a time, not through memory.

    Args:
        path (`Path`): The file; a name that ends in `.gz` is unpacked.
        encoding (`str`, *optional*): Encoding of the file. If not given: what its byte order mark says; UTF-16 where
            every other byte of its start is zero; else UTF-8.

    Raises:
        DataError: If the file is missing, empty, or no text of this encoding. Names the line.
        ConfigurationError: If Python knows no such encoding.
    """
    check_file(path)
    raw = _map(_unpacked(path)) if path.suffix == ".gz" else np.memmap(path, dtype=np.uint8, mode="r")
    if not len(raw):
        raise DataError(f"{path} is empty; a log needs at least one row of it.")
    marked = next((name for mark, name in _MARKS if raw[: len(mark)].tobytes() == mark), None)
    name = _codec_name(encoding or marked or _guess_wide(raw) or "utf-8")
    if name not in ("utf-8", "utf-8-sig"):
        return Text(_map(_transcoded(raw, name, path)), name)
    text = raw[len(codecs.BOM_UTF8) :] if marked == "utf-8-sig" else raw
    if (text[:1000] == 0).any():
        raise DataError(
            f"{path.name} contains zero bytes in its first characters: it is UTF-16 without a byte order mark, or not "
            "text. Pass `encoding`, such as 'utf-16-le'."
        )
    _check_utf8(text, path)
    return Text(text, name)


def _guess_wide(raw: np.ndarray) -> str | None:
    """Return the name of UTF-16 without a byte order mark, whose letters of ASCII have every other byte zero."""
    pairs = np.asarray(raw[:2000])[: len(raw[:2000]) // 2 * 2].reshape(-1, 2) == 0
    even, odd = pairs.mean(axis=0) if len(pairs) else (0.0, 0.0)
    if even == 0 and odd > 0.5:
        return "utf-16-le"
    return "utf-16-be" if odd == 0 and even > 0.5 else None


def _unpacked(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; unpack it, or give it a name without .gz.") from error


def _map(blocks: Iterator[bytes]) -> np.ndarray:
    """Map bytes from a temporary file that is gone when nothing uses them."""
    with tempfile.TemporaryFile() as file:
        for block in blocks:
            file.write(block)
        file.flush()
        # An empty file cannot be mapped.
        return np.memmap(file, dtype=np.uint8, mode="r") if file.tell() else np.empty(0, dtype=np.uint8)


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


def _transcoded(raw: np.ndarray, encoding: str, path: Path) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    num_lines, is_start = 0, True
    for at in range(0, len(raw), _BLOCK):
        block = raw[at : at + _BLOCK].tobytes()
        try:
            text = decoder.decode(block, final=at + _BLOCK >= len(raw))
        except UnicodeDecodeError as error:
            line = num_lines + error.object[: error.start].decode(encoding, errors="ignore").count("\n") + 1
            raise DataError(
                f"{path.name}, line {line}: byte 0x{error.object[error.start]:02x} is not {encoding} text "
                f"({error.reason}); pass another `encoding`."
            ) from None
        num_lines += text.count("\n")
        yield (text.removeprefix("\ufeff") if is_start else text).encode(errors="replace")
        is_start = is_start and not text


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


__all__ = ["Lines", "Text", "check_file", "find_byte", "find_lines", "open_text"]
