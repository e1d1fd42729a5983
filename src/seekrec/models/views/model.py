# SPDX-License-Identifier: Apache-2.0
"""A model to whose scores views and boosts are added."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar, Protocol, Self, TypeVar

import numpy as np
from torch import Tensor
from transformers import BatchFeature

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError, RequestError
from seekrec.models.answers import ExcludeSeen, Where
from seekrec.models.new_items import TextNeighbors
from seekrec.models.repository import RepositoryModel
from seekrec.models.views.added import AddedScores
from seekrec.models.views.boosts import Boost, read_boost
from seekrec.models.views.catalog_views import CatalogViews, ViewRequests
from seekrec.models.views.parts import Part
from seekrec.models.views.views import Views
from seekrec.models.views.weights import ViewWeights, read_view_weights
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, ScoredItem

# Items of a request that views find where a model orders what they found, unless more are wanted.
NUM_VIEWED = 100

ValueT = TypeVar("ValueT")


class Snapshot(Protocol):
    """What is read of a [`~seekrec.models.base.CatalogSnapshot`]."""

    catalog: Catalog
    num_items: int

    def value(self, name: Hashable, make: Callable[[], ValueT], key: object = None) -> ValueT:
        """Return a value that is made at first use."""

    def before(self, name: Hashable) -> object:
        """Return the value of the catalogue before, once."""

    def new_rows(self, num_trained: int) -> np.ndarray:
        """Return the items that training knows no event of."""

    def text_neighbors(self, num_trained: int, behavior: Behavior) -> TextNeighbors | None:
        """Return the items that are like new ones, where something is asked."""


class ViewedModel(RepositoryModel):
    """A model that may be saved with views, and answers by its own scores and what they add."""

    # Fields of the configuration that validation may choose after training.
    chosen_fields: ClassVar[tuple[str, ...]] = ("view_weights",)
    # What else is known of items; see `set_views`.
    _views: Views | None = None

    @property
    def views(self) -> Views | None:
        """What may be added to the model's own scores, by `config.view_weights`; `None` for nothing."""
        return self._views

    def set_views(self, views: Views | None) -> None:
        """Add what these views say to the model's own scores from now on, as `config.view_weights` weighs them.

        They are saved with the model.

        Args:
            views ([`Views`], *optional*): Made for the items that the model was trained with; `None` for nothing.

        Raises:
            CatalogError: If they are of another catalogue.
        """
        if views is not None and views.num_items > len(self.catalog):
            raise CatalogError(
                f"`views` were made for {views.num_items} items, the model's catalogue has {len(self.catalog)}; make "
                "them for its own."
            )
        self._views = views

    def without_views(self) -> Self:
        """Return this model with nothing added to its own scores; weights and catalogue are the same ones."""
        alone = copy.copy(self)
        alone._views = None
        return alone

    @property
    def view_weights(self) -> ViewWeights:
        """The weights of `config.view_weights`, by task and view."""
        return read_view_weights(self.config.view_weights)

    @property
    def score_unit(self) -> float:
        """What one unit of log-probability is in the model's scores; weights of views are in these units."""
        return 1.0

    @property
    def finds_by_views(self) -> bool:
        """Whether `retrieve` orders what views rank best, so that without views it answers nothing."""
        return False

    @abstractmethod
    def _query_vectors(self, inputs: BatchFeature, queries: Sequence[str]) -> Tensor:
        """Return the text vector of each request's query, `(batch, dimension)`; anything for one without a query.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of the requests.
            queries (`Sequence[str]`): The queries, empty for none.
        """

    def _added(
        self,
        snapshot: Snapshot,
        inputs: BatchFeature,
        behavior_ids: Sequence[int],
        history: Tensor | None,
        boost: Boost,
    ) -> AddedScores | None:
        """Return what is added to the model's own scores; `None` for nothing.

        Args:
            snapshot ([`CatalogSnapshot`]): What is answered from.
            inputs ([`~transformers.BatchFeature`]): What the processor made of the requests.
            behavior_ids (`Sequence[int]`): Numbers into `BEHAVIORS`, one for each request.
            history (`torch.Tensor`, *optional*): As in `_retrieve`.
            boost (*optional*): See [`retrieve`].
        """
        parts: list[Part] = []
        numbers = read_boost(boost, snapshot.catalog, len(behavior_ids), self.device)
        if numbers is not None:
            parts.append(numbers)
        views, weights = self._views, self.view_weights
        if views is not None and weights:
            known = self.catalog_views(snapshot, views)
            parts += known.added(self.view_requests(inputs, behavior_ids, history), weights, self.score_unit)
        return AddedScores(parts, len(behavior_ids), snapshot.num_items, self.device) if parts else None

    def catalog_views(self, snapshot: Snapshot, views: Views) -> CatalogViews:
        """Return views ready for the items of a catalogue, new ones included; made by the first call.

        Args:
            snapshot ([`CatalogSnapshot`]): The catalogue.
            views ([`Views`]): As they are saved.
        """
        num_trained = self.config.num_items

        def make() -> CatalogViews:
            new = snapshot.new_rows(num_trained)
            # To find them takes long in a large catalogue, so those alone that a view reads.
            readers = {RECOMMENDATION: (views.recommender, views.item_knn), SEARCH: (views.query_log,)}
            neighbors = {
                behavior: snapshot.text_neighbors(num_trained, behavior)
                for behavior, parts in readers.items()
                if len(new) and any(part is not None for part in parts)
            }
            before = snapshot.before("views")
            return CatalogViews.after(before, views, snapshot.catalog, self.device, neighbors, new)

        return snapshot.value("views", make, (views, self.device))

    def _viewed_history(self, inputs: BatchFeature) -> Tensor:
        """Return the history that views read: int64 rows of items, oldest first, `(batch, any)`, below 0 for none."""
        if "seen_rows" not in inputs:
            raise RequestError("The inputs do not say what was seen, which views read; use the model's processor.")
        rows: Tensor = inputs["seen_rows"]
        return rows

    def view_requests(
        self, inputs: BatchFeature, behavior_ids: Sequence[int], history: Tensor | None = None
    ) -> ViewRequests:
        """Return what views read of a batch; for the arguments see `_added`."""
        read = self._viewed_history(inputs) if history is None else history
        letters = inputs["query_letters"].cpu().numpy()
        queries = [bytes(line[line > 0]).decode() for line in letters]
        return ViewRequests(
            [BEHAVIORS[number] for number in behavior_ids],
            read.cpu().numpy(),
            queries,
            lambda: self._query_vectors(inputs, queries),
        )

    @property
    @abstractmethod
    def catalog(self) -> Catalog:
        """The items that can be answered."""

    @abstractmethod
    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on."""

    @abstractmethod
    def current_snapshot(self) -> Snapshot:
        """Return what a call that begins now answers from."""

    @abstractmethod
    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int] = 10,
        where: Where = None,
        exclude_seen: ExcludeSeen = None,
        boost: Boost = None,
    ) -> list[list[ScoredItem]]:
        """Find the best items of the whole catalogue."""

    @abstractmethod
    def score_items(self, inputs: BatchFeature, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Score items as [`retrieve`] does, with nothing added.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of requests.
            rows (`Sequence[np.ndarray]`): int64 rows of the catalogue, a line per request.

        Returns:
            `list[np.ndarray]`: float32 scores in the shapes of `rows`.
        """


__all__ = ["NUM_VIEWED", "Snapshot", "ViewedModel"]
