# SPDX-License-Identifier: Apache-2.0
"""Rows that ask for new items: who is asked what, and from which catalogue."""

from __future__ import annotations

import numpy as np
import pytest

import seekrec.embeddings
from seekrec.catalog import Catalog
from seekrec.errors import DataError
from seekrec.evaluation import ModelRetriever, build_cases, compare_on_new_items, systems
from seekrec.events import ColdStart, hold_out_items, split_log
from seekrec.schema import ScoredItem

# In the toy log d and e have no training event; u1 looks for d by "green chairs", u2 for e by "blue".
VECTORS = dict(zip("abcdef", np.eye(6, dtype=np.float32), strict=True))


class LatestFirst:
    """A model and its processor at once: gives the items it may, from the end of the catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def __call__(self, requests):
        return requests

    def set_catalog(self, catalog):
        self.catalog = catalog

    def retrieve(self, inputs, *, top_k, where, exclude_seen):
        ids = np.array(self.catalog.id_map.ids)
        return [
            [ScoredItem(item, -float(rank)) for rank, item in enumerate(ids[mask][::-1][:top_k])] for mask in where
        ]


@pytest.fixture(autouse=True)
def no_encoder(monkeypatch):
    monkeypatch.setattr(systems, "load_semantic_encoder", lambda name: name)
    monkeypatch.setattr(systems, "embed_texts", lambda texts, encoder, show_progress: np.eye(6)[: len(texts)])
    # Added items get the vector of d: which of the two it is does not matter to what is asked here.
    added = lambda texts, name_or_path: np.stack([VECTORS["d"]] * len(texts))  # noqa: E731
    monkeypatch.setattr(seekrec.embeddings, "embed_texts", added)


def make_catalog(items):
    return Catalog.build(
        items, embeddings={"semantic": np.stack([VECTORS[one] for one in items["item_id"].to_pylist()])}
    )


def ask(cold, catalog, model, **settings):
    retriever = ModelRetriever(model, model, num_beams=None)
    return compare_on_new_items({"ours": retriever}, cold, catalog, **settings, seed=0, show_progress=False)


def test_untrained_items_are_asked_for_in_the_catalogue_as_it_is(toy_split, toy_items):
    catalog = make_catalog(toy_items)
    rows = ask(ColdStart.of_untrained(toy_split), catalog, LatestFirst(catalog))
    assert {(row.system, row.behavior) for row in rows} == {
        ("dense text", "recommendation"),
        ("ours", "recommendation"),
        ("BM25", "search"),
        ("dense text", "search"),
        ("ours", "search"),
    }
    assert {row.protocol for row in rows} == {"full, untrained items"}
    assert {(row.num_cases, row.num_items) for row in rows} == {(2, 6)}
    roles = {row.system: row.details.get("role") for row in rows}
    assert roles == {"dense text": "baseline", "BM25": "baseline", "ours": None}
    # From the end: f e d c b a. u1 had a, b and c, so d is third; u2 had b, c and a, so e is second.
    assert [row.ranks.tolist() for row in rows if row.system == "ours"] == [[[3, 3], [2, 2]]] * 2


def test_held_out_items_are_added_and_taken_back(toy_split):
    rest, cold = hold_out_items(toy_split, 1, seed=0)
    (new,) = cold.item_ids
    split_log(rest)
    catalog = make_catalog(rest.items)
    model = LatestFirst(catalog)
    rows = ask(cold, catalog, model, with_baselines=False)
    assert [(row.system, row.behavior, row.num_cases, row.num_items) for row in rows] == [
        ("ours", "recommendation", 1, 6),
        ("ours", "search", 1, 6),
    ]
    assert {row.protocol for row in rows} == {"full, held-out items"}
    assert all(row.ranks.tolist() == [[1, 1]] for row in rows)  # the new item is the catalogue's last
    assert model.catalog is catalog and new not in catalog.id_map


def test_nothing_new_gives_no_rows(toy_split, toy_items, caplog):
    catalog = make_catalog(toy_items)
    none = ColdStart(toy_split, toy_items.slice(0, 0), held_out=False)
    with caplog.at_level("INFO", logger="seekrec"):
        assert ask(none, catalog, LatestFirst(catalog)) == []
    assert "set `num_cold_items` to hold some out" in caplog.text


def test_a_catalogue_that_cannot_grow_gives_no_rows(toy_split, caplog):
    rest, cold = hold_out_items(toy_split, 1, seed=0)
    atomic = Catalog.build(rest.items, {"collaborative": np.arange(5)[:, None]}, num_shared_levels=1, codebook_size=5)
    assert ask(cold, atomic, LatestFirst(atomic)) == []
    assert "are not evaluated: This catalogue has no identifier model" in caplog.text


def test_cases_of_chosen_targets(toy_split, toy_id_map):
    cases = build_cases(toy_split, toy_id_map, only_targets={"e", "a"})
    assert cases.target_ids == ["e"] and cases.case_numbers.tolist() == [1]
    assert cases.fingerprint != build_cases(toy_split, toy_id_map).fingerprint
    with pytest.raises(DataError, match="No test case of behavior 'recommendation' has a target in"):
        build_cases(toy_split, toy_id_map, only_targets={"a"})
