# SPDX-License-Identifier: Apache-2.0
"""`transformers.Trainer` as every training here uses it: row order, selection by ranking, and checks for NaN.

A validation loss in nats says little about the order of items, so `evaluate` ranks validation requests instead. The
evaluation function is passed in: this module knows no protocol.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, TrainerState, TrainingArguments

from seekrec.errors import DivergenceError
from seekrec.training.budget import TimeBudget, is_used_up, updates_of_epoch
from seekrec.training.checkpoints import STATE_FILE, find_checkpoint, read_state
from seekrec.training.identity import claim_folder, training_identity
from seekrec.training.row_adamw import RowGradientTrainer, gather_rows
from seekrec.util.precision import cpu_has_bf16

logger = logging.getLogger(__name__)

# Takes the model in evaluation mode, returns metrics by name (without the prefix `eval_`).
EvaluateModel = Callable[[Any], dict[str, float]]


class GenerativeTrainer(RowGradientTrainer):
    """Identical to `Trainer` except: rows come in the order of a given sampler, `evaluate` ranks, divergence raises.

    Args:
        sampler (`torch.utils.data.Sampler`, *optional*):
            Row numbers of `train_dataset`, with `set_epoch`; a shuffle if not given.
        evaluate_model (`Callable`, *optional*): Scores a model on validation; see `EvaluateModel`.
        kwargs: As in `Trainer`.
    """

    def __init__(
        self,
        *,
        sampler: Sampler[int] | None = None,
        evaluate_model: EvaluateModel | None = None,
        **kwargs: Any,
    ) -> None:
        # The stages before may have trained in this process in another precision; accelerate keeps the first for good.
        AcceleratorState._reset_state()
        if "args" in kwargs:
            _leave_slow_precision(kwargs["args"])
        # Trainer insists on a data set to evaluate on; `evaluate` ranks requests and does not read it.
        kwargs.setdefault("eval_dataset", kwargs.get("train_dataset"))
        super().__init__(**kwargs)
        self._sampler = sampler
        self.evaluate_model = evaluate_model

    def _get_train_sampler(self, train_dataset: Dataset[object] | None = None) -> Sampler[int] | None:
        return super()._get_train_sampler(train_dataset) if self._sampler is None else self._sampler

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Do a step of training; a loss that is not a number ends it.

        Trainer itself would leave such a loss out of its log and continue.
        """
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            raise self._diverged(f"the loss is {loss.mean().item()}", self.state.global_step + 1)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # Of half precision the scaler skips such a step and takes a smaller scale.
        if norm is not None and self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise self._diverged(f"the norm of the gradients is {float(norm)}", self.state.global_step + 1)
        return norm

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.check_weights()
        super()._save_checkpoint(*args, **kwargs)

    def take(self, checkpoint: str) -> None:
        """Take the result of a training that ended with a checkpoint: its weights, or the best ones before it."""
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / STATE_FILE))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        else:
            self._load_from_checkpoint(checkpoint)

    def trained_epochs(self) -> float:
        """Return the epochs that the weights were trained for: those of the best checkpoint, where it was loaded."""
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        last = self.state.global_step
        return float(self.state.epoch or 0.0) * ((best or last) / max(1, last))

    def check_weights(self) -> None:
        """Refuse weights that are not numbers.

        Raises:
            DivergenceError: If there is one; the message names its tensor.
        """
        for name, values in self.accelerator.unwrap_model(self.model).named_parameters():
            if not torch.isfinite(values).all():
                raise self._diverged(f"`{name}` contains a number that is not finite", self.state.global_step)

    def evaluate(
        self,
        eval_dataset: object = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Rank the validation requests; every process ranks them all, so all agree on the best checkpoint.

        Returns:
            `dict[str, float]`: Metrics with the prefix, `<prefix>_runtime` in seconds and `epoch`.

        Raises:
            DivergenceError: If weights or all metrics are not numbers.
        """
        if self.evaluate_model is None:
            return {}
        self.check_weights()
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        started = time.monotonic()
        # Beam search draws nothing, yet the order of numbers that dropout sees must not depend on being evaluated.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            model.eval()
            metrics = self.evaluate_model(model)
        model.train(was_training)
        if metrics and not any(math.isfinite(value) for value in metrics.values()):
            raise self._diverged(f"evaluation finds no finite score ({metrics})", self.state.global_step)
        prefixed = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        prefixed[f"{metric_key_prefix}_runtime"] = time.monotonic() - started
        self.log(prefixed)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, prefixed)
        return prefixed

    def _diverged(self, what: str, step: int) -> DivergenceError:
        arguments = self.args
        kind = type(self.accelerator.unwrap_model(self.model)).__name__
        tries = [f"a smaller learning rate (now {arguments.learning_rate:g})"]
        tries.append(f"a longer warm-up (`warmup_steps` is {arguments.warmup_steps:g})")
        if not 0 < arguments.max_grad_norm <= 1:
            tries.append(f"clipped gradients (`max_grad_norm` is {arguments.max_grad_norm:g}; 1 is usual)")
        if arguments.fp16:
            tries.append("`bf16` or full precision in place of `fp16`")
        return DivergenceError(
            f"Training of {kind} diverged at step {step} of {self.state.max_steps}: {what}. Try {', or '.join(tries)}."
        )


def _leave_slow_precision(arguments: TrainingArguments) -> None:
    """Train in float32 on a CPU that has no bfloat16; for a folder it is the same training, as on another device."""
    if arguments.mixed_precision == "bf16" and arguments.device.type == "cpu" and not cpu_has_bf16():
        logger.warning(
            "`bf16` is set, but this processor emulates bfloat16 in software, several times slower than float32; "
            "training in float32."
        )
        arguments.mixed_precision = "no"


def _ended_within_epoch(trainer: GenerativeTrainer, checkpoint: str) -> bool:
    """Return whether a training ended in the middle of an epoch, where Trainer does a step before it looks."""
    arguments, updates = trainer.args, updates_of_epoch(trainer)
    planned = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * updates)
    return planned % updates > 0 and read_state(Path(checkpoint)).get("global_step", 0) >= planned


def train_once(
    trainer: GenerativeTrainer,
    settings: Sequence[object],
    contents: Mapping[str, object],
    *,
    origins: Sequence[object] = (),
    budget: TimeBudget | None = None,
) -> PreTrainedModel:
    """Train, or continue where the same training was stopped, or take its result where it is finished.

    A folder in which another training stands is set aside; see [`training_identity`].

    Args:
        trainer ([`GenerativeTrainer`]): Its `output_dir` is the training's folder.
        settings (`Sequence`): Dataclasses of the settings that the weights depend on.
        contents (`Mapping`): By name, everything else that it learns from and is validated on: split, catalogue,
            corpus, tokenizer.
        origins (`Sequence`): Dataclasses of settings whose effect is in the contents.
        budget ([`TimeBudget`], *optional*): Ends the training in time.

    Returns:
        `PreTrainedModel`: The model, the best by validation if the arguments ask for that; in evaluation mode, whether
        it was trained just now or before. Where processes held parts of a table it is whole in the first one alone.

    Raises:
        DivergenceError: If a loss, a gradient or a weight is not a number.
    """
    arguments = trainer.args
    folder = Path(str(arguments.output_dir))
    identity = training_identity(
        trainer.accelerator.unwrap_model(trainer.model), arguments, settings, contents, origins=origins
    )
    # One process tidies up before the others look.
    with arguments.main_process_first(local=False):
        if trainer.is_world_process_zero():
            claim_folder(folder, identity)
        checkpoint = find_checkpoint(folder, only_model=arguments.save_only_model)
    if budget is not None and checkpoint is not None and is_used_up(checkpoint, budget.max_seconds):
        logger.info("%s: the time limit of this training was reached before; using its checkpoint.", folder)
        trainer.take(checkpoint)
    elif checkpoint is not None and _ended_within_epoch(trainer, checkpoint):
        trainer.take(checkpoint)
    else:
        if budget is not None:
            trainer.add_callback(budget)
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.check_weights()
    trained: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    gather_rows(trained)
    return trained.eval()


__all__ = ["EvaluateModel", "GenerativeTrainer", "train_once"]
