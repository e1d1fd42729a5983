# SPDX-License-Identifier: Apache-2.0
"""What every processor does with its catalogue: keep it beside its settings, save it with them, read it back."""

from __future__ import annotations

import copy
import os
from typing import Any, ClassVar, TypeVar

from transformers import ProcessorMixin

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError
from seekrec.models.candidates import Unknown, check_requests, known_histories
from seekrec.models.interface import load_bundled_catalog, save_bundled_catalog
from seekrec.schema import Request

ProcessorT = TypeVar("ProcessorT", bound="CatalogProcessor")


class CatalogProcessor(ProcessorMixin):
    """A processor with a catalogue; a family gives it `__init__`, which sets `_catalog`, and `__call__`."""

    # Attributes that are no settings: the catalogue, which has files of its own, and what is made of it.
    _not_settings: ClassVar[tuple[str, ...]] = ("_catalog",)
    _catalog: Catalog | None
    unknown: Unknown

    @property
    def catalog(self) -> Catalog:
        """The items that histories and candidates may name.

        Raises:
            CatalogError: If there is none.
        """
        if self._catalog is None:
            raise CatalogError("The processor has no catalogue; load a complete checkpoint or call `set_catalog`.")
        return self._catalog

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on, one grown by `add_items` for example, or an earlier one again.

        Other threads may call the processor meanwhile; each call uses one catalogue, whole. Inputs name items by row,
        so a model must hold the rows that its processor gives: a grown catalogue goes to the model first, a smaller
        one to the processor first.
        """
        self._catalog = catalog

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save the settings, a tokenizer if there is one, and the catalogue, if there is one."""
        os.makedirs(save_directory, exist_ok=True)
        if self._catalog is not None:
            save_bundled_catalog(self._catalog, os.fspath(save_directory))
        return super().save_pretrained(os.fspath(save_directory), push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(
        cls: type[ProcessorT], pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any
    ) -> ProcessorT:
        """Load a processor with the catalogue it was saved with."""
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if processor._catalog is None:
            processor.set_catalog(load_bundled_catalog(pretrained_model_name_or_path, revision=kwargs.get("revision")))
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Give the settings alone."""
        bare = copy.copy(self)  # other threads go on answering with this one
        for name in self._not_settings:
            bare.__dict__.pop(name, None)
        return super(CatalogProcessor, bare).to_dict()

    def _check_requests(self, requests: Any, catalog: Catalog, return_tensors: str = "pt") -> list[Request]:
        """Give a list of requests whose histories hold items of the catalogue."""
        return known_histories(check_requests(requests, return_tensors), catalog.id_map, self.unknown)


__all__ = ["CatalogProcessor"]
