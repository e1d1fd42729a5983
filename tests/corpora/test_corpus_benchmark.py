# SPDX-License-Identifier: Apache-2.0
import json
import runpy
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "benchmarks" / "corpus.py"


def test_benchmark_prints_every_stage(capsys):
    recipe = runpy.run_path(str(RECIPE))
    sizes = {"num_events": 300, "num_items": 50, "vocab_size": 300, "num_requests": 5}
    recipe["main"](recipe["Arguments"](**sizes))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stages = [line["stage"] for line in lines]
    assert stages == ["tokenizer", *["build"] * 6, "requests together", "requests one by one", "memory"]
    assert lines[1]["task"] == "all"
    assert lines[1]["rows"] == sum(line["rows"] for line in lines[2:7]) + 2 * 50
    assert all(line["rows_per_cpu_second"] > 0 for line in lines[:-1])
