# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of the simulated shop: its speed, and how close systems come to its oracle."""

import importlib
import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"


def test_the_speed_of_the_simulator_is_measured():
    script = runpy.run_path(str(FOLDER / "simulator.py"))
    line = script["measure"](70_000, 100, True, 0)
    assert (line["num_events"], line["num_items"]) == (70_000, 100)
    assert min(line["events_per_cpu_second"], line["written_per_cpu_second"], line["bytes_per_event"]) > 0


def test_the_data_floor_goes_on_with_its_events_and_fits_a_size_into_its_time(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("data_floor")
    monkeypatch.setattr(script, "ROWS_PER_FILE", 1 << 16)
    # Files that are there are not written again; without time none is written.
    simulate = script.simulate_events
    first = simulate(tmp_path, 1 << 16, script.Limits())
    assert first["written"] == 1 << 16
    stamp = (tmp_path / "source/events/part-00000.parquet").stat().st_mtime_ns
    assert simulate(tmp_path, 100_000, script.Limits(seconds=-1))["written"] == 0
    assert simulate(tmp_path, 100_000, script.Limits())["written"] == 100_000
    # The number of items of the shop changed, so all was written anew.
    assert (tmp_path / "source/events/part-00000.parquet").stat().st_mtime_ns > stamp
    stamp = (tmp_path / "source/events/part-00000.parquet").stat().st_mtime_ns
    (tmp_path / "source/events/part-00001.parquet").unlink()
    assert simulate(tmp_path, 100_000, script.Limits())["written"] == 100_000
    assert (tmp_path / "source/events/part-00000.parquet").stat().st_mtime_ns == stamp
    # Half a second to simulate a million events and two to split them: 950 s have time for 361 million, and the disk
    # has room for 10 million of them.
    speed = script.Speed(1_000_000, 2_000_000, 2.0)
    assert speed.share == 0.2
    assert abs(speed.fit(950, 1e12) - 361e6) < 1 << 16 and abs(speed.fit(950, 1e7) - 1e7) < 1 << 16


@pytest.mark.slow
def test_systems_are_compared_with_the_oracle(tmp_path, capsys, monkeypatch):
    """Nothing that is trained on a log can order its items better than the chances that they were drawn by."""
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("oracle")
    shop = script.Arguments(num_events=4_000, num_items=100, folder=str(tmp_path))
    options = ["--num_train_epochs", "1", "--sasrec_num_epochs", "1", "--disable_tqdm", "true"]
    script.main(shop, [*options, "--max_test_cases", "60", "--max_validation_cases", "20", "--use_cpu", "true"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"system"')]
    assert {"oracle", "popularity", "BM25", "SASRec", "IntSR"} <= {line["system"] for line in lines}
    for line in lines:
        assert (line["of_oracle"] == 1.0) if line["system"] == "oracle" else line["of_oracle"] < 0.9


@pytest.mark.slow
def test_the_memory_of_training_from_partitions_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("partition_memory")
    asked = script.Arguments(str(tmp_path), events_of_partition=1_000)
    lines = script.measure("gensar", 3_000, asked)
    assert [line["stage"] for line in lines] == ["embeddings", "corpus", "evaluation"]
    assert all(line["num_partitions"] == 3 and line["own_mib"] > 100 for line in lines)
