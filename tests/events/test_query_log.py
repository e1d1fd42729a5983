# SPDX-License-Identifier: Apache-2.0
"""Clicks after "red": lamp twice, chair once; after "red kite": kite once. So 4 clicks follow the word red, 1 kite."""

from __future__ import annotations

import numpy as np
import pytest
from small_shop import log_of

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.query_log import QueryLog
from seekrec.events.splits import split_log
from seekrec.schema import IdMap

LOG2, LOG5 = np.log(2), np.log(5)  # idf of red: log(1 + 4 / 4); of kite: log(1 + 4 / 1)


@pytest.fixture
def query_log() -> QueryLog:
    return QueryLog.count(
        ["red", "Reds!", "red kite"],
        np.array([0, 0, 1, 2]),
        np.array([0, 1, 0, 2]),
        num_items=4,
    )


def test_a_query_scores_by_its_own_clicks_and_those_of_its_words(query_log):
    scores = query_log.scores(["RED", "kites", "kite, red", "green", "red green"]).toarray()
    red, kite = np.array([2, 1, 1, 0]) / 4, np.array([0, 0, 1, 0])
    expected = [
        (np.array([2, 1, 0, 0]) + red) / (3 + 1),
        kite,  # never asked alone: (0 + 1 * kite) / (0 + 1)
        (kite + (LOG2 * red + LOG5 * kite) / (LOG2 + LOG5)) / 2,
        np.zeros(4),
        red,  # of the words only red is known
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert scores.dtype == np.float32
    assert query_log.knows(["Kite red", "kite", "red"]).tolist() == [True, False, True]


def test_more_smoothing_trusts_the_words_more(query_log):
    query_log.smoothing = 9.0
    np.testing.assert_allclose(query_log.scores(["red"]).toarray(), [[(2 + 4.5) / 12, 3.25 / 12, 2.25 / 12, 0]])


def test_arrays_make_the_same_table_and_hold_no_text(query_log):
    arrays = query_log.arrays()
    assert {array.dtype.kind for array in arrays.values()} == {"i", "f"}
    grown = QueryLog.from_arrays(arrays, 6)
    queries = ["red", "kite red"]
    np.testing.assert_array_equal(grown.scores(queries).toarray()[:, :4], query_log.scores(queries).toarray())
    assert not grown.scores(queries).toarray()[:, 4:].any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("query_items", np.array([0, 1, 7], np.int32)),
        ("word_offsets", np.array([0, 9, 4])),
        ("word_keys", np.array([3, 2])),
        ("query_clicks", np.array([2, np.nan, 1], np.float32)),
        ("query_keys", None),
    ],
)
def test_damaged_arrays_are_refused(query_log, name, value):
    arrays = query_log.arrays()
    arrays.pop(name) if value is None else arrays.update({name: value})
    with pytest.raises(DataError, match=name.partition("_")[0] + "_"):
        QueryLog.from_arrays(arrays, 4)


def test_smoothing_must_be_positive(query_log):
    with pytest.raises(ConfigurationError, match="`smoothing` is 0"):
        QueryLog.from_arrays(query_log.arrays(), 4, smoothing=0)


def test_only_training_searches_with_a_known_item_count():
    """The last two events of each user are held out; the third event of u1 is on an item without a row."""
    rows = [
        ("u1", 1, "a", "喜剧 😀"),
        ("u1", 2, None, "lamp"),
        ("u1", 3, "b", "lamp"),
        ("u1", 4, "a", None),
        ("u1", 5, "c", "chair"),
        ("u1", 6, "d", "hose"),
    ]
    log = split_log(log_of(rows))
    fitted = QueryLog.fit(log, IdMap(["a", "c", "d"]))
    assert fitted.query_clicks.sum() == 1
    assert fitted.scores(["喜剧", "lamp", "chair", "😀"]).toarray().tolist() == [[1, 0, 0], [0] * 3, [0] * 3, [0] * 3]


def test_a_log_without_searches_scores_nothing():
    empty = QueryLog.count([], np.empty(0, np.int64), np.empty(0, np.int64), num_items=2)
    assert empty.scores(["lamp"]).toarray().tolist() == [[0, 0]]
    assert QueryLog.from_arrays(empty.arrays(), 2).scores([]).shape == (0, 2)
