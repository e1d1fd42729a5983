# SPDX-License-Identifier: Apache-2.0
"""AdamW for tables of embeddings of which a step reads a few rows: only those rows get a gradient and are updated.

A table with `sparse=True` (see `torch.nn.Embedding`) has a gradient of the rows that were read. AdamW over a million
rows of which a step read some thousands is most of the step; here it costs what was read. What differs from AdamW:

- a row that a step does not read is left alone: its moments do not decay, it does not move on by what it moved before,
  and weight decay does not reach it. A row that every step has read is where AdamW would have it;
- a parameter with a whole gradient is AdamW's own, to the last bit. The state has AdamW's names and shapes, so a run
  goes on from a checkpoint of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from seekrec.embeddings.softmax import LARGE_CATALOG


def use_row_gradients(table: nn.Embedding, training: TrainingArguments) -> bool:
    """Let a table of which a step reads few rows have gradients of rows, where that pays; answers whether it does.

    It pays above `LARGE_CATALOG` rows. Processes that train together exchange whole gradients, so with several of them
    all stays as it is.
    """
    table.sparse = table.num_embeddings > LARGE_CATALOG and training.world_size == 1
    return table.sparse


def make_adamw(
    model: nn.Module, tables: Sequence[nn.Embedding], training: TrainingArguments, *, table_rate: float
) -> torch.optim.AdamW:
    """Make AdamW with a learning rate of their own for tables of embeddings.

    Tables, biases and norms have no weight decay.

    Args:
        model (`nn.Module`): Whose weights are trained.
        tables (`Sequence[nn.Embedding]`): Tables of the model; those with `sparse` are updated by rows.
        training (`TrainingArguments`): Learning rate, weight decay and the numbers of Adam.
        table_rate (`float`): Learning rate of the tables.
    """
    of_tables = {id(table.weight) for table in tables}
    # A weight of one dimension is a bias, a norm or a time scale.
    rest = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in of_tables]
    groups: list[dict[str, Any]] = [
        {"params": [table.weight for table in tables], "lr": table_rate, "weight_decay": 0.0},
        {"params": [weight for weight in rest if weight.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [weight for weight in rest if weight.ndim < 2], "weight_decay": 0.0},
    ]
    kind = RowAdamW if any(table.sparse for table in tables) else torch.optim.AdamW
    return kind(
        groups,
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
    )


class RowAdamW(torch.optim.AdamW):
    """Identical to `torch.optim.AdamW` except: a gradient of rows moves those rows alone."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make a step; see the top of this file."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.grad.is_sparse:
                    self._step_rows(weight, group)
                    gradients[weight], weight.grad = weight.grad, None
        super().step()
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return loss

    def _step_rows(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        gradient = weight.grad.coalesce()  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        (beta1, beta2), rate, step = group["betas"], group["lr"], state["step"].item()
        mean = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        moved = weight.index_select(0, rows).mul_(1 - rate * group["weight_decay"])
        spread = square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        weight.index_copy_(0, rows, moved.addcdiv_(mean, spread, value=-rate / (1 - beta1**step)))


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients, those of rows among them, so that their norm together is at most `max_norm`.

    As `torch.nn.utils.clip_grad_norm_`, which knows whole gradients alone. The norm of a gradient of rows is that of
    the whole one: rows that it names twice are added first.

    Returns:
        `torch.Tensor`: The norm before.
    """
    values = []
    for weight in parameters:
        if weight.grad is None:
            continue
        if weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()
        values.append(weight.grad.values() if weight.grad.is_sparse else weight.grad)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(value) for value in values]))
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
    return norm


class RowGradientTrainer(Trainer):
    """Identical to `Trainer` except: it clips gradients of rows too."""

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None:
        if not _has_row_gradients(model):
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()
        return clip_gradients(model.parameters(), self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        # With clipping switched off the Trainer asks for the norm alone.
        if grad_norm is None and _has_row_gradients(model):
            grad_norm = clip_gradients(model.parameters(), float("inf"))
        return super()._get_grad_norm(model, grad_norm=grad_norm)


def _has_row_gradients(model: nn.Module) -> bool:
    return any(weight.grad is not None and weight.grad.is_sparse for weight in model.parameters())


__all__ = ["RowAdamW", "RowGradientTrainer", "clip_gradients", "make_adamw", "use_row_gradients"]
