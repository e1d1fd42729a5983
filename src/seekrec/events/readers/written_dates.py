# SPDX-License-Identifier: Apache-2.0
"""Parse dates and times written as text: ISO 8601, and unambiguous formats of web servers, mail and spreadsheets."""

from __future__ import annotations

import zoneinfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Source

_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
# A zone behind the time of day; years may follow it, as in mail and tweets. PostgreSQL writes whole hours alone.
_ZONED = r"(?:[0-9]Z$|(?::[0-9]{2}|T[0-9]{2,6})(?:[.,][0-9]+)?\s*[+-][0-9]{2}(?::?[0-9]{2})?(?: [0-9]{4})?$)"
_DAY_OR_MONTH_FIRST = r"^(?P<first>[0-9]{1,2})[/-](?P<second>[0-9]{1,2})[/-](?P<year>[0-9]{4})(?P<rest>.*)$"
# Forms alongside ISO 8601 that have one reading: Apache, RFC 2822, names of months, day first with dots.
_FORMATS = (
    *("%d/%b/%Y:%H:%M:%S %z", "%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y"),
    *("%b %d, %Y %H:%M:%S", "%b %d, %Y", "%d %b %Y %H:%M:%S", "%d %b %Y", "%m %d, %Y"),
    *("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y"),
)


def read_dates(
    text: pa.Array, zone: zoneinfo.ZoneInfo | None, name: str, source: Source
) -> tuple[np.ndarray, np.ndarray, dict[str, int], bool]:
    """Return float64 seconds, what could be read, how much was read as what, and whether all of it is days."""
    text = pc.replace_substring_regex(text, r"\s*(?:UTC|GMT|Z)$", "Z")
    text = pc.replace_substring_regex(text, r"^([0-9]{4})[/.]([0-9]{2})[/.]([0-9]{2})", r"\1-\2-\3")
    text = _order_day_and_month(text, name, source)
    is_date = np.asarray(pc.match_substring_regex(text, _DATE))
    has_zone = np.asarray(pc.match_substring_regex(text, _ZONED)) & ~is_date
    seconds, is_read = np.zeros(len(text)), np.zeros(len(text), dtype=bool)
    for rows, is_zoned in ((np.flatnonzero(has_zone), True), (np.flatnonzero(~has_zone), False)):
        if len(rows):
            seconds[rows], is_read[rows] = _parse(text.take(pa.array(rows)), is_zoned)
    days_only = bool(is_date[is_read].all())
    if zone is not None and not days_only:
        local = np.flatnonzero(is_read & ~has_zone)
        seconds[local] = to_utc(seconds[local].astype(np.int64), zone)
    of_zone = f"dates and times of {'no zone, taken for UTC' if zone is None else zone.key}"
    forms = {
        "dates": int((is_read & is_date).sum()),
        of_zone: int((is_read & ~is_date & ~has_zone).sum()),
        "dates and times with a zone": int((is_read & has_zone).sum()),
    }
    return seconds, is_read, {form: count for form, count in forms.items() if count}, days_only


def _order_day_and_month(text: pa.Array, name: str, source: Source) -> pa.Array:
    """Write 31/01/2019 as 2019-01-31; only a number above 12 says which of the two is the day."""
    parts = pc.extract_regex(text, _DAY_OR_MONTH_FIRST)
    rows = np.flatnonzero(np.asarray(parts.is_valid()))
    if not len(rows):
        return text
    of_rows = parts.take(pa.array(rows))
    first, second = (of_rows.field(part).cast(pa.int64()).to_numpy() for part in ("first", "second"))
    is_day_first, is_month_first = bool((first > 12).any()), bool((second > 12).any())
    if is_day_first == is_month_first:
        raise DataError(
            f"{source.name}: column {name!r} contains {text[int(rows[0])].as_py()!r:.40}, in which day and month "
            "cannot be told apart; write dates as 2019-01-31."
        )
    day, month = (first, second) if is_day_first else (second, first)
    written = pc.binary_join_element_wise(
        of_rows.field("year"),
        pc.utf8_lpad(pa.array(month).cast(pa.string()), 2, "0"),
        pc.utf8_lpad(pa.array(day).cast(pa.string()), 2, "0"),
        "-",
    )
    clock = pc.utf8_trim_whitespace(of_rows.field("rest"))
    clock = pc.replace_substring_regex(clock, r"^([0-9]):", r"0\1:")
    joined = pc.utf8_trim_whitespace(pc.binary_join_element_wise(written, clock, " "))
    mask = np.zeros(len(text), dtype=bool)
    mask[rows] = True
    return pc.replace_with_mask(text, pa.array(mask), joined)


def _parse(text: pa.Array, is_zoned: bool) -> tuple[np.ndarray, np.ndarray]:
    """Parse dates and times that all name a zone, or all name none."""
    # Arrow is ten times as fast as pandas, but stops at what it cannot read.
    short = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")
    try:
        whole = pc.floor_temporal(short.cast(pa.timestamp("us", tz="UTC" if is_zoned else None)), unit="second")
        return whole.cast(pa.timestamp("s", tz=whole.type.tz)).cast(pa.int64()).to_numpy().astype(np.float64), np.ones(
            len(text), dtype=bool
        )
    except pa.ArrowException:
        pass
    # Words are not times: pandas takes "now" and "today" for the moment of reading.
    has_digit = pc.match_substring_regex(text, "[0-9]")
    values = pd.Series(pc.if_else(has_digit, text, pa.scalar(None, text.type)).to_pylist(), dtype=object)
    times = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")
    for form in _FORMATS:
        is_open = times.isna()
        if not is_open.any():
            break
        times[is_open] = pd.to_datetime(values[is_open], format=form, utc=True, errors="coerce")
    seconds = times.dt.as_unit("s").to_numpy(dtype="datetime64[s]").astype(np.int64).astype(np.float64)
    return np.where(times.isna(), 0, seconds), ~times.isna().to_numpy()


def to_utc(seconds: np.ndarray, zone: zoneinfo.ZoneInfo) -> np.ndarray:
    """Turn local times, counted as if they were UTC, into UTC: int64."""
    local = pd.DatetimeIndex(seconds.astype("datetime64[s]"))
    # Of an hour that comes twice the first is in summer time; an hour that never was is the one after it.
    aware = local.tz_localize(zone, ambiguous=np.ones(len(local), dtype=bool), nonexistent="shift_forward")
    return aware.tz_convert("UTC").as_unit("s").tz_localize(None).to_numpy().astype(np.int64)


__all__ = ["read_dates", "to_utc"]
