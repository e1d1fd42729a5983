# SPDX-License-Identifier: Apache-2.0
"""How a recipe starts: its settings in any spelling, its folder its own, its errors in one line."""

import json
import os
import sys

import pytest

from seekrec.errors import DataError
from seekrec.recipes import GenSARRecipe, run_recipe
from seekrec.recipes.record import save_trained
from seekrec.util.files import lock_folder


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Run a recipe that gives its arguments."""
    for name in [name for name in os.environ if name.startswith(("RANK", "LOCAL_", "WORLD_", "ACCELERATE_"))]:
        monkeypatch.delenv(name)

    def run(*options, main=lambda recipe: None):
        seen = []

        class Seen(GenSARRecipe):
            def run(self):
                seen.append(self)
                main(self)

        # With a settings file nothing is chosen by the log, which need not be there.
        (tmp_path / "log.yaml").write_text("dataset: sequences\n")
        config = (
            () if any(option.startswith("--config") for option in options) else ("--config", tmp_path / "log.yaml")
        )
        options = ("--output_dir", str(tmp_path / "run"), "--use_cpu", "true", *map(str, config), *options)
        monkeypatch.setattr(sys, "argv", ["train_x.py", *options])
        run_recipe("train_x.py", Seen)
        return seen[0]

    return run


@pytest.mark.parametrize(
    "spelling", [["--num_beams", "7"], ["--num_beams=7"], ["--num-beams", "7"], ["--num-beams=7"]]
)
def test_options_are_read_in_any_spelling(start, spelling):
    recipe = start(*spelling, "--seed=9")
    assert (recipe.t5.num_beams, recipe.training.seed) == (7, 9)


@pytest.mark.parametrize("spelling", [["--ddp_backend", "gloo"], ["--ddp_backend=gloo"], ["--ddp-backend=gloo"]])
def test_a_backend_of_several_processes_is_no_error_in_one(start, tmp_path, spelling):
    path = tmp_path / "settings.yaml"
    path.write_text("ddp_backend: gloo\n")
    for options in (spelling, ["--config", str(path)]):
        assert start(*options).training.ddp_backend is None


def test_two_runs_are_kept_out_of_one_folder(start, tmp_path):
    with (
        lock_folder(tmp_path / "run"),
        pytest.raises(SystemExit, match=r"train_x: .*run is in use by another"),
    ):
        start()
    start()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--seed", "nine"], "train_x: .*command line: argument --seed: invalid int value: 'nine'"),
        (["--nothing", "9"], "train_x: .*command line: --nothing 9 is not a setting; see --help for all of them."),
        (["--learning_rate", "inf"], "train_x: .*command line: `learning_rate` is inf; give a number that is finite."),
        (["--learning_rate", "-1"], "train_x: `learning_rate` is -1; give a number above 0."),
        (["--num_train_epochs", "0", "--dry_run"], "train_x: `num_train_epochs` is 0; give a number above 0."),
        (["--max_test_cases", "0"], "train_x: `max_test_cases` is 0; give a number of at least 1."),
        (
            ["--compare_with", "nowhere", "--dry_run"],
            "train_x: `compare_with` names 'nowhere', which is not a folder;",
        ),
        (["--config", "a.yaml", "--config=b.yaml"], "train_x: `--config` is given 2 times; write all settings into"),
        (["--lr_scheduler_type", "none"], "train_x: .*command line: .*none"),
        (["--load_best_model_at_end=true", "--eval_strategy=epoch"], "train_x: .*command line: --load_best_model"),
    ],
)
def test_a_bad_setting_ends_it_in_one_line(start, options, line):
    with pytest.raises(SystemExit, match=line) as caught:
        start(*options)
    assert "\n" not in caught.value.code


def test_an_error_within_ends_it_in_one_line(start):
    def main(recipe):
        raise DataError("There are no events;\ngive some.")

    with pytest.raises(SystemExit, match="^train_x: There are no events; give some.$"):
        start(main=main)


def test_stages_may_be_shared(start, tmp_path):
    assert start().cache.folder == tmp_path / "run" / "stages"
    assert start("--stages_dir", "shared").cache.folder.name == "shared"


def test_nothing_of_an_earlier_model_stands_beside_a_new_one(tmp_path):
    class Part:
        def __init__(self, name):
            self.name = name

        def eval(self):
            return self

        def save_pretrained(self, folder):
            (folder / self.name).write_text("")

    class NoRequests:
        def targets(self, *_):
            return []

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "results.json").write_text(json.dumps({}))
    folder = save_trained(Part("weights"), Part("processor"), NoRequests(), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["processor", "weights"]


def test_the_trainers_upload_is_refused_and_a_token_forgotten(start):
    with pytest.raises(SystemExit, match=r"`push_to_hub` is set, .* using recipes/push_to_hub\.py"):
        start("--push_to_hub", "true")
    assert start("--hub_token", "not-a-real-token").training.hub_token is None


def test_sizes_beside_a_backbone_are_refused(start):
    with pytest.raises(SystemExit, match="`d_model` is given together with `backbone: t5`, which has its own"):
        start("--backbone", "t5", "--d_model", "64")
    assert start("--backbone", "t5").t5.backbone == "t5"
