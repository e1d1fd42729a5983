# SPDX-License-Identifier: Apache-2.0
"""The lexical view: BM25 of a query over the words of items, as a sparse matrix that new items are added to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array, hstack

from seekrec.errors import DataError
from seekrec.events.matching import TEXT_FIELDS, WordIndex, item_words
from seekrec.events.query_log import find_keys, words_by_text
from seekrec.util.sparse import add_rows
from seekrec.util.text import split_words


@dataclass(frozen=True)
class LexicalSettings:
    """How words of items are weighed.

    Args:
        fields (`tuple[str, ...]`): What is read of an item, some of `"title"`, `"description"`, `"categories"`.
        k1 (`float`): How much a word's repetition counts; 0 = not at all.
        b (`float`): How much longer texts are discounted, 0 to 1.
    """

    fields: tuple[str, ...] = TEXT_FIELDS
    k1: float = 1.5
    b: float = 0.75


# Stretches of later items that are kept apart; then they become one.
_MOST_STRETCHES = 16

# What validation may choose from: all words, or one word as good as many, and the names of categories alone.
LEXICAL_CHOICES = (
    LexicalSettings(),
    LexicalSettings(k1=0.0, b=0.0),
    LexicalSettings(("title", "categories"), k1=0.5, b=0.3),
    LexicalSettings(("categories",), k1=0.0, b=0.0),
)


@dataclass(frozen=True, eq=False)
class WeighedWords(ABC):
    """The words of items and what each adds to the scores of the items that hold it.

    Args:
        keys (`np.ndarray`): uint64 hashes of the words, ascending.
        weights (`scipy.sparse.csr_array`): float32 of shape `(num_words, num_items)`.
        later (`tuple`): The same of items that came later: for each of several stretches keys and weights.
    """

    keys: np.ndarray
    weights: csr_array
    later: tuple[tuple[np.ndarray, csr_array], ...] = ()

    def grown(self, items: pa.Table) -> Self:
        """Return the words of more items; the weights of those it was made from stay as they are.

        Args:
            items (`pyarrow.Table`): All items, those that it was made from first.
        """
        first, known = self.num_items, self.later
        if len(known) >= _MOST_STRETCHES:
            first, known = self.weights.shape[1], ()
        if first >= items.num_rows:
            return self
        return replace(self, later=(*known, self._weigh(items.slice(first))))

    @property
    def num_items(self) -> int:
        """Items that are weighed, later ones included."""
        return int(self.weights.shape[1] + sum(weights.shape[1] for _, weights in self.later))

    @abstractmethod
    def _weigh(self, items: pa.Table) -> tuple[np.ndarray, csr_array]:
        """Return the words of later items and their weights, `(num_words, num_items)`, by the numbers of the first."""

    def scores(self, queries: Sequence[str]) -> csr_array:
        """Score the items that have words of queries, each word of a query once.

        Args:
            queries (`Sequence[str]`): The queries.

        Returns:
            `scipy.sparse.csr_array`: float32 of shape `(len(queries), num_items)`; what is not stored is 0.
        """
        keys, holds = words_by_text([split_words(query) for query in queries])
        entries, found = holds.tocoo(), []
        for own, weights in ((self.keys, self.weights), *self.later):
            places, known = find_keys(own, keys)
            kept = known[entries.col]
            asked = (np.ones(int(kept.sum()), np.float32), (entries.row[kept], places[entries.col[kept]]))
            found.append(add_rows(csr_array(asked, shape=(len(queries), len(own))), weights))
        return found[0] if len(found) == 1 else csr_array(hstack(found, format="csr"))


@dataclass(frozen=True, eq=False, kw_only=True)
class LexicalIndex(WeighedWords):
    """The words of items, weighed by Lucene's variant of BM25.

    A word that a later item has `f` times among `l` words adds to its score `idf * f / (f + k1 * (1 - b + b * l /
    mean_length))` with `idf = log(1 + (N - n + 0.5) / (n + 0.5))`, where `n` of the `N` first items have it.

    Args:
        settings ([`LexicalSettings`]): How words are weighed.
        mean_length (`float`): Words of an item, on average over those that it was made from.
    """

    settings: LexicalSettings
    mean_length: float

    @classmethod
    def fit(cls, items: pa.Table, settings: LexicalSettings) -> LexicalIndex | None:
        """Weigh the words of items; `None` where no item has one in these fields.

        Args:
            items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
            settings ([`LexicalSettings`]): How words are weighed.
        """
        try:
            words = item_words(items, settings.fields)
        except DataError:
            return None
        index = WordIndex(words, k1=settings.k1, b=settings.b)
        return cls(*index.weights(), settings=settings, mean_length=index.mean_length)

    def _weigh(self, items: pa.Table) -> tuple[np.ndarray, csr_array]:
        num_known = self.weights.shape[1]
        try:
            words = item_words(items, self.settings.fields)
        except DataError:
            words = [[]] * items.num_rows
        keys, counts = words_by_text(words, repeated=True)
        counts.sum_duplicates()
        entries = counts.tocoo()
        places, is_known = find_keys(self.keys, keys)
        having = np.where(is_known, np.diff(self.weights.indptr)[places] if len(self.keys) else 0, 0)
        idf = np.log(1 + (num_known - having + 0.5) / (having + 0.5))
        k1, b = self.settings.k1, self.settings.b
        length = np.array([len(own) for own in words])[entries.row] / self.mean_length
        values = idf[entries.col] * entries.data / (entries.data + k1 * (1 - b + b * length))
        shape = (len(keys), items.num_rows)
        return keys, csr_array((values.astype(np.float32), (entries.col, entries.row)), shape=shape)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the index as arrays, for a file of tensors."""
        table = self.weights
        return {
            "keys": self.keys.view(np.int64),
            "offsets": table.indptr.astype(np.int64),
            "items": table.indices.astype(np.int32),
            "weights": table.data.astype(np.float32),
        }

    def describe(self) -> dict[str, object]:
        """Return what is saved with the arrays."""
        return {**asdict(self.settings), "mean_length": self.mean_length}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], described: Mapping[str, object], num_items: int
    ) -> LexicalIndex:
        """Read what [`arrays`] and [`describe`] returned.

        Args:
            arrays (`Mapping[str, np.ndarray]`): The arrays by name.
            described (`Mapping[str, object]`): The rest.
            num_items (`int`): Items it was made from.

        Raises:
            DataError: If they do not belong together.
        """
        try:
            settings = dict(described)
            mean_length, fields = settings.pop("mean_length"), settings.pop("fields")
            if not isinstance(mean_length, float) or not isinstance(fields, list):
                raise ValueError(f"mean_length is {mean_length!r}, fields {fields!r}")
            numbers = {name: float(str(settings[name])) for name in ("k1", "b")}
            keys = np.ascontiguousarray(arrays["keys"], np.int64).view(np.uint64)
            table = csr_array((arrays["weights"], arrays["items"], arrays["offsets"]), shape=(len(keys), num_items))
            table.check_format(full_check=True)
            if (keys[1:] <= keys[:-1]).any() or not np.isfinite(table.data).all():
                raise ValueError("its words do not ascend, or a weight is not finite")
        except (KeyError, ValueError) as error:
            raise DataError(f"The lexical view cannot be read ({error}): it is damaged.") from error
        made = LexicalSettings(tuple(map(str, fields)), **numbers)
        return cls(keys, table, settings=made, mean_length=mean_length)


__all__ = ["LEXICAL_CHOICES", "LexicalIndex", "LexicalSettings", "WeighedWords"]
