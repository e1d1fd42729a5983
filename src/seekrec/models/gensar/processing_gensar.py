# SPDX-License-Identifier: Apache-2.0
"""From requests to what a GenSAR model reads: a tokenizer, a catalogue, and the model's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora import (
    IdentifierVocabulary,
    add_identifier_tokens,
    encode_items,
    encode_requests,
    encode_stream,
)
from seekrec.errors import CatalogError, RequestError
from seekrec.models.candidates import candidate_rows, check_unknown, seen_rows
from seekrec.models.gensar.configuration_gensar import GenSARConfig
from seekrec.models.processing import CatalogProcessor
from seekrec.schema import BEHAVIORS, Request, View, shown
from seekrec.util.ragged import Ragged

# What a processor reads of the model's configuration, and is saved with.
_READ = ("corpus", "max_history_recommendations", "max_history_searches", "max_query_tokens", "max_text_tokens")


class GenSARProcessor(CatalogProcessor):
    """Turns requests into tensors and token ids into text.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Has the identifier tokens, or gets them here.
        catalog ([`Catalog`], *optional*): The items and their identifiers.
        config ([`GenSARConfig`], *optional*): The model's configuration, which says what is read of a request.
        unknown (`str`): What is done with events of a history whose item the catalogue does not hold: `"skip"` leaves
            them out and logs it, `"raise"` refuses the call. Candidates must always be known.
    """

    _not_settings = ("_catalog", "_vocabulary", "config")

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        catalog: Catalog | None = None,
        config: GenSARConfig | None = None,
        unknown: str = "skip",
    ) -> None:
        super().__init__(tokenizer)
        self.config = GenSARConfig() if config is None else config
        self.unknown = check_unknown(unknown)
        self._catalog: Catalog | None = None
        self._vocabulary: IdentifierVocabulary | None = None
        if catalog is not None:
            self.set_catalog(catalog)

    @classmethod
    def from_config(
        cls, config: GenSARConfig, tokenizer: PreTrainedTokenizerBase, catalog: Catalog | None = None
    ) -> Self:
        """Make the processor of a model.

        Args:
            config ([`GenSARConfig`]): The model's configuration.
            tokenizer (`PreTrainedTokenizerBase`): Has the identifier tokens, or gets them here.
            catalog ([`Catalog`], *optional*): The items and their identifiers.
        """
        return cls(tokenizer, catalog, config)

    @classmethod
    def from_args_and_dict(cls, args: list[object], processor_dict: dict[str, object], **kwargs: object) -> Self:
        """Make a processor from its saved settings and those given to `from_pretrained`."""
        settings = {**processor_dict, **kwargs}
        if "shared_history" in settings:  # saved by an older version
            settings["corpus"] = "stream" if settings.pop("shared_history") else "instructions"
        config = GenSARConfig.from_dict({name: settings.pop(name) for name in _READ if name in settings})
        made: Self = super().from_args_and_dict(args, {**settings, "config": config})
        return made

    def to_dict(self) -> dict[str, object]:
        """Return the settings: what is read of the model's configuration, and what is done with unknown items."""
        return {**super().to_dict(), **{name: getattr(self.config, name) for name in _READ}}

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on; see [`CatalogProcessor`]."""
        self._vocabulary = add_identifier_tokens(self.tokenizer, catalog)
        super().set_catalog(catalog)

    @property
    def vocabulary(self) -> IdentifierVocabulary:
        """The identifier tokens, and where they stand in the vocabulary.

        Raises:
            CatalogError: If the processor has no catalogue.
        """
        if self._vocabulary is None:
            raise CatalogError("The processor has no catalogue; load a complete checkpoint or call `set_catalog`.")
        return self._vocabulary

    def _model_settings(self) -> dict[str, object]:
        own = {name: getattr(self.config, name) for name in _READ}
        return {"first_identifier_token_id": self.vocabulary.first_token_id, **own}

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
            RequestError: If `requests` is empty, or the candidates do not fit.
            UnknownItemError: If a candidate is not in the catalogue, or with `unknown="raise"` an item of a history.
        """
        catalog = self.catalog  # once: another thread may set a new one
        asked = self._check_requests(requests, catalog, return_tensors)
        encode = encode_stream if self.config.corpus == "stream" else encode_requests
        rows = encode(asked, catalog, self.vocabulary, self.tokenizer, self.config)
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
        asked = [replace(request, query=None) for request in self._check_requests(requests, catalog)]
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
