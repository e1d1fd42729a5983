# SPDX-License-Identifier: Apache-2.0
"""Click counts by query and by query word.

Queries and words are stored as hashes, so the table does not reveal what people typed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_array

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.split import Split
from seekrec.schema import IdMap
from seekrec.util.arrow import one_array
from seekrec.util.hashing import hash_texts
from seekrec.util.ragged import Ragged
from seekrec.util.sparse import add_rows
from seekrec.util.text import fold_text, split_words

_Hashes = npt.NDArray[np.uint64]


class QueryLog:
    """Clicks counted by query and by word, and the items that a query is likely to lead to.

    Two queries are the same if they have the same words in any order; words are folded as
    [`~seekrec.util.text.split_words`] folds them. With `c(q, i)` the clicks on item `i` after query `q` and `c(w, i)`
    those after queries with the word `w`, a query's score of an item is the estimate

    `(c(q, i) + smoothing * m(i)) / (c(q) + smoothing)`, `m(i) = sum_w idf(w) c(w, i) / c(w) / sum_w idf(w)`

    over the known words of the query, `idf(w) = log(1 + all clicks / c(w))`. An item that was clicked for no word of
    the query gets 0; a query of unknown words scores 0 everywhere, else the scores of all items sum to 1.

    Args:
        query_keys (`np.ndarray`): uint64 hashes of queries, ascending.
        query_clicks (`scipy.sparse.csr_array`): float32 of shape `(num_queries, num_items)`.
        word_keys (`np.ndarray`): uint64 hashes of words, ascending.
        word_clicks (`scipy.sparse.csr_array`): float32 of shape `(num_words, num_items)`.
        smoothing (`float`): Clicks that the words count for, above 0.

    Raises:
        ConfigurationError: If `smoothing` is not above 0.
    """

    def __init__(
        self,
        query_keys: _Hashes,
        query_clicks: csr_array,
        word_keys: _Hashes,
        word_clicks: csr_array,
        *,
        smoothing: float = 1.0,
    ) -> None:
        if not smoothing > 0:
            raise ConfigurationError(f"`smoothing` is {smoothing}; use a number above 0.")
        self.query_keys, self.query_clicks = query_keys, query_clicks
        self.word_keys, self.word_clicks = word_keys, word_clicks
        self.smoothing = smoothing
        self.num_items = int(query_clicks.shape[1])
        # float64: thousands of clicks are added up.
        self._query_totals = np.asarray(query_clicks.sum(axis=1, dtype=np.float64)).ravel()
        self._word_totals = np.asarray(word_clicks.sum(axis=1, dtype=np.float64)).ravel()
        self._idf = np.log1p(self._query_totals.sum() / np.maximum(self._word_totals, 1e-12))

    @classmethod
    def fit(cls, split: Split | Iterable[Split], id_map: IdMap, *, smoothing: float = 1.0) -> QueryLog:
        """Count the searches that training may use and that led to an item.

        Args:
            split (`Split` or `Iterable[Split]`): The training events of it, or of all partitions, are used.
            id_map ([`IdMap`]): Items of the catalogue; clicks on other items are left out.
            smoothing (`float`): As for [`QueryLog`].
        """
        texts, items = [pa.array([], pa.string())], [np.empty(0, np.int64)]
        for part in [split] if isinstance(split, Split) else split:
            rows = part.training_interactions()
            rows = rows[part.timeline.is_search[rows]]
            catalog_rows = id_map.convert_to_rows(part.log.items["item_id"].to_pylist(), strict=False)
            clicked = catalog_rows[part.timeline.item[rows]]
            texts.append(one_array(part.log.events["query"].take(rows[clicked >= 0])))
            items.append(clicked[clicked >= 0])
        queries = pa.concat_arrays(texts).dictionary_encode()
        numbers = np.asarray(queries.indices).astype(np.int64)
        return cls.count(
            queries.dictionary.to_pylist(),
            numbers,
            np.concatenate(items),
            num_items=len(id_map),
            smoothing=smoothing,
        )

    def smoothed(self, smoothing: float) -> QueryLog:
        """Return the same table with another smoothing."""
        return QueryLog(self.query_keys, self.query_clicks, self.word_keys, self.word_clicks, smoothing=smoothing)

    @classmethod
    def count(
        cls,
        queries: Sequence[str],
        query_numbers: np.ndarray,
        item_rows: np.ndarray,
        *,
        num_items: int,
        smoothing: float = 1.0,
    ) -> QueryLog:
        """Count clicks.

        Args:
            queries (`Sequence[str]`): Distinct queries.
            query_numbers (`np.ndarray`): int64 number in `queries` of each click.
            item_rows (`np.ndarray`): int64 row of the catalogue of each click.
            num_items (`int`): Items of the catalogue.
            smoothing (`float`): As for [`QueryLog`].
        """
        words = [_words(query) for query in queries]
        query_keys, first, key_of_query = np.unique(_query_keys(words), return_index=True, return_inverse=True)
        rows = key_of_query[np.asarray(query_numbers, np.int64)]
        query_clicks = _csr(np.ones(len(rows)), rows, item_rows, (len(query_keys), num_items))
        query_clicks.sum_duplicates()
        word_keys, holds = words_by_text([words[query] for query in first.tolist()])
        word_clicks = csr_array(holds.T @ query_clicks)
        word_clicks.sum_duplicates()
        return cls(query_keys, query_clicks, word_keys, word_clicks, smoothing=smoothing)

    def scores(self, queries: Sequence[str]) -> csr_array:
        """Score the items of queries.

        Args:
            queries (`Sequence[str]`): Queries; equal ones are looked up each time, so pass each once.

        Returns:
            `scipy.sparse.csr_array`: float32 of shape `(len(queries), num_items)`; what is not stored is 0.
        """
        words = [_words(query) for query in queries]
        places, found = find_keys(self.query_keys, _query_keys(words))
        totals = np.where(found, self._query_totals[places] if len(self._query_totals) else 0, 0)
        share = 1 / (totals + self.smoothing)
        everyone = np.arange(len(words))
        asked = _csr(share[found], everyone[found], places[found], (len(words), len(self.query_keys)))

        keys, holds = words_by_text(words)
        word_places, known = find_keys(self.word_keys, keys)
        entries = holds.tocoo()
        rows, columns = entries.row[known[entries.col]], word_places[entries.col[known[entries.col]]]
        weights = np.bincount(rows, self._idf[columns], minlength=len(words)) if len(rows) else np.zeros(len(words))
        values = self._idf[columns] / self._word_totals[columns] / weights[rows] * (self.smoothing * share)[rows]
        by_word = _csr(values, rows, columns, (len(words), len(self.word_keys)))
        return csr_array(add_rows(asked, self.query_clicks) + add_rows(by_word, self.word_clicks))

    def knows(self, queries: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Mark the queries that were asked in training, in the same words: bool, one a query."""
        return find_keys(self.query_keys, _query_keys([_words(query) for query in queries]))[1]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the table as arrays, for a file of tensors: int64, int32 and float32, by name."""
        arrays: dict[str, np.ndarray] = {}
        for name, keys, clicks in (
            ("query", self.query_keys, self.query_clicks),
            ("word", self.word_keys, self.word_clicks),
        ):
            arrays[f"{name}_keys"] = keys.view(np.int64)
            arrays[f"{name}_offsets"] = clicks.indptr.astype(np.int64)
            arrays[f"{name}_items"] = clicks.indices.astype(np.int32)
            arrays[f"{name}_clicks"] = clicks.data.astype(np.float32)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], num_items: int, *, smoothing: float = 1.0) -> QueryLog:
        """Read what `arrays` returned.

        Args:
            arrays (`Mapping[str, np.ndarray]`): The arrays by name.
            num_items (`int`): Items of the catalogue; it may have grown since.
            smoothing (`float`): As for [`QueryLog`].

        Raises:
            DataError: If an array is missing or they do not belong together.
        """
        tables: list[tuple[_Hashes, csr_array]] = []
        for name in ("query", "word"):
            try:
                keys, offsets, items, clicks = (
                    np.asarray(arrays[f"{name}_{part}"]) for part in ("keys", "offsets", "items", "clicks")
                )
                hashes = np.ascontiguousarray(keys, np.int64).view(np.uint64)
                table = csr_array((clicks.astype(np.float32), items, offsets), shape=(len(hashes), num_items))
                table.check_format(full_check=True)
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"The query log's arrays {name}_* do not make a table of clicks ({error}); use those that "
                    "QueryLog.arrays() returned."
                ) from error
            if (hashes[1:] <= hashes[:-1]).any() or not (table.data > 0).all():
                raise DataError(
                    f"The query log's {name}_keys do not ascend, or its {name}_clicks are not above 0; use those that "
                    "QueryLog.arrays() returned."
                )
            tables.append((hashes, table))
        (query_keys, query_clicks), (word_keys, word_clicks) = tables
        return cls(query_keys, query_clicks, word_keys, word_clicks, smoothing=smoothing)


def _words(query: str) -> list[str]:
    """Return the words of a query in the order of the alphabet; of one without letters, itself."""
    return sorted(split_words(query)) or [fold_text(query)]


def _query_keys(words: Iterable[Sequence[str]]) -> _Hashes:
    return hash_texts(pa.array([" ".join(own) for own in words], pa.string()))


def words_by_text(words: Sequence[Sequence[str]], *, repeated: bool = False) -> tuple[_Hashes, csr_array]:
    """Find the distinct words of texts, and which texts contain each.

    Args:
        words (`Sequence[Sequence[str]]`): The words of each text.
        repeated (`bool`): Whether a word counts as often as it occurs; else once a text.

    Returns:
        `tuple[np.ndarray, scipy.sparse.csr_array]`: uint64 hashes of the words, ascending, and float32 counts of shape
        `(num_texts, num_words)`.
    """
    own = [list(text) if repeated else list(dict.fromkeys(text)) for text in words]
    flat = pa.array([word for text in own for word in text], pa.string()).dictionary_encode()
    keys, columns = np.unique(hash_texts(flat.dictionary), return_inverse=True)
    rows = Ragged.from_lengths(np.empty(0), np.array([len(text) for text in own], dtype=np.int64)).owners()
    columns = columns[np.asarray(flat.indices).astype(np.int64)]
    return keys, _csr(np.ones(len(rows)), rows, columns, (len(words), len(keys)))


def _csr(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    return csr_array((values.astype(np.float32), (rows, columns)), shape=shape)


def find_keys(table: _Hashes, keys: _Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where an ascending table contains each key (somewhere if it does not), and whether it does."""
    if not len(table):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
    places = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return places, table[places] == keys


__all__ = ["QueryLog", "find_keys", "words_by_text"]
