"""The GenSR recipe from a raw log to answers, tiny, as a user starts it."""

import pytest
from tiny_runs import command, kill_in_training, metrics, run, run_script


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A run to the end."""
    output_dir = tmp_path_factory.mktemp("run")
    return output_dir, run(command("gensr", inputs, output_dir, launcher=()))


def test_the_run_prints_a_table_and_leaves_a_complete_model(finished):
    output_dir, done = finished
    measured = metrics(output_dir)
    for system in ("popularity", "BM25", "dense text", "SASRec", "LightGCN", "BM25 x SASRec", "GenSR"):
        assert system in done.stdout
        for protocol in ("full", "uniform-20"):
            assert (system, "search", protocol) in measured
    assert ("GenSR", "recommendation", "uniform-20") in measured
    files = {path.name for path in (output_dir / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json", "catalog"} <= files
    assert {"run.json", "results.json", "identifiers.json"} <= files
    assert not list((output_dir / "model").rglob("*.bin"))


def test_the_demo_and_the_card_are_made_of_the_saved_model(finished):
    model = finished[0] / "model"
    text = run_script("demo.py", "--model", model, "--query", "garden tools")
    assert "Recommended:" in text and "Found for 'garden tools':" in text
    assert text.count(" number ") >= 10  # titles of the history, five recommended, five found
    text = run_script(
        "push_to_hub.py", "--model_dir", model, "--repo_id", "me/tiny", "--system", "GenSR", "--dry_run", "true"
    )
    assert "The method is GenSR" in text and "## Identifiers" in text
    assert "of a history, the latest\n  5 events are read" in text
    assert "model.safetensors" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--identifier_learner", "atomic", "--history_in_prompt", "both", "--shared_prompt", "true", "--bf16", "true"),
        ("--yes_no_loss", "none", "--contrast_weight", "0"),
        ("--identifier_weight", "0"),
        ("--task_weights", "search=1", "--collaborative_source", "sasrec"),
        (
            *("--collaborative_source", "sasrec", "--filtered_history", "recommender"),
            *("--num_unseen_events", "1"),
        ),
    ],
)
def test_other_settings_run_too(inputs, tmp_path, options):
    run(command("gensr", inputs, tmp_path, *options, launcher=()))
    assert ("GenSR", "search", "uniform-20") in metrics(tmp_path)


@pytest.mark.slow
def test_a_saved_model_stands_in_the_table(finished, inputs, tmp_path):
    output_dir, _ = finished
    run(command("gensar", inputs, tmp_path / "gensar", launcher=()))
    folders = (tmp_path / "gensar", output_dir)
    options = ("--compare_with", *(str(folder / "model") for folder in folders), "--num_train_epochs", "1")
    run(command("gensr", inputs, tmp_path / "gensr", *options, launcher=()))
    for name in ("GenSAR (gensar)", f"GenSR ({output_dir.name})"):
        assert (name, "search", "full") in metrics(tmp_path / "gensr")


@pytest.mark.slow
def test_a_finished_run_is_not_repeated(finished, inputs):
    output_dir, _ = finished
    before = metrics(output_dir)
    again = run(command("gensr", inputs, output_dir, launcher=()))
    for stage in ("split", "semantic", "sasrec", "lightgcn", "identifiers"):
        assert f"{stage}: found in" in again.stderr
    assert metrics(output_dir) == before


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(inputs, finished, tmp_path):
    kill_in_training(command("gensr", inputs, tmp_path, launcher=()), tmp_path)
    run(command("gensr", inputs, tmp_path, launcher=()))
    assert metrics(tmp_path) == metrics(finished[0])
