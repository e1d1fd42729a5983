"""The recipe from a raw log to answers, tiny, as a user starts it."""

import json
import re
from math import ceil

import pytest
import tiny_runs
from tiny_runs import kill_in_training, metrics, run_script


def command(inputs, output_dir, *options, **launcher):
    return tiny_runs.command("gensar", inputs, output_dir, *options, **launcher)


def run(inputs, output_dir, *options, **launcher):
    return tiny_runs.run(command(inputs, output_dir, *options, **launcher))


def last_state(output_dir):
    """What the trainer says in the last checkpoint of a run."""
    states = [json.loads(path.read_text()) for path in output_dir.glob("trainer/checkpoint-*/trainer_state.json")]
    return max(states, key=lambda state: state["global_step"])


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A run to the end."""
    output_dir = tmp_path_factory.mktemp("run")
    return output_dir, run(inputs, output_dir)


def test_the_run_prints_a_table_and_leaves_a_complete_model(finished):
    output_dir, done = finished
    for system in ("popularity", "BM25", "dense text", "SASRec", "BM25 x SASRec", "GenSAR"):
        assert system in done.stdout
    systems = {name for name, *_ in metrics(output_dir)}
    assert "GenSAR" in systems and "SASRec" in systems
    # Two items were added after training and are asked for, against what knows their text.
    asked = {
        (name, behavior) for name, behavior, protocol in metrics(output_dir) if protocol == "full, held-out items"
    }
    assert ("GenSAR", "search") in asked and {name for name, _ in asked} == {"BM25", "dense text", "GenSAR"}
    assert "full ranking of" in done.stdout and "held-out items" in done.stdout
    files = {path.name for path in (output_dir / "model").iterdir()}
    assert {
        "identifiers.json",
        "run.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "catalog",
    } <= files
    # Nothing pickled in what is published.
    assert not list((output_dir / "model").rglob("*.bin"))


@pytest.mark.slow
def test_the_fast_way_of_training_runs_too(inputs, tmp_path):
    """A user's history once for all targets, and bf16: what the CPU recipes use."""
    options = ("--corpus", "stream", "--bf16", "true")
    options += ("--recommend_searched_items", "true", "--task_weights", "nrip=1", "nsip=1", "item_queries=0.5")
    options += ("desc2id_semantic=0.2", "--num_train_epochs", "1")
    run(inputs, tmp_path, *options, launcher=())
    assert ("GenSAR", "search", "full") in metrics(tmp_path)


def test_a_finished_run_is_not_repeated(finished, inputs):
    output_dir, _ = finished
    before = metrics(output_dir)
    again = run(inputs, output_dir, launcher=())
    for stage in ("split", "semantic", "sasrec", "identifiers"):
        assert f"{stage}: found in" in again.stderr
    assert metrics(output_dir) == before


def test_the_demo_answers_from_the_saved_model(finished):
    output_dir, _ = finished
    text = run_script("demo.py", "--model", output_dir / "model", "--query", "garden tools")
    assert "Recommended:" in text and "Found for 'garden tools':" in text
    assert text.count(" number ") >= 10  # titles of the history, five recommended, five found


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(inputs, finished, tmp_path):
    kill_in_training(command(inputs, tmp_path, launcher=()), tmp_path)
    run(inputs, tmp_path, launcher=())
    assert metrics(tmp_path) == metrics(finished[0])


@pytest.mark.slow
def test_two_processes_train_one_model(inputs, finished, tmp_path):
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    run(inputs, tmp_path, "--ddp_backend", "gloo", "--stop_after", "training", launcher=launcher)
    assert (tmp_path / "model" / "model.safetensors").is_file()
    alone, shared = last_state(finished[0]), last_state(tmp_path)
    assert alone["epoch"] == shared["epoch"] == 2
    # A step reads a batch of each process: half as many, and the last of an epoch may be of one batch alone.
    assert shared["global_step"] == 2 * ceil(alone["global_step"] / 2 / 2)
    # All rows are read by one or the other, so the losses of both trainings are alike, and fall.
    losses = [[line["loss"] for line in state["log_history"] if "loss" in line] for state in (alone, shared)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.05)
    assert all(own[-1] < own[0] for own in losses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codebook_size", "many"], "argument --codebook_size/--codebook-size: invalid int value: 'many'"),
        (["--no_such_option", "1"], "--no_such_option 1 is not a setting"),
    ],
)
def test_a_wrong_option_is_named(inputs, tmp_path, options, message):
    arguments = command(inputs, tmp_path, *options, launcher=())[2:]
    with pytest.raises(SystemExit, match=f"train_gensar: .*{re.escape(message)}"):
        run_script("train_gensar.py", *arguments)
