# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses over items: sampled with a correction for how they were drawn, or over the whole catalogue."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NO_LABEL = -100


def info_nce(
    positive: Tensor,
    negatives: Tensor,
    *,
    is_valid: Tensor | None = None,
    positive_log_q: Tensor | None = None,
    negative_log_q: Tensor | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """InfoNCE: the target against negatives (IntSR, equation 14; SynerGen, retrieval loss).

    A negative drawn with probability q stands for 1 / q items: taking `log q` off its logit makes the expectation of
    the sum that of the full softmax (sampled softmax).

    Args:
        positive (`torch.Tensor`): Similarity to the target, of shape `(num_questions,)`.
        negatives (`torch.Tensor`): Similarities to the negatives, of shape `(num_questions, num_negatives)`.
        is_valid (`torch.BoolTensor`, *optional*): Of the same shape: False where there is no negative.
        positive_log_q (`torch.Tensor`, *optional*): Log-probability that the target is drawn, `(num_questions,)`.
        negative_log_q (`torch.Tensor`, *optional*): Of the negatives; broadcasts to `negatives`.
        temperature (`float`): Divides similarities.
        divisor (`int`, *optional*): Divides the sum over questions; their number if not given.

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    if not len(positive):
        return (positive.sum() + negatives.sum()).float()
    own, others = positive.float() / temperature, negatives.float() / temperature
    if positive_log_q is not None:
        own = own - positive_log_q
    if negative_log_q is not None:
        others = others - negative_log_q
    if is_valid is not None:
        others = others.masked_fill(~is_valid, float("-inf"))
    losses = torch.cat([own[:, None], others], dim=1).logsumexp(1) - own
    return losses.sum() / (len(losses) if divisor is None else divisor)


def full_softmax(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    *,
    is_candidate: Tensor | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """The target against every item (IntSR, equation 14, without sampling).

    Args:
        questions (`torch.Tensor`): Of shape `(num_questions, size)`.
        items (`torch.Tensor`): Of shape `(num_items, size)`.
        labels (`torch.LongTensor`): Rows of the targets, `(num_questions,)`, none of them -100.
        is_candidate (`torch.BoolTensor`, *optional*): Of shape `(num_questions, num_items)`: the items that were on
            offer when the question was asked. The target always counts.
        temperature (`float`): Divides similarities.
        divisor (`int`, *optional*): Divides the sum over questions; their number if not given.

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    if not len(questions):
        return (questions.sum() + items.sum() * 0).float()
    scores = (questions @ items.T).float() / temperature
    if is_candidate is not None:
        is_candidate = is_candidate.scatter(1, labels[:, None], True)
        scores = scores.masked_fill(~is_candidate, float("-inf"))
    loss = F.cross_entropy(scores, labels, reduction="sum")
    return loss / (len(labels) if divisor is None else divisor)


def hard_negatives(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    *,
    count: int,
    is_candidate: Tensor | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """The target against the items that are most similar to the question at this moment (IntSR, section 4.3).

    Args:
        questions (`torch.Tensor`): Of shape `(num_questions, size)`.
        items (`torch.Tensor`): Of shape `(num_items, size)`.
        labels (`torch.LongTensor`): Rows of the targets, `(num_questions,)`.
        count (`int`): Negatives of a question.
        is_candidate (`torch.BoolTensor`, *optional*): As in [`full_softmax`].
        temperature (`float`): Divides similarities.
        divisor (`int`, *optional*): As in [`full_softmax`].

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    scores = questions @ items.T
    is_out = F.one_hot(labels, len(items)).bool()
    if is_candidate is not None:
        is_out |= ~is_candidate
    hardest = scores.detach().masked_fill(is_out, float("-inf")).topk(min(count, len(items) - 1))
    return info_nce(
        scores.gather(1, labels[:, None])[:, 0],
        scores.gather(1, hardest.indices),
        is_valid=torch.isfinite(hardest.values),
        temperature=temperature,
        divisor=divisor,
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
