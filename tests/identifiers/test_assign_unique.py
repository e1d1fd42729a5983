# SPDX-License-Identifier: Apache-2.0
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seekrec.errors import CatalogError, IdentifierCollisionError
from seekrec.identifiers import ResidualCodebooks, assign_unique, prefix_groups
from seekrec.identifiers.assign import _cheapest_moves
from seekrec.identifiers.residual_codes import EncodedItems, quantize

VIEWS = ("semantic", "collaborative")


def random_items(num_items, num_shared, num_specific, codebook_size, seed, *, num_distinct=None) -> EncodedItems:
    """Items with both views of 2 numbers; `num_distinct` of them differ, the others are copies."""
    generator = np.random.default_rng(seed)
    which = generator.integers(0, num_distinct or num_items, num_items) if num_distinct else np.arange(num_items)
    latents = {view: generator.normal(size=(num_items, 2)).astype(np.float32)[which] for view in VIEWS}
    books = ResidualCodebooks(
        shared=generator.normal(size=(num_shared, codebook_size, 4)).astype(np.float32),
        specific={
            view: generator.normal(size=(num_specific, codebook_size, 2)).astype(np.float32) * 0.5 for view in VIEWS
        },
    )
    return quantize(latents, books)


def assign(encoded: EncodedItems, **arguments):
    return assign_unique(
        encoded.codes,
        encoded.costs,
        codebook_size=encoded.codebooks.codebook_size,
        num_shared_levels=encoded.codebooks.num_shared_levels,
        **arguments,
    )


def fixed_costs(table):
    """Costs of the last level that are written down, for `codes` of one level."""
    prices = np.array(table, np.float32)
    return lambda view, rows, prefix: prices[rows]


def assert_unique(codes, codebook_size, num_shared):
    for own in codes.values():
        assert len(np.unique(own, axis=0)) == len(own)
        assert own.min(initial=0) >= 0
        assert own.max(initial=0) < codebook_size
    assert (codes["semantic"][:, :num_shared] == codes["collaborative"][:, :num_shared]).all()


def test_the_cheaper_item_moves():
    # Both have code 0. Moving item 0 to code 1 costs 5 - 1 = 4 more, moving item 1 costs 3 - 2 = 1 more.
    result = assign_unique(
        {"semantic": np.array([[0], [0]])}, fixed_costs([[1, 5], [2, 3]]), codebook_size=2, num_shared_levels=0
    )
    assert result.codes["semantic"].tolist() == [[0], [1]]
    assert result.num_colliding_before == {"semantic": 2}
    assert result.num_moved == {"semantic": 1}
    assert result.moved_per_level == {"semantic": [1]}


def test_another_item_makes_room_where_that_is_cheaper():
    # Items 0 and 1 collide on code 0; code 1 belongs to item 2, who can go to code 2 for 1 more, while item 1 would
    # have to pay 10 more for code 2: 0 -> 0, 1 -> 1, 2 -> 2 costs 0 + 1 + 1 = 2, the least.
    result = assign_unique(
        {"semantic": np.array([[0], [0], [1]])},
        fixed_costs([[0, 10, 10], [0, 1, 10], [10, 0, 1]]),
        codebook_size=3,
        num_shared_levels=0,
    )
    assert result.codes["semantic"].tolist() == [[0], [1], [2]]


def test_taken_codes_are_nobody_elses():
    # Code 0 is nearest for both but taken; code 1 is next.
    result = assign_unique(
        {"semantic": np.array([[0], [0]])},
        fixed_costs([[0, 1, 2], [0, 1, 5]]),
        codebook_size=3,
        num_shared_levels=0,
        taken={"semantic": np.array([[0]])},
    )
    assert result.codes["semantic"].tolist() == [[2], [1]]
    assert result.num_colliding_before == {"semantic": 2}


def test_a_group_larger_than_the_codebook_moves_its_cheapest_item_up():
    # One number, levels {0, 10} then {-1, 1}. Three items near 0 have two identifiers (0, .): one must go to prefix 1.
    # Going there costs (10 - x)^2 - x^2 = 100 - 20 x more: least for the largest x, item 2.
    books = ResidualCodebooks(
        shared=np.zeros((0, 2, 1), np.float32),
        specific={"semantic": np.array([[[0], [10]], [[-1], [1]]], np.float32)},
    )
    encoded = quantize({"semantic": np.array([[-0.5], [0.25], [0.75]], np.float32)}, books)
    assert encoded.codes["semantic"].tolist() == [[0, 0], [0, 1], [0, 1]]
    # What is left at prefix 1 is 0.75 - 10, nearest to -1: identifier (1, 0). Then nothing collides.
    assert assign(encoded).codes["semantic"].tolist() == [[0, 0], [0, 1], [1, 0]]


def test_a_shared_level_moves_in_both_views():
    # Five items that are all the same, one shared and one specific level of 3: a shared prefix has room for 3.
    encoded = random_items(5, 1, 1, 3, seed=0, num_distinct=1)
    result = assign(encoded)
    assert_unique(result.codes, 3, 1)
    counts = np.bincount(result.codes["semantic"][:, 0], minlength=3)
    assert sorted(counts.tolist()) == [0, 2, 3]
    assert result.moved_per_level["semantic"][0] == result.moved_per_level["collaborative"][0] == 2


def test_nothing_moves_without_a_collision():
    encoded = random_items(200, 2, 2, 16, seed=0)
    is_first = np.unique(encoded.codes["semantic"], axis=0, return_index=True)[1]
    is_first = is_first[np.unique(encoded.codes["collaborative"][is_first], axis=0, return_index=True)[1]]
    kept = EncodedItems(
        {view: own[is_first] for view, own in encoded.latents.items()},
        encoded.codebooks,
        {view: own[is_first] for view, own in encoded.codes.items()},
    )
    result = assign(kept)
    assert all((result.codes[view] == kept.codes[view]).all() for view in VIEWS)
    assert result.num_moved == {"semantic": 0, "collaborative": 0}


def test_arguments_are_not_changed():
    encoded = random_items(30, 1, 1, 8, seed=0, num_distinct=3)
    before = {view: own.copy() for view, own in encoded.codes.items()}
    assign(encoded)
    assert all((before[view] == encoded.codes[view]).all() for view in VIEWS)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_always_unique_or_an_error(data):
    codebook_size = data.draw(st.integers(2, 5), "codebook_size")
    num_shared = data.draw(st.integers(0, 3), "num_shared")
    num_specific = data.draw(st.integers(0 if num_shared else 1, 4 - num_shared), "num_specific")
    room = codebook_size ** (num_shared + num_specific)
    num_items = data.draw(st.integers(1, min(room + 1, 80)), "num_items")
    num_distinct = data.draw(st.integers(1, num_items), "num_distinct")
    encoded = random_items(num_items, num_shared, num_specific, codebook_size, 0, num_distinct=num_distinct)
    if num_items > room:
        with pytest.raises(IdentifierCollisionError, match=f"{num_items} items cannot share {room} identifiers"):
            assign(encoded)
        return
    result = assign(encoded)
    assert_unique(result.codes, codebook_size, num_shared)
    # The same again: what depends on the arguments alone.
    again = assign(encoded)
    assert all((again.codes[view] == result.codes[view]).all() for view in VIEWS)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_new_items_beside_taken_identifiers(data):
    codebook_size, num_shared, num_specific = data.draw(st.sampled_from([(2, 2, 2), (3, 1, 2), (4, 0, 2), (3, 3, 0)]))
    room = codebook_size ** (num_shared + num_specific)
    num_items = data.draw(st.integers(2, room), "num_items")
    num_old = data.draw(st.integers(1, num_items - 1), "num_old")
    encoded = random_items(num_items, num_shared, num_specific, codebook_size, 1, num_distinct=max(1, num_items // 3))
    old, new = (
        EncodedItems(
            {view: own[rows] for view, own in encoded.latents.items()},
            encoded.codebooks,
            {view: own[rows] for view, own in encoded.codes.items()},
        )
        for rows in (slice(0, num_old), slice(num_old, None))
    )
    taken = assign(old).codes
    added = assign(new, taken=taken).codes
    assert_unique({view: np.concatenate([taken[view], added[view]]) for view in VIEWS}, codebook_size, num_shared)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 5).flatmap(
        lambda size: st.integers(2, size).flatmap(
            lambda items: st.lists(
                st.lists(st.integers(0, 9), min_size=size, max_size=size), min_size=items, max_size=items
            )
        )
    )
)
def test_total_cost_is_the_least_possible(table):
    # All items on code 0, so that there is a collision to resolve; every way to give them distinct codes is tried.
    num_items, codebook_size = len(table), len(table[0])
    codes = {"semantic": np.zeros((num_items, 1), np.int64)}
    result = assign_unique(codes, fixed_costs(table), codebook_size=codebook_size, num_shared_levels=0)
    last = result.codes["semantic"][:, 0].tolist()
    possible = list(permutations(range(codebook_size), num_items))
    totals = [sum(table[item][code] for item, code in enumerate(way)) for way in possible]
    assert sum(table[item][code] for item, code in enumerate(last)) == min(totals)
    # Among equal totals, as many items as possible stay.
    best = [way for way, total in zip(possible, totals, strict=True) if total == min(totals)]
    assert last.count(0) == max(way.count(0) for way in best)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_cheapest_moves_leave_full_codes(data):
    """Against the same rule written out: in rounds, each item of a full code names its cheapest code with room."""
    size = data.draw(st.integers(2, 5), "codebook_size")
    capacity = data.draw(st.integers(1, 4), "capacity")
    current = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size * capacity), "codes")
    cells = st.lists(st.integers(0, 9), min_size=size, max_size=size)
    table = data.draw(st.lists(cells, min_size=len(current), max_size=len(current)), "prices")
    counts = [current.count(code) for code in range(size)]
    expected = list(current)
    while max(counts) > capacity:
        wishes = []
        for item, code in enumerate(expected):
            if code == current[item] and counts[code] > capacity:
                target = min((c for c in range(size) if counts[c] < capacity), key=lambda c, i=item: table[i][c])
                wishes.append((table[item][target] - table[item][code], item, target))
        leaving = dict.fromkeys(range(size), 0)
        moves = []
        for _, item, target in sorted(wishes):
            leaving[expected[item]] += 1
            if leaving[expected[item]] <= counts[expected[item]] - capacity:
                moves.append((item, target))
        coming = dict.fromkeys(range(size), 0)
        room = [capacity - count for count in counts]
        for item, target in moves:
            coming[target] += 1
            if coming[target] <= room[target]:
                counts[expected[item]] -= 1
                counts[target] += 1
                expected[item] = target
    room = capacity - np.bincount(current, minlength=size)
    movable = np.flatnonzero(room[current] < 0)
    moved, targets = _cheapest_moves(np.array(table, np.float32)[movable], np.array(current)[movable], room)
    found = np.array(current)
    found[movable[moved]] = targets
    assert found.tolist() == expected


def test_one_item():
    encoded = random_items(1, 2, 2, 2, seed=0)
    assert (assign(encoded).codes["semantic"] == encoded.codes["semantic"]).all()


def test_a_full_tree():
    # 16 equal items and 2 ** 4 identifiers: each is used once in each view.
    result = assign(random_items(16, 2, 2, 2, seed=0, num_distinct=1))
    assert_unique(result.codes, 2, 2)
    assert (np.bincount(prefix_groups(result.codes["semantic"], 4)) == 1).all()


def test_prefix_groups_are_in_order_and_do_not_overflow():
    codes = np.array([[1, 5], [0, 9], [1, 5], [1, 2]])
    assert prefix_groups(codes, 0).tolist() == [0, 0, 0, 0]
    assert prefix_groups(codes, 1).tolist() == [1, 0, 1, 1]
    assert prefix_groups(codes, 2).tolist() == [2, 0, 2, 1]
    # 65,536 ** 8 is far beyond int64.
    deep = np.full((3, 8), 65_535)
    deep[1, 0] = 0
    assert prefix_groups(deep, 8).tolist() == [1, 0, 1]


def test_thousands_of_equal_items():
    # Every level is exhausted by one point: 3,000 items, prefixes with room for 64 and 4,096.
    result = assign(random_items(3000, 1, 2, 64, seed=0, num_distinct=1))
    assert_unique(result.codes, 64, 1)


@pytest.mark.parametrize(
    ("codes", "arguments", "error", "message"),
    [
        (
            {"semantic": [[0]] * 3},
            {},
            IdentifierCollisionError,
            r"3 items cannot share 2 identifiers \(`codebook_size` 2",
        ),
        ({"semantic": [[0]]}, {"taken": {"semantic": [[0], [1]]}}, IdentifierCollisionError, "3 items cannot share 2"),
        (
            {"semantic": [[2]]},
            {},
            CatalogError,
            "`codes` of view 'semantic' contains codes from 2 to 2.*must be 0 to 1",
        ),
        ({"semantic": [[-1]]}, {}, CatalogError, "codes from -1 to -1"),
        (
            {"semantic": [[0, 0]], "collaborative": [[0]]},
            {},
            CatalogError,
            r"view 'collaborative' has shape \(1, 1\); expected \(1, 2\)",
        ),
        (
            {"semantic": [[0, 0]], "collaborative": [[1, 0]]},
            {"num_shared_levels": 1},
            CatalogError,
            "'semantic' and 'collaborative' differ in their first 1 levels",
        ),
        (
            {"semantic": [[0, 0]]},
            {"taken": {"semantic": [[0, 1], [0, 1]]}},
            CatalogError,
            "Two of the `taken` identifiers of view 'semantic' are the same",
        ),
    ],
)
def test_what_cannot_be(codes, arguments, error, message):
    arguments = {"codebook_size": 2, "num_shared_levels": 0, **arguments}
    with pytest.raises(error, match=message):
        assign_unique({view: np.array(own) for view, own in codes.items()}, fixed_costs([[0, 0]]), **arguments)
