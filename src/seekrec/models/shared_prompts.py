# SPDX-License-Identifier: Apache-2.0
"""T5 over many prompts with a common prefix: the prefix is computed once, each suffix separately.

A prompt is a *prefix*, the same for all candidates of a request, and a *suffix* for each candidate. The prefix attends
to itself, a suffix to the prefix and to itself: what plain T5 computes with such a mask over each whole prompt, but
here keys and values of the prefix are computed, kept and multiplied once for all suffixes. The decoder's first step
sees both parts. Prefixes are padded on the left, so the distance from a suffix to any position of its prefix is the
same in all rows; T5's position bias depends on distances only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5Stack


@dataclass(frozen=True)
class EncodedPrefix:
    """Prefixes after the encoder, with what suffixes need of each layer.

    Args:
        states (`torch.Tensor` of shape `(batch, prefix_length, d_model)`): The encoder's output.
        bias (`torch.Tensor` of shape `(batch, 1, 1, prefix_length)`): 0, or the lowest number at padding.
        keys (`list[torch.Tensor]`): Keys of each layer, `(batch, num_heads, prefix_length, d_kv)`.
        values (`list[torch.Tensor]`): Values of each layer, of the same shape.
    """

    states: Tensor
    bias: Tensor
    keys: list[Tensor]
    values: list[Tensor]


def encode_prefix(
    stack: T5Stack, embeds: Tensor, mask: Tensor, before: EncodedPrefix | None = None, *, is_causal: bool = False
) -> EncodedPrefix:
    """Run the encoder over prefixes, or over what follows on them.

    Args:
        stack (`T5Stack`): The encoder.
        embeds (`torch.Tensor` of shape `(batch, prefix_length, d_model)`): Embeddings, padded on the left; on the
            right where something comes before them.
        mask (`torch.BoolTensor` of shape `(batch, prefix_length)`): False for padding; each row, with what comes
            before, has at least one position that is not.
        before ([`EncodedPrefix`], *optional*): What stands before; it does not attend to what is read now.
        is_causal (`bool`): Whether a position attends to itself and earlier ones alone.

    Returns:
        [`EncodedPrefix`]: States of what was read now, keys and values of all.
    """
    length = embeds.shape[1]
    bias = additive_mask(mask[:, None], embeds)
    if before is not None:
        bias = torch.cat([before.bias, bias], dim=-1)
    total = bias.shape[-1]
    position_bias = _position_bias(stack, total, total - length, length) + bias
    if is_causal:
        steps = torch.arange(total, device=embeds.device)
        is_later = steps > steps[total - length :, None]
        position_bias = position_bias.masked_fill(is_later, torch.finfo(embeds.dtype).min)
    keys, values = [], []
    hidden = stack.dropout(embeds)
    for number, block in enumerate(_blocks(stack)):
        layer = block.layer[0]
        normed = layer.layer_norm(hidden)
        attention = layer.SelfAttention
        query_states, key_states, value_states = (
            _split_heads(project(normed), attention.n_heads) for project in (attention.q, attention.k, attention.v)
        )
        if before is not None:
            key_states = torch.cat([before.keys[number].to(key_states.dtype), key_states], dim=2)
            value_states = torch.cat([before.values[number].to(key_states.dtype), value_states], dim=2)
        attended = F.scaled_dot_product_attention(
            query_states,
            key_states,
            value_states,
            attn_mask=position_bias.to(key_states.dtype),
            dropout_p=attention.dropout if attention.training else 0.0,
            scale=1.0,
        )
        hidden = hidden + layer.dropout(attention.o(attended.transpose(1, 2).flatten(2)))
        hidden = block.layer[-1](hidden)
        keys.append(key_states)
        values.append(value_states)
    states = stack.dropout(stack.final_layer_norm(hidden))
    return EncodedPrefix(states, bias, keys, values)


def encode_suffixes(stack: T5Stack, prefix: EncodedPrefix, embeds: Tensor, mask: Tensor) -> Tensor:
    """Run the encoder over the suffixes of encoded prefixes.

    Args:
        stack (`T5Stack`): The encoder.
        prefix ([`EncodedPrefix`]): The prefixes.
        embeds (`torch.Tensor` of shape `(batch, num_candidates, suffix_length, d_model)`): Embeddings, padded on the
            right.
        mask (`torch.BoolTensor` of shape `(batch, suffix_length)`): False for padding, for all candidates of a row.

    Returns:
        `torch.Tensor`: The encoder's output, of the shape of `embeds`.
    """
    batch, num_candidates, length, width = embeds.shape
    before = prefix.states.shape[1]
    position_bias = _position_bias(stack, before + length, before, length)  # (1, heads, length, before + length)
    to_prefix = (position_bias[..., :before] + prefix.bias)[:, :, None]  # (batch, heads, 1, length, before)
    to_itself = (position_bias[..., before:] + additive_mask(mask[:, None], embeds))[:, :, None]
    hidden = stack.dropout(embeds.reshape(batch, num_candidates * length, width))
    for number, block in enumerate(_blocks(stack)):
        layer = block.layer[0]
        attention = layer.SelfAttention
        normed = layer.layer_norm(hidden)
        query_states, key_states, value_states = (
            _split_heads(project(normed), attention.n_heads) for project in (attention.q, attention.k, attention.v)
        )
        attended = _attend(
            query_states,
            prefix.keys[number],
            prefix.values[number],
            key_states,
            value_states,
            num_candidates,
            to_prefix,
            to_itself,
            attention.dropout if attention.training else 0.0,
        )
        hidden = hidden + layer.dropout(attention.o(attended))
        hidden = block.layer[-1](hidden)
    states: Tensor = stack.dropout(stack.final_layer_norm(hidden))
    return states.view(batch, num_candidates, length, width)


def decode_first_token(stack: T5Stack, prefix: EncodedPrefix, suffixes: Tensor, mask: Tensor, start: Tensor) -> Tensor:
    """Run the decoder for its first token over each whole prompt.

    Args:
        stack (`T5Stack`): The decoder.
        prefix ([`EncodedPrefix`]): The prefixes.
        suffixes (`torch.Tensor` of shape `(batch, num_candidates, suffix_length, d_model)`): Output of
            `encode_suffixes`.
        mask (`torch.BoolTensor` of shape `(batch, suffix_length)`): As in `encode_suffixes`.
        start (`torch.Tensor` of shape `(d_model,)`): Embedding of the decoder's start token.

    Returns:
        `torch.Tensor`: Decoder states of shape `(batch, num_candidates, d_model)`, before the head.
    """
    batch, num_candidates, length, width = suffixes.shape
    flat = suffixes.reshape(batch, num_candidates * length, width)
    to_prefix = prefix.bias[:, :, None]  # (batch, 1, 1, 1, prefix_length)
    to_itself = additive_mask(mask[:, None], suffixes)[:, :, None]
    hidden = stack.dropout(start.to(suffixes.dtype).expand(batch, num_candidates, width))
    for block in _blocks(stack):
        own, cross = block.layer[0], block.layer[1]
        # A single token attends to itself alone: what it gets is its own value.
        hidden = hidden + own.dropout(own.SelfAttention.o(own.SelfAttention.v(own.layer_norm(hidden))))
        attention = cross.EncDecAttention
        attended = _attend(
            _split_heads(attention.q(cross.layer_norm(hidden)), attention.n_heads),
            _split_heads(attention.k(prefix.states), attention.n_heads),
            _split_heads(attention.v(prefix.states), attention.n_heads),
            _split_heads(attention.k(flat), attention.n_heads),
            _split_heads(attention.v(flat), attention.n_heads),
            num_candidates,
            to_prefix,
            to_itself,
            attention.dropout if attention.training else 0.0,
        )
        hidden = hidden + cross.dropout(attention.o(attended))
        hidden = block.layer[-1](hidden)
    states: Tensor = stack.dropout(stack.final_layer_norm(hidden))
    return states


def _attend(
    query_states: Tensor,
    prefix_keys: Tensor,
    prefix_values: Tensor,
    own_keys: Tensor,
    own_values: Tensor,
    num_candidates: int,
    to_prefix: Tensor,
    to_itself: Tensor,
    dropout: float,
) -> Tensor:
    """Attend to the prefix of a request and to one's own suffix, in one softmax.

    Args:
        query_states (`torch.Tensor`): `(batch, heads, num_candidates * queries, d_kv)`.
        prefix_keys (`torch.Tensor`): `(batch, heads, prefix_length, d_kv)`.
        prefix_values (`torch.Tensor`): As `prefix_keys`.
        own_keys (`torch.Tensor`): `(batch, heads, num_candidates * suffix_length, d_kv)`.
        own_values (`torch.Tensor`): As `own_keys`.
        num_candidates (`int`): Candidates of a request.
        to_prefix (`torch.Tensor`): Added to the scores of the prefix, broadcasts to
            `(batch, heads, num_candidates, queries, prefix_length)`.
        to_itself (`torch.Tensor`): Added to the scores of the suffix, broadcasts to
            `(batch, heads, num_candidates, queries, suffix_length)`.
        dropout (`float`): Dropout of attention weights.

    Returns:
        `torch.Tensor`: `(batch, num_candidates * queries, heads * d_kv)`.
    """
    batch, heads, total, size = query_states.shape
    before = prefix_keys.shape[2]
    queries = query_states.view(batch, heads, num_candidates, total // num_candidates, size)
    # The prefix is multiplied with all candidates at once, as one sequence of queries.
    prefix_scores = torch.matmul(query_states, prefix_keys.transpose(2, 3)).view(*queries.shape[:4], before)
    own_scores = torch.matmul(queries, own_keys.view(batch, heads, num_candidates, -1, size).transpose(3, 4))
    scores = torch.cat([prefix_scores + to_prefix, own_scores + to_itself], dim=-1)
    weights = F.dropout(scores.float().softmax(-1).to(query_states.dtype), dropout, dropout > 0)
    from_prefix = torch.matmul(weights[..., :before].reshape(batch, heads, total, before), prefix_values)
    from_itself = torch.matmul(weights[..., before:], own_values.view(batch, heads, num_candidates, -1, size))
    attended = from_prefix + from_itself.reshape(batch, heads, total, size)
    return attended.transpose(1, 2).flatten(2)


def _split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Split vectors into heads: `(batch, length, size)` to `(batch, num_heads, length, size / num_heads)`."""
    return states.view(*states.shape[:2], num_heads, -1).transpose(1, 2)


def _blocks(stack: T5Stack) -> list[Any]:
    """Return the layers of a stack; torch knows no types of their attributes."""
    return list(stack.block)


def _position_bias(stack: T5Stack, key_length: int, first: int, num_queries: int) -> Tensor:
    """Return T5's position bias of positions `first` and on: `(1, heads, num_queries, key_length)`."""
    attention = _blocks(stack)[0].layer[0].SelfAttention
    bias: Tensor = attention.compute_bias(num_queries, key_length, past_seen_tokens=first)
    return bias


def additive_mask(allowed: Tensor, like: Tensor) -> Tensor:
    """Turn a boolean mask into one to add to attention scores.

    Args:
        allowed (`torch.BoolTensor` of shape `(batch, queries, keys)`): True where a query may see a key.
        like (`torch.Tensor`): Gives dtype and device.

    Returns:
        `torch.Tensor`: 0 or the lowest number of the dtype, of shape `(batch, 1, queries, keys)`.
    """
    lowest = torch.finfo(like.dtype).min
    return torch.zeros(allowed.shape, dtype=like.dtype, device=like.device).masked_fill_(~allowed, lowest)[:, None]


def causal_mask(batch: int, length: int, attention_mask: Tensor | None, like: Tensor) -> Tensor:
    """Let each position see itself and what came before it.

    Args:
        batch (`int`): Rows.
        length (`int`): Positions.
        attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): True or 1 where there is something.
        like (`torch.Tensor`): Gives dtype and device.

    Returns:
        `torch.Tensor`: Additive mask of shape `(batch, 1, length, length)`.
    """
    steps = torch.arange(length, device=like.device)
    allowed = (steps[:, None] >= steps).expand(batch, length, length)
    if attention_mask is not None:
        allowed = allowed & attention_mask[:, None, :].bool()
    return additive_mask(allowed, like)


__all__ = [
    "EncodedPrefix",
    "additive_mask",
    "causal_mask",
    "decode_first_token",
    "encode_prefix",
    "encode_suffixes",
]
