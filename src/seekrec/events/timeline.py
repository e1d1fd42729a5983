# SPDX-License-Identifier: Apache-2.0
"""The event order of a log as arrays, and the histories of many targets at once.

A log is sorted by user and time, so "what this user did before" is a range of rows. Nothing here loops over events:
ranges are expanded, filtered and truncated as flat arrays, in blocks of bounded size.

The two builders are the two protocols (see `splits.py`): [`strict_histories`] and [`paper_histories`].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.columns import impression_mask
from seekrec.events.log import EventLog
from seekrec.schema import SEARCH
from seekrec.util.arrow import to_mask
from seekrec.util.ragged import Ragged

# Rows expanded at a time: 4 million int64 rows and their owners take about 100 MB at the peak.
_ROWS_AT_A_TIME = 4_000_000

# A held-out pair of interactions and at least one to learn from.
MIN_INTERACTIONS = 3


@dataclass(frozen=True, eq=False)
class Timeline:
    """Who acted on what, and when, in the order of `EventLog.events`: one entry per event.

    Fields that [`~seekrec.events.columns.EventColumns`] has too mean the same; items are rows of the log's own table.
    A *moment* is a user and a timestamp; the events of one moment are neighbours.

    Args:
        user (`np.ndarray`): int64 number of the user, 0 for the first in the table.
        timestamp (`np.ndarray`): int64 seconds.
        item (`np.ndarray`): int64 row in `EventLog.items`, -1 where the event has no item.
        is_search (`np.ndarray`): bool.
        is_impression (`np.ndarray`): bool; shown, not acted on.
        user_start (`np.ndarray`): int64 row of the user's first event.
        moment (`np.ndarray`): int64 number of the moment; grows by one from moment to moment.
        moment_start (`np.ndarray`): int64 row of the moment's first event.
        moment_end (`np.ndarray`): int64 row after the moment's last event.
        num_items (`int`): Rows of `EventLog.items`.
    """

    user: np.ndarray
    timestamp: np.ndarray
    item: np.ndarray
    is_search: np.ndarray
    is_impression: np.ndarray
    user_start: np.ndarray
    moment: np.ndarray
    moment_start: np.ndarray
    moment_end: np.ndarray
    num_items: int

    @classmethod
    def from_log(cls, log: EventLog) -> Timeline:
        """Read the arrays from a log."""
        events = log.events
        user_ids = events["user_id"].combine_chunks()
        time = events["timestamp"].to_numpy()
        new_user = np.ones(len(time), dtype=bool)
        new_user[1:] = pc.not_equal(user_ids[1:], user_ids[:-1]).to_numpy(zero_copy_only=False)
        new_moment = new_user.copy()
        new_moment[1:] |= time[1:] != time[:-1]
        user, moment = np.cumsum(new_user) - 1, np.cumsum(new_moment) - 1
        moment_starts = np.append(np.flatnonzero(new_moment), len(time))
        return cls(
            user=user,
            timestamp=time,
            item=item_rows(log, events["item_id"]),
            is_search=to_mask(pc.equal(events["behavior"], SEARCH)),
            is_impression=impression_mask(events),
            user_start=np.flatnonzero(new_user)[user],
            moment=moment,
            moment_start=moment_starts[moment],
            moment_end=moment_starts[moment + 1],
            num_items=log.items.num_rows,
        )

    @property
    def is_interaction(self) -> np.ndarray:
        """Mask of the events in which the user acted on an item: bool, one entry per event.

        Training, counts, questions and exclusions of seen items all use this definition. An item that
        was shown and not acted on is not an interaction, nor is a search without a click.
        """
        return (self.item >= 0) & ~self.is_impression

    def first_rows(self) -> np.ndarray:
        """Return the row of each user's first event, int64; entry `k` belongs to user number `k`."""
        return np.flatnonzero(self.user_start == np.arange(len(self.user)))

    def pairs(self, rows: np.ndarray) -> np.ndarray:
        """Number the (user, item) pair of each row: int64, -1 where the event has no item."""
        items = self.item[rows]
        return np.where(items < 0, -1, self.user[rows] * self.num_items + items)

    def distinct_interactions(self) -> np.ndarray:
        """Return the first row of each distinct (user, item, timestamp) that is an interaction, in table order.

        With the `copy` construction an interaction counts twice, as a recommendation and as a search: here it counts
        once.
        """
        rows = np.flatnonzero(self.is_interaction)
        _, first = np.unique(self.moment[rows] * self.num_items + self.item[rows], return_index=True)
        return np.sort(rows[first])


def merge_histories(first: Ragged, second: Ragged, order: np.ndarray) -> Ragged:
    """Merge two histories of the same targets.

    Args:
        first (`Ragged`): int64 rows of the event table, one history a target.
        second (`Ragged`): The same for the same targets; shares no entry with `first`.
        order (`np.ndarray`): int64 position of each row of the event table: the lower stands first.

    Returns:
        `Ragged`: One history a target, in the order of `order`.
    """
    values = np.concatenate([first.values, second.values])
    owners = np.concatenate([first.owners(), second.owners()])
    return Ragged(values[np.lexsort((order[values], owners))], first.offsets + second.offsets)


def item_rows(log: EventLog, item_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return the row in `log.items` of each id: int64, -1 for null."""
    found = pc.index_in(item_ids, value_set=log.items["item_id"].combine_chunks())
    return np.asarray(pc.fill_null(found, -1)).astype(np.int64)


def is_among(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Mark the values that the table holds: bool. Like `np.isin`, which is slow on millions of integers."""
    return is_in_sorted(values, np.sort(table))


def is_in_sorted(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Mark the values that an ascending array holds: bool."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def strict_histories(timeline: Timeline, targets: np.ndarray, usable: np.ndarray, max_history: int | None) -> Ragged:
    """Return what the user did before each target, without the target's item.

    Args:
        timeline (`Timeline`): The log.
        targets (`np.ndarray`): int64 rows of the target events, any order.
        usable (`np.ndarray`): int64 rows that a history may hold, ascending.
        max_history (`int`, *optional*): Keep the latest so many.

    Returns:
        `Ragged`: The `usable` rows of the same user with an EARLIER timestamp and another item.
    """
    starts = np.searchsorted(usable, timeline.user_start[targets])
    ends = np.searchsorted(usable, timeline.moment_start[targets])
    if max_history is not None:
        # Rows of the target's own pair fall out below, so look that much further back.
        pairs, counts = np.unique(timeline.pairs(usable), return_counts=True)
        own = timeline.pairs(targets)
        dropped = np.zeros(len(targets), dtype=np.int64)
        if len(pairs):
            place = np.minimum(np.searchsorted(pairs, own), len(pairs) - 1)
            dropped = np.where((pairs[place] == own) & (own >= 0), counts[place], 0)
        starts = np.maximum(starts, ends - max_history - dropped)

    # No event has item -2, so a target without an item drops nothing.
    own_item = np.where(timeline.item[targets] < 0, -2, timeline.item[targets])

    def keep(batch: slice, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return timeline.item[rows] != np.repeat(own_item[batch], lengths)

    return _gather(usable, starts, ends, keep, max_history)


def histories_before(
    timeline: Timeline,
    targets: np.ndarray,
    usable: np.ndarray,
    order: PaperOrder | None,
    max_history: int | None,
    is_kind: np.ndarray | None = None,
) -> Ragged:
    """Return [`paper_histories`] with an order, else [`strict_histories`]; where given, of what `is_kind` marks."""
    if order is not None:
        return paper_histories(timeline, order, targets, max_history, is_kind)
    return strict_histories(timeline, targets, usable if is_kind is None else usable[is_kind[usable]], max_history)


@dataclass(frozen=True, eq=False)
class PaperOrder:
    """The events that the released GenSAR pipeline takes to precede each event (see `splits.py`, protocol `paper`).

    All arrays but the first have one entry per event; impressions have no position and hold zeros.

    Args:
        rows (`np.ndarray`): int64 rows of all events but impressions, in the order of histories: user, time,
            recommendations before searches. Of one moment, recommendations stand by `rating`, then item id, where the
            log has such a column, else as the log has them; searches by item id.
        place (`np.ndarray`): int64 position in `rows`.
        rank_in_task (`np.ndarray`): int64 position among the user's events of the same behavior, in that order.
        num_recommendations (`np.ndarray`): int64; the history contains the user's first so many recommendations.
        num_searches (`np.ndarray`): int64; the history contains the user's first so many searches.
        target_rank (`np.ndarray`): int64; orders the events of a user and behavior by time, then item id: the last two
            are held out.
        has_searches (`bool`): Whether the log has any search.
    """

    rows: np.ndarray
    place: np.ndarray
    rank_in_task: np.ndarray
    num_recommendations: np.ndarray
    num_searches: np.ndarray
    target_rank: np.ndarray
    has_searches: bool


def paper_order(log: EventLog, timeline: Timeline) -> PaperOrder:
    """Count what precedes each event, with the mistake of the released pipeline.

    A recommendation at position p among its user's recommendations, sorted by (time, item id), is given the first p
    recommendations *by (time, rating)*: where several share a timestamp the two orders differ, and it may be one of
    them. A search is given every recommendation up to and including its own timestamp, without the last one if that is
    of the same item.
    """
    t = timeline
    listed = np.flatnonzero(~t.is_impression)
    by_id = np.full(t.num_items + 1, -1, dtype=np.int64)  # the last entry serves item -1: no item, before all
    by_id[pc.sort_indices(log.items["item_id"]).to_numpy()] = np.arange(t.num_items)
    item_order = by_id[t.item]

    score = np.zeros(len(t.user))
    if "rating" in log.events.column_names and _is_number(log.events["rating"].type):
        score = np.where(t.is_search, 0, np.nan_to_num(log.events["rating"].cast(pa.float64()).to_numpy()))
        order_in_moment = item_order
    else:
        order_in_moment = np.where(t.is_search, item_order, 0)  # recommendations: by row, the last key below
    keys = (listed, order_in_moment[listed], score[listed], t.is_search[listed], t.moment[listed])
    rows = listed[np.lexsort(keys)]
    searches_before = np.cumsum(t.is_search[rows]) - t.is_search[rows]
    recommendations_before = np.arange(len(rows)) - searches_before
    place = np.zeros(len(t.user), dtype=np.int64)
    place[rows] = np.arange(len(rows))
    # Where the user and the moment begin in `rows`; both keep the order of the table.
    users, moments = t.user[rows], t.moment[rows]
    user_begin = np.searchsorted(users, users)
    moment_begin = np.searchsorted(moments, moments)

    is_search = t.is_search[rows]
    own_searches = searches_before - searches_before[user_begin]
    own_recommendations = recommendations_before - recommendations_before[user_begin]
    rank_in_task = np.zeros(len(t.user), dtype=np.int64)
    rank_in_task[rows] = np.where(is_search, own_searches, own_recommendations)

    keys = (listed, item_order[listed], t.timestamp[listed], t.is_search[listed], t.user[listed])
    by_target = listed[np.lexsort(keys)]
    target_rank = np.zeros(len(t.user), dtype=np.int64)
    target_rank[by_target] = np.arange(len(by_target))
    task = t.user[by_target] * 2 + t.is_search[by_target]
    position_in_task = np.zeros(len(t.user), dtype=np.int64)
    position_in_task[by_target] = np.arange(len(by_target)) - np.searchsorted(task, task)

    # The recommendation just before each position; of another user, or absent, where own_recommendations is 0.
    recommended = rows[~is_search]
    last_items = np.full(len(rows), -1, dtype=np.int64)
    has_last = own_recommendations > 0
    last_items[has_last] = t.item[recommended[recommendations_before[has_last] - 1]]
    repeats = is_search & has_last & (last_items == t.item[rows])

    num_recommendations = np.zeros(len(t.user), dtype=np.int64)
    num_recommendations[rows] = np.where(is_search, own_recommendations - repeats, position_in_task[rows])
    num_searches = np.zeros(len(t.user), dtype=np.int64)
    num_searches[rows] = np.where(is_search, own_searches, own_searches[moment_begin])
    # Not looked up among the rows: those of a part of a log may have none.
    has_searches = log.query_source != "none"
    return PaperOrder(rows, place, rank_in_task, num_recommendations, num_searches, target_rank, has_searches)


def paper_targets(timeline: Timeline, order: PaperOrder) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that the released pipeline predicts, held out or not.

    Interactions whose history contains a recommendation and a search (where the log has no searches: a
    recommendation), of users with at least three of them in that behavior.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: int64 rows, ordered by user, behavior, time and item id; int64 how many of the
        same user and behavior follow.
    """
    t = timeline
    is_target = t.is_interaction & (order.num_recommendations > 0)
    if order.has_searches:
        is_target &= order.num_searches > 0
    rows = np.flatnonzero(is_target)
    rows = rows[np.argsort(order.target_rank[rows])]
    task = t.user[rows] * 2 + t.is_search[rows]
    first, end = np.searchsorted(task, task), np.searchsorted(task, task, side="right")
    enough = end - first >= MIN_INTERACTIONS
    return rows[enough], (end - 1 - np.arange(len(rows)))[enough]


def paper_histories(
    timeline: Timeline,
    order: PaperOrder,
    targets: np.ndarray,
    max_history: int | None,
    usable: np.ndarray | None = None,
) -> Ragged:
    """Return the first so many recommendations and searches of the user that [`PaperOrder`] counted for each target.

    Args:
        timeline (`Timeline`): The log.
        order (`PaperOrder`): Order of the same log.
        targets (`np.ndarray`): int64 rows of the target events; no impressions.
        max_history (`int`, *optional*): Keep the latest so many.
        usable (`np.ndarray`, *optional*): bool, one entry per event: which a history may hold; all if not given.

    Returns:
        `Ragged`: May hold the target itself and events of its timestamp, as in the released pipeline.
    """
    listed = order.rows if usable is None else order.rows[usable[order.rows]]
    users = timeline.user[listed]
    moments = timeline.moment[listed]
    starts = np.searchsorted(users, timeline.user[targets])
    ends = np.searchsorted(moments, timeline.moment[targets], side="right")
    if max_history is not None:
        # What falls out below is of the target's moment, but for the one recommendation that a search repeats.
        in_moment = ends - np.searchsorted(moments, timeline.moment[targets])
        starts = np.maximum(starts, ends - max_history - in_moment - 1)

    def keep(batch: slice, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        num_searches = np.repeat(order.num_searches[targets[batch]], lengths)
        num_recommendations = np.repeat(order.num_recommendations[targets[batch]], lengths)
        return order.rank_in_task[rows] < np.where(timeline.is_search[rows], num_searches, num_recommendations)

    return _gather(listed, starts, ends, keep, max_history)


def _gather(
    table: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    keep: Callable[[slice, np.ndarray, np.ndarray], np.ndarray],
    max_history: int | None,
) -> Ragged:
    """Expand `table[starts[k]:ends[k]]` for each k, drop the rows that `keep` rejects, and cut to the latest.

    `keep` is given a batch of targets, the length of each one's range, and the rows of all ranges end to end.
    """
    all_lengths = np.maximum(ends - starts, 0)
    counts = np.zeros(len(starts), dtype=np.int64)
    kept_rows: list[np.ndarray] = []
    for batch in _batches(all_lengths):
        lengths = all_lengths[batch]
        ranges = Ragged.from_ranges(starts[batch], lengths)
        rows = table[ranges.values]
        kept = Ragged(rows, ranges.offsets).keep(keep(batch, lengths, rows))
        rows, found = kept.values, kept.lengths
        if max_history is not None:
            from_end = np.repeat(np.cumsum(found), found) - np.arange(len(rows))  # 1 for the latest
            rows, found = rows[from_end <= max_history], np.minimum(found, max_history)
        counts[batch] = found
        kept_rows.append(rows)
    return Ragged.from_lengths(np.concatenate(kept_rows) if kept_rows else np.empty(0, dtype=np.int64), counts)


def _batches(lengths: np.ndarray) -> Iterator[slice]:
    """Cut the targets into runs whose ranges hold at most `_ROWS_AT_A_TIME` rows (or one target with more)."""
    total = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + _ROWS_AT_A_TIME, side="right")), first + 1)
        yield slice(first, last)
        first = last


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
