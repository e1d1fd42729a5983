# SPDX-License-Identifier: Apache-2.0
"""Kill servers while they are written to, and see what is left.

    python tests/serving/kills.py --store sqlite --kills 200

Two server processes share a store. Writers put and delete items and append events, at either of them, while one after
the other is killed (SIGKILL) and started again. In the end every change that was acknowledged must be there, every
other one whole or not at all, both servers must say the same, and the users counted for a query must be those of the
events.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from databases import running_postgres  # noqa: E402
from small_shop import NUM_ITEMS, AisleVectors, aisle_vector, make_intsr  # noqa: E402
from sqlalchemy import create_engine, func, select  # noqa: E402

import seekrec.embeddings  # noqa: E402
from seekrec.models import save_checkpoint  # noqa: E402
from seekrec.models.dense import QueryVectors  # noqa: E402
from seekrec.serving.query_counts import queries  # noqa: E402
from seekrec.serving.schema_versions import events  # noqa: E402

# Items of one change, and events: what must be there whole.
BATCH = 3
# Servers are forked from this process, which has imported everything.
FORK = multiprocessing.get_context("fork")


def embed(texts, **_):
    """Stand for the text encoder."""
    return np.stack([aisle_vector(text) for text in texts])


def run_server(model: str, store: str, port: int) -> None:
    """Serve, in a process of its own."""
    import uvicorn

    from seekrec.serving import create_app

    torch.set_num_threads(1)
    app = create_app(model, store=store, batch_wait_ms=0.0, poll_s=0.1)
    uvicorn.run(app, port=port, log_config=None, access_log=False)


class Server:
    """One server process, which can be killed and started again."""

    def __init__(self, model: str, store: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = (model, store, self.port)
        self.start()

    def start(self) -> None:
        self.process = FORK.Process(target=run_server, args=self._settings, daemon=True)
        self.process.start()
        for _ in range(600):
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if not self.process.is_alive():
                raise RuntimeError(f"a server ended with {self.process.exitcode}")
            time.sleep(0.05)
        raise RuntimeError("a server did not get ready")

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


class Writer(threading.Thread):
    """Writes at either server, and remembers what was acknowledged.

    Every batch of items shares a description, every batch of events a session, so that a torn one is seen. A writer's
    items and users are its own: what it was told last is what must be there.
    """

    def __init__(self, name: str, servers: list[Server], seed: int) -> None:
        super().__init__(daemon=True)
        self.own, self.servers, self.random = name, servers, random.Random(seed)
        self.items: dict[str, list[str]] = {}  # by batch
        self.wanted: dict[str, str] = {}  # by batch: "there", "removed", or "either" where no answer came
        self.events: dict[str, str] = {}  # by batch: "there", or "either"
        self.counts = {"acknowledged": 0, "unanswered": 0}
        self.wrong: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            kind = self.random.choice(["put", "put", "delete", "events", "events"])
            batch = f"{self.own}-{number}"
            if kind == "delete":
                there = [name for name, state in self.wanted.items() if state == "there"]
                if not there:
                    continue
                batch = self.random.choice(there)
                said = self._send("DELETE", "/items", {"item_ids": self.items[batch]})
                self.wanted[batch] = "removed" if said else "either"
            elif kind == "put":
                self.items[batch] = [f"{batch}-{one}" for one in range(BATCH)]
                lines = [
                    {"item_id": one, "title": f"kitchen {one}", "description": batch} for one in self.items[batch]
                ]
                self.wanted[batch] = "there" if self._send("PUT", "/items", {"items": lines}) else "either"
            else:
                lines = [
                    {"event_id": f"{batch}-{one}", "user_id": self.own, "timestamp": number, "session_id": batch}
                    | {"item_id": f"i{self.random.randrange(NUM_ITEMS)}"}
                    | ({} if one else {"behavior": "search", "query": f"kitchen {number % 7}"})
                    for one in range(BATCH)
                ]
                self.events[batch] = "there" if self._send("POST", "/events", {"events": lines}) else "either"

    def _send(self, method: str, path: str, body: dict) -> bool:
        """Return whether a change was acknowledged; one that was refused for good is noted."""
        server = self.random.choice(self.servers)
        try:
            answer = httpx.request(method, server.url + path, json=body, timeout=30)
        except httpx.HTTPError:
            self.counts["unanswered"] += 1
            return False
        if answer.status_code != 200:
            if answer.status_code not in (429, 503):
                self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            self.counts["unanswered"] += 1
            return False
        self.counts["acknowledged"] += 1
        return True


def look(server: Server, writers: list[Writer]) -> tuple[dict[str, str], dict[str, list]]:
    """Return what a server says of items (by batch) and of the histories of the writers' users."""
    items: dict[str, str] = {}
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for writer in writers:
            for batch, ids in writer.items.items():
                states = []
                for one in ids:
                    answer = client.get(f"/items/{one}")
                    if answer.status_code == 404:
                        states.append("removed" if "deleted" in answer.text else "absent")
                        continue
                    found = answer.json()
                    whole = (found["item"]["title"], found["item"]["description"]) == (f"kitchen {one}", batch)
                    states.append("there" if whole else "torn")
                items[batch] = states[0] if len(set(states)) == 1 else f"torn {states}"
        histories = {writer.own: client.get(f"/users/{writer.own}/history").json()["events"] for writer in writers}
    return items, histories


def check(servers: list[Server], writers: list[Writer]) -> list[str]:
    """Return everything that is wrong."""
    wrong = [line for writer in writers for line in writer.wrong]
    seen = [look(server, writers) for server in servers]
    if seen[0] != seen[1]:
        differ = [batch for batch in seen[0][0] if seen[0][0][batch] != seen[1][0][batch]]
        wrong.append(f"the servers differ: items {differ[:5]}, histories {seen[0][1] != seen[1][1]}")
    items, histories = seen[0]
    for writer in writers:
        for batch, state in writer.wanted.items():
            allowed = {"either": {"absent", "there", "removed"}}.get(state, {state})
            if items[batch] not in allowed:
                wrong.append(f"items {batch}: {items[batch]}, acknowledged {state}")
        counts: dict[str, int] = {}
        for event in histories[writer.own]:
            counts[event["session_id"]] = counts.get(event["session_id"], 0) + 1
        # A history holds the latest thousand events.
        least = min((event["timestamp"] for event in histories[writer.own]), default=0)
        for batch, state in writer.events.items():
            if int(batch.split("-")[-1]) <= least and len(histories[writer.own]) >= 1000:
                continue
            if counts.get(batch, 0) not in ((BATCH,) if state == "there" else (0, BATCH)):
                wrong.append(f"events {batch}: {counts.get(batch, 0)} of {BATCH}, acknowledged {state}")
    return wrong


def check_queries(url: str) -> list[str]:
    """Return the queries whose users were counted wrong."""
    engine = create_engine(url)
    with engine.connect() as connection:
        kept = {row.query: row.num_users for row in connection.execute(select(queries))}
        users = func.count(events.c.user_id.distinct()).label("num_users")
        asked = select(events.c.query, users).where(events.c.query.is_not(None)).group_by(events.c.query)
        counted = {row.query: row.num_users for row in connection.execute(asked)}
    engine.dispose()
    differ = [query for query in kept.keys() | counted.keys() if kept.get(query) != counted.get(query)]
    return [f"query {query!r}: {kept.get(query)} users, not {counted.get(query)}" for query in differ]


def run(store: str, kills: int, *, num_writers: int = 2, seed: int = 0) -> dict[str, object]:
    """Kill servers so often, and return what was seen."""
    # Servers are forked from this process: where catalogue and queries have their text encoder, they find this one.
    seekrec.embeddings.embed_texts = embed
    QueryVectors._embed = AisleVectors._embed
    order = random.Random(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        save_checkpoint(*make_intsr(), folder / "model")
        url = f"sqlite:///{folder / 'store.sqlite'}"
        if store == "postgresql":
            url = stack.enter_context(running_postgres())()
        servers = [Server(str(folder / "model"), url) for _ in range(2)]
        for server in servers:
            stack.callback(lambda one=server: one.process.is_alive() and one.kill())
        writers = [Writer(f"w{number}", servers, seed + number) for number in range(num_writers)]
        for writer in writers:
            writer.start()
        started = time.monotonic()
        for number in range(kills):
            time.sleep(order.uniform(0.02, 0.3))
            server = servers[number % 2]
            server.kill()
            server.start()
        for writer in writers:
            writer.stopped.set()
        for writer in writers:
            writer.join()
        time.sleep(1.0)  # what the other process changed is seen within a second
        wrong = check(servers, writers) + check_queries(url)
        counts = {name: sum(writer.counts[name] for writer in writers) for name in ("acknowledged", "unanswered")}
        left = {
            name: sum(list(writer.wanted.values()).count(name) for writer in writers)
            for name in ("there", "removed", "either")
        }
        return {"store": store, "kills": kills, "seconds": round(time.monotonic() - started), **counts} | {
            "batches of items": dict(left),
            "batches of events": sum(len(writer.events) for writer in writers),
            "wrong": wrong,
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    given = parser.parse_args()
    found = run(given.store, given.kills)
    print(json.dumps(found, indent=2))  # noqa: T201
    sys.exit(bool(found["wrong"]))
