# SPDX-License-Identifier: Apache-2.0
"""Users' events as sequences of item rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seekrec.errors import DataError, UnknownItemError
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, IdMap
from seekrec.util.ragged import Ragged

if TYPE_CHECKING:
    from seekrec.events import Split


def last_interactions(split: Split, count: int) -> np.ndarray:
    """Return the last interactions of each user in training.

    Args:
        split ([`~seekrec.events.Split`]): Only its training events are looked at.
        count (`int`): How many of each user's; of users with no more than these, fewer: the first is never among them.

    Returns:
        `np.ndarray`: int64 rows of the log's events, ascending.
    """
    rows = split.training_interactions()
    users = split.timeline.user[rows]
    _, first, totals = np.unique(users, return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(first, totals)
    return rows[(place > 0) & (place >= np.repeat(totals, totals) - count)]


def sasrec_sequences(split: Split, id_map: IdMap, *, num_unseen_events: int = 0) -> Ragged:
    """Return the items that each user acted on in training, oldest first, of both behaviors.

    An item that follows itself counts once.

    Args:
        split ([`~seekrec.events.Split`]): Only its training events are used; they are ordered by user and time.
        id_map ([`IdMap`]): Item ids to rows.
        num_unseen_events (`int`): Each sequence ends before so many of its user's `last_interactions`.

    Returns:
        [`Ragged`]: int32 item rows, a row for each user with at least one item.

    Raises:
        UnknownItemError: If an item of the events is not in `id_map`.
    """
    rows = split.training_interactions()
    if num_unseen_events:
        rows = rows[~np.isin(rows, last_interactions(split, num_unseen_events))]
    items, users = _item_rows(split, rows, id_map), split.timeline.user[rows]
    starts_user = np.ones(len(users), bool)
    starts_user[1:] = users[1:] != users[:-1]
    is_kept = starts_user.copy()
    is_kept[1:] |= items[1:] != items[:-1]
    # A user's first event is always kept, so the kept rows begin a sequence at each first event.
    kept = items[is_kept].astype(np.int32)
    return Ragged(kept, np.append(np.flatnonzero(starts_user[is_kept]), len(kept)).astype(np.int64))


def write_sequences(parts: Iterable[Ragged], folder: str | Path) -> Ragged:
    """Write sequences to files, those of one part at a time.

    Args:
        parts (`Iterable[Ragged]`): What [`sasrec_sequences`] returns of each part of a log.
        folder (`str` or `Path`): Where to write; made if it does not exist.

    Returns:
        [`Ragged`]: The sequences of all parts, end to end, mapped from the files.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    num_values = 0
    with (target / "items.i32").open("wb") as items, (target / "offsets.i64").open("wb") as offsets:
        offsets.write(np.zeros(1, np.int64).tobytes())
        for part in parts:
            items.write(np.ascontiguousarray(part.values, np.int32).data)
            offsets.write((part.offsets[1:] + num_values).astype(np.int64).data)
            num_values += len(part.values)
    # Nothing can be mapped of an empty file.
    values = np.memmap(target / "items.i32", np.int32, "r") if num_values else np.empty(0, np.int32)
    return Ragged(values, np.memmap(target / "offsets.i64", np.int64, "r"))


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
    """Return the distinct (user, item) pairs of the training events; items that were only shown do not count.

    Args:
        split ([`~seekrec.events.Split`]): Only its training events are used.
        id_map ([`IdMap`]): Item ids to rows.
        behaviors (`Sequence[str]`): Events of these behaviors count.

    Returns:
        [`InteractionGraph`]: Every user who did anything in training is in it, be it without a pair.

    Raises:
        UnknownItemError: If an item of the events is not in `id_map`.
        DataError: If no event is left.
    """
    timeline, acts, rows = split.timeline, split.training_acts(), split.training_interactions()
    behavior = np.where(timeline.is_search[rows], SEARCH, RECOMMENDATION)
    rows = rows[np.isin(behavior, list(behaviors))]
    if not len(rows):
        raise DataError(
            f"No training event of {' or '.join(behaviors)} has an item; a graph needs some, so name other behaviors."
        )
    # Who was only shown things is nobody here: a log without its impressions has the same graph.
    known, first = np.unique(timeline.user[acts], return_index=True)
    user_ids = split.log.events["user_id"].take(acts[first]).to_pylist()
    users = np.searchsorted(known, timeline.user[rows])
    pairs = np.unique(users * len(id_map) + _item_rows(split, rows, id_map))
    return InteractionGraph(user_ids, pairs // len(id_map), pairs % len(id_map))


def _item_rows(split: Split, rows: np.ndarray, id_map: IdMap) -> np.ndarray:
    """Return the row in `id_map` of the item of each event, int64."""
    items = split.timeline.item[rows]
    own_ids = split.log.items["item_id"].to_pylist()
    found = id_map.convert_to_rows(own_ids, strict=False)[items]
    if (unknown := items[found < 0]).size:
        raise UnknownItemError(
            f"{len(unknown)} training events have an item that is not in the id map, first {own_ids[unknown[0]]!r}; "
            "build the id map from the log's own items."
        )
    return found
