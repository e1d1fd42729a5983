# SPDX-License-Identifier: Apache-2.0
import json
import runpy
from pathlib import Path

import pytest
import torch

from seekrec import Catalog
from seekrec.recipes.windows import WindowArguments, make_windows

RECIPE = Path(__file__).parents[2] / "recipes" / "benchmarks" / "training_throughput.py"
SIZES = {"num_items": 30, "batch_size": 2, "hidden_size": 16, "repeats": 1}


@pytest.fixture(scope="module")
def recipe():
    return runpy.run_path(str(RECIPE))


def test_benchmark_compares_both_ways(recipe, capsys):
    recipe["main"](recipe["Arguments"](lengths=[3, 6], room=1.0, **SIZES))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    measured, growth = lines[:4], lines[4:]
    assert [(line["family"], line["length"]) for line in measured] == [
        ("intsr", 3),
        ("synergen", 3),
        ("intsr", 6),
        ("synergen", 6),
    ]
    for line in measured:
        assert line["num_windows"] == 2
        # Every event is asked for, a searched one twice.
        assert 2 * line["length"] <= line["prefix_rows"] <= 4 * line["length"]
        # Rows that are shorter than a window, so more of them have room; not all, for there are several for an event.
        assert 2 <= line["prefix_peak_rows"] < line["prefix_rows"]
        assert line["micro_batches"] >= 2
        assert line["largest_difference"] < 1e-4
        assert min(line[name] for name in ("windows_events_per_second", "prefixes_events_per_second", "ratio")) > 0
    assert [line["family"] for line in growth] == ["intsr", "synergen"]
    assert all(line.keys() == {"family", "windows_exponent", "prefixes_exponent"} for line in growth)


@pytest.mark.parametrize("family", ["intsr", "synergen"])
def test_both_ways_have_the_same_losses_and_gradients(recipe, family):
    arguments = recipe["Arguments"](**SIZES)
    split = recipe["make_split"](arguments, 6)
    catalog = Catalog.build(split.log.items, embeddings={"semantic": recipe["make_vectors"](30, 0)})
    config = recipe["make_config"](family, arguments, 6)
    batch = recipe["make_batch"](make_windows(split, catalog, config, WindowArguments()), catalog, 0)
    prefixes = recipe["make_prefixes"](batch, 1.0)
    # A row holds the events before the one it asks for and no other, and one question.
    assert all(part["labels"].shape[1] == 1 for part in prefixes)
    assert all(torch.equal(part["history_mask"].sum(1), part["question_events"][:, 0]) for part in prefixes)
    labels = torch.cat([part["labels"][:, 0] for part in prefixes])
    assert sorted(labels.tolist()) == sorted(batch["labels"][batch["labels"] >= 0].tolist())

    model = recipe["make_family"](config, split, catalog, arguments)
    with torch.no_grad():
        # Far from the start values, so that the history counts.
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    before = [weight.detach().clone() for weight in model.parameters()]
    results, gradients = [], []
    for batches in ([batch], prefixes):
        results.append(recipe["run_step"](model, optimizer, batches, len(labels)))
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))
    # IntSR's recipe does not rank; SynerGen's does.
    parts = {"intsr": {"retrieval_loss"}, "synergen": {"easy_loss", "hard_loss", "pointwise_loss", "pairwise_loss"}}
    assert results[0].keys() == results[1].keys() == {"loss"} | parts[family]
    assert results[1] == pytest.approx(results[0], rel=1e-4)
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6, name
    # It would be noticed: without the oldest event of each history the losses are others.
    for part in prefixes:
        part["history_mask"][:, 0] = False
    other = recipe["run_step"](model, optimizer, prefixes, len(labels))
    assert other["loss"] != pytest.approx(results[0]["loss"], rel=1e-3)


def test_unknown_family_is_refused(recipe):
    with pytest.raises(SystemExit, match="--families has 'hstu'; choose among intsr and synergen"):
        recipe["main"](recipe["Arguments"](families=["hstu"], lengths=[3], **SIZES))
