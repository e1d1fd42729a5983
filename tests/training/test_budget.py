# SPDX-License-Identifier: Apache-2.0
"""A training that the clock ends: whole, taken as it is, and gone on with where there is more time."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, TrainingArguments

from seekrec.training.budget import TimeBudget, is_used_up, time_steps
from seekrec.training.checkpoints import list_checkpoints, read_state
from seekrec.training.trainer import GenerativeTrainer, train_once
from seekrec.util.clock import process_seconds


class Counter(PreTrainedModel):
    """Its weight falls by the learning rate with every step, and a step takes a hundredth of a second."""

    config_class = PretrainedConfig

    def __init__(self):
        super().__init__(PretrainedConfig())
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, rows):
        time.sleep(0.01)
        return {"loss": self.weight.sum()}


def make_trainer(folder, **arguments):
    training = TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        per_device_train_batch_size=2,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_steps=arguments.pop("max_steps", 150),
        **arguments,
    )
    return GenerativeTrainer(
        model=Counter(),
        args=training,
        train_dataset=[torch.tensor(float(row)) for row in range(20)],
        data_collator=lambda rows: {"rows": torch.stack(rows)},
        evaluate_model=lambda model: {"ndcg@10": -model.weight.item()},
    )


SAVING = dict(
    eval_strategy="steps",
    eval_steps=75,
    save_strategy="steps",
    save_steps=75,
    load_best_model_at_end=True,
    metric_for_best_model="eval_ndcg@10",
    greater_is_better=True,
)


def test_the_clock_ends_a_training_with_a_whole_checkpoint(tmp_path, caplog):
    trainer = make_trainer(tmp_path, **SAVING)
    # A step takes an hour, so that what the machine does besides counts for nothing.
    budget = TimeBudget(3600 * 50 - 600 + 2.0, least_reserve=2.0, clock=lambda: 3600 * trainer.state.global_step)
    model = train_once(trainer, (), {}, budget=budget)
    steps = trainer.state.global_step
    assert steps == 50 and "Time limit reached: training ends at step" in caplog.text
    # One less with each step: what is saved and returned is the state of the last one.
    assert model.weight.item() == pytest.approx(-steps)
    (last,) = list_checkpoints(tmp_path / "trainer")
    assert read_state(last)["global_step"] == steps and is_used_up(last, 60.0)

    # The same budget takes what is there; a larger one goes on.
    again = make_trainer(tmp_path, **SAVING)
    assert train_once(again, (), {}, budget=TimeBudget(1.0)).weight.item() == pytest.approx(-steps)
    longer = make_trainer(tmp_path, **SAVING)
    budget = TimeBudget(3600 * 1000.0)
    model = train_once(longer, (), {}, budget=budget)
    assert model.weight.item() == pytest.approx(-150) and budget.seconds_before > 0.05


def test_a_killed_training_has_what_was_left_of_its_budget(tmp_path):
    first = make_trainer(tmp_path, save_strategy="steps", save_steps=10, max_steps=150)
    first.add_callback(TimeBudget(process_seconds() + 60.0))
    first.training_step = _raise_at(first, 35)
    with pytest.raises(KeyboardInterrupt):
        train_once(first, (), {})
    used = read_state(list_checkpoints(tmp_path / "trainer")[-1])["stateful_callbacks"]["TimeBudget"]["attributes"]
    assert used["seconds"] > 0.25 and not used["is_spent"]
    budget = TimeBudget(process_seconds() + 60.0)
    train_once(make_trainer(tmp_path, save_strategy="steps", save_steps=10), (), {}, budget=budget)
    assert budget.seconds_before == pytest.approx(used["seconds"])


def test_timed_steps_leave_weights_and_draws_alone(tmp_path):
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    seconds, updates = time_steps(trainer)
    # Two batches of ten an update, each of which sleeps a hundredth of a second.
    assert updates == 5 and 0.02 < seconds < 0.1
    assert trainer.model.weight.item() == 0 and torch.equal(torch.rand(3), expected)


def _raise_at(trainer, step):
    train = trainer.training_step

    def training_step(*args, **kwargs):
        if trainer.state.global_step == step:
            raise KeyboardInterrupt
        return train(*args, **kwargs)

    return training_step
