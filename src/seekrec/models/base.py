# SPDX-License-Identifier: Apache-2.0
"""The base class of every family: a model with a catalogue that it searches and recommends from.

Every call answers from one [`CatalogSnapshot`], whatever other threads set meanwhile. Expensive objects (tries, item
vectors, an index) are made at first use and kept in the snapshot whose catalogue they were made from, so a slow thread
cannot store outdated objects in a newer snapshot.

[`GenerativeModel`] (identifiers) and [`DenseRetrieval`] (vectors) implement how a catalogue is searched and how
candidates are scored; this module has what both share.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import BatchFeature

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError, NotFiniteError, RequestError
from seekrec.generation.beam_search import per_request
from seekrec.models.answers import ExcludeSeen, Found, Masks, Where, allowed_items
from seekrec.models.base_saved import SavedModel
from seekrec.models.new_items import NUM_TEXT_NEIGHBORS, TextNeighbors
from seekrec.models.processing import CatalogInputs, other_item
from seekrec.models.views import AddedScores, Boost
from seekrec.schema import SEARCH, Behavior, ScoredItem

ValueT = TypeVar("ValueT")


class LazyValues:
    """Values that are made at first use and kept; several threads may ask at once."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[object, object]] = {}
        self._lock = threading.RLock()

    def value(self, name: Hashable, make: Callable[[], ValueT], key: object = None) -> ValueT:
        """Return a value, made by the first call and again when `key` is another one.

        Args:
            name (`Hashable`): Which value.
            make (`Callable`): Makes it.
            key (*optional*): What it depends on besides this object.
        """
        kept = self._kept.get(name)
        if kept is None or kept[0] != key:
            with self._lock:
                kept = self._kept.get(name)
                if kept is None or kept[0] != key:
                    kept = self._kept[name] = (key, make())
        return cast(ValueT, kept[1])

    def take_values(self, other: LazyValues, names: Iterable[Hashable]) -> None:
        """Take what another one has made already and this one would make alike.

        Args:
            other ([`LazyValues`]): The other one.
            names (`Iterable`): Which values.
        """
        self._kept |= {name: other._kept[name] for name in names if name in other._kept}

    def keep_before(self, other: LazyValues, name: Hashable) -> None:
        """Keep what another one has made, for this one to begin from.

        Args:
            other ([`LazyValues`]): The one before.
            name (`Hashable`): Which value.
        """
        made = other._kept.get(name) or other._kept.get((name, "before"))
        if made is not None:
            self._kept[name, "before"] = made

    def before(self, name: Hashable) -> object:
        """Return what [`keep_before`] kept, once; `None` for nothing."""
        return self._kept.pop((name, "before"), (None, None))[1]

    def __deepcopy__(self, memo: dict[int, object]) -> LazyValues:
        # What is never changed is shared. What was made is not: a copy of a model has weights of its own.
        copied = type(self).__new__(type(self))
        copied.__setstate__(self.__getstate__())
        return copied

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        LazyValues.__init__(self)


class CatalogSnapshot(LazyValues):
    """A catalogue and what a model makes of it; nothing in it is ever changed.

    Args:
        catalog ([`Catalog`]): The items that can be answered.
    """

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.catalog, self.num_items = catalog, len(catalog)

    def refuse_other(self, catalog: Catalog) -> None:
        """Refuse the rows of a processor that has another catalogue: they would be taken for those of this one.

        It is compared once; one that has more items at its end, or fewer, is no other.

        Raises:
            RequestError: If a row is another item's, or an identifier is read another way.
        """
        # Weak, so that nothing keeps an old catalogue.
        found = self.value("difference", lambda: self._difference(catalog), weakref.ref(catalog))
        if found is not None:
            raise RequestError(
                f"The inputs were made with a different catalogue than the model's: {found}. Load model and processor "
                "from one checkpoint, or call `processor.set_catalog(model.catalog)`."
            )

    def _difference(self, catalog: Catalog) -> str | None:
        """Say what keeps inputs that were made with a catalogue from being read with this one; `None` for nothing."""
        return other_item(catalog, self.catalog)

    def check_rows(self, name: str, rows: Tensor) -> None:
        """Refuse rows of items that this catalogue does not have: made by a processor with another one.

        Raises:
            RequestError: If one is too large.
        """
        largest = int(rows.max()) if rows.numel() else -1
        if largest >= self.num_items:
            raise RequestError(
                f"`{name}` contains row {largest} of a catalogue, the model's has {self.num_items} items: the inputs "
                "were made with a larger catalogue. Give model and processor the same one; if other threads answer "
                "meanwhile, set a grown catalogue on the model first, a smaller one on the processor first."
            )

    def new_rows(self, num_trained: int) -> np.ndarray:
        """Return the items that training knows no event of, int64 rows.

        A trained scorer has never seen one of them as an answer.

        Args:
            num_trained (`int`): Rows of the catalogue that the model was trained with; 0 if that is not known.
        """

        def find() -> np.ndarray:
            return np.flatnonzero(self._is_new(num_trained) & self.catalog.live)

        return self.value("new_rows", find, num_trained)

    def text_neighbors(self, num_trained: int, behavior: Behavior) -> TextNeighbors | None:
        """Return the items whose scores stand for those of the new items; `None` without text vectors to find them by.

        Args:
            num_trained (`int`): As in [`new_rows`].
            behavior (`str`): What is asked; those of a search are near in categories, too.
        """

        def find() -> TextNeighbors | None:
            vectors = self.catalog.embeddings.get("semantic")
            new, known = self.new_rows(num_trained), np.flatnonzero(~self._is_new(num_trained))
            if vectors is None:
                return None
            categories = self.catalog.items["categories"] if behavior == SEARCH else None
            return TextNeighbors.find(vectors, new, known, count=NUM_TEXT_NEIGHBORS[behavior], categories=categories)

        return self.value(("text_neighbors", behavior), find, num_trained)

    def _is_new(self, num_trained: int) -> np.ndarray:
        is_new = self.catalog.is_predicted.copy()
        is_new[num_trained or len(is_new) :] = True
        return is_new


def has_same_items(old: Catalog, new: Catalog) -> bool:
    """Return whether identifiers and embeddings are the very same arrays, as after `remove_items`.

    Of catalogues with neither, nothing tells that they have.
    """
    pairs = ((old.codes, new.codes), (old.embeddings, new.embeddings))
    is_same = all(own.keys() == its.keys() and all(own[view] is its[view] for view in own) for own, its in pairs)
    return is_same and any(own for own, _ in pairs)


SnapshotT = TypeVar("SnapshotT", bound=CatalogSnapshot)


class CatalogModel(SavedModel, ABC, Generic[SnapshotT]):
    """A `PreTrainedModel` with a catalogue, `retrieve` and `rank`."""

    # What a call answers from. Each call reads it once, and setting a catalogue is one assignment.
    _snapshot: SnapshotT | None = None

    @property
    def catalog(self) -> Catalog:
        """The items that can be answered.

        Raises:
            CatalogError: If none was set.
        """
        return self.current_snapshot().catalog

    def current_snapshot(self, inputs: object = None) -> SnapshotT:
        """Return what a call that begins now answers from; it stays the same whatever is set meanwhile.

        Args:
            inputs ([`CatalogInputs`], *optional*): What is to be answered.

        Raises:
            CatalogError: If no catalogue was set.
            RequestError: If the inputs were made with other items than the catalogue's.
        """
        snapshot = self._snapshot
        if snapshot is None:
            raise CatalogError("The model has no catalogue; load it from a complete checkpoint or call `set_catalog`.")
        made_with = inputs.catalog if isinstance(inputs, CatalogInputs) else None
        if made_with is not None and made_with is not snapshot.catalog:
            snapshot.refuse_other(made_with)
        return snapshot

    def set_catalog(self, catalog: Catalog) -> None:
        """Answer from this catalogue from now on: after `add_items` or `remove_items`, or an earlier one again.

        Other threads may answer meanwhile. A call answers from one catalogue, that which was set when it began, and
        what begins after this has returned answers from the new one.

        The first catalogue that a model gets fixes the items or identifiers that it is trained for; a later one must
        begin with them.

        Args:
            catalog ([`Catalog`]): The items that can be answered.

        Raises:
            CatalogError: If its items or identifiers are not those of the model.
        """
        self._check_catalog(catalog)
        snapshot, old = self._make_snapshot(catalog), self._snapshot
        if old is not None:
            snapshot.keep_before(old, "views")
        self._keep(snapshot)
        self._snapshot = snapshot

    @abstractmethod
    def _check_catalog(self, catalog: Catalog) -> None:
        """Refuse a catalogue that is not of this model."""

    @abstractmethod
    def _make_snapshot(self, catalog: Catalog) -> SnapshotT:
        """Make what answers are made from; changes nothing of the model."""

    @abstractmethod
    def _keep(self, snapshot: SnapshotT) -> None:
        """Note in the configuration what the catalogue fixes, and let the new snapshot take over what stays."""

    @abstractmethod
    def rank(self, inputs: BatchFeature) -> list[list[ScoredItem]]:
        """Order the candidates given to the processor."""

    @torch.no_grad()
    def _retrieve(
        self,
        inputs: BatchFeature,
        behavior_ids: Sequence[int],
        top_k: int | Sequence[int],
        where: Where,
        exclude_seen: ExcludeSeen,
        boost: Boost,
        search: Callable[[SnapshotT, np.ndarray, Masks, AddedScores | None], list[Found]],
        seen_before: np.ndarray | None = None,
        history: Tensor | None = None,
    ) -> list[list[ScoredItem]]:
        """Answer requests by a search over the whole catalogue.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of the requests.
            behavior_ids (`Sequence[int]`): Numbers into `BEHAVIORS`, one for each request.
            top_k (`int` or `Sequence[int]`): See [`retrieve`].
            where (`np.ndarray` or `list`, *optional*): See [`retrieve`].
            exclude_seen (`bool` or `Sequence`, *optional*): See [`retrieve`].
            boost (*optional*): See [`retrieve`].
            search (`Callable`): Finds at most `top_k` of the items allowed for each request: gets the snapshot, the
                numbers of items wanted, the masks, and what is added to the model's own scores.
            seen_before (`np.ndarray`, *optional*): int64 rows of items that users acted on before the inputs begin,
                `(num_requests, any)`, below 0 for none.
            history (`torch.Tensor`, *optional*): int64 rows of items that views read in place of those in `inputs`.
        """
        snapshot = self.current_snapshot(inputs)
        wanted = per_request("top_k", top_k, len(behavior_ids))
        allowed = allowed_items(where, snapshot.catalog, inputs, behavior_ids, exclude_seen, seen_before)
        if not allowed:
            return []
        added = None
        if boost is not None or self._views is not None:
            added = self._added(snapshot, inputs, behavior_ids, history, boost)
        return scored_items(snapshot.catalog, search(snapshot, wanted, allowed, added))

    @torch.no_grad()
    def _rank(
        self,
        inputs: BatchFeature,
        behavior_ids: Sequence[int],
        score: Callable[[SnapshotT, list[np.ndarray]], Sequence[np.ndarray]],
        *,
        reads_views: bool = True,
        history: Tensor | None = None,
    ) -> list[list[ScoredItem]]:
        """Order the candidates of requests.

        Args:
            inputs ([`~transformers.BatchFeature`]): Made by `processor(requests, candidates=...)`.
            behavior_ids (`Sequence[int]`): Numbers into `BEHAVIORS`, one for each request.
            score (`Callable`): Gets the snapshot and the rows of each request's candidates, and returns their scores.
            reads_views (`bool`): Whether the scores are those of [`retrieve`], to which views are added.
            history (`torch.Tensor`, *optional*): As in `_retrieve`.
        """
        snapshot = self.current_snapshot(inputs)
        if "candidate_rows" not in inputs:
            raise RequestError(
                "The inputs contain no candidates; call `processor(requests, candidates=[[...], ...])`."
            )
        snapshot.check_rows("candidate_rows", inputs["candidate_rows"])
        table = inputs["candidate_rows"].cpu().numpy()
        rows = [line[line >= 0] for line in table.reshape(len(table), table.shape[-1])]
        if not rows:
            return []
        scores = score(snapshot, rows)
        if reads_views and self._views is not None:
            if (added := self._added(snapshot, inputs, behavior_ids, history, None)) is not None:
                scores = [own + more for own, more in zip(scores, added.at(rows), strict=True)]
        return scored_items(snapshot.catalog, best_first(rows, scores))


def best_first(rows: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> list[Found]:
    """Order the items of each request by their scores; equal scores stay in the order given.

    Raises:
        NotFiniteError: If a score is not finite.
    """
    ordered = []
    for number, (line, values) in enumerate(zip(rows, scores, strict=True)):
        if not np.isfinite(values).all():
            raise NotFiniteError(
                f"The scores of request {number} hold {int((~np.isfinite(values)).sum())} numbers that are not finite "
                "(NaN or infinite); check the weights of the model and its data type."
            )
        order = np.argsort(-values, kind="stable")
        ordered.append((line[order], values[order]))
    return ordered


def scored_items(catalog: Catalog, found: Sequence[Found]) -> list[list[ScoredItem]]:
    """Make answers from rows of the catalogue and their scores."""
    rows = np.concatenate([rows for rows, _ in found])
    named = catalog.items.select(["item_id", "title"]).take(pa.array(rows))
    item_ids, titles = (column.to_pylist() for column in named.columns)
    if not all(title and title.strip() for title in titles):
        titles = catalog.titles_of_rows(rows)
    items = zip(item_ids, titles, strict=True)
    # The scores of a request first: they end before another request's item is taken.
    return [
        [ScoredItem(item_id, score, title) for score, (item_id, title) in zip(scores.tolist(), items, strict=False)]
        for _, scores in found
    ]


__all__ = ["CatalogModel", "CatalogSnapshot", "SnapshotT", "best_first", "has_same_items"]
