# SPDX-License-Identifier: Apache-2.0
"""Rows of a corpus as a padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from seekrec.errors import ConfigurationError, DataError
from seekrec.util.constants import LABEL_PADDING
from seekrec.util.ragged import Ragged


class Seq2SeqCollator:
    """Pads instructions and answers to the longest of the batch, on the right.

    Args:
        pad_token_id (`int`): Fills `input_ids`.
        label_padding (`int`): Fills `labels`; -100 is what the loss leaves out.
        pad_to_multiple_of (`int`, *optional*): Round the width of `input_ids` up, as tensor cores like it.

    Raises:
        ConfigurationError: If `pad_to_multiple_of` is below 1.

    Example:
        >>> batch = Seq2SeqCollator(0)([{"input_ids": [5, 6], "labels": [7]}, {"input_ids": [8], "labels": [9, 1]}])
        >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist(), batch["labels"].tolist()
        ([[5, 6], [8, 0]], [[1, 1], [1, 0]], [[7, -100], [9, 1]])
    """

    def __init__(
        self, pad_token_id: int = 0, *, label_padding: int = LABEL_PADDING, pad_to_multiple_of: int | None = None
    ) -> None:
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ConfigurationError(f"`pad_to_multiple_of` is {pad_to_multiple_of}; give 1 or more, or None.")
        self.pad_token_id = pad_token_id
        self.label_padding = label_padding
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): Each with `input_ids` and, in training, `labels`; other columns are left out.

        Returns:
            `dict[str, torch.Tensor]`: int64 `input_ids` and `attention_mask` of shape `(batch, width)`, `labels` of
            shape `(batch, label_width)`.

        Raises:
            DataError: If `rows` is empty.
        """
        if not rows:
            raise DataError("`rows` is empty; give at least one row.")
        input_ids = _pad([row["input_ids"] for row in rows], self.pad_token_id, self.pad_to_multiple_of or 1)
        lengths = np.array([len(row["input_ids"]) for row in rows])
        mask = np.arange(input_ids.shape[1]) < lengths[:, None]
        batch = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        if "labels" in rows[0]:
            batch["labels"] = torch.from_numpy(_pad([row["labels"] for row in rows], self.label_padding))
        return batch


class StreamCollator:
    """Pads rows of many targets and rows of one, side by side, to tensors.

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
        full = [self._complete(row) for row in rows]
        fills = {
            "input_ids": self.pad_token_id,
            "decoder_input_ids": self.pad_token_id,
            "labels": LABEL_PADDING,
            "decoder_segment_ids": -1,
            # Padding must see something, or its softmax is over nothing.
            "decoder_history_lengths": 1,
        }
        batch = {name: torch.from_numpy(_pad([row[name] for row in full], fill)) for name, fill in fills.items()}
        lengths = torch.tensor([len(row["input_ids"]) for row in full])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        return batch

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


def _pad(rows: Sequence[Sequence[int]], filler: int, multiple: int = 1) -> np.ndarray:
    width = max(len(row) for row in rows)
    return Ragged.from_lists(rows, np.int64).pad(filler, width=-(-width // multiple) * multiple)


__all__ = ["Seq2SeqCollator", "StreamCollator"]
