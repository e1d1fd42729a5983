# SPDX-License-Identifier: Apache-2.0
"""The systems of a comparison: our models as retrievers, and the baselines of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from seekrec.catalog import Catalog
from seekrec.embeddings import LightGCNModel, SASRecForNextItem, embed_texts, load_semantic_encoder
from seekrec.errors import ConfigurationError
from seekrec.evaluation.baselines import BM25, DenseText, LightGCNScorer, Popularity, SASRecScorer
from seekrec.evaluation.protocols import BoolArray, Scorer
from seekrec.evaluation.reweighted import ReweightedBM25, ReweightedText
from seekrec.evaluation.tuning import Tuning
from seekrec.models.base import CatalogModel
from seekrec.schema import BEHAVIORS, SEARCH, Behavior, Request, ScoredItem

CandidateScoring = Literal["exact", "beams"]


class ModelRetriever:
    """A seekrec model and its processor as a [`Retriever`].

    Args:
        model ([`CatalogModel`]): A model of any family.
        processor (`Callable`): Turns requests (and `candidates=`) into the model's inputs.
        batch_size (`int`): Requests in one call of the model.
        num_beams (`int`, *optional*): Passed to `model.retrieve`; `None` for models that search without beams.
        candidate_scoring (`str`): `"exact"` orders candidates by `model.rank`; `"beams"` by a beam search among them,
            as GenSAR's released code does: those that none of `num_beams` beams reaches come last, tied.
        behaviors (`tuple[str, ...]`): Behaviors that the model was trained for.

    Raises:
        ConfigurationError: If `batch_size` is below 1, or beams are to order candidates and `num_beams` is None.
    """

    def __init__(
        self,
        model: CatalogModel[Any],
        processor: Callable[..., Any],
        *,
        batch_size: int = 64,
        num_beams: int | None = 50,
        candidate_scoring: CandidateScoring = "exact",
        behaviors: tuple[Behavior, ...] = BEHAVIORS,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"`batch_size` is {batch_size}; use at least 1.")
        if candidate_scoring == "beams" and num_beams is None:
            raise ConfigurationError("`candidate_scoring` is 'beams' but `num_beams` is None; set it.")
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.num_beams = num_beams
        self.candidate_scoring = candidate_scoring
        self.behaviors = behaviors
        self.details: dict[str, object] = {} if num_beams is None else {"num_beams": num_beams}

    def retrieve(
        self, requests: Sequence[Request], *, top_k: int, where: Sequence[BoolArray | list[str]] | None = None
    ) -> list[list[ScoredItem]]:
        """Answer in batches; see [`Retriever`]."""
        # `where` says all: the protocol rules out what was seen, and never the target.
        beams: dict[str, Any] = {} if self.num_beams is None else {"num_beams": self.num_beams}
        answers: list[list[ScoredItem]] = []
        for begin, end in self._batches(len(requests)):
            masks = None if where is None else list(where[begin:end])
            answers += self.model.retrieve(
                self.processor(list(requests[begin:end])), top_k=top_k, where=masks, exclude_seen=False, **beams
            )
        return answers

    def rank(self, requests: Sequence[Request], candidates: Sequence[Sequence[str]]) -> list[list[ScoredItem]]:
        """Rank in batches; see [`Retriever`]. What was removed from the catalogue comes last."""
        if self.candidate_scoring == "beams":
            return self._rank_by_beams(requests, candidates)
        catalog = self.model.catalog
        removed = set(catalog.id_map.convert_to_ids(np.flatnonzero(catalog.is_removed)))
        answers: list[list[ScoredItem]] = []
        for begin, end in self._batches(len(requests)):
            lines = [[item for item in items if item not in removed] for items in candidates[begin:end]]
            answers += self.model.rank(self.processor(list(requests[begin:end]), candidates=lines))
        gone = ([ScoredItem(item, float("-inf")) for item in items if item in removed] for items in candidates)
        return [answer + last for answer, last in zip(answers, gone, strict=True)]

    def _rank_by_beams(
        self, requests: Sequence[Request], candidates: Sequence[Sequence[str]]
    ) -> list[list[ScoredItem]]:
        # The constructor has seen to it that there are beams.
        found = self.retrieve(requests, top_k=self.num_beams or 0, where=[list(items) for items in candidates])
        answers = []
        for answer, items in zip(found, candidates, strict=True):
            reached = {item.item_id for item in answer}
            answers.append(answer + [ScoredItem(item, float("-inf")) for item in items if item not in reached])
        return answers

    def _batches(self, num_requests: int) -> list[tuple[int, int]]:
        return [(begin, begin + self.batch_size) for begin in range(0, num_requests, self.batch_size)]


def baseline_systems(
    tuning: Tuning,
    catalog: Catalog,
    sasrec: SASRecForNextItem,
    *,
    lightgcn: LightGCNModel | None = None,
    user_ids: Sequence[str] = (),
) -> dict[str, Scorer]:
    """Build the baselines of a data set.

    Args:
        tuning ([`Tuning`]): Has the split, whose training events are counted, and the validation searches that the
            reweighted systems are tuned on.
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
    counted = Popularity.fit(tuning.split, id_map) if tuning.counts is None else Popularity(tuning.counts)
    systems: dict[str, Scorer] = {"popularity": counted, **texts, "SASRec": prior}
    if lightgcn is not None:
        systems["LightGCN"] = LightGCNScorer(lightgcn, id_map, user_ids)
    if cases := tuning.cases(SEARCH):
        dense = ReweightedText({"dense text": texts["dense text"]}, prior)
        systems["BM25 x SASRec"] = ReweightedBM25(catalog.items, prior).fit(cases, show_progress=False)
        systems["dense x SASRec"] = dense.fit(cases, show_progress=False)
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


__all__ = ["CandidateScoring", "ModelRetriever", "baseline_systems", "text_systems"]
