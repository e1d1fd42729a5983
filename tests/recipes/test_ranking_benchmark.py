# SPDX-License-Identifier: Apache-2.0
import json
import runpy
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "benchmarks" / "ranking.py"


def test_benchmark_compares_both_ways(capsys):
    recipe = runpy.run_path(str(RECIPE))
    sizes = {"histories": [3, 8], "candidates": [2, 30], "hidden_size": 16, "repeats": 1, "naive_candidates": 4}
    recipe["main"](recipe["Arguments"](**sizes))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    measured = [line for line in lines if "candidates" in line]
    assert [(line["history"], line["candidates"]) for line in measured] == [(3, 2), (3, 30), (8, 2), (8, 30)]
    # S, I and F for each event: the hours differ, so each is a session of its own.
    assert [line["tokens"] for line in measured] == [9, 9, 24, 24]
    assert all(line["largest_difference"] < 1e-5 for line in measured)
    assert [line["history"] for line in lines if "per_candidate_over_naive" in line] == [3, 8]
    assert lines[-1]["peak_mib"] > 0
