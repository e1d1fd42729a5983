# SPDX-License-Identifier: Apache-2.0
"""Partition a log that is larger than memory into Parquet files of whole users, in two passes of bounded memory.

The first pass reads the source a batch at a time, checks it with the rules of [`EventLog`] and scatters it by a hash
of the user; the second sorts each partition and drops repeated events. Both are pyarrow and numpy, because measuring
the same step (scan, check, scatter by user, sort by user, time and row, drop repeats; one thread, 4 GiB) gave, in
seconds and GiB at the peak:

| events | this module | Polars 2.1 | DuckDB 2.0, in two passes | DuckDB 2.0, one sort |
|---|---|---|---|---|
| 5 million | 9.0, 1.1 | 8.1, 0.7 | 12.1, 0.9 | 10.4, 1.7 |
| 20 million | 41.5, 1.6 | 36.5, 1.5 | 51.3, 2.9 | 66.1, 3.0 (spills) |

Polars is a seventh faster, but has no memory limit, and either would need a second implementation of the rules of
`events/checks.py` and a user hash that its next version may change. `recipes/benchmarks/data_floor.py --compare`
measures it again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import check_max_refused, notes_of_order
from seekrec.events.log import QuerySource
from seekrec.events.partitions.buckets import MAX_PARTITIONS, check_num_partitions, join_digests
from seekrec.events.partitions.engines import Engine, Job, JsonObject, run_partitions
from seekrec.events.partitions.logs import ITEMS_FILE, LOG_FILE, LOG_VERSION, PartitionedLog
from seekrec.events.partitions.scatter import EVENTS_FILE, gather_partition, read_facts, read_refused, scatter_slice
from seekrec.events.partitions.sources import ParquetEvents, find_parquet, write_parquet
from seekrec.events.readers.counted import Counted
from seekrec.events.readers.quotes import Quoting
from seekrec.events.readers.raw_tables import FileFormat
from seekrec.events.readers.table_reading import start_reading
from seekrec.events.readers.tables import read_items
from seekrec.events.readers.times import TimeUnit
from seekrec.events.refused import Limits, Refused
from seekrec.util.files import replace_folder, sweep_folder, write_json, write_table
from seekrec.util.hashing import file_sha256, table_digest

MEMORY_LIMIT = 4 * 2**30

# Bytes for each event of a partition. Splitting and auditing take 250 to 350 at the peak, measured; the rest is for
# longer texts, and for Python with its libraries.
_BYTES_PER_EVENT = 1_000
# Bytes for each row of a batch while it is checked and scattered.
_BYTES_PER_ROW = 4_096
_MIN_BATCH, _MAX_BATCH = 1 << 12, 1 << 20
# Rows of a slice, at least; and about the most slices.
_SLICE_ROWS, _MAX_SLICES = 4_000_000, 32

logger = logging.getLogger(__name__)


def partition_log(
    events: str | Path | pa.Table,
    items: str | Path | pa.Table,
    folder: str | Path,
    *,
    column_map: Mapping[str, str] | None = None,
    name: str | None = None,
    max_refused: float | None = None,
    has_time: bool = True,
    time_unit: TimeUnit | None = None,
    timezone: str | None = None,
    category_separator: str | None = None,
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    encoding: str | None = None,
    num_partitions: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    first_only: bool = False,
    engine: Engine = "local",
    num_workers: int | None = None,
) -> PartitionedLog:
    """Check a table of events and write it as Parquet partitioned by user, in bounded memory.

    Columns are recognised, rows checked and left out, and messages worded as by [`~seekrec.events.read_tables`], whose
    arguments mean the same here. There are three differences: whether the log has times is not guessed, dates such as
    31/01/2019 are refused, and items are not made from events.

    Args:
        events (`str`, `Path` or `pyarrow.Table`): A Parquet file, or a folder of them, also in folders `column=value`
            as Hive and Spark write them; a file of fields (`.csv`, `.tsv`), which is first written as Parquet a block
            at a time; JSON lines, or a table, which have to fit in memory.
        items (`str`, `Path` or `pyarrow.Table`): The items, in any of these forms. They are read whole.
        folder (`str` or `Path`): Where to write; it appears whole, and replaces an earlier one.
        column_map (`Mapping[str, str]`, *optional*): See [`~seekrec.events.read_tables`].
        name (`str`, *optional*): Name of the data set; that of the events if not given.
        max_refused (`float`, *optional*): See [`~seekrec.events.read_tables`].
        has_time (`bool`): Whether the log has times; else positions, or nothing: the order of the rows.
        time_unit (`str`, *optional*): See [`~seekrec.events.read_tables`].
        timezone (`str`, *optional*): See [`~seekrec.events.read_tables`].
        category_separator (`str`, *optional*): See [`~seekrec.events.read_tables`].
        delimiter (`str`, *optional*): See [`~seekrec.events.read_tables`].
        quoting (`str`, *optional*): See [`~seekrec.events.read_tables`].
        encoding (`str`, *optional*): See [`~seekrec.events.read_tables`].
        num_partitions (`int`, *optional*): 1 to 512; as few as keep within `memory_limit` if not given.
        memory_limit (`int`): Bytes that working on one partition, split and audit included, should take at most.
        first_only (`bool`): Read and check all, and write the first partition alone: a sample, as users are in it by
            a hash.
        engine (`str`): See [`run_partitions`].
        num_workers (`int`, *optional*): See [`run_partitions`].

    Returns:
        [`PartitionedLog`]: The log.

    Raises:
        DataError: If a file or column is missing, of the wrong type or empty, or too many rows cannot be used.
        ConfigurationError: If an argument is out of range.
    """
    limits = Limits() if max_refused is None else check_max_refused(max_refused)
    if memory_limit < 2**26:
        raise ConfigurationError(f"`memory_limit` is {memory_limit!r} bytes; give 64 MiB (67108864) or more.")
    if num_partitions is not None:
        check_num_partitions(num_partitions)
    form = FileFormat(delimiter, quoting, encoding)
    reading = start_reading(
        events, items, form, column_map=column_map, time_unit=time_unit, timezone=timezone, has_time=has_time
    )
    kept_items, item_notes = read_items(reading, limits, category_separator, timezone)
    with replace_folder(folder) as target:
        write_table(target / ITEMS_FILE, kept_items)
        slices = target / "slices"
        slices.mkdir()
        if isinstance(events, pa.Table) or not (Path(events).is_dir() or Path(events).suffix == ".parquet"):
            found = write_parquet(reading.raw_events, reading.kinds_of_events(), slices / "source.parquet")
        else:
            found = find_parquet(Path(events))
        source = found.describe()
        (slices / "schema.arrow").write_bytes(found.schema.serialize())
        if num_partitions is None:
            num_partitions = int(np.clip(-(-found.num_rows * _BYTES_PER_EVENT // memory_limit), 1, MAX_PARTITIONS))
        settings: JsonObject = {
            "name": found.name,
            "taken": reading.events.taken,
            "has_time": has_time,
            "time_unit": time_unit,
            "timezone": timezone,
            "num_partitions": num_partitions,
            "num_written": 1 if first_only else num_partitions,
            "batch_rows": int(np.clip(memory_limit // _BYTES_PER_ROW, _MIN_BATCH, _MAX_BATCH)),
        }
        jobs = _slice_jobs(found, settings, target)
        run_partitions(scatter_slice, jobs, engine=engine, num_workers=num_workers)
        scattered = [read_facts(job.output) for job in jobs]
        _check_same_reading(found.name, scattered)
        gathered = [
            Job(
                output=str(target / f"partition-{number:05d}"),
                inputs=tuple(job.output for job in jobs),
                settings={"partition": number, "may_repeat": all(one["are_days"] for one in scattered)},
            )
            for number in range(settings["num_written"])
        ]
        run_partitions(gather_partition, gathered, engine=engine, num_workers=num_workers)
        shutil.rmtree(slices)
        facts = [read_facts(job.output) for job in gathered]
        refused = Refused()
        for one in (*scattered, *facts):
            refused.join(read_refused(one["refused"]))
        note = refused.settle(source, max_refused=limits)
        forms = ", ".join(dict.fromkeys(form for one in scattered for form in one["forms"]))
        notes = [f"Events from {found.name}.", *reading.notes(forms), *item_notes, *source.remarks]
        notes += _notes_of_events(found.name, scattered, facts, has_time=has_time)
        title = name if name is not None else found.name.strip("`").split(".")[0]
        description = describe_log(title, gathered, facts, kept_items, has_time, [*notes, *([note] if note else [])])
        if first_only:
            description["sampled_from"] = sum(one["num_events"] for one in scattered)
        write_json(target / LOG_FILE, description)
        sweep_folder(target)
    log = PartitionedLog.load(folder)
    logger.info(
        "%s: %d events of %d users in %d partitions.", log.name, log.num_events, log.num_users, log.num_partitions
    )
    return log


def _check_same_reading(name: str, scattered: Sequence[JsonObject]) -> None:
    """Refuse ids that were taken for whole numbers in some slices only; see [`Columns`]."""
    for role in ("user_id", "item_id", "session_id"):
        if len({one["whole_floats"][role] for one in scattered if role in one["whole_floats"]}) > 1:
            raise DataError(
                f"{name}: all ids of column {role!r} end in '.0' in some parts of the table, as if they had been "
                "floats, but not in others. Write the column again from the original, as text or integers (in pandas: "
                "dtype=str or 'Int64')."
            )


def _notes_of_events(
    name: str, scattered: Sequence[JsonObject], facts: Sequence[JsonObject], *, has_time: bool
) -> list[str]:
    notes = []
    if not has_time:
        notes.append("The log has order but no time: timestamps are positions.")
    elif all(one["are_days"] for one in scattered):
        notes.append(f"Times of {name} are days: events of one day have no order inside it.")
    notes += dict.fromkeys(note for one in scattered for note in one["notes"])
    counted = Counted()
    for one in scattered:
        counted.join({said: (count, first) for said, (count, first) in one["counted"].items()})
    notes += counted.notes(name)
    num_late, is_turned = sum(one.get("num_late", 0) for one in facts), any(one.get("is_turned") for one in facts)
    return notes + notes_of_order(name, num_late, is_turned)


def _slice_jobs(found: ParquetEvents, settings: JsonObject, target: Path) -> list[Job]:
    """Cut the pieces into runs of about equal size."""
    slice_rows = max(_SLICE_ROWS, found.num_rows // _MAX_SLICES)
    inputs = (str(target / ITEMS_FILE), str(target / "slices" / "schema.arrow"))
    jobs: list[Job] = []
    first = row = 0
    while first < len(found.pieces):
        last, num_rows = first, 0
        while last < len(found.pieces) and (last == first or num_rows + found.pieces[last].num_rows <= slice_rows):
            num_rows += found.pieces[last].num_rows
            last += 1
        own = {"first_row": row, "pieces": [asdict(piece) for piece in found.pieces[first:last]]}
        jobs.append(Job(str(target / "slices" / f"slice-{len(jobs):05d}"), inputs, {**settings, **own}))
        first, row = last, row + num_rows
    return jobs


def describe_log(
    name: str,
    jobs: Sequence[Job],
    facts: Sequence[JsonObject],
    items: pa.Table,
    has_time: bool,
    notes: list[str],
    *,
    query_source: QuerySource = "logged",
) -> dict[str, object]:
    """Put the facts about the partitions together, for `partitions.json`; delete folders of those without users.

    Args:
        name (`str`): Name of the data set.
        jobs (`Sequence[Job]`): What wrote the partitions.
        facts (`Sequence[JsonObject]`): By partition, what [`describe_events`] says.
        items (`pyarrow.Table`): The items.
        has_time (`bool`): Whether timestamps are seconds.
        notes (`list[str]`): Notes of the log.
        query_source (`str`): Where the queries are from, if there are any.
    """
    partitions = []
    digests: dict[int, str] = {}
    days: set[int] = set()
    num_searches = 0
    has_sessions = False
    for job, one in zip(jobs, facts, strict=True):
        folder = Path(job.output)
        if not one["num_events"]:
            shutil.rmtree(folder)
            continue
        buckets = {int(bucket): digest for bucket, digest in one["buckets"].items()}
        digests |= buckets
        days.update(one["interaction_days"])
        num_searches += one["num_searches"]
        has_sessions |= one["has_sessions"]
        partitions.append(
            {
                "folder": folder.name,
                "num_events": one["num_events"],
                "num_users": one["num_users"],
                "num_bytes": (folder / EVENTS_FILE).stat().st_size,
                "sha256": file_sha256(folder / EVENTS_FILE),
                "fingerprint": join_digests(buckets),
            }
        )
    query_source = query_source if num_searches else "none"
    return {
        "version": LOG_VERSION,
        "name": name,
        "has_time": has_time,
        "query_source": query_source,
        "notes": notes,
        "num_items": items.num_rows,
        "has_sessions": has_sessions,
        "interaction_days": sorted(days),
        "fingerprint": join_digests(digests, table_digest(items), has_time, query_source),
        "partitions": partitions,
    }


__all__ = ["MEMORY_LIMIT", "describe_log", "partition_log"]
