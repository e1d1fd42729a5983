# SPDX-License-Identifier: Apache-2.0
"""A second training on what was held out, tiny, as a user starts it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_runs import ROOT, command, run
from transformers import AutoModel

from seekrec.embeddings import ItemNeighbors
from seekrec.errors import ConfigurationError
from seekrec.evaluation import Popularity, read_results
from seekrec.events.query_log import QueryLog
from seekrec.events.splits import learn_held_out
from seekrec.hub import describe_model, eval_results_yaml, render_model_card
from seekrec.recipes.arguments import DataArguments, RunArguments
from seekrec.recipes.compared_models import read_tested
from seekrec.recipes.logs import prepare_split, read_log
from seekrec.recipes.recipe import Recipe
from seekrec.recipes.stages import StageCache

VIEWED = (
    "--num_cold_items",
    "0",
    "--candidate_protocols",
    "--view_weights",
    "validation",
    "--baselines",
    "query_log",
    "item_knn",
)


@pytest.fixture(scope="module")
def split(inputs, tmp_path_factory):
    """The split of the tiny log, as a run makes it."""
    data = DataArguments(dataset="sequences", data_dir=str(inputs[0]))
    return prepare_split(read_log(data), data, StageCache(tmp_path_factory.mktemp("stages")))


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    """Options of both runs, which share what is made before training."""
    return (*VIEWED, "--stages_dir", str(tmp_path_factory.mktemp("stages")))


@pytest.fixture(scope="module")
def refitted(inputs, viewed, tmp_path_factory):
    """SynerGen, trained once more on what validation held out."""
    output_dir = tmp_path_factory.mktemp("validation")
    return output_dir, run(command("synergen", inputs, output_dir, "--refit", "validation", *viewed, launcher=()))


@pytest.fixture(scope="module")
def shipped(inputs, viewed, tmp_path_factory):
    """IntSR, tested, then trained once more on everything."""
    output_dir = tmp_path_factory.mktemp("everything")
    return output_dir, run(command("intsr", inputs, output_dir, "--refit", "everything", *viewed, launcher=()))


def state_of(output_dir, folder):
    """What the Trainer wrote with its last checkpoint."""
    last = max((output_dir / folder).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return json.loads((last / "trainer_state.json").read_text())


def refit_of(output_dir):
    return json.loads((output_dir / "model" / "run.json").read_text())["refit"]


def check_counts(views, split, id_map):
    """Those that validation gave a weight count the events of the split."""
    counts = {}
    if views.query_log is not None:
        counts["query_log"] = (views.query_log.query_clicks, QueryLog.fit(split, id_map).query_clicks)
    if views.item_knn is not None:
        counts["item_knn"] = (views.item_knn.similarities, ItemNeighbors.fit([split], id_map).similarities)
    assert counts
    for found, expected in counts.values():
        np.testing.assert_array_equal(found.toarray(), expected.toarray())


def test_what_validation_held_out_is_learned_for_as_long_as_was_best(refitted, split):
    output_dir, _ = refitted
    first, second = (state_of(output_dir, folder) for folder in ("trainer", "trainer-refit"))
    best = first["epoch"] * first["best_global_step"] / first["global_step"]
    assert second["epoch"] == pytest.approx(best) and second["best_global_step"] is None
    learning = learn_held_out(split)
    found = refit_of(output_dir)
    assert found["learned_from"] == "validation" and found["num_train_epochs"] == pytest.approx(best)
    assert (found["num_events_before"], found["num_events"]) == (len(split.train_rows), len(learning.train_rows))


def test_views_count_it_and_are_weighed_as_validation_chose_before(refitted, split):
    output_dir, done = refitted
    model, learning = AutoModel.from_pretrained(output_dir / "model"), learn_held_out(split)
    ids = model.catalog.id_map
    chosen = [line for line in done.stderr.splitlines() if "views of " in line]
    assert len(chosen) == 2, "weighed once for each task, by the first training"
    for behavior, weights in model.view_weights.items():
        (line,) = (line for line in chosen if f"views of {behavior}:" in line)
        for name, weight in weights.items():
            assert f" {name} {weight:.4g}" in line
    check_counts(model.views, learning, ids)


def test_the_table_holds_baselines_that_have_learned_it_too(refitted, split):
    output_dir, _ = refitted
    rows = {(row.system, row.behavior): row for row in read_results(output_dir / "model" / "results.json")}
    learning = learn_held_out(split)
    assert {row.split_fingerprint for row in rows.values()} == {learning.fingerprint}
    for name in ("popularity", "SASRec", "item-kNN x SASRec", "SynerGen", "SynerGen without views"):
        assert rows[name, "recommendation"].num_cases == len(split.targets("test", "recommendation"))
    # Items are bought in rings of twelve, so what is popular differs once the last but one is counted.
    ids = AutoModel.from_pretrained(output_dir / "model").catalog.id_map
    assert (Popularity.fit(learning, ids).counts != Popularity.fit(split, ids).counts).any()


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(inputs, viewed, refitted):
    output_dir, _ = refitted
    before = {path: path.stat().st_mtime_ns for path in output_dir.glob("trainer*/checkpoint-*/model.safetensors")}
    again = run(command("synergen", inputs, output_dir, "--refit", "validation", *viewed, launcher=()))
    assert again.stdout.count("'train_loss': '0'") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_has_learned_everything_keeps_the_test_of_the_training_before(shipped, split):
    output_dir, done = shipped
    assert "IntSR" in done.stdout and refit_of(output_dir)["num_events"] == split.log.num_events
    folder = output_dir / "model"
    rows = read_results(folder / "results.json")
    assert {row.split_fingerprint for row in rows} == {split.fingerprint}
    model = AutoModel.from_pretrained(folder)
    check_counts(model.views, learn_held_out(split, "everything"), model.catalog.id_map)
    assert (output_dir / "examples.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gensar", "gensr"])
def test_models_that_write_text_learn_everything_too(family, inputs, viewed, split, tmp_path):
    run(command(family, inputs, tmp_path, "--refit", "everything", *viewed, launcher=()))
    assert refit_of(tmp_path)["num_events"] == split.log.num_events
    model = AutoModel.from_pretrained(tmp_path / "model")
    check_counts(model.views, learn_held_out(split, "everything"), model.catalog.id_map)


def test_its_card_says_so_and_claims_no_figures(shipped):
    folder = shipped[0] / "model"
    described = describe_model(folder, repo_id="me/intsr", system="IntSR", license="apache-2.0", dataset_id="me/log")
    rows = read_results(folder / "results.json")
    card = render_model_card(ROOT / "hub_cards/intsr.md", rows, described)
    assert "**This model has learned from all events of the log" in card
    assert "model-index" not in card and eval_results_yaml(rows, described) is None
    before = {**described, "refit": None}
    assert "model-index" in render_model_card(ROOT / "hub_cards/intsr.md", rows, before)


def test_its_test_cases_are_no_test_of_it_for_others(shipped, refitted, split):
    with pytest.raises(ConfigurationError, match="was trained on all events of its log"):
        read_tested(shipped[0] / "model", split)
    with pytest.raises(ConfigurationError, match="was trained on another split"):
        read_tested(refitted[0] / "model", split)
    assert read_tested(refitted[0] / "model", learn_held_out(split))


def test_a_second_training_has_no_minutes():
    with pytest.raises(ConfigurationError, match=r"`refit` is everything, .* together with `max_minutes: 3`"):
        RunArguments(refit="everything", max_minutes=3)


@pytest.mark.parametrize(("processes", "elsewhere"), [(2, None), (1, lambda: None)])
def test_a_second_training_is_that_of_one_process(processes, elsewhere):
    training = SimpleNamespace(world_size=processes)
    recipe = SimpleNamespace(running=RunArguments(refit="everything"), training=training, train_elsewhere=elsewhere)
    with pytest.raises(ConfigurationError, match="`refit` is everything, but several processes train"):
        Recipe.refuse_refit(recipe)


def test_a_command_that_trains_once_refuses_the_setting():
    with pytest.raises(ConfigurationError, match="`refit` is validation, but this command trains only once"):
        Recipe.run(SimpleNamespace(running=RunArguments(refit="validation")))
