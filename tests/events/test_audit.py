# SPDX-License-Identifier: Apache-2.0
"""The audit: counts derived by hand on splits with known leaks, and zero on every strict split."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_day import same_day_log
from small_shop import log_of

from seekrec.errors import DataError, LeakageError
from seekrec.events.audit import audit
from seekrec.events.cases import Cases
from seekrec.events.splits import split_log
from seekrec.util.ragged import Ragged

COUNTS = ("in_own_history", "pair_trained", "pair_trained_in_other_task", "history_not_before", "training_not_before")


def counts(part):
    return {name: getattr(part, name) for name in COUNTS if getattr(part, name)}


def test_same_day_reviews_in_rating_order():
    log = same_day_log()
    strict = audit(split_log(log))
    assert strict.num_leaks == 0
    # Two users; two targets each in training: P and Q, told twice.
    assert [part.num_targets for part in strict.parts] == [4, 4, 8]

    # By hand; histories are given by their recommendations, derived in test_splits.py.
    # Test targets are C. User 1 has C in the histories of its recommendation (P Q C A) and search (P Q C A B), user 0
    # in neither (P Q A B twice). All four histories hold events of C's own day.
    # Validation targets are B. User 0: recommendation P Q A, search P Q A B C. User 1: recommendation P Q C, search
    # P Q C A. One holds B; all hold events of its day.
    # Training targets are Q and A, each in both tasks (P follows nothing). A's searches have the whole day in their
    # histories, A among it: 2. Thereby recommendations of B and C are used in training: all pairs are trained, those
    # of the searches in the other task, and on the day of the targets.
    paper = audit(split_log(log, protocol="paper"))
    assert counts(paper.test) == {
        "in_own_history": 2,
        "pair_trained": 4,
        "pair_trained_in_other_task": 2,
        "history_not_before": 4,
        "training_not_before": 4,
    }
    assert counts(paper.validation) == {
        "in_own_history": 1,
        "pair_trained": 4,
        "pair_trained_in_other_task": 2,
        "history_not_before": 4,
        "training_not_before": 4,
    }
    assert paper.training.num_targets == 8
    assert counts(paper.training) == {"in_own_history": 2, "history_not_before": 2}


def test_cross_task_copies_stay_in_the_training_of_the_paper_protocol():
    # Searches are a subset of the recommendations, as in the Amazon data: A to F recommended, B to E searched as well.
    lines = []
    for time, item in enumerate("XABCDEF"):
        lines.append(("u", time, item))
        if item in "XBCDE":
            lines.append(("u", time, item, f"find {item}"))
    log = log_of(lines, query_source="category")
    report = audit(split_log(log, protocol="paper"))
    # Recommendations hold out F and E, searches E and D. D's search is asked in validation while D's recommendation is
    # trained; E's recommendation (validation) and search (test) are out of both tasks and in no earlier history.
    assert report.validation.num_targets == report.test.num_targets == 2
    assert counts(report.validation) == {"pair_trained": 1, "pair_trained_in_other_task": 1, "training_not_before": 1}
    assert counts(report.test) == {}
    assert audit(split_log(log)).num_leaks == 0


def leaking_split():
    """A strict split of one user (validation D at 4, test E at 5) for the tests below to spoil."""
    return split_log(log_of([("u", time, item) for time, item in enumerate("ABCDE", start=1)], name="spoilt"))


def with_history(split, rows):
    cases = split.test
    return replace(
        split,
        test=Cases(
            cases.user_id,
            cases.behavior,
            cases.query,
            cases.item_id,
            cases.timestamp,
            Ragged.from_lists([rows], np.int64),
        ),
    )


def test_each_leak_is_counted_where_it_is():
    split = leaking_split()
    # The target's own row: it is in the history, and not before the target.
    assert counts(audit(with_history(split, [0, 4])).test) == {"in_own_history": 1, "history_not_before": 1}
    # All rows trained: both pairs. D, the last but one, is not after E but after itself.
    report = audit(replace(split, train_rows=np.arange(5)))
    assert counts(report.test) == {"pair_trained": 1, "training_not_before": 1}
    assert counts(report.validation) == {"pair_trained": 1, "training_not_before": 1}
    assert counts(report.training) == {}
    # An earlier D in training: the pair is trained, though long before.
    again = split_log(log_of([("u", 0, "D"), *(("u", time, item) for time, item in enumerate("ABCDE", start=1))]))
    assert 0 not in again.train_rows
    spoilt = audit(replace(again, train_rows=np.append(0, again.train_rows)))
    assert counts(spoilt.validation) == {"pair_trained": 1} and counts(spoilt.test) == {}


def test_a_trained_search_is_another_task_for_a_recommendation():
    lines = [("u", 1, "A"), ("u", 2, "B"), ("u", 3, "C"), ("u", 0, "C", "find c")]
    split = split_log(log_of(lines))
    leaky = replace(split, train_rows=np.array([0, 1]))  # the search of C stands first
    assert counts(audit(leaky).test) == {"pair_trained": 1, "pair_trained_in_other_task": 1}


def test_strict_building_raises_on_a_leak(monkeypatch):
    spoilt = audit(with_history(leaking_split(), [4]))
    with pytest.raises(
        LeakageError,
        match=r"of log .spoilt. \(method .leave_one_out., protocol .strict.\) leaks answers: in_own_history 1 "
        r"of 1 \(test\), history_not_before 1 of 1 \(test\)\. Build it with split_log\(protocol='strict'\)",
    ):
        spoilt.raise_if_leaking()

    # A builder with a mistake, here one that keeps every row for training, is caught by split_log itself.
    from seekrec.events import splits

    right = splits.hold_out_last

    def wrong(timeline, **options):
        return replace(right(timeline, **options), train_rows=np.arange(len(timeline.user)))

    monkeypatch.setattr(splits, "hold_out_last", wrong)
    with pytest.raises(LeakageError, match=r"pair_trained 1 of 1 \(validation\), training_not_before 1 of 1"):
        leaking_split()
    assert issubclass(LeakageError, DataError)


def test_report_as_a_table_and_as_numbers():
    report = audit(with_history(leaking_split(), [0, 4]))
    assert json.loads(json.dumps(report.to_dict()))["test"]["in_own_history"] == 1
    lines = str(report).splitlines()
    assert lines[0] == "Leaks in spoilt (leave_one_out, strict): 2"
    assert lines[1].split("  ")[0].strip() == "part" and lines[1].endswith("training at or after")
    assert lines[3].split() == ["test", "1", "1", "0", "0", "1", "0"]
    assert lines[4].split() == ["training", "3", "0", "-", "-", "0", "-"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_a_large_training_set_is_sampled():
    # Targets at rows 0..9 have at most 0 + 1 + ... + 9 = 45 history rows.
    split = split_log(log_of([("u", time, f"i{time}") for time in range(12)]))
    report = audit(split, max_history_rows=20)
    assert report.num_training_targets == 10 and 0 < report.training.num_targets < 10
    assert str(report).endswith(f"a sample of {report.training.num_targets} of 10 targets")
    paper = audit(split_log(split.log, protocol="paper"), max_history_rows=20)
    assert str(paper).endswith("targets; trained pairs are lower bounds")
    assert audit(split, max_history_rows=45).training.num_targets == 10
    assert audit(split_log(split.log, max_history=2), max_history_rows=20).training.num_targets == 10


@st.composite
def logs(draw):
    lines = draw(
        st.lists(
            st.tuples(
                st.sampled_from("uvw"),
                st.integers(0, 5).map(lambda day: day * 43_200),
                st.one_of(st.sampled_from("ABCDE"), st.none()),
                st.sampled_from([None, "find", "look"]),
                st.sampled_from(["click", "click", "click", "impression"]),
            ).filter(lambda line: line[2] is not None or (line[3] is not None and line[4] == "click")),
            min_size=1,
            max_size=30,
        )
    )
    if draw(st.booleans()):  # as the copy construction
        lines = [line for first in lines for line in ((*first[:3], None, first[4]), first) if line[2] is not None]
    source = ("none",) if all(line[3] is None for line in lines) else ("logged", "category")
    if not lines:
        lines, source = [("u", 0, "A")], ("none",)
    return log_of(
        lines,
        items=list("ABCDE"),
        queries={item: [f"one {item}", f"two {item}"] for item in "ABCD"},
        query_source=draw(st.sampled_from(source)),
    )


@settings(max_examples=150, deadline=None)
@given(
    logs(),
    st.sampled_from(["leave_one_out", "last_days"]),
    st.one_of(st.none(), st.integers(1, 3)),
    st.booleans(),
)
def test_no_strict_split_leaks(log, method, max_history, keep_impressions):
    try:
        split = split_log(log, method=method, max_history=max_history, keep_impressions=keep_impressions)
    except DataError as error:
        assert not isinstance(error, LeakageError)
        return
    report = audit(split)
    assert report.num_leaks == 0 and counts(report.test) == counts(report.validation) == counts(report.training) == {}
    # The same by a plain loop over the questions, as a model would see them.
    trained = split.train_events().to_pylist()
    for part in ("validation", "test"):
        for request, target in zip(split.requests(part), split.targets(part), strict=True):
            assert all(e.item_id != target and e.timestamp < request.timestamp for e in request.history)
            own = [event for event in trained if event["user_id"] == request.user_id]
            assert all(event["item_id"] != target and event["timestamp"] < request.timestamp for event in own)
