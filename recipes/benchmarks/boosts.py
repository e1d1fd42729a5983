# SPDX-License-Identifier: Apache-2.0
"""Measure what numbers that are added to scores cost: in beams over identifiers, and views in a dense model.

    python recipes/benchmarks/boosts.py
    python recipes/benchmarks/boosts.py --quick

`beams`: a search in which all items get numbers that all requests share, or that each request has of its own, against
one without. Weights and identifiers are random. `exact`: random catalogues, whose best sums are compared with those of
all items. `views`: a random SynerGen with every view on, against one without, in milliseconds a request. JSON lines;
a ratio is one of medians of runs that took turns. `target` is the most it may be, `holds` whether it is.
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
from decoding_cases import CODEBOOK_SIZE, NUM_LEVELS, OFFSETS, make_codes, make_inputs, make_model
from transformers import T5ForConditionalGeneration

from seekrec import Event, Request
from seekrec.catalog import Catalog
from seekrec.embeddings import SASRecConfig, SASRecForNextItem
from seekrec.events.query_log import QueryLog
from seekrec.generation import IdentifierTrie, beam_search, score_candidates
from seekrec.models import SynerGenConfig, SynerGenForSearchAndRecommendation, SynerGenProcessor
from seekrec.models.dense import QueryVectors
from seekrec.models.views import ANSWER_VIEWS, LexicalIndex, LexicalSettings, Views, write_view_weights
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

MOST_OF_SHARED = 1.15


@dataclass
class Arguments:
    """What is measured."""

    shapes: list[str] = field(default_factory=lambda: ["small", "tiny"], metadata={"help": "Shapes of the model."})
    batches: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "Requests in a batch."})
    num_beams: int = field(default=20, metadata={"help": "Beams of a request."})
    num_items: int = field(default=800_000, metadata={"help": "Items whose identifiers are searched."})
    catalogs: list[int] = field(
        default_factory=lambda: [1_682, 100_000, 1_000_000], metadata={"help": "Items of the dense model."}
    )
    num_exact: int = field(default=200, metadata={"help": "Random catalogues that are searched exactly."})
    repeats: int = field(default=7, metadata={"help": "Runs of each contender."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})
    quick: bool = field(default=False, metadata={"help": "Everything once, small, in seconds; targets mean nothing."})

    def __post_init__(self) -> None:
        if self.quick:
            self.shapes, self.batches, self.num_items, self.catalogs = ["tiny"], [2], 2_000, [500]
            self.num_exact, self.repeats = 3, 1


def time_in_turns(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each contender, of runs that take turns after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats + 1):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(own) for name, own in seconds.items()}


def prompt_of(model: T5ForConditionalGeneration, batch: int, seed: int) -> dict[str, object]:
    """Return what a search reads, beside the trie."""
    ids = make_inputs(batch, 64, seed)
    prefix = torch.full((batch, 1), model.config.decoder_start_token_id)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_prefix": prefix, "norm": "level"}


def measure_beams(arguments: Arguments) -> None:
    """Time searches with and without numbers of items."""
    trie = IdentifierTrie.from_codes(make_codes(arguments.num_items, arguments.seed), CODEBOOK_SIZE)
    rng = np.random.default_rng(arguments.seed)
    for shape in arguments.shapes:
        model = make_model(shape, arguments.seed)
        for batch in arguments.batches:
            own = rng.normal(size=(batch, arguments.num_items)).astype(np.float32)
            settings = {"trie": trie, "level_offsets": OFFSETS, "num_beams": arguments.num_beams, "top_k": 10}
            settings |= prompt_of(model, batch, arguments.seed)

            def run(added: np.ndarray | None, model=model, settings=settings) -> object:
                return beam_search(model, **settings, added=added)

            contenders = {"none": None, "shared": own[0]}
            if batch > 1:  # one line is shared by all
                contenders["each"] = own
            found = time_in_turns(
                {name: lambda added=added: run(added) for name, added in contenders.items()}, arguments.repeats
            )
            for name in list(contenders)[1:]:
                ratio = found[name] / found["none"]
                line = {"what": f"beams: numbers {name} / none", "shape": shape, "batch": batch}
                line |= {"items": arguments.num_items, "milliseconds": round(1e3 * found["none"] / batch, 2)}
                line |= {"value": round(ratio, 3)}
                if name == "shared":
                    line |= {"target": MOST_OF_SHARED, "holds": ratio <= MOST_OF_SHARED}
                print(json.dumps(line), flush=True)


def count_exact(arguments: Arguments) -> None:
    """Compare the best sums of random catalogues with those of all items."""
    model, equal, lost = make_model("tiny", arguments.seed), 0, 0
    for number in range(arguments.num_exact):
        rng = np.random.default_rng(number)
        codes = rng.integers(0, rng.integers(2, 9), (int(rng.integers(5, 400)), NUM_LEVELS))
        added = (rng.normal(size=len(codes)) * rng.choice([0.1, 1.0, 5.0])).astype(np.float32)
        prompt = prompt_of(model, 1, number)
        scores = score_candidates(model, **prompt, codes=[codes], level_offsets=OFFSETS, codebook_size=CODEBOOK_SIZE)[
            0
        ]
        best = np.sort(scores + added)[::-1][:10]
        trie = IdentifierTrie.from_codes(codes, CODEBOOK_SIZE)
        for exact in (True, False):
            found = beam_search(
                model,
                **prompt,
                trie=trie,
                level_offsets=OFFSETS,
                num_beams=10,
                top_k=10,
                added=added,
                exact=exact,
            ).scores[0]
            is_equal = len(found) == len(best) and bool(np.allclose(found, best, atol=1e-3))
            equal += exact and is_equal
            lost += not exact and not is_equal
    line = {"what": "exact: catalogues whose best ten sums are those of all items", "value": equal}
    line |= {"catalogues": arguments.num_exact, "holds": equal == arguments.num_exact}
    print(json.dumps(line | {"ten steered beams alone": arguments.num_exact - lost}), flush=True)


class RandomQueries(QueryVectors):
    """Queries to random vectors: an encoder is not what is timed."""

    def _embed(self, texts: list[str], show_progress: bool) -> np.ndarray:
        rows = [np.random.default_rng(len(text)).normal(size=384) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float16)


def make_viewed(num_items: int, seed: int) -> tuple[SynerGenForSearchAndRecommendation, SynerGenProcessor, list[str]]:
    """Make a model with random weights, vectors, words and clicks, and every view on."""
    rng = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(20_000)]
    chosen = np.minimum(rng.zipf(1.3, (num_items, 12)) - 1, len(words) - 1)
    titles = [" ".join(words[place] for place in line) for line in chosen.tolist()]
    ids = [f"i{number}" for number in range(num_items)]
    vectors = rng.normal(size=(num_items, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    catalog = Catalog.build(pa.table({"item_id": ids, "title": titles}), embeddings={"semantic": vectors})
    config = SynerGenConfig(num_items=num_items, negatives="popularity", ranking_weight=0.0, max_history=50)
    model = SynerGenForSearchAndRecommendation(config).eval()
    model.set_catalog(catalog)
    processor = SynerGenProcessor.from_config(config, catalog, query_vectors=RandomQueries())
    queries = [" ".join(words[place] for place in line) for line in ((50 + chosen[:1000, :2]) % len(words)).tolist()]
    clicks = rng.integers(0, num_items, 20 * len(queries))
    log = QueryLog.count(queries, np.repeat(np.arange(len(queries)), 20), clicks, num_items=num_items)
    sasrec = SASRecForNextItem(SASRecConfig(num_items=num_items, hidden_size=64))
    lexical = LexicalIndex.fit(catalog.items, LexicalSettings(("title",)))
    model.set_views(Views(num_items, None, lexical, log).with_recommender(sasrec))
    return model, processor, queries


def measure_views(arguments: Arguments) -> None:
    """Time answers of a dense model with all views and with none."""
    all_on = write_view_weights({task: dict.fromkeys(ANSWER_VIEWS, 1.0) for task in ("recommendation", "search")})
    for num_items in arguments.catalogs:
        model, processor, queries = make_viewed(num_items, arguments.seed)
        rng = np.random.default_rng(arguments.seed)
        for task in ("recommendation", "search"):
            for batch in arguments.batches:
                rows = rng.integers(0, num_items, (batch, 30)).tolist()
                requests = [
                    Request(
                        [Event(f"i{row}", timestamp=place) for place, row in enumerate(line)],
                        query=queries[number] if task == "search" else None,
                        timestamp=100,
                    )
                    for number, line in enumerate(rows)
                ]

                def run(weights: list[str], model=model, processor=processor, requests=requests) -> object:
                    model.config.view_weights = weights
                    return model.retrieve(processor(requests), top_k=10)

                found = time_in_turns({"on": lambda: run(all_on), "off": lambda: run([])}, arguments.repeats)
                line = {"what": "views: all on / none", "task": task, "items": num_items, "batch": batch}
                line |= {name: round(1e3 * seconds / batch, 2) for name, seconds in found.items()}
                print(json.dumps(line | {"value": round(found["on"] / found["off"], 2)}), flush=True)


def main(argv: list[str]) -> None:
    """Run all."""
    (arguments,) = parse_arguments([Arguments], argv)
    torch.set_num_threads(1)
    with torch.no_grad():
        measure_beams(arguments)
        count_exact(arguments)
        measure_views(arguments)


if __name__ == "__main__":
    with one_line_errors("boosts.py"):
        main(sys.argv[1:])
