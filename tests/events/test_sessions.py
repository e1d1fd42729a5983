# SPDX-License-Identifier: Apache-2.0
"""Page views and visits told apart, on logs whose answer is plain."""

from __future__ import annotations

import pytest
from small_shop import log_of

from seekrec.events import split_log
from seekrec.events.sessions import guess_session_ids


def make_split(acts):
    """`acts`: (time, session, query, action) of one user, each on an item of its own; two are held out behind them."""
    acts = [*acts, (9_000, None, None, "click"), (9_001, None, None, "click")]
    lines = [("u", time, f"i{row}", query, action, session) for row, (time, session, query, action) in enumerate(acts)]
    return split_log(log_of(lines, items=[f"i{row}" for row in range(len(acts))], name="shop"))


@pytest.mark.parametrize(
    ("acts", "kind", "reason"),
    [
        # One visit of five steps, as in Yoochoose.
        ([(time, "v", None, "click") for time in range(5)], "visit", "a session has acts at 5.0 times on average"),
        # Two acts at one time, and pages with one act each.
        ([(1, "a", None, "click"), (1, "a", None, "buy"), (2, "b", None, "click")], "page_view", "at one time"),
        # Three results of one query, clicked one after the other: a page, however long it was read.
        ([(time, "p", "kite", "click") for time in (1, 60, 900)], "page_view", "the results of one query"),
        # Two queries in one session.
        ([(1, "v", "kite", "click"), (2, "v", "drum", "click")], "visit", "1 of them hold several queries"),
        ([(1, "v", "kite", "click"), (2, "v", None, "click")], "visit", "searches and recommendations"),
        # (2 + 1 + 1) / 3 times on average.
        (
            [(1, "a", None, "click"), (2, "a", None, "click"), (3, "b", None, "click"), (4, "c", None, "click")],
            "page_view",
            "1.3 times",
        ),
    ],
)
def test_the_guess(acts, kind, reason):
    guess = guess_session_ids(make_split(acts))
    assert guess.kind == kind and reason in str(guess)


def test_impressions_decide_nothing_and_a_log_without_sessions_has_no_guess():
    acts = [(1, "a", None, "click"), *((time, "a", None, "impression") for time in range(2, 8))]
    assert guess_session_ids(make_split(acts)).kind == "page_view"
    assert guess_session_ids(make_split([(1, None, None, "click")])) is None


def test_cases_carry_session_and_action():
    split = make_split([(1, "a", None, "click"), (2, "a", None, "buy"), (3, None, None, "buy")])
    asked = split.requests("test", "recommendation")[0]
    assert (asked.session_id, asked.action) == (None, "click")
    # Only what training knows is asked for, and only where there is a choice.
    only_bought = make_split([(1, "a", None, "buy")])
    assert only_bought.requests("test")[0].action is None
    assert only_bought.test.action is None and only_bought.test.session_id == [None]
