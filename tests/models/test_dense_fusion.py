# SPDX-License-Identifier: Apache-2.0
"""What the families that compare vectors add to their own score of recommendations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_questions import HISTORY, assert_same_scores, collate, scores_of
from huggingface_hub.errors import StrictDataclassClassValidationError
from small_shop import HSTU, aisle_vector, make_intsr, make_synergen
from transformers import AutoModel

from seekrec.embeddings import SASRecConfig, SASRecForNextItem, recommender_sizes
from seekrec.errors import ConfigurationError, RequestError
from seekrec.models import IntSRConfig, IntSRProcessor
from seekrec.recipes.windows import WindowArguments, make_window_model
from seekrec.schema import Event, Request

FUSED = [
    Request(HISTORY, timestamp=300_000),
    Request(HISTORY[:1], timestamp=2000),
    Request(),
]
SEARCH = Request(HISTORY, query="garden", timestamp=300_000)
MAKERS = [
    (make_synergen, {"ranking_weight": 0.0, "temperature": 0.1}),
    (make_synergen, {"queries_in_context": True}),
    (make_intsr, {}),
    (make_intsr, {"merge_event_tokens": True, "ranking_weight": 0.0}),
    (make_intsr, HSTU),
]


def make_sasrec(num_items=24, **changes):
    torch.manual_seed(5)
    settings = {"hidden_size": 8, "num_attention_heads": 2, "max_history": 6, "initializer_range": 0.5, **changes}
    return SASRecForNextItem(SASRecConfig(num_items=num_items, **settings)).eval()


def make_fused(make, sasrec, *, recommender_weight=1.5, text_weight=4.0, **settings):
    model, processor = make(
        recommender=recommender_sizes(sasrec),
        recommender_weight=recommender_weight,
        text_weight=text_weight,
        **settings,
    )
    if recommender_weight:
        model.set_recommender(sasrec)
    return model, processor


def own_answers(model, inputs):
    """The products of the model's own vectors, without what is fused."""
    fusion, model.fusion = model.fusion, None
    items = model.current_items()
    with torch.no_grad():
        products = (model.encode_questions(inputs, items=items)[:, 0] @ items.answers.T).tolist()
    model.fusion = fusion
    return [dict(zip(items.catalog.id_map.ids, line, strict=True)) for line in products]


def text_scores(catalog, rows):
    """The cosines with the latest items, 1, 0.7, 0.49, ... parts of each, by hand; nothing for these items."""
    texts = catalog.embeddings["semantic"]
    texts = texts - texts[:24].mean(0)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    if not len(rows):
        return np.zeros(len(texts))
    weights = 0.7 ** np.arange(len(rows))[::-1]
    found = texts @ (weights[:, None] * texts[rows]).sum(0) / weights.sum()
    found[rows] = 0.0
    return found


@pytest.mark.parametrize(("make", "settings"), MAKERS)
def test_scores_are_added_to_those_of_recommendations(make, settings):
    sasrec = make_sasrec()
    model, processor = make_fused(make, sasrec, **settings)
    ids, temperature = model.catalog.id_map, model.fusion.temperature
    found = scores_of(model.retrieve(processor([*FUSED, SEARCH]), top_k=100, exclude_seen=False))
    own = own_answers(model, processor([*FUSED, SEARCH]))
    histories = [
        ids.convert_to_rows([event.item_id for event in request.history if event.item_id]) for request in FUSED
    ]
    for number, (rows, by_sasrec) in enumerate(zip(histories, sasrec.score(histories).numpy(), strict=True)):
        more = temperature * (1.5 * by_sasrec + 4.0 * text_scores(model.catalog, rows))
        expected = [own[number][item] + more[row] for row, item in enumerate(ids.ids)]
        np.testing.assert_allclose([found[number][item] for item in ids.ids], expected, atol=2e-5)
    # A search has its query.
    np.testing.assert_allclose([found[3][item] for item in ids.ids], [own[3][item] for item in ids.ids], atol=2e-5)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_of_a_long_history_sasrec_reads_its_latest(make):
    sasrec = make_sasrec()
    model, processor = make_fused(make, sasrec, text_weight=0.0)
    names = ["i0", "i9", "i1", "i2", "i5", "i7", "i20"]
    asked = processor(
        Request([Event(name, timestamp=1000 * place) for place, name in enumerate(names)], timestamp=9000)
    )
    found, own = scores_of(model.retrieve(asked, top_k=100, exclude_seen=False))[0], own_answers(model, asked)[0]
    by_sasrec = sasrec.score([model.catalog.id_map.convert_to_rows(names)])[0].numpy()
    expected = 1.5 * by_sasrec * model.fusion.temperature
    np.testing.assert_allclose([found[item] - own[item] for item in model.catalog.id_map.ids], expected, atol=2e-5)


@pytest.mark.parametrize("backend", ["exact", "faiss"])
def test_the_best_few_are_the_first_of_all(backend):
    # With so much for texts, items of the history are the best of the index, and none of the best.
    model, processor = make_fused(make_synergen, make_sasrec(), text_weight=50.0)
    model.item_index = backend
    again = [Event(event.item_id, timestamp=300_000) for event in HISTORY if event.item_id]
    requests = [*FUSED, Request([*HISTORY, *again], timestamp=400_000)]
    whole = model.retrieve(processor(requests), top_k=100, exclude_seen=False)
    for top_k in (1, 3):
        few = model.retrieve(processor(requests), top_k=top_k, exclude_seen=False)
        assert [[item.item_id for item in answer] for answer in few] == [
            [item.item_id for item in answer[:top_k]] for answer in whole
        ]
    only = [["i0", "i5"]] * len(requests)
    assert [
        len(answer) for answer in model.retrieve(processor(requests), top_k=3, where=only, exclude_seen=False)
    ] == [2] * 4
    with pytest.raises(RequestError, match="`top_k` is 0"):
        model.retrieve(processor(requests), top_k=0, exclude_seen=False)


@pytest.mark.parametrize(("make", "settings"), [MAKERS[0], MAKERS[3]])
def test_candidates_are_ranked_by_the_same_sum(make, settings):
    model, processor = make_fused(make, make_sasrec(), **settings)
    names = ["i3", "i17", "i9"]
    whole = scores_of(model.retrieve(processor(FUSED), top_k=100, exclude_seen=False))
    ranked = scores_of(model.rank(processor(FUSED, candidates=[names] * 3)))
    for scores, chosen in zip(whole, ranked, strict=True):
        assert chosen == pytest.approx({name: scores[name] for name in names}, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("parts", [{"recommender_weight": 0.0}, {"text_weight": 0.0}])
@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_either_part_stands_alone(make, parts):
    model, processor = make_fused(make, make_sasrec(), **parts)
    inputs = processor(FUSED[:1])
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))[0], own_answers(model, inputs)[0]
    rows = model.catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id])
    more = 4.0 * text_scores(model.catalog, rows)
    if "text_weight" in parts:
        more = 1.5 * make_sasrec().score([rows])[0].numpy()
    more = more * model.fusion.temperature
    np.testing.assert_allclose([found[item] - own[item] for item in model.catalog.id_map.ids], more, atol=2e-5)


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_a_history_read_before_is_fused_as_one_read_now(make):
    # SASRec reads six places, so of seven items its state must forget the oldest.
    model, processor = make_fused(make, make_sasrec())
    first, second = HISTORY[:2], [*HISTORY[2:], *HISTORY[:1], *HISTORY[2:3], *HISTORY[1:2]]
    later = [Event(event.item_id, timestamp=400_000 + place) for place, event in enumerate(second)]
    state = model.encode_history(processor(Request(first)))
    state = model.extend(state, processor.events([later]))
    asked = Request([*first, *later], timestamp=900_000)
    whole = model.retrieve(processor(asked), top_k=100, exclude_seen=False)
    assert_same_scores(
        model.retrieve(processor(Request(timestamp=900_000)), top_k=100, state=state, exclude_seen=False),
        whole,
        atol=1e-4,
    )


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_it_is_saved_frozen_and_no_part_of_training(make, windows, tmp_path):
    model, processor = make_fused(make, make_sasrec())
    before = model.retrieve(processor(FUSED), top_k=100, exclude_seen=False)
    model.save_pretrained(tmp_path)
    assert_same_scores(
        AutoModel.from_pretrained(tmp_path).retrieve(processor(FUSED), top_k=100, exclude_seen=False), before
    )
    model.item_index = "faiss"
    assert_same_scores(model.retrieve(processor(FUSED), top_k=100, exclude_seen=False), before)
    frozen = {name: value.clone() for name, value in model.fusion.state_dict().items()}
    assert len(frozen) > 10
    batch = collate(windows, processor, [0, 5], negatives=None)
    if make is make_synergen:
        batch["label_log_q"] = torch.zeros(batch["labels"].shape)
        batch["shown_log_q"] = torch.zeros(batch["shown_item_rows"].shape)
    else:
        model.config.ranking_weight, model.ranking_head = 0.0, None
    fused_loss = model(**batch).loss
    fusion, model.fusion = model.fusion, None
    assert model(**batch).loss.item() == fused_loss.item()
    model.fusion = fusion
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.train()
    model(**batch).loss.backward()
    optimizer.step()
    assert all(torch.equal(model.fusion.state_dict()[name], value) for name, value in frozen.items())


@pytest.mark.parametrize("make", [make_synergen, make_intsr])
def test_a_new_item_has_its_text_and_the_mean_of_the_others(make):
    sasrec = make_sasrec()
    model, processor = make_fused(make, sasrec)
    catalog = model.catalog
    text = aisle_vector("kitchen")[None]
    grown = catalog.add_items([{"item_id": "new", "title": "kitchen thing"}], semantic_embeddings=text)
    model.set_catalog(grown)
    processor.set_catalog(grown)
    inputs = processor(FUSED[:1])
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))[0], own_answers(model, inputs)[0]
    rows = catalog.id_map.convert_to_rows([event.item_id for event in HISTORY if event.item_id])
    by_sasrec = sasrec.score([rows])[0].numpy()
    more = 1.5 * by_sasrec.mean() + 4.0 * text_scores(grown, rows)[24]
    assert found["new"] - own["new"] == pytest.approx(more * model.fusion.temperature, abs=2e-5)
    # In a history it stands at the mean, too.
    table = torch.from_numpy(sasrec.item_embeddings())
    later = [*HISTORY, Event("new", timestamp=250_000)]
    inputs = processor([Request(later, timestamp=300_000)])
    model.fusion.text_weight = 0.0
    found, own = scores_of(model.retrieve(inputs, top_k=100, exclude_seen=False))[0], own_answers(model, inputs)[0]
    start = sasrec.model.item_embedding.weight[sasrec.config.start_token_id]
    embeds = torch.stack([start, *table[rows], table.mean(0)])[None]
    with torch.no_grad():
        state = sasrec.model(torch.ones(embeds.shape[:2], dtype=torch.long), inputs_embeds=embeds).last_hidden_state
    expected = 1.5 * (state[0, -1] @ table.T).numpy() * model.fusion.temperature
    np.testing.assert_allclose([found[item] - own[item] for item in catalog.id_map.ids], expected, atol=2e-5)


def test_what_does_not_fit_is_refused():
    sasrec = make_sasrec()
    model, _ = make_fused(make_synergen, sasrec)
    with pytest.raises(ValueError, match="knows 23 items, the model 24"):
        model.set_recommender(make_sasrec(23))
    with pytest.raises(ValueError, match="`recommender` has the sizes .* make it with the recommender's own"):
        model.set_recommender(make_sasrec(num_hidden_layers=1))
    for make in (make_synergen, make_intsr):
        for settings in ({}, {"text_weight": 1.0}):
            with pytest.raises(ValueError, match="`config.recommender` is None or `recommender_weight` 0"):
                make(**settings)[0].set_recommender(sasrec)
        for settings, message in (
            ({"recommender_weight": 1.0}, "`recommender_weight` is 1.0, but `recommender` is None"),
            ({"text_weight": -1.0}, "`text_weight` is -1.0; it must be at least 0"),
            ({"text_weight": 1.0, "text_size": 0}, "`text_weight` is 1.0, but `text_size` is 0"),
        ):
            with pytest.raises(StrictDataclassClassValidationError, match=message):
                make(**settings)
    with pytest.raises(ConfigurationError, match="`recommender_weight` is 2.0, but no SASRec was given"):
        config = IntSRConfig(recommender_weight=2.0)
        make_window_model(type(model), config, model.catalog, IntSRProcessor(), WindowArguments())
