# SPDX-License-Identifier: Apache-2.0
"""Counts of a split, and checks of them. The counts of parts of a log add up to those of the whole."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, fields

from seekrec.errors import DataError

# From this share of questions without a history on, a warning is worth its line.
_WORTH_SAYING = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitCounts:
    """Counts of a split.

    Args:
        num_events (`int`): Events of the log.
        num_users (`int`): Users of the log.
        num_train_events (`int`): Events that training may use.
        num_train_users (`int`): Users of these.
        num_targets (`int`): Training events that can be asked for, searches without a click included.
        num_histories (`int`): Training events with an item that can be asked for; each has a history.
        num_empty_histories (`int`): Number of these histories that hold nothing.
        num_cases (`dict[str, dict[str, int]]`): Questions by part and behavior.
        num_empty_cases (`dict[str, int]`): By part, the questions whose history contains nothing.
    """

    num_events: int
    num_users: int
    num_train_events: int
    num_train_users: int
    num_targets: int
    num_histories: int
    num_empty_histories: int
    num_cases: dict[str, dict[str, int]]
    num_empty_cases: dict[str, int]

    @classmethod
    def total(cls, counts: Iterable[SplitCounts]) -> SplitCounts:
        """Add up the counts of parts with different users."""
        every = list(counts)
        numbers = [field.name for field in fields(cls) if isinstance(getattr(every[0], field.name), int)]
        return cls(
            **{name: sum(getattr(one, name) for one in every) for name in numbers},
            num_cases={
                part: {behavior: sum(one.num_cases[part][behavior] for one in every) for behavior in of_part}
                for part, of_part in every[0].num_cases.items()
            },
            num_empty_cases={
                part: sum(one.num_empty_cases[part] for one in every) for part in every[0].num_empty_cases
            },
        )

    def describe(self) -> dict[str, object]:
        """Return what reports show: `num_train_events`, `num_train_users`, `num_cases`."""
        return {name: getattr(self, name) for name in ("num_train_events", "num_train_users", "num_cases")}


def check_counts(counts: SplitCounts, log_name: str, method: str, protocol: str) -> None:
    """Refuse a split that leaves nothing to train on, and warn where most questions have no history.

    Args:
        counts ([`SplitCounts`]): Counts of the whole split.
        log_name (`str`): Name of the log, for messages.
        method (`str`): Method of the split.
        protocol (`str`): Protocol of the split.

    Raises:
        DataError: If training has no event or nothing to ask for, or the test or validation has no question.
    """
    what = f"The split of log {log_name!r} (method {method!r}, protocol {protocol!r})"
    other = (
        "method='last_days', which trains on the earlier days of all users"
        if method != "last_days"
        else "fewer `num_test_days`, or method='leave_one_out'"
    )
    if not counts.num_train_events:
        raise DataError(
            f"{what} leaves none of {counts.num_events} events to train on: all events of the {counts.num_users} "
            "users are at or after the time of their held-out ones, as happens if many events share a timestamp "
            f"(reviews written in one go) or the log is short. Use {other}, or a log over a longer time."
        )
    # The filters of protocol "paper" may leave none of a log that has been cut down.
    if protocol == "strict" and not counts.num_targets:
        raise DataError(
            f"{what} leaves {counts.num_train_events} events to train on, but all are impressions, so there is no "
            f"target to learn. Use {other}, or a log over a longer time."
        )
    num_questions = {part: sum(of_part.values()) for part, of_part in counts.num_cases.items()}
    for part, number in num_questions.items():
        if not number:
            raise DataError(f"{what} has no {part} question. Use {other}, or a log over a longer time.")
    for part, number in num_questions.items():
        _warn(what, f"{part} questions", counts.num_empty_cases[part], number, other)
    _warn(what, "training targets", counts.num_empty_histories, counts.num_histories, other)


def _warn(what: str, of: str, num_empty: int, num_all: int, other: str) -> None:
    if num_all and num_empty >= _WORTH_SAYING * num_all:
        logger.warning(
            "%s gives %d of %d %s an empty history: the user did nothing earlier (events at the same timestamp are "
            "not earlier). Personalisation can be neither learned nor measured on them; use %s, finer timestamps, or "
            "users with more events.",
            what,
            num_empty,
            num_all,
            of,
            other,
        )


__all__ = ["SplitCounts", "check_counts"]
