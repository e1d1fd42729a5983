# SPDX-License-Identifier: Apache-2.0
"""What the catalogue holds of an item, for the encoder to read beside the item's codes.

Codes of items that are alike are alike, which is what they are for, and so a sum of code embeddings cannot say all
that sets one item apart. The catalogue keeps the vectors the codes were learnt from; here each item of a history adds
its own, projected, to the sum of its token embeddings. They are read, never trained, and an item added later has them
too.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from seekrec.catalog import Catalog
from seekrec.catalog.checks import VIEWS
from seekrec.corpora import IdentifierVocabulary
from seekrec.errors import CatalogError
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.snapshot import Parts
from seekrec.schema import BEHAVIORS, View


class ItemTable(Parts):
    """The vectors of a catalogue's items, and which row an identifier is. Never changed.

    Args:
        catalog ([`Catalog`]): The items.
    """

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        known = [catalog.embeddings[view] for view in VIEWS if view in catalog.embeddings]
        self.vectors = torch.from_numpy(np.concatenate(known, axis=1))
        self.widths = [vectors.shape[1] for vectors in known]
        self.keys: dict[View, Tensor] = {}
        self.rows: dict[View, Tensor] = {}
        for view in catalog.views:
            keys = _key(torch.from_numpy(catalog.codes[view].astype(np.int64)), catalog.codebook_size)
            self.keys[view], self.rows[view] = keys.sort()

    def on(self, device: torch.device) -> ItemTable:
        """Give the table on a device."""
        return self if self.vectors.device == device else self.part(("on", device), lambda: self._copy(device))

    def _copy(self, device: torch.device) -> ItemTable:
        copied = copy.deepcopy(self)
        copied.vectors = self.vectors.to(device)
        copied.keys = {view: keys.to(device) for view, keys in self.keys.items()}
        copied.rows = {view: rows.to(device) for view, rows in self.rows.items()}
        return copied


class ItemVectors(nn.Module):
    """Projects the catalogue's vectors of items to the width of the model.

    Args:
        config ([`GenSARConfig`]): `item_vector_size` numbers an item, the views of the catalogue joined.
    """

    # What training and `generate` read; an answer brings its own.
    table: ItemTable | None = None
    vocabulary: IdentifierVocabulary

    def __init__(self, config: GenSARConfig) -> None:
        super().__init__()
        self.size = config.item_vector_size
        self.projection = nn.Linear(config.item_vector_size, config.d_model, bias=False)

    def make_table(self, catalog: Catalog) -> ItemTable:
        """Read the vectors of a catalogue.

        Raises:
            CatalogError: If they have another size than the model's.
        """
        size = vector_size(catalog)
        if size != self.size:
            raise CatalogError(
                f"`item_vector_size` is {self.size} in the model and the catalogue's vectors have {size} numbers "
                "together; use the catalogue saved with the model."
            )
        return ItemTable(catalog)

    @torch.no_grad()
    def start_weights(self, spread: float) -> None:
        """Begin with a random projection in which each view moves an item about as far as one code does.

        Args:
            spread (`float`): Standard deviation of the token embeddings.
        """
        table = self._table(None)
        # The root of the mean square over items, number by number, so that no view drowns the other.
        scale = table.vectors.square().mean(0).sqrt().clamp_min(1e-6)
        share = torch.cat([torch.full((width,), width**-0.5, device=scale.device) for width in table.widths])
        weight = self.projection.weight
        weight.normal_(std=spread).mul_((share / scale).to(weight))

    def forward(self, rows: Tensor | None = None, table: ItemTable | None = None) -> Tensor:
        """Project the vectors of items.

        Args:
            rows (`torch.LongTensor` of shape `(num_items,)`, *optional*): Of the catalogue; all if not given.
            table ([`ItemTable`], *optional*): Of the catalogue; the one set last if not given.

        Returns:
            `torch.Tensor`: `(num_items, d_model)`.
        """
        vectors = self._table(table).vectors
        chosen = vectors if rows is None else vectors[rows]
        projected: Tensor = self.projection(chosen.to(self.projection.weight.dtype))
        return projected

    def find_rows(self, input_ids: Tensor, table: ItemTable | None = None) -> Tensor:
        """Tell which item begins at each token: rows of the catalogue, -1 where none does.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): A history.
            table ([`ItemTable`], *optional*): As in [`forward`].

        Returns:
            `torch.LongTensor` of shape `(batch, length)`: Not -1 at an item's behavior token only.
        """
        table = self._table(table)
        found = torch.full_like(input_ids, -1)
        for behavior in BEHAVIORS:
            row, position = (input_ids == self.vocabulary.item_token_id(behavior)).nonzero(as_tuple=True)
            is_whole = position + self.vocabulary.num_levels < input_ids.shape[1]
            row, position = row[is_whole], position[is_whole]
            if not len(row):
                continue
            view = self.vocabulary.view_of_behavior(behavior)
            places = position[:, None] + torch.arange(1, self.vocabulary.num_levels + 1, device=input_ids.device)
            offsets = torch.from_numpy(self.vocabulary.level_offsets(view)).to(input_ids.device)
            codes = input_ids[row[:, None], places] - offsets
            is_code = ((codes >= 0) & (codes < self.vocabulary.codebook_size)).all(1)
            keys, rows = table.keys[view], table.rows[view]
            wanted = _key(codes, self.vocabulary.codebook_size)
            place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            is_item = is_code & (keys[place] == wanted)
            found[row, position] = torch.where(is_item, rows[place], -1)
        return found

    def _table(self, table: ItemTable | None) -> ItemTable:
        """Give the table to read, on the device of the weights."""
        table = self.table if table is None else table
        if table is None:
            raise CatalogError("The model has no catalogue; call `set_catalog` first.")
        return table.on(self.projection.weight.device)


def _key(codes: Tensor, codebook_size: int) -> Tensor:
    key = torch.zeros_like(codes[:, 0])
    for level in range(codes.shape[1]):
        key = key * codebook_size + codes[:, level]
    return key


def vector_size(catalog: Catalog) -> int:
    """Count the numbers the catalogue keeps of an item, the views joined."""
    return sum(vectors.shape[1] for vectors in catalog.embeddings.values())


__all__ = ["ItemTable", "ItemVectors", "vector_size"]
