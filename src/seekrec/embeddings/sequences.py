# SPDX-License-Identifier: Apache-2.0
"""What users did, as sequences of item rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError, UnknownItemError
from seekrec.schema import BEHAVIORS, Behavior, IdMap

if TYPE_CHECKING:
    from seekrec.events import Split


def last_interactions(split: Split, count: int) -> np.ndarray:
    """Give the last interactions of each user in training.

    Args:
        split ([`~seekrec.events.Split`]): Only its training events are looked at.
        count (`int`): How many of each user's; of users with no more than these, fewer: the first is never among them.

    Returns:
        `np.ndarray`: int64 rows of the log's events, ascending.
    """
    rows = split.train_rows[split.timeline.is_interaction[split.train_rows]]
    users = split.timeline.user[rows]
    _, first, totals = np.unique(users, return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(first, totals)
    return rows[(place > 0) & (place >= np.repeat(totals, totals) - count)]


def sasrec_sequences(split: Split, id_map: IdMap, *, num_unseen_events: int = 0) -> list[np.ndarray]:
    """Give each user's training items, oldest first, of both behaviors.

    Searches without a click are left out, and an item that follows itself counts once.

    Args:
        split ([`~seekrec.events.Split`]): Only its training events are used; they are ordered by user and time.
        id_map ([`IdMap`]): Item ids to rows.
        num_unseen_events (`int`): Each sequence ends before so many of its user's `last_interactions`.

    Returns:
        `list[np.ndarray]`: int64 item rows, one array for each user with at least one item.

    Raises:
        UnknownItemError: If an item of the events is not in `id_map`.
    """
    events = split.train_events()
    if num_unseen_events:
        unseen = last_interactions(split, num_unseen_events)
        timeline = split.timeline
        end = np.full(int(timeline.user.max(initial=-1)) + 1, len(timeline.user), dtype=np.int64)
        np.minimum.at(end, timeline.user[unseen], unseen)
        events = events.filter(pa.array(split.train_rows < end[timeline.user[split.train_rows]]))
    events = events.filter(pc.is_valid(events.column("item_id")))
    item_rows = _item_rows(events, id_map)
    users = events.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    starts_user = np.ones(len(users), bool)
    starts_user[1:] = users[1:] != users[:-1]
    is_kept = starts_user.copy()
    is_kept[1:] |= item_rows[1:] != item_rows[:-1]
    # A user's first event is always kept, so cutting the kept rows at first events gives one sequence a user.
    return np.split(item_rows[is_kept], np.flatnonzero(starts_user[is_kept])[1:]) if len(users) else []


@dataclass(frozen=True, eq=False)
class InteractionGraph:
    """Who acted on what in training: distinct pairs.

    Args:
        user_ids (`list[str]`): Users, in row order.
        users (`np.ndarray`): int64 rows of `user_ids`, of shape `(num_pairs,)`.
        items (`np.ndarray`): int64 rows of the catalogue, of the same shape.
    """

    user_ids: list[str]
    users: np.ndarray
    items: np.ndarray


def interaction_graph(split: Split, id_map: IdMap, *, behaviors: Sequence[Behavior] = BEHAVIORS) -> InteractionGraph:
    """Give the distinct (user, item) pairs of the training events; items that were only shown do not count.

    Args:
        split ([`~seekrec.events.Split`]): Only its training events are used.
        id_map ([`IdMap`]): Item ids to rows.
        behaviors (`Sequence[str]`): Events of these behaviors count.

    Returns:
        [`InteractionGraph`]: Every user of the training events is in it, be it without a pair.

    Raises:
        UnknownItemError: If an item of the events is not in `id_map`.
        DataError: If no event is left.
    """
    events = split.train_events()
    user_ids = pc.unique(events.column("user_id")).to_pylist()
    is_kept = pc.and_(pc.is_valid(events["item_id"]), pc.is_in(events["behavior"], pa.array(list(behaviors))))
    is_shown = pc.fill_null(pc.equal(events["action"], "impression"), False)
    events = events.filter(pc.and_(is_kept, pc.invert(is_shown)))
    if not events.num_rows:
        raise DataError(
            f"No training event of {' or '.join(behaviors)} has an item; a graph needs some, so name other behaviors."
        )
    items = _item_rows(events, id_map)
    users = pc.index_in(events["user_id"].combine_chunks(), value_set=pa.array(user_ids, pa.string())).to_numpy()
    pairs = np.unique(users.astype(np.int64) * len(id_map) + items)
    return InteractionGraph(user_ids, pairs // len(id_map), pairs % len(id_map))


def _item_rows(events: pa.Table, id_map: IdMap) -> np.ndarray:
    items = events.column("item_id").combine_chunks()
    rows = pc.index_in(items, value_set=pa.array(id_map.ids, items.type))
    if rows.null_count:
        unknown = items.filter(pc.is_null(rows))
        raise UnknownItemError(
            f"{len(unknown)} training events have an item that the id map does not hold, the first is "
            f"{unknown[0].as_py()!r}; build the id map from the log's own items."
        )
    return np.asarray(rows.to_numpy(zero_copy_only=False), dtype=np.int64)
