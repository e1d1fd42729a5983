# SPDX-License-Identifier: Apache-2.0
"""Measure what `torch.compile` gains in training IntSR and SynerGen (`--torch_compile true`). Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/compiled_training.py

Forward and backward passes on one batch of random users, compiled and not, take turns in one process. For each family:

- `plain_seconds`, `compiled_seconds`: medians of processor time;
- `speedup`: plain over compiled;
- `compile_seconds`: wall time of the first two compiled steps; batches of other shapes compile again;
- `steps_to_pay`: steps after which compilation has paid off.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial

import torch
import training_step
from torch import nn
from transformers import TrainingArguments
from turns import time_in_turns

from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments


@dataclass
class Arguments:
    """What is measured."""

    families: list[str] = field(default_factory=lambda: ["intsr", "synergen"], metadata={"help": "Which models."})
    num_items: int = field(default=3_000, metadata={"help": "Items of the catalogue."})
    batch_size: int = field(default=16, metadata={"help": "Users of a step."})
    length: int = field(default=50, metadata={"help": "Events of a user."})
    repeats: int = field(default=7, metadata={"help": "Steps of which the median is taken."})


def main(arguments: Arguments) -> None:
    """Measure each family."""
    torch.set_num_threads(1)
    for family in arguments.families:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            training = TrainingArguments(output_dir=folder, learning_rate=0.0, use_cpu=True, report_to="none")
            model, optimizer, batch = training_step.make_windows_family(
                family, arguments.num_items, arguments.batch_size, arguments.length, training
            )

        def step(trained: nn.Module, optimizer: torch.optim.Optimizer = optimizer, batch: object = batch) -> None:
            optimizer.zero_grad()
            trained(**batch).loss.backward()

        compiled = torch.compile(model)
        started = time.perf_counter()
        step(compiled)
        step(compiled)
        compile_seconds = time.perf_counter() - started
        ways = {"plain": partial(step, model), "compiled": partial(step, compiled)}
        plain, fast = time_in_turns(ways, arguments.repeats, time.process_time).values()
        line = {
            "family": family,
            "plain_seconds": round(plain, 3),
            "compiled_seconds": round(fast, 3),
            "speedup": round(plain / fast, 2),
            "compile_seconds": round(compile_seconds, 1),
            "steps_to_pay": round(compile_seconds / (plain - fast)) if plain > fast else None,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
