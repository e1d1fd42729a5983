# SPDX-License-Identifier: Apache-2.0
"""The texts of GenSR's requests in shards: queries as tokens, and the items that match a text, for negatives."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.catalog import Catalog
from seekrec.corpora.partitioned import load_inputs
from seekrec.corpora.shards import Shards, ShardWriter, begin_shards, finish_shards
from seekrec.events import category_queries
from seekrec.events.matching import HardMatches
from seekrec.events.partitions.engines import Engine, Job, JsonObject, run_partitions
from seekrec.events.partitions.scatter import FACTS_FILE
from seekrec.events.partitions.splits import PartitionedSplit
from seekrec.training.gensr_data import RequestArguments
from seekrec.util.arrow import one_array
from seekrec.util.files import write_json
from seekrec.util.ragged import Ragged
from seekrec.util.text import shared_encoder

QUERIES_FILE = "queries.parquet"
_TEXTS_AT_A_TIME = 1 << 16


class TextShards(Shards):
    """Texts by number: their tokens and, where negatives match texts, the items that match them."""

    kind = "texts"
    length_column = "tokens"

    def tokens(self, numbers: np.ndarray) -> Ragged:
        """Return the token ids of some texts."""
        if not len(numbers):
            return Ragged.from_lists([])
        lists = one_array(self.take_table(numbers, ["tokens"])["tokens"])
        return Ragged.from_lengths(np.asarray(lists.flatten()), np.asarray(pc.list_value_length(lists)))

    def __getitem__(self, numbers: np.ndarray, /) -> np.ndarray:
        """Return the items that match some texts: int64 of shape `(len(numbers), most)`, -1 for none."""
        distinct, places = np.unique(numbers, return_inverse=True)
        if not len(distinct):
            return np.empty((0, 0), dtype=np.int64)
        lists = one_array(self.take_table(distinct, ["matches"])["matches"])
        return np.asarray(lists.flatten()).reshape(len(distinct), -1).astype(np.int64)[places]


def list_queries(logged: pa.Array, catalog: Catalog, settings: RequestArguments) -> pa.Array:
    """Return all queries that are asked: those of the log, then other ones that categories give."""
    if not {"item_queries", "search_recommended_items"}.intersection(settings.extra_requests):
        return logged
    made = pa.array([query for own in category_queries(catalog.items) for query in own], pa.string())
    return pc.unique(pa.chunked_array([logged, made], pa.string()))


def write_texts(
    split: PartitionedSplit,
    inputs: Path,
    folder: Path,
    asked: JsonObject,
    *,
    engine: Engine,
) -> TextShards:
    """Write the tokens and matches of all texts, some at a time."""
    begin_shards(folder, split, asked)
    num_texts = pq.read_metadata(inputs / QUERIES_FILE).num_rows
    settings = RequestArguments(**asked["requests"])
    if asked["scores_candidates"] and settings.negative_counts.get("bm25"):
        num_texts += split.log.num_items
    jobs = [
        Job(
            output=str(folder / f"shard-{first // _TEXTS_AT_A_TIME:05d}"),
            inputs=(str(inputs),),
            settings={**asked, "first": first, "stop": min(first + _TEXTS_AT_A_TIME, num_texts)},
        )
        for first in range(0, num_texts, _TEXTS_AT_A_TIME)
    ]
    run_partitions(write_text_shard, jobs, engine=engine)
    finish_shards(folder, jobs, {})
    return TextShards(folder)


def write_text_shard(job: Job, folder: Path) -> None:
    """Write the tokens and matches of some texts: the input is what [`save_inputs`] saved, and the queries."""
    settings = job.settings
    catalog, tokenizer = load_inputs(job.inputs[0], settings["catalog"], settings["tokenizer"])
    queries = read_queries(job.inputs[0], settings["catalog"])
    first, stop = settings["first"], settings["stop"]
    own = queries[first:stop].to_pylist()
    titles = catalog.items["title"].slice(max(0, first - len(queries)), stop - first - len(own)).to_pylist()
    tokens = shared_encoder(tokenizer).encode(own, settings["max_query_tokens"]).to_lists()
    columns = {"tokens": pa.array([*tokens, *([] for _ in titles)], pa.list_(pa.int32()))}
    asked = RequestArguments(**settings["requests"])
    if settings["scores_candidates"] and asked.negative_counts.get("bm25"):
        matches = _match_items(job.inputs[0], settings["catalog"], settings["tokenizer"])
        found = matches.table([*own, *(title or "" for title in titles)], asked.num_bm25_matches)
        columns["matches"] = pa.FixedSizeListArray.from_arrays(
            pa.array(found.ravel(), pa.int32()), asked.num_bm25_matches
        )
    with ShardWriter(folder / "texts.arrow", "texts") as writer:
        writer.write(pa.record_batch(columns))
    write_json(folder / FACTS_FILE, {"shards": writer.describe()})


@lru_cache(maxsize=1)
def read_queries(folder: str, _: str) -> pa.Array:
    """Read all queries once for all jobs that this process works on; a digest tells those of one folder apart."""
    return cast(pa.Array, pq.read_table(Path(folder) / QUERIES_FILE)["query"].combine_chunks())


@lru_cache(maxsize=1)
def _match_items(folder: str, *digests: str) -> HardMatches:
    """Index the items once for all texts that this process works on."""
    return HardMatches(load_inputs(folder, *digests)[0].items)


__all__ = ["QUERIES_FILE", "TextShards", "list_queries", "read_queries", "write_text_shard", "write_texts"]
