# SPDX-License-Identifier: Apache-2.0
"""The summary of a log, counted by hand."""

import json

import pytest
from small_shop import log_of

from seekrec.events.report import summarize_log

DAY = 86_400


def test_a_shop_counted_by_hand():
    lines = [
        # A visit: a search without a click, another with one and two results that were only shown, then a repeat.
        ("u", 100, None, "kite", "search", "v"),
        ("u", 160, "a", "red kite", "click", "v"),
        ("u", 160, "b", "red kite", "impression", "v"),
        ("u", 161, "c", "red kite", "impression", "v"),
        ("u", 300, "a", None, "purchase", "v"),
        ("w", 100 + DAY, "b", None, "click", None),
    ]
    titles = {"a": "Kite", "b": "b", "c": "", "d": "Drum"}
    summary = summarize_log(log_of(lines, items=titles))
    assert (summary.num_events, summary.num_users, summary.num_items) == (6, 2, 4)
    # a, a and b; only the second a is a repeat. Nobody has three of them.
    assert (summary.num_interactions, summary.num_users_to_hold_out) == (3, 0)
    assert summary.share_repeats == pytest.approx(1 / 3)
    assert (summary.share_searches, summary.num_queries) == (pytest.approx(4 / 6), 2)
    assert summary.share_searches_without_item == pytest.approx(1 / 4)
    assert summary.share_impressions == pytest.approx(2 / 6)
    # d has no event; c was only shown; b has its id for a title and c nothing.
    assert (summary.share_items_without_events, summary.share_items_only_shown) == (0.25, 0.25)
    assert (summary.share_items_with_text, summary.has_categories) == (0.5, False)
    assert summary.actions == {"click": 2, "impression": 2, "purchase": 1, "search": 1}
    assert (summary.median_events_of_user, summary.p90_events_of_user) == (3.0, pytest.approx(1 + 0.9 * 4))
    assert (summary.max_events_of_user, summary.num_outliers) == (5, 0)
    assert summary.span_days == 1.0 and not summary.times_are_days
    sessions = summary.sessions
    assert (sessions.num_sessions, sessions.mean_events, sessions.kind) == (1, 5.0, "visit")
    assert sessions.share_of_events == pytest.approx(5 / 6)
    assert json.loads(json.dumps(summary.to_dict()))["sessions"]["kind"] == "visit"
    text = str(summary)
    assert "small: 6 events of 2 users, 4 items" in text
    assert "1970-01-01 00:01 to 1970-01-02 00:01 UTC (1.0 days)" in text
    assert "66.7% of events, 2 different queries (typed by users); 25.0% of them led to no item" in text
    assert "they look like visits of several steps" in text


def test_days_and_a_bot_are_named():
    # Forty users of 10 events each on two days, and a program of 2,000: its logarithm is ln(200) / .5 = 10.6 of the
    # smallest deviations above the median.
    lines = [(f"u{user:02d}", DAY * (number // 5), f"i{number}") for user in range(40) for number in range(10)]
    lines += [("robot", DAY * number, f"i{number % 10}") for number in range(2_000)]
    summary = summarize_log(log_of(lines, items=[f"i{number}" for number in range(10)]))
    assert summary.times_are_days and summary.sessions is None
    # All 400 of the people, none of the program's.
    assert summary.share_simultaneous == pytest.approx(400 / 2_400)
    assert (summary.num_outliers, summary.outlier_from) == (1, 1_000)
    assert summary.share_of_outliers == pytest.approx(2_000 / 2_400)
    assert "1 of the users have 1,000 events or more: 83.3% of all events" in str(summary)
    assert "events of one day have no order" in str(summary)
    order = summarize_log(log_of(lines, items=[f"i{number}" for number in range(10)], has_time=False))
    assert (order.span_days, order.times_are_days, order.share_simultaneous) == (0.0, False, 0.0)
