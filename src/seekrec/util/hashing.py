# SPDX-License-Identifier: Apache-2.0
"""Digests of files, JSON, arrays and tables, and hashes of numbers: the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seekrec.util.arrow import is_list, one_array
from seekrec.util.memory_maps import row_blocks

NameT = TypeVar("NameT", bound=str)

# The five primes of XXH64.
_XXH = tuple(
    np.uint64(prime)
    for prime in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)
_TEXTS_AT_A_TIME = 1 << 16

_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def file_sha256(path: str | Path) -> str:
    """Compute the SHA-256 of a file's bytes.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_sha256(path: str | Path) -> str:
    """Compute the SHA-256 of the names and contents of the files in a folder and below.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    folder, digest = Path(path), hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}:{file_sha256(file)};".encode())
    return digest.hexdigest()


def json_digest(content: object) -> str:
    """Compute the SHA-256 of what can be written as JSON, whatever the order of its keys: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def array_digest(arrays: Mapping[NameT, np.ndarray], *, dtype: type[np.floating] | None = None) -> str:
    """Compute the SHA-256 of named arrays: names, types, shapes and values, whatever their order.

    Args:
        arrays (`Mapping[str, np.ndarray]`): The arrays, in memory or mapped.
        dtype (`type`, *optional*): What they are taken for, a block at a time; their own types if not given.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.atleast_1d(arrays[name])
        kind = array.dtype if dtype is None else np.dtype(dtype)
        digest.update(f"{name}:{kind.str}:{array.shape};".encode())
        for _, block in row_blocks(array):
            digest.update(np.ascontiguousarray(block, kind).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def table_digest(*tables: pa.Table) -> str:
    """Compute the SHA-256 of the names, types and values of tables.

    Equal values give equal digests however the tables are chunked or sliced and whatever lies under their nulls.

    Args:
        tables (`pyarrow.Table`): The tables, in order.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for table in tables:
        digest.update(f"{table.num_rows};".encode())
        for name in table.column_names:
            column = one_array(table.column(name))
            digest.update(f"{name}:{column.type};".encode())
            _add_array(digest, column)
    return digest.hexdigest()


def _add_array(digest: _Digest, array: pa.Array) -> None:
    """Feed one array to the digest: which values are null, then how long each is (if that varies), then the values."""
    kind = array.type
    if array.null_count:
        digest.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
    if is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        _add_array(digest, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        filled = pc.fill_null(array, "").cast(pa.large_string())
        _, offset_buffer, text = filled.buffers()
        offsets = np.frombuffer(offset_buffer, dtype="<i8")[filled.offset : filled.offset + len(filled) + 1]
        digest.update(np.diff(offsets).tobytes())
        digest.update(memoryview(text)[offsets[0] : offsets[-1]] if text is not None and len(filled) else b"")
    elif pa.types.is_boolean(kind):
        digest.update(np.packbits(pc.fill_null(array, False).to_numpy(zero_copy_only=False)).tobytes())
    elif pa.types.is_primitive(kind) and kind.bit_width in _UNSIGNED:
        bits = array.view(_UNSIGNED[kind.bit_width])
        digest.update(np.ascontiguousarray(pc.fill_null(bits, 0).to_numpy(zero_copy_only=False)).tobytes())
    else:
        digest.update(repr(array.to_pylist()).encode())


def hash_fractions(*parts: int | np.ndarray) -> NDArray[np.float64]:
    """Hash columns of integers, as [`hash_numbers`], to numbers from 0 up to 1."""
    return hash_numbers(*parts) / float(2**64)


def hash_numbers(*parts: int | np.ndarray) -> NDArray[np.uint64]:
    """Hash columns of integers to evenly spread 64 bit numbers (the finaliser of splitmix64 over each part).

    Args:
        parts (`int` or `np.ndarray`): Integers that broadcast to one shape; at least one is an array.

    Returns:
        `np.ndarray`: uint64.
    """
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = state ^ np.atleast_1d(np.asarray(part)).astype(np.uint64)
        state = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def hash_texts(texts: pa.Array) -> NDArray[np.uint64]:
    """Compute XXH64 (seed 0) of the UTF-8 bytes of each text.

    The package `xxhash` has no function for whole columns: this one gives the same numbers without a Python object
    for each text.

    Args:
        texts (`pyarrow.Array`): Text; null counts as empty.

    Returns:
        `np.ndarray`: uint64, one a text.
    """
    filled = pc.fill_null(texts, "").cast(pa.large_string())
    _, offset_buffer, text_buffer = filled.buffers()
    offsets = np.frombuffer(offset_buffer, dtype="<i8")[filled.offset : filled.offset + len(filled) + 1]
    text = np.frombuffer(text_buffer, dtype=np.uint8) if text_buffer is not None else np.empty(0, dtype=np.uint8)
    lengths = np.diff(offsets)
    hashes = np.empty(len(filled), dtype=np.uint64)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        for first in range(0, len(rows), _TEXTS_AT_A_TIME):
            some = rows[first : first + _TEXTS_AT_A_TIME]
            if length:
                letters = np.lib.stride_tricks.sliding_window_view(text, length)[offsets[some]]
            else:
                letters = np.empty((len(some), 0), dtype=np.uint8)
            hashes[some] = _xxh64(letters)
    return hashes


def _xxh64(letters: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash texts of one length, uint8 of shape `(num_texts, length)`; the steps are those of XXH64's specification."""
    length = letters.shape[1]

    def words(start: int, count: int, kind: str) -> NDArray[np.uint64]:
        """Read `count` little-endian numbers of each text: uint64 of shape `(count, num_texts)`."""
        size = np.dtype(kind).itemsize
        part = np.ascontiguousarray(letters[:, start : start + count * size])
        return part.view(kind).astype(np.uint64).T

    def mixed(lane: NDArray[np.uint64], word: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return _rotated(lane + word * _XXH[1], 31) * _XXH[0]

    state: NDArray[np.uint64] = np.full(len(letters), length, dtype=np.uint64)
    stripes = length // 32 * 32
    if stripes:
        first, second = int(_XXH[0]), int(_XXH[1])
        lanes = [
            np.full(len(letters), start % 2**64, dtype=np.uint64) for start in (first + second, second, 0, -first)
        ]
        for number, word in enumerate(words(0, stripes // 8, "<u8")):
            lanes[number % 4] = mixed(lanes[number % 4], word)
        merged = np.zeros(len(letters), dtype=np.uint64)
        for lane, turn in zip(lanes, (1, 7, 12, 18), strict=True):
            merged += _rotated(lane, turn)
        for lane in lanes:
            merged = (merged ^ mixed(np.zeros_like(lane), lane)) * _XXH[0] + _XXH[3]
        state += merged
    else:
        state += _XXH[4]
    eights = (length - stripes) // 8
    for word in words(stripes, eights, "<u8"):
        state = _rotated(state ^ mixed(np.zeros_like(word), word), 27) * _XXH[0] + _XXH[3]
    place = stripes + eights * 8
    if length - place >= 4:
        state = _rotated(state ^ words(place, 1, "<u4")[0] * _XXH[0], 23) * _XXH[1] + _XXH[2]
        place += 4
    for letter in words(place, length - place, "u1"):
        state = _rotated(state ^ letter * _XXH[4], 11) * _XXH[0]
    state = (state ^ (state >> np.uint64(33))) * _XXH[1]
    state = (state ^ (state >> np.uint64(29))) * _XXH[2]
    return state ^ (state >> np.uint64(32))


def _rotated(values: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


__all__ = [
    "array_digest",
    "file_sha256",
    "hash_fractions",
    "hash_numbers",
    "hash_texts",
    "json_digest",
    "table_digest",
]
