# SPDX-License-Identifier: Apache-2.0
"""The expected calibration error, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation import click_calibration, expected_calibration_error
from seekrec.evaluation.calibration import chance_errors, fit_logistic
from seekrec.evaluation.protocols import EvaluationCases
from seekrec.schema import IdMap, Request, ScoredItem
from seekrec.util.ragged import Ragged


def test_the_error_by_hand():
    # Bins [0, .5) and [.5, 1]. First: .1 and .3, one of two happened: |.4 - 1| = .6. Second: .5, .8, 1.0, all but the
    # first happened: |2.3 - 2| = .3. Together .9 over 5.
    probabilities, labels = [0.1, 0.3, 0.5, 0.8, 1.0], [0, 1, 0, 1, 1]
    assert expected_calibration_error(probabilities, labels, num_bins=2) == pytest.approx(0.9 / 5)
    # In one bin: |2.7 - 3| over 5. Within it what is too high makes up for what is too low.
    assert expected_calibration_error(probabilities, labels, num_bins=1) == pytest.approx(0.3 / 5)
    assert expected_calibration_error([[0.0], [1.0]], [[0], [1]]) == 0.0
    assert expected_calibration_error([1.0, 1.0], [0, 0]) == 1.0


def test_calibrated_draws_have_a_small_error():
    rng = np.random.default_rng(0)
    probabilities = rng.random(100_000)
    labels = rng.random(100_000) < probabilities
    # A bin of 10,000 strays by about sqrt(.25 / 10,000) = .005 at most.
    assert expected_calibration_error(probabilities, labels) < 0.005
    assert expected_calibration_error(probabilities**2, labels) == pytest.approx(1 / 2 - 1 / 3, abs=0.01)


def cases(candidate_rows, user_id=None):
    return EvaluationCases(
        requests=[Request(user_id=user_id), Request(user_id=user_id)],
        target_ids=["a", "c"],
        target_rows=np.array([0, 2]),
        case_numbers=np.arange(2),
        seen=Ragged.from_lists([[], []], np.int64),
        candidate_rows=candidate_rows,
        num_items=3,
        behavior="recommendation",
        part="test",
        protocol="uniform-1",
        seen_removed=True,
        seed=0,
    )


class Sure:
    """Clicks on the item `a` for sure, on others with probability a quarter."""

    behaviors = ("recommendation",)

    def rank(self, requests, candidates):
        return [[ScoredItem(item, 1.0 if item == "a" else 0.25) for item in items] for items in candidates]


def test_clicks_of_cases():
    # Case 1: a (clicked, 1.0) and b (.25). Case 2: c (clicked, .25) alone. The bin of .25: |.5 - 1| over 3.
    found = click_calibration(Sure(), cases(np.array([[1, 0], [2, -1]])), IdMap(["a", "b", "c"]))
    assert found.error == pytest.approx(0.5 / 3)
    # In the one bin that differs the cases add .25 and -.75, of variance .0625 + .5625 in all: by chance the error is
    # that of a normal number, its mean sqrt(2 / pi) of a deviation and 95% of it below 1.96 deviations.
    deviation = np.sqrt(0.625) / 3
    assert found.by_chance == pytest.approx(np.sqrt(2 / np.pi) * deviation, rel=0.03)
    assert found.limit == pytest.approx(1.96 * deviation, rel=0.03)
    assert found.num_users == 2
    # Of one user both are one draw: -.5 at once.
    both = click_calibration(Sure(), cases(np.array([[1, 0], [2, -1]]), "u"), IdMap(["a", "b", "c"]))
    assert (both.error, both.num_users) == (found.error, 1)
    assert both.by_chance == pytest.approx(np.sqrt(2 / np.pi) * 0.5 / 3, rel=0.03)
    with pytest.raises(ConfigurationError, match="The cases rank the whole catalogue"):
        click_calibration(Sure(), cases(None), IdMap(["a", "b", "c"]))


def test_what_right_probabilities_show_by_chance():
    rng = np.random.default_rng(0)
    clicked, numbers = np.tile([1, 0, 0, 0, 0], 250), np.repeat(np.arange(250), 5)
    errors, means, limits, wrong = [], [], [], []
    for _ in range(200):
        # One normal number a candidate, of mean 1 for the clicked one: log of .2 N(x; 1, 1) / (.8 N(x; 0, 1)).
        logits = rng.normal(size=1250) + clicked - 0.5 - np.log(4)
        right = 1 / (1 + np.exp(-logits))
        by_chance = chance_errors(right, clicked, numbers)
        errors.append(expected_calibration_error(right, clicked))
        means.append(by_chance.mean())
        limits.append(np.quantile(by_chance, 0.95))
        # Twice the odds: far from right, and by chance alone not much further.
        wrong.append(np.quantile(chance_errors(1 / (1 + np.exp(-logits) / 2), clicked, numbers), 0.95))
    # 200 errors scatter by .006, so their mean by .0004; 10 of them are expected above the limit, with deviation 3.1.
    assert np.mean(means) == pytest.approx(np.mean(errors), abs=0.0015)
    assert 1 <= np.sum(np.array(errors) > limits) <= 20
    assert np.mean(wrong) < 1.2 * np.mean(limits)


def test_chance_counts_what_belongs_together():
    # Ten cases of one certain click among equals: .2 five times and one click make no difference that chance could.
    numbers = np.repeat(np.arange(10), 5)
    assert chance_errors(np.full(50, 0.2), np.tile([1, 0, 0, 0, 0], 10), numbers).max() == pytest.approx(0, abs=1e-12)
    # Every candidate a case of its own: ten are .8 off and forty .2, a variance of 10 x .64 + 40 x .04 = 8.
    alone = chance_errors(np.full(50, 0.2), np.tile([1, 0, 0, 0, 0], 10), np.arange(50))
    assert alone.mean() == pytest.approx(np.sqrt(2 / np.pi) * np.sqrt(8) / 50, rel=0.03)


@pytest.mark.parametrize(
    ("probabilities", "labels", "num_bins", "error", "message"),
    [
        ([0.5], [1], 0, ConfigurationError, "`num_bins` is 0"),
        ([0.5], [1, 0], 5, DataError, r"probabilities of shape \(1,\) and labels of shape \(2,\)"),
        ([], [], 5, DataError, r"probabilities of shape \(0,\)"),
        ([0.5, 1.5], [1, 0], 5, DataError, "A probability is 1.5"),
        ([float("nan")], [1], 5, DataError, "A probability is nan"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities, labels, num_bins, error, message):
    with pytest.raises(error, match=message):
        expected_calibration_error(probabilities, labels, num_bins=num_bins)


def test_factors_and_shift_are_those_of_scikit_learn():
    generator = np.random.default_rng(3)
    features = generator.normal(size=(4000, 2)) * [1.0, 9.0] + [0.0, 40.0]
    happened = generator.random(4000) < 1 / (1 + np.exp(-(features @ [0.8, 0.3] - 13)))
    found = fit_logistic(features, happened)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(features, happened)
    np.testing.assert_allclose(found, [*reference.coef_[0], *reference.intercept_], rtol=5e-3)
    chance = 1 / (1 + np.exp(-(features @ found[:-1] + found[-1])))
    assert chance.mean() == pytest.approx(happened.mean(), abs=1e-6)
    assert expected_calibration_error(chance, happened) < 0.02
    # Logits far from 0, as of a head that says nearly the same of all: the factors are those about their mean.
    for mean in (1e3, -1e5):
        far = fit_logistic(features + [mean, 0.0], happened)
        np.testing.assert_allclose(far, [found[0], found[1], found[2] - found[0] * mean], rtol=1e-4)
    # A constant tells nothing, whatever its sum is rounded to.
    for constant in (0.1, -3.3, 12345.678):
        beside = fit_logistic(np.column_stack([np.full(997, constant), features[:997, 0]]), happened[:997])
        np.testing.assert_allclose(beside, [0.0, *fit_logistic(features[:997, :1], happened[:997])])
    # What points the wrong way is left out, and the other is fitted alone.
    turned = fit_logistic(features * [-1, 1], happened)
    alone = fit_logistic(features[:, 1:], happened)
    np.testing.assert_allclose(turned, [0.0, *alone])
    # Told apart without a mistake: large, and finite.
    apart = fit_logistic([[-2.0], [-1.0], [1.0], [2.0]], [0, 0, 1, 1])
    assert np.isfinite(apart).all() and apart[0] > 3
