# SPDX-License-Identifier: Apache-2.0
"""The base of every family: a model with a catalogue that it searches, recommends from, and is saved with.

Every call answers from one [`CatalogSnapshot`], whatever other threads set meanwhile. What is costly to make (tries,
item vectors, an index) is made at first use and kept in the snapshot whose catalogue it was made from: who finishes
late puts nothing old into something new.

A model carries its catalogue: `save_pretrained` writes it into the folder `catalog` beside the weights, and
`from_pretrained` reads it back and refuses one whose items are not those the weights were trained for.

[`GenerativeModel`] (identifiers) and [`DenseRetrieval`] (vectors) say how a catalogue is searched and how candidates
are scored; what is the same for both stands here.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from seekrec.catalog import Catalog
from seekrec.errors import CatalogError, CheckpointError, RequestError
from seekrec.generation.inputs import per_request
from seekrec.models.answers import Found, Masks, Where, allowed_items
from seekrec.models.checkpoint import check_depth, load_bundled_catalog, save_bundled_catalog, split_hub_arguments
from seekrec.models.manifest import VIEWS_FOLDER, check_part, hub_arguments, replace_part
from seekrec.models.snapshots import CatalogSnapshot, LazyValues, has_same_items
from seekrec.models.views import (
    AddedScores,
    Boost,
    CatalogViews,
    ViewRequests,
    Views,
    ViewWeights,
    load_views,
    read_boost,
    read_view_weights,
)
from seekrec.models.views.added import Part
from seekrec.schema import BEHAVIORS, ScoredItem
from seekrec.util.finite import check_finite, check_weights

SnapshotT = TypeVar("SnapshotT", bound=CatalogSnapshot)


class CatalogModel(PreTrainedModel, ABC, Generic[SnapshotT]):
    """A `PreTrainedModel` with a catalogue, `retrieve` and `rank`."""

    # What a call answers from. Each call reads it once, and setting a catalogue is one assignment.
    _snapshot: SnapshotT | None = None
    # What else is known of items; see `set_views`.
    _views: Views | None = None

    @property
    def catalog(self) -> Catalog:
        """The items that can be answered.

        Raises:
            CatalogError: If none was set.
        """
        return self.current_snapshot().catalog

    def current_snapshot(self) -> SnapshotT:
        """Return what a call that begins now answers from; it stays the same whatever is set meanwhile.

        Raises:
            CatalogError: If no catalogue was set.
        """
        snapshot = self._snapshot
        if snapshot is None:
            raise CatalogError("The model has no catalogue; load it from a complete checkpoint or call `set_catalog`.")
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
        snapshot = self._make_snapshot(catalog)
        self._keep(snapshot)
        self._snapshot = snapshot

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

    @property
    def view_weights(self) -> ViewWeights:
        """The weights of `config.view_weights`, by task and view."""
        return read_view_weights(self.config.view_weights)

    @property
    def score_unit(self) -> float:
        """What one unit of log-probability is in the model's scores; weights of views are in these units."""
        return 1.0

    def _query_vectors(self, inputs: BatchFeature) -> Tensor | None:
        """Return the text vector of each request's query, `(batch, dimension)`; `None` where inputs have none."""
        return None

    def _added(
        self,
        snapshot: SnapshotT,
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
            known = snapshot.value("views", lambda: self.catalog_views(snapshot, views), (views, self.device))
            parts += known.added(self.view_requests(inputs, behavior_ids, history), weights, self.score_unit)
        return AddedScores(parts, len(behavior_ids), snapshot.num_items) if parts else None

    def catalog_views(self, snapshot: SnapshotT, views: Views) -> CatalogViews:
        """Make views ready for the items of a catalogue, new ones included.

        Args:
            snapshot ([`CatalogSnapshot`]): The catalogue.
            views ([`Views`]): As they are saved.
        """
        num_trained = self.config.num_items
        new = snapshot.new_rows(num_trained)
        neighbors = snapshot.text_neighbors(num_trained) if len(new) else None
        return CatalogViews(views, snapshot.catalog, self.device, neighbors, new)

    def view_requests(
        self, inputs: BatchFeature, behavior_ids: Sequence[int], history: Tensor | None = None
    ) -> ViewRequests:
        """Return what views read of a batch; for the arguments see `_added`."""
        letters = inputs["query_letters"].cpu().numpy()
        return ViewRequests(
            [BEHAVIORS[number] for number in behavior_ids],
            (inputs["seen_rows"] if history is None else history).cpu().numpy(),
            [bytes(line[line > 0]).decode() for line in letters],
            self._query_vectors(inputs),
        )

    @abstractmethod
    def score_items(self, inputs: BatchFeature, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Score items as [`retrieve`] does, with nothing added.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of requests.
            rows (`Sequence[np.ndarray]`): int64 rows of the catalogue, a line a request.

        Returns:
            `list[np.ndarray]`: float32 scores in the shapes of `rows`.
        """

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
    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int] = 10,
        where: Where = None,
        exclude_seen: bool | None = None,
    ) -> list[list[ScoredItem]]:
        """Find the best items of the whole catalogue."""

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
        exclude_seen: bool | None,
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
            exclude_seen (`bool`, *optional*): See [`retrieve`].
            boost (*optional*): See [`retrieve`].
            search (`Callable`): Finds at most `top_k` of the items allowed for each request: gets the snapshot, the
                numbers of items wanted, the masks, and what is added to the model's own scores.
            seen_before (`np.ndarray`, *optional*): int64 rows of items that users acted on before the inputs begin,
                `(num_requests, any)`, below 0 for none.
            history (`torch.Tensor`, *optional*): int64 rows of the items of histories, oldest first, that views read
                in place of `seen_rows`.
        """
        snapshot = self.current_snapshot()
        wanted = per_request("top_k", top_k, len(behavior_ids))
        allowed = allowed_items(where, snapshot.catalog, inputs, behavior_ids, exclude_seen, seen_before)
        if not allowed:
            return []
        added = None
        if boost is not None or self._views is not None:
            added = self._added(snapshot, inputs, behavior_ids, history, boost)
        return [scored_items(snapshot.catalog, *found) for found in search(snapshot, wanted, allowed, added)]

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
        snapshot = self.current_snapshot()
        if "candidate_rows" not in inputs:
            raise RequestError("The inputs hold no candidates; call `processor(requests, candidates=[[...], ...])`.")
        snapshot.check_rows("candidate_rows", inputs["candidate_rows"])
        table = inputs["candidate_rows"].cpu().numpy()
        rows = [line[line >= 0] for line in table.reshape(len(table), table.shape[-1])]
        if not rows:
            return []
        scores = score(snapshot, rows)
        if reads_views and self._views is not None:
            added = self._added(snapshot, inputs, behavior_ids, history, None)
            if added is not None:
                scores = [own + more for own, more in zip(scores, added.at(rows), strict=True)]
        return [scored_items(snapshot.catalog, *found) for found in best_first(rows, scores)]

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save weights, settings and the catalogue, if there is one, over what is there.

        Killed at any moment, the process leaves the whole old model or the whole new one. A processor in the folder
        stays, but is refused when loaded until that of the new model is saved; [`save_checkpoint`] saves both as one.
        Results of other weights are deleted.

        Args:
            save_directory (`str` or `Path`): The folder.
            is_main_process (`bool`): Whether this process writes; of several one does.
            *args: Further arguments of `PreTrainedModel.save_pretrained`.
            **kwargs: Further arguments of `PreTrainedModel.save_pretrained`.
        """
        # Adapters lie beside a model, and what several processes write into one folder cannot be swapped.
        is_part = getattr(self, "_hf_peft_config_loaded", False) or kwargs.get("distributed_checkpoint", False)
        if is_part or not is_main_process:
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            return
        to_hub, settings = split_hub_arguments(kwargs)
        with replace_part(save_directory, "model") as folder:
            self.config.views_hash = None if self._views is None else self._views.save(folder / VIEWS_FOLDER)
            super().save_pretrained(folder, is_main_process, *args, **settings)
            if self._snapshot is not None:
                save_bundled_catalog(self._snapshot.catalog, folder)
        if to_hub is not None:
            to_hub.setdefault("repo_id", Path(save_directory).name)
            self.push_to_hub(**to_hub)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: object, **kwargs: Any
    ) -> Any:
        """Load a model and, if it was saved with one, its catalogue.

        Raises:
            CheckpointError: If a file is damaged, or is not of the model that was saved.
            CatalogError: If the catalogue is damaged, or not the one the weights were trained for.
        """
        source = pretrained_model_name_or_path
        hub = hub_arguments(kwargs)
        if source is not None:
            hub = check_part(source, "model", hub)
            check_depth(source, hub)
        kwargs = {**kwargs, **hub}
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            loaded: Any = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise CheckpointError(
                f"The weights in {source} cannot be read ({error}): they are cut or damaged. Save the model again or "
                "fetch the folder anew."
            ) from error
        model, info = loaded
        check_weights(model, str(source))
        if source is not None and any(
            getattr(model.config, name, None) is not None for name in ("identifier_hash", "items_hash")
        ):
            missing = sorted(info["missing_keys"])
            if missing:
                raise CheckpointError(
                    f"The weights in {source} lack {len(missing)} tensors of {cls.__name__}, {missing[0]} among them: "
                    "they are those of another model. Save the model again or fetch the folder anew."
                )
            model.set_catalog(load_bundled_catalog(source, hub))
            model.set_views(load_views(model.config, source, hub))
        return (model, info) if wants_info else model


def best_first(rows: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> list[Found]:
    """Order the items of each request by their scores; equal scores stay in the order given.

    Raises:
        NotFiniteError: If a score is not finite.
    """
    ordered = []
    for line, values in zip(rows, scores, strict=True):
        check_finite("The scores", values, "candidate", "check the weights of the model and its data type")
        order = np.argsort(-values, kind="stable")
        ordered.append((line[order], values[order]))
    return ordered


def scored_items(catalog: Catalog, rows: np.ndarray, scores: np.ndarray) -> list[ScoredItem]:
    """Make an answer from rows of the catalogue and their scores."""
    ids = catalog.id_map.convert_to_ids(rows)
    titles = catalog.items["title"].take(pa.array(rows)).to_pylist()
    return [
        ScoredItem(item_id, float(score), title) for item_id, score, title in zip(ids, scores, titles, strict=True)
    ]


__all__ = [
    "CatalogModel",
    "CatalogSnapshot",
    "LazyValues",
    "SnapshotT",
    "best_first",
    "has_same_items",
]
