# SPDX-License-Identifier: Apache-2.0
"""Training of SASRec by `transformers.Trainer`.

A user's items are cut into windows of `max_history`, from the end, so that each item of each user is a label exactly
once per epoch. The checkpoint kept is the one with the best NDCG@10 on validation (full ranking, seen items removed).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainingArguments

from seekrec.embeddings.configuration_sasrec import SASRecConfig
from seekrec.embeddings.modeling_sasrec import SASRecCollator, SASRecForNextItem, to_tokens
from seekrec.errors import ConfigurationError, DataError
from seekrec.training.budget import StageTime
from seekrec.training.embedding_runs import fit_embedding, rank_targets
from seekrec.training.row_adamw import make_adamw, use_row_gradients
from seekrec.util.memory_maps import row_blocks
from seekrec.util.ragged import Ragged

# More windows than this are shuffled by `BlockShuffle`.
LARGE_SHUFFLE = 2_000_000
_BLOCK, _BLOCKS_OF_BUFFER = 1_024, 1_024
# Validation cases of a training that there is little time for.
_FEW_CASES = 1_000

Validation = Sequence[tuple[np.ndarray, int]]


def train_sasrec(
    sequences: Ragged | Sequence[np.ndarray],
    validation: Validation | None,
    config: SASRecConfig,
    *,
    output_dir: str | os.PathLike[str],
    num_epochs: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int,
    num_evaluations: int = 20,
    start_from: SASRecForNextItem | None = None,
    patience: int | None = None,
    time: StageTime | None = None,
) -> SASRecForNextItem:
    """Train SASRec.

    A training that was killed continues from its last checkpoint and ends as if it had not been. One that is complete
    is loaded, not repeated. Another training in the folder is set aside.

    Args:
        sequences ([`Ragged`] or `Sequence[np.ndarray]`): Item rows of each user, oldest first, in memory or mapped
            from a file. Empty ones are skipped.
        validation (`Sequence[tuple[np.ndarray, int]]`, *optional*):
            Pairs of a history (item rows, oldest first) and the item row that followed. `None` keeps the last weights.
        config ([`SASRecConfig`]): Sizes of the model.
        output_dir (`str` or `os.PathLike`): Folder of the checkpoints.
        num_epochs (`int`): Number of epochs over all sequences.
        batch_size (`int`): Number of windows in one step.
        learning_rate (`float`): Learning rate of AdamW after warm-up, of 100 steps but at most a tenth of all; from
            there it falls to zero by a cosine.
        seed (`int`): Seed of the start weights, the order and dropout.
        num_evaluations (`int`): How often validation is scored, and a checkpoint written (at most).
        start_from ([`SASRecForNextItem`], *optional*): A model of the same sizes whose weights are the start.
        patience (`int`, *optional*): Keep the learning rate after warm-up, and end the training after so many
            evaluations without a better one; `num_epochs` is then the most.
        time ([`StageTime`], *optional*): What it may take, part of an epoch if there is no more; see
            [`StageTime.limit_steps`].

    Returns:
        [`SASRecForNextItem`]: The best model, in evaluation mode.

    Raises:
        ConfigurationError: If a number is not positive.
        DataError: If no sequence contains an item, or `validation` is empty.
        RequestError: If a row is not one of the `num_items` items.
    """
    counts = {"num_epochs": num_epochs, "batch_size": batch_size, "num_evaluations": num_evaluations}
    for name, value in counts.items():
        if value < 1:
            raise ConfigurationError(f"`{name}` is {value}; it must be at least 1.")
    if learning_rate <= 0:
        raise ConfigurationError(f"`learning_rate` is {learning_rate}; it must be positive.")
    windows = SequenceWindows(
        sequences if isinstance(sequences, Ragged) else Ragged.from_arrays([np.asarray(own) for own in sequences]),
        config,
    )
    if not len(windows):
        raise DataError(
            f"None of the {len(sequences)} `sequences` contains an item; SASRec needs users with a history."
        )
    if validation is not None and not len(validation):
        raise DataError("`validation` is empty; pass None to keep the last weights instead of the best.")

    few = () if validation is None else validation[:: -(-len(validation) // _FEW_CASES)]

    def make() -> SASRecForNextItem:
        # A configuration of its own: Trainer writes into the one it gets.
        model = SASRecForNextItem(SASRecConfig.from_dict(config.to_dict()))
        if start_from is not None:
            model.load_state_dict(start_from.state_dict())
        return model

    return fit_embedding(
        make,
        windows,
        SASRecCollator(),
        folder=Path(output_dir),
        contents={"sequences": windows.sequences, "validation": validation},
        arguments={
            "learning_rate": learning_rate,
            "lr_scheduler_type": "cosine" if patience is None else "constant_with_warmup",
            "warmup_steps": min(100, num_epochs * -(-len(windows) // batch_size) // 10),
        },
        seed=seed,
        num_epochs=num_epochs,
        batch_size=batch_size,
        num_evaluations=num_evaluations,
        evaluate=None if validation is None else lambda model: rank_validation(model, validation),
        sampler=BlockShuffle(len(windows), seed=seed) if len(windows) > LARGE_SHUFFLE else None,
        make_optimizer=_row_optimizer if config.num_sampled_negatives else None,
        patience=None if validation is None else patience,
        time=time,
        evaluate_few=None if validation is None else lambda model: rank_validation(model, few),
    )


def _row_optimizer(model: SASRecForNextItem, training: TrainingArguments) -> torch.optim.AdamW:
    table = model.model.item_embedding
    use_row_gradients(table, training)
    return make_adamw(model, [table], training, table_rate=training.learning_rate)


class SequenceWindows(Dataset[dict[str, np.ndarray]]):
    """Each user's tokens, cut from the end into windows of `max_history` inputs; made when they are asked for.

    Args:
        sequences ([`Ragged`]): Item rows of each user.
        config ([`SASRecConfig`]): Configuration of the model.

    Raises:
        RequestError: If a row is not one of the `num_items` items.
    """

    def __init__(self, sequences: Ragged, config: SASRecConfig) -> None:
        # Mapped or not, they are the same contents.
        self.sequences = Ragged(np.asarray(sequences.values), np.asarray(sequences.offsets))
        self.config = config
        for _, block in row_blocks(self.sequences.values):
            if block.min() < 0 or block.max() >= config.num_items:
                to_tokens(block, config)
        lengths = np.diff(self.sequences.offsets)
        # A window for every `max_history` items of a user, the last of which may be short.
        counts = -(-lengths // config.max_history)
        ends = np.cumsum(counts)
        self.num_windows = int(counts.sum())
        # Of each window the user, and its number from the user's end. Small numbers: there may be many windows.
        self.user = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
        self.number = (np.arange(self.num_windows) - np.repeat(ends - counts, counts)).astype(np.int32)

    def __len__(self) -> int:
        return self.num_windows

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        user, most = int(self.user[index]), self.config.max_history
        begin, end = self.sequences.offsets[user : user + 2].tolist()
        # Inputs stand one before the items that they predict: the first window begins with the start token.
        last = end - int(self.number[index]) * most
        first = last - most - 1
        tokens = np.array(self.sequences.values[max(first, begin) : last], np.int64) + 1
        return {"tokens": tokens if first >= begin else np.concatenate([[self.config.start_token_id], tokens])}


class BlockShuffle(Sampler[int]):
    """The windows of an epoch in an order that takes little memory: blocks of neighbours, mixed a buffer at a time.

    A whole shuffle makes a Python number of each window at once, and reads a file all over.

    Args:
        num_windows (`int`): Windows.
        seed (`int`): Seed of the order, together with the epoch.
    """

    def __init__(self, num_windows: int, *, seed: int) -> None:
        self.num_windows, self.seed, self.epoch = num_windows, seed, 0

    def __len__(self) -> int:
        return self.num_windows

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        blocks = generator.permutation(-(-self.num_windows // _BLOCK))
        for start in range(0, len(blocks), _BLOCKS_OF_BUFFER):
            first = blocks[start : start + _BLOCKS_OF_BUFFER, None] * _BLOCK
            windows = (first + np.arange(_BLOCK)).ravel()
            yield from generator.permutation(windows[windows < self.num_windows]).tolist()


def rank_validation(model: SASRecForNextItem, validation: Validation, *, batch_size: int = 256) -> dict[str, float]:
    """Rank each target among all items that its history does not hold.

    Args:
        model ([`SASRecForNextItem`]): The model.
        validation (`Sequence[tuple[np.ndarray, int]]`): Pairs of a history (item rows) and the item row that followed.
        batch_size (`int`): Number of histories in one call of the model.

    Returns:
        `dict`: `recall@10` and `ndcg@10`, means over `validation`. Ties are averaged over their orders; a target
        that its own history contains counts as missed.
    """
    histories = [history for history, _ in validation]
    targets = np.array([target for _, target in validation], dtype=np.int64)
    return rank_targets(
        lambda part: model.score(histories[part], batch_size=batch_size), histories, targets, batch_size=batch_size
    )
