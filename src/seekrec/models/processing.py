# SPDX-License-Identifier: Apache-2.0
"""What every processor does: check requests and candidates, and keep, save and load its catalogue."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig, ProcessorMixin

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError, CheckpointError, ConfigurationError, RequestError, UnknownItemError
from seekrec.events.columns import history_rows
from seekrec.models.checkpoint import load_bundled_catalog, load_config, save_bundled_catalog, split_hub_arguments
from seekrec.models.manifest import check_part, hub_arguments, replace_part
from seekrec.schema import Event, IdMap, Request, shown
from seekrec.util.ragged import Ragged

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


def check_requests(requests: Request | Iterable[Request], return_tensors: str = "pt") -> list[Request]:
    """Return a list of requests.

    Args:
        requests ([`Request`] or a list of them): What a processor was called with.
        return_tensors (`str`): Only `"pt"`.

    Returns:
        `list[Request]`: At least one.

    Raises:
        RequestError: If there is none, an entry is none, or `return_tensors` is unknown.
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
    return asked


def known_histories(requests: Sequence[Request], id_map: IdMap, unknown: Unknown) -> list[Request]:
    """Return requests whose histories name items of the catalogue only.

    Args:
        requests (`Sequence[Request]`): What was asked.
        id_map ([`IdMap`]): The items of the catalogue.
        unknown (`str`): `"skip"` leaves events with other items out and logs how many, so that one does not keep a
            whole batch from its answers; `"raise"` refuses them.

    Raises:
        UnknownItemError: With `"raise"`, if there is one.
    """
    kept = known_events([request.history for request in requests], id_map, unknown)
    return [
        request if len(events) == len(request.history) else replace(request, history=events)
        for request, events in zip(requests, kept, strict=True)
    ]


def known_events(histories: Sequence[Sequence[Event]], id_map: IdMap, unknown: Unknown) -> list[list[Event]]:
    """Return the events whose items the catalogue holds, and those without an item; see [`known_histories`]."""
    kept = [[event for event in events if event.item_id is None or event.item_id in id_map] for events in histories]
    lost = [number for number, events in enumerate(histories) if len(kept[number]) < len(events)]
    if lost:
        first = next(event.item_id for event in histories[lost[0]] if event not in kept[lost[0]])
        count = sum(map(len, histories)) - sum(map(len, kept))
        found = f"{count} events of {len(lost)} of {len(histories)} histories have items that the catalogue lacks"
        if unknown == "raise":
            raise UnknownItemError(
                f"{found}, the first is {first!r} in history {lost[0]}; add the items to the catalogue, leave the "
                "events out, or make the processor with `unknown='skip'`."
            )
        logger.warning("%s, the first is %r; they are left out.", found, first)
    return kept


def candidate_rows(candidates: Sequence[Sequence[str]], num_requests: int, id_map: IdMap) -> NDArray[np.int64]:
    """Turn candidates into rows of the catalogue.

    Args:
        candidates (`list[list[str]]`): Item ids, a list for each request.
        num_requests (`int`): Requests.
        id_map ([`IdMap`]): The items of the catalogue.

    Returns:
        `np.ndarray`: int64 of shape `(num_requests, most_candidates)`, at least one column, -1 for padding.

    Raises:
        RequestError: If there is not a list for each request, an entry is not an item id, or an item is named twice.
        UnknownItemError: If a candidate is not in the catalogue.
    """
    if isinstance(candidates, str) or not isinstance(candidates, (Sequence, np.ndarray)):
        raise RequestError(f"`candidates` is {shown(candidates)}; give a list of item ids for each request.")
    if len(candidates) != num_requests:
        raise RequestError(f"`candidates` has {len(candidates)} lists for {num_requests} requests; give one for each.")
    lines = [_check_candidates(line, position) for position, line in enumerate(candidates)]
    rows = []
    for position, line in enumerate(lines):
        found = id_map.convert_to_rows(line, strict=False)
        if (found < 0).any():
            unknown = [item for item, row in zip(line, found.tolist(), strict=True) if row < 0]
            named = ", ".join(map(repr, unknown[:_MAX_NAMED])) + (", ..." if len(unknown) > _MAX_NAMED else "")
            raise UnknownItemError(
                f"`candidates[{position}]` names {len(unknown)} items that the catalogue lacks: {named}; add the "
                "items to the catalogue or leave them out."
            )
        rows.append(found)
    return Ragged.from_arrays(rows).pad(-1, width=1)


def _check_candidates(line: object, position: int) -> list[str]:
    if isinstance(line, str):
        raise RequestError(f"`candidates[{position}]` is the text {shown(line)}; give a list of item ids.")
    if not isinstance(line, Iterable):
        raise RequestError(f"`candidates[{position}]` is {shown(line)}; give a list of item ids.")
    items = list(line)
    for item in items:
        if not isinstance(item, str):
            raise RequestError(
                f"`candidates[{position}]` holds {shown(item)} of type {type(item).__name__}; item ids are text."
            )
    if len(set(items)) != len(items):
        twice = next(one for one in items if items.count(one) > 1)
        raise RequestError(f"`candidates[{position}]` names {twice!r} more than once; name each item once.")
    return items


def seen_rows(requests: Sequence[Request], id_map: IdMap) -> NDArray[np.int64]:
    """Return what the users of requests acted on, be it more than a model reads of a history.

    Returns:
        `np.ndarray`: int64 rows of the catalogue, of shape `(num_requests, most_seen)`, at least one column, -1 for
        padding.
    """
    return history_rows(requests, id_map).pad(-1, width=1)


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
        """Write what is saved beside the settings."""
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


__all__ = [
    "CatalogProcessor",
    "Unknown",
    "candidate_rows",
    "check_requests",
    "check_unknown",
    "known_events",
    "known_histories",
    "seen_rows",
]
