# SPDX-License-Identifier: Apache-2.0
"""What the routes call: questions, events, changes of the catalogue and of the model, over one store.

Four kinds of threads work here. The event loop takes requests and waits; threads of a pool read and write the store;
one thread is the model's; and one makes the changes of [`LivingModels`], which the model's thread takes up between two
batches. So a batch is answered from one catalogue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from anyio.to_thread import run_sync

from seekrec.errors import SeekrecError
from seekrec.events import read_examples
from seekrec.serving.batching import Batcher
from seekrec.serving.engine import Answered, LoadedModel, ModelSource, Question
from seekrec.serving.histories import Histories, KeptHistory
from seekrec.serving.living_models import LivingModels
from seekrec.serving.metrics import Metrics
from seekrec.serving.settings import ServingSettings
from seekrec.serving.store import Store, StoredEvent


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
        self.histories = Histories(self.store, self.settings.cached_users, self.metrics)
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
        self.store.close()

    @property
    def model(self) -> LoadedModel:
        """The model that answers."""
        return self.models.model

    async def ask(self, question: Question) -> Answered:
        """Have a question answered; see [`Batcher.ask`].

        Raises:
            UnknownModelError: If the question names a model that is not loaded.
        """
        self.models.named(question.model)
        return await self.batcher.ask(question)

    def _answer(self, questions: Sequence[Question]) -> list[Answered | SeekrecError]:
        """Answer a batch, in the model's thread: each question by the model that it names."""
        of_models: dict[str | None, list[int]] = defaultdict(list)
        for number, question in enumerate(questions):
            of_models[question.model].append(number)
        found: dict[int, Answered | SeekrecError] = {}
        for name, numbers in of_models.items():
            try:
                answers = self.models.named(name).answer([questions[number] for number in numbers])
            except SeekrecError as error:  # it took over, and its place beside is empty, since the question came
                answers = [error] * len(numbers)
            found |= dict(zip(numbers, answers, strict=True))
        return [found[number] for number in range(len(questions))]

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


def _keep_examples(store: Store, path: str) -> list[str]:
    """Put the histories of a file of examples into a store, once; return the users."""
    histories = read_examples(path)
    for user_id, events in histories.items():
        if events:
            store.append_events(
                [StoredEvent(f"example {user_id} {number}", user_id, event) for number, event in enumerate(events)]
            )
    return list(histories)


__all__ = ["Service"]
