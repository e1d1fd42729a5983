# SPDX-License-Identifier: Apache-2.0
"""Hashes of columns: published digests, and the library that hashes one text at a time."""

import numpy as np
import pyarrow as pa
import xxhash

from seekrec.util import hashing
from seekrec.util.hashing import hash_texts

# XXH64 with seed 0, as implementations of it publish them.
KNOWN = {
    "": 0xEF46DB3751D8E999,
    "a": 0xD24EC4F1A98C6E5B,
    "abc": 0x44BC2CF5AD770999,
    "Nobody inspects the spammish repetition": 0xFBCEA83C8A378BF1,
}


def test_digests_are_the_published_ones():
    """Saved splits and partitions stand on them: a user stays in its partition whatever the library's version."""
    assert hash_texts(pa.array(list(KNOWN))).tolist() == list(KNOWN.values())


def test_texts_are_hashed_as_by_xxhash(monkeypatch):
    rng = np.random.default_rng(0)
    drawn = ["".join(map(chr, rng.integers(33, 0x3000, length))) for length in rng.integers(0, 90, 400).tolist()]
    texts = ["", "a", "user 7", "日本語", "🙂" * 9, *("x" * length for length in range(30, 70)), *drawn]
    expected = [xxhash.xxh64_intdigest(text.encode()) for text in texts]
    assert hash_texts(pa.array(texts)).tolist() == expected
    # A slice has an offset; null is hashed as empty text.
    assert hash_texts(pa.array(texts).slice(3, 50)).tolist() == expected[3:53]
    assert hash_texts(pa.array([None, "a"])).tolist() == expected[:2]
    # Some at a time.
    monkeypatch.setattr(hashing, "_TEXTS_AT_A_TIME", 7)
    assert hash_texts(pa.array(texts)).tolist() == expected
