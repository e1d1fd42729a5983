# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from seekrec.corpora import Seq2SeqCollator
from seekrec.errors import DataError

ROWS = [
    {"input_ids": [5, 6, 7], "labels": [8], "user_id": "ann"},
    {"input_ids": [9], "labels": [3, 4], "user_id": "bob"},
]


def test_pads_to_the_longest():
    batch = Seq2SeqCollator(pad_token_id=0)(ROWS)
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, -100], [3, 4]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_rows_without_labels():
    assert sorted(Seq2SeqCollator(0)([{"input_ids": [1]}])) == ["attention_mask", "input_ids"]


def test_refusals():
    with pytest.raises(DataError, match="`rows` is empty; give at least one row"):
        Seq2SeqCollator(0)([])
