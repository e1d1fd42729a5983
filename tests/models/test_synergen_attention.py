# SPDX-License-Identifier: Apache-2.0
"""SynerGen's two kinds of attention: the same mask, the same answers, and how one of them is chosen."""

from __future__ import annotations

import pytest
import torch
from dense_questions import REQUESTS, assert_same_scores, collate
from small_shop import make_synergen
from transformers import AutoModel

from seekrec.models.dense.modeling_dense import TokenPositions
from seekrec.models.synergen.modeling_synergen import context_block_mask, context_mask, uses_flex

# torch says once a process that flex attention is slow unless it is compiled, which it is on a GPU.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def test_the_block_mask_is_the_mask_of_context_tokens():
    # 150 tokens are more than one block of 128; every third shares the second of the one before, some are padding.
    time = (torch.arange(150) - torch.arange(150) % 3 // 2).expand(2, -1).contiguous()
    is_real = torch.rand(2, 150) < 0.8
    positions = TokenPositions(time, torch.zeros_like(time), time, time, torch.full_like(time, -1), is_real)
    mask_mod = context_block_mask(time, is_real).mask_mod
    rows, queries, keys = torch.meshgrid(torch.arange(2), torch.arange(150), torch.arange(150), indexing="ij")
    found = mask_mod(rows, torch.tensor(0), queries, keys)
    assert torch.equal(found, context_mask(positions, positions))


@torch.no_grad()
def test_flex_attention_reads_histories_as_sdpa_does():
    model, processor = make_synergen(num_hidden_layers=3, queries_in_context=True)
    batch = processor(REQUESTS)
    assert not batch["history_mask"].all()
    model.set_attn_implementation("sdpa")
    expected = model.model(batch)
    model.set_attn_implementation("flex_attention")
    assert model.config._attn_implementation == model.model.config._attn_implementation == "flex_attention"
    found = model.model(batch)
    for one, other in zip((*found.keys, *found.values), (*expected.keys, *expected.values), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_loaded_model_attends_as_it_was_asked_to(tmp_path):
    model, processor = make_synergen()
    assert model.config._attn_implementation == "auto"
    model.save_pretrained(tmp_path)
    expected = model.retrieve(processor(REQUESTS), top_k=5, exclude_seen=False)
    for implementation in ("auto", "sdpa", "flex_attention"):
        loaded = AutoModel.from_pretrained(tmp_path, attn_implementation=implementation)
        assert loaded.config._attn_implementation == implementation
        assert_same_scores(loaded.retrieve(processor(REQUESTS), top_k=5, exclude_seen=False), expected)
    # What fits one machine is not written down for the next.
    loaded.save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "auto"
    with pytest.raises(ValueError, match="`attn_implementation` is 'eager'; use one of auto, sdpa, flex_attention"):
        AutoModel.from_pretrained(tmp_path, attn_implementation="eager")


@pytest.mark.parametrize(
    ("implementation", "device", "head_size", "expected"),
    [
        ("auto", "cpu", 32, False),
        ("auto", "cuda", 32, True),
        ("auto", "cuda", 8, False),  # the kernel takes heads from 16 on
        ("sdpa", "cuda", 32, False),
        ("flex_attention", "cpu", 8, True),
    ],
)
def test_auto_goes_by_the_device(implementation, device, head_size, expected):
    assert uses_flex(implementation, torch.device(device), head_size) is expected


@pytest.mark.gpu
def test_flex_attention_on_a_gpu_learns_as_sdpa_does(windows):
    results = []
    for implementation in ("sdpa", "flex_attention"):
        model, processor = make_synergen(hidden_size=64, dropout=0.0, negatives="full")
        model.set_attn_implementation(implementation)
        model.cuda().train()
        batch = {name: value.cuda() for name, value in collate(windows, processor, [0, 3, 7]).items()}
        loss = model(**batch).loss
        loss.backward()
        weight = model.model.layers[0].attention_input.weight
        results.append((loss.detach(), weight.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-3)
