# SPDX-License-Identifier: Apache-2.0
"""Two processes that share a batch compare a target with the targets of both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dense_questions import collate
from safetensors.torch import load_file, save_file
from small_shop import make_synergen
from two_processes import SETTINGS

from seekrec.models.synergen.modeling_synergen import gather_columns
from seekrec.training.event_windows import make_negatives


def test_a_process_alone_has_its_own():
    labels = torch.tensor([4, 5])
    columns, first = gather_columns(labels, labels / 2)
    assert columns[0] is labels and len(columns) == 2 and first == 0


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradients_of_one(windows, tmp_path):
    _, catalog, table = windows
    model, processor = make_synergen(**SETTINGS)
    negatives = make_negatives(table, catalog, "popularity", 3)

    def batch_of(numbers):
        return collate(windows, processor, numbers, negatives=negatives)

    # Three windows and two: the processes have different numbers of questions.
    parts = [batch_of(numbers) for numbers in ([0, 3, 7], [11, 12])]
    whole = batch_of([0, 3, 7, 11, 12])
    count = (whole["labels"] >= 0).sum()
    assert len({int((part["labels"] >= 0).sum()) for part in parts}) == 2
    for rank, part in enumerate(parts):
        save_file({**part, "num_questions": count}, tmp_path / f"part{rank}.safetensors")
    script = Path(__file__).with_name("two_processes.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, script, tmp_path, str(rank)], env=environment, stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=200)[1].decode()[-3000:] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    model.train()
    loss = model(**whole, num_items_in_batch=count).loss
    loss.backward()
    found = [load_file(tmp_path / f"found{rank}.safetensors") for rank in (0, 1)]
    torch.testing.assert_close(found[0]["loss"] + found[1]["loss"], loss.detach())
    for name, weight in model.named_parameters():
        # Processes take the mean of their gradients; Trainer multiplies losses by the number of processes.
        for one in found:
            torch.testing.assert_close(2 * one[name], weight.grad, atol=1e-6, rtol=1e-4)
