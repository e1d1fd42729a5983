# SPDX-License-Identifier: Apache-2.0
"""GenSR against a twin with two heads: what each reads, and how the gradients of their tasks are compared."""

import numpy as np
import pytest
import torch
from small_shop import HISTORY, make_aisles, make_gensr
from torch.nn import functional as F
from transformers import TrainingArguments

from seekrec.models.gensr.processing_gensr import PADDING
from seekrec.recipes.gensr_twin import own_neighbors
from seekrec.schema import Request
from seekrec.training.two_heads import AnswerStates, TwoHeadedTwin, candidate_loss, train_with_twin

CANDIDATES = ["i3", "i5", "i7"]
SETTINGS = {"wording": "short", "shared_prompt": True, "identifier_weight": 0.0, "contrast_weight": 0.0}


@pytest.fixture
def pair():
    model, processor = make_gensr(make_aisles(), **SETTINGS)
    requests = [Request(HISTORY), Request(HISTORY, query="piano"), Request(HISTORY[:1], query="hard piano")]
    batch = dict(processor(requests, candidates=[CANDIDATES] * 3))
    batch["candidate_labels"] = torch.tensor([[1, 0, 0]] * 3)
    return model, TwoHeadedTwin(model, processor), batch


@torch.no_grad()
def test_states_are_what_yes_and_no_are_read_from(pair):
    model, twin, batch = pair
    states = AnswerStates(model)(batch)
    yes, no = model.config.yes_token_id, model.config.no_token_id
    weights = model.lm_head.weight[[no, yes]]
    answers = F.linear(states, weights)
    histories = model.encode_histories(batch)
    logits = model.candidate_logits(
        histories, batch["prompt_layout"], batch["suffix_layout"], batch["candidate_items"]
    )
    torch.testing.assert_close(answers[..., 1] - answers[..., 0], model.yes_minus_no(logits))
    # The twin begins with the same weights, and differs by the words of the task.
    assert not torch.equal(twin.answer_states(batch), states)
    torch.testing.assert_close(twin.states(batch), states)


@torch.no_grad()
def test_the_twin_reads_no_task(pair):
    _, twin, batch = pair
    layout, known = batch["prompt_layout"], twin.without_task(batch)["prompt_layout"]
    for row, task in enumerate(batch["behavior_ids"].tolist()):
        before, after = ([one for one in table[row].tolist() if one != PADDING] for table in (layout, known))
        assert after == [twin.neutral, *before[twin.phrases[task] :]]
    # Its heads differ by task, on the same state.
    scores = twin(batch)
    states = twin.answer_states(batch)
    torch.testing.assert_close(scores[0], twin.heads(states)[0, :, 0])
    torch.testing.assert_close(scores[1], twin.heads(states)[1, :, 1])


def test_losses_of_candidates_by_hand():
    scores, labels = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[1, 0, -100]])
    expected = np.log(1 + np.exp(-1))
    assert float(candidate_loss(scores, labels, listwise=True)) == pytest.approx(expected)
    # By themselves: -log sigmoid(1), and -log(1 - sigmoid(0)).
    assert float(candidate_loss(scores, labels, listwise=False)) == pytest.approx((expected + np.log(2)) / 2)


def test_gradients_of_the_tasks_are_compared_while_both_learn(pair, tmp_path):
    model, twin, batch = pair
    model.config.yes_no_loss = "listwise"
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-2, use_cpu=True)
    before = [
        candidate_loss(one, batch["candidate_labels"], listwise=True).item()
        for one in (model(**batch)["candidate_logits"], twin(batch))
    ]
    found = train_with_twin(model, twin, [batch], arguments, num_steps=12, num_looks=4)
    assert found.steps.tolist() == [0, 3, 6, 9]
    assert found.cosines.shape == (4, 2) and (np.abs(found.cosines) <= 1 + 1e-6).all()
    after = [
        candidate_loss(one, batch["candidate_labels"], listwise=True).item()
        for one in (model(**batch)["candidate_logits"], twin(batch))
    ]
    assert all(new < old for new, old in zip(after, before, strict=True))


def test_own_neighbors_tell_tasks_apart():
    draws = np.random.default_rng(0)
    states = draws.normal(size=(400, 8)).astype(np.float32)
    tasks = np.arange(400) % 2
    assert own_neighbors(states, tasks).mean() == pytest.approx(0.5, abs=0.05)
    assert own_neighbors(states + 100 * tasks[:, None].astype(np.float32), tasks).mean() == 1
