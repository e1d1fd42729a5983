# SPDX-License-Identifier: Apache-2.0
"""A log that is larger than memory: Parquet files that hold whole users, written in two passes of bounded memory.

The first pass reads the source a batch at a time, checks it with the rules of [`EventLog`] and scatters it by a hash
of the user; the second sorts each partition and drops repeated events. Both are pyarrow and numpy, because measuring
the same step (scan, check, scatter by user, sort by user, time and row, drop repeats; one thread, 4 GiB) gave, in
seconds and GiB at the peak:

| events | this module | Polars 2.1 | DuckDB 2.0, in two passes | DuckDB 2.0, one sort |
|---|---|---|---|---|
| 5 million | 9.0, 1.1 | 8.1, 0.7 | 12.1, 0.9 | 10.4, 1.7 |
| 20 million | 41.5, 1.6 | 36.5, 1.5 | 51.3, 2.9 | 66.1, 3.0 (spills) |

Polars is a seventh faster, but knows no limit of memory, and either would need the rules of `events/checks.py` written
a second time and a hash of the user that its next version may change. `recipes/benchmarks/data_floor.py --compare`
measures it again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import Source, check_max_refused
from seekrec.events.log import EventLog, QuerySource
from seekrec.events.partitions.buckets import check_num_partitions, join_digests
from seekrec.events.partitions.engines import Engine, Job, run_partitions
from seekrec.events.partitions.scatter import EVENTS_FILE, gather_partition, read_facts, read_refused, scatter_slice
from seekrec.events.partitions.sources import Columns, ParquetEvents, find_parquet
from seekrec.events.readers.kept_rows import keep_items
from seekrec.events.refused import Refused
from seekrec.events.saved import check_files, read_description, refuse_damage
from seekrec.util.files import replace_folder, sweep_folder, write_json, write_table
from seekrec.util.hashing import file_sha256, table_digest

LOG_FILE = "partitions.json"
ITEMS_FILE = "items.parquet"
LOG_VERSION = 1

MEMORY_LIMIT = 4 * 2**30

# What splitting and auditing a partition takes at the peak, measured: bytes for each of its events.
_BYTES_PER_EVENT = 1_000
# Bytes for each row of a batch while it is checked and scattered.
_BYTES_PER_ROW = 4_096
_MIN_BATCH, _MAX_BATCH = 1 << 12, 1 << 20
# Rows of a slice, at least; and about the most slices.
_SLICE_ROWS, _MAX_SLICES = 4_000_000, 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionInfo:
    """Description of one partition.

    Args:
        folder (`str`): Its folder.
        num_events (`int`): Its events.
        num_users (`int`): Its users.
        num_bytes (`int`): Bytes of its events on disk.
        sha256 (`str`): SHA-256 of its file of events.
        fingerprint (`str`): Digest of its events.
    """

    folder: str
    num_events: int
    num_users: int
    num_bytes: int
    sha256: str
    fingerprint: str


@dataclass(frozen=True, eq=False)
class PartitionedLog:
    """A log in a folder, cut into partitions of whole users. Made by [`partition_log`].

    In the folder are `items.parquet`, `partitions.json` and, for each partition, `partition-00000/events.parquet`,
    sorted as the events of an [`EventLog`].

    Args:
        folder (`Path`): The folder.
        name (`str`): Name of the data set.
        has_time (`bool`): Whether timestamps are seconds; else positions.
        query_source (`str`): As in [`EventLog`].
        notes (`tuple[str, ...]`): Changes made to the data, as sentences.
        partitions (`tuple[PartitionInfo, ...]`): The partitions; each has at least one user.
        num_items (`int`): Number of items.
        has_sessions (`bool`): Whether any event has a `session_id`.
        interaction_days (`tuple[int, ...]`): Days (since 1970, UTC) with an interaction, ascending.
        fingerprint (`str`): SHA-256 over events, items, `has_time` and `query_source`; it does not depend on the
            number of partitions.
    """

    folder: Path
    name: str
    has_time: bool
    query_source: QuerySource
    notes: tuple[str, ...]
    partitions: tuple[PartitionInfo, ...]
    num_items: int
    has_sessions: bool
    interaction_days: tuple[int, ...]
    fingerprint: str

    @property
    def num_events(self) -> int:
        """Number of events."""
        return sum(partition.num_events for partition in self.partitions)

    @property
    def num_users(self) -> int:
        """Number of users."""
        return sum(partition.num_users for partition in self.partitions)

    @property
    def num_partitions(self) -> int:
        """Number of partitions."""
        return len(self.partitions)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `partitions.json`: changes with the number of partitions, too."""
        return file_sha256(self.folder / LOG_FILE)

    @cached_property
    def items(self) -> pa.Table:
        """The items, as in [`EventLog`]."""
        return pq.read_table(self.folder / ITEMS_FILE)

    def partition(self, number: int) -> EventLog:
        """Return the log of the users of one partition, with all items.

        Args:
            number (`int`): From 0 to `num_partitions - 1`.

        Raises:
            DataError: If its file is damaged or is not the one that was written.
        """
        info = self.partitions[number]
        path = self.folder / info.folder / EVENTS_FILE
        with refuse_damage(path.parent, "partition"):
            found = file_sha256(path)
            if found != info.sha256:
                raise DataError(
                    f"{path} has SHA-256 {found[:12]}, {LOG_FILE} says {info.sha256[:12]}; the file was changed. "
                    "Partition the log again."
                )
            return EventLog(
                name=self.name,
                events=pq.read_table(path),
                items=self.items,
                has_time=self.has_time,
                query_source=self.query_source,
                notes=self.notes,
                is_checked=True,
            )

    def __iter__(self) -> Iterator[EventLog]:
        return (self.partition(number) for number in range(self.num_partitions))

    def __len__(self) -> int:
        return self.num_partitions

    @classmethod
    def load(cls, folder: str | Path) -> PartitionedLog:
        """Open a log that [`partition_log`] wrote; events are read later, a partition at a time.

        Raises:
            DataError: If a file is missing or written by another version.
        """
        source = Path(folder)
        check_files(source, (LOG_FILE, ITEMS_FILE), "partitioned log")
        with refuse_damage(source, "partitioned log"):
            description = read_description(source / LOG_FILE, LOG_VERSION, "log")
            description.pop("version")
            partitions = tuple(PartitionInfo(**partition) for partition in description.pop("partitions"))
            check_files(source, [f"{partition.folder}/{EVENTS_FILE}" for partition in partitions], "partitioned log")
            return cls(
                folder=source,
                partitions=partitions,
                notes=tuple(description.pop("notes")),
                interaction_days=tuple(description.pop("interaction_days")),
                **description,
            )


def partition_log(
    source: str | Path | Sequence[str | Path],
    items: str | Path | pa.Table,
    folder: str | Path,
    *,
    name: str | None = None,
    column_map: Mapping[str, str] | None = None,
    has_time: bool = True,
    max_refused: float = 0.01,
    num_partitions: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    engine: Engine = "local",
    num_workers: int | None = None,
) -> PartitionedLog:
    """Check a table of events and write it as Parquet partitioned by user, in bounded memory.

    Args:
        source (`str`, `Path` or a sequence of them): Parquet files or folders of them, also as Hive and Spark write
            them; see [`find_parquet`].
        items (`str`, `Path` or `pyarrow.Table`): The items; a Parquet file, or a table. They are read whole.
        folder (`str` or `Path`): Where to write; it appears whole, and replaces an earlier one.
        name (`str`, *optional*): Name of the data set; that of the source if not given.
        column_map (`Mapping[str, str]`, *optional*): From our name of a column of events to the one in the files.
        has_time (`bool`): Whether the log has times; see [`~seekrec.events.read_tables`].
        max_refused (`float`): The largest share of rows that may be left out with a warning.
        num_partitions (`int`, *optional*): 1 to 512; as few as keep within `memory_limit` if not given.
        memory_limit (`int`): Bytes that working on one partition, split and audit included, should take at most.
        engine (`str`): See [`run_partitions`].
        num_workers (`int`, *optional*): See [`run_partitions`].

    Returns:
        [`PartitionedLog`]: The log.

    Raises:
        DataError: If a file or column is missing, of the wrong type or empty, or too many rows cannot be used.
        ConfigurationError: If an argument is out of range.
    """
    check_max_refused(max_refused)
    if memory_limit < 2**26:
        raise ConfigurationError(f"`memory_limit` is {memory_limit!r} bytes; give 64 MiB (67108864) or more.")
    found = find_parquet(source)
    columns = Columns(dict(column_map or {}), has_time)
    columns.check(
        [*found.schema.names, *dict.fromkeys(name for piece in found.pieces for name in piece.values)], found.name
    )
    if num_partitions is None:
        num_partitions = int(np.clip(-(-found.num_rows * _BYTES_PER_EVENT // memory_limit), 1, 512))
    check_num_partitions(num_partitions)
    kept_items, item_note = _read_items(items, max_refused)
    with replace_folder(folder) as target:
        write_table(target / ITEMS_FILE, kept_items)
        slices = target / "slices"
        slices.mkdir()
        (slices / "schema.arrow").write_bytes(found.schema.serialize())
        jobs = _slice_jobs(found, columns, num_partitions, memory_limit, target)
        run_partitions(scatter_slice, jobs, engine=engine, num_workers=num_workers)
        refused = Refused()
        for job in jobs:
            refused.join(read_refused(read_facts(job.output)))
        gathered = [
            Job(
                output=str(target / f"partition-{number:05d}"),
                inputs=tuple(job.output for job in jobs),
                settings={"partition": number},
            )
            for number in range(num_partitions)
        ]
        run_partitions(gather_partition, gathered, engine=engine, num_workers=num_workers)
        shutil.rmtree(slices)
        facts = [read_facts(job.output) for job in gathered]
        for one in facts:
            refused.join(read_refused(one["refused"]))
        note = refused.settle(found.describe(), max_refused=max_refused)
        notes = [f"Events from {found.name}.", *([item_note] if item_note else [])]
        if not has_time:
            notes.append("The log has order but no time: timestamps are positions.")
        if num_late := sum(one.get("num_late", 0) for one in facts):
            notes.append(
                f"{num_late} events of {found.name} stood after a later one of the same user; they were sorted."
            )
        if note:
            notes.append(note)
        description = _describe(name or found.name.split(".")[0], gathered, facts, kept_items, has_time, notes)
        write_json(target / LOG_FILE, description)
        sweep_folder(target)
    log = PartitionedLog.load(folder)
    logger.info(
        "%s: %d events of %d users in %d partitions.", log.name, log.num_events, log.num_users, log.num_partitions
    )
    return log


def _read_items(items: str | Path | pa.Table, max_refused: float) -> tuple[pa.Table, str | None]:
    if isinstance(items, pa.Table):
        table, source = items, Source("`items`")
    else:
        try:
            table, source = pq.read_table(items), Source(Path(items).name)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{items} is not a Parquet file: {error}") from error
    return keep_items(table, source, max_refused=max_refused)


def _slice_jobs(
    found: ParquetEvents, columns: Columns, num_partitions: int, memory_limit: int, target: Path
) -> list[Job]:
    """Cut the pieces into runs of about equal size."""
    slice_rows = max(_SLICE_ROWS, found.num_rows // _MAX_SLICES)
    jobs: list[Job] = []
    first = row = 0
    while first < len(found.pieces):
        last, num_rows = first, 0
        while last < len(found.pieces) and (last == first or num_rows + found.pieces[last].num_rows <= slice_rows):
            num_rows += found.pieces[last].num_rows
            last += 1
        settings: dict[str, object] = {
            "name": found.name,
            "first_row": row,
            "pieces": [asdict(piece) for piece in found.pieces[first:last]],
            "column_names": dict(columns.names),
            "has_time": columns.has_time,
            "num_partitions": num_partitions,
            "batch_rows": int(np.clip(memory_limit // _BYTES_PER_ROW, _MIN_BATCH, _MAX_BATCH)),
        }
        inputs = (str(target / ITEMS_FILE), str(target / "slices" / "schema.arrow"))
        jobs.append(Job(str(target / "slices" / f"slice-{len(jobs):05d}"), inputs, settings))
        first, row = last, row + num_rows
    return jobs


def _describe(
    name: str,
    jobs: Sequence[Job],
    facts: Sequence[Any],
    items: pa.Table,
    has_time: bool,
    notes: list[str],
) -> dict[str, object]:
    """Put the facts about the partitions together; folders of those without users are deleted."""
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
    query_source: QuerySource = "logged" if num_searches else "none"
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


__all__ = ["MEMORY_LIMIT", "PartitionInfo", "PartitionedLog", "partition_log"]
