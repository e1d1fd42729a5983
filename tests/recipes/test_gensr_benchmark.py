# SPDX-License-Identifier: Apache-2.0
import json
import runpy
from pathlib import Path

RECIPE = Path(__file__).parents[2] / "recipes" / "benchmarks" / "gensr_candidates.py"


def test_benchmark_compares_equal_scores(capsys):
    recipe = runpy.run_path(str(RECIPE))
    sizes = {"num_items": 60, "num_candidates": 7, "history_length": 3, "repeats": 1, "batches": [2]}
    recipe["main"](recipe["Arguments"](shapes=["recipe"], **sizes))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prompts"] for line in lines] == ["plain", "shared", "shared, short"]
    for line in lines:
        assert line["largest_difference"] < 1e-4 < line["spread"]
        assert (line["shape"], line["batch"], line["candidates"]) == ("recipe", 2, 7)
        assert "ours / one by one" in line and set(line["requests_per_second"]) == {"ours", "one batch", "one by one"}
