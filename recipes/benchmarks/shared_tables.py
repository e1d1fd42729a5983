# SPDX-License-Identifier: Apache-2.0
"""Measure an embedding table shared by processes: our shards against torch's `RowwiseParallel`. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/shared_tables.py --num_rows 100000 1000000 10000000 --ways shards

Two processes on this machine read rows, run the backward pass and make an Adam step. Each line: the method,
`num_rows`, milliseconds per step (median, without the first two) and the peak memory of a process in MiB.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

from seekrec.embeddings.row_shards import RowShards
from seekrec.training.row_adamw import RowAdamW
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

NUM_PROCESSES = 2


@dataclass
class Arguments:
    """What is measured."""

    ways: list[str] = field(default_factory=lambda: ["shards", "rowwise"], metadata={"help": "shards, rowwise."})
    num_rows: list[int] = field(default_factory=lambda: [100_000, 1_000_000], metadata={"help": "Rows of the table."})
    num_read: int = field(default=4_000, metadata={"help": "Rows that a process reads in a step."})
    width: int = field(default=64, metadata={"help": "Numbers of a row."})
    repeats: int = field(default=8, metadata={"help": "Steps."})


def make(way: str, num_rows: int, width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Make a shared table and its optimizer."""
    # Zeros take no memory until they are written.
    table = nn.Embedding(num_rows, width, _weight=torch.zeros(num_rows, width))
    if way == "shards":
        shards = RowShards(table)
        return shards, RowAdamW(shards.parameters(), lr=1e-3)
    layout = RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate())
    mesh = init_device_mesh("cpu", (NUM_PROCESSES,))
    model = parallelize_module(nn.Sequential(table), mesh, {"0": layout})
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def measure(rank: int, folder: str, way: str, num_rows: int, arguments: Arguments) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_PROCESSES)
    model, optimizer = make(way, num_rows, arguments.width)
    generator = torch.Generator().manual_seed(rank)
    milliseconds = []
    for _ in range(arguments.repeats):
        rows = torch.randint(num_rows, (arguments.num_read,), generator=generator)
        if way == "rowwise":
            dist.broadcast(rows, 0)  # it is asked the same by all processes
        dist.barrier()
        started = time.monotonic()
        (model(rows) + 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        dist.barrier()
        milliseconds.append(1000 * (time.monotonic() - started))
    if rank == 0:
        line = {
            "way": way,
            "num_rows": num_rows,
            "milliseconds": round(statistics.median(milliseconds[2:]), 1),
            "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        print(json.dumps(line), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main(arguments: Arguments) -> None:
    """Measure each way at each size."""
    for num_rows in arguments.num_rows:
        for way in arguments.ways:
            with tempfile.TemporaryDirectory() as folder:
                inputs = (str(Path(folder)), way, num_rows, arguments)
                multiprocessing.start_processes(measure, inputs, nprocs=NUM_PROCESSES, start_method="spawn")


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
