# SPDX-License-Identifier: Apache-2.0
import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"


@pytest.fixture
def recipe(monkeypatch):
    """The recipe; what it starts as processes of their own runs in this one, where seconds of imports are saved."""
    monkeypatch.syspath_prepend(str(FOLDER))
    recipe = runpy.run_path(str(FOLDER / "decoding.py"))

    def run(command, **options):
        assert command[:2] == [sys.executable, str(FOLDER / "decoding_cases.py")]
        peak = sys.modules["decoding_cases"].peak_of_search(command[2], **json.loads(command[3]))
        assert peak >= 0.0  # what this process had already counts for nothing
        return SimpleNamespace(stdout=f"{peak + 1.0}\n")

    monkeypatch.setattr(subprocess, "run", run)
    return recipe


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux only")
def test_a_quick_run_measures_everything(recipe, capsys):
    recipe["main"](recipe["Arguments"](quick=True))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["measure"] for line in lines if line["measure"] != "profile"] == [
        *["trie: megabytes per million items", "trie: seconds per million items", "mask: seconds per million items"]
        * 3,
        "nested dict: seconds per million items",
        "linear layers packed",
        *["own / generate with a dict", "packed / generate with a dict"] * 2,
        "own / generate with the processor",
        "own / floor",
        "mask of 1 % / none",
        "share of trie, mask, top-k, reorder",
        "items unlike generate's",
        "5000 / 500 items",
        *["items unlike generate's"] * 2,
        "candidates: own / separate forwards",
        "candidates: own / one batch",
        "candidates: packed / one batch",
        "candidates: largest difference from separate forwards, nats",
        "peak memory: own / generate with a dict",
    ]
    by_measure = {line["measure"]: line for line in reversed(lines)}
    assert all("ratio" in line for line in lines if " / " in line["measure"])
    assert all(
        line["holds"] == (line["value"] <= line["target"]) for line in lines if "value" in line and "target" in line
    )
    assert (
        by_measure["items unlike generate's"] | {"value": 0.0, "of": 10, "holds": True}
        == by_measure["items unlike generate's"]
    )
    assert by_measure["candidates: largest difference from separate forwards, nats"]["holds"]
    assert 0 < by_measure["share of trie, mask, top-k, reorder"]["value"] < 1
    assert (
        by_measure["own / generate with a dict"]["runs"].keys()
        == by_measure["own / generate with a dict"]["ms"].keys()
    )


def test_slow_contenders_run_less_often(recipe, monkeypatch):
    # A clock that each run moves. Repeated runs should take 4 seconds, are at least two, and none after one of 8.
    now = [0.0]
    monkeypatch.setitem(recipe["take_turns"].__globals__, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def run(name, seconds):
        now[0] += seconds
        return name

    contenders = {
        name: lambda name=name, seconds=seconds: run(name, seconds)
        for name, seconds in {"quick": 1.0, "slow": 4.0, "slowest": 10.0}.items()
    }
    timings = recipe["take_turns"](contenders, 5)
    assert {name: (timing.seconds, timing.runs, timing.result) for name, timing in timings.items()} == {
        "quick": (1.0, 4, "quick"),
        "slow": (4.0, 2, "slow"),
        "slowest": (10.0, 1, "slowest"),
    }
    assert now[0] == (1 + 4 + 10) + 4 * 1 + 2 * 4  # all first runs, then the repeated ones
