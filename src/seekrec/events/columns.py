# SPDX-License-Identifier: Apache-2.0
"""Columns of outside files turned into ours: ids, timestamps, texts, category paths.

A column of the wrong type raises; single values that cannot be used become null and are reported as findings, so that
the reader's cap on refused rows decides. Everything works on whole columns.
"""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Finding, Source, is_blank, is_text, one_array

# 10**11 seconds is the year 5138; anything larger counts milliseconds or finer.
MAX_SECONDS = 10**11

_TAGS = r"</?[A-Za-z][^<>]*>|<!--.*?-->"


def to_ids(column: pa.ChunkedArray, name: str, source: Source) -> pa.Array:
    """Turn a column into ids: text as it is (empty becomes null), whole numbers as their digits.

    Args:
        column (`pyarrow.ChunkedArray`): Text, integers, or floats that are all whole (what pandas makes of integers
            with gaps).
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.

    Raises:
        DataError: If the type is another, or a float is not whole.
    """
    array = _decoded(column)
    if pa.types.is_floating(array.type):
        filled = pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False)
        if not (np.isnan(filled) | (filled == np.floor(filled))).all():
            raise DataError(_wrong_type(column, name, source, "text or whole numbers"))
        array = pa.array(filled, mask=np.isnan(filled) | np.asarray(array.is_null())).cast(pa.int64())
    if pa.types.is_integer(array.type) or pa.types.is_null(array.type):
        return array.cast(pa.string())
    if not is_text(array.type):
        raise DataError(_wrong_type(column, name, source, "text or whole numbers"))
    text = array.cast(pa.string())
    return pc.if_else(is_blank(text), pa.scalar(None, pa.string()), text)


def to_text(column: pa.ChunkedArray, name: str, source: Source) -> pa.Array:
    """Turn a column into text; empty text becomes null.

    Raises:
        DataError: If the column holds neither text nor integers.
    """
    array = _decoded(column)
    if not (is_text(array.type) or pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        raise DataError(_wrong_type(column, name, source, "text"))
    text = array.cast(pa.string())
    return pc.if_else(is_blank(text), pa.scalar(None, pa.string()), text)


def to_seconds(column: pa.ChunkedArray, name: str, source: Source) -> tuple[pa.Array, list[Finding]]:
    """Turn a column into seconds since the epoch, UTC.

    Numbers (also written as text) are seconds, fractions are cut off; dates and times, and ISO 8601 text, count as UTC
    where they name no zone.

    Returns:
        `tuple`: int64 array, null where there was nothing or nothing usable; the findings about the latter.

    Raises:
        DataError: If the type is none of these, if no text can be read, or if most numbers are too large for seconds.
    """
    array = _decoded(column)
    if is_text(array.type):
        values, is_bad = _seconds_of_text(array.cast(pa.string()))
        if is_bad.any() and not (~is_bad & ~np.asarray(array.is_null())).any():
            first = array[int(np.flatnonzero(is_bad)[0])].as_py()
            raise DataError(
                f"{source.name}: column {name!r} holds {first!r}, which is no time; give seconds since 1970 or ISO "
                "8601, such as 2019-01-31T12:00:00Z."
            )
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        values = pc.fill_null(array, 0).to_numpy(zero_copy_only=False).astype(np.float64)
        is_bad = ~np.isfinite(values)
    elif pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        seconds = array.cast(pa.timestamp("s", tz=getattr(array.type, "tz", None)), safe=False).cast(pa.int64())
        return seconds, []
    elif pa.types.is_null(array.type):
        return array.cast(pa.int64()), []
    else:
        raise DataError(_wrong_type(column, name, source, "integers, ISO 8601 text or dates"))
    is_null = np.asarray(array.is_null())
    _check_unit(values[~is_bad & ~is_null], name, source)
    is_late = ~is_bad & (values > MAX_SECONDS)
    unusable = is_bad | is_late | is_null
    seconds = pa.array(np.floor(np.where(unusable, 0, values)).astype(np.int64), mask=unusable)
    findings = [
        Finding("have a timestamp that is no time", np.flatnonzero(is_bad & ~is_null), name, column),
        Finding("have a timestamp too large for seconds", np.flatnonzero(is_late & ~is_null), name, column),
    ]
    return seconds, [finding for finding in findings if len(finding.rows)]


def to_category_paths(column: pa.ChunkedArray, name: str, source: Source, *, separator: str) -> pa.Array:
    """Turn a column into category paths.

    Args:
        column (`pyarrow.ChunkedArray`): Lists of paths; or lists of names, one path a row; or text, one path a row
            with the names between `separator`.
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.
        separator (`str`): What stands between two names of a path in text.

    Returns:
        `pyarrow.Array`: list of list of string; null where the row has no path. Names are trimmed.

    Raises:
        DataError: If the type is none of these.
    """
    array = _decoded(column)
    kind = array.type
    if pa.types.is_null(kind):
        return array.cast(pa.list_(pa.list_(pa.string())))
    if is_text(kind):
        array = array.cast(pa.string())
        array = pc.split_pattern(pc.if_else(is_blank(array), pa.scalar(None, pa.string()), array), separator)
        kind = array.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list and is_text(kind.value_type):
        names = pc.utf8_trim_whitespace(array.flatten().cast(pa.string()))
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        path_ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        paths = pa.ListArray.from_arrays(pa.array(path_ends), names)
        # One path a row, none where the row has no names.
        row_ends = np.concatenate([[0], np.cumsum(lengths > 0)]).astype(np.int32)
        rows = pa.ListArray.from_arrays(pa.array(row_ends), paths.filter(pa.array(lengths > 0)))
        return pc.if_else(pa.array(lengths > 0), rows, pa.scalar(None, rows.type))
    try:
        return array.cast(pa.list_(pa.list_(pa.string())))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            _wrong_type(column, name, source, "lists of category paths, lists of names, or text")
        ) from error


def clean_text(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Strip markup from text: tags go, HTML entities become characters, white space becomes single spaces.

    Text without any letter or digit left becomes null.
    """
    text = one_array(column).cast(pa.string())
    if pc.any(pc.match_substring(text, "&")).as_py():
        text = pa.array([html.unescape(value) if value and "&" in value else value for value in text.to_pylist()])
    text = pc.replace_substring_regex(text.cast(pa.string()), _TAGS, " ")
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, r"[\s\p{Z}]+", " "))
    return pc.if_else(pc.match_substring_regex(text, r"[\p{L}\p{N}]"), text, pa.scalar(None, pa.string()))


def to_numbers(text: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Read decimal numbers written as text.

    Returns:
        `np.ndarray`: float64; NaN where the text is null or no number.
    """
    array = pc.utf8_trim_whitespace(one_array(text).cast(pa.string()))
    is_number = pc.match_substring_regex(array, r"^[+-]?[0-9]{1,30}(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?$")
    numbers = pc.if_else(is_number, array, pa.scalar(None, pa.string())).cast(pa.float64())
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def _seconds_of_text(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Give float64 seconds and a bool array of texts (not nulls) that are no time."""
    values = to_numbers(text)
    rest = np.isnan(values) & ~np.asarray(text.is_null())
    if rest.any():
        times = pd.to_datetime(
            pd.Series(text.filter(pa.array(rest)).to_pylist(), dtype=object),
            format="ISO8601",
            utc=True,
            errors="coerce",
        )
        seconds = times.dt.as_unit("s").to_numpy(dtype="datetime64[s]").astype(np.int64).astype(np.float64)
        values[rest] = np.where(times.isna(), np.nan, seconds)
    return values, np.isnan(values) & ~np.asarray(text.is_null())


def _check_unit(values: np.ndarray, name: str, source: Source) -> None:
    late = values[values > MAX_SECONDS]
    if 2 * len(late) <= len(values):
        return
    median = float(np.median(late))
    unit, factor = next(
        (unit, factor)
        for unit, factor in (("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9))
        if median <= MAX_SECONDS * factor or factor == 10**9
    )
    raise DataError(
        f"{source.name}: column {name!r} holds {int(late[0])}, which looks like {unit}; timestamps are seconds "
        f"since 1970, so divide the column by {factor}."
    )


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    array = one_array(column)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _wrong_type(column: pa.ChunkedArray, name: str, source: Source, expected: str) -> str:
    first = next((value.as_py() for value in column if value.is_valid), None)
    return (
        f"{source.name}: column {name!r} has type {column.type} (first value {first!r:.60}); it must hold {expected}. "
        "Convert it, or map another column."
    )
