# SPDX-License-Identifier: Apache-2.0
"""Texts of items without the HTML that shops store in them: those of a log, and those of items that come later."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from seekrec.events.readers.column_names import TEXT_NAMES
from seekrec.util.actions import plain_name
from seekrec.util.markup import strip_column, strip_value

_TEXTS = ("title", "description", "categories", "queries")


def is_item_text(name: str) -> bool:
    """Return whether a column of items says what an item is: title, description, categories, queries, brand, ..."""
    return name in _TEXTS or plain_name(name) in TEXT_NAMES


def strip_items(items: pa.Table) -> pa.Table:
    """Return items whose texts hold no HTML; see [`~seekrec.util.markup.strip_markup`].

    Args:
        items (`pyarrow.Table`): Columns of `ITEM_FEATURES`, and any more.
    """
    for number, name in enumerate(items.column_names):
        if is_item_text(name):
            column, rows = strip_column(items[name])
            if len(rows):
                items = items.set_column(number, name, column)
    return items


def strip_item(columns: Mapping[str, object]) -> dict[str, object]:
    """Return the columns of one item, by name, the same way."""
    return {name: strip_value(value) if is_item_text(name) else value for name, value in columns.items()}


__all__ = ["is_item_text", "strip_item", "strip_items"]
