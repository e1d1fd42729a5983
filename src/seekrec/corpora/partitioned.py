# SPDX-License-Identifier: Apache-2.0
"""Build GenSAR's corpora of a log that is larger than memory, as shards, one partition at a time.

Data on the whole log (its actions, the tokens) comes from the [`PartitionedSplit`], the catalogue and the tokenizer,
and random draws depend on user and event alone, so all partitions together equal the corpus made in memory.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from seekrec.catalog import Catalog
from seekrec.corpora.instructions import write_history_tasks, write_item_tasks
from seekrec.corpora.segments import CorpusSettings
from seekrec.corpora.shards import Shards, ShardWriter, begin_shards, finish_shards
from seekrec.corpora.stream import build_item_queries, write_stream
from seekrec.corpora.templates import choose_tasks
from seekrec.corpora.text import tokenizer_digest
from seekrec.corpora.tokens import IdentifierVocabulary
from seekrec.errors import DataError
from seekrec.events.partitions.buckets import event_keys
from seekrec.events.partitions.engines import Engine, Job, JsonObject, run_partitions
from seekrec.events.partitions.scatter import FACTS_FILE
from seekrec.events.partitions.splits import PartitionedSplit
from seekrec.util.files import write_json

logger = logging.getLogger(__name__)

# The task of rows that hold nrip, nsip and nsqp together, and the one of items as answers to their categories.
HISTORIES, ITEM_QUERIES = "histories", "item_queries"
_INPUTS = "inputs"


@dataclass
class CorpusLengths:
    """[`CorpusSettings`] as they stand in a job."""

    recommend_searched_items: bool
    max_history_recommendations: int
    max_history_searches: int
    max_query_tokens: int
    max_text_tokens: int


class CorpusShards(Shards):
    """A corpus in shards. Made by [`write_corpus_shards`]; see [`Shards`]."""

    kind = "corpus"
    length_column = "input_ids"

    def take(self, rows: np.ndarray) -> list[dict[str, list[int]]]:
        """Read some rows, in this order: what a collator takes, of whatever tasks."""
        found: list[dict[str, list[int]]] = [{} for _ in range(len(rows))]
        for batch, own, places in self._batches(rows):
            for place, row in zip(places.tolist(), batch.take(pa.array(own)).to_pylist(), strict=True):
                found[place] = row
        return found


def write_corpus_shards(
    split: PartitionedSplit,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: CorpusSettings,
    folder: str | Path,
    *,
    shares: Mapping[str, float] | None = None,
    tasks: Sequence[str] = (),
    item_queries: bool = False,
    seed: int = 0,
    engine: Engine = "local",
) -> CorpusShards:
    """Write the corpora of every partition, and of the items.

    An interrupted run resumes when it is called again with the same arguments.

    Args:
        split ([`PartitionedSplit`]): The split.
        catalog ([`Catalog`]): Items and identifiers.
        tokenizer (`PreTrainedTokenizerBase`): Has the tokens of the vocabulary.
        vocabulary ([`IdentifierVocabulary`]): The identifier tokens.
        settings ([`CorpusSettings`]): Maximum lengths.
        folder (`str` or `Path`): Where to write; what other arguments have made there is replaced.
        shares (`Mapping[str, float]`, *optional*): Tasks of [`build_stream`], which stand together as task
            `"histories"`, and the share of its targets that each asks for.
        tasks (`Sequence[str]`): Tasks of [`build_corpus`].
        item_queries (`bool`): Whether to write [`build_item_queries`], as a task of that name.
        seed (`int`): Seed of the draws.
        engine (`str`): See [`run_partitions`].

    Returns:
        [`CorpusShards`]: The corpus.

    Raises:
        DataError: If a task has nothing to train on.
    """
    target = Path(folder)
    asked: JsonObject = {
        "lengths": {name: getattr(settings, name) for name in CorpusLengths.__dataclass_fields__},
        "vocabulary": asdict(vocabulary),
        "catalog": catalog.content_hash,
        "tokenizer": tokenizer_digest(tokenizer),
        "shares": dict(shares or {}),
        "tasks": list(tasks),
        "item_queries": item_queries,
        "seed": seed,
    }
    begin_shards(target, split, asked)
    inputs = save_inputs(target, catalog, tokenizer)
    partitions: list[int | None] = [*range(split.num_partitions), None]
    jobs = [
        Job(
            output=str(target / ("shard-items" if number is None else f"shard-{number:05d}")),
            inputs=(str(split.folder), str(inputs)),
            settings={**asked, "partition": number},
        )
        for number in partitions
    ]
    run_partitions(write_corpus_shard, jobs, engine=engine)
    finish_shards(target, jobs, {})
    shutil.rmtree(inputs)
    corpus = CorpusShards(target)
    named = [*([HISTORIES] if shares else []), *tasks, *([ITEM_QUERIES] if item_queries else [])]
    if missing := [task for task in named if task not in corpus.num_rows]:
        raise DataError(
            f"Log {split.log.name!r} has no rows for the task {missing[0]!r}; leave it out, or add searches to the "
            "log and text to the items."
        )
    logger.info("Corpus of %s in %d shards: %s.", split.log.name, len(corpus.shards), corpus.num_rows)
    return corpus


def write_corpus_shard(job: Job, folder: Path) -> None:
    """Write the corpora of one partition, or those of the items: inputs are the split, and catalogue and tokenizer."""
    settings = job.settings
    catalog, tokenizer = load_inputs(job.inputs[1], settings["catalog"], settings["tokenizer"])
    vocabulary = IdentifierVocabulary(**settings["vocabulary"])
    shared = (catalog, tokenizer, vocabulary, CorpusLengths(**settings["lengths"]))
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        for task, batch in _write_tasks(job, shared):
            if task not in writers:
                writers[task] = stack.enter_context(ShardWriter(folder / f"{task}.arrow", task))
            writers[task].write(batch)
    write_json(folder / FACTS_FILE, {"shards": [one for writer in writers.values() for one in writer.describe()]})


def _write_tasks(
    job: Job, shared: tuple[Catalog, PreTrainedTokenizerBase, IdentifierVocabulary, CorpusLengths]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the rows of one partition, or of the items, by task; only the columns that a batch reads."""
    settings, seed = job.settings, job.settings["seed"]
    tasks = choose_tasks(settings["tasks"], shared[0].views)
    if settings["partition"] is None:
        if settings["item_queries"]:
            for batch in pa.table(build_item_queries(*shared).data.table).to_batches():
                yield ITEM_QUERIES, batch
        written = write_item_tasks(*shared, tasks=tasks, seed=seed)
    else:
        part = PartitionedSplit.load(job.inputs[0]).partition(settings["partition"])
        keys = event_keys(part.log.events, part.timeline)
        if settings["shares"]:
            for table in write_stream(part, *shared, shares=settings["shares"], seed=seed, draw_keys=keys):
                for batch in table.to_batches():
                    yield HISTORIES, batch
        written = write_history_tasks(part, *shared, tasks=tasks, seed=seed, draw_keys=keys)
    for task, batch in written:
        yield task, batch.select(["input_ids", "labels"])


def save_inputs(folder: Path, catalog: Catalog, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Save what the jobs of a corpus read, for [`load_inputs`], and return where."""
    inputs = folder / _INPUTS
    catalog.save(inputs / "catalog")
    tokenizer.save_pretrained(inputs / "tokenizer")
    return inputs


@lru_cache(maxsize=1)
def load_inputs(folder: str, *_: str) -> tuple[Catalog, PreTrainedTokenizerBase]:
    """Load catalogue and tokenizer once for all partitions that this process works on; digests tell them apart."""
    inputs = Path(folder)
    return Catalog.load(inputs / "catalog"), AutoTokenizer.from_pretrained(inputs / "tokenizer")


__all__ = [
    "HISTORIES",
    "ITEM_QUERIES",
    "CorpusLengths",
    "CorpusShards",
    "load_inputs",
    "save_inputs",
    "write_corpus_shard",
    "write_corpus_shards",
]
