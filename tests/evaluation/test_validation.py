import numpy as np
import pytest
import torch

from seekrec.catalog import Catalog
from seekrec.evaluation import (
    LightGCNScorer,
    Tuning,
    ValidationRanking,
    baseline_systems,
    evaluate_systems,
    systems,
    validation,
)
from seekrec.schema import BEHAVIORS, Event, IdMap, Request

IDS = ["a", "b", "c"]


class FakeGraph:
    """Scores item n of user u by 10 u + n, of strangers by the number of their items."""

    def score(self, histories, user_rows):
        rows = [
            [10.0 * user + item if user >= 0 else float(len(history)) for item in range(3)]
            for history, user in zip(histories, user_rows.tolist(), strict=True)
        ]
        return torch.tensor(rows)


def test_lightgcn_knows_its_users_and_places_strangers_by_their_items():
    scorer = LightGCNScorer(FakeGraph(), IdMap(IDS), ["ann", "bob"])
    history = [Event("a"), Event("b", "search", query="x"), Event("c", action="impression")]
    requests = [
        Request(user_id="bob"),
        Request(history, user_id="eve"),
        Request(history[:1], query="x"),
        Request(user_id="ann"),
    ]
    scores = scorer.score_all(requests)
    assert scores.tolist() == [[10, 11, 12], [2, 2, 2], [1, 1, 1], [0, 1, 2]]
    assert scores.dtype == np.float32
    assert scorer.behaviors == BEHAVIORS


class Fixed:
    """Likes items in the order given, whatever is asked."""

    behaviors = BEHAVIORS

    def __init__(self, order):
        self.order = order

    def score_all(self, requests):
        return np.tile(-np.argsort(self.order).astype(float), (len(requests), 1))


def test_validation_is_ranked_on_the_same_cases_each_time(toy_split, toy_items, monkeypatch):
    """Validation asks u1 for c and u2 for a, each once in both tasks; histories a b and b c are ruled out."""
    catalog = Catalog.build(toy_items)
    ranking = ValidationRanking(toy_split, catalog, protocols=("full", "uniform"), num_negatives=2)
    # Of u1's items c d e f the target is first, of u2's a d e f likewise.
    best = ranking(Fixed([2, 0, 3, 4, 5, 1]))
    assert best == {
        "recommendation_ndcg@10": 1.0,
        "recommendation_uniform_ndcg@10": 1.0,
        "search_ndcg@10": 1.0,
        "search_uniform_ndcg@10": 1.0,
        "ndcg@10": 1.0,
    }
    monkeypatch.setattr(validation, "build_cases", None)  # not built again
    worst = ranking(Fixed([3, 4, 5, 1, 2, 0]))
    # Fourth of four in full ranking: 1 / log2(5).
    assert worst["search_ndcg@10"] == pytest.approx(1 / np.log2(5))
    monkeypatch.undo()
    only = ValidationRanking(toy_split, catalog, behaviors=("search",), max_cases=1)
    assert set(only(Fixed([2, 0, 3, 4, 5, 1]))) == {"search_ndcg@10", "ndcg@10"}


def test_all_baselines_stand_on_one_data_set(toy_split, toy_items, monkeypatch):
    class FakeNext:
        def score(self, histories):
            return torch.zeros(len(histories), 6)

    class FakeUsers:
        def score(self, histories, user_rows):
            return torch.zeros(len(histories), 6)

    vectors = np.eye(6, dtype=np.float32)
    monkeypatch.setattr(systems, "load_semantic_encoder", lambda name: name)
    monkeypatch.setattr(systems, "embed_texts", lambda texts, encoder, show_progress: vectors[: len(texts)])
    catalog = Catalog.build(toy_items, embeddings={"semantic": vectors})
    baselines = baseline_systems(
        Tuning(toy_split, catalog.id_map), catalog, FakeNext(), lightgcn=FakeUsers(), user_ids=["u1"]
    )
    assert list(baselines) == [
        *("popularity", "BM25", "dense text", "SASRec", "LightGCN", "BM25 x SASRec", "dense x SASRec"),
    ]
    rows = evaluate_systems(baselines, toy_split, catalog.id_map, show_progress=False)
    assert {row.system for row in rows if row.behavior == "search"} == set(baselines)
    tuning = Tuning(toy_split, catalog.id_map, counts=np.arange(6))
    without = baseline_systems(tuning, catalog, FakeNext())
    assert "LightGCN" not in without and without["popularity"].counts.tolist() == [*range(6)]
