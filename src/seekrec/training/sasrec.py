# SPDX-License-Identifier: Apache-2.0
"""Training of SASRec by `transformers.Trainer`.

A user's items are cut into windows of `max_history`, from the end, so that each item of each user is a label exactly
once an epoch. The checkpoint kept is the one with the best NDCG@10 on validation (full ranking, seen items removed).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from seekrec.embeddings.configuration_sasrec import SASRecConfig
from seekrec.embeddings.modeling_sasrec import SASRecCollator, SASRecForNextItem, to_tokens
from seekrec.errors import ConfigurationError, DataError

logger = logging.getLogger(__name__)

Validation = Sequence[tuple[np.ndarray, int]]

# What Trainer needs to go on; it is written in this order, so a checkpoint with the last file is whole.
_LAST_FILE_OF_CHECKPOINT = "trainer_state.json"
_SUMMARY = "training.json"


def train_sasrec(
    sequences: Sequence[np.ndarray],
    validation: Validation | None,
    config: SASRecConfig,
    *,
    output_dir: str | os.PathLike[str],
    num_epochs: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int,
    resume: bool = True,
    max_seconds: float | None = None,
    lr_scheduler: Literal["cosine", "constant"] = "cosine",
    warmup_steps: int = 100,
    weight_decay: float = 0.0,
    num_evaluations: int = 20,
) -> SASRecForNextItem:
    """Train SASRec and save it.

    A run that was killed goes on from its last checkpoint and ends as if it had not been. A run that is complete is
    loaded, not repeated. Checkpoints of other data or other settings are discarded.

    Args:
        sequences (`Sequence[np.ndarray]`): Item rows of each user, oldest first. Empty ones are skipped.
        validation (`Sequence[tuple[np.ndarray, int]]`, *optional*):
            Pairs of a history (item rows, oldest first) and the item row that followed. `None` keeps the last weights.
        config ([`SASRecConfig`]): Sizes of the model.
        output_dir (`str` or `os.PathLike`): Folder for checkpoints, and at the end for the model and `training.json`.
        num_epochs (`int`): Passes over all sequences.
        batch_size (`int`): Windows in one step.
        learning_rate (`float`): Step size of AdamW after warm-up.
        seed (`int`): Of the start weights, the order and dropout.
        resume (`bool`): Go on from what `output_dir` holds; `False` starts again.
        max_seconds (`float`, *optional*): Stop after this time (of this call), keeping the best weights so far.
        lr_scheduler (`str`): `"cosine"` falls to zero over `num_epochs`, `"constant"` does not fall.
        warmup_steps (`int`): Steps in which the step size rises from zero.
        weight_decay (`float`): Of AdamW.
        num_evaluations (`int`): How often validation is scored, and a checkpoint written, over the run (at most).

    Returns:
        [`SASRecForNextItem`]: The best model, in evaluation mode.

    Raises:
        ConfigurationError: If a number is not positive.
        DataError: If no sequence holds an item, or `validation` is empty.
        RequestError: If a row is not one of the `num_items` items.
    """
    counts = {"num_epochs": num_epochs, "batch_size": batch_size, "num_evaluations": num_evaluations}
    for name, value in counts.items():
        if value < 1:
            raise ConfigurationError(f"`{name}` is {value}; it must be at least 1.")
    if learning_rate <= 0:
        raise ConfigurationError(f"`learning_rate` is {learning_rate}; it must be positive.")
    windows = _Windows(sequences, config)
    if not len(windows):
        raise DataError(f"None of the {len(sequences)} `sequences` holds an item; SASRec needs users with history.")
    if validation is not None and not len(validation):
        raise DataError("`validation` is empty; pass None to keep the last weights in place of the best.")

    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "config": {
            key: value for key, value in sorted(config.to_diff_dict().items()) if key != "transformers_version"
        },
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "lr_scheduler": lr_scheduler,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "num_evaluations": num_evaluations,
        "data": _hash_data(windows, validation),
    }
    if _read_json(folder / _SUMMARY).get("settings") == settings and resume:
        logger.info("SASRec in %s is already trained with these settings and data; loaded.", folder)
        return SASRecForNextItem.from_pretrained(folder).eval()
    steps_per_epoch = -(-len(windows) // batch_size)
    interval = -(-num_epochs // num_evaluations) * steps_per_epoch
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=num_epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        lr_scheduler_type="cosine" if lr_scheduler == "cosine" else "constant_with_warmup",
        warmup_steps=warmup_steps,
        max_grad_norm=0.0,
        seed=seed,
        eval_strategy="no" if validation is None else "steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=1,
        logging_steps=interval,
        load_best_model_at_end=validation is not None,
        metric_for_best_model=None if validation is None else "ndcg@10",
        greater_is_better=None if validation is None else True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=False,
        report_to="none",
    )
    with arguments.main_process_first():
        checkpoint = _prepare_folder(folder, settings, resume=resume)
    set_seed(seed)
    # A configuration of its own: Trainer writes into the one it gets.
    model = SASRecForNextItem(SASRecConfig.from_dict(config.to_dict()))
    trainer = _SASRecTrainer(
        model=model,
        args=arguments,
        train_dataset=windows,
        eval_dataset=validation,
        data_collator=SASRecCollator(),
        callbacks=[_EvaluateAtEnd(max_seconds)],
    )
    begin = time.monotonic()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.monotonic() - begin
    model.eval()
    summary = {
        "settings": settings,
        "seconds": round(seconds, 1),
        "best_ndcg@10": trainer.state.best_metric,
        "curve": [entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry or "loss" in entry],
    }
    with arguments.main_process_first():
        if trainer.is_world_process_zero():
            model.save_pretrained(folder)
            _write_json(folder / _SUMMARY, summary)
            for old in folder.glob("checkpoint-*"):
                shutil.rmtree(old)
    return model


class _Windows(Dataset[dict[str, np.ndarray]]):
    """Each user's tokens, cut from the end into windows of `max_history` inputs."""

    def __init__(self, sequences: Sequence[np.ndarray], config: SASRecConfig) -> None:
        self.windows: list[np.ndarray] = []
        for sequence in sequences:
            tokens = to_tokens(np.asarray(sequence), config)
            for end in range(len(tokens), 1, -config.max_history):
                self.windows.append(tokens[max(0, end - config.max_history - 1) : end])

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"tokens": self.windows[index]}


class _SASRecTrainer(Trainer):
    """Identical to `Trainer` except: evaluation is full ranking, not the loss."""

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score validation."""
        metrics = {
            f"{metric_key_prefix}_{name}": value
            for name, value in rank_validation(self.model, eval_dataset or self.eval_dataset).items()  # type: ignore[arg-type]
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


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


def rank_validation(model: SASRecForNextItem, validation: Validation, *, batch_size: int = 256) -> dict[str, float]:
    """Rank each target among all items that its history does not hold.

    Args:
        model ([`SASRecForNextItem`]): The model.
        validation (`Sequence[tuple[np.ndarray, int]]`): Pairs of a history (item rows) and the item row that followed.
        batch_size (`int`): Histories in one pass.

    Returns:
        `dict`: `recall@10` and `ndcg@10`, means over `validation`. Ties take their mean rank; a target that its own
        history holds counts as missed.
    """
    recall = ndcg = 0.0
    for begin in range(0, len(validation), batch_size):
        batch = validation[begin : begin + batch_size]
        scores = model.score([history for history, _ in batch], batch_size=batch_size)
        numbers = torch.arange(len(batch))
        targets = torch.tensor([target for _, target in batch])
        lengths = torch.tensor([len(history) for history, _ in batch])
        seen = torch.from_numpy(np.concatenate([np.asarray(history, np.int64) for history, _ in batch]))
        scores[numbers.repeat_interleave(lengths), seen] = -torch.inf
        wanted = scores[numbers, targets][:, None]
        # Rank 1 is best; a tie over n items takes the mean of the n ranks.
        ranks = 1 + (scores > wanted).sum(dim=1) + ((scores == wanted).sum(dim=1) - 1) / 2
        is_hit = (ranks <= 10) & torch.isfinite(wanted[:, 0])
        recall += is_hit.sum().item()
        ndcg += (is_hit / torch.log2(ranks + 1)).sum().item()
    return {"recall@10": recall / len(validation), "ndcg@10": ndcg / len(validation)}


def _prepare_folder(folder: Path, settings: dict[str, Any], *, resume: bool) -> Path | None:
    """Discard checkpoints that are half-written or of another run; give the last that is left."""
    marker = folder / "settings.json"
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    if checkpoints and resume and _read_json(marker) != settings:
        logger.warning("The checkpoints in %s are of other settings or data; training starts again.", folder)
        resume = False
    (folder / _SUMMARY).unlink(missing_ok=True)
    usable = []
    for checkpoint in checkpoints:
        if resume and _read_json(checkpoint / _LAST_FILE_OF_CHECKPOINT):
            usable.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    _write_json(marker, settings)
    return usable[-1] if usable else None


def _hash_data(windows: _Windows, validation: Validation | None) -> str:
    digest = hashlib.sha256()
    for window in windows.windows:
        digest.update(window.tobytes() + b"|")
    for history, target in validation or ():
        digest.update(np.asarray(history, np.int64).tobytes() + f"|{target}|".encode())
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    """Give the content of a JSON file; empty where it is missing or half-written."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
