# SPDX-License-Identifier: Apache-2.0
"""Requests and candidates as the tensors a GenSR model reads: the one code path of training and inference.

Every item and every query of a batch is named once, with its tokens; histories and candidates point at them. So a
model embeds each once, however often it occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from seekrec.corpora import TextEncoder
from seekrec.events.columns import EventColumns
from seekrec.models.gensr.prompts_gensr import PADDING, PromptWriter
from seekrec.util.ragged import Ragged


@dataclass(frozen=True, eq=False)
class RequestRows:
    """Requests, by number of event and query.

    Args:
        histories (`Ragged`): Event numbers of each request, oldest first, cut already.
        behaviors (`np.ndarray`): int64 of shape `(n,)`: numbers into `BEHAVIORS`.
        queries (`np.ndarray`): int64 of shape `(n,)`: numbers of queries, -1 where nothing is searched for.
    """

    histories: Ragged
    behaviors: np.ndarray
    queries: np.ndarray


class FeatureWriter:
    """Turns rows of requests into tensors.

    Args:
        events ([`EventColumns`]): The events that histories may name.
        query_tokens (`Ragged`): Token ids of each query by number.
        item_tokens (`np.ndarray`): int of shape `(num_items, max_item_tokens)`, -1 where a text is shorter.
        prompts ([`PromptWriter`]): The wordings.
        query_as_event (`bool`): Whether what is searched for now stands as the last event of the history.
        writes_identifiers (`bool`): Whether prompts for writing identifiers are wanted.
        scores_candidates (`bool`): Whether prompts for candidates are wanted.
        names_every_item (`bool`): Whether, without candidates, a batch holds every item of the catalogue, in order.
    """

    def __init__(
        self,
        events: EventColumns,
        query_tokens: Ragged,
        item_tokens: np.ndarray,
        prompts: PromptWriter,
        *,
        query_as_event: bool,
        writes_identifiers: bool,
        scores_candidates: bool,
        names_every_item: bool = False,
    ) -> None:
        self.events = events
        self.query_tokens = query_tokens
        self.item_tokens = item_tokens
        self.prompts = prompts
        self.query_as_event = query_as_event
        self.writes_identifiers = writes_identifiers
        self.scores_candidates = scores_candidates
        self.names_every_item = names_every_item

    def write(self, rows: RequestRows, candidates: np.ndarray | None = None) -> dict[str, Tensor]:
        """Write a batch.

        Args:
            rows ([`RequestRows`]): The requests.
            candidates (`np.ndarray`, *optional*): int64 item rows of shape `(n, most)`, -1 for padding.

        Returns:
            `dict[str, torch.Tensor]`: int64 unless said otherwise; `U` items, `Q` queries, `N` the longest history:
            `behavior_ids` `(n,)`; `item_rows` `(U,)`, `item_text_ids` `(U, T)`, `query_text_ids` `(Q, S)` (-1 for
            padding); `history_items`, `history_queries` `(n, N)` (places among the `U` and `Q`, -1 for none),
            `history_behaviors` `(n, N)`, `history_mask` bool `(n, N)`, `asked_queries` `(n,)`; `prompt_layout`,
            `suffix_layout` and `retrieval_layout` (see `prompts_gensr.py`), as far as they are wanted; with candidates
            `candidate_items` (places among the `U`) and `candidate_rows`, `(n, most)`, -1 for padding.
        """
        number = rows.histories.values
        lengths = rows.histories.lengths
        is_asked = (rows.queries >= 0) & self.query_as_event
        width = int((lengths + is_asked).max(initial=0))
        is_event = np.arange(width) < lengths[:, None]
        history_rows = _spread(self.events.item[number], is_event)
        history_queries = _spread(self.events.query[number], is_event)
        behaviors = _spread(self.events.is_search[number].astype(np.int64), is_event, filler=0)
        asking = np.flatnonzero(is_asked)
        history_queries[asking, lengths[asking]] = rows.queries[asking]
        behaviors[asking, lengths[asking]] = 1
        lengths = lengths + is_asked
        mask = np.arange(width) < lengths[:, None]
        named = [history_rows.ravel()] if candidates is None else [history_rows.ravel(), candidates.ravel()]
        if candidates is None and self.names_every_item:
            named.append(np.arange(len(self.item_tokens)))
        item_rows, places = _number(np.concatenate(named))
        queries, query_places = _number(np.concatenate([history_queries.ravel(), rows.queries]))
        query_tokens = self.query_tokens.take(queries)
        features = {
            "behavior_ids": rows.behaviors,
            "item_rows": item_rows,
            "item_text_ids": self.item_tokens[item_rows].astype(np.int64),
            "query_text_ids": query_tokens.astype(np.int64).pad(PADDING),
            "history_items": places[: mask.size].reshape(mask.shape),
            "history_queries": query_places[: mask.size].reshape(mask.shape),
            "history_behaviors": behaviors,
            "history_mask": mask,
        }
        if candidates is not None:
            features["candidate_rows"] = candidates
            features["candidate_items"] = places[mask.size :].reshape(candidates.shape)
        asked = features["asked_queries"] = query_places[mask.size :]
        empty = Ragged.stack([query_tokens, Ragged.from_lists([[]])])  # what -1 takes
        texts = empty.take(np.where(asked < 0, len(query_tokens), asked))
        if self.scores_candidates:
            events = self.prompts.shares_prefix
            prefixes = self.prompts.write_prefixes(rows.behaviors, texts, lengths, events=events)
            features["prompt_layout"] = prefixes.astype(np.int64).pad(PADDING, on_left=True)
            suffixes = self.prompts.write_suffixes(rows.behaviors)
            features["suffix_layout"] = suffixes.astype(np.int64).pad(PADDING)
        if self.writes_identifiers and not (self.scores_candidates and self.prompts.shares_prefix):
            prefixes = self.prompts.write_prefixes(rows.behaviors, texts, lengths, events=True)
            features["retrieval_layout"] = prefixes.astype(np.int64).pad(PADDING, on_left=True)
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in features.items()}


def cut_histories(histories: Ragged, events: EventColumns, max_history: int) -> Ragged:
    """Keep the latest `max_history` events of each history, without those that were only shown."""
    written = histories.keep(~events.is_shown[histories.values])
    from_end = np.repeat(written.offsets[1:], written.lengths) - np.arange(len(written.values))
    return written.keep(from_end <= max_history)


def describe_items(items: pa.Table, fields: Sequence[str]) -> list[str]:
    """Give the text that stands for each item in the semantic view.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        fields (`Sequence[str]`): `"title"`, `"description"`, `"categories"`, in the order wanted. Of the categories
            each name once, the most special first: a text is cut at its end, and roots say least.

    Returns:
        `list[str]`: One text a row, empty where there is none.
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


def encode_items(items: pa.Table, encoder: TextEncoder, settings: Any) -> np.ndarray:
    """Encode the texts of items.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        encoder ([`TextEncoder`]): Of the tokenizer.
        settings: Has `item_text_fields` and `max_item_tokens`.

    Returns:
        `np.ndarray`: int32 token ids of shape `(num_items, max_item_tokens)`, -1 where a text is shorter.
    """
    texts = describe_items(items, settings.item_text_fields)
    tokens = encoder.encode_ragged(texts, settings.max_item_tokens)
    return tokens.pad(-1, width=settings.max_item_tokens)


def _spread(values: np.ndarray, mask: np.ndarray, filler: int = -1) -> np.ndarray:
    matrix = np.full(mask.shape, filler, dtype=np.int64)
    matrix[mask] = values
    return matrix


def _number(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the distinct values from 0 up, ascending, and each value's place among them, -1 for negative ones."""
    distinct, places = np.unique(values, return_inverse=True)
    num_negative = int((distinct < 0).sum())
    return distinct[num_negative:], np.maximum(places.reshape(-1) - num_negative, -1)


__all__ = ["FeatureWriter", "RequestRows", "cut_histories", "describe_items", "encode_items"]
