# SPDX-License-Identifier: Apache-2.0
"""Items that the same users acted on: the oldest recommender, and on many logs a strong one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_array, vstack

from seekrec.embeddings import interaction_graph
from seekrec.evaluation.baselines import Float32Array
from seekrec.evaluation.evaluator import rank_cases
from seekrec.evaluation.metrics import metric_values
from seekrec.evaluation.protocols import build_cases
from seekrec.events import Split
from seekrec.events.columns import history_rows
from seekrec.schema import RECOMMENDATION, Behavior, IdMap, Request

_NEIGHBOURS = (20, 100, 500)
_DECAYS = (1.0, 0.95, 0.8, 0.6)
_VALIDATION_CASES = 2000
# Items whose co-occurrences with all others exist at once.
_ITEM_BLOCK = 1024


class ItemKNN:
    """Items that the same users acted on as the items of the history. Recommendations only.

    The similarity of two items is the cosine of their columns in the table of users and items (1 = acted on in
    training). A score sums the similarities of an item to those of the history of which it is one of the nearest,
    each weighted by `decay` to the power of how many events ago it was acted on last.

    Args:
        similarities (`scipy.sparse.csr_array`): float32 of shape `(num_items, num_items)`: row `i` holds the nearest
            of item `i`.
        id_map ([`IdMap`]): Items of the catalogue.
        decay (`float`): Weight of an item of the history against the one after it, above 0 and at most 1.
    """

    behaviors: tuple[Behavior, ...] = (RECOMMENDATION,)

    def __init__(self, similarities: csr_array, id_map: IdMap, *, decay: float = 1.0) -> None:
        self.similarities = similarities
        self.id_map = id_map
        self.decay = decay
        self.details: dict[str, object] = {"decay": decay}

    @classmethod
    def fit(cls, split: Split, id_map: IdMap, *, whole: Iterable[Split] | None = None) -> ItemKNN:
        """Count who acted on what in training; choose the number of neighbours and the decay on validation.

        Args:
            split (`Split`): The split; its test part is not read.
            id_map ([`IdMap`]): Items of the catalogue.
            whole (`Iterable[Split]`, *optional*): All partitions, where `split` is one of them: they are counted.
        """
        acted = []
        for part in [split] if whole is None else whole:
            graph = interaction_graph(part, id_map)
            shape = (len(graph.user_ids), len(id_map))
            acted.append(csr_array((np.ones(len(graph.users), np.float32), (graph.users, graph.items)), shape=shape))
        nearest = item_cosines(csr_array(vstack(acted, format="csr")), max(_NEIGHBOURS))
        grid = {}
        for num_neighbours in _NEIGHBOURS:
            kept = keep_largest(nearest, num_neighbours)
            for decay in _DECAYS:
                one = cls(kept, id_map, decay=decay)
                one.details["num_neighbours"] = num_neighbours
                grid[f"{num_neighbours} neighbours, decay {decay}"] = one
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
        histories = history_rows(requests, self.id_map)
        age = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.values))
        # The youngest of each pair of request and item: its last mention.
        pairs = histories.owners() * len(self.id_map) + histories.values
        pairs, last = np.unique(pairs[::-1], return_index=True)
        weights = self.decay ** age[::-1][last].astype(np.float64)
        rows, columns = np.divmod(pairs, len(self.id_map))
        asked = csr_array((weights.astype(np.float32), (rows, columns)), shape=(len(requests), len(self.id_map)))
        sums = np.asarray((asked @ self.similarities).toarray(), dtype=np.float32)
        return np.log(sums / np.maximum(sums.max(axis=1, keepdims=True), 1e-12) + np.float32(1e-3))


def item_cosines(acted: csr_array, num_neighbours: int) -> csr_array:
    """Compute the nearest items of each by the cosine of their columns.

    Args:
        acted (`scipy.sparse.csr_array`): float32 of shape `(num_users, num_items)`.
        num_neighbours (`int`): How many to keep of each item; ties go to the lower row.

    Returns:
        `scipy.sparse.csr_array`: float32 of shape `(num_items, num_items)`, without the items themselves.
    """
    num_items = acted.shape[1]
    lengths = np.sqrt(np.asarray(acted.multiply(acted).sum(axis=0)).ravel())
    unit = acted.multiply(1 / np.maximum(lengths, 1e-12)).tocsr()
    by_item = unit.T.tocsr()
    blocks = []
    for begin in range(0, num_items, _ITEM_BLOCK):
        block = (by_item[begin : begin + _ITEM_BLOCK] @ unit).tocoo()
        others = block.row + begin != block.col
        entries = (block.data[others], (block.row[others], block.col[others]))
        blocks.append(keep_largest(csr_array(entries, shape=block.shape), num_neighbours))
    return csr_array(vstack(blocks, format="csr"))


def keep_largest(table: csr_array, number: int) -> csr_array:
    """Keep the largest entries of each row; ties go to the lower column."""
    entries = table.tocoo()
    order = np.lexsort((entries.col, -entries.data, entries.row))
    rows = entries.row[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    order = order[place < number]
    return csr_array((entries.data[order], (entries.row[order], entries.col[order])), shape=table.shape)


__all__ = ["ItemKNN", "item_cosines", "keep_largest"]
