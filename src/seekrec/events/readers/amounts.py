# SPDX-License-Identifier: Apache-2.0
"""Parse amounts of money, such as `$1,299.00` and `1.299,00 €`, into numbers that items can be filtered by.

As text they compare letter by letter: $9.99 would be more than $10.00.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import is_blank
from seekrec.events.readers.times import decoded
from seekrec.util.arrow import is_text, one_array, to_mask

_CODES = (
    "AED ARS AUD BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR JPY KRW MXN MYR NGN NOK NZD PHP PLN "
    "RMB RON RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR"
).split()
_MARK = rf"(?:{'|'.join(_CODES)}|[A-Z]{{0,3}}\p{{Sc}}|kr\.?|zł|Kč|Ft|lei|Rs\.?)"
_AMOUNT = rf"^(?P<before>{_MARK})?\s*(?P<number>\d[\d.,'’\s]*?)\s*(?P<after>{_MARK})?$"
# What every amount begins with; few other texts do, and long ones need not be looked at to their end.
_BEGINNING = rf"^[\s\p{{Z}}]*{_MARK}?[\s\p{{Z}}]*\d"
# How numbers are written, and what stands between the thousands; ISO 31-0 has spaces, Switzerland apostrophes.
_POINT = r"^(?:\d+|\d{1,3}(?:[,'’\s]\d{3})+)(?:\.\d+)?$"
_COMMA = r"^(?:\d+|\d{1,3}(?:[.'’\s]\d{3})+)(?:,\d+)?$"
# Thousands and decimals in one text: as spreadsheets write a price, and nobody an id, a version or a list.
_BOTH = r"^(?:\d{1,3}(?:[,'’\s]\d{3})+\.|\d{1,3}(?:[.'’\s]\d{3})+,)\d+$"


def read_amounts(column: pa.ChunkedArray, name: str, table: str) -> tuple[pa.ChunkedArray, list[str]]:
    """Turn a column of text into numbers, if all of its texts are amounts of one currency and have one reading.

    Amounts without a currency are known by one with thousands and decimals, such as `1,299.00`.

    Args:
        column (`pyarrow.ChunkedArray`): A column of any type.
        name (`str`): Its name, for the notes.
        table (`str`): Name of the table, for the notes.

    Returns:
        `tuple`: float64 with nulls where there is no text, or the column as it is; a note if it was turned into
        numbers, or contains amounts and was not.
    """
    text = decoded(column)
    if not is_text(text.type) or not to_mask(pc.match_substring_regex(text, _BEGINNING)).any():
        return column, []
    text = pc.utf8_trim_whitespace(
        pc.replace_substring_regex(text.cast(pa.string()), r"[\x{a0}\x{202f}\x{2009}]", " ")
    )
    is_there = ~to_mask(is_blank(pa.chunked_array([text])))
    parts = pc.extract_regex(text.filter(pa.array(is_there)), _AMOUNT)
    before, number, after = (one_array(pc.struct_field(parts, part)) for part in ("before", "number", "after"))
    marks = pc.binary_join_element_wise(before, after, "")
    have_currency = 2 * int(to_mask(pc.not_equal(marks, "")).sum()) >= len(parts)
    # Other numbers that were kept as text, such as ids, are no amounts.
    if not len(parts) or not (have_currency or to_mask(pc.match_substring_regex(number, _BOTH)).any()):
        return column, []
    if parts.null_count:
        return column, [f"{name!r} of {table} contains amounts, but {parts.null_count} texts are none: it stays text."]
    currencies = marks.unique().to_pylist()
    if len(currencies) > 1:
        return column, [f"{name!r} of {table} contains amounts of several currencies, or of none: it stays text."]
    has_point, has_comma = (to_mask(pc.match_substring_regex(number, form)).all() for form in (_POINT, _COMMA))
    readings = [_to_numbers(number, ".")] if has_point else []
    readings += [_to_numbers(number, ",")] if has_comma else []
    if not readings or not all(np.array_equal(readings[0], one) for one in readings):
        return column, [
            f"{name!r} of {table} contains amounts whose points and commas have "
            f"{'two readings' if readings else 'no single reading'}: it stays text."
        ]
    found = np.full(len(text), np.nan)
    found[is_there] = readings[0]
    note = f"{name!r} of {table} contains amounts ({currencies[0] or 'no currency'}): they were read as numbers."
    return pa.chunked_array([pa.array(found, mask=~is_there)]), [note]


def _to_numbers(texts: pa.Array, point: str) -> np.ndarray:
    digits = pc.replace_substring_regex(texts, rf"[^\d{re.escape(point)}]", "")
    numbers: np.ndarray = pc.replace_substring(digits, point, ".").cast(pa.float64()).to_numpy()
    return numbers


__all__ = ["read_amounts"]
