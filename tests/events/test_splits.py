# SPDX-License-Identifier: Apache-2.0
"""Splits: what is held out, what is kept from training, and the histories, each derived by hand or by a plain loop."""

import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_day import same_day_log
from small_shop import log_of

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import timeline as timeline_module
from seekrec.events.cases import Cases
from seekrec.events.queries import synthesize_searches
from seekrec.events.split import Split
from seekrec.events.splits import split_log
from seekrec.events.timeline import Timeline, paper_histories, paper_order, strict_histories
from seekrec.util.ragged import Ragged

DAY = 86_400


def told(split, rows):
    """Rows as (item, timestamp, is search), for people."""
    events = split.log.events.take(np.asarray(rows, dtype=np.int64)).to_pylist()
    return [(event["item_id"], event["timestamp"], event["query"] is not None) for event in events]


def histories_of(split, part):
    """Items of the history of each case, under (user, behavior)."""
    cases = split.cases(part)
    return {
        (cases.user_id[k], cases.behavior[k]): [item for item, _, _ in told(split, cases.history(k))]
        for k in range(len(cases))
    }


def test_strict_leave_one_out_by_hand():
    # a: test (E, 6), validation (D, 5). Training: before 5, without D and E: B, C. Item E at 1 falls out everywhere.
    # b: two interactions: training only.
    log = log_of(
        [
            ("a", 1, "E"),
            ("a", 2, "B"),
            ("a", 3, "D"),
            ("a", 4, "C"),
            ("a", 5, "D"),
            ("a", 6, "E"),
            ("b", 1, "A"),
            ("b", 9, "B"),
        ]
    )
    split = split_log(log)
    assert told(split, split.train_rows) == [("B", 2, False), ("C", 4, False), ("A", 1, False), ("B", 9, False)]
    assert split.train_events()["item_id"].to_pylist() == ["B", "C", "A", "B"]
    assert split.test.item_id == ["E"] and split.test.timestamp.tolist() == [6] and split.test.query == [None]
    assert split.validation.item_id == ["D"] and split.validation.timestamp.tolist() == [5]
    # The test history holds the validation interaction; the validation history no other D, but the early E.
    assert histories_of(split, "test") == {("a", "recommendation"): ["B", "D", "C", "D"]}
    assert histories_of(split, "validation") == {("a", "recommendation"): ["E", "B", "C"]}


def test_the_last_tenth_by_hand():
    # a: 21 distinct interactions, 2 + 2 held out: test T and U, validation R and S at 18 and 19. R at 3, though early,
    # is not trained; the search for S is asked as one. b: 3 interactions, 1 + 1. c: two, training only.
    items = "ABRDEFGHIJKLMNOPQRSTU"
    rows = [("a", step, item, "find s" if item == "S" else None) for step, item in enumerate(items, start=1)]
    rows += [("b", 1, "A"), ("b", 2, "B"), ("b", 2, "C"), ("c", 1, "A"), ("c", 99, "B")]
    split = split_log(log_of(rows), method="last_tenth")
    asked = [(part.user_id, part.item_id, part.behavior) for part in (split.test, split.validation)]
    tasks = ["recommendation"] * 3
    assert asked[0] == (["a", "a", "b"], ["T", "U", "C"], tasks)
    assert asked[1] == (["a", "a", "b", "a"], ["R", "S", "B", "S"], [*tasks, "search"])
    trained = split.train_events().select(["user_id", "item_id"]).to_pylist()
    assert "".join(event["item_id"] for event in trained if event["user_id"] == "a") == "ABDEFGHIJKLMNOPQ"
    assert [event["item_id"] for event in trained if event["user_id"] != "a"] == ["A", "A", "B"]
    # What was asked before is history: U is asked after R, S and T.
    assert [item for item, _, _ in told(split, split.test.history(1))] == list("ABRDEFGHIJKLMNOPQRST")
    assert [item for item, _, _ in told(split, split.validation.history(0))] == list("ABDEFGHIJKLMNOPQ")
    assert split.describe()["method"] == "last_tenth"


def test_strict_leaves_out_the_whole_moment_of_a_target():
    # Three reviews on the last day, of which C and B are held out: A of that day is in no history and not trained.
    split = split_log(log_of([("u", DAY, "P"), ("u", 2 * DAY, "Q"), *(("u", 3 * DAY, item) for item in "ABC")]))
    assert split.test.item_id == ["C"] and split.validation.item_id == ["B"]
    assert histories_of(split, "test") == {("u", "recommendation"): ["P", "Q"]}
    assert histories_of(split, "validation") == {("u", "recommendation"): ["P", "Q"]}
    assert told(split, split.train_rows) == [("P", DAY, False), ("Q", 2 * DAY, False)]


def test_copies_are_held_out_in_both_tellings_and_asked_with_their_query():
    lines = []
    for time, item in enumerate("ABCD"):
        lines += [("u", time, item), ("u", time, item, f"find {item}")]
    split = split_log(log_of(lines, query_source="category"))
    assert (split.test.behavior, split.test.item_id) == (["recommendation", "search"], ["D", "D"])
    assert split.test.query == [None, "find D"]
    assert split.validation.query == [None, "find C"]
    assert histories_of(split, "test")["u", "search"] == ["A", "A", "B", "B", "C", "C"]
    assert told(split, split.train_rows) == [(item, t, s) for t, item in enumerate("AB") for s in (False, True)]
    # A training target sees neither of its own tellings.
    histories = split.training_histories()
    assert [told(split, histories[k]) for k in range(len(histories))] == [[], []] + 2 * [
        [("A", 0, False), ("A", 0, True)]
    ]


def test_logged_queries_are_never_made_up():
    log = log_of([("u", 1, "A", "find a"), ("u", 2, "B", "find b"), ("u", 3, "C")], queries={"C": ["made up"]})
    split = split_log(log)
    assert split.test.behavior == ["recommendation"]
    assert (split.validation.behavior, split.validation.query) == (["recommendation", "search"], [None, "find b"])


def test_a_log_without_searches_is_asked_for_recommendations_only():
    log = log_of([("u", 1, "A"), ("u", 2, "B"), ("u", 3, "C")], queries={"C": ["one"]})
    assert split_log(log).test.behavior == ["recommendation"]


def test_synthetic_queries_are_chosen_by_seed_among_the_items_own():
    users = [f"u{number}" for number in range(40)]
    lines = [(user, time, item) for user in users for time, item in enumerate("ABC")] + [("z", 0, "A", "find a")]
    queries = {"A": ["a"], "B": [], "C": ["first", "second", "third"]}
    log = log_of(lines, queries=queries, query_source="category")
    chosen = [split_log(log, seed=seed).test for seed in (0, 0, 1)]
    assert chosen[0].query == chosen[1].query != chosen[2].query
    assert set(chosen[0].query) == {None, "first", "second", "third"}
    # No query can be had for B, the validation target: it is not asked as a search.
    assert set(split_log(log).validation.behavior) == {"recommendation"}
    # A user's query does not depend on who else is in the log.
    few = log_of(lines[:30] + lines[-1:], queries=queries, query_source="category")
    assert split_log(few).test.query[10:] == [
        query
        for user, query in zip(chosen[0].user_id, chosen[0].query, strict=True)
        if query is not None and user in {line[0] for line in lines[:30]}
    ]


def test_impressions_are_no_interactions_and_only_shown_on_request():
    shown = ("u", 2, "S", None, "impression")
    target_shown = ("u", 1, "C", None, "impression")
    log = log_of([target_shown, ("u", 1, "A"), shown, ("u", 3, "B"), ("u", 4, "C"), ("u", 5, "D", None, "impression")])
    split = split_log(log)
    assert split.test.item_id == ["C"] and split.validation.item_id == ["B"]
    assert histories_of(split, "test") == {("u", "recommendation"): ["A", "B"]}
    # Training keeps impressions (they are negatives), though not of a held-out item, and never as targets.
    assert told(split, split.train_rows) == [("A", 1, False), ("S", 2, False)]
    assert split.is_training_target().tolist() == [True, False]
    kept = split_log(log, keep_impressions=True)
    assert histories_of(kept, "test") == {("u", "recommendation"): ["A", "S", "B"]}


def test_searches_without_a_click_are_history_and_on_request_targets():
    log = log_of(
        [
            ("u", 1, "A"),
            ("u", 2, None, "nothing found"),
            ("u", 3, "B"),
            ("u", 4, "C"),
            ("u", 5, "D"),
            ("u", 6, None, "late"),
        ]
    )
    split = split_log(log)
    assert split.test.item_id == ["D"]
    assert histories_of(split, "test") == {("u", "recommendation"): ["A", None, "B", "C"]}
    assert told(split, split.training_targets()) == [("A", 1, False), ("B", 3, False)]
    with_queries = split.training_targets(include_queries=True)
    assert told(split, with_queries) == [("A", 1, False), (None, 2, True), ("B", 3, False)]
    histories = split.training_histories(target_rows=with_queries)
    assert [[item for item, _, _ in told(split, histories[k])] for k in range(3)] == [[], ["A"], ["A", None]]


def test_max_history_counts_what_is_left_after_the_targets_own_item():
    # Before the test target A: B C A D A (times 1 to 5, A left out: B C D); validation target is A at 5 as well.
    lines = [("u", time, item) for time, item in enumerate("XBCADAA", start=0)]
    split = split_log(log_of(lines), max_history=2)
    assert histories_of(split, "test") == {("u", "recommendation"): ["C", "D"]}
    assert split.requests("test", max_history=1)[0].history[0].item_id == "D"
    assert len(split.requests("test", max_history=9)[0].history) == 2
    histories = split.training_histories()
    assert [told(split, histories[k]) for k in range(len(histories))][-1] == [("B", 1, False), ("C", 2, False)]
    assert np.diff(split.training_histories(max_history=1).offsets).max() == 1
    assert np.diff(split.training_histories(max_history=9).offsets).max() == 2


def test_training_histories_of_some_targets():
    split = split_log(log_of([("u", time, item) for time, item in enumerate("ABCDE")]))
    wanted = split.training_targets()[[2, 0]]
    histories = split.training_histories(target_rows=wanted)
    assert histories.target_rows.tolist() == wanted.tolist()
    assert [histories[k].tolist() for k in range(2)] == [[0, 1], []]
    with pytest.raises(DataError, match=r"`target_rows` contains row 4, which training may not use; take rows from"):
        split.training_histories(target_rows=np.array([0, 4]))


def test_last_days_by_hand():
    # Days 0 to 3; the last is the test, the one before validation. u's B of day 0 is a test target: not trained.
    log = log_of(
        [
            ("u", 10, "A"),
            ("u", 20, "B"),
            ("u", 2 * DAY + 5, "C"),
            ("u", 2 * DAY + 6, "D"),
            ("u", 3 * DAY, "B"),
            ("u", 3 * DAY + 1, "E"),
            ("v", DAY, "E"),
        ]
    )
    split = split_log(log, method="last_days")
    assert told(split, split.train_rows) == [("A", 10, False), ("E", DAY, False)]
    assert split.validation.item_id == ["C"]
    assert histories_of(split, "validation") == {("u", "recommendation"): ["A", "B"]}
    assert split.test.item_id == ["B", "E"]
    assert [told(split, split.test.history(k)) for k in range(2)] == [
        [("A", 10, False), ("C", 2 * DAY + 5, False), ("D", 2 * DAY + 6, False)],
        [
            ("A", 10, False),
            ("B", 20, False),
            ("C", 2 * DAY + 5, False),
            ("D", 2 * DAY + 6, False),
            ("B", 3 * DAY, False),
        ],
    ]
    # Two test days: validation is day 1 and u keeps no case there.
    assert split_log(log, method="last_days", num_test_days=2).validation.user_id == ["v"]
    # Protocol paper drops no pair: B of day 0 is trained.
    paper = split_log(log, method="last_days", protocol="paper")
    assert told(paper, paper.train_rows) == [("A", 10, False), ("B", 20, False), ("E", DAY, False)]


def test_last_days_of_the_paper_protocol_asks_each_event_in_its_own_task():
    lines = [
        ("u", 0, "A"),
        ("u", DAY, "B"),
        ("u", DAY, "B", "find b"),
        ("u", DAY + 1, "C"),
        ("u", 2 * DAY, "D", "find d"),
    ]
    split = split_log(log_of(lines), method="last_days", protocol="paper")
    assert (split.validation.behavior, split.validation.item_id) == (["recommendation", "search"], ["B", "B"])
    assert (split.test.behavior, split.test.query) == (["search"], ["find d"])


def test_what_last_days_refuses():
    lines = [("u", 0, "A"), ("u", DAY, "B")]
    with pytest.raises(DataError, match=r"span 2 days; `num_test_days` 1 needs 3"):
        split_log(log_of(lines), method="last_days")
    with pytest.raises(DataError, match=r"'small' has order but no time, so it has no days to hold out"):
        split_log(log_of(lines, has_time=False), method="last_days")
    with pytest.raises(ConfigurationError, match=r"`num_test_days` is 0; give 1 or more"):
        split_log(log_of(lines), method="last_days", num_test_days=0)
    impression = log_of([("u", 0, "A", None, "impression")])
    with pytest.raises(DataError, match=r"'small' contains no interactions"):
        split_log(impression, method="last_days")
    with pytest.raises(DataError, match=r"has 3 distinct interactions \(the most is 0\)"):
        split_log(impression)


def test_what_split_log_refuses():
    log = log_of([("u", 0, "A"), ("u", 1, "B"), ("u", 1, "B")])
    with pytest.raises(DataError, match=r"No user of the log has 3 distinct interactions \(the most is 2\)"):
        split_log(log)
    with pytest.raises(DataError, match=r"3 interactions of one behavior that follow both .* use protocol='strict'"):
        split_log(log, protocol="paper")
    with pytest.raises(
        ConfigurationError, match=r"`method` is 'random'; use one of 'leave_one_out', 'last_tenth', 'last_days'"
    ):
        split_log(log, method="random")
    with pytest.raises(ConfigurationError, match=r"'last_tenth' and `protocol` 'paper'"):
        split_log(log, method="last_tenth", protocol="paper")
    with pytest.raises(ConfigurationError, match=r"`protocol` is 'loose'; use one of 'strict', 'paper'"):
        split_log(log, protocol="loose")
    with pytest.raises(ConfigurationError, match=r"`max_history` is 0; give 1 or more, or None for all"):
        split_log(log, max_history=0)


def test_paper_protocol_reproduces_the_two_leaks_of_the_released_data():
    split = split_log(same_day_log(), protocol="paper")
    order = paper_order(split.log, split.timeline)
    events = split.log.events.to_pylist()
    counts = {
        (event["user_id"], event["behavior"], event["item_id"]): int(order.num_recommendations[row])
        for row, event in enumerate(events)
    }
    # Recommendations of the last day stand at positions 2, 3, 4 by item id, whatever the rating.
    assert [counts["1", "recommendation", item] for item in "ABC"] == [2, 3, 4]
    # Its searches are given all five recommendations, but one less where the last of them has the same item: user 0's
    # last one by rating is C, user 1's is B.
    assert [counts["0", "search", item] for item in "ABC"] == [5, 5, 4]
    assert [counts["1", "search", item] for item in "ABC"] == [5, 4, 5]
    # Leave-one-out by (time, item id): C is the test target of both tasks. User 1 rated C worst, so the first four
    # recommendations in rating order, P Q C A, hold the target of the recommendation.
    cases = split.test
    assert cases.item_id == ["C"] * 4
    recommended = {
        (cases.user_id[k], cases.behavior[k]): "".join(item for item, _, s in told(split, cases.history(k)) if not s)
        for k in range(4)
    }
    assert recommended == {
        ("0", "recommendation"): "PQAB",
        ("1", "recommendation"): "PQCA",
        ("0", "search"): "PQAB",
        ("1", "search"): "PQCAB",
    }
    # Each task loses its own two targets only; A and the early ones stay, in both tasks.
    trained = told(split, split.train_rows)
    assert trained == 2 * [(item, day * DAY, s) for day, item in ((1, "P"), (2, "Q"), (3, "A")) for s in (False, True)]


def test_paper_protocol_goes_by_the_column_rating_where_there_is_one():
    # The same log in item id order, with the stars that put it into the order above: C has 4, the others 5.
    log = same_day_log()
    stars = pa.array([4.0 if item == "C" else 5.0 for item in log.events["item_id"].to_pylist()])
    rated = replace(log, events=log.events.append_column("rating", stars).sort_by([("item_id", "descending")]))
    split = split_log(rated, protocol="paper")
    # User 1 as above; user 0 now too rates C worst.
    assert {
        (split.test.user_id[k], split.test.behavior[k]): [i for i, _, s in told(split, split.test.history(k)) if not s]
        for k in range(4)
    } == {
        ("0", "recommendation"): list("PQCA"),
        ("1", "recommendation"): list("PQCA"),
        ("0", "search"): list("PQCAB"),
        ("1", "search"): list("PQCAB"),
    }
    # Words are no rating: the order of the log counts, as without the column.
    words = replace(log, events=log.events.append_column("rating", pa.array(["good"] * log.num_events)))
    assert split_log(words, protocol="paper").requests("test") == split_log(log, protocol="paper").requests("test")


def test_paper_targets_follow_both_behaviors_and_need_three():
    # u has four recommendations after its first search and two searches after its first recommendation.
    lines = [
        ("u", 0, "S", "find s"),
        *(("u", time, item) for time, item in enumerate("ABCDE", start=1)),
        ("u", 9, "T", "t"),
    ]
    split = split_log(log_of(lines), protocol="paper")
    assert split.test.item_id == ["E"] and split.validation.item_id == ["D"]
    # A follows no recommendation: history only. Both searches stay in training, but are no targets.
    assert told(split, split.training_targets()) == [("B", 2, False), ("C", 3, False)]
    assert told(split, split.train_rows) == [
        ("S", 0, True),
        *((i, t, False) for t, i in enumerate("ABC", start=1)),
        ("T", 9, True),
    ]


def test_requests_and_targets():
    log = log_of([("u", 1, "A"), ("u", 2, None, "looked"), ("u", 3, "B", "find b"), ("u", 4, "C"), ("v", 1, "A")])
    split = split_log(log)
    (request,) = split.requests("test")
    assert (request.query, request.timestamp, request.user_id) == (None, 4, "u")
    assert [(e.item_id, e.behavior, e.timestamp, e.query, e.action) for e in request.history] == [
        ("A", "recommendation", 1, None, "click"),
        (None, "search", 2, "looked", "click"),
        ("B", "search", 3, "find b", "click"),
    ]
    assert split.targets("test") == ["C"]
    assert [request.query for request in split.requests("validation")] == [None, "find b"]
    assert [request.query for request in split.requests("validation", "search")] == ["find b"]
    assert split.targets("validation", "recommendation") == ["B"]
    assert split.requests("test", "search") == [] == split.targets("test", "search")
    with pytest.raises(ConfigurationError, match=r"`part` is 'train'; use one of 'validation', 'test'"):
        split.requests("train")
    with pytest.raises(ConfigurationError, match=r"`behavior` is 'both'; use one of 'recommendation', 'search'"):
        split.targets("test", "both")
    with pytest.raises(ConfigurationError, match=r"`max_history` is -1"):
        split.requests("test", max_history=-1)


def test_requests_with_and_without_history():
    # All acts of u have one timestamp; v gives something to train on.
    split = split_log(log_of([("u", 1, item) for item in "ABC"] + [("v", 1, "A")]))
    assert split.requests("test")[0].history == ()
    assert split.train_rows.tolist() == [3]
    assert split.training_histories().values.tolist() == []


def test_describe_and_fingerprint():
    log = same_day_log()
    split = split_log(log)
    described = split.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["num_train_events"] == 8 and described["num_train_users"] == 2
    assert described["num_cases"]["test"] == {"recommendation": 2, "search": 2}
    assert split.fingerprint == split_log(log).fingerprint
    others = [split_log(log, protocol="paper"), split_log(log, seed=1), split_log(log, max_history=3)]
    assert len({split.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_save_and_load(tmp_path, protocol):
    split = split_log(same_day_log(), protocol=protocol, max_history=4, seed=7)
    split.save(tmp_path / "split")
    assert sorted(path.name for path in (tmp_path / "split").iterdir()) == [
        "log",
        "split.json",
        "test.parquet",
        "train_rows.parquet",
        "validation.parquet",
    ]
    loaded = Split.load(tmp_path / "split")
    assert loaded.describe() == split.describe()
    assert loaded.requests("test") == split.requests("test")
    assert loaded.training_histories().values.tolist() == split.training_histories().values.tolist()


def test_cases_may_be_none():
    nothing = np.empty(0, dtype=np.int64)
    empty = Cases([], [], [], [], nothing, Ragged.from_lists([]))
    assert len(Cases.from_table(empty.to_table())) == 0


def test_a_split_that_leaves_nothing_is_refused_before_training():
    # Each user wrote all reviews in one go: whatever is held out, nothing of the user is earlier.
    log = log_of([(f"u{user}", DAY * user, item) for user in range(9) for item in "ABCDE"])
    with pytest.raises(DataError, match="leaves none of 45 events to train on: .* Use method='last_days'"):
        split_log(log)
    # By days, those of other users are; no question has a history.
    split = split_log(log, method="last_days")
    assert len(split.train_rows) == 7 * 5
    # B again and C are held out, and with them every earlier B: what was shown is all that is left.
    acts = [("u", 1, "B"), ("u", 2, "C"), ("u", 3, "B")]
    with pytest.raises(DataError, match="leaves 1 events to train on, but all are impressions"):
        split_log(log_of([("u", 0, "A", None, "impression"), *acts]))


def test_empty_histories_are_said(caplog):
    log = log_of([(f"u{user}", DAY * user, item) for user in range(9) for item in "ABCDE"])
    split_log(log, method="last_days")
    # The fifth act of user 8 is the test of day 8, the first of user 7 the validation of day 7; 7 users' are trained.
    said = " ".join(record.message for record in caplog.records)
    assert "gives 1 of 1 validation questions an empty history" in said
    assert "gives 5 of 5 test questions an empty history" in said
    assert "gives 35 of 35 training targets an empty history" in said
    caplog.clear()
    split_log(log_of([("u", time, item) for time, item in enumerate("ABCDE")]))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_last_day_with_acts_is_the_validation_day():
    # Days 1, 2, 4 and 8: nothing happened on day 7.
    log = log_of([("u", day * DAY, item) for day, item in zip((1, 2, 4, 8), "ABCD", strict=True)])
    split = split_log(log, method="last_days")
    assert (split.train_rows.tolist(), split.targets("validation"), split.targets("test")) == ([0, 1], ["C"], ["D"])


def test_histories_are_cut_by_kind_as_if_cut_afterwards():
    lines = [("u", time, "ABCDEFGH"[time % 8], "q" if time % 3 == 0 else None) for time in range(24)]
    lines += [("v", time, "AB"[time % 2]) for time in range(6)]
    for protocol in ("strict", "paper"):
        split = split_log(log_of(lines), protocol=protocol)
        t = split.timeline
        whole = split.training_histories()
        found = split.training_histories(max_of_kind=[(~t.is_search, 2), (t.is_search, 1)])
        for number in range(len(whole)):
            history = whole[number]
            searched = t.is_search[history]
            expected = sorted([*history[~searched][-2:], *history[searched][-1:]], key=history.tolist().index)
            assert found[number].tolist() == expected


def test_chosen_requests_are_those_of_all():
    split = split_log(log_of([(user, time, "ABCDE"[time]) for user in "uvw" for time in range(5)]))
    requests = split.requests("test")
    assert split.requests("test", chosen=np.array([2, 0])) == [requests[2], requests[0]]
    assert split.requests("test", chosen=np.array([], dtype=np.int64)) == []


def test_what_load_refuses(tmp_path):
    log = same_day_log()
    split_log(log).save(tmp_path, include_log=False)
    assert Split.load(tmp_path, log=log).log is log
    with pytest.raises(DataError, match=r"contains no log\.json"):
        Split.load(tmp_path)
    other = log_of([("u", time, item) for time, item in enumerate("ABCDEFGHIJKLMNOPQRST")], name="other")
    with pytest.raises(DataError, match=r"has fingerprint \w{12} with log 'other', but split\.json says \w{12}"):
        Split.load(tmp_path, log=other)
    pq.write_table(pq.read_table(tmp_path / "train_rows.parquet").slice(1), tmp_path / "train_rows.parquet")
    with pytest.raises(DataError, match=r"a file was changed, or the log is a different one"):
        Split.load(tmp_path, log=log)
    described = json.loads((tmp_path / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps({**described, "version": 0}))
    with pytest.raises(DataError, match=r"split\.json has version 0, this package reads 1"):
        Split.load(tmp_path, log=log)
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(DataError, match=r"contains no test\.parquet: it is not a whole split, or"):
        Split.load(tmp_path, log=log)


def test_cases_refuse_columns_of_different_lengths():
    columns = {"user_id": ["u"], "behavior": ["recommendation"], "query": [None], "item_id": ["A"]}
    times, rows = np.zeros(1, np.int64), np.zeros(2, np.int64)
    with pytest.raises(DataError, match=r"differ in length \(`user_id` 1, .* `timestamp` 2"):
        Cases(**columns, timestamp=np.zeros(2, np.int64), histories=Ragged(rows, np.array([0, 2])))
    with pytest.raises(DataError, match=r"offsets of `histories` end at 3, its values are 2"):
        Cases(**columns, timestamp=times, histories=Ragged(rows, np.array([0, 3])))


LINES = st.lists(
    st.tuples(
        st.sampled_from("uv"),
        st.integers(0, 6),
        st.one_of(st.sampled_from("ABCDE"), st.none()),
        st.sampled_from([None, "find"]),
        st.sampled_from(["click", "click", "click", "impression"]),
    ).filter(lambda line: line[2] is not None or (line[3] is not None and line[4] == "click")),
    min_size=1,
    max_size=25,
)
ITEMS = list("ABCDE")


@settings(max_examples=60, deadline=None)
@given(LINES, st.one_of(st.none(), st.integers(1, 4)))
def test_strict_histories_equal_a_plain_loop(lines, max_history):
    log = log_of(lines, items=ITEMS)
    t = Timeline.from_log(log)
    events = log.events.to_pylist()
    usable = np.arange(0, len(events), 2)
    targets = np.arange(len(events))
    # A batch so small that every run of targets is cut.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline_module, "_ROWS_AT_A_TIME", 5)
        found = strict_histories(t, targets, usable, max_history)
    for row, target in enumerate(events):
        expected = [
            other
            for other in usable.tolist()
            if events[other]["user_id"] == target["user_id"]
            and events[other]["timestamp"] < target["timestamp"]
            and (target["item_id"] is None or events[other]["item_id"] != target["item_id"])
        ]
        assert found[row].tolist() == (expected if max_history is None else expected[-max_history:])


def paper_by_walking(events):
    """The walk of the released notebook over each user, in plain Python: (recommendations, searches) before each row.

    Events of a user are walked by time, recommendations in the order given (rating), then searches; what was counted
    at a position is written on the rows by position, and those are sorted by (time, item id).
    """
    users = defaultdict(list)
    for row, event in enumerate(events):
        if event["action"] != "impression":
            users[event["user_id"]].append(row)
    result = {}
    for rows in users.values():
        by_id = sorted(rows, key=lambda row: (events[row]["timestamp"], events[row]["item_id"] or ""))
        searches = [row for row in by_id if events[row]["query"] is not None]
        recommendations = [row for row in rows if events[row]["query"] is None]
        walk = sorted(recommendations + searches, key=lambda row: (events[row]["timestamp"], row in searches))
        seen_recommendations, seen_searches, counted = [], [], []
        for row in walk:
            if row in searches:
                repeats = (
                    seen_recommendations and events[seen_recommendations[-1]]["item_id"] == events[row]["item_id"]
                )
                result[row] = (seen_recommendations[: len(seen_recommendations) - bool(repeats)], list(seen_searches))
                seen_searches.append(row)
            else:
                counted.append((len(seen_recommendations), list(seen_searches)))
                seen_recommendations.append(row)
        written_on = [row for row in by_id if events[row]["query"] is None]
        for row, (count, before) in zip(written_on, counted, strict=True):
            result[row] = (recommendations[:count], before)
    return result


@settings(max_examples=60, deadline=None)
@given(LINES, st.integers(1, 4))
def test_paper_histories_equal_the_walk(lines, max_history):
    log = log_of(lines, items=ITEMS)
    t = Timeline.from_log(log)
    events = log.events.to_pylist()
    expected = paper_by_walking(events)
    targets = np.array(sorted(expected), dtype=np.int64)
    found = paper_histories(t, paper_order(log, t), targets, None)
    cut = paper_histories(t, paper_order(log, t), targets, max_history)
    for k, row in enumerate(targets.tolist()):
        recommendations, searches = expected[row]
        history = found[k].tolist()
        assert [r for r in history if events[r]["query"] is None] == recommendations
        assert [r for r in history if events[r]["query"] is not None] == searches
        assert cut[k].tolist() == history[-max_history:]
        times = [events[r]["timestamp"] for r in history]
        assert times == sorted(times)


def test_split_construction_tells_nothing_twice():
    lines = [(f"u{user}", time, item) for user in range(30) for time, item in enumerate("ABCDE")]
    log = synthesize_searches(log_of(lines, queries={item: [f"find {item}"] for item in "ABCDE"}))
    split = split_log(log)
    assert split.test.item_id == ["E"] * 60
    assert split.test.query == [None] * 30 + ["find E"] * 30
    assert len(split.train_rows) == 30 * 3


def test_times_that_are_days_are_said(caplog):
    # Both users act three times on their last day.
    split_log(same_day_log())
    (warning,) = [record.message for record in caplog.records if "times are whole days" in record.message]
    assert warning.startswith("same-day: times are whole days, and 2 of 2 users acted several times on their last day")
