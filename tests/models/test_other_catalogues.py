# SPDX-License-Identifier: Apache-2.0
"""Inputs name items by row: those of a processor with other items are refused, not answered with what stands there."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hammer import CANDIDATES, REQUESTS, grow, make_pair, plain

from seekrec.errors import CatalogError, RequestError

SWAPPED = "made with a different catalogue than the model's: row 0 is 'i1' in the one and 'i0' in the other"


def swapped(catalog):
    """The same items, two of them in each other's row."""
    ids = catalog.id_map.ids
    place = catalog.items.schema.get_field_index("item_id")
    return replace(catalog, items=catalog.items.set_column(place, "item_id", [[ids[1], ids[0], *ids[2:]]]))


@pytest.mark.parametrize("name", ["gensar_item_vectors", "gensr", "intsr", "synergen"])
def test_inputs_of_another_catalogue_are_refused(name, aisles, monkeypatch):
    model, processor = make_pair(name, aisles)
    own = model.catalog
    inputs = processor(REQUESTS, candidates=CANDIDATES)
    calls = [model.retrieve, model.rank]
    expected = [plain(call(inputs)) for call in calls]
    if model.keeps_states:
        state = model.encode_history(inputs)
        calls += [model.encode_history, lambda inputs: model.extend(state, inputs)]
    processor.set_catalog(swapped(own))
    other = processor(REQUESTS, candidates=CANDIDATES)
    for call in calls:
        with pytest.raises(RequestError, match=SWAPPED):
            call(other)

    # An equal catalogue, and one of which the other is the beginning, is no other; and it is compared once.
    snapshot = model.current_snapshot()
    compared, difference = [], snapshot._difference
    monkeypatch.setattr(snapshot, "_difference", lambda catalog: compared.append(catalog) or difference(catalog))
    for catalog in (replace(own), grow(own, "attic", 0)):
        catalog.__dict__["identifier_hash"] = own.identifier_hash
        processor.set_catalog(catalog)
        for _ in range(2):
            again = processor(REQUESTS, candidates=CANDIDATES)
            assert [plain(call(again)) for call in calls[:2]] == expected
    assert len(compared) == 2
    model.set_catalog(catalog)
    assert plain(model.rank(inputs)) == expected[1]
    # The catalogue does not travel.
    assert pickle.loads(pickle.dumps(inputs)).catalog is None and inputs.to("cpu").catalog is own


@pytest.mark.parametrize("name", ["gensar", "gensar_item_vectors", "gensr", "intsr", "synergen"])
def test_a_catalogue_of_other_items_is_refused(name, aisles, tmp_path):
    """Learned vectors and views belong to rows, whatever the identifiers of a learner say; also after loading."""
    model, _ = make_pair(name, aisles)
    model.save_pretrained(tmp_path)
    for one in (model, type(model).from_pretrained(tmp_path)):
        for other in (swapped(one.catalog), replace(one.catalog, items=one.catalog.items.slice(0, 23))):
            other.__dict__["identifier_hash"] = one.catalog.identifier_hash  # as one identifier model gives it
            with pytest.raises(CatalogError, match="catalogue.* first 24 items|other items than the 24|has 23 items"):
                one.set_catalog(other)


def test_identifiers_of_another_training_are_refused(aisles):
    model, processor = make_pair("gensar_writing", aisles)
    turned = {view: codes[::-1] for view, codes in model.catalog.codes.items()}
    processor.set_catalog(replace(model.catalog, codes=turned))
    for ask in (
        lambda: model.retrieve(processor(REQUESTS)),
        lambda: model.suggest_queries(REQUESTS, processor=processor),
        lambda: model.describe(["i3"], processor=processor),
    ):
        with pytest.raises(RequestError, match="its identifiers have hash [0-9a-f]{12}, the model's [0-9a-f]{12}"):
            ask()
