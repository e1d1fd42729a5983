# SPDX-License-Identifier: Apache-2.0
"""Build GenSR's training requests of a log that is larger than memory, as shards, one partition at a time.

Each request is independent: its history, query and target are numbers of items and **texts**. Texts are the queries of
the log, then those made from categories, then, if negatives match texts, the titles of the items; their tokens and
matches are separate shards. The items that users acted on are memory-mapped. Random draws depend on user and event
alone, so all partitions together equal the requests made in memory.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.catalog import Catalog
from seekrec.corpora.partitioned import load_inputs, save_inputs
from seekrec.corpora.shards import Shards, ShardWriter, begin_shards, finish_shards, join_arrays
from seekrec.corpora.stream import list_item_queries
from seekrec.corpora.text import tokenizer_digest
from seekrec.events.columns import EventColumns
from seekrec.events.partitions.buckets import event_keys
from seekrec.events.partitions.engines import Engine, Job, JsonObject, run_partitions
from seekrec.events.partitions.scatter import FACTS_FILE
from seekrec.events.partitions.splits import PartitionedSplit
from seekrec.events.partitions.training_facts import TrainingFacts
from seekrec.events.training_negatives import NegativeSampler, number_pairs
from seekrec.models import GenSRProcessor
from seekrec.schema import BEHAVIORS, SEARCH
from seekrec.training.gensr_batches import RequestBatch
from seekrec.training.gensr_data import (
    RequestArguments,
    check_requests,
    choose_questions,
    no_requests,
    write_histories,
)
from seekrec.training.gensr_texts import QUERIES_FILE, TextShards, list_queries, read_queries, write_texts
from seekrec.util.arrow import one_array, to_lists
from seekrec.util.files import write_json, write_table
from seekrec.util.ragged import Ragged

logger = logging.getLogger(__name__)

TEXTS_FOLDER = "texts"
_ACTED_FILE, _INTERACTIONS_FILE = "acted.npy", "interactions.npy"
# Histories of so many requests exist at once.
_REQUESTS_AT_A_TIME = 1 << 18


class RequestShards(Shards):
    """Training requests in shards. Made by [`write_request_shards`]; see [`Shards`]."""

    kind = "requests"
    length_column = "history"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.texts = TextShards(self.folder / TEXTS_FOLDER)
        self.num_queries: int = self.description["num_queries"]

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return what requests cost: the events of their histories, and the tokens of their queries."""
        queries = np.asarray(self.take_table(rows, ["query_length"])["query_length"])
        return super().lengths(rows) + queries

    def take(self, rows: np.ndarray) -> RequestBatch:
        """Return some requests; see [`~seekrec.training.gensr_batches.RequestSource`]."""
        table = self.take_table(rows)
        lists = one_array(table["history"])
        event = lists.flatten()
        column = {name: np.asarray(event.field(name)).astype(np.int64) for name in ("item", "query", "is_search")}
        asked, targets = (np.asarray(table[name]).astype(np.int64) for name in ("query", "target"))
        named = np.concatenate([column["query"], asked])
        texts = np.unique(named[named >= 0])
        history_query, query = (
            np.where(own >= 0, np.searchsorted(texts, own), -1) for own in (column["query"], asked)
        )
        nothing = np.zeros(len(event), dtype=np.int64)
        events = EventColumns(
            item=column["item"],
            is_search=column["is_search"] > 0,
            is_shown=nothing > 0,
            query=history_query,
            queries=[],
            action=nothing,
            timestamp=nothing,
            session=nothing - 1,
            geohash=nothing,
        )
        return RequestBatch(
            events,
            self.texts.tokens(texts),
            Ragged.from_lengths(np.arange(len(event)), np.asarray(pc.list_value_length(lists)).astype(np.int64)),
            np.asarray(table["behavior"]).astype(np.int64),
            query,
            np.asarray(table["user"]).astype(np.int64),
            targets,
            np.where(asked < 0, self.num_queries + targets, asked),
        )

    def sampler(self, settings: RequestArguments, num_items: int, *, seed: int) -> NegativeSampler:
        """Make the sampler of negatives; see [`~seekrec.training.gensr_data.negative_sampler`]."""
        arrays = {
            name: np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
            for name in (_ACTED_FILE, _INTERACTIONS_FILE)
            if (self.folder / name).is_file()
        }
        return NegativeSampler(
            num_items,
            arrays[_ACTED_FILE],
            settings.negative_counts,
            interactions=arrays.get(_INTERACTIONS_FILE),
            matches=self.texts if settings.negative_counts.get("bm25") else None,
            seed=seed,
        )


def write_request_shards(
    split: PartitionedSplit,
    processor: GenSRProcessor,
    facts: TrainingFacts,
    settings: RequestArguments,
    folder: str | Path,
    *,
    seed: int,
    engine: Engine = "local",
) -> RequestShards:
    """Write the training requests of every partition, and with `item_queries` those for the items.

    An interrupted run resumes when it is called again with the same arguments.

    Args:
        split ([`PartitionedSplit`]): The split.
        processor ([`GenSRProcessor`]): Its catalogue, its tokenizer and the length of its histories.
        facts ([`TrainingFacts`]): What all training events hold.
        settings ([`RequestArguments`]): What is asked, and the items alongside the answer.
        folder (`str` or `Path`): Where to write; what other arguments have made there is replaced.
        seed (`int`): Seed of the choice of a query for items that were recommended.
        engine (`str`): See [`run_partitions`].

    Returns:
        [`RequestShards`]: At least one request.

    Raises:
        DataError: If there is none, or items are to be asked for by queries and no category gives one.
        ConfigurationError: If recommended items are to be searched for, but the log's queries are people's own.
    """
    check_requests(settings, split.log.query_source)
    catalog, config = processor.catalog, processor.config
    target = Path(folder)
    asked: JsonObject = {**request_key(processor, settings), "seed": seed}
    begin_shards(target, split, asked)
    inputs = save_inputs(target, catalog, processor.tokenizer)
    write_table(inputs / QUERIES_FILE, pa.table({"query": list_queries(facts.queries, catalog, settings)}))
    texts = write_texts(split, inputs, target / TEXTS_FOLDER, asked, engine=engine)
    first_users = np.cumsum([0, *(partition.num_users for partition in split.log.partitions)]).tolist()
    numbers: list[int | None] = [*range(split.num_partitions)]
    if "item_queries" in settings.extra_requests:
        numbers.append(None)
    jobs = [
        Job(
            output=str(target / ("shard-items" if number is None else f"shard-{number:05d}")),
            inputs=(str(split.folder), str(inputs), str(texts.folder)),
            settings={**asked, "partition": number, "first_user": first_users[-1 if number is None else number]},
        )
        for number in numbers
    ]
    run_partitions(write_request_shard, jobs, engine=engine)
    for name in (_ACTED_FILE, _INTERACTIONS_FILE):
        if found := [path for job in jobs if (path := Path(job.output) / name).is_file()]:
            join_arrays(found, target / name)
    finish_shards(target, jobs, {"num_queries": pq.read_metadata(inputs / QUERIES_FILE).num_rows})
    shutil.rmtree(inputs)
    requests = RequestShards(target)
    if not any(shard.path.partition("/")[0] != "shard-items" for shard in requests.shards):
        raise no_requests(split.log.name, settings)
    logger.info(
        "Requests of %s with up to %d events in %d shards: %s.",
        split.log.name,
        config.max_history,
        len(requests.shards),
        requests.num_rows,
    )
    return requests


def request_key(processor: GenSRProcessor, settings: RequestArguments) -> JsonObject:
    """Return what requests depend on, in addition to the split and the seed, as JSON values."""
    return {
        "catalog": processor.catalog.content_hash,
        "tokenizer": tokenizer_digest(processor.tokenizer),
        "max_history": processor.config.max_history,
        "max_query_tokens": processor.config.max_query_tokens,
        "scores_candidates": processor.config.scores_candidates,
        # Weights are of no concern before training.
        "requests": {name: value for name, value in asdict(settings).items() if name != "task_weights"},
    }


def write_request_shard(job: Job, folder: Path) -> None:
    """Write the requests of one partition, or those for the items: inputs are the split, what was saved, and texts."""
    settings = job.settings
    catalog, _ = load_inputs(job.inputs[1], settings["catalog"], settings["tokenizer"])
    asked = RequestArguments(**settings["requests"])
    with ExitStack() as stack:
        writers = {
            behavior: stack.enter_context(ShardWriter(folder / f"{behavior}.arrow", behavior))
            for behavior in BEHAVIORS
        }
        batches = _item_requests if settings["partition"] is None else _partition_requests
        for behavior, batch in batches(job, catalog, asked, folder):
            writers[BEHAVIORS[behavior]].write(batch)
    write_json(folder / FACTS_FILE, {"shards": [one for writer in writers.values() for one in writer.describe()]})


def _partition_requests(
    job: Job, catalog: Catalog, asked: RequestArguments, folder: Path
) -> Iterator[tuple[int, pa.RecordBatch]]:
    settings = job.settings
    texts, queries = TextShards(job.inputs[2]), read_queries(job.inputs[1], settings["catalog"])
    split = PartitionedSplit.load(job.inputs[0]).partition(settings["partition"])
    events = EventColumns.from_table(split.log.events, catalog.id_map)
    keys = event_keys(split.log.events, split.timeline)
    questions = choose_questions(split, events, catalog, asked, seed=settings["seed"], draw_keys=keys)
    user, num_items = settings["first_user"] + split.timeline.user, len(catalog)
    interactions = split.training_interactions()
    items = events.item[interactions]
    if settings["scores_candidates"]:
        acted = number_pairs(
            np.concatenate([user[interactions], user[questions.rows]]),
            np.concatenate([items, events.item[questions.rows]]),
            num_items,
        )
        np.save(folder / _ACTED_FILE, acted, allow_pickle=False)
        if asked.negative_counts.get("popularity"):
            np.save(folder / _INTERACTIONS_FILE, items.astype(np.int64), allow_pickle=False)
    # The queries that this partition names, by their numbers among all; those of held-out events are not there.
    own = pc.fill_null(pc.index_in(pa.array(questions.queries, pa.string()), value_set=queries), -1)
    number_of = np.append(np.asarray(own).astype(np.int64), -1)
    length_of = np.zeros(len(number_of), dtype=np.int64)
    length_of[number_of >= 0] = texts.lengths(number_of[number_of >= 0])
    for number in range(len(BEHAVIORS)):
        of_behavior = np.flatnonzero(questions.behaviors == number)
        for start in range(0, len(of_behavior), _REQUESTS_AT_A_TIME):
            chosen = of_behavior[start : start + _REQUESTS_AT_A_TIME]
            rows, query = questions.rows[chosen], questions.query_numbers[chosen]
            histories = write_histories(split, events, rows, settings["max_history"])
            event = histories.values
            yield (
                number,
                _make_batch(
                    {
                        "item": events.item[event],
                        "query": number_of[events.query[event]],
                        "is_search": events.is_search[event],
                    },
                    histories.lengths,
                    number_of[query],
                    length_of[query],
                    user[rows],
                    events.item[rows],
                    number,
                ),
            )


def _item_requests(
    job: Job, catalog: Catalog, asked: RequestArguments, folder: Path
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Ask for every item by its categories' queries; item `i` belongs to user `first_user + i`."""
    settings = job.settings
    texts, queries = TextShards(job.inputs[2]), read_queries(job.inputs[1], settings["catalog"])
    pairs = list_item_queries(catalog)
    items = np.array([row for row, _ in pairs], dtype=np.int64)
    found = pc.index_in(pa.array([query for _, query in pairs], pa.string()), value_set=queries)
    numbers = np.asarray(found).astype(np.int64)
    users = settings["first_user"] + items
    if settings["scores_candidates"]:
        np.save(folder / _ACTED_FILE, number_pairs(users, items, len(catalog)), allow_pickle=False)
    none = np.empty(0, dtype=np.int64)
    yield (
        BEHAVIORS.index(SEARCH),
        _make_batch(
            {"item": none, "query": none, "is_search": none},
            np.zeros(len(items), dtype=np.int64),
            numbers,
            texts.lengths(numbers),
            users,
            items,
            BEHAVIORS.index(SEARCH),
        ),
    )


def _make_batch(
    events: dict[str, np.ndarray],
    lengths: np.ndarray,
    queries: np.ndarray,
    query_lengths: np.ndarray,
    users: np.ndarray,
    targets: np.ndarray,
    behavior: int,
) -> pa.RecordBatch:
    """Lay out requests as rows; the arguments are columns."""
    types = {"item": pa.int32(), "query": pa.int32(), "is_search": pa.uint8()}
    event = pa.StructArray.from_arrays(
        [pa.array(events[name].astype(kind.to_pandas_dtype()), kind) for name, kind in types.items()], names=[*types]
    )
    return pa.record_batch(
        {
            "history": to_lists(event, lengths),
            "query": pa.array(queries.astype(np.int32)),
            "query_length": pa.array(query_lengths.astype(np.int32)),
            "user": pa.array(users.astype(np.int64)),
            "target": pa.array(targets.astype(np.int32)),
            "behavior": pa.array(np.full(len(targets), behavior, dtype=np.int8)),
        }
    )


__all__ = [
    "TEXTS_FOLDER",
    "RequestShards",
    "request_key",
    "write_request_shard",
    "write_request_shards",
]
