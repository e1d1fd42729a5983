# SPDX-License-Identifier: Apache-2.0
"""The encoder of GenSAR with one encoded history for all targets: causal, and event by event if asked.

With `merge_events` an item or a query is one position, the sum of its token embeddings. What comes out has the length
of the tokens again, so that `generate` and the generation engine need not know: each token has the state of its event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.t5.modeling_t5 import T5Stack

from seekrec.models.attention import additive_mask, causal_mask
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.gensar.modeling_gensar_items import ItemTable, ItemVectors


@dataclass(frozen=True)
class EncodedEvents:
    """A history encoded event by event.

    Args:
        output (`BaseModelOutput`): `last_hidden_state` of shape `(batch, num_events, d_model)`.
        event_of_token (`torch.LongTensor` of shape `(batch, length)`): The event each token belongs to.
        lengths (`torch.LongTensor` of shape `(batch, num_events)`): Tokens of each event, 0 for padding.
        is_query (`torch.BoolTensor` of shape `(batch, num_events)`): Whether the event is a query.
        last_only (`bool`): A target sees the last event alone (`summarize_history`).
    """

    output: BaseModelOutput
    event_of_token: Tensor
    lengths: Tensor
    is_query: Tensor
    last_only: bool = False

    def last_visible(self, history_lengths: Tensor) -> Tensor:
        """Number of the last event among so many tokens: int64, of the shape of `history_lengths`."""
        return self.event_of_token.gather(1, history_lengths - 1)

    def cross_mask(self, history_lengths: Tensor) -> Tensor:
        """Let each target see the events before it; of the queries only one that is asked now, the last event.

        With `last_only` it sees the last event, whatever it is.

        The weight of an event in attention is its number of tokens, those of the query it answers included, as when
        a decoder attends to all tokens of [`GenSAREncoder`]'s output.

        Args:
            history_lengths (`torch.LongTensor` of shape `(batch, target_length)`): Visible tokens, whole events.

        Returns:
            `torch.Tensor`: Additive mask of shape `(batch, 1, target_length, num_events)`.
        """
        last = self.last_visible(history_lengths)[:, :, None]
        events = torch.arange(self.lengths.shape[1], device=last.device)
        if self.last_only:
            return additive_mask(events == last, self.output[0])
        visible = (events <= last) & (self.lengths > 0)[:, None]
        visible = visible & (~self.is_query[:, None] | (events == last))
        answered = torch.nn.functional.pad(self.lengths * self.is_query, (1, 0))[:, :-1]
        weight = torch.where(self.is_query, self.lengths, self.lengths + answered).clamp(min=1)
        return additive_mask(visible, self.output[0]) + weight.to(self.output[0].dtype).log()[:, None, None]


# Identical to T5Stack except: with `config.shared_history` a position sees itself and what came before it; with
# `config.merge_events` the stack runs over events, and every token of an event gets the event's state; with
# `config.item_vector_size` the event of an item adds the catalogue's vector of it.
class GenSAREncoder(T5Stack):
    """The encoder of a GenSAR model; see [`GenSARConfig`] for `shared_history` and `merge_events`."""

    config: GenSARConfig
    config_class = GenSARConfig
    item_vectors: ItemVectors | None

    def __init__(self, config: GenSARConfig) -> None:
        super().__init__(config)
        self.item_vectors = ItemVectors(config) if config.item_vector_size else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        item_table: ItemTable | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode token ids int64 of shape `(batch, length)`; `attention_mask` is 1 for a token, 0 for padding.

        `item_table` holds the vectors of items; left out, they are those of the catalogue set last.
        """
        if not self.config.shared_history:
            return super().forward(
                input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
        if input_ids is None:
            raise ValueError("`input_ids` is None; with `shared_history` the encoder needs the tokens themselves.")
        if not self.config.merge_events:
            mask = causal_mask(len(input_ids), input_ids.shape[1], attention_mask, self.final_layer_norm.weight)
            return super().forward(input_ids=input_ids, attention_mask=mask, **kwargs)
        events = self.encode_events(input_ids, attention_mask, item_table, **kwargs)
        event_of_token = events.event_of_token
        last = event_of_token.amax(1, keepdim=True)
        if self.config.summarize_history:
            event_of_token = last.expand_as(event_of_token)
        else:
            # Attending to every token of an event, each with its state, weighs events by their length. The tokens of
            # an answered query get the state of what followed it: only the last event can be asked now.
            answered = events.is_query.gather(1, event_of_token) & (event_of_token < last)
            event_of_token = event_of_token + answered.long()
        states = events.output[0]
        events.output["last_hidden_state"] = states.gather(
            1, event_of_token[:, :, None].expand(-1, -1, states.shape[-1])
        )
        return events.output

    def encode_events(
        self, input_ids: Tensor, attention_mask: Tensor | None, item_table: ItemTable | None = None, **kwargs: Any
    ) -> EncodedEvents:
        """Encode a history with one position for each event (`merge_events`).

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): Tokens; padding on the right.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`, *optional*): 1 for a token.
            item_table ([`ItemTable`], *optional*): As in [`forward`].
            kwargs: As in `T5Stack`.

        Returns:
            [`EncodedEvents`]: The states, and how events and tokens belong together.
        """
        first = self.config.first_identifier_token_id
        is_token = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
        begins = ((input_ids >= first) & (input_ids < first + 3)).long()
        # A token before the first behavior token stands for itself; padding joins the last event, as nothing.
        begins = torch.where(begins.cumsum(1) == 0, 1, begins) * is_token
        event_of_token = (begins.cumsum(1) - 1).clamp(min=0)
        num_events = int(event_of_token.max()) + 1
        embeds = self.embed_tokens(input_ids)
        if self.item_vectors is not None:
            rows = self.item_vectors.find_rows(input_ids, item_table)
            begins_item = (rows >= 0).nonzero(as_tuple=True)
            projected = self.item_vectors(rows[begins_item], item_table)
            embeds = embeds.index_put(begins_item, projected.to(embeds.dtype), accumulate=True)
        embeds = embeds * is_token[:, :, None].to(embeds.dtype)
        merged = embeds.new_zeros(len(input_ids), num_events, embeds.shape[-1])
        merged = merged.scatter_add(1, event_of_token[:, :, None].expand_as(embeds), embeds)
        counts = is_token.new_zeros(len(input_ids), num_events)
        lengths = counts.scatter_add(1, event_of_token, is_token)
        is_query = counts.scatter_add(1, event_of_token, (input_ids == first + 1).long() * is_token) > 0
        mask = causal_mask(len(input_ids), num_events, lengths > 0, merged)
        output = super().forward(inputs_embeds=merged, attention_mask=mask, **kwargs)
        return EncodedEvents(output, event_of_token, lengths, is_query, self.config.summarize_history)


__all__ = ["EncodedEvents", "GenSAREncoder"]
