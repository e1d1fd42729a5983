# SPDX-License-Identifier: Apache-2.0
"""Choose the training targets.

Every interaction of training (`Split.training_targets`) is a **target**. GenSAR's instructions and GenSR write each
target with its own history, from which its item is removed; they ask for all targets. Families that read a user's
events once for all targets (IntSR, SynerGen, GenSAR's streams) cannot remove an item from the shared history. Under
protocol `strict` the earlier events of the item in the window decide whether a target is asked, as a recommendation or
as a search:

| the item's earlier events | the target is asked |
|---|---|
| none | in its window |
| the same act in the same behavior | not at all: it is a repeat |
| others, in the target's own session, which its question does not see (a search that is a copy) | in its window |
| others that its question would see (clicked and now bought) | in a separate window, without them |

Protocol `paper` asks for every target in its window, as the released code does. [`report_questions`] warns of what is
left out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seekrec.events import Split
from seekrec.events.timeline import is_among
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior
from seekrec.util.ragged import Ragged

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class WindowCuts:
    """Stretches of users' events, and the first target of each.

    Args:
        events (`Ragged`): Positions in the sequence of training events, a row per window.
        first_target (`np.ndarray`): int64 by window: number of the first target within the window.
    """

    events: Ragged
    first_target: np.ndarray


# From this share on it is worth a warning that questions are not asked, or asked blindly.
WARNED_SHARE = 0.1


def occurs_before(window: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return for each event whether an earlier one of its window has the same item; -1 stands for no item."""
    first = _first_of(window, item)
    return (first < np.arange(len(item))) & (item >= 0)


def choose_questions(
    window: np.ndarray,
    item: np.ndarray,
    action: np.ndarray,
    counts_as: np.ndarray,
    asked: np.ndarray,
    rank: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose how targets are asked under protocol `strict`, by the rules at the top of this module.

    All arrays have one entry per event of a window, windows one after the other, each oldest first.

    Args:
        window (`np.ndarray`): int64 number of the window.
        item (`np.ndarray`): int64 row of the item, -1 for none.
        action (`np.ndarray`): int64 number of what was done.
        counts_as (`np.ndarray`): bool `(num_events, 2)`: whether the event counts as each of `BEHAVIORS`. An item that
            was searched for may count as a recommendation too.
        asked (`np.ndarray`): bool of that shape: whether it is to be asked as such.
        rank (`np.ndarray`): int64 of that shape: a question sees the events whose rank is below its own.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: bool of the shape of `asked`: asked in its window, and in a separate one.
    """
    num_actions = int(action.max(initial=0)) + 1
    act = np.where(item >= 0, item * num_actions + action, -1)
    repeated = np.stack([occurs_before(window, np.where(of, act, -1)) for of in counts_as.T], axis=1)
    wanted = asked & (item >= 0)[:, None] & ~repeated
    is_seen = rank[_first_of(window, item)] < rank
    return wanted & ~is_seen, wanted & is_seen


def cut_windows(user: np.ndarray, size: int) -> WindowCuts:
    """Cut each user's run of events into windows of at most `size`."""
    begins = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]])) if len(user) else np.empty(0, int)
    counts = np.diff(np.append(begins, len(user)))
    step = max(1, size // 2)
    num_windows = 1 + np.maximum(0, -(-(counts - size) // step))
    owner = np.repeat(np.arange(len(begins)), num_windows)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(num_windows) - num_windows, num_windows)
    start = number * step
    lengths = np.minimum(size, counts[owner] - start)
    return WindowCuts(Ragged.from_ranges(begins[owner] + start, lengths), np.where(number == 0, 0, size - step))


def own_windows(windows: Ragged, places: np.ndarray, rank: np.ndarray, item: np.ndarray) -> Ragged:
    """Cut a window for each of some events: what it sees, without its item, and the event itself as the last.

    Args:
        windows (`Ragged`): Events by window.
        places (`np.ndarray`): int64 positions in `windows.values`.
        rank (`np.ndarray`): int64 by position; an event sees those of its window whose rank is below its own.
        item (`np.ndarray`): int64 row of the item by position.

    Returns:
        `Ragged`: A row of values of `windows` for each of `places`.
    """
    start = windows.offsets[windows.owners()[places]]
    seen = Ragged.from_ranges(start, places - start + 1)
    place, target = seen.values, seen.spread(places)
    is_kept = (place == target) | ((rank[place] < rank[target]) & (item[place] != item[target]))
    return Ragged(windows.values[place], seen.offsets).keep(is_kept)


def report_questions(
    split: Split,
    rows: np.ndarray,
    behavior: np.ndarray,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    is_blind: np.ndarray | None = None,
) -> None:
    """Log what training will ask and, as warnings, what it will not see.

    It warns of a behavior or an action of the training part that no question asks for, and of a tenth or more of the
    interactions that are no targets, or of the questions that see nothing although their user has earlier events.

    Args:
        split (`Split`): Split whose training part is reported.
        rows (`np.ndarray`): int64 row of `split.log.events` of each target.
        behavior (`np.ndarray`): int64 number into `BEHAVIORS` of each question.
        behaviors (`Sequence[str]`): Those that training is meant to learn.
        is_blind (`np.ndarray`, *optional*): bool of each question: it sees no event.
    """
    t, name = split.timeline, split.log.name
    targets = split.training_interactions()
    of_behavior = np.where(t.is_search[targets], SEARCH, RECOMMENDATION)
    targets = targets[np.isin(of_behavior, list(behaviors))]
    is_asked = is_among(targets, rows)
    counts = {one: int((behavior == BEHAVIORS.index(one)).sum()) for one in behaviors}
    written = ", ".join(f"{count} as a {one}" for one, count in counts.items())
    logger.info("%s: %d of %d training interactions are targets: %s.", name, is_asked.sum(), len(targets), written)
    for one, count in counts.items():
        of_task = int((t.is_search[targets] == (one == SEARCH)).sum())
        if of_task and not count:
            logger.warning(
                "%s: training contains %d interactions of behavior %r, but none is used as a target, so this behavior "
                "is not trained.",
                name,
                of_task,
                one,
            )
    actions = split.log.events["action"].take(targets).to_numpy(zero_copy_only=False)
    for action in sorted(set(actions) - set(actions[is_asked])):
        logger.warning(
            "%s: training contains %d interactions of action %r, but none is used as a target, so this action is not "
            "trained.",
            name,
            (actions == action).sum(),
            action,
        )
    num_missed = int((~is_asked).sum())
    if num_missed >= max(1, WARNED_SHARE * len(targets)):
        logger.warning(
            "%s: %d of %d training interactions are targets; the other %d (%.0f%%) repeat an earlier action on the "
            "same item, or would see their own answer.",
            name,
            len(targets) - num_missed,
            len(targets),
            num_missed,
            100 * num_missed / len(targets),
        )
    if is_blind is None:
        return
    has_past = _has_past(split, rows)
    num_blind, num_past = int((is_blind & has_past).sum()), int(has_past.sum())
    if num_blind >= max(1, WARNED_SHARE * num_past):
        logger.warning(
            "%s: %d of the %d training questions with earlier events (%.0f%%) see none of them: these are in the same "
            "session, or in another window. If `session_id` means visits, set `session_ids: visit`.",
            name,
            num_blind,
            num_past,
            100 * num_blind / num_past,
        )


def _has_past(split: Split, rows: np.ndarray) -> np.ndarray:
    """Return for each target whether its user acted on another item earlier in training: bool."""
    t, acts = split.timeline, split.training_acts()
    never = np.iinfo(np.int64).max
    first_item = np.full(int(t.user.max(initial=-1)) + 1, -2)
    first_time, other_time = np.full(len(first_item), never), np.full(len(first_item), never)
    users, first = np.unique(t.user[acts], return_index=True)
    first_item[users], first_time[users] = t.item[acts[first]], t.timestamp[acts[first]]
    others = acts[t.item[acts] != first_item[t.user[acts]]]
    users, first = np.unique(t.user[others], return_index=True)
    other_time[users] = t.timestamp[others[first]]
    user = t.user[rows]
    return np.where(t.item[rows] == first_item[user], other_time[user], first_time[user]) < t.timestamp[rows]


def _first_of(window: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return for each event the position of the first event of its window with the same item."""
    place = np.arange(len(item))
    order = np.lexsort((place, item, window))
    starts = np.ones(len(item), dtype=bool)
    starts[1:] = (window[order[1:]] != window[order[:-1]]) | (item[order[1:]] != item[order[:-1]])
    first = np.empty(len(item), dtype=np.int64)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


__all__ = [
    "WARNED_SHARE",
    "WindowCuts",
    "choose_questions",
    "cut_windows",
    "occurs_before",
    "own_windows",
    "report_questions",
]
