# SPDX-License-Identifier: Apache-2.0
"""What the trainings of SASRec and LightGCN share: a run that can be killed, and validation by full ranking.

A run is a folder. Its checkpoints belong to one set of settings and data: others are discarded, whole ones are gone on
from. At the end the folder holds the model, `settings.json` and `training.json`.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from seekrec.errors import DivergenceError
from seekrec.training.checkpoints import find_checkpoint, list_checkpoints
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer
from seekrec.util.files import write_json

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=PreTrainedModel)

_SUMMARY = "training.json"


def fit_embedding(
    make_model: Callable[[], ModelT],
    load_model: Callable[[Path], ModelT],
    rows: Dataset[Any],
    collate: Callable[[list[Any]], dict[str, Tensor]],
    *,
    folder: Path,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    seed: int,
    num_epochs: int,
    batch_size: int,
    num_evaluations: int,
    evaluate: EvaluateModel | None,
    max_seconds: float | None,
    resume: bool,
    sampler: Sampler[int] | None = None,
    make_optimizer: Callable[[ModelT, TrainingArguments], torch.optim.Optimizer] | None = None,
) -> ModelT:
    """Train a model by `transformers.Trainer`, or go on, or load what is finished.

    Args:
        make_model (`Callable`): Makes the model; called after the seed was set.
        load_model (`Callable`): Loads a finished model from a folder.
        rows (`Dataset`): What `collate` makes batches of.
        collate (`Callable`): Rows to the arguments of the model.
        folder (`Path`): Of the run.
        settings (`dict`): All that the result depends on, as JSON values.
        arguments (`dict`): More fields of `TrainingArguments`.
        seed (`int`): Of the start weights, the order and dropout.
        num_epochs (`int`): Passes over the rows.
        batch_size (`int`): Rows of a step.
        num_evaluations (`int`): How often validation is scored, and a checkpoint written (at most).
        evaluate (`Callable`, *optional*): Gives `ndcg@10` and more of a model; `None` keeps the last weights.
        max_seconds (`float`, *optional*): Stop after this time of this call.
        resume (`bool`): Go on from what the folder holds.
        sampler (`Sampler`, *optional*): The rows of an epoch in order, with `set_epoch`; a shuffle if not given.
        make_optimizer (`Callable`, *optional*): Makes the optimizer of a model; the Trainer's AdamW if not given.

    Returns:
        The best model, in evaluation mode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _read_json(folder / _SUMMARY).get("settings") == settings and resume:
        logger.info("The model in %s is already trained with these settings and data; loaded.", folder)
        _remove(list_checkpoints(folder))
        return load_model(folder).eval()
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
        save_total_limit=1,
        logging_steps=interval,
        load_best_model_at_end=evaluate is not None,
        metric_for_best_model=None if evaluate is None else "ndcg@10",
        greater_is_better=None if evaluate is None else True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=False,
        report_to="none",
        **arguments,
    )
    with training.main_process_first():
        checkpoint = _prepare_folder(folder, settings, resume=resume)
    set_seed(seed)
    model = make_model()
    trainer = GenerativeTrainer(
        model=model,
        args=training,
        train_dataset=rows,
        data_collator=collate,
        callbacks=[_EvaluateAtEnd(max_seconds)],
        evaluate_model=evaluate,
        sampler=sampler,
        optimizers=(None if make_optimizer is None else make_optimizer(model, training), None),
    )
    begin = time.monotonic()
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.check_weights()
    seconds = time.monotonic() - begin
    model.eval()
    summary = {
        "settings": settings,
        "seconds": round(seconds, 1),
        "best_ndcg@10": trainer.state.best_metric,
        "curve": [
            {name: value for name, value in entry.items() if name != "eval_runtime"}
            for entry in trainer.state.log_history
            if "eval_ndcg@10" in entry or "loss" in entry
        ],
    }
    with training.main_process_first():
        if trainer.is_world_process_zero():
            model.save_pretrained(folder)
            write_json(folder / _SUMMARY, summary)
            _remove(list_checkpoints(folder))
    return model


def rank_targets(
    score: Callable[[slice], Tensor],
    histories: Sequence[np.ndarray],
    targets: np.ndarray,
    *,
    batch_size: int = 256,
) -> dict[str, float]:
    """Rank each target among all items that its history does not hold.

    Args:
        score (`Callable`): Gives the scores of some cases, floats of shape `(cases, num_items)`.
        histories (`Sequence[np.ndarray]`): Item rows of each case.
        targets (`np.ndarray`): int64 item row of each case.
        batch_size (`int`): Cases in one call of `score`.

    Returns:
        `dict`: `recall@10` and `ndcg@10`, means over the cases. Ties are averaged over their orders; a target that
        its own history holds counts as missed.
    """
    places = torch.arange(1, 11, dtype=torch.float64)
    # What the first 0, 1, ..., 10 places gain together; a tie takes the mean gain of the places that it spans.
    up_to = torch.cat([torch.zeros(1, dtype=torch.float64), (1 / torch.log2(places + 1)).cumsum(0)])
    recall = ndcg = 0.0
    for begin in range(0, len(targets), batch_size):
        part = slice(begin, min(begin + batch_size, len(targets)))
        scores = score(part)
        if not torch.isfinite(scores).all():
            raise DivergenceError(
                f"The model's scores of validation cases {part.start} to {part.stop - 1} hold what is not a finite "
                "number: training diverged; take a smaller learning rate."
            )
        numbers = torch.arange(len(scores))
        lengths = torch.tensor([len(history) for history in histories[part]])
        seen = torch.from_numpy(np.concatenate([np.asarray(history, np.int64) for history in histories[part]]))
        scores[numbers.repeat_interleave(lengths), seen] = -torch.inf
        wanted = scores[numbers, torch.from_numpy(targets[part])][:, None]
        higher, not_lower = (scores > wanted).sum(dim=1), (scores >= wanted).sum(dim=1)
        shares = torch.isfinite(wanted[:, 0]) / (not_lower - higher).clamp(min=1)
        begin_place, end_place = higher.clamp(max=10), not_lower.clamp(max=10)
        recall += ((end_place - begin_place) * shares).sum().item()
        ndcg += ((up_to[end_place] - up_to[begin_place]) * shares).sum().item()
    return {"recall@10": recall / len(targets), "ndcg@10": ndcg / len(targets)}


class _EvaluateAtEnd(TrainerCallback):
    """Evaluate and save after the last step, and make a step the last when time is up."""

    def __init__(self, max_seconds: float | None) -> None:
        self.deadline = float("inf") if max_seconds is None else time.monotonic() + max_seconds

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if state.global_step >= state.max_steps or time.monotonic() >= self.deadline:
            control.should_log = control.should_save = control.should_training_stop = True
            control.should_evaluate = args.eval_strategy != "no"
        return control


def _prepare_folder(folder: Path, settings: dict[str, Any], *, resume: bool) -> str | None:
    """Discard checkpoints that are damaged or of another run; give the last that is left."""
    marker = folder / "settings.json"
    checkpoints = list_checkpoints(folder)
    if checkpoints and resume and _read_json(marker) != settings:
        logger.warning("The checkpoints in %s are of other settings or data; training starts again.", folder)
        resume = False
    (folder / _SUMMARY).unlink(missing_ok=True)
    if not resume:
        _remove(checkpoints)
    write_json(marker, settings)
    return find_checkpoint(folder)


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _read_json(path: Path) -> dict[str, Any]:
    """Give the content of a JSON file; empty where it is missing or half-written."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


__all__ = ["fit_embedding", "rank_targets"]
