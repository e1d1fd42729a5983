# SPDX-License-Identifier: Apache-2.0
"""Learned word vectors: one for each word of a log, added to the frozen vectors of queries and items.

Words are folded and cut as BM25, the query log and the views cut them (`split_words`): plural endings are folded,
Chinese, Japanese and Korean come in pairs of characters. Words are stored as hashes, so a model does not reveal what
people typed. Preparing texts therefore needs no vocabulary, and the vocabulary that a model was trained with is saved
among its weights, where it cannot be mixed up with another model's.

Names of categories are stored the same way, each as one unit.

A word that was not in training is left out. In a shared bucket it would have the vector of other words, and a vector
of its own would be random; its meaning is in the frozen vector of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from seekrec.errors import DataError
from seekrec.events.matching import TEXT_FIELDS, item_words
from seekrec.events.query_log import words_by_text
from seekrec.util.ragged import Ragged
from seekrec.util.text import fold_text, split_words

# A word of one text alone tells nothing about another one.
MIN_TEXTS = 2
MAX_WORDS = 200_000
# Stands for no word where texts are padded to one length.
NO_WORD = 0


def text_word_keys(texts: Sequence[str]) -> Ragged:
    """Return hashes of the words of texts, each word of a text once; a text without letters is one word.

    Returns:
        `Ragged`: int64, one row a text; pad it with [`NO_WORD`].
    """
    return _keys([split_words(text) or [fold_text(text)] if text else [] for text in texts])


def item_word_keys(items: pa.Table, fields: Sequence[str] = TEXT_FIELDS) -> Ragged:
    """Return hashes of the words of items, each word of an item once.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        fields (`Sequence[str]`): Some of `"title"`, `"description"`, `"categories"`.

    Returns:
        `Ragged`: int64, one row per item.
    """
    try:
        return _keys(item_words(items, fields))
    except DataError:  # no item has a word
        return _keys([[]] * items.num_rows)


def item_category_keys(items: pa.Table) -> Ragged:
    """Return hashes of the names of items' categories, each name of an item once.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.

    Returns:
        `Ragged`: int64, one row per item; those of a name alone are what [`category_keys`] returns.
    """
    return _keys(list(map(_category_names, items["categories"].to_pylist())))


def category_names(items: pa.Table) -> list[str]:
    """Return the distinct names of categories, folded, in the order in which items name them."""
    named = items["categories"].to_pylist()
    return list(dict.fromkeys(name for value in named for name in _category_names(value)))


def category_keys(names: Sequence[str]) -> Ragged:
    """Return the hash of each name that [`category_names`] returned, a row each."""
    return _keys([[name] for name in names])


def _category_names(value: Sequence[Sequence[str]] | None) -> list[str]:
    return [fold_text(name) for path in value or [] for name in path or [] if name]


def _keys(words: Sequence[Sequence[str]]) -> Ragged:
    keys, holds = words_by_text(words)
    numbers = keys.view(np.int64)
    return Ragged(np.where(numbers == NO_WORD, 1, numbers)[holds.indices], holds.indptr.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words that a model learns.

    Args:
        keys (`np.ndarray`): int64 hashes of the words, ascending.
        idf (`np.ndarray`): float32 `log(1 + N / n)` of a word that `n` of `N` texts have: what it weighs in a text.
    """

    keys: np.ndarray
    idf: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def choose(cls, parts: Iterable[Ragged], *, min_texts: int = MIN_TEXTS, max_words: int = MAX_WORDS) -> Vocabulary:
        """Choose the words that several texts have; those of most texts where there are too many.

        Args:
            parts (`Iterable[Ragged]`): Words of texts, as [`text_word_keys`] and [`item_word_keys`] return them: of
                items, and of the distinct queries of training.
            min_texts (`int`): Number of texts that must have a word.
            max_words (`int`): Number of words at most.
        """
        every = list(parts)
        num_texts = sum(map(len, every))
        values = [part.values for part in every]
        keys, counts = np.unique(np.concatenate([np.empty(0, np.int64), *values]), return_counts=True)
        kept = np.flatnonzero(counts >= min_texts)
        # Ties by hash, which no order of texts changes.
        kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[:max_words]])
        return cls(keys[kept], np.log1p(num_texts / counts[kept]).astype(np.float32))


@dataclass(frozen=True, eq=False)
class TextWords:
    """Words of texts by their number in a vocabulary, one text after the other.

    Args:
        numbers (`torch.Tensor`): int64, those of all texts.
        offsets (`torch.Tensor`): int64 `(num_texts + 1,)`: where each begins, and the end.
    """

    numbers: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> TextWords:
        """Return the words of some texts, in the order asked.

        Args:
            rows (`torch.LongTensor`): Numbers of texts, `(n,)`.
        """
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        shift = (starts - offsets[:-1]).repeat_interleave(lengths)
        return TextWords(self.numbers[torch.arange(len(shift), device=rows.device) + shift], offsets)


class KnownWords(nn.Module):
    """What words a module knows, and how the vectors of several become that of a text.

    A text has the sum of its words' vectors, each times its idf, brought to the length of one word:
    `sum_w idf(w) v(w) / sqrt(sum_w idf(w)^2)` over the known words of the text. One word alone counts as it is, and
    texts of many words are not shorter vectors than those of few. The vocabulary lies among the weights.
    """

    keys: Tensor
    idf: Tensor

    def register_vocabulary(self, num_words: int) -> None:
        """Make room for the vocabulary.

        Args:
            num_words (`int`): Number of its words.
        """
        self.register_buffer("keys", torch.arange(1, num_words + 1))
        self.register_buffer("idf", torch.ones(num_words))

    @torch.no_grad()
    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Let rows stand for these words.

        Args:
            vocabulary ([`Vocabulary`]): As many words as there are rows.
        """
        init.copy_(self.keys, torch.from_numpy(vocabulary.keys))
        init.copy_(self.idf, torch.from_numpy(vocabulary.idf))

    @property
    def version(self) -> tuple[object, ...]:
        """A key that differs once the vocabulary is another or lies elsewhere; cheap enough for every call."""
        keys = self.keys
        return keys.data_ptr(), -1 if keys.is_inference() else keys._version, keys.device

    def find(self, keys: Ragged) -> TextWords:
        """Return which rows the words of texts have; those that are not known are left out.

        Args:
            keys (`Ragged`): As [`text_word_keys`] and [`item_word_keys`] return them.
        """
        return self._known(torch.from_numpy(keys.values).to(self.keys.device), torch.from_numpy(keys.offsets))

    def look_up(self, keys: Tensor) -> TextWords:
        """Return which rows the words of texts have, as [`find`] does.

        Args:
            keys (`torch.LongTensor`): Hashes, padded with [`NO_WORD`], `(num_texts, most_words)`.
        """
        return self._known(keys.flatten(), torch.arange(len(keys) + 1) * keys.shape[1])

    def _known(self, keys: Tensor, offsets: Tensor) -> TextWords:
        if not len(self.keys):
            return TextWords(keys[:0], torch.zeros_like(offsets, device=keys.device))
        rows = torch.searchsorted(self.keys, keys).clamp_max(len(self.keys) - 1)
        is_known = self.keys[rows] == keys
        return TextWords(rows[is_known], F.pad(is_known.cumsum(0), (1, 0))[offsets.to(keys.device)])

    def pool_vectors(self, words: TextWords, vectors: Tensor) -> Tensor:
        """Return the vectors of texts, `(num_texts, size)`; zero for a text without a known word.

        Args:
            words ([`TextWords`]): The words of each text.
            vectors (`torch.Tensor`): The vector of each word, `(num_words, size)`.
        """
        lengths = words.offsets.diff()
        owners = torch.arange(len(words), device=lengths.device).repeat_interleave(lengths)
        weights = self.idf[words.numbers].float()
        squares = weights.new_zeros(len(words)).index_add(0, owners, weights * weights)
        shares = (weights * squares.rsqrt()[owners]).to(vectors.dtype)
        pooled: Tensor = F.embedding_bag(
            words.numbers, vectors, words.offsets[:-1], mode="sum", per_sample_weights=shares
        )
        return pooled


class WordEmbedding(nn.Embedding, KnownWords):
    """Learned vectors of words; see [`KnownWords`].

    Args:
        num_words (`int`): Words of the vocabulary.
        size (`int`): Width of a vector.
    """

    def __init__(self, num_words: int, size: int) -> None:
        super().__init__(num_words, size)
        self.register_vocabulary(num_words)

    def forward(self, keys: Tensor) -> Tensor:
        """Return the vectors of texts by hashes of their words.

        Args:
            keys (`torch.LongTensor`): Hashes, padded with [`NO_WORD`], `(num_texts, most_words)`.

        Returns:
            `torch.Tensor`: Vectors `(num_texts, size)`; zero for a text without a known word.
        """
        return self.pool(self.look_up(keys))

    def pool(self, words: TextWords) -> Tensor:
        """Return the vectors of texts, `(num_texts, size)`; zero for a text without a known word."""
        return self.pool_vectors(words, self.weight)


__all__ = [
    "MAX_WORDS",
    "MIN_TEXTS",
    "NO_WORD",
    "KnownWords",
    "TextWords",
    "Vocabulary",
    "WordEmbedding",
    "category_keys",
    "category_names",
    "item_category_keys",
    "item_word_keys",
    "text_word_keys",
]
