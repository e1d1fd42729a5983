# SPDX-License-Identifier: Apache-2.0
"""Encode the epoch in the row numbers of training data, for collators that draw again in each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch.utils.data import Dataset, Sampler
from transformers import TrainingArguments

from seekrec.corpora import MixtureSampler
from seekrec.corpora.shards import Shards
from seekrec.training.shards import ShardSampler


class CodedRows(Dataset[int]):
    """Row codes as a data set: a collator makes batches of them; see [`CodeSampler`].

    Args:
        num_rows (`int`): Rows of an epoch's data.
    """

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> int:
        return index


class CodeSampler(Sampler[int]):
    """Sampler of `epoch * num_rows + row` in place of a row, so that a collator can tell the epochs apart.

    Args:
        rows ([`MixtureSampler`]): Draws the rows.
    """

    def __init__(self, rows: MixtureSampler) -> None:
        self.rows = rows
        self.num_rows = sum(rows.num_rows.values())

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        first = self.rows.epoch * self.num_rows
        return (first + row for row in self.rows)


def data_seed(arguments: TrainingArguments) -> int:
    """Return the seed of what is drawn of the data."""
    return arguments.seed if arguments.data_seed is None else arguments.data_seed


def sample_rows(
    rows: Shards | Mapping[str, int],
    arguments: TrainingArguments,
    *,
    lengths: np.ndarray | None = None,
    weights: Mapping[str, float] | None = None,
    epoch_size: int | None = None,
) -> Sampler[int]:
    """Return the sampler of the codes of rows, in batches of like length, for as many processes as train.

    Args:
        rows (`Shards` or `Mapping[str, int]`): Shards, or how many rows of each task are in memory.
        arguments (`TrainingArguments`): Seed, size of a batch, processes.
        lengths (`np.ndarray`, *optional*): int64 length of each row in memory.
        weights (`Mapping[str, float]`, *optional*): Weight of each task; if not given, an epoch has each row once.
        epoch_size (`int`, *optional*): Rows of an epoch with weights; as in `rows_per_epoch` if not given.
    """
    seed, size, processes = data_seed(arguments), arguments.per_device_train_batch_size, arguments.world_size
    if isinstance(rows, Shards):
        return ShardSampler(
            rows, batch_size=size, num_processes=processes, seed=seed, weights=weights, epoch_size=epoch_size
        )
    own = {name: float(count) for name, count in rows.items()} if weights is None else weights
    in_memory = MixtureSampler(
        rows, own, epoch_size=epoch_size, seed=seed, lengths=lengths, batch_size=size * processes
    )
    return CodeSampler(in_memory)


__all__ = ["CodeSampler", "CodedRows", "data_seed", "sample_rows"]
