# SPDX-License-Identifier: Apache-2.0
"""Find out whether the `session_id` of a log means page views or visits.

A **page view** is one request: a list is shown, and all acts on it answer the same question. They must not see each
other, or a model learns to copy. A **visit** is a series of steps, as in most public logs (Yoochoose, Diginetica,
trivago): each step depends on those before, and hiding these would leave a model nothing to see.

The column does not say which of the two it is, so [`guess_session_ids`] guesses from the data. The setting
`session_ids` overrides the guess.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.columns import SessionIds
from seekrec.events.split import Split
from seekrec.events.timeline import Timeline
from seekrec.util.arrow import one_array

# In so many of the sessions with acts at several times something must show up that a page view cannot hold.
_SHARE = 0.1


@dataclass(frozen=True)
class SessionGuess:
    """Statistics of the sessions of a log, and the guess that follows from them.

    Args:
        kind (`str`): `"page_view"` or `"visit"`.
        num_sessions (`int`): Sessions with an act: different pairs of a user and a `session_id`.
        num_spread (`int`): Number of these with acts at several times.
        reason (`str`): Why, as the end of a sentence.
    """

    kind: SessionIds
    num_sessions: int
    num_spread: int
    reason: str

    def __str__(self) -> str:
        meaning = {
            "page_view": "page views, whose events do not see each other",
            "visit": "visits, whose events see those before them",
        }[self.kind]
        return (
            f"`session_id` is taken for {meaning}: {self.num_spread} of {self.num_sessions} sessions hold acts at "
            f"several times; {self.reason}. Set `session_ids` if it is meant otherwise."
        )


def session_numbers(split: Split) -> np.ndarray:
    """Number the sessions of the whole log, each a user and a `session_id`: int64, one per event, -1 for none."""
    return number_sessions(split.log.events, split.timeline)


def number_sessions(events: pa.Table, timeline: Timeline) -> np.ndarray:
    """Number the sessions of events; see [`session_numbers`]."""
    names = one_array(events["session_id"]).dictionary_encode()
    of_id = pc.fill_null(names.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    named = np.flatnonzero(of_id >= 0)
    numbers = np.full(len(of_id), -1, dtype=np.int64)
    pairs = timeline.user[named] * max(len(names.dictionary), 1) + of_id[named]
    numbers[named] = np.unique(pairs, return_inverse=True)[1]
    return numbers


def guess_session_ids(split: Split) -> SessionGuess | None:
    """Guess from training events whether `session_id` means page views or visits; see [`SessionCounts`].

    Returns:
        [`SessionGuess`], *optional*: `None` where no training event has a `session_id`.
    """
    return count_sessions(split.log.events, split.timeline, session_numbers(split), split.training_acts()).guess()


@dataclass(frozen=True)
class SessionCounts:
    """Counts that tell page views from visits. Those of parts of a log add up, as a session is one user's.

    A page view has one list, of one query or of none. So sessions are visits where

    - a tenth of those with acts at several times hold different queries, or searches and recommendations;
    - or, where not most of those are the results of one query, sessions hold acts at two times on average.

    When things were shown says nothing: a page that is scrolled shows them at many times (Qilin).

    Args:
        num_sessions (`int`): Sessions with an act.
        num_times (`int`): Times at which they have one, added up.
        num_spread (`int`): Sessions with acts at several times.
        num_mixed (`int`): Of these, those with several queries, or with searches and recommendations.
        num_searches (`int`): Of these, those with nothing but searches.
    """

    num_sessions: int = 0
    num_times: int = 0
    num_spread: int = 0
    num_mixed: int = 0
    num_searches: int = 0

    def plus(self, other: SessionCounts) -> SessionCounts:
        """Add the counts of other users."""
        return SessionCounts(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def guess(self) -> SessionGuess | None:
        """Return the guess; `None` where there are no sessions."""
        total, count = self.num_sessions, self.num_spread
        if not total:
            return None
        if not count:
            return SessionGuess("page_view", total, 0, "what is done at one time is not seen anyway")
        if self.num_mixed / count >= _SHARE:
            reason = f"{self.num_mixed} of them hold several queries, or searches and recommendations"
            return SessionGuess("visit", total, count, reason)
        if self.num_searches / count >= 0.5:
            return SessionGuess("page_view", total, count, "most of them are the results of one query")
        average = self.num_times / total
        kind: SessionIds = "visit" if average >= 2 else "page_view"
        return SessionGuess(kind, total, count, f"a session has acts at {average:.1f} times on average")


def count_sessions(events: pa.Table, timeline: Timeline, session: np.ndarray, acts: np.ndarray) -> SessionCounts:
    """Count what tells page views from visits.

    Args:
        events (`pyarrow.Table`): Rows of `EVENT_FEATURES`.
        timeline ([`Timeline`]): Their order.
        session (`np.ndarray`): What [`number_sessions`] returns.
        acts (`np.ndarray`): int64 rows of the events to look at, none of them an impression.
    """
    t = timeline
    acts = acts[session[acts] >= 0]
    if not len(acts):
        return SessionCounts()
    num_times = _count_distinct(session, acts, t.moment)
    queries = one_array(events["query"]).dictionary_encode().indices
    # The query of each event, or none.
    asked = np.where(t.is_search, pc.fill_null(queries, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1, 0)
    num_asked = _count_distinct(session, acts, asked)
    is_search = np.bincount(session[acts], t.is_search[acts], minlength=len(num_times)) == np.bincount(
        session[acts], minlength=len(num_times)
    )
    spread = num_times > 1
    return SessionCounts(
        num_sessions=int((num_times > 0).sum()),
        num_times=int(num_times.sum()),
        num_spread=int(spread.sum()),
        num_mixed=int((num_asked[spread] > 1).sum()),
        num_searches=int(is_search[spread].sum()),
    )


def _count_distinct(session: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Count for each session the distinct values of its rows: int64 by number of the session."""
    width = int(values.max(initial=0)) + 1
    # numpy's own `unique` hashes, which takes four times as long as sorting here.
    pairs = np.sort(session[rows] * width + values[rows])
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])] if len(pairs) else pairs
    return np.bincount(pairs // width, minlength=int(session.max(initial=-1)) + 1)
