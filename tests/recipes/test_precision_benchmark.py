# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import torch
from tiny_runs import run_script
from transformers import T5ForConditionalGeneration

from seekrec.util.precision import cpu_has_bf16

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"


def test_both_precisions_are_timed(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    is_half, losses, forward = [], [], T5ForConditionalGeneration.forward

    def noted(*args, **inputs):
        output = forward(*args, **inputs)
        is_half.append(torch.is_autocast_enabled("cpu"))
        losses.append(float(output.loss.detach()))
        return output

    monkeypatch.setattr(T5ForConditionalGeneration, "forward", noted)
    options = ("--width", "16", "--batch_size", "2", "--length", "8", "--repeats", "1")
    line = json.loads(run_script("benchmarks/precision.py", *options))
    assert set(line) == {"has_bf16", "float32_seconds", "bf16_seconds", "speedup"}
    assert line["has_bf16"] == cpu_has_bf16()
    # A step of each that warms up, and one of each that counts.
    assert is_half == [False, True] * 2
    # Dropout draws anew in each step: losses are alike, not equal.
    assert max(losses) < 1.2 * min(losses)
