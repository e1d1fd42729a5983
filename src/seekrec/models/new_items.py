# SPDX-License-Identifier: Apache-2.0
"""What a trained scorer says of items that it was not trained on: what it says of items with texts like theirs.

A softmax over all items teaches a scorer that items without training events are never the answer, so its own score of
a new item is far below that of any other, whoever asks. The mean of its scores of the items whose texts are nearest
says whether a user wants something like it. Means are narrower than scores, so this mean is not compared with scores
but with the means of other items' neighbours: a new item whose mean is above a share `q` of those takes the score that
is above a share `q` of the other items' scores.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import numpy as np
import xxhash

# Of 1, 3, 5, 10 and 20 each was better than the one before on validation cases of MovieLens-100K, in both tasks.
NUM_NEIGHBORS = 20
# Items that a new one is compared with: their places among each other tell a quantile to a thousandth.
_MAX_REFERENCES = 1_024
# The pools of the catalogues asked last: of the largest 150 MB each, as long as the vectors are there.
_MAX_KEPT = 2
_pools: list[_Pool] = []
_lock = threading.Lock()
# Items among which neighbours are looked for: a product of 1,024 vectors with more takes seconds.
_MAX_POOL = 100_000


@dataclass(frozen=True, eq=False)
class TextNeighbors:
    """Which items speak for new ones, and for the items that the new ones are compared with.

    Args:
        rows (`np.ndarray`): int64 rows of the catalogue, ascending: the items whose scores are asked for.
        references (`np.ndarray`): int64 places in `rows` of the items compared with, `(num_references,)`.
        of_references (`np.ndarray`): int64 places of their neighbours, `(num_references, num_neighbors)`.
        of_new (`np.ndarray`): int64 places of the neighbours of the new items, `(num_new, num_neighbors)`.
    """

    rows: np.ndarray
    references: np.ndarray
    of_references: np.ndarray
    of_new: np.ndarray

    @classmethod
    def find(cls, vectors: np.ndarray, new: np.ndarray, known: np.ndarray) -> TextNeighbors | None:
        """Find the neighbours of new items among known ones.

        Args:
            vectors (`np.ndarray`): Text vectors of the whole catalogue, `(num_items, dimension)`.
            new (`np.ndarray`): int64 rows of the new items.
            known (`np.ndarray`): int64 rows of the items that the scorer was trained on.

        Returns:
            [`TextNeighbors`], *optional*: `None` where fewer than two items are known.
        """
        if len(known) < 2:
            return None
        generator = np.random.default_rng(0)
        pool = np.sort(generator.permutation(known)[:_MAX_POOL])
        references = np.sort(generator.permutation(pool)[:_MAX_REFERENCES])
        center, among, of_references = _pool_of(vectors, references, pool)
        nearest = np.concatenate([of_references, _nearest(vectors, new, pool, center, among)])
        rows, places = np.unique(np.concatenate([references, nearest.ravel()]), return_inverse=True)
        found = places[len(references) :].reshape(nearest.shape)
        return cls(rows, places[: len(references)], found[: len(references)], found[len(references) :])

    def score(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores of the new items.

        Args:
            scores (`np.ndarray`): float of shape `(batch, len(rows))`: what the scorer says of `rows`.

        Returns:
            `np.ndarray`: float32 of shape `(batch, num_new)`, to be compared with the scorer's own of known items.
        """
        known = np.sort(scores[:, self.references], axis=1)
        usual = np.sort(scores[:, self.of_references].mean(axis=2), axis=1)
        means = scores[:, self.of_new].mean(axis=2)
        answers = np.empty(means.shape, dtype=np.float32)
        for line, (mean, places, values) in enumerate(zip(means, usual, known, strict=True)):
            # Beyond the ends of what is usual by as much as the mean is.
            answers[line] = np.interp(mean, places, values) + (mean - np.clip(mean, places[0], places[-1]))
        return answers


@dataclass(frozen=True, eq=False)
class _Pool:
    """What is made of the items among which neighbours are looked for.

    Args:
        vectors (`weakref.ref`): The memory that the vectors are in, which only grows at its end.
        start (`int`): Where they begin.
        rows (`str`): Digest of the rows of pool and references.
        center (`np.ndarray`): Mean of the pool.
        among (`np.ndarray`): The pool without it, of unit length.
        of_references (`np.ndarray`): The nearest of the references.
    """

    vectors: weakref.ref[np.ndarray]
    start: int
    rows: str
    center: np.ndarray
    among: np.ndarray
    of_references: np.ndarray


def _pool_of(
    vectors: np.ndarray, references: np.ndarray, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, unit vectors and the references' nearest; kept, as a growing catalogue leaves them as they are."""
    rows = xxhash.xxh3_128_hexdigest(references.tobytes() + pool.tobytes())
    memory = vectors if vectors.base is None else vectors.base
    is_owned = isinstance(memory, np.ndarray)
    for kept in list(_pools):
        if is_owned and kept.vectors() is memory and (kept.start, kept.rows) == (vectors.ctypes.data, rows):
            return kept.center, kept.among, kept.of_references
    # Without what all texts of a catalogue have in common, they differ in what tells them apart.
    center = np.asarray(vectors[pool], dtype=np.float32).mean(axis=0)
    among = _unit(vectors[pool], center)
    of_references = _nearest(vectors, references, pool, center, among)
    if is_owned:
        made = _Pool(weakref.ref(memory), vectors.ctypes.data, rows, center, among, of_references)
        with _lock:
            _pools[:] = [*(kept for kept in _pools if kept.vectors() is not None), made][-_MAX_KEPT:]
    return center, among, of_references


def _nearest(
    vectors: np.ndarray, asked: np.ndarray, pool: np.ndarray, center: np.ndarray, among: np.ndarray
) -> np.ndarray:
    """Return the rows of `pool` whose vectors, in `among`, are nearest to those of `asked`, themselves left out."""
    count = min(NUM_NEIGHBORS, len(pool) - 1)
    nearest = np.empty((len(asked), count), dtype=np.int64)
    for begin in range(0, len(asked), _MAX_REFERENCES):
        part = asked[begin : begin + _MAX_REFERENCES]
        similarity = _unit(vectors[part], center) @ among.T
        similarity[part[:, None] == pool] = -np.inf
        best = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        nearest[begin : begin + len(part)] = pool[best]
    return nearest


def _unit(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    centred = np.asarray(vectors, dtype=np.float32) - center
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


__all__ = ["NUM_NEIGHBORS", "TextNeighbors"]
