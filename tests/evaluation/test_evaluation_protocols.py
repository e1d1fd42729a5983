# SPDX-License-Identifier: Apache-2.0
"""The cases of a toy split, counted by hand (see conftest.py)."""

from __future__ import annotations

import numpy as np
import pytest
from small_shop import log_of

from seekrec import split_log
from seekrec.errors import ConfigurationError, DataError, UnknownItemError
from seekrec.evaluation import protocols
from seekrec.evaluation.protocols import build_cases
from seekrec.events.columns import history_rows
from seekrec.schema import Event, IdMap, Request


def seen_ids(cases, id_map):
    return [sorted(id_map.convert_to_ids(cases.seen[case])) for case in range(len(cases))]


def test_full_cases(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map)
    assert cases.target_ids == ["d", "e"]
    assert cases.target_rows.tolist() == [3, 4]
    assert [request.query for request in cases.requests] == [None, None]
    assert seen_ids(cases, toy_id_map) == [["a", "b", "c"], ["a", "b", "c"]]
    assert cases.candidate_rows is None
    assert (cases.protocol, cases.seen_removed, cases.num_items) == ("full", True, 6)


def test_search_and_validation_cases(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, part="validation", behavior="search")
    assert cases.target_ids == ["c", "a"]
    assert [request.query for request in cases.requests] == ["red chair", "red lamp"]
    assert seen_ids(cases, toy_id_map) == [["a", "b"], ["b", "c"]]


def test_masks_and_hidden_scores_agree(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, part="validation")
    block = np.array([1, 0])  # out of order: u2 saw b and c, u1 saw a and b
    expected = [[True, False, False, True, True, True], [False, False, True, True, True, True]]
    assert [mask.tolist() for mask in cases.masks(block)] == expected
    scores = np.zeros((2, 6))
    cases.hide_ruled_out(scores, block)
    assert (np.isneginf(scores) == ~np.array(expected)).all()


def test_seen_items_can_be_kept(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, remove_seen=False)
    assert cases.masks(np.array([0, 1])) is None
    assert not cases.seen_removed
    scores = np.zeros((2, 6))
    cases.hide_ruled_out(scores, np.array([0, 1]))
    assert (scores == 0).all()


def test_items_not_available_cannot_be_answered(toy_split, toy_id_map):
    # Validation is asked at second 3: a is gone by then, f appears later; u2 looks for a, which stays for u2.
    begins = np.array([0, 0, 0, 3, 0, 4])
    ends = np.array([3, 9, 9, 4, 9, 9])
    cases = build_cases(toy_split, toy_id_map, part="validation", remove_seen=False, periods=(begins, ends))
    block = np.array([0, 1])
    expected = [[False, True, True, True, True, False], [True, True, True, True, True, False]]
    assert [mask.tolist() for mask in cases.masks(block)] == expected
    scores = np.zeros((2, 6))
    cases.hide_ruled_out(scores, block)
    assert (np.isneginf(scores) == ~np.array(expected)).all()
    assert cases.protocol == "full, available"
    every = build_cases(toy_split, toy_id_map, part="validation", remove_seen=False)
    assert cases.fingerprint != every.fingerprint


def test_availability_is_asked_in_full_ranking_alone(toy_split, toy_id_map):
    periods = (np.zeros(6, np.int64), np.full(6, 9))
    with pytest.raises(ConfigurationError, match="protocol 'uniform'"):
        build_cases(toy_split, toy_id_map, protocol="uniform", periods=periods)


def test_target_in_the_history_is_not_hidden(toy_split, toy_id_map, monkeypatch):
    # As protocol "paper" allows: a leak is measured, not covered up.
    leaking = [Request([Event("a"), Event("d")]), Request([Event("e"), Event("e"), Event("b")])]
    monkeypatch.setattr(type(toy_split), "requests", lambda *_, **__: leaking)
    assert seen_ids(build_cases(toy_split, toy_id_map), toy_id_map) == [["a"], ["b"]]


def test_history_rows_leave_out_what_was_not_acted_on():
    requests = [
        Request([Event("a"), Event(None, "search", query="x"), Event("b", action="impression"), Event("b")]),
        Request(),
        Request([Event("unknown"), Event("a")]),
    ]
    assert history_rows(requests, IdMap(["a", "b"])).to_lists() == [[0, 1], [], [0]]


def test_sampled_candidates(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, protocol="uniform", num_negatives=2, seed=1)
    # All but a, b, c (seen) and the target leaves two items for each user.
    candidates = [sorted(toy_id_map.convert_to_ids(row)) for row in cases.candidate_rows]
    assert candidates == [["d", "e", "f"], ["d", "e", "f"]]
    assert (cases.protocol, cases.seen_removed) == ("uniform-2", True)
    assert cases.seen.values.size == 0


def test_target_stands_anywhere_among_its_candidates(toy_id_map):
    targets = np.zeros(300, np.int64)
    table = protocols._candidates(targets, [["b", "c"], ["b"], []] * 100, toy_id_map, seed=0)
    assert (np.sort(table, axis=1)[0::3] == [0, 1, 2]).all()
    assert (np.sort(table, axis=1)[1::3] == [-1, 0, 1]).all()
    assert (table[2::3] == [0, -1, -1]).all()
    places = np.bincount(np.argmax(table[0::3] == 0, axis=1), minlength=3)
    assert (places > 20).all()  # 100 draws, 33 expected in each place


def test_target_among_the_negatives_is_refused(toy_id_map):
    with pytest.raises(DataError, match="negatives of case 1 hold its target 'b'"):
        protocols._candidates(np.array([0, 1]), [["c"], ["b"]], toy_id_map, seed=0)


def test_sample_of_cases_is_seeded_and_keeps_its_negatives(toy_split, toy_id_map, monkeypatch):
    requests = [Request(user_id=str(number)) for number in range(50)]
    monkeypatch.setattr(
        type(toy_split), "requests", lambda *_, chosen: [requests[number] for number in chosen.tolist()]
    )
    monkeypatch.setattr(type(toy_split), "targets", lambda *_: ["a"] * 50)
    monkeypatch.setattr(
        protocols, "sample_negatives", lambda *_, chosen, **__: [["bcdef"[case % 5]] for case in chosen.tolist()]
    )
    options = {"protocol": "uniform", "num_negatives": 1, "max_cases": 20}
    cases = build_cases(toy_split, toy_id_map, **options)
    assert len(cases) == 20
    assert (np.diff(cases.case_numbers) > 0).all()
    assert [request.user_id for request in cases.requests] == [str(number) for number in cases.case_numbers]
    negatives = np.max(cases.candidate_rows, axis=1)  # the target's row is 0
    assert (negatives == cases.case_numbers % 5 + 1).all()

    assert build_cases(toy_split, toy_id_map, **options).fingerprint == cases.fingerprint
    assert build_cases(toy_split, toy_id_map, **options, seed=1).fingerprint != cases.fingerprint
    assert len(build_cases(toy_split, toy_id_map, max_cases=1000)) == 50


def test_fingerprint_tells_settings_apart(toy_split, toy_id_map):
    settings = [
        {},
        {"remove_seen": False},
        {"part": "validation"},
        {"behavior": "search"},
        {"protocol": "uniform", "num_negatives": 1},
        {"protocol": "uniform", "num_negatives": 2},
        {"protocol": "popularity", "num_negatives": 1},
    ]
    fingerprints = [build_cases(toy_split, toy_id_map, **options).fingerprint for options in settings]
    assert len(set(fingerprints)) == len(settings)
    assert build_cases(toy_split, toy_id_map).fingerprint == fingerprints[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "train"}, "`part` is 'train'; use one of 'validation', 'test'"),
        ({"behavior": "browse"}, "`behavior` is 'browse'; use one of 'recommendation', 'search'"),
        ({"protocol": "hard"}, "`protocol` is 'hard'; use one of 'full', 'uniform', 'popularity', 'bm25'"),
        ({"max_cases": 0}, "`max_cases` is 0; use at least 1"),
    ],
)
def test_unknown_choices_are_refused(toy_split, toy_id_map, options, message):
    with pytest.raises(ConfigurationError, match=message):
        build_cases(toy_split, toy_id_map, **options)


def test_part_without_cases_is_refused(toy_split, toy_id_map, monkeypatch):
    monkeypatch.setattr(type(toy_split), "targets", lambda *_: [])
    with pytest.raises(DataError, match="test part of 'toy' contains no case of behavior 'search'"):
        build_cases(toy_split, toy_id_map, behavior="search")


def test_cases_that_cannot_be_drawn_are_left_out_and_counted(caplog):
    # User u acts on all of A to E but is asked for E; v leaves C and D to draw from.
    lines = [("u", time, item) for time, item in enumerate("ABCDE")] + [("v", time, "ABE"[time]) for time in range(3)]
    split = split_log(log_of(lines))
    id_map = IdMap(list("ABCDE"))
    cases = build_cases(split, id_map, protocol="uniform", num_negatives=2)
    assert [request.user_id for request in cases.requests] == ["v"]
    assert cases.case_numbers.tolist() == [1]
    assert "1 of 2 test cases of log small are left out: fewer than 2 items are left" in caplog.text
    with pytest.raises(
        DataError, match="`num_negatives` is 3, but no test case of log 'small' has that many items left"
    ):
        build_cases(split, id_map, protocol="uniform", num_negatives=3)


def test_catalogue_without_a_target_is_refused(toy_split):
    with pytest.raises(UnknownItemError, match="1 of 2 ids are unknown, the first is 'e'"):
        build_cases(toy_split, IdMap(["a", "b", "c", "d"]))
