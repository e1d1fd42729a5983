# SPDX-License-Identifier: Apache-2.0
"""Measure learning identifiers for many items and making them unique. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/identifiers.py --folder /tmp/vectors

Vectors of two views are in files. `random`: independent normal numbers; `tight`: 2,000 centres of deviation 1 with
deviation 0.3 around them, so that hundreds of items compete for each identifier. Residual k-means, two shared and two
specific levels of 256. Each line, measured in its own process: the case, core seconds for fitting, encoding and
assigning, how many items of the first view shared an identifier and how many were moved, and the peak memory in MiB:
of the process, and without file pages.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seekrec.identifiers import ResidualKMeans, ResidualKMeansConfig, assign_unique
from seekrec.util.command_line import one_line_errors
from seekrec.util.memory_maps import map_rows, write_rows_file
from seekrec.util.parsing import parse_arguments

NUM_CENTERS, NOISE = 2_000, 0.3
BLOCK = 50_000


@dataclass
class Arguments:
    """What is measured."""

    folder: str = field(metadata={"help": "Folder of the vectors, which are kept."})
    cases: list[str] = field(default_factory=lambda: ["random", "tight"], metadata={"help": "random, tight."})
    num_items: list[int] = field(default_factory=lambda: [1_000_000], metadata={"help": "Items."})
    semantic_size: int = field(default=64, metadata={"help": "Numbers of a semantic vector; 384 are real ones."})
    collaborative_size: int = field(default=64, metadata={"help": "Numbers of a collaborative vector."})
    num_iterations: int = field(default=10, metadata={"help": "Rounds of k-means at each level."})


def draw(case: str, num_items: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Draw vectors, a block at a time."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(NUM_CENTERS, size))
    # The same items lie together in both views.
    groups = np.random.default_rng(0).integers(0, NUM_CENTERS, num_items)
    for start in range(0, num_items, BLOCK):
        own = groups[start : start + BLOCK]
        noise = rng.normal(size=(len(own), size))
        yield (noise if case == "random" else centers[own] + NOISE * noise).astype(np.float32)


def measure(case: str, num_items: int, arguments: Arguments) -> None:
    """Print one line."""
    highest = [0]

    def watch() -> None:
        while True:
            with open("/proc/self/status") as status:
                highest.append(max(highest.pop(), next(int(line.split()[1]) for line in status if "RssAnon" in line)))
            time.sleep(0.05)

    sizes = {"semantic": arguments.semantic_size, "collaborative": arguments.collaborative_size}
    vectors = {}
    for seed, (view, size) in enumerate(sizes.items()):
        path = Path(arguments.folder) / f"{case}-{num_items}-{view}-{size}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_rows_file(path, draw(case, num_items, size, seed), (num_items, size))
        vectors[view] = map_rows(path)
    threading.Thread(target=watch, daemon=True).start()
    times = [time.process_time()]
    config = ResidualKMeansConfig(**{f"{view}_size": size for view, size in sizes.items()})
    model = ResidualKMeans(config).fit(**vectors, num_iterations=arguments.num_iterations)
    times.append(time.process_time())
    encoded = model.encode(**vectors)
    times.append(time.process_time())
    assigned = assign_unique(
        encoded.codes,
        encoded.costs,
        codebook_size=config.codebook_size,
        num_shared_levels=config.num_shared_levels,
    )
    times.append(time.process_time())
    line = {
        "case": case,
        "num_items": num_items,
        **dict(zip(("fit_s", "encode_s", "assign_s"), np.diff(times).round(1).tolist(), strict=True)),
        "num_colliding": assigned.num_colliding_before["semantic"],
        "num_moved": assigned.num_moved["semantic"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "peak_without_files_mib": highest[0] >> 10,
    }
    print(json.dumps(line), flush=True)


def main(arguments: Arguments) -> None:
    """Measure each case in a process of its own."""
    for num_items in arguments.num_items:
        for case in arguments.cases:
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(case, num_items, arguments))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{case} with {num_items} items ended with {process.exitcode}.")


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
