# SPDX-License-Identifier: Apache-2.0
"""From requests to what a GenSAR model reads: a tokenizer, a catalogue, and the model's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature

from seekrec.corpora import (
    encode_items,
    encode_requests,
    encode_stream,
)
from seekrec.errors import RequestError
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.processing import T5Processor
from seekrec.schema import Request, View, shown
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
    )

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
            `(batch, most_seen)` (what users acted on) and, with candidates, `candidate_rows` of shape
            `(batch, most_candidates)`: rows of the catalogue, -1 for padding.

        Raises:
            RequestError: If `requests` is empty, or the candidates do not fit.
            UnknownItemError: If a candidate is not in the catalogue, or with `unknown="raise"` an item of a history.
        """
        catalog = self.catalog  # once: another thread may set a new one
        asked, rows = self._read_requests(requests, catalog, candidates, return_tensors)
        encode = encode_stream if self.config.corpus == "stream" else encode_requests
        features = self._pad(encode(asked, catalog, self.vocabulary, self.tokenizer, self.config))
        features["behavior_ids"] = torch.from_numpy(asked.behavior_ids)
        return BatchFeature(features | {name: torch.from_numpy(found) for name, found in rows.items()})

    def describe_items(self, item_ids: Sequence[str], view: View = "semantic") -> BatchFeature:
        """Write the instructions that ask for the description of items (ID2Desc), for `model.describe`.

        Args:
            item_ids (`Sequence[str]`): Items of the catalogue.
            view (`str`): The identifier shown.

        Returns:
            [`~transformers.BatchFeature`]: `input_ids` and `attention_mask`.

        Raises:
            RequestError: If items have no identifier of the view.
            UnknownItemError: If the catalogue does not hold an item.
        """
        catalog = self.catalog
        if view not in catalog.views:
            raise RequestError(f"`view` is {shown(view)}; the items have identifiers of {', '.join(catalog.views)}.")
        items = catalog.id_map.convert_to_rows(item_ids)
        rows = encode_items(items, view, catalog, self.vocabulary, self.tokenizer, self.config)
        return BatchFeature(self._pad(rows))

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
            return BatchFeature(self._pad(encode_stream(asked, *written)))
        return BatchFeature(self._pad(encode_requests(asked, *written, asks_for_query=True)))

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
        return {
            "input_ids": torch.from_numpy(tokens.pad(self.tokenizer.pad_token_id, values)),
            "attention_mask": torch.from_numpy(tokens.pad(0, np.ones_like(values))),
        }


__all__ = ["GenSARProcessor"]
