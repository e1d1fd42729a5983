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
from seekrec.events.checks import Finding, Source, is_blank
from seekrec.events.readers.written_lists import parse_written_lists
from seekrec.schema import MAX_SECONDS, name_time_unit
from seekrec.util.arrow import is_list, is_text, one_array

# A number with an exponent that stands for a long id: its last digits are lost.
_ROUNDED_ID = r"^[0-9]\.[0-9]+[eE]\+[0-9]+$"

# Numbers that are not seconds. Days since 1970 or (spreadsheets) 1900, from 1990 or 1920 to 2100.
_YEARS = (1900, 2100)
_DAYS = (7_305, 73_050)
_OR_POSITIONS = "If the numbers are positions in an order, pass has_time=False."

_TAGS = r"</?[A-Za-z][^<>]*>|<!--.*?-->"


def to_ids(column: pa.ChunkedArray, name: str, source: Source) -> pa.Array:
    """Turn a column into ids: text as it is (empty becomes null), whole numbers as their digits.

    A column of text in which every id is a number that ends in ".0" holds whole numbers that pandas took for floats.

    Args:
        column (`pyarrow.ChunkedArray`): Text, integers, or floats that are all whole (what pandas makes of integers
            with gaps).
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.

    Raises:
        DataError: If the type is another, or a float is not whole or too large to name one integer only (2**53 for
            float64, 2**24 for float32, 2**11 for float16), also where it is written as text (1.03e+17).
    """
    array = _decoded(column)
    if pa.types.is_floating(array.type):
        exact_below = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}[array.type.bit_width]
        filled = pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False).astype(np.float64)
        if not (np.isnan(filled) | (filled == np.floor(filled))).all():
            raise DataError(_wrong_type(column, name, source, "text or whole numbers"))
        too_large = np.flatnonzero(np.abs(np.nan_to_num(filled, nan=0.0)) >= exact_below)
        if len(too_large):
            raise DataError(
                _rounded(name, source, int(too_large[0]), repr(float(filled[too_large[0]])), str(array.type))
            )
        array = pa.array(filled, mask=np.isnan(filled) | np.asarray(array.is_null())).cast(pa.int64())
    if pa.types.is_integer(array.type) or pa.types.is_null(array.type):
        return array.cast(pa.string())
    if not is_text(array.type):
        raise DataError(_wrong_type(column, name, source, "text or whole numbers"))
    text = array.cast(pa.string())
    rounded = np.flatnonzero(pc.fill_null(pc.match_substring_regex(text, _ROUNDED_ID), False))
    if len(rounded):
        raise DataError(_rounded(name, source, int(rounded[0]), text[int(rounded[0])].as_py(), "text"))
    text = pc.if_else(is_blank(text), pa.scalar(None, pa.string()), text)
    # What pandas writes of integers with gaps; digits that a float tells apart, as above.
    if text.null_count < len(text) and pc.all(pc.match_substring_regex(text, r"^[0-9]{1,15}\.0$")).as_py():
        text = pc.replace_substring(text, ".0", "", max_replacements=1)
    return text


def to_text(column: pa.ChunkedArray, name: str, source: Source) -> pa.Array:
    """Turn a column into text; empty text becomes null, lists of text become their entries with spaces between.

    Raises:
        DataError: If the column holds neither text nor integers.
    """
    array = _decoded(column)
    if is_list(array.type) and (is_text(array.type.value_type) or pa.types.is_null(array.type.value_type)):
        array = pc.binary_join(array.cast(pa.list_(pa.string())), " ")
    if not (is_text(array.type) or pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        raise DataError(_wrong_type(column, name, source, "text"))
    text = array.cast(pa.string())
    return pc.if_else(is_blank(text), pa.scalar(None, pa.string()), text)


def to_seconds(
    column: pa.ChunkedArray, name: str, source: Source, *, has_time: bool = True
) -> tuple[pa.Array, list[Finding]]:
    """Turn a column into seconds since the epoch, UTC.

    Numbers (also written as text) are seconds, fractions are cut off; dates and times, and ISO 8601 text, count as UTC
    where they name no zone. Where most numbers are dates such as 20190131, years or numbers of days they are refused.

    Args:
        column (`pyarrow.ChunkedArray`): See above.
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.
        has_time (`bool`): Whether numbers are times. If not, they are positions and are not checked.

    Returns:
        `tuple`: int64 array, null where there was nothing or nothing usable; the findings about the latter.

    Raises:
        DataError: If the type is another, no text can be read, or most numbers are not seconds.
    """
    array = _decoded(column)
    if is_text(array.type):
        values, is_bad = _seconds_of_text(array.cast(pa.string()))
        if is_bad.any() and not (~is_bad & ~np.asarray(array.is_null())).any():
            first = array[int(np.flatnonzero(is_bad)[0])].as_py()
            raise DataError(
                f"{source.name}: column {name!r} holds {first!r}, which is not a time; give seconds since 1970 or ISO "
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
    if has_time:
        _check_unit(values[~is_bad & ~is_null], name, source)
    is_late = ~is_bad & (values > MAX_SECONDS)
    unusable = is_bad | is_late | is_null
    seconds = pa.array(np.floor(np.where(unusable, 0, values)).astype(np.int64), mask=unusable)
    findings = [
        Finding("have a timestamp that is not a time", np.flatnonzero(is_bad & ~is_null), name, column),
        Finding("have a timestamp too large for seconds", np.flatnonzero(is_late & ~is_null), name, column),
    ]
    return seconds, [finding for finding in findings if len(finding.rows)]


def to_category_paths(column: pa.ChunkedArray, name: str, source: Source, *, separator: str) -> pa.Array:
    """Turn a column into category paths.

    Args:
        column (`pyarrow.ChunkedArray`): Lists of paths; or lists of names, one path a row; or text, one path a row
            with the names between `separator`, or either list as pandas or JSON write it.
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.
        separator (`str`): Separator between two names of a path in text.

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
        written = parse_written_lists(array, name, source)
        array = pc.split_pattern(pc.if_else(is_blank(array), pa.scalar(None, pa.string()), array), separator)
        if written is not None:
            array = pa.array(
                [
                    [path] if one is None and path else one
                    for one, path in zip(written, array.to_pylist(), strict=True)
                ],
                pa.list_(pa.list_(pa.string())),
            )
        kind = array.type
    if is_list(kind) and is_text(kind.value_type):
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
    """Return float64 seconds and a bool array of texts (not nulls) that are not a time."""
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
    """Refuse a column of which most values count something else than seconds."""

    def most(is_so: np.ndarray) -> bool:
        return 2 * int(is_so.sum()) > len(values)

    written = _are_dates(values)
    days = (values == np.floor(values)) & (values >= _DAYS[0]) & (values <= _DAYS[1])
    years = (values == np.floor(values)) & (values >= _YEARS[0]) & (values <= _YEARS[1])
    late = values > MAX_SECONDS
    if most(written):
        raise DataError(
            f"{source.name}: column {name!r} holds {int(values[written][0])}, which looks like a date in digits; "
            f"timestamps are seconds since 1970, or text such as 2019-01-31. {_OR_POSITIONS}"
        )
    for is_so, what, how in ((years, "a year", "give days at least"), (days, "a number of days", "multiply by 86400")):
        if most(is_so):
            raise DataError(
                f"{source.name}: column {name!r} holds {int(values[is_so][0])}, which looks like {what}; timestamps "
                f"are seconds since 1970, or text such as 2019-01-31: {how}. {_OR_POSITIONS}"
            )
    if most(late):
        unit, factor = name_time_unit(float(np.median(values[late])))
        raise DataError(
            f"{source.name}: column {name!r} holds {int(values[late][0])}, which looks like {unit}; timestamps are "
            f"seconds since 1970, so divide the column by {factor}."
        )


def _are_dates(values: np.ndarray) -> np.ndarray:
    """Mark the numbers that are dates of 1900 to 2100 in digits, with hours, minutes and seconds or without: bool."""
    are_dates = np.zeros(len(values), dtype=bool)
    for num_digits, limits in ((8, ()), (10, (24,)), (12, (24, 60)), (14, (24, 60, 60))):
        whole = (values >= 10 ** (num_digits - 1)) & (values < 10**num_digits) & (values == np.floor(values))
        rest = np.where(whole, values, 0).astype(np.int64)
        for limit in reversed(limits):
            whole &= rest % 100 < limit
            rest //= 100
        day, month, year = rest % 100, rest // 100 % 100, rest // 10_000
        whole &= (day >= 1) & (day <= 31) & (month >= 1) & (month <= 12)
        are_dates |= whole & (year >= _YEARS[0]) & (year <= _YEARS[1])
    return are_dates


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    array = one_array(column)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _rounded(name: str, source: Source, row: int, shown: str, kind: str) -> str:
    return (
        f"{source.name}: column {name!r} ({kind}) holds {shown} ({source.name_row(row)}): a float of that size stands "
        "for several ids, and their last digits are lost. Write the column again from the original, as text or "
        "integers (in pandas: dtype=str or 'Int64')."
    )


def _wrong_type(column: pa.ChunkedArray, name: str, source: Source, expected: str) -> str:
    first = next((value.as_py() for value in column if value.is_valid), None)
    return (
        f"{source.name}: column {name!r} has type {column.type} (first value {first!r:.60}); it must hold {expected}. "
        "Convert it, or map another column."
    )
