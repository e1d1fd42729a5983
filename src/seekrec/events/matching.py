# SPDX-License-Identifier: Apache-2.0
"""BM25 over the words of items, for the baseline and for hard negatives.

Queries and items are split by the same [`~seekrec.util.text.split_words`]. The caller chooses the fields of an item:
the baseline also reads category names, hard negatives use title and description without English stop words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import bm25s
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bm25s.stopwords import STOPWORDS_EN
from scipy.sparse import csr_array

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import check_choice
from seekrec.util.hashing import hash_texts
from seekrec.util.text import WORD, split_words

# What can be searched.
TEXT_FIELDS = ("title", "description", "categories")

_NO_LETTER = re.compile(r"[\W\d_]")


class WordIndex:
    """BM25 (Lucene's variant) over the words of items.

    Args:
        words (`list[list[str]]`): The words of each item.
        k1 (`float`): Weight of a word's repetition; 0 ignores it.
        b (`float`): Discount of longer texts, 0 to 1.

    Raises:
        ConfigurationError: If `k1` is negative or `b` outside 0..1.
        DataError: If no item has a word.
    """

    def __init__(self, words: list[list[str]], *, k1: float = 1.5, b: float = 0.75) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise ConfigurationError(f"`k1` is {k1} and `b` is {b}; BM25 needs `k1` at least 0 and `b` from 0 to 1.")
        if not any(words):
            raise DataError(f"None of the {len(words)} items has a word that BM25 could match; give the items texts.")
        self._num_items = len(words)
        # Words of an item, against which a longer one is discounted.
        self.mean_length = float(np.mean([len(own) for own in words]))
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._index.index(words, show_progress=False)

    def weights(self) -> tuple[npt.NDArray[np.uint64], csr_array]:
        """Return what each word adds to the score of each item.

        Returns:
            `tuple[np.ndarray, scipy.sparse.csr_array]`: uint64 hashes of the words, ascending, and float32 weights of
            shape `(num_words, num_items)`; those of a query's words add up to what [`score`] gives.
        """
        scores = self._index.scores
        shape = (len(scores["indptr"]) - 1, self._num_items)
        # The index has an empty word in addition to those that occur.
        numbers = {word: number for word, number in self._index.vocab_dict.items() if number < shape[0]}
        keys, order = np.unique(hash_texts(pa.array(list(numbers), pa.string())), return_index=True)
        table = csr_array((scores["data"], scores["indices"], scores["indptr"]), shape=shape)
        return keys, csr_array(table[np.fromiter(numbers.values(), np.int64, count=len(numbers))[order]])

    def score(self, words: list[str]) -> npt.NDArray[np.float32]:
        """Score all items for the words of a query: float32 of shape `(num_items,)`, 0 for items without any."""
        known = self._index.get_tokens_ids(words)
        if not known:
            return np.zeros(self._num_items, dtype=np.float32)
        return np.asarray(self._index.get_scores_from_ids(known), dtype=np.float32)

    def best(self, words: list[str], num_best: int) -> npt.NDArray[np.int64]:
        """Return the best items that have one of the words: int64 rows, best first, ties by row."""
        scores = self.score(words)
        hits = np.flatnonzero(scores > 0)
        if len(hits) > num_best:
            lowest = np.partition(scores[hits], -num_best)[-num_best]
            hits = hits[scores[hits] >= lowest]
        return hits[np.lexsort((hits, -scores[hits]))][:num_best]


def item_words(items: pa.Table, fields: Sequence[str] = TEXT_FIELDS) -> list[list[str]]:
    """Split the texts of items into words.

    A category such as "Sci-Fi" gives its word in one piece too: queries made from categories (see
    `seekrec.events.category_queries`) write it "scifi".

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        fields (`Sequence[str]`): Some of `"title"`, `"description"`, `"categories"`; of the categories each name once.

    Returns:
        `list[list[str]]`: The words of each row, as [`~seekrec.util.text.split_words`] returns them.

    Raises:
        ConfigurationError: If `fields` is empty or names an unknown one.
        DataError: If no item has a word.
    """
    if not fields:
        raise ConfigurationError(f"`fields` is empty; use some of {', '.join(TEXT_FIELDS)}.")
    for field in fields:
        check_choice("fields", field, TEXT_FIELDS)
    parts: list[list[str]] = [[] for _ in range(items.num_rows)]
    for field in fields:
        for texts, value in zip(parts, items.column(field).to_pylist(), strict=True):
            if field != "categories":
                texts.append(value or "")
                continue
            names = dict.fromkeys(name for path in value or [] if path for name in path if name)
            compounds = [word for name in names for word in name.split() if len(WORD.findall(word)) > 1]
            texts += [*names, *(_NO_LETTER.sub("", word) for word in compounds)]
    words = [split_words(" ".join(texts)) for texts in parts]
    if not any(words):
        raise DataError(f"None of the {len(words)} items has a word in {' or '.join(fields)}; BM25 needs item texts.")
    return words


class HardMatches:
    """Items that share content words with a text, for hard negatives.

    Read are title and description, without English stop words: two items that share a "the" are not alike, and an item
    of the same category is more often a second answer than a negative.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.

    Raises:
        DataError: If no item has a word in its title or description.
    """

    def __init__(self, items: pa.Table) -> None:
        self._stop_words = frozenset(word for stop_word in STOPWORDS_EN for word in split_words(stop_word))
        words = item_words(items, ("title", "description"))
        self._index = WordIndex([self._content_words(own) for own in words])
        self._found: dict[tuple[str, int], npt.NDArray[np.int64]] = {}

    def best(self, text: str, num_best: int) -> npt.NDArray[np.int64]:
        """Return the items that match a text: int64 rows, best first, ties by row."""
        key = (text, num_best)
        if key not in self._found:
            self._found[key] = self._match(text, num_best)
        return self._found[key]

    def table(self, texts: Sequence[str], num_best: int) -> npt.NDArray[np.int64]:
        """Return the items that match each text: int64 of shape `(len(texts), num_best)`, -1 where there are no more.

        Args:
            texts (`Sequence[str]`): Texts to match.
            num_best (`int`): Matches kept of each text.
        """
        table = np.full((len(texts), num_best), -1, dtype=np.int64)
        for row, text in enumerate(texts):
            # Texts of a table are many and differ: none of them is kept.
            found = self._match(text, num_best)
            table[row, : len(found)] = found
        return table

    def _match(self, text: str, num_best: int) -> npt.NDArray[np.int64]:
        return self._index.best(self._content_words(split_words(text)), num_best)

    def _content_words(self, words: list[str]) -> list[str]:
        return [word for word in words if word not in self._stop_words]


__all__ = ["TEXT_FIELDS", "HardMatches", "WordIndex", "item_words"]
