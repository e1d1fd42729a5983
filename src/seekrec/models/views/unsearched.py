# SPDX-License-Identifier: Apache-2.0
"""Query words that no training search had: which items contain them, and how much that counts.

A log only teaches about words that people searched for. It has no evidence on a title that nobody has typed yet, or on
the one word of a new item, and weights learned from its searches do not apply to them. But how often a word leads to
an item that contains it can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from seekrec.errors import DataError
from seekrec.events.matching import item_words
from seekrec.events.query_log import QueryLog, find_keys, words_by_text
from seekrec.models.views.lexical import WeighedWords

# What is typed for the first time is less sure to be meant than what is typed every day.
_MOST_TRUST = 0.9


@dataclass(frozen=True, eq=False, kw_only=True)
class UnsearchedWords(WeighedWords):
    """The words of items that no search had, and what each adds to the score of the items that hold it.

    Of `n` of `N` items that hold a word, each gets `log(p / (1 - p)) + log((N - n) / n)`, and nothing if that is below
    0: how much likelier than the others they are, in nats, if what is meant contains the word with probability `p`
    (naive Bayes, word by word). `p` is the share of training's clicks that led to an item that contains the word
    searched for, over words that some item holds, and at most 0.9. A word of a later item counts by how many of the
    first items hold it, or as one of a single item where none does.

    Args:
        trust (`float`): `p`, above 0 and below 1.
        searched (`np.ndarray`): uint64 hashes of the words of training's searches, ascending.
    """

    trust: float
    searched: np.ndarray

    @classmethod
    def fit(cls, items: pa.Table, log: QueryLog) -> UnsearchedWords | None:
        """Weigh the words of items that a query log does not hold; `None` where no item has a word.

        Args:
            items (`pyarrow.Table`): Rows of `ITEM_FEATURES`, those of the log.
            log ([`QueryLog`]): The searches of training.
        """
        try:
            keys, holds = _holders(items)
        except DataError:
            return None
        places, is_item_word = find_keys(keys, log.word_keys)
        clicks = csr_array(log.word_clicks)[is_item_word]
        hits = float(clicks.multiply(holds[places[is_item_word]]).sum())
        trust = min(_MOST_TRUST, (hits + 0.5) / (float(clicks.sum(dtype=np.float64)) + 1))
        is_searched = np.zeros(len(keys), bool)
        is_searched[places[is_item_word]] = True
        made = cls(keys[~is_searched], holds[~is_searched], trust=trust, searched=log.word_keys)
        return replace(made, weights=made._odds(made.weights, np.diff(made.weights.indptr)))

    def _weigh(self, items: pa.Table) -> tuple[np.ndarray, csr_array]:
        try:
            keys, holds = _holders(items)
        except DataError:
            keys, holds = np.empty(0, np.uint64), csr_array((0, items.num_rows), dtype=np.float32)
        is_new = ~find_keys(self.searched, keys)[1]
        keys, holds = keys[is_new], holds[is_new]
        places, is_known = find_keys(self.keys, keys)
        counts = np.ones(len(keys), np.int64)
        counts[is_known] = np.diff(self.weights.indptr)[places[is_known]]
        return keys, self._odds(holds, counts)

    def _odds(self, holds: csr_array, counts: np.ndarray) -> csr_array:
        """Return what the holders of each word get, by how many of the first items hold it."""
        others = np.maximum(self.weights.shape[1] - counts, 0)
        with np.errstate(divide="ignore"):
            values = np.log(self.trust / (1 - self.trust)) + np.log(others) - np.log(np.maximum(counts, 1))
        data = np.repeat(np.maximum(values, 0).astype(np.float32), np.diff(holds.indptr))
        return csr_array((data, holds.indices, holds.indptr), shape=holds.shape)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the words as arrays, for a file of tensors."""
        return {
            "searched": self.searched.view(np.int64),
            "keys": self.keys.view(np.int64),
            "offsets": self.weights.indptr.astype(np.int64),
            "items": self.weights.indices.astype(np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], num_items: int, *, trust: float) -> UnsearchedWords:
        """Read what [`arrays`] returned.

        Args:
            arrays (`Mapping[str, np.ndarray]`): The arrays by name.
            num_items (`int`): Items it was made from.
            trust (`float`): As for the class.

        Raises:
            DataError: If they do not belong together.
        """
        try:
            if not 0 < trust < 1:
                raise ValueError(f"trust is {trust}")
            searched, keys = (
                np.ascontiguousarray(arrays[name], np.int64).view(np.uint64) for name in ("searched", "keys")
            )
            holders = (np.ones(len(arrays["items"]), np.float32), arrays["items"], arrays["offsets"])
            table = csr_array(holders, shape=(len(keys), num_items))
            table.check_format(full_check=True)
            if (keys[1:] <= keys[:-1]).any() or (searched[1:] <= searched[:-1]).any():
                raise ValueError("its words do not ascend")
        except (KeyError, ValueError) as error:
            raise DataError(f"The unsearched words cannot be read ({error}): they are damaged.") from error
        made = cls(keys, table, trust=trust, searched=searched)
        return replace(made, weights=made._odds(table, np.diff(table.indptr)))


def _holders(items: pa.Table) -> tuple[np.ndarray, csr_array]:
    """Return the distinct words of items, and the items that hold each: hashes, and `(num_words, num_items)`."""
    keys, holds = words_by_text(item_words(items))
    return keys, csr_array(holds.T)


__all__ = ["UnsearchedWords"]
