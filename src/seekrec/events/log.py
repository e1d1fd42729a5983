# SPDX-License-Identifier: Apache-2.0
"""The event log: two Arrow tables, checked once, sorted by user and time, and immutable."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.table import InMemoryTable

from seekrec.errors import DataError
from seekrec.events.checks import (
    Source,
    conform,
    find_event_problems,
    find_item_problems,
    refuse,
)
from seekrec.events.saved import check_files, read_description, refuse_damage
from seekrec.schema import BEHAVIORS, EVENT_FEATURES, ITEM_FEATURES, OPTIONAL_EVENT_FEATURES
from seekrec.util.arrow import alphabetical_ranks
from seekrec.util.files import write_json, write_table
from seekrec.util.hashing import table_digest

QuerySource = Literal["none", "logged", "category"]

EVENTS_FILE = "events.parquet"
ITEMS_FILE = "items.parquet"
LOG_FILE = "log.json"
LOG_VERSION = 1


@dataclass(frozen=True, eq=False)
class EventLog:
    """What users did, and the items they did it with.

    The tables are brought to `EVENT_FEATURES` and `ITEM_FEATURES`: columns in that order, then any others; absent
    columns are filled with nulls, an absent `behavior` with "recommendation", an absent `action` with "click". A
    column of `OPTIONAL_EVENT_FEATURES` is checked where it is there and not made where it is not. Events are sorted by
    user, then timestamp; events of one user and timestamp keep the order they came in.

    Args:
        name (`str`): Name of the data set, for reports.
        events (`pyarrow.Table`): One row per event. `user_id`, `timestamp` and `item_id` must be there.
        items (`pyarrow.Table`): One row per item, ids distinct. `item_id` and `title` must be there.
        has_time (`bool`): Whether timestamps are seconds. If not, they are positions in each user's sequence.
        query_source (`str`): `"none"` (no searches), `"logged"` (users typed them) or `"category"` (synthetic, from
            category paths: reports must say so).
        notes (`tuple[str, ...]`): Changes made to the data, as sentences.
        is_checked (`bool`): For readers: the tables have the columns named above, and every row was checked.

    Raises:
        DataError: If a column is missing or of the wrong type, the log is empty, or any row breaks the schema: an
            event without user, time or behavior, a search without query, an item that `items` does not hold, a
            geohash that is invalid, an item listed twice. The message names the row of the table that was passed in,
            counted from 0.
    """

    name: str
    events: pa.Table
    items: pa.Table
    has_time: bool = True
    query_source: QuerySource = "none"
    notes: tuple[str, ...] = ()
    is_checked: InitVar[bool] = False

    def __post_init__(self, is_checked: bool) -> None:
        events, items = self.events, self.items
        if not is_checked:
            required = ("user_id", "timestamp", "item_id")
            events = conform(events, EVENT_FEATURES, "events", required=required, optional=OPTIONAL_EVENT_FEATURES)
            items = conform(items, ITEM_FEATURES, "items", required=("item_id", "title"))
            refuse(items, find_item_problems(items), Source("`items`"))
            refuse(events, find_event_problems(events, items["item_id"]), Source("`events`"))
        has_searches = bool(pc.any(pc.is_valid(events["query"])).as_py())
        says_searches = self.query_source != "none"
        # A part of a log may have none of its searches.
        if has_searches != says_searches and not (is_checked and says_searches):
            raise DataError(
                f"`query_source` of log {self.name!r} is {self.query_source!r} but its events hold "
                f"{'searches' if has_searches else 'no searches'}; use 'logged' or 'category' with searches and "
                "'none' without."
            )
        object.__setattr__(self, "events", sort_events(events))
        object.__setattr__(self, "items", items)
        object.__setattr__(self, "notes", tuple(self.notes))

    @property
    def num_events(self) -> int:
        """Number of events, searches included."""
        return int(self.events.num_rows)

    @property
    def num_items(self) -> int:
        """Number of items, those without events included."""
        return int(self.items.num_rows)

    @cached_property
    def num_users(self) -> int:
        """Number of users; each has at least one event."""
        return int(pc.count_distinct(self.events["user_id"]).as_py())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the content, 64 hexadecimal digits: both tables, `has_time`, `query_source`.

        The name and the notes do not count.
        """
        settings = pa.table({"has_time": [self.has_time], "query_source": [self.query_source]})
        return table_digest(self.events, self.items, settings)

    def with_notes(self, *notes: str) -> EventLog:
        """Return the same log with more notes."""
        return replace(self, notes=(*self.notes, *notes), is_checked=True)

    def describe(self) -> dict[str, object]:
        """Count what the log holds.

        Returns:
            `dict`: `name`, `num_users`, `num_items`, `num_items_with_events`, `num_events`, `num_events_by_behavior`,
            `num_events_by_action`, `num_distinct_queries`, `first_timestamp`, `last_timestamp`, `has_time`,
            `query_source`, `notes`; all of it can be written as JSON.
        """
        by_behavior = _count(self.events["behavior"])
        times = pc.min_max(self.events["timestamp"]).as_py()
        return {
            "name": self.name,
            "num_users": self.num_users,
            "num_items": self.num_items,
            "num_items_with_events": int(pc.count_distinct(self.events["item_id"]).as_py()),
            "num_events": self.num_events,
            "num_events_by_behavior": {behavior: by_behavior.get(behavior, 0) for behavior in BEHAVIORS},
            "num_events_by_action": _count(self.events["action"]),
            "num_distinct_queries": int(pc.count_distinct(self.events["query"]).as_py()),
            "first_timestamp": times["min"],
            "last_timestamp": times["max"],
            "has_time": self.has_time,
            "query_source": self.query_source,
            "notes": list(self.notes),
        }

    def to_dataset_dict(self) -> dict[str, datasets.DatasetDict]:
        """Return the two tables as data sets, one for each configuration of a Hub repository.

        ```python
        for config_name, dataset in log.to_dataset_dict().items():
            dataset.push_to_hub("me/my-log", config_name=config_name)
        ```

        Returns:
            `dict[str, datasets.DatasetDict]`: Under `"events"` and `"items"`, each with the single split `train`.
        """
        return {
            config_name: datasets.DatasetDict({"train": datasets.Dataset(InMemoryTable(table))})
            for config_name, table in (("events", self.events), ("items", self.items))
        }

    def save(self, folder: str | Path) -> None:
        """Write `events.parquet`, `items.parquet` and, last, `log.json`.

        Args:
            folder (`str` or `Path`): Made if it does not exist; an earlier log in it is replaced.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        # Without log.json the folder does not load: an interrupted save is never taken for a log.
        (target / LOG_FILE).unlink(missing_ok=True)
        for file_name, table in ((EVENTS_FILE, self.events), (ITEMS_FILE, self.items)):
            write_table(target / file_name, table)
        description = {
            "version": LOG_VERSION,
            "name": self.name,
            "has_time": self.has_time,
            "query_source": self.query_source,
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }
        write_json(target / LOG_FILE, description)

    @classmethod
    def load(cls, folder: str | Path) -> EventLog:
        """Read a log that `save` wrote.

        Args:
            folder (`str` or `Path`): The folder given to `save`.

        Raises:
            DataError: If a file is missing, written by another version, or does not belong to the others.
        """
        source = Path(folder)
        check_files(source, (LOG_FILE, EVENTS_FILE, ITEMS_FILE), "event log")
        with refuse_damage(source, "log"):
            description = read_description(source / LOG_FILE, LOG_VERSION, "log")
            log = cls(
                name=description["name"],
                events=pq.read_table(source / EVENTS_FILE),
                items=pq.read_table(source / ITEMS_FILE),
                has_time=description["has_time"],
                query_source=description["query_source"],
                notes=tuple(description["notes"]),
            )
            if log.fingerprint != description["fingerprint"]:
                raise DataError(
                    f"The tables in {source} have fingerprint {log.fingerprint[:12]}, {LOG_FILE} says "
                    f"{description['fingerprint'][:12]}; a file was changed or comes from another log. Save the log "
                    "again."
                )
            return log


def sort_events(events: pa.Table) -> pa.Table:
    """Sort by user id, then timestamp, stably; a table in order is returned as it is."""
    users = events["user_id"].combine_chunks().dictionary_encode()
    user_rank = alphabetical_ranks(users.dictionary)[users.indices.to_numpy()]
    times = events["timestamp"].to_numpy()
    same_user = user_rank[1:] == user_rank[:-1]
    if (user_rank[1:] >= user_rank[:-1]).all() and (times[1:] >= times[:-1])[same_user].all():
        return events.combine_chunks()
    return events.take(pa.array(np.lexsort((times, user_rank)))).combine_chunks()


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    counts = pc.value_counts(column.combine_chunks())
    return dict(sorted((str(entry["values"]), int(entry["counts"])) for entry in counts.to_pylist()))
