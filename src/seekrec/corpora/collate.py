# SPDX-License-Identifier: Apache-2.0
"""Rows of a corpus as a padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from seekrec.corpora.decode import LABEL_PADDING
from seekrec.errors import ConfigurationError, DataError
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

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows (`Sequence[Mapping]`): Each with `input_ids` and, in training, `labels`; other columns are left out.

        Returns:
            `dict[str, torch.Tensor]`: int64 `input_ids` and `attention_mask` of shape `(batch, width)`, `labels` of
            shape `(batch, label_width)`.

        Raises:
            DataError: If there is no row.
        """
        if not rows:
            raise DataError("There is no row to make a batch of; give one at least.")
        input_ids = _pad([row["input_ids"] for row in rows], self.pad_token_id, self.pad_to_multiple_of or 1)
        lengths = np.array([len(row["input_ids"]) for row in rows])
        mask = np.arange(input_ids.shape[1]) < lengths[:, None]
        batch = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        if "labels" in rows[0]:
            batch["labels"] = torch.from_numpy(_pad([row["labels"] for row in rows], self.label_padding, 1))
        return batch


def _pad(rows: Sequence[Sequence[int]], filler: int, multiple: int) -> np.ndarray:
    width = max(len(row) for row in rows)
    return Ragged.from_lists(rows, np.int64).pad(filler, width=-(-width // multiple) * multiple)
