# SPDX-License-Identifier: Apache-2.0
"""The service behind the routes: requests, events, and changes of the catalogue and the model, over one store.

Four kinds of threads work here. The event loop takes requests and waits; a few threads read the store and write it;
one thread is the model's; and one makes the changes of [`LivingModels`], which the model's thread takes up between two
batches. So a batch is answered from one catalogue.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from anyio.to_thread import run_sync

from seekrec.errors import SeekrecError
from seekrec.events import read_examples
from seekrec.serving.batching import Batcher
from seekrec.serving.engine import Answered, LoadedModel, ModelSource, Question
from seekrec.serving.histories import Histories, KeptHistory
from seekrec.serving.living_models import LivingModels
from seekrec.serving.logs import logger
from seekrec.serving.metrics import Metrics
from seekrec.serving.settings import ServingSettings
from seekrec.serving.store import NUM_READERS, ConflictError, Store, StoredEvent

ResultT = TypeVar("ResultT")


class Service:
    """A server without its routes.

    Args:
        source (`str`, `Path` or `tuple`): The model to start with.
        settings ([`ServingSettings`]): How it serves.
    """

    def __init__(self, source: ModelSource, settings: ServingSettings) -> None:
        self._source, self.settings = source, settings
        self.metrics = Metrics()
        self.example_users: list[str] = []
        self.status: Literal["starting", "ready", "stopping"] = "starting"

    async def start(self) -> None:
        """Load the model, open the store, and begin to answer."""
        self.store = await run_sync(Store, self.settings.store)
        if self.settings.examples is not None:
            self.example_users = await run_sync(_keep_examples, self.store, self.settings.examples)
        self.histories = Histories(self.store, self.settings.histories_mb * 2**20, self.metrics)
        self._readers = ThreadPoolExecutor(NUM_READERS, "reader")
        self._writers = ThreadPoolExecutor(self.store.num_writers, "writer")
        self.batcher = Batcher(self._answer, self.settings, self.metrics)
        self.models = LivingModels(self._source, self.settings, self.store, self.batcher.between_batches, self.metrics)
        await self.models.start()
        self.batcher.start()
        self.status = "ready"

    async def stop(self) -> None:
        """Finish what was accepted, then close."""
        self.status = "stopping"
        await self.batcher.stop()
        await self.models.stop()
        for threads in (self._readers, self._writers):
            await run_sync(threads.shutdown)
        self.store.close()

    @property
    def model(self) -> LoadedModel:
        """The model that answers."""
        return self.models.model

    async def ask(self, question: Question, deadline: float) -> Answered:
        """Have a question answered; see [`Batcher.ask`].

        Raises:
            UnknownModelError: If the question names a model that is not loaded.
        """
        self.models.named(question.model)
        return await self.batcher.ask(question, deadline)

    def _answer(self, questions: Sequence[Question]) -> list[Answered | SeekrecError]:
        """Answer a batch, in the model's thread: each question by the model that it names."""
        of_models: dict[str | None, list[int]] = defaultdict(list)
        for number, question in enumerate(questions):
            of_models[question.model].append(number)
        found: dict[int, Answered | SeekrecError] = {}
        for name, numbers in of_models.items():
            try:
                answers = self.models.named(name).answer([questions[number] for number in numbers])
            except SeekrecError as error:  # it took over, and its place alongside is empty, since the question came
                answers = [error] * len(numbers)
            found |= dict(zip(numbers, answers, strict=True))
        return [found[number] for number in range(len(questions))]

    async def history(self, user_id: str, deadline: float | None = None) -> KeptHistory:
        """Return what the store has of a user.

        Args:
            user_id (`str`): Whose.
            deadline (`float`, *optional*): When a thread must have begun it, by the clock of the batcher; the timeout
                from now on if not given.

        Raises:
            QueueFullError: If others keep all threads until then.
            TimeoutError: If the store takes longer than a request may.
        """
        with self.metrics.time("history"):
            return await self._read(lambda: self.histories.read(user_id), deadline)

    async def common_queries(self, prefix: str, limit: int, deadline: float) -> list[str]:
        """Return what many users searched for; see [`Store.common_queries`], and [`history`] for the deadline."""
        return await self._read(lambda: self.store.common_queries(prefix, limit), deadline)

    async def append_events(self, events: Sequence[StoredEvent]) -> int:
        """Keep events; see [`Store.append_events`].

        Raises:
            QueueFullError: If others write until the timeout; nothing is kept then.
        """
        writing = self._writers.submit(self.store.append_events, events)
        written = asyncio.wrap_future(writing)
        done, _ = await asyncio.wait([written], timeout=self.settings.timeout_s)
        if not done and writing.cancel():
            raise self.batcher.refuse()
        # What has begun ends one way or the other, and the answer says which.
        appended = await written
        self.metrics.events.inc(appended)
        return appended

    async def _read(self, read: Callable[[], ResultT], deadline: float | None) -> ResultT:
        """Read from the store, in a thread; if cancelled, return at once, while started work continues."""
        left = self.settings.timeout_s if deadline is None else deadline - self.batcher.now
        reading = self._readers.submit(read)
        answer = asyncio.wrap_future(reading)
        try:
            done, _ = await asyncio.wait([answer], timeout=left)
            if not done and reading.cancel():
                raise self.batcher.refuse()
            return await asyncio.wait_for(answer, self.settings.timeout_s)
        finally:
            reading.cancel()


def _keep_examples(store: Store, path: str) -> list[str]:
    """Put the histories of a file of examples into a store, once; return the users."""
    histories, num_others = read_examples(path), 0
    for user_id, events in histories.items():
        kept = [StoredEvent(f"example {user_id} {number}", user_id, event) for number, event in enumerate(events)]
        try:
            store.append_events(kept)
        except ConflictError:  # examples of an earlier training
            num_others += 1
    if num_others:
        logger.warning(
            "the store has other histories for %d of %d users of `examples`; they are kept. Use another store to load "
            "the examples",
            num_others,
            len(histories),
        )
    return list(histories)


__all__ = ["Service"]
