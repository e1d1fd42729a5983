# SPDX-License-Identifier: Apache-2.0
"""IntSR's block and bias against the same written out: one placeholder, one pair of tokens at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5Attention

from seekrec.models import IntSRConfig
from seekrec.models.intsr.modeling_intsr import QueryDrivenBlock, RelativeBias


def answer_one(block, state, keys, values, allowed, bias, own_bias):
    """Equations 7 and 9 for one placeholder, `(hidden_size,)`, over the keys that it sees, head by head."""
    size = len(state)
    gates, query, own_key, own_value = F.silu(block.project(block.input_norm(state))).chunk(4)
    heads = []
    for head in range(block.num_heads):
        part = slice(head * size // block.num_heads, (head + 1) * size // block.num_heads)
        mixed = F.silu(query[part] @ own_key[part] + own_bias[head]) * own_value[part]
        for number in allowed.nonzero()[:, 0].tolist():
            weight = F.silu(query[part] @ keys[head, number] + bias[head, number])
            mixed = mixed + weight * values[head, number]
        heads.append(mixed)
    count = block.length or int(allowed.sum()) + 1
    return state + block.output(block.mixed_norm(torch.cat(heads) / count) * gates)


@pytest.mark.parametrize("rows_of_bias", [1, 2])
@pytest.mark.parametrize("without", [[], ["placeholders"]])
def test_placeholders_answer_together_as_each_alone(without, rows_of_bias):
    torch.manual_seed(0)
    batch, groups, size, num_keys = 2, 3, 2, 5
    block = QueryDrivenBlock(IntSRConfig(hidden_size=8, dropout=0.0, without=without, max_history=7)).double()
    hidden = torch.randn(batch, groups, size, 8, dtype=torch.float64, requires_grad=True)
    keys, values = (
        torch.randn(batch, 2, num_keys, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(batch, 2, num_keys, 4, dtype=torch.float64, requires_grad=True),
    )
    allowed = torch.rand(batch, groups, num_keys) < 0.6
    allowed[0, 0] = False  # a question at the start sees itself alone
    bias = torch.randn(rows_of_bias, 2, groups, num_keys, dtype=torch.float64, requires_grad=True)
    own_bias = torch.randn(2, 1, 1, dtype=torch.float64, requires_grad=True)

    def answer(bias, own_bias):
        found, _, _ = block(hidden.flatten(1, 2), (keys, values), allowed, bias, own_bias, asks=True)
        return found.view_as(hidden)

    together = answer(bias, own_bias)
    alone = torch.stack(
        [
            answer_one(
                block,
                hidden[row, group, place],
                keys[row],
                values[row],
                allowed[row, group],
                bias[row % rows_of_bias, :, group],
                own_bias[:, 0, 0],
            )
            for row in range(batch)
            for group in range(groups)
            for place in range(size)
        ]
    ).view_as(hidden)
    torch.testing.assert_close(together, alone)
    weights = [hidden, keys, values, bias, own_bias, *block.parameters()]
    wanted = torch.randn_like(together)
    for one, other in zip(
        torch.autograd.grad((together * wanted).sum(), weights),
        torch.autograd.grad((alone * wanted).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    # Without a bias.
    unbiased = answer(None, None)
    zero = answer(torch.zeros_like(bias), torch.zeros_like(own_bias))
    torch.testing.assert_close(unbiased, zero)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("kind", ["alibi", "buckets", "position"])
def test_the_bias_is_that_of_each_pair(kind, alike):
    torch.manual_seed(1)
    config = IntSRConfig(relative_bias=kind, num_position_buckets=8, max_history=5)
    bias = RelativeBias(config)
    for weight in bias.parameters():
        torch.nn.init.normal_(weight)
    position = torch.stack([torch.arange(30), torch.arange(30) + (0 if alike else 3)])
    seen = torch.stack([torch.arange(25), torch.arange(25)])
    time, seen_time = torch.randint(0, 10**9, (2, 30)), torch.randint(0, 10**9, (2, 25))
    found = bias(position, seen, time, seen_time)
    # Rows that are numbered alike share their bias, unless time tells them apart.
    assert found.shape == (1 if alike and kind == "position" else 2, 2, 30, 25)

    expected = torch.empty(2, 2, 30, 25)
    for row in range(2):
        for one in range(30):
            for other in range(25):
                distance = max(0, int(position[row, one] - seen[row, other]))
                bucket = T5Attention._relative_position_bucket(
                    torch.tensor(-distance), bidirectional=False, num_buckets=8, max_distance=20
                )
                seconds = max(0, int(time[row, one] - seen_time[row, other]))
                value = bias.position[bucket]
                if kind == "alibi":
                    value = value - bias.slopes * math.log2(1 + seconds)
                if kind == "buckets":
                    value = value + bias.time_buckets[min(128, int(math.log(max(seconds, 1)) / 0.301))]
                expected[row, :, one, other] = value
    torch.testing.assert_close(found.expand_as(expected), expected)
    weights = list(bias.parameters())
    wanted = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad((found * wanted).sum(), weights),
        torch.autograd.grad((expected * wanted).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
