# SPDX-License-Identifier: Apache-2.0
"""The benchmark of sizes: a step of each model, and the table of here and before."""

import json
import runpy
from pathlib import Path

import pytest

from seekrec.models import IntSRConfig
from seekrec.models.dense import configuration_dense
from seekrec.training import row_adamw

BENCHMARKS = Path(__file__).parents[2] / "recipes" / "benchmarks"


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("family", ["sasrec", "intsr", "synergen"])
def test_a_step_of_each_model_is_measured(family, is_large, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    if is_large:
        for module in (row_adamw, configuration_dense):
            monkeypatch.setattr(module, "LARGE_CATALOG", 20)
        monkeypatch.setattr("seekrec.embeddings.softmax.LARGE_CATALOG", 20)
        monkeypatch.setattr("seekrec.recipes.choices.MOST_COMPARED_ITEMS", {"intsr": 20, "synergen": 20})
        assert IntSRConfig(num_items=30).negatives == "popularity"
    step = runpy.run_path(str(BENCHMARKS / "training_step.py"))
    made = []
    plain = row_adamw.make_adamw

    def counted(*arguments, **options):
        made.append(plain(*arguments, **options))
        return made[-1]

    for name in ("row_adamw", "event_windows"):
        monkeypatch.setattr(f"seekrec.training.{name}.make_adamw", counted)
    step["main"](family, 30, 2, 6, 1)
    line = json.loads(capsys.readouterr().out)
    assert line["events_per_second"] > 0 and line["step_mib"] >= 0 and 0 < line["loss"] < 50
    # A large catalogue has gradients of rows, whatever the family; a small one the optimizer of before.
    assert [type(optimizer) is row_adamw.RowAdamW for optimizer in made] == [is_large]


def test_here_is_compared_with_before(monkeypatch, capsys):
    script = runpy.run_path(str(BENCHMARKS / "training_sizes.py"))
    asked = []

    def measure(checkout, family, num_items, length, arguments):
        asked.append((checkout.name, family, num_items, length))
        if num_items == 9 and checkout.name == "old":
            return None  # it ran out of memory
        return {"events_per_second": 20.0 if checkout.name == "old" else 50.0, "step_mib": 8}

    monkeypatch.setitem(script["main"].__globals__, "measure", measure)
    script["main"](script["Arguments"](families=["intsr"], lengths=[5], num_items=[7, 9], before="old"))
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["speedup"], first["memory"], first["before"]["events_per_second"]) == (2.5, 1.0, 20.0)
    assert second["before"] is None and "speedup" not in second and second["events_per_second"] == 50.0
    here = BENCHMARKS.parents[1].name
    assert asked == [(name, "intsr", size, 5) for size in (7, 9) for name in ("old", here)]
