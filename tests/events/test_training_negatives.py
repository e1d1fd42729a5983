import numpy as np
import pyarrow as pa
import pytest

from seekrec.corpora import MixtureSampler
from seekrec.errors import ConfigurationError, DataError
from seekrec.events.matching import HardMatches
from seekrec.events.training_negatives import NegativeSampler, number_pairs
from seekrec.training.coded_rows import CodeSampler
from seekrec.util.hashing import hash_numbers

# User 0 knows items 0 and 1 of ten, user 1 all but item 7.
USERS = np.array([0, 0, *[1] * 9])
ITEMS = np.array([0, 1, *[row for row in range(10) if row != 7]])


def make(counts, **settings):
    return NegativeSampler(10, number_pairs(USERS, ITEMS, 10), counts, **settings)


def test_negatives_are_items_the_user_does_not_know():
    sampler = make({"uniform": 50})
    drawn = sampler.draw(np.array([0, 1]), np.array([3, 4]))
    assert drawn.shape == (2, 50)
    assert set(drawn[0].tolist()) == set(range(2, 10))  # 50 draws of 8 items: each is missed with chance 0.0013
    assert set(drawn[1].tolist()) == {7}


def test_a_row_gets_the_same_alone_as_in_a_batch_and_others_in_another_epoch():
    sampler = make({"uniform": 5}, seed=1)
    users, keys = np.array([0, 1, 0]), np.array([11, 12, 13])
    together = sampler.draw(users, keys)
    for place in range(3):
        np.testing.assert_array_equal(sampler.draw(users[[place]], keys[[place]])[0], together[place])
    assert not np.array_equal(together[0], together[2])
    assert not np.array_equal(make({"uniform": 5}, seed=2).draw(users, keys)[0], together[0])


def test_popular_items_are_drawn_as_often_as_they_are_acted_on():
    interactions = np.array([0, 2, 2, 2, 5])
    drawn = make({"popularity": 4000}, interactions=interactions).draw(np.array([0]), np.array([0]))[0]
    # User 0 knows item 0: 2 and 5 are left, three to one. The standard deviation of the share is 0.007.
    assert set(drawn.tolist()) == {2, 5}
    assert (drawn == 2).mean() == pytest.approx(0.75, abs=0.03)


def test_matches_are_drawn_and_texts_without_any_get_uniform_items():
    matches = np.array([[8, 0, -1], [-1, -1, -1]])
    sampler = make({"uniform": 2, "bm25": 3}, matches=matches)
    drawn = sampler.draw(np.array([0, 0]), np.array([1, 2]), np.array([0, 1]))
    assert drawn[0, 2:].tolist() == [8, 8, 8]  # item 0 is known
    assert (drawn[1] >= 2).all()


def test_a_match_table_names_items_that_share_words():
    items = pa.table({"title": ["red kite", "blue kite", "chess set"], "description": pa.nulls(3, pa.string())})
    table = HardMatches(items).table(["chess", "kite", "piano"], 2)
    assert table.tolist() == [[2, -1], [0, 1], [-1, -1]]


def test_a_user_who_knows_everything_has_no_negatives():
    sampler = NegativeSampler(2, number_pairs(np.array([0, 0]), np.array([0, 1]), 2), {"uniform": 1})
    with pytest.raises(DataError, match="User row 0 acted on all 2 items"):
        sampler.draw(np.array([0]), np.array([0]))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"random": 1}, "name each of uniform, popularity, bm25"),
        ({"uniform": -1}, "with a number from 0 up"),
        ({"uniform": 0}, "at least one number must be above 0"),
        ({"popularity": 1}, "need `interactions`"),
        ({"bm25": 1}, "need `matches`"),
    ],
)
def test_wrong_counts_are_refused(counts, message):
    with pytest.raises(ConfigurationError, match=message):
        make(counts)


def test_hashes_are_spread_evenly():
    numbers = hash_numbers(3, np.arange(20_000), 1) % np.uint64(10)
    # Each of ten values 2,000 times; the standard deviation is 42.
    assert np.abs(np.bincount(numbers.astype(np.int64)) - 2000).max() < 200
    assert len(np.unique(hash_numbers(0, np.arange(100_000)))) == 100_000


def test_codes_tell_epochs_apart():
    sampler = CodeSampler(MixtureSampler({"a": 3, "b": 2}, {"a": 3.0, "b": 2.0}, epoch_size=5))
    first = list(sampler)
    sampler.set_epoch(2)
    third = list(sampler)
    assert sorted(first) == [0, 1, 2, 3, 4] and sorted(third) == [10, 11, 12, 13, 14]
    assert len(sampler) == 5
