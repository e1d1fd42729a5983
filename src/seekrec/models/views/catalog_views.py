# SPDX-License-Identifier: Apache-2.0
"""Compute the views' scores for a catalogue, which may have grown since they were made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional as F

from seekrec.catalog import Catalog
from seekrec.embeddings import SASRecForNextItem
from seekrec.errors import ConfigurationError
from seekrec.events.matching import TEXT_FIELDS
from seekrec.models.new_items import TextNeighbors
from seekrec.models.views.lexical import LexicalIndex
from seekrec.models.views.parts import Entries, Part
from seekrec.models.views.products import Products, VectorTable
from seekrec.models.views.unsearched import UnsearchedWords
from seekrec.models.views.views import Views
from seekrec.models.views.weights import ANSWER_VIEWS, ViewWeights
from seekrec.schema import RECOMMENDATION, SEARCH, Behavior
from seekrec.util.growing import append_rows, begins_with
from seekrec.util.ragged import Ragged

# Below one in so many of the best, an item is hardly told from one that matches nothing.
_SCALE = 1000.0
# An older item of the history weighs so much of the one after it.
TEXT_DECAY = 0.7
# So many of the latest items of a history are read for its neighbors. On MovieLens-100K, where histories are longest,
# 100 and all of them are level with 50 on validation, whatever the decay.
_NUM_LATEST = 50
_ROWS_AT_ONCE = 2**14


@dataclass(frozen=True)
class ViewRequests:
    """What views read of a batch of requests.

    Args:
        behaviors (`Sequence[str]`): The task of each.
        history (`np.ndarray`): int64 rows of the items that users acted on, oldest first, `(batch, longest)`; below 0
            for none.
        queries (`Sequence[str]`): The query of each search; anything for a recommendation.
        query_vectors (`Callable`): Returns text vectors of the queries, `(batch, dimension)`, by the encoder of the
            items' texts; what a recommendation has is not read.
    """

    behaviors: Sequence[Behavior]
    history: np.ndarray
    queries: Sequence[str]
    query_vectors: Callable[[], Tensor]

    def histories(self) -> Ragged:
        """Return the items of each history, oldest first; one that follows itself once."""
        filled = self.history >= 0
        rows = Ragged(self.history[filled], np.concatenate([[0], np.cumsum(filled.sum(1))]))
        if not len(rows.values):
            return rows
        is_same = np.append(False, rows.values[1:] == rows.values[:-1])
        is_same[rows.offsets[:-1][rows.lengths > 0]] = False
        return rows.keep(~is_same)


@dataclass(frozen=True, eq=False)
class CatalogViews:
    """Views over a catalogue that may have grown since they were made; what answers read. Never changed.

    Args:
        views ([`Views`]): As they were saved.
        catalog ([`Catalog`]): The items.
        device (`torch.device`): Where vectors are.
        neighbors (`Mapping`): By what is asked, items like the new ones; a query log reads those of a search.
        new (`np.ndarray`): int64 rows of the new items.
    """

    views: Views
    catalog: Catalog
    device: torch.device
    neighbors: Mapping[Behavior, TextNeighbors | None]
    new: np.ndarray

    @cached_property
    def recommender(self) -> SASRecForNextItem:
        """The recommender on the device."""
        recommender = self.views.recommender
        if recommender is None:
            raise ConfigurationError(
                "The views contain no recommender; give weights to other views than 'collaborative'."
            )
        if self.device.type == "cpu":
            return recommender
        moved = copy.deepcopy(recommender)
        moved.to(self.device)  # type: ignore[arg-type]
        return moved

    @cached_property
    def item_vectors(self) -> Tensor:
        """The recommender's vectors of all items; a new one has the mean of those with texts like its own.

        So has one that was there without an event to learn from: its own vector is one that nobody is to be answered.
        """
        known = self._known_vectors
        # A model that does not know how many items it was trained with has later ones, and none of them is new to it.
        if len(self.catalog) <= len(known) and not len(self.new):
            return known[: len(self.catalog)]
        return self._vectors_from(0)

    @property
    def _known_vectors(self) -> Tensor:
        return self.recommender.model.item_embedding.weight.detach()[1 : self.views.num_items + 1]

    def _vectors_from(self, first: int) -> Tensor:
        """Return the vectors of the items from a row on."""
        known = self._known_vectors
        kept = known[first : len(self.catalog)]
        vectors = torch.cat([kept, known.mean(0).expand(len(self.catalog) - first - len(kept), -1)])
        neighbors = self.neighbors.get(RECOMMENDATION)
        if neighbors is not None:
            is_later = self.new >= first
            rows = torch.from_numpy(neighbors.rows[neighbors.of_new[is_later]]).to(self.device)
            places = torch.from_numpy(self.new[is_later] - first).to(self.device)
            vectors[places] = known[rows.clamp_max(len(known) - 1)].mean(1)
        return vectors

    @cached_property
    def lexical(self) -> LexicalIndex:
        """The words of all items."""
        index = self.views.lexical
        if index is None:
            raise ConfigurationError(
                "The views contain no words of items; give weights to other views than 'lexical'."
            )
        return index.grown(self.catalog.items)

    @cached_property
    def unsearched(self) -> UnsearchedWords:
        """The words of all items that no search had."""
        words = self.views.unsearched
        if words is None:
            raise ConfigurationError(
                "The views contain no words without a search; give weights to other views than 'unsearched'."
            )
        return words.grown(self.catalog.items)

    @cached_property
    def item_table(self) -> VectorTable:
        """The recommender's vectors, to be multiplied."""
        return VectorTable(self.item_vectors)

    @cached_property
    def texts(self) -> VectorTable:
        """Text vectors of the items less the mean of the first, of unit length.

        What all texts of a catalogue share says nothing about which of them are alike.
        """
        vectors = self.catalog.embeddings.get("semantic")
        if vectors is None:
            raise ConfigurationError("The catalogue has no text vectors; give weights to other views than 'semantic'.")
        whole = self._text_tensor(vectors)
        return VectorTable.of_directions(whole, whole[: self.views.num_items].mean(0))

    def _text_tensor(self, vectors: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)).to(self.device)

    @classmethod
    def after(
        cls,
        before: object,
        views: Views,
        catalog: Catalog,
        device: torch.device,
        neighbors: Mapping[Behavior, TextNeighbors | None],
        new: np.ndarray,
    ) -> CatalogViews:
        """Make views of a catalogue that came after another; of items that both have, nothing is made again.

        Args:
            before (`CatalogViews`, *optional*): Those of the catalogue before; anything else for none.
            views ([`Views`]): As for the class, like the rest.
            catalog ([`Catalog`]): The items.
            device (`torch.device`): Where vectors are.
            neighbors (`Mapping`): As for the class.
            new (`np.ndarray`): int64 rows of the new items.
        """
        made = cls(views, catalog, device, neighbors, new)
        if not isinstance(before, cls) or (before.views, before.device) != (views, device):
            return made
        kept, own, count = before.__dict__, made.__dict__, len(before.catalog)
        if "recommender" in kept:
            own["recommender"] = before.recommender
        if not views.num_items <= count <= len(catalog):
            return made
        for name in ("lexical", "unsearched"):
            if name in kept:
                fields = list(TEXT_FIELDS if name == "unsearched" else before.lexical.settings.fields)
                if catalog.items.slice(0, count).select(fields).equals(before.catalog.items.select(fields)):
                    own[name] = kept[name].grown(catalog.items)
        old, vectors = before.catalog.embeddings.get("semantic"), catalog.embeddings.get("semantic")
        if old is None or vectors is None or not begins_with(vectors, old) or device.type != "cpu":
            return made
        if "texts" in kept:
            own["texts"] = before.texts.grown(made._text_tensor(vectors))
        if "item_vectors" in kept and np.array_equal(new[new < count], before.new):
            more = made._vectors_from(count)
            if len(more):
                own["item_vectors"] = torch.from_numpy(append_rows(before.item_vectors.numpy(), more.numpy()))
            else:
                own["item_vectors"] = before.item_vectors
            own["item_table"] = before.item_table.grown(own["item_vectors"])
        return made

    def added(self, requests: ViewRequests, weights: ViewWeights, scale: float) -> list[Part]:
        """Return what the views add for a batch of requests.

        Args:
            requests ([`ViewRequests`]): What was asked.
            weights (`Mapping`): By task, then by view.
            scale (`float`): What a unit of log-probability is in the model's scores.
        """
        of = {
            name: np.array([weights.get(task, {}).get(name, 0.0) * scale for task in requests.behaviors], np.float32)
            for name in ANSWER_VIEWS
        }
        histories = requests.histories()
        # Requests may have been read with a larger catalogue.
        histories = histories.keep(histories.values < len(self.catalog))
        parts: list[Part] = []
        if of["collaborative"].any():
            parts.append(self._collaborative(histories, of["collaborative"]))
        if (factors := of["item_knn"]).any():
            nearest = self.views.item_knn
            if nearest is None:
                raise ConfigurationError(
                    "The views contain no neighbors of items; give weights to other views than 'item_knn'."
                )
            asked = np.flatnonzero(factors)
            latest = Ragged.from_arrays([histories[number][-_NUM_LATEST:] for number in asked.tolist()])
            parts.append(self._matches(self._with_new(nearest.scores(latest), RECOMMENDATION), asked, factors))
        is_search = np.array([task == SEARCH for task in requests.behaviors])
        if (factors := of["lexical"] * is_search).any():
            asked = np.flatnonzero(factors)
            found = self.lexical.scores([requests.queries[number] for number in asked.tolist()])
            parts.append(self._matches(found, asked, factors))
        if (factors := of["unsearched"] * is_search).any():
            asked = np.flatnonzero(factors)
            found = self.unsearched.scores([requests.queries[number] for number in asked.tolist()])
            found.data *= np.repeat(factors[asked], np.diff(found.indptr))
            parts.append(self._entries(found, asked, len(factors)))
        if (factors := of["query_log"] * is_search).any():
            log = self.views.query_log
            if log is None:
                raise ConfigurationError(
                    "The views contain no query log; give weights to other views than 'query_log'."
                )
            asked = np.flatnonzero(factors)
            clicked = log.scores([requests.queries[number] for number in asked.tolist()])
            found = self._with_new(clicked, SEARCH)
            parts.append(self._matches(found, asked, factors))
        if of["semantic"].any():
            parts += self._semantic(requests, histories, of["semantic"], is_search)
        if of["new"].any() and len(self.new):
            parts.append(Products(torch.from_numpy(of["new"]).to(self.device)[:, None], self._new_table))
        return parts

    @cached_property
    def _new_table(self) -> VectorTable:
        return VectorTable(torch.from_numpy(self._is_new.astype(np.float32))[:, None].to(self.device))

    @cached_property
    def _is_new(self) -> np.ndarray:
        marks = np.zeros(len(self.catalog), bool)
        marks[self.new] = True
        return marks

    def _collaborative(self, histories: Ragged, factors: np.ndarray) -> Products:
        recommender, items = self.recommender, self.item_vectors
        longest = recommender.config.max_history
        rows = torch.from_numpy(Ragged.from_arrays([line[-longest:] for line in histories]).pad(-1)).to(self.device)
        table = recommender.model.item_embedding.weight
        start = table[recommender.config.start_token_id].expand(len(rows), 1, -1)
        embeds = torch.cat([start, items[rows.clamp_min(0)]], dim=1)
        tokens = F.pad(rows >= 0, (1, 0), value=True)
        last = tokens.sum(1) - 1
        # The start is read before a history that leaves room for it.
        tokens[:, 0] = last < longest
        states = recommender.model(tokens.long(), inputs_embeds=embeds).last_hidden_state
        latest = states[torch.arange(len(rows), device=self.device), last]
        weighted = latest * torch.from_numpy(factors).to(self.device)[:, None]
        return Products(weighted, self.item_table)

    def _matches(self, found: csr_array, asked: np.ndarray, factors: np.ndarray) -> Entries:
        """Soften the scores of matches; see `views.py`."""
        for place, number in enumerate(asked.tolist()):
            values = found.data[slice(*found.indptr[place : place + 2])]
            values[:] = np.log1p(values * (_SCALE / max(float(values.max(initial=0.0)), 1e-12))) * factors[number]
        return self._entries(found, asked, len(factors))

    def _entries(self, found: csr_array, asked: np.ndarray, num_requests: int) -> Entries:
        """Make a part of scores, of which the requests asked have a row each."""
        found.sort_indices()
        lines = [(np.empty(0, np.int64), np.empty(0, np.float32))] * num_requests
        for place, number in enumerate(asked.tolist()):
            inside = slice(*found.indptr[place : place + 2])
            lines[number] = (found.indices[inside].astype(np.int64), found.data[inside])
        return Entries.from_lines(lines, self.device)

    def _semantic(
        self, requests: ViewRequests, histories: Ragged, factors: np.ndarray, is_search: np.ndarray
    ) -> list[Part]:
        texts = self.texts
        questions = torch.zeros(len(factors), texts.vectors.shape[1], device=self.device)
        for number in np.flatnonzero(factors * ~is_search).tolist():
            line = histories[number]
            if len(line):
                rows = torch.from_numpy(line).to(self.device)
                share = TEXT_DECAY ** torch.arange(len(line) - 1, -1, -1, device=self.device)
                questions[number] = float(factors[number]) * (share / share.sum()) @ texts.of(rows)
        searches = np.flatnonzero(factors * is_search)
        if len(searches):
            places = torch.from_numpy(searches).to(self.device)
            asked = F.normalize(requests.query_vectors().to(self.device)[places].float(), dim=-1)
            questions[places] = asked * torch.from_numpy(factors[searches]).to(self.device)[:, None]
        # Vectors of items less the mean have unit length, up to rounding.
        products = Products(questions, texts, 1.001 * questions.norm(dim=1) + 1e-6)
        nothing = np.empty(0, np.int64)
        taken = Ragged.from_arrays(
            [nothing if is_asked else np.unique(line) for line, is_asked in zip(histories, is_search, strict=True)]
        )
        owners, rows = (torch.from_numpy(part).to(self.device) for part in (taken.owners(), taken.values))
        return [products, Entries(taken, -products.of(owners, rows).cpu().numpy(), self.device)]

    def _with_new(self, scores: csr_array, behavior: Behavior) -> csr_array:
        """Give an item without an event the mean of those that are like it."""
        wide = csr_array((scores.data, scores.indices, scores.indptr), shape=(scores.shape[0], len(self.catalog)))
        neighbors = self.neighbors.get(behavior)
        if neighbors is None:
            return wide
        # One that counts as new may have been acted on: that is nothing to know.
        wide.data = np.where(self._is_new[wide.indices], np.float32(0), wide.data)
        taken = csr_array(scores[:, neighbors.rows] @ neighbors.takers)
        return csr_array(wide + csr_array((taken.data, self.new[taken.indices], taken.indptr), shape=wide.shape))


__all__ = ["TEXT_DECAY", "CatalogViews", "ViewRequests"]
