# SPDX-License-Identifier: Apache-2.0
"""The metric folder under `evaluate.load`, offline."""

from __future__ import annotations

import sys
from math import log2

import pytest

from seekrec.errors import DataError
from seekrec.evaluation import METRICS_FOLDER


@pytest.fixture
def metric(tmp_path, monkeypatch):
    import evaluate

    # `evaluate` copies the metric into a cache and puts that on the path: keep both out of the user's home.
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return evaluate.load(str(METRICS_FOLDER), cache_dir=str(tmp_path / "cache"))


def test_evaluate_computes_the_same(metric):
    predictions = [["a", "b", "c"], ["a", "b", "c"], []]
    results = metric.compute(predictions=predictions, references=["a", "c", "a"], k=(1, 3))
    assert set(results) == {"recall@1", "recall@3", "ndcg@1", "ndcg@3", "mrr@1", "mrr@3"}
    assert results["recall@1"] == 1 / 3
    assert results["recall@3"] == 2 / 3
    assert results["ndcg@3"] == pytest.approx((1 + 1 / log2(4)) / 3)
    assert results["mrr@3"] == pytest.approx((1 + 1 / 3) / 3)
    # Added one batch after another, with the default cuts.
    metric.add_batch(predictions=[["x", "y"]], references=["y"])
    assert metric.compute()["mrr@20"] == 1 / 2


def test_evaluate_refuses_what_is_no_ranking(metric):
    with pytest.raises(DataError, match="contains the item 'a' twice"):
        metric.compute(predictions=[["a", "a"]], references=["a"])
