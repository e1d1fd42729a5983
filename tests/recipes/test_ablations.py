# SPDX-License-Identifier: Apache-2.0
"""Variants of a recipe: which options they have, how they are compared, and that the recipes know the options."""

import json
import runpy
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from tiny_data import write_encoder, write_log
from tiny_runs import ROOT

from seekrec.errors import ConfigurationError
from seekrec.evaluation import ResultRow, write_results
from seekrec.evaluation.metrics import all_metric_values, bootstrap_intervals
from seekrec.recipes import GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe
from seekrec.recipes.variants import choose_variants
from seekrec.util.parsing import parse_arguments

RECIPES = {"gensar": GenSARRecipe, "gensr": GenSRRecipe, "intsr": IntSRRecipe, "synergen": SynerGenRecipe}


@pytest.fixture(scope="module")
def ablations():
    return runpy.run_path(str(ROOT / "recipes" / "ablations.py"))


def arguments(ablations, folder, **changes):
    settings = {
        "recipe": "gensr",
        "config": str(ROOT / "recipes/gensr/tiny.yaml"),
        "output_dir": str(folder),
        "which": ["beta"],
    }
    return ablations["AblationArguments"](**(settings | changes))


def test_a_variant_is_the_full_model_with_other_options(ablations):
    variants = choose_variants("gensr", ["parts", "tau"])
    assert next(iter(variants)) == "full"
    everywhere = variants["full"]
    assert everywhere[:2] == ["--identifier_weight", "0"]
    assert everywhere[-3:] == ["--candidate_protocols", "uniform", "bm25"]
    assert variants["without agreement and soft filter"] == [*everywhere, "--filtered_history", "mean"]
    assert variants["tau = 0.09"] == [*everywhere, "--contrast_temperature", "0.09"]
    # What the file of settings has already is no variant.
    again = choose_variants("gensr", ["tau"], {"contrast_temperature": 0.09})
    assert again["tau = 0.09"] == again["full"]
    assert again["tau = 0.07"] == [*everywhere, "--contrast_temperature", "0.07"]


def test_variants_of_gensar_with_the_full_models_levels_are_the_full_model(ablations):
    variants = choose_variants("gensar", ["identifiers", "shared", "length"])
    assert variants["shared levels = 2"] == variants["levels = 4"] == variants["full"]
    assert variants["levels = 5"] == [*variants["full"], "--num_specific_levels", "3"]
    tiger = variants["semantic identifiers only"][len(variants["full"]) :]
    assert tiger[:6] == ["--identifier_views", "semantic", "--num_shared_levels", "0", "--num_specific_levels", "4"]
    assert not any(option.endswith("_collaborative=0.1") for option in tiger)


def test_unknown_recipes_and_groups_are_refused(ablations):
    with pytest.raises(
        ConfigurationError, match="`which` has the unknown group 'gamma'; choose from parts, beta, tau"
    ):
        choose_variants("gensr", ["gamma"])
    with pytest.raises(ConfigurationError, match="`recipe` is 'gpt'; use one of gensar, gensr, intsr, synergen"):
        choose_variants("gpt", ["parts"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_know_the_options_of_their_variants(ablations, recipe):
    types = RECIPES[recipe].argument_types()
    groups = yaml.safe_load((ROOT / "recipes" / "variants" / f"{recipe}.yaml").read_text())
    for options in choose_variants(recipe, [name for name in groups if name != "all"]).values():
        parsed = parse_arguments(types, ["--output_dir", "anywhere", "--use_cpu", "true", *options])
        # What stands behind an option, as YAML reads it; the last of a name counts.
        given, name = {}, ""
        for word in options:
            if word.startswith("--"):
                name = word[2:]
                given[name] = []
            else:
                given[name].append(yaml.safe_load(word))
        for name, values in given.items():
            # The configurations of a model and of its items may share a name; "none" among many is a list without any.
            found = [vars(arguments)[name] for arguments in parsed if name in vars(arguments)]
            wanted = [values, *(values if len(values) == 1 else []), *([[]] if values == ["none"] else [])]
            assert any(value in wanted for value in found), (name, values, found)


def test_comparisons_are_paired_and_drawn(ablations, tmp_path, monkeypatch, capsys):
    """Runs are replaced by results: the full model ranks every target second, beta = 0.3 ranks it first."""
    real_run = subprocess.run

    def fake_run(command, **options):
        if not any(str(part).endswith("train_gensr.py") for part in command):
            return real_run(command, **options)  # matplotlib looks for fonts
        folder = command[command.index("--output_dir") + 1]
        assert command[command.index("--baselines") + 1] == "none"
        # The tiny settings have beta 0.1: that variant is the full model.
        assert not folder.endswith("beta---0.1")
        first = "--contrast_weight" in command and command[command.index("--contrast_weight") + 1] == "0.3"
        rows = [
            make_row(behavior, np.full((20, 2), 1.0 if first else 2.0)) for behavior in ("recommendation", "search")
        ]
        write_results(f"{folder}/model/results.json", rows)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", fake_run)
    ablations["main"](arguments(ablations, tmp_path), [])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 7 * 2
    best = next(line for line in lines if line["variant"] == "beta = 0.3")
    # 1 / log2(2) against 1 / log2(3), in every case.
    gain = 1 - 1 / np.log2(3)
    assert best["difference"] == pytest.approx(gain, abs=1e-4)
    assert best["interval"] == pytest.approx([gain, gain], abs=1e-4)
    assert all(line["difference"] == 0 for line in lines if line["variant"] != "beta = 0.3")
    assert (tmp_path / "beta.png").stat().st_size > 10_000


def test_a_failed_variant_is_named(ablations, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(ConfigurationError, match="The variant 'full' failed; see .*log.txt"):
        ablations["main"](arguments(ablations, tmp_path), [])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_variants_are_trained(ablations, recipe, tmp_path, capsys):
    options = ["--semantic_encoder", str(write_encoder(tmp_path)), "--use_cpu", "true"]
    changes = {
        "recipe": recipe,
        "config": str(ROOT / "recipes" / recipe / "tiny.yaml"),
        "data_dir": str(write_log(tmp_path / "log")),
        "which": ["identifiers" if recipe == "gensar" else "joint"],
        "num_train_epochs": 1,
    }
    ablations["main"](arguments(ablations, tmp_path / "runs", **changes), options)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Single tasks have one behavior each, single identifiers both; GenSR's variants are measured by two protocols.
    assert len({(line["variant"], line["behavior"]) for line in lines}) == (4 if recipe == "gensar" else 2)


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
