# SPDX-License-Identifier: Apache-2.0
"""Vectors of items: an id embedding plus a projection of the frozen text vector.

The text vectors are the catalogue's `embeddings["semantic"]`; they are no weights and are saved once, with the
catalogue. An item that came after training has no id row: the mean of all id rows takes its place, so it works by its
text alone and lies among the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from seekrec.errors import CatalogError, ConfigurationError
from seekrec.models.snapshot import Parts, weights_key
from seekrec.schema import BEHAVIORS


class TextProjection(nn.Linear):
    """A linear layer that reads text vectors, which have unit length: it takes the start values of an embedding."""


class ItemTexts(Parts):
    """What a catalogue tells a tower: how many items there are, and their frozen text vectors. Never changed.

    Args:
        vectors (`np.ndarray`, *optional*): float32 `(num_rows, text_size)`; `None` where texts are not read.
        num_rows (`int`): The catalogue's length.
    """

    def __init__(self, vectors: np.ndarray | None, num_rows: int) -> None:
        super().__init__()
        self.vectors = None if vectors is None else torch.from_numpy(vectors)
        self.num_rows = num_rows

    def on(self, device: torch.device) -> Tensor:
        """Give the text vectors on a device."""
        vectors = self.vectors
        if vectors is None:
            raise CatalogError("The model has no text vectors; call `set_catalog` first.")
        return vectors if vectors.device == device else self.part(("on", device), lambda: vectors.to(device))

    def centered(self, num_items: int, device: torch.device) -> Tensor:
        """Give the text vectors less the mean of the first `num_items`, at unit length, `(num_rows, text_size)`.

        What all texts of a catalogue share says nothing about which of them are alike.
        """

        def center() -> Tensor:
            texts = self.on(device).float()
            return F.normalize(texts - texts[:num_items].mean(0), dim=-1)

        return self.part(("centered", device), center, num_items)


class ItemTower(nn.Module):
    """Rows of the catalogue to vectors.

    The weights are the tower's; how many items there are and what their texts say stands in [`ItemTexts`], which
    every method can be given. Left out, it is what [`set_text_vectors`] set last.

    Args:
        num_items (`int`): Items with an id embedding: the catalogue's first rows.
        hidden_size (`int`): Width of a vector.
        text_size (`int`): Width of a text vector; 0 for ids alone.
        use_ids (`bool`): Off for text alone.
    """

    def __init__(self, num_items: int, hidden_size: int, text_size: int, use_ids: bool = True) -> None:
        super().__init__()
        self.num_items, self.hidden_size = num_items, hidden_size
        self.ids = nn.Embedding(num_items, hidden_size) if use_ids else None
        self.text = TextProjection(text_size, hidden_size, bias=False) if text_size else None
        # Not a buffer: `from_pretrained` would leave one that is not among the weights uninitialised.
        self.texts = ItemTexts(None, num_items)

    def set_text_vectors(self, vectors: np.ndarray | None, num_rows: int) -> None:
        """Set the frozen text vectors, float32 `(num_rows, text_size)`, and the catalogue's length."""
        self.texts = ItemTexts(vectors, num_rows)

    @torch.no_grad()
    def start_ids(self, vectors: np.ndarray) -> None:
        """Let the id embeddings begin as vectors that another recommender learned, and train on from there.

        Args:
            vectors (`np.ndarray`): float32 `(num_items, width)`; with a width below `hidden_size` the numbers behind
                it keep their random start.

        Raises:
            ConfigurationError: If there are no id embeddings, or the vectors are more or wider than they.
        """
        if self.ids is None:
            raise ConfigurationError("The items have no id embeddings to start; `use_ids` is off, switch it on.")
        if len(vectors) != self.num_items or vectors.shape[1] > self.hidden_size:
            raise ConfigurationError(
                f"The vectors to start from have shape {vectors.shape}, the id embeddings ({self.num_items}, "
                f"{self.hidden_size}); give one for each item, no wider than `hidden_size`."
            )
        self.ids.weight[:, : vectors.shape[1]] = torch.from_numpy(vectors).to(self.ids.weight)

    def forward(self, rows: Tensor, texts: ItemTexts | None = None) -> Tensor:
        """Give the vectors of some items.

        Args:
            rows (`torch.LongTensor`): Catalogue rows of any shape; below 0 for no item.
            texts ([`ItemTexts`], *optional*): Of the catalogue.

        Returns:
            `torch.Tensor`: Of shape `(*rows.shape, hidden_size)`; zero for no item.
        """
        ids, frozen = self.parts(rows, texts)
        parts = [] if ids is None else [ids]
        if self.text is not None and frozen is not None:
            parts.append(self.text(frozen))
        return sum(parts[1:], parts[0]) * (rows >= 0)[..., None]

    def parts(self, rows: Tensor, texts: ItemTexts | None = None) -> tuple[Tensor | None, Tensor | None]:
        """Give what vectors are made of: id embeddings, and the frozen text vectors before their projection.

        Args:
            rows (`torch.LongTensor`): Catalogue rows of any shape; below 0 gives the parts of row 0.
            texts ([`ItemTexts`], *optional*): Of the catalogue.

        Returns:
            `tuple`: Tensors of shape `(*rows.shape, hidden_size)` and `(*rows.shape, text_size)`; `None` for what the
            tower has not.
        """
        texts = self.texts if texts is None else texts
        safe = rows.clamp_min(0)
        ids = frozen = None
        if self.ids is not None:
            ids = self.ids(safe.clamp_max(self.num_items - 1))
            if texts.num_rows > self.num_items:
                ids = torch.where((safe >= self.num_items)[..., None], self.ids.weight.mean(0), ids)
        if self.text is not None:
            frozen = texts.on(rows.device)[safe].to(self.text.weight.dtype)
        return ids, frozen

    def all(self, texts: ItemTexts | None = None) -> Tensor:
        """Give the vectors of the whole catalogue, `(num_rows, hidden_size)`, with gradients in training."""
        texts = self.texts if texts is None else texts
        parts = []
        if self.ids is not None:
            new = texts.num_rows - self.num_items
            weight = self.ids.weight
            parts.append(torch.cat([weight, weight.mean(0).expand(new, -1)]) if new > 0 else weight)
        if self.text is not None:
            weight = self.text.weight
            parts.append(self.text(texts.on(weight.device).to(weight.dtype)))
        return sum(parts[1:], parts[0])

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """Give [`all`] for answering: computed once, and again when a weight has changed."""
        texts = self.texts
        return texts.part("frozen", lambda: self.all(texts).detach(), weights_key(self.parameters()))


def latest_items(item_rows: Tensor, allowed: Tensor) -> Tensor:
    """Give the place of the latest item that each question sees, counted from 1; 0 for none.

    Args:
        item_rows (`torch.LongTensor`): Items of the tokens, oldest first, `(batch, length)`; below 0 for none.
        allowed (`torch.BoolTensor`): What questions see, `(batch, num_questions, length)`.

    Returns:
        `torch.LongTensor`: Of shape `(batch, num_questions)`.
    """
    numbers = torch.arange(1, item_rows.shape[1] + 1, device=item_rows.device)
    seen = allowed & (item_rows >= 0)[:, None]
    return (seen * numbers).amax(-1) if len(numbers) else seen.sum(-1)


class LatestItem(nn.Module):
    """What a question begins with besides itself: the latest item that it sees, as the state of SASRec does.

    The vector is the tower's, brought to one length, times a learned gate for each kind of request. Items that follow
    each other are then alike from the first step on, where a question that begins as nothing must learn to copy.

    Args:
        hidden_size (`int`): Width of a vector.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.empty(len(BEHAVIORS), hidden_size))

    def start_weights(self) -> None:
        """Open the gate of recommendations; a search begins with its query alone."""
        init.zeros_(self.gates)
        init.ones_(self.gates[BEHAVIORS.index("recommendation")])

    def forward(
        self, item_rows: Tensor, allowed: Tensor, behaviors: Tensor, items: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Give the vectors to add.

        Args:
            item_rows (`torch.LongTensor`): Items of the tokens, oldest first, `(batch, length)`; below 0 for none.
            allowed (`torch.BoolTensor`): What questions see, `(batch, num_questions, length)`.
            behaviors (`torch.LongTensor`): Numbers into `BEHAVIORS`, `(batch, num_questions)`.
            items (`Callable`): Catalogue rows to vectors.

        Returns:
            `torch.Tensor`: Of shape `(batch, num_questions, hidden_size)`; zero for a question that sees no item.
        """
        rows = F.pad(item_rows, (1, 0), value=-1).gather(1, latest_items(item_rows, allowed))
        vectors = F.layer_norm(items(rows), (self.gates.shape[1],)) * self.gates[behaviors.clamp_min(0)]
        return vectors * (rows >= 0)[..., None]


__all__ = ["ItemTexts", "ItemTower", "LatestItem", "TextProjection", "latest_items"]
