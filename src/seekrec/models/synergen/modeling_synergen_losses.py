# SPDX-License-Identifier: Apache-2.0
"""SynerGen's losses that no other family has: targets against each other, and clicks against what was not clicked."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seekrec.models.dense.losses import info_nce


def in_batch_loss(
    questions: Tensor,
    targets: Tensor,
    labels: Tensor,
    *,
    first: int = 0,
    log_q: Tensor | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """InfoNCE of each target against the other targets of the batch.

    A popular item is a negative more often than a rare one, in proportion to how often it is a target; `log_q` takes
    that back. Another question with the same target is no negative, but with `log_q`, where it is a draw as any other:
    see `seekrec.embeddings.softmax`.

    Args:
        questions (`torch.Tensor`): Of shape `(num_questions, size)`.
        targets (`torch.Tensor`): Item vectors of the batch's targets, `(num_targets, size)`: of these questions, and
            of those that other processes ask.
        labels (`torch.LongTensor`): Their rows, `(num_targets,)`.
        first (`int`): Targets before that of the first question; the others follow in order.
        log_q (`torch.Tensor`, *optional*): Logarithm of how often each target is one, `(num_targets,)`.
        temperature (`float`): Divides similarities.
        divisor (`int`, *optional*): Divides the sum over questions; their number if not given.

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    scores = questions @ targets.T
    own = slice(first, first + len(questions))
    numbers = torch.arange(len(labels), device=labels.device)
    is_other = numbers[own, None] != numbers
    return info_nce(
        scores.diagonal(first),
        scores,
        is_valid=labels[own, None] != labels if log_q is None else is_other,
        positive_log_q=None if log_q is None else log_q[own],
        negative_log_q=log_q,
        temperature=temperature,
        divisor=divisor,
    )


class RankingLosses(NamedTuple):
    """In nats a question: the log-loss of clicks, and of the order of pairs."""

    pointwise: Tensor
    pairwise: Tensor


def ranking_losses(logits: Tensor, is_real: Tensor, *, divisor: Tensor | int | None = None) -> RankingLosses:
    """Clicks against what was not clicked (section 3.5).

    Every candidate weighs the same, so the sigmoid of a logit is the share of clicks among candidates as they come.

    Args:
        logits (`torch.Tensor`): Of shape `(num_questions, num_candidates)`; what was clicked comes first.
        is_real (`torch.BoolTensor`): Of the same shape: False for padding.
        divisor (`int`, *optional*): Divides the sums; the number of questions if not given.

    Returns:
        [`RankingLosses`]: Float32 numbers; 0 without questions.
    """
    logits = logits.float()
    clicked = torch.zeros_like(logits)
    clicked[:, 0] = 1
    each = F.binary_cross_entropy_with_logits(logits, clicked, reduction="none")
    pairs = -F.logsigmoid(logits[:, :1] - logits[:, 1:])
    count = max(len(logits), 1) if divisor is None else divisor
    return RankingLosses((each * is_real).sum() / count, (pairs * is_real[:, 1:]).sum() / count)


__all__ = ["RankingLosses", "in_batch_loss", "ranking_losses"]
