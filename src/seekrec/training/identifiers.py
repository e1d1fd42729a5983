# SPDX-License-Identifier: Apache-2.0
"""Training of DualRQVAE by `transformers.Trainer`.

Two things happen in addition to the gradient steps. Before the first step the codebooks are initialised by k-means on
all items; after every epoch unused codes are moved to where items are. Both depend on the seed alone, and checkpoints
are written at the end of an epoch only, after the revival: a resumed run ends with the same weights as one that was
never stopped.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from seekrec.errors import ConfigurationError
from seekrec.identifiers import DualRQVAEConfig, DualRQVAEModel, check_vectors
from seekrec.schema import View
from seekrec.training.budget import StageTime
from seekrec.training.trainer import GenerativeTrainer, train_once
from seekrec.util.memory_maps import BLOCK_BYTES, release_rows

logger = logging.getLogger(__name__)

# How many checkpoints are written over a run. The latest is kept.
_NUM_SAVES = 10
# Memory that reading one row of a mapped file takes: the pages around it come with it.
_PAGES_BYTES = 2**16


def train_dual_rqvae(
    semantic: np.ndarray | Tensor | None,
    collaborative: np.ndarray | Tensor | None,
    config: DualRQVAEConfig,
    *,
    output_dir: str | Path,
    num_epochs: int,
    learning_rate: float,
    batch_size: int = 1024,
    seed: int = 0,
    device: str | None = None,
    show_progress: bool = True,
    time: StageTime | None = None,
) -> DualRQVAEModel:
    """Train an identifier learner on the vectors of all items.

    A training that was killed continues from its last checkpoint and ends as if it had not been. One that is complete
    is loaded, not repeated. Another training in the folder is set aside.

    Args:
        semantic (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, semantic_size)`; not used
            without the semantic view.
        collaborative (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, collaborative_size)`;
            not used without the collaborative view.
        config ([`DualRQVAEConfig`]): Views, levels, codes and network. Not changed.
        output_dir (`str` or `Path`): Folder of the checkpoints.
        num_epochs (`int`): Number of epochs.
        learning_rate (`float`): Largest learning rate of AdamW; it rises, then falls linearly to 0.
        batch_size (`int`): Number of items of a step.
        seed (`int`): Seed of the weights, the order of items, the k-means start and the revivals.
        device (`str`, *optional*): `"cpu"`, `"cuda"` or `"mps"`; `None` takes an accelerator where there is one.
        show_progress (`bool`): Show a bar with the time left.
        time ([`StageTime`], *optional*): What it may take; see [`StageTime.limit_steps`].

    Returns:
        [`DualRQVAEModel`]: The trained model, on the CPU, ready to encode.

    Raises:
        ConfigurationError: If a number is out of its range, or the device is not there.
        DataError: If there is no item, or a vector that is needed is missing, has the wrong shape or is not finite.
    """
    _check_positive(num_epochs=num_epochs, batch_size=batch_size, learning_rate=learning_rate)
    vectors = check_vectors(config, semantic, collaborative)
    output_dir, num_items = Path(output_dir), len(next(iter(vectors.values())))

    arguments = TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=num_epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=1e-5,
        # Below 1 it is a share of all steps.
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        seed=seed,
        data_seed=seed,
        # Saving is up to the callback, which knows when the codebooks are whole.
        save_strategy="no",
        save_total_limit=1,
        logging_steps=max(1, num_epochs * math.ceil(num_items / batch_size) // _NUM_SAVES),
        disable_tqdm=not show_progress,
        use_cpu=_use_cpu(device),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        # Each process counts the codes of its own items; the callback adds them up.
        ddp_broadcast_buffers=False,
    )

    # 1. The model, its codebooks started on all items.
    set_seed(seed)
    # The trainer writes into the configuration of its model.
    model = DualRQVAEModel(copy.deepcopy(config))
    cast(torch.nn.Module, model).to(arguments.device)
    model.initialize_codebooks(*_both(vectors), seed=seed)

    # 2. Train.
    trainer = GenerativeTrainer(
        model=model,
        args=arguments,
        train_dataset=_ItemVectors(vectors),
        data_collator=_as_is,
        callbacks=[_ReviveAndSave(vectors, seed, save_every=max(1, num_epochs // _NUM_SAVES))],
    )
    trainer.remove_callback(PrinterCallback)
    if time is not None:
        time.limit_steps(trainer)
    with _without_bars_of_saving():
        train_once(trainer, (), {"vectors": vectors})
    if time is not None:
        time.note_steps(trainer)
    # As saving a checkpoint leaves them: a training that was complete already saves none.
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    return model.cpu().eval()


@contextmanager
def _without_bars_of_saving() -> Iterator[None]:
    """Switch off the bar that `save_pretrained` shows for every checkpoint; the bar of the training stays."""
    was_enabled = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            enable_progress_bar()


class _ItemVectors(Dataset[dict[str, Tensor]]):
    """Vectors of items, in memory or mapped from files; a whole batch is one indexing operation."""

    def __init__(self, vectors: dict[View, np.ndarray]) -> None:
        self._arrays = vectors
        self._vectors = {view: torch.from_numpy(own) for view, own in vectors.items()}
        self._num_read = 0

    def __len__(self) -> int:
        return len(next(iter(self._vectors.values())))

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {view: own[row] for view, own in self._vectors.items()}

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = {view: own[rows] for view, own in self._vectors.items()}
        # What is read of a file is given back now and then: each row brings a few pages.
        self._num_read += len(rows)
        if self._num_read * _PAGES_BYTES > BLOCK_BYTES:
            self._num_read = 0
            for own in self._arrays.values():
                release_rows(own)
        return batch


def _as_is(batch: object) -> dict[str, Tensor]:
    """Return the batch as it is: `_ItemVectors` makes whole batches."""
    return cast(dict[str, Tensor], batch)


class _ReviveAndSave(TrainerCallback):
    """Revive dead codes at the end of each epoch, then save at the end of some.

    Args:
        vectors (`dict[str, np.ndarray]`): The vectors of all items.
        seed (`int`): Together with the step it decides where the codes go.
        save_every (`int`): Epochs between two checkpoints.
    """

    def __init__(self, vectors: dict[View, np.ndarray], seed: int, *, save_every: int) -> None:
        self._vectors, self._seed, self._save_every = vectors, seed, save_every

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: DualRQVAEModel | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: object,
    ) -> TrainerControl:
        if model is None or optimizer is None:
            raise ConfigurationError("The callback needs the model and the optimizer; use it with `Trainer.train`.")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for quantizer in model.quantizers.values():
                torch.distributed.all_reduce(quantizer.code_counts)
        revived = model.revive_dead_codes(*_both(self._vectors), seed=self._seed + state.global_step)
        num_revived = sum(int(own.sum()) for own in revived.values())
        if num_revived:
            logger.debug("Step %d: %d unused codes were moved.", state.global_step, num_revived)
        for name, quantizer in model.quantizers.items():
            moments = optimizer.state.get(quantizer.codebooks, {})
            for key in ("exp_avg", "exp_avg_sq"):
                if key in moments:
                    moments[key][revived[name]] = 0
        # The trainer counts epochs in fractions of steps.
        epoch = round(state.epoch or 0)
        control.should_save = epoch % self._save_every == 0 or state.global_step >= state.max_steps
        return control


def _both(vectors: dict[View, np.ndarray]) -> tuple[np.ndarray | None, np.ndarray | None]:
    return vectors.get("semantic"), vectors.get("collaborative")


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ConfigurationError(f"`{name}` is {number}; it must be positive.")


def _use_cpu(device: str | None) -> bool:
    is_here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device is not None and not is_here.get(device, False):
        raise ConfigurationError(
            f"`device` is {device!r}; this machine has {', '.join(name for name, here in is_here.items() if here)}. "
            "Choose one of these, or None."
        )
    return device == "cpu"
