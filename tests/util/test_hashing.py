# SPDX-License-Identifier: Apache-2.0
"""Hashes of columns against the library that hashes one text at a time."""

import numpy as np
import pyarrow as pa
import xxhash

from seekrec.util.hashing import hash_texts


def test_texts_are_hashed_as_by_xxhash():
    rng = np.random.default_rng(0)
    drawn = ["".join(map(chr, rng.integers(33, 0x3000, length))) for length in rng.integers(0, 90, 400).tolist()]
    texts = ["", "a", "user 7", "日本語", "🙂" * 9, *("x" * length for length in range(30, 70)), *drawn]
    expected = [xxhash.xxh64_intdigest(text.encode()) for text in texts]
    assert hash_texts(pa.array(texts)).tolist() == expected
    # A slice has an offset; null is hashed as empty text.
    assert hash_texts(pa.array(texts).slice(3, 50)).tolist() == expected[3:53]
    assert hash_texts(pa.array([None, "a"])).tolist() == expected[:2]
