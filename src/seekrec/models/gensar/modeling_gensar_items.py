# SPDX-License-Identifier: Apache-2.0
"""What the catalogue holds of an item, for the encoder to read beside the item's codes.

Codes of items that are alike are alike, which is what they are for, and so a sum of code embeddings cannot say all
that sets one item apart. The catalogue keeps the vectors the codes were learnt from; here each item of a history adds
its own, projected, to the sum of its token embeddings. They are read, never trained, and an item added later has them
too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from seekrec.catalog import Catalog
from seekrec.catalog_checks import VIEWS
from seekrec.corpora import IdentifierVocabulary
from seekrec.errors import CatalogError
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.schema import BEHAVIORS, View


class ItemVectors(nn.Module):
    """Projects the catalogue's vectors of items to the width of the model.

    Args:
        config ([`GenSARConfig`]): `item_vector_size` numbers an item, the views of the catalogue joined.
    """

    vectors: Tensor | None = None
    keys: dict[View, Tensor]
    rows: dict[View, Tensor]

    def __init__(self, config: GenSARConfig) -> None:
        super().__init__()
        self.size = config.item_vector_size
        self.projection = nn.Linear(config.item_vector_size, config.d_model, bias=False)
        self.keys, self.rows = {}, {}

    def set_catalog(self, catalog: Catalog, vocabulary: IdentifierVocabulary) -> None:
        """Read the vectors of this catalogue from now on.

        Raises:
            CatalogError: If its vectors have another size than the model's.
        """
        size = vector_size(catalog)
        if size != self.size:
            raise CatalogError(
                f"`item_vector_size` is {self.size} in the model and the catalogue's vectors have {size} numbers "
                "together; use the catalogue saved with the model."
            )
        known = [catalog.embeddings[view] for view in VIEWS if view in catalog.embeddings]
        self.vectors = torch.from_numpy(np.concatenate(known, axis=1))
        self.widths = [vectors.shape[1] for vectors in known]
        self.vocabulary = vocabulary
        for view in catalog.views:
            keys = self._key(torch.from_numpy(catalog.codes[view].astype(np.int64)))
            self.keys[view], self.rows[view] = keys.sort()

    @torch.no_grad()
    def start_weights(self, spread: float) -> None:
        """Begin with a random projection in which each view moves an item about as far as one code does.

        Args:
            spread (`float`): Standard deviation of the token embeddings.
        """
        vectors = self._on_device()
        # The root of the mean square over items, number by number, so that no view drowns the other.
        scale = vectors.square().mean(0).sqrt().clamp_min(1e-6)
        share = torch.cat([torch.full((width,), width**-0.5, device=vectors.device) for width in self.widths])
        weight = self.projection.weight
        weight.normal_(std=spread).mul_((share / scale).to(weight))

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Project the vectors of items.

        Args:
            rows (`torch.LongTensor` of shape `(num_items,)`, *optional*): Of the catalogue; all if not given.

        Returns:
            `torch.Tensor`: `(num_items, d_model)`.
        """
        vectors = self._on_device()
        chosen = vectors if rows is None else vectors[rows]
        projected: Tensor = self.projection(chosen.to(self.projection.weight.dtype))
        return projected

    def find_rows(self, input_ids: Tensor) -> Tensor:
        """Tell which item begins at each token: rows of the catalogue, -1 where none does.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): A history.

        Returns:
            `torch.LongTensor` of shape `(batch, length)`: Not -1 at an item's behavior token only.
        """
        self._on_device()
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
            keys, rows = self.keys[view], self.rows[view]
            wanted = self._key(codes)
            place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            is_item = is_code & (keys[place] == wanted)
            found[row, position] = torch.where(is_item, rows[place], -1)
        return found

    def _on_device(self) -> Tensor:
        """Give the vectors; they and the tables of identifiers go to the device of the weights once."""
        if self.vectors is None:
            raise CatalogError("The model has no catalogue; call `set_catalog` first.")
        device = self.projection.weight.device
        if self.vectors.device != device:
            self.vectors = self.vectors.to(device)
            for table in (self.keys, self.rows):
                table.update({view: numbers.to(device) for view, numbers in table.items()})
        return self.vectors

    def _key(self, codes: Tensor) -> Tensor:
        key = torch.zeros_like(codes[:, 0])
        for level in range(self.vocabulary.num_levels):
            key = key * self.vocabulary.codebook_size + codes[:, level]
        return key


def vector_size(catalog: Catalog) -> int:
    """Count the numbers the catalogue keeps of an item, the views joined."""
    return sum(vectors.shape[1] for vectors in catalog.embeddings.values())


__all__ = ["ItemVectors", "vector_size"]
