# SPDX-License-Identifier: Apache-2.0
"""Convert times from outside files to seconds since 1970, UTC.

A column may contain Arrow dates and times, numbers in any unit, or text in several formats. Units are told apart by
magnitude: a number that is a time from 1990 to 2100 in milliseconds is outside that range in any other unit. Ambiguous
values (dates in digits, years, numbers of days, 03/04/2019) raise; the message names the setting that resolves them,
such as `unit`.
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import Finding, Source, check_choice
from seekrec.events.readers.written_dates import read_dates, to_utc
from seekrec.schema import MAX_SECONDS
from seekrec.util.arrow import is_text, one_array
from seekrec.util.constants import SECONDS_PER_DAY

TimeUnit = Literal["s", "ms", "us", "ns", "days", "spreadsheet_days", "date_digits"]

_NAMES = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Spreadsheets count days from 1899-12-30.
_SPREADSHEET_EPOCH = -25_569 * SECONDS_PER_DAY

# Numbers that are not seconds. Days since 1970 or (spreadsheets) 1900, from 1990 or 1920 to 2100.
_YEARS = (1900, 2100)
_DAYS = (7_305, 73_050)
# Seconds of 1990 and 2100. In no two units does one number stand for times between them.
PLAUSIBLE_SECONDS = (631_152_000, 4_102_444_800)
# Numbers looked at to tell what most of a column are.
_SOME = 10_000
_OR_POSITIONS = "If the numbers are positions in an order, pass has_time=False."

_NUMBER = r"^[+-]?[0-9]{1,30}(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?$"


@dataclass(frozen=True)
class Times:
    """A column of times.

    Args:
        seconds (`pyarrow.Array`): int64 seconds since the epoch, UTC; null where there was nothing or nothing usable.
        findings (`list[Finding]`): Rows with something that is not usable.
        form (`str`): What the column holds, such as "milliseconds since 1970", for reports.
        are_days (`bool`): Whether it says days without hours.
    """

    seconds: pa.Array
    findings: list[Finding] = field(default_factory=list)
    form: str = "nothing"
    are_days: bool = False


def read_times(
    column: pa.ChunkedArray,
    name: str,
    source: Source,
    *,
    unit: TimeUnit | None = None,
    timezone: str | None = None,
    has_time: bool = True,
) -> Times:
    """Turn a column into seconds since the epoch, UTC.

    Args:
        column (`pyarrow.ChunkedArray`): Numbers, also as text; dates and times of Arrow; ISO 8601 text, dates with
            names of months, or with the day, month and year between dots or slashes. Fractions of a second are cut
            off.
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.
        unit (`str`, *optional*): Unit of numbers: `"s"`, `"ms"`, `"us"` or `"ns"` since 1970, `"days"` since 1970,
            `"spreadsheet_days"` since 1899-12-30, or `"date_digits"` (2019, 201901, 20190131, with two digits each for
            hours, minutes and seconds behind them). If not given, the unit of 1970's seconds to nanoseconds that makes
            times of them; a column of several such units is read number by number.
        timezone (`str`, *optional*): Name of the zone of dates with times that name none, such as "Europe/Berlin";
            UTC if not given. Of the two hours of one name, when clocks go back, the first is meant.
        has_time (`bool`): Whether numbers are times. If not, they are positions and are not checked.

    Returns:
        [`Times`]: The times.

    Raises:
        DataError: If the type is another, no text can be read, or most numbers have no one reading.
        ConfigurationError: If `unit` or `timezone` is unknown.
    """
    if unit is not None:
        check_choice("time_unit", unit, get_args(TimeUnit))
    zone = None if timezone is None else _find_zone(timezone)
    array = decoded(column)
    if pa.types.is_null(array.type):
        return Times(array.cast(pa.int64()))
    if pa.types.is_date(array.type):
        days = array.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        return Times(days, form="dates", are_days=True)
    if pa.types.is_timestamp(array.type):
        return _read_timestamps(array, zone)
    is_null = np.asarray(array.is_null())
    if is_text(array.type):
        text = pc.utf8_trim_whitespace(array.cast(pa.string()))
        numbers = to_numbers(text)
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        text = None
        numbers = pc.fill_null(array.cast(pa.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False)
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    else:
        raise DataError(wrong_type(column, name, source, "integers, ISO 8601 text or dates"))

    is_number = ~np.isnan(numbers)
    seconds, is_read, forms = np.zeros(len(numbers)), np.zeros(len(numbers), dtype=bool), {}
    findings = []
    rows = np.flatnonzero(is_number)
    if not has_time:
        seconds[rows], is_read[rows] = numbers[rows], numbers[rows] <= MAX_SECONDS
        forms["positions"] = len(rows)
        unclear = rows[~is_read[rows]]
        findings.append(Finding("have a position that is too large", unclear, name, column))
    elif len(rows):
        seconds[rows], is_read[rows], forms = _read_numbers(numbers[rows], unit, name, source)
        unclear = rows[~is_read[rows]]
        findings.append(Finding(_problem_of_numbers(numbers[unclear], unit), unclear, name, column))
    are_days = unit in ("days", "date_digits") and not (seconds[is_read] % SECONDS_PER_DAY).any()
    rest = np.flatnonzero(~is_number & ~is_null)
    if len(rest) and text is not None:
        dated = text.take(pa.array(rest))
        seconds[rest], is_read[rest], of_text, days_only = read_dates(dated, zone, name, source)
        are_days = days_only and (are_days or not len(rows))
        forms |= of_text
        if not is_read.any() and not len(rows):
            raise DataError(
                f"{source.name}: column {name!r} contains {dated[0].as_py()!r:.60}, which is not a time; give seconds "
                "since 1970 or ISO 8601, such as 2019-01-31T12:00:00Z."
            )
    findings.insert(0, Finding("have a timestamp that is not a time", rest[~is_read[rest]], name, column))
    total = max(int(is_read.sum()), 1)
    form = next(iter(forms)) if len(forms) == 1 else ", ".join(f"{n / total:.1%} {what}" for what, n in forms.items())
    values = pa.array(np.floor(np.where(is_read, seconds, 0)).astype(np.int64), mask=~is_read)
    return Times(values, [one for one in findings if len(one.rows)], form or "nothing", are_days and bool(total))


def to_seconds(
    column: pa.ChunkedArray, name: str, source: Source, *, has_time: bool = True
) -> tuple[pa.Array, list[Finding]]:
    """Turn a column into seconds since the epoch, UTC; see [`read_times`]. Returns them and the findings."""
    times = read_times(column, name, source, has_time=has_time)
    return times.seconds, times.findings


def are_positions(users: pa.ChunkedArray, column: pa.ChunkedArray) -> bool:
    """Return whether numbers are the places of events in an order: no time looks like that.

    They are if they count the rows of the table, or the events of every user, from 0 or from 1 on. Fewer than twenty
    rows, or users with at most two events, say nothing.

    Args:
        users (`pyarrow.ChunkedArray`): User of each event.
        column (`pyarrow.ChunkedArray`): The numbers, also as text.
    """
    array = decoded(column)
    if is_text(array.type):
        numbers = to_numbers(array)
    elif pa.types.is_integer(array.type):
        numbers = pc.fill_null(array.cast(pa.float64(), safe=False), -1.0).to_numpy(zero_copy_only=False)
    else:
        return False
    if len(numbers) < 20 or np.isnan(numbers).any() or (numbers != np.floor(numbers)).any():
        return False
    if not 0 <= numbers.min() <= 1 or numbers.max() > len(numbers):
        return False
    places = numbers.astype(np.int64) - int(numbers.min())
    if (np.bincount(places, minlength=len(places)) == 1).all():
        return True
    codes = decoded(users).dictionary_encode().indices
    user = pc.fill_null(codes, len(codes)).to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((places, user))
    starts = np.flatnonzero(np.append(True, user[order][1:] != user[order][:-1]))
    lengths = np.diff(np.append(starts, len(order)))
    return bool(lengths.max() > 2 and (places[order] == np.arange(len(order)) - np.repeat(starts, lengths)).all())


def to_numbers(text: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Read decimal numbers written as text.

    Returns:
        `np.ndarray`: float64; NaN where the text is null or no number.
    """
    array = pc.utf8_trim_whitespace(one_array(text).cast(pa.string()))
    is_number = pc.match_substring_regex(array, _NUMBER)
    numbers = pc.if_else(is_number, array, pa.scalar(None, pa.string())).cast(pa.float64())
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def decoded(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array without a dictionary, text as what Arrow's functions take."""
    array = one_array(column)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.string()) if pa.types.is_string_view(array.type) else array


def wrong_type(column: pa.ChunkedArray, name: str, source: Source, expected: str) -> str:
    """Return the message about a column of a type that cannot be used."""
    first = next((value for value in column if value.is_valid), None)
    try:
        shown = f"{None if first is None else first.as_py()!r:.60}"
    except (OverflowError, ValueError):  # a date beyond those of Python
        shown = "one that Python cannot show"
    return (
        f"{source.name}: column {name!r} has type {column.type} (first value {shown}); it must contain {expected}. "
        "Convert it, or map another column."
    )


def _find_zone(timezone: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ConfigurationError(
            f"`timezone` is {timezone!r}, which is not a time zone; use a name such as 'UTC' or 'Europe/Berlin'."
        ) from None


def _read_timestamps(array: pa.Array, zone: zoneinfo.ZoneInfo | None) -> Times:
    has_zone = array.type.tz is not None
    kind = pa.timestamp("s", tz=array.type.tz)
    whole = pc.floor_temporal(array, unit="second") if array.type.unit != "s" else array
    seconds = whole.cast(kind, safe=False).cast(pa.int64())
    values = pc.fill_null(seconds, 0).to_numpy(zero_copy_only=False)
    are_days = not has_zone and len(values) > 0 and not (values % SECONDS_PER_DAY).any()
    if zone is not None and not has_zone and not are_days:
        seconds = pa.array(to_utc(values, zone), mask=np.asarray(seconds.is_null()))
    of_zone = array.type.tz or (zone.key if zone is not None else "no zone, taken for UTC")
    return Times(seconds, form="dates" if are_days else f"dates and times of {of_zone}", are_days=are_days)


def _read_numbers(
    values: np.ndarray, unit: TimeUnit | None, name: str, source: Source
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return float64 seconds, a bool array of what could be read, and how many numbers were read as what."""
    count = len(values)
    if unit == "date_digits":
        seconds = _read_date_digits(values)
        return np.nan_to_num(seconds), ~np.isnan(seconds), {"dates in digits": count}
    if unit is not None:
        if unit in _PER_SECOND:
            seconds = np.floor_divide(values, _PER_SECOND[unit])
            form = f"{_NAMES[list(_PER_SECOND).index(unit)]} since 1970"
        else:
            epoch = _SPREADSHEET_EPOCH if unit == "spreadsheet_days" else 0
            seconds, form = values * SECONDS_PER_DAY + epoch, "days since 1899-12-30" if epoch else "days since 1970"
        return seconds, seconds <= MAX_SECONDS, {form: count}
    _refuse_other_units(values, name, source)
    # Number of the unit, 0 for seconds, and the seconds in it.
    band = np.searchsorted([MAX_SECONDS * 10.0 ** (3 * power) for power in range(3)], values)
    seconds = np.floor_divide(values, 10.0 ** (3 * band))
    is_plausible = (seconds >= PLAUSIBLE_SECONDS[0]) & (seconds < PLAUSIBLE_SECONDS[1])
    if not band.any():
        return seconds, np.ones(count, dtype=bool), {"seconds since 1970": count}
    if 2 * int(is_plausible.sum()) > count:
        found = np.bincount(band[is_plausible], minlength=4)
        return seconds, is_plausible, {f"{_NAMES[one]} since 1970": int(found[one]) for one in np.flatnonzero(found)}
    if 2 * int((band > 0).sum()) > count:
        raise DataError(
            f"{source.name}: column {name!r} contains {int(values[band > 0][0])}, which is not a time between 1990 "
            "and 2100 in seconds, milliseconds, microseconds or nanoseconds since 1970; pass `time_unit`. "
            f"{_OR_POSITIONS}"
        )
    return values, band == 0, {"seconds since 1970": int((band == 0).sum())}


def _problem_of_numbers(values: np.ndarray, unit: TimeUnit | None) -> str:
    if unit == "date_digits":
        return "have a timestamp that is not a date in digits"
    if len(values) and (values > MAX_SECONDS).all():
        return "have a timestamp too large for seconds"
    return "have a timestamp that is not a time between 1990 and 2100 in any unit"


def _refuse_other_units(values: np.ndarray, name: str, source: Source) -> None:
    """Refuse a column of which most values are dates in digits, years or numbers of days."""
    some = values[:: max(len(values) // _SOME, 1)]
    if len(some) < len(values):
        # What most of them are, some of them are too.
        _refuse_other_units(some, name, source)
        return
    is_whole = values == np.floor(values)
    years = is_whole & (values >= _YEARS[0]) & (values <= _YEARS[1])
    days = (values >= _DAYS[0]) & (values <= _DAYS[1])
    dates = ~np.isnan(_read_date_digits(np.where(is_whole & (values >= 10**7), values, np.nan)))
    for is_so, what, how in (
        (dates, "a date in digits", "pass time_unit='date_digits'"),
        (years, "a year", "pass time_unit='date_digits' (the 1st of January), or give days at least"),
        (
            days,
            "a number of days",
            "pass time_unit='days' (since 1970) or 'spreadsheet_days' (since 1899-12-30), or multiply by 86400",
        ),
    ):
        if 2 * int(is_so.sum()) > len(values):
            shown = values[is_so][0]
            raise DataError(
                f"{source.name}: column {name!r} contains {shown:.15g}, which looks like {what}; timestamps are "
                f"seconds since 1970, or text such as 2019-01-31: {how}. {_OR_POSITIONS}"
            )


def _read_date_digits(values: np.ndarray) -> np.ndarray:
    """Read numbers such as 20190131 or 20190131120000: float64 seconds since 1970, NaN where there is no such date.

    Four digits are a year, six a month, eight a day; ten, twelve and fourteen have hours, minutes and seconds too.
    """
    seconds = np.full(len(values), np.nan)
    for num_digits in (4, 6, 8, 10, 12, 14):
        with np.errstate(invalid="ignore"):
            is_so = (values >= 10 ** (num_digits - 1)) & (values < 10**num_digits) & (values == np.floor(values))
        # Missing parts are those of the first moment: the 1st of January, 00:00:00.
        whole = values[is_so].astype(np.int64)
        padded = {4: whole * 10_000 + 101, 6: whole * 100 + 1}.get(num_digits, whole)
        padded = padded * 10 ** (14 - max(num_digits, 8))
        clock, date = padded % 10**6, padded // 10**6
        year, month, day = date // 10_000, date // 100 % 100, date % 100
        hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
        first = (np.clip(year, 1, 9999) - 1970).astype("datetime64[Y]").astype("datetime64[M]")
        months = first + np.clip(month - 1, 0, 11)
        days = months.astype("datetime64[D]") + (day - 1)
        is_date = (year >= _YEARS[0]) & (year <= _YEARS[1]) & (month >= 1) & (month <= 12) & (day >= 1)
        is_date &= days.astype("datetime64[M]") == months
        is_date &= (hour < 24) & (minute < 60) & (second < 60)
        found = days.astype(np.int64) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second
        seconds[is_so] = np.where(is_date, found, np.nan)
    return seconds


__all__ = [
    "PLAUSIBLE_SECONDS",
    "TimeUnit",
    "Times",
    "are_positions",
    "decoded",
    "read_times",
    "to_numbers",
    "to_seconds",
    "wrong_type",
]
