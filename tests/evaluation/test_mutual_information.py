# SPDX-License-Identifier: Apache-2.0
"""Mutual information by MINE against what it is where it can be computed."""

import numpy as np
import pytest

from seekrec.errors import DataError
from seekrec.evaluation.mutual_information import Information, mutual_information, resampled_mean


def noisy_answers(spread, num_cases=2000):
    """Return `y` = 0 or 1, and x = 2 y - 1 with Gaussian noise beside three columns that say nothing."""
    draws = np.random.default_rng(0)
    y = np.arange(num_cases) % 2
    x = draws.normal(size=(num_cases, 4))
    x[:, 0] = 2 * y - 1 + spread * x[:, 0]
    return x, y


def true_bits(spread):
    """I(X; Y) = h(X) - h(X | Y) in bits, the first entropy by integration over a grid."""
    grid = np.linspace(-12, 12, 200_001)
    density = sum(np.exp(-(((grid - mean) / spread) ** 2) / 2) for mean in (-1, 1)) / (2 * spread * np.sqrt(2 * np.pi))
    entropy = -np.trapezoid(np.where(density > 0, density * np.log2(np.maximum(density, 1e-300)), 0), grid)
    return entropy - 0.5 * np.log2(2 * np.pi * np.e * spread**2)


@pytest.mark.parametrize(
    "spread", [pytest.param(0.2, marks=pytest.mark.slow), 1.0, pytest.param(2.0, marks=pytest.mark.slow)]
)
def test_the_estimate_is_near_what_it_is(spread):
    x, y = noisy_answers(spread)
    found = mutual_information(x, y, np.arange(len(y)) // 2)
    assert found.bits == pytest.approx(true_bits(spread), abs=0.05)
    low, high = np.quantile(found.resampled(), (0.025, 0.975))
    assert low < found.bits < high and high - low < 0.15


def test_what_says_nothing_has_none():
    x, y = noisy_answers(1.0)
    found = mutual_information(x[:, 1:], y, np.arange(len(y)))
    assert found.bits == pytest.approx(0, abs=0.01)


def test_the_bound_by_hand():
    # E f = 1, and E exp f = 2: (1 - ln 2) / ln 2 bits; equal groups leave an interval without width.
    one = Information(np.ones(8), np.full(8, 2.0))
    assert one.bits == pytest.approx((1 - np.log(2)) / np.log(2))
    np.testing.assert_allclose(one.resampled(), one.bits)


def test_the_mean_of_estimates_is_as_uncertain_as_their_number_leaves_it():
    # Of two estimates with the bounds 1 and 3 (in nats over ln 2), two are drawn: 1, 2, 2 or 3 on average.
    one, other = (Information(np.full(8, value), np.ones(8)) for value in (1.0, 3.0))
    means = resampled_mean([one, other]) * np.log(2)
    values, counts = np.unique(means.round(6), return_counts=True)
    assert values.tolist() == [1, 2, 3]
    assert (counts / len(means)).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_too_little_is_refused():
    with pytest.raises(DataError, match="needs at least 8 groups of cases to train and evaluate on; got 3"):
        mutual_information(np.zeros((6, 2)), [0, 1] * 3, [0, 0, 1, 1, 2, 2])
    with pytest.raises(DataError, match=r"`answers` contains \[0, 1, 2\]; give 0 or 1"):
        mutual_information(np.zeros((9, 2)), [0, 1, 2] * 3, np.arange(9))
