# SPDX-License-Identifier: Apache-2.0
"""From the features of a batch to prompts, and what T5 makes of them: encoded histories, embeddings, first tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seekrec.embeddings import FrozenSASRec
from seekrec.models.gensr.modeling_gensr_shared import decode_first_token, encode_prefix, encode_suffixes
from seekrec.models.gensr.modeling_gensr_views import CollaborativeTable, View, pool_tokens
from seekrec.models.gensr.prompts_gensr import FIRST_VECTOR, PADDING


@dataclass(frozen=True)
class Histories:
    """The views of a batch: items once, histories encoded.

    Args:
        items (`dict[str, torch.Tensor]`): By view, vectors of the batch's items, `(U + 1, size)`; the last is zero.
        states (`dict[str, torch.Tensor]`): By view, encoded histories, `(batch, 1 + length, size)`.
        mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.
        wanted (`dict[str, torch.Tensor]`): By view, what is wanted now, `(batch, size)`: of texts the query, zero if
            there is none; of a recommender's table the state it has after the history, if the model has one.
    """

    items: dict[str, Tensor]
    states: dict[str, Tensor]
    mask: Tensor
    wanted: dict[str, Tensor]

    def take(self, rows: Tensor) -> Histories:
        """Give some rows of the batch; the items stay."""
        states, wanted = (
            {name: vectors[rows] for name, vectors in part.items()} for part in (self.states, self.wanted)
        )
        return Histories(self.items, states, self.mask[rows], wanted)


class GenSRPromptsMixin:
    """How [`GenSRForConditionalGeneration`] reads a batch: a T5 with `history_views` and `collaborative_table`.

    With `config.recommender` it also has a `recommender`, whose item embeddings that table is.
    """

    config: Any
    shared: Any
    encoder: Any
    decoder: Any
    lm_head: Any
    model_dim: int
    history_views: nn.ModuleDict
    collaborative_table: CollaborativeTable
    recommender: FrozenSASRec | None

    @property
    def views_by_name(self) -> dict[str, View]:
        """The views that enter the prompt."""
        return dict(self.history_views.items())  # type: ignore[arg-type]

    def encode_histories(
        self,
        item_rows: Tensor,
        item_text_ids: Tensor | None,
        query_text_ids: Tensor | None,
        history_items: Tensor | None,
        history_queries: Tensor | None,
        history_behaviors: Tensor | None,
        history_mask: Tensor | None,
        asked_queries: Tensor | None,
        *,
        later_items: Tensor | None = None,
    ) -> Histories:
        """Embed the batch's items and encode its histories in both views (equations 5 and 6); as in `forward`.

        `later_items` are the collaborative vectors of items behind the table's; see [`CollaborativeTable`].
        """
        if (
            item_text_ids is None
            or query_text_ids is None
            or history_items is None
            or history_queries is None
            or history_behaviors is None
            or history_mask is None
            or asked_queries is None
        ):
            raise ValueError("The features of a batch are incomplete; let the processor make them.")
        items: dict[str, Tensor] = {}
        states: dict[str, Tensor] = {}
        wanted: dict[str, Tensor] = {}
        for name, view in self.views_by_name.items():
            if name == "semantic":
                items[name] = _with_zero(view.item_norm(self._pool(item_text_ids)))
                events = items[name][history_items]
                # What was searched for is part of what the event says.
                queries = _with_zero(view.item_norm(self._pool(query_text_ids)))
                events = events + queries[history_queries]
                wanted[name] = queries[asked_queries]
            else:
                items[name] = _with_zero(view.item_norm(self.collaborative_table(item_rows, later_items)))
                events = items[name][history_items]
                if self.recommender is not None:
                    wanted[name] = self._recommender_state(self.recommender, events, history_items >= 0)
            states[name] = view.encode(events, history_mask, history_behaviors)
        return Histories(items, states, history_mask, wanted)

    def candidate_logits(
        self, histories: Histories, prompt_layout: Tensor | None, suffix_layout: Tensor | None, candidates: Tensor
    ) -> Tensor:
        """Ask for each candidate whether the user will act on it.

        Args:
            histories ([`Histories`]): The encoded batch.
            prompt_layout (`torch.LongTensor`): As in `forward`.
            suffix_layout (`torch.LongTensor`): As in `forward`.
            candidates (`torch.LongTensor` of shape `(batch, num_candidates)`): Places among the batch's items.

        Returns:
            `torch.Tensor`: Logits of the first token, `(batch, num_candidates, vocab_size)`; with `loss_norm="level"`
            those of No and Yes alone, `(batch, num_candidates, 2)`.
        """
        if prompt_layout is None or suffix_layout is None:
            raise ValueError("Candidates need `prompt_layout` and `suffix_layout`; let the processor make them.")
        prefix, prefix_mask = self._fill(prompt_layout, self._event_bank(histories)), prompt_layout != PADDING
        suffix, suffix_mask = self._fill_suffixes(suffix_layout, histories, candidates), suffix_layout != PADDING
        batch, num_candidates, length, width = suffix.shape
        if self.config.shared_prompt:
            encoded = encode_prefix(self.encoder, prefix, prefix_mask)
            states = encode_suffixes(self.encoder, encoded, suffix, suffix_mask)
            start = self.shared(torch.tensor(self.config.decoder_start_token_id, device=states.device))
            decoded = decode_first_token(self.decoder, encoded, states, suffix_mask, start)
        else:
            repeated = prefix[:, None].expand(-1, num_candidates, -1, -1)
            embeds = torch.cat([repeated, suffix], dim=2).flatten(0, 1)
            mask = torch.cat([prefix_mask, suffix_mask], dim=1).long().repeat_interleave(num_candidates, dim=0)
            states = self.encoder(inputs_embeds=embeds, attention_mask=mask)[0]
            start = torch.full((len(states), 1), self.config.decoder_start_token_id, device=states.device)
            decoded = self.decoder(
                input_ids=start, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
            )[0].view(batch, num_candidates, width)
        decoded = self._scaled(decoded)
        if self.config.loss_norm == "level":
            answers = self.lm_head.weight[[self.config.no_token_id, self.config.yes_token_id]]
            return F.linear(decoded, answers).float()
        logits: Tensor = self.lm_head(decoded).float()
        return logits

    def encode_retrieval_prompts(self, histories: Histories, layout: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode the prompts that ask for an identifier.

        Args:
            histories ([`Histories`]): The encoded batch.
            layout (`torch.LongTensor` of shape `(batch, length)`): Padded on the left.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Encoder states `(batch, length, d_model)`, and a mask `(batch,
            length)`, int64, 1 where there is something.
        """
        if layout is None:
            raise ValueError("Writing identifiers needs `retrieval_layout`; let the processor make it.")
        mask = (layout != PADDING).long()
        embeds = self._fill(layout, self._event_bank(histories))
        states: Tensor = self.encoder(inputs_embeds=embeds, attention_mask=mask)[0]
        return states, mask

    def _recommender_state(self, recommender: FrozenSASRec, events: Tensor, has_item: Tensor) -> Tensor:
        """What the recommender expects after histories: (batch, length, size) and a mask to (batch, size)."""
        places = torch.arange(1, has_item.shape[1] + 1, device=has_item.device)
        latest = F.pad(places * has_item, (1, 0)).amax(1)
        states = recommender.states(events * self.config.table_scale, has_item)
        return states[torch.arange(len(states), device=states.device), latest]

    def _pool(self, token_ids: Tensor) -> Tensor:
        return pool_tokens(self.shared(token_ids.clamp(min=0)), token_ids >= 0)

    def _event_bank(self, histories: Histories) -> Tensor:
        """Every event of every view as a vector of a prompt: (batch, 2 * (1 + length), d_model)."""
        length = 1 + histories.mask.shape[1]
        batch = len(histories.mask)
        parts = []
        for name in ("collaborative", "semantic"):
            if name in histories.states:
                parts.append(self.views_by_name[name].history_vectors(histories.states[name]))
            else:
                parts.append(self.shared.weight.new_zeros(batch, length, self.config.d_model))
        return torch.cat(parts, dim=1)

    def _fill(self, layout: Tensor, bank: Tensor) -> Tensor:
        """Turn layouts into embeddings: (batch, length) to (batch, length, d_model)."""
        embeds: Tensor = self.shared(layout.clamp(min=0))
        is_vector = layout <= FIRST_VECTOR
        places = (FIRST_VECTOR - layout).clamp(min=0)
        vectors = bank.gather(1, places[:, :, None].expand(-1, -1, bank.shape[-1]))
        return torch.where(is_vector[:, :, None], vectors.to(embeds.dtype), embeds)

    def _fill_suffixes(self, layout: Tensor, histories: Histories, candidates: Tensor) -> Tensor:
        """Turn suffix layouts into embeddings: (batch, length) to (batch, num_candidates, length, d_model)."""
        bank = self._candidate_bank(histories, candidates)
        tokens = self.shared(layout.clamp(min=0))[:, None]  # (batch, 1, length, d_model)
        is_vector = (layout <= FIRST_VECTOR)[:, None, :, None]
        places = (FIRST_VECTOR - layout).clamp(min=0)[:, None, :, None].expand(-1, bank.shape[1], -1, bank.shape[-1])
        return torch.where(is_vector, bank.gather(2, places).to(tokens.dtype), tokens)

    def _candidate_bank(self, histories: Histories, candidates: Tensor) -> Tensor:
        """The four vectors of each candidate in the order of `SUFFIX_VECTORS`: (batch, candidates, 4, d_model)."""
        filtered, items = [], []
        for name in ("collaborative", "semantic"):
            if name not in histories.states:
                zeros = self.shared.weight.new_zeros(*candidates.shape, self.config.d_model)
                filtered.append(zeros)
                items.append(zeros)
                continue
            view, vectors = self.views_by_name[name], histories.items[name]
            filtered.append(
                view.picked_vectors(
                    vectors[candidates], histories.states[name], histories.mask, histories.wanted.get(name)
                )
            )
            # Carried over once for each item of the batch, not once for each candidate.
            items.append(view.item_vectors(vectors)[candidates])
        return torch.stack([*filtered, *items], dim=2)

    def _scaled(self, decoded: Tensor) -> Tensor:
        return decoded * self.model_dim**-0.5 if self.config.scale_decoder_outputs else decoded


def _with_zero(vectors: Tensor) -> Tensor:
    """Add a row of zeros behind: what place -1 finds."""
    return torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])


__all__ = ["GenSRPromptsMixin", "Histories"]
