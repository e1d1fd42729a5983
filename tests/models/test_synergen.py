# SPDX-License-Identifier: Apache-2.0
"""SynerGen: the task mask, rotation by the clock, losses by hand, and the contract of a family."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from dense_questions import HISTORY, REQUESTS, assert_same_scores, collate, scores_of
from small_shop import NUM_ITEMS, SYNERGEN_WAYS, make_synergen
from torch.nn import functional as F

from seekrec.errors import ConfigurationError
from seekrec.models import SynerGenConfig, SynerGenForSearchAndRecommendation
from seekrec.models.dense.modeling_dense import TokenPositions
from seekrec.models.synergen.modeling_synergen import (
    CONTEXT,
    RANKING,
    RETRIEVAL,
    TimeRotary,
    context_mask,
    in_batch_loss,
    question_mask,
    ranking_losses,
    rotate,
)
from seekrec.schema import Event, Request
from seekrec.training.event_windows import make_negatives, target_counts

CANDIDATES = [["i3", "i9", "i20"], ["i1"], ["i2", "i3", "i4", "i5"], ["i23", "i0"]]
YEARS = 50 * 365 * 86_400


def differ(answers, expected):
    one, other = scores_of(answers)[0], scores_of(expected)[0]
    return max(abs(one[key] - other[key]) for key in one.keys() & other.keys()) > 1e-4


# The mask

# Events: C0 at second 10; C1 and C2 at second 20 and C3 at 30, all in one session; C4 at 40. Question 1 asks for the
# event C3 and question 2 for C4: R is a question's retrieval token, a and b its candidates.
TOKENS = ["C0", "C1", "C2", "C3", "C4", "R1", "a1", "b1", "R2", "a2"]
SEEN = """
1 . . . . . . . . .
1 1 . . . . . . . .
1 . 1 . . . . . . .
1 1 1 1 . . . . . .
1 1 1 1 1 . . . . .
1 . . . . 1 . . . .
1 . . . . 1 1 . . .
1 . . . . 1 . 1 . .
1 1 1 1 . . . . 1 .
1 1 1 1 . . . . 1 1
"""
EXPECTED = torch.tensor([[cell == "1" for cell in line.split()] for line in SEEN.strip().splitlines()])


@dataclass
class Tokens:
    """Tokens of all kinds in one sequence: `question` is the number of the question, -1 for a context token."""

    kind: torch.Tensor
    session: torch.Tensor
    time: torch.Tensor
    event: torch.Tensor
    question: torch.Tensor
    is_real: torch.Tensor

    def context(self, count):
        """The first `count` of them, as the decoder has them."""
        first = {name: getattr(self, name)[:, :count] for name in ("session", "time", "event", "is_real")}
        return TokenPositions(position=first["event"], item=first["event"], **first)


def task_mask(tokens):
    """The table of the module: what each token sees of the others."""
    kind, is_context = tokens.kind[:, :, None], tokens.kind[:, None] == CONTEXT
    before = tokens.time[:, None] < tokens.time[:, :, None]
    known = tokens.session[:, None] < tokens.session[:, :, None]
    is_own = (kind == RANKING) & (tokens.kind[:, None] == RETRIEVAL)
    is_own &= tokens.question[:, None] == tokens.question[:, :, None]
    allowed = (is_context & torch.where(kind == CONTEXT, before, known)) | is_own
    return allowed & tokens.is_real[:, None] | torch.eye(tokens.time.shape[1], dtype=torch.bool)


def small_tokens():
    event = [0, 1, 2, 3, 4, 3, 3, 3, 4, 4]
    return Tokens(
        kind=torch.tensor([[CONTEXT] * 5 + [RETRIEVAL, RANKING, RANKING, RETRIEVAL, RANKING]]),
        session=torch.tensor([[[0, 1, 1, 1, 2][number] for number in event]]),
        time=torch.tensor([[[10, 20, 20, 30, 40][number] for number in event]]),
        event=torch.tensor([event]),
        question=torch.tensor([[-1] * 5 + [0, 0, 0, 1, 1]]),
        is_real=torch.ones(1, 10, dtype=torch.bool),
    )


@pytest.mark.parametrize("is_padded", [True, False])
def test_every_entry_of_the_task_mask(is_padded):
    tokens, expected = small_tokens(), EXPECTED.clone()
    if is_padded:  # seen by nothing but itself
        tokens.is_real[0, 0] = False
        expected[1:, 0] = False
    assert torch.equal(task_mask(tokens)[0], expected)
    context = tokens.context(5)
    assert torch.equal(context_mask(context, context)[0], expected[:5, :5])
    later = replace(context, **{name: value[:, 3:] for name, value in vars(context).items()})
    assert torch.equal(context_mask(later, context)[0], expected[3:5, :5])
    asked = question_mask(tokens.session[:, 5:], context)
    assert torch.equal(asked[0], expected[5:, :5])


def dense_pass(model, batch, rows):
    """All tokens of a batch of windows in one sequence, under the whole task mask."""
    decoder, config = model.model, model.config
    questions = batch["question_events"].shape[1]
    width = rows.shape[-1]
    count = questions * (1 + width)
    session, event, time = (batch[f"question_{name}"] for name in ("session_ids", "events", "timestamps"))
    number = torch.arange(questions).repeat_interleave(1 + width).expand(len(rows), -1)
    kind = torch.tensor(([RETRIEVAL] + [RANKING] * width) * questions).expand(len(rows), -1)
    history = batch["history_timestamps"]
    tokens = Tokens(
        kind=torch.cat([torch.full_like(history, CONTEXT), kind], 1),
        session=torch.cat([batch["history_session_ids"], session.gather(1, number)], 1),
        time=torch.cat([history, time.gather(1, number)], 1),
        event=torch.cat([torch.arange(history.shape[1]).expand_as(history), event.gather(1, number)], 1),
        question=torch.cat([torch.full_like(history, -1), number], 1),
        is_real=torch.cat([batch["history_mask"], torch.ones(len(rows), count, dtype=torch.bool)], 1),
    )
    mask = task_mask(tokens)
    # Tokens counted in order: a question stands behind the context tokens that it sees.
    seen = mask[:, history.shape[1] :, : history.shape[1]].sum(-1)
    order = torch.cat([torch.arange(history.shape[1]).expand_as(history), seen], 1)
    rotation = decoder.rotary(tokens.time - history[:, :1], order)
    actions = torch.full_like(session, config.asked_action)
    words = decoder.items.read_queries(batch)
    retrieval = decoder.tokens(RETRIEVAL, batch, actions, words=words)[:, :, None]
    if decoder.latest is not None:
        context = mask[:, history.shape[1] :: 1 + width, : history.shape[1]]
        context = context & (batch["history_item_rows"] >= 0)[:, None]
        for row, question in np.ndindex(*session.shape):
            items = batch["history_item_rows"][row][context[row, question]]
            if len(items):
                vector = decoder.items(items[-1])
                spread = (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()
                gate = decoder.latest.gates[batch["question_behavior_ids"][row, question]]
                retrieval[row, question, 0] += spread * gate
    asked = torch.cat(
        [
            retrieval,
            decoder.tokens(RANKING, batch, actions, rows, decoder.items, words),
        ],
        2,
    )
    acts, brought = batch["history_action_ids"], batch["history_item_rows"]
    context = decoder.tokens(CONTEXT, batch, acts, brought, decoder.items, words)
    hidden = torch.cat([context, asked.flatten(1, 2)], 1)
    for layer in decoder.layers:
        hidden, _ = layer(hidden, rotation, None, mask)
    return hidden[:, history.shape[1] :].view(*asked.shape)


@pytest.mark.parametrize("way", ["paper", "both", "latest", "learned_scales"])
@torch.no_grad()
def test_the_streams_compute_what_one_pass_under_the_mask_computes(windows, way):
    model, processor = make_synergen(**SYNERGEN_WAYS[way])
    batch = collate(windows, processor, [0, 7])
    rows = torch.randint(0, NUM_ITEMS, (*batch["question_events"].shape, 3))
    state = model.model(batch)
    asked = model.model.ask(state, batch)
    judged = model.model.judge(state, asked, batch, rows)
    expected = dense_pass(model, batch, rows)
    torch.testing.assert_close(asked.hidden_states, expected[:, :, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(judged, expected[:, :, 1:], atol=1e-5, rtol=1e-5)


# Time


def test_a_shift_by_years_changes_nothing_and_a_second_does():
    model, processor = make_synergen()

    def answer(shift, first=0):
        moved = [
            Event(e.item_id, e.behavior, e.timestamp + shift + first * (n == 0), e.query, e.action)
            for n, e in enumerate(HISTORY)
        ]
        inputs = processor(Request(moved, timestamp=300_000 + shift), candidates=[["i3", "i4"]])
        return model.retrieve(inputs, top_k=NUM_ITEMS, exclude_seen=False), model.rank(inputs)

    for one, other, late in zip(answer(0), answer(YEARS), answer(YEARS, first=1), strict=True):
        assert_same_scores(one, other, atol=1e-5)
        assert differ(other, late)


def test_rotation_is_the_formula_at_unix_times():
    """The product of a rotated query and key is the sum over pairs of Re(q conj(k) exp(i (t - s) w))."""
    config = SynerGenConfig(hidden_size=8, num_attention_heads=1, time_scales=[4.0, 4e6])
    rotary = TimeRotary(config)
    times = torch.tensor([1_700_000_000, 1_700_000_001, 1_800_000_007])
    cosines, sines = rotary(times - times[0], torch.zeros_like(times))
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)
    product = rotate(query, cosines, sines) @ rotate(key, cosines, sines).T
    # Four pairs: turns of 4, 400, 40,000 and 4,000,000 seconds.
    for row, later in enumerate(times.tolist()):
        for column, earlier in enumerate(times.tolist()):
            expected = 0.0
            for pair, period in enumerate([4, 400, 40_000, 4_000_000]):
                angle = 2 * math.pi * ((later - earlier) % period) / period
                turn = complex(math.cos(angle), math.sin(angle))
                q, k = complex(query[pair], query[4 + pair]), complex(key[pair], key[4 + pair])
                expected += (q * turn * k.conjugate()).real
            assert product[row, column].item() == pytest.approx(expected, abs=1e-5)
    # Neighbouring seconds are a quarter turn of the shortest scale apart.
    torch.testing.assert_close(cosines[1, 0], torch.tensor(0.0), atol=1e-6, rtol=0)


def test_learned_time_scales_have_the_slope_of_the_rotation():
    config = SynerGenConfig(
        hidden_size=4, num_attention_heads=1, time_encoding="learned_time", time_scales=[10.0, 1000.0]
    )
    rotary = TimeRotary(config)
    torch.nn.init.zeros_(rotary.log_scales)
    seconds = torch.tensor([30])
    cosines, _ = rotary(seconds, seconds)
    cosines.sum().backward()
    # cos(2 pi t / (p e^x)) has at x = 0 the slope sin(2 pi t / p) * 2 pi t / p: 3 turns of p = 10, .03 of p = 1000.
    expected = [math.sin(2 * math.pi * 30 / p) * 2 * math.pi * 30 / p for p in (10, 1000)]
    torch.testing.assert_close(rotary.log_scales.grad, torch.tensor(expected, dtype=torch.float32))
    rotary.log_scales.grad = None
    _, sines = rotary(torch.tensor([10_001]), seconds)
    sines.sum().backward()
    # A thousand turns of 10 seconds: no slope. Ten turns of 1000: beyond the limit by a thousandth.
    assert rotary.log_scales.grad.tolist() == [0.0, 0.0]


def test_a_state_holds_the_time_and_the_ablations_do_not():
    late, later = (Request(HISTORY, timestamp=time) for time in (210_000, 900_000))
    early = Request([Event(e.item_id, e.behavior, e.timestamp - 7, e.query, e.action) for e in HISTORY])
    for settings, reads_target, reads_time in (
        ({}, True, True),
        ({"use_target_time": False}, False, True),
        ({"time_encoding": "order"}, False, False),
    ):
        model, processor = make_synergen(**settings)
        answers = [model.retrieve(processor(one), top_k=NUM_ITEMS, exclude_seen=False) for one in (late, later)]
        assert differ(*answers) == reads_target
        moved = [Event(e.item_id, e.behavior, e.timestamp // 3, e.query, e.action) for e in early.history]
        answers = [
            model.retrieve(processor(one), top_k=NUM_ITEMS, exclude_seen=False) for one in (early, Request(moved))
        ]
        assert differ(*answers) == reads_time


# States


# Losses


def test_in_batch_loss_by_hand():
    """Three questions, the second and third for the same item."""
    questions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    targets = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels, log_q = torch.tensor([5, 8, 8]), torch.log(torch.tensor([0.5, 0.25, 0.25]))
    # Similarities: question 1: 2, 0, 0; question 2: 0, 1, 1; question 3: 2, 1, 1. Divided by tau = 1/2, and each
    # weighed by 1/q = 2, 4, 4. Corrected, both others are draws of each, 2 and 3 of each other too.
    e = math.exp
    expected = [
        -math.log(2 * e(4) / (2 * e(4) + 4 + 4)),
        -math.log(4 * e(2) / (4 * e(2) + 2 + 4 * e(2))),
        -math.log(4 * e(2) / (4 * e(2) + 2 * e(4) + 4 * e(2))),
    ]
    loss = in_batch_loss(questions, targets, labels, log_q=log_q, temperature=0.5)
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-6)
    # Without a correction a question for the same item is no negative: 2 and 3 have only the first.
    plain = in_batch_loss(questions, targets, labels, temperature=0.5)
    parts = [math.log((e(4) + 2) / e(4)), math.log((e(2) + 1) / e(2)), math.log((e(2) + e(4)) / e(2))]
    assert plain.item() == pytest.approx(sum(parts) / 3, rel=1e-6)
    assert in_batch_loss(questions[:1], targets[:1], labels[:1]).item() == pytest.approx(0.0, abs=1e-7)


def test_in_batch_losses_of_parts_are_that_of_the_whole():
    """Each process asks its own questions, of which it may have none, and knows the targets of all."""
    questions, targets = torch.randn(7, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    labels, log_q = torch.tensor([1, 2, 3, 1, 4, 5, 5]), torch.rand(7).log()
    options = {"log_q": log_q, "temperature": 0.3, "divisor": 7}
    whole = in_batch_loss(questions, targets, labels, **options)
    bounds = ((0, 2), (2, 2), (2, 7))
    parts = sum(in_batch_loss(questions[a:b], targets, labels, first=a, **options) for a, b in bounds)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(
        torch.autograd.grad(parts, [questions, targets]), torch.autograd.grad(whole, [questions, targets])
    )


def test_ranking_losses_by_hand():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 1.0, 99.0]])
    is_real = torch.tensor([[True, True, True], [True, True, False]])

    def cost(x):
        return math.log(1 + math.exp(-x))  # -log sigmoid(x)

    losses = ranking_losses(logits, is_real)
    # Clicked: the first of each; -log(1 - sigmoid(x)) = cost(-x).
    assert losses.pointwise.item() == pytest.approx((cost(2) + cost(-1) + cost(1) + cost(0) + cost(-1)) / 2, rel=1e-6)
    assert losses.pairwise.item() == pytest.approx((cost(1) + cost(3) + cost(-1)) / 2, rel=1e-6)
    assert [loss.item() for loss in ranking_losses(logits[:0], is_real[:0])] == [0.0, 0.0]


def test_the_loss_is_the_sum_of_its_parts(windows):
    _, catalog, table = windows
    model, processor = make_synergen(easy_weight=0.1, ranking_weight=2.0, temperature=0.3)
    negatives = make_negatives(table, catalog, "popularity", 3)
    batch = collate(windows, processor, [0, 5], negatives=negatives)
    output = model(**batch)
    by_hand = 0.1 * output.easy_loss + 0.9 * output.hard_loss + 2 * (output.pointwise_loss + output.pairwise_loss)
    torch.testing.assert_close(output.loss, by_hand)
    asked = batch["labels"] >= 0
    # Hard negatives once more: the target against the drawn ones, each less the logarithm of its share of the targets.
    rows = torch.cat([batch["labels"][..., None], batch["negative_rows"]], -1)[asked]
    vectors = model.items(rows)
    scores = (vectors * output.questions[asked][:, None]).sum(-1) / 0.3
    scores = scores - torch.from_numpy(target_counts(table, len(catalog))).clamp_min(0.5).log()[rows.clamp_min(0)]
    scores = scores.masked_fill(rows < 0, float("-inf"))
    torch.testing.assert_close(output.hard_loss, F.cross_entropy(scores, torch.zeros(len(rows), dtype=torch.long)))
    whole = model(**batch, num_items_in_batch=torch.tensor(1000)).loss
    torch.testing.assert_close(whole * 1000, output.loss * int(asked.sum()))
    # Items that were shown take their place beside the drawn ones.
    batch["shown_item_rows"] = torch.where(asked[..., None], 23, -1)
    batch["shown_log_q"] = torch.full_like(batch["label_log_q"], float(negatives.log_q[23]))[..., None]
    assert model(**batch).hard_loss > output.hard_loss


def test_what_is_asked_for_is_read(windows):
    batch = collate(windows, make_synergen()[1], [0, 5])
    model, processor = make_synergen(negatives="full", ranking_weight=0.0)
    inputs = processor(Request(HISTORY))
    before = model.retrieve(inputs, exclude_seen=False)
    model.config.asked_action = 0
    assert differ(before, model.retrieve(inputs, exclude_seen=False))
    # In training it is what was done to the target, whatever requests ask for; the loss is then the same.
    losses = []
    for action in (0, 1):
        model.config.asked_action = action
        losses.append(model(**batch).loss.item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        ({"easy_weight": 0.5, "temperature": 0.5}, "popularity"),
        pytest.param(
            {"easy_weight": 0.5, "temperature": 0.5, "starts_from_latest_item": True, "ranks_with_retrieval": True},
            "popularity",
            marks=pytest.mark.slow,
        ),
        (
            {
                "negatives": "full",
                "easy_weight": 1.0,
                "temperature": 0.1,
                "ranking_weight": 0.0,
                "item_reading": ["text"],
                "time_encoding": "learned_time",
            },
            "uniform",
        ),
    ],
    ids=["paper", "latest", "text"],
)
def test_training_moves_every_weight_and_finds_the_next_item(windows, settings, drawn):
    split, catalog, table = windows
    model, processor = make_synergen(
        hidden_size=32,
        fusion_size=24,
        dropout=0.0,
        time_scales=[4.0, 100.0],
        **settings,
    )
    torch.manual_seed(0)
    model = SynerGenForSearchAndRecommendation(model.config)  # start values as they are meant
    model.set_catalog(catalog)
    batch = collate(windows, processor, list(range(len(table))), negatives=make_negatives(table, catalog, drawn, 6))
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        output = model(**batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert [name for name, weight in model.named_parameters() if torch.equal(weight, start[name])] == []
    model.eval()
    # By chance three of 24 items hold the target once in eight.
    requests, targets = split.requests("validation", "recommendation"), split.targets("validation", "recommendation")
    everything = [[f"i{row}" for row in range(NUM_ITEMS)]] * len(requests)
    for answers in (
        model.retrieve(processor(requests), top_k=3, exclude_seen=False),
        model.rank(processor(requests, everything)),
    ):
        best = [[item.item_id for item in answer[:3]] for answer in answers]
        assert np.mean([target in items for items, target in zip(best, targets, strict=True)]) > 0.5


# The contract


@torch.no_grad()
def test_a_request_is_answered_alone_as_in_a_batch(synergen):
    model, processor = synergen
    together = model.retrieve(processor(REQUESTS), top_k=4, exclude_seen=False)
    ranked = model.rank(processor(REQUESTS, candidates=CANDIDATES))
    for request, line, expected, order in zip(REQUESTS, CANDIDATES, together, ranked, strict=True):
        assert_same_scores(model.retrieve(processor(request), top_k=4, exclude_seen=False), [expected])
        alone = [model.rank(processor(request, candidates=[[item]]))[0][0] for item in line]
        assert [item.item_id for item in order] == [
            item.item_id for item in sorted(alone, key=lambda item: -item.score)
        ]
        assert_same_scores([alone], [order])
        assert model.ranking_head is None or all(0 < item.score < 1 for item in order)


def test_rank_can_answer_with_what_retrieval_says():
    model, processor = make_synergen(rank_by="retrieval", temperature=0.5)
    inputs = processor(Request(HISTORY), candidates=[["i3", "i4"]])
    scores = scores_of(model.retrieve(inputs, top_k=NUM_ITEMS, exclude_seen=False))[0]
    ranked = model.rank(inputs)[0]
    assert [item.score for item in ranked] == pytest.approx([scores[item.item_id] for item in ranked], rel=1e-4)


def test_start_values_are_as_described():
    config = SynerGenConfig(num_items=2000, hidden_size=64, fusion_size=256, time_encoding="learned_time")
    weights = dict(SynerGenForSearchAndRecommendation(config).named_parameters())
    for name, spread in {
        "model.items.ids.weight": 0.02,
        "model.items.text.weight": 0.02,
        "model.tokens.text.weight": 384**-0.5,
        "model.layers.0.attention_input.weight": 64**-0.5,
        "model.layers.0.attention_output.weight": 64**-0.5 / 2,  # 2 layers: divided by sqrt(4)
        "model.layers.1.contract.weight": 256**-0.5 / 2,
    }.items():
        assert weights[name].std().item() == pytest.approx(spread, rel=0.05), name
    assert not weights["model.rotary.log_scales"].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 10, "num_attention_heads": 3}, "`hidden_size` is 10, which 3 heads do not divide"),
        ({"time_encoding": "linear"}, "'time_encoding' expected one of .*got linear"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` is 0; it must be at least 1"),
        ({"easy_weight": 1.5}, "`easy_weight` is 1.5; it must be from 0 to 1"),
        ({"asked_action": 4}, "`asked_action` is 4; it must be from 0 to 1"),
        ({"item_reading": ["text"], "text_size": 0}, "items would have no vectors"),
        ({"time_scales": [10.0, 5.0]}, r"`time_scales` is \[10.0, 5.0\]; give the shortest"),
        ({"time_scales": [10.0]}, r"`time_scales` is \[10.0\]"),
        ({"min_period": 10.0}, "`min_period` is no longer a separate setting; it is part of `time_scales`"),
        ({"temperature": 0.0}, "`temperature` is 0.0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(Exception, match=message):
        SynerGenConfig(**settings)


def test_a_batch_without_popularities_is_refused(windows):
    model, processor = make_synergen()
    with pytest.raises(
        ConfigurationError, match="The batch has no `label_log_q`, which `negatives: popularity` needs"
    ):
        model(**collate(windows, processor, [0]))
    model, processor = make_synergen(negatives="uniform")
    assert model(**collate(windows, processor, [0])).loss.isfinite()
