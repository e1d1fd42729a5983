# SPDX-License-Identifier: Apache-2.0
"""The processor of families that read events as vectors: it turns requests into padded arrays.

[`EventSequenceProcessor`] is complete; families subclass it only for the name. Its outputs have the same names as
those of `TrainingWindows.batch`, so one forward pass serves both: a request is a window with one question after its
last event.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import BatchFeature
from transformers.utils.hub import cached_file

from seekrec.catalog import Catalog
from seekrec.embeddings import DEFAULT_ENCODER
from seekrec.errors import ConfigurationError, RequestError
from seekrec.events.columns import SessionIds, number_geohashes, number_sessions
from seekrec.models.dense.configuration_dense import DenseConfig
from seekrec.models.dense.query_vectors import QUERY_VECTORS_FILE, QueryVectors
from seekrec.models.manifest import IF_THERE, hub_arguments, read_whole
from seekrec.models.processing import CatalogInputs, CatalogProcessor, check_unknown
from seekrec.models.words import NO_WORD, text_word_keys
from seekrec.schema import Behavior, Event, Request
from seekrec.util.actions import number_action
from seekrec.util.redaction import place_name
from seekrec.util.text import TEXT_FOLDING, check_folding

# What a processor reads of its model's configuration, and keeps.
_READ = ("max_history", "session_ids", "query_reading")


class EventSequenceProcessor(CatalogProcessor):
    """Turns requests into arrays of item rows, actions, timestamps, sessions and query vectors.

    Args:
        catalog ([`Catalog`], *optional*): The items; it needs no identifiers, but the embeddings `"semantic"`.
        config ([`DenseConfig`], *optional*): Configuration of the model, which says how many events are read and what
            `session_id` means; a request for a page view does not see the events of that.
        actions (`Sequence[str]`): The actions that the model tells apart; others count as unknown.
        text_encoder (`str`, *optional*): What embeds queries: a sentence-transformers name or path. `None` is the
            catalogue's own encoder, or the default one.
        query_vectors ([`QueryVectors`], *optional*): Known queries; those of the training log, for example.
        geohashes (`Sequence[str]`): The areas that the model tells apart, by how their geohash begins; all of one
            length. Others count as unknown.
        text_folding (`Sequence[str]`): How queries are folded, in training and answering, as for
            [`~seekrec.util.text.fold_text`]; if `query_vectors` are given, as they do.
        unknown (`str`): What is done with events of a history whose item the catalogue does not hold: `"skip"` leaves
            them out and logs it, `"raise"` refuses the call. Candidates must always be known.

    Raises:
        ConfigurationError: If an action is named twice, or `geohashes` differ in length.
    """

    _not_settings = (*CatalogProcessor._not_settings, "query_vectors")

    # `ProcessorMixin` reads the names of the settings from the signature and knows no keyword-only ones.
    def __init__(
        self,
        catalog: Catalog | None = None,
        config: DenseConfig | None = None,
        actions: Sequence[str] = ("click",),
        text_encoder: str | None = None,
        query_vectors: QueryVectors | None = None,
        geohashes: Sequence[str] = (),
        text_folding: Sequence[str] = TEXT_FOLDING,
        unknown: str = "skip",
    ) -> None:
        super().__init__()
        for name, texts in (("actions", actions), ("geohashes", geohashes)):
            if not all(isinstance(text, str) for text in texts) or len(set(texts)) != len(texts):
                raise ConfigurationError(f"`{name}` is {list(texts)!r}; pass texts, each once.")
        if len({len(name) for name in geohashes}) > 1:
            raise ConfigurationError(
                f"`geohashes` are from {min(map(len, geohashes))} to {max(map(len, geohashes))} characters long; pass "
                "them in one length."
            )
        config = DenseConfig() if config is None else config
        self.max_history = config.max_history
        self.session_ids: SessionIds = "visit" if config.session_ids == "visit" else "page_view"
        self.query_reading = list(config.query_reading)
        self.actions = list(actions)
        self.geohashes = list(geohashes)
        self.text_encoder = text_encoder
        self.text_folding = list(check_folding(text_folding) if query_vectors is None else query_vectors.folding)
        self.unknown = check_unknown(unknown)
        self._catalog: Catalog | None = None
        self.query_vectors = QueryVectors(text_encoder, self.text_folding) if query_vectors is None else query_vectors
        if catalog is not None:
            self.set_catalog(catalog)

    @classmethod
    def from_config(
        cls,
        config: DenseConfig,
        catalog: Catalog | None = None,
        *,
        actions: Sequence[str] = ("click",),
        geohashes: Sequence[str] = (),
        query_vectors: QueryVectors | None = None,
    ) -> Self:
        """Make the processor of a model.

        Args:
            config ([`DenseConfig`]): Configuration of the model.
            catalog ([`Catalog`], *optional*): The items.
            actions (`Sequence[str]`): The actions that the model tells apart.
            geohashes (`Sequence[str]`): The areas that the model tells apart.
            query_vectors ([`QueryVectors`], *optional*): Known queries.
        """
        return cls(catalog, config, actions, query_vectors=query_vectors, geohashes=geohashes)

    @classmethod
    def from_args_and_dict(cls, args: list[object], processor_dict: dict[str, object], **kwargs: object) -> Self:
        """Make a processor from its saved settings and those given to `from_pretrained`."""
        settings = {**processor_dict, **kwargs}
        read = {name: settings.pop(name) for name in _READ if name in settings}
        try:
            config = DenseConfig().with_data(**read)
        except StrictDataclassError as error:
            raise ConfigurationError(
                f"The settings of the processor are damaged: {error.__cause__ or error}"
            ) from error
        made: Self = super().from_args_and_dict(args, {"config": config, **settings})
        return made

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on; see [`CatalogProcessor`]. Its encoder embeds queries, if none is named."""
        super().set_catalog(catalog)
        vectors = self.query_vectors
        if vectors.encoder_name is None and catalog.semantic_encoder_name is not None:
            vectors.encoder_name = catalog.semantic_encoder_name
            vectors.encoder_is_trusted = catalog.encoder_is_trusted

    def __call__(
        self,
        requests: Request | Sequence[Request],
        candidates: Sequence[Sequence[str]] | None = None,
        *,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Lay out requests.

        Args:
            requests ([`Request`] or a list of them): With a query a search, without one a recommendation.
            candidates (`list[list[str]]`, *optional*): For `rank`: the item ids to order, a list for each request.
            return_tensors (`str`): Only `"pt"`.

        Returns:
            [`~transformers.BatchFeature`]: Tensors of shape `(batch, longest_history)`: `history_mask` (bool) and,
            int64, `history_item_rows`, `history_query_rows` (-1 for none), `history_behavior_ids`,
            `history_action_ids`, `history_timestamps`, `history_session_ids`, `history_session_keys` (a digest of the
            page view, -1 for none), `history_geohash_ids` (0 for unknown).
            Of shape `(batch, 1)`, int64: `question_events` (the length of the history), `question_session_ids` (that
            of the page view that the request names, if the history contains events of it, else one of its own),
            `question_session_keys`,
            `question_behavior_ids`, `question_action_ids` (-1 where the request names no action),
            `question_timestamps` (of the last event where the request has none), `question_geohash_ids` and
            `question_query_rows`. `query_vectors`: float32 of shape `(num_queries, dimension)`, to which the query
            rows point; where queries are read by words `query_words`, int64 `(num_queries, most_words)`, hashes of
            them. `seen_rows`: int64 `(batch, most_seen)`, what users acted on. `query_letters`: uint8 `(batch,
            longest)`, the UTF-8 bytes of the queries, 0 for padding. With candidates `candidate_rows`: int64 `(batch,
            1, most_candidates)`, -1 for padding.

        Raises:
            RequestError: If there is no request, the candidates do not fit, or a request names an action that the
                model does not know.
            UnknownItemError: If a candidate is not in the catalogue or was removed; with `unknown="raise"` if an item
                of a history is not.
        """
        catalog = self.catalog  # once: another thread may set a new one
        read, rows = self._read_requests(requests, catalog, candidates, return_tensors)
        asked, events = read.requests, read.events
        histories = events.latest(read.histories, self.max_history)
        chosen, lengths = histories.values, histories.lengths
        features = events.pad(histories, number_sessions(events.timestamp[chosen], events.session[chosen], histories))
        # Page views, of events and requests, by a digest of their name from 0 up; -1 for none.
        has_views = self.session_ids == "page_view"
        views = [read.event_list[number].session_id for number in chosen.tolist()] + [one.session_id for one in asked]
        digests = [
            int.from_bytes(hashlib.blake2b(view.encode(), digest_size=8).digest(), "big") >> 1
            if has_views and view is not None
            else -1
            for view in views
        ]
        of_events, keys = np.split(np.array(digests, dtype=np.int64), [len(chosen)])
        features["history_session_keys"], keys = histories.pad(-1, of_events), keys[:, None]
        # The session of a request is that of its page view's first event, or a new one. From that event to the
        # question all is one session, as in training: see `number_sessions`.
        sessions, none = features["history_session_ids"], np.iinfo(np.int64).max
        is_own = (features["history_session_keys"] == keys) & (keys >= 0)
        own = np.where(is_own, sessions, none).min(1, initial=none, keepdims=True)
        new = np.where(features["history_mask"], sessions, -1).max(1, initial=-1, keepdims=True) + 1
        features["history_session_ids"] = np.minimum(sessions, own)
        # Queries, of the events that are read and of the requests.
        used = np.unique(events.query[chosen])
        used, named = used[used >= 0], features["history_query_rows"]
        features["history_query_rows"] = np.where(named < 0, -1, np.searchsorted(used, named))
        numbers = {events.queries[row]: number for number, row in enumerate(used.tolist())}
        query_rows = [-1 if one.query is None else numbers.setdefault(one.query, len(numbers)) for one in asked]
        # What is asked for: the action, when and where.
        known = tuple(self.actions)
        actions = [-1 if one.action is None else number_action(one.action, known) for one in asked]
        if 0 in actions:
            unknown = asked[actions.index(0)].action
            raise RequestError(
                f"`action` of a request is {unknown!r}; the model knows {', '.join(self.actions)}. Ask for one of "
                "these, or for None."
            )
        latest = np.append(0, events.timestamp[chosen])[np.where(lengths > 0, histories.offsets[1:], 0)].tolist()
        times = [last if one.timestamp is None else one.timestamp for last, one in zip(latest, asked, strict=True)]
        areas = pa.array([one.geohash for one in asked], pa.string())
        features |= {
            "question_events": lengths[:, None],
            "question_session_ids": np.minimum(new, own),
            "question_session_keys": keys,
            "question_behavior_ids": read.behavior_ids[:, None],
            "question_action_ids": np.array(actions, dtype=np.int64)[:, None],
            "question_timestamps": np.array(times, dtype=np.int64)[:, None],
            "question_geohash_ids": number_geohashes(areas, self.geohashes)[:, None],
            "question_query_rows": np.array(query_rows, dtype=np.int64)[:, None],
            "query_vectors": self.query_vectors.encode(list(numbers)),
            "seen_rows": rows["seen_rows"],
            "query_letters": rows["query_letters"],
        }
        if "words" in self.query_reading:
            features["query_words"] = text_word_keys(list(numbers)).pad(NO_WORD)
        if candidates is not None:
            features["candidate_rows"] = rows["candidate_rows"][:, None]
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in features.items()}
        return CatalogInputs(tensors, catalog)

    @property
    def history_limits(self) -> dict[Behavior | None, int]:
        """How many of the latest events are read of a history, of whatever behavior."""
        return {None: self.max_history}

    def events(self, histories: Sequence[Sequence[Event]]) -> BatchFeature:
        """Lay out events that follow a history which a model has in a state already; see `model.extend`.

        Args:
            histories (`Sequence[Sequence[Event]]`): For each state its new events, oldest first; the latest
                `max_history` are read.

        Returns:
            [`~transformers.BatchFeature`]: The `history_*` tensors, `query_vectors` and `seen_rows`.

        Raises:
            RequestError: If events are not in the order of time.
        """
        features = self([Request(events) for events in histories])
        of_history = {name: part for name, part in features.items() if not name.startswith("question_")}
        return CatalogInputs(of_history, features.catalog)

    def to_dict(self) -> dict[str, object]:
        """Return the settings alone, without the folder of the text encoder."""
        settings = {**super().to_dict(), **{name: getattr(self, name) for name in _READ}}
        if isinstance(settings.get("text_encoder"), str):
            settings["text_encoder"] = place_name(settings["text_encoder"])
        return settings

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        self.query_vectors.save(folder)

    def _model_settings(self) -> dict[str, object]:
        sizes = {"num_actions": max(1, len(self.actions)), "num_geohashes": len(self.geohashes)}
        return {**sizes, "max_history": self.max_history}

    @classmethod
    @read_whole
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: object, **kwargs: Any
    ) -> Self:
        """Load a processor with the catalogue and the query vectors it was saved with.

        A text encoder that only the checkpoint names, in its settings or its catalogue, is not loaded unless it is the
        default: new queries then need `text_encoder=`, the path or name of the one you trust.
        """
        saved, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "text_folding" not in saved:  # made before queries were folded: it answers as it did
            kwargs = {"text_folding": (), **kwargs}
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        source = pretrained_model_name_or_path
        found = cached_file(source, QUERY_VECTORS_FILE, **IF_THERE, **hub_arguments(kwargs))
        folder = Path(source) if found is None else Path(found).parent
        name = processor.text_encoder or processor.catalog.semantic_encoder_name
        vectors = QueryVectors.load(folder, name, processor.text_folding)
        vectors.encoder_is_trusted = name in (None, DEFAULT_ENCODER) or kwargs.get("text_encoder") is not None
        processor.query_vectors = vectors
        return processor


__all__ = ["EventSequenceProcessor"]
