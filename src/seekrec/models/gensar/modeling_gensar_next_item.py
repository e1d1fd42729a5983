# SPDX-License-Identifier: Apache-2.0
"""The encoder's own answer to "what next": its last state against every item at once.

It is a second loss in training (`next_item_weight`), what the decoder is taught by (`distillation_weight`), and, with
`order_by="next_item"`, the order of what the decoder's beams found and of candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutput

from seekrec.catalog import Catalog
from seekrec.generation import Norm
from seekrec.generation.lanes import per_request
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.gensar.modeling_gensar_encoder import GenSAREncoder
from seekrec.models.gensar.modeling_gensar_items import ItemTable
from seekrec.models.interface import GenerativeRetrievalMixin, GenerativeSnapshot
from seekrec.models.losses import next_item_losses
from seekrec.models.snapshot import has_same_items
from seekrec.schema import BEHAVIORS, View


class GenSARSnapshot(GenerativeSnapshot):
    """A catalogue, its tries, and the vectors of its items that the encoder reads.

    Args:
        catalog ([`Catalog`]): The items that can be answered.
        items ([`ItemTable`], *optional*): With `config.item_vector_size`.
    """

    def __init__(self, catalog: Catalog, items: ItemTable | None) -> None:
        super().__init__(catalog)
        self.items = items


class NextItemMixin(GenerativeRetrievalMixin[GenSARSnapshot]):
    """Item vectors, the losses that are made of them, and answers in their order.

    With `config.order_by="next_item"` `retrieve` gives the best of the `num_beams` items that the beams found, and it
    and `rank` score an item by its dot product with the last event's state, to be compared within a request. Items of
    which training knows no event are scored by those with texts like theirs ([`TextNeighbors`]).
    """

    config: GenSARConfig
    encoder: GenSAREncoder
    shared: nn.Embedding
    lm_head: nn.Linear

    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on; with `config.item_vector_size` its vectors are read, too.

        See [`GenerativeRetrievalMixin`].

        Raises:
            CatalogError: If the identifiers, or the sizes of the vectors, are not those of the model.
        """
        is_first = self.config.identifier_hash is None
        super().set_catalog(catalog)
        if is_first:
            self.config.num_items = len(catalog)
        vectors = self.encoder.item_vectors
        if vectors is not None:
            vectors.vocabulary = self.vocabulary
            snapshot = self.current_snapshot()
            vectors.table = snapshot.items
            if is_first:
                vectors.start_weights(self.shared.weight.detach().std().item())

    def _make_snapshot(self, catalog: Catalog) -> GenSARSnapshot:
        vectors, old = self.encoder.item_vectors, self._snapshot
        if vectors is None:
            return GenSARSnapshot(catalog, None)
        if old is not None and has_same_items(old.catalog, catalog):
            return GenSARSnapshot(catalog, old.items)
        return GenSARSnapshot(catalog, vectors.make_table(catalog))

    @property
    def modules_outside_t5(self) -> list[str]:
        """Names of the modules that no T5 checkpoint has: trained whole beside the adapters of the generator."""
        return [] if self.encoder.item_vectors is None else ["encoder.item_vectors.projection"]

    def embed_items(self, view: View, rows: Tensor | None = None, snapshot: GenSARSnapshot | None = None) -> Tensor:
        """Give what the encoder reads of an item, without its behavior token.

        Args:
            view (`str`): Whose identifiers.
            rows (`torch.LongTensor` of shape `(num_items,)`, *optional*): Of the catalogue; all if not given.
            snapshot ([`GenSARSnapshot`], *optional*): What is answered from; that of now if not given.

        Returns:
            `torch.Tensor`: `(num_items, d_model)`.
        """
        snapshot = self.current_snapshot() if snapshot is None else snapshot
        summed = self._sum_codes(snapshot.catalog, view, rows)
        vectors = self.encoder.item_vectors
        return summed if vectors is None else summed + vectors(rows, snapshot.items)

    def next_item_loss(
        self, states: Tensor, last: Tensor, hidden: Tensor, decoder_input_ids: Tensor, labels: Tensor
    ) -> Tensor:
        """Let the state of the last event before a target pick it among all items, and teach the decoder; summed nats.

        A target is found by the behavior token before its identifier. SASRec learns the same way, from every position
        at once: the generator alone learns a level's codes one after the other, and slower. What the encoder holds
        likely, summed over the items under a prefix, is what the decoder should hold likely as the next code.

        Args:
            states (`torch.Tensor` of shape `(batch, num_events, d_model)`): Of the encoder.
            last (`torch.LongTensor` of shape `(batch, target_length)`): The last event each target sees.
            hidden (`torch.Tensor` of shape `(batch, target_length, d_model)`): Of the decoder.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, target_length)`): Packed targets.
            labels (`torch.LongTensor` of shape `(batch, target_length)`): What follows each decoder input.
        """
        total = states.new_zeros((), dtype=torch.float32)
        steps = torch.arange(self.config.num_levels, device=states.device)
        catalog = self.catalog
        known = None if self.encoder.item_vectors is None else self.encoder.item_vectors()  # the same in both views
        for behavior in BEHAVIORS:
            row, position = (decoder_input_ids == self.vocabulary.item_token_id(behavior)).nonzero(as_tuple=True)
            if not len(row):
                continue
            view = catalog.view_of(behavior)
            codes, offsets = self._codes(catalog, view)
            vectors = self._sum_codes(catalog, view)
            vectors = vectors if known is None else vectors + known
            scores = nn.functional.linear(states[row, last[row, position]], vectors.to(states.dtype)).float()
            wanted = labels[row[:, None], position[:, None] + steps] - offsets
            heads = [self.lm_head.weight[offset : offset + self.config.codebook_size] for offset in offsets.tolist()]
            answers = hidden[row[:, None], position[:, None] + steps]
            first, second = next_item_losses(scores, codes, wanted, answers, heads)
            total = total + self.config.next_item_weight * first + self.config.distillation_weight * second
        return total

    def _search(
        self,
        snapshot: GenSARSnapshot,
        inputs: BatchFeature,
        top_k: np.ndarray,
        allowed: Sequence[np.ndarray | None],
        num_beams: int | Sequence[int],
        norm: Norm | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """With `config.order_by="next_item"` the beams find items and the last event's state orders them."""
        if self.config.order_by == "identifier":
            return super()._search(snapshot, inputs, top_k, allowed, num_beams, norm)
        kept = np.maximum(top_k, per_request("num_beams", num_beams, len(top_k)))  # all that the beams hold
        found = [rows for rows, _ in super()._search(snapshot, inputs, kept, allowed, num_beams, norm)]
        ordered = self._order(snapshot, inputs, found, norm)
        return [(rows[:count], scores[:count]) for (rows, scores), count in zip(ordered, top_k, strict=True)]

    def _find(
        self,
        snapshot: GenSARSnapshot,
        inputs: BatchFeature,
        top_k: np.ndarray,
        allowed: Sequence[np.ndarray | None],
        num_beams: int | Sequence[int],
        norm: Norm | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Encode once for beams, order and new items; see [`GenerativeRetrievalMixin`]."""
        if not len(inputs["behavior_ids"]):
            return []
        inputs = self._encoded(snapshot, inputs)
        new = snapshot.new_rows(self.config.num_items)
        if len(new) and self.config.order_by == "next_item":
            inputs["new_scores"] = self._score_new(snapshot, inputs, new, norm)
        return super()._find(snapshot, inputs, top_k, allowed, num_beams, norm)

    def _score(
        self, snapshot: GenSARSnapshot, inputs: BatchFeature, rows: Sequence[np.ndarray], norm: Norm | None
    ) -> list[np.ndarray]:
        """With `config.order_by="next_item"` the dot product of the last event's state with each item."""
        if not len(rows):
            return []
        inputs = self._encoded(snapshot, inputs)
        if self.config.order_by == "identifier":
            return super()._score(snapshot, inputs, rows, norm)
        states, new = self._last_states(inputs), snapshot.new_rows(self.config.num_items)
        scores, of_new = [], None
        for number, (behavior, line) in enumerate(zip(inputs["behavior_ids"].tolist(), rows, strict=True)):
            line = np.asarray(line, dtype=np.int64)
            view = snapshot.catalog.view_of(BEHAVIORS[behavior])
            own = self._products(snapshot, {view: line}, [view], states[number : number + 1])[0]
            is_new = np.isin(line, new)
            if is_new.any():
                of_new = self._score_new(snapshot, inputs, new, norm) if of_new is None else of_new
                own[is_new] = of_new[number][np.searchsorted(new, line[is_new])]
            scores.append(own)
        return scores

    def _score_new(
        self, snapshot: GenSARSnapshot, inputs: BatchFeature, rows: np.ndarray, norm: Norm | None
    ) -> np.ndarray:
        """With `config.order_by="next_item"` what that order says of the items with texts like theirs."""
        if self.config.order_by == "identifier":
            return super()._score_new(snapshot, inputs, rows, norm)
        if "new_scores" in inputs:
            scored: np.ndarray = inputs["new_scores"]
            return scored
        neighbors = snapshot.text_neighbors(self.config.num_items)
        asked = rows if neighbors is None else neighbors.rows
        views = [snapshot.catalog.view_of(BEHAVIORS[number]) for number in inputs["behavior_ids"].tolist()]
        own = np.stack(self._products(snapshot, dict.fromkeys(views, asked), views, self._last_states(inputs)))
        return own if neighbors is None else neighbors.score(own)

    def _products(
        self, snapshot: GenSARSnapshot, rows: dict[View, np.ndarray], views: Sequence[View], states: Tensor
    ) -> list[np.ndarray]:
        """Give the products of each request's state with items of its view, each item embedded once."""
        items = {view: torch.from_numpy(line).to(self._device) for view, line in rows.items()}
        embedded = {view: self.embed_items(view, line, snapshot) for view, line in items.items()}
        products = [embedded[view] @ state.to(embedded[view].dtype) for view, state in zip(views, states, strict=True)]
        return [line.float().cpu().numpy() for line in products]

    def _last_states(self, inputs: BatchFeature) -> Tensor:
        """Give the state of each request's last event, `(batch, d_model)`; the last token has it."""
        last = inputs["attention_mask"].to(self._device).sum(1) - 1
        states: Tensor = inputs["encoder_states"][torch.arange(len(last), device=self._device), last]
        return states

    def _encoded(self, snapshot: GenSARSnapshot, inputs: BatchFeature) -> BatchFeature:
        """Give the inputs with the encoder's states, `encoder_states`, which beams and order share."""
        if "encoder_states" in inputs:
            return inputs
        mask = inputs["attention_mask"].to(self._device)
        states = self.encoder(
            input_ids=inputs["input_ids"].to(self._device), attention_mask=mask, item_table=snapshot.items
        )[0]
        return BatchFeature({**inputs, "encoder_states": states})

    def _prompt(self, snapshot: GenSARSnapshot, inputs: BatchFeature) -> tuple[dict[str, Any], list[View]]:
        """Let the engine go on from states that are there."""
        prompt, views = super()._prompt(snapshot, inputs)
        states = BaseModelOutput(last_hidden_state=inputs["encoder_states"])
        return {**prompt, "input_ids": None, "encoder_outputs": states}, views

    @property
    def _device(self) -> torch.device:
        return self.shared.weight.device

    def _sum_codes(self, catalog: Catalog, view: View, rows: Tensor | None = None) -> Tensor:
        codes, offsets = self._codes(catalog, view, rows)
        embedded: Tensor = self.shared(codes + offsets)
        return embedded.sum(1)

    def _codes(self, catalog: Catalog, view: View, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes of items, all or some, `(num_items, num_levels)`, and each level's first token, `(num_levels,)`."""
        chosen = catalog.codes[view] if rows is None else catalog.codes[view][rows.cpu().numpy()]
        codes = torch.as_tensor(chosen.astype(np.int64), device=self._device)
        return codes, torch.from_numpy(self.vocabulary.level_offsets(view)).to(self._device)


__all__ = ["GenSARSnapshot", "NextItemMixin"]
