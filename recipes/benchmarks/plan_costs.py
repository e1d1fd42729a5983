# SPDX-License-Identifier: Apache-2.0
"""Print what a run without a settings file would cost, by the plan's estimates, for simulated shops of several sizes.

```bash
python recipes/benchmarks/plan_costs.py
python recipes/benchmarks/plan_costs.py --num_events 20000 --gflops 150
```

Prints a JSON line for each size and family: minutes of every stage, memory and disk. `--gflops` assumes a machine of
that speed instead of this one. Nothing is trained.
"""

import json
import sys
from dataclasses import dataclass, field, replace

from seekrec.events.report import summarize_log
from seekrec.events.simulator import simulate
from seekrec.recipes.choices import choose
from seekrec.recipes.costs import add_epochs, estimate_costs
from seekrec.recipes.machine import Machine
from seekrec.recipes.situation import Situation
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

FAMILIES = ("intsr", "synergen", "gensr", "gensar")


@dataclass
class PlanCostArguments:
    """Sizes of the logs, and the machine."""

    num_events: list[int] = field(
        default_factory=lambda: [20_000, 200_000, 2_000_000], metadata={"help": "Numbers of events."}
    )
    gflops: float | None = field(
        default=None, metadata={"help": "Speed of the machine in GFLOP/s; that of this one, now, if not given."}
    )


def main(arguments: PlanCostArguments) -> None:
    """Print the estimates."""
    machine = Machine.measure(".")
    if arguments.gflops is not None:
        machine = replace(machine, gflops=arguments.gflops, share_of_core=1.0)
    for num_events in arguments.num_events:
        log = summarize_log(simulate(num_events).log)
        situation = Situation(log, machine, can_construct=log.has_categories, given={})
        for family in FAMILIES:
            choices = {one.name: one.value for one in choose(family, situation)}
            choices |= {one.name: one.value for one in add_epochs(family, situation, choices, None)}
            costs = estimate_costs(family, situation, choices)
            line = {
                "num_events": log.num_events,
                "num_users": log.num_users,
                "num_items": log.num_items,
                "family": family,
                "gflops": round(machine.gflops),
                "num_train_epochs": choices["num_train_epochs"],
                "minutes": {one.stage: round(one.seconds / 60, 1) for one in costs},
                "minutes_in_all": round(sum(one.seconds for one in costs) / 60, 1),
                "memory_gb": round(max(one.memory for one in costs) / 1e9, 1),
                "disk_mb": round(sum(one.disk for one in costs) / 1e6),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((PlanCostArguments,), sys.argv[1:]))
