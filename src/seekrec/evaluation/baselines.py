# SPDX-License-Identifier: Apache-2.0
"""Baselines for generative models, as scorers over the rows of the catalogue.

They are meant to be hard to beat: BM25 folds plurals and reads the category names, SASRec is trained to full strength,
and `reweighted.py` combines a text scorer with SASRec, tuned on validation. All of them use training events only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from seekrec.errors import DataError, RequestError
from seekrec.events import Split
from seekrec.events.columns import RowArray, history_rows
from seekrec.events.matching import TEXT_FIELDS, WordIndex, item_words
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, IdMap, Request
from seekrec.util.text import fold_text, split_words

Float32Array = npt.NDArray[np.float32]

# Items of a history that dense text takes the mean of.
NUM_HISTORY_ITEMS = 5


class Popularity:
    """Every item by how often it was acted on in training, the same for every request.

    Args:
        counts (`np.ndarray`): Number of training events of each catalogue row, `(num_items,)`.
    """

    behaviors: tuple[Behavior, ...] = BEHAVIORS

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = np.asarray(counts, dtype=np.float64)

    @classmethod
    def fit(cls, split: Split, id_map: IdMap) -> Popularity:
        """Count the training interactions of both behaviors.

        Args:
            split (`Split`): Its training events are used.
            id_map ([`IdMap`]): Items of the catalogue; events with other items are left out.
        """
        acted_on = split.log.events["item_id"].take(split.training_interactions())
        rows = pc.index_in(acted_on, value_set=pa.array(id_map.ids, pa.string()))
        known = np.asarray(pc.drop_null(rows), dtype=np.int64)
        return cls(np.bincount(known, minlength=len(id_map)))

    def score_all(self, requests: Sequence[Request]) -> npt.NDArray[np.float64]:
        """Return the counts for each request; see [`Scorer`]."""
        return np.broadcast_to(self.counts, (len(requests), len(self.counts)))


class BM25:
    """Words of the query in the words of the items, by BM25 (Lucene's variant). Searches only.

    Words are folded alike in items and queries (see [`~seekrec.util.text.split_words`]).

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES` in the order of the catalogue.
        k1 (`float`): How much a word's repetition counts; 0 = not at all.
        b (`float`): How much longer texts are discounted, 0 to 1.
        fields (`Sequence[str]`): What is searched: any of `"title"`, `"description"`, `"categories"`.

    Raises:
        DataError: If no item has a word.
        ConfigurationError: If `k1` is negative, `b` outside 0..1, or a field is unknown.
    """

    behaviors: tuple[Behavior, ...] = (SEARCH,)

    def __init__(
        self, items: pa.Table, *, k1: float = 1.5, b: float = 0.75, fields: Sequence[str] = TEXT_FIELDS
    ) -> None:
        self._index = WordIndex(item_words(items, fields), k1=k1, b=b)
        self.details: dict[str, object] = {"k1": k1, "b": b, "fields": list(fields)}

    @classmethod
    def variants(
        cls, items: pa.Table, settings: Sequence[tuple[float, float]], fields: Sequence[str] = TEXT_FIELDS
    ) -> dict[str, BM25]:
        """Build one BM25 for each `(k1, b)`, splitting the texts into words only once.

        Args:
            items (`pyarrow.Table`): As for [`BM25`].
            settings (`Sequence[tuple[float, float]]`): Pairs `(k1, b)`.
            fields (`Sequence[str]`): As for [`BM25`].

        Returns:
            `dict[str, BM25]`: By a name that says fields and settings.
        """
        words = item_words(items, fields)
        built = {}
        for k1, b in settings:
            one = cls.__new__(cls)
            one._index = WordIndex(words, k1=k1, b=b)
            one.details = {"k1": k1, "b": b, "fields": list(fields)}
            built[f"BM25({'+'.join(fields)}, k1={k1}, b={b})"] = one
        return built

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score by the query alone; items without a word of it get 0. See [`Scorer`]."""
        queries, inverse = distinct_queries(requests, "BM25")
        return np.stack([self._index.score(split_words(query)) for query in queries])[inverse]


class DenseText:
    """Cosine of text embeddings: items against the query, or against the mean of the last items of the history.

    `NUM_HISTORY_ITEMS` of them stand for the user in a recommendation.

    Args:
        item_embeddings (`np.ndarray`): float32 `(num_items, dim)` of unit length, in the order of the catalogue.
        id_map ([`IdMap`]): Items of the catalogue.
        embed (`Callable`): Texts to float32 `(num_texts, dim)` of unit length, by the same encoder.

    Raises:
        DataError: If there is not one embedding of unit length for each item.
    """

    behaviors: tuple[Behavior, ...] = BEHAVIORS

    def __init__(
        self,
        item_embeddings: np.ndarray,
        id_map: IdMap,
        embed: Callable[[list[str]], np.ndarray],
    ) -> None:
        if item_embeddings.ndim != 2 or len(item_embeddings) != len(id_map):
            raise DataError(
                f"`item_embeddings` has shape {item_embeddings.shape}, the catalogue {len(id_map)} items; pass "
                "one row for each item."
            )
        lengths = np.linalg.norm(item_embeddings, axis=1)
        wrong = ~(np.abs(lengths - 1) < 1e-2)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"The embedding in row {row} has length {lengths[row]:.4g}; scale embeddings to length 1.")
        self.item_embeddings = np.asarray(item_embeddings, dtype=np.float32)
        self.id_map = id_map
        self.embed = embed
        self.details = {"num_history_items": NUM_HISTORY_ITEMS}
        self._query_vectors: dict[str, Float32Array] = {}

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score searches by the query, recommendations by the history (all 0 if it is empty); see [`Scorer`]."""
        vectors = np.zeros((len(requests), self.item_embeddings.shape[1]), dtype=np.float32)
        searches = [row for row, request in enumerate(requests) if request.query is not None]
        if searches:
            vectors[searches] = self._embed_queries([requests[row].query or "" for row in searches])
        for row, (request, history) in enumerate(zip(requests, history_rows(requests, self.id_map), strict=True)):
            last = history[-NUM_HISTORY_ITEMS:]
            if request.query is None and len(last):
                mean = self.item_embeddings[last].mean(axis=0)
                vectors[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return vectors @ self.item_embeddings.T

    def _embed_queries(self, queries: list[str]) -> Float32Array:
        queries = list(map(fold_text, queries))
        new = [query for query in dict.fromkeys(queries) if query not in self._query_vectors]
        if new:
            self._query_vectors.update(zip(new, np.asarray(self.embed(new), dtype=np.float32), strict=True))
        return np.stack([self._query_vectors[query] for query in queries])


class NextItemModel(Protocol):
    """What [`SASRecScorer`] needs of a model; [`~seekrec.embeddings.SASRecForNextItem`] has it."""

    def score(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Score all items as the next of each history: a tensor `(num_histories, num_items)`."""
        ...


class SASRecScorer:
    """A sequential recommender over item rows. In a search it ignores the query.

    Args:
        model (`NextItemModel`): Trained on the rows of `id_map`, on histories where an item that follows itself counts
            once.
        id_map ([`IdMap`]): Items of the catalogue.
    """

    behaviors: tuple[Behavior, ...] = BEHAVIORS

    def __init__(self, model: NextItemModel, id_map: IdMap) -> None:
        self.model = model
        self.id_map = id_map

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score by the history alone; see [`Scorer`]."""
        histories = list(_collapsed_histories(requests, self.id_map))
        return np.asarray(self.model.score(histories), dtype=np.float32)


class GraphModel(Protocol):
    """What [`LightGCNScorer`] needs of a model; [`~seekrec.embeddings.LightGCNModel`] has it."""

    def score(self, histories: Sequence[np.ndarray], user_rows: np.ndarray | None = None) -> Tensor:
        """Score all items for each user: a tensor `(num_histories, num_items)`."""
        ...


class LightGCNScorer:
    """A graph recommender over item rows. It knows users, not orders; in a search it ignores the query.

    A user that the graph contains is scored by its embedding, which training events made; another one, or a request
    without a user, by the items of its history.

    Args:
        model (`GraphModel`): Trained on the rows of `id_map`.
        id_map ([`IdMap`]): Items of the catalogue.
        user_ids (`Sequence[str]`): Users of the graph, in row order.
    """

    behaviors: tuple[Behavior, ...] = BEHAVIORS

    def __init__(self, model: GraphModel, id_map: IdMap, user_ids: Sequence[str]) -> None:
        self.model = model
        self.id_map = id_map
        self.users = IdMap(user_ids)

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score by the user, else by the history; see [`Scorer`]."""
        histories = list(history_rows(requests, self.id_map))
        known = self.users.convert_to_rows((request.user_id or "" for request in requests), strict=False)
        return np.asarray(self.model.score(histories, known), dtype=np.float32)


def distinct_queries(requests: Sequence[Request], system: str) -> tuple[list[str], RowArray]:
    """Return the distinct queries and, for each request, which of them it asks."""
    numbers: dict[str, int] = {}
    inverse = np.empty(len(requests), dtype=np.int64)
    for row, request in enumerate(requests):
        if request.query is None:
            raise RequestError(
                f"Request {row} has no query, but {system} answers searches only; use another system for "
                f"{RECOMMENDATION}s."
            )
        inverse[row] = numbers.setdefault(request.query, len(numbers))
    return list(numbers), inverse


def _collapsed_histories(requests: Sequence[Request], id_map: IdMap) -> Iterator[RowArray]:
    for history in history_rows(requests, id_map):
        keep = np.ones(len(history), dtype=np.bool_)
        keep[1:] = history[1:] != history[:-1]
        yield history[keep]
