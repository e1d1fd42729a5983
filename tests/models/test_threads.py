# SPDX-License-Identifier: Apache-2.0
"""Catalogues change while models answer: every answer is that of one catalogue, and none stays behind."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hammer import HAMMERED, REQUESTS, grow, hammer, hammer_catalog, make_pair, plain
from small_shop import make_aisles, make_gensar, make_log, make_model, make_synergen
from transformers import AutoModel, PreTrainedModel

from seekrec.catalog import Catalog
from seekrec.generation import IdentifierTrie
from seekrec.util.finite import weights_key

# One of each family, with all that it has; the others are slow by mark.
WITH_VIEWS = [name if name.endswith("_views") else pytest.param(name, marks=pytest.mark.slow) for name in HAMMERED]


@pytest.mark.parametrize("name", WITH_VIEWS)
def test_threads_set_catalogues_while_others_ask(name, aisles):
    counts = hammer(name, aisles, seconds=0.3, num_threads=8)
    assert counts["answers"] > 0 and counts["sets"] > 0
    assert (counts["wrong"], counts["stale_afterwards"], counts["first_error"]) == (0, 0, None)


def test_threads_change_one_catalogue():
    counts = hammer_catalog(seconds=0.6, num_threads=8)
    assert counts["changes"] > 0
    assert (counts["wrong"], counts["first_error"]) == (0, None)


def ids_of(model, processor):
    return [[item.item_id for item in answer] for answer in model.retrieve(processor(REQUESTS), top_k=5)]


@pytest.mark.parametrize("name", WITH_VIEWS)
def test_every_catalogue_can_be_set_again(name, aisles):
    model, processor = make_pair(name, aisles)
    old = model.catalog
    before = plain(model.retrieve(processor(REQUESTS), top_k=50))
    grown = grow(old, "attic", 0)
    removed = grown.remove_items(["new", "i3"])
    removed.__dict__["identifier_hash"] = old.identifier_hash
    answers = {}
    for catalog in (grown, removed, grown, old, removed, grown, old):
        for one in (model, processor):
            one.set_catalog(catalog)
        given = plain(model.retrieve(processor(REQUESTS), top_k=50, exclude_seen=False))
        # Whatever was set before.
        assert given == answers.setdefault(catalog.content_hash, given)
        found = {item_id for item_id, _, _ in given[0]}
        assert found == {item for item in catalog.id_map.ids if item not in ("new", "i3") or catalog is not removed}
    assert plain(model.retrieve(processor(REQUESTS), top_k=50)) == before


def test_who_finishes_late_puts_nothing_old_into_something_new(aisles):
    model, _ = make_pair("gensar", aisles)
    old, view = model.catalog, model.catalog.views[0]
    begun = model.current_snapshot()
    model.set_catalog(grow(old, "attic", 0))
    assert begun.trie(view).num_items == len(old)  # built after the new one was set
    assert model.trie(view).num_items == len(old) + 1
    assert isinstance(model.trie(view), IdentifierTrie)


def test_a_copy_shares_the_catalogue_and_nothing_made_of_weights(aisles):
    for name in ("gensar_item_vectors", "gensr", "intsr"):
        model, processor = make_pair(name, aisles)
        before = plain(model.retrieve(processor(REQUESTS), top_k=5))
        copied, read = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        assert copied.catalog is model.catalog
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(-0.5)
        assert plain(model.retrieve(processor(REQUESTS), top_k=5)) != before
        for one in (copied, read):
            assert plain(one.retrieve(processor(REQUESTS), top_k=5)) == before


def by_data(model, weights):
    for own, other in zip(model.parameters(), weights, strict=True):
        own.data.copy_(other)


def by_storage(model, weights):
    for own, other in zip(model.parameters(), weights, strict=True):
        own.data = other.clone()


def by_vector(model, weights):
    torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(weights), model.parameters())


def by_state(model, weights):
    names = [name for name, _ in model.named_parameters()]
    model.load_state_dict(dict(zip(names, weights, strict=True)), strict=False)


def by_operation(model, weights):
    with torch.no_grad():
        for own, other in zip(model.parameters(), weights, strict=True):
            own.lerp_(other, 1.0)


def by_numpy(model, weights):
    for own, other in zip(model.parameters(), weights, strict=True):
        own.detach().numpy()[...] = other.numpy()


@pytest.mark.parametrize("name", ["intsr", "synergen", "gensr"])
@pytest.mark.parametrize("change", [by_data, by_storage, by_vector, by_state, by_operation, by_numpy])
def test_weights_are_noticed_however_they_change(name, change, aisles):
    (model, processor), (other, _) = (make_pair(name, aisles) for _ in range(2))
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    if name == "gensr":  # its table predicts the vectors of later items
        for one in (model, other, processor):
            one.set_catalog(grow(one.catalog, "attic", 0))
    expected = ids_of(other, processor)
    assert ids_of(model, processor) != expected
    change(model, [weight.detach().clone() for weight in other.parameters()])
    assert ids_of(model, processor) == expected


@pytest.mark.parametrize(("family", "way"), [("gensar", "stream"), ("intsr", "latest_merged"), ("synergen", "both")])
def test_another_vocabulary_is_noticed(family, way, aisles):
    """Its words lie among the weights: those of items are looked up in it again."""
    (model, processor), (other, _) = (make_model(family, way, aisles) for _ in range(2))
    words = other.encoder.item_vectors.words if family == "gensar" else other.items.words
    words.keys.add_(1)  # hashes that no word of the shop has
    if family != "gensar":
        other.items.categories.vectors.mul_(-2)
    expected = plain(other.retrieve(processor(REQUESTS), top_k=5))
    assert plain(model.retrieve(processor(REQUESTS), top_k=5)) != expected
    model.load_state_dict(other.state_dict())
    assert plain(model.retrieve(processor(REQUESTS), top_k=5)) == expected


def test_items_that_words_alone_tell_apart_are_read_again():
    """A catalogue without vectors and identifiers that has as many items as the one before may have others."""
    log = make_log()
    reads = {"item_reading": ["vector", "words"], "query_reading": ["words"], "catalog": Catalog.build(log.items)}
    (model, processor), (other, asking) = (make_synergen(**reads) for _ in range(2))
    for title in ("garden", "kitchen"):
        items = Catalog.build(log.items).add_items([{"item_id": "new", "title": title}])
        model.set_catalog(items)
        processor.set_catalog(items)
        found = plain(model.retrieve(processor(REQUESTS), top_k=50))
    other.set_catalog(items)
    asking.set_catalog(items)
    assert found == plain(other.retrieve(asking(REQUESTS), top_k=50))


@pytest.mark.parametrize("name", ["intsr", "synergen"])
def test_a_change_of_type_is_noticed(name, aisles):
    model, processor = make_pair(name, aisles)
    ids_of(model, processor)
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert ids_of(model.to(torch.bfloat16), processor) == ids_of(half, processor)


def test_of_a_large_weight_evenly_spaced_rows_are_looked_at(monkeypatch):
    monkeypatch.setattr("seekrec.util.finite._MAX_NUMBERS", 8)
    weight = torch.zeros(8, 4)
    key = weights_key([weight])
    weight.data[1] = 1.0  # 32 numbers of which 8 are read: every fourth row
    assert weights_key([weight]) == key
    weight.data[4] = 1.0
    assert weights_key([weight]) != key


def test_threads_that_load_at_once_leave_transformers_as_it_was(tmp_path):
    """It replaces `tie_weights` of all models while one is loaded, and puts back what it found."""
    model, _ = make_gensar(make_aisles())
    model.save_pretrained(tmp_path)
    before = PreTrainedModel.tie_weights
    with ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(lambda _: AutoModel.from_pretrained(tmp_path), range(12)))
    assert PreTrainedModel.tie_weights is before
    assert all(one.get_input_embeddings().weight is one.encoder.embed_tokens.weight for one in loaded)
