# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import AutoConfig, AutoModel

from seekrec.embeddings import SASRecCollator, SASRecConfig, SASRecForNextItem, SASRecModel
from seekrec.errors import RequestError

NUM_ITEMS = 7


def build(**changes):
    torch.manual_seed(0)
    settings = {"num_items": NUM_ITEMS, "hidden_size": 8, "max_history": 5, "initializer_range": 0.5} | changes
    return SASRecForNextItem(SASRecConfig(**settings)).eval()


def logits_of(model, *rows):
    with torch.no_grad():
        return model(torch.tensor(rows)).logits


def test_a_later_item_never_changes_earlier_logits():
    model = build()
    first = logits_of(model, [8, 1, 2, 3, 4])
    second = logits_of(model, [8, 1, 2, 7, 5])
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3:], second[:, 3:], atol=1e-3)


def test_left_and_right_padding_agree():
    model = build()
    right = logits_of(model, [8, 1, 2, 0, 0], [8, 3, 4, 5, 6])
    left = logits_of(model, [0, 0, 8, 1, 2], [8, 3, 4, 5, 6])
    alone = logits_of(model, [8, 1, 2])
    assert torch.equal(right[0, :3], left[0, 2:])
    assert torch.equal(right[1], left[1])
    assert torch.allclose(right[0, :3], alone[0], atol=1e-6)


def test_a_row_of_padding_and_an_empty_batch_are_harmless():
    model = build()
    assert torch.equal(logits_of(model, [0, 0])[0], torch.zeros(2, NUM_ITEMS))
    assert logits_of(model, [0, 0], [8, 1]).isfinite().all()
    assert model.score([]).shape == (0, NUM_ITEMS)


def test_hidden_states_equal_a_plain_computation():
    """The whole forward pass again in numpy, one token at a time, without packing or SDPA."""
    model = build(num_hidden_layers=1, num_attention_heads=2)
    weights = {name: value.double().numpy() for name, value in model.model.state_dict().items()}
    tokens = [8, 3, 1, 6]

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8) * weights[f"{name}.weight"]
            + weights[f"{name}.bias"]
        )

    def gelu(x):
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))

    x = weights["item_embedding.weight"][tokens] * np.sqrt(8) + weights["position_embedding.weight"][: len(tokens)]
    projected = linear("layers.0.query_key_value", norm("layers.0.attention_norm", x))
    q, k, v = np.split(projected, 3, axis=1)
    attended = np.zeros_like(x)
    for head in (slice(0, 4), slice(4, 8)):
        for t in range(len(tokens)):
            energy = q[t, head] @ k[: t + 1, head].T / np.sqrt(4)
            attention = np.exp(energy) / np.exp(energy).sum()
            attended[t, head] = attention @ v[: t + 1, head]
    x = x + linear("layers.0.attention_output", attended)
    x = x + linear("layers.0.contract", gelu(linear("layers.0.expand", norm("layers.0.feed_forward_norm", x))))
    expected = norm("norm", x)
    with torch.no_grad():
        actual = model.model(torch.tensor([tokens])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_given_item_embeddings_stand_for_the_table():
    model = build().model
    tokens = torch.tensor([[8, 1, 0, 3, 7], [2, 4, 0, 0, 0]])
    embeds = model.item_embedding(tokens)
    with torch.no_grad():
        expected = model(tokens).last_hidden_state
        assert torch.equal(model((tokens > 0).long(), inputs_embeds=embeds).last_hidden_state, expected)


def test_loss_equals_a_full_softmax_in_numpy():
    model = build()
    input_ids = [[8, 1, 2], [8, 3, 0]]
    labels = [[1, 2, 3], [3, 4, -100]]
    logits = logits_of(model, *input_ids).double().numpy()
    losses = []
    for row, col in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        scores = logits[row, col]
        losses.append(np.log(np.exp(scores).sum()) - scores[labels[row][col] - 1])
    with torch.no_grad():
        output = model(torch.tensor(input_ids), labels=torch.tensor(labels))
    assert output.logits is None
    assert output.loss.item() == pytest.approx(np.mean(losses), abs=1e-6)


def test_every_parameter_gets_a_gradient():
    model = build().train()
    batch = SASRecCollator()([{"tokens": np.array([8, 1, 2, 3, 4, 5])}, {"tokens": np.array([8, 6, 7])}])
    model(**batch).loss.backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_collator_shifts_and_pads():
    batch = SASRecCollator()([{"tokens": np.array([8, 1, 2])}, {"tokens": np.array([8, 5])}])
    assert batch["input_ids"].tolist() == [[8, 1], [8, 0]]
    assert batch["labels"].tolist() == [[1, 2], [5, -100]]


def test_score_is_the_last_logit_and_keeps_the_last_items():
    model = build()
    scores = model.score([np.array([0, 1]), np.array([], np.int64), np.array([0, 1, 2, 3, 4, 5])], batch_size=2)
    assert torch.allclose(scores[0], logits_of(model, [8, 1, 2])[0, -1], atol=1e-6)
    assert torch.allclose(scores[1], logits_of(model, [8])[0, -1], atol=1e-6)
    # Start token and six items make seven tokens; `max_history` keeps the last five.
    assert torch.allclose(scores[2], logits_of(model, [2, 3, 4, 5, 6])[0, -1], atol=1e-6)


def test_score_leaves_the_mode_and_ignores_dropout():
    model = build(dropout=0.5).train()
    history = [np.array([0, 1, 2])]
    assert torch.equal(model.score(history), model.score(history))
    assert model.training


def test_item_embeddings_are_a_copy_in_row_order():
    model = build()
    vectors = model.item_embeddings()
    assert vectors.shape == (NUM_ITEMS, 8)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[3], model.model.item_embedding.weight[4].detach().numpy())
    vectors[:] = 0
    assert model.item_embeddings().any()


def test_start_values():
    torch.manual_seed(0)
    model = SASRecForNextItem(SASRecConfig(num_items=5000, hidden_size=32))
    weight = model.model.item_embedding.weight.detach()
    assert not weight[0].any()  # padding
    assert weight[1:].std().item() == pytest.approx(0.02, rel=0.02)
    block = model.model.layers[0]
    assert block.expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.expand.bias.any()
    assert (block.attention_norm.weight == 1).all()


def _settings(model):
    return {name: value for name, value in model.config.to_dict().items() if not name.startswith("_")}


def test_saving_and_loading_agree(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    loaded = SASRecForNextItem.from_pretrained(tmp_path)
    assert _settings(loaded) == _settings(model)
    histories = [np.array([0, 5, 2])]
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.allclose(loaded.score(histories), model.score(histories), atol=1e-6)
    base = SASRecModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model.model(torch.tensor([[8, 1]])).last_hidden_state
        assert torch.allclose(base(torch.tensor([[8, 1]])).last_hidden_state, expected, atol=1e-6)


def test_missing_weights_get_start_values(tmp_path):
    """A part that the checkpoint lacks is drawn anew, not left as uninitialised memory."""
    model = SASRecForNextItem(SASRecConfig(num_items=NUM_ITEMS, hidden_size=8))
    kept = {name: value for name, value in model.state_dict().items() if "layers.1" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded = SASRecForNextItem.from_pretrained(tmp_path)
    assert torch.equal(loaded.model.item_embedding.weight, model.model.item_embedding.weight)
    fresh = loaded.model.layers[1]
    assert 0 < fresh.expand.weight.std().item() < 0.05
    assert not fresh.expand.bias.any()
    assert (fresh.feed_forward_norm.weight == 1).all()


def test_auto_classes_know_sasrec(tmp_path):
    build().save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), SASRecConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), SASRecModel)


def test_too_long_a_row_is_refused():
    with pytest.raises(RequestError, match=r"row of 6 tokens, but `max_history` is 5; keep the last 5"):
        build()(torch.tensor([[8, 1, 2, 3, 4, 5]]))


@pytest.mark.parametrize("row", [-1, NUM_ITEMS])
def test_an_unknown_row_is_refused(row):
    with pytest.raises(RequestError, match=rf"item row {row}, but the model knows rows 0\.\.6"):
        build().score([np.array([0, row])])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 9}, "`hidden_size` is 9, which 2 heads do not divide"),
        ({"num_items": 0}, "`num_items` is 0; it must be at least 1"),
        ({"dropout": 1.0}, r"`dropout` is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_config_refuses_impossible_sizes(changes, message):
    with pytest.raises(StrictDataclassClassValidationError) as caught:
        SASRecConfig(**({"num_items": 3} | changes))
    assert message in str(caught.value.__cause__ or caught.value)


def test_config_refuses_wrong_types():
    with pytest.raises(StrictDataclassFieldValidationError, match="hidden_size"):
        SASRecConfig(num_items=3, hidden_size="wide")
