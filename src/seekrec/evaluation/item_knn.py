# SPDX-License-Identifier: Apache-2.0
"""Recommend what the same users acted on: a baseline that is strong on many logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from seekrec.embeddings import ItemNeighbors
from seekrec.embeddings.item_knn import keep_largest
from seekrec.evaluation.baselines import Float32Array
from seekrec.evaluation.evaluator import rank_cases
from seekrec.evaluation.metrics import metric_values
from seekrec.evaluation.protocols import build_cases
from seekrec.events import Split
from seekrec.events.columns import history_rows
from seekrec.schema import RECOMMENDATION, Behavior, IdMap, Request

_NEIGHBORS = (20, 100, 500)
_DECAYS = (1.0, 0.95, 0.8, 0.6)
_VALIDATION_CASES = 2000


class ItemKNN:
    """Items that the same users acted on as the items of the history. Recommendations only.

    See [`ItemNeighbors`] for the scores.

    Args:
        neighbors ([`ItemNeighbors`]): The nearest of each item.
        id_map ([`IdMap`]): Items of the catalogue.
    """

    behaviors: tuple[Behavior, ...] = (RECOMMENDATION,)

    def __init__(self, neighbors: ItemNeighbors, id_map: IdMap) -> None:
        self.neighbors = neighbors
        self.id_map = id_map
        self.details: dict[str, object] = {"decay": neighbors.decay}

    @classmethod
    def fit(cls, split: Split, id_map: IdMap, *, whole: Iterable[Split] | None = None) -> ItemKNN:
        """Count who acted on what in training; choose the number of neighbours and the decay on validation.

        Args:
            split (`Split`): The split; its test part is not read.
            id_map ([`IdMap`]): Items of the catalogue.
            whole (`Iterable[Split]`, *optional*): All partitions, where `split` is one of them: they are counted.
        """
        nearest = ItemNeighbors.fit(split, id_map, num_neighbors=max(_NEIGHBORS), whole=whole)
        grid = {}
        for num_neighbors in _NEIGHBORS:
            kept = keep_largest(nearest.similarities, num_neighbors)
            for decay in _DECAYS:
                one = cls(ItemNeighbors(kept, decay=decay), id_map)
                one.details["num_neighbours"] = num_neighbors
                grid[f"{num_neighbors} neighbours, decay {decay}"] = one
        cases = build_cases(split, id_map, part="validation", behavior=RECOMMENDATION, max_cases=_VALIDATION_CASES)
        values = {
            name: metric_values(rank_cases(one, cases, id_map, name=name, show_progress=False), "ndcg@10").mean()
            for name, one in grid.items()
        }
        return grid[max(values, key=values.__getitem__)]

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score by the history alone; see [`Scorer`].

        Scores are logarithms, `log(sum / highest sum + 0.001)`: the order is that of the sums, and text scorers can be
        reweighted by them.
        """
        sums = self.neighbors.scores(history_rows(requests, self.id_map)).toarray()
        return np.log(sums / np.maximum(sums.max(axis=1, keepdims=True), 1e-12) + np.float32(1e-3))


__all__ = ["ItemKNN"]
