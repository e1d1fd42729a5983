# SPDX-License-Identifier: Apache-2.0
"""What is added to scores: bounds of prefixes by hand, and a search that is exact whatever the number of beams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seekrec.errors import RequestError, SearchLimitError
from seekrec.generation import IdentifierTrie, asked_bounds, beam_search, bounds, exact_search
from seekrec.generation.bounds import bounds_of_requests, find_parents, make_bounds
from seekrec.generation.trie import Families
from seekrec.models.views.added import AddedScores
from seekrec.models.views.parts import Numbers

OFFSETS = [40, 60, 80]


def random_catalog(seed):
    rng = np.random.default_rng(seed)
    sizes = tuple(rng.integers(2, 7, 3).tolist())
    codes = np.stack([rng.integers(0, size, int(rng.integers(2, 90))) for size in sizes[:1]], axis=1)
    rest = [rng.integers(0, size, len(codes)) for size in sizes[1:]]
    return np.column_stack([codes, *rest]), sizes, rng


def test_each_node_has_the_most_below_it():
    codes = np.array([[1, 0, 2], [0, 1, 1], [1, 0, 2], [1, 2, 0], [0, 1, 0]])
    trie = IdentifierTrie.from_codes(codes, (2, 3, 3))
    bounds = make_bounds(trie, torch.tensor([[3.0, -1, 5, 4, 2], [0, 9, -9, 1, 8]]))
    assert [best.tolist() for best in bounds.best] == [
        [[5], [9]],
        [[2, 5], [9, 1]],  # prefixes 0, 1
        [[2, 5, 4], [9, 0, 1]],  # 01, 10, 12
        [[2, -1, 5, 4], [8, 9, 0, 1]],  # 010, 011, 102 (two items), 120
    ]
    one = torch.arange(5.0)[None]
    assert make_bounds(trie, one) is make_bounds(trie, one.clone())  # numbers of all requests are kept
    with pytest.raises(RequestError, match=r"`added` has shape \(4,\), the trie 5 items"):
        bounds_of_requests(trie, np.zeros(4, np.float32), [0], [None])


@pytest.mark.parametrize("seed", range(4))
def test_a_child_knows_its_parent(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4 if seed % 2 else 2 + (rng.random(50) < 0.1), 50)
    parents = np.repeat(np.arange(50), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for form in ("starts", "extras"):
        family = Families.from_first_children(first, len(parents))
        if family.form != form:
            continue
        assert find_parents(family, torch.arange(len(parents))).tolist() == parents.tolist()


@pytest.fixture(params=["all nodes", "asked"])
def way(request, monkeypatch):
    """How bounds are made: of all nodes, or of those asked for as in a large catalogue, with few large numbers."""
    if request.param == "asked":
        monkeypatch.setattr(bounds, "_FEW", 0)
        for name, value in (("_NUM_LARGE", 4), ("_NUM_SAMPLED", 20), ("_FIRST_FEW", 2), ("_TOGETHER", 8)):
            monkeypatch.setattr(asked_bounds, name, value)
    return request.param


def draw_added(rng, shape):
    """Numbers that are all different, or as those of few promoted items, or of a few classes."""
    kind = rng.integers(3)
    if kind == 1:
        return np.where(rng.random(shape) < 0.1, rng.normal(size=shape), 0).astype(np.float32)
    if kind == 2:
        return rng.integers(-2, 2, shape).astype(np.float32)
    return (rng.normal(size=shape) * rng.choice([0.1, 1, 5])).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        ("t5", "vocab"),
        ("mt5", "level"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [("mt5", "vocab"), ("t5", "level")]),
    ],
)
def test_the_best_sums_are_found_as_by_brute_force(get_model, make_batch, brute_force, kind, norm, way):
    model, batch = get_model(kind), make_batch([9, 4, 6])
    for seed in range(15 * (way == "asked"), 15 + 15 * (way == "asked")):
        codes, sizes, rng = random_catalog(seed)
        trie = IdentifierTrie.from_codes(codes, sizes)
        scores = np.stack(brute_force(model, batch, codes, OFFSETS, norm, sizes))
        added = draw_added(rng, scores.shape)
        allowed = [None, rng.random(len(codes)) < 0.7, rng.random(len(codes)) < 0.3]
        one = seed % 3 == 0
        total = scores + (added[0] if one else added)
        found = beam_search(
            model,
            **batch,
            trie=trie,
            level_offsets=OFFSETS,
            num_beams=int(rng.integers(1, 5)),
            top_k=(count := int(rng.integers(1, 6))),
            masks=allowed,
            norm=norm,
            added=added[0] if one else added,
            exact=True,
        )
        for line, mask in enumerate(allowed):
            open_to = np.arange(len(codes)) if mask is None else np.flatnonzero(mask)
            best = open_to[np.lexsort((open_to, -total[line, open_to]))][:count]
            np.testing.assert_allclose(found.scores[line], total[line, best], atol=1e-4)
            np.testing.assert_allclose(total[line, found.rows[line]], total[line, best], atol=1e-4)
            assert len(set(found.rows[line].tolist())) == len(best)


def test_bounds_of_what_is_asked_for_choose_the_same_beams(get_model, make_batch, monkeypatch):
    """In catalogues of thousands of items, some requests with masks, wide and narrow."""
    model, batch = get_model("t5"), make_batch([9, 4, 6, 5])
    monkeypatch.setattr(asked_bounds, "_NUM_LARGE", 30)
    looked = [0]
    real = asked_bounds.AskedBounds._most
    monkeypatch.setattr(
        asked_bounds.AskedBounds, "_most", lambda *parts: looked.__setitem__(0, looked[0] + 1) or real(*parts)
    )
    monkeypatch.setattr(asked_bounds, "_NUM_MADE", 30)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, (20, 20, 5), (int(rng.integers(500, 4000)), 3))
        added = draw_added(rng, (4, len(codes)))
        added = added[0] if seed % 4 == 0 else added
        allowed = [None, rng.random(len(codes)) < 0.9, rng.random(len(codes)) < 0.05, np.arange(len(codes)) < 20]
        settings = {"trie": IdentifierTrie.from_codes(codes, 20), "level_offsets": [40, 60, 80], "added": added}
        settings |= {"num_beams": [5, 1, 8, 30], "top_k": [5, 1, 8, 3], "masks": allowed}
        found = []
        for few in (2**30, 0):
            monkeypatch.setattr(bounds, "_FEW", few)
            found.append(beam_search(model, **batch, **settings))
        # Of numbers that are made where they are asked for, too.
        lines = added if added.ndim == 2 else np.tile(added, (4, 1))
        made = AddedScores([Numbers(torch.from_numpy(lines))], 4, len(codes), torch.device("cpu"))
        found.append(beam_search(model, **batch, **{**settings, "added": made}))
        for other in found[1:]:
            for own, its in zip(found[0].rows, other.rows, strict=True):
                assert own.tolist() == its.tolist()
            for own, its in zip(found[0].scores, other.scores, strict=True):
                np.testing.assert_array_equal(own, its)
    assert looked[0] > 12


def test_an_exact_answer_that_takes_too_long_is_not_given(get_model, make_batch, monkeypatch):
    monkeypatch.setattr(exact_search, "_ROUND", 1)
    monkeypatch.setattr(exact_search, "MOST_ROUNDS", 2)
    codes = np.stack(np.unravel_index(np.arange(512), (8, 8, 8)), 1)
    settings = {"trie": IdentifierTrie.from_codes(codes, 8), "level_offsets": OFFSETS, "num_beams": 2, "top_k": 1}
    beam_search(get_model("t5"), **make_batch([4]), **settings)
    added = np.random.default_rng(0).normal(size=512).astype(np.float32)
    with pytest.raises(SearchLimitError, match=r"After 2 rounds of 1 prefixes .* not certain: \d+ more"):
        beam_search(get_model("t5"), **make_batch([4]), **settings, added=added, exact=True)


@pytest.mark.parametrize("norm", ["vocab", "level"])
def test_beams_are_steered_by_what_is_added(get_model, make_batch, brute_force, norm, way):
    """As many beams as prefixes lose nothing; a few find what is promoted far above all others."""
    model, batch = get_model("t5"), make_batch([9, 4, 6])
    for seed in range(5):
        codes, sizes, rng = random_catalog(seed)
        trie = IdentifierTrie.from_codes(codes, sizes)
        scores = np.stack(brute_force(model, batch, codes, OFFSETS, norm, sizes))
        added = rng.normal(size=len(codes)).astype(np.float32)
        settings = {"trie": trie, "level_offsets": OFFSETS, "norm": norm}
        found = beam_search(model, **batch, **settings, num_beams=90, top_k=4, added=added)
        total = -np.sort(-(scores + added), axis=1)[:, :4]
        assert [line.tolist() for line in found.scores] == [pytest.approx(line, abs=1e-4) for line in total.tolist()]
        promoted = int(rng.integers(len(codes)))
        added[promoted] += 1000
        found = beam_search(model, **batch, **settings, num_beams=1, top_k=1, added=added)
        assert all(len(rows) == 1 and (codes[rows[0]] == codes[promoted]).all() for rows in found.rows)
        plain = beam_search(model, **batch, **settings, num_beams=1, top_k=3, exact=True)
        np.testing.assert_allclose(np.stack(plain.scores), -np.sort(-scores, axis=1)[:, :3], atol=1e-4)
