# SPDX-License-Identifier: Apache-2.0
"""The ranking of validation cases that chooses a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from seekrec.catalog import Catalog, item_periods
from seekrec.errors import DataError
from seekrec.evaluation.evaluator import evaluate_cases
from seekrec.evaluation.metrics import SELECTION_METRIC
from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol, Retriever, Scorer, build_cases
from seekrec.events import Split
from seekrec.schema import BEHAVIORS, Behavior


class ValidationRanking:
    """Ranks the same validation cases again and again; what chooses a checkpoint.

    Args:
        split (`Split`): The split.
        catalog (`Catalog`): Its items.
        protocols (`Sequence[str]`): As for [`build_cases`].
        behaviors (`Sequence[str]`): Behaviors to rank; those without a validation case are left out.
        num_negatives (`int`): Negatives of a case, in sampled protocols.
        remove_seen (`bool`): Rule out the items of the history in full ranking.
        max_cases (`int`, *optional*): Cases of each behavior.
        available_only (`bool`): In full ranking, rule out items that are not available when a request is made.
        seed (`int`): Seed of the sample and the negatives.
    """

    def __init__(
        self,
        split: Split,
        catalog: Catalog,
        *,
        protocols: Sequence[RankingProtocol] = ("full",),
        behaviors: Sequence[Behavior] = BEHAVIORS,
        num_negatives: int = 99,
        remove_seen: bool = True,
        max_cases: int | None = None,
        available_only: bool = False,
        seed: int = 0,
    ) -> None:
        self.split = split
        self.id_map = catalog.id_map
        self.periods = item_periods(catalog.items) if available_only else None
        self._build_cases = partial(
            build_cases,
            split,
            self.id_map,
            part="validation",
            num_negatives=num_negatives,
            remove_seen=remove_seen,
            max_cases=max_cases,
            seed=seed,
        )
        self._asked = [
            (behavior, protocol)
            for behavior in behaviors
            for protocol in protocols
            if split.targets("validation", behavior)
        ]
        if not self._asked:
            raise DataError(
                f"The validation part of {split.log.name!r} contains no case of {' or '.join(behaviors)}, so it "
                "cannot select a model; split the log differently."
            )
        # Sampling negatives for all cases takes longer than ranking some of them, so it is done once.
        self._cases: list[EvaluationCases] = []

    def __call__(self, system: Scorer | Retriever) -> dict[str, float]:
        """Rank.

        Args:
            system (`Scorer` or `Retriever`): The model as it is now.

        Returns:
            `dict[str, float]`: NDCG@10 by behavior and protocol, and `ndcg@10`, the mean of all.
        """
        if not self._cases:
            self._cases = [
                self._build_cases(
                    behavior=behavior, protocol=protocol, periods=self.periods if protocol == "full" else None
                )
                for behavior, protocol in self._asked
            ]
        metrics = {}
        for (behavior, protocol), cases in zip(self._asked, self._cases, strict=True):
            (row,) = evaluate_cases({"model": system}, cases, self.split, self.id_map, show_progress=False)
            asked = behavior if protocol == "full" else f"{behavior}_{protocol}"
            metrics[f"{asked}_{SELECTION_METRIC}"] = row.metrics[SELECTION_METRIC]
        return {**metrics, SELECTION_METRIC: sum(metrics.values()) / len(metrics)}


__all__ = ["ValidationRanking"]
