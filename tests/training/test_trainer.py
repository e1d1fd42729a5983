# SPDX-License-Identifier: Apache-2.0
"""A training whose numbers are none stops at that step and says what to try."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, TrainingArguments

from seekrec.errors import DivergenceError
from seekrec.identifiers import DualRQVAEConfig
from seekrec.training import GenerativeTrainer, train_dual_rqvae, train_once
from seekrec.training.embedding_runs import rank_targets


class Slope(PreTrainedModel):
    """One weight, and a loss that a test chooses."""

    config_class = PretrainedConfig

    def __init__(self, loss):
        super().__init__(PretrainedConfig())
        self.weight = nn.Parameter(torch.ones(1))
        self.loss = loss
        self.step = 0

    def forward(self, rows):
        self.step += 1
        return {"loss": self.loss(self.weight, self.step)}


def trainer(tmp_path, loss, **arguments):
    training = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        use_cpu=True,
        per_device_train_batch_size=1,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        **({"max_steps": 6} | arguments),
    )
    evaluate = arguments.get("eval_strategy") and (lambda model: {"ndcg@10": float("nan"), "search": float("nan")})
    return GenerativeTrainer(
        model=Slope(loss),
        args=training,
        train_dataset=[torch.tensor(float(row)) for row in range(6)],
        data_collator=lambda rows: {"rows": torch.stack(rows)},
        evaluate_model=evaluate,
    )


def steep(weight, step):
    """Finite, of a slope that is not: the derivative of the square root at 0."""
    return (weight.sum() if step < 4 else (weight - weight.detach()).abs().sqrt().sum()) + 0 * weight.sum()


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (lambda weight, step: weight.sum() / (step != 4), {}, r"step 4 of 6: the loss is inf"),
        (lambda weight, step: weight.sum() * (float("nan") if step == 2 else 1), {}, r"step 2 of 6: the loss is nan"),
        (steep, {}, r"step 4 of 6: the norm of the gradients is nan"),
        (steep, {"max_grad_norm": 0.0}, r"norm of the gradients is nan.*`max_grad_norm` is 0; 1 is usual"),
        # A step of 1e39 is more than float32 holds.
        (lambda weight, step: weight.sum(), {"learning_rate": 1e39}, r"step 2 of 6: the loss is -inf"),
        (
            lambda weight, step: weight.sum(),
            {"learning_rate": 1e39, "max_steps": 1},
            r"step 1 of 1: `weight` contains",
        ),
        (
            lambda weight, step: weight.sum(),
            {"eval_strategy": "steps", "eval_steps": 3},
            r"step 3 of 6: evaluation finds no finite score",
        ),
    ],
)
def test_divergence_stops_at_the_step(tmp_path, loss, arguments, message):
    arguments = {"warmup_steps": 0, "lr_scheduler_type": "constant", **arguments}
    with pytest.raises(DivergenceError, match=message) as caught:
        train_once(trainer(tmp_path, loss, **arguments), (), {})
    assert str(caught.value).startswith("Training of Slope diverged at step")
    assert "Try a smaller learning rate (now" in str(caught.value)


def test_no_checkpoint_holds_weights_that_are_not_numbers(tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e39, "lr_scheduler_type": "constant"}
    with pytest.raises(DivergenceError, match="step 1 of 6: `weight`"):
        train_once(trainer(tmp_path, lambda weight, step: weight.sum(), **arguments), (), {})
    assert not list((tmp_path / "trainer").glob("checkpoint-*"))


def test_a_finished_training_is_taken_and_a_longer_one_goes_on(tmp_path):
    def run(**arguments):
        settings = {"save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"} | arguments
        one = trainer(tmp_path, lambda weight, step: weight.sum(), **settings)
        trained = train_once(one, (), {"data": 1})
        assert not trained.training  # what is asked of it next has no dropout, whether it was trained now or before
        return float(trained.weight.detach()), one.model.step

    first = run()
    assert first[1] == 6
    assert run() == (first[0], 0)
    # Also where it ended in the middle of an epoch.
    for length in ({"max_steps": 3}, {"max_steps": -1, "num_train_epochs": 0.5}):
        short = run(**length)
        assert short[1] == 3 and run(**length) == (short[0], 0)
    assert run(learning_rate=1e-3)[1] == 6
    assert run() == (first[0], 0)


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "no")])
def test_a_processor_without_bf16_trains_in_float32(tmp_path, monkeypatch, caplog, has_bf16, precision):
    monkeypatch.setattr("seekrec.training.trainer.cpu_has_bf16", lambda: has_bf16)
    kinds = set()

    def loss(weight, step):
        kinds.add((weight[None] @ weight[:, None]).dtype)
        return weight.sum()

    one = trainer(tmp_path, loss, bf16=True, max_steps=1, save_strategy="steps", save_steps=1)
    assert one.accelerator.mixed_precision == precision
    assert ("training in float32" in caplog.text) != has_bf16
    train_once(one, (), {})
    # The same settings are the same training, wherever it goes on.
    monkeypatch.setattr("seekrec.training.trainer.cpu_has_bf16", lambda: not has_bf16)
    again = trainer(tmp_path, loss, bf16=True, max_steps=1, save_strategy="steps", save_steps=1)
    train_once(again, (), {})
    assert kinds == {torch.bfloat16 if has_bf16 else torch.float32} and again.model.step == 0


def test_the_trainings_of_stages_stop_too(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    config = DualRQVAEConfig(
        semantic_size=8, collaborative_size=8, num_shared_levels=1, num_specific_levels=1, codebook_size=4
    )
    with pytest.raises(DivergenceError, match="Training of DualRQVAEModel diverged at step"):
        train_dual_rqvae(rows, rows, config, output_dir=tmp_path, learning_rate=1e38, num_epochs=3)


def test_scores_that_are_not_numbers_rank_nothing():
    with pytest.raises(DivergenceError, match="scores of validation cases 0 to 1 contain a number that is not finite"):
        rank_targets(lambda part: torch.full((2, 3), float("nan")), [np.array([0])] * 2, np.array([1, 2]))
