# SPDX-License-Identifier: Apache-2.0
"""Warnings: what a column that was not taken seems to hold, and what keeps ids of two tables apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.events.readers.column_content import NOWHERE, is_id_column, may_be_typed
from seekrec.events.readers.column_names import TEXT_NAMES, count_known
from seekrec.events.readers.columns import to_ids
from seekrec.util.actions import plain_name
from seekrec.util.arrow import to_mask

# Share of ids that are known once what was lost or added does not count.
_SHARE_LOST = 0.9


def hints_of_queries(table: str, sample: pa.Table, free: Sequence[str]) -> list[str]:
    """Name the columns that may hold what people searched for.

    Args:
        table (`str`): Name of the table.
        sample (`pyarrow.Table`): Some of its rows.
        free (`Sequence[str]`): Its columns that were taken for nothing.
    """
    return [
        f"{table}: {name!r} looks like typed text; pass --column_map query={name} "
        f"(column_map={{'query': {name!r}}}) if it holds searches."
        for name in free
        # Titles and brands have their names.
        if not count_known([name]) and plain_name(name) not in TEXT_NAMES and may_be_typed(sample[name])
    ]


def hints_of_ids(ids: pa.ChunkedArray, known: pa.ChunkedArray, which: str) -> list[str]:
    """Say what keeps ids from being known: zeros at their front, or spaces around them.

    Args:
        ids (`pyarrow.ChunkedArray`): Ids of events.
        known (`pyarrow.ChunkedArray`): Ids of items.
        which (`str`): Which columns these are.
    """
    if not (is_id_column(ids) and is_id_column(known)):
        return []
    try:
        one, other = (to_ids(column, "item_id", NOWHERE).drop_null() for column in (ids, known))
    except DataError:
        return []
    one = one.filter(pc.invert(pc.is_in(one, value_set=other)))
    if not len(one):
        return []

    def become_known(change: Callable[[pa.Array], pa.Array]) -> float:
        return float(to_mask(pc.is_in(change(one), value_set=change(other))).mean())

    if become_known(pc.utf8_trim_whitespace) >= _SHARE_LOST:
        return [
            f"Ids in {which} are the same but for spaces around them. Write the tables again without them (in pandas: "
            ".str.strip())."
        ]
    if become_known(lambda texts: pc.utf8_ltrim(texts, characters="0")) >= _SHARE_LOST:
        return [
            f"Ids in {which} are the same but for zeros at the front: one of the tables was written with ids as "
            "numbers. Write it again with ids as text."
        ]
    return []


__all__ = ["hints_of_ids", "hints_of_queries"]
