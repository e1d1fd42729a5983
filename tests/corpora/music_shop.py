# SPDX-License-Identifier: Apache-2.0
"""A log of two users that can be read at a glance, and the codes of its items."""

import small_shop
from small_shop import log_of

from seekrec.corpora import all_wordings

TITLES = {
    "upright": "Upright piano",
    "stool": "Piano stool",
    "violin": "Violin",
    "bow": "Violin bow",
    "score": "Sheet music",
    "drum": "Drum",
}
# user, time, item, query: None is a recommendation. The last two of each user are held out by leave-one-out.
LINES = [
    ("ann", 1, "violin", None),
    ("ann", 2, "upright", "piano"),
    ("ann", 3, "stool", None),
    ("ann", 4, None, "tuning fork"),
    ("ann", 5, "score", "music"),
    ("ann", 6, "bow", None),
    ("ann", 7, "drum", None),
    ("bob", 1, "drum", None),
    ("bob", 2, "score", None),
    ("bob", 3, "violin", None),
]
# Levels: two shared, one of each view's own. M1 M2 S1 / M1 M2 R1.
CODES = {
    "semantic": [[0, 1, 2], [0, 1, 3], [1, 0, 0], [1, 0, 1], [2, 2, 2], [3, 3, 3]],
    "collaborative": [[0, 1, 0], [0, 1, 1], [1, 0, 2], [1, 0, 3], [2, 2, 1], [3, 3, 0]],
}
CODEBOOK_SIZE = 4


def make_log(lines):
    """Build a log from lines of (user, time, item, query)."""
    return log_of(lines, items=TITLES, name="music shop")


def make_tokenizer():
    """Train a small tokenizer and give it the tokens of the catalogue."""
    texts = [*TITLES.values(), "piano", "music", "tuning fork", *all_wordings()]
    return small_shop.make_tokenizer(
        texts, 600, num_shared_levels=2, num_specific_levels=1, codebook_size=CODEBOOK_SIZE
    )
