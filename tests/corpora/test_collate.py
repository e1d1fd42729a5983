# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from seekrec.corpora import Seq2SeqCollator
from seekrec.errors import ConfigurationError, DataError

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


def test_padding_can_be_rounded_up_and_chosen():
    batch = Seq2SeqCollator(pad_token_id=2, label_padding=-1, pad_to_multiple_of=8)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2, 2, 2, 2, 2], [9, 2, 2, 2, 2, 2, 2, 2]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 1]
    assert batch["labels"].tolist() == [[8, -1], [3, 4]]
    # Eight already is a multiple.
    assert Seq2SeqCollator(0, pad_to_multiple_of=8)([{"input_ids": [1] * 8}])["input_ids"].shape == (1, 8)


def test_rows_without_labels():
    assert sorted(Seq2SeqCollator()([{"input_ids": [1]}])) == ["attention_mask", "input_ids"]


def test_refusals():
    with pytest.raises(DataError, match="`rows` is empty; give at least one row"):
        Seq2SeqCollator()([])
    with pytest.raises(ConfigurationError, match="`pad_to_multiple_of` is 0; give 1 or more, or None"):
        Seq2SeqCollator(pad_to_multiple_of=0)
