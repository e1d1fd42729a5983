# SPDX-License-Identifier: Apache-2.0
"""The order of an epoch follows from the rows, the weights and the seed of the data."""

import numpy as np
from transformers import TrainingArguments

from seekrec.corpora import MixtureSampler
from seekrec.training.coded_rows import sample_rows

ROWS, LENGTHS = {"short": 5, "long": 3}, np.array([1, 2, 3, 4, 5, 30, 20, 10])


def test_rows_in_memory_come_once_an_epoch_or_by_weight(tmp_path):
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=2, seed=3, data_seed=7, use_cpu=True, report_to="none"
    )
    sampler = sample_rows(ROWS, arguments, lengths=LENGTHS)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert sorted(epochs[epoch]) == list(range(8 * epoch, 8 * epoch + 8))
    # The seed of the data, not of the training; a batch of two rows is of like length.
    drawn = MixtureSampler(ROWS, {"short": 5, "long": 3}, seed=7, lengths=LENGTHS, batch_size=2)
    assert epochs[0] == list(drawn)
    by_weight = sample_rows(ROWS, arguments, lengths=LENGTHS, weights={"long": 1}, epoch_size=6)
    assert sorted(by_weight) == [5, 5, 6, 6, 7, 7]
