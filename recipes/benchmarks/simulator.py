# SPDX-License-Identifier: Apache-2.0
"""Measure how fast a log is simulated, and how much memory that takes. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/simulator.py
    OMP_NUM_THREADS=1 python recipes/benchmarks/simulator.py --num_events 1000000 --write false

Each size is simulated in a process of its own. Setting up makes the shop (items, words, and the weights that choices
are drawn by) and a first block. Then all events are made, as Arrow tables, one block in memory at a time; with
`--write` they are made once more and written to Parquet. The main figure is `events_per_cpu_second`, on one core.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from seekrec.events.simulator import simulate
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments


@dataclass
class Arguments:
    """What is measured."""

    num_events: list[int] = field(default_factory=lambda: [1_000_000, 5_000_000], metadata={"help": "Sizes."})
    num_items: int | None = field(default=None, metadata={"help": "Items; one for 50 events if not given."})
    write: bool = field(default=True, metadata={"help": "Whether files are written."})
    seed: int = field(default=0, metadata={"help": "Seed of the log."})


def measure(num_events: int, num_items: int | None, write: bool, seed: int) -> dict[str, object]:
    """Simulate one log and return what it took."""
    pa.set_cpu_count(1)
    start, cpu_start = time.perf_counter(), time.process_time()
    shop = simulate(num_events, num_items=num_items, seed=seed)
    made = shop.block(0).num_rows + shop.items.num_rows
    setup = time.process_time() - cpu_start
    made = sum(block.num_rows for block in shop.blocks())
    cpu_seconds = time.process_time() - cpu_start - setup
    line: dict[str, object] = {
        "num_events": made,
        "num_items": shop.num_items,
        "setup_cpu_seconds": round(setup, 2),
        "seconds": round(time.perf_counter() - start, 2),
        "events_per_cpu_second": round(made / cpu_seconds),
    }
    if write:
        with tempfile.TemporaryDirectory() as folder:
            cpu_start = time.process_time()
            shop.write(Path(folder) / "shop")
            line["written_per_cpu_second"] = round(made / (time.process_time() - cpu_start))
            sizes = [file.stat().st_size for file in (Path(folder) / "shop").rglob("*.parquet")]
            line["bytes_per_event"] = round(sum(sizes) / made, 1)
    line["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return line


def main(arguments: Arguments) -> None:
    """Measure each size."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for num_events in arguments.num_events:
            found = pool.apply(measure, (num_events, arguments.num_items, arguments.write, arguments.seed))
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
