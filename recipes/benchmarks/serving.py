# SPDX-License-Identifier: Apache-2.0
"""Measure the server: `seekrec serve` in one process, its clients in another.

    python recipes/benchmarks/serving.py
    python recipes/benchmarks/serving.py --models runs/gensar/model runs/synergen/model --parts load
    python recipes/benchmarks/serving.py --parts overload --minutes 10
    python recipes/benchmarks/serving.py --quick

`load`: clients that send the next request as soon as one is answered, to servers that batch and to one that answers
    one by one, in rounds that take turns. `overload`: twice as many requests per second as the server can answer, then
    a graceful stop. `start`: seconds to the first answer and memory, by size of the catalogue, and the cost of a new
    item. `states`: the cost of reading a user's next event, against reading the history again. Prints JSON lines;
    ratios are of medians.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import torch
from serving_load import NUM_USERS, TOP_K, Server, Tally, Traffic, ask_in_turn, ask_too_much
from serving_price import CODEBOOK_SIZE, NUM_LEVELS, SIZES, Shop, make_pair, make_shop

from seekrec import Event, Request
from seekrec.identifiers.configuration_dual_rqvae import ResidualKMeansConfig
from seekrec.identifiers.residual_kmeans import ResidualKMeans
from seekrec.models import save_checkpoint
from seekrec.serving.engine import LoadedModel, Question
from seekrec.serving.histories import KeptHistory
from seekrec.serving.states import UserStates
from seekrec.serving.store import Store
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

PARTS = ("load", "overload", "start", "states")
STATE_BYTES = 2**30


@dataclass
class Arguments:
    """What is measured."""

    models: list[str] = field(default_factory=list, metadata={"help": "Folders of models; else random ones."})
    families: list[str] = field(default_factory=lambda: ["gensar", "synergen"], metadata={"help": "Of random models."})
    parts: list[str] = field(default_factory=lambda: list(PARTS), metadata={"help": "Some or all of these."})
    deadlines: list[float] = field(
        default_factory=lambda: [0.0, 5.0, 20.0], metadata={"help": "Milliseconds that a batch waits for others."}
    )
    clients: int = field(default=32, metadata={"help": "Clients that ask at once."})
    rounds: int = field(default=5, metadata={"help": "Rounds of load of each server."})
    seconds: float = field(default=4.0, metadata={"help": "Of a round."})
    minutes: float = field(default=10.0, metadata={"help": "Of overload."})
    catalogs: list[int] = field(
        default_factory=lambda: [1_682, 100_000, 1_000_000], metadata={"help": "Items of the catalogues that start."}
    )
    histories: list[int] = field(default_factory=lambda: [50, 200, 1_000], metadata={"help": "Events of a user."})
    repeats: int = field(default=15, metadata={"help": "Requests of each kind."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})
    quick: bool = field(default=False, metadata={"help": "Everything once, small, in a minute."})

    def __post_init__(self) -> None:
        if self.quick:
            self.clients, self.rounds, self.seconds, self.minutes = 4, 1, 1.0, 0.1
            self.catalogs, self.histories, self.repeats = [300], [20], 2


def make_catalogs(num_items: int, seed: int) -> Shop:
    """Make up a catalogue to which items can be added."""
    shop = make_shop(num_items, seed, has_views=False)
    sizes = {f"{view}_size": size for view, size in SIZES.items()}
    levels = {"num_shared_levels": 2, "num_specific_levels": NUM_LEVELS - 2, "codebook_size": CODEBOOK_SIZE}
    model = ResidualKMeans(ResidualKMeansConfig(**sizes, **levels))
    rng = np.random.default_rng(seed)
    for name, quantizer in model.quantizers.items():
        size = sum(SIZES.values()) if name == "shared" else SIZES[name]
        quantizer.set_codebooks(rng.standard_normal((2, CODEBOOK_SIZE, size), np.float32))
    return replace(shop, with_identifiers=replace(shop.with_identifiers, identifier_model=model))


def save_random(family: str, shop: Shop, folder: Path, seed: int) -> str:
    """Save a model with random weights."""
    save_checkpoint(*make_pair(family, shop, seed), folder)
    return str(folder)


def say(part: str, **values: object) -> None:
    """Print a line."""

    def rounded(value: object) -> object:
        return float(f"{value:.4g}") if isinstance(value, float) else value

    print(json.dumps({"part": part} | {name: rounded(value) for name, value in values.items()}), flush=True)


# ---- load ----


def measure_load(name: str, model: str, folder: Path, arguments: Arguments) -> None:
    """Ask servers in turns that differ in how long they wait for a batch."""
    one_by_one = "one by one"
    contenders: dict[str, dict[str, float]] = {one_by_one: {"max_batch": 1, "batch_wait_ms": 0.0}}
    contenders |= {f"{wait:g} ms": {"batch_wait_ms": wait} for wait in arguments.deadlines}
    tallies: dict[str, list[Tally]] = {contender: [] for contender in contenders}
    with ExitStack() as stack:
        servers = {one: stack.push(Server(model, folder / one, **options)) for one, options in contenders.items()}
        for server in servers.values():
            server.wait_until_ready()
        traffic = {one: Traffic(server, arguments.seed) for one, server in servers.items()}
        for number in range(arguments.rounds + 1):
            for one, server in servers.items():
                seconds = arguments.seconds if number else 1.0  # the first only warms up
                found = asyncio.run(ask_in_turn(server, traffic[one], arguments.clients, seconds))
                if number:
                    tallies[one].append(found)
    alone: dict[str, float] = {}
    for one, rounds in tallies.items():
        found = {"requests_per_second": statistics.median(tally.rate for tally in rounds)}
        used = [tally.cpu_seconds / sum(tally.counts.values()) for tally in rounds]
        found["cpu_ms"] = 1e3 * statistics.median(used)
        times = [tally.percentiles() for tally in rounds]
        found |= {f"{key}_ms": statistics.median(each[key] for each in times) for key in times[0]}
        alone = found if one == one_by_one else alone
        line: dict[str, object] = {"model": name, "server": one, "clients": arguments.clients, "top_k": TOP_K}
        line |= found | {f"{key} / one by one": value / alone[key] for key, value in found.items()}
        statuses = sum((tally.counts for tally in rounds), Counter())
        say("load", **line, statuses=dict(statuses))


def measure_overload(name: str, model: str, folder: Path, arguments: Arguments) -> None:
    """Send twice what a server answers, and stop it under load."""
    with Server(model, folder / "overload") as server:
        traffic = Traffic(server, arguments.seed)
        first = traffic.appended
        for seconds in (1.0, 2 * arguments.seconds):
            tally = asyncio.run(ask_in_turn(server, traffic, 2 * arguments.clients, seconds))
        rate = 2 * tally.rate
        memory: list[float] = []
        tally, at_stop = asyncio.run(
            ask_too_much(server, traffic, rate, 60 * arguments.minutes, lambda: memory.append(server.megabytes))
        )
        status = server.wait()
        store = Store(server.store)
        there = sum(len(store.events_after(f"u{user}", 0, 10**6)) for user in range(NUM_USERS))
        store.close()
    tenth = max(1, len(memory) // 10)
    # What is kept, and what threads hold, fills in the beginning.
    later = memory[len(memory) // 2 :]
    slope = float(np.polyfit(np.arange(len(later)) / 60, later, 1)[0]) if len(later) > 2 else None
    answered = sum(number for key, number in tally.counts.items() if key.isdigit())
    line: dict[str, object] = {"model": name, "minutes": arguments.minutes}
    line |= {"sent_per_second": tally.sent / tally.taken, "answered_per_second": tally.counts["200"] / tally.taken}
    line |= {"sent": tally.sent, "statuses": dict(tally.counts), "without_answer": tally.sent - answered}
    line |= {f"{key}_ms": value for key, value in tally.percentiles().items()}
    line |= at_stop | {"exit_status": status}
    line |= {"events_acknowledged": traffic.appended, "events_in_store": there, "events_before": first}
    line |= {"megabytes": [round(statistics.median(memory[at : at + tenth])) for at in range(0, len(memory), tenth)]}
    say("overload", **line, megabytes_a_minute_of_the_second_half=slope)


# ---- start ----


def measure_start(name: str, model: str, folder: Path) -> None:
    """Start a server; ask it once, then for each task, then put items."""
    with Server(model, folder / "start") as server, httpx.Client(base_url=server.url, timeout=600) as client:

        def ask(method: str, route: str, bodies: list[dict[str, object]]) -> float:
            """Return milliseconds of the server's processor for a request."""
            begin = server.cpu_seconds
            for body in bodies:
                client.request(method, route, json=body).raise_for_status()
            return 1e3 * (server.cpu_seconds - begin) / len(bodies)

        items = client.get("/items", params={"limit": 20}).json()["items"]
        history = [{"item_id": item["item_id"], "timestamp": place} for place, item in enumerate(items)]
        body: dict[str, object] = {"history": history, "top_k": TOP_K}
        ask("POST", "/recommend", [body])
        line: dict[str, object] = {"model": name, "items": client.get("/health").json()["num_items"]}
        line |= {"seconds": time.perf_counter() - server.started, "cpu_seconds": server.cpu_seconds}
        line |= {"megabytes": server.megabytes, "recommend_cpu_ms": ask("POST", "/recommend", [body] * 50)}
        line |= {"first_search_cpu_ms": ask("POST", "/search", [body | {"query": "a first one"}])}
        searches = [body | {"query": f"word{number} word{number + 1}"} for number in range(50)]
        line |= {"search_cpu_ms": ask("POST", "/search", searches), "megabytes_with_queries": server.megabytes}
        puts = [{"items": [{"item_id": f"new-{number}", "title": f"a new one {number}"}]} for number in range(6)]
        line |= {"first_put_cpu_ms": ask("PUT", "/items", puts[:1]), "put_cpu_ms": ask("PUT", "/items", puts[1:])}
        line |= {"megabytes_with_new": server.megabytes}
    say("start", **line)


# ---- states ----


def measure_states(family: str, arguments: Arguments) -> None:
    """Answer a user whose history grows by an event, from what is kept and from the whole history."""
    shop = make_shop(2_000, arguments.seed, has_views=False)
    longest = max(arguments.histories) + arguments.repeats + 2
    model, processor = make_pair(family, shop, arguments.seed, max_history=longest)
    rows = np.random.default_rng(arguments.seed).integers(0, len(shop.catalog), longest).tolist()
    events = tuple(Event(f"i{row}", timestamp=600 * place) for place, row in enumerate(rows))
    keeping, reading = (LoadedModel(family, "", model, processor) for _ in range(2))
    keeping.keep_states(STATE_BYTES)
    for length in arguments.histories:
        states = UserStates(model, processor, STATE_BYTES)
        times: dict[str, list[float]] = {name: [] for name in ("extend", "again", "answer", "answer again")}
        differences, is_same = [0.0], True
        for number in range(length, length + arguments.repeats + 1):
            kept = KeptHistory("ann", number, tuple(range(1, number + 1)), events[:number])
            asked = Question(Request(timestamp=600 * longest), kept.events, kept, top_k=TOP_K)
            alone = replace(asked, kept=None)
            anew = UserStates(model, processor, STATE_BYTES)
            runs = {
                "extend": lambda kept=kept, states=states: states.read([kept], shop.catalog),
                "again": lambda kept=kept, anew=anew: anew.read([kept], shop.catalog),
                "answer": lambda asked=asked: keeping.answer([asked]),
                "answer again": lambda alone=alone: reading.answer([alone]),
            }
            found = {}
            for name, run in runs.items():
                begin = time.process_time()  # of one thread, whatever else the machine does
                found[name] = run()
                times[name].append(time.process_time() - begin)
            first, second = found["answer"][0].items, found["answer again"][0].items
            is_same &= [one.item_id for one in first] == [one.item_id for one in second]
            differences += [abs(one.score - other.score) for one, other in zip(first, second, strict=True)]
        # The first of each length reads all.
        medians = {name: 1e3 * statistics.median(seconds[1:]) for name, seconds in times.items()}
        line: dict[str, object] = {"model": family, "events": length, "value": medians["extend"] / medians["again"]}
        line |= {"extend_ms": medians["extend"], "again_ms": medians["again"]}
        line |= {"answer / answer again": medians["answer"] / medians["answer again"]}
        line |= {"answer_ms": medians["answer"], "answer_again_ms": medians["answer again"]}
        say("states", **line, same_items=is_same, largest_difference=max(differences))


def main(argv: list[str]) -> None:
    """Run the parts."""
    (arguments,) = parse_arguments([Arguments], argv)
    torch.set_num_threads(1)
    numbers = count()
    with tempfile.TemporaryDirectory(prefix="seekrec-serving-") as place:

        def new_folder() -> Path:
            return Path(place) / str(next(numbers))

        if {"load", "overload"} & {*arguments.parts}:
            models = {Path(model).resolve().parent.name: model for model in arguments.models}
            if not models:
                shop = make_catalogs(arguments.catalogs[0], arguments.seed)
                for family in arguments.families:
                    models[family] = save_random(family, shop, new_folder(), arguments.seed)
            for name, model in models.items():
                if "load" in arguments.parts:
                    measure_load(name, model, new_folder(), arguments)
                if "overload" in arguments.parts:
                    measure_overload(name, model, new_folder(), arguments)
        if "start" in arguments.parts:
            for num_items in arguments.catalogs:
                for family in arguments.families:
                    shop = make_catalogs(num_items, arguments.seed)
                    model = save_random(family, shop, new_folder(), arguments.seed)
                    del shop
                    gc.collect()
                    measure_start(family, model, new_folder())
        if "states" in arguments.parts:
            for family in ("intsr", "synergen", "gensar"):
                measure_states(family, arguments)


if __name__ == "__main__":
    with one_line_errors("serving.py"):
        main(sys.argv[1:])
