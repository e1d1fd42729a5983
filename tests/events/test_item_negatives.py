# SPDX-License-Identifier: Apache-2.0
"""Negatives of training windows: what they may be, and that they depend on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from seekrec.errors import ConfigurationError
from seekrec.events.training_negatives import ItemNegatives


def test_negatives_are_drawn_as_asked():
    counts = np.array([0, 1, 1, 2, 4])
    keys, labels = np.arange(20_000), np.full(20_000, 4)
    uniform = ItemNegatives(counts, 2).draw(keys, labels, labels)
    np.testing.assert_allclose(np.bincount(uniform.ravel(), minlength=5) / 40_000, [0.25] * 4 + [0], atol=0.01)
    sampler = ItemNegatives(counts, 2, "popularity")
    popular = sampler.draw(keys, labels, labels)
    # The target has half of the weight; it is drawn again until it is another.
    assert (popular >= 0).all()
    popular = popular.ravel()
    np.testing.assert_allclose(np.bincount(popular, minlength=5) / len(popular), [0, 0.25, 0.25, 0.5, 0], atol=0.01)
    np.testing.assert_allclose(np.exp(sampler.log_q), np.array([0.5, 1, 1, 2, 4]) / 8, rtol=1e-6)


def test_what_a_user_did_is_no_negative_of_that_user():
    counts, keys = np.array([8, 4, 2, 1, 1]), np.arange(20_000)
    # User 0 took items 0 and 2, user 1 took item 4; both are asked for one of theirs.
    acts = np.array([0, 0, 1]) * 5 + np.array([0, 2, 4])
    users = np.arange(20_000) % 2
    labels = np.where(users == 0, 2, 4)
    sampler = ItemNegatives(counts, 3, "popularity", acts=acts)
    drawn = sampler.draw(keys, labels, labels, users)
    np.testing.assert_allclose(
        np.bincount(drawn[users == 0].ravel(), minlength=5) / 30_000, [0, 4 / 6, 0, 1 / 6, 1 / 6], atol=0.01
    )
    np.testing.assert_allclose(
        np.bincount(drawn[users == 1].ravel(), minlength=5) / 30_000, np.array([8, 4, 2, 1, 0]) / 15, atol=0.01
    )
    # For the correction the target is a draw like others; what else the user did stays out.
    corrected = ItemNegatives(counts, 3, "popularity", acts=acts, draws_target=True)
    drawn = corrected.draw(keys, labels, labels, users)
    np.testing.assert_allclose(
        np.bincount(drawn[users == 0].ravel(), minlength=5) / 30_000, np.array([0, 4, 2, 1, 1]) / 8, atol=0.01
    )
    # That is the proposal whose logarithm is told, but for a number of the question.
    np.testing.assert_allclose(np.exp(corrected.log_q[[1, 2, 3]] - corrected.log_q[4]), [4, 2, 1], rtol=1e-6)


def test_aligned_negatives_were_available():
    periods = np.array([0, 10, 0, 0]), np.array([5, 99, 99, 20])
    sampler = ItemNegatives(np.ones(4), 8, periods=periods)
    times = np.array([3, 7, 15, 50])
    drawn = sampler.draw(np.arange(4), np.full(4, 3), times)
    available = [{0, 2}, {2}, {1, 2}, {1, 2}]
    for row, allowed in zip(drawn, available, strict=True):
        assert set(row[row >= 0].tolist()) == allowed
    # Nothing but the target available: no negative, rather than a wrong one.
    alone = ItemNegatives(np.ones(2), 3, periods=(np.array([0, 9]), np.array([9, 10])))
    assert alone.draw(np.array([1]), np.array([0]), np.array([4])).tolist() == [[-1, -1, -1]]


def test_draws_depend_on_the_key_alone():
    sampler = ItemNegatives(np.ones(100), 5, seed=3)
    labels = np.zeros(6, np.int64)
    together = sampler.draw(np.arange(6), labels, labels)
    np.testing.assert_array_equal(together[4:5], sampler.draw(np.array([4]), labels[:1], labels[:1]))
    assert (ItemNegatives(np.ones(100), 5, seed=4).draw(np.arange(6), labels, labels) != together).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3), 0), "The negatives are 0 of kind 'uniform'; ask for at least one"),
        ((np.ones(3), 2, "bm25"), "The negatives are 2 of kind 'bm25'"),
        ((np.zeros(3), 2, "popularity"), "No item has an interaction"),
    ],
)
def test_wrong_negatives_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        ItemNegatives(*arguments)
