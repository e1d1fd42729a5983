# SPDX-License-Identifier: Apache-2.0
"""Check the folders that logs and splits are saved in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from seekrec.errors import DataError, SeekrecError


def check_files(folder: Path, names: Sequence[str], what: str) -> None:
    """Refuse a folder that lacks a file.

    Raises:
        DataError: Naming the first that is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} contains no {name}: it is not a whole {what}, or saving it was interrupted; save it again."
            )


def read_description(path: Path, version: int, what: str) -> Any:
    """Read the JSON file that describes a saved folder.

    Raises:
        DataError: If another version of the package wrote it.
    """
    description = json.loads(path.read_text(encoding="utf-8"))
    if description.get("version") != version:
        raise DataError(
            f"{path} has version {description.get('version')!r}, this package reads {version}; save the {what} again."
        )
    return description


@contextmanager
def refuse_damage(folder: Path, what: str) -> Iterator[None]:
    """Turn whatever a damaged file raises into one error that names the folder.

    Raises:
        DataError: Instead of what was raised in the block, unless that is an error of ours.
    """
    try:
        yield
    except SeekrecError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"{folder} contains a {what} with a damaged file ({type(error).__name__}: {error}); save it again."
        ) from error
    except pa.ArrowException as error:
        raise DataError(f"{folder} contains a {what} with a damaged table ({error}); save it again.") from error


__all__ = ["check_files", "read_description", "refuse_damage"]
