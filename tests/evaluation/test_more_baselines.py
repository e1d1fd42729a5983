# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from fixed_scores import Fixed, split_shop
from scipy.sparse import csr_array
from small_shop import log_of

from seekrec.embeddings import ItemNeighbors, NeighborTables
from seekrec.evaluation.ceilings import DrawCorrection, QueryGroup, count_draws
from seekrec.evaluation.evaluator import evaluate_cases
from seekrec.evaluation.item_knn import ItemKNN
from seekrec.evaluation.more_baselines import CEILING, QueryLogScorer, RankFusion, more_baseline_systems
from seekrec.evaluation.protocols import build_cases
from seekrec.evaluation.tuning import Tuning, for_protocol
from seekrec.events.query_log import QueryLog
from seekrec.events.splits import split_log
from seekrec.schema import Event, IdMap, Request

IDS = IdMap("abcd")


def test_query_log_answers_each_search_by_its_query():
    log = QueryLog.count(["red"], np.zeros(3, int), np.array([1, 1, 3]), num_items=4)
    scores = QueryLogScorer(log).score_all([Request(query="red"), Request(query="blue"), Request(query="red")])
    # (2 + 2/3) / (3 + 1) and (1 + 1/3) / 4
    np.testing.assert_allclose(scores, [[0, 2 / 3, 0, 1 / 3], [0] * 4, [0, 2 / 3, 0, 1 / 3]], rtol=1e-6)


def test_ranks_are_fused_by_their_reciprocals_and_unmatched_items_are_in_no_list():
    fusion = RankFusion(
        {"words": Fixed([0, 5, 2, 2], ("search",)), "dense": Fixed([-0.5, 0.1, 0.1, -0.9])}, lists_all=("dense",)
    )
    assert fusion.behaviors == ("search",)
    # Of words: b first, c and d share ranks 2 and 3; of dense: b and c share 1 and 2, then a, then d.
    expected = [1 / 63, 1 / 61 + 1 / 61.5, 1 / 62.5 + 1 / 61.5, 1 / 62.5 + 1 / 64]
    np.testing.assert_allclose(fusion.score_all([Request(query="x")])[0], expected, rtol=1e-6)


def test_a_list_ends_at_its_depth_with_whatever_ties_there():
    fusion = RankFusion({"dense": Fixed([0.5, 0.1, 0.1, -0.9])}, lists_all=("dense",), depth=2)
    np.testing.assert_allclose(fusion.score_all([Request()])[0], [1 / 61, 1 / 62.5, 1 / 62.5, 0], rtol=1e-6)


def test_an_item_that_may_not_be_answered_is_in_no_list():
    fusion = RankFusion({"dense": Fixed([0.5, float("-inf"), 0.1, float("-inf")])}, lists_all=("dense",))
    np.testing.assert_allclose(fusion.score_all([Request()])[0], [1 / 61, 0, 1 / 62, 0], rtol=1e-6)


def test_neighbours_of_later_items_weigh_more_and_an_item_counts_once():
    similar = csr_array(np.array([[0, 0.5, 0, 0], [0.5, 0, 0.25, 0], [0, 0.25, 0, 0], [0, 0, 0, 0]], np.float32))
    history = [Event(item) for item in "abab"]
    knn = ItemKNN(ItemNeighbors(similar, decay=0.5), IDS)
    # b is the last (weight 1), a the one before (weight 1/2).
    sums = np.array([[0.5, 0.25, 0.25, 0], [0] * 4])
    expected = np.log(sums / 0.5 + 0.001)
    np.testing.assert_allclose(knn.score_all([Request(history), Request()]), expected, atol=1e-6)


def test_a_query_group_is_the_items_the_query_was_made_for():
    items = pa.table({"item_id": ["b", "a", "z"], "queries": [["red", "lamp", "red"], ["red"], ["blue"]]})
    group = QueryGroup.of_items(items, IDS)
    scores = group.score_all([Request(query=query) for query in ("red", "lamp", "blue", "green", "red")])
    assert scores.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0] * 4, [0] * 4, [1, 1, 0, 0]]


def test_draws_of_negatives_leave_the_targets_out():
    candidates = np.array([[0, 1, 2], [1, 3, -1], [2, 1, 0]])
    assert count_draws(candidates, np.array([0, 3, 0]), 5).tolist() == [0, 3, 2, 0, 0]


def test_a_correction_takes_off_the_logarithm_of_the_draws():
    corrected = DrawCorrection(Fixed([3, 3, 3, 3]), {"search": np.array([0, 1, 3, 7])}, {"search": 2.0})
    assert corrected.behaviors == ("search",)
    # log(1 + 1), log(1 + 3), log(1 + 7)
    expected = 3 - 2 * np.log([1, 2, 4, 8])
    np.testing.assert_allclose(corrected.score_all([Request(query="x")])[0], expected, rtol=1e-6)


@pytest.fixture
def shop_split():
    return split_shop(5, lambda user, step: (user + step * 3) % 10)


def test_rivals_stand_beside_the_baselines_and_say_what_validation_chose(shop_split):
    id_map = IdMap(shop_split.log.items["item_id"].to_pylist())
    uniform = Fixed(np.arange(10.0))
    baselines = {"SASRec": uniform, "BM25": Fixed([1] * 10, ("search",)), "dense text": uniform}
    names = ["query_log", "rank_fusion", "item_knn", "sampled_sasrec", "query_group", "negative_draws"]
    found = more_baseline_systems(
        names,
        Tuning(shop_split, id_map, num_negatives=3),
        baselines,
        train_sampled=lambda: Fixed(-np.arange(10.0)),
        count_neighbors=lambda: NeighborTables.fit([shop_split], id_map),
    )
    assert list(found) == [
        "item-kNN",
        "item-kNN x SASRec",
        "sequential item-kNN",
        "sequential item-kNN x SASRec",
        "query log",
        "query log x SASRec",
        "query log x item-kNN",
        "query log x sequential item-kNN",
        "BM25 + dense by rank",
        "BM25 + dense by rank x SASRec",
        "BM25 + dense by rank x item-kNN",
        "BM25 + dense by rank x sequential item-kNN",
        "SASRec, sampled softmax",
        "exact query group x SASRec",
        "SASRec less draws",
        "exact query group x SASRec less draws",
    ]
    assert found["query log x SASRec"].details["text"].startswith("query log, smoothing")
    assert {"decay", "num_neighbours"} == set(found["item-kNN"].details)
    # No more than two items stand in a group of the ceiling before others, so the target is among them.
    searches = build_cases(shop_split, id_map, behavior="search")
    (ceiling,) = evaluate_cases({CEILING: found[CEILING]}, searches, shop_split, id_map, show_progress=False)
    assert ceiling.metrics["recall@5"] == 1.0
    corrected = found["SASRec less draws"]
    cases = build_cases(
        shop_split, id_map, part="validation", behavior="search", protocol="bm25", num_negatives=3, max_cases=2000
    )
    draws = count_draws(cases.candidate_rows, cases.target_rows, 10)
    weight = corrected.details["weights"]["search"]
    np.testing.assert_allclose(
        corrected.score_all([Request(query="lamp")])[0], np.arange(10) - weight * np.log1p(draws), rtol=1e-5
    )


def test_a_log_without_searches_has_no_rivals_of_searches(shop_split):
    rows = [("u1", step, item, None) for step, item in enumerate("abcd")]
    split = split_log(log_of(rows, items=list("abcd")))
    baselines = {"SASRec": Fixed([1, 2, 3, 4])}
    names = ["query_log", "query_group", "item_knn"]
    tables = NeighborTables.fit([split], IDS)
    found = more_baseline_systems(names, Tuning(split, IDS), baselines, count_neighbors=lambda: tables)
    assert list(found) == [
        *("item-kNN", "item-kNN x SASRec"),
        *("sequential item-kNN", "sequential item-kNN x SASRec"),
    ]


@pytest.mark.parametrize("nearness", ["users", "sequences"])
def test_neighbours_and_decay_are_those_that_rank_validation_best(shop_split, nearness):
    id_map = IdMap(shop_split.log.items["item_id"].to_pylist())
    tables = NeighborTables.fit([shop_split], id_map)
    cases = Tuning(shop_split, id_map, ("uniform",), num_negatives=3).cases("recommendation")
    chosen = ItemKNN.fit(tables, nearness, cases, id_map)
    for protocol, own in cases.items():
        values = {}
        for decay in (0.95, 0.9, 0.8, 0.6):
            one = ItemKNN(ItemNeighbors(tables.tables[nearness], decay=decay), id_map)
            (row,) = evaluate_cases({"one": one}, own, shop_split, id_map, show_progress=False)
            values[decay] = row.metrics["ndcg@10"]
        # With ten items every number of neighbours is the same, so the first is taken.
        assert for_protocol(chosen, protocol).details == {"decay": max(values, key=values.get), "num_neighbours": 20}
        assert len(set(values.values())) > 1


def test_partitions_are_counted_together(shop_split):
    """The same users twice: every count doubles, so similarities stay and clicks are twice as many."""
    id_map = IdMap(shop_split.log.items["item_id"].to_pylist())
    once, twice = QueryLog.fit(shop_split, id_map), QueryLog.fit([shop_split, shop_split], id_map)
    np.testing.assert_array_equal(2 * once.query_clicks.toarray(), twice.query_clicks.toarray())
    np.testing.assert_array_equal(2 * once.word_clicks.toarray(), twice.word_clicks.toarray())
    alone, whole = (NeighborTables.fit(number * [shop_split], id_map) for number in (1, 2))
    for nearness, table in alone.tables.items():
        np.testing.assert_allclose(table.toarray(), whole.tables[nearness].toarray(), rtol=1e-6)
