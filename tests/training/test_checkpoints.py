# SPDX-License-Identifier: Apache-2.0
"""Of checkpoints that were cut the newest whole one before them is taken, wherever the folder is now."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from seekrec.training.checkpoints import find_checkpoint, list_checkpoints

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json")


def write(folder, step, best=None):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"weight": np.arange(100.0)}, checkpoint / "model.safetensors")
    for name in FILES[1:4]:
        torch.save({"state": torch.arange(100.0)}, checkpoint / name)
    (checkpoint / "config.json").write_text("{}")
    state = {"global_step": step, "best_model_checkpoint": best and str(folder / f"checkpoint-{best}")}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return checkpoint


def test_the_newest_is_taken_by_number(tmp_path):
    assert find_checkpoint(tmp_path / "nowhere") is None
    write(tmp_path, 90)
    newest = write(tmp_path, 100)
    (tmp_path / "checkpoint-best").mkdir()
    assert find_checkpoint(tmp_path) == str(newest)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-90", "checkpoint-100"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_file_is_found(tmp_path, caplog, name, share):
    older = write(tmp_path, 4)
    path = write(tmp_path, 8) / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert find_checkpoint(tmp_path) == str(older)
    assert f"checkpoint-8 is damaged: {name}" in caplog.text
    assert not path.parent.exists()


@pytest.mark.parametrize("name", FILES[:5])
def test_a_missing_file_is_found(tmp_path, name):
    older = write(tmp_path, 4)
    (write(tmp_path, 8) / name).unlink()
    assert find_checkpoint(tmp_path) == str(older)


def test_no_optimizer_is_expected_where_only_the_model_is_saved(tmp_path):
    path = write(tmp_path, 8)
    for name in FILES[1:4]:
        (path / name).unlink()
    assert find_checkpoint(tmp_path, only_model=True) == str(path)
    assert find_checkpoint(tmp_path) is None


def test_the_best_weights_must_be_there_too(tmp_path):
    older = write(tmp_path, 4, best=4)
    write(tmp_path, 8, best=6)  # kept none of 6
    assert find_checkpoint(tmp_path) == str(older)


def test_a_folder_may_have_been_moved(tmp_path):
    write(tmp_path / "there", 4, best=4)
    write(tmp_path / "there", 8, best=4)
    shutil.move(tmp_path / "there", tmp_path / "here")
    newest = find_checkpoint(tmp_path / "here")
    assert newest == str(tmp_path / "here" / "checkpoint-8")
    state = json.loads((tmp_path / "here" / "checkpoint-8" / "trainer_state.json").read_text())
    assert state == {"global_step": 8, "best_model_checkpoint": str(tmp_path / "here" / "checkpoint-4")}
