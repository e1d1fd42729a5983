# SPDX-License-Identifier: Apache-2.0
"""Systems over the toy split: ranks by hand, exact against listed, and answers that break the rules."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from seekrec.errors import ConfigurationError, DataError, RequestError
from seekrec.evaluation import (
    Popularity,
    build_cases,
    evaluate_cases,
    evaluate_systems,
    protocols,
    rank_cases,
)
from seekrec.evaluation.metrics import DEFAULT_K
from seekrec.schema import IdMap, Request, ScoredItem
from seekrec.util.ragged import Ragged

INF = float("inf")


class ListsOfScorer:
    """A scorer behind the face of a retriever: what both are asked has the same ranks where no scores tie."""

    def __init__(self, scorer, id_map):
        self.scorer = scorer
        self.id_map = id_map
        self.behaviors = scorer.behaviors

    def retrieve(self, requests, *, top_k, where=None):
        scores = np.array(self.scorer.score_all(requests), dtype=np.float64)
        if where is not None:
            scores[~np.stack(list(where))] = -np.inf
        return [self._best(row, np.flatnonzero(~np.isneginf(row)))[:top_k] for row in scores]

    def rank(self, requests, candidates):
        scores = self.scorer.score_all(requests)
        return [
            self._best(row, self.id_map.convert_to_rows(items)) for row, items in zip(scores, candidates, strict=True)
        ]

    def _best(self, scores, rows):
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        return [
            ScoredItem(item, score)
            for item, score in zip(self.id_map.convert_to_ids(rows), scores[rows].tolist(), strict=True)
        ]


class Fixed:
    """Scores that do not depend on the request."""

    behaviors = ("recommendation", "search")

    def __init__(self, scores):
        self.scores = np.asarray(scores)
        self.sizes = []

    def score_all(self, requests):
        self.sizes.append(len(requests))
        return np.tile(self.scores, (len(requests), 1))


class Answers:
    """A retriever whose answers are given."""

    behaviors = ("recommendation",)

    def __init__(self, retrieved=None, ranked=None):
        self.retrieved, self.ranked = retrieved, ranked

    def retrieve(self, requests, *, top_k, where=None):
        return [[ScoredItem(*item) for item in self.retrieved]] * len(requests)

    def rank(self, requests, candidates):
        if self.ranked is not None:
            return [[ScoredItem(*item) for item in self.ranked]] * len(requests)
        return [[ScoredItem(item, -place) for place, item in enumerate(sorted(items))] for items in candidates]


def quiet(system, split, id_map, *, name=None, k=DEFAULT_K, top_k=50, **options):
    cases, name = build_cases(split, id_map, **options), name or type(system).__name__
    own = {"k": k, "top_k": top_k, "seed": options.get("seed", 0), "show_progress": False}
    (row,) = evaluate_cases({name: system}, cases, split, id_map, **own)
    return row


def test_popularity_by_hand(toy_split, toy_id_map):
    popularity = Popularity.fit(toy_split, toy_id_map)
    # Seen a, b, c are gone. f has 2 training events, d and e none: the target shares ranks 2 and 3.
    row = quiet(popularity, toy_split, toy_id_map)
    assert row.ranks.tolist() == [[2, 3], [2, 3]]
    assert row.metrics["recall@1"] == 0
    assert row.metrics["recall@5"] == 1
    assert row.metrics["ndcg@10"] == pytest.approx((1 / log2(3) + 1 / log2(4)) / 2)
    assert row.metrics["mrr@10"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    # With them, a 1, b 2, c 1 and f 2 stand above: ranks 5 and 6.
    kept = quiet(popularity, toy_split, toy_id_map, remove_seen=False)
    assert kept.ranks.tolist() == [[5, 6], [5, 6]]
    assert not kept.seen_removed


def test_row_says_what_was_measured(toy_split, toy_id_map):
    row = quiet(Fixed([6.0, 5, 4, 3, 2, 1]), toy_split, toy_id_map, name="fixed", k=(1, 2), behavior="search", seed=3)
    assert (row.system, row.dataset, row.behavior, row.part, row.protocol) == (
        "fixed",
        "toy",
        "search",
        "test",
        "full",
    )
    assert (row.split_method, row.split_protocol, row.query_source) == ("leave_one_out", "strict", "logged")
    assert row.split_fingerprint == toy_split.fingerprint
    assert (row.num_cases, row.num_items, row.seed, row.seen_removed) == (2, 6, 3, True)
    assert row.seconds >= 0
    # d is first of d, e, f; e is second.
    assert row.metrics["recall@1"] == 0.5
    assert row.metrics["ndcg@2"] == pytest.approx((1 + 1 / log2(3)) / 2)
    assert row.intervals["recall@1"] == (0, 1)
    assert row.intervals["recall@2"] == (1, 1)
    assert set(row.metrics) == set(row.intervals)


def test_integer_scores_and_blocks(toy_split, toy_id_map, monkeypatch):
    # Six items: at most 6 cells make blocks of one request.
    monkeypatch.setattr(protocols, "_MAX_BLOCK_CELLS", 6)
    system = Fixed([0, 0, 0, 1, 2, 3])
    assert quiet(system, toy_split, toy_id_map).ranks.tolist() == [[3, 3], [2, 2]]
    assert system.sizes == [1, 1]


def test_ranks_come_back_in_the_order_of_the_cases(toy_split, toy_id_map, monkeypatch):
    # Histories of different lengths are asked longest first.
    requests = toy_split.requests("test", "recommendation")
    long, short = requests[0], Request(requests[1].history[:1])
    monkeypatch.setattr(type(toy_split), "requests", lambda *_, **__: [short, long])
    asked = []

    class Recorder(Fixed):
        def score_all(self, requests):
            asked.extend(len(request.history) for request in requests)
            return super().score_all(requests)

    # Targets d and e with scores 0.1 and 0.9, nothing higher.
    row = quiet(Recorder([0, 0, 0, 0.1, 0.9, 0]), toy_split, toy_id_map)
    assert asked == [3, 1]
    assert row.ranks.tolist() == [[2, 2], [1, 1]]


def test_exact_and_listed_ranks_agree():
    """Random scores over random cases: within the list, a retriever gets the rank that its scorer gets."""
    num_items, num_cases = 40, 30
    generator = np.random.default_rng(5)
    ids = [f"i{number}" for number in range(num_items)]
    id_map = IdMap(ids)
    table = generator.permuted(np.tile(np.arange(num_items, dtype=np.float64), (num_cases, 1)), axis=1)

    class ByUser(Fixed):
        def __init__(self):
            pass

        def score_all(self, requests):
            return table[[int(request.user_id) for request in requests]]

    cases = _random_cases(id_map, num_cases, generator)
    scorer, retriever = ByUser(), ListsOfScorer(ByUser(), id_map)
    exact = rank_cases(scorer, cases, id_map, show_progress=False)
    for top_k in (5, num_items):
        listed = rank_cases(retriever, cases, id_map, top_k=top_k, show_progress=False)
        assert (listed == np.where(exact <= top_k, exact, INF)).all()


def _random_cases(id_map, num_cases, generator):
    from seekrec.evaluation import EvaluationCases

    targets = generator.integers(0, len(id_map), num_cases)
    seen = [np.setdiff1d(generator.integers(0, len(id_map), 5), [target]) for target in targets]
    return EvaluationCases(
        requests=[Request(user_id=str(number)) for number in range(num_cases)],
        target_ids=id_map.convert_to_ids(targets),
        target_rows=targets,
        case_numbers=np.arange(num_cases),
        seen=Ragged.from_lists(seen, np.int64),
        candidate_rows=None,
        num_items=len(id_map),
        behavior="recommendation",
        part="test",
        protocol="full",
        seen_removed=True,
        seed=0,
    )


@pytest.mark.parametrize("protocol", ["uniform", "popularity", "bm25"])
def test_sampled_candidates_by_hand(toy_split, toy_id_map, protocol):
    # Candidates are d, e, f for both users (popularity can draw f only, so one negative there).
    num_negatives = 2 if protocol == "uniform" else 1
    scores = np.array([9.0, 9, 9, 1, 2, 3])
    row = quiet(Fixed(scores), toy_split, toy_id_map, protocol=protocol, num_negatives=num_negatives)
    assert row.protocol == f"{protocol}-{num_negatives}"
    retriever = ListsOfScorer(Fixed(scores), toy_id_map)
    listed = quiet(retriever, toy_split, toy_id_map, protocol=protocol, num_negatives=num_negatives)
    assert listed.ranks.tolist() == row.ranks.tolist()
    assert listed.cases_fingerprint == row.cases_fingerprint
    if protocol == "uniform":
        assert row.ranks.tolist() == [[3, 3], [2, 2]]
    elif protocol == "popularity":
        assert row.ranks.tolist() == [[2, 2], [2, 2]]


def test_constant_scores_may_have_any_rank(toy_split, toy_id_map):
    row = quiet(Fixed(np.zeros(6)), toy_split, toy_id_map, protocol="uniform", num_negatives=2)
    assert row.ranks.tolist() == [[1, 3], [1, 3]]
    assert row.metrics["recall@1"] == pytest.approx(1 / 3)


def test_retriever_misses_and_ties(toy_split, toy_id_map):
    row = quiet(Answers([("f", 2.0), ("d", 1.0)]), toy_split, toy_id_map)
    assert row.ranks.tolist() == [[2, 2], [INF, INF]]
    tied = quiet(Answers([("f", 1.0), ("d", 1.0), ("e", 1.0)]), toy_split, toy_id_map)
    assert tied.ranks.tolist() == [[1, 3], [1, 3]]
    empty = quiet(Answers([]), toy_split, toy_id_map)
    assert empty.metrics["recall@20"] == 0


def test_retriever_ranks_all_candidates(toy_split, toy_id_map):
    # Answers in the order of the ids: d before e before f.
    row = quiet(Answers(), toy_split, toy_id_map, protocol="uniform", num_negatives=2)
    assert row.ranks.tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("retrieved", "message"),
    [
        ([("d", 2.0), ("d", 1.0)], "System 'bad', recommendation, full: An answer contains the item 'd' twice"),
        ([("d", 1.0), ("e", 2.0)], "not in descending order"),
        ([("x", 1.0)], "`retrieve` returned 'x', which is not in the catalogue"),
        ([("d", 2.0), ("a", 1.0)], "`retrieve` returned 'a', which is not in the catalogue or excluded by `where`"),
    ],
)
def test_lists_that_break_the_rules_are_refused(toy_split, toy_id_map, retrieved, message):
    with pytest.raises(DataError, match=message):
        quiet(Answers(retrieved), toy_split, toy_id_map, name="bad")


def test_list_longer_than_asked_is_refused(toy_split, toy_id_map):
    with pytest.raises(DataError, match="asked for 2 items and returned 3"):
        quiet(Answers([("d", 3.0), ("e", 2.0), ("f", 1.0)]), toy_split, toy_id_map, k=(1,), top_k=2)


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        ([("d", 2.0), ("f", 1.0)], r"got 3 candidates and returned 2; they differ in \['e'\]"),
        ([("d", 2.0), ("e", 1.0), ("a", 0.0)], r"they differ in \['a', 'f'\]"),
        ([("d", 2.0), ("e", 1.0), ("f", 0.0), ("f", 0.0)], "they differ in how often an item occurs"),
    ],
)
def test_rankings_that_break_the_rules_are_refused(toy_split, toy_id_map, ranked, message):
    with pytest.raises(DataError, match=message):
        quiet(Answers(ranked=ranked), toy_split, toy_id_map, protocol="uniform", num_negatives=2)


def test_missing_answers_are_refused(toy_split, toy_id_map):
    class Lazy(Answers):
        def retrieve(self, requests, *, top_k, where=None):
            return []

    with pytest.raises(DataError, match="2 requests got 0 answers"):
        quiet(Lazy(), toy_split, toy_id_map)


def test_scores_of_the_wrong_shape_are_refused(toy_split, toy_id_map):
    with pytest.raises(DataError, match=r"System 'Fixed', .*shape \(2, 5\); expected \(2, 6\)"):
        quiet(Fixed(np.zeros(5)), toy_split, toy_id_map)


def test_nan_scores_are_refused(toy_split, toy_id_map):
    with pytest.raises(DataError, match="System 'Fixed', recommendation, full: The score of item column 5"):
        quiet(Fixed([0, 0, 0, 0, 0, np.nan]), toy_split, toy_id_map)


def test_short_lists_are_refused(toy_split, toy_id_map):
    with pytest.raises(ConfigurationError, match=r"`top_k` is 5 and `k` is \(1, 10\)"):
        quiet(Answers([]), toy_split, toy_id_map, k=(1, 10), top_k=5)


def test_unsupported_behavior_is_refused(toy_split, toy_id_map):
    with pytest.raises(RequestError, match="System 'Answers' answers recommendation, not search"):
        quiet(Answers([]), toy_split, toy_id_map, behavior="search")


def test_something_else_is_refused(toy_split, toy_id_map):
    with pytest.raises(ConfigurationError, match="System 'object' of type object has neither `behaviors` and"):
        quiet(object(), toy_split, toy_id_map)
    with pytest.raises(ConfigurationError, match="System 'thing' of type object"):
        evaluate_systems({"thing": object()}, toy_split, toy_id_map)


def test_several_systems_share_their_cases(toy_split, toy_id_map):
    systems = {
        "popularity": Popularity.fit(toy_split, toy_id_map),
        "list": Answers([]),
        "fixed": Fixed(np.zeros(6)),
    }
    rows = evaluate_systems(
        systems, toy_split, toy_id_map, protocols=("full", "uniform"), num_negatives=2, max_cases=1
    )
    assert [(row.behavior, row.protocol, row.system) for row in rows] == [
        ("recommendation", "full", "popularity"),
        ("recommendation", "full", "list"),
        ("recommendation", "full", "fixed"),
        ("recommendation", "uniform-2", "popularity"),
        ("recommendation", "uniform-2", "list"),
        ("recommendation", "uniform-2", "fixed"),
        ("search", "full", "popularity"),  # the list answers no searches
        ("search", "full", "fixed"),
        ("search", "uniform-2", "popularity"),
        ("search", "uniform-2", "fixed"),
    ]
    assert len({row.cases_fingerprint for row in rows}) == 4
    assert {row.num_cases for row in rows} == {1}


def test_behavior_without_cases_is_skipped(toy_split, toy_id_map, monkeypatch):
    targets = type(toy_split).targets
    monkeypatch.setattr(type(toy_split), "targets", lambda *a: [] if "search" in a else targets(*a))
    rows = evaluate_systems({"fixed": Fixed(np.zeros(6))}, toy_split, toy_id_map, show_progress=False)
    assert [row.behavior for row in rows] == ["recommendation"]
    with pytest.raises(DataError, match="test part of 'toy' contains no case of search"):
        evaluate_systems({}, toy_split, toy_id_map, behaviors=("search",))
