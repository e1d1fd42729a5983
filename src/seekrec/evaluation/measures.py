# SPDX-License-Identifier: Apache-2.0
"""Measures beyond the mean of a metric: the contents of the lists, and metrics for groups of cases.

Measures of the first ten items, each reported with its interval:

- `coverage@10`: share of the catalogue that appears in the list of any case;
- `novelty@10`: mean information of an item in bits, `-log2((count + 1) / (all counts + num_items))`;
- `diversity@10`: 1 minus the mean cosine of two items of a list, by their text vectors;
- `popularity@10`: mean share of the catalogue that is acted on less often than an item of the list (ties by half);
- `popularity_bias@10`: `popularity@10` minus the same for the target: above 0, answers are more popular than the
  targets.

Groups of cases: the third with the shortest and the third with the longest histories, targets with no or few training
events, and queries that are new in the test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from seekrec.evaluation.metrics import DEFAULT_K, FloatArray, Interval, all_metric_values, bootstrap_intervals
from seekrec.evaluation.protocols import BoolArray, EvaluationCases, Retriever, Scorer
from seekrec.evaluation.report import LIST_LENGTH, ResultRow
from seekrec.events.columns import RowArray, history_rows
from seekrec.events.query_log import QueryLog
from seekrec.schema import SEARCH, IdMap

# Targets with at most so many interactions in training are rare.
RARE = 5
_RESAMPLES = 200
_NORMAL_95 = 1.96
# Lists whose vectors exist at once.
_BLOCK_OF_LISTS = 256


def top_items(
    system: Scorer | Retriever, cases: EvaluationCases, id_map: IdMap, *, length: int = LIST_LENGTH
) -> RowArray:
    """Return the first items that a system answers each case with, in full ranking.

    Args:
        system (`Scorer` or `Retriever`): The system.
        cases ([`EvaluationCases`]): Cases of the whole catalogue.
        id_map ([`IdMap`]): Items of the catalogue.
        length (`int`): Items of a list.

    Returns:
        `np.ndarray`: int64 rows of the catalogue, `(num_cases, length)`, best first; -1 where a list is shorter. Tied
        items stand in the order of the catalogue.
    """
    lists = np.full((len(cases), length), -1, dtype=np.int64)
    size = cases.block_size(system)
    for begin in range(0, len(cases), size):
        block = np.arange(begin, min(begin + size, len(cases)))
        requests = cases.requests[begin : begin + size]
        if isinstance(system, Scorer):
            scores = np.array(system.score_all(requests), dtype=np.float32)
            cases.hide_ruled_out(scores, block)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :length]
            is_ruled_out = np.isneginf(np.take_along_axis(scores, best, axis=1))
            lists[block, : best.shape[1]] = np.where(is_ruled_out, -1, best)
        else:
            answers = system.retrieve(requests, top_k=length, where=cases.masks(block))
            for case, answer in zip(block.tolist(), answers, strict=True):
                lists[case, : len(answer)] = id_map.convert_to_rows(item.item_id for item in answer)
    return lists


def list_measures(
    lists: RowArray, targets: RowArray, counts: np.ndarray, vectors: np.ndarray, *, seed: int = 0
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Measure lists; see the top of this module.

    Args:
        lists (`np.ndarray`): int64 rows of the catalogue, `(num_cases, length)`, -1 for none.
        targets (`np.ndarray`): int64 row of what each case looks for.
        counts (`np.ndarray`): Interactions of each item in training, `(num_items,)`.
        vectors (`np.ndarray`): float32 text vectors of unit length, `(num_items, dimension)`.
        seed (`int`): Seed of the resamples.

    Returns:
        `tuple[dict, dict]`: Values and 95 % intervals by name. Cases without a list count in the coverage alone, cases
        with one item not in the diversity; a measure without a case is left out. That of the coverage is a normal one,
        its deviation from resamples of the cases: a resample covers less than all cases do.
    """
    num_items, length = len(counts), lists.shape[1]
    listed, columns = lists >= 0, np.maximum(lists, 0)
    sizes = listed.sum(axis=1)
    information = np.log2(counts.sum() + num_items) - np.log2(counts + 1.0)
    popularity = (rankdata(counts, method="average") - 0.5) / num_items

    def mean(values: FloatArray, cases: BoolArray) -> FloatArray:
        return (values[columns[cases]] * listed[cases]).sum(axis=1) / sizes[cases]

    has_items, has_pairs = sizes > 0, sizes > 1
    own = mean(popularity, has_items)
    by_case = {
        "novelty": mean(information, has_items),
        "diversity": _diversity(columns[has_pairs], listed[has_pairs], vectors),
        "popularity": own,
        "popularity_bias": own - popularity[targets[has_items]],
    }
    covered = _cover(lists, num_items)
    generator = np.random.default_rng(seed)
    resampled = [_cover(lists[generator.integers(len(lists), size=len(lists))], num_items) for _ in range(_RESAMPLES)]
    margin = _NORMAL_95 * float(np.std(resampled))
    values = {f"coverage@{length}": covered}
    intervals = {f"coverage@{length}": Interval(max(0.0, covered - margin), min(1.0, covered + margin))}
    for name, column in by_case.items():
        if len(column):
            values[f"{name}@{length}"] = float(column.mean())
            intervals |= bootstrap_intervals({f"{name}@{length}": column}, seed=seed)
    return values, intervals


@dataclass(frozen=True, eq=False)
class CaseTraits:
    """What cases are told apart by.

    Args:
        lengths (`np.ndarray`): int64 length of each history.
        target_rows (`np.ndarray`): int64 row of what each looks for.
        is_known (`np.ndarray`, *optional*): bool of each search: the query was typed in training.
    """

    lengths: RowArray
    target_rows: RowArray
    is_known: BoolArray | None = None

    @classmethod
    def of(cls, cases: EvaluationCases, id_map: IdMap, query_log: QueryLog | None = None) -> CaseTraits:
        """Read them from cases.

        Args:
            cases ([`EvaluationCases`]): The cases.
            id_map ([`IdMap`]): Items of the catalogue.
            query_log ([`QueryLog`], *optional*): Knows the queries of training; not asked of recommendations.
        """
        is_known = None
        if query_log is not None and cases.behavior == SEARCH:
            is_known = query_log.knows([request.query or "" for request in cases.requests])
        return cls(history_rows(cases.requests, id_map).lengths, cases.target_rows, is_known)


def case_groups(traits: CaseTraits, counts: np.ndarray) -> dict[str, BoolArray]:
    """Name groups of cases; see the top of this module.

    Args:
        traits ([`CaseTraits`]): Of the cases.
        counts (`np.ndarray`): Interactions of each item in training, `(num_items,)`.

    Returns:
        `dict[str, np.ndarray]`: bool, an entry a case, by name; groups of no case or of all are left out.
    """
    lengths, seen = traits.lengths, counts[traits.target_rows]
    low, high = (int(np.quantile(lengths, share, method="inverted_cdf")) for share in (1 / 3, 2 / 3))
    groups: dict[str, BoolArray] = {
        f"histories up to {low}": lengths <= low,
        f"histories above {high}": lengths > high,
        "items never seen": seen == 0,
        f"items seen 1 to {RARE} times": (seen > 0) & (seen <= RARE),
        f"items seen above {RARE} times": seen > RARE,
    }
    if traits.is_known is not None:
        groups |= {"first-time queries": ~traits.is_known, "repeated queries": traits.is_known}
    return {name: mask for name, mask in groups.items() if mask.any() and not mask.all()}


def group_rows(rows: Sequence[ResultRow], groups: Mapping[str, BoolArray]) -> list[ResultRow]:
    """Cut rows to groups of their cases.

    Args:
        rows (`Sequence[ResultRow]`): Rows with ranks, all of the same cases.
        groups (`Mapping[str, np.ndarray]`): What [`case_groups`] returns for these cases.

    Returns:
        `list[ResultRow]`: By group, then system; the protocol ends with the name of the group.
    """
    found = []
    for name, mask in groups.items():
        for row in rows:
            if row.ranks is None:
                continue
            ranks = row.ranks[mask]
            values = all_metric_values(ranks, DEFAULT_K)
            digest = hashlib.sha256(f"{row.cases_fingerprint};{name};".encode() + np.packbits(mask).tobytes())
            found.append(
                replace(
                    row,
                    protocol=f"{row.protocol}, {name}",
                    cases_fingerprint=digest.hexdigest()[:16],
                    num_cases=len(ranks),
                    metrics={metric: float(column.mean()) for metric, column in values.items()},
                    intervals=bootstrap_intervals(values, seed=row.seed),
                    details=dict(row.details),
                    ranks=ranks,
                )
            )
    return found


def measure_rows(
    rows: Sequence[ResultRow],
    systems: Mapping[str, Scorer | Retriever],
    cases: EvaluationCases,
    id_map: IdMap,
    *,
    counts: np.ndarray,
    vectors: np.ndarray,
    query_log: QueryLog | None = None,
) -> list[ResultRow]:
    """Add the measures of lists to rows of full ranking, and the rows of groups of their cases.

    Args:
        rows (`Sequence[ResultRow]`): Rows of these cases; their `metrics` and `intervals` get the measures.
        systems (`Mapping[str, Scorer or Retriever]`): The systems of the rows, by name.
        cases ([`EvaluationCases`]): The cases.
        id_map ([`IdMap`]): Items of the catalogue.
        counts (`np.ndarray`): Interactions of each item in training, `(num_items,)`.
        vectors (`np.ndarray`): float32 text vectors of unit length, `(num_items, dimension)`.
        query_log ([`QueryLog`], *optional*): Knows the queries of training.

    Returns:
        `list[ResultRow]`: The rows of groups.
    """
    own = [row for row in rows if row.cases_fingerprint == cases.fingerprint and row.behavior == cases.behavior]
    lists = {row.system: top_items(systems[row.system], cases, id_map) for row in own if row.system in systems}
    return add_measures(own, lists, CaseTraits.of(cases, id_map, query_log), counts=counts, vectors=vectors)


def add_measures(
    rows: Sequence[ResultRow],
    lists: Mapping[str, RowArray],
    traits: CaseTraits,
    *,
    counts: np.ndarray,
    vectors: np.ndarray,
) -> list[ResultRow]:
    """Add the measures of lists that are there; see [`measure_rows`].

    Args:
        rows (`Sequence[ResultRow]`): Rows of the same cases; their `metrics` and `intervals` get the measures.
        lists (`Mapping[str, np.ndarray]`): By system, what [`top_items`] returns.
        traits ([`CaseTraits`]): Of the cases.
        counts (`np.ndarray`): Interactions of each item in training, `(num_items,)`.
        vectors (`np.ndarray`): float32 text vectors of unit length, `(num_items, dimension)`.

    Returns:
        `list[ResultRow]`: The rows of groups.
    """
    for row in rows:
        if row.system in lists:
            values, intervals = list_measures(lists[row.system], traits.target_rows, counts, vectors, seed=row.seed)
            row.metrics.update(values)
            row.intervals.update(intervals)
    return group_rows(rows, case_groups(traits, counts))


def _cover(lists: RowArray, num_items: int) -> float:
    is_listed = np.zeros(num_items + 1, dtype=np.bool_)
    is_listed[lists] = True  # -1 is the last, which is not an item
    return float(is_listed[:-1].sum() / num_items)


def _diversity(columns: RowArray, listed: BoolArray, vectors: np.ndarray) -> FloatArray:
    """Return 1 less the mean cosine of the pairs of each list: the square of a sum contains each pair twice."""
    found = np.empty(len(columns))
    for begin in range(0, len(columns), _BLOCK_OF_LISTS):
        block = slice(begin, begin + _BLOCK_OF_LISTS)
        own = vectors[columns[block]].astype(np.float64) * listed[block][:, :, None]
        number = listed[block].sum(axis=1)
        pairs = (own.sum(axis=1) ** 2).sum(axis=1) - (own**2).sum(axis=(1, 2))
        found[block] = 1 - pairs / (number * (number - 1))
    return found


__all__ = ["CaseTraits", "add_measures", "case_groups", "group_rows", "list_measures", "measure_rows", "top_items"]
