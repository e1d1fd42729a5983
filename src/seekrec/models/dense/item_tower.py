# SPDX-License-Identifier: Apache-2.0
"""The item tower: an id embedding, a projection of the text vector, categories and words.

The text vectors are frozen: they are the catalogue's `embeddings["semantic"]`, not weights, and are saved once, with
the catalogue. An item added after training has no id embedding: the mean of all id embeddings takes its place, so it
is represented by its texts, at a typical position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers import initialization as init

from seekrec.embeddings.row_shards import RowShards
from seekrec.errors import CatalogError, ConfigurationError
from seekrec.models.base import LazyValues
from seekrec.models.dense.configuration_dense import DenseConfig
from seekrec.models.words import (
    KnownWords,
    TextWords,
    Vocabulary,
    WordEmbedding,
    category_keys,
    category_names,
    item_category_keys,
    item_word_keys,
)
from seekrec.util.ragged import Ragged


class TextProjection(nn.Linear):
    """A linear layer that reads text vectors, which have unit length: it takes the start values of an embedding."""


class ItemTexts(LazyValues):
    """What a catalogue tells a tower: how many items there are, and what their texts say. Never changed.

    Args:
        vectors (`np.ndarray`, *optional*): Frozen text vectors, float32 `(num_rows, text_size)`; `None` where they are
            not read.
        num_rows (`int`): Length of the catalogue.
        keys (`Mapping[str, Ragged]`): Hashes of `words` and of `categories`, a row per item; only what is read.
    """

    def __init__(self, vectors: np.ndarray | None, num_rows: int, keys: Mapping[str, Ragged] | None = None) -> None:
        super().__init__()
        self.vectors = None if vectors is None else torch.from_numpy(vectors)
        self.num_rows = num_rows
        self.keys = dict(keys or {})

    def on(self, device: torch.device) -> Tensor:
        """Return the text vectors on a device."""
        vectors = self.vectors
        if vectors is None:
            raise CatalogError("The model has no text vectors; call `set_catalog` first.")
        return vectors if vectors.device == device else self.value(("on", device), lambda: vectors.to(device))

    # Looked up once, by numpy: `torch.compile` has nothing to gain here.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def words(self, name: str, known: KnownWords) -> TextWords:
        """Return the `words` or `categories` of all items, as rows of what knows them, on its device.

        They are looked up again when the vocabulary is another, as after `load_state_dict`.
        """
        if name not in self.keys:
            raise CatalogError(f"The model does not know the {name} of the items; call `set_catalog` first.")
        return self.value(name, lambda: known.find(self.keys[name]), known.version)


class CategoryVectors(KnownWords):
    """Vectors of the names of categories by the frozen text encoder, through a projection of their own.

    The names are few, so they lie among the weights; of a new item those that are known are read.

    Args:
        num_categories (`int`): Number of names.
        text_size (`int`): Width of what the encoder returns.
        hidden_size (`int`): Width of a vector.
    """

    vectors: Tensor

    def __init__(self, num_categories: int, text_size: int, hidden_size: int) -> None:
        super().__init__()
        self.register_vocabulary(num_categories)
        self.register_buffer("vectors", torch.zeros(num_categories, text_size))
        self.projection = TextProjection(text_size, hidden_size, bias=False)

    @torch.no_grad()
    def set_names(self, items: pa.Table, embed: Callable[[list[str]], np.ndarray]) -> None:
        """Let rows stand for the categories of these items.

        Args:
            items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
            embed (`Callable`): Texts to float32 vectors `(num_texts, text_size)`, by the encoder of queries.
        """
        names = category_names(items)
        self.set_vocabulary(Vocabulary.choose([item_category_keys(items)], min_texts=1))
        if names:
            order = np.argsort(category_keys(names).values)
            init.copy_(self.vectors, torch.from_numpy(embed(names)[order]))

    def forward(self, categories: TextWords) -> Tensor:
        """Return the vectors of items by their categories, `(num_items, hidden_size)`."""
        return self.pool_vectors(categories, self.projection(self.vectors.to(self.projection.weight.dtype)))


class ItemTower(nn.Module):
    """Rows of the catalogue to vectors: the sum of what is read of an item.

    The weights are the tower's; how many items there are and what their texts say stands in [`ItemTexts`], which
    every method takes. Left out, they are those in `texts`. Words that queries are read by are the tower's too: a word
    means the same in both.

    Args:
        num_items (`int`): Items with an id embedding: the catalogue's first rows.
        hidden_size (`int`): Width of a vector.
        text_size (`int`): Width of a text vector; 0 where none is read.
        has_ids (`bool`): Off for items without a vector of their own.
        categories ([`CategoryVectors`], *optional*): Reads the names of categories.
        words ([`WordEmbedding`], *optional*): Learned words, of items, queries or both.
        reads (`Sequence[str]`): Who reads them: `item`, `query`.
    """

    def __init__(
        self,
        num_items: int,
        hidden_size: int,
        text_size: int,
        has_ids: bool = True,
        *,
        categories: CategoryVectors | None = None,
        words: WordEmbedding | None = None,
        reads: Sequence[Literal["item", "query"]] = (),
    ) -> None:
        super().__init__()
        self.num_items, self.hidden_size = num_items, hidden_size
        self.ids = nn.Embedding(num_items, hidden_size) if has_ids else None
        self.text = TextProjection(text_size, hidden_size, bias=False) if text_size else None
        self.categories, self.words = categories, words
        self.item_words = words is not None and "item" in reads
        self.query_words = words is not None and "query" in reads
        # Not a buffer: `from_pretrained` would leave one that is not among the weights uninitialised.
        self.texts = ItemTexts(None, num_items)

    @classmethod
    def from_config(cls, config: DenseConfig) -> Self:
        """Make the tower of a model."""
        size = config.hidden_size
        reads: dict[Literal["item", "query"], Sequence[str]]
        reads = {"item": config.item_reading, "query": config.query_reading}
        has_categories, has_words = "categories" in config.item_reading, config.reads_words
        return cls(
            config.num_items,
            size,
            config.text_size,
            has_ids="vector" in config.item_reading,
            categories=CategoryVectors(config.num_categories, config.query_size, size) if has_categories else None,
            words=WordEmbedding(config.num_words, size) if has_words else None,
            reads=[who for who, read in reads.items() if "words" in read],
        )

    def set_words(self, items: pa.Table, words: Vocabulary, embed: Callable[[list[str]], np.ndarray]) -> None:
        """Set which words and categories are known, before a catalogue is set.

        Args:
            items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
            words ([`Vocabulary`]): As many words as there are rows, where words are read.
            embed (`Callable`): As in [`CategoryVectors.set_names`].
        """
        if self.words is not None:
            self.words.set_vocabulary(words)
        if self.categories is not None:
            self.categories.set_names(items, embed)

    def read_texts(self, items: pa.Table, vectors: np.ndarray | None) -> ItemTexts:
        """Return what items tell this tower.

        Args:
            items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
            vectors (`np.ndarray`, *optional*): Their text vectors.
        """
        keys = {}
        if self.item_words:
            keys["words"] = item_word_keys(items)
        if self.categories is not None:
            keys["categories"] = item_category_keys(items)
        return ItemTexts(vectors, items.num_rows, keys)

    def read_queries(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return vectors of queries by their words, `(num_queries, hidden_size)`; `None` where they are not read so.

        Args:
            inputs (`dict[str, torch.Tensor]`): Has `query_words`, hashes of the words of each query.
        """
        if self.words is None or not self.query_words:
            return None
        if "query_words" not in inputs:
            raise ConfigurationError(
                "The inputs have no `query_words`, which `query_reading` needs; use the processor saved with the "
                "model, and for training a collator that has the words."
            )
        read: Tensor = self.words(inputs["query_words"])
        return read

    @torch.no_grad()
    def start_ids(self, vectors: np.ndarray) -> None:
        """Copy vectors that another recommender learned into the id embeddings, which are trained on from there.

        Args:
            vectors (`np.ndarray`): float32 `(num_items, width)`; with a width below `hidden_size` the numbers behind
                it keep their random start.

        Raises:
            ConfigurationError: If there are no id embeddings, or the vectors are more or wider than they.
        """
        if self.ids is None:
            raise ConfigurationError(
                "Items have no learned vectors to initialise: `item_reading` does not include 'vector'."
            )
        if len(vectors) != self.num_items or vectors.shape[1] > self.hidden_size:
            raise ConfigurationError(
                f"The initial vectors have shape {vectors.shape}, the id embeddings ({self.num_items}, "
                f"{self.hidden_size}); pass one for each item, no wider than `hidden_size`."
            )
        self.ids.weight[:, : vectors.shape[1]] = torch.from_numpy(vectors).to(self.ids.weight)

    def forward(self, rows: Tensor, texts: ItemTexts | None = None) -> Tensor:
        """Return the vectors of some items.

        Args:
            rows (`torch.LongTensor`): Catalogue rows in any shape; below 0 for no item.
            texts ([`ItemTexts`], *optional*): Texts of the catalogue.

        Returns:
            `torch.Tensor`: Vectors `(*rows.shape, hidden_size)`; zero for no item.
        """
        learned, frozen = self.parts(rows, texts)
        parts = [] if learned is None else [learned]
        if self.text is not None and frozen is not None:
            parts.append(self.text(frozen))
        return sum(parts[1:], parts[0]) * (rows >= 0)[..., None]

    def parts(self, rows: Tensor, texts: ItemTexts | None = None) -> tuple[Tensor | None, Tensor | None]:
        """Return what vectors are made of: what is learned, and the frozen text vectors before their projection.

        Args:
            rows (`torch.LongTensor`): Catalogue rows in any shape; below 0 returns the parts of row 0.
            texts ([`ItemTexts`], *optional*): Texts of the catalogue.

        Returns:
            `tuple`: Tensors `(*rows.shape, hidden_size)`, the sum of id embeddings, categories and words, and
            `(*rows.shape, text_size)`; `None` for what the tower does not have.
        """
        texts = self.texts if texts is None else texts
        safe = rows.clamp_min(0)
        learned, frozen = [], None
        if self.ids is not None:
            ids = self.ids(safe.clamp_max(self.num_items - 1))
            if texts.num_rows > self.num_items:
                self._check_whole()
                ids = torch.where((safe >= self.num_items)[..., None], self.ids.weight.mean(0), ids)
            learned.append(ids)
        if self.categories is not None or self.item_words:
            # An item occurs in many places of a batch and is read once.
            asked, places = safe.unique(return_inverse=True)
            learned += [part[places] for part in self._described(asked, texts)]
        if self.text is not None:
            frozen = texts.on(rows.device)[safe].to(self.text.weight.dtype)
        return sum(learned[1:], learned[0]) if learned else None, frozen

    def _described(self, rows: Tensor, texts: ItemTexts) -> list[Tensor]:
        """Return what categories and words say of items, each `(len(rows), hidden_size)`."""
        found = []
        if self.categories is not None:
            found.append(self.categories(texts.words("categories", self.categories).take(rows)))
        if self.words is not None and self.item_words:
            found.append(self.words.pool(texts.words("words", self.words).take(rows)))
        return found

    def all(self, texts: ItemTexts | None = None) -> Tensor:
        """Return the vectors of the whole catalogue, `(num_rows, hidden_size)`, with gradients in training.

        Where processes share the id embeddings, the vectors of the rows that this one holds.
        """
        texts = self.texts if texts is None else texts
        parts = []
        held = self.ids.held if isinstance(self.ids, RowShards) else slice(None)
        if self.ids is not None:
            new = texts.num_rows - self.num_items
            weight = self.ids.weight
            if new > 0:
                self._check_whole()
            parts.append(torch.cat([weight, weight.mean(0).expand(new, -1)]) if new > 0 else weight)
        if self.categories is not None or self.item_words:
            known = self.categories or self.words
            rows = torch.arange(texts.num_rows, device=None if known is None else known.keys.device)
            parts += self._described(rows[held], texts)
        if self.text is not None:
            weight = self.text.weight
            parts.append(self.text(texts.on(weight.device)[held].to(weight.dtype)))
        return sum(parts[1:], parts[0])

    def _check_whole(self) -> None:
        if isinstance(self.ids, RowShards):
            raise CatalogError(
                "The catalogue has grown, but several processes train the model, each with some of its rows; train "
                "with the catalogue that the model was made for."
            )


__all__ = ["CategoryVectors", "ItemTexts", "ItemTower", "TextProjection"]
