# SPDX-License-Identifier: Apache-2.0
"""Ranking metrics as plain functions of ranks, and bootstrap intervals for their means.

Every case has one relevant item, the target. A metric needs only the **ranks** that the target can have: from the
first (1 for the best) to the last of the items with its score; they are equal without ties, and both infinite if the
target was not found. With one relevant item recall@k is also the hit ratio, and the ideal DCG is 1.

The metric of a tie is its mean over all orders of the tied items, as in scikit-learn's `ndcg_score`: a system that
gives `n` items the same score has recall@k of `min(1, k / n)`, whatever the order of the items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seekrec.errors import ConfigurationError, DataError

FloatArray = npt.NDArray[np.float64]

DEFAULT_K = (1, 5, 10, 20)

# What validation chooses by: checkpoints, weights, heads. Its interval stands in the tables.
SELECTION_METRIC = "ndcg@10"

# Bootstrap draws are made in pieces of this many, so that a million cases need no more memory than a thousand.
_DRAWS_PER_PIECE = 4_000_000


class RankSpan(NamedTuple):
    """The ranks that a target can have among the items that share its score; both infinite if it was not found."""

    first: float
    last: float


NOT_FOUND = RankSpan(np.inf, np.inf)


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

    In a tie it is the share of the tied ranks that are among the first `k`.

    Args:
        ranks (`ArrayLike`):
            First and last rank of the target of each case, `(num_cases, 2)`, as [`ranks_from_scores`] returns them; or
            of shape `(num_cases,)` where nothing ties. 1 = best, infinite = not found.
        k (`int`): Number of positions that count.

    Returns:
        `np.ndarray`: float64 of shape `(num_cases,)`; the mean is the metric.

    Raises:
        ConfigurationError: If `k` is below 1.
        DataError: If a rank is not a whole number of at least 1, or a last rank is before its first.

    Example:
        >>> recall_at_k([1, 10, 11, float("inf")], k=10).tolist()
        [1.0, 1.0, 0.0, 0.0]
        >>> recall_at_k([(9, 12)], k=10).tolist()  # four items share these ranks, two of which count
        [0.5]
    """
    return _mean_over_tie(ranks, k, lambda rank: np.ones_like(rank))


def ndcg_at_k(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute NDCG@k for one relevant item: `1 / log2(1 + rank)` if the target is among the first `k`, else 0.

    In a tie it is the mean over the tied ranks. Arguments, result and errors are those of [`recall_at_k`].

    Example:
        >>> ndcg_at_k([1, 3, 11], k=10).tolist()  # 1 / log2(2), 1 / log2(4), too late
        [1.0, 0.5, 0.0]
    """
    return _mean_over_tie(ranks, k, lambda rank: 1 / np.log2(1 + rank))


def mrr_at_k(ranks: npt.ArrayLike, k: int) -> FloatArray:
    """Compute the reciprocal rank at k: `1 / rank` if the target is among the first `k`, else 0.

    In a tie it is the mean over the tied ranks. Arguments, result and errors are those of [`recall_at_k`].

    Example:
        >>> mrr_at_k([1, 4, 11], k=10).tolist()
        [1.0, 0.25, 0.0]
        >>> mrr_at_k([(1, 2)], k=10).tolist()  # (1 + 1 / 2) / 2
        [0.75]
    """
    return _mean_over_tie(ranks, k, lambda rank: 1 / rank)


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
        ConfigurationError: If the name is not one of these.

    Example:
        >>> metric_values([2], "mrr@5").tolist()
        [0.5]
    """
    kind, _, k = name.partition("@")
    if kind not in METRICS or not k.isdecimal():
        raise ConfigurationError(f"Unknown metric {name!r}; use one of recall@k, ndcg@k, mrr@k, such as 'ndcg@10'.")
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


def ranks_from_scores(scores: np.ndarray, targets: np.ndarray) -> FloatArray:
    """Rank each row's target among all items of the row.

    `first = 1 + #(higher)`, `last = first + #(other items with the same score)`. A target with score -inf was ruled
    out: its ranks are infinite.

    Args:
        scores (`np.ndarray`): Floats of shape `(num_cases, num_items)`; higher is better, -inf = never.
        targets (`np.ndarray`): Integer columns of shape `(num_cases,)`.

    Returns:
        `np.ndarray`: float64 of shape `(num_cases, 2)`: first and last rank of each target.

    Raises:
        DataError: If a score is NaN.

    Example:
        >>> scores = np.array([[0.9, 0.5, 0.5, 0.1], [3.0, 3.0, 3.0, 3.0]])
        >>> ranks_from_scores(scores, np.array([1, 0])).tolist()
        [[2.0, 3.0], [1.0, 4.0]]
    """
    if np.isnan(scores.min(initial=np.inf)):  # the smallest is NaN if any is; quicker than a mask
        row, column = (int(index) for index in np.argwhere(np.isnan(scores))[0])
        raise DataError(
            f"The score of item column {column} in row {row} is NaN; a system must score every item with a number, "
            "or -inf to rule it out."
        )
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    higher, not_lower = np.count_nonzero(scores > own, axis=1), np.count_nonzero(scores >= own, axis=1)
    ranks = np.stack([1.0 + higher, not_lower], axis=1)  # the target itself is not lower
    ranks[np.isneginf(own[:, 0])] = np.inf
    return ranks


def rank_in_list(item_ids: Sequence[str], scores: Sequence[float], target: str) -> RankSpan:
    """Rank the target in one answer; infinite if the answer does not contain it.

    Of a tie that continues past the end of the answer only the part in the answer is seen.

    Args:
        item_ids (`Sequence[str]`): The answer, best first.
        scores (`Sequence[float]`): Their scores, never rising.
        target (`str`): The item looked for.

    Returns:
        [`RankSpan`]: First and last rank that the target can have.

    Raises:
        DataError: If an item occurs twice, a score is NaN, or the scores rise.

    Example:
        >>> rank_in_list(["a", "b", "c"], [0.9, 0.5, 0.5], "c")
        RankSpan(first=2.0, last=3.0)
    """
    if len(set(item_ids)) < len(item_ids):
        twice = next(item for position, item in enumerate(item_ids) if item in item_ids[:position])
        raise DataError(f"An answer contains the item {twice!r} twice; a system must return each item once.")
    values = np.asarray(scores, dtype=np.float64)
    # Written so that NaN, which compares false with everything, fails too.
    if not (values[:-1] >= values[1:]).all() or np.isnan(values).any():
        raise DataError(
            f"The scores of an answer are not in descending order: {[float(value) for value in values[:10]]}; a "
            "system must return the best item first."
        )
    if target not in item_ids:
        return NOT_FOUND
    own = values[item_ids.index(target)]
    if np.isneginf(own):
        return NOT_FOUND
    return RankSpan(1.0 + int((values > own).sum()), float((values >= own).sum()))


def bootstrap_intervals(
    values: Mapping[str, npt.ArrayLike], *, seed: int = 0, num_samples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Compute percentile bootstrap intervals of several means over the same cases, from the same resamples.

    Args:
        values (`Mapping[str, ArrayLike]`): Values of shape `(num_cases,)` by name.
        seed (`int`): Seed of the resampling. The same seed and number of cases give the same resamples.
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
        seed (`int`): Seed of the resampling.
        num_samples (`int`): Number of resamples; the smallest p-value is `2 / (num_samples + 1)`.
        confidence (`float`): Confidence of the interval, in (0, 1).

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
    """Draw `num_samples` resamples of the rows and return their means, `(num_samples, num_columns)`."""
    num_cases = len(table)
    if num_cases == 0:
        raise DataError("A bootstrap needs at least one case, got 0; evaluate a part with cases.")
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


def _mean_over_tie(ranks: npt.ArrayLike, k: int, gain: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the mean of `gain` over the ranks from first to last; a rank behind `k` gains 0."""
    first, last = _check_ranks(ranks, k).T
    gains = np.concatenate([[0.0], gain(np.arange(1.0, k + 1)), [0.0]])  # by rank; the last stands for all behind k
    # Gains of all ranks up to each one. An untied rank reads its own: no rounding of sums.
    sums = np.cumsum(gains)
    begin, end = (np.minimum(rank, k + 1).astype(np.int64) for rank in (first, last))
    is_tied = last > first
    sizes = np.where(is_tied, last, 1.0) - np.where(is_tied, first, 1.0) + 1
    return np.where(is_tied, (sums[end] - sums[begin - 1]) / sizes, gains[begin])


def _check_ranks(ranks: npt.ArrayLike, k: int) -> FloatArray:
    if k < 1:
        raise ConfigurationError(f"`k` is {k}; it must be at least 1.")
    checked = np.asarray(ranks, dtype=np.float64)
    if checked.ndim == 1:
        checked = np.stack([checked, checked], axis=1)
    if checked.ndim != 2 or checked.shape[1] != 2:
        raise DataError(
            f"`ranks` has shape {checked.shape}; pass the first and last rank of each case, of shape (num_cases, 2), "
            "or one rank for each case."
        )
    first, last = checked.T
    # NaN and halves are wrong too: the mean rank of a tie does not tell how many items share it.
    wrong = ~(
        (first >= 1)
        & (last >= first)
        & (np.isinf(first) == np.isinf(last))
        & (np.floor(checked) == checked).all(axis=1)
    )
    if wrong.any():
        case = int(np.argmax(wrong))
        shown = " to ".join(dict.fromkeys(f"{rank:g}" for rank in checked[case]))
        raise DataError(
            f"The rank of case {case} is {shown}; ranks are whole numbers from 1, first before last, and an item that "
            "was not found has rank infinity."
        )
    return checked
