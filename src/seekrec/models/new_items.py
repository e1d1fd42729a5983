# SPDX-License-Identifier: Apache-2.0
"""Scores of items that a scorer was not trained on, from its scores of items with similar texts.

A softmax over all items teaches a scorer that items without training events are never the answer, so its own score of
a new item is far below every other, for any user. The mean score of the items with the nearest texts says whether a
user wants something similar. Means spread less than scores, so this mean is not compared with scores but with the
neighbour means of other items: a new item whose mean is at quantile `q` of those gets the score at quantile `q` of the
other items' scores.

For recommendations neighbours are near in text; for searches they are near in text and categories.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
import xxhash
from scipy.sparse import csr_array

from seekrec.models.words import Vocabulary, item_category_keys
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior
from seekrec.util.ragged import Ragged

# Chosen on validation cases of MovieLens-100K, where the items looked for were held out: of 10, 20 and 50 by texts, of
# 20, 30, 50 and 100 by texts and categories.
NUM_TEXT_NEIGHBORS: Mapping[Behavior, int] = {RECOMMENDATION: 20, SEARCH: 50}
# Items that a new one is compared with: their places among each other tell a quantile to a thousandth.
_MAX_REFERENCES = 1_024
# The pools of the catalogues asked last, two of each, as long as the vectors are there: of the largest 150 MB each,
# and up to 400 bytes a new item.
_MAX_KEPT = 4
_pools: list[_Kept] = []
_lock = threading.Lock()
# Items among which neighbours are looked for: a product of 1,024 vectors with more takes seconds. Of many new items
# each is compared with fewer, by powers of two, so that in all it takes a minute or so.
MAX_POOL = 100_000
_MOST_PAIRS = 2**31
# Rows of items whose categories are compared at a time: what comes out is as large as the pool.
_CATEGORY_ROWS = 128


@dataclass(frozen=True, eq=False)
class TextNeighbors:
    """Nearest trained items, whose scores are averaged for new items and for the reference items.

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
    def find(
        cls,
        vectors: np.ndarray,
        new: np.ndarray,
        known: np.ndarray,
        *,
        count: int = NUM_TEXT_NEIGHBORS[RECOMMENDATION],
        categories: pa.ChunkedArray | None = None,
    ) -> TextNeighbors | None:
        """Find the neighbours of new items among known ones.

        Args:
            vectors (`np.ndarray`): Text vectors of the whole catalogue, `(num_items, dimension)`.
            new (`np.ndarray`): int64 rows of the new items.
            known (`np.ndarray`): int64 rows of the items that the scorer was trained on.
            count (`int`): Neighbours of each item; fewer where fewer are known.
            categories (`pyarrow.ChunkedArray`, *optional*):
                The items' column `categories`. Given, the nearest are those with the largest sum of the cosine of
                texts and that of categories, whose names weigh `log(N / n)` where `n` of `N` known items have one.

        Returns:
            [`TextNeighbors`], *optional*: `None` where fewer than two items are known.
        """
        if len(known) < 2:
            return None
        generator = np.random.default_rng(0)
        share = _MOST_PAIRS >> max(0, len(new) - 1).bit_length()
        rows_of_pool = np.sort(generator.permutation(known)[: min(MAX_POOL, max(share, _MAX_REFERENCES))])
        references = np.sort(generator.permutation(rows_of_pool)[:_MAX_REFERENCES])
        kept = _keep_pool(vectors, references, rows_of_pool, min(count, len(rows_of_pool) - 1), categories)
        nearest = np.concatenate([kept.of_references, kept.nearest(vectors, new, categories)])
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
        means = np.ascontiguousarray((self.shares @ scores.T).T)
        answers = np.empty(means.shape, dtype=np.float32)
        for line, (mean, places, values) in enumerate(zip(means, usual, known, strict=True)):
            # Beyond the ends of what is usual by as much as the mean is.
            answers[line] = np.interp(mean, places, values) + (mean - np.clip(mean, places[0], places[-1]))
        return answers

    @cached_property
    def shares(self) -> csr_array:
        """How much each new item takes of each of `rows`: float32 of shape `(num_new, len(rows))`."""
        num_new, count = self.of_new.shape
        values = np.full(num_new * count, 1 / count, np.float32)
        offsets = np.arange(0, num_new * count + 1, count)
        return csr_array((values, self.of_new.ravel(), offsets), shape=(num_new, len(self.rows)))

    @cached_property
    def takers(self) -> csr_array:
        """The same, a row for each of `rows`: float32 of shape `(len(rows), num_new)`."""
        return csr_array(self.shares.T)


@dataclass(frozen=True, eq=False)
class _Categories:
    """The categories of a pool.

    Args:
        column (`pyarrow.ChunkedArray`): Of each item.
        names (`Vocabulary`): What they weigh.
        table (`scipy.sparse.csr_array`): float32 of shape `(num_names, num_items)`, columns of unit length or 0.
    """

    column: pa.ChunkedArray
    names: Vocabulary
    table: csr_array

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> _Categories:
        keys = _category_keys(column)
        found, counts = np.unique(keys.values, return_counts=True)
        names = Vocabulary(found, np.log(len(keys) / counts).astype(np.float32))
        return cls(column, names, csr_array(_weigh(keys, names).T))

    def similarity(self, column: pa.ChunkedArray) -> csr_array:
        """Return the cosine of the categories of items and of those of the pool."""
        return csr_array(_weigh(_category_keys(column), self.names) @ self.table)


def _category_keys(column: pa.ChunkedArray) -> Ragged:
    return item_category_keys(pa.table({"categories": column}))


def _weigh(keys: Ragged, names: Vocabulary) -> csr_array:
    """Return the names of items as weighed rows of unit length; a name that is not known counts for nothing."""
    places = np.searchsorted(names.keys, keys.values).clip(max=max(0, len(names) - 1))
    is_known = names.keys[places] == keys.values if len(names) else np.zeros(len(places), bool)
    owners, weights = keys.owners()[is_known], names.idf[places[is_known]]
    lengths = np.sqrt(np.bincount(owners, weights**2, minlength=len(keys)))
    values = (weights / np.maximum(lengths[owners], 1e-12)).astype(np.float32)
    return csr_array((values, (owners, places[is_known])), shape=(len(keys), len(names)))


@dataclass(frozen=True, eq=False)
class _Pool:
    """The items among which neighbours are looked for.

    Args:
        rows (`np.ndarray`): int64 rows of the catalogue.
        count (`int`): Neighbours of each item.
        center (`np.ndarray`): Mean of their text vectors.
        among (`np.ndarray`): Their text vectors without it, of unit length.
        categories ([`_Categories`], *optional*): Their categories, where these are compared.
    """

    rows: np.ndarray
    count: int
    center: np.ndarray
    among: np.ndarray
    categories: _Categories | None

    def nearest(self, vectors: np.ndarray, asked: np.ndarray, categories: pa.ChunkedArray | None) -> np.ndarray:
        """Return the rows of those nearest to rows of the catalogue, themselves left out."""
        nearest = np.empty((len(asked), self.count), dtype=np.int64)
        for begin in range(0, len(asked), _MAX_REFERENCES):
            part = asked[begin : begin + _MAX_REFERENCES]
            similarity = _unit(vectors[part], self.center) @ self.among.T
            if self.categories is not None and categories is not None:
                alike = self.categories.similarity(categories.take(pa.array(part)))
                for first in range(0, len(part), _CATEGORY_ROWS):
                    similarity[first : first + _CATEGORY_ROWS] += alike[first : first + _CATEGORY_ROWS].toarray()
            own = np.searchsorted(self.rows, part).clip(max=len(self.rows) - 1)
            is_there = np.flatnonzero(self.rows[own] == part)
            similarity[is_there, own[is_there]] = -np.inf
            best = torch.from_numpy(similarity).topk(self.count, sorted=False).indices.numpy()
            nearest[begin : begin + len(part)] = self.rows[best]
        return nearest


@dataclass(eq=False)
class _Kept:
    """A pool that was made before, and what was looked for in it.

    Args:
        vectors (`weakref.ref`): The memory that the vectors are in, which only grows at its end.
        start (`int`): Where they begin.
        digest (`str`): Of the rows of pool and references, and of the number of neighbours.
        pool ([`_Pool`]): The pool.
        of_references (`np.ndarray`): The nearest of the references.
        found (`tuple`, *optional*): The items last looked for: their rows, their nearest, and their categories.
    """

    vectors: weakref.ref[np.ndarray]
    start: int
    digest: str
    pool: _Pool
    of_references: np.ndarray
    found: tuple[np.ndarray, np.ndarray, pa.ChunkedArray | None] | None = None

    def nearest(self, vectors: np.ndarray, asked: np.ndarray, categories: pa.ChunkedArray | None) -> np.ndarray:
        """Return the rows of those nearest to rows of the catalogue, ascending; only others than before are compared.

        So a catalogue in which very many items are new may grow by one at a time.
        """
        column = None if categories is None else categories.take(pa.array(asked))
        nearest = np.empty((len(asked), self.pool.count), dtype=np.int64)
        is_left = np.ones(len(asked), bool)
        if self.found is not None:
            rows, found, names = self.found
            _, again, places = np.intersect1d(asked, rows, assume_unique=True, return_indices=True)
            is_same = _same_rows(column, again, names, places)
            nearest[again[is_same]], is_left[again[is_same]] = found[places[is_same]], False
        nearest[is_left] = self.pool.nearest(vectors, asked[is_left], categories)
        self.found = (asked, nearest, column)
        return nearest


def _same_rows(
    column: pa.ChunkedArray | None, rows: np.ndarray, other: pa.ChunkedArray | None, other_rows: np.ndarray
) -> np.ndarray:
    """Compare rows of two columns: bool of each pair."""
    if column is None or other is None:
        return np.full(len(rows), column is other)
    own, its = column.take(pa.array(rows)), other.take(pa.array(other_rows))
    if own.equals(its):
        return np.ones(len(rows), bool)
    return np.array([one == another for one, another in zip(own.to_pylist(), its.to_pylist(), strict=True)], bool)


def _keep_pool(
    vectors: np.ndarray, references: np.ndarray, rows: np.ndarray, count: int, categories: pa.ChunkedArray | None
) -> _Kept:
    """Return a pool and the references' nearest in it; kept, as a growing catalogue leaves them as they are."""
    digest = xxhash.xxh3_128_hexdigest(references.tobytes() + rows.tobytes() + count.to_bytes(8, "little"))
    memory = vectors if vectors.base is None else vectors.base
    is_owned = isinstance(memory, np.ndarray)
    column = None if categories is None else categories.take(pa.array(rows))
    for kept in list(_pools):
        if is_owned and kept.vectors() is memory and (kept.start, kept.digest) == (vectors.ctypes.data, digest):
            known = kept.pool.categories
            if (known is column) if known is None or column is None else known.column.equals(column):
                return kept
    # Without what all texts of a catalogue have in common, they differ in what tells them apart.
    center = np.asarray(vectors[rows], dtype=np.float32).mean(axis=0)
    names = None if column is None else _Categories.of(column)
    pool = _Pool(rows, count, center, _unit(vectors[rows], center), names)
    of_references = pool.nearest(vectors, references, categories)
    made = _Kept(weakref.ref(memory if is_owned else vectors), vectors.ctypes.data, digest, pool, of_references)
    if is_owned:
        with _lock:
            _pools[:] = [*(kept for kept in _pools if kept.vectors() is not None), made][-_MAX_KEPT:]
    return made


def _unit(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    centred = np.asarray(vectors, dtype=np.float32) - center
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


__all__ = ["MAX_POOL", "NUM_TEXT_NEIGHBORS", "TextNeighbors"]
