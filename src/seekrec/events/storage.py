# SPDX-License-Identifier: Apache-2.0
"""What saved logs and splits share: a digest that does not depend on chunks, and the errors of damaged folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError, SeekrecError

_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def check_files(folder: Path, names: Sequence[str], what: str) -> None:
    """Refuse a folder that lacks a file.

    Raises:
        DataError: Naming the first that is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder} holds no {name}: it is no {what}, or saving it was interrupted; save it again.")


@contextmanager
def refuse_damage(folder: Path, what: str) -> Iterator[None]:
    """Give whatever a damaged file makes fail one error that names the folder.

    Raises:
        DataError: Instead of what was raised in the block, unless that is an error of ours.
    """
    try:
        yield
    except SeekrecError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"{folder} holds a {what} with a damaged file ({type(error).__name__}: {error}); save it again."
        ) from error
    except pa.ArrowException as error:
        raise DataError(f"{folder} holds a {what} with a damaged table ({error}); save it again.") from error


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
            column = table.column(name).combine_chunks()
            digest.update(f"{name}:{column.type};".encode())
            _add_array(digest, column)
    return digest.hexdigest()


def _add_array(digest: _Digest, array: pa.Array) -> None:
    """Feed one array to the digest: which values are null, then how long each is (if that varies), then the values."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if array.null_count:
        digest.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
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
