# SPDX-License-Identifier: Apache-2.0
"""The GenSAR processor: turns requests into model inputs, with a tokenizer, a catalogue and the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import BatchFeature

from seekrec.corpora import (
    encode_items,
    encode_requests,
    encode_stream,
)
from seekrec.errors import RequestError
from seekrec.models.dense.query_vectors import QueryVectors
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.processing import CatalogInputs, T5Processor
from seekrec.models.words import NO_WORD, text_word_keys
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior, Event, Request, View, shown
from seekrec.util.ragged import Ragged


class GenSARProcessor(T5Processor[GenSARConfig]):
    """Turns requests into tensors and token ids into text; see [`T5Processor`] for the arguments."""

    config_class = GenSARConfig
    settings_read = (
        "corpus",
        "max_history_recommendations",
        "max_history_searches",
        "max_query_tokens",
        "max_text_tokens",
        "item_reading",
        "query_reading",
    )
    _not_settings: ClassVar[tuple[str, ...]] = (*T5Processor._not_settings, "_query_vectors")
    _query_vectors: QueryVectors | None = None

    @property
    def query_vectors(self) -> QueryVectors:
        """The frozen vectors of queries, by the encoder of the items' texts; it is loaded at the first."""
        catalog, vectors = self.catalog, self._query_vectors
        if vectors is None:
            vectors = QueryVectors(catalog.semantic_encoder_name)
            vectors.encoder_is_trusted = catalog.encoder_is_trusted
            self._query_vectors = vectors
        return vectors

    def read_queries(self, input_ids: torch.Tensor, *, keep: bool = False) -> dict[str, torch.Tensor]:
        """Read the queries in rows of tokens by their words and frozen vectors, where `query_reading` names these.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): Histories, and queries asked now.
            keep (`bool`): Keep the vectors for good, as of a training that meets them again.

        Returns:
            `dict[str, torch.Tensor]`: Of what is read, in the order of the row: `query_words`, int64 hashes of words
            of shape `(batch, most_queries, most_words)`, and `query_vectors`, float32 of shape `(batch, most_queries,
            size)`.
        """
        rows = input_ids.numpy()
        first, asks = self.vocabulary.first_token_id, self.vocabulary.behavior_token_ids["search_query"]
        # A query ends where the next event begins, or padding.
        ends = np.flatnonzero(
            np.pad((rows >= first) | (rows == self.tokenizer.pad_token_id), ((0, 0), (0, 1)), constant_values=True)
        )
        row, position = np.nonzero(rows == asks)
        begins = row * (rows.shape[1] + 1) + position
        lengths = ends[np.searchsorted(ends, begins, side="right")] - begins - 1
        spans = [
            tuple(rows[one, at + 1 : at + 1 + length]) for one, at, length in zip(row, position, lengths, strict=True)
        ]
        numbers = {span: number for number, span in enumerate(dict.fromkeys(spans), start=1)}
        texts = self.tokenizer.batch_decode([list(map(int, span)) for span in numbers], skip_special_tokens=True)
        # Row 0 of what is read is of no query.
        counts = np.bincount(row, minlength=len(rows))
        chosen = Ragged.from_lengths(np.array([numbers[span] for span in spans], dtype=np.int64), counts).pad(0)
        read: dict[str, np.ndarray] = {}
        if "words" in self.config.query_reading:
            read["query_words"] = text_word_keys(["", *texts]).pad(NO_WORD)
        if "text" in self.config.query_reading:
            if keep:
                self.query_vectors.add(texts)
            vectors = self.query_vectors.encode(texts)
            read["query_vectors"] = np.concatenate([np.zeros_like(vectors, shape=(1, vectors.shape[1])), vectors])
        return {name: torch.from_numpy(values[chosen]) for name, values in read.items()}

    @classmethod
    def _take_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if "shared_history" in settings:  # saved by an older version
            settings["corpus"] = "stream" if settings.pop("shared_history") else "instructions"
        return super()._take_settings(settings)

    def __call__(
        self,
        requests: Request | Sequence[Request],
        candidates: Sequence[Sequence[str]] | None = None,
        *,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Write the instruction of each request.

        Args:
            requests ([`Request`] or a list of them): With a query a search, without one a recommendation.
            candidates (`list[list[str]]`, *optional*): For `rank`: the item ids to order, a list for each request.
            return_tensors (`str`): Only `"pt"`.

        Returns:
            [`~transformers.BatchFeature`]: int64 tensors `input_ids` and `attention_mask` of shape
            `(batch, length)`, `behavior_ids` of shape `(batch,)` (numbers into `BEHAVIORS`), `seen_rows` of shape
            `(batch, most_seen)` (what users acted on), `history_times` of shape `(batch, 2)` (timestamps of the first
            and the last event; -1 for none) and, with candidates, `candidate_rows` of shape
            `(batch, most_candidates)`: rows of the catalogue, -1 for padding.

        Raises:
            RequestError: If `requests` is empty, or the candidates do not fit.
            UnknownItemError: If a candidate is not in the catalogue or was removed; with `unknown="raise"` if an item
                of a history is not.
        """
        catalog = self.catalog  # once: another thread may set a new one
        asked, rows = self._read_requests(requests, catalog, candidates, return_tensors)
        encode = encode_stream if self.config.corpus == "stream" else encode_requests
        features = self._pad(encode(asked, catalog, self.vocabulary, self.tokenizer, self.config))
        features["behavior_ids"] = torch.from_numpy(asked.behavior_ids)
        ends = np.stack([asked.histories.offsets[:-1], asked.histories.offsets[1:] - 1], axis=1)
        times = np.append(asked.events.timestamp, -1)  # what an empty history finds
        features["history_times"] = torch.from_numpy(times[np.where(asked.histories.lengths[:, None] > 0, ends, -1)])
        return CatalogInputs(features | {name: torch.from_numpy(found) for name, found in rows.items()}, catalog)

    @property
    def history_limits(self) -> dict[Behavior | None, int]:
        """How many of the latest events of a behavior are read of a history."""
        return {
            RECOMMENDATION: self.config.max_history_recommendations,
            SEARCH: self.config.max_history_searches,
        }

    def events(self, histories: Sequence[Sequence[Event]]) -> BatchFeature:
        """Write events that follow a history which a model has in a state already; see `model.extend`.

        Args:
            histories (`Sequence[Sequence[Event]]`): For each state its new events, oldest first.

        Returns:
            [`~transformers.BatchFeature`]: What a call makes of requests with these histories.

        Raises:
            RequestError: If events are not in the order of time.
        """
        return self([Request(events) for events in histories])

    def describe_items(self, item_ids: Sequence[str], view: View = "semantic") -> BatchFeature:
        """Write the instructions that ask for the description of items (ID2Desc), for `model.describe`.

        Args:
            item_ids (`Sequence[str]`): Items of the catalogue.
            view (`str`): The identifier shown.

        Returns:
            [`~transformers.BatchFeature`]: `input_ids` and `attention_mask`.

        Raises:
            RequestError: If items have no identifier of the view.
            UnknownItemError: If the catalogue does not contain an item.
        """
        catalog = self.catalog
        if view not in catalog.views:
            raise RequestError(f"`view` is {shown(view)}; the items have identifiers of {', '.join(catalog.views)}.")
        items = catalog.id_map.convert_to_rows(item_ids)
        rows = encode_items(items, view, catalog, self.vocabulary, self.tokenizer, self.config)
        return CatalogInputs(self._pad(rows), catalog)

    def ask_for_queries(self, requests: Request | Sequence[Request]) -> BatchFeature:
        """Write the instructions that ask for the next query (NSQP), for `model.suggest_queries`.

        Args:
            requests ([`Request`] or a list of them): Only the histories are read.

        Returns:
            [`~transformers.BatchFeature`]: `input_ids` and `attention_mask`.
        """
        catalog = self.catalog
        asked = self._read_requests(requests, catalog)[0]
        asked = replace(asked, requests=[replace(request, query=None) for request in asked.requests])
        written = (catalog, self.vocabulary, self.tokenizer, self.config)
        if self.config.corpus == "stream":
            return CatalogInputs(self._pad(encode_stream(asked, *written)), catalog)
        return CatalogInputs(self._pad(encode_requests(asked, *written, asks_for_query=True)), catalog)

    def decode_texts(self, token_ids: torch.Tensor) -> list[list[str]]:
        """Turn what `suggest_queries` and `describe` wrote into text.

        Args:
            token_ids (`torch.LongTensor` of shape `(batch, num_answers, length)`): What the model wrote.

        Returns:
            `list[list[str]]`: The distinct answers of each row, best first; empty ones are left out.
        """
        answers = []
        for row in token_ids:
            texts = self.tokenizer.batch_decode(row, skip_special_tokens=True)
            answers.append([text for text in dict.fromkeys(text.strip() for text in texts) if text])
        return answers

    def _pad(self, tokens: Ragged) -> dict[str, torch.Tensor]:
        values = tokens.values.astype(np.int64)
        input_ids = torch.from_numpy(tokens.pad(self.tokenizer.pad_token_id, values))
        mask = torch.from_numpy(tokens.pad(0, np.ones_like(values)))
        reads = {"words", "text"}.intersection(self.config.query_reading)
        return {"input_ids": input_ids, "attention_mask": mask, **(self.read_queries(input_ids) if reads else {})}


class QueryReadingCollator:
    """Add to batches what the processor of a model reads of their queries.

    Args:
        collate (`Callable`): Makes a batch with `input_ids` of rows.
        processor ([`GenSARProcessor`]): The processor.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[Mapping[str, Sequence[int]]]], dict[str, torch.Tensor]],
        processor: GenSARProcessor,
    ) -> None:
        self.collate, self.processor = collate, processor

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        """Make a batch."""
        batch = self.collate(rows)
        return {**batch, **self.processor.read_queries(batch["input_ids"], keep=True)}


__all__ = ["GenSARProcessor", "QueryReadingCollator"]
