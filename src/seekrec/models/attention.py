# SPDX-License-Identifier: Apache-2.0
"""Attention masks that transformers has no builder for."""

from __future__ import annotations

import torch
from torch import Tensor


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


__all__ = ["additive_mask", "causal_mask"]
