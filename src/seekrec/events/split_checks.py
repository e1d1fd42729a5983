# SPDX-License-Identifier: Apache-2.0
"""What a split leaves to learn from and to ask, said before anything is trained."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from seekrec.errors import DataError

if TYPE_CHECKING:
    from seekrec.events.splits import Part, Split

logger = logging.getLogger(__name__)

# From this share of questions without a history on, a warning is worth its line.
_WORTH_SAYING = 0.5


def check_split(split: Split) -> None:
    """Refuse a split that leaves nothing to train on, and warn where most questions have no history.

    Raises:
        DataError: If training has no event or nothing to ask for, or the test or validation has no question.
    """
    what = f"The split of log {split.log.name!r} (method {split.method!r}, protocol {split.protocol!r})"
    other = (
        "method='last_days', which trains on the earlier days of all users"
        if split.method == "leave_one_out"
        else "fewer `num_test_days`, or method='leave_one_out'"
    )
    parts: tuple[Part, ...] = ("validation", "test")
    num_users = int(split.timeline.user[-1]) + 1
    if not len(split.train_rows):
        raise DataError(
            f"{what} leaves none of {split.log.num_events} events to train on: those of the {num_users} users lie at "
            "or after the time of their held-out ones, as where many events have one timestamp (reviews written in "
            f"one go) or the log is short. Use {other}, or a log with more of the past."
        )
    # The filters of protocol "paper" may leave none of a log that has been cut down.
    if split.protocol == "strict" and not len(split.training_targets(include_queries=True)):
        raise DataError(
            f"{what} leaves {len(split.train_rows)} events to train on, but none that a model could learn to answer: "
            f"all were only shown. Use {other}, or a log with more of the past."
        )
    for part in parts:
        if not len(split.cases(part)):
            raise DataError(f"{what} has no {part} question. Use {other}, or a log with more of the past.")
    for part in parts:
        lengths = split.cases(part).histories.lengths
        _warn(what, f"{part} questions", int((lengths == 0).sum()), len(lengths), other)
    histories = split.training_histories(max_history=1)
    _warn(what, "training targets", int((histories.lengths == 0).sum()), len(histories), other)


def _warn(what: str, of: str, num_empty: int, num_all: int, other: str) -> None:
    if num_all and num_empty >= _WORTH_SAYING * num_all:
        logger.warning(
            "%s gives %d of %d %s an empty history: the user did nothing earlier (events at the same timestamp are "
            "not earlier). Nothing personal can be learnt or measured from them; use %s, finer timestamps, or users "
            "with more events.",
            what,
            num_empty,
            num_all,
            of,
            other,
        )


__all__ = ["check_split"]
