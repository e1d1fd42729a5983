# SPDX-License-Identifier: Apache-2.0
r"""Softmax losses over items: over all of them, in blocks if there are many, or over a corrected sample.

**Sampled softmax.** A question $x$ has the target $t$, drawn from $p(\cdot \mid x)$, and $m$ other items, drawn by a
proposal $q$. Given the collection $C$ of all of them, but not which is the target, the probability that it is $j$ is
proportional to $p(j \mid x)$ times the probability of drawing the others in that case. So, with $c_j$ the part of the
logarithm of the second factor that depends on $j$, negated,

$$\mathcal{L} = -\log \frac{e^{s_t - c_t}}{\sum_{j \in C} e^{s_j - c_j}}$$

is the likelihood of a logistic model whose truth is $s_j = \log p(j \mid x)$ up to a number of the question: the
sampled loss has its minimum where the full softmax has, whatever $m$ is. What $c_j$ is depends on how the others are
drawn:

- independently of the target, with replacement (uniform draws that a batch shares, the targets of other questions):
  $c_j = \log q_j$. **A duplicate counts as often as it was drawn, and a draw that is the target stays where it is.**
  A number added to all $c_j$ changes nothing, so $q$ need not be normalised, and a uniform $q$ asks for no correction.
- the same among some of the items (those available at the time, those that are none of the user's others): $q$ is the
  same but for its sum, so $c_j$ is too. $p$ is then the probability among these items.
- by a draw that is repeated until it is not the target: no number for each item corrects that, because an item that
  was drawn twice cannot be the target. Samples that are corrected are therefore not drawn so.
- some from each of several proposals: $q$ is their mean, weighted by how many come from each. Losses of different
  samples that are added, as SynerGen's, need no such mean: each has the minimum of the full softmax by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Above so many items a catalogue is large: recipes that leave the choice to us sample their negatives, and the
# embeddings of items get gradients and updates for the rows of a batch alone. At 3,000 items that is worth nothing, at
# 100,000 comparing with all takes most of a step (`recipes/benchmarks/README.md`); every published run lies below.
LARGE_CATALOG = 50_000
# Uniform negatives that a batch shares, where SASRec's catalogue is large; Klenitskiy and Vasilev, "Turning Dross Into
# Gold Loss" (2023), take 3,000.
NUM_SHARED_NEGATIVES = 4_096
# Scores that are held at once: 256 MiB in float32.
MAX_SCORES = 2**26
# Scores that a CPU reads and writes several times without leaving its cache: 4 MiB in float32. Only with many items is
# that worth it: parts were a tenth slower at a thousand items, a third faster at ten thousand.
CACHED_SCORES = 2**20
_MANY_ITEMS = 2**13
_LEAST_QUESTIONS = 32

# Gives, for a slice of the questions, the items that each is compared with, bool `(questions, num_items)`; None: all.
Candidates: TypeAlias = Callable[[slice], Tensor | None]


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

    With both corrections it is a sampled softmax: see the top of this file for what they are, and which draws they
    are for.

    Args:
        positive (`torch.Tensor`): Similarity to the target, of shape `(num_questions,)`.
        negatives (`torch.Tensor`): Similarities to the negatives, of shape `(num_questions, num_negatives)`.
        is_valid (`torch.BoolTensor`, *optional*): Mask of the same shape: False where there is no negative.
        positive_log_q (`torch.Tensor`, *optional*): Correction of the target, `(num_questions,)`.
        negative_log_q (`torch.Tensor`, *optional*): Correction of the negatives; broadcasts to `negatives`.
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


def softmax_loss(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    *,
    candidates: Candidates | None = None,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "sum",
) -> Tensor:
    """Compute the negative log-likelihood of targets among all items.

    Where there are more scores than [`parts`] takes at once they are computed a part of the questions at a time,
    gradients included: memory does not grow with their number, and on a CPU, whose cache a part fits, many items take
    half the time.

    Args:
        questions (`torch.Tensor`): Tensor of shape `(num_questions, size)`.
        items (`torch.Tensor`): Tensor of shape `(num_items, size)`.
        labels (`torch.LongTensor`): Rows of the targets, `(num_questions,)`.
        candidates (`Callable`, *optional*): What each question is compared with; see `Candidates`. The target always
            counts.
        temperature (`float`): Divides similarities.
        reduction (`str`): `"mean"` or `"sum"` over questions.

    Returns:
        `torch.Tensor`: A float32 number in nats.
    """
    if len(questions) * len(items) <= _most_scores(len(items), questions.device):
        scores = _scores(questions, items, labels, candidates, temperature, slice(0, len(questions)))
        return F.cross_entropy(scores, labels, reduction=reduction)
    loss: Tensor = _SoftmaxInParts.apply(questions, items, labels, candidates, temperature)
    return loss / len(questions) if reduction == "mean" else loss


def _scores(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    candidates: Candidates | None,
    temperature: float,
    part: slice,
) -> Tensor:
    scores = (questions[part] @ items.T).float()
    if temperature != 1:
        scores = scores / temperature
    allowed = None if candidates is None else candidates(part)
    if allowed is None:
        return scores
    return scores.masked_fill(~allowed.scatter(1, labels[part, None], True), float("-inf"))


def full_softmax(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    *,
    candidates: Candidates | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """Compute the loss of the target against every item (IntSR, equation 14, without sampling).

    Args:
        questions (`torch.Tensor`): Vectors of questions, `(num_questions, size)`.
        items (`torch.Tensor`): Vectors of all items, `(num_items, size)`.
        labels (`torch.LongTensor`): Rows of the targets, `(num_questions,)`, none of them -100.
        candidates (`Callable`, *optional*): Returns, for a slice of the questions, the items that were available when
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


class _SoftmaxInParts(torch.autograd.Function):
    """The sum of [`softmax_loss`]; what it takes to go back is computed on the way, and no score is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        questions: Tensor,
        items: Tensor,
        labels: Tensor,
        candidates: Candidates | None,
        temperature: float,
    ) -> Tensor:
        total = questions.new_zeros((), dtype=torch.float32)
        of_questions = torch.zeros_like(questions) if ctx.needs_input_grad[0] else None
        of_items = torch.zeros_like(items, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in parts(len(questions), len(items), questions.device):
            scores = _scores(questions, items, labels, candidates, temperature, part)
            own, largest = scores.gather(1, labels[part, None]), scores.amax(1, keepdim=True)
            # A softmax step by step, because each step in its place saves reading all scores again.
            likely = scores.sub_(largest).exp_()
            mass = likely.sum(1, keepdim=True)
            total += (mass.log() + largest - own).sum()
            if of_questions is None and of_items is None:
                continue
            # The gradient of a softmax: what is said less what is so.
            error = likely.div_(mass)
            error.scatter_add_(1, labels[part, None], -torch.ones_like(own))
            if temperature != 1:
                error /= temperature
            if of_questions is not None:
                of_questions[part] = (error.to(items.dtype) @ items).to(questions.dtype)
            if of_items is not None:
                of_items.addmm_(error.T, questions[part].float())
        ctx.save_for_backward(of_questions, None if of_items is None else of_items.to(items.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        of_questions, of_items = ctx.saved_tensors
        weight = grad_outputs[0]
        return (
            None if of_questions is None else of_questions * weight.to(of_questions.dtype),
            None if of_items is None else of_items * weight.to(of_items.dtype),
            None,
            None,
            None,
        )


def _most_scores(num_items: int, device: torch.device) -> int:
    is_cached = device.type == "cpu" and num_items >= _MANY_ITEMS
    return min(MAX_SCORES, CACHED_SCORES) if is_cached else MAX_SCORES


def parts(num_questions: int, num_items: int, device: torch.device) -> list[slice]:
    """Cut questions into slices of at most `MAX_SCORES` scores, about `CACHED_SCORES` of many items on a CPU."""
    size = max(1, _most_scores(num_items, device) // max(num_items, 1))
    # A product of few questions reads all items for little.
    size = max(size, min(_LEAST_QUESTIONS, MAX_SCORES // max(num_items, 1)))
    return [slice(start, min(start + size, num_questions)) for start in range(0, num_questions, size)]


__all__ = [
    "LARGE_CATALOG",
    "MAX_SCORES",
    "NUM_SHARED_NEGATIVES",
    "Candidates",
    "full_softmax",
    "info_nce",
    "parts",
    "softmax_loss",
]
