# SPDX-License-Identifier: Apache-2.0
"""A log that is larger than memory, in a folder of partitions. [`partition_log`](partitioning.py) writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.log import EventLog, QuerySource
from seekrec.events.partitions.scatter import EVENTS_FILE
from seekrec.events.saved import check_files, read_description, refuse_damage
from seekrec.util.hashing import file_sha256

LOG_FILE = "partitions.json"
ITEMS_FILE = "items.parquet"
LOG_VERSION = 1


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
        sampled_from (`int`, *optional*): Where only the first partition was written, events of the whole log.
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
    sampled_from: int | None = None

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
            return self.with_events(pq.read_table(path))

    def with_events(self, events: pa.Table) -> EventLog:
        """Return a log in memory of some of its events, rows that were checked, with all items."""
        return EventLog(
            name=self.name,
            events=events,
            items=self.items,
            has_time=self.has_time,
            query_source=self.query_source,
            notes=self.notes,
            is_checked=True,
        )

    def largest(self) -> EventLog:
        """Return the log of the partition with the most events."""
        return self.partition(max(range(len(self)), key=lambda number: self.partitions[number].num_events))

    def describe(self) -> dict[str, object]:
        """Count what the log holds, a partition at a time; see [`EventLog.describe`]."""
        behaviors: Counter[str] = Counter()
        actions: Counter[str] = Counter()
        items = pa.array([], pa.string())
        queries = pa.array([], pa.string())
        times: list[int] = []
        for part in self:
            counted = part.describe()
            behaviors.update(cast(dict[str, int], counted["num_events_by_behavior"]))
            actions.update(cast(dict[str, int], counted["num_events_by_action"]))
            times += [cast(int, counted["first_timestamp"]), cast(int, counted["last_timestamp"])]
            items = _join_distinct(items, part.events["item_id"])
            queries = _join_distinct(queries, part.events["query"])
        return {
            "name": self.name,
            "num_users": self.num_users,
            "num_items": self.num_items,
            "num_items_with_events": len(items),
            "num_events": self.num_events,
            "num_events_by_behavior": dict(behaviors),
            "num_events_by_action": dict(sorted(actions.items())),
            "num_distinct_queries": len(queries),
            "first_timestamp": min(times),
            "last_timestamp": max(times),
            "has_time": self.has_time,
            "query_source": self.query_source,
            "notes": list(self.notes),
        }

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


@lru_cache(maxsize=1)
def open_log(folder: str, digest: str) -> PartitionedLog:
    """Open a log once for all partitions that this process works on: they share the items.

    Args:
        folder (`str`): The folder.
        digest (`str`): What [`PartitionedLog.digest`] was when the work began.

    Raises:
        DataError: If the log is another by now.
    """
    log = PartitionedLog.load(folder)
    if log.digest != digest:
        raise DataError(f"The log in {folder} was changed while it was being read; start again.")
    return log


def _join_distinct(known: pa.Array, column: pa.ChunkedArray) -> pa.Array:
    found = pc.drop_null(pc.unique(column))
    return pc.unique(pa.chunked_array([known, found.cast(known.type)]))


__all__ = ["ITEMS_FILE", "LOG_FILE", "LOG_VERSION", "PartitionInfo", "PartitionedLog", "open_log"]
