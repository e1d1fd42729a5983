# SPDX-License-Identifier: Apache-2.0
"""AdamW for embedding tables with sparse access: only the rows that a step reads get a gradient and are updated.

A table with `sparse=True` (see `torch.nn.Embedding`) has a gradient of the rows that were read. AdamW over a million
rows, of which a step reads a few thousand, takes most of the step; here the cost depends on the rows read. Differences
from AdamW:

- a row that a step does not read is not touched: its moments do not decay, it gets no momentum update, and no weight
  decay. A row that every step reads is updated exactly as by AdamW;
- a parameter with a dense gradient is updated by AdamW itself, bit for bit. The state has AdamW's names and shapes, so
  a run can resume from a checkpoint of either.

If several processes train together, each holds a part of such a table (`seekrec.embeddings.row_shards`). Weights are
saved as one file, moments as another, into which each process writes its rows; any number of processes can resume from
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch import distributed as dist
from transformers import PreTrainedModel, Trainer, TrainingArguments

from seekrec.embeddings.row_shards import RowShards, replace_table, row_shards, save_rows
from seekrec.embeddings.softmax import LARGE_CATALOG
from seekrec.errors import CheckpointError

# Moments of the rows of all processes, in a checkpoint of the Trainer.
MOMENTS_FILE = "optimizer_rows.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def use_row_gradients(table: nn.Embedding, training: TrainingArguments) -> bool:
    """Let a table of which a step reads few rows have gradients of rows, where that pays; answers whether it does.

    It pays above `LARGE_CATALOG` rows. Processes that train together exchange whole gradients, so with several of them
    all stays as it is; see [`share_rows`].
    """
    table.sparse = table.num_embeddings > LARGE_CATALOG and training.world_size == 1
    return table.sparse


def share_rows(model: nn.Module, table: nn.Embedding, training: TrainingArguments) -> nn.Embedding:
    """Let each process that trains hold some rows of a table of which a step reads few, where that pays.

    It pays above `LARGE_CATALOG` rows. Not with FSDP and DeepSpeed, which share weights their own way, nor with fp16,
    where a process alone would find that its rows have no finite gradient and skip a step.

    Args:
        model (`nn.Module`): Holds the table; it gets the shards in its place.
        table (`nn.Embedding`): The whole table, the same in all processes.
        training (`TrainingArguments`): Says how many processes there are, and how they train.

    Returns:
        `nn.Embedding`: The table that the model holds now.
    """
    is_other = training.fp16 or bool(training.fsdp) or bool(training.deepspeed)
    if training.world_size == 1 or table.num_embeddings <= LARGE_CATALOG or is_other:
        return table
    shards = RowShards(table)
    replace_table(model, table, shards)
    return shards


def gather_rows(model: nn.Module) -> None:
    """Put whole tables in the place of shards: in the first process, and in the others ones without memory."""
    for shards in row_shards(model).values():
        replace_table(model, shards, shards.gather())


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


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, *, shards: Collection[Tensor] = ()) -> Tensor:
    """Scale gradients, those of rows among them, so that their norm together is at most `max_norm`.

    As `torch.nn.utils.clip_grad_norm_`, which knows whole gradients alone. The norm of a gradient of rows is that of
    the whole one: rows that it names twice are added first.

    Args:
        parameters (`Iterable[nn.Parameter]`): Weights with or without a gradient.
        max_norm (`float`): Norm of all gradients together.
        shards (`Collection[torch.Tensor]`): Those of which other processes hold further rows, whose gradients count.

    Returns:
        `torch.Tensor`: The norm before.
    """
    values: list[Tensor] = []
    of_shards: list[Tensor] = []
    theirs = {id(weight) for weight in shards}
    for weight in parameters:
        if weight.grad is None:
            continue
        if weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()
        value = weight.grad.values() if weight.grad.is_sparse else weight.grad
        (of_shards if id(weight) in theirs else values).append(value)
    norm = _norm(values)
    if theirs:
        square = _norm(of_shards).to(norm.device) ** 2 if of_shards else torch.zeros_like(norm)
        dist.all_reduce(square)
        norm = (norm**2 + square).sqrt()
    values += of_shards
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
    return norm


def _norm(values: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(value) for value in values]))


class RowGradientTrainer(Trainer):
    """Identical to `Trainer` except: it clips gradients of rows too, and saves and loads rows of several processes."""

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None:
        if not _has_row_gradients(model):
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()
        return self._clip(model, self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        # With clipping switched off the Trainer asks for the norm alone.
        if grad_norm is None and _has_row_gradients(model):
            grad_norm = self._clip(model, float("inf"))
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _clip(self, model: nn.Module, max_norm: float) -> Tensor:
        shards = [shard.weight for shard in self._tables().values()]
        return clip_gradients(model.parameters(), max_norm, shards=shards)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as `Trainer` does; all processes must call it, for each writes the rows that it holds."""
        if self._tables() and not self.args.should_save:
            model = cast(PreTrainedModel, self.model)
            model.save_pretrained(str(output_dir or self.args.output_dir), is_main_process=False)
        super().save_model(output_dir, _internal_call)

    def _tables(self) -> dict[str, RowShards]:
        return row_shards(cast(nn.Module, self.model))

    def _states(self) -> dict[Tensor, dict[str, Tensor]]:
        found: dict[Tensor, dict[str, Tensor]] = cast(torch.optim.Optimizer, self.optimizer).state
        return found

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        tables, kept = self._tables(), self._states()
        # The moments of rows are no part of the first process's file.
        states = {name: kept.pop(shard.weight, {}) for name, shard in tables.items()}
        super()._save_optimizer_and_scheduler(output_dir)
        rows: dict[str, tuple[RowShards, Tensor]] = {}
        steps: dict[str, Tensor] = {}
        for name, state in states.items():
            kept[tables[name].weight] = state
            rows |= {f"{name}.{moment}": (tables[name], state[moment]) for moment in _MOMENTS}
            steps[f"{name}.step"] = state["step"]
        if rows:
            save_rows(Path(output_dir) / MOMENTS_FILE, rows, steps)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not (Path(checkpoint) / "optimizer.pt").is_file():
            return
        path, tables, kept = Path(checkpoint) / MOMENTS_FILE, self._tables(), self._states()
        if path.is_file():
            with safe_open(path, framework="pt") as file:
                weights = dict(cast(nn.Module, self.model).named_parameters())
                for name in {key.rpartition(".")[0] for key in file.keys()}:
                    weight, shard = weights[name], tables.get(name)
                    own = slice(None) if shard is None else shard.held
                    moments = {key: file.get_slice(f"{name}.{key}")[own].to(weight.device) for key in _MOMENTS}
                    kept[weight] = {"step": file.get_tensor(f"{name}.step"), **moments}
        for shard in tables.values():
            state = kept.get(shard.weight, {})
            # Of a training in one process: those of all rows.
            for key in _MOMENTS:
                if key in state and len(state[key]) == shard.num_rows:
                    state[key] = shard.own_rows(state[key]).clone()
            if not state:
                raise CheckpointError(
                    f"{checkpoint} contains no optimizer moments of table rows, neither in {MOMENTS_FILE} nor in "
                    "optimizer.pt; delete it, and training resumes from an older checkpoint."
                )


def _has_row_gradients(model: nn.Module) -> bool:
    return any(weight.grad is not None and weight.grad.is_sparse for weight in model.parameters())


__all__ = [
    "RowAdamW",
    "RowGradientTrainer",
    "clip_gradients",
    "gather_rows",
    "make_adamw",
    "share_rows",
    "use_row_gradients",
]
