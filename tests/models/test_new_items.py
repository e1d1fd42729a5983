# SPDX-License-Identifier: Apache-2.0
"""New items take the scores of items with texts like theirs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
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


def test_neighbours_are_known_items_with_the_nearest_texts():
    angles = np.array([0, 1, 2, 90, 91, 92, 1.6, 90.6]) * np.pi / 180
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) + 5.0  # what all texts share is taken off
    neighbors = TextNeighbors.find(vectors, new=np.array([6, 7]), known=np.arange(6), count=2)
    assert neighbors is not None
    assert neighbors.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert [set(line) for line in neighbors.rows[neighbors.of_new].tolist()] == [{1, 2}, {3, 4}]
    assert [set(line) for line in neighbors.rows[neighbors.of_references].tolist()] == [
        *({1, 2}, {0, 2}, {0, 1}),
        *({4, 5}, {3, 5}, {3, 4}),
    ]


def test_a_large_catalogue_is_asked_in_part(monkeypatch):
    monkeypatch.setattr(new_items, "_MAX_REFERENCES", 5)
    monkeypatch.setattr(new_items, "MAX_POOL", 30)
    vectors = np.random.default_rng(0).normal(size=(100, 8))
    neighbors = TextNeighbors.find(vectors, new=np.arange(90, 100), known=np.arange(90))
    assert neighbors is not None
    assert len(neighbors.references) == 5 and len(neighbors.rows) <= 30
    assert neighbors.of_new.shape == (10, 20) and neighbors.rows.max() < 90
    scored = neighbors.score(np.random.default_rng(1).normal(size=(3, len(neighbors.rows))))
    assert scored.shape == (3, 10) and np.isfinite(scored).all()


def test_a_search_asks_those_near_in_texts_and_categories():
    """As by a plain sum of two cosines; names weigh log(N / n), and those of an update are looked at again."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 6)).astype(np.float32)
    names = [rng.choice(list("abcdefg"), size=rng.integers(0, 4), replace=False).tolist() for _ in range(40)]
    known, new = np.arange(30), np.arange(30, 40)
    for changed in (None, 7, 31):
        if changed is not None:
            names[changed] = ["g", "nobody else"] if changed == 7 else ["a", "B"]
        column = pa.chunked_array([[[["all"], own] for own in names]], pa.list_(pa.list_(pa.string())))
        near = TextNeighbors.find(vectors, new, known, count=3, categories=column)
        assert near is not None
        weights = {name: np.log(30 / sum(name in names[row] for row in known)) for name in "abcdefg"}
        weights["nobody else"] = np.log(30)
        for row, found in zip(new, near.rows[near.of_new].tolist(), strict=True):
            sums = []
            for other in known:
                texts = [vectors[one] - vectors[known].mean(0) for one in (row, other)]
                sums.append(texts[0] @ texts[1] / np.linalg.norm(texts[0]) / np.linalg.norm(texts[1]))
                # "all" weighs log(30 / 30); names are folded; a name twice is one.
                bags = [{name.lower() for name in names[one]} for one in (row, other)]
                lengths = [sum(weights.get(name, 0.0) ** 2 for name in bag) ** 0.5 for bag in bags]
                shared = sum(weights.get(name, 0.0) ** 2 for name in bags[0] & bags[1])
                sums[-1] += shared / (lengths[0] * lengths[1]) if shared else 0.0
            assert set(found) == set(np.argsort(sums)[-3:].tolist())


def test_of_a_catalogue_that_grows_only_the_items_that_came_are_compared(monkeypatch):
    """And those whose categories changed; found are the same as by a catalogue that was never asked before."""
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(64, 6)).astype(np.float32)
    compared = []
    nearest = new_items._Pool.nearest
    monkeypatch.setattr(
        new_items._Pool,
        "nearest",
        lambda pool, v, rows, c: compared.append(rows.tolist()) or nearest(pool, v, rows, c),
    )
    known = np.arange(30)
    steps = [(50, None), (53, None), (53, 40), (51, None)]
    for by_names in (False, True):
        compared.clear()
        names = [[[str(row % 5)]] for row in range(64)]
        for size, changed in steps:
            if changed is not None:
                names[changed] = [["of its own"]]
            column = pa.chunked_array([names[:size]], pa.list_(pa.list_(pa.string()))) if by_names else None
            near = TextNeighbors.find(whole[:size], np.arange(30, size), known, count=4, categories=column)
            other = TextNeighbors.find(whole[:size].copy(), np.arange(30, size), known, count=4, categories=column)
            assert near is not None and other is not None
            np.testing.assert_array_equal(np.sort(near.rows[near.of_new]), np.sort(other.rows[other.of_new]))
        # References first; then every second look is that of the copy, which begins anew.
        kept = [rows for rows in compared if rows != known.tolist()][::2]
        assert kept == [list(range(30, 50)), [50, 51, 52], [40] if by_names else [], []]


def test_very_many_new_items_are_compared_with_fewer(monkeypatch):
    """Of 100 new items are 128 or fewer: 512 pairs are four known items for each, and never less than references."""
    monkeypatch.setattr(new_items, "_MAX_REFERENCES", 3)
    vectors = np.random.default_rng(0).normal(size=(160, 8))
    for pairs, size in ((2**9, 4), (2**7, 3), (2**20, 60)):
        monkeypatch.setattr(new_items, "_MOST_PAIRS", pairs)
        near = TextNeighbors.find(vectors, new=np.arange(60, 160), known=np.arange(60))
        assert near is not None and near.of_new.shape == (100, min(20, size - 1))
        assert size == 60 or len(near.rows) == size


@pytest.mark.parametrize("known", [[], [0]])
def test_where_nothing_is_known_nobody_speaks_for_new_items(known):
    assert TextNeighbors.find(np.eye(3), new=np.array([1, 2]), known=np.array(known, dtype=np.int64)) is None
