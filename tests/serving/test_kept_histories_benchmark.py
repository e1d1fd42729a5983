# SPDX-License-Identifier: Apache-2.0
"""The benchmark of kept histories compares ways that answer alike."""

import json
import runpy
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "benchmarks" / "kept_histories.py"


def test_benchmark_compares_three_ways(capsys):
    recipe = runpy.run_path(str(RECIPE))
    sizes = {"histories": [3, 8], "users": [1, 2], "num_items": 50, "hidden_size": 16, "repeats": 2}
    recipe["main"](recipe["Arguments"](**sizes))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cases = [(family, length, users) for family in ("intsr", "synergen") for length in (3, 8) for users in (1, 2)]
    assert [(line["family"], line["history"], line["users"]) for line in lines] == cases
    assert all(line["largest_difference"] < 1e-5 for line in lines)
    assert all(line[f"{way}_ms"] > 0 for line in lines for way in ("again", "kept", "extended"))
