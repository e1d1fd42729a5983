# SPDX-License-Identifier: Apache-2.0
"""What a family that reads events as vectors learns from: stretches of users' events, and the questions about them.

A window holds a user's events once, and every event that may be a target asks one or two **questions**: what came next
(`recommendation`), and, where the user searched, what came next for this query (`search`). A question sees the events
of EARLIER sessions of its window, which is what a request at that moment would know. Under the strict protocol an item
that stands earlier in its own window is asked for by no question.

A user with more than `max_history` events gets several windows of that many; each starts half of that after the one
before, and only the events that the one before lacks are targets again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from seekrec.corpora.event_arrays import EventArrays, number_sessions, pad_histories, pad_rows
from seekrec.corpora.ragged import Ragged
from seekrec.corpora.shared_history import cut_windows, occurs_before
from seekrec.errors import DataError
from seekrec.events import Split
from seekrec.schema import BEHAVIORS, SEARCH, Behavior, IdMap

_SEARCH_ID = BEHAVIORS.index(SEARCH)


@dataclass(frozen=True, eq=False)
class TrainingWindows:
    """Windows of events with their questions. Built by [`build_training_windows`].

    Args:
        events (`EventArrays`): All events of the log.
        windows (`Ragged`): By window: event numbers, oldest first.
        sessions (`np.ndarray`): int64 session within the window, an entry for each of `windows.values`.
        questions (`Ragged`): By window: the place within the window of the event asked for, ascending.
        behavior (`np.ndarray`): int64 number into `BEHAVIORS`, an entry for each of `questions.values`.
        shown (`Ragged`): By question: rows of the items that were shown in the target's session and not acted on.
    """

    events: EventArrays
    windows: Ragged
    sessions: np.ndarray
    questions: Ragged
    behavior: np.ndarray
    shown: Ragged

    def __len__(self) -> int:
        return len(self.windows)

    def select(self, behavior: Behavior) -> TrainingWindows:
        """Keep the questions of one behavior, and the windows that still have one; histories stay whole."""
        is_kept = self.behavior == BEHAVIORS.index(behavior)
        questions = self.questions.keep(is_kept)
        windows = np.flatnonzero(questions.lengths > 0)
        return TrainingWindows(
            self.events,
            self.windows.take(windows),
            Ragged(self.sessions, self.windows.offsets).take(windows).values,
            questions.take(windows),
            self.behavior[is_kept],
            self.shown.take(np.flatnonzero(is_kept)),
        )

    def batch(self, numbers: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Lay out some windows.

        Args:
            numbers (`Sequence[int]`): Window numbers.

        Returns:
            `dict[str, np.ndarray]`: What `pad_histories` gives and, padded with -1 unless said otherwise, int64
            matrices `(num_windows, most_questions)`: `question_events` (place within the window; at a question a model
            knows the events of earlier sessions than that event's), `question_session_ids`, `question_behavior_ids`
            (padding 0), `question_timestamps` (padding 0), `question_geohash_ids` (padding 0), `question_query_rows`
            (number in `events.columns.queries`, -1 for none) and `labels` (rows of the items asked for,
            padding -100). `shown_item_rows` is `(num_windows, most_questions, most_shown)`.
        """
        rows = np.asarray(numbers, dtype=np.int64)
        windows, questions = self.windows.take(rows), self.questions.take(rows)
        sessions = Ragged(self.sessions, self.windows.offsets).take(rows).values
        asked = Ragged(np.arange(len(self.questions.values)), self.questions.offsets).take(rows).values
        place = windows.offsets[questions.owners()] + questions.values
        event, behavior = windows.values[place], self.behavior[asked]
        columns = self.events.columns
        shown = self.shown.take(asked)
        most = int(shown.lengths.max(initial=0))
        shown_rows = np.full((*pad_rows(event, questions, -1).shape, most), -1, dtype=np.int64)
        shown_rows[np.arange(shown_rows.shape[1]) < questions.lengths[:, None]] = pad_rows(shown.values, shown, -1)
        return {
            **pad_histories(self.events, windows, sessions),
            "question_events": pad_rows(questions.values, questions, -1),
            "question_session_ids": pad_rows(sessions[place], questions, -1),
            "question_behavior_ids": pad_rows(behavior, questions, 0),
            "question_timestamps": pad_rows(self.events.timestamp[event], questions, 0),
            "question_geohash_ids": pad_rows(self.events.geohash[event], questions, 0),
            "question_query_rows": pad_rows(np.where(behavior == _SEARCH_ID, columns.query[event], -1), questions, -1),
            "labels": pad_rows(columns.item[event], questions, -100),
            "shown_item_rows": shown_rows,
        }


def build_training_windows(
    split: Split,
    id_map: IdMap,
    *,
    actions: Sequence[str],
    geohashes: Sequence[str] = (),
    max_history: int = 50,
    recommend_searched_items: bool = True,
) -> TrainingWindows:
    """Cut the training part of a split into windows with questions.

    Args:
        split (`Split`): Whose training events to use.
        id_map ([`IdMap`]): Of the catalogue.
        actions (`Sequence[str]`): Those the model tells apart; [`log_actions`] gives the log's.
        geohashes (`Sequence[str]`): Places the model tells apart; [`log_geohashes`] gives the log's.
        max_history (`int`): Events of a window.
        recommend_searched_items (`bool`): Ask for the items of searches without their query too.

    Returns:
        [`TrainingWindows`]: Those with a question.

    Raises:
        DataError: If there is no question at all.
        UnknownItemError: If the catalogue lacks an item.
    """
    events = EventArrays.from_table(split.log.events, id_map, actions, geohashes)
    columns = events.columns
    rows = split.training_acts()
    cut = cut_windows(split.timeline.user[rows], max_history)
    windows = Ragged(rows[cut.events.values], cut.events.offsets)
    event, owner = windows.values, windows.owners()
    within = np.arange(len(event)) - windows.offsets[owner]
    is_target = (within >= cut.first_target[owner]) & np.isin(event, split.training_targets())
    if split.protocol == "strict":
        is_target &= ~occurs_before(owner, columns.item[event])
    is_search = columns.is_search[event]
    asked = [is_target & (recommend_searched_items | ~is_search), is_target & is_search]
    # Both questions of an event stand side by side, so a window's questions are in the order of its events.
    place, behavior = np.nonzero(np.stack(asked, axis=1))
    if not len(place):
        raise DataError(
            f"The training part of {split.log.name!r} holds no interaction that may be asked for; check the split."
        )
    counts = np.bincount(owner[place], minlength=len(windows))
    questions = Ragged(within[place], np.concatenate([[0], np.cumsum(counts)]))
    result = TrainingWindows(
        events,
        windows,
        number_sessions(events, windows),
        questions,
        np.array([BEHAVIORS.index("recommendation"), _SEARCH_ID])[behavior],
        _shown_items(split, events, event[place]),
    )
    kept = np.flatnonzero(counts > 0)
    if len(kept) == len(windows):
        return result
    return TrainingWindows(
        events,
        windows.take(kept),
        Ragged(result.sessions, windows.offsets).take(kept).values,
        questions.take(kept),
        result.behavior,
        result.shown,
    )


def log_actions(split: Split) -> list[str]:
    """Give the actions that training events take, without impressions, sorted."""
    found = pc.unique(split.log.events["action"].take(split.training_acts())).to_pylist()
    return sorted(name for name in found if name is not None)


def log_geohashes(split: Split, precision: int) -> list[str]:
    """Give the places of training events, without impressions, sorted.

    A place with one event is left out: nothing can be learned of it, and it might tell who was there. It counts as
    unknown, which so gets something to learn from.

    Args:
        split (`Split`): Whose training events to use.
        precision (`int`): Characters of the geohashes; shorter ones are left out.

    Raises:
        DataError: If the events have no places, or none so precise twice.
    """
    events = split.log.events.take(split.training_acts())
    if "geohash" not in events.column_names:
        raise DataError(
            f"The events of {split.log.name!r} have no column 'geohash', only {', '.join(events.column_names)}; map "
            "one, or leave 'geohash' out of `scenario_features`."
        )
    counts = pc.value_counts(pc.utf8_slice_codeunits(events["geohash"], 0, precision))
    found = {entry["values"]: entry["counts"] for entry in counts.to_pylist()}
    geohashes = sorted(name for name, count in found.items() if name and len(name) == precision and count > 1)
    if not geohashes:
        raise DataError(
            f"No two training events of {split.log.name!r} share a geohash of {precision} characters; lower "
            "`geohash_precision`, or leave 'geohash' out of `scenario_features`."
        )
    return geohashes


def _shown_items(split: Split, events: EventArrays, targets: np.ndarray) -> Ragged:
    """Give the items that were shown beside each target: impressions of the user's same session, else same moment."""
    timeline = split.timeline
    shown = split.train_rows[timeline.is_impression[split.train_rows] & (events.columns.item[split.train_rows] >= 0)]
    if not len(shown):
        return Ragged(np.empty(0, dtype=np.int64), np.zeros(len(targets) + 1, dtype=np.int64))
    # Two kinds of key in one space: a named session is below 0, a moment from 0 up.
    width = int(events.session.max()) + 2

    def keys(rows: np.ndarray) -> np.ndarray:
        named = -1 - (timeline.user[rows] * width + events.session[rows])
        return np.where(events.session[rows] >= 0, named, timeline.moment[rows])

    order = np.argsort(keys(shown), kind="stable")
    shown, sorted_keys = shown[order], keys(shown)[order]
    start = np.searchsorted(sorted_keys, keys(targets))
    counts = np.searchsorted(sorted_keys, keys(targets), side="right") - start
    offsets = np.concatenate([[0], np.cumsum(counts)])
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - start, counts)
    found = Ragged(events.columns.item[shown[place]], offsets)
    return found.keep(found.values != np.repeat(events.columns.item[targets], counts))


__all__ = ["TrainingWindows", "build_training_windows", "log_actions", "log_geohashes"]
