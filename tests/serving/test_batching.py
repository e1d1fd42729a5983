# SPDX-License-Identifier: Apache-2.0
"""The queue: what is answered together, what is refused, and what leaves it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from seekrec.errors import RequestError
from seekrec.schema import Request
from seekrec.serving.batching import Batcher, QueueFullError, StoppingError
from seekrec.serving.engine import Question
from seekrec.serving.metrics import Metrics
from seekrec.serving.settings import ServingSettings


class Model:
    """Answers a question with its `top_k`, when it is allowed to; keeps the batches."""

    def __init__(self, waits=False):
        self.batches, self.may_answer, self.is_asked = [], threading.Event(), threading.Event()
        if not waits:
            self.may_answer.set()

    def __call__(self, questions):
        self.batches.append([one.top_k for one in questions])
        self.is_asked.set()
        assert self.may_answer.wait(10)
        return [RequestError("`top_k` is 13") if one.top_k == 13 else one.top_k for one in questions]

    async def until_asked(self):
        await asyncio.to_thread(self.is_asked.wait, 10)


def question(number):
    return Question(Request(), top_k=number)


def run(model, work, **options):
    async def whole():
        batcher = Batcher(model, ServingSettings(**options), Metrics())
        batcher.start()
        try:
            return await work(batcher)
        finally:
            model.may_answer.set()
            await batcher.stop()

    return asyncio.run(whole())


def test_what_comes_while_the_model_works_is_answered_together():
    model = Model(waits=True)

    async def work(batcher):
        first = asyncio.create_task(batcher.ask(question(0)))
        await model.until_asked()
        others = [asyncio.create_task(batcher.ask(question(number))) for number in range(1, 8)]
        await asyncio.sleep(0)
        model.may_answer.set()
        return await asyncio.gather(first, *others)

    assert run(model, work, batch_wait_ms=0.0, max_batch=4) == list(range(8))
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_the_first_waits_for_others_until_the_deadline_or_a_full_batch():
    model = Model()

    async def work(batcher):
        async def later(number, seconds):
            await asyncio.sleep(seconds)
            return await batcher.ask(question(number))

        # Three fill a batch at once; the fourth waits alone, and longer than the test.
        asked = asyncio.gather(*(later(number, 0.01 * number) for number in range(3)))
        return await asyncio.wait_for(asked, 5)

    assert run(model, work, batch_wait_ms=60_000.0, max_batch=3) == [0, 1, 2]
    assert model.batches == [[0, 1, 2]]


def test_one_that_cannot_be_answered_fails_alone():
    async def work(batcher):
        return await asyncio.gather(*(batcher.ask(question(n)) for n in (12, 13, 14)), return_exceptions=True)

    model = Model()
    first, failed, last = run(model, work, batch_wait_ms=20.0)
    assert (first, last) == (12, 14)
    assert isinstance(failed, RequestError)
    assert model.batches == [[12, 13, 14]]


def test_a_fault_of_the_model_fails_its_batch_and_not_the_next():
    calls = []

    def model(questions):
        calls.append(len(questions))
        if len(calls) == 1:
            raise ZeroDivisionError
        return [one.top_k for one in questions]

    async def work(batcher):
        with pytest.raises(ZeroDivisionError):
            await batcher.ask(question(1))
        return await batcher.ask(question(2))

    model.may_answer = threading.Event()
    assert run(model, work) == 2


def test_a_full_queue_refuses_and_says_when_to_come_again():
    model = Model(waits=True)

    async def work(batcher):
        first = asyncio.create_task(batcher.ask(question(0)))
        await model.until_asked()
        waiting = [asyncio.create_task(batcher.ask(question(number))) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as refused:
            await batcher.ask(question(3))
        assert refused.value.retry_after >= 1
        # One that is given up makes room.
        waiting[0].cancel()
        await asyncio.sleep(0)
        last = asyncio.create_task(batcher.ask(question(4)))
        await asyncio.sleep(0)
        model.may_answer.set()
        return await asyncio.gather(first, waiting[1], last)

    assert run(model, work, batch_wait_ms=0.0, max_queue=2) == [0, 2, 4]
    assert model.batches == [[0], [2, 4]]


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_who_would_be_answered_late_is_refused():
    model, clock = Model(), Clock()

    def slow(questions):
        clock.now += 6
        return model(questions)

    async def work():
        batcher = Batcher(slow, ServingSettings(batch_wait_ms=0.0, max_batch=2, timeout_s=30.0), Metrics(), clock)
        batcher.start()
        await batcher.ask(question(0))  # batches take six seconds
        slow_model, model.is_asked = batcher._answer, threading.Event()
        batcher._answer = model
        model.may_answer.clear()
        tasks = [asyncio.create_task(batcher.ask(question(1)))]
        await model.until_asked()

        async def ask(number):
            tasks.append(asyncio.create_task(batcher.ask(question(number))))
            await asyncio.sleep(0)

        def refused(number):
            return pytest.raises(QueueFullError, match=f"again in {number} seconds")

        for number in (2, 3):
            await ask(number)
        with refused(18):  # six of the batch that has begun, and two batches
            await batcher.ask(question(4))
        clock.now += 5
        await ask(5)  # 1 + 12 are less than half of 30
        with refused(13):  # who has less time left
            await batcher.ask(question(6), clock.now + 20)
        clock.now += 4
        with refused(18):  # it takes nine already, so two more will
            await batcher.ask(question(7))
        model.may_answer.set()
        answers = await asyncio.gather(*tasks)
        # The next are faster, which counts by a fifth each; until then one may always wait.
        model.may_answer.clear()
        model.is_asked.clear()
        batcher._batch_seconds = 100.0
        tasks = [asyncio.create_task(batcher.ask(question(8)))]
        await model.until_asked()
        await ask(9)
        with refused(200):
            await batcher.ask(question(10))
        model.may_answer.set()
        answers += await asyncio.gather(*tasks)
        await batcher.stop()
        assert slow_model is slow and batcher._batch_seconds == pytest.approx(100 * 0.8**2)
        return answers

    assert asyncio.run(work()) == [1, 2, 3, 5, 8, 9]
    assert model.batches == [[0], [1], [2, 3], [5], [8], [9]]


def test_who_has_waited_too_long_is_refused_and_what_was_begun_is_answered():
    model = Model(waits=True)

    async def work(batcher):
        first = asyncio.create_task(batcher.ask(question(0), batcher.now))
        await model.until_asked()
        with pytest.raises(QueueFullError):
            await batcher.ask(question(1), batcher.now)
        assert not first.done()
        model.may_answer.set()
        return await first

    assert run(model, work, batch_wait_ms=0.0) == 0
    assert model.batches == [[0]]


def test_a_model_that_does_not_end_is_waited_for_as_long_as_a_request_may_take():
    model = Model(waits=True)

    async def work(batcher):
        with pytest.raises(TimeoutError):
            await batcher.ask(question(0))
        model.may_answer.set()
        return await batcher.ask(question(1), batcher.now + 30)

    assert run(model, work, batch_wait_ms=0.0, timeout_s=0.01) == 1


def test_stopping_answers_what_waits_at_once_and_takes_nothing_more():
    model = Model()

    async def work(batcher):
        asked = [asyncio.create_task(batcher.ask(question(number))) for number in range(5)]
        await asyncio.sleep(0)
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        with pytest.raises(StoppingError):
            await batcher.ask(question(5))
        await asyncio.wait_for(stopping, 5)
        return await asyncio.gather(*asked)

    # Alone, five would wait for three more.
    assert run(model, work, batch_wait_ms=60_000.0, max_batch=8) == [0, 1, 2, 3, 4]
    assert model.batches == [[0, 1, 2, 3, 4]]
