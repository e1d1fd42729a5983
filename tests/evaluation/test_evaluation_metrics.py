# SPDX-License-Identifier: Apache-2.0
"""Metrics by hand, against pytrec_eval and scikit-learn; bootstrap against the normal approximation."""

from __future__ import annotations

from itertools import permutations
from math import log2, sqrt

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation import metrics
from seekrec.evaluation.metrics import (
    all_metric_values,
    bootstrap_intervals,
    metric_values,
    mrr_at_k,
    ndcg_at_k,
    paired_bootstrap,
    rank_in_list,
    ranks_from_scores,
    recall_at_k,
)

INF = float("inf")


def bootstrap_interval(values, **options):
    """The interval of one mean."""
    return bootstrap_intervals({"mean": values}, **options)["mean"]


def test_metrics_by_hand():
    # Four cases: first, third, tenth, not found.
    ranks = [1, 3, 10, INF]
    assert recall_at_k(ranks, 5).mean() == 2 / 4
    assert recall_at_k(ranks, 10).mean() == 3 / 4
    assert ndcg_at_k(ranks, 10).mean() == pytest.approx((1 + 1 / log2(4) + 1 / log2(11)) / 4)
    assert mrr_at_k(ranks, 10).mean() == pytest.approx((1 + 1 / 3 + 1 / 10) / 4)
    assert mrr_at_k(ranks, 5).mean() == pytest.approx((1 + 1 / 3) / 4)


def test_metrics_of_tied_ranks():
    # Tied with one other at the top: in one order first, in the other second.
    assert recall_at_k([(1, 2)], 1).tolist() == [1 / 2]
    assert recall_at_k([(1, 2)], 2).tolist() == [1.0]
    assert ndcg_at_k([(1, 2)], 2).tolist() == pytest.approx([(1 + 1 / log2(3)) / 2])
    assert mrr_at_k([(1, 2)], 2).tolist() == pytest.approx([(1 + 1 / 2) / 2])
    # Ranks 9 to 12, four orders: two of them within the first ten.
    assert recall_at_k([(9, 12)], 10).tolist() == [2 / 4]
    assert ndcg_at_k([(9, 12)], 10).tolist() == pytest.approx([(1 / log2(10) + 1 / log2(11)) / 4])
    assert mrr_at_k([(9, 12), (11, 12), (INF, INF)], 10).tolist() == pytest.approx([(1 / 9 + 1 / 10) / 4, 0, 0])


@pytest.mark.parametrize("num_items", [5, 10, 19, 20, 21])
def test_constant_scores_have_the_recall_of_chance(num_items):
    ranks = ranks_from_scores(np.zeros((3, num_items)), np.array([0, 2, 4]))
    assert recall_at_k(ranks, 10) == pytest.approx(np.full(3, min(1, 10 / num_items)))
    discounts = sum(1 / log2(1 + rank) for rank in range(1, min(10, num_items) + 1))
    assert ndcg_at_k(ranks, 10) == pytest.approx(np.full(3, discounts / num_items))


@pytest.mark.parametrize("name", ["recall", "ndcg", "mrr"])
def test_ties_are_averaged_over_every_order(name):
    scores, gains = np.array([3.0, 1, 1, 2, 1, 0]), {"recall": lambda rank: 1, "mrr": lambda rank: 1 / rank}
    gain = gains.get(name, lambda rank: 1 / log2(1 + rank))
    for target in range(6):
        for k in (1, 2, 3, 4, 6):
            found = []
            for order in permutations(range(6)):  # every order of the items, sorted by a sort that keeps it in ties
                rank = 1 + sorted(order, key=lambda item: -scores[item]).index(target)
                found.append(gain(rank) if rank <= k else 0)
            value = metric_values(ranks_from_scores(scores[None], np.array([target])), f"{name}@{k}")
            assert value == pytest.approx([np.mean(found)])


def test_ndcg_agrees_with_scikit_learn_in_ties():
    generator = np.random.default_rng(5)
    scores = generator.integers(0, 4, size=(30, 25)).astype(np.float64)
    targets = generator.integers(0, 25, 30)
    for k in (1, 5, 10, 25):
        values = ndcg_at_k(ranks_from_scores(scores, targets), k)
        for row, target in enumerate(targets):
            relevance = np.zeros((1, 25))
            relevance[0, target] = 1
            assert values[row] == pytest.approx(ndcg_score(relevance, scores[row : row + 1], k=k))


def test_metrics_of_no_cases_are_empty():
    assert recall_at_k([], 10).shape == ndcg_at_k([], 10).shape == mrr_at_k([], 10).shape == (0,)


def test_metrics_agree_with_pytrec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    num_cases, num_items, cut = 60, 40, 10
    generator = np.random.default_rng(3)
    scores = generator.permuted(np.tile(np.arange(num_items, dtype=np.float64), (num_cases, 1)), axis=1)  # no ties
    targets = generator.integers(0, num_items, num_cases)
    names = [f"i{item:02d}" for item in range(num_items)]
    run = {f"q{case}": dict(zip(names, scores[case].tolist(), strict=True)) for case in range(num_cases)}
    relevant = {f"q{case}": {names[target]: 1} for case, target in enumerate(targets)}
    measures = {"recall.1,5,10", "ndcg_cut.1,5,10", "recip_rank"}
    expected = pytrec_eval.RelevanceEvaluator(relevant, measures).evaluate(run)

    ranks = ranks_from_scores(scores, targets)
    values = all_metric_values(ranks, (1, 5, cut))
    for case in range(num_cases):
        theirs = expected[f"q{case}"]
        for k in (1, 5, cut):
            assert values[f"recall@{k}"][case] == theirs[f"recall_{k}"]
            assert values[f"ndcg@{k}"][case] == pytest.approx(theirs[f"ndcg_cut_{k}"])
        # recip_rank has no cut.
        assert mrr_at_k(ranks, num_items)[case] == pytest.approx(theirs["recip_rank"])


def test_metric_values_by_name():
    assert metric_values([2, 30], "recall@20").tolist() == [1.0, 0.0]
    assert set(all_metric_values([1], (1, 10))) == {"recall@1", "recall@10", "ndcg@1", "ndcg@10", "mrr@1", "mrr@10"}


@pytest.mark.parametrize("name", ["hit@10", "ndcg", "ndcg@", "ndcg@ten", "recall@-1"])
def test_unknown_metric_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"Unknown metric '{name}'; use one of recall@k"):
        metric_values([1], name)


def test_k_below_one_is_refused():
    with pytest.raises(ConfigurationError, match="`k` is 0; it must be at least 1"):
        recall_at_k([1], 0)


@pytest.mark.parametrize(
    ("rank", "shown"),
    [
        (0.0, "0"),
        (-1.0, "-1"),
        (float("nan"), "nan"),
        (2.5, "2.5"),  # the mean rank of a tie: over how many items?
        ((2, 1), "2 to 1"),
        ((1, INF), "1 to inf"),
        ((1, float("nan")), "1 to nan"),
    ],
)
def test_impossible_rank_is_refused(rank, shown):
    with pytest.raises(DataError, match=f"rank of case 1 is {shown}; ranks are whole numbers from 1"):
        ndcg_at_k([(1, 1) if isinstance(rank, tuple) else 1, rank], 10)


def test_ranks_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"`ranks` has shape \(1, 3\); pass the first and last rank of each case"):
        ndcg_at_k([(1, 2, 3)], 10)


def test_ranks_from_scores_by_hand():
    scores = np.array(
        [
            [0.9, 0.1, 0.5, 0.4],  # target 2: one above
            [0.5, 0.5, 0.5, 0.1],  # target 1: shares ranks 1, 2, 3
            [-INF, -INF, 1.0, 0.0],  # target 3: items that were ruled out do not count
            [-INF, 0.0, 0.0, 0.0],  # target 0: ruled out itself
        ],
        dtype=np.float32,
    )
    assert ranks_from_scores(scores, np.array([2, 1, 3, 0])).tolist() == [[2, 2], [1, 3], [2, 2], [INF, INF]]


def test_ranks_do_not_depend_on_the_order_of_items():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 4, size=(20, 15)).astype(np.float64)  # many ties
    targets = generator.integers(0, 15, 20)
    order = generator.permutation(15)
    place = np.argsort(order)
    assert (ranks_from_scores(scores, targets) == ranks_from_scores(scores[:, order], place[targets])).all()


def test_nan_score_is_refused():
    with pytest.raises(DataError, match="item column 1 in row 2 is NaN"):
        ranks_from_scores(np.array([[0.0, 1.0], [0.0, 1.0], [0.0, np.nan]]), np.array([0, 0, 0]))


def test_rank_in_list_by_hand():
    assert rank_in_list(["a", "b", "c"], [3, 2, 1], "b") == (2, 2)
    assert rank_in_list(["a", "b", "c"], [3, 2, 2], "b") == (2, 3)
    assert rank_in_list(["a", "b"], [3, 2], "z") == (INF, INF)
    assert rank_in_list([], [], "z") == (INF, INF)
    assert rank_in_list(["a", "z"], [3, -INF], "z") == (INF, INF)


def test_list_that_repeats_an_item_is_refused():
    with pytest.raises(DataError, match="contains the item 'b' twice"):
        rank_in_list(["a", "b", "b"], [3, 2, 1], "a")


@pytest.mark.parametrize("scores", [[1.0, 2.0], [1.0, float("nan")], [float("nan"), 1.0]])
def test_list_out_of_order_is_refused(scores):
    with pytest.raises(DataError, match="not in descending order: "):
        rank_in_list(["a", "b"], scores, "a")


def test_a_single_nan_score_is_refused():
    with pytest.raises(DataError, match="not in descending order"):
        rank_in_list(["a"], [float("nan")], "a")


def test_bootstrap_interval_is_near_the_normal_one():
    # 400 cases, 100 hits: the mean's standard error is sqrt(p (1 - p) / n).
    values = np.repeat([1.0, 0.0], [100, 300])
    error = sqrt(0.25 * 0.75 / 400)
    low, high = bootstrap_interval(values, seed=1, num_samples=4000)
    assert low == pytest.approx(0.25 - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(0.25 + 1.96 * error, abs=0.15 * error)
    narrow = bootstrap_interval(values, seed=1, num_samples=4000, confidence=0.5)
    # The quartiles of the normal distribution are 0.6745 standard errors from the mean.
    assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * error, rel=0.1)


def test_bootstrap_is_seeded_and_shared_between_metrics():
    values = np.random.default_rng(0).random(50)
    both = bootstrap_intervals({"x": values, "y": 2 * values}, seed=4)
    assert both["x"] == pytest.approx(bootstrap_interval(values, seed=4))
    assert both["x"] != pytest.approx(bootstrap_interval(values, seed=5))
    assert both["y"] == pytest.approx([2 * bound for bound in both["x"]])
    assert bootstrap_intervals({}) == {}


def test_bootstrap_does_not_depend_on_the_size_of_its_pieces(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(metrics, "_DRAWS_PER_PIECE", 170)  # 3 resamples a piece, the last piece has 1
    assert bootstrap_interval(values) == pytest.approx(whole)


def test_bootstrap_of_nothing_is_refused():
    with pytest.raises(DataError, match="at least one case, got 0"):
        bootstrap_interval([])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_outside_0_1_is_refused(confidence):
    with pytest.raises(ConfigurationError, match=f"`confidence` is {confidence}; use a share between 0 and 1"):
        bootstrap_interval([1.0], confidence=confidence)


def test_number_of_resamples_is_checked():
    with pytest.raises(ConfigurationError, match="`num_samples` is 0"):
        bootstrap_interval([1.0], num_samples=0)


def test_paired_bootstrap_of_equal_systems_finds_nothing():
    values = np.random.default_rng(0).random(30)
    result = paired_bootstrap(values, values, num_samples=500)
    assert result.difference == 0
    assert result.interval == (0, 0)
    assert result.p_value == 1


def test_paired_bootstrap_sees_a_small_but_steady_difference():
    # The values vary a lot from case to case, the difference does not: only pairing shows it.
    generator = np.random.default_rng(0)
    values = generator.random(200)
    better = values + 0.01
    result = paired_bootstrap(better, values, num_samples=999)
    assert result.difference == pytest.approx(0.01)
    assert result.interval == pytest.approx((0.01, 0.01))
    assert result.p_value == 2 / 1000  # no resample reverses it: 2 * (1 + 0) / (999 + 1)
    low, high = bootstrap_interval(values)
    assert low < better.mean() < high  # unpaired, the two intervals overlap


def test_paired_bootstrap_p_value_is_near_that_of_the_z_test():
    # Differences +1, -1 and 0 of variance 0.5 - 0.05**2. Their sum is 20, with standard deviation sqrt(400 * 0.4975) =
    # 14.1; resamples whose sum is 0 or less, with the continuity correction: Phi((0.5 - 20) / 14.1) = 0.0834, twice.
    differences = np.repeat([1.0, -1.0, 0.0], [110, 90, 200])
    result = paired_bootstrap(differences, np.zeros(400), seed=2)
    assert result.p_value == pytest.approx(2 * 0.0834, abs=0.015)
    opposite = paired_bootstrap(np.zeros(400), differences, seed=2)
    assert opposite.difference == -result.difference
    assert opposite.p_value == result.p_value


def test_paired_bootstrap_needs_the_same_cases():
    with pytest.raises(DataError, match=r"System A has values of shape \(2,\) and system B of \(3,\)"):
        paired_bootstrap([1, 2], [1, 2, 3])
