# SPDX-License-Identifier: Apache-2.0
"""The expected calibration error of probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation.protocols import EvaluationCases, Retriever
from seekrec.schema import IdMap

# Of the squares of factors, in units of the features' spread, for each example.
_PENALTY = 1e-5
_MAX_STEPS = 100
# Of what chance alone shows; with so many the limit below is sure to some hundredths of itself.
_NUM_DRAWS = 10_000


@dataclass(frozen=True)
class ClickCalibration:
    """How well the probabilities of clicks are calibrated, next to what chance alone would show.

    With few users even probabilities that are right in every bin show an error.

    Args:
        error (`float`): The expected calibration error, from 0, the best, to 1.
        by_chance (`float`): What right probabilities would show over so many such users, on average.
        limit (`float`): What they would stay below 19 times in 20.
        num_users (`int`): Whose cases they are; a case without a user is one of its own.
    """

    error: float
    by_chance: float
    limit: float
    num_users: int


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, num_bins: int = 10) -> float:
    """Compute how far probabilities are from what happened.

    Probabilities are put into bins of equal width. In each the mean probability and the share of what happened are
    compared; the error is the mean of the differences, each bin weighing as much as it holds.

    Args:
        probabilities (`ArrayLike`): From 0 to 1, of any shape.
        labels (`ArrayLike`): Array of the same shape: 1 where it happened, else 0.
        num_bins (`int`): Bins between 0 and 1.

    Returns:
        `float`: From 0, the best, to 1.

    Raises:
        ConfigurationError: If `num_bins` is below 1.
        DataError: If there is no probability, one is not from 0 to 1, or the shapes differ.

    Example:
        >>> # (|.25 + .25 - 1| + |.75 + 1 - 2|) / 4
        >>> expected_calibration_error([0.25, 0.25, 0.75, 1.0], [0, 1, 1, 1], num_bins=2)
        0.1875
    """
    if num_bins < 1:
        raise ConfigurationError(f"`num_bins` is {num_bins}; use at least 1.")
    values, happened = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if values.shape != happened.shape or not values.size:
        raise DataError(
            f"There are probabilities of shape {values.shape} and labels of shape {happened.shape}; pass at "
            "least one probability, and one label for each."
        )
    if not ((values >= 0) & (values <= 1)).all():
        wrong = values[~((values >= 0) & (values <= 1))][0]
        raise DataError(f"A probability is {wrong}; it must be from 0 to 1.")
    difference = np.bincount(
        _bins(values.ravel(), num_bins), weights=values.ravel() - happened.ravel(), minlength=num_bins
    )
    return float(np.abs(difference).sum() / values.size)


def _bins(values: npt.NDArray[np.float64], num_bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((values * num_bins).astype(np.int64), num_bins - 1)


def chance_errors(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, users: npt.ArrayLike, *, num_bins: int = 10
) -> npt.NDArray[np.float64]:
    """Draw the expected calibration errors that chance alone would show, were the mean of every bin right.

    What happened to the candidates of a case is not independent, as one of them is clicked, and neither are the cases
    of a user, who is easier to foresee than others or harder in all of them. So whole users are drawn. The differences
    that a user adds to the bins have a covariance, and their sums over users are about normal: drawn around 0 with
    that covariance, they are what right probabilities scatter by.

    Clicks drawn from the probabilities themselves would not do. Drawn one by one they scatter more than one click a
    case can: in a simulation of 250 cases of five whose scores say little, right probabilities show 0.0155 and such
    draws 0.0181. Drawn one a case, in proportion to the odds, they are exact where the probabilities are right; but a
    factor of all odds changes no such draw, so what is too high by one would seem to be so by chance.

    Args:
        probabilities (`ArrayLike`): From 0 to 1, `(n,)`.
        labels (`ArrayLike`): 1 where it happened, else 0, `(n,)`.
        users (`ArrayLike`): The number of the user of each, from 0, `(n,)`.
        num_bins (`int`): As for [`expected_calibration_error`].

    Returns:
        `np.ndarray`: float64 of shape `(10000,)`; the same for the same input.
    """
    values, happened = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    place = np.asarray(users) * num_bins + _bins(values, num_bins)
    size = (int(np.max(users)) + 1, num_bins)
    by_user = np.bincount(place, weights=values - happened, minlength=size[0] * size[1]).reshape(size)
    # Around 0, which is their mean where probabilities are right.
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(num_bins), by_user.T @ by_user, size=_NUM_DRAWS)
    errors: npt.NDArray[np.float64] = np.abs(draws).sum(axis=1) / values.size
    return errors


def click_calibration(
    system: Retriever, cases: EvaluationCases, id_map: IdMap, *, num_bins: int = 10
) -> ClickCalibration:
    """Compute the expected calibration error of the probabilities with which a system ranks candidates.

    The target of a case counts as clicked and its negatives as not, so the share of clicks is that of the cases. A
    model is calibrated to the share it was trained with: ask with as many negatives, drawn alike. In addition to the
    error stands what chance alone would show: see [`chance_errors`].

    Args:
        system ([`Retriever`]): Its `rank` returns probabilities as scores.
        cases ([`EvaluationCases`]): With candidates.
        id_map ([`IdMap`]): Items of the catalogue.
        num_bins (`int`): As for [`expected_calibration_error`].

    Raises:
        ConfigurationError: If the cases have no candidates.
    """
    if cases.candidate_rows is None:
        raise ConfigurationError(
            "The cases rank the whole catalogue; build them with candidates, as by `protocol='uniform'`."
        )
    candidates = [id_map.convert_to_ids(row[row >= 0]) for row in cases.candidate_rows]
    answers = system.rank(cases.requests, candidates)
    clicked = [
        item.item_id == target for answer, target in zip(answers, cases.target_ids, strict=True) for item in answer
    ]
    probabilities = [item.score for answer in answers for item in answer]
    error = expected_calibration_error(probabilities, clicked, num_bins=num_bins)
    # An index cannot be a user's name.
    names = [index if request.user_id is None else request.user_id for index, request in enumerate(cases.requests)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    users = np.repeat([numbers[name] for name in names], [len(answer) for answer in answers])
    by_chance = chance_errors(probabilities, clicked, users, num_bins=num_bins)
    return ClickCalibration(error, float(by_chance.mean()), float(np.quantile(by_chance, 0.95)), len(numbers))


def fit_logistic(features: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Fit probabilities `sigmoid(features @ factors + shift)` by maximum likelihood (Platt scaling).

    A factor that comes out below 0 is set to 0 and the others are fitted again: what is scaled may be worth nothing,
    but is not turned around.

    Args:
        features (`ArrayLike`): Logits, `(n, num_features)`.
        labels (`ArrayLike`): 1 where it happened, else 0, `(n,)`.

    Returns:
        `np.ndarray`: The factors and, last, the shift: float64 of shape `(num_features + 1,)`.
    """
    given, happened = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    # A constant tells nothing; about its mean it is rounding, which would be taken for something.
    used = given.std(axis=0) > 1e-9 * np.abs(given).max(axis=0, initial=0.0)
    while True:
        # In units of their spread, so that one penalty is small for all; it bounds what separates perfectly. About
        # their mean: a shift that had to make up for a large one would not get there in so many steps.
        mean, spread = given[:, used].mean(axis=0), given[:, used].std(axis=0)
        table = np.column_stack([(given[:, used] - mean) / spread, np.ones(len(given))])
        penalty = np.append(np.full(table.shape[1] - 1, _PENALTY), 1e-9) * len(given)
        weights = np.zeros(table.shape[1])
        for _ in range(_MAX_STEPS):
            chance = 1 / (1 + np.exp(-np.clip(table @ weights, -500, 500)))
            slope = table.T @ (chance - happened) + penalty * weights
            curve = (table * np.maximum(chance * (1 - chance), 1e-9)[:, None]).T @ table + np.diag(penalty)
            step = np.linalg.solve(curve, slope)
            # Far from the optimum Newton's step overshoots.
            weights = weights - step * min(1.0, 2 / max(float(np.abs(step).max()), 1e-12))
            if np.abs(step).max() < 1e-8:
                break
        negative = weights[:-1] < 0
        if not negative.any():
            found = np.zeros(given.shape[1] + 1)
            found[:-1][used] = weights[:-1] / spread
            found[-1] = weights[-1] - found[:-1][used] @ mean
            return found
        used[np.flatnonzero(used)[negative]] = False


__all__ = ["ClickCalibration", "chance_errors", "click_calibration", "expected_calibration_error", "fit_logistic"]
