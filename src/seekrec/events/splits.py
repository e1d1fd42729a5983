# SPDX-License-Identifier: Apache-2.0
"""Split a log into training, validation and test, so that neither the question nor training reveals an answer.

Protocol `strict` (the default) makes one split of each user's timeline for both tasks. For a target (user, item, time)

- the history contains only events of the user with an EARLIER timestamp and another item;
- training contains no event of the user with that item, and none at or after the timestamp of the user's first target.

Method `leave_one_out` takes each user's last distinct (user, item, timestamp) for the test and the last but one for
validation; users with fewer than three stay in training only. Method `last_tenth` takes the last tenth of them for the
test and the tenth before for validation, at least one each: where few events are searches, the last event of a user
seldom is one, and many questions of few users say more. Method `last_days` takes every interaction of the last
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
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import ConfigurationError
from seekrec.events.audit import audit
from seekrec.events.cases import Cases, case_hash
from seekrec.events.checks import check_choice
from seekrec.events.held_out import (
    HeldOutDays,
    check_held_out,
    find_held_out_days,
    hold_out_last,
    interaction_days,
    last_days,
    leave_one_out_paper,
    most_interactions,
)
from seekrec.events.log import EventLog
from seekrec.events.queries import category_queries
from seekrec.events.split import (
    METHODS,
    PROTOCOLS,
    LearnedAlso,
    Method,
    Protocol,
    Split,
    check_max_history,
    check_split,
)
from seekrec.events.timeline import (
    PaperOrder,
    Timeline,
    histories_before,
    paper_order,
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
        method (`str`): `"leave_one_out"`, `"last_tenth"` or `"last_days"`.
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
    check_method(method, protocol)
    check_max_history(max_history)
    t = Timeline.from_log(log)
    is_last_days = method == "last_days"
    days = None
    if is_last_days:
        days = find_held_out_days(log.name, interaction_days(t) if log.has_time else None, num_test_days)
    split = build_split(
        log,
        t,
        method=method,
        protocol=protocol,
        days=days,
        num_test_days=num_test_days if is_last_days else None,
        seed=seed,
        max_history=max_history,
        keep_impressions=keep_impressions,
        has_sessions=log.events["session_id"].null_count < log.num_events,
    )
    if not is_last_days:
        check_held_out(len(split.test), most_interactions(t), protocol)
        _warn_of_days(log, t)
    split = keep_actions(split, training_actions(split))
    check_split(split)
    if protocol == "strict":
        audit(split).raise_if_leaking()
    logger.info("Split %s: %s, protocol %s, %d training events.", log.name, method, protocol, len(split.train_rows))
    return split


def learn_held_out(split: Split, also: LearnedAlso = "validation") -> Split:
    """Return a split of the same log whose training has what was held out, too; it asks nothing in validation.

    The questions of the test stay as they are, and a strict split has passed [`audit`] again.

    Args:
        split (`Split`): From [`split_log`].
        also (`str`): `"validation"`, or `"everything"`: all events are trained on, and nothing is asked in the test
            either; for a model that is to be used.

    Raises:
        LeakageError: If a strict split leaks.
    """
    t = split.timeline
    is_last_days = split.method == "last_days"
    days = find_held_out_days(split.log.name, interaction_days(t), split.num_test_days or 1) if is_last_days else None
    learning = build_split(
        split.log,
        t,
        method=split.method,
        protocol=split.protocol,
        days=days,
        num_test_days=split.num_test_days,
        seed=split.seed,
        max_history=split.max_history,
        keep_impressions=split.keep_impressions,
        has_sessions=split.log.events["session_id"].null_count < split.log.num_events,
        also=also,
    )
    learning = keep_actions(learning, training_actions(learning))
    if split.protocol == "strict":
        audit(learning).raise_if_leaking()
    return learning


def check_method(method: str, protocol: str) -> None:
    """Refuse a method or protocol that is unknown, or two that do not go together.

    Raises:
        ConfigurationError: If it is so.
    """
    check_choice("method", method, METHODS)
    check_choice("protocol", protocol, PROTOCOLS)
    if method == "last_tenth" and protocol == "paper":
        raise ConfigurationError(
            "`method` is 'last_tenth' and `protocol` 'paper', whose pipeline holds out one event of a user; use "
            "protocol='strict', or another method."
        )


def _warn_of_days(log: EventLog, timeline: Timeline) -> None:
    """Warn where the last event of users is one of several of its day, and times do not say the hour."""
    if not log.has_time or (timeline.timestamp % SECONDS_PER_DAY).any():
        return
    rows = np.flatnonzero(timeline.is_interaction)
    is_last = np.append(timeline.user[rows][1:] != timeline.user[rows][:-1], True)
    num_of_moment = np.bincount(timeline.moment[rows])
    is_unclear = num_of_moment[timeline.moment[rows[is_last]]] > 1
    if is_unclear.any():
        logger.warning(
            "%s: times are whole days, and %d of %d users acted several times on their last day, so the order of the "
            "rows decides which event is the last. The method last_days does not depend on it.",
            log.name,
            int(is_unclear.sum()),
            len(is_unclear),
        )


def build_split(
    log: EventLog,
    timeline: Timeline,
    *,
    method: Method,
    protocol: Protocol,
    days: HeldOutDays | None,
    num_test_days: int | None,
    seed: int,
    max_history: int | None,
    keep_impressions: bool,
    has_sessions: bool,
    also: LearnedAlso | None = None,
) -> Split:
    """Split a log or a part of it with whole users; nothing is checked, and a part may have no question.

    Args:
        log (`EventLog`): The log, or the part.
        timeline (`Timeline`): The same as arrays.
        method (`str`): See [`split_log`], like the next.
        protocol (`str`): Protocol of the split.
        days ([`HeldOutDays`], *optional*): With `last_days`: days of the whole log to hold out.
        num_test_days (`int`, *optional*): See [`split_log`].
        seed (`int`): See [`split_log`].
        max_history (`int`, *optional*): See [`split_log`].
        keep_impressions (`bool`): See [`split_log`].
        has_sessions (`bool`): Whether any event of the whole log has a `session_id`.
        also (`str`, *optional*): What is trained on besides, and not asked; see [`learn_held_out`].

    Returns:
        `Split`: The action of each case is that of its event: [`keep_actions`] comes after.
    """
    order = paper_order(log, timeline) if protocol == "paper" else None
    validates = also is None
    if days is not None:
        chosen = last_days(timeline, days, is_strict=order is None, validates=validates)
    elif order is None:
        chosen = hold_out_last(timeline, share=0.1 if method == "last_tenth" else 0, validates=validates)
    else:
        chosen = leave_one_out_paper(timeline, order, validates=validates)
    usable = np.arange(len(timeline.user)) if keep_impressions else np.flatnonzero(~timeline.is_impression)
    validation, test = (
        ask(
            log,
            timeline,
            rows,
            usable=usable,
            order=order,
            seed=seed,
            max_history=max_history,
            has_sessions=has_sessions,
        )
        for rows in (chosen.validation, chosen.test)
    )
    if also == "everything":
        chosen, test = replace(chosen, train_rows=np.arange(len(timeline.user))), validation
    split = Split(
        log=log,
        method=method,
        protocol=protocol,
        seed=seed,
        train_rows=chosen.train_rows,
        validation=validation,
        test=test,
        num_test_days=num_test_days,
        max_history=max_history,
        keep_impressions=keep_impressions,
    )
    split.__dict__["timeline"] = timeline  # already made; fills the cached property
    return split


def training_actions(split: Split) -> list[str]:
    """Return the actions of training events, impressions left out, in no order."""
    return pc.unique(split.log.events["action"].take(split.training_acts())).to_pylist()


def keep_actions(split: Split, known: Sequence[str]) -> Split:
    """Return the split whose cases have their action where training has more than one.

    Args:
        split (`Split`): From [`build_split`].
        known (`Sequence[str]`): Actions of training events; a case's action that is none of them is left out.
    """

    def kept(cases: Cases) -> Cases:
        actions = pa.array(cases.action, pa.string())
        actions = pc.if_else(pc.is_in(actions, value_set=pa.array(known, pa.string())), actions, None)
        return replace(cases, action=actions.to_pylist() if len(known) > 1 else None)

    changed = replace(split, validation=kept(split.validation), test=kept(split.test))
    changed.__dict__["timeline"] = split.timeline
    return changed


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
    *,
    usable: np.ndarray,
    order: PaperOrder | None,
    seed: int,
    max_history: int | None,
    has_sessions: bool,
) -> Cases:
    """Make the questions of held-out interactions.

    Args:
        log (`EventLog`): The log.
        timeline (`Timeline`): The same log as arrays.
        rows (`np.ndarray`): int64 rows of the interactions.
        usable (`np.ndarray`): int64 rows that a strict history may hold.
        order (`PaperOrder`, *optional*): Order of protocol `"paper"`; without it, strict.
        seed (`int`): Seed of the choice among an item's synthetic queries.
        max_history (`int`, *optional*): Keep the latest so many events of a history.
        has_sessions (`bool`): Whether cases have a `session_id`.
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
    return make_cases(log, t, targets, queries, histories, has_sessions=has_sessions)


def make_cases(
    log: EventLog,
    timeline: Timeline,
    targets: np.ndarray,
    queries: list[str | None],
    histories: Ragged,
    *,
    has_sessions: bool,
) -> Cases:
    """Put the columns of cases together; a case with a query is a search."""
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
        action=log.events["action"].take(targets).to_pylist(),
    )
