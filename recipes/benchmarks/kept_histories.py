# SPDX-License-Identifier: Apache-2.0
"""Measure answers from a history that the server keeps, against reading the history again. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/kept_histories.py

Users of random histories ask for recommendations, by IntSR and SynerGen of random weights, as a server's model thread
is asked: `again` lays out and reads whole histories, `kept` answers from the states of `seekrec.serving`, `extended`
after one more event of each user. The ways take turns; seconds are medians of processor time for each request. What
counts are the ratios, and `largest_difference` between the scores of both ways.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from seekrec import Catalog, Event, Request
from seekrec.models import (
    IntSRConfig,
    IntSRForSearchAndRecommendation,
    IntSRProcessor,
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
    SynerGenProcessor,
)
from seekrec.serving.engine import LoadedModel, Question
from seekrec.serving.histories import KeptHistory
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

HOUR = 3600
FAMILIES = {
    "intsr": (IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor),
    "synergen": (SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor),
}


@dataclass
class Arguments:
    """What is measured."""

    families: list[str] = field(default_factory=lambda: list(FAMILIES), metadata={"help": "Of models."})
    histories: list[int] = field(default_factory=lambda: [50, 200, 1000], metadata={"help": "Events of a user."})
    users: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "Users who ask at once."})
    num_items: int = field(default=10_000, metadata={"help": "Items of the catalogue."})
    hidden_size: int = field(default=64, metadata={"help": "Width."})
    num_hidden_layers: int = field(default=4, metadata={"help": "Layers."})
    repeats: int = field(default=7, metadata={"help": "Turns of which the median is taken."})
    seed: int = field(default=0, metadata={"help": "Seed of weights and histories."})


def make_model(family: str, arguments: Arguments) -> LoadedModel:
    """Make a model of random weights that reads a history of any of the lengths, and one event more for each turn."""
    names = {"item_id": [f"i{row}" for row in range(arguments.num_items)]}
    catalog = Catalog.build(pa.table({**names, "title": names["item_id"]}))
    torch.manual_seed(arguments.seed)
    config_class, model_class, processor_class = FAMILIES[family]
    config = config_class(
        num_items=arguments.num_items,
        text_size=0,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.num_hidden_layers,
        max_history=max(arguments.histories) + arguments.repeats + 1,
    )
    model = model_class(config)
    model.set_catalog(catalog)
    loaded = LoadedModel.load((model, processor_class.from_config(config, catalog)))
    loaded.keep_states(2**32)
    return loaded


def measure(loaded: LoadedModel, length: int, num_users: int, arguments: Arguments) -> dict[str, object]:
    """Let users with histories of one length ask in each way, in turns, after one more event of each."""
    draws = np.random.default_rng(arguments.seed)
    total = length + arguments.repeats + 1
    items = draws.integers(arguments.num_items, size=(num_users, total))
    histories = [
        tuple(Event(f"i{row}", timestamp=place * HOUR) for place, row in enumerate(line)) for line in items.tolist()
    ]

    def questions(count: int, is_kept: bool) -> list[Question]:
        asked, numbers = Request(timestamp=total * HOUR), tuple(range(1, count + 1))
        kept = [
            KeptHistory(f"{length} {num_users} {user}", count, numbers, one[:count])
            for user, one in enumerate(histories)
        ]
        return [Question(asked, one.events, one if is_kept else None) for one in kept]

    seconds: dict[str, list[float]] = {"again": [], "kept": [], "extended": []}
    largest = 0.0
    loaded.answer(questions(length, True))
    for turn in range(1, arguments.repeats + 1):
        scores = {}
        for way in ("extended", "kept", "again"):
            asked = questions(length + turn, way != "again")
            start = time.process_time()
            answers = loaded.answer(asked)
            seconds[way].append((time.process_time() - start) / num_users)
            scores[way] = np.array([[item.score for item in answer.items] for answer in answers])
        largest = max(largest, *(float(np.abs(scores[way] - scores["again"]).max()) for way in ("extended", "kept")))
    each = {way: statistics.median(taken) for way, taken in seconds.items()}
    return {
        "family": loaded.family,
        "history": length,
        "users": num_users,
        **{f"{way}_ms": round(1000 * taken, 3) for way, taken in each.items()},
        "extended_over_again": round(each["extended"] / each["again"], 3),
        "kept_over_again": round(each["kept"] / each["again"], 3),
        "largest_difference": largest,
    }


def main(arguments: Arguments) -> None:
    """Measure each family with each length of history and number of users."""
    for family in arguments.families:
        loaded = make_model(family, arguments)
        for length in arguments.histories:
            for num_users in arguments.users:
                print(json.dumps(measure(loaded, length, num_users, arguments)), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
