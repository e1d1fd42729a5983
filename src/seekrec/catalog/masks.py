# SPDX-License-Identifier: Apache-2.0
"""Filters over the items of a catalogue: each is a bool array with one entry per item.

Nothing here loops over items. Costly indexes (the words of list columns) are built by the first filter that needs
them, and cached.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import RequestError
from seekrec.schema import check_characters, shown
from seekrec.util.arrow import is_list, is_text, to_mask
from seekrec.util.ragged import Ragged

logger = logging.getLogger(__name__)

_FIRST_SECOND = np.iinfo(np.int64).min
_LAST_SECOND = np.iinfo(np.int64).max
# Among more values a like one is known by its letters alone, in capitals or not: comparing each takes seconds.
_MOST_COMPARED = 20_000
# One number, with a currency or a unit perhaps: $9.99, 10 kg; no date.
_NUMBER_AS_TEXT = r"^\D{0,8}\d[\d.,'’\s]*\D{0,8}$"


class ItemFilters:
    """The filters of one items table.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`, and any more columns.
    """

    def __init__(self, items: pa.Table) -> None:
        self.items = items
        self._members: dict[str, _Members] = {}
        self._lowered: dict[str, pa.ChunkedArray] = {}
        self._compared: dict[str, pa.ChunkedArray] = {}
        self._has_numbers: dict[str, bool] = {}
        self._was_empty: set[str] = set()
        self._period: tuple[np.ndarray, np.ndarray] | None = None

    def available(self, at: int) -> np.ndarray:
        """Mark the items that are available at a time: `available_from <= at < available_until`, null meaning open.

        Args:
            at (`int`): Seconds since the epoch, UTC.

        Returns:
            `np.ndarray`: bool of shape `(num_items,)`.

        Raises:
            RequestError: If `at` is not a whole number.
        """
        if isinstance(at, bool) or not isinstance(at, (int, np.integer)):
            raise RequestError(
                f"`at` is {shown(at)} of type {type(at).__name__}; pass whole seconds since the epoch, UTC."
            )
        if self._period is None:
            self._period = item_periods(self.items)
        start, end = self._period
        return (start <= at) & (at < end)

    def contains(self, column: str, text: str) -> np.ndarray:
        """Mark the items that have `text` in a text column, ignoring case.

        Args:
            column (`str`): A column of strings.
            text (`str`): Text to look for, taken literally.

        Returns:
            `np.ndarray`: bool of shape `(num_items,)`.

        Raises:
            RequestError: If `text` is not text, is empty, or cannot be written as UTF-8.
        """
        if not isinstance(text, str) or not text:
            raise RequestError(f"`{column}_contains` is {shown(text)}; pass the text to look for.")
        check_characters(text, f"{column}_contains")
        # Lower case is kept: a search that ignores case takes more than twice as long as a plain one.
        if column not in self._lowered:
            self._lowered[column] = _without_case(self.items.column(column))
        return to_mask(pc.match_substring(self._lowered[column], _without_case(pa.scalar(text)).as_py()))

    def matches(self, column: str, wanted: object) -> np.ndarray:
        """Mark the items that have a wanted value in a column; null never matches.

        Of a text column a value that no item has is no error: a shop may be out of a brand. What may have been meant
        is logged, once for each column.

        Args:
            column (`str`): A column of the items table.
            wanted: A pair `(lowest, highest)`, both included and `None` for open; or a list or set of values; or one
                value. In a column of lists (such as `categories`, at any depth) an item matches if it holds any of
                the values.

        Returns:
            `np.ndarray`: bool of shape `(num_items,)`.

        Raises:
            RequestError: If there is no such column, a range is empty or not a pair, or one of numbers that are
                written as text, a value has the wrong type, or no item contains a value requested of a list column.
        """
        if column not in self.items.column_names:
            raise RequestError(
                f"The items have no column {column!r}{_suggestion(column, self.items.column_names)}; they have "
                f"{', '.join(self.items.column_names)}."
            )
        if _is_list(self.items.column(column).type):
            return self._holds(column, wanted)
        values = self._values(column)
        try:
            if isinstance(wanted, tuple):
                self._check_range(column)
                return _in_range(column, values, wanted)
            if isinstance(wanted, (list, set, frozenset, np.ndarray)):
                asked = list(wanted)
                choices = _as_compared(pa.array(asked, type=values.type))
                found = to_mask(pc.is_in(values, value_set=choices, skip_nulls=True))
            else:
                asked = [wanted]
                found = to_mask(pc.equal(values, to_column_type(wanted, values.type)))
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise RequestError(
                f"The filter `{column}` is {shown(wanted)}, which cannot be compared with a column of type "
                f"{values.type}; pass a value of that type."
            ) from error
        if not found.any():
            self._log_what_was_meant(column, [one for one in asked if isinstance(one, str)])
        return found

    def _log_what_was_meant(self, column: str, asked: list[str]) -> None:
        if column in self._was_empty or not asked:
            return
        self._was_empty.add(column)
        known = pc.unique(self._values(column)).drop_null().to_pylist()
        near = next(filter(None, (_suggestion(one, known) for one in asked)), "")
        logger.warning("The filter `%s` is %s, which no item of the catalogue has%s.", column, shown(asked[0]), near)

    def _values(self, column: str) -> pa.ChunkedArray:
        if column not in self._compared:
            self._compared[column] = _as_compared(self.items.column(column))
        return self._compared[column]

    def _check_range(self, column: str) -> None:
        values = self._values(column)
        if column not in self._has_numbers:
            self._has_numbers[column] = is_text(values.type) and _are_mostly_numbers(values)
        if self._has_numbers[column]:
            raise RequestError(
                f"`{column}` is a text column with numbers in it, and text is compared letter by letter: '9' is more "
                "than '10'. Store the column as numbers to filter by a range."
            )

    def _holds(self, column: str, wanted: object) -> np.ndarray:
        if column not in self._members:
            self._members[column] = _Members(self.items.column(column))
        names = [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else list(wanted)
        return self._members[column].holds_any(column, names)


def _as_compared(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return values for a comparison: what a dictionary stands for, NaN as null, -0.0 as 0."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    if pa.types.is_float32(values.type) or pa.types.is_float64(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), pc.add(values, pa.scalar(0, values.type)))
    return values


def _without_case(text: pa.ChunkedArray | pa.Scalar) -> pa.ChunkedArray | pa.Scalar:
    """Return text in lower case, by way of capitals: a Greek word ends with another small sigma than it contains."""
    return pc.utf8_lower(pc.utf8_upper(text))


def item_periods(items: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the period in which each item is available.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: int64 seconds of shape `(num_items,)`: the first in which it is available, and
        the first in which it no longer is; the ends of int64 where open.
    """
    start = pc.fill_null(items.column("available_from"), _FIRST_SECOND).to_numpy()
    end = pc.fill_null(items.column("available_until"), _LAST_SECOND).to_numpy()
    return start, end


class _Members:
    """For each value of a list column, the rows that hold it."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.combine_chunks()
        rows = np.arange(len(array), dtype=np.int64)
        while _is_list(array.type):
            rows = rows[pc.list_parent_indices(array).to_numpy()]
            array = array.flatten()
        encoded = pc.dictionary_encode(array)
        codes = pc.fill_null(encoded.indices, -1).to_numpy()
        order = np.argsort(codes, kind="stable")
        order = order[codes[order] >= 0]
        self.num_items = len(column)
        self.numbers = {name: number for number, name in enumerate(encoded.dictionary.to_pylist())}
        self.rows = Ragged.from_owners(rows[order], codes[order], len(self.numbers))

    def holds_any(self, column: str, names: list[object]) -> np.ndarray:
        mask = np.zeros(self.num_items, dtype=bool)
        for name in names:
            number = self.numbers.get(name) if isinstance(name, (str, int, float)) else None
            if number is None:
                known = [value for value in self.numbers if isinstance(value, str)]
                raise RequestError(
                    f"`{column}` is asked to contain {shown(name)}, but no item of the catalogue has it"
                    f"{_suggestion(name, known) if isinstance(name, str) else ''}."
                )
            mask[self.rows[number]] = True
        return mask


def _are_mostly_numbers(texts: pa.ChunkedArray) -> bool:
    found = to_mask(pc.match_substring_regex(texts, _NUMBER_AS_TEXT))
    return 2 * int(found.sum()) > len(texts) - texts.null_count


def _in_range(column: str, values: pa.ChunkedArray, bounds: tuple[object, ...]) -> np.ndarray:
    if len(bounds) != 2:
        raise RequestError(
            f"The filter `{column}` is the tuple {shown(bounds)}; a tuple is a range (lowest, highest), a list is a "
            "choice of values."
        )
    lowest, highest = bounds
    mask = to_mask(pc.is_valid(values))
    # Compared with the column first: bounds of another type than its are no range, whatever their order.
    if lowest is not None:
        mask &= to_mask(pc.greater_equal(values, to_column_type(lowest, values.type)))
    if highest is not None:
        mask &= to_mask(pc.less_equal(values, to_column_type(highest, values.type)))
    if None not in (lowest, highest) and pc.greater(*(to_column_type(one, values.type) for one in bounds)).as_py():
        raise RequestError(
            f"The filter `{column}` is the range {shown(bounds)}, whose lowest is above its highest; swap them."
        )
    return mask


def to_column_type(value: object, kind: pa.DataType) -> pa.Scalar:
    """Return a value as a column holds it: 19.95 in a column of float32 is the float32 nearest to it.

    Compared as float64, which a Python number is, 19.95 would be equal to no price of the column.

    Args:
        value (`object`): The value.
        kind (`pyarrow.DataType`): Type of the column.
    """
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if is_number and pa.types.is_floating(kind):
        return pa.scalar(kind.to_pandas_dtype()(value), kind)
    # Arrow compares the largest unsigned numbers with none that have a sign.
    return pa.scalar(value, kind) if is_number and pa.types.is_uint64(kind) else pa.scalar(value)


def _is_list(kind: pa.DataType) -> bool:
    return is_list(kind) or bool(pa.types.is_fixed_size_list(kind))


def _suggestion(name: str, known: Iterable[str]) -> str:
    by_letters = {value.casefold(): value for value in known}
    near = [name.casefold()] if name.casefold() in by_letters else []
    if not near and len(by_letters) <= _MOST_COMPARED:
        near = difflib.get_close_matches(name.casefold(), by_letters, n=1)
    return f" (did you mean {by_letters[near[0]]!r}?)" if near else ""
