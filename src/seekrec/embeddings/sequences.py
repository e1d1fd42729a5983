# SPDX-License-Identifier: Apache-2.0
"""What users did, as sequences of item rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import UnknownItemError
from seekrec.schema import IdMap

if TYPE_CHECKING:
    from seekrec.events import Split


def sasrec_sequences(split: Split, id_map: IdMap) -> list[np.ndarray]:
    """Give each user's training items, oldest first, of both behaviors.

    Searches without a click are left out, and an item that follows itself counts once.

    Args:
        split ([`~seekrec.events.Split`]): Only its training events are used; they are ordered by user and time.
        id_map ([`IdMap`]): Item ids to rows.

    Returns:
        `list[np.ndarray]`: int64 item rows, one array for each user with at least one item.

    Raises:
        UnknownItemError: If an item of the events is not in `id_map`.
    """
    events = split.train_events()
    events = events.filter(pc.is_valid(events.column("item_id")))
    items = events.column("item_id").combine_chunks()
    rows = pc.index_in(items, value_set=pa.array(id_map.ids, items.type))
    if rows.null_count:
        unknown = items.filter(pc.is_null(rows))
        raise UnknownItemError(
            f"{len(unknown)} training events have an item that the id map does not hold, the first is "
            f"{unknown[0].as_py()!r}; build the id map from the log's own items."
        )
    item_rows = rows.to_numpy(zero_copy_only=False).astype(np.int64)
    users = events.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    starts_user = np.ones(len(users), bool)
    starts_user[1:] = users[1:] != users[:-1]
    is_kept = starts_user.copy()
    is_kept[1:] |= item_rows[1:] != item_rows[:-1]
    # A user's first event is always kept, so cutting the kept rows at first events gives one sequence a user.
    return np.split(item_rows[is_kept], np.flatnonzero(starts_user[is_kept])[1:]) if len(users) else []
