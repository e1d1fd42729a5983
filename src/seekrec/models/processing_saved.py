# SPDX-License-Identifier: Apache-2.0
"""Save a processor with its catalogue, load it, and share it on the Hub."""

from __future__ import annotations

import copy
import os
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Unpack

import pyarrow as pa
from huggingface_hub import CommitInfo
from transformers import PreTrainedConfig, ProcessorMixin

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError, CheckpointError
from seekrec.events import Spelling
from seekrec.models.checkpoint import (
    load_bundled_catalog,
    load_config,
    load_spelling,
    refuse_other_catalog,
    save_bundled_catalog,
    save_spelling,
    split_hub_arguments,
)
from seekrec.models.manifest import check_part, hub_arguments, read_whole, replace_part
from seekrec.models.repository import InPackage, push_processor
from seekrec.util.repositories import CommitArguments, upload

ProcessorT = TypeVar("ProcessorT", bound="SavedProcessor")


class SavedProcessor(InPackage, ProcessorMixin):
    """A processor with a catalogue, and the words that queries are known by."""

    # Attributes that are not settings: the catalogue and the words, which have files of their own.
    _not_settings: ClassVar[tuple[str, ...]] = ("_catalog", "_known_words")
    _catalog: Catalog | None
    # Known words and the items that they were made of, as one: other threads may read with another catalogue.
    _known_words: tuple[pa.Table, Spelling] | None = None

    @property
    def spelling(self) -> Spelling | None:
        """The words that queries are read by, with those of the catalogue's items; `None` to read queries as typed.

        Words that are set are of the catalogue's first `num_items` items. They follow its changes, and are saved so.

        Raises:
            CatalogError: If words are set and there is no catalogue.
        """
        return None if self._catalog is None else self._words_of(self._catalog)

    @spelling.setter
    def spelling(self, words: Spelling | None) -> None:
        if words is None:
            self._known_words = None
            return
        if self._catalog is None:
            raise CatalogError("`spelling` contains words of a catalogue's items; call `set_catalog` first.")
        items = self._catalog.items
        is_whole = words.num_items == items.num_rows
        self._known_words = items if is_whole else items.slice(0, words.num_items), words

    def _words_of(self, catalog: Catalog) -> Spelling | None:
        """Return the known words for a catalogue; made of those known last, by the texts that differ."""
        if self._known_words is None:
            return None
        items, words = self._known_words
        if items is not catalog.items:
            words = words.grown(catalog.items, items)
            self._known_words = catalog.items, words
        return words

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on, one grown by `add_items` for example, or an earlier one again.

        Other threads may call the processor meanwhile; each call uses one catalogue, whole. Inputs name items by row,
        so a model must contain the rows that its processor gives: a grown catalogue goes to the model first, a smaller
        one to the processor first.
        """
        self._catalog = catalog

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Save the settings, a tokenizer if there is one, and the catalogue, if there is one, over what is there.

        Killed at any moment, the process leaves the whole old processor or the whole new one; that of the model in the
        folder, if there is one, from now on.

        Raises:
            CatalogError: If the model there has another catalogue; save both as one by [`save_checkpoint`].
        """
        refuse_other_catalog(self._catalog, save_directory, "processor")
        to_hub, settings = split_hub_arguments({**kwargs, "push_to_hub": push_to_hub})
        with replace_part(save_directory, "processor") as folder:
            self._save_files(folder)
            files = super().save_pretrained(os.fspath(folder), **settings)
        if to_hub is not None:
            self.push_to_hub(**{"repo_id": Path(save_directory).name, **to_hub})
        return [str(Path(save_directory, Path(file).name)) for file in files]

    def push_to_hub(
        self,
        repo_id: str,
        *,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
        **commit: Unpack[CommitArguments],
    ) -> CommitInfo:
        """Upload the processor with its catalogue as one commit; a model in the repository stays.

        `model.push_to_hub(repo_id, processor=processor)` uploads both as one.

        Args:
            repo_id (`str`): `user/name`; made if it does not exist.
            max_shard_size (*optional*): Not read: a processor has no weights.
            tags (*optional*): Not read: the card is the model's.
            commit: What the commit is and where it goes, as transformers names it; see [`upload`].
        """
        commit["commit_message"] = commit.get("commit_message") or "Upload processor"
        push = partial(upload, repo_id=repo_id, **commit)
        return push_processor(self, push)

    def _save_files(self, folder: Path) -> None:
        """Write what is saved with the settings."""
        if self._catalog is not None:
            save_bundled_catalog(self._catalog, folder)
        save_spelling(self.spelling, folder)

    @classmethod
    @read_whole
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
        processor.spelling = load_spelling(pretrained_model_name_or_path, hub)
        config = load_config(pretrained_model_name_or_path, hub)
        if config is not None:
            processor._check_model(config, pretrained_model_name_or_path)
        return processor

    def _model_settings(self) -> dict[str, object]:
        """Return the settings of its model that a processor must agree with, under the names of the configuration."""
        return {}

    def _check_model(self, config: PreTrainedConfig, source: str | os.PathLike[str]) -> None:
        """Refuse a model that reads other things than this processor writes."""
        for name, own in self._model_settings().items():
            other = getattr(config, name, own)
            other = list(other) if isinstance(other, tuple) else other
            # A processor may keep less than the model reads.
            keeps_less = name.startswith("max_") and isinstance(own, int) and isinstance(other, int) and own < other
            if own != other and not keeps_less:
                raise CheckpointError(
                    f"The processor in {os.fspath(source)} is for a model whose `{name}` is {own!r}, but the model "
                    f"there has {other!r}: they are not from one checkpoint. Save both with `save_checkpoint`, or "
                    "fetch the folder again."
                )

    def to_dict(self) -> dict[str, object]:
        """Return the settings alone."""
        bare = copy.copy(self)  # other threads continue answering with this one
        for name in self._not_settings:
            bare.__dict__.pop(name, None)
        return super(SavedProcessor, bare).to_dict()


__all__ = ["SavedProcessor"]
