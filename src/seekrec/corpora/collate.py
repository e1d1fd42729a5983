# SPDX-License-Identifier: Apache-2.0
"""Collate rows of a corpus into a padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from seekrec.errors import DataError
from seekrec.util.constants import LABEL_PADDING
from seekrec.util.ragged import Ragged


class Seq2SeqCollator:
    """Pad instructions and answers on the right, to the longest of the batch.

    Args:
        pad_token_id (`int`): Fills `input_ids`; `labels` are filled with -100, which the loss leaves out.

    Example:
        >>> batch = Seq2SeqCollator(0)([{"input_ids": [5, 6], "labels": [7]}, {"input_ids": [8], "labels": [9, 1]}])
        >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist(), batch["labels"].tolist()
        ([[5, 6], [8, 0]], [[1, 1], [1, 0]], [[7, -100], [9, 1]])
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): Each with `input_ids` and, in training, `labels`; other columns are left out.

        Returns:
            `dict[str, torch.Tensor]`: int64 `input_ids` and `attention_mask` of shape `(batch, length)`, `labels` of
            shape `(batch, target_length)`.

        Raises:
            DataError: If `rows` is empty.
        """
        if not rows:
            raise DataError("`rows` is empty; give at least one row.")
        return _pad(rows, {"input_ids": self.pad_token_id, "labels": LABEL_PADDING})


class StreamCollator:
    """Pad rows with many targets and rows with one to the tensors of one batch.

    A row of [`build_stream`] brings its decoder columns. A row of [`build_corpus`] has only `input_ids` and
    `labels`: it becomes one target that sees its whole instruction, its decoder inputs the labels shifted right.

    Args:
        pad_token_id (`int`): Fills `input_ids` and `decoder_input_ids`.
        decoder_start_token_id (`int`): First decoder input of a row with one target.
    """

    def __init__(self, pad_token_id: int, decoder_start_token_id: int) -> None:
        self.pad_token_id = pad_token_id
        self.decoder_start_token_id = decoder_start_token_id

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Make one batch.

        Returns:
            `dict[str, torch.Tensor]`: int64 `input_ids` and `attention_mask` of shape `(batch, length)`;
            `decoder_input_ids`, `labels` (-100 for padding), `decoder_segment_ids` (-1 for padding) and
            `decoder_history_lengths` (1 for padding) of shape `(batch, target_length)`.
        """
        fills = {
            "input_ids": self.pad_token_id,
            "decoder_input_ids": self.pad_token_id,
            "labels": LABEL_PADDING,
            "decoder_segment_ids": -1,
            # Padding must see something, or its softmax is over nothing.
            "decoder_history_lengths": 1,
        }
        return _pad([self._complete(row) for row in rows], fills)

    def _complete(self, row: Mapping[str, Sequence[int]]) -> Mapping[str, Sequence[int]]:
        if row.get("decoder_input_ids") is not None:
            return row
        labels = list(row["labels"])
        return {
            "input_ids": row["input_ids"],
            "labels": labels,
            "decoder_input_ids": [self.decoder_start_token_id, *labels[:-1]],
            "decoder_segment_ids": [0] * len(labels),
            "decoder_history_lengths": [len(row["input_ids"])] * len(labels),
        }


def _pad(rows: Sequence[Mapping[str, Sequence[int]]], fills: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Pad the columns that the rows have, each with its filler, and add the mask of `input_ids`."""
    columns = {name: Ragged.from_lists([row[name] for row in rows], np.int64) for name in fills if name in rows[0]}
    batch = {name: torch.from_numpy(column.pad(fills[name])) for name, column in columns.items()}
    inputs = columns["input_ids"]
    batch["attention_mask"] = torch.from_numpy(inputs.pad(0, np.ones_like(inputs.values)))
    return batch


__all__ = ["Seq2SeqCollator", "StreamCollator"]
