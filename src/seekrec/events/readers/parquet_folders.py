# SPDX-License-Identifier: Apache-2.0
"""Folders of Parquet files as Spark, Hive and DuckDB write them: partition values in names, and column types."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from seekrec.errors import DataError

# What `__HIVE_DEFAULT_PARTITION__` stands for is nothing.
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_HIVE_COLUMN = re.compile(r"([^=/]+)=(.*)")
# Formats that keep a list of the files which count; files of older versions of the table lie next to them.
_LISTS = {"_delta_log": "Delta Lake", "metadata": "Apache Iceberg", ".hoodie": "Apache Hudi"}
_ICEBERG = "*.metadata.json"


def folder_values(path: Path) -> dict[str, str | None]:
    """Return the columns that the folders of a file are named by, such as `day=2024-05-01`.

    They are text: an id 007 is not 7.

    Args:
        path (`Path`): Path of the file below the folder of the table.
    """
    values = {}
    for part in path.parent.parts:
        found = _HIVE_COLUMN.fullmatch(part)
        if found:
            values[unquote(found[1])] = None if found[2] == HIVE_NULL else unquote(found[2])
    return values


def unify_columns(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return the columns of several files: numbers become wide enough for all, a column may be missing in some.

    Times without a zone stand for UTC where other files have it: so Spark writes them as INT96, and with the zone as
    what came after that.

    Raises:
        pyarrow.ArrowException: If columns of one name have types that cannot be one.
    """
    found = list(schemas)
    times = [field for schema in found for field in schema if pa.types.is_timestamp(field.type)]
    zones = {field.name: field.type.tz for field in times if field.type.tz is not None}

    def with_zone(field: pa.Field) -> pa.Field:
        if not pa.types.is_timestamp(field.type) or field.type.tz is not None or field.name not in zones:
            return field
        return field.with_type(pa.timestamp(field.type.unit, zones[field.name]))

    return pa.unify_schemas(
        [pa.schema([with_zone(field) for field in schema]) for schema in found], promote_options="permissive"
    )


def refuse_versioned(folder: Path) -> None:
    """Refuse a folder in which files that were replaced or deleted still lie.

    Raises:
        DataError: If it is a table of Delta Lake, Iceberg or Hudi.
    """
    for name, kind in _LISTS.items():
        if (folder / name).is_dir() and (name != "metadata" or any((folder / name).glob(_ICEBERG))):
            raise DataError(
                f"{folder} is a table of {kind}: files of older versions lie next to the current ones. Export its "
                "current content as plain Parquet (in Spark: table.write.parquet(...)) and name that folder."
            )


__all__ = ["HIVE_NULL", "folder_values", "refuse_versioned", "unify_columns"]
