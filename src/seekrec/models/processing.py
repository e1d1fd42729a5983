# SPDX-License-Identifier: Apache-2.0
"""What every processor does with its catalogue: keep it beside its settings, save it with them, read it back."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from transformers import PreTrainedConfig, ProcessorMixin

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError, CheckpointError
from seekrec.models.candidates import Unknown, check_requests, known_histories
from seekrec.models.checkpoint import load_bundled_catalog, load_config, save_bundled_catalog, split_hub_arguments
from seekrec.models.manifest import check_part, hub_arguments, replace_part
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

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Save the settings, a tokenizer if there is one, and the catalogue, if there is one, over what is there.

        Killed at any moment, the process leaves the whole old processor or the whole new one; that of the model in the
        folder, if there is one, from now on.
        """
        to_hub, settings = split_hub_arguments({**kwargs, "push_to_hub": push_to_hub})
        with replace_part(save_directory, "processor") as folder:
            self._save_files(folder)
            files = super().save_pretrained(os.fspath(folder), **settings)
        if to_hub is not None:
            self.push_to_hub(**{"repo_id": Path(save_directory).name, **to_hub})
        return [str(Path(save_directory, Path(file).name)) for file in files]

    def _save_files(self, folder: Path) -> None:
        """Write what is no setting."""
        if self._catalog is not None:
            save_bundled_catalog(self._catalog, folder)

    @classmethod
    def from_pretrained(
        cls: type[ProcessorT], pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> ProcessorT:
        """Load a processor with the catalogue it was saved with.

        Raises:
            CheckpointError: If a file is damaged or not of the processor that was saved, or it does not fit the model
                in the folder.
            CatalogError: If the catalogue is damaged.
        """
        hub = check_part(pretrained_model_name_or_path, "processor", hub_arguments(kwargs))
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **{**kwargs, **hub})
        if processor._catalog is None:
            processor.set_catalog(load_bundled_catalog(pretrained_model_name_or_path, hub))
        config = load_config(pretrained_model_name_or_path, hub)
        if config is not None:
            processor._check_model(config, pretrained_model_name_or_path)
        return processor

    def _model_settings(self) -> dict[str, Any]:
        """Return the settings of its model that a processor must agree with, under the names of the configuration."""
        return {}

    def _check_model(self, config: PreTrainedConfig, source: str | os.PathLike[str]) -> None:
        """Refuse a model that reads other things than this processor writes."""
        for name, own in self._model_settings().items():
            other = getattr(config, name, own)
            other = list(other) if isinstance(other, tuple) else other
            # A processor may keep less than the model reads.
            if own != other and not (name.startswith("max_") and own < other):
                raise CheckpointError(
                    f"The processor in {os.fspath(source)} is for a model whose `{name}` is {own!r}, the model there "
                    f"has {other!r}: they are not of one checkpoint. Save both with `save_checkpoint`, or fetch the "
                    "folder anew."
                )

    def to_dict(self) -> dict[str, object]:
        """Return the settings alone."""
        bare = copy.copy(self)  # other threads go on answering with this one
        for name in self._not_settings:
            bare.__dict__.pop(name, None)
        return super(CatalogProcessor, bare).to_dict()

    def _check_requests(
        self, requests: Request | Iterable[Request], catalog: Catalog, return_tensors: str = "pt"
    ) -> list[Request]:
        """Return a list of requests whose histories hold items of the catalogue."""
        return known_histories(check_requests(requests, return_tensors), catalog.id_map, self.unknown)


__all__ = ["CatalogProcessor"]
