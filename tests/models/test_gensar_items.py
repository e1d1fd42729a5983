# SPDX-License-Identifier: Apache-2.0
"""GenSAR that reads the catalogue's vectors of items, and orders what it found by the encoder's score."""

import numpy as np
import pytest
import torch
from small_shop import HISTORY, NUM_ITEMS, REQUESTS, VECTOR_SIZES, make_gensar
from transformers.models.t5.modeling_t5 import T5Stack

from seekrec.catalog import Catalog
from seekrec.corpora import StreamCollator, build_stream
from seekrec.errors import CatalogError
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration
from seekrec.schema import Event, Request

ORDERING = {"corpus": "stream", "item_vector_size": sum(VECTOR_SIZES.values())}
READING = {**ORDERING, "order_by": "identifier"}


def joined_vectors(catalog):
    return torch.from_numpy(np.concatenate([catalog.embeddings[view] for view in ("semantic", "collaborative")], 1))


@torch.no_grad()
def test_items_are_found_by_their_whole_identifiers(aisles):
    model, processor = make_gensar(aisles, **READING)
    vectors, vocabulary = model.encoder.item_vectors, model.vocabulary
    tokens = processor([Request(HISTORY)])["input_ids"]  # i0, then i9 by a search, then i1
    found = vectors.find_rows(tokens)[0]
    begins = [vocabulary.item_token_ids["recommendation"], vocabulary.item_token_ids["search"]]
    assert [row for row in found.tolist() if row >= 0] == [0, 9, 1]
    assert all((token in begins) == (row >= 0) for token, row in zip(tokens[0].tolist(), found.tolist(), strict=True))
    # One that is cut off, and a code of the other view in its place, name no item.
    assert vectors.find_rows(tokens[:, :-1]).max() == 9
    other = tokens.clone()
    other[0, -1] = vocabulary.level_offsets["semantic"][1]
    assert vectors.find_rows(other)[0, -3] == -1
    # Code 5 of the shared level belongs to no item: three aisles use 0, 1 and 2.
    unknown = tokens.clone()
    unknown[0, -2] = vocabulary.level_offsets["collaborative"][0] + 5
    assert vectors.find_rows(unknown)[0, -3] == -1


@torch.no_grad()
def test_the_encoder_reads_tokens_and_vector_of_an_item(aisles, monkeypatch):
    model, processor = make_gensar(aisles, **READING)
    given = {}
    forward = T5Stack.forward

    def spy(self, *args, inputs_embeds=None, **kwargs):
        given["embeds"] = inputs_embeds
        return forward(self, *args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(T5Stack, "forward", spy)
    inputs = processor([Request(HISTORY[:1])])  # ... <R_I> <M1> <C1> of i0
    model.encoder.encode_events(inputs["input_ids"], inputs["attention_mask"])
    tokens = model.shared.weight[inputs["input_ids"][0, -3:]].sum(0)
    vector = model.encoder.item_vectors.projection.weight @ joined_vectors(model.catalog)[0]
    torch.testing.assert_close(given["embeds"][0, -1], tokens + vector)


def test_each_view_begins_as_large_as_a_code(aisles):
    model, _ = make_gensar(aisles, **READING)
    projection = model.encoder.item_vectors.projection.weight
    spread = model.shared.weight.std().item()
    first, second = joined_vectors(model.catalog).split(list(VECTOR_SIZES.values()), dim=1)
    for vectors, weight in ((first, projection[:, : first.shape[1]]), (second, projection[:, first.shape[1] :])):
        # A sum of `size` products of variance spread ** 2 / size each.
        assert (vectors @ weight.T).std().item() == pytest.approx(spread, rel=0.35)


@torch.no_grad()
def test_found_items_and_candidates_stand_in_the_encoders_order(aisles):
    plain, processor = make_gensar(aisles, **READING)
    model, _ = make_gensar(aisles, **ORDERING)
    model.load_state_dict(plain.state_dict())
    vectors = joined_vectors(model.catalog) @ model.encoder.item_vectors.projection.weight.T
    for request in REQUESTS:
        inputs = processor([request])
        state = model.encoder.encode_events(inputs["input_ids"], inputs["attention_mask"]).output[0][0, -1]
        view = model.catalog.view_of(request.behavior)
        tokens = torch.from_numpy(model.vocabulary.encode(model.catalog.codes[view], view))
        scores = (model.shared.weight[tokens].sum(1) + vectors) @ state
        beams = {item.item_id for item in plain.retrieve(inputs, top_k=6, num_beams=6, exclude_seen=False)[0]}
        wanted = [f"i{row}" for row in scores.argsort(descending=True).tolist() if f"i{row}" in beams]
        answer = model.retrieve(inputs, top_k=4, num_beams=6, exclude_seen=False)[0]
        assert [item.item_id for item in answer] == wanted[:4]
        assert [item.score for item in answer] == pytest.approx(
            [scores[int(item_id[1:])].item() for item_id in wanted[:4]], abs=1e-4
        )
        # Beams as wide as the catalogue: the order of all items.
        everything = model.retrieve(inputs, top_k=NUM_ITEMS, num_beams=NUM_ITEMS, exclude_seen=False)[0]
        order = [f"i{row}" for row in scores.argsort(descending=True).tolist()]
        assert [item.item_id for item in everything] == order
        candidates = ["i3", "i20", "i11"]
        ranked = model.rank(processor([request], candidates=[candidates]))[0]
        assert [item.item_id for item in ranked] == sorted(candidates, key=order.index)


@torch.no_grad()
def test_a_batch_of_both_tasks_with_limits_is_answered_alone_as_together(aisles):
    model, processor = make_gensar(aisles, **ORDERING)
    garden = model.catalog.where(title_contains="garden")
    together = model.retrieve(
        processor(REQUESTS), top_k=[1, 2, 3, 4], where=garden, num_beams=[8, 8, 8, 1], exclude_seen=False
    )
    for number, (request, answer) in enumerate(zip(REQUESTS, together, strict=True)):
        beams = [8, 8, 8, 1][number]
        alone = model.retrieve(
            processor([request]), top_k=number + 1, where=garden, num_beams=beams, exclude_seen=False
        )[0]
        assert [item.item_id for item in answer] == [item.item_id for item in alone]
        assert len(answer) == number + 1 and all(int(item.item_id[1:]) < 8 for item in answer)


def test_beams_and_order_read_a_history_once(aisles):
    model, processor = make_gensar(aisles, **ORDERING)
    passes = []
    model.encoder.register_forward_hook(lambda *call: passes.append(call))
    assert all(model.retrieve(processor(REQUESTS), top_k=3, num_beams=4, exclude_seen=False))
    assert len(passes) == 1


def test_the_vectors_travel_with_the_checkpoint(aisles, tmp_path):
    model, processor = make_gensar(aisles, **ORDERING)
    model.save_pretrained(tmp_path)
    loaded = GenSARForConditionalGeneration.from_pretrained(tmp_path)
    inputs = processor([Request([Event("i4")])])
    before, after = (one.retrieve(inputs, top_k=5, exclude_seen=False)[0] for one in (model, loaded))
    assert [item.item_id for item in after] == [item.item_id for item in before]
    assert [item.score for item in after] == pytest.approx([item.score for item in before], abs=1e-5)
    assert torch.equal(loaded.encoder.item_vectors.table.vectors, joined_vectors(model.catalog))


def test_a_catalogue_with_other_vectors_is_refused(aisles):
    _, catalog, *_ = aisles
    model, _ = make_gensar(aisles, **READING)
    without = Catalog.build(catalog.items, catalog.codes, num_shared_levels=1, codebook_size=catalog.codebook_size)
    with pytest.raises(CatalogError, match="`item_vector_size` is 8 in the model and the catalogue's vectors have 0"):
        model.set_catalog(without)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"item_vector_size": 8}, "`item_vector_size` is 8 and `corpus` 'instructions'; it needs `corpus: stream`"),
        ({"corpus": "stream", "item_vector_size": -1}, "`item_vector_size` is -1"),
        ({"corpus": "stream", "order_by": "encoder"}, "order_by"),
        ({"order_by": "next_item"}, "`order_by` is 'next_item', which only a model with `corpus: stream`"),
    ],
)
def test_contradicting_settings_are_refused(settings, message):
    with pytest.raises(Exception, match=message):
        GenSARConfig(**settings)


@pytest.mark.filterwarnings("ignore:.*tied.*:UserWarning")
def test_adapters_train_the_projection_whole(aisles):
    from seekrec.recipes.t5 import add_lora

    split, catalog, tokenizer, vocabulary = aisles
    model, _ = make_gensar(aisles, **ORDERING)
    wrapped = add_lora(model, 4).train()
    before = model.encoder.item_vectors.projection.weight.detach().clone()
    rows = build_stream(split, catalog, tokenizer, vocabulary, model.config)
    batch = StreamCollator(tokenizer.pad_token_id, tokenizer.pad_token_id)([rows[0], rows[1]])
    optimizer = torch.optim.SGD([weight for weight in wrapped.parameters() if weight.requires_grad], lr=0.1)
    wrapped(**batch).loss.backward()
    optimizer.step()
    merged = wrapped.merge_and_unload()
    assert not torch.equal(merged.encoder.item_vectors.projection.weight, before)
    assert isinstance(merged, GenSARForConditionalGeneration)
