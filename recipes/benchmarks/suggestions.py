# SPDX-License-Identifier: Apache-2.0
"""Measure the cost of query suggestions: users counted as events arrive, or from all events at each request.

    python recipes/benchmarks/suggestions.py
    python recipes/benchmarks/suggestions.py --quick

An SQLite store is filled with events of random users, a third of them searches whose queries follow a power law.
Prints JSON lines: for each query prefix `kept_ms`, the time of the store, `counted_ms`, of one statement over all
events, and `value`, kept / counted; then `searches_ms` and `acts_ms`, for a batch of new events that are all searches,
or none. Medians of runs that took turns.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import Engine, create_engine, func, select
from turns import time_in_turns

from seekrec import Event
from seekrec.serving.query_counts import MIN_USERS_OF_QUERY, count_queries
from seekrec.serving.schema_versions import events
from seekrec.serving.store import Store, StoredEvent
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

NUM_QUERIES, EVENTS_OF_A_USER = 100_000, 20
SHARE_OF_SEARCHES, EXPONENT = 1 / 3, 1.2


@dataclass
class Arguments:
    """What is measured."""

    num_events: int = field(default=1_000_000, metadata={"help": "Events of the store."})
    batch: int = field(default=100, metadata={"help": "Events of a batch that is appended."})
    top_k: int = field(default=5, metadata={"help": "Queries asked for."})
    repeats: int = field(default=7, metadata={"help": "Runs of each contender."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})
    quick: bool = field(default=False, metadata={"help": "Everything once, small, in seconds."})

    def __post_init__(self) -> None:
        if self.quick:
            self.num_events, self.batch, self.repeats = 3_000, 10, 1


def draw_events(rng: np.random.Generator, numbers: Sequence[int], num_users: int, share: float) -> list[StoredEvent]:
    """Draw events with the numbers as ids."""
    users, queries = rng.integers(num_users, size=len(numbers)), rng.zipf(EXPONENT, size=len(numbers)) % NUM_QUERIES
    is_search = rng.random(len(numbers)) < share
    return [
        StoredEvent(
            f"e{number}",
            f"u{user}",
            Event("i1", "search", number, f"query number {query}") if search else Event("i1", timestamp=number),
        )
        for number, user, query, search in zip(
            numbers, users.tolist(), queries.tolist(), is_search.tolist(), strict=True
        )
    ]


def fill(engine: Engine, arguments: Arguments, rng: np.random.Generator, num_users: int) -> None:
    """Write events in large batches; numbers of a user's events, which nothing reads here, are those of all."""
    for start in range(0, arguments.num_events, 10_000):
        numbers = range(start, min(start + 10_000, arguments.num_events))
        drawn = draw_events(rng, numbers, num_users, SHARE_OF_SEARCHES)
        rows = [
            {"event_id": one.event_id, "user_id": one.user_id, "number": 2**32 + number, **asdict(one.event)}
            for number, one in zip(numbers, drawn, strict=True)
        ]
        with engine.begin() as connection:
            connection.execute(events.insert(), rows)
            count_queries(connection, [(one.user_id, one.event.query) for one in drawn if one.event.query])


def count_all(engine: Engine, prefix: str, limit: int) -> list[str]:
    """Return common queries, counted over all events."""
    users = func.count(events.c.user_id.distinct())
    asked = select(events.c.query).where(func.lower(events.c.query).startswith(prefix, autoescape=True))
    asked = asked.group_by(events.c.query).having(users >= MIN_USERS_OF_QUERY)
    with engine.connect() as connection:
        return list(connection.execute(asked.order_by(users.desc(), events.c.query).limit(limit)).scalars())


def main(argv: list[str]) -> None:
    """Measure, and print a JSON line each."""
    (arguments,) = parse_arguments([Arguments], argv)
    rng, num_users = np.random.default_rng(arguments.seed), max(10, arguments.num_events // EVENTS_OF_A_USER)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'store.sqlite')}"
        store, engine = Store(url), create_engine(url)
        fill(engine, arguments, rng, num_users)
        for prefix in ("", "query number 1", "query number 99", "nothing"):
            contenders = {
                "kept": partial(store.common_queries, prefix, arguments.top_k),
                "counted": partial(count_all, engine, prefix, arguments.top_k),
            }
            times = time_in_turns(contenders, arguments.repeats)
            line = {f"{name}_ms": round(1e3 * seconds, 3) for name, seconds in times.items()}
            line |= {"value": float(f"{times['kept'] / times['counted']:.3g}")}
            same = contenders["kept"]() == contenders["counted"]()
            print(json.dumps({"events": arguments.num_events, "prefix": prefix, **line, "same": same}), flush=True)
        later = itertools.count(arguments.num_events)

        def append(share: float) -> int:
            numbers = list(itertools.islice(later, arguments.batch))
            return store.append_events(draw_events(rng, numbers, num_users, share))

        times = time_in_turns({"searches": lambda: append(1), "acts": lambda: append(0)}, arguments.repeats)
        line = {f"{name}_ms": round(1e3 * seconds, 3) for name, seconds in times.items()}
        print(json.dumps({"events": arguments.num_events, "batch": arguments.batch, **line}))
        engine.dispose()
        store.close()


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(sys.argv[1:])
