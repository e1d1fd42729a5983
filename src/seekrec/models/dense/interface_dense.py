# SPDX-License-Identifier: Apache-2.0
"""`retrieve` and `rank` for families that compare vectors: the same face as `GenerativeModel`.

A family derives its model from [`DenseRetrieval`] and defines [`items`], [`read_events`], [`encode_questions`] and
[`score_candidates`]. Its configuration is a [`DenseConfig`].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from transformers import BatchFeature

from seekrec.catalog import Catalog
from seekrec.embeddings import SASRecForNextItem
from seekrec.errors import CatalogError
from seekrec.models.answers import Found, Masks, Where, join_new, without_rows
from seekrec.models.base import CatalogModel
from seekrec.models.dense.item_index import Backend
from seekrec.models.dense.modeling_dense import (
    AnswerFusion,
    CatalogItems,
    DenseSnapshot,
    HistoryModel,
    Inputs,
    ItemTexts,
    ItemTower,
    StateT,
    without_own,
)
from seekrec.models.new_items import TextNeighbors
from seekrec.models.snapshot import has_same_items
from seekrec.schema import ScoredItem
from seekrec.util.finite import check_finite
from seekrec.util.hashing import json_digest


class DenseRetrieval(CatalogModel[DenseSnapshot], HistoryModel[StateT]):
    """`retrieve` by dot product with item vectors, `rank` by a head of the family.

    Set `item_index` to `"faiss"` to search with faiss; the answers are the same.
    """

    fusion: AnswerFusion | None
    item_index: Backend = "exact"

    @property
    @abstractmethod
    def items(self) -> ItemTower:
        """Items to vectors."""

    @property
    @abstractmethod
    def action_embedding(self) -> nn.Embedding:
        """The vectors of actions."""

    @property
    @abstractmethod
    def compares_all_items(self) -> bool:
        """Whether a step of training reads the vector of every item."""

    @abstractmethod
    def encode_questions(
        self, inputs: Inputs, *, state: StateT | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Compute the vector of each question, `(batch, num_questions, size)`; its dot products rank items.

        Args:
            inputs (`dict[str, torch.Tensor]`): What the processor made of requests, or a batch of training windows.
            state ([`HistoryState`], *optional*): A history that was read, in place of the one in `inputs`.
            items ([`CatalogItems`], *optional*): What to answer from; that of now if not given.
        """

    @abstractmethod
    def score_candidates(
        self, inputs: Inputs, *, state: StateT | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Score each candidate, float32 in the shape of `inputs["candidate_rows"]`: the probability of an act.

        Without a head for that, the score that [`retrieve`] gives.
        """

    def current_items(self) -> CatalogItems:
        """Return what a call that begins now answers from; it stays the same whatever is set meanwhile.

        Raises:
            CatalogError: If no catalogue was set.
        """
        return CatalogItems(self.items, self.fusion, self.current_snapshot())

    def answer_questions(
        self, own: Tensor, item_rows: Tensor, allowed: Tensor, inputs: Inputs, items: CatalogItems
    ) -> Tensor:
        """Put behind the vectors of questions, `(batch, num_questions, size)`, what is fused with them.

        Args:
            own (`torch.Tensor`): As they are compared in training.
            item_rows (`torch.LongTensor`): Items of the tokens, oldest first, `(batch, length)`; below 0 for none.
            allowed (`torch.BoolTensor`): What questions see, `(batch, num_questions, length)`.
            inputs: Has `question_behavior_ids`.
            items ([`CatalogItems`]): What is answered from.
        """
        if self.fusion is None:
            return own
        parts = self.fusion.questions(items.texts, item_rows, allowed, inputs["question_behavior_ids"])
        # The model's own product is divided by the temperature, those of the parts are not.
        return torch.cat([own, *(part * self.fusion.temperature for part in parts)], dim=-1)

    def answer_scores(self, questions: Tensor, rows: Tensor, history: Tensor, items: CatalogItems) -> Tensor:
        """Score candidates as [`retrieve`] scores items: float32 of the shape of `rows`.

        Args:
            questions (`torch.Tensor`): What [`answer_questions`] gave, `(batch, num_questions, size)`.
            rows (`torch.LongTensor`): Catalogue rows, `(batch, num_questions, num_candidates)`; below 0 for none.
            history (`torch.LongTensor`): Items of the histories, `(batch, length)`; below 0 for none.
            items ([`CatalogItems`]): What is answered from.
        """
        scores = self._products(questions, rows, history, items)
        new, neighbors = self._new_items(items)
        if neighbors is None:
            return scores
        asked = rows.cpu().numpy()
        is_new = np.isin(asked, new)
        if is_new.any():
            places = torch.from_numpy(np.searchsorted(new, asked).clip(max=len(new) - 1)).to(rows.device)
            of_new = self._score_new(questions, history, items, neighbors)
            scores = torch.where(torch.from_numpy(is_new).to(rows.device), of_new.gather(-1, places), scores)
        return scores

    def _new_items(self, items: CatalogItems) -> tuple[np.ndarray, TextNeighbors | None]:
        """Return the rows of items that training knows no event of, and who speaks for them.

        Without id embeddings all items are compared by their texts alone, and none is new; where texts are fused, they
        speak for themselves.
        """
        if self.items.ids is None or self.fusion is not None:
            return np.empty(0, dtype=np.int64), None
        num_trained = self.config.num_items
        new = items.snapshot.new_rows(num_trained)
        return new, items.snapshot.text_neighbors(num_trained) if len(new) else None

    def _score_new(self, questions: Tensor, history: Tensor, items: CatalogItems, neighbors: TextNeighbors) -> Tensor:
        """Score the new items by those with texts like theirs, float32 `(batch, num_questions, num_new)`."""
        asked = torch.from_numpy(neighbors.rows).to(questions.device).expand(*questions.shape[:2], -1)
        known = self._products(questions, asked, history, items).detach().flatten(0, 1).cpu().numpy()
        check_finite("The scores", known, "request", "check the weights of the model and its data type")
        scored = torch.from_numpy(neighbors.score(known)).to(questions.device)
        return scored.unflatten(0, questions.shape[:2])

    def _products(self, questions: Tensor, rows: Tensor, history: Tensor, items: CatalogItems) -> Tensor:
        vectors = items.answers[rows.clamp_min(0)]
        scores = torch.einsum("bqs,bqcs->bqc", questions, vectors.to(questions.dtype)).float()
        own = None if self.fusion is None else self.fusion.own_texts(items.texts, questions, history)
        if own is not None and own.shape[-1]:
            # A candidate of the history gets nothing for its own text; one that comes twice has twice the same.
            is_own = rows[..., None] == torch.where(history >= 0, history, -2)[:, None, None]
            taken = (is_own * own[:, :, None]).sum(-1) / is_own.sum(-1).clamp_min(1)
            scores = scores - taken
        return scores

    def set_recommender(self, recommender: SASRecForNextItem) -> None:
        """Take the SASRec whose score is added to the model's own.

        Args:
            recommender ([`SASRecForNextItem`]): With the sizes of `config.recommender`, over the items with an id.

        Raises:
            ValueError: If the model has no place for it, or its sizes or items are others.
        """
        if self.fusion is None or self.fusion.recommender is None:
            raise ValueError("`config.recommender` is None or `recommender_weight` 0; make the model with both.")
        self.fusion.take(recommender)

    def _check_catalog(self, catalog: Catalog) -> None:
        num_items = self.config.num_items
        if len(catalog) < num_items:
            raise CatalogError(
                f"The catalogue has {len(catalog)} items, the model was made for {num_items}; use the one "
                "saved with the model, or one grown from it by `add_items`."
            )
        expected = self.config.items_hash
        if expected is not None and (found := items_hash(catalog, num_items)) != expected:
            raise CatalogError(
                f"The catalogue's first {num_items} items have hash {found[:12]}, the model was trained for "
                f"{expected[:12]}; use the catalogue saved with the model, or one grown from it by "
                "`add_items`."
            )
        vectors = self._text_vectors(catalog)
        if self.config.text_size:
            width = None if vectors is None else vectors.shape[1]
            if vectors is None or width != self.config.text_size:
                raise CatalogError(
                    f"The catalogue has text vectors of width {width} under embeddings['semantic'], the model reads "
                    f"{self.config.text_size}; embed the items with the encoder that the model was trained with."
                )
        expected = self.config.texts_hash
        if expected is not None and (vectors is None or vectors_hash(vectors[:num_items]) != expected):
            raise CatalogError(
                f"The catalogue's first {num_items} items are those of the model, but their text vectors are "
                "others than it was trained with; use the catalogue saved with the model, or one grown from it by "
                "`add_items`."
            )

    def _make_snapshot(self, catalog: Catalog) -> DenseSnapshot:
        old = self._snapshot
        if old is None or len(old.catalog) != len(catalog) or not has_same_items(old.catalog, catalog):
            return DenseSnapshot(catalog, ItemTexts(self._text_vectors(catalog), len(catalog)))
        # After `remove_items` the vectors are the same array: what was made of them stays.
        snapshot = DenseSnapshot(catalog, old.texts)
        snapshot.take_values(old, ["vectors", "answers", ("index", self.item_index)])
        return snapshot

    def _keep(self, snapshot: DenseSnapshot) -> None:
        catalog, num_items = snapshot.catalog, self.config.num_items
        if self.config.items_hash is None:
            self.config.items_hash = items_hash(catalog, num_items)
        vectors = self._text_vectors(catalog)
        if self.config.texts_hash is None and vectors is not None:
            self.config.texts_hash = vectors_hash(vectors[:num_items])
        self.items.texts = snapshot.texts  # what training reads

    def _text_vectors(self, catalog: Catalog) -> np.ndarray | None:
        return catalog.embeddings.get("semantic") if self.config.text_size else None

    def available_items(self, timestamps: Tensor) -> Tensor | None:
        """Return which items were available at each time (IntSR, equation 15).

        Args:
            timestamps (`torch.LongTensor`): Seconds, of shape `(num_questions,)`.

        Returns:
            `torch.BoolTensor`, *optional*: Of shape `(num_questions, num_items)`; `None` where all items always are.
        """
        periods = self.current_snapshot().periods(timestamps.device)
        if periods is None:
            return None
        start, end = periods
        is_there: Tensor = (start <= timestamps[:, None]) & (timestamps[:, None] < end)
        return is_there

    @torch.no_grad()
    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int] = 10,
        where: Where = None,
        state: StateT | None = None,
        exclude_seen: bool | None = None,
    ) -> list[list[ScoredItem]]:
        """Find the best items of the whole catalogue; exact.

        Items of which training knows no event are scored by those with texts like theirs ([`TextNeighbors`]).

        Several threads may call this while another sets a catalogue: see [`set_catalog`]. Weights may change
        between calls, not during one.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of the requests.
            top_k (`int` or `Sequence[int]`): Items wanted, for all requests or for each.
            where (`np.ndarray` or `list`, *optional*):
                Items allowed: a boolean mask over the catalogue's rows or a list of ids, for all requests, or a list
                with one of these (or None) for each request. Removed items are never allowed.
            state (*optional*): A cached history of each request, in place of the one in `inputs`.
            exclude_seen (`bool`, *optional*):
                Leave out what the user acted on: all of the request's history and of the state; if not given in
                recommendations and not in searches.

        Returns:
            `list[list[ScoredItem]]`: For each request at most `top_k` distinct items, best first, with the similarity
            that the model was trained on, and of recommendations what is fused with it. Fewer where fewer are allowed.

        Raises:
            RequestError: If `top_k` is below 1, or one of the arguments does not fit the requests.
            NotFiniteError: If the model computes something that is not a finite number.
        """
        behaviors = inputs["question_behavior_ids"][:, 0].tolist()
        events = None if state is None else self.check_state(state, len(behaviors))
        return self._retrieve(
            inputs,
            behaviors,
            top_k,
            where,
            exclude_seen,
            lambda snapshot, wanted, allowed: self._search(snapshot, inputs, state, wanted.tolist(), allowed),
            None if events is None else events.seen_rows.cpu().numpy(),
        )

    def _search(
        self, snapshot: DenseSnapshot, inputs: BatchFeature, state: StateT | None, wanted: list[int], allowed: Masks
    ) -> list[Found]:
        """Find the items whose vectors are nearest to the questions, and new items by their neighbours."""
        items = CatalogItems(self.items, self.fusion, snapshot)
        questions = self.encode_questions(inputs, state=state, items=items)[:, 0]
        history = (inputs["history_item_rows"] if state is None else state.positions.item).to(questions.device)
        own = None if self.fusion is None else self.fusion.own_texts(items.texts, questions[:, None], history)
        new, neighbors = self._new_items(items)
        searched = allowed if neighbors is None else without_rows(allowed, new, items.catalog)
        index = items.index(self.item_index)
        if own is None:
            found = index.search(questions, wanted, searched)
        else:
            # What is taken off moves items of the history down, so with as many more none of the best is missing.
            found = index.search(questions, [k + history.shape[1] for k in wanted], searched)
            parts = zip(found, wanted, history.cpu().numpy(), own[:, 0].cpu().numpy(), strict=True)
            found = [without_own(*answer, k, rows, texts) for answer, k, rows, texts in parts]
        if neighbors is not None:
            scored = self._score_new(questions[:, None], history, items, neighbors)[:, 0].cpu().numpy()
            lines = zip(found, scored, allowed, wanted, strict=True)
            found = [join_new(answer, new, scores, mask, k) for answer, scores, mask, k in lines]
        return found

    @torch.no_grad()
    def rank(self, inputs: BatchFeature, *, state: StateT | None = None) -> list[list[ScoredItem]]:
        """Order the candidates given to the processor.

        Args:
            inputs ([`~transformers.BatchFeature`]): Made by `processor(requests, candidates=...)`.
            state (*optional*): As in [`retrieve`].

        Returns:
            `list[list[ScoredItem]]`: For each request its candidates, best first, with the probability of an act, or
            the score that [`retrieve`] gives where no head judges candidates.

        Raises:
            RequestError: If the inputs hold no candidates.
            NotFiniteError: If the model computes something that is not a finite number.
        """

        def score(snapshot: DenseSnapshot, rows: list[np.ndarray]) -> list[np.ndarray]:
            items = CatalogItems(self.items, self.fusion, snapshot)
            scores = self.score_candidates(inputs, state=state, items=items)[:, 0].float().cpu().numpy()
            is_candidate = inputs["candidate_rows"][:, 0].cpu().numpy() >= 0
            return [line[kept] for line, kept in zip(scores, is_candidate, strict=True)]

        return self._rank(inputs, score)


# A model of either family.
DenseModel = DenseRetrieval[Any]


def items_hash(catalog: Catalog, num_items: int) -> str:
    """Compute the SHA-256 of the ids of a catalogue's first items, in order: what id embeddings belong to."""
    return json_digest(catalog.id_map.ids[:num_items])


def vectors_hash(vectors: np.ndarray) -> str:
    """Compute a digest of item vectors: what the weights that read them belong to."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(vectors).data)


__all__ = ["DenseModel", "DenseRetrieval", "items_hash", "vectors_hash"]
