# SPDX-License-Identifier: Apache-2.0
"""A server in its own process, and many clients, for `serving.py`."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import httpx
import psutil

TOP_K = 20
# More events than a model reads: what is kept of a user is as large as it gets.
NUM_USERS, EVENTS_OF_A_USER = 200, 130
# Of a hundred requests.
SHARES = {"/recommend": 40, "/search": 35, "/rank": 15, "/events": 10}
NUM_CANDIDATES = 50
# Seconds that a server may take to start, and a client waits for an answer.
START_S, ANSWER_S = 900, 120
# Requests without an answer at which no more are sent.
MAX_OPEN = 2_000


class Server:
    """`seekrec serve` in a process of its own.

    Args:
        model (`str`): Folder of the model.
        folder (`Path`): Where its store and its log are.
        options: Of the command.
    """

    def __init__(self, model: str, folder: Path, **options: float) -> None:
        folder.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self.store = f"http://127.0.0.1:{port}", f"sqlite:///{folder / 'store.sqlite'}"
        command = [sys.executable, "-c", "from seekrec.recipes.command import main; main()", "serve"]
        command += ["--model", model, "--port", str(port), "--store", self.store]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.log = folder / "log.jsonl"
        with self.log.open("wb") as log:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ})

    def __enter__(self) -> Server:
        """Return it when it is ready."""
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        while time.perf_counter() - self.started < START_S:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        self._process.kill()
        raise RuntimeError(f"the server was not ready after {START_S} s")

    def __exit__(self, *_: object) -> None:
        """Stop it, if it was not."""
        if self._process.poll() is None:
            self.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        return psutil.Process(self._process.pid).memory_info().rss / 1e6

    @property
    def cpu_seconds(self) -> float:
        """Time of processors that it took, which says more than a clock on a machine that others use."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        return self._process.wait(120)


@dataclass
class Tally:
    """What was answered.

    Args:
        seconds (`list[float]`): Of each answer that was no refusal.
        counts (`Counter`): Answers by status; under the name of an error what got none.
        sent (`int`): Requests.
        taken (`float`): Seconds from the first request to the last answer.
        cpu_seconds (`float`): What the server took meanwhile.
    """

    seconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    taken: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(self.counts.values()) / self.taken

    def percentiles(self) -> dict[str, float]:
        """Return milliseconds."""
        if len(self.seconds) < 2:
            return {}
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        return {f"p{number}": 1e3 * cuts[number - 1] for number in (50, 95, 99)}


class Traffic:
    """Draws what users do: they ask with a history, or one that the server keeps; a third filters.

    Args:
        server ([`Server`]): Whose items are asked for. It gets the events of some users.
        seed (`int`): Of the draws.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self._random, self._seed, self._number = random.Random(seed), seed, 0
        with httpx.Client(base_url=server.url, timeout=ANSWER_S) as client:
            total = client.get("/health").json()["num_items"]
            self._items: list[dict[str, object]] = []
            for offset in range(0, total, max(100, total // 10)):
                self._items += client.get("/items", params={"limit": 100, "offset": offset}).json()["items"]
            self._queries = [" ".join(str(item["title"]).split()[:2]) for item in self._items]
            self.appended = 0
            for user in range(NUM_USERS):
                events = [self._event(f"u{user}") for _ in range(EVENTS_OF_A_USER)]
                client.post("/events", json={"events": events}).raise_for_status()
                self.appended += len(events)
        self._filters = [self._filter() for _ in range(50)]

    def draw(self) -> tuple[str, dict[str, object]]:
        """Return the route and the body of a request."""
        route = self._random.choices(list(SHARES), list(SHARES.values()))[0]
        if route == "/events":
            return route, {"events": [self._event(self._user())]}
        body: dict[str, object] = {}
        if self._random.random() < 0.5:
            body["user_id"] = self._user()
        else:
            acts = [self._event("") for _ in range(10)]
            body["history"] = [{name: act[name] for name in ("item_id", "timestamp")} for act in acts]
        if route == "/rank":
            chosen = self._random.sample(self._items, min(NUM_CANDIDATES, len(self._items)))
            return route, body | {"candidates": [item["item_id"] for item in chosen]}
        body["top_k"] = TOP_K
        if self._random.random() < 1 / 3:
            body["where"] = self._random.choice(self._filters)
        if route == "/search":
            body["query"] = self._random.choice(self._queries)
        return route, body

    def _user(self) -> str:
        return f"u{self._random.randrange(NUM_USERS)}"

    def _event(self, user_id: str) -> dict[str, object]:
        self._number += 1
        item = self._random.choice(self._items)["item_id"]
        event_id = f"{self._seed}-{self._number}"
        return {"event_id": event_id, "user_id": user_id, "item_id": item, "timestamp": 10**9 + self._number}

    def _filter(self) -> dict[str, object]:
        """Return a filter by a column of numbers; by ids where there is none."""
        numbers = {
            name
            for item in self._items
            for name, value in item.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        if not numbers:
            chosen = self._random.sample(self._items, len(self._items) // 2)
            return {"in": {"item_id": [item["item_id"] for item in chosen]}}
        name = sorted(numbers)[0]
        values = [float(str(item[name])) for item in self._random.sample(self._items, 20) if item[name] is not None]
        return {"range": {name: {"lowest": min(values)}}} if len(set(values)) > 1 else {}


async def _send(client: aiohttp.ClientSession, traffic: Traffic, tally: Tally) -> None:
    route, body = traffic.draw()
    begin = time.perf_counter()
    tally.sent += 1
    try:
        async with client.post(route, json=body) as answer:
            await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.counts[type(error).__name__] += 1
        return
    tally.counts[str(answer.status)] += 1
    if answer.status == 200:
        if route == "/events":
            traffic.appended += 1
        else:
            tally.seconds.append(time.perf_counter() - begin)


def _client(server: Server) -> aiohttp.ClientSession:
    # Of the clients that are there, that which costs least: it shares the machine with the server.
    timeout, connections = aiohttp.ClientTimeout(ANSWER_S), aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(server.url, timeout=timeout, connector=connections)


async def ask_in_turn(server: Server, traffic: Traffic, clients: int, seconds: float) -> Tally:
    """Let so many clients ask, each again as soon as it was answered."""
    tally = Tally()
    async with _client(server) as client:
        begin, before = time.perf_counter(), server.cpu_seconds

        async def ask() -> None:
            while time.perf_counter() < begin + seconds:
                await _send(client, traffic, tally)

        await asyncio.gather(*(ask() for _ in range(clients)))
        tally.taken, tally.cpu_seconds = time.perf_counter() - begin, server.cpu_seconds - before
    return tally


async def ask_too_much(
    server: Server, traffic: Traffic, rate: float, seconds: float, watch: Callable[[], None]
) -> tuple[Tally, dict[str, float]]:
    """Send twice as many requests per second as are answered, then stop it; return answers and what there was then.

    Args:
        server ([`Server`]): It is told to stop while it has requests, and nothing is sent any more.
        traffic ([`Traffic`]): What is asked.
        rate (`float`): Requests a second in the beginning; then twice what was answered in the latest seconds.
        seconds (`float`): How long.
        watch (`Callable`): Called once per second.
    """
    tally, tasks = Tally(), set[asyncio.Task[None]]()
    answered = deque([0], maxlen=6)
    async with _client(server) as client:
        begin = last = next_look = time.perf_counter()
        due = 0.0
        while (now := time.perf_counter()) < begin + seconds:
            if now >= next_look:
                watch()
                next_look += 1
                answered.append(tally.counts["200"])
                if len(answered) == answered.maxlen:
                    rate = max(rate / 2, 2 * (answered[-1] - answered[0]) / (len(answered) - 1), 1.0)
            due, last = due + (now - last) * rate, now
            while tally.sent < due and len(tasks) < MAX_OPEN:
                task = asyncio.create_task(_send(client, traffic, tally))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(0)  # it is sent
            await asyncio.sleep(0.5 / rate)
        tally.taken = time.perf_counter() - begin
        await asyncio.sleep(1)  # what was sent has come
        async with client.get("/metrics") as answer:
            kept = re.search(r"^seekrec_state_bytes (\S+)$", await answer.text(), re.MULTILINE)
        at_stop = {"waiting_at_stop": len(tasks), "megabytes_of_states": float(kept[1]) / 1e6 if kept else 0.0}
        server.terminate()
        await asyncio.gather(*tasks)
    return tally, at_stop


__all__ = ["EVENTS_OF_A_USER", "NUM_USERS", "Server", "Tally", "TOP_K", "Traffic", "ask_too_much", "ask_in_turn"]
