# SPDX-License-Identifier: Apache-2.0
"""What every recipe evaluates: the rivals of a model, and the ranking of validation that chooses its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from seekrec.catalog import Catalog, item_periods
from seekrec.embeddings import LightGCNModel, SASRecForNextItem, embed_texts, load_semantic_encoder
from seekrec.errors import DataError
from seekrec.evaluation.baselines import BM25, DenseText, LightGCNScorer, Popularity, SASRecScorer
from seekrec.evaluation.evaluator import evaluate_system
from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol, Retriever, Scorer, build_cases
from seekrec.evaluation.reweighted import ReweightedBM25, ReweightedText
from seekrec.events import Split
from seekrec.schema import BEHAVIORS, SEARCH, Behavior


def rival_systems(
    split: Split,
    catalog: Catalog,
    sasrec: SASRecForNextItem,
    *,
    lightgcn: LightGCNModel | None = None,
    user_ids: Sequence[str] = (),
) -> dict[str, Scorer]:
    """Build the baselines of a data set.

    Args:
        split (`Split`): Its training events are counted; its validation searches tune the reweighted systems.
        catalog (`Catalog`): Items, with semantic embeddings.
        sasrec ([`SASRecForNextItem`]): Trained on the rows of the catalogue.
        lightgcn ([`LightGCNModel`], *optional*): Trained on the rows of the catalogue.
        user_ids (`Sequence[str]`): Users of its graph.

    Returns:
        `dict[str, Scorer]`: By their names in reports; the reweighted ones only where there are validation searches.
    """
    id_map = catalog.id_map
    texts = text_systems(catalog)
    prior = SASRecScorer(sasrec, id_map)
    systems: dict[str, Scorer] = {"popularity": Popularity.fit(split, id_map), **texts, "SASRec": prior}
    if lightgcn is not None:
        systems["LightGCN"] = LightGCNScorer(lightgcn, id_map, user_ids)
    if split.targets("validation", SEARCH):
        systems["BM25 x SASRec"] = ReweightedBM25(catalog.items, prior).fit(split, id_map, show_progress=False)
        systems["dense x SASRec"] = ReweightedText({"dense text": texts["dense text"]}, prior).fit(
            split, id_map, show_progress=False
        )
    return systems


def text_systems(catalog: Catalog) -> dict[str, Scorer]:
    """Build the baselines that know items by their text alone: BM25 of searches, and cosines of text vectors.

    Args:
        catalog (`Catalog`): Items, with semantic embeddings.
    """
    encoder = load_semantic_encoder(catalog.semantic_encoder_name)

    def embed(texts: list[str]) -> np.ndarray:
        return embed_texts(texts, encoder=encoder, show_progress=False)

    return {
        "BM25": BM25(catalog.items),
        "dense text": DenseText(catalog.embeddings["semantic"], catalog.id_map, embed),
    }


class ValidationRanking:
    """Ranks the same validation cases again and again; what chooses a checkpoint.

    Args:
        split (`Split`): The split.
        catalog (`Catalog`): Its items.
        protocols (`Sequence[str]`): As for [`build_cases`].
        behaviors (`Sequence[str]`): What is asked; behaviors without a validation case are left out.
        num_negatives (`int`): Negatives of a case, in sampled protocols.
        remove_seen (`bool`): Rule out the items of the history in full ranking.
        max_cases (`int`, *optional*): Cases of each behavior.
        on_offer_only (`bool`): In full ranking, rule out items that are not available when a request is made.
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
        on_offer_only: bool = False,
        seed: int = 0,
    ) -> None:
        self.split = split
        self.id_map = catalog.id_map
        self.periods = item_periods(catalog.items) if on_offer_only else None
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
                f"The validation part of {split.log.name!r} holds no case of {' or '.join(behaviors)}, so no model "
                "can be chosen by it; split the log otherwise."
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
            row = evaluate_system(system, self.split, self.id_map, cases=cases, show_progress=False)
            name = f"{behavior}_ndcg@10" if protocol == "full" else f"{behavior}_{protocol}_ndcg@10"
            metrics[name] = row.metrics["ndcg@10"]
        return {**metrics, "ndcg@10": sum(metrics.values()) / len(metrics)}


__all__ = ["ValidationRanking", "rival_systems", "text_systems"]
