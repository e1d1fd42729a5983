# SPDX-License-Identifier: Apache-2.0
"""What a run leaves is of its own settings and data, whatever stood in its folder before."""

import hashlib
import json
import shutil

import pytest
from tiny_data import write_encoder, write_log
from tiny_runs import command, metrics, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return write_log(folder / "log"), write_encoder(folder)


def start(family, inputs, folder, *options):
    return run(command(family, inputs, folder, "--baselines", "none", *options, launcher=()))


def weights(folder):
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    start("intsr", inputs, folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run at another place."""
    return shutil.copytree(finished, tmp_path / "copy")


def shortened(log, folder):
    """Cut the last two events of every user: what was trained on becomes the answers of the test."""
    folder.mkdir()
    sequences = json.loads((log / "Tiny.inter.json").read_text())
    (folder / "Tiny.item.json").write_bytes((log / "Tiny.item.json").read_bytes())
    (folder / "Tiny.inter.json").write_text(json.dumps({user: items[:4] for user, items in sequences.items()}))
    return folder


@pytest.mark.parametrize("is_other_log", [False, True])
def test_another_run_in_the_folder_is_as_in_a_fresh_one(inputs, finished, copy, tmp_path, is_other_log):
    log, encoder = inputs
    log = shortened(log, tmp_path / "short") if is_other_log else log
    options = () if is_other_log else ("--learning_rate", "3e-2")
    for folder in (copy, tmp_path / "fresh"):
        start("intsr", (log, encoder), folder, *options)
    assert weights(copy) == weights(tmp_path / "fresh") != weights(finished)
    assert metrics(copy) == metrics(tmp_path / "fresh")
    again = start("intsr", inputs, copy)
    assert "Found an earlier training" in again.stderr
    assert (weights(copy), metrics(copy)) == (weights(finished), metrics(finished))


def test_results_do_not_stay_beside_other_weights(inputs, finished, copy):
    start("intsr", inputs, copy, "--seed", "9", "--stop_after", "training")
    assert weights(copy) != weights(finished)
    assert not {"results.json", "results.ranks.parquet", "run.json"} & {
        path.name for path in (copy / "model").iterdir()
    }


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors", "trainer_state.json"])
def test_an_older_checkpoint_is_taken_where_the_newest_is_cut(inputs, finished, copy, name):
    newest = max((copy / "trainer").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (newest / name).write_bytes((newest / name).read_bytes()[:100])
    again = start("intsr", inputs, copy, "--stop_after", "training")
    assert f"{newest} is damaged: {name}" in again.stderr
    assert weights(copy) == weights(finished)


def test_families_share_stages_and_embeddings_are_no_identifiers(inputs, tmp_path):
    shared = ("--stages_dir", str(tmp_path / "stages"))
    start("gensar", inputs, tmp_path / "a", *shared, "--stop_after=embeddings")
    made = {path.name.partition("-")[0] for path in (tmp_path / "stages").iterdir()}
    assert made == {"split", "semantic", "sasrec"}
    again = start("synergen", inputs, tmp_path / "b", *shared, "--stop_after=corpus", "--sasrec_hidden_size=16")
    for name in ("split", "semantic"):
        assert f"{name}: found in {tmp_path / 'stages'}" in again.stderr


def test_an_encoder_that_was_changed_in_place_is_another(inputs, tmp_path):
    encoder = write_encoder(tmp_path)
    start("intsr", (inputs[0], encoder), tmp_path / "a", "--stop_after=embeddings")
    path = encoder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = start("intsr", (inputs[0], encoder), tmp_path / "a", "--stop_after=embeddings")
    assert "semantic ..." in again.stderr and "split: found in" in again.stderr
