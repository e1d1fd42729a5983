# SPDX-License-Identifier: Apache-2.0
"""The queue before the model: requests that come close together are answered at once.

One thread works for the model: it answers batches, and between two of them it takes up a new catalogue or model. While
it works, requests gather; the first of a batch waits for others no longer than its deadline.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from seekrec.errors import SeekrecError
from seekrec.serving.engine import Answered, Question
from seekrec.serving.metrics import Metrics
from seekrec.serving.settings import ServingSettings

ResultT = TypeVar("ResultT")

# How fast the estimate of a question's time follows what is measured.
_NEWEST_SHARE = 0.2
# A request is taken if it is expected to wait no longer than this share of the timeout.
_WAIT_SHARE = 0.5


class QueueFullError(SeekrecError):
    """There is no room for a request now.

    Args:
        retry_after (`int`): Seconds after which there may be.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The server is busy; ask again in {retry_after} seconds.")
        self.retry_after = retry_after


class StoppingError(SeekrecError):
    """The server is being stopped and takes no more requests."""


@dataclass(eq=False)
class _Job:
    question: Question
    answer: asyncio.Future[Answered]
    arrived: float


class Batcher:
    """Gathers questions and has them answered together.

    Args:
        answer (`Callable`): Answers a batch: for each question an answer, or an error.
        settings ([`ServingSettings`]): Sizes and times.
        metrics ([`Metrics`]): Where it is counted.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], list[Answered | SeekrecError]],
        settings: ServingSettings,
        metrics: Metrics,
    ) -> None:
        self._answer, self._settings, self._metrics = answer, settings, metrics
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._is_stopping = False
        self._seconds_each = 0.0
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what waits, and take nothing more."""
        self._is_stopping = True
        self._arrived.set()
        self._full.set()
        if self._loop is not None:
            await self._loop
        self._thread.shutdown()

    def between_batches(self, work: Callable[[], ResultT]) -> Future[ResultT]:
        """Do something in the model's thread, when no batch is being answered; any thread may call this."""
        return self._thread.submit(work)

    async def ask(self, question: Question) -> Answered:
        """Have a question answered; cancelled, it leaves the queue.

        Raises:
            QueueFullError: If too many wait.
            StoppingError: If the server is being stopped.
            SeekrecError: If the question cannot be answered.
        """
        if self._is_stopping:
            raise StoppingError("The server is being stopped; ask another one.")
        self._drop_cancelled()
        expected = len(self._waiting) * self._seconds_each
        if len(self._waiting) >= self._settings.max_queue or expected > self._settings.timeout_s * _WAIT_SHARE:
            raise self.refuse()
        job = _Job(question, asyncio.get_running_loop().create_future(), perf_counter())
        self._waiting.append(job)
        self._metrics.queue.set(len(self._waiting))
        self._arrived.set()
        if len(self._waiting) >= self._settings.max_batch:
            self._full.set()
        return await job.answer

    def refuse(self) -> QueueFullError:
        """Count a request for which there is no room, and return what it is told."""
        self._metrics.refused.inc()
        return QueueFullError(max(1, math.ceil(len(self._waiting) * self._seconds_each)))

    def _drop_cancelled(self) -> None:
        if any(job.answer.done() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.answer.done())

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            await self._wait_for_others()
            self._drop_cancelled()
            size = min(len(self._waiting), self._settings.max_batch)
            jobs = [self._waiting.popleft() for _ in range(size)]
            self._metrics.queue.set(len(self._waiting))
            if not self._waiting:
                self._arrived.clear()
                if self._is_stopping:
                    self._arrived.set()
            if len(self._waiting) < self._settings.max_batch and not self._is_stopping:
                self._full.clear()
            if jobs:
                await self._answer_batch(jobs)
            elif self._is_stopping:
                return

    async def _wait_for_others(self) -> None:
        """Wait until the batch is full or the deadline of its first question has come."""
        if self._waiting and not self._full.is_set():
            left = self._waiting[0].arrived + self._settings.batch_wait_ms / 1000 - perf_counter()
            if left > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), left)

    async def _answer_batch(self, jobs: Sequence[_Job]) -> None:
        start = perf_counter()
        for job in jobs:
            self._metrics.latency.labels("queue").observe(start - job.arrived)
        self._metrics.batch_size.observe(len(jobs))
        answers: Sequence[Answered | BaseException]
        try:
            answers = await asyncio.wrap_future(
                self.between_batches(lambda: self._answer([job.question for job in jobs]))
            )
        except Exception as error:  # a bug: the questions fail, the server goes on
            answers = [error] * len(jobs)
        seconds = perf_counter() - start
        self._metrics.latency.labels("model").observe(seconds)
        each = seconds / len(jobs)
        self._seconds_each += _NEWEST_SHARE * (each - self._seconds_each) if self._seconds_each else each
        for job, answer in zip(jobs, answers, strict=True):
            if job.answer.done():
                continue
            if isinstance(answer, BaseException):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)


__all__ = ["Batcher", "QueueFullError", "StoppingError"]
