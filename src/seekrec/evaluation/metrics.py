# SPDX-License-Identifier: Apache-2.0
"""Ranking metrics as plain functions of ranks, and bootstrap intervals for their means.

Every case has one relevant item, the target. All a metric needs of a case is the target's **rank**: a float64 that is
1 for the best, may be a half where scores tie, and infinite where the target was not found. With one relevant item
recall@k is also the hit ratio, and the ideal DCG is 1.

Tied items share the mean of the ranks they span: a system that gives every item the same score lands in the middle of
the list, never on top, whatever the order of the items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from seekrec.errors import ConfigurationError, DataError

FloatArray = npt.NDArray[np.float64]

DEFAULT_K = (1, 5, 10, 20)

# Bootstrap draws are made in pieces of this many, so that a million cases need no more memory than a thousand.
_DRAWS_PER_PIECE = 4_000_000


class Interval(NamedTuple):
    """An interval, both ends included."""

    low: float
    high: float


class PairedDifference(NamedTuple):
    """Mean of the differences of two systems over the same cases, with its bootstrap interval.

    `p_value` is two-sided: how likely so large a difference is if neither system is better.
    """

    difference: float
    interval: Interval
    p_value: float


def recall_at_k(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute recall@k, which is the hit ratio: 1 if the target is among the first `k`, else 0.

    Args:
        ranks (`ArrayLike`): Rank of the target of each case, `(num_cases,)`, 1 = best, infinite = not found.
        k (`int`): How many places count.

    Returns:
        `np.ndarray`: float64 of shape `(num_cases,)`; the mean is the metric.

    Raises:
        ConfigurationError: If `k` is below 1.
        DataError: If a rank is below 1 or no number.

    Example:
        >>> recall_at_k([1, 10, 11, float("inf")], k=10).tolist()
        [1.0, 1.0, 0.0, 0.0]
    """
    checked = _check_ranks(ranks, k)
    return (checked <= k).astype(np.float64)


def ndcg_at_k(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute NDCG@k for one relevant item: `1 / log2(1 + rank)` if the target is among the first `k`, else 0.

    Arguments, result and errors are those of [`recall_at_k`].

    Example:
        >>> ndcg_at_k([1, 3, 11], k=10).tolist()  # 1 / log2(2), 1 / log2(4), too late
        [1.0, 0.5, 0.0]
    """
    checked = _check_ranks(ranks, k)
    return np.where(checked <= k, 1 / np.log2(1 + checked), 0.0)


def mrr_at_k(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the reciprocal rank at k: `1 / rank` if the target is among the first `k`, else 0.

    Arguments, result and errors are those of [`recall_at_k`].

    Example:
        >>> mrr_at_k([1, 4, 11], k=10).tolist()
        [1.0, 0.25, 0.0]
    """
    checked = _check_ranks(ranks, k)
    return np.where(checked <= k, 1 / checked, 0.0)


METRICS: dict[str, Callable[[npt.ArrayLike, int], FloatArray]] = {
    "recall": recall_at_k,
    "ndcg": ndcg_at_k,
    "mrr": mrr_at_k,
}


def metric_values(ranks: npt.ArrayLike, name: str) -> FloatArray:
    """Compute a metric by its name in reports.

    Args:
        ranks (`ArrayLike`): As for [`recall_at_k`].
        name (`str`): `"recall@k"`, `"ndcg@k"` or `"mrr@k"` with a whole number for k.

    Returns:
        `np.ndarray`: float64 of shape `(num_cases,)`.

    Raises:
        ConfigurationError: If the name is none of these.

    Example:
        >>> metric_values([2], "mrr@5").tolist()
        [0.5]
    """
    kind, _, k = name.partition("@")
    if kind not in METRICS or not k.isdecimal():
        raise ConfigurationError(
            f"There is no metric {name!r}; use one of recall@k, ndcg@k, mrr@k, such as 'ndcg@10'."
        )
    return METRICS[kind](ranks, int(k))


def all_metric_values(ranks: npt.ArrayLike, k: Sequence[int] = DEFAULT_K) -> dict[str, FloatArray]:
    """Compute every metric at every k.

    Args:
        ranks (`ArrayLike`): As for [`recall_at_k`].
        k (`Sequence[int]`): The cuts.

    Returns:
        `dict[str, np.ndarray]`: `"recall@1"`, ..., `"mrr@20"`, each float64 of shape `(num_cases,)`.
    """
    return {f"{name}@{cut}": function(ranks, cut) for name, function in METRICS.items() for cut in k}


def ranks_from_scores(scores: npt.NDArray[Any], targets: npt.NDArray[Any]) -> FloatArray:
    """Rank each row's target among all items of the row, ties sharing their mean rank.

    `rank = 1 + #(higher) + #(other items with the same score) / 2`. A target with score -inf was ruled out: its rank
    is infinite.

    Args:
        scores (`np.ndarray`): Floats of shape `(num_cases, num_items)`; higher is better, -inf = never.
        targets (`np.ndarray`): Integer columns of shape `(num_cases,)`.

    Returns:
        `np.ndarray`: float64 ranks of shape `(num_cases,)`.

    Raises:
        DataError: If a score is NaN.

    Example:
        >>> scores = np.array([[0.9, 0.5, 0.5, 0.1], [3.0, 3.0, 3.0, 3.0]])
        >>> ranks_from_scores(scores, np.array([1, 0])).tolist()  # (2 + 3) / 2, (1 + 2 + 3 + 4) / 4
        [2.5, 2.5]
    """
    if np.isnan(scores.min(initial=np.inf)):  # the smallest is NaN if any is; quicker than a mask
        row, column = (int(index) for index in np.argwhere(np.isnan(scores))[0])
        raise DataError(
            f"The score of item column {column} in row {row} is NaN; a system must give every item a number, or -inf "
            "to rule it out."
        )
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    higher = np.count_nonzero(scores > own, axis=1)
    tied = np.count_nonzero(scores == own, axis=1) - 1  # without the target itself
    ranks: FloatArray = 1.0 + higher + tied / 2
    ranks[np.isneginf(own[:, 0])] = np.inf
    return ranks


def rank_in_list(item_ids: Sequence[str], scores: Sequence[float], target: str) -> float:
    """Rank the target in one answer, ties sharing their mean rank; infinite if the answer does not hold it.

    Args:
        item_ids (`Sequence[str]`): The answer, best first.
        scores (`Sequence[float]`): Their scores, never rising.
        target (`str`): The item looked for.

    Returns:
        `float`: The rank.

    Raises:
        DataError: If an item occurs twice, a score is NaN, or the scores rise.

    Example:
        >>> rank_in_list(["a", "b", "c"], [0.9, 0.5, 0.5], "c")
        2.5
    """
    if len(set(item_ids)) < len(item_ids):
        twice = next(item for position, item in enumerate(item_ids) if item in item_ids[:position])
        raise DataError(f"An answer holds the item {twice!r} twice; a system must give each item once.")
    values = np.asarray(scores, dtype=np.float64)
    # Written so that NaN, which compares false with everything, fails too.
    if not (values[:-1] >= values[1:]).all() or np.isnan(values).any():
        raise DataError(
            f"The scores of an answer are not in falling order: {[float(value) for value in values[:10]]}; a system "
            "must answer best first."
        )
    if target not in item_ids:
        return float("inf")
    own = values[item_ids.index(target)]
    if np.isneginf(own):
        return float("inf")
    higher, tied = int((values > own).sum()), int((values == own).sum()) - 1
    return 1.0 + higher + tied / 2


def bootstrap_intervals(
    values: Mapping[str, npt.ArrayLike], *, seed: int = 0, num_samples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Compute percentile bootstrap intervals of several means over the same cases, from the same resamples.

    Args:
        values (`Mapping[str, ArrayLike]`): Values of shape `(num_cases,)` by name.
        seed (`int`): Of the resampling. The same seed and number of cases give the same resamples.
        num_samples (`int`): Number of resamples.
        confidence (`float`): Share of the resampled means inside the interval, in (0, 1).

    Returns:
        `dict[str, Interval]`: The interval of each mean.

    Raises:
        DataError: If there are no cases.
        ConfigurationError: If `confidence` is not between 0 and 1 or `num_samples` is below 1.
    """
    if not values:
        return {}
    table = np.stack([np.asarray(column, dtype=np.float64) for column in values.values()], axis=1)
    means = _resample_means(table, seed, num_samples)
    lows, highs = np.quantile(means, _tails(confidence), axis=0)
    return {name: Interval(float(low), float(high)) for name, low, high in zip(values, lows, highs, strict=True)}


def bootstrap_interval(
    values: npt.ArrayLike, *, seed: int = 0, num_samples: int = 1000, confidence: float = 0.95
) -> Interval:
    """Compute the percentile bootstrap interval of one mean; see [`bootstrap_intervals`].

    Example:
        >>> bootstrap_interval([1.0, 1.0, 1.0])
        Interval(low=1.0, high=1.0)
    """
    intervals = bootstrap_intervals({"mean": values}, seed=seed, num_samples=num_samples, confidence=confidence)
    return intervals["mean"]


def paired_bootstrap(
    values_a: npt.ArrayLike,
    values_b: npt.ArrayLike,
    *,
    seed: int = 0,
    num_samples: int = 10_000,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two systems on the same cases by resampling the cases.

    Args:
        values_a (`ArrayLike`): A metric's values of system A, `(num_cases,)`.
        values_b (`ArrayLike`): The same of system B, cases in the same order.
        seed (`int`): Of the resampling.
        num_samples (`int`): Number of resamples; the smallest p-value is `2 / (num_samples + 1)`.
        confidence (`float`): Of the interval, in (0, 1).

    Returns:
        [`PairedDifference`]: Mean of A minus mean of B. The p-value is twice the share of resamples in which the
            difference does not have its sign (1 if there is none), counting the data themselves as one resample.

    Raises:
        DataError: If the numbers of cases differ or are 0.
        ConfigurationError: As in [`bootstrap_intervals`].
    """
    first, second = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if first.shape != second.shape:
        raise DataError(
            f"System A has values of shape {first.shape} and system B of {second.shape}; a paired comparison needs "
            "both on the same cases."
        )
    differences = first - second
    means = _resample_means(differences[:, None], seed, num_samples)[:, 0]
    low, high = np.quantile(means, _tails(confidence))
    not_above, not_below = int((means <= 0).sum()), int((means >= 0).sum())
    p_value = min(1.0, 2 * (1 + min(not_above, not_below)) / (num_samples + 1))
    return PairedDifference(float(differences.mean()), Interval(float(low), float(high)), p_value)


def _resample_means(table: FloatArray, seed: int, num_samples: int) -> FloatArray:
    """Draw `num_samples` resamples of the rows; give their means, `(num_samples, num_columns)`."""
    num_cases = len(table)
    if num_cases == 0:
        raise DataError("A bootstrap needs at least one case, got 0; evaluate a part that holds cases.")
    if num_samples < 1:
        raise ConfigurationError(f"`num_samples` is {num_samples}; a bootstrap needs at least 1.")
    generator = np.random.default_rng(seed)
    means = np.empty((num_samples, table.shape[1]))
    per_piece = max(1, _DRAWS_PER_PIECE // num_cases)
    for begin in range(0, num_samples, per_piece):
        size = min(per_piece, num_samples - begin)
        draws = generator.integers(0, num_cases, size=(size, num_cases))
        # How often each case was drawn: the mean of a resample is then one matrix product for all columns.
        draws += np.arange(size)[:, None] * num_cases
        counts = np.bincount(draws.ravel(), minlength=size * num_cases).reshape(size, num_cases)
        means[begin : begin + size] = counts.astype(np.float64) @ table / num_cases
    return means


def _tails(confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ConfigurationError(f"`confidence` is {confidence}; use a share between 0 and 1, such as 0.95.")
    return (1 - confidence) / 2, (1 + confidence) / 2


def _check_ranks(ranks: npt.ArrayLike, k: int) -> FloatArray:
    if k < 1:
        raise ConfigurationError(f"`k` is {k}; metrics need at least 1 place.")
    checked = np.asarray(ranks, dtype=np.float64)
    wrong = ~(checked >= 1)  # NaN is wrong too
    if wrong.any():
        raise DataError(
            f"The rank of case {int(np.argmax(wrong))} is {float(checked[np.argmax(wrong)])}; ranks start at 1, and "
            "an item that was not found has rank infinity."
        )
    return checked
