# SPDX-License-Identifier: Apache-2.0
"""The models of a server and their catalogues, which follow the changes in the store, by this process and others.

One thread prepares all changes, one after the other; the model's thread applies each between two batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from seekrec.errors import DataError, SeekrecError
from seekrec.serving.engine import LoadedModel, ModelSource
from seekrec.serving.live_catalog import apply_changes, merge_puts, removals
from seekrec.serving.logs import logger
from seekrec.serving.metrics import Metrics
from seekrec.serving.settings import ServingSettings
from seekrec.serving.store import ItemChange, Store

ResultT = TypeVar("ResultT")

# The longest pause after the store, or a model that was asked for, could not be read, in seconds.
_LONGEST_PAUSE_S = 30.0


class UnknownModelError(SeekrecError):
    """A model that the server does not have."""


class LivingModels:
    """The model that answers, those next to it, and their catalogue.

    Args:
        source (`str`, `Path` or `tuple`): The model to start with.
        settings ([`ServingSettings`]): How it serves.
        store ([`Store`]): What all processes share.
        between_batches (`Callable`): Does something in the model's thread, when no batch is being answered.
        metrics ([`Metrics`]): Where it is counted.

    Attributes:
        model ([`LoadedModel`]): The model that answers.
        beside (`dict`): Models that answer who names them.
    """

    model: LoadedModel
    beside: dict[str, LoadedModel]

    def __init__(
        self,
        source: ModelSource,
        settings: ServingSettings,
        store: Store,
        between_batches: Callable[[Callable[[], None]], Future[None]],
        metrics: Metrics,
    ) -> None:
        self._source, self._settings, self._store, self._metrics = source, settings, store, metrics
        self._between_batches = between_batches
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the models with the catalogue as the store has it, and follow the store from then on."""
        await self._in_order(self._load)
        self._follower = asyncio.create_task(self._follow_store())

    async def stop(self) -> None:
        """Follow no longer."""
        if self._follower is not None:
            self._follower.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        for model in self._loaded():
            model.close()

    def named(self, name: str | None) -> LoadedModel:
        """Return a model that is loaded: the one that answers, if no other is named.

        Raises:
            UnknownModelError: If none of this name is loaded.
        """
        model = self.model
        if name is None or name == model.name:
            return model
        if name not in self.beside:
            loaded = ", ".join(sorted({model.name, *self.beside}))
            raise UnknownModelError(f"There is no model {name!r}; the server has loaded {loaded}.")
        return self.beside[name]

    async def put_items(self, items: Sequence[Mapping[str, object]]) -> tuple[int, int]:
        """Add or change items: in the store and in this process before this returns.

        Args:
            items (`Sequence[dict]`): Columns by name, `item_id` among them; what is left out stays as it is.

        Returns:
            `tuple[int, int]`: Items that were not so before, and the version of the catalogue.

        Raises:
            DataError: If a value does not fit its column, or a new item has no text.
            ConflictError: If the text of an item that is there would change.
            CatalogError: If a new item needs a text encoder that there is none of.
        """
        try:
            return await self._in_order(lambda: self._change(lambda: merge_puts(self.model.catalog, items)))
        except DataError as error:
            raise DataError(f"`items` cannot be used: {error}") from error

    async def delete_items(self, item_ids: Sequence[str], *, argument: str = "item_ids") -> tuple[int, int]:
        """Take items out of answers; as [`put_items`]. `argument` names the ids in messages.

        Raises:
            UnknownItemError: If the catalogue does not contain an id.
        """
        return await self._in_order(
            lambda: self._change(lambda: removals(self.model.catalog, item_ids, argument=argument))
        )

    async def use(self, name: str) -> None:
        """Let another model answer, from the next batch on; the other processes follow.

        Raises:
            UnknownModelError: If the server has no model of this name.
        """
        if name not in self._sources:
            raise UnknownModelError(f"There is no model {name!r}; the server has {', '.join(sorted(self._sources))}.")
        await self._in_order(lambda: self._use(name))

    # ---- in the thread of changes ----

    async def _in_order(self, work: Callable[[], ResultT]) -> ResultT:
        """Do a change after those that came before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _load(self) -> None:
        first = LoadedModel.load(self._source, self._settings.text_encoder)
        self._first = first.name
        self._sources: dict[str, ModelSource] = {**_models_in(self._settings.models), first.name: self._source}
        wanted = self._store.state().model
        name = first.name if wanted not in self._sources or wanted is None else wanted
        loaded = {first.name: self._prepare(first)}
        for other in {name, *self._settings.beside} - loaded.keys():
            if other not in self._sources:
                raise UnknownModelError(
                    f"`beside` names {other!r}, which is not in `models` ({self._settings.models or 'no folder'}); "
                    f"there are {', '.join(sorted(self._sources))}."
                )
            loaded[other] = self._prepare(LoadedModel.load(self._sources[other], self._settings.text_encoder))
        self.model = loaded[name]
        self.beside = {other: model for other, model in loaded.items() if self._stays(other)}
        self._note_catalog()

    def _stays(self, name: str) -> bool:
        """Return whether a model stays loaded while another answers."""
        return name in self._settings.beside or (bool(self._settings.beside) and name == self._first)

    def _loaded(self) -> list[LoadedModel]:
        return list({id(model): model for model in (self.model, *self.beside.values())}.values())

    def _prepare(self, model: LoadedModel) -> LoadedModel:
        """Bring a model that was loaded up to the store's catalogue."""
        model.keep_states(self._settings.states_mb * 2**20, self._metrics)
        share = model.pack()
        logger.info("model loaded", extra={"fields": {"model": model.name, "packed_share": share}})
        self._catch_up(model)
        return model

    def _use(self, name: str) -> None:
        self._switch(name)
        self._store.set_model(name)

    def _switch(self, name: str) -> None:
        """Let another model answer in this process."""
        old = self.model
        if name == old.name:
            return
        new = self.beside.get(name) or self._prepare(
            LoadedModel.load(self._sources[name], self._settings.text_encoder)
        )

        def swap() -> None:
            self.model = new

        self._between_batches(swap).result()
        if old.name not in self.beside:
            old.close()
        self._note_catalog()

    def _change(self, find: Callable[[], list[ItemChange]]) -> tuple[int, int]:
        """Keep a change and take it up; where another process was faster, see what it did first."""
        while True:
            self._follow()
            model, changes = self.model, find()
            if not changes:
                return 0, model.catalog_version
            catalog, placed = apply_changes(model.catalog, changes, {})
            version = self._store.commit_changes(model.catalog_version, changes, model.version, placed)
            if version is not None:
                self._between_batches(model.prepare_catalog(catalog, version)).result()
                self._follow()
                return len(changes), version

    def _follow(self) -> None:
        """Take up what the store has and this process has not."""
        state = self._store.state()
        wanted = self._first if state.model is None else state.model
        if wanted in self._sources:
            self._switch(wanted)
        for model in self._loaded():
            if state.catalog_version != model.catalog_version:
                self._catch_up(model)
        self._note_catalog()

    def _catch_up(self, model: LoadedModel) -> None:
        """Apply what the store has of later versions than the model's catalogue."""
        while True:
            version, changes = self._store.changes_after(model.catalog_version)
            new = [one.item_id for one in changes if one.item_id not in model.catalog.id_map]
            catalog, made = apply_changes(model.catalog, changes, self._store.placements(model.version, new))
            # What came while another model answered has no place in this one yet.
            if made and not self._store.place(model.version, made):
                continue
            if version != model.catalog_version:
                self._between_batches(model.prepare_catalog(catalog, version)).result()
            return

    def _note_catalog(self) -> None:
        catalog, version = self.model.served
        self._metrics.catalog_version.set(version)
        self._metrics.num_items.set(len(catalog) - int(catalog.is_removed.sum()))

    async def _follow_store(self) -> None:
        """Look for what other processes changed, as often as the settings say."""
        pause = self._settings.poll_s
        while True:
            await asyncio.sleep(pause)
            try:
                await self._in_order(self._follow)
                pause = self._settings.poll_s
            except Exception:
                # The store may be away for a while; what was loaded continues answering.
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                logger.exception("changes could not be read from the store")


def _models_in(folder: str | None) -> dict[str, ModelSource]:
    """Return the models of a folder by name: a folder each, or a `model` folder in it."""
    if folder is None:
        return {}
    found: dict[str, ModelSource] = {}
    for place in sorted(Path(folder).iterdir()):
        for one in (place, place / "model"):
            if (one / "config.json").is_file():
                found[place.name] = one
                break
    return found


__all__ = ["LivingModels", "UnknownModelError"]
