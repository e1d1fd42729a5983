# SPDX-License-Identifier: Apache-2.0
"""GenSAR: a T5 that reads an instruction and writes an item identifier (arXiv 2504.05730).

Unusual here:

- The head, loss and generation are T5's. What is added are the identifier rows of the vocabulary, a catalogue beside
  the weights, and [`GenerativeRetrievalMixin`] with `retrieve` and `rank`.
- With `config.shared_history` the encoder is causal and one decoder sequence holds many targets, each in a segment of
  its own that sees only the part of the history before it. A user's whole history is then one training row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.modeling_outputs import Seq2SeqLMOutput

from seekrec.errors import RequestError
from seekrec.models.attention import additive_mask
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.gensar.modeling_gensar_encoder import GenSAREncoder
from seekrec.models.gensar.modeling_gensar_next_item import NextItemMixin
from seekrec.models.gensar.processing_gensar import GenSARProcessor
from seekrec.models.losses import level_loss, mask_other_levels, token_loss
from seekrec.models.t5_backbone import T5Backbone
from seekrec.schema import Behavior, Request, View, shown

# A small model that never read other text holds nothing likelier than a piece after itself; this ends such loops.
_REPETITION_PENALTY = 1.5


class GenSARForConditionalGeneration(NextItemMixin, T5Backbone):
    """GenSAR: T5 with identifier tokens, and a catalogue to search and recommend from.

    ```python
    model = GenSARForConditionalGeneration.from_pretrained("me/gensar-scientific")
    processor = AutoProcessor.from_pretrained("me/gensar-scientific")
    model.retrieve(processor([Request(history=events, query="hard start kit")]), top_k=10)
    ```

    Args:
        config ([`GenSARConfig`]): Sizes of T5 and of the identifiers.
    """

    config: GenSARConfig
    # Annotations are text here, so transformers cannot read the class from the one above.
    config_class = GenSARConfig
    encoder: GenSAREncoder

    def __init__(self, config: GenSARConfig) -> None:
        super().__init__(config)
        encoder_config = copy.deepcopy(config)
        encoder_config.is_decoder = False
        encoder_config.use_cache = False
        self.encoder = GenSAREncoder(encoder_config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: Any = None,
        decoder_segment_ids: Tensor | None = None,
        decoder_history_lengths: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Predict tokens; with `labels`, the negative log-likelihood of equation 12 in nats a token.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): The instruction.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`): 1 for a token, 0 for padding.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                Left out, they are `labels` shifted right.
            labels (`torch.LongTensor` of shape `(batch, target_length)`, *optional*): -100 is not scored.
            encoder_outputs (`BaseModelOutput`, *optional*): An instruction encoded before.
            decoder_segment_ids (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                Several targets in one row: a position attends to earlier positions with the same number. Needs
                `decoder_input_ids`, `decoder_history_lengths` and `config.shared_history`.
            decoder_history_lengths (`torch.LongTensor` of shape `(batch, target_length)`, *optional*):
                How many instruction tokens, from the first, the position may see; at least 1.
            num_items_in_batch (`int`, *optional*):
                Scored labels of all micro-batches of one step (`Trainer` counts them); the loss is the sum divided
                by it, else the mean.
            kwargs: As in `T5ForConditionalGeneration`.

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqLMOutput`]: With segments, `logits` hold the scored positions only,
            of shape `(num_scored, vocab_size)`, only if `labels` is given, and not with `loss_norm="level"`.
        """
        if decoder_segment_ids is not None:
            return self._forward_segments(
                input_ids,
                attention_mask,
                decoder_input_ids,
                labels,
                decoder_segment_ids,
                decoder_history_lengths,
                num_items_in_batch,
            )
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids
            if labels is None or decoder_input_ids is not None
            else self._shift_right(labels),
            encoder_outputs=encoder_outputs,
            **kwargs,
        )
        if labels is not None:
            logits, scored = outputs.logits.flatten(0, 1), labels.flatten()
            if self.config.loss_norm == "level":
                logits = mask_other_levels(logits, scored, self.config)
            outputs["loss"] = token_loss(logits, scored, num_items_in_batch)
        return outputs

    def _forward_segments(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor | None,
        labels: Tensor | None,
        segment_ids: Tensor,
        history_lengths: Tensor | None,
        num_items_in_batch: Tensor | int | None,
    ) -> Seq2SeqLMOutput:
        if not self.config.shared_history:
            raise ValueError(
                "`decoder_segment_ids` needs `config.shared_history=True`: without a causal encoder the history of an "
                "earlier target would hold later events."
            )
        if decoder_input_ids is None or history_lengths is None:
            raise ValueError("`decoder_segment_ids` needs `decoder_input_ids` and `decoder_history_lengths`.")
        if input_ids is None:
            raise ValueError("`decoder_segment_ids` needs `input_ids`.")
        if self.config.merge_events:
            events = self.encoder.encode_events(input_ids, attention_mask)
            states, cross_mask = events.output[0], events.cross_mask(history_lengths)
        else:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
            visible = torch.arange(states.shape[1], device=states.device) < history_lengths[:, :, None]
            if attention_mask is not None:
                visible = visible & attention_mask[:, None, :].bool()
            cross_mask = additive_mask(visible, states)
        steps = torch.arange(segment_ids.shape[1], device=states.device)
        same_target = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (steps[:, None] >= steps)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=additive_mask(same_target, states),
            encoder_hidden_states=states,
            encoder_attention_mask=cross_mask,
            use_cache=False,
        )
        logits = loss = None
        if labels is not None:
            # The head is the dearest product of a small model: it is taken where a label is scored, nowhere else.
            is_scored = labels != -100
            hidden, scored = decoder_outputs[0][is_scored], labels[is_scored]
            if self.config.scale_decoder_outputs:
                hidden = hidden * self.model_dim**-0.5
            if self.config.loss_norm == "level":
                loss = level_loss(hidden, scored, self.lm_head.weight, self.config, num_items_in_batch)
            else:
                logits = self.lm_head(hidden)
                loss = token_loss(logits, scored, num_items_in_batch)
            if self.training and self.config.next_item_weight:
                last = events.last_visible(history_lengths)
                second = self.next_item_loss(states, last, decoder_outputs[0], decoder_input_ids, labels)
                count = len(scored) if num_items_in_batch is None else num_items_in_batch
                loss = loss + second / count
        return Seq2SeqLMOutput(loss=loss, logits=logits, encoder_last_hidden_state=states)

    def decoder_prefix(self, behavior: Behavior, num_rows: int) -> Tensor:
        """What the decoder reads before an identifier; with `shared_history` the behavior token is the start."""
        prefix = super().decoder_prefix(behavior, num_rows)
        return prefix[:, 1:] if self.config.shared_history else prefix

    @overload
    def suggest_queries(
        self, requests: Request, *, processor: GenSARProcessor, num_queries: int = 5, max_new_tokens: int = 16
    ) -> list[str]: ...

    @overload
    def suggest_queries(
        self,
        requests: Sequence[Request],
        *,
        processor: GenSARProcessor,
        num_queries: int = 5,
        max_new_tokens: int = 16,
    ) -> list[list[str]]: ...

    def suggest_queries(
        self,
        requests: Request | Sequence[Request],
        *,
        processor: GenSARProcessor,
        num_queries: int = 5,
        max_new_tokens: int = 16,
    ) -> list[str] | list[list[str]]:
        """Write what the user may search for next (NSQP).

        Args:
            requests ([`Request`] or a list of them): Only the histories are read.
            processor ([`GenSARProcessor`]): The model's own.
            num_queries (`int`): Beams; so many different queries at most.
            max_new_tokens (`int`): Longest query, in tokens.

        Returns:
            `list[str]`: Queries, best first; for a list of requests a list for each.

        Raises:
            RequestError: If the model was not trained on `nsqp`, or a number is below 1.
        """
        self._check_trained("nsqp", "suggest queries")
        row = [self.config.decoder_start_token_id, self.vocabulary.behavior_token_id("search_query")]
        prefix = torch.tensor(row[1:] if self.config.shared_history else row, device=self.device)
        asked = processor.ask_for_queries(requests)
        written = processor.decode_texts(self._write_text(asked, prefix, num_queries, max_new_tokens))
        return written[0] if isinstance(requests, Request) else written

    @overload
    def describe(
        self, item_ids: str, *, processor: GenSARProcessor, view: View = "semantic", max_new_tokens: int = 32
    ) -> str: ...

    @overload
    def describe(
        self, item_ids: list[str], *, processor: GenSARProcessor, view: View = "semantic", max_new_tokens: int = 32
    ) -> list[str]: ...

    def describe(
        self,
        item_ids: str | list[str],
        *,
        processor: GenSARProcessor,
        view: View = "semantic",
        max_new_tokens: int = 32,
    ) -> str | list[str]:
        """Write what the model holds an item to be, from its identifier alone (ID2Desc).

        Args:
            item_ids (`str` or `list[str]`): Items of the catalogue.
            processor ([`GenSARProcessor`]): The model's own.
            view (`str`): The identifier it reads: `"semantic"` or `"collaborative"`.
            max_new_tokens (`int`): Longest description, in tokens.

        Returns:
            `str`: The description; for a list of items one for each.

        Raises:
            RequestError: If the model was not trained on `id2desc_<view>`, or a number is below 1.
            UnknownItemError: If the catalogue does not hold an item.
        """
        self._check_trained(f"id2desc_{view}", "describe items")
        asked = processor.describe_items([item_ids] if isinstance(item_ids, str) else item_ids, view)
        prefix = torch.tensor([self.config.decoder_start_token_id], device=self.device)
        written = processor.decode_texts(self._write_text(asked, prefix, 1, max_new_tokens))
        texts = [answers[0] if answers else "" for answers in written]
        return texts[0] if isinstance(item_ids, str) else texts

    def _check_trained(self, task: str, what: str) -> None:
        trained = self.config.trained_tasks
        if task not in trained:
            raise RequestError(
                f"The model was not trained to {what}: the task {task!r} is not among those it was trained on "
                f"({', '.join(trained) or 'none is named'}). Train it with {task}=... in `task_weights`."
            )

    @torch.no_grad()
    def _write_text(self, inputs: BatchFeature, prefix: Tensor, num_answers: int, max_new_tokens: int) -> Tensor:
        """Beam search for plain text, `(batch, num_answers, length)`: no tokens of identifiers, no unused rows."""
        for name, value in (("num_queries", num_answers), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise RequestError(f"`{name}` is {shown(value)}; give 1 or more.")
        input_ids = inputs["input_ids"].to(self.device)
        written: Tensor = self.generate(
            input_ids=input_ids,
            attention_mask=inputs["attention_mask"].to(self.device),
            decoder_input_ids=prefix.repeat(len(input_ids), 1),
            # Else `generate` puts the start token before the behavior token that `shared_history` starts with.
            decoder_start_token_id=int(prefix[0]),
            num_beams=max(4, num_answers),
            num_return_sequences=num_answers,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            repetition_penalty=_REPETITION_PENALTY,
            suppress_tokens=list(range(self.config.first_identifier_token_id, self.config.vocab_size)),
        )
        return written[:, len(prefix) :].reshape(len(input_ids), num_answers, -1)


__all__ = ["GenSARForConditionalGeneration"]
