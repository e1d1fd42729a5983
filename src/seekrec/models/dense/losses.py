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


__all__ = ["NO_LABEL", "full_softmax", "info_nce"]
