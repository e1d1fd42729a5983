# SPDX-License-Identifier: Apache-2.0
"""What the routes call: questions, events, changes of the catalogue and of the model, over one store.

Three kinds of threads work here. The event loop takes requests and waits; threads of a pool read and write the store;
one thread is the model's. What changes the catalogue or the model is done by one more thread, one change after the
other, and taken up by the model's thread between two batches. So a batch is answered from one catalogue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio.to_thread import run_sync

from seekrec.errors import DataError, SeekrecError
from seekrec.serving.batching import Batcher
from seekrec.serving.engine import Answered, LoadedModel, ModelSource, Question
from seekrec.serving.histories import Histories, KeptHistory
from seekrec.serving.live_catalog import Placement, apply_changes, merge_puts, removals
from seekrec.serving.logs import logger
from seekrec.serving.metrics import Metrics
from seekrec.serving.settings import ServingSettings
from seekrec.serving.store import ItemChange, Store, StoredEvent

ResultT = TypeVar("ResultT")


class UnknownModelError(SeekrecError):
    """A model that the server does not have."""


class Service:
    """A server without its routes.

    Args:
        source (`str`, `Path` or `tuple`): The model to start with.
        settings ([`ServingSettings`]): How it serves.
    """

    def __init__(self, source: ModelSource, settings: ServingSettings) -> None:
        self._source, self.settings = source, settings
        self.metrics = Metrics()
        self.model: LoadedModel
        self.status = "starting"
        self._changes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")

    async def start(self) -> None:
        """Load the model, open the store, and begin to answer."""
        self.store = await run_sync(Store, self.settings.store)
        self.histories = Histories(self.store, self.settings.cached_users, self.metrics)
        self.batcher = Batcher(lambda questions: self.model.answer(questions), self.settings, self.metrics)
        self.batcher.start()
        await self._in_order(self._load_first)
        self._poll = asyncio.create_task(self._follow_store())
        self.status = "ready"

    async def stop(self) -> None:
        """Finish what was accepted, then close."""
        self.status = "stopping"
        self._poll.cancel()
        await self.batcher.stop()
        self._changes.shutdown()
        self.model.close()
        self.store.close()

    # ---- questions and events ----

    async def ask(self, question: Question) -> Answered:
        """Have a question answered; see [`Batcher.ask`]."""
        return await self.batcher.ask(question)

    async def history(self, user_id: str) -> KeptHistory:
        """Return what the store has of a user."""
        with self.metrics.time("history"):
            return await run_sync(self.histories.read, user_id)

    async def append_events(self, events: Sequence[StoredEvent]) -> int:
        """Keep events; see [`Store.append_events`]."""
        appended = await run_sync(self.store.append_events, events)
        self.metrics.events.inc(appended)
        return appended

    async def common_queries(self, prefix: str, limit: int) -> list[str]:
        """Return what many users searched for; see [`Store.common_queries`]."""
        return await run_sync(self.store.common_queries, prefix, limit)

    # ---- catalogue and model ----

    async def put_items(self, items: Sequence[Mapping[str, object]]) -> tuple[int, int]:
        """Add or change items: in the store and in this process before this returns.

        Returns:
            `tuple[int, int]`: Items that were not so before, and the version of the catalogue.
        """
        try:
            return await self._in_order(lambda: self._change(lambda: merge_puts(self.model.catalog, items)))
        except DataError as error:
            raise DataError(f"`items` cannot be used: {error}") from error

    async def delete_items(self, item_ids: Sequence[str]) -> tuple[int, int]:
        """Take items out of answers; as [`put_items`]."""
        return await self._in_order(lambda: self._change(lambda: removals(self.model.catalog, item_ids)))

    async def use_model(self, name: str) -> LoadedModel:
        """Let another model answer, from the next batch on; the other processes follow.

        Raises:
            UnknownModelError: If the server has no model of this name.
        """
        if name not in self.model_names():
            raise UnknownModelError(
                f"There is no model {name!r}; the server has {', '.join(sorted(self.model_names()))}."
            )
        await run_sync(self.store.set_model, name)
        await self._in_order(self._follow)
        return self.model

    def model_names(self) -> dict[str, ModelSource]:
        """Return the models that can be asked for, by name: that of the start, and those of the models folder."""
        return self._sources

    async def _in_order(self, work: Callable[[], ResultT]) -> ResultT:
        """Do a change after those that came before."""
        return await asyncio.get_running_loop().run_in_executor(self._changes, work)

    def _load_first(self) -> None:
        model = LoadedModel.load(self._source, self.settings.text_encoder)
        self._first = model.name
        self._sources: dict[str, ModelSource] = {**_models_in(self.settings.models), model.name: self._source}
        wanted = self.store.state().model
        if wanted not in (None, model.name) and wanted in self._sources:
            model = LoadedModel.load(self._sources[wanted], self.settings.text_encoder)
        self._take_up(model)

    def _take_up(self, model: LoadedModel) -> None:
        """Bring a model's catalogue up to the store's, and let it answer from the next batch on."""
        model.keep_states(self.settings.states_mb * 2**20, self.metrics)
        share = model.pack()
        logger.info("model loaded", extra={"fields": {"model": model.name, "packed_share": share}})
        self._catch_up(model)
        old: LoadedModel | None = getattr(self, "model", None)

        def swap() -> None:
            self.model = model

        self.batcher.between_batches(swap).result()
        if old is not None:
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
            version = self.store.commit_changes(model.catalog_version, changes, model.version, placed)
            if version is not None:
                self._answer_from(model, partial(model.set_catalog, catalog, version))
                return len(changes), version

    def _follow(self) -> None:
        """Take up what other processes changed."""
        state = self.store.state()
        wanted = self._first if state.model is None else state.model
        if wanted != self.model.name and wanted in self._sources:
            self._take_up(LoadedModel.load(self._sources[wanted], self.settings.text_encoder))
        elif state.catalog_version != self.model.catalog_version:
            self._catch_up(self.model)

    def _catch_up(self, model: LoadedModel) -> None:
        """Apply what the store has of later versions than the model's catalogue."""
        while True:
            version, changes = self.store.changes_after(model.catalog_version)
            placed = self._placements(model, changes)
            catalog, made = apply_changes(model.catalog, changes, placed)
            if made:  # by another model's process: this one's first sight of the items
                committed = self.store.commit_changes(version, [], model.version, made)
                if committed is None:
                    continue
                version = committed
            if version != model.catalog_version:
                self._answer_from(model, partial(model.set_catalog, catalog, version))
            return

    def _placements(self, model: LoadedModel, changes: Sequence[ItemChange]) -> dict[str, Placement]:
        new = [one.item_id for one in changes if one.item_id not in model.catalog.id_map]
        return self.store.placements(model.version, new)

    def _answer_from(self, model: LoadedModel, set_catalog: Callable[[], None]) -> None:
        self.batcher.between_batches(set_catalog).result()
        if model is getattr(self, "model", None):
            self._note_catalog()

    def _note_catalog(self) -> None:
        self.metrics.catalog_version.set(self.model.catalog_version)
        self.metrics.num_items.set(int(self.model.catalog.live.sum()))

    async def _follow_store(self) -> None:
        """Look for what other processes changed, as often as the settings say."""
        while True:
            await asyncio.sleep(self.settings.poll_s)
            try:
                await self._in_order(self._follow)
            except Exception:
                # The store may be away for a while; what was loaded goes on answering.
                logger.exception("the store could not be followed")


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


__all__ = ["Service", "UnknownModelError"]
