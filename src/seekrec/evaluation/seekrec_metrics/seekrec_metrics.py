# SPDX-License-Identifier: Apache-2.0
"""recall@k, ndcg@k and mrr@k of ranked lists with one relevant item, for `evaluate.load`.

A thin adapter: the formulas are those of `seekrec.evaluation.metrics`. `evaluate.load` copies this file and reads its
imports line by line, so each stands on a line of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate

from seekrec.errors import DataError
from seekrec.evaluation.metrics import DEFAULT_K, all_metric_values, rank_in_list

_DESCRIPTION = "recall@k (the hit ratio), ndcg@k and mrr@k of ranked lists of item ids with one relevant item each."
_INPUTS_DESCRIPTION = """
Args:
    predictions (`list[list[str]]`): Ranked item ids of each case, best first, no id twice.
    references (`list[str]`): The relevant item id of each case.
    k (`Sequence[int]`): The cuts; by default 1, 5, 10, 20.

Returns:
    `dict[str, float]`: `"recall@1"`, ..., `"mrr@20"`: means over the cases. An item that is not in the list is a miss.
"""


class SeekrecMetrics(evaluate.Metric):
    """Ranking metrics as an `evaluate` metric."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("string")), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: Sequence[Sequence[str]], references: Sequence[str], k: Sequence[int] = DEFAULT_K
    ) -> dict[str, float]:
        if len(predictions) == 0:
            raise DataError("There are no predictions; add at least one case.")
        ranks = []
        for ranked, relevant in zip(predictions, references, strict=True):
            falling = [-float(place) for place in range(len(ranked))]
            ranks.append(rank_in_list(list(ranked), falling, relevant))
        return {name: float(values.mean()) for name, values in all_metric_values(ranks, k).items()}
