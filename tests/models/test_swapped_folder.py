# SPDX-License-Identifier: Apache-2.0
"""A folder that another process saves anew gives one of its checkpoints, whole."""

import pytest
from swapped_folder import MAKERS, pairs, state_of, swap
from transformers import AutoModel

from seekrec.errors import CheckpointError
from seekrec.models import base_saved
from seekrec.models.manifest import save_checkpoint


@pytest.mark.parametrize("family", MAKERS)
def test_what_is_saved_while_it_is_loaded_is_loaded_whole(family, tmp_path, monkeypatch):
    old, new = pairs(family)
    save_checkpoint(*old, tmp_path / "model")
    read_catalog, saves = base_saved.load_bundled_catalog, []

    def meanwhile(*arguments):
        # The weights are read, the catalogue is not: another process saves.
        if not saves:
            saves.append(save_checkpoint(*new, tmp_path / "model"))
        return read_catalog(*arguments)

    monkeypatch.setattr(base_saved, "load_bundled_catalog", meanwhile)
    assert state_of(AutoModel.from_pretrained(tmp_path / "model")) == state_of(new[0]) != state_of(old[0])
    assert len(saves) == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", MAKERS)
def test_processes_load_a_folder_that_another_saves(family):
    counts = swap(family, seconds=10.0, num_readers=2)
    assert counts["saves"] > 1 and counts["loads"] > 1
    assert (counts["wrong"], counts["first_error"]) == (0, None)


def test_a_folder_that_is_damaged_is_not_read_again(tmp_path, monkeypatch):
    save_checkpoint(*pairs("intsr")[0], tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    calls, check = [], base_saved.check_part
    monkeypatch.setattr(base_saved, "check_part", lambda *words: calls.append(words) or check(*words))
    with pytest.raises(CheckpointError, match="model.safetensors is not the file that was saved"):
        AutoModel.from_pretrained(tmp_path / "model")
    assert len(calls) == 1
