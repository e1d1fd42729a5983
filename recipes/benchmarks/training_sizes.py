# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory of training by history length and catalogue size. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/training_sizes.py --before ../seekrec-before
    OMP_NUM_THREADS=1 python recipes/benchmarks/training_sizes.py --lengths 50 --num_items 3000 100000 1000000

An optimizer step (forward, backward, clipping, AdamW) of SASRec, IntSR and SynerGen with their recipes' defaults, on
random histories; `negatives` and row-wise gradients follow from the size of the catalogue, as a plan for a CPU sets
them. Each measurement runs in its own process; with `--before`, a path of another checkout of this project, both take
turns. Seconds are medians of processor time; a step of half a minute runs once. For each family, length and catalogue:

- `events_per_second`, `step_mib`: of this checkout; the second is what steps add to the memory of model and catalogue,
  the gradients and the moments of AdamW included;
- `before`: the same of the other checkout, or null if it failed, for example out of memory;
- `speedup`, `memory`: this checkout over the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

HERE = Path(__file__).resolve().parents[2]


@dataclass
class Arguments:
    """What is measured."""

    families: list[str] = field(
        default_factory=lambda: ["sasrec", "intsr", "synergen"], metadata={"help": "Which models."}
    )
    lengths: list[int] = field(default_factory=lambda: [50], metadata={"help": "Events of a user."})
    num_items: list[int] = field(
        default_factory=lambda: [1_000, 10_000, 100_000, 1_000_000], metadata={"help": "Items of the catalogue."}
    )
    batch_size: int = field(default=8, metadata={"help": "Users of a step."})
    repeats: int = field(default=3, metadata={"help": "Steps of which the median is taken."})
    before: str | None = field(default=None, metadata={"help": "Another checkout, to compare with."})


def measure(checkout: Path, family: str, num_items: int, length: int, arguments: Arguments) -> dict[str, float] | None:
    """Run `training_step.py` with the package of a checkout; None if it failed."""
    script = HERE / "recipes" / "benchmarks" / "training_step.py"
    paths = os.pathsep.join(str(checkout / part) for part in ("src", "recipes/benchmarks"))
    sizes = [str(value) for value in (num_items, arguments.batch_size, length, arguments.repeats)]
    process = subprocess.run(
        [sys.executable, "-P", str(script), family, *sizes],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    if process.returncode:
        return None
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return found


def main(arguments: Arguments) -> None:
    """Measure each family at each length and size."""
    for family in arguments.families:
        for length in arguments.lengths:
            for num_items in arguments.num_items:
                line: dict[str, object] = {"family": family, "length": length, "num_items": num_items}
                before = None
                if arguments.before is not None:
                    before = measure(Path(arguments.before).resolve(), family, num_items, length, arguments)
                    line["before"] = before
                here = measure(HERE, family, num_items, length, arguments)
                line |= here or {"events_per_second": None, "step_mib": None}
                if here and before:
                    line["speedup"] = round(here["events_per_second"] / before["events_per_second"], 2)
                    line["memory"] = round(here["step_mib"] / before["step_mib"], 3)
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
