# SPDX-License-Identifier: Apache-2.0
"""Rows of training data as numbers that tell the epochs apart, for collators that draw anew in each epoch."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Dataset, Sampler

from seekrec.corpora import MixtureSampler


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


__all__ = ["CodeSampler", "CodedRows"]
