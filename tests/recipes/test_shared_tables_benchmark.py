# SPDX-License-Identifier: Apache-2.0
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import environment

SCRIPT = Path(__file__).parents[2] / "recipes" / "benchmarks" / "shared_tables.py"
SIZES = {"num_rows": 50, "num_read": 20, "width": 3, "repeats": 3}


def test_both_ways_learn_the_same_table(tmp_path, monkeypatch, capsys):
    """By one process, in this one: a step of Adam on the rows that it reads, and no other row moves."""
    recipe = runpy.run_path(str(SCRIPT))
    names = recipe["measure"].__globals__
    monkeypatch.setitem(names, "NUM_PROCESSES", 1)
    # A process of its own may take one thread; this one goes on to other tests.
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    make, made = names["make"], {}

    def noted(way, *sizes):
        made[way] = make(way, *sizes)
        return made[way]

    monkeypatch.setitem(names, "make", noted)
    tables = {}
    for way in ("shards", "rowwise"):
        folder = tmp_path / way
        folder.mkdir()
        arguments = recipe["Arguments"](ways=[way], **{**SIZES, "num_rows": [50]})
        destroy = torch.distributed.destroy_process_group

        def end(way=way, destroy=destroy):
            (weight,) = made[way][0].parameters()
            tables[way] = (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach().clone()
            destroy()

        monkeypatch.setattr(torch.distributed, "destroy_process_group", end)
        recipe["measure"](0, str(folder), way, 50, arguments)
        monkeypatch.setattr(torch.distributed, "destroy_process_group", destroy)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["way"], line["num_rows"]) for line in lines] == [("shards", 50), ("rowwise", 50)]
    assert all(line.keys() == {"way", "num_rows", "milliseconds", "mib"} for line in lines)
    generator = torch.Generator().manual_seed(0)
    read = torch.cat([torch.randint(50, (20,), generator=generator) for _ in range(3)]).unique()
    for table in tables.values():
        assert table.abs().sum(1).nonzero()[:, 0].tolist() == read.tolist()


@pytest.mark.slow
def test_two_processes_share_a_table():
    options = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, env=environment(), timeout=280
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["way"], line["num_rows"]) for line in lines] == [("shards", 50), ("rowwise", 50)]
