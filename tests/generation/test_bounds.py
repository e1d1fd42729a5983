# SPDX-License-Identifier: Apache-2.0
"""What is added to scores: bounds of prefixes by hand, and a search that is exact whatever the number of beams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seekrec.errors import RequestError
from seekrec.generation import IdentifierTrie, beam_search
from seekrec.generation.bounds import find_parents, make_bounds
from seekrec.generation.trie import Families

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
    bounds = make_bounds(trie, np.array([[3, -1, 5, 4, 2], [0, 9, -9, 1, 8]], np.float32))
    assert [best.tolist() for best in bounds.best] == [
        [[5], [9]],
        [[2, 5], [9, 1]],  # prefixes 0, 1
        [[2, 5, 4], [9, 0, 1]],  # 01, 10, 12
        [[2, -1, 5, 4], [8, 9, 0, 1]],  # 010, 011, 102 (two items), 120
    ]
    one = np.arange(5, dtype=np.float32)[None]
    assert make_bounds(trie, one) is make_bounds(trie, one.copy())  # numbers of all requests are kept
    with pytest.raises(RequestError, match=r"`added` has shape \(1, 4\), the trie 5 items"):
        make_bounds(trie, np.zeros((1, 4), np.float32))


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


@pytest.mark.parametrize("kind", ["t5", "mt5"])
@pytest.mark.parametrize("norm", ["vocab", "level"])
def test_the_best_sums_are_found_as_by_brute_force(get_model, make_batch, brute_force, kind, norm):
    model, batch = get_model(kind), make_batch([9, 4, 6])
    for seed in range(30):
        codes, sizes, rng = random_catalog(seed)
        trie = IdentifierTrie.from_codes(codes, sizes)
        scores = np.stack(brute_force(model, batch, codes, OFFSETS, norm, sizes))
        added = (rng.normal(size=scores.shape) * rng.choice([0.1, 1, 5])).astype(np.float32)
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


@pytest.mark.parametrize("norm", ["vocab", "level"])
def test_beams_are_steered_by_what_is_added(get_model, make_batch, brute_force, norm):
    """As many beams as prefixes lose nothing; a few find what is promoted far above all others."""
    model, batch = get_model("t5"), make_batch([9, 4, 6])
    for seed in range(10):
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
