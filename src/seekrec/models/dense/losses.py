# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses over items: sampled with a correction for how they were drawn, or over the whole catalogue."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seekrec.embeddings.softmax import Candidates, info_nce, parts, softmax_loss

NO_LABEL = -100


def full_softmax(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    *,
    candidates: Candidates | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """The target against every item (IntSR, equation 14, without sampling).

    Args:
        questions (`torch.Tensor`): Of shape `(num_questions, size)`.
        items (`torch.Tensor`): Of shape `(num_items, size)`.
        labels (`torch.LongTensor`): Rows of the targets, `(num_questions,)`, none of them -100.
        candidates (`Callable`, *optional*): Gives, for a slice of the questions, the items that were on offer when
            they were asked, bool `(questions, num_items)`, or None for all. The target always counts.
        temperature (`float`): Divides similarities.
        divisor (`int`, *optional*): Divides the sum over questions; their number if not given.

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    if not len(questions):
        return (questions.sum() + items.sum() * 0).float()
    loss = softmax_loss(questions, items, labels, candidates=candidates, temperature=temperature)
    return loss / (len(labels) if divisor is None else divisor)


def hard_negatives(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    *,
    count: int,
    candidates: Candidates | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """The target against the items that are most similar to the question at this moment (IntSR, section 4.3).

    Args:
        questions (`torch.Tensor`): Of shape `(num_questions, size)`.
        items (`torch.Tensor`): Of shape `(num_items, size)`.
        labels (`torch.LongTensor`): Rows of the targets, `(num_questions,)`.
        count (`int`): Negatives of a question.
        candidates (`Callable`, *optional*): As in [`full_softmax`].
        temperature (`float`): Divides similarities.
        divisor (`int`, *optional*): As in [`full_softmax`].

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    count, rows, is_valid = min(count, len(items) - 1), [], []
    with torch.no_grad():
        for part in parts(len(questions), len(items)):
            scores = (questions[part] @ items.T).scatter(1, labels[part, None], float("-inf"))
            allowed = None if candidates is None else candidates(part)
            if allowed is not None:
                scores = scores.masked_fill(~allowed, float("-inf"))
            hardest = scores.topk(count)
            rows.append(torch.cat([labels[part, None], hardest.indices], dim=1))
            is_valid.append(torch.isfinite(hardest.values))
    if not rows:
        return (questions.sum() + items.sum() * 0).float()
    scores = (items[torch.cat(rows)] * questions[:, None]).sum(-1)
    return info_nce(
        scores[:, 0], scores[:, 1:], is_valid=torch.cat(is_valid), temperature=temperature, divisor=divisor
    )


def candidate_loss(logits: Tensor, is_real: Tensor, *, divisor: Tensor | int | None = None) -> Tensor:
    """Rank a target among candidates: a softmax over the group, plus a log-loss on each of them.

    The softmax orders; the log-loss makes the sigmoid of a logit a probability. IntSR names no loss for its logits.

    Args:
        logits (`torch.Tensor`): Of shape `(num_questions, num_candidates)`; the target comes first.
        is_real (`torch.BoolTensor`): Of the same shape: False for padding.
        divisor (`int`, *optional*): Divides the sum over questions; their number if not given.

    Returns:
        `torch.Tensor`: A float32 number in nats.
    """
    logits = logits.float()
    wanted = torch.zeros_like(logits)
    wanted[:, 0] = 1
    by_order = info_nce(logits[:, 0], logits[:, 1:], is_valid=is_real[:, 1:], divisor=divisor)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * is_real
    means = each.sum(1) / is_real.sum(1).clamp_min(1)
    return by_order + means.sum() / (max(len(logits), 1) if divisor is None else divisor)


__all__ = ["NO_LABEL", "candidate_loss", "full_softmax", "hard_negatives", "info_nce"]
