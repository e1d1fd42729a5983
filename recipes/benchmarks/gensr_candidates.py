# SPDX-License-Identifier: Apache-2.0
"""Measure how fast GenSR scores candidates, against one prompt per candidate. Prints JSON lines.

    OMP_NUM_THREADS=1 python recipes/benchmarks/gensr_candidates.py
    OMP_NUM_THREADS=1 python recipes/benchmarks/gensr_candidates.py --prompts shared --shapes recipe

Weights, items and histories are random, which does not affect speed. `ours` gives the model requests with all their
candidates; `one batch` writes a prompt for each candidate, its history included, and runs those of a request together,
as the released code evaluates; `one by one` runs them one after the other. Features are made inside the time. Medians
of runs that take turns, in one process; `largest_difference` is between our scores and those of the other methods, and
`spread` the standard deviation of the scores. Prompts: `plain`, sentences around the vectors, nothing shared;
`shared`, all words before all vectors, computed once per request; `shared, short`, a single word, as in the recipes
for CPUs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from seekrec import Catalog, Event, Request
from seekrec.corpora import encode_text, train_tokenizer
from seekrec.models import GenSRConfig, GenSRForConditionalGeneration, GenSRProcessor
from seekrec.models.gensr.processing_gensr import tokenizer_texts
from seekrec.models.t5_backbone import identifier_fields
from seekrec.recipes.t5 import scratch_fields
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

SHAPES = {
    "recipe": {"d_model": 64, "d_ff": 256, "num_layers": 2, "num_heads": 4, "loss_norm": "level"},
    "t5-small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
}
PROMPTS = {
    "plain": {"shared_prompt": False, "wording": "sentence"},
    "shared": {"shared_prompt": True, "wording": "compact"},
    "shared, short": {"shared_prompt": True, "wording": "short"},
}


@dataclass
class Arguments:
    """What is measured."""

    shapes: list[str] = field(default_factory=lambda: list(SHAPES), metadata={"help": "Shapes of the T5."})
    prompts: list[str] = field(default_factory=lambda: list(PROMPTS), metadata={"help": "How prompts are written."})
    batches: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "Requests given at once."})
    num_candidates: int = field(default=100, metadata={"help": "Candidates of a request."})
    history_length: int = field(default=20, metadata={"help": "Events of a history."})
    num_items: int = field(default=5_000, metadata={"help": "Items of the catalogue."})
    repeats: int = field(default=5, metadata={"help": "Runs of each way; one for a way that takes ten seconds."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})


def make_catalog(num_items: int, generator: np.random.Generator) -> Catalog:
    """Make up items with titles of eight words."""
    words = np.array(["".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(2_000)])
    titles = [" ".join(row) for row in words[generator.integers(2_000, size=(num_items, 8))].tolist()]
    return Catalog.build(pa.table({"item_id": [f"i{row}" for row in range(num_items)], "title": titles}))


def make_model(
    catalog: Catalog, settings: Mapping[str, object], seed: int
) -> tuple[GenSRForConditionalGeneration, GenSRProcessor]:
    """Make a model of random weights, and its processor."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(tokenizer_texts(catalog.items["title"].to_pylist()[:2_000]), 4_000)
    yes, no = (tokens[0] for tokens in encode_text(tokenizer, ["Yes", "No"], as_written=True))
    fields = {**settings, **identifier_fields(catalog), "yes_token_id": yes, "no_token_id": no}
    # With the small start weights of the recipes all candidates would score nearly the same.
    scratch = {**scratch_fields(GenSRConfig(**fields), tokenizer), "initializer_factor": 1.0}
    config = GenSRConfig(**fields, **scratch, first_identifier_token_id=0)
    model = GenSRForConditionalGeneration(config).eval()
    table = np.random.default_rng(seed).normal(size=(len(catalog), config.collaborative_size))
    model.set_collaborative_table(table)
    model.set_catalog(catalog)
    return model, GenSRProcessor.from_config(config, tokenizer, catalog)


def make_requests(arguments: Arguments, count: int, generator: np.random.Generator) -> list[Request]:
    """Make up searches and recommendations in turn."""
    requests = []
    for number in range(count):
        items = generator.integers(arguments.num_items, size=arguments.history_length).tolist()
        history = [Event(f"i{item}", timestamp=place) for place, item in enumerate(items)]
        requests.append(Request(history, query="a made up query" if number % 2 else None))
    return requests


def measure(
    ways: dict[str, Callable[[], list[np.ndarray]]], repeats: int
) -> dict[str, tuple[float, list[np.ndarray]]]:
    """Run ways in turn: the median of the seconds, and what each gave."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[np.ndarray]] = {}
    for round_number in range(repeats + 1):
        for name, way in ways.items():
            # The first round warms up, unless a single run is all there is time for.
            if len(seconds[name]) and seconds[name][0] > 10:
                continue
            started = time.perf_counter()
            answers[name] = way()
            taken = time.perf_counter() - started
            if round_number or taken > 10:
                seconds[name].append(taken)
    return {name: (statistics.median(seconds[name]), answers[name]) for name in ways}


def main(arguments: Arguments) -> None:
    """Measure every shape, wording and batch."""
    generator = np.random.default_rng(arguments.seed)
    catalog = make_catalog(arguments.num_items, generator)
    for shape in arguments.shapes:
        for prompts in arguments.prompts:
            settings = {**SHAPES[shape], **PROMPTS[prompts], "max_history": arguments.history_length}
            model, processor = make_model(catalog, settings, arguments.seed)
            for batch in arguments.batches:
                requests = make_requests(arguments, batch, generator)
                candidates = [
                    [f"i{row}" for row in generator.choice(arguments.num_items, arguments.num_candidates, False)]
                    for _ in requests
                ]
                run_one(arguments, model, processor, requests, candidates, {"shape": shape, "prompts": prompts})


def run_one(
    arguments: Arguments,
    model: GenSRForConditionalGeneration,
    processor: GenSRProcessor,
    requests: list[Request],
    candidates: list[list[str]],
    labels: dict[str, str],
) -> None:
    """Measure one batch and print its line."""

    def ours() -> list[np.ndarray]:
        return model.score_candidates(processor(requests, candidates=candidates))

    def one_batch() -> list[np.ndarray]:
        scores = []
        for request, line in zip(requests, candidates, strict=True):
            inputs = processor([request] * len(line), candidates=[[item_id] for item_id in line])
            scores.append(np.concatenate(model.score_candidates(inputs)))
        return scores

    def one_by_one() -> list[np.ndarray]:
        return [
            np.array([model.score_candidates(processor([request], candidates=[[one]]))[0][0] for one in line])
            for request, line in zip(requests, candidates, strict=True)
        ]

    results = measure({"ours": ours, "one batch": one_batch, "one by one": one_by_one}, arguments.repeats)
    own_seconds, own_scores = results["ours"]
    line: dict[str, object] = {
        **labels,
        "batch": len(requests),
        "candidates": arguments.num_candidates,
        "requests_per_second": {name: round(len(requests) / taken, 2) for name, (taken, _) in results.items()},
    }
    line["spread"] = round(float(np.concatenate(own_scores).std()), 3)
    for name in ("one batch", "one by one"):
        taken, scores = results[name]
        line[f"ours / {name}"] = round(taken / own_seconds, 2)
        differences = [np.abs(one - other).max() for one, other in zip(own_scores, scores, strict=True)]
        line["largest_difference"] = max(float(max(differences)), float(line.get("largest_difference", 0.0)))  # type: ignore[arg-type]
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
