# SPDX-License-Identifier: Apache-2.0
"""Guess from some rows of a column what it contains: times, ids, names of actions, or typed text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Source, is_blank
from seekrec.events.readers.column_names import BEHAVIOR_OF_WORD
from seekrec.events.readers.columns import to_flags, to_ids
from seekrec.events.readers.times import PLAUSIBLE_SECONDS, Times, TimeUnit, decoded, read_times
from seekrec.util.actions import ACTION_OF_WORD, plain_name
from seekrec.util.arrow import is_list, is_text, to_mask
from seekrec.util.constants import SECONDS_PER_DAY

# Typed text: so many of the values have a space, and the different ones are neither few nor nearly as many as rows.
_SHARE_SPACED, _MIN_DISTINCT = 0.2, 20
# Most of them have no capitals, and half of them are that short.
_SHARE_SMALL, _TYPED_LENGTH = 0.8, 40
# Or some of them have none, and some are written in several ways: with and without capitals.
_SHARE_SMALL_VARIED, _SHARE_VARIED = 0.2, 0.02
# Few have signs that addresses and codes have; more of them leave a doubt.
_SHARE_SIGNS, _SHARE_MARKED = 0.02, 0.1

# Stands for the table in messages that nobody sees.
NOWHERE = Source("a sample")


def read_sample(column: pa.ChunkedArray, unit: TimeUnit | None, timezone: str | None) -> Times | None:
    """Read times; `None` where they have no reading."""
    tried: tuple[TimeUnit | None, ...] = (unit, None, "date_digits")
    for one in tried:
        try:
            return read_times(column, "timestamp", NOWHERE, unit=one, timezone=timezone)
        except DataError:
            continue
    return None


def says_day_of(one: Times | None, other: Times | None) -> bool:
    """Return whether one column says the day of the times in the other."""
    if one is None or other is None or not one.are_days or other.are_days:
        return False
    # A day and a time of it may be of two zones.
    apart = pc.subtract(other.seconds, one.seconds)
    return bool(pc.all(pc.and_(pc.greater(apart, -SECONDS_PER_DAY), pc.less(apart, 2 * SECONDS_PER_DAY))).as_py())


def same_times(columns: Sequence[Times | None]) -> bool:
    """Return whether columns contain the same times."""
    first = columns[0]
    return first is not None and all(one is not None and one.seconds.equals(first.seconds) for one in columns[1:])


def all_equal(sample: pa.Table, columns: Sequence[str]) -> bool:
    """Return whether columns contain the same values."""
    first = decoded(sample[columns[0]])
    return all(decoded(sample[name]).equals(first) for name in columns[1:])


def could_be_times(column: pa.ChunkedArray) -> bool:
    """Return whether the values of a column may be times, in whatever form."""
    array = decoded(column)
    kind = array.type
    if not is_text(kind):
        return bool(
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_timestamp(kind)
            or pa.types.is_date(kind)
            or pa.types.is_null(kind)
        )
    filled = array.filter(pc.not_equal(pc.utf8_trim_whitespace(array), ""))
    if not len(filled):
        return True
    looks = pc.match_substring_regex(filled, r"^\s*[+-]?[0-9]+(\.[0-9]*)?\s*$|[0-9]{4}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.]")
    return bool(2 * to_mask(looks).sum() > len(filled))


def holds_plausible_times(column: pa.ChunkedArray) -> bool:
    """Return whether a column of any name can only be times: of 1990 to 2100, and most of them different."""
    if not could_be_times(column):
        return False
    try:
        times = read_times(column, "timestamp", NOWHERE)
    except DataError:
        return False
    seconds = times.seconds.drop_null()
    if 2 * len(seconds) < len(column) or not len(seconds):
        return False
    first, last = pc.min_max(seconds).values()
    return bool(first.as_py() >= PLAUSIBLE_SECONDS[0] and last.as_py() < PLAUSIBLE_SECONDS[1])


def is_id_column(column: pa.ChunkedArray) -> bool:
    """Return whether a column is of a type that ids have."""
    kind = decoded(column).type
    return bool(is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def is_text_column(column: pa.ChunkedArray) -> bool:
    """Return whether a column contains text, or lists of it."""
    kind = decoded(column).type
    return bool(is_text(kind) or pa.types.is_null(kind) or (is_list(kind) and is_text(kind.value_type)))


def anything(column: pa.ChunkedArray) -> bool:
    """Return True: any content will do."""
    return True


def _words(column: pa.ChunkedArray) -> list[str]:
    """Return the different texts of a column, as names are compared."""
    array = decoded(column)
    return [] if not is_text(array.type) else [plain_name(text) for text in array.drop_null().unique().to_pylist()]


def holds_behaviors(column: pa.ChunkedArray) -> bool:
    """Return whether at least half of the words of a column are behaviors."""
    words = _words(column)
    return bool(words) and 2 * sum(word in BEHAVIOR_OF_WORD for word in words) >= len(words)


def holds_actions(column: pa.ChunkedArray) -> bool:
    """Return whether a column has a word for an action of ours."""
    return any(word in ACTION_OF_WORD for word in _words(column))


def holds_only_actions(column: pa.ChunkedArray) -> bool:
    """Return whether a column has several words, all of them for actions of ours."""
    words = _words(column)
    return len(words) > 1 and all(word in ACTION_OF_WORD for word in words)


def holds_flags(column: pa.ChunkedArray) -> bool:
    """Return whether a column contains nothing but yes and no."""
    flags = to_flags(column)
    return flags is not None and flags.null_count < len(flags)


def holds_words(column: pa.ChunkedArray) -> bool:
    """Return whether most texts of a column have a letter; a column without a value has none that has not."""
    array = decoded(column)
    if pa.types.is_null(array.type):
        return True
    if not is_text(array.type):
        return False
    texts = array.drop_null()
    texts = texts.filter(pc.not_equal(pc.utf8_trim_whitespace(texts), ""))
    return not len(texts) or 2 * int(to_mask(pc.match_substring_regex(texts, r"\p{L}")).sum()) > len(texts)


def holds_names(column: pa.ChunkedArray) -> bool:
    """Return whether a column contains names of categories: lists, or texts with letters, not category numbers."""
    return is_list(decoded(column).type) or holds_words(column)


def looks_typed(column: pa.ChunkedArray) -> bool:
    """Return whether a column contains text as people type it: short, of several words, some of it often."""
    return _typed(column) == "surely"


def may_be_typed(column: pa.ChunkedArray) -> bool:
    """Return whether a column contains text that people may have typed; [`looks_typed`] is sure of it."""
    return _typed(column) != "no"


def _typed(column: pa.ChunkedArray) -> Literal["surely", "perhaps", "no"]:
    array = decoded(column)
    if not is_text(array.type):
        return "no"
    texts = array.filter(pc.invert(is_blank(array)))
    different = texts.unique()
    if len(different) < _MIN_DISTINCT or len(different) > 0.9 * len(texts) or not holds_words(texts):
        return "no"
    spaced = to_mask(pc.match_substring_regex(different, r"\S\s+\S")).mean()
    signs = to_mask(pc.match_substring_regex(different, r"[/@=_<>{}]|\d{5}")).mean()
    is_short = np.median(pc.utf8_length(different).to_numpy()) <= _TYPED_LENGTH
    if spaced < _SHARE_SPACED or signs > _SHARE_MARKED or not is_short:
        return "no"
    # Titles of pages, places and products have capitals, and one way to write them; addresses and codes have signs.
    small = to_mask(pc.equal(pc.utf8_lower(different), different)).mean()
    folded = pc.utf8_lower(pc.replace_substring_regex(pc.utf8_trim_whitespace(different), r"\s+", " "))
    ways = pc.value_counts(folded).field("counts").to_numpy()
    varies = (ways > 1).mean() >= _SHARE_VARIED
    # A log in which every event is a search has its name for it.
    is_typed = small >= _SHARE_SMALL or (small >= _SHARE_SMALL_VARIED and varies)
    if is_typed and signs <= _SHARE_SIGNS and len(texts) < len(array):
        return "surely"
    return "perhaps" if varies or small >= _SHARE_SMALL_VARIED else "no"


def shown(column: pa.ChunkedArray) -> str:
    """Say what a column holds, without a value."""
    kind = decoded(column).type
    if is_text(kind):
        return "text that does not look like it"
    return {True: "numbers"}.get(bool(pa.types.is_integer(kind) or pa.types.is_floating(kind)), str(kind))


def share_known(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> float | None:
    """Return the share of ids that are among the known, `None` where one of the columns contains no ids."""
    if not (is_id_column(ids) and is_id_column(known)):
        return None
    try:
        one, other = to_ids(ids, "item_id", NOWHERE), to_ids(known, "item_id", NOWHERE)
    except DataError:
        return None
    one = one.drop_null()
    if not len(one) or other.null_count == len(other):
        return None
    return float(to_mask(pc.is_in(one, value_set=other)).mean())


__all__ = [
    "share_known",
    "NOWHERE",
    "all_equal",
    "anything",
    "could_be_times",
    "holds_actions",
    "holds_behaviors",
    "holds_flags",
    "holds_names",
    "holds_only_actions",
    "holds_plausible_times",
    "holds_words",
    "is_id_column",
    "is_text_column",
    "looks_typed",
    "may_be_typed",
    "read_sample",
    "same_times",
    "says_day_of",
    "shown",
]
