# SPDX-License-Identifier: Apache-2.0
"""New items take the scores of items with texts like theirs."""

from __future__ import annotations

import numpy as np
import pytest

from seekrec.models import new_items
from seekrec.models.new_items import TextNeighbors


def test_a_mean_takes_the_score_of_its_place_among_means():
    neighbors = TextNeighbors(
        rows=np.arange(4),
        references=np.arange(4),
        of_references=np.array([[1, 2], [0, 2], [1, 3], [1, 2]]),
        of_new=np.array([[0, 3], [3, 3], [0, 0], [0, 2]]),
    )
    # Means of the references' neighbours: 3, 2, 6, 3; scores in order: 0, 2, 4, 10. A mean of 5 is two thirds of the
    # way from the last 3 (score 4) to 6 (score 10): 8. The mean 10 lies 4 beyond the largest, the mean 0 lies 2 below
    # the smallest; a mean of 2 is the smallest.
    scored = neighbors.score(np.array([[0.0, 2.0, 4.0, 10.0]]))
    np.testing.assert_allclose(scored, [[8.0, 14.0, -2.0, 0.0]], rtol=1e-6)
    assert scored.dtype == np.float32


def test_neighbours_are_known_items_with_the_nearest_texts(monkeypatch):
    monkeypatch.setattr(new_items, "NUM_NEIGHBORS", 2)
    angles = np.array([0, 1, 2, 90, 91, 92, 1.6, 90.6]) * np.pi / 180
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) + 5.0  # what all texts share is taken off
    neighbors = TextNeighbors.find(vectors, new=np.array([6, 7]), known=np.arange(6))
    assert neighbors is not None
    assert neighbors.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert [set(line) for line in neighbors.rows[neighbors.of_new].tolist()] == [{1, 2}, {3, 4}]
    assert [set(line) for line in neighbors.rows[neighbors.of_references].tolist()] == [
        *({1, 2}, {0, 2}, {0, 1}),
        *({4, 5}, {3, 5}, {3, 4}),
    ]


def test_a_large_catalogue_is_asked_in_part(monkeypatch):
    monkeypatch.setattr(new_items, "_MAX_REFERENCES", 5)
    monkeypatch.setattr(new_items, "_MAX_POOL", 30)
    vectors = np.random.default_rng(0).normal(size=(100, 8))
    neighbors = TextNeighbors.find(vectors, new=np.arange(90, 100), known=np.arange(90))
    assert neighbors is not None
    assert len(neighbors.references) == 5 and len(neighbors.rows) <= 30
    assert neighbors.of_new.shape == (10, 20) and neighbors.rows.max() < 90
    scored = neighbors.score(np.random.default_rng(1).normal(size=(3, len(neighbors.rows))))
    assert scored.shape == (3, 10) and np.isfinite(scored).all()


@pytest.mark.parametrize("known", [[], [0]])
def test_where_nothing_is_known_nobody_speaks_for_new_items(known):
    assert TextNeighbors.find(np.eye(3), new=np.array([1, 2]), known=np.array(known, dtype=np.int64)) is None
