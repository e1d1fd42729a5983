# SPDX-License-Identifier: Apache-2.0
"""A training within a budget of time: steps are timed before it, and the clock ends it, with a whole checkpoint.

The clock runs for the whole run, from the start of its process: the stages before training count, and what comes
after it is left its time. A training that was killed and goes on has what was left of its budget; one that the clock
ended is finished and is taken as it is, unless a larger budget is given.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

import psutil
import torch
from accelerate.utils import broadcast
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import Trainer
from transformers.trainer_callback import ExportableState

from seekrec.training.checkpoints import read_state

logger = logging.getLogger(__name__)

# Steps that are timed, after so many that are not: the first ones make caches and threads.
_NUM_TIMED, _NUM_UNTIMED = 10, 3
# Batches of an epoch that these are taken from.
_NUM_LOOKED_AT = 2000
# What a step is longer than its forward and backward pass: the optimizer.
_OPTIMIZER_SHARE = 1.15


# When the runs began that this process has joined.
_joined: list[float] = []


class _Spent(TypedDict):
    """State of a [`TimeBudget`] in `trainer_state.json`."""

    seconds: float
    is_spent: bool
    max_seconds: float


class TimeBudget(TrainerCallback, ExportableState):
    """Ends a training so that the whole run ends in time; the last checkpoint is evaluated and saved as any other.

    Args:
        max_seconds (`float`): Seconds of the whole run, from the start of its process.
        evaluation_ratio (`float`): How many times as long as one validation everything after training takes.
        least_reserve (`float`): Seconds that are left for it at least.
        validation_seconds (`float`): Seconds of a validation, before one was timed.
    """

    def __init__(
        self,
        max_seconds: float,
        *,
        evaluation_ratio: float = 1.0,
        least_reserve: float = 0.0,
        validation_seconds: float = 0.0,
    ) -> None:
        self.max_seconds = max_seconds
        self.evaluation_ratio = evaluation_ratio
        self.least_reserve = least_reserve
        self.validation_seconds = validation_seconds
        self.seconds_before = 0.0
        self.is_spent = False
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds that training took, in this process and those before it."""
        return self.seconds_before + time.monotonic() - self._began

    def seconds_left(self) -> float:
        """Return the seconds that training may still take, its last validation included."""
        reserve = max(self.least_reserve, self.evaluation_ratio * self.validation_seconds)
        return self.max_seconds - process_seconds() - self.seconds_before - reserve

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        spent: _Spent = {"seconds": self.seconds, "is_spent": self.is_spent, "max_seconds": self.max_seconds}
        return {"args": {"max_seconds": self.max_seconds}, "attributes": spent}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take over what a killed training used."""
        self._began = time.monotonic()
        # A list until Trainer has made it a dictionary by names.
        states = cast(dict[str, object], state.stateful_callbacks)
        self.seconds_before = _read(states)["seconds"]
        # A checkpoint of a training without a budget knows no such callback, and Trainer looks its name up.
        states[TimeBudget.__name__] = self.state()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Note how long a validation takes."""
        self.validation_seconds = float((metrics or {}).get("eval_runtime", self.validation_seconds))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        """End the training where the time is used up, but for one validation and what comes after."""
        ends = torch.tensor([self.seconds_left() <= self.validation_seconds], device=args.device)
        if args.world_size > 1:
            # The clocks of processes differ; one decides.
            ends = broadcast(ends)
        if bool(ends) and not self.is_spent and state.global_step < state.max_steps:
            self.is_spent = True
            logger.warning(
                "The time is used up: training ends at step %d of %d; %.1f of %.1f minutes are left for the rest.",
                state.global_step,
                state.max_steps,
                max(0.0, self.max_seconds - process_seconds()) / 60,
                self.max_seconds / 60,
            )
        if self.is_spent:
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = args.save_strategy != "no"
            control.should_training_stop = True
        return control


def process_seconds() -> float:
    """Return the seconds since this process began, or since the run began that it has joined."""
    return time.time() - (_joined[-1] if _joined else psutil.Process().create_time())


def join_run(seconds: float) -> None:
    """Let the clock of this process be that of a run which has taken so many seconds."""
    _joined.append(time.time() - seconds)


def is_used_up(checkpoint: str | Path, max_seconds: float) -> bool:
    """Return whether the clock ended a training with this checkpoint, and the budget is no larger now."""
    spent = _read(read_state(Path(checkpoint)).get("stateful_callbacks", {}))
    return spent["is_spent"] and max_seconds <= spent["max_seconds"]


def time_steps(trainer: Trainer) -> tuple[float, int]:
    """Time some steps on real batches; neither weights nor the random numbers of training change.

    Args:
        trainer (`Trainer`): A Trainer that has not begun.

    Returns:
        `tuple[float, int]`: Seconds of an update, and the number of updates of an epoch.
    """
    arguments, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    loader = trainer.get_train_dataloader()
    updates = max(1, len(loader) // arguments.gradient_accumulation_steps)
    # Histories of one length stand beside each other, so batches from all over the epoch are timed.
    batches = list(itertools.islice(loader.batch_sampler or (), _NUM_LOOKED_AT))
    spread = batches[:: max(1, len(batches) // _NUM_TIMED)]
    # Set by the loop of training, which has not begun.
    trainer.current_gradient_accumulation_steps = arguments.gradient_accumulation_steps
    times = []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), trainer.accelerator.autocast():
        was_training = model.training
        for rows in spread[:_NUM_UNTIMED] + spread:
            started = time.monotonic()
            trainer.training_step(model, loader.collate_fn([loader.dataset[row] for row in rows]))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.monotonic() - started)
            # Gradients of rows grow longer with every one that is added.
            model.zero_grad(set_to_none=True)
        model.train(was_training)
    timed = times[_NUM_UNTIMED:] or times
    seconds = sum(timed) / len(timed) * arguments.gradient_accumulation_steps * _OPTIMIZER_SHARE
    longest = torch.tensor([seconds], device=arguments.device)
    if arguments.world_size > 1:
        longest = broadcast(longest)
    return float(longest), updates


def _read(callbacks: Mapping[str, object]) -> _Spent:
    kept = callbacks.get(TimeBudget.__name__)
    found = kept.get("attributes") if isinstance(kept, Mapping) else None
    if isinstance(found, Mapping):
        return {
            "seconds": float(found.get("seconds", 0.0)),
            "is_spent": bool(found.get("is_spent", False)),
            "max_seconds": float(found.get("max_seconds", 0.0)),
        }
    return {"seconds": 0.0, "is_spent": False, "max_seconds": 0.0}


__all__ = ["TimeBudget", "is_used_up", "join_run", "process_seconds", "time_steps"]
