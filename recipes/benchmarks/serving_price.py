# SPDX-License-Identifier: Apache-2.0
"""Measure what a request costs in each family, with all views on against none.

    python recipes/benchmarks/serving_price.py
    python recipes/benchmarks/serving_price.py --untrained 0.9 --catalogs 100000 --memory false
    python recipes/benchmarks/serving_price.py --quick

Models have the shapes of the recipes for MovieLens-100K and random weights; items have titles of twelve words, text
vectors of 384 numbers and a SASRec, queries have clicks. Text vectors of queries are random: the encoder is not timed.
Preparing requests is timed; seen items are left out of recommendations. Prints JSON lines: `on` and `off` are CPU
milliseconds per request, medians of runs that took turns, `value` is on / off, and `megabytes_on` and `megabytes_off`
are the peak memory that a batch adds, each in its own process.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from scipy.sparse import csr_array
from transformers import PreTrainedModel
from turns import time_in_turns

from seekrec import Event, Request
from seekrec.catalog import Catalog
from seekrec.corpora import IdentifierVocabulary, add_identifier_tokens, encode_text, train_tokenizer
from seekrec.embeddings import ItemNeighbors, SASRecConfig, SASRecForNextItem
from seekrec.embeddings.item_knn import most_of_view
from seekrec.events.query_log import QueryLog
from seekrec.models import (
    GenSARConfig,
    GenSARForConditionalGeneration,
    GenSARProcessor,
    GenSRConfig,
    GenSRForConditionalGeneration,
    GenSRProcessor,
    IntSRConfig,
    IntSRForSearchAndRecommendation,
    IntSRProcessor,
    SynerGenConfig,
    SynerGenForSearchAndRecommendation,
    SynerGenProcessor,
)
from seekrec.models.dense import QueryVectors
from seekrec.models.gensr.processing_gensr import tokenizer_texts
from seekrec.models.t5_backbone import identifier_fields
from seekrec.models.views import (
    ANSWER_VIEWS,
    LexicalIndex,
    LexicalSettings,
    UnsearchedWords,
    Views,
    write_view_weights,
)
from seekrec.recipes.t5 import scratch_fields
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

FAMILIES = ("gensar", "gensr", "intsr", "synergen")
TASKS = ("recommendation", "search")
NUM_LEVELS, CODEBOOK_SIZE = 4, 256
SIZES = {"semantic": 384, "collaborative": 64}
DENSE = {"max_history": 100, "starts_from_latest_item": True, "hidden_size": 64, "num_hidden_layers": 2}
DENSE |= {"num_attention_heads": 2, "negatives": "full"}


@dataclass
class Arguments:
    """What is measured."""

    families: list[str] = field(default_factory=lambda: list(FAMILIES), metadata={"help": "Families."})
    catalogs: list[int] = field(
        default_factory=lambda: [1_682, 100_000, 1_000_000], metadata={"help": "Items of the catalogue."}
    )
    batches: list[int] = field(default_factory=lambda: [1, 16], metadata={"help": "Requests in a batch."})
    repeats: int = field(default=7, metadata={"help": "Runs of each contender."})
    memory: bool = field(default=True, metadata={"help": "Measure the memory of the largest catalogue."})
    views: list[str] = field(default_factory=lambda: list(ANSWER_VIEWS), metadata={"help": "Views that are on."})
    untrained: float = field(default=0.0, metadata={"help": "Share of the items that no training event acts on."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})
    quick: bool = field(default=False, metadata={"help": "Everything once, small, in seconds."})
    peak_of: str | None = field(default=None, metadata={"help": "For its own use: on or off."})

    def __post_init__(self) -> None:
        if self.quick:
            self.catalogs, self.batches, self.repeats = [500], [2], 1


class RandomQueries(QueryVectors):
    """Queries to random vectors."""

    def _embed(self, texts: list[str]) -> np.ndarray:
        rows = [np.random.default_rng(len(text)).normal(size=SIZES["semantic"]) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float16)


@dataclass
class Shop:
    """Items, queries and what views know of them."""

    catalog: Catalog
    with_identifiers: Catalog
    queries: list[str]
    views: Views | None


def make_shop(num_items: int, seed: int, has_views: bool = True, untrained: float = 0.0) -> Shop:
    """Make up a catalogue, with and without identifiers, and its views."""
    rng = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(20_000)]
    chosen = np.minimum(rng.zipf(1.3, (num_items, 12)) - 1, len(words) - 1)
    items = pa.table(
        {
            "item_id": [f"i{number}" for number in range(num_items)],
            "title": [" ".join(words[place] for place in line) for line in chosen.tolist()],
            "description": pa.nulls(num_items, pa.string()),
            "categories": pa.nulls(num_items, pa.list_(pa.list_(pa.string()))),
            "year": 1950 + np.arange(num_items) % 70,
        }
    )
    embeddings = {name: rng.standard_normal((num_items, size), np.float32) for name, size in SIZES.items()}
    embeddings["semantic"] /= np.linalg.norm(embeddings["semantic"], axis=1, keepdims=True)
    # Identifiers that differ: the digits of different numbers.
    numbers = rng.permutation(min(CODEBOOK_SIZE**NUM_LEVELS, 50 * num_items))[:num_items]
    shuffled = [rng.permutation(CODEBOOK_SIZE) for _ in range(NUM_LEVELS)]
    digits = [(numbers // CODEBOOK_SIZE**level) % CODEBOOK_SIZE for level in range(NUM_LEVELS)]
    codes = np.stack([order[digit] for order, digit in zip(shuffled, digits, strict=True)], axis=1)
    queries = [" ".join(words[place] for place in line) for line in ((50 + chosen[:1000, :2]) % len(words)).tolist()]
    is_untrained = np.arange(num_items) >= round((1 - untrained) * num_items)
    return Shop(
        Catalog.build(items, embeddings={"semantic": embeddings["semantic"]}, is_predicted=is_untrained),
        Catalog.build(
            items,
            {"semantic": codes, "collaborative": codes[:, [0, 1, 3, 2]]},
            num_shared_levels=2,
            codebook_size=CODEBOOK_SIZE,
            embeddings=embeddings,
            is_predicted=is_untrained,
        ),
        queries,
        make_views(items, queries, rng) if has_views else None,
    )


def make_views(items: pa.Table, queries: list[str], rng: np.random.Generator) -> Views:
    """Make up all views of items."""
    num_items = items.num_rows
    log = QueryLog.count(
        queries,
        np.repeat(np.arange(len(queries)), 20),
        rng.integers(0, num_items, 20 * len(queries)),
        num_items=num_items,
    )
    # Scores that differ by a few nats, as those of a trained one.
    sasrec = SASRecForNextItem(SASRecConfig(num_items=num_items, hidden_size=64, initializer_range=0.3))
    lexical = LexicalIndex.fit(items, LexicalSettings(("title",)))
    most = most_of_view(num_items)
    near = csr_array(
        (
            rng.random(most * num_items, dtype=np.float32) + np.float32(1e-3),
            np.sort(rng.integers(0, num_items, (num_items, most), dtype=np.int32), axis=1).ravel(),
            np.arange(0, most * num_items + 1, most),
        ),
        shape=(num_items, num_items),
    )
    near.sum_duplicates()
    unsearched = UnsearchedWords.fit(items, log)
    return Views(num_items, None, lexical, log, ItemNeighbors(near), unsearched).with_recommender(sasrec)


def make_pair(family: str, shop: Shop, seed: int, **changes: object) -> tuple[Any, Any]:
    """Make a model with random weights, views and a catalogue, and its processor.

    `changes` are of dense ones; GenSAR reads as many events of each behavior as their `max_history` names.
    """
    torch.manual_seed(seed)
    dense = DENSE | changes
    num_items = len(shop.catalog)
    if family == "intsr":
        settings = {"merge_event_tokens": True, "relative_bias": "buckets", "num_dsf_layers": 1}
        config = IntSRConfig(num_items=num_items, ranking_weight=0.0, **dense, **settings)
        model = IntSRForSearchAndRecommendation(config)
        processor_class = IntSRProcessor
    elif family == "synergen":
        settings = {"queries_in_context": True, "intermediate_size": 256, "time_encoding": "both"}
        config = SynerGenConfig(num_items=num_items, ranking_weight=0.0, **dense, **settings)
        model = SynerGenForSearchAndRecommendation(config)
        processor_class = SynerGenProcessor
    if family in ("intsr", "synergen"):
        model.set_catalog(shop.catalog)
        processor = processor_class.from_config(config, shop.catalog, query_vectors=RandomQueries())
        if shop.views is not None:
            model.set_views(shop.views)
        return model.eval(), processor
    catalog = shop.with_identifiers
    tokenizer = train_tokenizer(tokenizer_texts(catalog.items["title"].slice(0, 2_000).to_pylist()), 2_000)
    vocabulary = IdentifierVocabulary(0, 2, 2, CODEBOOK_SIZE, tuple(catalog.views))
    vocabulary = add_identifier_tokens(tokenizer, vocabulary)
    common = {"d_model": 128, "d_ff": 512, "num_layers": 2, "num_heads": 4, **identifier_fields(vocabulary)}
    if family == "gensar":
        longest = changes.get("max_history", 10)
        own = {"corpus": "stream", "max_history_recommendations": longest, "max_history_searches": longest}
        own |= {"max_query_tokens": 16, "max_text_tokens": 32, "item_vector_size": sum(SIZES.values())}
        fields = {**common, **own, "num_items": num_items}
        config = GenSARConfig(**fields, **scratch_fields(GenSARConfig(**fields), tokenizer))
        model = GenSARForConditionalGeneration(config)
        model.set_catalog(catalog)
        processor = GenSARProcessor.from_config(config, tokenizer, catalog)
    else:
        yes, no = (tokens[0] for tokens in encode_text(tokenizer, ["Yes", "No"], as_written=True))
        own = {"d_model": 64, "d_ff": 256, "loss_norm": "level", "yes_token_id": yes, "no_token_id": no}
        own |= {"query_as_event": True, "shared_prompt": True, "max_history": 15, "max_item_tokens": 16}
        own |= {"max_query_tokens": 16, "collaborative_size": SIZES["collaborative"], "wording": "short"}
        # As the recipes do in a large catalogue: with views they find what the model orders, else identifiers do.
        own |= {"identifier_weight": 1.0, "retrieve_by": "identifier"}
        fields = {**common, **own, "num_items": num_items}
        config = GenSRConfig(**fields, **scratch_fields(GenSRConfig(**fields), tokenizer))
        model = GenSRForConditionalGeneration(config)
        model.set_collaborative_table(catalog.embeddings["collaborative"])
        model.set_catalog(catalog)
        processor = GenSRProcessor.from_config(config, tokenizer, catalog)
    if shop.views is not None:
        model.set_views(shop.views)
    # In place of the encoder that the catalogue names.
    model.current_snapshot().value("query vectors", RandomQueries)
    return model.eval(), processor


def make_requests(shop: Shop, task: str, batch: int, seed: int) -> list[Request]:
    """Make up requests with histories of thirty events."""
    rows = np.random.default_rng(seed).integers(0, len(shop.catalog), (batch, 30)).tolist()
    return [
        Request(
            [Event(f"i{row}", timestamp=place) for place, row in enumerate(line)],
            query=shop.queries[number] if task == "search" else None,
            timestamp=100,
        )
        for number, line in enumerate(rows)
    ]


def weights_of(views: list[str]) -> list[str]:
    """Return the setting that weighs each view by one in both tasks."""
    return write_view_weights({task: dict.fromkeys(views, 1.0) for task in TASKS})


def set_views(model: PreTrainedModel, weights: list[str]) -> None:
    """Weigh views, or none; by them a GenSR finds what it answers about, as otherwise by identifiers."""
    model.config.view_weights = weights
    if model.config.model_type == "gensr":
        model.config.retrieve_by = "views" if weights else "identifier"


def peak_megabytes(run: Callable[[], object]) -> float:
    """Return what a run takes at its peak beyond what the process had, in megabytes."""
    process, peak, ended = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.001):
            peak[0] = max(peak[0], process.memory_info().rss)

    # What was freed before would be taken again, and not be seen.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        ended.set()
        watcher.join()
    return (max(peak[0], before) - before) / 1e6


def measure_memory(arguments: Arguments) -> None:
    """Print the peak of one family, task and batch; run by a process of its own."""
    (family,), (num_items,), (batch,) = arguments.families, arguments.catalogs, arguments.batches
    shop = make_shop(num_items, arguments.seed, untrained=arguments.untrained)
    model, processor = make_pair(family, shop, arguments.seed)
    for task in TASKS:
        set_views(model, weights_of(arguments.views) if arguments.peak_of == "on" else [])
        # The first call makes what is kept; of one batch, as that of others is what is asked for.
        model.retrieve(processor(make_requests(shop, task, 1, 99)), top_k=10)
        requests = make_requests(shop, task, batch, arguments.seed)
        line = {"task": task, "megabytes": peak_megabytes(lambda r=requests: model.retrieve(processor(r), top_k=10))}
        print(json.dumps(line), flush=True)


def ask_memory(arguments: Arguments, family: str, batch: int, which: str) -> dict[str, float]:
    """Run [`measure_memory`] in a process of its own: megabytes by task."""
    command = [sys.executable, __file__, "--families", family, "--catalogs", str(max(arguments.catalogs))]
    command += ["--batches", str(batch), "--peak_of", which, "--seed", str(arguments.seed)]
    command += ["--untrained", str(arguments.untrained)]
    command += ["--views", *arguments.views]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    return {line["task"]: round(line["megabytes"], 1) for line in lines}


def measure(arguments: Arguments) -> None:
    """Time all families, and then the memory of the largest catalogue."""
    on = weights_of(arguments.views)
    for num_items in arguments.catalogs:
        shop = make_shop(num_items, arguments.seed, untrained=arguments.untrained)
        for family in arguments.families:
            model, processor = make_pair(family, shop, arguments.seed)
            for task in TASKS:
                for batch in arguments.batches:
                    requests = make_requests(shop, task, batch, arguments.seed)

                    def run(weights: list[str], model=model, processor=processor, requests=requests) -> object:
                        set_views(model, weights)
                        return model.retrieve(processor(requests), top_k=10)

                    contenders = {"on": lambda: run(on), "off": lambda: run([])}
                    found = time_in_turns(contenders, arguments.repeats, time.process_time)
                    line: dict[str, object] = {"family": family, "task": task, "items": num_items, "batch": batch}
                    line |= {name: round(1e3 * seconds / batch, 2) for name, seconds in found.items()}
                    print(json.dumps(line | {"value": round(found["on"] / found["off"], 2)}), flush=True)
            del model, processor
        del shop
    for family in arguments.families[: 1 if arguments.quick else None] if arguments.memory else []:
        for batch in arguments.batches:
            peaks = {which: ask_memory(arguments, family, batch, which) for which in ("on", "off")}
            for task in TASKS:
                line = {"family": family, "task": task, "items": max(arguments.catalogs), "batch": batch}
                line |= {f"megabytes_{which}": peaks[which][task] for which in peaks}
                print(json.dumps(line), flush=True)


def main(argv: list[str]) -> None:
    """Run all, or one measurement of memory."""
    (arguments,) = parse_arguments([Arguments], argv)
    torch.set_num_threads(1)
    with torch.no_grad():
        if arguments.peak_of is None:
            measure(arguments)
        else:
            measure_memory(arguments)


if __name__ == "__main__":
    with one_line_errors("serving_price.py"):
        main(sys.argv[1:])
