# SPDX-License-Identifier: Apache-2.0
"""All families from a log in partitions: what one partition after the other gives is what the log gives."""

import json
import math
import sys
from dataclasses import replace
from unittest.mock import Mock

import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from tiny_runs import ACCELERATE, ROOT, kill_in_training, metrics, run, run_script

from seekrec.events.partitions import PartitionedLog, partition_log
from seekrec.events.report import summarize_log
from seekrec.events.simulator import simulate
from seekrec.models.words import Vocabulary, text_word_keys
from seekrec.recipes.arguments import DataArguments
from seekrec.recipes.gensar import GenSARRecipe
from seekrec.recipes.launch import scale_summary
from seekrec.recipes.logs import look_at_log, open_partitions
from seekrec.recipes.stages import StageCache

# Columns of the table of results that no training decides.
BASELINES = ("popularity", "BM25", "dense text")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    simulate(3_000, num_items=60, seed=5).write(folder / "raw")
    partition_log(folder / "raw/events", folder / "raw/items.parquet", folder / "log", num_partitions=3)
    return folder


# What the settings of the tests ask that a log in partitions cannot give.
OWN_OPTIONS = {
    "gensr": (
        *("--collaborative_source", "sasrec", "--num_unseen_events", "3"),
        *("--extra_requests", "recommend_searched_items", "item_queries"),
    )
}


def options(family, inputs, events, output_dir, *more):
    return [
        *("--config", str(ROOT / "recipes" / family / "tiny.yaml"), "--dataset", "tables", "--num_cold_items", "0"),
        *("--events", str(events), "--semantic_encoder", str(inputs[1]), "--output_dir", str(output_dir)),
        *("--use_cpu", "true", "--disable_tqdm", "true", *OWN_OPTIONS.get(family, ()), *more),
    ]


def test_a_log_in_partitions_is_trained_on_and_ranked_as_a_whole(inputs, shop, tmp_path):
    cold = ("--num_cold_items", "4")
    text = run_script("train_intsr.py", *options("intsr", inputs, shop / "log", tmp_path / "parts", *cold))
    assert all(f"\n{name}  " in text for name in ("IntSR", "SASRec", "BM25 x SASRec", "dense x SASRec"))
    stages = tmp_path / "parts" / "stages"
    windows = json.loads(next(stages.glob("windows-*/shards.json")).read_text())
    assert len(windows["shards"]) == 3 and all(shard["num_rows"] for shard in windows["shards"])
    run_of = json.loads((tmp_path / "parts" / "model" / "run.json").read_text())
    assert 2_000 < run_of["log"]["num_events"] < 3_000
    more = (*cold, "--items", str(shop / "raw/items.parquet"), "--num_train_epochs", "1")
    run_script("train_intsr.py", *options("intsr", inputs, shop / "raw/events", tmp_path / "whole", *more))
    # What needs no training has the same numbers: the same items held out, cases, histories, counts and negatives.
    found, expected = metrics(tmp_path / "parts"), metrics(tmp_path / "whole")
    same = [key for key in found if key[0] in BASELINES]
    assert len(same) == 13
    for key in same:
        # An encoder of random weights holds all texts nearly as near as each other, and products of matrices round by
        # how many rows they have, so a few cases of dense text get other ranks.
        assert found[key] == (pytest.approx(expected[key], abs=0.05) if key[0] == "dense text" else expected[key])


@pytest.mark.parametrize(
    ("family", "more", "tasks"),
    [
        pytest.param(
            *("gensar", ("--corpus", "stream")), {"histories": 3, "desc2id_semantic": 1}, marks=pytest.mark.slow
        ),
        pytest.param(
            *("gensar", ("--corpus", "instructions")),
            {"nrip": 3, "nsip": 3, "nsqp": 3, "id2desc_collaborative": 1},
            marks=pytest.mark.slow,
        ),
        ("gensr", (), {"recommendation": 3, "search": 4}),
    ],
    ids=["stream", "instructions", "gensr"],
)
def test_models_that_write_text_train_on_shards(family, more, tasks, inputs, shop, tmp_path):
    """Each partition gives a shard of each task, the items one of theirs; the log itself is not read as a whole."""
    more = (*more, "--num_train_epochs", "1", "--max_test_cases", "10")
    text = run_script(f"train_{family}.py", *options(family, inputs, shop / "log", tmp_path, *more))
    assert "full ranking of 60 items" in text and "uniform-20" in text
    stage = next((tmp_path / "stages").glob("requests-*" if family == "gensr" else "corpus-*"))
    shards = json.loads((stage / "shards.json").read_text())["shards"]
    assert {task: sum(shard["task"] == task for shard in shards) for task in tasks} == tasks
    found = metrics(tmp_path)
    name = {"gensar": "GenSAR", "gensr": "GenSR"}[family]
    assert {key[1] for key in found if key[0] == name} == {"recommendation", "search"}
    assert json.loads((tmp_path / "model" / "run.json").read_text())["log"]["num_events"] == 3_000


def test_lightgcn_is_refused_where_the_log_does_not_fit_into_memory(inputs, shop, tmp_path):
    arguments = options("gensr", inputs, shop / "log", tmp_path, "--collaborative_source", "lightgcn")
    with pytest.raises(SystemExit) as stopped:
        run_script("train_gensr.py", *arguments)
    assert "pass --collaborative_source sasrec" in str(stopped.value)


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


@pytest.mark.parametrize(("name", "times"), [("events", 20), ("events.csv", 5)])
def test_a_log_larger_than_three_tenths_of_memory_is_read_in_partitions(name, times, shop, tmp_path):
    """Parquet takes about 20 times its bytes while it is read and checked, text 5 times."""
    source = shop / "raw" / name
    if name == "events.csv":
        csv.write_csv(pq.read_table(shop / "raw/events"), source)
    files = [file for file in source.rglob("*") if file.is_file()] or [source]
    expected = times * sum(file.stat().st_size for file in files)
    data = DataArguments(events=str(source), items=str(shop / "raw/items.parquet"))
    cache = StageCache(tmp_path / "stages")
    enough, too_little = math.ceil(expected / 0.3) + 1, math.floor(expected / 0.3) - 1
    assert open_partitions(data, cache, memory=enough) is None and not (tmp_path / "stages").exists()
    parts = open_partitions(data, cache, memory=too_little)
    assert parts.num_events == 3_000 and (tmp_path / "stages").exists()
    # Made of events, items need them all at once; a folder of partitions is one whatever its size.
    assert open_partitions(replace(data, items=None), cache, memory=1) is None
    assert open_partitions(DataArguments(events=str(shop / "log")), cache, memory=1 << 60).num_partitions == 3


def test_a_dry_run_of_a_large_table_keeps_the_users_of_one_part(shop, tmp_path, monkeypatch):
    data = DataArguments(events=str(shop / "raw/events"), items=str(shop / "raw/items.parquet"))
    log, parts = look_at_log(data, memory=1 << 40)
    assert parts is None and log.num_events == 3_000
    # As many parts as the partitions of the shop.
    monkeypatch.setattr("seekrec.events.partitions.partitioning._BYTES_PER_EVENT", (3 << 30) // 3_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    log, parts = look_at_log(data, memory=1)
    first = PartitionedLog.load(shop / "log").partition(0)
    assert log.events.equals(first.events) and log.items.equals(first.items)
    assert (parts.sampled_from, parts.num_partitions) == (3_000, 1) and not list(tmp_path.iterdir())
    summary = scale_summary(summarize_log(log), parts)
    assert (summary.num_events, summary.num_users) == (3_000, round(3_000 / log.num_events * parts.num_users))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--items", "items.csv"), "`items` is given, but"),
        (("--data_dir", "there"), "`data_dir` is given together with your own tables"),
    ],
)
def test_settings_that_need_the_log_in_memory_are_refused(inputs, shop, tmp_path, more, message):
    with pytest.raises(SystemExit) as stopped:
        run_script("train_intsr.py", *options("intsr", inputs, shop / "log", tmp_path, *more))
    assert message in str(stopped.value)


def test_gensar_learns_the_words_of_queries_of_all_partitions(monkeypatch):
    for name in ("identifier_fields", "codebooks_by_block"):
        monkeypatch.setattr(f"seekrec.recipes.gensar.{name}", lambda _: {})
    monkeypatch.setattr("seekrec.recipes.gensar.make_t5", lambda *_, **made_with: Mock(made_with=made_with))
    typed = {f"{word} thing": 1 for word in ("red", "blue", "green", "red old", "blue old", "red new")}
    recipe = Mock(parts=Mock(), catalog=[])
    recipe.tasks.weights = {}
    recipe.config.item_reading, recipe.config.query_reading = [], ["words"]
    recipe.parts.training_queries.return_value = typed
    model = GenSARRecipe.make_model(recipe)
    # "thing" six times, "red" three times, "blue" and "old" twice.
    keys = Vocabulary.choose([text_word_keys(list(typed))]).keys
    assert len(keys) and model.set_words.call_args.args[0].keys.tolist() == keys.tolist()
    assert model.made_with["num_words"] == len(keys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", ["intsr", "synergen", "gensar", "gensr"])
def test_two_processes_train_on_shards_and_a_killed_run_goes_on(family, inputs, shop, tmp_path):
    script = str(ROOT / "recipes" / f"train_{family}.py")
    launcher = (*ACCELERATE, "--multi_gpu", "--num_processes", "2")
    two = options(family, inputs, shop / "log", tmp_path / "two", "--ddp_backend", "gloo")
    assert "recommendation" in str(run([sys.executable, *launcher, script, *two], seconds=1200).stdout).lower()
    if family in ("intsr", "synergen"):
        state = max((tmp_path / "two" / "trainer").glob("checkpoint-*/trainer_state.json"))
        described = json.loads(next((tmp_path / "two/stages").glob("windows-*/shards.json")).read_text())
        num_windows = sum(shard["num_rows"] for shard in described["shards"])
        # Two epochs of global batches of 32.
        assert json.loads(state.read_text())["max_steps"] == 2 * -(-num_windows // 32)
    for name in ("whole", "killed"):
        arguments = [sys.executable, script, *options(family, inputs, shop / "log", tmp_path / name)]
        if name == "killed":
            kill_in_training(arguments, tmp_path / name, seconds=1200)
        run(arguments, seconds=1200)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "killed")


@pytest.mark.slow
def test_what_was_held_out_is_learned_from_partitions_as_from_a_whole_log(inputs, shop, tmp_path):
    viewed = ("--refit", "validation", "--view_weights", "validation", "--baselines", "query_log", "item_knn")
    run_script("train_intsr.py", *options("intsr", inputs, shop / "log", tmp_path / "parts", *viewed))
    more = (*viewed, "--items", str(shop / "raw/items.parquet"))
    run_script("train_intsr.py", *options("intsr", inputs, shop / "raw/events", tmp_path / "whole", *more))
    refits = [json.loads((tmp_path / name / "model" / "run.json").read_text())["refit"] for name in ("parts", "whole")]
    assert refits[0]["num_events"] == refits[1]["num_events"] > refits[0]["num_events_before"]
    found, expected = metrics(tmp_path / "parts"), metrics(tmp_path / "whole")
    counted = [key for key in found if key[0] in ("popularity", "query log")]
    assert counted and all(found[key] == expected[key] for key in counted)
    counts = [load_file(tmp_path / name / "model/views/item_knn.safetensors")["items"] for name in ("parts", "whole")]
    assert len(counts[0]) == len(counts[1])
