# SPDX-License-Identifier: Apache-2.0
"""Reference rows of a table that are not baselines but help to interpret its numbers.

A ceiling is given what a search engine has to find out: which items a synthetic query was made for. A correction only
knows how negatives are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_array

from seekrec.evaluation.baselines import Float32Array, distinct_queries
from seekrec.evaluation.metrics import SELECTION_METRIC, metric_values, ranks_from_scores
from seekrec.evaluation.protocols import RankingProtocol, Scorer, build_cases
from seekrec.events import Split, category_queries
from seekrec.schema import BEHAVIORS, SEARCH, Behavior, IdMap, Request

_DRAW_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_VALIDATION_CASES = 2000


class QueryGroup:
    """The items that a synthetic query was made for: 1, all others 0. Searches only.

    Args:
        groups (`scipy.sparse.csr_array`): float32 of shape `(num_queries, num_items)`.
        queries (`Sequence[str]`): Distinct queries, in the order of the rows.
    """

    behaviors: tuple[Behavior, ...] = (SEARCH,)

    def __init__(self, groups: csr_array, queries: Sequence[str]) -> None:
        self.groups = groups
        self._numbers = {query: number for number, query in enumerate(queries)}

    @classmethod
    def of_items(cls, items: pa.Table, id_map: IdMap) -> QueryGroup:
        """Make the groups of the queries of [`category_queries`].

        Args:
            items (`pyarrow.Table`): Items of the log.
            id_map ([`IdMap`]): Items of the catalogue.
        """
        queries = category_queries(items)
        rows = id_map.convert_to_rows(items["item_id"].to_pylist(), strict=False)
        flat = pa.array([query for own in queries for query in own], pa.string()).dictionary_encode()
        columns = np.repeat(rows, [len(own) for own in queries])
        numbers, known = np.asarray(flat.indices).astype(np.int64), columns >= 0
        values = np.ones(int(known.sum()), np.float32)
        shape = (len(flat.dictionary), len(id_map))
        groups = csr_array((values, (numbers[known], columns[known])), shape=shape)
        groups.data[:] = 1  # an item may bring a query twice
        return cls(groups, flat.dictionary.to_pylist())

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score the group of each query; see [`Scorer`]."""
        queries, inverse = distinct_queries(requests, "a query group")
        numbers = np.array([self._numbers.get(query, -1) for query in queries], dtype=np.int64)
        scores = np.zeros((len(queries), self.groups.shape[1]), dtype=np.float32)
        scores[numbers >= 0] = self.groups[numbers[numbers >= 0]].toarray()
        return scores[inverse]


class DrawCorrection:
    """A system less `weight * log(1 + how often an item is drawn as a negative)`, in the protocol `bm25` alone.

    Args:
        system ([`Scorer`]): The system.
        draws (`Mapping[str, np.ndarray]`): By behavior: how often each item of the catalogue was drawn.
        weights (`Mapping[str, float]`): By behavior: the weight.
    """

    protocols: tuple[RankingProtocol, ...] = ("bm25",)

    def __init__(
        self, system: Scorer, draws: Mapping[Behavior, np.ndarray], weights: Mapping[Behavior, float]
    ) -> None:
        self.system = system
        self.corrections = {
            behavior: (weight * np.log1p(draws[behavior])).astype(np.float32) for behavior, weight in weights.items()
        }
        self.behaviors = tuple(behavior for behavior in BEHAVIORS if behavior in weights)
        self.details: dict[str, object] = {"weights": dict(weights)}

    @classmethod
    def fit(
        cls,
        system: Scorer,
        split: Split,
        id_map: IdMap,
        *,
        num_negatives: int = 99,
        counts: np.ndarray | None = None,
    ) -> DrawCorrection:
        """Count the negatives of validation and choose the weight of each behavior there.

        Args:
            system ([`Scorer`]): The system.
            split (`Split`): The split; its test part is not read.
            id_map ([`IdMap`]): Items of the catalogue.
            num_negatives (`int`): Negatives a case.
            counts (`np.ndarray`, *optional*): See [`build_cases`].
        """
        draws: dict[Behavior, np.ndarray] = {}
        weights: dict[Behavior, float] = {}
        for behavior in system.behaviors:
            if not split.targets("validation", behavior):
                continue
            cases = build_cases(
                split,
                id_map,
                part="validation",
                behavior=behavior,
                protocol="bm25",
                num_negatives=num_negatives,
                max_cases=_VALIDATION_CASES,
                counts=counts,
            )
            candidates = np.asarray(cases.candidate_rows)
            draws[behavior] = count_draws(candidates, cases.target_rows, cases.num_items)
            own = np.argmax(candidates == cases.target_rows[:, None], axis=1)
            columns = np.maximum(candidates, 0)
            often = np.log1p(draws[behavior])[columns]
            size = cases.block_size()
            scores = np.concatenate(
                [
                    np.take_along_axis(
                        system.score_all(cases.requests[begin : begin + size]), columns[begin : begin + size], axis=1
                    )
                    for begin in range(0, len(cases), size)
                ]
            )
            scores = np.where(candidates >= 0, scores, -np.inf)
            values = [
                metric_values(ranks_from_scores(scores - weight * often, own), SELECTION_METRIC).mean()
                for weight in _DRAW_WEIGHTS
            ]
            weights[behavior] = _DRAW_WEIGHTS[int(np.argmax(values))]
        return cls(system, draws, weights)

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Correct the system's scores; see [`Scorer`]."""
        behavior = requests[0].behavior
        return np.asarray(self.system.score_all(requests) - self.corrections[behavior], dtype=np.float32)


def count_draws(candidates: np.ndarray, targets: np.ndarray, num_items: int) -> npt.NDArray[np.int64]:
    """Count how often each item was drawn as a negative.

    Args:
        candidates (`np.ndarray`): int64 rows of the catalogue, `(num_cases, num_candidates)`; -1 for none.
        targets (`np.ndarray`): int64 row of each case's target, which is no negative.
        num_items (`int`): Items of the catalogue.

    Returns:
        `np.ndarray`: int64 of shape `(num_items,)`.
    """
    is_negative = (candidates >= 0) & (candidates != targets[:, None])
    return np.bincount(candidates[is_negative], minlength=num_items)


__all__ = ["DrawCorrection", "QueryGroup", "count_draws"]
