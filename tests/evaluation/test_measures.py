# SPDX-License-Identifier: Apache-2.0
"""Measures of lists and groups of cases, by hand on the toy log of `conftest.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seekrec.evaluation import build_cases, compare_query_forms, evaluate_cases, form_losses, format_table
from seekrec.evaluation.baselines import Popularity
from seekrec.evaluation.conditions import QUERY_FORMS, RARER_FORMS
from seekrec.evaluation.measures import CaseTraits, case_groups, group_rows, list_measures, measure_rows, top_items
from seekrec.events.query_log import QueryLog
from seekrec.schema import BEHAVIORS, Event, Request, ScoredItem


def test_measures_of_lists_by_hand():
    # Items 0-3 were acted on 7, 1, 1 and 3 times: 12 in all. Percentiles (ties by half): .875, .25, .25, .625.
    counts = np.array([7, 1, 1, 3])
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], dtype=np.float32)
    lists = np.array([[0, 1], [0, 2], [0, -1], [-1, -1]])
    values, intervals = list_measures(lists, np.array([1, 3, 0, 2]), counts, vectors)
    # Item 3 stands in no list.
    assert values["coverage@2"] == 3 / 4
    # -log2((count + 1) / (12 + 4)): 1 bit for item 0, 3 bits for items 1 and 2; the last case has no list.
    assert values["novelty@2"] == pytest.approx(((1 + 3) / 2 + (1 + 3) / 2 + 1) / 3)
    # Cosines 0 and 1 of the two lists with a pair.
    assert values["diversity@2"] == pytest.approx((1 + 0) / 2)
    first = (0.875 + 0.25) / 2
    assert values["popularity@2"] == pytest.approx((2 * first + 0.875) / 3)
    assert values["popularity_bias@2"] == pytest.approx((first - 0.25 + first - 0.625 + 0.875 - 0.875) / 3)
    for name, value in values.items():
        assert intervals[name].low <= value <= intervals[name].high
    assert list_measures(lists, np.array([1, 3, 0, 2]), counts, vectors)[1] == intervals


def test_a_longer_list_is_as_diverse_as_its_pairs():
    vectors = np.random.default_rng(0).normal(size=(9, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = np.array([[3, 1, 4, 0], [5, 8, 2, -1]])
    expected = []
    for rows in ([3, 1, 4, 0], [5, 8, 2]):
        cosines = [vectors[a] @ vectors[b] for place, a in enumerate(rows) for b in rows[:place]]
        expected.append(1 - np.mean(cosines))
    values, _ = list_measures(lists, np.array([0, 1]), np.ones(9), vectors)
    assert values["diversity@4"] == pytest.approx(np.mean(expected))


def test_lists_of_scorers_and_retrievers_leave_out_what_was_seen(toy_split, toy_id_map):
    """u1 has seen a b c, u2 b c a; the counts of training are a 1, b 2, c 1, f 2."""
    cases = build_cases(toy_split, toy_id_map)
    popularity = Popularity.fit(toy_split, toy_id_map)
    assert top_items(popularity, cases, toy_id_map, length=4).tolist() == [[5, 3, 4, -1]] * 2

    class Lister:
        behaviors = BEHAVIORS

        def retrieve(self, requests, *, top_k, where):
            return [[ScoredItem("f", 1.0), ScoredItem("e", 0.5)][: 2 - number] for number in range(len(requests))]

        def rank(self, requests, candidates):
            raise NotImplementedError

    assert top_items(Lister(), cases, toy_id_map, length=3).tolist() == [[5, 4, -1], [5, -1, -1]]


def test_groups_of_cases_by_hand(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, behavior="search")
    history = [Event(item) for item in "abcdef"]
    asked = ["red lamp", "blue", "chairs", "chair", "red", "hose"]
    requests = [Request(history[:number], query=query) for number, query in enumerate(asked)]
    cases = replace(cases, requests=requests, target_rows=np.array([0, 1, 2, 3, 4, 5]))
    query_log = QueryLog.count(["chair", "blue"], np.array([0, 1]), np.array([2, 2]), num_items=6)
    groups = case_groups(CaseTraits.of(cases, toy_id_map, query_log), np.array([1, 9, 5, 0, 6, 0]))
    # Lengths 0 to 5: a third has up to 1, a third above 3.
    assert {name: np.flatnonzero(mask).tolist() for name, mask in groups.items()} == {
        "histories up to 1": [0, 1],
        "histories above 3": [4, 5],
        "items never seen": [3, 5],
        "items seen 1 to 5 times": [0, 2],
        "items seen above 5 times": [1, 4],
        "first-time queries": [0, 4, 5],
        "repeated queries": [1, 2, 3],
    }


def test_rows_of_groups_hold_the_ranks_of_their_cases_and_the_table_shows_the_lists(toy_split, toy_id_map):
    popularity = Popularity.fit(toy_split, toy_id_map)
    cases = build_cases(toy_split, toy_id_map)
    (row,) = evaluate_cases({"popularity": popularity}, cases, toy_split, toy_id_map, show_progress=False)
    (cut,) = group_rows([row], {"second": np.array([False, True])})
    assert cut.protocol == "full, second" and cut.num_cases == 1 and cut.cases_fingerprint != row.cases_fingerprint
    # d and e tie behind f: ranks 2 and 3.
    assert cut.ranks.tolist() == [[2, 3]] and cut.metrics["recall@5"] == 1.0
    assert "coverage" not in format_table([row])
    vectors = np.eye(6, dtype=np.float32)
    groups = measure_rows(
        [row], {"popularity": popularity}, cases, toy_id_map, counts=popularity.counts, vectors=vectors
    )
    assert groups == []  # both targets were never seen, after histories of one length
    # Both lists are f d e.
    assert row.metrics["coverage@10"] == 0.5 and row.metrics["diversity@10"] == 1.0
    table = format_table([row]).splitlines()
    assert table[-3].split() == [
        "system", "coverage@10", "novelty@10", "diversity@10", "popularity@10", "popularity_bias@10"
    ]  # fmt: skip
    assert table[-1].startswith("popularity  0.5000 (0.5000 to 0.5000)")


def test_rarer_forms_are_asked_where_they_change_a_query(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, behavior="search")
    assert [request.query for request in cases.requests] == ["green chairs", "blue"]
    assert RARER_FORMS["swapped words"]("green chairs", 0) == "chairs green"
    swaps = {RARER_FORMS["swapped words"]("a b c", seed) for seed in range(20)}
    assert swaps == {"b a c", "a c b"}
    assert RARER_FORMS["no accents"]("Crème brûlée 日本", 0) == "Creme brulee 日本"

    class Exact:
        behaviors = ("search",)

        def score_all(self, requests):
            return np.array([np.arange(6.0) if request.query in ("green chairs", "blue") else -np.arange(6.0)
                             for request in requests])  # fmt: skip

    rows = compare_query_forms(
        {"exact": Exact()}, toy_split, toy_id_map, cases, forms={**QUERY_FORMS, **RARER_FORMS}, show_progress=False
    )
    assert [row.system.removeprefix("exact, ") for row in rows] == [*QUERY_FORMS, "swapped words"]
    losses = form_losses(rows)
    assert [loss.system_a for loss in losses] == [
        f"exact, {form}" for form in (*list(QUERY_FORMS)[1:], "swapped words")
    ]
    # As typed: d behind e and f at 3, e behind f at 2. Swapped: d of the first case leads (a b c are ruled out).
    typed, swapped = (1 / 2 + 1 / np.log2(3)) / 2, (1 + 1 / np.log2(3)) / 2
    assert losses[-1].difference == pytest.approx(swapped - typed)
