# SPDX-License-Identifier: Apache-2.0
"""Items that the same users acted on."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from small_shop import log_of

from seekrec.embeddings import ItemNeighbors, NeighborTables, item_knn
from seekrec.embeddings.item_knn import item_cosines, keep_largest, most_of_view, sequence_similarities
from seekrec.errors import DataError
from seekrec.events import split_log
from seekrec.schema import IdMap
from seekrec.util.ragged import Ragged


def test_cosines_of_items_count_common_users():
    """a was had by users 0 1 2 3, b by 0 1, c by 1, d by 4."""
    acted = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float32)
    ab, ac, bc = 2 / np.sqrt(8), 1 / 2, 1 / np.sqrt(2)
    table = item_cosines(csr_array(acted), 5).toarray()
    np.testing.assert_allclose(table, [[0, ab, ac, 0], [ab, 0, bc, 0], [ac, bc, 0, 0], [0] * 4], rtol=1e-6)
    # ab = bc: the tie goes to the lower row.
    np.testing.assert_allclose(
        item_cosines(csr_array(acted), 1).toarray(), [[0, ab, 0, 0], [ab, 0, 0, 0], [0, bc, 0, 0], [0] * 4], rtol=1e-6
    )


def test_the_nearest_do_not_depend_on_how_many_pairs_are_summed_at_a_time(monkeypatch):
    acted = csr_array((np.random.default_rng(3).random((40, 17)) < 0.3).astype(np.float32))
    whole = item_cosines(acted, 4).toarray()
    # By hand: common users over the root of the product of users, the largest four of each row.
    table = acted.toarray()
    norms = np.sqrt(table.sum(0))
    expected = table.T @ table / np.outer(norms, norms)
    np.fill_diagonal(expected, 0)
    for row in expected:
        row[np.argsort(-row, kind="stable")[4:]] = 0
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    for limit in (1, 50, 300):
        monkeypatch.setattr(item_knn, "_PAIRS_AT_ONCE", limit)
        assert (item_cosines(acted, 4).toarray() == whole).all()


def test_two_items_are_near_in_sequences_as_close_as_users_took_them():
    """One user took a b c, another c a: a and b stand next to each other once, a and c one apart and next."""
    sequences = Ragged.from_lists([[0, 1, 2], [2, 0]])
    one_apart = 5 / 6
    ab, ac, bc = 1 / np.sqrt(2), (one_apart + 1) / 2, 1 / np.sqrt(2)
    expected = [[0, ab, ac, 0], [ab, 0, bc, 0], [ac, bc, 0, 0], [0] * 4]
    np.testing.assert_allclose(sequence_similarities(sequences, 4, 5).toarray(), expected, rtol=1e-6)


def test_in_sequences_a_user_counts_an_item_where_it_was_last():
    """Training has a b c a of one user and c b of the other; so a stands behind c, and b before both."""
    steps = [("u", step, item, None) for step, item in enumerate("abcaxy")]
    split = split_log(log_of([*steps, *(("v", step, item, None) for step, item in enumerate("cbxy"))]))
    tables = NeighborTables.fit([split], IdMap(list("abcxy"))).tables
    one_apart = 5 / 6
    ab, ac, bc = one_apart / np.sqrt(2), 1 / np.sqrt(2), 1
    expected = np.array([[0, ab, ac], [ab, 0, bc], [ac, bc, 0]])
    np.testing.assert_allclose(tables["sequences"].toarray()[:3, :3], expected, rtol=1e-6)
    together = np.array([[0, 1 / np.sqrt(2), 1 / np.sqrt(2)], [1 / np.sqrt(2), 0, 1], [1 / np.sqrt(2), 1, 0]])
    np.testing.assert_allclose(tables["users"].toarray()[:3, :3], together, rtol=1e-6)


def test_near_in_sequences_does_not_depend_on_how_many_pairs_are_summed_at_a_time(monkeypatch):
    """Beside a plain sum over all pairs of 30 users; of long sequences those that stand far apart are left out."""
    rng = np.random.default_rng(5)
    lines = [rng.permutation(200)[: rng.integers(180)] for _ in range(30)]
    table, number = np.zeros((200, 200)), np.zeros(200)
    for line in lines:
        number[line] += 1
        for place, item in enumerate(line):
            for more, other in enumerate(line[place + 1 : place + 101]):
                table[item, other] += 5 / (5 + more)
                table[other, item] += 5 / (5 + more)
    expected = table / np.sqrt(np.outer(number, number))
    sequences = Ragged.from_arrays(lines)
    whole = sequence_similarities(sequences, 200, 200)
    np.testing.assert_allclose(whole.toarray(), expected, rtol=1e-5)
    for limit in (1, 500, 20_000):
        monkeypatch.setattr(item_knn, "_PAIRS_AT_ONCE", limit)
        assert (sequence_similarities(sequences, 200, 200).toarray() == whole.toarray()).all()
    # Where that is too much, the closest alone.
    monkeypatch.setattr(item_knn, "_MAX_PAIRS", 1)
    closest = np.zeros((200, 200))
    for line in lines:
        np.add.at(closest, (np.append(line[:-1], line[1:]), np.append(line[1:], line[:-1])), 1)
    found = sequence_similarities(sequences, 200, 200).toarray()
    np.testing.assert_allclose(found, closest / np.sqrt(np.outer(number, number)), rtol=1e-5)


def test_a_view_of_a_large_catalogue_has_fewer_neighbours(monkeypatch):
    """500 of each of 20,000 items are ten million."""
    assert (most_of_view(20_000), most_of_view(20_001)) == (500, 100)
    table = np.random.default_rng(2).random((6, 6)).astype(np.float32)
    np.fill_diagonal(table, 0)
    monkeypatch.setattr(item_knn, "_MOST_OF_VIEW", 6 * 4)
    for number, most in ((4, 4), (5, 2)):
        monkeypatch.setattr(item_knn, "MOST_NEIGHBORS", number)
        monkeypatch.setattr(item_knn, "_FEWER_NEIGHBORS", 2)
        view = NeighborTables({"users": csr_array((6, 6)), "sequences": csr_array(table)}).of_view()
        assert np.diff(view.similarities.indptr).tolist() == [most] * 6 and view.decay == 0.8


def test_nothing_is_near_where_nobody_did_anything():
    assert NeighborTables({"users": csr_array((3, 3)), "sequences": csr_array((3, 3))}).of_view() is None
    assert sequence_similarities(Ragged.from_lists([[]]), 3, 2).nnz == 0


def test_the_largest_of_each_row_are_kept_and_of_ties_the_first():
    similar = csr_array(np.array([[0, 0.5, 0, 0], [0.5, 0, 0.25, 0], [0, 0.25, 0, 0.25], [0, 0, 0, 0]], np.float32))
    assert keep_largest(similar, 1).toarray().tolist() == [[0, 0.5, 0, 0], [0.5, 0, 0, 0], [0, 0.25, 0, 0], [0] * 4]


@pytest.fixture
def log():
    """Seven users: six act on six items each, of which the last two are for validation and test, the last on two."""
    lines = [(f"u{user}", step, f"i{(user + step) % 8}", None) for user in range(6) for step in range(6)]
    return log_of([*lines, ("u6", 0, "i0", None), ("u6", 1, "i7", None)])


def test_users_count_with_fewer_items_where_they_have_many(log, monkeypatch):
    split, ids = split_log(log), IdMap([f"i{row}" for row in range(8)])
    whole = NeighborTables.fit([split], ids)
    # Six users of four training items each have 6 * 16 pairs; three of each have 6 * 9.
    counted = []
    monkeypatch.setattr(
        item_knn, "item_cosines", lambda acted, number: counted.append(acted) or item_cosines(acted, number)
    )
    for limit, items in ((200, 4), (95, 3), (53, 2), (1, 1)):
        monkeypatch.setattr(item_knn, "_MAX_PAIRS", limit)
        found = NeighborTables.fit([split], ids)
        assert counted[-1].sum(1).max() == items
    assert not found.tables["users"].nnz and whole.tables["users"].nnz


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_sums_are_those_of_a_dense_product(share):
    rng = np.random.default_rng(1)
    table = np.where(rng.random((60, 60)) < share, rng.random((60, 60)), 0).astype(np.float32)
    np.fill_diagonal(table, 0)
    near = ItemNeighbors(csr_array(table), decay=0.5)
    histories = [rng.choice(60, size, replace=False) for size in (0, 1, 7, 30)]
    expected = [(0.5 ** np.arange(len(line))[::-1, None] * table[line]).sum(0) for line in histories]
    found = near.scores(Ragged.from_arrays(histories))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)
    assert found.has_sorted_indices


def test_a_view_counts_what_the_tables_of_baselines_hold(log, monkeypatch):
    split, ids = split_log(log), IdMap([f"i{row}" for row in range(8)])
    monkeypatch.setattr(item_knn, "MOST_NEIGHBORS", 3)
    tables, view = NeighborTables.fit([split, split], ids), ItemNeighbors.fit([split, split], ids)
    assert set(tables.tables) == {"users", "sequences"} and 0 < np.diff(view.similarities.indptr).max() <= 3
    for table in (tables.tables["sequences"], tables.of_view().similarities):
        assert (view.similarities.toarray() == table.toarray()).all()


def test_arrays_come_back_and_others_are_refused():
    table = csr_array(np.array([[0, 0.5, 0], [0.5, 0, 0.25], [0, 0.25, 0]], np.float32))
    arrays = ItemNeighbors(table, decay=0.5).arrays()
    again = ItemNeighbors.from_arrays(arrays, 3, decay=0.5)
    # Item 3 came later; item 1 weighs 1/2.
    sums = again.scores(Ragged.from_lists([[1, 3], [], [2, 1]], np.int64)).toarray()
    np.testing.assert_allclose(sums, [[0.25, 0, 0.125], [0, 0, 0], [0.5, 0.125, 0.25]])
    for wrong in (
        {**arrays, "items": arrays["items"] + 2},
        {"items": arrays["items"]},
        {**arrays, "similarities": -arrays["similarities"]},
    ):
        with pytest.raises(DataError, match="neighbors of 3 items"):
            ItemNeighbors.from_arrays(wrong, 3, decay=0.5)
    with pytest.raises(DataError, match="decay 2"):
        ItemNeighbors.from_arrays(arrays, 3, decay=2)
