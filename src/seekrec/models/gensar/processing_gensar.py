# SPDX-License-Identifier: Apache-2.0
"""From requests to what a GenSAR model reads: a tokenizer, a catalogue, and how the corpus wrote instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora import (
    CorpusSettings,
    IdentifierVocabulary,
    add_identifier_tokens,
    encode_description_questions,
    encode_query_questions,
    encode_requests,
    encode_shared_history,
)
from seekrec.errors import CatalogError, RequestError
from seekrec.models.candidates import candidate_rows, check_unknown, seen_rows
from seekrec.models.processing import CatalogProcessor
from seekrec.schema import BEHAVIORS, Request, View, shown
from seekrec.util.ragged import Ragged


class GenSARProcessor(CatalogProcessor):
    """Turns requests into tensors and token ids into text.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Has the identifier tokens, or gets them here.
        catalog ([`Catalog`], *optional*): The items and their identifiers.
        shared_history (`bool`): Whether the model was trained with one encoded history for all targets.
        max_history_recommendations (`int`): Latest recommendations kept of a history.
        max_history_searches (`int`): Latest searches kept of a history.
        max_query_tokens (`int`): A longer query is cut.
        max_text_tokens (`int`): A longer description is cut.
        unknown (`str`): What is done with events of a history whose item the catalogue does not hold: `"skip"` leaves
            them out and logs it, `"raise"` refuses the call. Candidates must always be known.
    """

    _not_settings = ("_catalog", "_vocabulary")

    # `ProcessorMixin` reads the names of the settings from the signature and knows no keyword-only ones.
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        catalog: Catalog | None = None,
        shared_history: bool = False,
        max_history_recommendations: int = 5,
        max_history_searches: int = 5,
        max_query_tokens: int = 64,
        max_text_tokens: int = 256,
        unknown: str = "skip",
    ) -> None:
        super().__init__(tokenizer)
        self.shared_history = shared_history
        self.max_history_recommendations = max_history_recommendations
        self.max_history_searches = max_history_searches
        self.max_query_tokens = max_query_tokens
        self.max_text_tokens = max_text_tokens
        self.unknown = check_unknown(unknown)
        self._catalog: Catalog | None = None
        self._vocabulary: IdentifierVocabulary | None = None
        if catalog is not None:
            self.set_catalog(catalog)

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on; see [`CatalogProcessor`]."""
        self._vocabulary = add_identifier_tokens(
            self.tokenizer,
            num_shared_levels=catalog.num_shared_levels,
            num_specific_levels=catalog.num_specific_levels,
            codebook_size=catalog.codebook_size,
            views=catalog.views,
        )
        super().set_catalog(catalog)

    @property
    def vocabulary(self) -> IdentifierVocabulary:
        """Where the identifier tokens are.

        Raises:
            CatalogError: If there is no catalogue.
        """
        if self._vocabulary is None:
            raise CatalogError("The processor has no catalogue; load a complete checkpoint or call `set_catalog`.")
        return self._vocabulary

    def _model_settings(self) -> dict[str, Any]:
        limits = ("max_history_recommendations", "max_history_searches", "max_query_tokens", "max_text_tokens")
        return {
            "shared_history": self.shared_history,
            "first_identifier_token_id": self.vocabulary.first_token_id,
            **{name: getattr(self, name) for name in limits},
        }

    @property
    def settings(self) -> CorpusSettings:
        """How instructions are written."""
        return CorpusSettings(
            max_history_recommendations=self.max_history_recommendations,
            max_history_searches=self.max_history_searches,
            max_query_tokens=self.max_query_tokens,
            max_text_tokens=self.max_text_tokens,
        )

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
            `(batch, most_seen)` (what [`seen_rows`] gives) and, with candidates, `candidate_rows` of shape
            `(batch, most_candidates)`: rows of the catalogue, -1 for padding.

        Raises:
            RequestError: If there is no request, or the candidates do not fit.
            UnknownItemError: If a candidate is not in the catalogue, or with `unknown="raise"` an item of a history.
        """
        catalog = self.catalog  # once: another thread may set a new one
        asked = self._check_requests(requests, catalog, return_tensors)
        encode = encode_shared_history if self.shared_history else encode_requests
        rows = encode(asked, catalog, self.vocabulary, self.tokenizer, self.settings)
        features = self._pad(rows)
        features["behavior_ids"] = torch.tensor([BEHAVIORS.index(request.behavior) for request in asked])
        features["seen_rows"] = torch.from_numpy(seen_rows(asked, catalog.id_map))
        if candidates is not None:
            features["candidate_rows"] = torch.from_numpy(candidate_rows(candidates, len(asked), catalog.id_map))
        return BatchFeature(features)

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
        rows = encode_description_questions(items, view, catalog, self.vocabulary, self.tokenizer, self.settings)
        return BatchFeature(self._pad(rows))

    def ask_for_queries(self, requests: Request | Sequence[Request]) -> BatchFeature:
        """Write the instructions that ask for the next query (NSQP), for `model.suggest_queries`.

        Args:
            requests ([`Request`] or a list of them): Only the histories are read.

        Returns:
            [`~transformers.BatchFeature`]: `input_ids` and `attention_mask`.
        """
        catalog = self.catalog
        asked = [replace(request, query=None) for request in self._check_requests(requests, catalog)]
        encode = encode_shared_history if self.shared_history else encode_query_questions
        return BatchFeature(self._pad(encode(asked, catalog, self.vocabulary, self.tokenizer, self.settings)))

    def decode_texts(self, token_ids: torch.Tensor) -> list[list[str]]:
        """Turn what `suggest_queries` and `describe` wrote into text.

        Args:
            token_ids (`torch.LongTensor`): Of shape `(batch, num_answers, length)`.

        Returns:
            `list[list[str]]`: The distinct answers of each row, best first; empty ones are left out.
        """
        answers = []
        for row in token_ids:
            texts = self.tokenizer.batch_decode(row, skip_special_tokens=True)
            answers.append([text for text in dict.fromkeys(text.strip() for text in texts) if text])
        return answers

    def _pad(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        tokens = Ragged.from_lists(rows, np.int64)
        return {
            "input_ids": torch.from_numpy(tokens.pad(self.tokenizer.pad_token_id)),
            "attention_mask": torch.from_numpy(tokens.pad(0, np.ones_like(tokens.values))),
        }


__all__ = ["GenSARProcessor"]
