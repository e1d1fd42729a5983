# SPDX-License-Identifier: Apache-2.0
import json
import runpy
from pathlib import Path

import pytest
from tiny_runs import run_script

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"


@pytest.fixture
def lines_of(monkeypatch, capsys):
    """Run parts of the benchmark and return what they print."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(*parts, script="serving.py"):
        runpy.run_path(str(FOLDER / script))["main"](["--quick", *(("--parts", *parts) if parts else ())])
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_what_is_kept_answers_as_what_is_read_again(lines_of):
    for line, name in zip(lines_of("states"), ("intsr", "synergen", "gensar"), strict=True):
        assert (line["model"], line["events"], line["same_items"]) == (name, 20, True)
        assert line["largest_difference"] < 1e-4
        assert line["value"] == pytest.approx(line["extend_ms"] / line["again_ms"], rel=1e-2)


def test_queries_that_are_counted_as_they_come_are_those_of_all_events(lines_of):
    *asked, added = lines_of(script="suggestions.py")
    assert [line["same"] for line in asked] == [True] * 4 and added["batch"] == 10
    assert all(line["value"] == pytest.approx(line["kept_ms"] / line["counted_ms"], rel=0.05) for line in asked)


@pytest.mark.slow
def test_servers_are_loaded_overloaded_and_started(lines_of):
    lines = lines_of("load", "overload", "start")
    load = [line for line in lines if line["part"] == "load"]
    assert [line["server"] for line in load] == ["one by one", "0 ms", "5 ms", "20 ms"] * 2
    assert all(line["statuses"].keys() == {"200"} and 0 < line["p50_ms"] <= line["p99_ms"] for line in load)
    overload = [line for line in lines if line["part"] == "overload"]
    assert [line["model"] for line in overload] == ["gensar", "synergen"]
    for line in overload:
        assert line["statuses"].keys() <= {"200", "429"} and line["without_answer"] == 0
        assert line["events_acknowledged"] == line["events_in_store"] >= line["events_before"] == 26_000
    start = [line for line in lines if line["part"] == "start"]
    assert [(line["model"], line["items"]) for line in start] == [("gensar", 300), ("synergen", 300)]
    assert all(line["seconds"] > 0 < line["megabytes"] <= line["megabytes_with_new"] for line in start)


def test_a_request_is_priced_with_all_views_and_with_none(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    options = ("--families", "synergen", "--catalogs", "200", "--memory", "false", "--repeats", "1")
    lines = [json.loads(line) for line in run_script("benchmarks/serving_price.py", *options).splitlines()]
    assert [(line["task"], line["batch"]) for line in lines] == [
        (task, batch) for task in ("recommendation", "search") for batch in (1, 16)
    ]
    assert all(line["value"] == pytest.approx(line["on"] / line["off"], rel=0.1) and line["on"] > 0 for line in lines)
