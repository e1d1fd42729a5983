# SPDX-License-Identifier: Apache-2.0
"""The two passes of partitioning: scatter slices of a source by user, then gather and sort each partition.

Both are functions of a [`Job`]: what a job writes depends on its inputs and settings alone.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.events.checks import Source, find_event_problems, find_repeated_events, oldest_first
from seekrec.events.columns import impression_mask
from seekrec.events.log import sort_events
from seekrec.events.partitions.buckets import digest_table_buckets, partition_of_bucket, user_buckets
from seekrec.events.partitions.engines import Job, JsonObject
from seekrec.events.partitions.sources import Columns, ParquetEvents, Piece, read_pieces
from seekrec.events.readers.times import TimeUnit
from seekrec.events.refused import Reason, Refused
from seekrec.util.arrow import one_array, to_mask
from seekrec.util.constants import SECONDS_PER_DAY
from seekrec.util.files import write_json, write_table

EVENTS_FILE = "events.parquet"
FACTS_FILE = "facts.json"
_PLAN_FILE = "plan.json"

# Number of the row in the source, while the log is scattered.
_ROW = "__row__"


class SliceSettings(TypedDict):
    """Settings of [`scatter_slice`]: a slice is a run of pieces, the first `num_written` partitions are written."""

    name: str
    first_row: int
    pieces: list[dict[str, object]]
    taken: dict[str, str]
    has_time: bool
    time_unit: TimeUnit | None
    timezone: str | None
    num_partitions: int
    num_written: int
    batch_rows: int


class PartitionFacts(TypedDict):
    """Facts about a partition; see [`gather_partition`]. Those of all partitions make those of the log."""

    num_events: int
    num_users: int
    num_searches: int
    num_late: int
    has_sessions: bool
    first_timestamp: int
    last_timestamp: int
    interaction_days: list[int]
    buckets: dict[str, str]


def scatter_slice(job: Job, folder: Path) -> None:
    """Check the events of a slice, and write those of each partition to a file of their own, in order.

    Inputs are the items (Parquet) and the schema of the source (Arrow); settings are [`SliceSettings`]. Rows that
    break a rule are counted and left out, but for repeats, which may stand in different slices.
    """
    settings = cast(SliceSettings, job.settings)
    items_path, schema_path = job.inputs
    item_ids = _item_ids(items_path)
    pieces = [Piece(**piece) for piece in settings["pieces"]]  # type: ignore[arg-type]
    schema = pa.ipc.read_schema(pa.py_buffer(Path(schema_path).read_bytes()))
    of_slice = ParquetEvents(settings["name"], tuple(pieces), schema).describe()
    source = Source(of_slice.name, lambda row: of_slice.name_row(row - settings["first_row"]))
    columns = Columns(settings["taken"], settings["has_time"], settings["time_unit"], settings["timezone"])
    num_partitions = settings["num_partitions"]
    refused, row, num_events = Refused(), settings["first_row"], 0
    with ExitStack() as files:
        writers: dict[int, pa.RecordBatchWriter] = {}
        names = list(dict.fromkeys(columns.taken.values()))
        for raw in read_pieces(pieces, schema, names, settings["batch_rows"]):
            events, findings = columns.convert(raw, row, source)
            keep = refused.add(events, [*findings, *find_event_problems(events, item_ids)])
            events = events.append_column(_ROW, pa.array(np.arange(row, row + len(keep))))
            row += len(keep)
            if not keep.all():
                events = events.filter(pa.array(keep))
            num_events += events.num_rows
            users = one_array(events["user_id"]).dictionary_encode()
            of_user = partition_of_bucket(user_buckets(users.dictionary), num_partitions)
            partitions = of_user[users.indices.to_numpy(zero_copy_only=False)]
            order = np.argsort(partitions, kind="stable")
            ends = np.searchsorted(partitions[order], np.arange(num_partitions + 1)).tolist()
            events = events.take(pa.array(order))
            for number in range(settings["num_written"]):
                if ends[number] == ends[number + 1]:
                    continue
                if number not in writers:
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    path = str(folder / _slice_file(number))
                    writers[number] = files.enter_context(pa.ipc.new_file(path, events.schema, options=options))
                writers[number].write_table(events.slice(ends[number], ends[number + 1] - ends[number]))
    facts = {
        "num_events": num_events,
        "refused": asdict(refused),
        "notes": [*columns.notes],
        "counted": columns.counted.found,
        "forms": [*columns.forms],
        "are_days": columns.are_days,
        "whole_floats": columns.whole_floats,
    }
    write_json(folder / FACTS_FILE, facts)


@lru_cache(maxsize=1)
def _item_ids(path: str) -> pa.Array:
    return one_array(pq.read_table(path, columns=["item_id"])["item_id"])


def _slice_file(partition: int) -> str:
    return f"{partition:05d}.arrow"


def gather_partition(job: Job, folder: Path) -> None:
    """Sort the events of one partition, and write them with facts about them. A partition without events has no file.

    Inputs are the folders of all slices, in order; the setting `partition` is the number of the partition. Of equal
    events the first is kept, unless `may_repeat` is set. Events are sorted by user, time and order of the source,
    which is turned around where it is newest first.
    """
    number: int = job.settings["partition"]
    paths = [
        path for path in (Path(slice_folder) / _slice_file(number) for slice_folder in job.inputs) if path.exists()
    ]
    if not paths:
        write_json(folder / FACTS_FILE, {"num_events": 0, "refused": asdict(Refused())})
        return
    tables = []
    for path in paths:
        with pa.memory_map(str(path)) as file:
            tables.append(pa.ipc.open_file(file).read_all())
    events = pa.concat_tables(tables)
    del tables
    refused = Refused()
    repeated = [] if job.settings["may_repeat"] else find_repeated_events(events)
    keep = refused.add(events, repeated, numbers=events[_ROW].to_numpy())
    events = events.drop_columns([_ROW])
    if not keep.all():
        events = events.filter(pa.array(keep))
    events, num_late, is_turned = oldest_first(events)
    events = sort_events(events)
    write_table(folder / EVENTS_FILE, events)
    facts = {**describe_events(events, num_late), "is_turned": is_turned, "refused": asdict(refused)}
    write_json(folder / FACTS_FILE, facts)


def describe_events(events: pa.Table, num_late: int = 0) -> PartitionFacts:
    """Return the facts about the events of a partition that [`PartitionedLog`](logs.py) keeps."""
    times = events["timestamp"].to_numpy()
    is_interaction = to_mask(pc.is_valid(events["item_id"])) & ~impression_mask(events)
    return {
        "num_events": events.num_rows,
        "num_users": int(pc.count_distinct(events["user_id"]).as_py()),
        "num_searches": events.num_rows - events["query"].null_count,
        "num_late": num_late,
        "has_sessions": events["session_id"].null_count < events.num_rows,
        "first_timestamp": int(times.min()),
        "last_timestamp": int(times.max()),
        "interaction_days": np.unique(times[is_interaction] // SECONDS_PER_DAY).tolist(),
        "buckets": {str(bucket): digest for bucket, digest in digest_table_buckets(events).items()},
    }


def read_refused(counted: JsonObject) -> Refused:
    """Read what [`scatter_slice`] or [`gather_partition`] counted from what JSON contains of it."""
    return Refused(counted["num_rows"], {problem: Reason(**reason) for problem, reason in counted["reasons"].items()})


def read_facts(folder: str | Path) -> JsonObject:
    """Read the facts that a job wrote."""
    return cast(JsonObject, json.loads((Path(folder) / FACTS_FILE).read_text("utf-8")))


def resume_jobs(target: Path, plan: JsonObject, *, final: str, parts: str) -> None:
    """Keep what an interrupted run of the same plan has left in a folder; delete what jobs of another wrote.

    Args:
        target (`Path`): The folder, made if it does not exist.
        plan (`dict`): All that what is written depends on, as JSON could hold it.
        final (`str`): Name of the file without which the folder does not load: it goes, so that an interrupted run is
            never taken for a whole one.
        parts (`str`): Pattern of the names of the folders of jobs.
    """
    target.mkdir(parents=True, exist_ok=True)
    (target / final).unlink(missing_ok=True)
    path = target / _PLAN_FILE
    if path.is_file() and json.loads(path.read_text("utf-8")) == json.loads(json.dumps(plan)):
        return
    path.unlink(missing_ok=True)
    for entry in target.glob(parts):
        if (entry / FACTS_FILE).is_file():
            shutil.rmtree(entry)
    write_json(path, plan)


__all__ = [
    "EVENTS_FILE",
    "FACTS_FILE",
    "PartitionFacts",
    "SliceSettings",
    "describe_events",
    "gather_partition",
    "read_facts",
    "read_refused",
    "resume_jobs",
    "scatter_slice",
]
