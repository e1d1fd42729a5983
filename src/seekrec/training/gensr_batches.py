# SPDX-License-Identifier: Apache-2.0
"""Batches of GenSR's training requests, from memory or from shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seekrec.events.columns import EventColumns
from seekrec.events.training_negatives import NegativeSampler
from seekrec.models import GenSRProcessor
from seekrec.schema import BEHAVIORS
from seekrec.training.gensr_data import TrainingRequests
from seekrec.util.ragged import Ragged
from seekrec.util.text import shared_encoder


@dataclass(frozen=True, eq=False)
class RequestBatch:
    """Some requests, as a collator reads them.

    Args:
        events ([`EventColumns`]): Events that the histories name.
        query_tokens (`Ragged`): Token ids of each query by number.
        histories (`Ragged`): Event numbers of each request, oldest first.
        behaviors (`np.ndarray`): int64 of shape `(n,)`: numbers into `BEHAVIORS`.
        query_numbers (`np.ndarray`): int64 of shape `(n,)`: numbers of queries, -1 for a recommendation.
        users (`np.ndarray`): int64 of shape `(n,)`: user rows.
        targets (`np.ndarray`): int64 of shape `(n,)`: rows of the catalogue.
        texts (`np.ndarray`): int64 of shape `(n,)`: what is asked by, for the sampler: the query, else the target's
            title.
    """

    events: EventColumns
    query_tokens: Ragged
    histories: Ragged
    behaviors: np.ndarray
    query_numbers: np.ndarray
    users: np.ndarray
    targets: np.ndarray
    texts: np.ndarray


class RequestSource(Protocol):
    """Requests that batches are made of, in memory or in shards."""

    def __len__(self) -> int:
        """Return the number of requests."""
        ...

    def take(self, rows: np.ndarray) -> RequestBatch:
        """Return the requests of some int64 numbers, in this order."""
        ...


class EncodedRequests:
    """Requests in memory with their queries as tokens.

    Args:
        requests ([`TrainingRequests`]): The requests.
        processor ([`GenSRProcessor`]): Its tokenizer encodes the queries.
    """

    def __init__(self, requests: TrainingRequests, processor: GenSRProcessor) -> None:
        self.requests = requests
        encoder = shared_encoder(processor.tokenizer)
        self._tokens = encoder.encode(requests.queries, processor.config.max_query_tokens)
        # What a request costs: the positions of its history, and the tokens of its query.
        queries = np.append(self._tokens.lengths, 0)[requests.query_numbers]
        self.lengths = requests.histories.lengths + queries

    def __len__(self) -> int:
        return len(self.requests)

    def take(self, rows: np.ndarray) -> RequestBatch:
        """Return some requests; see [`RequestSource`]."""
        asked = self.requests
        queries, targets = asked.query_numbers[rows], asked.targets[rows]
        return RequestBatch(
            asked.events,
            self._tokens,
            asked.histories.take(rows),
            asked.behaviors[rows],
            queries,
            asked.users[rows],
            targets,
            np.where(queries < 0, len(asked.queries) + targets, queries),
        )


class GenSRCollator:
    """Makes batches for `GenSRForConditionalGeneration.forward` from codes of requests (see [`CodeSampler`]).

    Codes below 0 are left out (see [`~seekrec.training.shards.ShardSampler`]).

    Args:
        requests ([`TrainingRequests`] or [`RequestSource`]): What is asked.
        processor ([`GenSRProcessor`]): Writes the prompts.
        sampler ([`NegativeSampler`], *optional*): Draws the other candidates, where candidates are scored.
    """

    def __init__(
        self, requests: TrainingRequests | RequestSource, processor: GenSRProcessor, sampler: NegativeSampler | None
    ) -> None:
        self.processor = processor
        self.sampler = sampler
        self.source = EncodedRequests(requests, processor) if isinstance(requests, TrainingRequests) else requests

    def __call__(self, codes: list[int]) -> dict[str, Tensor]:
        """Make a batch."""
        keys = np.asarray(codes, dtype=np.int64)
        keys = keys[keys >= 0]
        asked = self.source.take(keys % len(self.source))
        behaviors, targets = asked.behaviors, asked.targets
        candidates = None
        if self.sampler is not None:
            negatives = self.sampler.draw(asked.users, keys, asked.texts)
            candidates = np.concatenate([targets[:, None], negatives], axis=1)
        batch = self.processor.write_features(
            asked.events,
            asked.query_tokens,
            asked.histories,
            behaviors,
            asked.query_numbers,
            self.processor.current_items()[1],
            candidates,
        )
        batch["user_ids"] = torch.from_numpy(asked.users)
        if candidates is not None:
            labels = torch.zeros(candidates.shape, dtype=torch.long)
            labels[:, 0] = 1
            batch["candidate_labels"] = labels
        if self.processor.config.writes_identifiers:
            batch["identifier_inputs"], batch["identifier_labels"] = self._identifiers(behaviors, targets)
        return batch

    def _identifiers(self, behaviors: np.ndarray, targets: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return what the decoder reads and what it should write: int64 of shape `(batch, num_levels)` each."""
        catalog, vocabulary = self.processor.catalog, self.processor.vocabulary
        labels = np.empty((len(targets), catalog.num_levels), dtype=np.int64)
        inputs = np.empty_like(labels)
        for number, behavior in enumerate(BEHAVIORS):
            chosen = behaviors == number
            view = catalog.view_of(behavior)
            labels[chosen] = vocabulary.encode(catalog.codes[view][targets[chosen]], view)
            inputs[chosen, 0] = vocabulary.item_token_ids[behavior]
        inputs[:, 1:] = labels[:, :-1]
        return torch.from_numpy(inputs), torch.from_numpy(labels)


__all__ = ["EncodedRequests", "GenSRCollator", "RequestBatch", "RequestSource"]
