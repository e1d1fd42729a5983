# SPDX-License-Identifier: Apache-2.0
"""Softmax losses: parts against the whole, and samples against the distribution that targets come from."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.embeddings import softmax as module
from seekrec.embeddings.softmax import info_nce, parts, softmax_loss


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_parts_have_the_loss_and_gradients_of_the_whole(monkeypatch, is_masked, reduction):
    torch.manual_seed(0)
    questions = torch.randn(7, 4, requires_grad=True)
    items = torch.randn(5, 4, requires_grad=True)
    labels = torch.tensor([0, 3, 4, 1, 1, 2, 0])
    is_candidate = torch.rand(7, 5) < 0.6
    candidates = (lambda part: is_candidate[part]) if is_masked else None

    allowed = is_candidate | (F.one_hot(labels, 5) == 1) if is_masked else torch.ones(7, 5, dtype=torch.bool)
    scores = (questions @ items.T / 0.3).masked_fill(~allowed, float("-inf"))
    expected = F.cross_entropy(scores, labels, reduction=reduction)
    wanted = torch.autograd.grad(3 * expected, [questions, items])
    # All at once; two questions at a time; one, though even that is more than is allowed.
    for most in (2**26, 10, 1):
        monkeypatch.setattr(module, "MAX_SCORES", most)
        found = softmax_loss(questions, items, labels, candidates=candidates, temperature=0.3, reduction=reduction)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(3 * found, [questions, items]), wanted)
        # What needs no gradient gets none.
        (alone,) = torch.autograd.grad(
            softmax_loss(questions, items.detach(), labels, candidates=candidates, temperature=0.3), [questions]
        )
        assert alone.shape == questions.shape
    with torch.no_grad():
        torch.testing.assert_close(
            softmax_loss(questions, items, labels, candidates=candidates, temperature=0.3, reduction=reduction),
            expected,
        )


def test_parts_cover_every_question_once(monkeypatch):
    monkeypatch.setattr(module, "MAX_SCORES", 10)
    cpu = torch.device("cpu")
    assert parts(7, 3, cpu) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert parts(2, 100, cpu) == [slice(0, 1), slice(1, 2)] and parts(0, 3, cpu) == []
    # A part fits the cache of a CPU, unless it were too few questions for that.
    monkeypatch.setattr(module, "MAX_SCORES", 2**26)
    assert [part.stop for part in parts(70, 2**14, cpu)] == [64, 70]
    assert [part.stop for part in parts(70, 2**16, cpu)] == [32, 64, 70]
    assert parts(70, 2**16, torch.device("meta")) == [slice(0, 70)]


# A catalogue of four items. Targets are drawn from LIKELY, others by PROPOSAL; all outcomes are written out, so the
# expected loss is exact. Its minimum must be where the full softmax has its own: at the logarithm of LIKELY.
LIKELY = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
PROPOSAL = torch.tensor([0.6, 0.1, 0.1, 0.2], dtype=torch.float64)
NUM_DRAWN = 2


def expected_gradient(scores, correction, *, redraws_target=False):
    """Give the gradient of the expected loss over all targets and all draws."""
    scores = scores.clone().requires_grad_()
    total = scores.new_zeros(())
    for target in range(4):
        likely = PROPOSAL.clone()
        if redraws_target:
            likely[target] = 0
        likely = likely / likely.sum()
        for drawn in itertools.product(range(4), repeat=NUM_DRAWN):
            weight = LIKELY[target] * likely[list(drawn)].prod()
            loss = info_nce(
                scores[[target]],
                scores[list(drawn)][None],
                positive_log_q=correction[[target]],
                negative_log_q=correction[list(drawn)][None],
            )
            total = total + weight * loss
    return torch.autograd.grad(total, scores)[0].abs().max()


def test_the_corrected_sample_is_least_where_the_full_softmax_is():
    truth, log_q = LIKELY.log(), PROPOSAL.log()
    assert expected_gradient(truth, log_q) < 1e-7
    assert expected_gradient(truth + 3, log_q - 5) < 1e-7
    # It is that correction and these draws alone: with none, or with draws that are never the target, it is elsewhere.
    assert expected_gradient(truth, torch.zeros_like(truth)) > 0.02
    assert expected_gradient(truth, log_q, redraws_target=True) > 0.02


def test_sasrec_compares_targets_with_uniform_draws_in_training_alone():
    config = SASRecConfig(num_items=6, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    config.embedding_dropout = config.dropout = 0.0
    config.num_sampled_negatives = 9
    model = SASRecForNextItem(config).train()
    inputs = {"input_ids": torch.tensor([[7, 2, 5]]), "labels": torch.tensor([[2, -100, 6]])}
    logits = model(inputs["input_ids"]).logits[0, [0, 2]]
    torch.manual_seed(3)
    found = model(**inputs).loss
    torch.manual_seed(3)
    # Nine of six items: some twice, some the target, and all of them count.
    drawn = torch.randint(6, (9,))
    own = logits[[0, 1], [1, 5]]
    torch.testing.assert_close(found, (torch.cat([own[:, None], logits[:, drawn]], 1).logsumexp(1) - own).mean())
    # What is measured on validation is the loss over all items.
    model.eval()
    torch.testing.assert_close(model(**inputs).loss, F.cross_entropy(logits, torch.tensor([1, 5])))
