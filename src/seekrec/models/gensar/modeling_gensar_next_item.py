# SPDX-License-Identifier: Apache-2.0
"""The encoder's own answer to "what next": its last state against every item at once.

It is a second loss in training (`next_item_weight`), what the decoder is taught by (`distillation_weight`), and, with
`order_by="next_item"`, the order of what the decoder's beams found and of candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BatchFeature

from seekrec.catalog import Catalog
from seekrec.generation import Norm
from seekrec.models.answers import Where, scored_items
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.gensar.modeling_gensar_encoder import GenSAREncoder
from seekrec.models.interface import GenerativeRetrievalMixin
from seekrec.models.losses import next_item_losses
from seekrec.schema import BEHAVIORS, ScoredItem, View


class NextItemMixin(GenerativeRetrievalMixin):
    """Item vectors, the losses that are made of them, and answers in their order."""

    config: GenSARConfig
    encoder: GenSAREncoder
    shared: nn.Embedding
    lm_head: nn.Linear

    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on; with `config.item_vector_size` its vectors are read, too.

        Raises:
            CatalogError: If the identifiers, or the sizes of the vectors, are not those of the model.
        """
        is_first = self.config.identifier_hash is None
        super().set_catalog(catalog)
        if self.encoder.item_vectors is not None:
            self.encoder.item_vectors.set_catalog(catalog, self.vocabulary)
            if is_first:
                self.encoder.item_vectors.start_weights(self.shared.weight.detach().std().item())

    @property
    def modules_outside_t5(self) -> list[str]:
        """Names of the modules that no T5 checkpoint has: trained whole beside the adapters of the generator."""
        return [] if self.encoder.item_vectors is None else ["encoder.item_vectors.projection"]

    def embed_items(self, view: View, rows: Tensor | None = None) -> Tensor:
        """Give what the encoder reads of an item, without its behavior token.

        Args:
            view (`str`): Whose identifiers.
            rows (`torch.LongTensor` of shape `(num_items,)`, *optional*): Of the catalogue; all if not given.

        Returns:
            `torch.Tensor`: `(num_items, d_model)`.
        """
        summed = self._sum_codes(view, rows)
        vectors = self.encoder.item_vectors
        return summed if vectors is None else summed + vectors(rows)

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
        known = None if self.encoder.item_vectors is None else self.encoder.item_vectors()  # the same in both views
        for behavior in BEHAVIORS:
            row, position = (decoder_input_ids == self.vocabulary.item_token_id(behavior)).nonzero(as_tuple=True)
            if not len(row):
                continue
            view = self.catalog.view_of(behavior)
            codes, offsets = self._codes(view)
            vectors = self._sum_codes(view)
            vectors = vectors if known is None else vectors + known
            scores = nn.functional.linear(states[row, last[row, position]], vectors.to(states.dtype)).float()
            wanted = labels[row[:, None], position[:, None] + steps] - offsets
            heads = [self.lm_head.weight[offset : offset + self.config.codebook_size] for offset in offsets.tolist()]
            answers = hidden[row[:, None], position[:, None] + steps]
            first, second = next_item_losses(scores, codes, wanted, answers, heads)
            total = total + self.config.next_item_weight * first + self.config.distillation_weight * second
        return total

    @torch.no_grad()
    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int] = 10,
        where: Where = None,
        num_beams: int | Sequence[int] | None = None,
        norm: Norm | None = None,
    ) -> list[list[ScoredItem]]:
        """Find the best items of the whole catalogue; see [`GenerativeRetrievalMixin.retrieve`].

        With `config.order_by="next_item"` the decoder's beams find `num_beams` items, and the state of the last event
        orders them; a score is then its dot product with the item, to be compared within a request.
        """
        if self.config.order_by == "identifier":
            return super().retrieve(inputs, top_k=top_k, where=where, num_beams=num_beams, norm=norm)
        asked = len(inputs["behavior_ids"])
        wanted = list(top_k) if isinstance(top_k, Sequence) else [top_k] * asked
        beams = 20 if num_beams is None else num_beams
        width = list(beams) if isinstance(beams, Sequence) else [beams] * asked
        if len(wanted) != asked or len(width) != asked or min(wanted, default=1) < 1:
            # The engine says what is wrong.
            return super().retrieve(inputs, top_k=top_k, where=where, num_beams=num_beams, norm=norm)
        kept = [max(pair) for pair in zip(wanted, width, strict=True)]  # all that the beams hold
        found = super().retrieve(inputs, top_k=kept, where=where, num_beams=num_beams, norm=norm)
        rows = [self.catalog.id_map.convert_to_rows([item.item_id for item in line]) for line in found]
        return [line[:count] for line, count in zip(self._in_order(inputs, rows), wanted, strict=True)]

    @torch.no_grad()
    def rank(self, inputs: BatchFeature, *, norm: Norm | None = None) -> list[list[ScoredItem]]:
        """Order the candidates given to the processor; see [`GenerativeRetrievalMixin.rank`].

        With `config.order_by="next_item"` by the dot product of the last event's state with each.
        """
        if self.config.order_by == "identifier" or "candidate_rows" not in inputs:
            return super().rank(inputs, norm=norm)
        return self._in_order(inputs, [line[line >= 0] for line in inputs["candidate_rows"].cpu().numpy()])

    def _in_order(self, inputs: BatchFeature, rows: Sequence[np.ndarray]) -> list[list[ScoredItem]]:
        """Order the items found for each request by the encoder's score."""
        if not len(rows):
            return []
        mask = inputs["attention_mask"].to(self._device)
        events = self.encoder.encode_events(inputs["input_ids"].to(self._device), mask)
        last = events.event_of_token.amax(1)
        states = events.output[0][torch.arange(len(last), device=self._device), last]
        answers = []
        for state, behavior, line in zip(states, inputs["behavior_ids"].tolist(), rows, strict=True):
            items = torch.as_tensor(np.asarray(line, dtype=np.int64), device=self._device)
            embedded = self.embed_items(self.catalog.view_of(BEHAVIORS[behavior]), items)
            scores = (embedded @ state.to(embedded.dtype)).float().cpu().numpy()
            order = np.argsort(-scores, kind="stable")
            answers.append(scored_items(self.catalog, np.asarray(line)[order], scores[order]))
        return answers

    @property
    def _device(self) -> torch.device:
        return self.shared.weight.device

    def _sum_codes(self, view: View, rows: Tensor | None = None) -> Tensor:
        codes, offsets = self._codes(view, rows)
        embedded: Tensor = self.shared(codes + offsets)
        return embedded.sum(1)

    def _codes(self, view: View, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes of items, all or some, `(num_items, num_levels)`, and each level's first token, `(num_levels,)`."""
        chosen = self.catalog.codes[view] if rows is None else self.catalog.codes[view][rows.cpu().numpy()]
        codes = torch.as_tensor(chosen.astype(np.int64), device=self._device)
        return codes, torch.from_numpy(self.vocabulary.level_offsets(view)).to(self._device)


__all__ = ["NextItemMixin"]
