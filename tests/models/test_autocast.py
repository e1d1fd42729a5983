# SPDX-License-Identifier: Apache-2.0
"""Training and answering under bf16 autocast, in all families: what float32 computes, up to the digits of bfloat16."""

from __future__ import annotations

import pytest
import torch
from dense_questions import collate
from small_shop import make_gensar, make_gensr, make_intsr, make_synergen
from test_gensar import stream_batch
from test_gensr import training_batch

from seekrec.schema import Event, Request
from seekrec.training.event_windows import make_negatives

HISTORY = [Event("i2", timestamp=1_700_000_000), Event("i5", "search", timestamp=1_700_000_100, query="garden hose")]


def make_family(family, aisles, windows):
    """A model, its processor and a training batch."""
    if family == "gensar":
        model, processor = make_gensar(aisles, corpus="stream", candidate_scoring="items")
        rows, collator = stream_batch(aisles)
        return model, processor, collator([rows[number] for number in range(4)])
    if family == "gensr":
        model, processor = make_gensr(aisles)
        return model, processor, training_batch(aisles, processor, size=6)
    _, catalog, table = windows
    model, processor = make_intsr() if family == "intsr" else make_synergen()
    negatives = make_negatives(table, catalog, "popularity", 4)
    return model, processor, collate(windows, processor, [0, 3, 5], negatives=negatives)


@pytest.mark.parametrize("family", ["gensar", "gensr", "intsr", "synergen"])
def test_bf16_autocast_computes_what_float32_does(aisles, windows, family):
    model, processor, batch = make_family(family, aisles, windows)

    def step():
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        gradients = [weight.grad.float().flatten() for weight in model.parameters() if weight.grad is not None]
        return loss.item(), torch.cat(gradients)

    loss, gradient = step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded_loss, rounded_gradient = step()
    # bfloat16 has 8 binary digits: a product is off by up to 2^-8, and sums of many of them by less.
    assert rounded_loss == pytest.approx(loss, rel=2**-5)
    assert torch.isfinite(rounded_gradient).all()
    assert torch.cosine_similarity(gradient, rounded_gradient, dim=0) > 0.98

    inputs = processor([Request(history=HISTORY), Request(history=HISTORY, query="kitchen")])
    exact = model.retrieve(inputs, top_k=10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.retrieve(inputs, top_k=10)
    for one, other in zip(exact, rounded, strict=True):
        assert len({item.item_id for item in one} & {item.item_id for item in other}) >= 8
