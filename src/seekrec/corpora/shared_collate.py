# SPDX-License-Identifier: Apache-2.0
"""Batches for a model with `shared_history`: rows with many targets and rows with one, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from seekrec.util.ragged import Ragged


class SharedHistoryCollator:
    """Pads rows to tensors.

    A row of [`build_shared_histories`] brings its decoder columns. A row of [`build_corpus`] has only `input_ids` and
    `labels`: it becomes one target that sees its whole instruction, its decoder inputs the labels shifted right.

    Args:
        pad_token_id (`int`): Fills `input_ids` and `decoder_input_ids`.
        decoder_start_token_id (`int`): First decoder input of a row with one target.
    """

    def __init__(self, pad_token_id: int, decoder_start_token_id: int) -> None:
        self.pad_token_id = pad_token_id
        self.decoder_start_token_id = decoder_start_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
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
            "labels": -100,
            "decoder_segment_ids": -1,
            # Padding must see something, or its softmax is over nothing.
            "decoder_history_lengths": 1,
        }
        batch = {name: _pad([row[name] for row in full], fill) for name, fill in fills.items()}
        lengths = torch.tensor([len(row["input_ids"]) for row in full])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        return batch

    def _complete(self, row: dict[str, Any]) -> dict[str, Any]:
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


def _pad(rows: list[Any], fill: int) -> torch.Tensor:
    return torch.from_numpy(Ragged.from_arrays([np.asarray(row) for row in rows]).pad(fill))


__all__ = ["SharedHistoryCollator"]
