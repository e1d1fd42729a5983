# SPDX-License-Identifier: Apache-2.0
"""Attention among context tokens: SDPA under the whole mask, or flex attention, which needs no matrix of it.

The context rows of the task mask come in two forms: `task_mask` writes them out for SDPA; [`context_block_mask`]
gives flex attention a function of two places and leaves out blocks in which nothing is seen. Flex attention is
compiled on a GPU. Elsewhere it runs as it is, slowly and without gradients: a way to compare the two.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

# What flex attention's GPU kernel takes at least.
MIN_FLEX_HEAD_SIZE = 16


def context_block_mask(time: Tensor, is_real: Tensor) -> BlockMask:
    """Say what context tokens see of each other: real ones of an earlier time, and themselves.

    Args:
        time (`torch.LongTensor`): Seconds, of shape `(batch, length)`, at least one long.
        is_real (`torch.BoolTensor`): Of that shape: False for padding.

    Returns:
        `torch.nn.attention.flex_attention.BlockMask`: For [`attend`].
    """

    def is_seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        earlier: Tensor = (time[batch, key] < time[batch, query]) & is_real[batch, key]
        return earlier | (query == key)

    num_rows, length = time.shape
    make = _compiled(create_block_mask) if time.is_cuda else create_block_mask
    mask: BlockMask = make(is_seen, B=num_rows, H=None, Q_LEN=length, KV_LEN=length, device=time.device)
    return mask


def attend(queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | BlockMask) -> Tensor:
    """Mix values by softmax attention.

    Args:
        queries (`torch.Tensor`): Of shape `(batch, num_heads, num_queries, head_size)`.
        keys (`torch.Tensor`): Of shape `(batch, num_heads, num_keys, head_size)`.
        values (`torch.Tensor`): Likewise.
        allowed (`torch.BoolTensor` or `BlockMask`): What is seen: of shape `(batch, num_queries, num_keys)` for SDPA,
            a block mask for flex attention.

    Returns:
        `torch.Tensor`: Of the shape of `queries`.
    """
    if isinstance(allowed, BlockMask):
        flex = _compiled(flex_attention) if queries.is_cuda else flex_attention
        mixed: Tensor = flex(queries, keys, values, block_mask=allowed)
        return mixed
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed[:, None])


def uses_flex(implementation: str | None, device: torch.device, head_size: int) -> bool:
    """Tell whether an `attn_implementation` means flex attention on a device: `"auto"` does on a GPU that takes it."""
    if implementation == "auto":
        return device.type == "cuda" and head_size >= MIN_FLEX_HEAD_SIZE
    return implementation == "flex_attention"


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function)


__all__ = ["attend", "context_block_mask", "uses_flex"]
