# SPDX-License-Identifier: Apache-2.0
"""IntSR and SynerGen from a log in partitions: what one partition after the other gives is what the log gives."""

import json
import sys

import pytest
from tiny_runs import ACCELERATE, ROOT, kill_in_training, metrics, run, run_script

from seekrec.events.partitions import PartitionedLog, partition_log
from seekrec.events.report import summarize_log
from seekrec.events.simulator import simulate
from seekrec.recipes.launch import scale_summary

# Columns of the table of results that no training decides.
BASELINES = ("popularity", "BM25", "dense text")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    simulate(3_000, num_items=60, seed=5).write(folder / "raw")
    partition_log(folder / "raw/events", folder / "raw/items.parquet", folder / "log", num_partitions=3)
    return folder


def options(family, inputs, events, output_dir, *more):
    return [
        *("--config", str(ROOT / "recipes" / family / "tiny.yaml"), "--dataset", "tables", "--num_cold_items", "0"),
        *("--events", str(events), "--semantic_encoder", str(inputs[1]), "--output_dir", str(output_dir)),
        *("--use_cpu", "true", "--disable_tqdm", "true", *more),
    ]


def test_a_log_in_partitions_is_trained_on_and_ranked_as_a_whole(inputs, shop, tmp_path):
    text = run_script("train_intsr.py", *options("intsr", inputs, shop / "log", tmp_path / "parts"))
    assert "IntSR" in text and "SASRec" in text
    stages = tmp_path / "parts" / "stages"
    windows = json.loads(next(stages.glob("windows-*/shards.json")).read_text())
    assert len(windows["shards"]) == 3 and all(shard["num_rows"] for shard in windows["shards"])
    run_of = json.loads((tmp_path / "parts" / "model" / "run.json").read_text())
    assert run_of["log"]["num_events"] == 3_000
    more = ("--items", str(shop / "raw/items.parquet"), "--num_train_epochs", "1")
    run_script("train_intsr.py", *options("intsr", inputs, shop / "raw/events", tmp_path / "whole", *more))
    # What needs no training has the same numbers: the same cases, histories, counts and negatives.
    found, expected = metrics(tmp_path / "parts"), metrics(tmp_path / "whole")
    same = [key for key in found if key[0] in BASELINES]
    assert len(same) == 10 and all(found[key] == expected[key] for key in same)


def test_a_plan_is_made_of_one_partition_and_the_counts_of_all(shop, tmp_path):
    """A dry run with nothing but the partitions: of 3,000 events, one partition is read."""
    run_script("train_synergen.py", "--events", shop / "log", "--output_dir", tmp_path / "run", "--dry_run", "true")
    log = PartitionedLog.load(shop / "log")
    summary = scale_summary(summarize_log(log.largest()), log)
    assert (summary.num_events, summary.num_users) == (3_000, log.num_users)
    whole = summarize_log(simulate(3_000, num_items=60, seed=5).log)
    # The interactions of a third of the users, three times.
    assert abs(summary.num_interactions - whole.num_interactions) < 0.1 * whole.num_interactions
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--num_cold_items", "2"), "`num_cold_items` is 2"),
        (("--items", "items.csv"), "`items` is given, but"),
        (("--data_dir", "there"), "`data_dir` is given beside your own tables"),
    ],
)
def test_settings_that_need_the_log_in_memory_are_refused(inputs, shop, tmp_path, more, message):
    with pytest.raises(SystemExit) as stopped:
        run_script("train_intsr.py", *options("intsr", inputs, shop / "log", tmp_path, *more))
    assert message in str(stopped.value)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["intsr", "synergen"])
def test_two_processes_train_on_shards_and_a_killed_run_goes_on(family, inputs, shop, tmp_path):
    script = str(ROOT / "recipes" / f"train_{family}.py")
    launcher = (*ACCELERATE, "--multi_gpu", "--num_processes", "2")
    two = options(family, inputs, shop / "log", tmp_path / "two", "--ddp_backend", "gloo")
    assert "recommendation" in str(run([sys.executable, *launcher, script, *two]).stdout).lower()
    state = max((tmp_path / "two" / "trainer").glob("checkpoint-*/trainer_state.json"))
    num_windows = sum(
        shard["num_rows"]
        for shard in json.loads(next((tmp_path / "two/stages").glob("windows-*/shards.json")).read_text())["shards"]
    )
    # Two epochs of global batches of 32.
    assert json.loads(state.read_text())["max_steps"] == 2 * -(-num_windows // 32)
    for name in ("whole", "killed"):
        arguments = [sys.executable, script, *options(family, inputs, shop / "log", tmp_path / name)]
        if name == "killed":
            kill_in_training(arguments, tmp_path / name)
        run(arguments)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "killed")
