# SPDX-License-Identifier: Apache-2.0
"""Windows and their questions, on logs small enough to write the answer down."""

from __future__ import annotations

import numpy as np
import pytest
from small_shop import log_of

from seekrec.corpora.training_windows import build_training_windows, log_actions
from seekrec.errors import DataError
from seekrec.events import split_log
from seekrec.events.columns import RequestColumns, number_sessions
from seekrec.schema import Event, IdMap, Request
from seekrec.util.ragged import Ragged


def sessions_of(*events):
    ids = IdMap(["a", "b"])
    history = [Event("a", timestamp=time, session_id=session) for time, session in events]
    arrays = RequestColumns.read([Request(history)], ids, ["click"]).events
    rows = Ragged.from_lists([range(len(events))])
    return number_sessions(arrays.timestamp, arrays.session, rows).tolist()


def test_sessions_are_moments_and_spans_of_a_session_id():
    assert sessions_of((1, None), (1, None), (2, None), (3, None)) == [0, 0, 1, 2]
    # From the first to the last event of "x" nothing sees anything, be it of another session.
    assert sessions_of((1, "x"), (2, "y"), (3, "x"), (4, "y"), (5, None)) == [0, 0, 0, 0, 1]
    assert sessions_of((1, "x"), (2, "x"), (2, None), (3, "y"), (4, "z")) == [0, 0, 0, 1, 2]


def test_sessions_of_one_row_do_not_touch_those_of_the_next():
    ids = IdMap(["a"])
    history = [Event("a", timestamp=5, session_id="x"), Event("a", timestamp=5, session_id="x")] * 2
    arrays = RequestColumns.read([Request(history)], ids, ["click"]).events
    rows = Ragged.from_lists([[0], [1, 2], [], [3]])
    assert number_sessions(arrays.timestamp, arrays.session, rows).tolist() == [0, 0, 0, 0]


def make_split(rows, *, num_items=9):
    """One user's events as (timestamp, item, query, action); three more events are held out behind them."""
    held_out = [(100, 6, None, "click"), (101, 7, None, "click")]
    lines = [
        ("u", time, None if item is None else f"i{item}", query, action)
        for time, item, query, action in [*rows, *held_out]
    ]
    ids = [f"i{row}" for row in range(num_items)]
    return split_log(log_of(lines, items=ids, name="one user")), IdMap(ids)


def test_questions_of_a_window():
    rows = [
        (1, 0, None, "click"),
        (2, 1, "red", "click"),
        (2, 2, None, "buy"),
        (3, 3, None, "impression"),
        (3, 0, None, "click"),
        (4, None, "blue", "click"),
        (5, 4, "blue", "click"),
    ]
    split, ids = make_split(rows)
    assert log_actions(split) == ["buy", "click"]
    windows = build_training_windows(split, ids, actions=["buy", "click"], max_history=10)
    batch = windows.batch([0])
    # The impression is no event; the search without a click is one without an item.
    assert batch["history_item_rows"].tolist() == [[0, 2, 1, 0, -1, 4]] or batch["history_item_rows"].tolist() == [
        [0, 1, 2, 0, -1, 4]
    ]
    assert batch["history_session_ids"].tolist() == [[0, 1, 1, 2, 3, 4]]
    assert batch["history_timestamps"].tolist() == [[1, 2, 2, 3, 4, 5]]
    # Item 0 at time 3 stands in its own history; a searched item is asked for with and without its query.
    order = batch["history_item_rows"][0].tolist()
    first, second = order.index(1), order.index(2)
    expected = sorted([(0, 0, 0), (first, 0, 1), (first, 1, 1), (second, 0, 2), (5, 0, 4), (5, 1, 4)])
    found = zip(
        batch["question_events"][0].tolist(),
        batch["question_behavior_ids"][0].tolist(),
        batch["labels"][0].tolist(),
        strict=True,
    )
    assert sorted(found) == expected
    queries = windows.events.queries
    asked = [None if row < 0 else queries[row] for row in batch["question_query_rows"][0]]
    is_search = batch["question_behavior_ids"][0] == 1
    assert [query for query, searched in zip(asked, is_search, strict=True) if searched] == ["red", "blue"]
    assert not any(query for query, searched in zip(asked, is_search, strict=True) if not searched)
    assert batch["question_session_ids"][0].tolist() == [
        batch["history_session_ids"][0][e] for e in batch["question_events"][0]
    ]
    # What was shown at the moment of the question about time 3 is gone with it; the others saw nothing shown.
    assert batch["shown_item_rows"].shape == (1, 6, 0)


def test_shown_items_belong_to_their_moment():
    split, ids = make_split(
        [(1, 0, None, "click"), (2, 1, None, "click"), (2, 3, None, "impression"), (2, 4, None, "impression")]
    )
    windows = build_training_windows(split, ids, actions=["click"])
    shown = windows.batch([0])["shown_item_rows"][0]
    assert [sorted(row[row >= 0].tolist()) for row in shown] == [[], [3, 4]]


def test_items_that_were_acted_on_where_they_were_shown_are_not_shown_beside_others():
    # Everything on the page is an impression, what is clicked too: item 4 alone was only shown.
    page = [(10, item, "impression", "p") for item in (2, 3, 4)] + [(11, 2, "click", "p"), (12, 3, "click", "p")]
    moment = [(20, 1, "impression", None), (20, 5, "impression", None), (20, 1, "click", None), (20, 0, "click", None)]
    visit = [(30, 5, "impression", "w"), (32, 8, "impression", "w"), (33, 8, "click", "w")]
    held_out = [(100, 6, "click", None), (101, 7, "click", None)]
    rows = [(1, 7, "click", None), *page, *moment, *visit, *held_out]
    log = log_of([("u", time, f"i{item}", None, action, session) for time, item, action, session in rows])
    ids = IdMap([f"i{row}" for row in range(9)])
    for kind in ("page_view", "visit"):
        windows = build_training_windows(split_log(log), ids, actions=["click"], session_ids=kind)
        targets = windows.events.item[windows.windows.values[windows.places]].tolist()
        shown = dict(zip(targets, (sorted(one.tolist()) for one in windows.shown), strict=True))
        assert [shown[row] for row in (2, 3, 0, 1)] == [[4], [4], [5], [5]]
        # The list of the visit before the click shows nothing else; a page view is one list.
        assert shown[8] == ([5] if kind == "page_view" else [])


def test_a_long_user_gets_windows_whose_targets_are_asked_once():
    rows = [(time, time % 6, None, "click") for time in range(1, 6)] + [(9, 8, None, "click")]
    split, ids = make_split(rows)
    windows = build_training_windows(split, ids, actions=["click"], max_history=4)
    assert windows.windows.lengths.tolist() == [4, 4]
    place = windows.windows.offsets[windows.questions.owners()] + windows.questions.values
    assert sorted(windows.windows.values[place].tolist()) == list(range(6))
    only = windows.select("recommendation")
    assert len(only) == 2 and len(only.questions.values) == 6


def test_batches_are_padded():
    split, ids = make_split([(time, time, None, "click") for time in range(5)])
    windows = build_training_windows(split, ids, actions=["click"], max_history=3)
    batch = windows.batch([1, 0])
    assert batch["history_mask"].sum(1).tolist() == windows.windows.lengths[[1, 0]].tolist()
    assert batch["labels"][0].tolist()[-1] == -100 or batch["labels"].shape[1] == 2


def test_a_log_without_targets_is_refused():
    split, ids = make_split([(1, 0, None, "click"), (2, 1, None, "impression")])
    object.__setattr__(split, "train_rows", split.train_rows[:0])
    with pytest.raises(DataError, match="The training part of 'one user' has no interaction that can be a target"):
        build_training_windows(split, ids, actions=["click"])


def test_an_unknown_action_is_number_zero():
    request = Request([Event("a", action="buy"), Event("a", action="wish")])
    arrays = RequestColumns.read([request], IdMap(["a"]), ["buy", "click"]).events
    np.testing.assert_array_equal(arrays.action, [1, 0])
