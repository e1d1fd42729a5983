# SPDX-License-Identifier: Apache-2.0
"""The IntSR recipe from a raw log to answers, tiny, as a user starts it."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import tiny_runs
from safetensors.numpy import load_file
from tiny_runs import kill_in_training, metrics, run, run_script
from tiny_writer import write_writer


def command(inputs, output_dir, *options, launcher=()):
    return tiny_runs.command("intsr", inputs, output_dir, *options, launcher=launcher)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("run")
    return output_dir, run(command(inputs, output_dir))


def test_the_run_prints_a_table_and_leaves_a_complete_model(finished):
    output_dir, done = finished
    for system in ("popularity", "BM25", "dense text", "SASRec", "BM25 x SASRec", "IntSR"):
        assert system in done.stdout
    assert {(behavior, protocol) for name, behavior, protocol in metrics(output_dir) if name == "IntSR"} == {
        (behavior, protocol)
        for behavior in ("recommendation", "search")
        for protocol in ("full", "uniform-20", "full, held-out items")
    }
    files = {path.name for path in (output_dir / "model").iterdir()}
    needed = {"run.json", "config.json", "model.safetensors", "processor_config.json", "query_vectors.safetensors"}
    assert needed | {"catalog", "results.json"} <= files
    assert not list((output_dir / "model").rglob("*.bin"))


def test_the_model_is_shown_and_published_like_any_other(inputs, finished):
    model = finished[0] / "model"
    # A new query is embedded by an encoder that the caller names; the model's word is not enough.
    text = run_script("demo.py", "--model", model, "--query", "garden tools", "--text_encoder", inputs[1])
    assert "Recommended:" in text and "Found for 'garden tools':" in text
    options = ("--repo_id", "me/intsr", "--system", "IntSR", "--dry_run", "true")
    card = run_script("push_to_hub.py", "--model_dir", model, *options)
    assert "# me/intsr" in card and "projection of its text, so a new item" in card and "synthetic queries" in card
    assert "query_vectors.safetensors" in card and "catalog/embeddings.safetensors" in card


@pytest.mark.slow
def test_all_kinds_of_the_query_pool_are_trained_on(inputs, finished, tmp_path):
    """What a model wrote is a stage, and its vectors are kept with those of the other queries."""
    output_dir, _ = finished
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "stages").symlink_to(output_dir / "stages")
    written = f"doc2query={write_writer(tmp_path / 't5')}"
    kinds = ("logged", "information", "description", "keywords", "expressions", written)
    options = ("--query_pool", *kinds, "--extra_requests", "pool_in_place=0.5", "--num_train_epochs", "1")
    run(command(inputs, tmp_path / "pool", *options))
    stage = next((tmp_path / "pool" / "stages").glob("doc2query-*"))
    queries = pq.read_table(stage / "written.parquet")["queries"].to_pylist()
    # Two of the 36 items are held out.
    assert len(queries) == 34 and sum(map(len, queries)) > 34
    num_kept = [
        len(load_file(folder / "model" / "query_vectors.safetensors")["digests"])
        for folder in (output_dir, tmp_path / "pool")
    ]
    assert num_kept[1] > num_kept[0] + len({text for of_item in queries for text in of_item})
    with pytest.raises(AssertionError, match="The query pool has the kind 'titles'; choose among logged"):
        run(command(inputs, tmp_path / "pool", "--query_pool", "titles"))


@pytest.mark.slow
def test_plain_hstu_is_a_setting(inputs, finished, tmp_path):
    """Stages of the finished run are taken over: only training differs."""
    output_dir, _ = finished
    (tmp_path / "hstu").mkdir()
    (tmp_path / "hstu" / "stages").symlink_to(output_dir / "stages")
    options = ("--without", "placeholders", "dsfnet", "--num_dsf_layers", "0")
    options += ("--ranking_weight", "0", "--negatives", "full", "--num_train_epochs", "1")
    run(command(inputs, tmp_path / "hstu", *options))
    assert {key for key in metrics(tmp_path / "hstu") if key[0] == "HSTU"} == {
        ("HSTU", "recommendation", "full"),
        ("HSTU", "recommendation", "uniform-20"),
        ("HSTU", "recommendation", "full, held-out items"),
    }


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(inputs, finished, tmp_path):
    kill_in_training(command(inputs, tmp_path), tmp_path)
    run(command(inputs, tmp_path))
    assert metrics(tmp_path) == metrics(finished[0])


@pytest.mark.slow
def test_two_processes_lose_what_one_does(inputs, tmp_path):
    """The same global batches, no dropout: the losses of all steps agree.

    60 windows are three whole batches of 20 an epoch: a rest would be filled up with windows of the start by two
    processes.
    """
    still = ("--dropout", "0", "--stop_after", "training", "--logging_steps", "1")
    run(command(inputs, tmp_path / "one", *still, "--per_device_train_batch_size", "20"))
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    options = (*still, "--per_device_train_batch_size", "10", "--ddp_backend", "gloo")
    run(command(inputs, tmp_path / "two", *options, launcher=launcher))
    losses = []
    for name in ("one", "two"):
        last = max((tmp_path / name / "trainer").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        history = json.loads((last / "trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
