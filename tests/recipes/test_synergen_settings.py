# SPDX-License-Identifier: Apache-2.0
"""Two step sizes, and what the negatives of SynerGen may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import TrainingArguments

from seekrec.embeddings.softmax import LARGE_CATALOG
from seekrec.errors import ConfigurationError
from seekrec.models import (
    IntSRConfig,
    IntSRForSearchAndRecommendation,
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
)
from seekrec.recipes.synergen import drawn_kind
from seekrec.training import WindowArguments, make_window_optimizer


@pytest.mark.parametrize("use_ids", [True, False])
def test_tables_and_the_rest_have_their_own_step_sizes(tmp_path, use_ids):
    model = SynerGenForSearchAndRecommendation(SynerGenConfig(num_items=5, use_ids=use_ids, learn_time_scales=True))
    training = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, adam_beta2=0.98, use_cpu=True
    )
    optimizer = make_window_optimizer(model, WindowArguments(sparse_learning_rate=3e-3), training)
    group = {id(weight): number for number, one in enumerate(optimizer.param_groups) for weight in one["params"]}
    names = dict(model.named_parameters())
    assert set(group) == {id(weight) for weight in names.values()} and len(group) == len(names)
    sparse = {name for name, weight in names.items() if group[id(weight)] == 0}
    assert sparse == {"model.tokens.actions.weight", *(["model.items.ids.weight"] if use_ids else [])}
    assert group[id(names["model.tokens.ids.weight" if use_ids else "model.tokens.text.weight"])] == 1
    assert group[id(names["model.rotary.log_scales"])] == group[id(names["retrieval_norm.weight"])] == 2
    settings = [(one["lr"], one["weight_decay"], one["betas"]) for one in optimizer.param_groups]
    assert settings == [(3e-3, 0.0, (0.9, 0.98)), (1e-3, 0.1, (0.9, 0.98)), (1e-3, 0.0, (0.9, 0.98))]
    assert make_window_optimizer(model, WindowArguments(), training).param_groups[0]["lr"] == 1e-3


def test_negatives_that_cannot_be_are_refused():
    assert drawn_kind(WindowArguments(negatives="full")) == "uniform"
    assert drawn_kind(WindowArguments(negatives="popularity", correct_sampling=True)) == "popularity"
    for settings, message in (
        ({"negatives": "hard"}, "`negatives` is 'hard', which SynerGen has not"),
        ({"negatives": "uniform", "correct_sampling": True}, "`correct_sampling` needs `negatives: popularity`"),
        (
            {"negatives": "popularity", "correct_sampling": True, "popularity_power": 0.5},
            "`popularity_power` is 0.5 and `correct_sampling` is on",
        ),
    ):
        with pytest.raises(ConfigurationError, match=message):
            drawn_kind(WindowArguments(**settings))


def test_the_tables_of_intsr_have_a_step_size_of_their_own(tmp_path):
    model = IntSRForSearchAndRecommendation(IntSRConfig(num_items=5))
    training = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True)
    optimizer = make_window_optimizer(model, WindowArguments(sparse_learning_rate=5e-3), training)
    names = {id(weight): name for name, weight in model.named_parameters()}
    first, *_ = optimizer.param_groups
    assert {names[id(weight)] for weight in first["params"]} == {
        "model.items.ids.weight",
        "model.tokens.actions.weight",
    }
    assert first["lr"] == 5e-3
    assert sum(len(one["params"]) for one in optimizer.param_groups) == len(names)


def test_negatives_are_chosen_by_the_size_of_the_catalogue():
    settings = WindowArguments(popularity_power=0.5)
    assert settings.negatives == "auto"
    small, large = settings.for_catalog(LARGE_CATALOG), settings.for_catalog(LARGE_CATALOG + 1)
    assert small == replace(settings, negatives="full")
    assert (large.negatives, large.correct_sampling, large.popularity_power) == ("popularity", True, 1.0)
    # What was chosen stays, whatever the size.
    chosen = WindowArguments(negatives="full")
    assert chosen.for_catalog(10**6) == chosen
