# SPDX-License-Identifier: Apache-2.0
"""Items of your own log: from their own table, or from the columns of events that describe them.

Every item needs a text: an item without a title is named by its brand and categories. If no item has any text, ids are
used as titles, and a note says that nothing can be learned from them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import Source, is_blank
from seekrec.events.readers.amounts import read_amounts
from seekrec.events.readers.columns import to_category_paths, to_ids, to_text
from seekrec.events.readers.recognition import Recognition
from seekrec.events.readers.times import decoded
from seekrec.schema import ITEM_FEATURES
from seekrec.util.arrow import is_list, is_text, to_mask
from seekrec.util.markup import strip_column

logger = logging.getLogger(__name__)

# What stands between the steps of a path that comes in several columns: no text holds it.
_STEP = "\x1f"

# Separators of paths in text, and those that often stand inside of names and are only pointed out.
_SEPARATORS, _UNSURE = (">", "|", " / ", "::", "»"), ("/", ",", ";")
_FEW, _MOST = 0.2, 0.5


def build_items(
    raw: pa.Table, found: Recognition, source: Source, separator: str | None, *, ids: pa.Array | None = None
) -> tuple[dict[str, pa.Array | pa.ChunkedArray], list[str]]:
    """Turn a table into columns of items.

    Args:
        raw (`pyarrow.Table`): The table; of items, or of events.
        found ([`Recognition`]): Which of its columns are what.
        source (`Source`): Where it came from.
        separator (`str`, *optional*): What stands between the names of a category path; found out if not given.
        ids (`pyarrow.Array`, *optional*): Item of each row, where the table is of events: of each item the first
            text counts, and no other columns are kept.

    Returns:
        `tuple`: Columns of `ITEM_FEATURES` other than times, and others; notes on how they were made.
    """
    raw, notes = _strip_html(raw, found, source, ids)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    of_item = None if ids is None else _first_rows(ids)
    columns["item_id"] = (
        ids.take(pa.array(of_item))
        if of_item is not None and ids is not None
        else to_ids(raw[found.taken["item_id"]], "item_id", source)
    )
    for role in ("title", "description"):
        if role in found.taken:
            columns[role] = to_text(raw[found.taken[role]], role, source)
    if "categories" in found.taken:
        columns["categories"], note = _read_categories(raw, found, source, separator)
        notes += note
    names = [
        to_text(raw[name], name, source)
        for name in found.texts()
        if name not in found.levels and _can_be_read(raw[name])
    ]
    if ids is not None and of_item is not None:
        codes = ids.dictionary_encode().indices
        for role in ("title", "description", "categories"):
            if role in columns:
                columns[role] = _first_of_items(columns[role], codes)
        names = [_first_of_items(text, codes) for text in names]
        notes.append(f"There is no table of items: {len(of_item)} were made from {source.name}.")
    else:
        # A column that has one of our names but was mapped away would be taken for ours.
        for name in found.free():
            if name not in ITEM_FEATURES:
                columns[name], of_amounts = read_amounts(raw[name], name, source.name)
                notes += of_amounts
        if "queries" in found.taken:
            columns["queries"] = raw[found.taken["queries"]]
    columns["title"], more = _write_titles(columns, names, source)
    return columns, notes + more


def _strip_html(raw: pa.Table, found: Recognition, source: Source, ids: pa.Array | None) -> tuple[pa.Table, list[str]]:
    """Return the table without HTML in what says what an item is, and a note on how many items had some."""
    roles = [found.taken[role] for role in ("title", "description", "categories", "queries") if role in found.taken]
    counts = {}
    for name in dict.fromkeys([*roles, *found.texts()]):
        array = decoded(raw[name])
        stripped, rows = strip_column(array)
        if name == found.taken.get("categories") and is_text(array.type) and len(rows):
            # Quotes inside of lists that are written as text would end their names; these are stripped when read.
            is_list_text = pc.starts_with(pc.utf8_ltrim_whitespace(array), "[")
            stripped, rows = pc.if_else(is_list_text, array, stripped), rows[~to_mask(is_list_text)[rows]]
        if len(rows):
            counts[name] = len(rows) if ids is None else len(ids.take(pa.array(rows)).drop_null().unique())
            raw = raw.set_column(raw.column_names.index(name), name, stripped)
    return raw, [_note_of_html(source, counts)] if counts else []


def _note_of_html(source: Source, counts: Mapping[str, int]) -> str:
    had = ", ".join(f"{name!r} of {count} items" for name, count in counts.items())
    return f"HTML in texts of {source.name} was read as the text it shows: {had}."


def _can_be_read(column: pa.ChunkedArray) -> bool:
    kind = decoded(column).type
    return is_text(kind) or pa.types.is_null(kind) or (is_list(kind) and is_text(kind.value_type))


def _first_rows(ids: pa.Array) -> np.ndarray:
    """Return the first row of each id, in the order of the table; rows without one are left out: int64."""
    codes = pc.fill_null(ids.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    values, first = np.unique(codes, return_index=True)
    return np.sort(first[values >= 0]).astype(np.int64)


def _first_of_items(column: pa.Array, codes: pa.Array) -> pa.Array:
    """Return the first value that is there of each item, in the order of their first rows."""
    is_there = to_mask(pc.and_(pc.is_valid(column), pc.is_valid(codes)))
    numbers = pc.fill_null(codes, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    num_items = int(numbers.max(initial=-1)) + 1
    rows = np.flatnonzero(is_there)
    found = np.full(num_items, -1, dtype=np.int64)
    found[numbers[rows][::-1]] = rows[::-1]
    return column.take(pa.array(found, mask=found < 0))


def _read_categories(
    raw: pa.Table, found: Recognition, source: Source, separator: str | None
) -> tuple[pa.Array, list[str]]:
    name = found.taken["categories"]
    if found.levels:
        steps = [to_text(raw[level], level, source) for level in found.levels]
        joined = pc.binary_join_element_wise(*steps, _STEP, null_handling="skip")
        note = f"Categories of {source.name} are paths of {', '.join(found.levels)}."
        return to_category_paths(pa.chunked_array([joined]), "categories", source, separator=_STEP), [note]
    column = raw[name]
    notes: list[str] = []
    array = decoded(column)
    if pa.types.is_integer(array.type):
        column = pa.chunked_array([array.cast(pa.string())])
    elif separator is None and is_text(array.type):
        separator, notes = _find_separator(array, name, source)
    paths, rows = strip_column(to_category_paths(column, "categories", source, separator=separator or ">"))
    return paths, [*notes, *([_note_of_html(source, {name: len(rows)})] if len(rows) else [])]


def _find_separator(text: pa.Array, name: str, source: Source) -> tuple[str, list[str]]:
    filled = text.filter(pc.invert(is_blank(text)))
    # Lists written as text have their own commas.
    filled = filled.filter(pc.invert(pc.starts_with(pc.utf8_ltrim_whitespace(filled), "[")))
    if not len(filled):
        return ">", []
    # Codes such as home.kitchen.pans have no other dots.
    if to_mask(pc.match_substring_regex(filled, r"^[\p{L}\p{N}_-]+(\.[\p{L}\p{N}_-]+)+$")).mean() >= _MOST:
        return ".", [f"Names of {name!r} in {source.name} are separated by '.'."]
    shares = {one: to_mask(pc.match_substring(filled, one)).mean() for one in (*_SEPARATORS, *_UNSURE)}
    best = max(_SEPARATORS, key=lambda one: shares[one])
    if shares[best] >= (_FEW if best != ">" else 0) and shares[best] > 0:
        return best, [f"Names of {name!r} in {source.name} are separated by {best.strip()!r}."]
    unsure = max(_UNSURE, key=lambda one: shares[one])
    if shares[unsure] >= _MOST:
        return ">", [
            f"Most texts of {name!r} in {source.name} have {unsure!r}, which was taken for part of a name; pass "
            f"category_separator={unsure!r} if it separates the names of a path."
        ]
    return ">", []


def _write_titles(
    columns: dict[str, pa.Array | pa.ChunkedArray], names: Sequence[pa.Array], source: Source
) -> tuple[pa.Array, list[str]]:
    """Return the titles, and make those of items that have neither a title nor a description."""
    count = len(columns["item_id"])
    nothing = pa.nulls(count, pa.string())
    title, description = (decoded(columns.get(role, nothing)) for role in ("title", "description"))
    untitled = to_mask(is_blank(title))
    needs = untitled & to_mask(is_blank(description))
    num_described = int(untitled.sum() - needs.sum())
    if not needs.any():
        return title, _note_of_titles(source, num_described, 0)
    rows = pa.array(np.flatnonzero(needs))
    parts = [text.take(rows) for text in names]
    if "categories" in columns:
        paths = decoded(columns["categories"]).take(rows).to_pylist()
        # The first path, from the root down.
        parts.append(pa.array([" ".join(path[0]) if path and path[0] else None for path in paths], pa.string()))
    made = pa.nulls(len(rows), pa.string())
    if parts:
        # Arrow's own skipping of nulls drops the rows in which all are null.
        joined = pc.binary_join_element_wise(*(pc.fill_null(part, "") for part in parts), " ")
        made = pc.utf8_trim_whitespace(pc.replace_substring_regex(joined, " +", " "))
    made = pc.if_else(is_blank(made), pa.scalar(None, pa.string()), made)
    num_made = len(made) - made.null_count
    if num_made == 0 and needs.all():
        note = (
            f"{source.name} has no text: ids stand for the titles of items. What an item is can only be learned from "
            "who acted on it, and searches cannot match it by words. Name a column of text with column_map title=..."
        )
        logger.warning(note)
        return decoded(columns["item_id"]), [note]
    written = pc.replace_with_mask(title, pa.array(needs), made)
    return written, _note_of_titles(source, num_described, num_made)


def _note_of_titles(source: Source, num_described: int, num_made: int) -> list[str]:
    """Say how many items have no title, and what they are called; those that have no text at all are left out."""
    ways = (
        (num_made, "named by their brand and categories"),
        (num_described, "shown by the start of their description"),
    )
    named = " and ".join(f"{count} are {way}" for count, way in ways if count)
    return [f"{num_described + num_made} items of {source.name} have no title: {named}."] if named else []


__all__ = ["build_items"]
