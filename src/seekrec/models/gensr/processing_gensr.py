# SPDX-License-Identifier: Apache-2.0
"""From requests to what a GenSR model reads: a tokenizer, a catalogue, and how prompts are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora import IdentifierVocabulary, add_identifier_tokens
from seekrec.corpora.segments import list_histories
from seekrec.corpora.text import shared_encoder
from seekrec.errors import CatalogError
from seekrec.events.columns import EventColumns
from seekrec.models.candidates import candidate_rows, check_unknown, seen_rows
from seekrec.models.gensr.configuration_gensr import VIEW_NAMES
from seekrec.models.gensr.features_gensr import FeatureWriter, RequestRows, cut_histories, encode_items
from seekrec.models.gensr.prompts_gensr import PromptWriter
from seekrec.models.processing import CatalogProcessor
from seekrec.schema import BEHAVIORS, Event, Request
from seekrec.util.ragged import Ragged


class GenSRProcessor(CatalogProcessor):
    """Turns requests, and candidates, into tensors.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Has the identifier tokens, or gets them here.
        catalog ([`Catalog`], *optional*): The items and their identifiers.
        wording (`str`): As in [`GenSRConfig`], and so are the others.
        prompt_views (`Sequence[str]`): Views that enter the prompt.
        history_in_prompt (`str`): What of a history enters the prompt of a candidate.
        query_as_event (`bool`): What is searched for now also stands as the last event of the history.
        scores_candidates (`bool`): Whether the model says Yes or No.
        writes_identifiers (`bool`): Whether the model writes identifiers.
        retrieve_by (`str`): As in [`GenSRConfig`].
        item_text_fields (`Sequence[str]`): What describes an item.
        max_item_tokens (`int`): Tokens kept of an item's text.
        max_query_tokens (`int`): Tokens kept of a query.
        max_history (`int`): Latest events kept of a history.
        unknown (`str`): What is done with events of a history whose item the catalogue does not hold: `"skip"` leaves
            them out and logs it, `"raise"` refuses the call. Candidates must always be known.
    """

    _not_settings = ("_catalog", "_vocabulary", "_items")

    # `ProcessorMixin` reads the names of the settings from the signature and knows no keyword-only ones.
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        catalog: Catalog | None = None,
        wording: str = "sentence",
        prompt_views: Sequence[str] = VIEW_NAMES,
        history_in_prompt: str = "filtered",
        query_as_event: bool = False,
        scores_candidates: bool = True,
        writes_identifiers: bool = False,
        item_text_fields: Sequence[str] = ("title",),
        max_item_tokens: int = 10,
        max_query_tokens: int = 32,
        max_history: int = 20,
        retrieve_by: str = "identifier",
        unknown: str = "skip",
    ) -> None:
        super().__init__(tokenizer)
        self.wording = wording
        self.prompt_views = list(prompt_views)
        self.history_in_prompt = history_in_prompt
        self.query_as_event = query_as_event
        self.scores_candidates = scores_candidates
        self.writes_identifiers = writes_identifiers
        self.item_text_fields = list(item_text_fields)
        self.max_item_tokens = max_item_tokens
        self.max_query_tokens = max_query_tokens
        self.max_history = max_history
        self.retrieve_by = retrieve_by
        self.unknown = check_unknown(unknown)
        self._catalog: Catalog | None = None
        self._vocabulary: IdentifierVocabulary | None = None
        # A catalogue and the tokens of its items' texts, together: another thread may set new ones.
        self._items: tuple[Catalog, np.ndarray] | None = None
        if catalog is not None:
            self.set_catalog(catalog)

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on; see [`CatalogProcessor`]."""
        if self.writes_identifiers:
            self._vocabulary = add_identifier_tokens(
                self.tokenizer,
                num_shared_levels=catalog.num_shared_levels,
                num_specific_levels=catalog.num_specific_levels,
                codebook_size=catalog.codebook_size,
                views=catalog.views,
            )
        self._items = catalog, encode_items(catalog.items, shared_encoder(self.tokenizer), self)
        super().set_catalog(catalog)

    @property
    def vocabulary(self) -> IdentifierVocabulary:
        """Where the identifier tokens are.

        Raises:
            CatalogError: If there is no catalogue, or the model writes no identifiers.
        """
        if self._vocabulary is None:
            raise CatalogError(
                "The processor has no identifier tokens: it has no catalogue, or its model writes no identifiers."
            )
        return self._vocabulary

    def _model_settings(self) -> dict[str, Any]:
        same = ("wording", "prompt_views", "history_in_prompt", "query_as_event", "retrieve_by", "item_text_fields")
        limits = ("max_item_tokens", "max_query_tokens", "max_history")
        settings = {name: getattr(self, name) for name in (*same, *limits)}
        if self._vocabulary is not None:
            settings["first_identifier_token_id"] = self._vocabulary.first_token_id
        return settings

    @property
    def item_tokens(self) -> np.ndarray:
        """Token ids of the items' texts: int32 of shape `(num_items, max_item_tokens)`, -1 where a text is shorter."""
        return self._current_items()[1]

    def _current_items(self) -> tuple[Catalog, np.ndarray]:
        return (self.catalog, np.empty((0, self.max_item_tokens), np.int32)) if self._items is None else self._items

    def feature_writer(
        self, events: EventColumns, query_tokens: Ragged, item_tokens: np.ndarray | None = None
    ) -> FeatureWriter:
        """Make the writer of features for some events, with this processor's prompts.

        Args:
            events ([`EventColumns`]): The events that histories may name.
            query_tokens (`Ragged`): Token ids of each query by number.
            item_tokens (`np.ndarray`, *optional*): As [`item_tokens`], which is taken if not given.
        """
        return FeatureWriter(
            events,
            query_tokens,
            self.item_tokens if item_tokens is None else item_tokens,
            PromptWriter(shared_encoder(self.tokenizer), self),
            query_as_event=self.query_as_event,
            writes_identifiers=self.writes_identifiers,
            scores_candidates=self.scores_candidates,
            names_every_item=self.retrieve_by == "answer",
        )

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
            [`~transformers.BatchFeature`]: The tensors of [`FeatureWriter.write`], and `seen_rows`, int64 of shape
            `(batch, most_seen)`: what [`seen_rows`] gives.

        Raises:
            RequestError: If there is no request, or the candidates do not fit.
            UnknownItemError: If a candidate is not in the catalogue, or with `unknown="raise"` an item of a history.
        """
        catalog, item_tokens = self._current_items()  # once: another thread may set new ones
        asked = self._check_requests(requests, catalog, return_tensors)
        events, histories = list_histories([request.history for request in asked])
        # The question itself is an event without an item.
        questions = [Event(None, behavior=request.behavior, query=request.query) for request in asked]
        columns = EventColumns.from_events([*events, *questions], catalog.id_map)
        tokens = shared_encoder(self.tokenizer).encode_ragged(columns.queries, self.max_query_tokens)
        rows = RequestRows(
            cut_histories(histories, columns, self.max_history),
            np.array([BEHAVIORS.index(request.behavior) for request in asked], dtype=np.int64),
            columns.query[len(events) :],
        )
        given = None
        if candidates is not None:
            given = candidate_rows(candidates, len(asked), catalog.id_map)
        features = dict(self.feature_writer(columns, tokens, item_tokens).write(rows, given))
        features["seen_rows"] = torch.from_numpy(seen_rows(asked, catalog.id_map))
        return BatchFeature(features)


__all__ = ["GenSRProcessor"]
