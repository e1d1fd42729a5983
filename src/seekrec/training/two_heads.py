# SPDX-License-Identifier: Apache-2.0
"""A discriminative twin of GenSR, and how well the gradients of the two tasks agree in each (figure 4 of the paper).

The twin has the same T5 and the same views, and differs only in what the paper says causes the conflict: its prompt
does not name the task, and each task has its own head on the last state, instead of Yes and No from one vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainingArguments, get_scheduler

from seekrec.models import GenSRForConditionalGeneration
from seekrec.models.gensr.processing_gensr import PADDING, WORDINGS, GenSRProcessor
from seekrec.schema import BEHAVIORS
from seekrec.util.text import shared_encoder

FloatArray = npt.NDArray[np.float64]
Batch = Mapping[str, Tensor]


class AnswerStates(nn.Module):
    """A GenSR up to the state that it answers a candidate from.

    Args:
        model ([`GenSRForConditionalGeneration`]): The model, of which this is a copy.
    """

    def __init__(self, model: GenSRForConditionalGeneration) -> None:
        super().__init__()
        self.body = copy.deepcopy(model)
        # The answer is what `lm_head` makes of the state.
        self.body.config.loss_norm = "vocab"
        self.body.lm_head = nn.Identity()

    def forward(self, batch: Batch) -> Tensor:
        """Return the state of each candidate, float32 of shape `(batch, num_candidates, d_model)`.

        Args:
            batch (`Mapping[str, torch.Tensor]`): Output of [`GenSRProcessor`] with candidates.
        """
        histories = self.body.encode_histories(batch)
        layouts = batch["prompt_layout"], batch["suffix_layout"]
        return self.body.candidate_logits(histories, *layouts, batch["candidate_items"])


class TwoHeadedTwin(nn.Module):
    """The twin.

    Args:
        model ([`GenSRForConditionalGeneration`]): The GenSR whose weights it starts from.
        processor ([`GenSRProcessor`]): Its tokenizer wrote the prompts.
    """

    def __init__(self, model: GenSRForConditionalGeneration, processor: GenSRProcessor) -> None:
        super().__init__()
        self.states = AnswerStates(model)
        self.heads = nn.Linear(model.config.d_model, len(BEHAVIORS))
        encoder = shared_encoder(processor.tokenizer)
        wording = WORDINGS[processor.config.wording]
        self.phrases = [len(encoder.encode_piece(wording[behavior][0][0], starts_text=True)) for behavior in BEHAVIORS]
        self.neutral = model.config.pad_token_id or 0

    def without_task(self, batch: Batch) -> dict[str, Tensor]:
        """Return a batch in whose prompts one token, the same for both tasks, stands for the words of the task.

        Args:
            batch (`Mapping[str, torch.Tensor]`): The batch.
        """
        layout = batch["prompt_layout"].clone()
        first = (layout != PADDING).long().argmax(1)
        places = torch.arange(layout.shape[1], device=layout.device)
        last = first + torch.tensor(self.phrases, device=layout.device)[batch["behavior_ids"]] - 1
        layout = torch.where(places < last[:, None], PADDING, layout)
        layout = torch.where(places == last[:, None], self.neutral, layout)
        return {**batch, "prompt_layout": layout}

    def answer_states(self, batch: Batch) -> Tensor:
        """Return the state of each candidate; see [`AnswerStates`]."""
        states: Tensor = self.states(self.without_task(batch))
        return states

    def forward(self, batch: Batch) -> Tensor:
        """Return the score of each candidate, by the head of the task: `(batch, num_candidates)`."""
        scores: Tensor = self.heads(self.answer_states(batch))
        tasks = batch["behavior_ids"][:, None, None].expand(-1, scores.shape[1], 1)
        return scores.gather(-1, tasks)[..., 0]


def candidate_loss(scores: Tensor, labels: Tensor, *, listwise: bool) -> Tensor:
    """Compute the loss of candidates' scores.

    Args:
        scores (`torch.Tensor` of shape `(num_requests, num_candidates)`): The scores.
        labels (`torch.LongTensor` of the same shape): 1 for what the user took, 0 for what not, -100 for padding.
        listwise (`bool`): The softmax among a request's candidates; otherwise each by itself.
    """
    if listwise:
        known = scores.masked_fill(labels == -100, torch.finfo(scores.dtype).min)
        return -known.log_softmax(-1)[labels == 1].mean()
    known = labels != -100
    return F.binary_cross_entropy_with_logits(scores[known], labels[known].to(scores.dtype))


class Conflict(NamedTuple):
    """How far the gradients of the two tasks agreed.

    Args:
        steps (`np.ndarray`): int64 `(n,)`: steps of training.
        cosines (`np.ndarray`): float64 `(n, 2)`: cosines of both tasks' gradients, of GenSR and of the twin.
    """

    steps: npt.NDArray[np.int64]
    cosines: FloatArray


def train_with_twin(
    model: GenSRForConditionalGeneration,
    twin: TwoHeadedTwin,
    batches: Iterable[Batch],
    arguments: TrainingArguments,
    *,
    num_steps: int,
    num_looks: int = 60,
) -> Conflict:
    """Train a GenSR and its twin on the same batches, by the loss of candidates alone, and compare their tasks.

    At a look, the loss of each task on the batch gives a gradient of the last self-attention of the encoder.

    Args:
        model ([`GenSRForConditionalGeneration`]): The model.
        twin ([`TwoHeadedTwin`]): Its twin.
        batches (`Iterable[Mapping[str, torch.Tensor]]`): Batches of training.
        arguments (`TrainingArguments`): Learning rate, schedule, decay and clipping.
        num_steps (`int`): Number of steps.
        num_looks (`int`): Looks at the gradients, at equal distances.

    Returns:
        [`Conflict`]: The looks; a batch with one task alone is none.
    """
    listwise = model.config.yes_no_loss == "listwise"
    pair: tuple[nn.Module, ...] = (model, twin)
    attention = [_last_attention(model), _last_attention(twin.states.body)]
    optimizers = [
        torch.optim.AdamW(
            one.parameters(),
            lr=arguments.learning_rate,
            betas=(arguments.adam_beta1, arguments.adam_beta2),
            weight_decay=arguments.weight_decay,
        )
        for one in pair
    ]
    warmup = min(int(arguments.warmup_steps), num_steps // 10)
    schedules = [get_scheduler(arguments.lr_scheduler_type, one, warmup, num_steps) for one in optimizers]
    every = max(1, num_steps // num_looks)
    steps, cosines = [], []
    for step, batch in enumerate(_first(batches, num_steps)):
        labels, tasks = batch["candidate_labels"], batch["behavior_ids"]
        looks = step % every == 0 and len(tasks.unique()) == len(BEHAVIORS)
        found = []
        for one, weights, optimizer, schedule in zip(pair, attention, optimizers, schedules, strict=True):
            one.train()
            scores = _scores(one, batch)
            if looks:
                own = [
                    _gradient(candidate_loss(scores[tasks == task], labels[tasks == task], listwise=listwise), weights)
                    for task in range(len(BEHAVIORS))
                ]
                found.append(float(F.cosine_similarity(own[0], own[1], dim=0)))
            optimizer.zero_grad()
            candidate_loss(scores, labels, listwise=listwise).backward()
            nn.utils.clip_grad_norm_(one.parameters(), arguments.max_grad_norm)
            optimizer.step()
            schedule.step()
        if looks:
            steps.append(step)
            cosines.append(found)
    for one in pair:
        one.eval()
    return Conflict(np.array(steps, np.int64), np.array(cosines, np.float64).reshape(-1, 2))


def _scores(model: nn.Module, batch: Batch) -> Tensor:
    if isinstance(model, GenSRForConditionalGeneration):
        histories = model.encode_histories(batch)
        layouts = batch["prompt_layout"], batch["suffix_layout"]
        return model.yes_minus_no(model.candidate_logits(histories, *layouts, batch["candidate_items"]))
    scores: Tensor = model(batch)
    return scores


def _last_attention(model: GenSRForConditionalGeneration) -> list[nn.Parameter]:
    """Return the weights of the encoder's last self-attention."""
    begin = f"block.{model.config.num_layers - 1}.layer.0.SelfAttention."
    return [weight for name, weight in model.encoder.named_parameters() if name.startswith(begin)]


def _gradient(loss: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return the gradient of a loss by some weights, as one vector; the graph is kept."""
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(weights), retain_graph=True)])


def _first(batches: Iterable[Batch], number: int) -> Iterator[Batch]:
    """Yield so many batches, from the beginning again where they end."""
    done = 0
    while done < number:
        for batch in batches:
            if done == number:
                return
            yield batch
            done += 1


__all__ = ["AnswerStates", "Conflict", "TwoHeadedTwin", "candidate_loss", "train_with_twin"]
