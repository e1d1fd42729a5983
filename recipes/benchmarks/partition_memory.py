# SPDX-License-Identifier: Apache-2.0
"""Measure the memory of training from partitions: it should not grow with the number of events. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/partition_memory.py --folder /tmp/partitions
    OMP_NUM_THREADS=1 python recipes/benchmarks/partition_memory.py --folder /tmp/partitions --families intsr \
        --num_events 500000

Simulated events are partitioned, the same number a partition, and a model of `tiny.yaml` is trained on them for a few
steps, validated and tested, each run in a process of its own. A line is printed as soon as its process ends; the
output of the runs goes to standard error. The figure that matters is `own_mib`, the peak resident memory that belongs
to the process. `mapped_mib` is memory-mapped files in addition, which the system can reclaim.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from seekrec.events.partitions import partition_log
from seekrec.events.partitions.logs import LOG_FILE
from seekrec.events.simulator import simulate
from seekrec.recipes import GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe
from seekrec.recipes.launch import run_recipe
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

RECIPES = {kind.family(): kind for kind in (GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe)}
ROOT = Path(__file__).parents[2]
NUM_ITEMS, STEPS = 2000, 20
OPTIONS = {
    "gensar": ("--corpus", "instructions"),
    "gensr": ("--collaborative_source", "sasrec", "--extra_requests", "recommend_searched_items", "item_queries"),
}


@dataclass
class Arguments:
    """What is measured."""

    folder: str = field(metadata={"help": "Where logs and runs are written, and found again."})
    families: list[str] = field(default_factory=lambda: list(RECIPES), metadata={"help": "What is trained."})
    num_events: list[int] = field(default_factory=lambda: [500_000, 5_000_000], metadata={"help": "Sizes."})
    events_of_partition: int = field(default=500_000, metadata={"help": "Events of a partition."})
    semantic_encoder: str | None = field(default=None, metadata={"help": "Encoder of texts; MiniLM if not given."})


class Watch(threading.Thread):
    """Notes the largest memory of this process while it trains; `peaks` has MiB of its own and of mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks = {"RssAnon": 0, "RssFile": 0}
        self.is_done = threading.Event()

    def run(self) -> None:
        """Look every now and then."""
        while not self.is_done.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.peaks:
                    self.peaks[name] = max(self.peaks[name], int(value.split()[0]) >> 10)


def train(family: str, events: str, output_dir: str, stop_after: str, encoder: str | None) -> dict[str, object]:
    """Run the recipe of a family up to a stage and return what it took."""
    started, watch = time.perf_counter(), Watch()
    watch.start()
    options = ["--config", str(ROOT / "recipes" / family / "tiny.yaml"), "--dataset", "tables", "--events", events]
    options += ["--output_dir", output_dir, "--stop_after", stop_after, "--num_cold_items", "0", "--use_cpu", "true"]
    options += ["--max_steps", str(STEPS), "--eval_strategy", "steps", "--eval_steps", str(STEPS)]
    options += ["--save_strategy", "steps", "--save_steps", str(STEPS), "--max_test_cases", "20"]
    options += ["--sasrec_num_epochs", "1", "--disable_tqdm", "true", *OPTIONS.get(family, ())]
    if family in ("gensar", "gensr"):
        options += ["--tokenizer_vocab_size", "2000"]
    options += [] if encoder is None else ["--semantic_encoder", encoder]
    with redirect_stdout(sys.stderr):
        run_recipe(f"train_{family}.py", RECIPES[family], options)
    watch.is_done.set()
    watch.join()
    return {
        "stage": stop_after,
        "own_mib": watch.peaks["RssAnon"],
        "mapped_mib": watch.peaks["RssFile"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def measure(family: str, num_events: int, arguments: Arguments) -> Iterator[dict[str, object]]:
    """Train a family on a log of so many events: a line for each part, when it is done."""
    folder = Path(arguments.folder)
    raw, log = folder / f"raw-{num_events}", folder / f"log-{num_events}-{arguments.events_of_partition}"
    num_partitions = -(-num_events // arguments.events_of_partition)
    if not (log / LOG_FILE).is_file():
        simulate(num_events, num_items=NUM_ITEMS, seed=5).write(raw)
        partition_log(raw / "events", raw / "items.parquet", log, num_partitions=num_partitions)
    context = multiprocessing.get_context("spawn")
    # Stages are found again: what trains and tests has not written them.
    for stage in ("embeddings", "corpus", "evaluation"):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            given = (family, str(log), str(folder / f"{family}-{num_events}"), stage, arguments.semantic_encoder)
            found = pool.submit(train, *given).result()
        yield {"family": family, "num_events": num_events, "num_partitions": num_partitions, **found}


def main(arguments: Arguments) -> None:
    """Measure each family and size."""
    for family in arguments.families:
        for num_events in arguments.num_events:
            for line in measure(family, num_events, arguments):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
