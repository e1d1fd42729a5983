"""Requests, windows and comparisons for the tests of the families of vectors."""

import numpy as np

from seekrec.schema import Event, Request
from seekrec.training.event_windows import QueryPool, WindowCollator

HISTORY = [
    Event("i0", timestamp=1000),
    Event("i9", "search", timestamp=5000, query="kitchen"),
    Event("i1", timestamp=5000),
    Event(None, "search", timestamp=90_000, query="garden"),
    Event("i2", timestamp=200_000, action="buy"),
]
REQUESTS = [
    Request(HISTORY, timestamp=300_000),
    Request(HISTORY[:3], query="garden", timestamp=6000),
    Request(),
    Request(HISTORY[:1], query="office"),
]


def scores_of(answers):
    return [{item.item_id: item.score for item in answer} for answer in answers]


def assert_same_scores(answers, expected, atol=1e-5):
    for one, other in zip(scores_of(answers), scores_of(expected), strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose([one[key] for key in other], list(other.values()), atol=atol)


def collate(windows, processor, numbers, **settings):
    """The batch of some windows, with a query pool of every source."""
    _, catalog, table = windows
    kinds, words = ["logged", "category", "item_text"], "words" in processor.query_reading
    pool = QueryPool.build(table, catalog, processor.query_vectors, kinds, reads_words=words)
    return WindowCollator(table, pool, **settings)(numbers)
