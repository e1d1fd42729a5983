# SPDX-License-Identifier: Apache-2.0
"""Packed layers compute what they did, and are ordinary layers to everyone else."""

from __future__ import annotations

import copy
import io
import logging

import numpy as np
import pytest
import torch
from torch import nn

from seekrec.generation import IdentifierTrie, beam_search, packed_linears, score_candidates

SIZES = (5, 4, 6)
OFFSETS = [40, 60, 80]

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no oneDNN"
)


def make_layer(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 48, bias=bias), nn.ReLU(), nn.Linear(48, 8, bias=bias))


def is_packed(layer):
    return type(layer) is not nn.Linear


@pytest.mark.parametrize("kind", ["t5", "t5-1.1", "bart", "mbart"])
@pytest.mark.parametrize("norm", ["vocab", "level"])
def test_search_and_scores_stay_the_same(get_model, make_batch, kind, norm):
    model = get_model(kind)
    codes = np.stack([np.random.default_rng(0).integers(0, size, 60) for size in SIZES], axis=1)
    options = {**make_batch([9, 4]), "level_offsets": OFFSETS, "norm": norm}
    searching = {"trie": IdentifierTrie.from_codes(codes, SIZES), "num_beams": 60}
    scoring = {"codes": [codes, codes[:7]], "codebook_size": SIZES}
    found, scores = beam_search(model, **options, **searching), score_candidates(model, **options, **scoring)
    with packed_linears(model, min_weights=1) as count:
        # Encoder and decoder layers and the head, whatever their number.
        assert count == sum(isinstance(module, nn.Linear) for module in model.modules()) > 20
        packed_found = beam_search(model, **options, **searching)
        packed_scores = score_candidates(model, **options, **scoring)
    for row in range(2):
        np.testing.assert_array_equal(packed_found.rows[row], found.rows[row])
        np.testing.assert_allclose(packed_found.scores[row], found.scores[row], atol=1e-4)
        np.testing.assert_allclose(packed_scores[row], scores[row], atol=1e-4)
    assert not any(is_packed(module) for module in model.modules() if isinstance(module, nn.Linear))


def test_only_large_float32_linears_are_packed():
    model = nn.ModuleList(
        [nn.Linear(512, 256), nn.Linear(512, 255), nn.Linear(512, 512).bfloat16(), nn.Bilinear(64, 64, 64)]
    )
    with packed_linears(model) as count:
        assert count == 1
        assert [is_packed(layer) for layer in model[:3]] == [True, False, False]


def test_saving_copying_and_leaving_give_ordinary_layers():
    model = make_layer()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = torch.randn(3, 24)
    expected = model(rows)
    with packed_linears(model, min_weights=1) as count:
        assert count == 2
        with packed_linears(model, min_weights=1) as again:
            assert again == 0
        assert is_packed(model[0])
        assert isinstance(model[0], nn.Linear)
        assert model.state_dict().keys() == before.keys()
        buffer = io.BytesIO()
        torch.save(model, buffer)
        copied = copy.deepcopy(model)
    assert not is_packed(model[0])
    buffer.seek(0)
    for other in (model, copied, torch.load(buffer, weights_only=False)):
        assert type(other[0]) is type(other[2]) is nn.Linear
        assert vars(other[0]).keys() == vars(nn.Linear(2, 2)).keys()
        torch.testing.assert_close(other(rows), expected)
        for name, tensor in other.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_the_block_ends_packing_after_an_error():
    model = make_layer()
    with pytest.raises(KeyError), packed_linears(model, min_weights=1):
        raise KeyError
    assert not is_packed(model[0])


@pytest.mark.parametrize("bias", [True, False])
def test_training_inside_the_block_is_training(bias):
    rows, reference = torch.randn(6, 24, requires_grad=True), make_layer(bias)
    reference(rows).square().sum().backward()
    expected, rows.grad = rows.grad, None
    model = make_layer(bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with packed_linears(model, min_weights=1):
        model(rows).square().sum().backward()
        torch.testing.assert_close(rows.grad, expected)
        for own, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad)
        optimizer.step()
        with torch.no_grad():  # the weights are no longer those that were packed
            torch.testing.assert_close(model(rows), copy.deepcopy(model)(rows))


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.load_state_dict({"weight": torch.zeros(48, 24), "bias": torch.ones(48)}),
        lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(48, 24))),
        lambda layer: nn.init.zeros_(layer.weight),
    ],
)
def test_changed_weights_are_noticed(change):
    model = make_layer()
    with packed_linears(model, min_weights=1), torch.no_grad():
        change(model[0])
        torch.testing.assert_close(model[0](torch.randn(2, 24)), model[0].bias.expand(2, -1))


def test_other_types_and_autocast_take_the_ordinary_way():
    model = make_layer()
    with packed_linears(model, min_weights=1), torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(torch.randn(2, 24)).dtype == torch.bfloat16
        model.to(torch.float64)
        assert model(torch.randn(2, 24, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_count(get_model, make_batch):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"], init_lora_weights=False)
    model = peft.get_peft_model(copy.deepcopy(get_model("t5")), config).eval()
    codes = np.stack([np.random.default_rng(0).integers(0, size, 40) for size in SIZES], axis=1)
    options = {**make_batch([4, 7]), "trie": IdentifierTrie.from_codes(codes, SIZES), "level_offsets": OFFSETS}
    plain = beam_search(model, **options, num_beams=40)
    with packed_linears(model, min_weights=1):
        packed = beam_search(model, **options, num_beams=40)
    for row in range(2):
        np.testing.assert_array_equal(packed.rows[row], plain.rows[row])
        np.testing.assert_allclose(packed.scores[row], plain.scores[row], atol=1e-4)


@pytest.mark.parametrize("trouble", ["missing", "wrong", "not built"])
def test_nothing_is_packed_where_the_kernel_does_not_work(monkeypatch, caplog, trouble):
    def broken(*arguments):
        if trouble == "missing":
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
        return torch.zeros(1)

    if trouble == "not built":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr("seekrec.generation.packing._multiply", broken)
    model = make_layer()
    with caplog.at_level(logging.INFO, "seekrec"), packed_linears(model, min_weights=1) as count:
        assert count == 0
        assert not is_packed(model[0])
    assert "no working oneDNN kernel" in caplog.text
