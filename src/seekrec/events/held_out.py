# SPDX-License-Identifier: Apache-2.0
"""Choose the interactions of a log to hold out, and the remaining training events, by the rules in `splits.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.split import Protocol
from seekrec.events.timeline import MIN_INTERACTIONS, PaperOrder, Timeline, is_among, paper_targets
from seekrec.util.constants import SECONDS_PER_DAY


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


def hold_out_last(timeline: Timeline, *, share: float = 0.0, validates: bool = True) -> HeldOut:
    """Hold out each user's last distinct interactions; train on what lies before the first of them.

    Args:
        timeline (`Timeline`): The log.
        share (`float`): Share of a user's distinct interactions that is asked in the test, rounded down, and again in
            validation: at least one each. Users with fewer than `MIN_INTERACTIONS` are asked nothing.
        validates (`bool`): Whether any are held out for validation; otherwise these are trained on.
    """
    t = timeline
    rows = t.distinct_interactions()
    _, owner, counts = np.unique(t.user[rows], return_inverse=True, return_counts=True)
    number = np.where(counts >= MIN_INTERACTIONS, np.maximum(1, (counts * share).astype(np.int64)), 0)[owner]
    from_end = np.cumsum(counts)[owner] - np.arange(len(rows))  # 1 for a user's last
    test, validation = rows[from_end <= number], rows[(number < from_end) & (from_end <= 2 * number)]
    validation = validation[: None if validates else 0]
    held_out = np.concatenate([validation, test])
    # Users without targets lose nothing.
    until = np.full(int(t.user[-1]) + 1 if len(t.user) else 0, np.iinfo(np.int64).max)
    np.minimum.at(until, t.user[held_out], t.timestamp[held_out])
    out = t.timestamp >= until[t.user]
    out |= is_among(t.pairs(np.arange(len(t.user))), t.pairs(held_out))
    return HeldOut(np.flatnonzero(~out), validation, test)


def leave_one_out_paper(timeline: Timeline, order: PaperOrder, *, validates: bool = True) -> HeldOut:
    """Hold out the last two recommendations and, apart from them, the last two searches of each user."""
    targets, places_from_end = paper_targets(timeline, order)
    test, validation = np.sort(targets[places_from_end == 0]), np.sort(targets[places_from_end == 1])
    validation = validation[: None if validates else 0]
    train = np.ones(len(timeline.user), dtype=bool)
    train[test] = train[validation] = False
    return HeldOut(np.flatnonzero(train), validation, test)


def most_interactions(timeline: Timeline) -> int:
    """Return the most distinct interactions that a user has."""
    return int(np.bincount(timeline.user[timeline.distinct_interactions()]).max(initial=0))


def check_held_out(num_questions: int, most: int, protocol: Protocol) -> None:
    """Refuse a log of which leave-one-out can hold out nothing.

    Args:
        num_questions (`int`): Questions of the test.
        most (`int`): The most distinct interactions that a user has.
        protocol (`str`): Protocol of the split.

    Raises:
        DataError: If there is no question.
    """
    if num_questions:
        return
    if protocol == "paper":
        raise DataError(
            f"No user of the log has {MIN_INTERACTIONS} interactions of one behavior that follow both a "
            "recommendation and a search, as protocol 'paper' needs; use protocol='strict'."
        )
    raise DataError(
        f"No user of the log has {MIN_INTERACTIONS} distinct interactions (the most is {most}), "
        "so nothing can be held out; leave-one-out needs one each for training, validation and test."
    )


@dataclass(frozen=True)
class HeldOutDays:
    """Days that are held out of a log, as numbers since 1970 (UTC).

    Args:
        first_test_day (`int`): The test begins with it.
        validation_day (`int`): The last day with an interaction before.
    """

    first_test_day: int
    validation_day: int


def interaction_days(timeline: Timeline) -> np.ndarray:
    """Return the days with an interaction: int64 numbers since 1970 (UTC), ascending."""
    return np.unique(timeline.timestamp[timeline.is_interaction] // SECONDS_PER_DAY)


def find_held_out_days(name: str, days: np.ndarray | None, num_test_days: int) -> HeldOutDays:
    """Find the last calendar days (UTC) for the test and the last day with interactions before for validation.

    Args:
        name (`str`): Name of the log, for messages.
        days (`np.ndarray`, *optional*): Its [`interaction_days`]; `None` if it has no times.
        num_test_days (`int`): Days of the test.

    Raises:
        ConfigurationError: If `num_test_days` is below 1.
        DataError: If the log has no time, no interaction, or too few days.
    """
    if num_test_days < 1:
        raise ConfigurationError(f"`num_test_days` is {num_test_days!r}; give 1 or more.")
    if days is None:
        raise DataError(
            f"Log {name!r} has order but no time, so it has no days to hold out; use method='leave_one_out'."
        )
    if not len(days):
        raise DataError(f"Log {name!r} contains no interactions; there is nothing to hold out.")
    first_test_day = int(days[-1]) - num_test_days + 1
    num_days = int(days[-1] - days[0]) + 1
    if num_days < num_test_days + 2:
        raise DataError(
            f"The interactions of log {name!r} span {num_days} days; `num_test_days` {num_test_days} needs "
            f"{num_test_days + 2}: at least one for training, one for validation, then the test. Lower "
            "`num_test_days` or use method='leave_one_out'."
        )
    # The day before, unless nothing happened on it: shops close, and logs have gaps.
    return HeldOutDays(first_test_day, int(days[days < first_test_day].max()))


def last_days(timeline: Timeline, days: HeldOutDays, *, is_strict: bool, validates: bool = True) -> HeldOut:
    """Hold out the last days for the test, and the first interaction of each user on the validation day."""
    t = timeline
    rows = t.distinct_interactions() if is_strict else np.flatnonzero(t.is_interaction)
    day = t.timestamp // SECONDS_PER_DAY
    test = rows[day[rows] >= days.first_test_day]
    on_validation_day = rows[day[rows] == days.validation_day]
    # The first of each user; where both behaviors are tasks of their own (paper), the first of each.
    task = t.user[on_validation_day] * 2 + (0 if is_strict else t.is_search[on_validation_day])
    validation = np.sort(on_validation_day[np.unique(task, return_index=True)[1]])[: None if validates else 0]
    is_train = day < (days.validation_day if validates else days.first_test_day)
    if is_strict:
        held_out_pairs = t.pairs(np.concatenate([validation, test]))
        is_train &= ~is_among(t.pairs(np.arange(len(t.user))), held_out_pairs)
    return HeldOut(np.flatnonzero(is_train), validation, test)
