# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
import torch
from tiny_runs import run_script

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"
SCRIPT = "benchmarks/compiled_training.py"
OPTIONS = ("--families", "intsr", "--num_items", "30", "--batch_size", "2", "--length", "4", "--repeats", "2")


# Of tensors that keep their gradient elsewhere; dynamo hides the warning, unless it is an error.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_steps_are_those_that_were_not_compiled(monkeypatch):
    """A graph is traced and run as it is: to write code for it takes minutes."""
    monkeypatch.syspath_prepend(str(FOLDER))
    compile_model, losses = torch.compile, []

    def noted(model):
        compiled = compile_model(model, backend="eager")
        own = []
        losses.append(own)

        def run(**batch):
            output = compiled(**batch)
            own.append((float(output.loss.detach()), float(model(**batch).loss.detach())))
            return output

        return run

    monkeypatch.setattr(torch, "compile", noted)
    lines = [json.loads(line) for line in run_script(SCRIPT, *OPTIONS).splitlines()]
    assert [line["family"] for line in lines] == ["intsr"]
    times = {"plain_seconds", "compiled_seconds", "speedup", "compile_seconds", "steps_to_pay"}
    assert all(line.keys() == {"family", *times} for line in lines)
    # Two steps that compile, one that warms up, two that count; the same loss with and without, as nothing is dropped.
    (own,) = losses
    assert len(own) == 2 + 1 + 2
    assert [one for one, _ in own] == pytest.approx([other for _, other in own], rel=1e-5)
