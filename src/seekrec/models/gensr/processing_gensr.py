# SPDX-License-Identifier: Apache-2.0
"""The GenSR processor: turns requests into prompts and batch features.

Every item and query of a batch is listed once, with its tokens; histories and candidates refer to them by index. So a
model embeds each once, however often it occurs. Training and inference share this code.

Prompts are *layouts*: token ids and slots for vectors in one row of numbers. A number from 0 up is a token; -1 is
padding; -2 - n is vector n of a bank. The bank of a prefix contains the events of the history: position `j` of the
collaborative view, then of the semantic view, each with the start at position 0. The bank of a suffix contains four
vectors: the filtered histories and the candidate, each in both views (equation 9). A phrase is dropped from the prompt
together with the vector it introduces. Parts that depend on the candidate come last, so everything before them can be
shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import BatchFeature

from seekrec.catalog import Catalog
from seekrec.events.columns import EventColumns
from seekrec.models.gensr.configuration_gensr import VIEW_NAMES, GenSRConfig
from seekrec.models.processing import CatalogInputs, T5Processor
from seekrec.models.views import BY_VALIDATION
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, Request
from seekrec.util.growing import append_rows
from seekrec.util.ragged import Ragged
from seekrec.util.text import shared_encoder

PADDING = -1
FIRST_VECTOR = -2

# Vectors of a suffix, in the order of its bank.
SUFFIX_VECTORS = ("history_collaborative", "history_semantic", "item_collaborative", "item_semantic")

# A phrase and what follows it: the query, a vector, the vectors of all events, or nothing.
Phrase = tuple[str, str | None]

_LONG: list[Phrase] = [
    (" The user's history, by who acts on its items:", "events_collaborative"),
    (" By the texts of its items:", "events_semantic"),
    (" What matters of the history, by who acts on its items:", "history_collaborative"),
    (" By their texts:", "history_semantic"),
    (" The candidate, by who acts on it:", "item_collaborative"),
    (" By its text:", "item_semantic"),
]
_NO_WORDS: list[Phrase] = [("", slot) for _, slot in _LONG]
_WORDS_FIRST: list[Phrase] = [(" History by users and by texts, item by users and by text:", None), *_NO_WORDS]

# The released code words its prompts for books.
WORDINGS: dict[str, dict[Behavior, list[Phrase]]] = {
    "sentence": {
        RECOMMENDATION: [("Will the user like the candidate item? Answer Yes or No.", None), *_LONG],
        SEARCH: [("Does the candidate item answer the user's query? Answer Yes or No. The query:", "query"), *_LONG],
    },
    "compact": {
        RECOMMENDATION: [("Will the user like the item? Answer Yes or No.", None), *_WORDS_FIRST],
        SEARCH: [("Does the item answer the query? Answer Yes or No. The query:", "query"), *_WORDS_FIRST],
    },
    "short": {
        RECOMMENDATION: [("recommend", None), *_NO_WORDS],
        SEARCH: [("search", "query"), *_NO_WORDS],
    },
}


class GenSRProcessor(T5Processor[GenSRConfig]):
    """Turns requests, and candidates, into tensors; see [`T5Processor`] for the arguments."""

    _not_settings = (*T5Processor._not_settings, "_items")
    config_class = GenSRConfig
    settings_read = (
        *("wording", "prompt_views", "history_in_prompt", "query_as_event", "retrieve_by", "item_text_fields"),
        *("max_item_tokens", "max_query_tokens", "max_history", "scores_candidates", "writes_identifiers"),
    )
    # A catalogue and the tokens of its items' texts, together: another thread may set new ones.
    _items: tuple[Catalog, np.ndarray] | None = None

    @classmethod
    def _take_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        read = super()._take_settings(settings)
        # Losses and their weights are of no concern here, but must not contradict what the model does.
        read["yes_no_loss"] = "token" if read.pop("scores_candidates", True) else "none"
        read["identifier_weight"] = float(read.pop("writes_identifiers", False))
        read["contrast_weight"] = 0.0
        if read.get("retrieve_by") == "views":
            read["view_weights"] = [BY_VALIDATION]
        return read

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on; see [`CatalogProcessor`]."""
        fields, known = list(self.config.item_text_fields), np.empty((0, self.config.max_item_tokens), np.int32)
        if self._items is not None:
            # Texts stay: of a catalogue that grew, the new ones are read.
            before, tokens = self._items
            if catalog.items.slice(0, len(before)).select(fields).equals(before.items.select(fields)):
                known = tokens
        if len(known) < len(catalog) or self._items is None:
            texts = describe_items(catalog.items.slice(len(known)), fields)
            more = shared_encoder(self.tokenizer).encode(texts, self.config.max_item_tokens)
            padded = more.pad(PADDING, width=self.config.max_item_tokens)
            known = append_rows(known.astype(padded.dtype, copy=False), padded) if len(known) else padded
        self._items = catalog, known
        super().set_catalog(catalog)

    def __call__(
        self,
        requests: Request | Sequence[Request],
        candidates: Sequence[Sequence[str]] | None = None,
        *,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Write the prompt of each request.

        Args:
            requests ([`Request`] or a list of them): With a query a search, without one a recommendation.
            candidates (`list[list[str]]`, *optional*): For `rank`: the item ids to order, a list for each request.
            return_tensors (`str`): Only `"pt"`.

        Returns:
            [`~transformers.BatchFeature`]: The tensors of `write_features`, and `seen_rows`, int64 of shape `(batch,
            most_seen)`: what users acted on, be it more than the model reads. Without candidates, for a model that
            answers the items it retrieves, also `catalog_text_ids`, int32 of shape `(num_items, T)`: the texts of all
            items, which all batches share.

        Raises:
            RequestError: If there is no request, or the candidates do not fit.
            UnknownItemError: If a candidate is not in the catalogue or was removed; with `unknown="raise"` if an item
                of a history is not.
        """
        catalog, item_tokens = self.current_items()
        asked, rows = self._read_requests(requests, catalog, candidates, return_tensors)
        numbers = {query: number for number, query in enumerate(asked.events.queries)}
        queries = [-1 if one.query is None else numbers.setdefault(one.query, len(numbers)) for one in asked.requests]
        features = self.write_features(
            asked.events,
            shared_encoder(self.tokenizer).encode(list(numbers), self.config.max_query_tokens),
            asked.events.latest(asked.histories, self.config.max_history),
            asked.behavior_ids,
            np.array(queries, dtype=np.int64),
            item_tokens,
            rows.get("candidate_rows"),
        )
        features["seen_rows"] = torch.from_numpy(rows["seen_rows"])
        features["query_letters"] = torch.from_numpy(rows["query_letters"])
        if candidates is None and self.config.retrieve_by != "identifier":
            features["catalog_text_ids"] = torch.from_numpy(item_tokens)
        return CatalogInputs(features, catalog)

    def current_items(self) -> tuple[Catalog, np.ndarray]:
        """Return the catalogue and `item_tokens` for `write_features`: one pair, for another thread may set new ones.

        Raises:
            CatalogError: If there is no catalogue.
        """
        return (self.catalog, np.empty((0, 0), np.int32)) if self._items is None else self._items

    def write_features(
        self,
        events: EventColumns,
        query_tokens: Ragged,
        histories: Ragged,
        behaviors: np.ndarray,
        queries: np.ndarray,
        item_tokens: np.ndarray,
        candidates: np.ndarray | None = None,
    ) -> dict[str, Tensor]:
        """Write the features of requests.

        Args:
            events ([`EventColumns`]): The events that histories may name.
            query_tokens (`Ragged`): Token ids of each query by number.
            histories (`Ragged`): Event numbers of each request, oldest first, at most `max_history`.
            behaviors (`np.ndarray` of shape `(n,)`): int64 numbers into `BEHAVIORS`.
            queries (`np.ndarray` of shape `(n,)`): int64 numbers of queries, -1 where nothing is searched for.
            item_tokens (`np.ndarray` of shape `(num_items, max_item_tokens)`): Token ids of the items' texts, -1 where
                a text is shorter.
            candidates (`np.ndarray` of shape `(n, most)`, *optional*): int64 item rows, -1 for padding.

        Returns:
            `dict[str, torch.Tensor]`: int64 unless said otherwise; `U` items, `Q` queries, `N` the longest history:

            - `behavior_ids` `(n,)`;
            - `item_rows` `(U,)`, `item_text_ids` `(U, T)`, `query_text_ids` `(Q, S)`, -1 for padding;
            - `history_items`, `history_queries` `(n, N)`: positions among the `U` and `Q`, -1 for none;
              `history_behaviors` `(n, N)`; `history_mask` bool `(n, N)`; `asked_queries` `(n,)`;
            - `prompt_layout`, `suffix_layout` where the model scores candidates, `retrieval_layout` where it writes
              identifiers and the prompt for that is not `prompt_layout`;
            - with candidates `candidate_items` `(n, most)`, positions among the `U`, and `candidate_rows`.
        """
        number = histories.values
        lengths = histories.lengths
        is_asked = (queries >= 0) & self.config.query_as_event
        width = int((lengths + is_asked).max(initial=0))
        history_rows = histories.pad(-1, events.item[number].astype(np.int64), width=width)
        history_queries = histories.pad(-1, events.query[number].astype(np.int64), width=width)
        history_behaviors = histories.pad(0, events.is_search[number].astype(np.int64), width=width)
        asking = np.flatnonzero(is_asked)
        history_queries[asking, lengths[asking]] = queries[asking]
        history_behaviors[asking, lengths[asking]] = 1
        lengths = lengths + is_asked
        mask = np.arange(width) < lengths[:, None]
        named = [history_rows.ravel()] if candidates is None else [history_rows.ravel(), candidates.ravel()]
        # Each item and query once, ascending, and where each is named the position among them, -1 for none.
        distinct, positions = {}, {}
        for kind, numbers in (
            ("item", np.concatenate(named)),
            ("query", np.concatenate([history_queries.ravel(), queries])),
        ):
            found, places = np.unique(numbers, return_inverse=True)
            num_negative = int((found < 0).sum())
            distinct[kind], positions[kind] = found[num_negative:], np.maximum(places.reshape(-1) - num_negative, -1)
        asked = positions["query"][mask.size :]
        features = {
            "behavior_ids": behaviors,
            "item_rows": distinct["item"],
            "item_text_ids": item_tokens[distinct["item"]].astype(np.int64),
            "query_text_ids": query_tokens.take(distinct["query"]).pad(PADDING).astype(np.int64),
            "history_items": positions["item"][: mask.size].reshape(mask.shape),
            "history_queries": positions["query"][: mask.size].reshape(mask.shape),
            "history_behaviors": history_behaviors,
            "history_mask": mask,
            "asked_queries": asked,
        }
        if candidates is not None:
            features["candidate_rows"] = candidates
            features["candidate_items"] = positions["item"][mask.size :].reshape(candidates.shape)
        features |= self._write_layouts(behaviors, asked, features["query_text_ids"], lengths)
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in features.items()}

    def _write_layouts(
        self, behaviors: np.ndarray, asked: np.ndarray, query_text_ids: np.ndarray, lengths: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Write the prompts: int64 layouts, a row per request.

        Args:
            behaviors (`np.ndarray` of shape `(n,)`): int64 numbers into `BEHAVIORS`.
            asked (`np.ndarray` of shape `(n,)`): int64 rows of `query_text_ids`, -1 where nothing is searched for.
            query_text_ids (`np.ndarray` of shape `(Q, S)`): int64 token ids of queries, -1 for padding.
            lengths (`np.ndarray` of shape `(n,)`): int64 events of each history.

        Returns:
            `dict[str, np.ndarray]`: The layouts of `write_features`.
        """
        # By behavior: phrases before the candidate, as tokens with what follows each, and what comes with it.
        encoder = shared_encoder(self.tokenizer)
        hidden = set(VIEW_NAMES) - set(self.config.prompt_views)
        prefixes, suffixes = [], []
        for behavior in BEHAVIORS:
            prefix: list[tuple[list[int], str | None]] = []
            suffix: list[int] = []
            for number, (phrase, slot) in enumerate(WORDINGS[self.config.wording][behavior]):
                if slot is not None and slot.rpartition("_")[2] in hidden:
                    continue
                tokens = encoder.encode_piece(phrase, starts_text=not number) if phrase else []
                if slot is None or slot not in SUFFIX_VECTORS:
                    prefix.append((tokens, slot))
                elif self.config.history_in_prompt != "whole" or not slot.startswith("history_"):
                    suffix += [*tokens, FIRST_VECTOR - SUFFIX_VECTORS.index(slot)]
            prefixes.append(prefix)
            suffixes.append(suffix)

        # By request: what comes before the candidate, without any event and with every event.
        first = {"events_collaborative": 1, "events_semantic": 2 + int(lengths.max(initial=0))}
        without_events, with_events = [], []
        for behavior, number, length in zip(behaviors.tolist(), asked.tolist(), lengths.tolist(), strict=True):
            query = [] if number < 0 else query_text_ids[number][query_text_ids[number] != PADDING].tolist()
            short: list[int] = []
            long: list[int] = []
            for tokens, slot in prefixes[behavior]:
                if slot in first:
                    place = FIRST_VECTOR - first[slot]
                    long += [*tokens, *range(place, place - length, -1)]
                else:
                    written = [*tokens, *query] if slot == "query" else tokens
                    short += written
                    long += written
            without_events.append(short)
            with_events.append(long)

        # The prompt for writing identifiers contains every event; where a candidate's does too, they are the same.
        layouts = {}
        same_prompt, scores_candidates = self.config.history_in_prompt != "filtered", self.config.yes_no_loss != "none"
        every_event = Ragged.from_lists(with_events, np.int64)
        if scores_candidates:
            prompts = every_event if same_prompt else Ragged.from_lists(without_events, np.int64)
            layouts["prompt_layout"] = prompts.pad(PADDING, on_left=True)
            own = [suffixes[number] for number in behaviors.tolist()]
            layouts["suffix_layout"] = Ragged.from_lists(own, np.int64).pad(PADDING)
        if self.config.identifier_weight > 0 and not (scores_candidates and same_prompt):
            layouts["retrieval_layout"] = every_event.pad(PADDING, on_left=True)
        return layouts


def tokenizer_texts(texts: Sequence[str]) -> list[str]:
    """Return what a tokenizer from scratch is trained on: texts, every phrase, and both answers.

    The answers come once with each text, so often that each becomes a piece of its own: a model writes the first piece
    alone, and in a small vocabulary both might begin with the mark of a word's start.
    """
    phrases = [phrase for by_behavior in WORDINGS.values() for parts in by_behavior.values() for phrase, _ in parts]
    return [*texts, *phrases, *["Yes No"] * len(texts)]


def describe_items(items: pa.Table, fields: Sequence[str]) -> list[str]:
    """Return the text of each item in the semantic view, empty where there is none.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        fields (`Sequence[str]`): `"title"`, `"description"`, `"categories"`, in order. Each name of the categories
            comes once, the most special first: a text is cut at its end, and roots say least.
    """
    parts: list[list[str]] = [[] for _ in range(items.num_rows)]
    for field in fields:
        for texts, value in zip(parts, items[field].to_pylist(), strict=True):
            if field == "categories":
                names = [name for path in value or () for name in reversed(path or ()) if name]
                texts += dict.fromkeys(names)
            elif value:
                texts.append(value)
    return [" ".join(" ".join(texts).split()) for texts in parts]


__all__ = ["FIRST_VECTOR", "PADDING", "SUFFIX_VECTORS", "WORDINGS", "GenSRProcessor", "tokenizer_texts"]
