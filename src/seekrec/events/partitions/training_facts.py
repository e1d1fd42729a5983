# SPDX-License-Identifier: Apache-2.0
"""Collect facts on all training events that are needed before any partition is turned into training data.

Each partition is read once; its facts (queries, counts of actions, first events of items) are saved and merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.events.partitions.engines import Engine, Job, run_partitions
from seekrec.events.partitions.sampled import sample_share, write_sample
from seekrec.events.partitions.scatter import FACTS_FILE, read_facts
from seekrec.events.partitions.splits import PartitionedSplit
from seekrec.util.arrow import one_array
from seekrec.util.files import write_json, write_table
from seekrec.util.hashing import hash_texts

_NEVER = np.iinfo(np.int64).max
# Queries of all partitions that are compared with each other at once.
_QUERIES_AT_ONCE = 1 << 23


@dataclass(frozen=True, eq=False)
class TrainingFacts:
    """Facts of the training events of all partitions; see [`gather_training_facts`].

    Args:
        queries (`pyarrow.Array`): Distinct queries, sorted.
        query_counts (`np.ndarray`): int64: how often each was typed.
        action_counts (`dict[str, int]`): Events of each action, impressions left out; sorted by action.
        geohash_counts (`dict[str, int]`): Events of each beginning of a geohash; empty where none was asked for.
        first_times (`np.ndarray`): int64 of shape `(num_items,)`: time of the first act on each item; the largest
            int64 for an item without any.
        counts (`np.ndarray`): int64 of shape `(num_items,)`: acts on each item.
    """

    queries: pa.Array
    query_counts: np.ndarray
    action_counts: dict[str, int]
    geohash_counts: dict[str, int]
    first_times: np.ndarray
    counts: np.ndarray

    @property
    def has_acts(self) -> np.ndarray:
        """Bool of shape `(num_items,)`: somebody acted on the item in training."""
        return self.counts > 0


def gather_training_facts(
    split: PartitionedSplit,
    folder: str | Path,
    *,
    geohash_length: int = 0,
    engine: Engine = "local",
) -> TrainingFacts:
    """Read the training events of every partition, or take what an earlier call found.

    Args:
        split ([`PartitionedSplit`]): The split.
        folder (`str` or `Path`): Where to keep what was found; one folder for each split and `geohash_length`.
        geohash_length (`int`): Characters of a geohash that are counted; 0 counts none.
        engine (`str`): See [`run_partitions`].

    Returns:
        [`TrainingFacts`]: The facts. In addition to them the folder contains what [`read_sample`] reads.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            output=str(target / partition.folder),
            inputs=(str(split.folder),),
            settings={"partition": number, "geohash_length": geohash_length, "share": sample_share(split)},
        )
        for number, partition in enumerate(split.log.partitions)
    ]
    run_partitions(gather_facts, jobs, engine=engine)
    actions: Counter[str] = Counter()
    geohashes: Counter[str] = Counter()
    first_times = np.full(split.log.num_items, _NEVER)
    counts = np.zeros(split.log.num_items, dtype=np.int64)
    for job in jobs:
        facts = read_facts(job.output)
        actions.update(facts["actions"])
        geohashes.update(facts["geohashes"])
        items = pq.read_table(Path(job.output) / "items.parquet")
        rows = items["item"].to_numpy()
        first_times[rows] = np.minimum(first_times[rows], items["first_time"].to_numpy())
        counts[rows] += items["count"].to_numpy()
    queries = count_queries([Path(job.output) / "queries.parquet" for job in jobs])
    queries = queries.take(pc.sort_indices(queries["query"]))
    return TrainingFacts(
        queries=one_array(queries["query"]),
        query_counts=queries["count"].to_numpy(),
        action_counts=dict(sorted(actions.items())),
        geohash_counts=dict(sorted(geohashes.items())),
        first_times=first_times,
        counts=counts,
    )


def count_queries(files: Sequence[Path]) -> pa.Table:
    """Return the distinct queries of some files and how often each was typed, in no order.

    Where they are many, those of some hashes at a time: alongside the result, memory contains no more than these.

    Args:
        files (`Sequence[Path]`): Parquet files with columns `query` and `count`.

    Returns:
        `pyarrow.Table`: `query` and `count`, int64.
    """
    num_parts = max(1, -(-sum(pq.read_metadata(path).num_rows for path in files) // _QUERIES_AT_ONCE))
    parts = []
    for part in range(num_parts):
        chunks: list[pa.Table] = []
        for path in files:
            own = pq.read_table(path)
            hashes = hash_texts(one_array(own["query"])) if num_parts > 1 else np.zeros(own.num_rows, np.int64)
            chunks.append(own.filter(pa.array(hashes % num_parts == part)))
        counted = pa.concat_tables(chunks).group_by("query").aggregate([("count", "sum")])
        parts.append(counted.select(["query", "count_sum"]).rename_columns(["query", "count"]))
    return pa.concat_tables(parts)


def gather_facts(job: Job, folder: Path) -> None:
    """Write the facts of one partition: the input is the folder of the split."""
    length: int = job.settings["geohash_length"]
    split = PartitionedSplit.load(job.inputs[0]).partition(job.settings["partition"])
    timeline, acts = split.timeline, split.training_acts()
    events = split.log.events.select(
        [name for name in ("query", "action", "geohash") if name in split.log.events.column_names]
    ).take(pa.array(acts))
    rows = split.training_interactions()
    items, first, counts = np.unique(timeline.item[rows], return_inverse=True, return_counts=True)
    first_times = np.full(len(items), _NEVER)
    np.minimum.at(first_times, first, timeline.timestamp[rows])
    write_table(folder / "items.parquet", pa.table({"item": items, "first_time": first_times, "count": counts}))
    typed = one_array(pc.drop_null(events["query"])).cast(pa.string()).value_counts()
    write_table(folder / "queries.parquet", pa.table({"query": typed.field(0), "count": typed.field(1)}))
    write_sample(split, job.settings["share"], folder)
    geohashes: dict[str, int] = {}
    if length and "geohash" in events.column_names:
        begins = _count(pc.utf8_slice_codeunits(events["geohash"], 0, length))
        geohashes = {name: count for name, count in begins.items() if len(name) == length}
    write_json(folder / FACTS_FILE, {"actions": _count(events["action"]), "geohashes": geohashes})


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    found = pc.value_counts(column.drop_null())
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


__all__ = ["TrainingFacts", "count_queries", "gather_facts", "gather_training_facts"]
