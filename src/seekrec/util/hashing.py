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
from xxhash import xxh64_intdigest

from seekrec.util.arrow import is_list, one_array
from seekrec.util.memory_maps import row_blocks

NameT = TypeVar("NameT", bound=str)

# Arrow's bytes are Python objects for a moment, of so many texts at a time.
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

    Args:
        texts (`pyarrow.Array`): Text; null counts as empty.

    Returns:
        `np.ndarray`: uint64, one a text.
    """
    hashes = np.empty(len(texts), dtype=np.uint64)
    for first in range(0, len(texts), _TEXTS_AT_A_TIME):
        # As bytes: texts would be decoded, and encoded again, one by one.
        some = pc.fill_null(texts.slice(first, _TEXTS_AT_A_TIME), "").cast(pa.large_binary()).to_pylist()
        hashes[first : first + len(some)] = np.fromiter(map(xxh64_intdigest, some), np.uint64, count=len(some))
    return hashes


__all__ = [
    "array_digest",
    "file_sha256",
    "hash_fractions",
    "hash_numbers",
    "hash_texts",
    "json_digest",
    "table_digest",
]
