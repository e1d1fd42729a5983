# SPDX-License-Identifier: Apache-2.0
"""The base class of processors: check requests and candidates, and find their items in the catalogue.

[`T5Processor`] adds what GenSAR and GenSR share: a tokenizer with identifier tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

import numpy as np
import pyarrow.compute as pc
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora import IdentifierVocabulary, add_identifier_tokens
from seekrec.errors import CatalogError, ConfigurationError, RequestError, UnknownItemError
from seekrec.events.columns import RequestColumns, SessionIds
from seekrec.models.configuration_t5 import IdentifierT5Config
from seekrec.models.processing_saved import SavedProcessor
from seekrec.schema import IdMap, Request, shown
from seekrec.util.ragged import Ragged
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


class CatalogInputs(BatchFeature):
    """Tensors, and the catalogue that they were made with.

    The catalogue does not leave the process: inputs that were pickled, or made of these tensors, have none, and it is
    not compared.

    Args:
        data (`dict[str, torch.Tensor]`): The tensors.
        catalog ([`Catalog`], *optional*): What their rows are rows of.
    """

    catalog: Catalog | None = None

    def __init__(self, data: Mapping[str, Tensor], catalog: Catalog | None) -> None:
        super().__init__(dict(data))
        self.catalog = catalog


def other_item(one: Catalog, other: Catalog) -> str | None:
    """Say at which row two catalogues have another item; `None` where one begins with all of the other."""
    count = min(len(one), len(other))
    first, second = (each.items["item_id"].slice(0, count) for each in (one, other))
    if first.equals(second):
        return None
    row = int(np.flatnonzero(pc.not_equal(first, second).to_numpy())[0])
    return f"row {row} is {first[row].as_py()!r} in the one and {second[row].as_py()!r} in the other"


class CatalogProcessor(SavedProcessor):
    """A processor with a catalogue; a family defines `__init__`, which sets `_catalog`, and `__call__`."""

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
            UnknownItemError: If a candidate is not in the catalogue or was removed; with `unknown="raise"` if an item
                of a history is not.
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

        if self._known_words is not None:
            asked = [replace(one, query=self.read_query(one.query, catalog)) if one.query else one for one in asked]
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
                        f"`candidates[{position}]` contains {shown(item)} of type {type(item).__name__}; item ids are "
                        "text."
                    )
            if len(set(items)) != len(items):
                twice = next(one for one in items if items.count(one) > 1)
                raise RequestError(f"`candidates[{position}]` names {twice!r} more than once; name each item once.")
            unknown = [item for item in items if item not in id_map.rows]
            if unknown:
                raise UnknownItemError(
                    f"`candidates[{position}]` names {len(unknown)} items that are not in the catalogue: "
                    f"{_name(unknown)}; add the items to the catalogue or leave them out."
                )
            line_rows = [id_map.rows[item] for item in items]
            removed = [item for item, row in zip(items, line_rows, strict=True) if catalog.is_removed[row]]
            if removed:
                raise UnknownItemError(
                    f"`candidates[{position}]` names {len(removed)} items that were removed from the catalogue: "
                    f"{_name(removed)}; restore the items or leave them out."
                )
            lines.append(line_rows)
        width = max(1, *map(len, lines))
        padded = [line + [-1] * (width - len(line)) for line in lines]
        return read, rows | {"candidate_rows": np.array(padded, dtype=np.int64)}

    def read_query(self, query: str, catalog: Catalog | None = None) -> str:
        """Return a query as it is read: with a slip in a word that nobody knows mended, see [`Spelling`].

        Args:
            query (`str`): As it was typed.
            catalog ([`Catalog`], *optional*): Its items' words are known; the processor's own if not given.
        """
        words = self._words_of(self.catalog if catalog is None else catalog)
        return query if words is None else words.correct(query)

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

    _not_settings: ClassVar[tuple[str, ...]] = (*CatalogProcessor._not_settings, "_vocabulary", "config")
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


def _name(items: Sequence[str]) -> str:
    return ", ".join(map(repr, items[:_MAX_NAMED])) + (", ..." if len(items) > _MAX_NAMED else "")


__all__ = ["CatalogInputs", "CatalogProcessor", "T5Processor", "Unknown", "check_unknown", "other_item"]
