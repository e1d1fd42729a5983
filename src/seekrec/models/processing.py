# SPDX-License-Identifier: Apache-2.0
"""What every processor does: check requests and candidates, and keep, save and load its catalogue.

What the processors of GenSAR and GenSR share besides stands in [`T5Processor`]: a tokenizer with identifier tokens.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

import numpy as np
from huggingface_hub import CommitInfo
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

from seekrec.catalog import Catalog
from seekrec.corpora import IdentifierVocabulary, add_identifier_tokens
from seekrec.errors import CatalogError, CheckpointError, ConfigurationError, RequestError, UnknownItemError
from seekrec.events.columns import RequestColumns, SessionIds
from seekrec.models.checkpoint import load_bundled_catalog, load_config, save_bundled_catalog, split_hub_arguments
from seekrec.models.configuration_t5 import IdentifierT5Config
from seekrec.models.manifest import check_part, hub_arguments, read_whole, replace_part
from seekrec.models.repository import InPackage, push_processor
from seekrec.schema import IdMap, Request, shown
from seekrec.util.ragged import Ragged
from seekrec.util.repositories import upload
from seekrec.util.text import fold_text

logger = logging.getLogger(__name__)

# What a processor does with events whose items its catalogue does not hold.
Unknown = Literal["skip", "raise"]

# Items that a message names.
_MAX_NAMED = 5


def check_unknown(unknown: str) -> Unknown:
    """Return what is done with items of a history that the catalogue does not hold.

    Raises:
        ConfigurationError: If it is neither `"skip"` nor `"raise"`.
    """
    for choice in get_args(Unknown):
        if unknown == choice:
            chosen: Unknown = choice
            return chosen
    raise ConfigurationError(f"`unknown` is {unknown!r}; use one of {', '.join(get_args(Unknown))}.")


ProcessorT = TypeVar("ProcessorT", bound="CatalogProcessor")


class CatalogProcessor(InPackage, ProcessorMixin):
    """A processor with a catalogue; a family defines `__init__`, which sets `_catalog`, and `__call__`."""

    # Attributes that are not settings: the catalogue, which has files of its own, and what is made of it.
    _not_settings: ClassVar[tuple[str, ...]] = ("_catalog",)
    _catalog: Catalog | None
    unknown: Unknown
    # What a model tells apart of the events of a history; see [`EventColumns`].
    actions: Sequence[str] = ()
    geohashes: Sequence[str] = ()
    session_ids: SessionIds = "page_view"

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

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> CommitInfo:
        """Upload the processor with its catalogue as one commit; a model in the repository stays.

        `model.push_to_hub(repo_id, processor=processor)` uploads both as one.

        Args:
            repo_id (`str`): `user/name`; made if it does not exist.
            commit_message (`str`, *optional*): First line of the commit.
            commit_description (`str`, *optional*): The rest of the commit's message.
            private (`bool`, *optional*): Whether a new repository is private.
            token (`bool` or `str`, *optional*): For the Hub; the one logged in with otherwise.
            revision (`str`, *optional*): Branch; made if it does not exist.
            create_pr (`bool`): Whether the commit is proposed as a pull request.
            max_shard_size (*optional*): Not read: a processor has no weights.
            tags (*optional*): Not read: the card is the model's.
        """
        push = partial(
            upload,
            repo_id=repo_id,
            commit_message=commit_message or "Upload processor",
            commit_description=commit_description,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )
        return push_processor(self, push)

    def _save_files(self, folder: Path) -> None:
        """Write what is saved beside the settings."""
        if self._catalog is not None:
            save_bundled_catalog(self._catalog, folder)

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

    def _read_requests(
        self,
        requests: Request | Iterable[Request],
        catalog: Catalog,
        candidates: Sequence[Sequence[str]] | None = None,
        return_tensors: str = "pt",
    ) -> tuple[RequestColumns, dict[str, np.ndarray]]:
        """Check what a processor was called with, and find the items in the catalogue.

        Args:
            requests ([`Request`] or a list of them): What was asked.
            catalog ([`Catalog`]): The items.
            candidates (`list[list[str]]`, *optional*): Item ids, a list for each request.
            return_tensors (`str`): Only `"pt"`.

        Returns:
            `tuple`: Requests whose histories name items of the catalogue only, and int64 rows of the catalogue, -1 for
            padding: `seen_rows` of shape `(num_requests, most_seen)`, what the users acted on, be it more than a model
            reads of a history; with candidates `candidate_rows` of shape `(num_requests, most_candidates)`. Also
            `query_letters`, the UTF-8 bytes of folded queries: uint8, `(num_requests, longest)`, 0 for padding.

        Raises:
            RequestError: If there is no request, an entry is something else, `return_tensors` is unknown, or the
                candidates do not fit.
            UnknownItemError: If a candidate is not in the catalogue, or with `unknown="raise"` an item of a history.
        """
        if not isinstance(requests, Iterable) and not isinstance(requests, Request):
            raise RequestError(f"`requests` is {shown(requests)}; give a seekrec.Request, or a list of them.")
        asked = [requests] if isinstance(requests, Request) else list(requests)
        if not asked:
            raise RequestError("`requests` is empty; give at least one.")
        for position, request in enumerate(asked):
            if not isinstance(request, Request):
                raise RequestError(f"`requests[{position}]` is a {type(request).__name__}; give a seekrec.Request.")
        if return_tensors != "pt":
            raise RequestError(f"`return_tensors` is {shown(return_tensors)}; only 'pt' exists.")

        id_map = catalog.id_map
        read = RequestColumns.read(asked, id_map, self.actions, self.geohashes, session_ids=self.session_ids)
        num_named = sum(event.item_id is not None for event in read.event_list)
        if int((read.events.item >= 0).sum()) < num_named:
            asked = self._leave_out_unknown(asked, id_map)
            read = RequestColumns.read(asked, id_map, self.actions, self.geohashes, session_ids=self.session_ids)
        acted_on = (read.events.item >= 0) & ~read.events.is_shown
        rows = {"seen_rows": Ragged(read.events.item, read.histories.offsets).keep(acted_on).pad(-1, width=1)}
        # Folded, so that what reads them answers alike however a query is typed.
        texts = [fold_text(one.query or "").encode() for one in asked]
        letters = np.frombuffer(b"".join(texts), np.uint8)
        rows["query_letters"] = Ragged.from_lengths(letters, np.array(list(map(len, texts)))).pad(0)
        if candidates is None:
            return read, rows

        if isinstance(candidates, str) or not isinstance(candidates, (Sequence, np.ndarray)):
            raise RequestError(f"`candidates` is {shown(candidates)}; give a list of item ids for each request.")
        if len(candidates) != len(asked):
            raise RequestError(
                f"`candidates` has {len(candidates)} lists for {len(asked)} requests; give one for each."
            )
        lines = []
        for position, line in enumerate(candidates):
            if isinstance(line, str) or not isinstance(line, Iterable):
                raise RequestError(f"`candidates[{position}]` is {shown(line)}; give a list of item ids.")
            items = list(line)
            for item in items:
                if not isinstance(item, str):
                    raise RequestError(
                        f"`candidates[{position}]` holds {shown(item)} of type {type(item).__name__}; item ids are "
                        "text."
                    )
            if len(set(items)) != len(items):
                twice = next(one for one in items if items.count(one) > 1)
                raise RequestError(f"`candidates[{position}]` names {twice!r} more than once; name each item once.")
            unknown = [item for item in items if item not in id_map.rows]
            if unknown:
                named = ", ".join(map(repr, unknown[:_MAX_NAMED])) + (", ..." if len(unknown) > _MAX_NAMED else "")
                raise UnknownItemError(
                    f"`candidates[{position}]` names {len(unknown)} items that the catalogue lacks: {named}; add the "
                    "items to the catalogue or leave them out."
                )
            lines.append([id_map.rows[item] for item in items])
        width = max(1, *map(len, lines))
        padded = [line + [-1] * (width - len(line)) for line in lines]
        return read, rows | {"candidate_rows": np.array(padded, dtype=np.int64)}

    def _leave_out_unknown(self, requests: Sequence[Request], id_map: IdMap) -> list[Request]:
        """Leave out, or refuse, events with items that the catalogue lacks."""
        known = []
        lost: dict[int, list[str | None]] = {}
        for number, request in enumerate(requests):
            kept = [event for event in request.history if event.item_id is None or event.item_id in id_map]
            if len(kept) == len(request.history):
                known.append(request)
            else:
                known.append(replace(request, history=kept))
                lost[number] = [event.item_id for event in request.history if event not in kept]
        number, item_ids = next(iter(lost.items()))
        found = (
            f"{sum(map(len, lost.values()))} events of {len(lost)} of {len(requests)} histories have items that "
            "the catalogue lacks"
        )
        if self.unknown == "raise":
            raise UnknownItemError(
                f"{found}, the first is {item_ids[0]!r} in history {number}; add the items to the catalogue, "
                "leave the events out, or make the processor with `unknown='skip'`."
            )
        # One unknown item does not keep a whole batch from its answers.
        logger.warning("%s, the first is %r; they are left out.", found, item_ids[0])
        return known


ConfigT = TypeVar("ConfigT", bound=IdentifierT5Config)


class T5Processor(CatalogProcessor, Generic[ConfigT]):
    """A processor that is made from the configuration of its model, and saved with what it reads of that.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer; identifier tokens are added where it has none.
        catalog ([`Catalog`], *optional*): The items and their identifiers.
        config ([`IdentifierT5Config`], *optional*): Configuration of the model, which says how requests are written.
        unknown (`str`): What to do with events of a history whose item is not in the catalogue: `"skip"` leaves them
            out and logs it, `"raise"` refuses the call. Candidates must always be known.
    """

    _not_settings: ClassVar[tuple[str, ...]] = ("_catalog", "_vocabulary", "config")
    # What a family fills in: its configuration, and the fields of that which are read.
    config_class: type[ConfigT]
    settings_read: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        catalog: Catalog | None = None,
        config: ConfigT | None = None,
        unknown: str = "skip",
    ) -> None:
        super().__init__(tokenizer)
        self.config = self.config_class() if config is None else config
        self.unknown = check_unknown(unknown)
        self._catalog: Catalog | None = None
        self._vocabulary: IdentifierVocabulary | None = None
        if catalog is not None:
            self.set_catalog(catalog)

    @classmethod
    def from_config(cls, config: ConfigT, tokenizer: PreTrainedTokenizerBase, catalog: Catalog | None = None) -> Self:
        """Make the processor of a model from its configuration; see the class for the arguments."""
        return cls(tokenizer, catalog, config)

    @classmethod
    def from_args_and_dict(cls, args: list[object], processor_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Make a processor from its saved settings and those given to `from_pretrained`."""
        settings = {**processor_dict, **kwargs}
        read = cls._take_settings(settings)
        made: Self = super().from_args_and_dict(args, {**settings, "config": cls.config_class(**read)})
        return made

    @classmethod
    def _take_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Take the fields of the configuration out of saved settings."""
        return {name: settings.pop(name) for name in cls.settings_read if name in settings}

    def _settings(self) -> dict[str, object]:
        read = {name: getattr(self.config, name) for name in self.settings_read}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in read.items()}

    def to_dict(self) -> dict[str, object]:
        """Return the settings: what is read of the model's configuration, and what to do with unknown items."""
        return {**super().to_dict(), **self._settings()}

    def _model_settings(self) -> dict[str, object]:
        settings = self._settings()
        if self._vocabulary is not None:
            settings["first_identifier_token_id"] = self._vocabulary.first_token_id
        return settings

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on; see [`CatalogProcessor`]."""
        if self.config.writes_identifiers:
            self._vocabulary = add_identifier_tokens(self.tokenizer, catalog)
        super().set_catalog(catalog)

    @property
    def vocabulary(self) -> IdentifierVocabulary:
        """The identifier tokens, and where they are in the vocabulary.

        Raises:
            CatalogError: If the processor has no catalogue, or its model writes no identifiers.
        """
        if self._vocabulary is None:
            raise CatalogError(
                "The processor has no catalogue; load a complete checkpoint or call `set_catalog`."
                if self.config.writes_identifiers
                else "The processor has no identifier tokens: its model writes no identifiers."
            )
        return self._vocabulary


__all__ = ["CatalogProcessor", "T5Processor", "Unknown", "check_unknown"]
