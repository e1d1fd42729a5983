# SPDX-License-Identifier: Apache-2.0
"""Measure training of IntSR and SynerGen, against encoding the history for each target. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/training_throughput.py

Items, users and weights are random, the models those of the recipes' settings. `windows` is how they are trained: a
user's events are read once and all questions about them are answered from that. `prefixes` is the naive way: each
question is its own row with the events before it. Both have the same events, questions and negatives, so they have the
same losses: every event is its own session, and nothing is dropped out. The timed step is one optimizer step: forward,
backward and AdamW, at a learning rate of 0, so that all steps do their work on the same weights. Seconds are medians
of processor time, over all threads; both ways take turns.

The rows of prefixes are sorted by length and split into micro-batches, whose gradients are summed; attention of one,
in pairs of events, is at most `room` times that of the batch of windows. For each family and length:

- `windows_events_per_second`, `prefixes_events_per_second`: an event counts once, however many rows contain it;
- `ratio`: of the first to the second;
- `prefix_rows`, `prefix_peak_rows`, `micro_batches`: rows in all, most at once, and how often;
- `largest_difference`: between the losses of both ways, relative; the worst of all losses of the family.

Then for each family `windows_exponent` and `prefixes_exponent`: the power of the length by which the seconds of one
window grow, a line through the logarithms by least squares.
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
from torch import Tensor
from transformers import PreTrainedModel

from seekrec import Catalog, EventLog, Split, split_log
from seekrec.corpora.training_windows import TrainingWindows
from seekrec.models import (
    IntSRConfig,
    IntSRForSearchAndRecommendation,
    IntSRProcessor,
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
    SynerGenProcessor,
)
from seekrec.models.dense import DenseConfig, DenseRetrieval
from seekrec.recipes.windows import WindowArguments, make_window_model, make_window_processor, make_windows
from seekrec.training import WindowCollator
from seekrec.training.event_windows import QueryPool, make_negatives
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments
from seekrec.util.ragged import Ragged

HOUR = 3600
TEXT_SIZE = 64
NUM_QUERIES = 100
# A step that takes so many seconds is not repeated.
LONG = 30.0

Batch = dict[str, Tensor]

FAMILIES = {
    "intsr": (IntSRConfig, IntSRForSearchAndRecommendation, IntSRProcessor),
    "synergen": (SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor),
}


@dataclass
class Arguments:
    """What is measured."""

    families: list[str] = field(default_factory=lambda: ["intsr", "synergen"], metadata={"help": "Which models."})
    lengths: list[int] = field(default_factory=lambda: [25, 50, 100, 200, 400], metadata={"help": "Events of a user."})
    num_items: int = field(default=2_000, metadata={"help": "Items of the catalogue, all of them negatives."})
    batch_size: int = field(default=4, metadata={"help": "Windows of a step, each of another user."})
    repeats: int = field(default=5, metadata={"help": "Steps of each way; one for a way that takes half a minute."})
    hidden_size: int = field(default=64, metadata={"help": "Width."})
    room: float = field(default=4.0, metadata={"help": "Size of a micro-batch of prefixes, in batches of windows."})
    seed: int = field(default=0, metadata={"help": "Seed of weights, items and events."})
    num_threads: int = field(default=1, metadata={"help": "Threads of torch."})


def make_split(arguments: Arguments, length: int) -> Split:
    """Make up users with `length` events in training, a third of them searches, and no item twice if there are enough.

    An event an hour, each its own session. The last two of each user are held out.
    """
    generator = np.random.default_rng(arguments.seed)
    num_events, num_users, num_items = length + 2, arguments.batch_size, arguments.num_items
    rows = np.stack([np.resize(generator.permutation(num_items), num_events) for _ in range(num_users)]).ravel()
    is_search = generator.random(len(rows)) < 1 / 3
    queries = np.array([f"query {number}" for number in range(NUM_QUERIES)], dtype=object)
    events = pa.table(
        {
            "user_id": np.repeat([f"u{number}" for number in range(num_users)], num_events),
            "timestamp": np.tile(np.arange(num_events) * HOUR, num_users),
            "behavior": np.where(is_search, "search", "recommendation"),
            "query": pa.array(np.where(is_search, queries[generator.integers(NUM_QUERIES, size=len(rows))], None)),
            "item_id": [f"i{row}" for row in rows],
            "action": ["click"] * len(rows),
        }
    )
    names = [f"i{row}" for row in range(num_items)]
    items = pa.table({"item_id": names, "title": names})
    return split_log(EventLog(name="made up", events=events, items=items, query_source="logged"))


def make_vectors(count: int, seed: int) -> np.ndarray:
    """Make up text vectors of unit length."""
    vectors = np.random.default_rng(seed).normal(size=(count, TEXT_SIZE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_config(family: str, arguments: Arguments, length: int) -> DenseConfig:
    """Make the settings of a family's recipe, but for the width and for dropout, of which there is none."""
    if family not in FAMILIES:
        raise SystemExit(f"--families has {family!r}; choose among intsr and synergen.")
    config_type = FAMILIES[family][0]
    return config_type(max_history=length, hidden_size=arguments.hidden_size, dropout=0.0)


def make_family(config: DenseConfig, split: Split, catalog: Catalog, arguments: Arguments) -> DenseRetrieval:
    """Make a model over a catalogue."""
    torch.manual_seed(arguments.seed)
    _, model_type, processor_type = FAMILIES[config.model_type]
    processor = make_window_processor(processor_type, config, split, catalog)
    return make_window_model(model_type, config, catalog, processor, WindowArguments()).train()


def make_batch(windows: TrainingWindows, catalog: Catalog, seed: int) -> Batch:
    """Lay out all windows as one batch, with negatives for the losses that want them; queries are vectors already."""
    nothing = Ragged(np.empty(0, dtype=np.int64), np.zeros(len(catalog) + 1, dtype=np.int64))
    pool = QueryPool(nothing, make_vectors(len(windows.events.queries), seed + 1))
    negatives = make_negatives(windows, catalog, "uniform", DenseConfig.num_training_negatives, seed=seed)
    return WindowCollator(windows, pool, negatives=negatives, seed=seed)(range(len(windows)))


def make_prefixes(batch: Batch, room: float) -> list[Batch]:
    """Write each question of a batch as its own row.

    Args:
        batch (`dict[str, torch.Tensor]`): What a `WindowCollator` gave.
        room (`float`): Pairs of events in a micro-batch, by those of the batch.

    Returns:
        `list[dict[str, torch.Tensor]]`: Micro-batches, shortest rows first.
    """
    length = batch["history_mask"].shape[1]
    window, question = (batch["labels"] >= 0).nonzero(as_tuple=True)
    before = batch["question_events"][window, question]
    order = before.argsort(stable=True)
    window, question, before = window[order], question[order], before[order]
    most = room * len(batch["labels"]) * length**2
    parts, stop = [], len(order)
    while stop:
        # The target keeps its position, where SynerGen looks up its action; the mask hides it.
        longest = int(before[stop - 1]) + 1
        start = max(0, stop - max(1, int(most / longest**2)))
        rows = slice(start, stop)
        part = {"query_vectors": batch["query_vectors"]}
        for name, values in batch.items():
            if name.startswith("history_"):
                part[name] = values[window[rows], :longest]
            elif name != "query_vectors":
                part[name] = values[window[rows], question[rows]][:, None]
        part["history_mask"] = part["history_mask"] & (torch.arange(longest) < before[rows, None])
        parts.append(part)
        stop = start
    return parts[::-1]


def run_step(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, batches: list[Batch], num_questions: int
) -> dict[str, float]:
    """Make one optimizer step on the sum of some batches' losses, and return each loss; gradients are kept."""
    optimizer.zero_grad()
    losses: dict[str, float] = {}
    for batch in batches:
        output = model(**batch, num_items_in_batch=num_questions)
        output.loss.backward()
        for name, value in output.items():
            if name.endswith("loss"):
                losses[name] = losses.get(name, 0.0) + float(value.detach())
    optimizer.step()
    return losses


def measure(model: PreTrainedModel, ways: dict[str, list[Batch]], repeats: int) -> tuple[dict[str, float], float]:
    """Run steps of both ways in turn: the median of the seconds of each, and how far their losses are apart."""
    num_questions = int((ways["windows"][0]["labels"] >= 0).sum())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, dict[str, float]] = {}
    for round_number in range(repeats + 1):
        for name, batches in ways.items():
            # The first round warms up, unless a single step is all there is time for.
            if seconds[name] and seconds[name][0] > LONG:
                continue
            started = time.process_time()
            losses[name] = run_step(model, optimizer, batches, num_questions)
            taken = time.process_time() - started
            if round_number or taken > LONG:
                seconds[name].append(taken)
    one, other = losses["windows"], losses["prefixes"]
    difference = max(abs(one[name] - other[name]) / max(abs(one[name]), 1e-9) for name in one)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, difference


def main(arguments: Arguments) -> None:
    """Measure each family at each length."""
    torch.set_num_threads(arguments.num_threads)
    growth: dict[str, list[dict[str, float]]] = {family: [] for family in arguments.families}
    for length in arguments.lengths:
        # 1. Users whose training events fill a window each, and their batch in both ways.
        split = make_split(arguments, length)
        catalog = Catalog.build(
            split.log.items, embeddings={"semantic": make_vectors(arguments.num_items, arguments.seed)}
        )
        configs = {family: make_config(family, arguments, length) for family in arguments.families}
        config = next(iter(configs.values()))
        batch = make_batch(make_windows(split, catalog, config, WindowArguments()), catalog, arguments.seed)
        ways = {"windows": [batch], "prefixes": make_prefixes(batch, arguments.room)}
        rows = [len(part["labels"]) for part in ways["prefixes"]]
        num_windows, num_events = len(batch["labels"]), int(batch["history_mask"].sum())

        # 2. Steps of each model.
        for family in arguments.families:
            model = make_family(configs[family], split, catalog, arguments)
            seconds, difference = measure(model, ways, arguments.repeats)
            line = {
                "family": family,
                "length": length,
                **{f"{name}_events_per_second": round(num_events / taken, 1) for name, taken in seconds.items()},
                "ratio": round(seconds["prefixes"] / seconds["windows"], 2),
                "num_windows": num_windows,
                "prefix_rows": sum(rows),
                "prefix_peak_rows": max(rows),
                "micro_batches": len(rows),
                "largest_difference": difference,
            }
            print(json.dumps(line), flush=True)
            growth[family].append({name: taken / num_windows for name, taken in seconds.items()})

    # 3. How the seconds grow.
    if len(set(arguments.lengths)) > 1:
        for family, measured in growth.items():
            exponents = {}
            for name in measured[0]:
                slope = np.polyfit(np.log(arguments.lengths), np.log([one[name] for one in measured]), 1)[0]
                exponents[f"{name}_exponent"] = round(float(slope), 2)
            print(json.dumps({"family": family, **exponents}))


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
