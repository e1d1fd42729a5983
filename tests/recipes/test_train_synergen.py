# SPDX-License-Identifier: Apache-2.0
"""The SynerGen recipe from a raw log to answers, tiny, as a user starts it."""

from __future__ import annotations

import json
import sys

import pytest
import tiny_runs
from tiny_runs import ROOT, kill_in_training, metrics, run

from seekrec.evaluation import read_results
from seekrec.hub import describe_model, render_model_card


def command(inputs, output_dir, *options, launcher=()):
    return tiny_runs.command("synergen", inputs, output_dir, *options, launcher=launcher)


def history(output_dir):
    """What the Trainer logged, by its last checkpoint."""
    last = max((output_dir / "trainer").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return json.loads((last / "trainer_state.json").read_text())["log_history"]


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("run")
    return output_dir, run(command(inputs, output_dir))


def test_the_run_prints_a_table_and_leaves_a_complete_model(finished):
    output_dir, done = finished
    for system in ("popularity", "BM25", "dense text", "SASRec", "BM25 x SASRec", "SynerGen"):
        assert system in done.stdout
    for behavior in ("recommendation", "search"):
        assert f"{behavior}: expected calibration error of click probabilities 0." in done.stdout
    assert done.stdout.count(" users; right ones would show 0.") == 2
    assert {(behavior, protocol) for name, behavior, protocol in metrics(output_dir) if name == "SynerGen"} == {
        (behavior, protocol)
        for behavior in ("recommendation", "search")
        for protocol in ("full", "uniform-20", "full, held-out items")
    }
    files = {path.name for path in (output_dir / "model").iterdir()}
    needed = {"run.json", "config.json", "model.safetensors", "processor_config.json", "query_vectors.safetensors"}
    assert needed | {"catalog", "results.json"} <= files
    assert not list((output_dir / "model").rglob("*.bin"))


def test_the_card_says_what_the_model_is(finished):
    folder = finished[0] / "model"
    run = describe_model(folder, repo_id="me/synergen", system="SynerGen", license="apache-2.0")
    card = render_model_card(ROOT / "hub_cards/synergen.md", read_results(folder / "results.json"), run)
    assert "# me/synergen" in card and "an embedding of its id plus a projection of its text" in card
    chosen = json.loads((folder / "config.json").read_text())["rank_by"]
    assert f"`rank` orders by the {chosen} head; NDCG@10 of validation candidates: ranking 0." in finished[1].stderr
    assert "synthetic queries" in card
    says = {"ranking": "the probability of a click", "retrieval": "the score that `retrieve` gives"}[chosen]
    assert f"orders given items by {says}" in card


@pytest.mark.slow
def test_the_demo_answers_the_model_is_published_and_the_ablations_are_settings(inputs, finished, tmp_path):
    """Stages of the finished run are taken over: only training differs."""
    output_dir, _ = finished
    asked = ["--query", "garden tools", "--text_encoder", str(inputs[1])]
    demo = run([sys.executable, "recipes/demo.py", "--model", str(output_dir / "model"), *asked])
    assert "Recommended:" in demo.stdout and "Found for 'garden tools':" in demo.stdout
    push = ["--model_dir", str(output_dir / "model"), "--repo_id", "me/synergen", "--system", "SynerGen"]
    published = run([sys.executable, "recipes/push_to_hub.py", *push, "--dry_run", "true"]).stdout
    assert "query_vectors.safetensors" in published and "catalog/embeddings.safetensors" in published
    (tmp_path / "stages").symlink_to(output_dir / "stages")
    options = (
        "--item_reading",
        "text",
        "--start_from_sasrec",
        "false",
        "--time_encoding",
        "order",
        "--ranking_weight",
        "0",
        "--use_target_time",
        "false",
    )
    options += ("--negatives", "full", "--easy_weight", "1", "--num_train_epochs", "1")
    done = run(command(inputs, tmp_path, *options))
    assert "SynerGen" in done.stdout and "calibration" not in done.stdout


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(inputs, finished, tmp_path):
    kill_in_training(command(inputs, tmp_path), tmp_path)
    run(command(inputs, tmp_path))
    assert metrics(tmp_path) == metrics(finished[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "negatives",
    [
        ("--negatives", "full"),
        ("--negatives", "popularity"),
    ],
    ids=["full", "in_batch"],
)
def test_two_processes_lose_what_one_does(inputs, tmp_path, negatives):
    """The same global batches, no dropout: the losses agree, be the negatives all items or the targets of the batch.

    60 windows are three whole batches of 20 an epoch: a rest would be filled up with windows of the start by two
    processes.
    """
    still = ("--dropout", "0", "--stop_after", "training", "--logging_steps", "1")
    still += negatives
    run(command(inputs, tmp_path / "one", *still, "--per_device_train_batch_size", "20"))
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    options = (*still, "--per_device_train_batch_size", "10", "--ddp_backend", "gloo")
    run(command(inputs, tmp_path / "two", *options, launcher=launcher))
    one, two = ([entry["loss"] for entry in history(tmp_path / name) if "loss" in entry] for name in ("one", "two"))
    assert len(one) == len(two) == 6
    assert one == pytest.approx(two, rel=1e-4)
