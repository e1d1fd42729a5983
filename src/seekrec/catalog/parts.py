# SPDX-License-Identifier: Apache-2.0
"""The parts of a catalogue, and the hashes that identify it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from seekrec.catalog.checks import VIEWS
from seekrec.identifiers.modeling_identifier import IdentifierModel
from seekrec.schema import VIEW_OF_BEHAVIOR, Behavior, IdMap, View
from seekrec.util.hashing import array_digest, json_digest, table_digest
from seekrec.util.redaction import place_name


@dataclass(frozen=True, eq=False, repr=False)
class CatalogParts:
    """The data of a [`Catalog`](catalog.py): items, identifiers, vectors; nothing is checked.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`, then any more columns. `N` rows, removed items included.
        codes (`Mapping[str, np.ndarray]`): For each view its identifiers, int32 of shape `(N, num_levels)`, shared
            levels first. The shared levels are equal in both views; within a view no two rows are equal.
        num_shared_levels (`int`): Levels that the views share.
        num_specific_levels (`int`): Levels specific to each view.
        codebook_size (`int`): Codes at each level.
        embeddings (`Mapping[str, np.ndarray]`): float32 of shape `(N, dimension)`, for the views that have any.
        is_removed (`np.ndarray`): bool of shape `(N,)`: histories may contain the item, answers may not.
        is_predicted (`np.ndarray`): bool of shape `(N,)`: the collaborative vector of the item was predicted.
        identifier_model (`DualRQVAEModel` or `ResidualKMeans`, *optional*): Model that gave the codes of the items.
        semantic_encoder_name (`str`, *optional*): Encoder of new items' text; `None` is the default encoder.
        encoder_is_trusted (`bool`): Whether that encoder may be loaded; False if only a file names it.
    """

    items: pa.Table
    codes: Mapping[View, np.ndarray]
    num_shared_levels: int
    num_specific_levels: int
    codebook_size: int
    embeddings: Mapping[View, np.ndarray]
    is_removed: np.ndarray
    is_predicted: np.ndarray
    identifier_model: IdentifierModel | None = None
    semantic_encoder_name: str | None = None
    encoder_is_trusted: bool = True

    def __post_init__(self) -> None:
        # In the order of rows: safetensors writes the memory of an array, whatever its strides say.
        for name, arrays in (("codes", self.codes), ("embeddings", self.embeddings)):
            object.__setattr__(self, name, {view: np.ascontiguousarray(array) for view, array in arrays.items()})
        # Not the embeddings: they are handed to torch, which warns of arrays that cannot be written to.
        for array in (*self.codes.values(), self.is_removed, self.is_predicted):
            array.setflags(write=False)

    def __len__(self) -> int:
        return int(self.items.num_rows)

    @property
    def views(self) -> tuple[View, ...]:
        """The views that have identifiers, semantic before collaborative."""
        return tuple(view for view in VIEWS if view in self.codes)

    def view_of(self, behavior: Behavior) -> View:
        """Return the view whose identifier answers a behavior; the only view where there is one."""
        wanted = VIEW_OF_BEHAVIOR[behavior]
        return wanted if wanted in self.codes else self.views[0]

    @property
    def num_levels(self) -> int:
        """Length of an identifier."""
        return self.num_shared_levels + self.num_specific_levels

    @property
    def live(self) -> np.ndarray:
        """The items that were not removed: bool of shape `(N,)`; a new array."""
        return ~self.is_removed

    @cached_property
    def id_map(self) -> IdMap:
        """Item ids to rows of `items` and back."""
        return IdMap(self.items["item_id"].to_pylist())

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over everything: items, identifiers, embeddings, removals, identifier model, settings."""
        return json_digest([self.settings(), self.part_hashes()])

    @cached_property
    def identifier_hash(self) -> str:
        """SHA-256 over the sizes of the levels and the identifier model; a checkpoint stores its own.

        Adding and removing items leaves it as it is. Without an identifier model it covers the codes instead.
        """
        sizes = [list(self.views), self.num_shared_levels, self.num_specific_levels, self.codebook_size]
        known = array_digest(self.codes) if self.identifier_model is None else model_digest(self.identifier_model)
        return json_digest([sizes, known])

    def items_hash(self, num_items: int) -> str:
        """Compute the SHA-256 of the ids of the first items, in order, to which id embeddings belong."""
        return json_digest(self.id_map.ids[:num_items])

    def part_hashes(self) -> dict[str, str]:
        """Compute the SHA-256 of each part's content, under the names of the parts in `catalog.json`."""
        hashes = {"items": table_digest(self.items), "codes": array_digest(self.code_arrays())}
        if self.embeddings:
            hashes["embeddings"] = array_digest(self.embeddings)
        if self.identifier_model is not None:
            hashes["identifier_model"] = model_digest(self.identifier_model)
        return hashes

    def code_arrays(self) -> dict[str, np.ndarray]:
        """Return the identifiers and flags under the names that `codes.safetensors` gives them."""
        arrays = {f"{view}_codes": array for view, array in self.codes.items()}
        return arrays | {"is_removed": self.is_removed, "is_predicted": self.is_predicted}

    def settings(self) -> dict[str, object]:
        """Return the plain settings, as `catalog.json` contains them, without local paths."""
        encoder = self.semantic_encoder_name
        return {
            "num_items": len(self),
            "views": list(self.views),
            "num_shared_levels": self.num_shared_levels,
            "num_specific_levels": self.num_specific_levels,
            "codebook_size": self.codebook_size,
            "semantic_encoder_name": None if encoder is None else place_name(encoder),
        }


def model_digest(model: IdentifierModel) -> str:
    """Compute the SHA-256 of an identifier model: its kind and its tensors."""
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(f"{model.config.model_type}:{array_digest(tensors)}".encode()).hexdigest()
