# SPDX-License-Identifier: Apache-2.0
"""The last step of every reader: bring a table to our columns, and leave out the rows that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from seekrec.events.checks import (
    Finding,
    Limits,
    Source,
    conform,
    find_event_problems,
    find_item_problems,
    find_items_without_text,
    find_repeated_events,
    refuse,
)
from seekrec.schema import EVENT_FEATURES, ITEM_FEATURES, OPTIONAL_EVENT_FEATURES


def keep_items(
    table: pa.Table, source: Source, *, max_refused: float | Limits, findings: Sequence[Finding] = ()
) -> tuple[pa.Table, str | None]:
    """Keep the items that can be used.

    Args:
        table (`pyarrow.Table`): Columns of `ITEM_FEATURES`, and any more.
        source (`Source`): The file, for messages.
        max_refused (`float` or [`Limits`]): The largest share of rows that may be left out.
        findings (`Sequence[Finding]`): Problems that the reader has found already.

    Returns:
        `tuple`: The items; a note on what was left out, `None` if nothing was.

    Raises:
        DataError: If a column is missing or of the wrong type, or too many rows cannot be used.
    """
    items = conform(table, ITEM_FEATURES, source.name, required=("item_id", "title"))
    found = [*findings, *find_item_problems(items), *find_items_without_text(items)]
    kept, _, note = refuse(items, found, source, max_refused=max_refused)
    return kept, note


def keep_events(
    table: pa.Table,
    items: pa.Table,
    source: Source,
    *,
    max_refused: float | Limits,
    findings: Sequence[Finding] = (),
    may_repeat: bool = False,
) -> tuple[pa.Table, str | None]:
    """Keep the events that can be used.

    Args:
        table (`pyarrow.Table`): Columns of `EVENT_FEATURES` and `OPTIONAL_EVENT_FEATURES`, and any more.
        items (`pyarrow.Table`): The items that events may name.
        source (`Source`): The file, for messages.
        max_refused (`float` or [`Limits`]): The largest share of rows that may be left out.
        findings (`Sequence[Finding]`): Problems that the reader has found already.
        may_repeat (`bool`): Whether a row may repeat an earlier one.

    Returns:
        `tuple`: The events; a note on what was left out, `None` if nothing was.

    Raises:
        DataError: If a column is missing or of the wrong type, or too many rows cannot be used.
    """
    required = ("user_id", "timestamp", "item_id")
    events = conform(table, EVENT_FEATURES, source.name, required=required, optional=OPTIONAL_EVENT_FEATURES)
    found = [*findings, *find_event_problems(events, items["item_id"])]
    if not may_repeat:
        found += find_repeated_events(events)
    kept, _, note = refuse(events, found, source, max_refused=max_refused)
    return kept, note


__all__ = ["keep_events", "keep_items"]
