# SPDX-License-Identifier: Apache-2.0
"""The catalogue: items, their identifiers and embeddings, and which items may be returned.

A catalogue is immutable: `add_items`, `update_items` and `remove_items` return a new one. Rows are only appended and
old codes never change, so trained models and stored row numbers stay valid. Embeddings are rounded to half precision
when a catalogue is built, because that is how they are stored, and kept as float32: a loaded catalogue equals the
saved one bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from seekrec.catalog.checks import (
    check_codes,
    check_flags,
    check_model,
    check_vectors,
    update_columns,
)
from seekrec.catalog.files import read_catalog, write_catalog
from seekrec.catalog.growth import grow
from seekrec.catalog.masks import ItemFilters
from seekrec.catalog.parts import CatalogParts
from seekrec.embeddings.semantic import DEFAULT_ENCODER
from seekrec.errors import CatalogError, DataError
from seekrec.events.checks import Source, conform, find_item_problems, refuse
from seekrec.identifiers.modeling_identifier import IdentifierModel
from seekrec.schema import ITEM_FEATURES, View

# So much of a description stands for a title that there is not.
_TITLE_CHARACTERS = 80


class Catalog(CatalogParts):
    """Items with the identifiers that a model writes for them, and the model that gives new items identifiers.

    Use [`Catalog.build`] or [`Catalog.load`]; the constructor, whose arguments [`CatalogParts`] lists, checks nothing.
    """

    @classmethod
    def build(
        cls,
        items: pa.Table,
        codes: Mapping[View, np.ndarray] | None = None,
        *,
        num_shared_levels: int = 0,
        codebook_size: int = 0,
        embeddings: Mapping[View, np.ndarray | None] | None = None,
        identifier_model: IdentifierModel | None = None,
        semantic_encoder_name: str | None = None,
        is_removed: np.ndarray | None = None,
        is_predicted: np.ndarray | None = None,
    ) -> Catalog:
        """Check the parts of a catalogue and put them together.

        Args:
            items (`pyarrow.Table`): One row per item, ids distinct; `item_id` and `title` must be there.
            codes (`Mapping[str, np.ndarray]`, *optional*): Unique identifiers by view, integers `(N, num_levels)`;
                families that compare vectors need none.
            num_shared_levels (`int`): Number of levels that the views share; the others are specific.
            codebook_size (`int`): Codes at each level; codes are `0 .. codebook_size - 1`.
            embeddings (`Mapping[str, np.ndarray]`, *optional*): Vectors by view, floats of shape `(N, dimension)`.
            identifier_model (*optional*): Model that gave the codes.
            semantic_encoder_name (`str`, *optional*): See the class.
            is_removed (`np.ndarray`, *optional*): bool of shape `(N,)`; all False if not given.
            is_predicted (`np.ndarray`, *optional*): bool of shape `(N,)`; all False if not given.

        Returns:
            `Catalog`: The catalogue.

        Raises:
            DataError: If the items break the schema.
            CatalogError: If codes or embeddings do not fit the items, each other or the identifier model.
            IdentifierCollisionError: If two items have one identifier.
        """
        items = conform(items, ITEM_FEATURES, "items", required=("item_id", "title")).combine_chunks()
        refuse(items, find_item_problems(items), Source("`items`"))
        num_items = items.num_rows
        checked = {} if codes is None else check_codes(codes, items["item_id"], num_shared_levels, codebook_size)
        num_specific_levels = max((own.shape[1] for own in checked.values()), default=0) - num_shared_levels
        vectors = {
            view: check_vectors(f"embeddings[{view!r}]", given, num_items)
            for view, given in (embeddings or {}).items()
            if given is not None
        }
        if identifier_model is not None:
            expected = {
                "views": list(checked),
                "num_shared_levels": num_shared_levels,
                "num_specific_levels": num_specific_levels,
                "codebook_size": codebook_size,
            }
            sizes = {f"{view}_size": vectors[view].shape[1] for view in checked if view in vectors}
            check_model(identifier_model, expected | sizes)
        return cls(
            items=items,
            codes=checked,
            num_shared_levels=num_shared_levels,
            num_specific_levels=num_specific_levels,
            codebook_size=codebook_size,
            embeddings=vectors,
            is_removed=check_flags("is_removed", is_removed, num_items),
            is_predicted=check_flags("is_predicted", is_predicted, num_items),
            identifier_model=identifier_model,
            semantic_encoder_name=semantic_encoder_name,
        )

    def __repr__(self) -> str:
        return (
            f"Catalog({len(self)} items, {int(self.is_removed.sum())} of them removed; views {', '.join(self.views)}; "
            f"{self.num_shared_levels} shared and {self.num_specific_levels} specific levels of {self.codebook_size})"
        )

    def titles(self, ids: Iterable[str]) -> list[str]:
        """Return what items are called, for display: see [`Catalog.titles_of_rows`].

        Args:
            ids (`Iterable[str]`): Item ids, removed ones included.

        Raises:
            UnknownItemError: If the catalogue does not contain an id.
        """
        return [str(title) for title in self.titles_of_rows(self.id_map.convert_to_rows(ids))]

    def titles_of_rows(self, rows: np.ndarray) -> list[str | None]:
        """Return what items are called, for display: the title, else the start of the description, else the id.

        Args:
            rows (`np.ndarray`): int64 rows; below 0 for none, whose title is `None`.
        """
        titles = self.items["title"].take(pa.array(rows, mask=rows < 0)).to_pylist()
        nameless = [number for number, title in enumerate(titles) if rows[number] >= 0 and not (title or "").strip()]
        if nameless:
            others = self.items.select(["item_id", "description"]).take(pa.array(rows[nameless])).to_pylist()
            for number, item in zip(nameless, others, strict=True):
                titles[number] = " ".join((item["description"] or "").split())[:_TITLE_CHARACTERS] or item["item_id"]
        return titles

    def available(self, at: int) -> np.ndarray:
        """Mark the items that answers may contain at a given time.

        Args:
            at (`int`): Seconds since the epoch, UTC.

        Returns:
            `np.ndarray`: bool of shape `(N,)`: not removed, and `available_from <= at < available_until`.

        Raises:
            RequestError: If `at` is not a whole number.
        """
        return self._filters.available(at) & self.live

    def where(
        self,
        *,
        ids: Iterable[str] | None = None,
        at: int | None = None,
        categories: str | Sequence[str] | None = None,
        title_contains: str | None = None,
        **columns: object,
    ) -> np.ndarray:
        """Mark the items that answers may contain and that match every filter.

        ```python
        catalog.where(categories="Puzzles", price=(None, 20.0), brand=["Acme", "Zenith"])
        ```

        Args:
            ids (`Iterable[str]`, *optional*): Only these.
            at (`int`, *optional*): Available at this time.
            categories (`str` or `Sequence[str]`, *optional*): In any of these, at any depth of a category path.
            title_contains (`str`, *optional*): Text in the title, capitals or not.
            columns: Other columns of `items` by name: a tuple `(lowest, highest)` is a range with both ends
                included and `None` for an open one, a list or set is a choice, anything else must be equal. Null
                never matches.

        Returns:
            `np.ndarray`: bool of shape `(N,)`.

        Raises:
            RequestError: If a column, a category or the type of a value does not fit the items.
            UnknownItemError: If the catalogue does not contain one of `ids`.
        """
        mask = self.live if at is None else self.available(at)
        if ids is not None:
            chosen = np.zeros(len(self), dtype=bool)
            chosen[self.id_map.convert_to_rows([ids] if isinstance(ids, str) else ids)] = True
            mask &= chosen
        if categories is not None:
            mask &= self._filters.matches("categories", categories)
        if title_contains is not None:
            mask &= self._filters.contains("title", title_contains)
        for column, wanted in columns.items():
            mask &= self._filters.matches(column, wanted)
        return mask

    def matches(self, column: str, wanted: object) -> np.ndarray:
        """Mark the items that have a wanted value in a column of `items`, removed ones included; see [`where`].

        Args:
            column (`str`): Name of the column.
            wanted: A tuple, a list or set, or a value, as in `where`.

        Returns:
            `np.ndarray`: bool of shape `(N,)`.

        Raises:
            RequestError: If the column or the type of a value does not fit the items.
        """
        return self._filters.matches(column, wanted)

    @cached_property
    def _filters(self) -> ItemFilters:
        return ItemFilters(self.items)

    def remove_items(self, ids: Iterable[str]) -> Catalog:
        """Return a catalogue in which these items are never answered; histories may still name them.

        Raises:
            UnknownItemError: If the catalogue does not contain an id.
        """
        return self._with_removed(ids, True)

    def restore_items(self, ids: Iterable[str]) -> Catalog:
        """Return a catalogue in which removed items are answered again, under their old identifiers.

        Raises:
            UnknownItemError: If the catalogue does not contain an id.
        """
        return self._with_removed(ids, False)

    def _with_removed(self, ids: Iterable[str], value: bool) -> Catalog:
        is_removed = self.is_removed.copy()
        is_removed[self.id_map.convert_to_rows([ids] if isinstance(ids, str) else ids)] = value
        other = replace(self, is_removed=is_removed)
        # What depends on items and identifiers alone is not computed again.
        other.__dict__.update({name: self.__dict__[name] for name in ("id_map", "_filters") if name in self.__dict__})
        return other

    def add_items(
        self,
        items: pa.Table | Sequence[Mapping[str, object]],
        *,
        semantic_embeddings: np.ndarray | None = None,
        collaborative: np.ndarray | None = None,
    ) -> Catalog:
        """Return a catalogue with more items; new identifiers are unique, no old code changes, nothing is trained.

        Each new item takes the codes the identifier model gives it. Where an older item has them, it takes the
        nearest free code of the last level; where every code under its prefix is taken, the level above moves too.
        Earlier rows come first, so the order of `items` matters.

        ```python
        catalog = model.catalog.add_items([{"item_id": "new", "title": "Teal kettle"}])
        model.set_catalog(catalog)
        processor.set_catalog(catalog)
        ```

        Args:
            items (`pyarrow.Table` or a list of `dict`): The new items: `item_id`, `title` or `description`, and any
                other columns the catalogue has; columns left out are null.
            semantic_embeddings (`np.ndarray`, *optional*): Floats of shape `(num_new, dimension)`; otherwise the
                text is embedded by `semantic_encoder_name`.
            collaborative (`np.ndarray`, *optional*): Floats of shape `(num_new, dimension)`; otherwise predicted from
                the semantic vectors by a ridge regression over the live items.

        Returns:
            `Catalog`: The larger catalogue; this one is unchanged.

        Raises:
            DataError: If an item is already there, occurs twice, has no text, a column unknown to the catalogue or a
                value of the wrong type.
            CatalogError: If there are identifiers and no identifier model, or no way to a vector it needs.
            IdentifierCollisionError: If no identifier is free.
        """
        return replace(self, **grow(self, items, semantic_embeddings, collaborative))

    def update_items(self, items: pa.Table | Sequence[Mapping[str, object]]) -> Catalog:
        """Return a catalogue in which some columns of known items have other values: prices, stock, availability.

        ```python
        catalog.update_items([{"item_id": "B00A", "price": 19.9}, {"item_id": "B00B", "available_until": now}])
        ```

        Identifiers and vectors stay as they are, and so does what a model has learned.

        Args:
            items (`pyarrow.Table` or a list of `dict`): `item_id` and the columns to change, of any items. A key that
                a `dict` leaves out stays as it is; null is a value.

        Returns:
            `Catalog`: The catalogue with the new values; this one is unchanged.

        Raises:
            UnknownItemError: If the catalogue does not contain an id.
            DataError: If an id occurs twice, a column is unknown or one of the text that vectors were made from, or a
                value does not fit its column.
        """
        other = replace(self, items=update_columns(items, self.items, self.id_map))
        other.__dict__["id_map"] = self.id_map
        return other

    def save(self, folder: str | Path) -> None:
        """Write the catalogue's files into a folder, which may contain other files; kill -9 leaves the old or the new.

        Args:
            folder (`str` or `Path`): Made if it does not exist. Directly in it: `catalog.json`, `items.parquet`,
                `codes.safetensors`, and `embeddings.safetensors`, `identifier_model.safetensors`,
                `identifier_config.json` where there is such a part.
        """
        write_catalog(Path(folder), self)

    @classmethod
    def load(
        cls, folder_or_repo: str | Path, *, revision: str | None = None, semantic_encoder: str | None = None
    ) -> Catalog:
        """Read a catalogue that `save` wrote.

        Args:
            folder_or_repo (`str` or `Path`): The folder given to `save`, a model folder that holds it as `catalog/`,
                or a Hub repository of either shape.
            revision (`str`, *optional*): Branch, tag or commit of the repository.
            semantic_encoder (`str`, *optional*): Path or name of the text encoder, which embeds new items. The one
                that the catalogue names is not loaded without it, unless that is the default.

        Raises:
            CatalogError: If a file is missing, cannot be read, or contains something else than was saved; the message
                names it.
        """
        saved = read_catalog(folder_or_repo, revision)
        try:
            catalog = cls.build(**saved.fields)
        except DataError as error:
            raise CatalogError(f"The items of {folder_or_repo} cannot be used: {error}") from error
        saved.check_settings(catalog.settings())
        if semantic_encoder is not None:
            return replace(catalog, semantic_encoder_name=semantic_encoder)
        return replace(catalog, encoder_is_trusted=catalog.semantic_encoder_name in (None, DEFAULT_ENCODER))
