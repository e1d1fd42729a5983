# SPDX-License-Identifier: Apache-2.0
"""The flat trie against sets of tuples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seekrec.errors import CatalogError, RequestError
from seekrec.generation import IdentifierTrie
from seekrec.generation.masks import MaskCache, TrieMask
from seekrec.generation.trie import Families

# Six items, five identifiers: rows 1 and 4 share (0, 2).
CODES = np.array([[3, 1], [0, 2], [0, 0], [3, 0], [0, 2], [1, 1]])


def make_trie():
    return IdentifierTrie.from_codes(CODES, (4, 3))


def test_nodes_are_numbered_lexicographically():
    trie = make_trie()
    # Depth 1: prefixes 0, 1, 3. Depth 2: (0,0) (0,2) (1,1) (3,0) (3,1), so families of 2, 1 and 2.
    assert [trie.num_nodes(depth) for depth in range(3)] == [1, 3, 5]
    assert trie.codes[0].tolist() == [0, 1, 3]
    assert trie.codes[1].tolist() == [0, 2, 1, 0, 1]
    assert trie.families[1].first_children().tolist() == [0, 2, 3]
    assert trie.item_rows.tolist() == [2, 1, 4, 5, 3, 0]
    assert (trie.num_items, trie.num_identifiers, trie.num_levels) == (6, 5, 2)


def test_children_are_padded_to_the_largest_family():
    children = make_trie().children(1, torch.tensor([[1, 2]]))
    assert children.is_real.tolist() == [[[True, False], [True, True]]]
    assert children.nodes.tolist() == [[[2, 0], [3, 4]]]
    assert children.codes[children.is_real].tolist() == [1, 0, 1]
    assert make_trie().children(0, torch.zeros(1, dtype=torch.int64)).codes.tolist() == [[0, 1, 3]]


def test_lookup_gives_every_item_of_an_identifier():
    trie = make_trie()
    leaves = trie.find(torch.from_numpy(CODES))
    assert leaves.tolist() == [4, 1, 0, 3, 1, 2]
    assert trie.expand_leaves(torch.tensor([1]))[0].tolist() == [1, 4]
    assert trie.expand_leaves(torch.tensor([4]))[0].tolist() == [0]
    rows, source = trie.expand_leaves(torch.tensor([1, 3]))
    assert (rows.tolist(), source.tolist()) == ([1, 4, 3], [0, 0, 1])


def test_unknown_prefixes_are_minus_one():
    wanted = torch.tensor([[0, 1], [2, 0], [-1, 0], [3, 99], [3, -5], [99, 0], [3, 1]])
    assert make_trie().find(wanted).tolist() == [-1, -1, -1, -1, -1, -1, 4]
    assert make_trie().find(torch.tensor([[1], [2]])).tolist() == [1, -1]
    assert make_trie().find(torch.zeros((3, 0), dtype=torch.int64)).tolist() == [0, 0, 0]


@st.composite
def tables(draw):
    sizes = tuple(draw(st.lists(st.sampled_from([1, 2, 5, 300, 40_000, 2**20]), min_size=1, max_size=6)))
    num_items = draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    skew = draw(st.sampled_from([1.0, 6.0]))
    codes = np.stack([(size * rng.random(num_items) ** skew).astype(np.int64) for size in sizes], axis=1)
    return sizes, codes[rng.integers(0, num_items, num_items)] if draw(st.booleans()) else codes


@settings(max_examples=80, deadline=None, derandomize=True)
@given(table=tables(), share=st.sampled_from([0.0, 0.2, 0.9, 1.0]))
def test_any_table_equals_sets_of_tuples(table, share):
    # Wide codebooks and six levels do not fit 63 bits: both ways of sorting are met.
    sizes, codes = table
    trie = IdentifierTrie.from_codes(codes, sizes)
    allowed = np.random.default_rng(len(codes)).random(len(codes)) < share
    mask = trie.mask(allowed)
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, identifier in enumerate(map(tuple, codes.tolist())):
        rows_of.setdefault(identifier, []).append(row)
    for depth in range(len(sizes) + 1):
        prefixes = sorted({identifier[:depth] for identifier in rows_of})
        assert trie.num_nodes(depth) == len(prefixes)
        assert trie.find(torch.tensor(prefixes, dtype=torch.int64).view(len(prefixes), depth)).tolist() == list(
            range(len(prefixes))
        )
        counts = [sum(allowed[r] for i, rows in rows_of.items() if i[:depth] == p for r in rows) for p in prefixes]
        assert mask.counts[depth].tolist() == counts
        if depth < len(sizes):
            children = trie.children(depth, torch.arange(len(prefixes)))
            for node, prefix in enumerate(prefixes):
                below = sorted({identifier[depth] for identifier in rows_of if identifier[:depth] == prefix})
                assert children.codes[node][children.is_real[node]].tolist() == below
    for leaf, identifier in enumerate(sorted(rows_of)):
        assert trie.expand_leaves(torch.tensor([leaf]))[0].tolist() == rows_of[identifier]
    assert mask.num_allowed == allowed.sum()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=40), form=st.sampled_from(["starts", "extras"]))
def test_both_forms_of_families_say_the_same(sizes, form):
    first = np.cumsum([0, *sizes[:-1]])
    family = Families.from_first_children(first, sum(sizes))
    if form == "starts":
        family = Families("starts", torch.tensor([*first, sum(sizes)]), len(sizes), sum(sizes))
    begin, count = family.ranges(torch.arange(len(sizes)))
    assert (begin.tolist(), count.tolist()) == (first.tolist(), sizes)
    assert family.first_children().tolist() == first.tolist()


def test_the_smaller_form_is_kept():
    # 100 parents: one with 3 children, 99 with one. Two extra children against 101 starts.
    assert Families.from_first_children(np.array([0, *range(3, 102)]), 102).array.tolist() == [0, 0]
    assert Families.from_first_children(np.array([0, 10]), 20).form == "starts"


def test_four_levels_of_256_take_under_ten_bytes_an_item():
    codes = np.random.default_rng(0).integers(0, 256, (50_000, 4))
    assert IdentifierTrie.from_codes(codes, 256).nbytes / 50_000 < 10


@pytest.mark.parametrize(
    ("codes", "size", "message"),
    [
        (np.zeros((0, 3), int), 4, r"`codes` is int64 of shape \(0, 3\); pass integers"),
        (np.zeros((3, 0), int), 4, r"`codes` is int64 of shape \(3, 0\)"),
        (np.zeros(3, int), 4, r"`codes` is int64 of shape \(3,\)"),
        (np.zeros((3, 2)), 4, r"`codes` is float64"),
        (np.array([[0, 1], [2, 5]]), (3, 5), r"has code 5 at row 1, level 1; .* has 5 codes \(0..4\)"),
        (np.array([[0, 1], [-1, 5]]), 6, "has code -1 at row 1, level 0"),
        (
            np.array([[0, 1]]),
            (3, 5, 7),
            r"`codebook_size` is \(3, 5, 7\); pass one positive number, or one for each of the 2",
        ),
        (np.array([[0, 1]]), 0, "`codebook_size` is 0"),
    ],
)
def test_tables_that_are_no_identifiers_are_refused(codes, size, message):
    with pytest.raises(CatalogError, match=message):
        IdentifierTrie.from_codes(codes, size)


def test_masks_count_items_below_every_node():
    # Rows 1 and 4 share (0, 2), row 3 is (3, 0); items in leaf order are 2, 1, 4, 5, 3, 0.
    mask = make_trie().mask(np.array([False, True, False, True, True, False]))
    assert [counts.tolist() for counts in mask.counts[:3]] == [[3], [2, 0, 1], [0, 2, 0, 1, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_few_forbidden_items_close_the_nodes_that_counts_would(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    trie = IdentifierTrie.from_codes(rng.integers(0, (6, 6, 3), (60, 3)), 6)
    forbidden = rng.choice(60, 12, replace=False)
    where = ~np.isin(np.arange(60), forbidden)
    counted = trie.mask(where)
    monkeypatch.setattr("seekrec.generation.trie._SELDOM", 1)
    found = IdentifierTrie(trie.codebook_sizes, trie.codes, trie.families, trie.item_rows).mask(where)
    assert not found.counts and found.num_allowed == 48
    for depth, counts in enumerate(counted.counts):
        nodes = torch.arange(len(counts))
        assert found.is_open(depth, nodes).tolist() == counted.is_open(depth, nodes).tolist() == (counts > 0).tolist()
    assert not found.is_open(3, torch.arange(trie.num_nodes(3))).all()
    everything = IdentifierTrie(trie.codebook_sizes, trie.codes, trie.families, trie.item_rows).mask(np.ones(60, bool))
    assert everything.is_open(2, torch.tensor([[0, 1]])).tolist() == [[True, True]]


def test_equal_masks_are_made_once():
    trie = make_trie()
    where = np.array([True, False] * 3)
    assert trie.mask(where) is trie.mask(torch.from_numpy(where.copy()))
    assert trie.mask(where) is not trie.mask(~where)
    first = trie.mask(where)
    where[0] = False  # the caller's array is its own
    assert first.num_allowed == 3
    assert trie.mask(where).num_allowed == 2


def test_the_cache_of_masks_is_bounded():
    size = 100 + 4 + 2 * 600  # two arrays, and the objects around each
    cache = MaskCache(max_bytes=3 * size)
    for number in range(10):
        where = np.arange(100) == number
        mask = cache.get(where, lambda allowed: ((np.array([allowed.sum()], np.int32),), ()))
        assert mask.nbytes == size
    assert len(cache) == 3
    huge = cache.get(np.ones(10_000, bool), lambda allowed: ((np.array([1], np.int32),), ()))
    assert len(cache) == 1  # one mask is kept however large
    assert cache.get(np.ones(10_000, bool), lambda allowed: pytest.fail("not kept")) is huge
    # Of few more may be kept than of many.
    cache, lengths = MaskCache(max_bytes=35 * size, max_bytes_of_many=34 * size), []
    for number in range(40):
        cache.get(np.arange(100) == number, lambda allowed: ((np.array([allowed.sum()], np.int32),), ()))
        lengths.append(len(cache))
    assert lengths == [*range(1, 35), *[34] * 6]
    cache = MaskCache(max_bytes=35 * size, max_bytes_of_many=20 * size)
    for number in range(40):
        cache.get(np.arange(100) == number, lambda allowed: ((np.array([allowed.sum()], np.int32),), ()))
    assert len(cache) == 32


def test_a_new_mask_costs_the_same_whatever_was_kept_before(monkeypatch):
    looked_at = []
    nbytes = TrieMask.nbytes
    monkeypatch.setattr(TrieMask, "nbytes", property(lambda mask: looked_at.append(mask) or nbytes.fget(mask)))
    cache = MaskCache(max_bytes=200 * 2000)
    for number in range(1000):
        cache.get(np.arange(1000) == number, lambda allowed: ((np.array([1], np.int32),), ()))
    # One comes in and, where it is too much, one goes.
    assert len(looked_at) <= 2 * 1000


def test_masks_of_the_wrong_kind_are_refused():
    with pytest.raises(RequestError, match=r"`where` is int64 of shape \(6,\); pass bool of shape \(6,\)"):
        make_trie().mask(np.ones(6, np.int64))
    with pytest.raises(RequestError, match=r"`where` is bool of shape \(7,\)"):
        make_trie().mask(np.ones(7, bool))


def test_a_mask_belongs_to_its_trie_on_every_device():
    trie, other = make_trie(), make_trie()
    mask = trie.mask(np.ones(6, bool))
    assert mask.owner is trie.masks is not other.masks
    assert trie.to("cpu") is trie
    on_meta = trie.to("meta")
    assert on_meta is trie.to("meta")
    assert mask.owner is on_meta.masks
    assert mask.to(torch.device("meta")) is mask.to(torch.device("meta"))
    assert mask.to(torch.device("meta")).where.device.type == "meta"
