# SPDX-License-Identifier: Apache-2.0
"""Recommend items that the same users acted on: a baseline that is strong on many logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from seekrec.embeddings import ItemNeighbors, NeighborTables
from seekrec.embeddings.item_knn import MOST_NEIGHBORS, Nearness, keep_each, keep_largest
from seekrec.evaluation.baselines import Float32Array
from seekrec.evaluation.evaluator import cut_scores
from seekrec.evaluation.metrics import SELECTION_METRIC, metric_values, ranks_from_scores
from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol
from seekrec.events.columns import history_rows
from seekrec.schema import RECOMMENDATION, Behavior, IdMap, Request
from seekrec.util.ragged import Ragged

# What validation chooses from.
_NUMBERS, _DECAYS = (20, 50, 100, MOST_NEIGHBORS), (0.95, 0.9, 0.8, 0.6)


class ItemKNN:
    """Items that the same users acted on as the items of the history. Recommendations only.

    See [`ItemNeighbors`] for the scores.

    Args:
        neighbors ([`ItemNeighbors`]): The nearest of each item.
        id_map ([`IdMap`]): Items of the catalogue.
        nearness (`str`): The table that they are of; see [`NeighborTables`].
        num_neighbors (`int`): How many an item has at most.
    """

    behaviors: tuple[Behavior, ...] = (RECOMMENDATION,)

    def __init__(
        self,
        neighbors: ItemNeighbors,
        id_map: IdMap,
        *,
        nearness: Nearness = "users",
        num_neighbors: int = MOST_NEIGHBORS,
    ) -> None:
        self.neighbors = neighbors
        self.id_map = id_map
        self.nearness = nearness
        self.num_neighbors = num_neighbors
        self.details: dict[str, object] = {"decay": neighbors.decay, "num_neighbours": num_neighbors}
        self.by_protocol: dict[RankingProtocol, ItemKNN] = {}

    @classmethod
    def fit(
        cls,
        tables: NeighborTables,
        nearness: Nearness,
        cases: Mapping[RankingProtocol, EvaluationCases],
        id_map: IdMap,
    ) -> ItemKNN:
        """Choose the number of neighbours and the decay, of each protocol by itself.

        Args:
            tables ([`NeighborTables`]): Who acted on what in training.
            nearness (`str`): The table to read.
            cases (`Mapping`): By protocol, as [`Tuning`] makes them. What is chosen for the first is returned;
                `by_protocol` of it holds all.
            id_map ([`IdMap`]): Items of the catalogue.
        """
        grid = [
            cls(ItemNeighbors(kept, decay=decay), id_map, nearness=nearness, num_neighbors=number)
            for number, kept in keep_each(tables.tables[nearness], _NUMBERS).items()
            for decay in _DECAYS
        ]
        by_protocol = {name: _best_of(grid, own, id_map) for name, own in cases.items()}
        chosen = next(iter(by_protocol.values()))
        chosen.by_protocol = by_protocol
        return chosen

    def relearn(self, tables: NeighborTables) -> None:
        """Read the neighbours of other tables as those of before were read."""
        kept = keep_largest(tables.tables[self.nearness], self.num_neighbors)
        self.neighbors = ItemNeighbors(kept, decay=self.neighbors.decay)

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score by the history alone; see [`Scorer`].

        Scores are logarithms, `log(sum / highest sum + 0.001)`: the order is that of the sums, and text scorers can be
        reweighted by them.
        """
        return self.score(history_rows(requests, self.id_map))

    def score(self, histories: Ragged) -> Float32Array:
        """Score all items for histories of rows, oldest first; see `score_all`."""
        sums = self.neighbors.scores(histories).toarray()
        return np.log(sums / np.maximum(sums.max(axis=1, keepdims=True), 1e-12) + np.float32(1e-3))


def _best_of(grid: Sequence[ItemKNN], cases: EvaluationCases, id_map: IdMap) -> ItemKNN:
    histories = history_rows(cases.requests, id_map)
    ranks = np.empty((len(grid), len(cases), 2))
    size = cases.block_size()
    for begin in range(0, len(cases), size):
        block = np.arange(begin, min(begin + size, len(cases)))
        own = histories.take(block)
        for number, one in enumerate(grid):
            ranks[number, block] = ranks_from_scores(*cut_scores(one.score(own), cases, block))
    return grid[int(np.argmax([metric_values(line, SELECTION_METRIC).mean() for line in ranks]))]


__all__ = ["ItemKNN"]
