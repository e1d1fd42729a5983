# SPDX-License-Identifier: Apache-2.0
"""Numbers of settings are refused where the training would fail, do nothing, or run away."""

import dataclasses
import sys

import pytest
from transformers import TrainingArguments

from seekrec.errors import ConfigurationError
from seekrec.recipes import GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe
from seekrec.recipes.arguments import DataArguments, EvaluationArguments, RunArguments
from seekrec.recipes.command import main
from seekrec.recipes.ranges import RANGES, check_ranges
from seekrec.util.settings import option_names

RECIPES = (GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe)
# Of what is no training: ids, ports and what a library reads.
NOT_CHECKED = {
    "local_rank",
    "ddp_timeout",
    "torch_empty_cache_steps",
    "ddp_bucket_cap_mb",
    "dataloader_prefetch_factor",
}


def options_of(kind):
    return option_names(kind) if kind.__module__.startswith("seekrec.") else [f.name for f in dataclasses.fields(kind)]


def test_every_range_is_that_of_a_setting():
    names = {name for recipe in RECIPES for kind in recipe.argument_types() for name in options_of(kind)}
    assert set(RANGES) <= names


def test_every_number_of_the_trainer_has_a_range():
    numbers = {
        field.name
        for field in dataclasses.fields(TrainingArguments)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }
    assert numbers <= RANGES.keys() | NOT_CHECKED


# The borders of each range, and the first number beyond.
@pytest.mark.parametrize(
    ("name", "taken", "refused", "words"),
    [
        ("learning_rate", [1e-9, 5], [0, -1], "above 0"),
        ("num_train_epochs", [0.01, 3], [0, -2], "above 0"),
        ("weight_decay", [0, 2.5], [-0.1], "of at least 0"),
        ("adam_beta2", [0, 0.999], [1, 1.5, -0.1], "of at least 0 and below 1"),
        ("label_smoothing_factor", [0, 0.5], [1], "of at least 0 and below 1"),
        ("warmup_steps", [0, 0.1, 100], [-1], "of at least 0"),
        ("per_device_train_batch_size", [1], [0, -4], "of at least 1"),
        ("gradient_accumulation_steps", [1], [0], "of at least 1"),
        ("max_steps", [-1, 1], [0, -2], "of at least 1, or -1 for none"),
        ("seed", [0, 2**32 - 1], [-1, 2**32], "of at least 0 and at most 4294967295"),
        ("save_steps", [1, 0.2], [0], "above 0"),
        ("logging_steps", [1], [0], "above 0"),
        ("save_total_limit", [None, 1], [0], "of at least 1"),
    ],
)
def test_numbers_of_the_trainer(name, taken, refused, words):
    # Not made anew: some values are refused by transformers itself, in other words.
    training = TrainingArguments(output_dir="run", use_cpu=True, report_to="none")
    for value in taken:
        setattr(training, name, value)
        check_ranges([training])
    for value in refused:
        setattr(training, name, value)
        with pytest.raises(ConfigurationError, match=f"`{name}` is {value:.10g}; give a number {words}"):
            check_ranges([training])


def test_numbers_of_a_run():
    check_ranges([DataArguments(), EvaluationArguments(max_validation_cases=None), RunArguments(max_minutes=0.1)])
    for group, words in [
        (DataArguments(max_refused=1.5), "`max_refused` is 1.5; give a number of at least 0 and at most 1"),
        (DataArguments(num_cold_items=-1), "`num_cold_items` is -1; give a number of at least 0"),
        (EvaluationArguments(max_test_cases=0), "`max_test_cases` is 0; give a number of at least 1"),
        (EvaluationArguments(num_negatives=0), "`num_negatives` is 0; give a number of at least 1"),
        (RunArguments(max_minutes=0), "`max_minutes` is 0; give a number above 0"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            check_ranges([group])


@pytest.mark.parametrize("words", [["--num_processes", "0"], ["--num_processes=-2", "--dry_run"]])
def test_no_process_trains_nothing(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["seekrec"])
    with pytest.raises(SystemExit, match=r"seekrec train: `num_processes` is (0|-2); give a number of at least 1\."):
        main(["train", "intsr", "--events", "no.csv", *words])
