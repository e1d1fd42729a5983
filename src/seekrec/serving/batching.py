# SPDX-License-Identifier: Apache-2.0
"""The request queue of the model: requests that arrive close together are answered as one batch.

One thread runs the model: it answers batches, and swaps in a new catalogue or model between two of them. Meanwhile
requests queue up; the first of a batch waits for others no longer than its deadline. A request that would wait too
long is rejected on arrival, and one that has waited too long anyway is rejected before the model starts on it. A
request that the model has started is always answered.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from seekrec.errors import SeekrecError
from seekrec.serving.engine import Answered, Question
from seekrec.serving.metrics import Metrics
from seekrec.serving.settings import ServingSettings

ResultT = TypeVar("ResultT")

# How fast the estimate of a batch's time follows those that take less; it follows those that take more at once.
_NEWEST_SHARE = 0.2
# A request is taken if its answer is expected within this share of the time that it has left.
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
    is_begun: bool = False


class Batcher:
    """Gathers questions and has them answered together.

    Args:
        answer (`Callable`): Answers a batch: for each question an answer, or an error.
        settings ([`ServingSettings`]): Sizes and times.
        metrics ([`Metrics`]): Where it is counted.
        clock (`Callable`): Returns seconds, by which batches are timed.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], list[Answered | SeekrecError]],
        settings: ServingSettings,
        metrics: Metrics,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._answer, self._settings, self._metrics, self._clock = answer, settings, metrics, clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._is_stopping = False
        self._batch_seconds = 0.0
        self._busy_since: float | None = None
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

    @property
    def now(self) -> float:
        """Seconds by the clock."""
        return self._clock()

    def check_room(self, deadline: float) -> None:
        """Refuse a question that would not be answered in time.

        Args:
            deadline (`float`): When it must have been begun, by the clock.

        Raises:
            QueueFullError: If too many wait, or those that do will take too long.
            StoppingError: If the server is being stopped.
        """
        if self._is_stopping:
            raise StoppingError("The server is shutting down; send the request to another one.")
        self._drop_cancelled()
        # One may always wait: without an answer now and then nobody would know that the model is fast again.
        is_late = self._waiting and self._expected_seconds > (deadline - self._clock()) * _WAIT_SHARE
        if len(self._waiting) >= self._settings.max_queue or is_late:
            raise self.refuse()

    async def ask(self, question: Question, deadline: float | None = None) -> Answered:
        """Have a question answered; cancelled, it leaves the queue.

        Args:
            question ([`Question`]): What is asked.
            deadline (`float`, *optional*): When it must have been begun, by the clock; the timeout from now on if not
                given.

        Raises:
            QueueFullError: If too many wait, or the question has waited too long.
            StoppingError: If the server is being stopped.
            TimeoutError: If the model takes longer than a request may.
            SeekrecError: If the question cannot be answered.
        """
        deadline = self.now + self._settings.timeout_s if deadline is None else deadline
        self.check_room(deadline)
        job = _Job(question, asyncio.get_running_loop().create_future(), self._clock())
        self._waiting.append(job)
        self._metrics.queue.set(len(self._waiting))
        self._arrived.set()
        if len(self._waiting) >= self._settings.max_batch:
            self._full.set()
        try:
            await asyncio.wait([job.answer], timeout=deadline - self._clock())
            if not job.is_begun:
                raise self.refuse()
            return await asyncio.wait_for(job.answer, self._settings.timeout_s)
        finally:
            job.answer.cancel()

    def refuse(self) -> QueueFullError:
        """Count a rejected request and return its error."""
        self._metrics.refused.inc()
        return QueueFullError(max(1, math.ceil(self._expected_seconds)))

    @property
    def _expected_seconds(self) -> float:
        """Until a question that comes now is answered."""
        seconds, rest = self._batch_seconds, 0.0
        if self._busy_since is not None:
            taken = self._clock() - self._busy_since
            # A batch that takes longer than the last ones tells before its end that it is slower now.
            seconds, rest = max(seconds, taken), max(0.0, seconds - taken)
        return rest + seconds * (1 + len(self._waiting) // self._settings.max_batch)

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
            left = self._waiting[0].arrived + self._settings.batch_wait_ms / 1000 - self._clock()
            if left > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), left)

    async def _answer_batch(self, jobs: Sequence[_Job]) -> None:
        self._busy_since = start = self._clock()
        for job in jobs:
            job.is_begun = True
            self._metrics.latency.labels("queue").observe(start - job.arrived)
        self._metrics.batch_size.observe(len(jobs))
        answers: Sequence[Answered | BaseException]
        try:
            answers = await asyncio.wrap_future(
                self.between_batches(lambda: self._answer([job.question for job in jobs]))
            )
        except Exception as error:  # a bug: the questions fail, the server continues
            answers = [error] * len(jobs)
        seconds, self._busy_since = self._clock() - start, None
        self._metrics.latency.labels("model").observe(seconds)
        faster = self._batch_seconds + _NEWEST_SHARE * (seconds - self._batch_seconds)
        self._batch_seconds = max(seconds, faster)
        for job, answer in zip(jobs, answers, strict=True):
            if job.answer.done():
                continue
            if isinstance(answer, BaseException):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)


__all__ = ["Batcher", "QueueFullError", "StoppingError"]
