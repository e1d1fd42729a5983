# SPDX-License-Identifier: Apache-2.0
"""Training data of families that read events as vectors: windows of users' events, with their questions.

A window contains a user's events once, and every event that may be a target has one or two **questions**: what came
next (`recommendation`), and, where the user searched, what came next for this query (`search`). A question sees the
events of EARLIER sessions of its window, which is what a request at that moment would know. Under protocol `strict` it
never sees an event of its own item; `targets.py` decides which targets remain, and in which window.

A user with more than `max_history` events gets several windows of that size; each starts half a window after the one
before, and only events that are not in the one before are targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc

from seekrec.corpora.targets import choose_questions, cut_windows, own_windows
from seekrec.errors import DataError
from seekrec.events import Split
from seekrec.events.checks import check_choice
from seekrec.events.columns import SESSION_IDS, EventColumns, SessionIds, number_sessions
from seekrec.events.sessions import guess_session_ids, session_numbers
from seekrec.events.timeline import is_among
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, IdMap
from seekrec.util.constants import LABEL_PADDING
from seekrec.util.ragged import Ragged

_SEARCH_ID = BEHAVIORS.index(SEARCH)


@dataclass(frozen=True, eq=False)
class TrainingWindows:
    """Windows of events with their questions. Built by [`build_training_windows`].

    Args:
        events (`EventColumns`): All events of the log.
        windows (`Ragged`): By window: event numbers, oldest first.
        users (`np.ndarray`): int64 user row by window.
        sessions (`np.ndarray`): int64 session within the window, an entry for each of `windows.values`.
        questions (`Ragged`): By window: the position of the target within the window, ascending.
        behavior (`np.ndarray`): int64 number into `BEHAVIORS`, an entry for each of `questions.values`.
        shown (`Ragged`): By question: rows of the items that were shown together with the target and not acted on.
        session_ids (`str`): Meaning of `session_id`: `"page_view"` or `"visit"`.
    """

    events: EventColumns
    windows: Ragged
    users: np.ndarray
    sessions: np.ndarray
    questions: Ragged
    behavior: np.ndarray
    shown: Ragged
    session_ids: SessionIds = "page_view"

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def places(self) -> np.ndarray:
        """int64 position in `windows.values` of the event that each question asks for."""
        return self.windows.offsets[self.questions.owners()] + self.questions.values

    @property
    def is_blind(self) -> np.ndarray:
        """Bool of each question: it sees no event, because none stands in an earlier session of its window."""
        return self.sessions[self.places] == 0

    def count_leaks(self) -> int:
        """Count the questions that see an event of the item they ask for; 0 under protocol `strict`."""
        items = self.events.item[self.windows.values]
        named = np.flatnonzero(items >= 0)
        key = self.windows.owners() * (int(items.max(initial=0)) + 1) + items
        # Sessions never fall along a window, so an item's first event is in its earliest session.
        known, first = np.unique(key[named], return_index=True)
        earliest = self.sessions[named[first]][np.searchsorted(known, key[self.places])]
        return int((earliest < self.sessions[self.places]).sum())

    @property
    def queries(self) -> list[str]:
        """Queries of all events, to which the query rows point."""
        return self.events.queries

    def user_rows(self, numbers: np.ndarray) -> np.ndarray:
        """Return the int64 user row of some windows."""
        found: np.ndarray = self.users[numbers]
        return found

    def searched_pairs(self) -> np.ndarray:
        """Return the distinct pairs of an item and a query that led to it: int64 of shape `(num_pairs, 2)`, sorted."""
        used = np.unique(self.windows.values)
        used = used[self.events.is_search[used] & (self.events.item[used] >= 0)]
        return np.unique(np.stack([self.events.item[used], self.events.query[used]], axis=1), axis=0)

    def acted_pairs(self, num_items: int) -> np.ndarray:
        """Return who acted on what, sorted: int64 `user row * num_items + item row`."""
        event = self.windows.values
        items, users = self.events.item[event], self.windows.spread(self.users)
        return np.unique(users[items >= 0] * np.int64(num_items) + items[items >= 0])

    def question_counts(self, num_items: int) -> np.ndarray:
        """Count how often each item is asked for: int64 of shape `(len(BEHAVIORS), num_items)`."""
        items = self.events.item[self.windows.values[self.places]]
        cells = np.bincount(self.behavior * num_items + items, minlength=len(BEHAVIORS) * num_items)
        return cells.reshape(len(BEHAVIORS), num_items)

    def select(self, behavior: Behavior) -> TrainingWindows:
        """Keep the questions of one behavior, and the windows that still have one; histories stay whole."""
        is_kept = self.behavior == BEHAVIORS.index(behavior)
        questions = self.questions.keep(is_kept)
        windows = np.flatnonzero(questions.lengths > 0)
        return TrainingWindows(
            self.events,
            self.windows.take(windows),
            self.users[windows],
            Ragged(self.sessions, self.windows.offsets).take(windows).values,
            questions.take(windows),
            self.behavior[is_kept],
            self.shown.take(np.flatnonzero(is_kept)),
            self.session_ids,
        )

    def batch(self, numbers: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Lay out some windows.

        Args:
            numbers (`Sequence[int]`): Window numbers.

        Returns:
            `dict[str, np.ndarray]`: What `EventColumns.pad` returns and, padded with -1 unless said otherwise, int64
            matrices `(num_windows, most_questions)`: `question_events` (position within the window; at a question a
            model knows the events of earlier sessions than that event's), `question_session_ids`,
            `question_behavior_ids` (padding 0), `question_action_ids` (what was done to the target, padding 0),
            `question_timestamps` (padding 0), `question_geohash_ids` (padding 0), `question_query_rows`
            (number in `events.queries`, -1 for none) and `labels` (rows of the target items,
            padding -100). `shown_item_rows` is `(num_windows, most_questions, most_shown)`.
        """
        rows = np.asarray(numbers, dtype=np.int64)
        windows, questions = self.windows.take(rows), self.questions.take(rows)
        sessions = Ragged(self.sessions, self.windows.offsets).take(rows).values
        asked = Ragged.from_ranges(self.questions.offsets[rows], questions.lengths).values
        place = windows.offsets[questions.owners()] + questions.values
        event, behavior = windows.values[place], self.behavior[asked]
        shown = self.shown.take(asked)
        most = int(shown.lengths.max(initial=0))
        shown_rows = np.full((len(rows), int(questions.lengths.max(initial=0)), most), -1, dtype=np.int64)
        shown_rows[np.arange(shown_rows.shape[1]) < questions.lengths[:, None]] = shown.pad(-1)
        return {
            **self.events.pad(windows, sessions),
            "question_events": questions.pad(-1),
            "question_session_ids": questions.pad(-1, sessions[place]),
            "question_behavior_ids": questions.pad(0, behavior),
            "question_action_ids": questions.pad(0, self.events.action[event]),
            "question_timestamps": questions.pad(0, self.events.timestamp[event]),
            "question_geohash_ids": questions.pad(0, self.events.geohash[event]),
            "question_query_rows": questions.pad(-1, np.where(behavior == _SEARCH_ID, self.events.query[event], -1)),
            "labels": questions.pad(LABEL_PADDING, self.events.item[event]),
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
    session_ids: SessionIds | Literal["auto"] = "auto",
    use_session_mask: bool = True,
    may_be_empty: bool = False,
) -> TrainingWindows:
    """Cut the training part of a split into windows with questions.

    Args:
        split (`Split`): Split whose training events are used.
        id_map ([`IdMap`]): Ids of the catalogue's items.
        actions (`Sequence[str]`): Actions that the model distinguishes; [`log_actions`] gives the log's.
        geohashes (`Sequence[str]`): Places that the model distinguishes; [`log_geohashes`] gives the log's.
        max_history (`int`): Events of a window.
        recommend_searched_items (`bool`): Ask for the items of searches without their query too.
        session_ids (`str`): Meaning of `session_id`: `"page_view"`, `"visit"`, or `"auto"`: what [`guess_session_ids`]
            makes of the training events.
        use_session_mask (`bool`): Off for a model whose questions see all that came before, their session too.
        may_be_empty (`bool`): Whether there need not be a question: the split is a part of a larger one.

    Returns:
        [`TrainingWindows`]: Those with a question.

    Raises:
        DataError: If there is no question at all.
        UnknownItemError: If the catalogue lacks an item.
    """
    kind = choose_session_ids(split, session_ids)
    events = EventColumns.from_table(split.log.events, id_map, actions, geohashes, session_ids=kind)
    rows = split.training_acts()
    cut = cut_windows(split.timeline.user[rows], max_history)
    windows = Ragged(rows[cut.events.values], cut.events.offsets)
    sessions = number_sessions(events.timestamp[windows.values], events.session[windows.values], windows)
    event, owner = windows.values, windows.owners()
    within = np.arange(len(event)) - windows.offsets[owner]
    is_target = (within >= cut.first_target[owner]) & np.isin(event, split.training_targets())
    item, is_search = events.item[event], events.is_search[event]
    counts_as = np.stack([recommend_searched_items | ~is_search, is_search], axis=1)
    asked = counts_as & is_target[:, None]
    if split.protocol == "strict":
        rank = sessions if use_session_mask else within
        asked, alone = choose_questions(
            owner, item, events.action[event], counts_as, asked, np.stack([rank, rank], axis=1)
        )
        if len(places := np.flatnonzero(alone.any(1))):
            # Each is the last event of its own window; those stand behind all others.
            added = own_windows(windows, places, rank, item)
            windows = Ragged.stack([windows, added])
            last = np.zeros((len(added.values), 2), dtype=bool)
            last[added.offsets[1:] - 1] = alone[places]
            asked = np.concatenate([asked, last])
            sessions = number_sessions(events.timestamp[windows.values], events.session[windows.values], windows)
            event, owner = windows.values, windows.owners()
            within = np.arange(len(event)) - windows.offsets[owner]
    # Both questions of an event stand side by side, so a window's questions are in the order of its events.
    place, behavior = np.nonzero(asked)
    if not len(place) and not may_be_empty:
        raise DataError(
            f"The training part of {split.log.name!r} has no interaction that can be a target; check the split."
        )
    counts = np.bincount(owner[place], minlength=len(windows))
    questions = Ragged.from_lengths(within[place], counts)
    kept = np.flatnonzero(counts > 0)
    return TrainingWindows(
        events,
        windows.take(kept),
        split.timeline.user[event[windows.offsets[kept]]],
        Ragged(sessions, windows.offsets).take(kept).values,
        questions.take(kept),
        np.array([BEHAVIORS.index(RECOMMENDATION), _SEARCH_ID])[behavior],
        _shown_items(split, events, event[place], kind),
        kind,
    )


def choose_session_ids(split: Split, session_ids: SessionIds | Literal["auto"]) -> SessionIds:
    """Return what `session_id` means: as set, or as guessed from the log.

    Raises:
        ConfigurationError: If the setting is unknown.
    """
    check_choice("session_ids", session_ids, ("auto", *SESSION_IDS))
    if session_ids != "auto":
        return session_ids
    guess = guess_session_ids(split)
    return "page_view" if guess is None else guess.kind


def log_actions(split: Split) -> list[str]:
    """Return the actions that training events take, without impressions, sorted."""
    found = pc.unique(split.log.events["action"].take(split.training_acts())).to_pylist()
    return sorted(name for name in found if name is not None)


def log_geohashes(split: Split, precision: int) -> list[str]:
    """Return the geohashes of training events, without impressions, sorted.

    A geohash with one event is left out: it teaches nothing, and it might reveal who was there. It counts as
    unknown, which so gets something to learn from.

    Args:
        split (`Split`): Split whose training events are used.
        precision (`int`): Characters of the geohashes; shorter ones are left out.

    Raises:
        DataError: If the events have no geohashes, or none of that precision occurs twice.
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
            f"No two training events of {split.log.name!r} share a geohash of {precision} characters; "
            "leave 'geohash' out of `scenario_features`."
        )
    return geohashes


def _shown_items(split: Split, events: EventColumns, targets: np.ndarray, kind: SessionIds) -> Ragged:
    """Return the items that were shown together with each target and not acted on there.

    Those are the impressions of the user's same page view; of a visit, the latest list that was shown in it before the
    act; where the session is unknown, those of the same moment. What was acted on there is left out: many logs have
    an impression of that, too.
    """
    timeline = split.timeline
    shown = split.train_rows[timeline.is_impression[split.train_rows] & (events.item[split.train_rows] >= 0)]
    if not len(shown):
        return Ragged(np.empty(0, dtype=np.int64), np.zeros(len(targets) + 1, dtype=np.int64))
    session, moment = session_numbers(split), timeline.moment
    # One number for a list: a page view is one, a visit one for each moment; what has no session comes before all.
    num_moments = int(moment.max()) + 1
    of_session = (session + 1) * num_moments
    lists = of_session + np.where((session < 0) | (kind == "visit"), moment, 0)
    shown = shown[np.argsort(lists[shown], kind="stable")]
    ordered, wanted = lists[shown], lists[targets]
    if kind == "visit":
        # The last list that is not after the act; its number must be of the same session.
        latest = ordered[np.maximum(np.searchsorted(ordered, wanted, side="right") - 1, 0)]
        is_own = (session[targets] >= 0) & (latest >= of_session[targets]) & (latest <= wanted)
        wanted = np.where(is_own, latest, wanted)
    start = np.searchsorted(ordered, wanted)
    counts = np.searchsorted(ordered, wanted, side="right") - start
    places = Ragged.from_ranges(start, counts)
    found = Ragged(events.item[shown[places.values]], places.offsets)
    # An item of a session, or of a moment without one.
    there = np.where(session < 0, int(session.max()) + 1 + moment, session) * timeline.num_items + timeline.item
    is_acted = is_among(there[shown], there[split.training_interactions()])
    return found.keep(~is_acted[places.values] & (found.values != found.spread(events.item[targets])))


__all__ = ["TrainingWindows", "build_training_windows", "choose_session_ids", "log_actions", "log_geohashes"]
