# SPDX-License-Identifier: Apache-2.0
"""Summarise a log: what to look at before training, and the facts that a plan depends on.

Everything is counted on whole columns. Nothing is removed: oddities (a bot, times without hours) are reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow.compute as pc

from seekrec.events.checks import is_blank
from seekrec.events.columns import SessionIds
from seekrec.events.log import EventLog, QuerySource
from seekrec.events.sessions import count_sessions, number_sessions
from seekrec.events.timeline import MIN_INTERACTIONS, Timeline
from seekrec.util.arrow import to_mask
from seekrec.util.constants import SECONDS_PER_DAY

# A user is an outlier from so many events on, if the logarithm of their number is also so many standard deviations
# above the median. The deviation is that of a normal distribution with the same median absolute deviation (1.4826
# times it), and at least that of numbers that mostly lie within a factor of 1.6: where most users have one event it
# would be 0.
_OUTLIER_EVENTS = 1_000
_OUTLIER_DEVIATIONS = 6.0
_MIN_DEVIATION = 0.5
_DEVIATION = 1.4826


@dataclass(frozen=True)
class SessionSummary:
    """Summary of the sessions of a log; a session is a user and a `session_id`.

    Args:
        num_sessions (`int`): Number of sessions.
        share_of_events (`float`): Share of events that have a `session_id`.
        mean_events (`float`): Mean number of events of a session, impressions included.
        kind (`str`, *optional*): `"page_view"` (one request and what was done with its answer) or `"visit"` (many
            steps), as [`SessionCounts.guess`] says; `None` where sessions hold nothing but impressions.
        reason (`str`): Why.
    """

    num_sessions: int
    share_of_events: float
    mean_events: float
    kind: SessionIds | None
    reason: str


@dataclass(frozen=True)
class LogSummary:
    """Summary of a log: see [`summarize_log`].

    An *interaction* is an event in which a user acted on an item: not an impression, and no search without a click.
    Shares are from 0 to 1, and 0 where there is nothing to take a share of.

    Args:
        name (`str`): Name of the log.
        num_events (`int`): Number of events.
        num_users (`int`): Number of users.
        num_items (`int`): Number of items, those without events included.
        num_interactions (`int`): Number of interactions.
        num_users_to_hold_out (`int`): Number of users with enough interactions to hold out two and learn from one.
        num_queries (`int`): Number of different queries.
        query_source (`str`): Origin of the queries; see [`EventLog`].
        share_searches (`float`): Share of events that are searches.
        share_searches_without_item (`float`): Share of searches that led to no item.
        share_impressions (`float`): Share of events in which an item was only shown.
        share_repeats (`float`): Share of interactions with an item that the same user acted on before.
        share_items_without_events (`float`): Share of items that no event names.
        share_items_only_shown (`float`): Share of items that were shown and never acted on.
        share_items_with_text (`float`): Share of items with a title or a description that is more than their id.
        share_items_with_categories (`float`): Share of items with a category.
        actions (`dict[str, int]`): Number of events by action, the most frequent first.
        has_time (`bool`): Whether timestamps are times; if not, they are positions.
        first_timestamp (`int`): The earliest.
        last_timestamp (`int`): The latest.
        times_are_days (`bool`): Whether every time is midnight (UTC): the log says the day, not the hour.
        share_simultaneous (`float`): Share of interactions at the same time as another one of the same user: nothing
            says which was first.
        median_events_of_user (`float`): Median number of events of a user.
        p90_events_of_user (`float`): 90th percentile of it.
        max_events_of_user (`int`): Largest number of events of a user.
        num_outliers (`int`): Number of users with so many events that they are hardly people.
        outlier_from (`int`): Number of events from which a user counts as one.
        share_of_outliers (`float`): Share of events that are theirs.
        sessions ([`SessionSummary`], *optional*): `None` where no event has a `session_id`.
    """

    name: str
    num_events: int
    num_users: int
    num_items: int
    num_interactions: int
    num_users_to_hold_out: int
    num_queries: int
    query_source: QuerySource
    share_searches: float
    share_searches_without_item: float
    share_impressions: float
    share_repeats: float
    share_items_without_events: float
    share_items_only_shown: float
    share_items_with_text: float
    share_items_with_categories: float
    actions: dict[str, int]
    has_time: bool
    first_timestamp: int
    last_timestamp: int
    times_are_days: bool
    share_simultaneous: float
    median_events_of_user: float
    p90_events_of_user: float
    max_events_of_user: int
    num_outliers: int
    outlier_from: int
    share_of_outliers: float
    sessions: SessionSummary | None

    @property
    def has_searches(self) -> bool:
        """Whether any event is a search."""
        return self.share_searches > 0

    @property
    def has_impressions(self) -> bool:
        """Whether any event is an impression."""
        return self.share_impressions > 0

    @property
    def has_text(self) -> bool:
        """Whether any item has text."""
        return self.share_items_with_text > 0

    @property
    def has_categories(self) -> bool:
        """Whether any item has a category."""
        return self.share_items_with_categories > 0

    @property
    def span_days(self) -> float:
        """Days from the first to the last event; 0 where there are no times."""
        return (self.last_timestamp - self.first_timestamp) / SECONDS_PER_DAY if self.has_time else 0.0

    def to_dict(self) -> dict[str, object]:
        """Return all of it as values that can be written as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            ("time", self._describe_time()),
            ("actions", ", ".join(f"{action} {count:,}" for action, count in self.actions.items())),
            ("searches", self._describe_searches()),
            ("impressions", f"{self.share_impressions:.1%} of events" if self.has_impressions else "none"),
            ("repeats", f"{self.share_repeats:.1%} of interactions are with an item the user acted on before"),
            (
                "users",
                f"{self.median_events_of_user:g} events in the median, {self.p90_events_of_user:g} in the 90th "
                f"percentile, {self.max_events_of_user:,} at most; {self.num_users_to_hold_out:,} have "
                f"{MIN_INTERACTIONS} interactions or more",
            ),
            (
                "items",
                f"{self.share_items_without_events:.1%} without an event"
                + (f", {self.share_items_only_shown:.1%} only shown" if self.has_impressions else "")
                + f"; {self.share_items_with_text:.1%} with text, {self.share_items_with_categories:.1%} with "
                "categories",
            ),
            ("sessions", self._describe_sessions()),
        ]
        if self.num_outliers:
            rows.append(
                (
                    "outliers",
                    f"{self.num_outliers:,} of the users have {self.outlier_from:,} events or more: "
                    f"{self.share_of_outliers:.1%} of all events. They look like programs, and were kept",
                )
            )
        lines = [f"{self.name}: {self.num_events:,} events of {self.num_users:,} users, {self.num_items:,} items"]
        return "\n".join([*lines, *(f"  {title:<12} {text}" for title, text in rows)])

    def _describe_time(self) -> str:
        if not self.has_time:
            return "none; timestamps are positions in an order"
        written = "%Y-%m-%d" if self.times_are_days else "%Y-%m-%d %H:%M"
        first, last = (
            datetime.fromtimestamp(time, UTC).strftime(written) for time in (self.first_timestamp, self.last_timestamp)
        )
        span = f"{first} to {last} UTC ({self.span_days:,.1f} days)"
        if self.times_are_days:
            span += "; days without hours: events of one day have no order"
        if self.share_simultaneous:
            span += f"; {self.share_simultaneous:.1%} of interactions are at the time of another of the same user"
        return span

    def _describe_searches(self) -> str:
        if not self.has_searches:
            return "none"
        origin = {"logged": "typed by users", "category": "made from categories", "none": ""}[self.query_source]
        return (
            f"{self.share_searches:.1%} of events, {self.num_queries:,} different queries ({origin}); "
            f"{self.share_searches_without_item:.1%} of them led to no item"
        )

    def _describe_sessions(self) -> str:
        if self.sessions is None:
            return "none"
        meaning = {"page_view": "one request each", "visit": "visits of several steps", None: "only impressions"}
        return (
            f"{self.sessions.num_sessions:,}, {self.sessions.mean_events:.1f} events each on average "
            f"({self.sessions.share_of_events:.1%} of events); they look like {meaning[self.sessions.kind]}: "
            f"{self.sessions.reason}"
        )


def summarize_log(log: EventLog) -> LogSummary:
    """Count what a log holds.

    Args:
        log ([`EventLog`]): The log.

    Returns:
        [`LogSummary`]: `str` of it is a block of lines to print.
    """
    events, items = log.events, log.items
    t = Timeline.from_log(log)
    is_interaction = t.is_interaction
    interactions = np.flatnonzero(is_interaction)
    of_user = np.bincount(t.user)
    of_user_interactions = np.bincount(t.user[interactions], minlength=len(of_user))
    named = np.bincount(t.item[t.item >= 0], minlength=log.num_items) > 0
    acted_on = np.bincount(t.item[interactions], minlength=log.num_items) > 0
    is_first = np.zeros(len(interactions), dtype=bool)
    is_first[np.unique(t.pairs(interactions), return_index=True)[1]] = True
    at_moment = np.bincount(t.moment[interactions])
    outlier_from = _find_outlier_limit(of_user)
    outliers = of_user >= outlier_from
    actions = pc.value_counts(events["action"])
    by_action = sorted(((str(one["values"]), int(one["counts"])) for one in actions.to_pylist()), key=_by_count)
    return LogSummary(
        name=log.name,
        num_events=log.num_events,
        num_users=len(of_user),
        num_items=log.num_items,
        num_interactions=len(interactions),
        num_users_to_hold_out=int((of_user_interactions >= MIN_INTERACTIONS).sum()),
        num_queries=int(pc.count_distinct(events["query"]).as_py()),
        query_source=log.query_source,
        share_searches=_share(t.is_search),
        share_searches_without_item=_share(t.item[t.is_search] < 0),
        share_impressions=_share(t.is_impression),
        share_repeats=_share(~is_first),
        share_items_without_events=_share(~named),
        share_items_only_shown=_share(named & ~acted_on),
        share_items_with_text=_share(_has_text(log)),
        share_items_with_categories=_share(to_mask(pc.greater(pc.list_value_length(items["categories"]), 0))),
        actions=dict(by_action),
        has_time=log.has_time,
        first_timestamp=int(t.timestamp.min()),
        last_timestamp=int(t.timestamp.max()),
        times_are_days=log.has_time and not (t.timestamp % SECONDS_PER_DAY).any(),
        share_simultaneous=_share(at_moment[t.moment[interactions]] > 1) if log.has_time else 0.0,
        median_events_of_user=float(np.median(of_user)),
        p90_events_of_user=float(np.percentile(of_user, 90)),
        max_events_of_user=int(of_user.max()),
        num_outliers=int(outliers.sum()),
        outlier_from=outlier_from,
        share_of_outliers=float(of_user[outliers].sum() / log.num_events),
        sessions=_summarize_sessions(log, t),
    )


def _summarize_sessions(log: EventLog, timeline: Timeline) -> SessionSummary | None:
    session = number_sessions(log.events, timeline)
    num_sessions, num_events = int(session.max(initial=-1)) + 1, int((session >= 0).sum())
    if not num_sessions:
        return None
    guess = count_sessions(log.events, timeline, session, np.flatnonzero(~timeline.is_impression)).guess()
    return SessionSummary(
        num_sessions=num_sessions,
        share_of_events=num_events / log.num_events,
        mean_events=num_events / num_sessions,
        kind=guess.kind if guess else None,
        reason=guess.reason if guess else "nobody acted in them",
    )


def _has_text(log: EventLog) -> np.ndarray:
    """Mark the items that have a title other than their id, or a description: bool."""
    title, description = log.items["title"], log.items["description"]
    has_title = ~to_mask(is_blank(title)) & ~to_mask(pc.equal(title, log.items["item_id"]))
    return has_title | ~to_mask(is_blank(description))


def _find_outlier_limit(of_user: np.ndarray) -> int:
    logs = np.log(of_user)
    center = np.median(logs)
    deviation = max(_DEVIATION * float(np.median(np.abs(logs - center))), _MIN_DEVIATION)
    return max(_OUTLIER_EVENTS, int(np.ceil(np.exp(min(center + _OUTLIER_DEVIATIONS * deviation, 40.0)))))


def _share(mask: np.ndarray) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


__all__ = ["LogSummary", "SessionSummary", "summarize_log"]
