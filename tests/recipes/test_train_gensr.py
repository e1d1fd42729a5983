"""The GenSR recipe from a raw log to answers, tiny, as a user starts it."""

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_data import write_encoder, write_log
from tiny_runs import ROOT, command, environment, metrics, run

from seekrec.errors import ConfigurationError
from seekrec.evaluation import ResultRow, write_results
from seekrec.evaluation.metrics import all_metric_values, bootstrap_intervals


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return write_log(folder / "log"), write_encoder(folder)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A run to the end."""
    output_dir = tmp_path_factory.mktemp("run")
    return output_dir, run(command("gensr", inputs, output_dir))


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


def test_the_demo_and_the_card_are_made_of_the_saved_model(finished, monkeypatch):
    """In this process: the imports of two more would take longer than all they do."""
    output_dir, _ = finished
    printed = io.StringIO()
    model = str(output_dir / "model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with contextlib.redirect_stdout(printed):
        monkeypatch.setattr(sys, "argv", ["demo.py", "--model", model, "--query", "garden tools"])
        runpy.run_path(str(ROOT / "recipes" / "demo.py"), run_name="__main__")
        options = ["--model_dir", model, "--repo_id", "me/tiny", "--system", "GenSR", "--dry_run", "true"]
        monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *options])
        runpy.run_path(str(ROOT / "recipes" / "push_to_hub.py"), run_name="__main__")
    text = printed.getvalue()
    assert "Recommended:" in text and "Found for 'garden tools':" in text
    assert text.count(" number ") >= 10  # titles of the history, five recommended, five found
    assert "The method is GenSR" in text and "## Identifiers" in text
    assert "of a history the latest\n  5 events are read" in text
    assert "model.safetensors" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--identifiers", "atomic", "--history_in_prompt", "both", "--shared_prompt", "true", "--bf16", "true"),
        ("--yes_no_weight", "0", "--contrast_weight", "0", "--selection_protocols", "full"),
        ("--identifier_weight", "0", "--selection_protocols", "uniform", "--wording", "sentence"),
        ("--tasks", "search", "--collaborative_source", "sasrec", "--train_collaborative_table", "true"),
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
    again = run(command("gensr", inputs, output_dir))
    for stage in ("split", "semantic", "sasrec", "lightgcn", "identifiers"):
        assert f"{stage}: found in" in again.stderr
    assert metrics(output_dir) == before


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(inputs, finished, tmp_path):
    """Killed without warning once training has written a checkpoint."""
    process = subprocess.Popen(
        command("gensr", inputs, tmp_path, launcher=()),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not list((tmp_path / "trainer").glob("checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model").exists()
    run(command("gensr", inputs, tmp_path, launcher=()))
    assert metrics(tmp_path) == metrics(finished[0])


class TestAblations:
    @pytest.fixture
    def recipe(self):
        return runpy.run_path(str(ROOT / "recipes" / "gensr" / "ablations.py"))

    def arguments(self, recipe, folder, **changes):
        settings = {"config": str(ROOT / "recipes/gensr/tiny.yaml"), "output_dir": str(folder), "which": ["beta"]}
        return recipe["AblationArguments"](**(settings | changes))

    def test_variants_change_one_setting(self, recipe):
        variants = recipe["choose_variants"](["parts", "tau"])
        assert next(iter(variants)) == "full" and variants["full"] == []
        assert variants["without soft filter"] == ["--soft_filter", "false"]
        assert variants["tau = 0.09"] == ["--contrast_temperature", "0.09"]
        with pytest.raises(ConfigurationError, match="`which` has 'gamma'; use some of parts, beta, tau, joint"):
            recipe["choose_variants"](["gamma"])

    def test_comparisons_are_paired_and_drawn(self, recipe, tmp_path, monkeypatch, capsys):
        """Runs are replaced by results: the full model ranks every target second, beta = 0.3 ranks it first."""

        real_run = subprocess.run

        def fake_run(command, **options):
            if str(recipe["SCRIPT"]) not in command:
                return real_run(command, **options)  # matplotlib looks for fonts
            folder = command[command.index("--output_dir") + 1]
            last = len(command) - 1 - command[::-1].index("--contrast_weight") if "--contrast_weight" in command else 0
            ranks = np.full(20, 1.0 if command[last + 1] == "0.3" else 2.0)
            rows = [make_row(behavior, ranks) for behavior in ("recommendation", "search")]
            write_results(f"{folder}/model/results.json", rows, save_ranks=True)
            return SimpleNamespace(returncode=0)

        monkeypatch.setattr(subprocess, "run", fake_run)
        recipe["main"](self.arguments(recipe, tmp_path), [])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == 5 * 2
        best = next(line for line in lines if line["variant"] == "beta = 0.3")
        # 1 / log2(2) against 1 / log2(3), in every case.
        gain = 1 - 1 / np.log2(3)
        assert best["difference"] == pytest.approx(gain, abs=1e-4)
        assert best["interval"] == pytest.approx([gain, gain], abs=1e-4)
        assert all(line["difference"] == 0 for line in lines if line["variant"] != "beta = 0.3")
        assert (tmp_path / "ablations.png").stat().st_size > 10_000

    def test_a_failed_variant_is_named(self, recipe, tmp_path, monkeypatch):
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
        with pytest.raises(ConfigurationError, match="The variant 'full' failed; .*log.txt says why"):
            recipe["main"](self.arguments(recipe, tmp_path), [])

    @pytest.mark.slow
    def test_variants_are_trained(self, recipe, inputs, tmp_path, capsys):
        log, encoder = inputs
        options = ["--semantic_encoder", str(encoder), "--use_cpu", "true"]
        changes = {"data_dir": str(log), "which": ["parts", "joint"], "num_train_epochs": 1, "protocols": ["uniform"]}
        recipe["main"](self.arguments(recipe, tmp_path, **changes), options)
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == 4 * 2 + 2  # single tasks have one behavior each


def make_row(behavior, ranks):
    values = all_metric_values(ranks, (10,))
    return ResultRow(
        system="GenSR",
        dataset="made up",
        behavior=behavior,
        part="test",
        protocol="uniform-99",
        split_method="leave_one_out",
        split_protocol="strict",
        split_fingerprint="0" * 64,
        cases_fingerprint="1" * 16,
        query_source="category",
        seen_removed=True,
        num_cases=len(ranks),
        num_items=100,
        seed=0,
        seconds=1.0,
        metrics={name: float(column.mean()) for name, column in values.items()},
        intervals=bootstrap_intervals(values, seed=0),
        details={},
        ranks=ranks,
    )
