# SPDX-License-Identifier: Apache-2.0
"""Shared by the trainings of SASRec and LightGCN: evaluation by full ranking, and keeping the best weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from seekrec.errors import DivergenceError
from seekrec.training.budget import StageTime
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer, train_once

ModelT = TypeVar("ModelT", bound=PreTrainedModel)
RowT = TypeVar("RowT")


def fit_embedding(
    make_model: Callable[[], ModelT],
    rows: Dataset[RowT],
    collate: Callable[[list[RowT]], dict[str, Tensor]],
    *,
    folder: Path,
    contents: Mapping[str, object],
    arguments: dict[str, Any],
    seed: int,
    num_epochs: int,
    batch_size: int,
    num_evaluations: int,
    evaluate: EvaluateModel | None,
    sampler: Sampler[int] | None = None,
    make_optimizer: Callable[[ModelT, TrainingArguments], torch.optim.Optimizer] | None = None,
    patience: int | None = None,
    time: StageTime | None = None,
    evaluate_few: EvaluateModel | None = None,
) -> ModelT:
    """Train a model, continue where its training was stopped, or load what is finished; see [`train_once`].

    Args:
        make_model (`Callable`): Makes the model; called after the seed was set.
        rows (`Dataset`): Rows that `collate` makes batches of.
        collate (`Callable`): Turns rows into the arguments of the model.
        folder (`Path`): Folder of the checkpoints.
        contents (`Mapping`): By name, the data that is learned from and evaluated on.
        arguments (`dict`): More fields of `TrainingArguments`.
        seed (`int`): Seed of the start weights, the order and dropout.
        num_epochs (`int`): Number of epochs.
        batch_size (`int`): Number of rows of a step.
        num_evaluations (`int`): How often validation is scored, and a checkpoint written (at most).
        evaluate (`Callable`, *optional*): Returns `ndcg@10` and more of a model; `None` keeps the last weights.
        sampler (`Sampler`, *optional*): The rows of an epoch in order, with `set_epoch`; a shuffle if not given.
        make_optimizer (`Callable`, *optional*): Makes the optimizer of a model; the Trainer's AdamW if not given.
        patience (`int`, *optional*): Ends the training after so many evaluations without a better one.
        time ([`StageTime`], *optional*): Shortens the training to what fits, or ends it. One that is shortened is
            evaluated at its end alone.
        evaluate_few (`Callable`, *optional*): Does it, on fewer cases.

    Returns:
        The best model, in evaluation mode; its configuration says for how many epochs it was trained.
    """
    steps_per_epoch = -(-len(rows) // batch_size)  # type: ignore[arg-type]
    interval = -(-num_epochs // num_evaluations) * steps_per_epoch
    training = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=num_epochs,
        per_device_train_batch_size=batch_size,
        max_grad_norm=0.0,
        seed=seed,
        eval_strategy="no" if evaluate is None else "steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        # The best and the last; with 1 Trainer deletes the last when it is done, and nothing says that it is.
        save_total_limit=2,
        logging_steps=interval,
        load_best_model_at_end=evaluate is not None,
        metric_for_best_model=None if evaluate is None else "ndcg@10",
        greater_is_better=None if evaluate is None else True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=False,
        report_to="none",
        # A resumed training knows how long it has not become better.
        restore_callback_states_from_checkpoint=patience is not None,
        **arguments,
    )
    set_seed(seed)
    model = make_model()
    trainer = GenerativeTrainer(
        model=model,
        args=training,
        train_dataset=rows,
        data_collator=collate,
        callbacks=[_EvaluateAtEnd(), *([] if patience is None else [EarlyStoppingCallback(patience)])],
        evaluate_model=evaluate,
        sampler=sampler,
        optimizers=(None if make_optimizer is None else make_optimizer(model, training), None),
    )
    if time is not None and time.limit_steps(trainer):
        interval = training.max_steps
        training.eval_steps = training.save_steps = training.logging_steps = interval
        trainer.evaluate_model = evaluate_few or evaluate
    train_once(trainer, (), contents)
    if time is not None:
        time.note_steps(trainer)
    model.config.trained_epochs = trainer.trained_epochs()
    return model.eval()


def rank_targets(
    score: Callable[[slice], Tensor],
    histories: Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    batch_size: int = 256,
) -> dict[str, float]:
    """Rank each target among all items that its history does not hold.

    Args:
        score (`Callable`): Scores some cases, floats of shape `(cases, num_items)`.
        histories (`Sequence[np.ndarray]`): Item rows of each case's history.
        targets (`np.ndarray`): Item row of each case's target, int64.
        batch_size (`int`): Number of cases in one call of `score`.

    Returns:
        `dict`: `recall@10` and `ndcg@10`, means over the cases. Ties are averaged over their orders; a target that
        its own history contains counts as missed.
    """
    positions = torch.arange(1, 11, dtype=torch.float64)
    # What the first 0, 1, ..., 10 positions gain together; a tie takes the mean gain of the positions that it spans.
    up_to = torch.cat([torch.zeros(1, dtype=torch.float64), (1 / torch.log2(positions + 1)).cumsum(0)])
    recall = ndcg = 0.0
    for begin in range(0, len(targets), batch_size):
        part = slice(begin, min(begin + batch_size, len(targets)))
        scores = score(part)
        if not torch.isfinite(scores).all():
            raise DivergenceError(
                f"The model's scores of validation cases {part.start} to {part.stop - 1} contain a number that is not "
                "finite: training diverged; use a smaller learning rate."
            )
        numbers = torch.arange(len(scores))
        lengths = torch.tensor([len(history) for history in histories[part]])
        seen = torch.from_numpy(np.concatenate([np.asarray(history, np.int64) for history in histories[part]]))
        scores[numbers.repeat_interleave(lengths), seen] = -torch.inf
        wanted = scores[numbers, torch.from_numpy(targets[part])][:, None]
        higher, not_lower = (scores > wanted).sum(dim=1), (scores >= wanted).sum(dim=1)
        shares = torch.isfinite(wanted[:, 0]) / (not_lower - higher).clamp(min=1)
        first, last = higher.clamp(max=10), not_lower.clamp(max=10)
        recall += ((last - first) * shares).sum().item()
        ndcg += ((up_to[last] - up_to[first]) * shares).sum().item()
    return {"recall@10": recall / len(targets), "ndcg@10": ndcg / len(targets)}


class _EvaluateAtEnd(TrainerCallback):
    """Evaluate and save after the last step."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        if state.global_step >= state.max_steps:
            control.should_log = control.should_save = control.should_training_stop = True
            control.should_evaluate = args.eval_strategy != "no"
        return control


__all__ = ["fit_embedding", "rank_targets"]
