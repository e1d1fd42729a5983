# SPDX-License-Identifier: Apache-2.0
"""Updates of rows against AdamW of the whole table, where the two are the same thing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.embeddings import softmax as softmax_module
from seekrec.training import row_adamw, sasrec
from seekrec.training.row_adamw import RowAdamW, clip_gradients, make_adamw, use_row_gradients


class Net(nn.Module):
    """A table of eight rows, read through a layer."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(8, 3), nn.Linear(3, 2)

    def forward(self, rows):
        return (self.layer(self.table(rows)) ** 2).sum(-1).mean()


def make_pair(seed=0, **group):
    """Two equal nets, the first with gradients of rows, and the optimizer of each."""
    torch.manual_seed(seed)
    by_rows = Net()
    whole = copy.deepcopy(by_rows)
    by_rows.table.sparse = True
    options = {"lr": 0.1, "betas": (0.9, 0.98), "weight_decay": 0.3} | group
    return (by_rows, RowAdamW(by_rows.parameters(), **options)), (
        whole,
        torch.optim.AdamW(whole.parameters(), **options),
    )


def step(net, optimizer, rows):
    optimizer.zero_grad()
    net(torch.tensor(rows)).backward()
    optimizer.step()


def test_rows_that_every_step_reads_are_where_adamw_has_them():
    (net, optimizer), (whole, other) = make_pair()
    start = net.table.weight.detach().clone()
    # Row 1 twice in a batch; rows 4 to 7 never.
    for rows in ([0, 1, 1, 2, 3], [3, 2, 1, 0], [0, 0, 1, 2, 3], [1, 2, 3, 0]):
        step(net, optimizer, rows)
        step(whole, other, rows)
        assert net.table.weight.grad.is_sparse
        torch.testing.assert_close(net.table.weight[:4], whole.table.weight[:4])
        torch.testing.assert_close(net.layer.weight, whole.layer.weight)
    # What was not read has not moved; AdamW shrinks it.
    assert torch.equal(net.table.weight[4:], start[4:])
    torch.testing.assert_close(whole.table.weight[4:], start[4:] * (1 - 0.1 * 0.3) ** 4)
    # The same state under the same names: either goes on from the other's.
    state, state_of_whole = optimizer.state[net.table.weight], other.state[whole.table.weight]
    assert state.keys() == state_of_whole.keys()
    for name, value in state.items():
        assert value.shape == state_of_whole[name].shape and value.dtype == state_of_whole[name].dtype


def test_a_row_that_is_read_later_has_its_moments_kept_and_the_count_of_steps():
    (net, optimizer), _ = make_pair(weight_decay=0.0)
    moments = {"mean": torch.zeros(3), "square": torch.zeros(3)}
    expected = net.table.weight[5].detach().clone()
    for number, rows in enumerate([[0, 5], [1, 2], [3], [5]], start=1):
        optimizer.zero_grad()
        net(torch.tensor(rows)).backward()
        if 5 in rows:
            gradient = net.table.weight.grad.coalesce().to_dense()[5]
            moments["mean"] = 0.9 * moments["mean"] + 0.1 * gradient
            moments["square"] = 0.98 * moments["square"] + 0.02 * gradient**2
            mean, square = moments["mean"] / (1 - 0.9**number), moments["square"] / (1 - 0.98**number)
            expected = expected - 0.1 * mean / (square.sqrt() + 1e-8)
        optimizer.step()
        torch.testing.assert_close(net.table.weight[5].detach(), expected)


def test_whole_gradients_are_adamws_own_to_the_bit():
    (net, optimizer), (whole, other) = make_pair()
    net.table.sparse = False
    for rows in ([0, 1, 1], [2, 3], [7]):
        step(net, optimizer, rows)
        step(whole, other, rows)
    for one, two in zip(net.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("max_norm", [0.01, 100.0, float("inf")])
def test_gradients_of_rows_are_clipped_as_whole_ones(max_norm):
    (net, _), (whole, _) = make_pair()
    for model in (net, whole):
        model(torch.tensor([0, 1, 1, 6])).backward()
    found = clip_gradients(net.parameters(), max_norm)
    torch.testing.assert_close(found, nn.utils.clip_grad_norm_(whole.parameters(), max_norm))
    torch.testing.assert_close(net.table.weight.grad.to_dense(), whole.table.weight.grad)
    torch.testing.assert_close(net.layer.weight.grad, whole.layer.weight.grad)


def test_learning_rates_and_decay_by_group(tmp_path):
    (net, _), _ = make_pair()
    training = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=0.2, weight_decay=0.4, adam_beta2=0.9, use_cpu=True
    )
    optimizer = make_adamw(net, [net.table], training, table_rate=0.7)
    assert type(optimizer) is RowAdamW
    assert [group["lr"] for group in optimizer.param_groups] == [0.7, 0.2, 0.2]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.4, 0.0]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1]
    # A table below the size is none of this.
    assert not use_row_gradients(net.table, training) and not net.table.sparse
    assert type(make_adamw(net, [net.table], training, table_rate=0.7)) is torch.optim.AdamW


def test_a_training_by_rows_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    """Through the Trainer: clipping off, evaluation, a checkpoint, and on from there."""
    monkeypatch.setattr(row_adamw, "LARGE_CATALOG", 5)
    generator = np.random.default_rng(0)
    sequences = [generator.permutation(30)[:6] for _ in range(24)]
    validation = [(row[:-1], int(row[-1])) for row in sequences[:4]]
    config = SASRecConfig(num_items=30, hidden_size=8, num_hidden_layers=1, max_history=6, num_sampled_negatives=7)
    moved = []

    def train(folder):
        settings = {"num_epochs": 4, "batch_size": 8, "seed": 3, "num_evaluations": 4, "learning_rate": 0.01}
        return sasrec.train_sasrec(sequences, validation, config, output_dir=tmp_path / folder, **settings)

    plain_step = RowAdamW.step

    def counted(self, *arguments):
        if len(moved) == 20:
            moved.append(0)
            raise RuntimeError("the power is out")
        moved.append(sum(weight.grad.is_sparse for group in self.param_groups for weight in group["params"]))
        return plain_step(self, *arguments)

    monkeypatch.setattr(RowAdamW, "step", counted)
    whole = train("whole")
    assert moved == [1] * 12  # three steps an epoch, each with one gradient of rows
    with pytest.raises(RuntimeError, match="the power is out"):
        train("cut")
    resumed = train("cut")
    # It stopped in its ninth step; six were in a checkpoint.
    assert len(moved) == 12 + 9 + 6
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_sasrec_over_a_large_catalogue_samples(monkeypatch):
    assert softmax_module.LARGE_CATALOG == row_adamw.LARGE_CATALOG
    model = SASRecForNextItem(SASRecConfig(num_items=300, hidden_size=8, num_sampled_negatives=5)).train()
    model.model.item_embedding.sparse = True
    inputs = {"input_ids": torch.tensor([[301, 3]]), "labels": torch.tensor([[3, 9]])}
    model(**inputs).loss.backward()
    # The inputs, the targets and what was drawn: no more rows than those.
    assert len(model.model.item_embedding.weight.grad.coalesce().indices()[0]) <= 2 + 2 + 5
