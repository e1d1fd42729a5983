# SPDX-License-Identifier: Apache-2.0
"""Weights of added scores that maximise the likelihood of the targets among all items of a catalogue.

We score the top items, of the model and of each added score, plus a weighted random sample of the rest. Without the
sample, the scores being weighted would have selected the items they are weighted on, and the weights would be biased.

The likelihood is over all items, while an answer is its first ten. So the weights are then adjusted to maximise
NDCG@10. A likelihood needs a few hundred cases; telling weights apart whose NDCG@10 differs by one percent takes
thousands. With fewer, the adjustment overfits, so it is made on parts of the cases and averaged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from seekrec.evaluation.metrics import SELECTION_METRIC, metric_values, ranks_from_scores

logger = logging.getLogger(__name__)

# Of the squares of weights, in units of a view's spread: where words tell every target, no weight is large enough.
_PENALTY = 1e-4
# A view with less weight changes nothing that is worth its time.
LEAST_WEIGHT = 0.02
# Of the factor of a model's own score, which divides weights: one near it tells nothing, where as many cases say so.
_LEAST_FACTOR, _ENOUGH_CASES = 0.05, 150
# What a weight is multiplied by at a time, and how often all of them are; parts of the cases, each left out once.
_MOVES, _MOST_ROUNDS, _NUM_PARTS = (0.0, 0.5, 0.667, 0.8, 1.25, 1.5, 2.0), 4, 5


@dataclass(frozen=True, eq=False)
class ScoredCases:
    """Cases, and what a model and what is added to it say of the items looked at.

    Args:
        own (`np.ndarray`): float32 `(num_cases, most_items)`, minus infinity for padding; the target stands first.
        added (`dict`): By name, what is added at weight 1, of the same shape.
        log_counts (`np.ndarray`): float32 of the same shape: logarithm of how many items each stands for; 0 for itself
            alone.
    """

    own: np.ndarray
    added: dict[str, np.ndarray]
    log_counts: np.ndarray

    def values(self, weights: Mapping[str, float]) -> np.ndarray:
        """Return NDCG@10 of each case with some weights, among the items that stand for themselves alone."""
        return self.values_of(self.total(weights))

    def total(self, weights: Mapping[str, float]) -> np.ndarray:
        """Return the weighted sums: float32 of the shape of `own`, minus infinity for what stands for others."""
        total = np.where(self.log_counts > 0, np.float32(-np.inf), self.own)
        for name, weight in weights.items():
            if weight:
                total += np.float32(weight) * self.added[name]
        return total

    @staticmethod
    def values_of(total: np.ndarray) -> np.ndarray:
        """Return NDCG@10 of each case by sums as `total` returns them."""
        found: np.ndarray = metric_values(ranks_from_scores(total, np.zeros(len(total), np.int64)), SELECTION_METRIC)
        return found

    def take(self, chosen: np.ndarray) -> ScoredCases:
        """Return some of the cases: rows, or a mask of them."""
        added = {name: scores[chosen] for name, scores in self.added.items()}
        return ScoredCases(self.own[chosen], added, self.log_counts[chosen])


def choose_weights(scored: ScoredCases, likely: Mapping[str, float]) -> dict[str, float]:
    """Return the likely weights, moved to where NDCG@10 is best: the mean over fifths of the cases being left out.

    Args:
        scored ([`ScoredCases`]): The cases: all that there are, not only those that the weights are likely by. Few say
            too little to move weights by.
        likely (`Mapping[str, float]`): By name, what [`likely_weights`] returned.
    """
    number = len(scored.own)
    if number < _ENOUGH_CASES or not any(likely.values()):
        return dict(likely)
    part = np.random.default_rng(0).permutation(number) % _NUM_PARTS
    moved = [move_weights(scored.take(part != one), likely) for one in range(_NUM_PARTS)]
    return {name: _rounded(sum(one[name] for one in moved) / _NUM_PARTS) for name in likely}


def move_weights(scored: ScoredCases, weights: Mapping[str, float]) -> dict[str, float]:
    """Multiply one weight after the other by the factor that is best, as long as NDCG@10 of the cases gets better."""
    moved, total = dict(weights), scored.total(weights)
    best = float(scored.values_of(total).mean())
    for _ in range(_MOST_ROUNDS):
        before = best
        for name in weights:
            weight = moved[name]
            if not weight:
                continue
            # Sums of another weight differ by this view alone.
            values = {
                choice: float(scored.values_of(total + np.float32(choice - weight) * scored.added[name]).mean())
                for choice in (float(f"{factor * weight:.3g}") for factor in _MOVES)
            }
            found = max(values, key=values.__getitem__)
            if values[found] > best:
                moved[name], best = found, values[found]
                total = scored.total(moved)
        if best == before:
            break
    return moved


def likely_weights(scored: ScoredCases, names: Sequence[str], *, unit: float = 1.0) -> dict[str, float]:
    """Return the weights at which the targets are likeliest, of what is added.

    Args:
        scored ([`ScoredCases`]): The cases.
        names (`Sequence[str]`): What is weighed of what is added.
        unit (`float`): What of the scores is one of a log-probability.

    Returns:
        `dict`: By name, the weight, to three digits; 0 where it would be hardly any.
    """
    factors = _fit_factors(scored, names, unit=unit)
    if factors[0] < 1.2 * _LEAST_FACTOR and len(scored.own) >= _ENOUGH_CASES:
        logger.warning(
            "On validation, the model's scores barely separate targets from other items; with these weights the views "
            "decide its answers. Train it longer, or check its loss."
        )
    learned = {name: factor / factors[0] for name, factor in zip(names, factors[1:], strict=True)}
    return {name: _rounded(weight) for name, weight in learned.items()}


def _rounded(weight: float) -> float:
    return float(f"{weight:.3g}") if weight >= LEAST_WEIGHT else 0.0


def _fit_factors(scored: ScoredCases, names: Sequence[str], *, unit: float) -> list[float]:
    """Fit a logistic regression of the target among the items of its case, a convex problem.

    It has the model's own score times a factor, which divides the weights afterwards, and no weight below 0. It uses
    every case, where NDCG@10 changes with a few and follows their noise. With a model that tells nothing of the
    targets weights end where what is added alone decides: the factor has a limit, in units of a log-probability, of
    which one is `unit` of the scores.

    Returns:
        `list[float]`: The factor of the model's own score and of each that is added.
    """
    is_item = scored.own > -np.inf
    table = np.stack([scored.own, *(scored.added[name] for name in names)]).astype(np.float64) / unit
    table[:, ~is_item] = 0.0
    # Of what says the same of all, or of no item at all, any unit will do.
    spread = np.array([float(part[is_item].std()) if is_item.any() else 0.0 for part in table])
    spread[spread == 0] = 1.0
    table /= spread[:, None, None]
    shifts = np.where(is_item, scored.log_counts, -np.inf)
    penalty = _PENALTY * (np.arange(len(table)) > 0)

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.tensordot(factors, table, 1) + shifts
        scores -= scores.max(1, keepdims=True)
        chances = np.exp(scores)
        totals = chances.sum(1, keepdims=True)
        chances /= totals
        value = np.mean(np.log(totals[:, 0]) - scores[:, 0])
        slope = (np.tensordot(table, chances, ([1, 2], [0, 1])) - table[:, :, 0].sum(1)) / len(scores)
        return float(value + (penalty * factors**2).sum()), slope + 2 * penalty * factors

    least = np.zeros(len(table))
    least[0] = _LEAST_FACTOR * spread[0]
    begin = np.full(len(table), 0.1)
    begin[0] = spread[0]
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=[(float(one), None) for one in least])
    factors: list[float] = (found.x / spread).tolist()
    return factors


__all__ = [
    *("LEAST_WEIGHT", "ScoredCases", "choose_weights", "likely_weights", "move_weights"),
]
