# SPDX-License-Identifier: Apache-2.0
"""Convert columns of outside files to ours: ids, texts, category paths; times are in `times.py`.

A column of the wrong type raises; single values that cannot be used become null and are reported as findings, so that
the reader's cap on refused rows decides. Everything works on whole columns.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.checks import Source, is_blank
from seekrec.events.readers.column_names import BEHAVIOR_OF_WORD
from seekrec.events.readers.times import decoded, to_numbers, to_seconds, wrong_type
from seekrec.events.readers.written_lists import parse_written_lists
from seekrec.schema import IMPRESSION
from seekrec.util.actions import ACTION_OF_WORD, plain_name
from seekrec.util.arrow import is_list, is_text, one_array, to_lists

# A number with an exponent that stands for a long id: its last digits are lost.
_ROUNDED_ID = r"^[0-9]\.[0-9]+[eE]\+[0-9]+$"

# What programs write as text where there is nothing: SQL, pandas and Python.
_NOTHING = pa.array(["NULL", "null", "NaN", "nan", "None", "<NA>"])

# How yes and no are written; pandas writes 1.0 in a column with gaps.
_YES, _NO = (pa.array(words.split()) for words in ("1 1.0 true t yes y", "0 0.0 false f no n"))

_TAGS = r"</?[A-Za-z][^<>]*>|<!--.*?-->"


def drop_nothing(
    table: pa.Table, names: Iterable[str], source: Source, *, least: int = 1
) -> tuple[pa.Table, list[str]]:
    """Turn words that stand for nothing ("NULL", "nan") into null; every such row would be of one user, or a search.

    Args:
        table (`pyarrow.Table`): The table.
        names (`Iterable[str]`): Columns to look at; only those of text hold words.
        source (`Source`): The file, for the notes.
        least (`int`): How often such a word has to occur in a column. Once it may be the title of a song.

    Returns:
        `tuple`: The table; notes on what counts as nothing.
    """
    notes = []
    for name in names:
        array = decoded(table[name])
        if not is_text(array.type):
            continue
        is_nothing = pc.is_in(array.cast(pa.string()), value_set=_NOTHING)
        words = array.filter(is_nothing)
        if len(words) >= least:
            column = pc.if_else(is_nothing, pa.scalar(None, array.type), array)
            table = table.set_column(table.column_names.index(name), name, column)
            written = " and ".join(map(repr, words.unique().to_pylist()))
            notes.append(f"Taken for nothing in column {name!r} of {source.name}: {written}.")
    return table, notes


def to_ids(column: pa.ChunkedArray, name: str, source: Source) -> pa.Array:
    """Turn a column into ids: text as it is (empty becomes null), whole numbers as their digits.

    A column of text in which every id is a number that ends in ".0" contains whole numbers that pandas took for
    floats.

    Args:
        column (`pyarrow.ChunkedArray`): Text, integers, or floats that are all whole (what pandas makes of integers
            with gaps).
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.

    Raises:
        DataError: If the type is another, or a float is not whole or too large to name one integer only (2**53 for
            float64, 2**24 for float32, 2**11 for float16), also where it is written as text (1.03e+17).
    """
    array = decoded(column)
    if pa.types.is_floating(array.type):
        exact_below = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}[array.type.bit_width]
        filled = pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False).astype(np.float64)
        if not (np.isnan(filled) | (filled == np.floor(filled))).all():
            raise DataError(wrong_type(column, name, source, "text or whole numbers"))
        too_large = np.flatnonzero(np.abs(np.nan_to_num(filled, nan=0.0)) >= exact_below)
        if len(too_large):
            raise DataError(
                _rounded(name, source, int(too_large[0]), repr(float(filled[too_large[0]])), str(array.type))
            )
        array = pa.array(filled, mask=np.isnan(filled) | np.asarray(array.is_null())).cast(pa.int64())
    if pa.types.is_integer(array.type) or pa.types.is_null(array.type):
        return array.cast(pa.string())
    if not is_text(array.type):
        raise DataError(wrong_type(column, name, source, "text or whole numbers"))
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
        DataError: If the column contains neither text nor integers.
    """
    array = decoded(column)
    if is_list(array.type) and (is_text(array.type.value_type) or pa.types.is_null(array.type.value_type)):
        array = pc.binary_join(array.cast(pa.list_(pa.string())), " ")
    if not (is_text(array.type) or pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        raise DataError(wrong_type(column, name, source, "text"))
    text = array.cast(pa.string())
    return pc.if_else(is_blank(text), pa.scalar(None, pa.string()), text)


def to_behaviors(column: pa.ChunkedArray, name: str, source: Source) -> pa.Array:
    """Turn a column into behaviors: words that mean one of ours become it, other text stays."""
    return _translate(to_text(column, name, source), BEHAVIOR_OF_WORD)[0]


def to_actions(
    column: pa.ChunkedArray, name: str, source: Source, *, is_flag: bool = False
) -> tuple[pa.Array, list[str]]:
    """Turn a column into actions: words that mean one of ours become it, other text stays, nothing is a click.

    Args:
        column (`pyarrow.ChunkedArray`): Text; or, with `is_flag`, whether the item was clicked (see [`to_flags`]).
        name (`str`): Our name of the column, for the message.
        source (`Source`): The file, for the message.
        is_flag (`bool`): Whether the column may contain no words but yes and no: "click" and "impression". Nothing is
            no: a join with a table of clicks leaves it where there was none.

    Returns:
        `tuple`: The actions; notes on those that are none of ours, the first twenty, and on rows without one.
    """
    flags = to_flags(column) if is_flag else None
    if flags is not None:
        notes = [f"Rows of {source.name} that do not say whether the item was clicked are impressions."]
        return pc.if_else(pc.fill_null(flags, False), "click", IMPRESSION), notes if flags.null_count else []
    actions, unknown = _translate(to_text(column, name, source), ACTION_OF_WORD)
    notes = [f"Actions of {source.name} that were kept as they are: {', '.join(unknown)}."] if unknown else []
    if actions.null_count:
        notes.append(f"Rows of {source.name} without an action count as clicks.")
    return pc.fill_null(actions, "click"), notes


def to_flags(column: pa.ChunkedArray) -> pa.Array | None:
    """Return what a column of yes and no says: bool, null where it says nothing; `None` where it holds another value.

    Yes and no are bools, 1 and 0, or words: true, t, yes or y; false, f, no or n.
    """
    array = decoded(column)
    if not (
        is_text(array.type)
        or pa.types.is_boolean(array.type)
        or pa.types.is_integer(array.type)
        or pa.types.is_floating(array.type)
    ):
        return None
    text = array.cast(pa.string())
    text = pc.utf8_lower(pc.if_else(is_blank(text), pa.scalar(None, pa.string()), text))
    is_yes = pc.is_in(text, value_set=_YES)
    flags = pc.if_else(pc.or_(is_yes, pc.is_in(text, value_set=_NO)), is_yes, pa.scalar(None, pa.bool_()))
    return flags if flags.null_count == text.null_count else None


def _translate(text: pa.Array, meaning: Mapping[str, str]) -> tuple[pa.Array, list[str]]:
    coded = text.dictionary_encode()
    words = coded.dictionary.to_pylist()
    plain = [meaning.get(plain_name(word), word) for word in words]
    other = [word for word in words if plain_name(word) not in meaning]
    return pa.array(plain, pa.string()).take(coded.indices), other[:20]


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
    array = decoded(column)
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
                    [[step.strip() for step in path]] if one is None and path else one
                    for one, path in zip(written, array.to_pylist(), strict=True)
                ],
                pa.list_(pa.list_(pa.string())),
            )
        kind = array.type
    if is_list(kind) and is_text(kind.value_type):
        names = pc.utf8_trim_whitespace(array.flatten().cast(pa.string()))
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        paths = to_lists(names, lengths)
        # One path a row, none where the row has no names.
        rows = to_lists(paths.filter(pa.array(lengths > 0)), lengths > 0)
        return pc.if_else(pa.array(lengths > 0), rows, pa.scalar(None, rows.type))
    try:
        return array.cast(pa.list_(pa.list_(pa.string())))
    except pa.ArrowException as error:
        raise DataError(
            wrong_type(column, name, source, "lists of category paths, lists of names, or text")
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


def _rounded(name: str, source: Source, row: int, shown: str, kind: str) -> str:
    return (
        f"{source.name}: column {name!r} ({kind}) contains {shown} ({source.name_row(row)}): a float of that size "
        "stands for several ids, and their last digits are lost. Write the column again from the original, as text or "
        "integers (in pandas: dtype=str or 'Int64')."
    )


__all__ = [
    "clean_text",
    "drop_nothing",
    "to_actions",
    "to_behaviors",
    "to_category_paths",
    "to_flags",
    "to_ids",
    "to_numbers",
    "to_seconds",
    "to_text",
]
