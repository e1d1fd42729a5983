# SPDX-License-Identifier: Apache-2.0
"""The items that a model of vectors answers with: one catalogue's, under the weights as they are."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seekrec.catalog import Catalog, item_periods
from seekrec.models.dense.item_index import Backend, ItemIndex
from seekrec.models.dense.item_tower import ItemTexts, ItemTower
from seekrec.models.snapshot import CatalogSnapshot, weights_key
from seekrec.util.finite import check_finite


class DenseSnapshot(CatalogSnapshot):
    """A catalogue, what it tells the tower, and what was made of both.

    Args:
        catalog ([`Catalog`]): The items that can be answered.
        texts ([`ItemTexts`]): Of the catalogue.
    """

    def __init__(self, catalog: Catalog, texts: ItemTexts) -> None:
        super().__init__(catalog)
        self.texts = texts

    def periods(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Give when each item comes and goes, int64 seconds `(num_items,)` each; `None` where all are always there."""

        def read() -> tuple[Tensor, Tensor] | None:
            start, end = item_periods(self.catalog.items)
            limits = np.iinfo(np.int64)
            if (start == limits.min).all() and (end == limits.max).all():
                return None
            return torch.tensor(start, device=device), torch.tensor(end, device=device)

        return self.part(("periods", device), read)


class CatalogItems:
    """What one call answers from: it holds its snapshot, so no other thread changes it.

    Args:
        model: Has `items`, `fusion` and `answer_items`.
        snapshot ([`DenseSnapshot`]): Read once, at the start of the call.
    """

    def __init__(self, model: Any, snapshot: DenseSnapshot) -> None:
        self.snapshot, self.catalog, self.texts = snapshot, snapshot.catalog, snapshot.texts
        self._model = model
        self._tower: ItemTower = model.items

    def __call__(self, rows: Tensor) -> Tensor:
        """Give the vectors of some items, as [`ItemTower`] does."""
        vectors: Tensor = self._tower(rows, self.texts)
        return vectors

    def parts(self, rows: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Give what the vectors of some items are made of, as [`ItemTower`] does."""
        return self._tower.parts(rows, self.texts)

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        fusion = self._model.fusion
        weights = [*self._tower.parameters(), *(() if fusion is None else fusion.parameters())]
        added = None if fusion is None else (fusion.recommender_weight, fusion.text_weight)
        return added, weights_key(weights)

    @property
    def vectors(self) -> Tensor:
        """The vectors of all items, `(num_rows, hidden_size)`; made anew when a weight has changed."""

        def make() -> Tensor:
            found = self._tower.all(self.texts).detach()
            check_finite("The item vectors", found, "row", "load weights and text vectors that are whole")
            return found

        return self.snapshot.part("vectors", make, self._key)

    @property
    def answers(self) -> Tensor:
        """What answers multiply with questions, `(num_rows, size)`: item vectors, and what is fused with them."""

        def make() -> Tensor:
            found: Tensor = self._model.answer_items(self)
            check_finite("What is added to the item vectors", found, "row", "set a recommender that is whole")
            return found

        return self.snapshot.part("answers", make, self._key)

    def index(self, backend: Backend) -> ItemIndex:
        """Give the index of [`answers`]."""
        return self.snapshot.part(("index", backend), lambda: ItemIndex(self.answers, backend), self._key)


__all__ = ["CatalogItems", "DenseSnapshot"]
