# SPDX-License-Identifier: Apache-2.0
"""Train within a time budget: steps are timed first, and training ends when time is up, with a complete checkpoint.

The clock covers the whole run, from the start of its process: the stages before training count, each of which has a
[`StageTime`], and time is reserved for what comes after. A resumed training has what was left of its budget; one that
ran out of time is finished and its result is used, unless a larger budget is given.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from accelerate.utils import broadcast
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import Trainer
from transformers.trainer_callback import ExportableState

from seekrec.training.checkpoints import find_checkpoint, read_state
from seekrec.util.clock import process_seconds

logger = logging.getLogger(__name__)

# Steps that are timed, after so many that are not: the first ones make caches and threads.
_NUM_TIMED, _NUM_UNTIMED = 10, 3
# Share of the time of a stage that timing its steps may take, and what a timing may be off.
_SHARE_OF_TIMING, _MARGIN = 0.1, 0.9
# Batches of an epoch that these are taken from.
_NUM_LOOKED_AT = 2000
# What a step is longer than its forward and backward pass: the optimizer.
_OPTIMIZER_SHARE = 1.15
# Cases of a task below which a measurement says nothing.
LEAST_CASES = 20


class _Spent(TypedDict):
    """State of a [`TimeBudget`] in `trainer_state.json`."""

    seconds: float
    is_spent: bool
    max_seconds: float


class TimeBudget(TrainerCallback, ExportableState):
    """Ends a training so that the whole run ends in time; the last checkpoint is evaluated and saved as any other.

    Args:
        max_seconds (`float`): Seconds of the whole run, from the start of its process.
        least_reserve (`float`): Seconds that are left at least for everything after training.
        validation_seconds (`float`): Seconds of a validation, before one was timed; so many are left, too.
        clock (`Callable`, *optional*): Returns the seconds of the run; see [`process_seconds`].
    """

    def __init__(
        self,
        max_seconds: float,
        *,
        least_reserve: float = 0.0,
        validation_seconds: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.clock = clock or process_seconds
        self.max_seconds = max_seconds
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
        reserve = max(self.least_reserve, self.validation_seconds)
        return self.max_seconds - self.clock() - self.seconds_before - reserve

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
                "Time limit reached: training ends at step %d of %d; %.1f of %.1f minutes are left for the rest.",
                state.global_step,
                state.max_steps,
                max(0.0, self.max_seconds - self.clock()) / 60,
                self.max_seconds / 60,
            )
        if self.is_spent:
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = args.save_strategy != "no"
            control.should_training_stop = True
        return control


class StageTime:
    """The time that a part of a run may take. What ends it early says here what it left out.

    Args:
        seconds (`float`): Seconds from now.
        run_seconds (`float`): Seconds of the whole run.
        clock (`Callable`): Returns the seconds of the run.
        expected (`float`): Seconds that it is expected to take.
    """

    def __init__(
        self, seconds: float, run_seconds: float, clock: Callable[[], float], *, expected: float = 0.0
    ) -> None:
        self.run_seconds, self.clock, self.expected = run_seconds, clock, expected
        self.ends = clock() + max(0.0, seconds)
        self.left_out: str | None = None
        self._budget: TimeBudget | None = None

    def seconds_left(self) -> float:
        """Return the seconds that are left of it."""
        return self.ends - self.clock()

    def part(self, share: float) -> StageTime:
        """Return the time of what begins now and may take a share of what is left."""
        return StageTime(share * self.seconds_left(), self.run_seconds, self.clock, expected=share * self.expected)

    def fit_cases(self, number: int) -> int:
        """Return how many of so many cases fit, as what is expected goes with their number; 0 where few would not."""
        left = self.seconds_left()
        fitting = number if left >= self.expected else max(0, int(number * left / self.expected))
        if fitting < number:
            fitting = fitting if fitting >= LEAST_CASES else 0
            self.left_out = f"{number - fitting:,} of {number:,} cases"
        return fitting

    def limit_steps(self, trainer: Trainer) -> bool:
        """Shorten a training that has not begun to the steps that fit, and let the clock end it.

        Its schedule falls over the steps that there are. A training that was killed keeps the length that it had.

        Args:
            trainer (`Trainer`): The Trainer, whose `num_train_epochs` are what is wanted.

        Returns:
            `bool`: Whether it is shorter than wanted.
        """
        arguments = trainer.args
        self._budget = TimeBudget(self.ends, clock=self.clock)
        trainer.add_callback(self._budget)
        planned = math.ceil(arguments.num_train_epochs * updates_of_epoch(trainer))
        if (checkpoint := find_checkpoint(str(arguments.output_dir))) is not None:
            fitting = int(read_state(Path(checkpoint))["max_steps"])
        else:
            seconds, _ = time_steps(trainer, clock=self.clock, max_seconds=_SHARE_OF_TIMING * self.seconds_left())
            fitting = max(1, int(_MARGIN * self.seconds_left() / max(seconds, 1e-9)))
        if fitting >= planned:
            return False
        arguments.max_steps = fitting
        if arguments.warmup_steps >= 1:
            arguments.warmup_steps = min(arguments.warmup_steps, fitting // 10)
        return True

    def note_steps(self, trainer: Trainer) -> None:
        """Note how many steps of a training there was time for."""
        planned, done = math.ceil(trainer.args.num_train_epochs * updates_of_epoch(trainer)), trainer.state.global_step
        is_cut = trainer.args.max_steps > 0 or (self._budget is not None and self._budget.is_spent)
        if is_cut and done < planned:
            self.left_out = f"{planned - done:,} of {planned:,} steps"

    def note_texts(self, is_embedded: np.ndarray) -> None:
        """Note how many texts there was no time for, bool of each whether it was embedded."""
        if not is_embedded.all():
            self.left_out = f"{int((~is_embedded).sum()):,} of {len(is_embedded):,} texts"


class PartTimes(StageTime):
    """The time of parts that are done one after the other; what one does not use is there for those that follow.

    Args:
        seconds (`float`): Seconds from now.
        run_seconds (`float`): Seconds of the whole run.
        clock (`Callable`): Returns the seconds of the run.
        parts (`Mapping[str, float]`): Seconds that each is expected to take, by name.
        in_all (`Mapping[str, int]`): Cases of each behavior that would be ranked if time did not matter.
    """

    def __init__(
        self,
        seconds: float,
        run_seconds: float,
        clock: Callable[[], float],
        parts: Mapping[str, float],
        *,
        in_all: Mapping[str, int],
    ) -> None:
        super().__init__(seconds, run_seconds, clock, expected=sum(parts.values()))
        self._waiting, self.in_all = dict(parts), in_all
        self.taken: dict[str, StageTime] = {}

    def take(self, name: str) -> StageTime:
        """Return the time of a part that begins now: its share of what is left, by what is expected."""
        expected = self._waiting.pop(name, 0.0)
        rest = expected + sum(self._waiting.values())
        share = expected / rest if rest > 0 else 1.0
        self.taken[name] = StageTime(share * self.seconds_left(), self.run_seconds, self.clock, expected=expected)
        return self.taken[name]


def is_used_up(checkpoint: str | Path, max_seconds: float) -> bool:
    """Return whether the clock ended a training with this checkpoint, and the budget is no larger now."""
    spent = _read(read_state(Path(checkpoint)).get("stateful_callbacks", {}))
    return spent["is_spent"] and max_seconds <= spent["max_seconds"]


def updates_of_epoch(trainer: Trainer) -> int:
    """Return the updates of an epoch."""
    accumulated = trainer.args.gradient_accumulation_steps
    return max(1, -(-len(trainer.get_train_dataloader()) // accumulated))


def time_steps(
    trainer: Trainer, *, clock: Callable[[], float] = time.monotonic, max_seconds: float = math.inf
) -> tuple[float, int]:
    """Time some steps on real batches; neither weights nor the random numbers of training change.

    Args:
        trainer (`Trainer`): A Trainer that has not begun.
        clock (`Callable`): Returns seconds.
        max_seconds (`float`): Time no further step after so many.

    Returns:
        `tuple[float, int]`: Seconds of an update, and the number of updates of an epoch.
    """
    arguments, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    loader = trainer.get_train_dataloader()
    updates = max(1, len(loader) // arguments.gradient_accumulation_steps)
    # Histories of one length stand next to each other, so batches from all over the epoch are timed.
    batches = list(itertools.islice(loader.batch_sampler or (), _NUM_LOOKED_AT))
    spread = batches[:: max(1, len(batches) // _NUM_TIMED)]
    # Set by the loop of training, which has not begun.
    trainer.current_gradient_accumulation_steps = arguments.gradient_accumulation_steps
    times: list[float] = []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), trainer.accelerator.autocast():
        was_training, began = model.training, clock()
        for rows in spread[:_NUM_UNTIMED] + spread:
            if times and clock() - began > max_seconds:
                break
            started = clock()
            # As a loader does it.
            whole = getattr(loader.dataset, "__getitems__", None)
            found = [loader.dataset[row] for row in rows] if whole is None else whole(rows)
            trainer.training_step(model, loader.collate_fn(found))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(clock() - started)
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


__all__ = ["LEAST_CASES", "PartTimes", "StageTime", "TimeBudget", "is_used_up", "time_steps", "updates_of_epoch"]
