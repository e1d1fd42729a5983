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
from seekrec.models.answers import Where
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.gensar.modeling_gensar_encoder import GenSAREncoder
from seekrec.models.interface import GenerativeRetrievalMixin
from seekrec.models.losses import next_item_losses
from seekrec.schema import BEHAVIORS, View


class NextItemMixin(GenerativeRetrievalMixin):
    """Item vectors, the losses that are made of them, and answers in their order.

    With `config.order_by="next_item"` `retrieve` gives the best of the `num_beams` items that the beams found, and it
    and `rank` score an item by its dot product with the last event's state, to be compared within a request.
    """

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

    def _find(
        self,
        inputs: BatchFeature,
        top_k: int | Sequence[int],
        where: Where,
        num_beams: int | Sequence[int],
        norm: Norm | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """With `config.order_by="next_item"` the beams find items and the last event's state orders them."""
        asked = len(inputs["behavior_ids"])
        wanted = list(top_k) if isinstance(top_k, Sequence) else [top_k] * asked
        width = list(num_beams) if isinstance(num_beams, Sequence) else [num_beams] * asked
        is_wrong = len(wanted) != asked or len(width) != asked or min(wanted, default=1) < 1  # the engine says what is
        if self.config.order_by == "identifier" or is_wrong:
            return super()._find(inputs, top_k, where, num_beams, norm)
        kept = [max(pair) for pair in zip(wanted, width, strict=True)]  # all that the beams hold
        inputs = self._encoded(inputs)
        found = [rows for rows, _ in super()._find(inputs, kept, where, num_beams, norm)]
        ordered = self._order(inputs, found, norm)
        return [(rows[:count], scores[:count]) for (rows, scores), count in zip(ordered, wanted, strict=True)]

    def _score(self, inputs: BatchFeature, rows: Sequence[np.ndarray], norm: Norm | None) -> list[np.ndarray]:
        """With `config.order_by="next_item"` the dot product of the last event's state with each item."""
        if self.config.order_by == "identifier" or not len(rows):
            return super()._score(inputs, rows, norm)
        inputs = self._encoded(inputs)
        last = inputs["attention_mask"].to(self._device).sum(1) - 1  # that token has the state of the last event
        states = inputs["encoder_states"][torch.arange(len(last), device=self._device), last]
        scores = []
        for state, behavior, line in zip(states, inputs["behavior_ids"].tolist(), rows, strict=True):
            items = torch.as_tensor(np.asarray(line, dtype=np.int64), device=self._device)
            embedded = self.embed_items(self.catalog.view_of(BEHAVIORS[behavior]), items)
            scores.append((embedded @ state.to(embedded.dtype)).float().cpu().numpy())
        return scores

    def _encoded(self, inputs: BatchFeature) -> BatchFeature:
        """Give the inputs with the encoder's states, `encoder_states`, which beams and order share."""
        if "encoder_states" in inputs:
            return inputs
        mask = inputs["attention_mask"].to(self._device)
        states = self.encoder(input_ids=inputs["input_ids"].to(self._device), attention_mask=mask)[0]
        return BatchFeature({**inputs, "encoder_states": states})

    def _prompt(self, inputs: BatchFeature) -> tuple[dict[str, Any], list[View]]:
        """Let the engine go on from states that are there."""
        prompt, views = super()._prompt(inputs)
        if "encoder_states" in inputs:
            states = BaseModelOutput(last_hidden_state=inputs["encoder_states"])
            prompt |= {"input_ids": None, "encoder_outputs": states}
        return prompt, views

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
