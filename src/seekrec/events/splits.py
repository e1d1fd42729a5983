# SPDX-License-Identifier: Apache-2.0
"""Split a log into training, validation and test, so that no answer can be read from the question or from training.

Protocol `strict` (the default) makes one split of each user's timeline for both tasks. For a target (user, item, time)

- the history holds only events of the user with an EARLIER timestamp and another item;
- training holds no event of the user with that item, and none at or after the timestamp of the user's first target.

Method `leave_one_out` takes each user's last distinct (user, item, timestamp) for the test and the last but one for
validation; users with fewer than three stay in training only. Method `last_days` takes every interaction of the last
`num_test_days` days (UTC) for the test, each user's first of the last day before that has any for validation, and
trains on what lies before that day. Either way a held-out interaction is asked as a recommendation and, where a query
can be had ([`find_queries`]), as a search. Only `last_days` trains on no later event of *other* users.

Protocol `paper` does what the released GenSAR pipeline does, for comparison. It leaks. Reproduced are:

- leave-one-out by task: the last two recommendations and the last two searches of each user, each asked in its own
  task only; the copies of a target in the other task, and later events of the other task, stay in training;
- "last" means last by (timestamp, item id), while histories stand by (timestamp, rating), or by timestamp and the
  order of the log where events have no column `rating`: the recommendation at position p is given the first p of the
  other order, and may be one of them itself;
- a search is given every recommendation of its own timestamp, except the last one where that has the same item;
- targets must follow a recommendation and a search (if the log has any), and a user needs three of them in a task.

Not reproduced: 5-core filtering, text cleaning, the one query a pair (readers do that) and the released negatives.
With `last_days`, `paper` asks every interaction of the window in its own task, with these histories; it drops no pair.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.audit import audit
from seekrec.events.cases import Cases, case_hash
from seekrec.events.checks import check_choice
from seekrec.events.log import EventLog
from seekrec.events.queries import category_queries
from seekrec.events.split import METHODS, PROTOCOLS, Method, Protocol, Split, check_max_history, check_split
from seekrec.events.timeline import (
    MIN_INTERACTIONS,
    PaperOrder,
    Timeline,
    histories_before,
    is_among,
    paper_order,
    paper_targets,
)
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior
from seekrec.util.constants import SECONDS_PER_DAY
from seekrec.util.ragged import Ragged

logger = logging.getLogger(__name__)


def split_log(
    log: EventLog,
    *,
    method: Method = "leave_one_out",
    protocol: Protocol = "strict",
    num_test_days: int = 1,
    seed: int = 0,
    max_history: int | None = None,
    keep_impressions: bool = False,
) -> Split:
    """Split a log, as described at the top of this module.

    Args:
        log (`EventLog`): The log.
        method (`str`): `"leave_one_out"` or `"last_days"`.
        protocol (`str`): `"strict"`, or `"paper"` to compare with published numbers.
        num_test_days (`int`): Days of the test with `"last_days"`; ignored otherwise.
        seed (`int`): Seed of the choice among an item's synthetic queries.
        max_history (`int`, *optional*): Histories keep the latest so many events; `None` keeps all.
        keep_impressions (`bool`): Whether histories (strict) hold items that were shown but not acted on.

    Returns:
        `Split`: The split; strict ones have passed [`audit`].

    Raises:
        ConfigurationError: If an argument has an unknown value.
        DataError: If the log is too short, nothing is left to train on, or `"last_days"` is asked of a log without
            time.
        LeakageError: If a strict split leaks.
    """
    check_choice("method", method, METHODS)
    check_choice("protocol", protocol, PROTOCOLS)
    check_max_history(max_history)
    if method == "last_days" and num_test_days < 1:
        raise ConfigurationError(f"`num_test_days` is {num_test_days!r}; give 1 or more.")
    t = Timeline.from_log(log)
    order = paper_order(log, t) if protocol == "paper" else None
    if method == "last_days":
        chosen = last_days(log, t, num_test_days, is_strict=order is None)
    elif order is None:
        chosen = leave_one_out_strict(t)
    else:
        chosen = leave_one_out_paper(t, order)

    usable = np.arange(len(t.user)) if keep_impressions else np.flatnonzero(~t.is_impression)
    cases = [
        ask(log, t, rows, chosen.train_rows, usable=usable, order=order, seed=seed, max_history=max_history)
        for rows in (chosen.validation, chosen.test)
    ]
    split = Split(
        log=log,
        method=method,
        protocol=protocol,
        seed=seed,
        train_rows=chosen.train_rows,
        validation=cases[0],
        test=cases[1],
        num_test_days=num_test_days if method == "last_days" else None,
        max_history=max_history,
        keep_impressions=keep_impressions,
    )
    split.__dict__["timeline"] = t  # already made; fills the cached property
    check_split(split)
    if protocol == "strict":
        audit(split).raise_if_leaking()
    logger.info("Split %s: %s, protocol %s, %d training events.", log.name, method, protocol, len(split.train_rows))
    return split


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows of the event table by use, each int64 and ascending.

    Args:
        train_rows (`np.ndarray`): Rows that training may use.
        validation (`np.ndarray`): Targets of validation.
        test (`np.ndarray`): Targets of the test.
    """

    train_rows: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def leave_one_out_strict(timeline: Timeline) -> HeldOut:
    """Hold out each user's last two distinct interactions; train on what lies before the first of them."""
    t = timeline
    rows = t.distinct_interactions()
    users = t.user[rows]
    last = np.flatnonzero(np.append(users[1:] != users[:-1], True)) if len(rows) else np.empty(0, dtype=np.int64)
    counts = np.diff(last, prepend=-1)
    last = last[counts >= MIN_INTERACTIONS]
    if not len(last):
        raise DataError(
            f"No user of the log has {MIN_INTERACTIONS} distinct interactions (the most is {counts.max(initial=0)}), "
            "so nothing can be held out; leave-one-out needs one for training, one for validation, one for the test."
        )
    test, validation = rows[last], rows[last - 1]
    # Per user: when the validation target happened, and the two items; users without targets lose nothing.
    num_users = int(t.user[-1]) + 1
    until = np.full(num_users, np.iinfo(np.int64).max)
    until[t.user[validation]] = t.timestamp[validation]
    out = t.timestamp >= until[t.user]
    for targets in (validation, test):
        target_item = np.full(num_users, -2)
        target_item[t.user[targets]] = t.item[targets]
        out |= t.item == target_item[t.user]
    return HeldOut(np.flatnonzero(~out), validation, test)


def leave_one_out_paper(timeline: Timeline, order: PaperOrder) -> HeldOut:
    """Hold out the last two recommendations and, apart from them, the last two searches of each user."""
    targets, places_from_end = paper_targets(timeline, order)
    test, validation = np.sort(targets[places_from_end == 0]), np.sort(targets[places_from_end == 1])
    if not len(test):
        raise DataError(
            f"No user of the log has {MIN_INTERACTIONS} interactions of one behavior that follow both a "
            "recommendation and a search, as protocol 'paper' needs; use protocol='strict'."
        )
    train = np.ones(len(timeline.user), dtype=bool)
    train[test] = train[validation] = False
    return HeldOut(np.flatnonzero(train), validation, test)


def last_days(log: EventLog, timeline: Timeline, num_test_days: int, *, is_strict: bool) -> HeldOut:
    """Hold out the last calendar days (UTC) for the test and the last day with interactions before for validation."""
    if not log.has_time:
        raise DataError(
            f"Log {log.name!r} has order but no time, so it has no days to hold out; use method='leave_one_out'."
        )
    t = timeline
    rows = t.distinct_interactions() if is_strict else np.flatnonzero(t.is_interaction)
    if not len(rows):
        raise DataError(f"Log {log.name!r} holds no interactions; there is nothing to hold out.")
    day = t.timestamp // SECONDS_PER_DAY
    first_test_day = int(day[rows].max()) - num_test_days + 1
    num_days = int(day[rows].max() - day[rows].min()) + 1
    if num_days < num_test_days + 2:
        raise DataError(
            f"The interactions of log {log.name!r} span {num_days} days; `num_test_days` {num_test_days} needs "
            f"{num_test_days + 2}: one at least to learn from, one for validation, then the test. Lower "
            "`num_test_days` or use method='leave_one_out'."
        )
    test = rows[day[rows] >= first_test_day]
    # The day before, unless nothing happened on it: shops close, and logs have gaps.
    validation_day = int(day[rows[day[rows] < first_test_day]].max())
    on_validation_day = rows[day[rows] == validation_day]
    # The first of each user; where both behaviors are tasks of their own (paper), the first of each.
    task = t.user[on_validation_day] * 2 + (0 if is_strict else t.is_search[on_validation_day])
    validation = np.sort(on_validation_day[np.unique(task, return_index=True)[1]])
    is_train = day < validation_day
    if is_strict:
        held_out_pairs = t.pairs(np.concatenate([validation, test]))
        is_train &= ~is_among(t.pairs(np.arange(len(t.user))), held_out_pairs)
    return HeldOut(np.flatnonzero(is_train), validation, test)


def find_queries(log: EventLog, timeline: Timeline, targets: np.ndarray, seed: int) -> list[str | None]:
    """Find the query of each target.

    Its own, where one of its tellings is a search; else, where the log's queries are made from categories, one of the
    item's, chosen by a hash of `seed`, user, item and timestamp; else none.

    Args:
        log (`EventLog`): The log.
        timeline (`Timeline`): The same log as arrays.
        targets (`np.ndarray`): int64 rows of interactions.
        seed (`int`): Changes the choice.

    Returns:
        `list[str | None]`: One a target.
    """
    t = timeline
    searches = np.flatnonzero(t.is_interaction & t.is_search)
    keys, first = np.unique(t.moment[searches] * t.num_items + t.item[searches], return_index=True)
    own_keys = t.moment[targets] * t.num_items + t.item[targets]
    searched = np.full(len(targets), -1)
    if len(keys):
        place = np.minimum(np.searchsorted(keys, own_keys), len(keys) - 1)
        searched = np.where(keys[place] == own_keys, searches[first[place]], -1)
    queries: list[str | None] = [None] * len(targets)
    with_own = np.flatnonzero(searched >= 0)
    for number, query in zip(with_own.tolist(), log.events["query"].take(searched[with_own]).to_pylist(), strict=True):
        queries[number] = query
    if log.query_source != "category":
        return queries
    without = np.flatnonzero(searched < 0)
    choices = category_queries(log.items)
    for number, event in zip(without.tolist(), log.events.take(targets[without]).to_pylist(), strict=True):
        of_item = choices[t.item[targets[number]]]
        if of_item:
            chosen = case_hash(seed, event["user_id"], event["item_id"], event["timestamp"]) % len(of_item)
            queries[number] = of_item[chosen]
    return queries


def ask(
    log: EventLog,
    timeline: Timeline,
    rows: np.ndarray,
    train_rows: np.ndarray,
    *,
    usable: np.ndarray,
    order: PaperOrder | None,
    seed: int,
    max_history: int | None,
) -> Cases:
    """Make the questions of held-out interactions.

    Args:
        log (`EventLog`): The log.
        timeline (`Timeline`): The same log as arrays.
        rows (`np.ndarray`): int64 rows of the interactions.
        train_rows (`np.ndarray`): int64 rows that training may use.
        usable (`np.ndarray`): int64 rows that a strict history may hold.
        order (`PaperOrder`, *optional*): Order of protocol `"paper"`; without it, strict.
        seed (`int`): Seed of the choice among an item's synthetic queries.
        max_history (`int`, *optional*): Keep the latest so many events of a history.
    """
    t = timeline
    if order is None:
        # All of them as recommendations, then those with a query as searches.
        found = find_queries(log, t, rows, seed)
        searched = np.array([query is not None for query in found], dtype=bool)
        targets = np.concatenate([rows, rows[searched]])
        queries = [None] * len(rows) + [query for query in found if query is not None]
    else:
        targets = np.concatenate([rows[~t.is_search[rows]], rows[t.is_search[rows]]])
        queries = log.events["query"].take(targets).to_pylist()
    histories = histories_before(t, targets, usable, order, max_history)
    return make_cases(log, t, targets, queries, histories, train_rows=train_rows)


def make_cases(
    log: EventLog,
    timeline: Timeline,
    targets: np.ndarray,
    queries: list[str | None],
    histories: Ragged,
    *,
    train_rows: np.ndarray,
) -> Cases:
    """Put the columns of cases together; a case with a query is a search.

    A case has its action where training has more than one; an action that training lacks is left out.
    """
    acts = log.events["action"].take(train_rows[~timeline.is_impression[train_rows]])
    known = pc.unique(acts)
    actions = log.events["action"].take(targets)
    actions = pc.if_else(pc.is_in(actions, value_set=known), actions, None)
    has_sessions = log.events["session_id"].null_count < log.num_events
    behaviors: list[Behavior] = [RECOMMENDATION if query is None else SEARCH for query in queries]
    return Cases(
        user_id=log.events["user_id"].take(targets).to_pylist(),
        behavior=behaviors,
        query=queries,
        item_id=log.events["item_id"].take(targets).to_pylist(),
        timestamp=timeline.timestamp[targets],
        histories=histories,
        geohash=log.events["geohash"].take(targets).to_pylist() if "geohash" in log.events.column_names else None,
        session_id=log.events["session_id"].take(targets).to_pylist() if has_sessions else None,
        action=actions.to_pylist() if len(known) > 1 else None,
    )
