# SPDX-License-Identifier: Apache-2.0
"""SASRec: a causal transformer over item embeddings that predicts the next item.

Differences from the paper (Kang and McAuley 2018):
- the loss is a full softmax over all items at every position, instead of one sampled negative, which learns far more
  from each step and makes SASRec the strong baseline it can be; if there are too many items, a sampled softmax over
  thousands shared by a batch (`num_sampled_negatives`);
- layer norm comes first in each block, and once after the last;
- a start token precedes every history, so that the first item is learned too and an empty history has an answer;
- the feed-forward layer is wider than the model and uses GELU, as transformers do today.

Tokens: 0 is padding, `row + 1` an item, `num_items + 1` the start token. Padding may be on the left or right:
positions count tokens, not columns, and layers compute on tokens alone (most of a batch of short histories is
padding).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import ModelOutput

from seekrec.embeddings.configuration_sasrec import SASRecConfig
from seekrec.embeddings.softmax import info_nce, softmax_loss
from seekrec.errors import RequestError
from seekrec.util.constants import LABEL_PADDING
from seekrec.util.ragged import Ragged


@dataclass
class SASRecOutput(ModelOutput):
    """What [`SASRecForNextItem`] returns.

    Args:
        loss (`torch.FloatTensor`, *optional*):
            Mean cross-entropy over the labelled positions, in nats; present when labels are given.
        logits (`torch.FloatTensor`, *optional*):
            Of shape `(batch_size, length, num_items)`; present when no labels are given.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class _Packing:
    """Where the tokens of a batch stand, so that layers skip padding.

    Args:
        columns (`torch.Tensor`): int64 of shape `(num_tokens,)`: positions in the flattened input.
        slots (`torch.Tensor`): int64 of shape `(num_tokens,)`: positions in a flat, left-aligned
            `(batch_size, length)`.
        positions (`torch.Tensor`): int64 of shape `(num_tokens,)`: tokens before this one in its row.
        batch_size (`int`): Rows.
        length (`int`): Tokens of the longest row.
    """

    columns: Tensor
    slots: Tensor
    positions: Tensor
    batch_size: int
    length: int

    @classmethod
    def of(cls, input_ids: Tensor) -> "_Packing":
        is_token = input_ids != 0
        length = max(int(is_token.sum(dim=1).max()), 1) if input_ids.numel() else 1
        columns = is_token.flatten().nonzero().squeeze(1)
        positions = (is_token.cumsum(dim=1) - 1).flatten()[columns]
        slots = torch.div(columns, max(input_ids.shape[1], 1), rounding_mode="floor") * length + positions
        return cls(columns, slots, positions, input_ids.shape[0], length)


class SASRecBlock(nn.Module):
    """Causal self-attention and a feed-forward layer, each with layer norm first and a residual."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        width = config.intermediate_size or 4 * config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_dropout = config.attention_dropout
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.attention_output = nn.Linear(config.hidden_size, config.hidden_size)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.expand = nn.Linear(config.hidden_size, width)
        self.contract = nn.Linear(width, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor, packing: _Packing) -> Tensor:
        """Apply the block.

        Args:
            hidden_states (`torch.Tensor`): Tokens without padding, of shape `(num_tokens, hidden_size)`.
            packing (`_Packing`): Where the tokens stand.

        Returns:
            `torch.Tensor`: Tensor of the shape of `hidden_states`.
        """
        projected = self.query_key_value(self.attention_norm(hidden_states))
        # Rows are left-aligned here, so causality alone hides their padding: no mask is needed.
        padded = projected.new_zeros(packing.batch_size * packing.length, projected.shape[1])
        padded = padded.index_copy(0, packing.slots, projected)
        # (batch_size * length, 3 * hidden_size) -> 3 of (batch_size, num_heads, length, head_size)
        query_states, key_states, value_states = (
            padded.view(packing.batch_size, packing.length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        attended = F.scaled_dot_product_attention(
            query_states,
            key_states,
            value_states,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=True,
        )
        attended = attended.transpose(1, 2).flatten(0, 1).flatten(1)[packing.slots]  # (num_tokens, hidden_size)
        hidden_states = hidden_states + self.dropout(self.attention_output(attended))
        expanded = F.gelu(self.expand(self.feed_forward_norm(hidden_states)))
        return hidden_states + self.dropout(self.contract(expanded))


class SASRecPreTrainedModel(PreTrainedModel):
    """Loading, saving and the start values of SASRec's weights."""

    # No `from __future__ import annotations` in this file: transformers reads the class from this annotation.
    config: SASRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["SASRecBlock"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Every parameter of this file lives in one of these three kinds of module.
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class SASRecModel(SASRecPreTrainedModel):
    """The transformer without the prediction: item tokens to hidden states."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.item_embedding = nn.Embedding(config.num_items + 2, config.hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(config.max_history, config.hidden_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(SASRecBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of item embeddings."""
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the table of item embeddings."""
        self.item_embedding = value  # type: ignore[assignment]

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor | None = None) -> BaseModelOutput:
        """Encode sequences of item tokens.

        Args:
            input_ids (`torch.Tensor`): int64 tokens of shape `(batch_size, length)`, 0 = padding, anywhere.
            inputs_embeds (`torch.Tensor`, *optional*): Item embeddings of shape `(batch_size, length, hidden_size)`
                in place of the table's; `input_ids` then says only what is padding.

        Returns:
            `BaseModelOutput`: `last_hidden_state` of shape `(batch_size, length, hidden_size)`; zero at
            padding.

        Raises:
            RequestError: If a row contains more than `max_history` tokens.
        """
        packing = _Packing.of(input_ids)
        if packing.length > self.config.max_history:
            raise RequestError(
                f"`input_ids` has a row of {packing.length} tokens, but `max_history` is {self.config.max_history}; "
                f"keep the last {self.config.max_history}."
            )
        # Scaled as in the paper: rows start near 0.02 * sqrt(hidden_size), so that the item outweighs its position.
        if inputs_embeds is None:
            items = self.item_embedding(input_ids.flatten()[packing.columns])
        else:
            items = inputs_embeds.flatten(0, 1)[packing.columns]
        items = items * self.config.hidden_size**0.5
        hidden_states = self.embedding_dropout(items + self.position_embedding(packing.positions))
        for layer in self.layers:
            hidden_states = layer(hidden_states, packing)
        hidden_states = self.norm(hidden_states)
        unpacked = hidden_states.new_zeros(input_ids.numel(), hidden_states.shape[1])
        unpacked = unpacked.index_copy(0, packing.columns, hidden_states)
        return BaseModelOutput(last_hidden_state=unpacked.view(*input_ids.shape, -1))


class SASRecForNextItem(SASRecPreTrainedModel):
    """SASRec that predicts the next item by a softmax; input and output embeddings are one table."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.model = SASRecModel(config)
        self.post_init()

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> SASRecOutput:
        """Predict the item after each position.

        Args:
            input_ids (`torch.Tensor`): int64 tokens of shape `(batch_size, length)`, 0 = padding, left or right.
            labels (`torch.Tensor`, *optional*):
                int64 item tokens (`row + 1`) of shape `(batch_size, length)`: the item that follows each position,
                -100 where there is none. Already shifted: see [`SASRecCollator`].

        Returns:
            [`SASRecOutput`]: `loss` if labels are given, else `logits` (with labels they are never built whole).
        """
        hidden_states = self.model(input_ids).last_hidden_state
        if labels is None:
            return SASRecOutput(logits=self._project(hidden_states))
        has_label = labels != LABEL_PADDING
        asked, rows = hidden_states[has_label], labels[has_label] - 1
        if self.training and self.config.num_sampled_negatives:
            return SASRecOutput(loss=self._sampled_loss(asked, rows))
        return SASRecOutput(loss=softmax_loss(asked, self._items(), rows, reduction="mean"))

    def _sampled_loss(self, asked: Tensor, rows: Tensor) -> Tensor:
        """Compare targets with uniform draws, with replacement: each as likely, so there is nothing to correct."""
        drawn = torch.randint(self.config.num_items, (self.config.num_sampled_negatives,), device=rows.device)
        table = self.model.item_embedding
        return info_nce((asked * table(rows + 1)).sum(-1), F.linear(asked, table(drawn + 1)))

    def _items(self) -> Tensor:
        return self.model.item_embedding.weight[1 : self.config.num_items + 1]

    def _project(self, hidden_states: Tensor) -> Tensor:
        return F.linear(hidden_states, self._items())

    @torch.no_grad()
    def score(self, histories: Sequence[np.ndarray], *, batch_size: int = 256) -> Tensor:
        """Score every item as the next of each history.

        The model is put in evaluation mode for the call, so that no dropout disturbs the answer.

        Args:
            histories (`Sequence[np.ndarray]`): Item rows, oldest first; may be empty. Only the last are used.
            batch_size (`int`): Histories in one pass.

        Returns:
            `torch.Tensor`: float32 logits of shape `(len(histories), num_items)`, on the CPU.

        Raises:
            RequestError: If a row is not one of the `num_items` items.
        """
        was_training = self.training
        self.eval()
        scores = torch.empty(len(histories), self.config.num_items)
        for begin in range(0, len(histories), batch_size):
            tokens = [
                to_tokens(history, self.config)[-self.config.max_history :]
                for history in histories[begin : begin + batch_size]
            ]
            lengths = torch.tensor([len(row) for row in tokens])
            input_ids = torch.from_numpy(Ragged.from_arrays(tokens).pad(0)).to(self.device)
            hidden_states = self.model(input_ids).last_hidden_state
            last = hidden_states[torch.arange(len(tokens)), (lengths - 1).to(self.device)]
            scores[begin : begin + len(tokens)] = self._project(last).float().cpu()
        self.train(was_training)
        return scores

    def item_embeddings(self) -> np.ndarray:
        """Return a copy of the item embeddings, float32 of shape `(num_items, hidden_size)`, in row order."""
        weight = self.model.item_embedding.weight[1 : self.config.num_items + 1]
        return np.array(weight.detach().float().cpu().numpy())


class SASRecCollator:
    """Turn windows of tokens into a batch, padded on the right to the longest.

    Each window is one int64 array of tokens; all but its last are the input, all but its first the labels.
    """

    def __call__(self, windows: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        """Collate.

        Args:
            windows (`Sequence[dict]`): Each with `tokens`, an int64 array of at least two.

        Returns:
            `dict`: `input_ids` (0 = padding) and `labels` (-100 = none), int64 of shape `(batch_size, longest)`.
        """
        tokens = [window["tokens"] for window in windows]
        return {
            "input_ids": torch.from_numpy(Ragged.from_arrays([row[:-1] for row in tokens]).pad(0)),
            "labels": torch.from_numpy(Ragged.from_arrays([row[1:] for row in tokens]).pad(LABEL_PADDING)),
        }


def to_tokens(rows: np.ndarray, config: SASRecConfig) -> np.ndarray:
    """Turn item rows into the model's tokens: the start token, then `row + 1`.

    Args:
        rows (`np.ndarray`): Integer item rows, oldest first; may be empty.
        config ([`SASRecConfig`]): Configuration of the model.

    Returns:
        `np.ndarray`: int64 tokens, one more than rows.

    Raises:
        RequestError: If a row is not one of the `num_items` items.
    """
    tokens = np.empty(len(rows) + 1, np.int64)
    tokens[0] = config.start_token_id
    tokens[1:] = rows
    tokens[1:] += 1
    if len(rows) and (tokens[1:].min() < 1 or tokens[1:].max() > config.num_items):
        wrong = next(int(row) for row in rows if not 0 <= row < config.num_items)
        raise RequestError(
            f"A history contains item row {wrong}, but the model knows rows 0..{config.num_items - 1}; use the "
            "catalogue that the model was trained on."
        )
    return tokens
