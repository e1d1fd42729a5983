# SPDX-License-Identifier: Apache-2.0
"""Measure rows of instruction corpora written, and requests encoded, per second. Prints JSON lines.

    OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false python recipes/benchmarks/corpus.py
    OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false python recipes/benchmarks/corpus.py --data_dir path/to/ml-100k

Without `--data_dir` the log is simulated. Identifiers are random, which does not affect speed. Times are of one run;
`build` covers everything from a split to data sets in memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from seekrec.catalog import Catalog
from seekrec.corpora import (
    add_identifier_tokens,
    all_wordings,
    build_corpus,
    encode_requests,
    train_tokenizer,
)
from seekrec.corpora.mixture import input_lengths
from seekrec.events import EventLog, read_movielens, split_log, synthesize_searches
from seekrec.events.columns import RequestColumns
from seekrec.events.simulator import simulate
from seekrec.models import GenSARConfig
from seekrec.schema import item_texts
from seekrec.util.command_line import one_line_errors
from seekrec.util.parsing import parse_arguments

CODEBOOK_SIZE = 256


@dataclass
class Arguments:
    """What is measured."""

    data_dir: str | None = field(default=None, metadata={"help": "Folder of MovieLens; simulated if not given."})
    num_events: int = field(default=200_000, metadata={"help": "Simulated: events."})
    num_items: int = field(default=20_000, metadata={"help": "Simulated: items."})
    vocab_size: int = field(default=4_000, metadata={"help": "Pieces of the tokenizer."})
    num_requests: int = field(default=1_000, metadata={"help": "Requests to encode."})
    seed: int = field(default=0, metadata={"help": "Seed of all draws."})


def make_catalog(log: EventLog, seed: int) -> Catalog:
    """Make a catalogue with random unique identifiers of 2 + 2 levels."""
    generator = np.random.default_rng(seed)
    numbers = generator.choice(CODEBOOK_SIZE**3, log.num_items, replace=False)
    codes = np.stack([numbers // CODEBOOK_SIZE**2, numbers // CODEBOOK_SIZE % CODEBOOK_SIZE], axis=1)
    specific = {
        view: np.stack([numbers % CODEBOOK_SIZE, generator.integers(CODEBOOK_SIZE, size=log.num_items)], axis=1)
        for view in ("semantic", "collaborative")
    }
    return Catalog.build(
        log.items,
        {view: np.concatenate([codes, own], axis=1) for view, own in specific.items()},
        num_shared_levels=2,
        codebook_size=CODEBOOK_SIZE,
    )


class Stage:
    """Times a block and prints a line. Processor seconds are what counts where other jobs share the machine."""

    def __init__(self, name: str) -> None:
        self.line: dict[str, object] = {"stage": name}
        self.rows = 0

    def __enter__(self) -> Stage:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, cpu_seconds = time.perf_counter() - self._start, time.process_time() - self._cpu_start
        self.line |= {"rows": self.rows, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)}
        print(json.dumps({**self.line, "rows_per_cpu_second": round(self.rows / cpu_seconds)}), flush=True)


def main(arguments: Arguments) -> None:
    """Measure the stages one after the other."""
    # 1. Data.
    if arguments.data_dir is None:
        log = simulate(
            arguments.num_events, num_items=arguments.num_items, seed=arguments.seed, impression_fraction=0.0
        ).log
    else:
        log = read_movielens(arguments.data_dir)
        log = synthesize_searches(log, seed=arguments.seed)
    catalog = make_catalog(log, arguments.seed)
    split = split_log(log, seed=arguments.seed)

    # 2. Tokenizer.
    texts = item_texts(log.items) + all_wordings()
    with Stage("tokenizer") as stage:
        tokenizer = train_tokenizer(texts, arguments.vocab_size)
        stage.rows = len(texts)
    vocabulary = add_identifier_tokens(tokenizer, catalog)

    settings = GenSARConfig()

    # 3. Corpora: all tasks, then each alone.
    for tasks in (None, ("nrip",), ("nsip",), ("nsqp",), ("desc2id_semantic",), ("id2desc_semantic",)):
        with Stage("build") as stage:
            corpus = build_corpus(split, catalog, tokenizer, vocabulary, settings, tasks=tasks, seed=arguments.seed)
            stage.rows = sum(len(rows) for rows in corpus.values())
            tokens = sum(int(input_lengths(rows).sum()) for rows in corpus.values())
            stage.line |= {"task": tasks[0] if tasks else "all", "tokens_per_row": round(tokens / stage.rows, 1)}

    # 4. Requests: together, then one at a time.
    requests = split.requests("test")[: arguments.num_requests]
    with Stage("requests together") as stage:
        stage.rows = len(
            encode_requests(RequestColumns.read(requests, catalog.id_map), catalog, vocabulary, tokenizer, settings)
        )
    with Stage("requests one by one") as stage:
        alone = [RequestColumns.read([one], catalog.id_map) for one in requests[:100]]
        written = [encode_requests(one, catalog, vocabulary, tokenizer, settings) for one in alone]
        stage.rows = len(written)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"stage": "memory", "peak_mib": round(peak)}))


if __name__ == "__main__":
    with one_line_errors(__file__):
        main(*parse_arguments((Arguments,), sys.argv[1:]))
