# SPDX-License-Identifier: Apache-2.0
"""Load the log, add searches and split it, as the settings say: the first stage of every recipe."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from seekrec.errors import ConfigurationError
from seekrec.events import (
    ColdStart,
    EventLog,
    Split,
    audit,
    hold_out_items,
    split_log,
    synthesize_searches,
)
from seekrec.events.partitions import PartitionedLog, partition_log
from seekrec.events.partitions.logs import LOG_FILE
from seekrec.events.readers import READERS, TAGGED, WITHOUT_FOLDER, read_tables
from seekrec.events.readers.hub import load_facts, load_tables, note_origin, restore_log
from seekrec.events.readers.sql import holds_password, query_tables
from seekrec.recipes.arguments import SPLIT_SEED, DataArguments
from seekrec.recipes.machine import memory_size
from seekrec.recipes.stages import StageCache

logger = logging.getLogger(__name__)


def prepare_split(log: EventLog, data: DataArguments, cache: StageCache) -> Split:
    """Add searches to a log if it has none, split it, and print the audit.

    With `num_cold_items` some items leave the log first; [`prepare_cold_start`] returns them.

    Args:
        log ([`EventLog`]): The log that the settings name: [`read_log`].
        data ([`DataArguments`]): Construction of searches, and the split.
        cache ([`StageCache`]): Finds what was done before.

    Raises:
        DataError: If the log cannot be used.
        LeakageError: If a strict split leaks.
    """
    split = _split_once(_searched_log(log, data), data, cache)
    if data.num_cold_items:
        log, _ = hold_out_items(split, data.num_cold_items, seed=SPLIT_SEED)
        logger.info("%s: %s", log.name, log.notes[-1])
        split = _split_once(log, data, cache)
    logger.info("audit of the split:\n%s", audit(split))
    return split


def prepare_cold_start(split: Split, data: DataArguments, cache: StageCache) -> ColdStart:
    """Return the items without training events: those held out, or those that the split leaves without any.

    Args:
        split (`Split`): Split that [`prepare_split`] returned.
        data ([`DataArguments`]): The log, and `num_cold_items`.
        cache ([`StageCache`]): Finds the split of the whole log.
    """
    if not data.num_cold_items:
        return ColdStart.of_untrained(split)
    whole = _split_once(_searched_log(read_log(data), data), data, cache)
    return hold_out_items(whole, data.num_cold_items, seed=SPLIT_SEED)[1]


def _searched_log(log: EventLog, data: DataArguments) -> EventLog:
    if log.query_source == "none" and data.construction in ("split", "copy"):
        log = synthesize_searches(log, construction=data.construction, seed=SPLIT_SEED)
    for note in log.notes:
        logger.info("%s: %s", log.name, note)
    return log


def _split_once(log: EventLog, data: DataArguments, cache: StageCache) -> Split:
    settings = {
        "log": log.fingerprint,
        "name": log.name,
        "method": data.split_method,
        "protocol": data.protocol,
        "seed": SPLIT_SEED,
    }

    def make(folder: Path) -> None:
        split = split_log(log, method=data.split_method, protocol=data.protocol, seed=SPLIT_SEED)
        split.save(folder, include_log=False)

    return cache.run("split", settings, make, lambda folder: Split.load(folder, log=log), libraries=("numpy",))


def open_partitions(data: DataArguments, cache: StageCache, *, memory: int | None = None) -> PartitionedLog | None:
    """Open the partitions of your own log: those that `events` names, or those made of a log too large for memory.

    Args:
        data ([`DataArguments`]): The settings.
        cache ([`StageCache`]): Keeps the partitions that are made.
        memory (`int`, *optional*): Bytes of memory that there are; those of this machine if not given.

    Returns:
        [`PartitionedLog`], *optional*: `None` where the settings name a log that is read into memory.
    """
    if name_dataset(data) == "tables" and is_partitioned(data):
        return _open_log(data)
    if not is_large(data, memory):
        return None
    source, given = Path(str(data.events)), _given_to_tables(data)
    # What is in them would take as long to digest as to read.
    stamps = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for path in (source, Path(str(data.items)))
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]

    def make(folder: Path) -> None:
        partition_log(source, str(data.items), folder / "log", engine=data.engine, **given)

    key = {"files": stamps, "settings": given}
    return cache.run("partitions", key, make, lambda folder: PartitionedLog.load(folder / "log"))


def look_at_log(data: DataArguments, *, memory: int | None = None) -> tuple[EventLog, PartitionedLog | None]:
    """Read a log for a plan, without leaving anything on disk; of one that is too large for memory, a sample.

    Args:
        data ([`DataArguments`]): The settings.
        memory (`int`, *optional*): Bytes of memory that there are; those of this machine if not given.

    Returns:
        `tuple`: The log, or a partition of it; and, for a partition, what is known of all.
    """
    if name_dataset(data) == "tables" and is_partitioned(data):
        parts = _open_log(data)
        return parts.largest(), parts
    if not is_large(data, memory):
        return read_log(data), None
    with tempfile.TemporaryDirectory(prefix="seekrec-") as folder:
        logger.info("%s is read in parts; only the users of one part are in memory.", data.events)
        parts = partition_log(
            str(data.events),
            str(data.items),
            Path(folder) / "log",
            memory_limit=_MEMORY_OF_SAMPLE,
            first_only=True,
            **_given_to_tables(data),
        )
        return parts.largest(), parts


def is_large(data: DataArguments, memory: int | None = None) -> bool:
    """Return whether your own log, read at once, would take more than its share of memory.

    Args:
        data ([`DataArguments`]): The settings.
        memory (`int`, *optional*): Bytes of memory that there are; those of this machine if not given.
    """
    if name_dataset(data) != "tables" or data.events is None or data.items is None:
        return False
    return _is_large(Path(data.events), memory_size() if memory is None else memory)


def is_partitioned(data: DataArguments) -> bool:
    """Return whether `events` names a folder that [`partition_log`] wrote."""
    return data.events is not None and (Path(data.events) / LOG_FILE).is_file()


def _open_log(data: DataArguments) -> PartitionedLog:
    """Open the partitions that `events` names.

    Raises:
        ConfigurationError: If a setting says how to read them, which is known.
    """
    _refuse_folder(data)
    if ignored := [name for name in ("items", *_OF_TABLES) if getattr(data, name) not in (None, [])]:
        raise ConfigurationError(f"`{ignored[0]}` is given, but {data.events} is a partitioned log; leave it out.")
    return PartitionedLog.load(str(data.events))


def read_log(data: DataArguments, scratch: Path | None = None) -> EventLog:
    """Read the log that the settings name.

    Args:
        data ([`DataArguments`]): The settings.
        scratch (`Path`, *optional*): Folder for the partitions of a large log, which are deleted again; it has to be
            shared by the nodes of a Ray cluster. That of the system if not given.

    Raises:
        ConfigurationError: If no log is named, a path that the reader needs is missing, or a setting is given that the
            reader does not read.
        DataError: If the log cannot be used.
    """
    dataset = name_dataset(data)
    if dataset == "tables":
        return _read_own_tables(data, scratch)
    if data.engine != "local":
        raise ConfigurationError(
            f"`engine` is {data.engine} together with `dataset: {dataset}`, but it reads your own tables: pass "
            "--events and --items."
        )
    if dataset == "sql":
        return _read_database(data)
    if dataset == "hub":
        return _read_repository(data)
    if ignored := [name for name in ("events", "items", *_OF_TABLES) if getattr(data, name) not in (None, [])]:
        raise ConfigurationError(
            f"`{ignored[0]}` is given together with `dataset: {dataset}`, which does not read it; leave it out, or "
            "leave out `dataset` and name your tables by --events and --items."
        )
    if data.data_dir is None and dataset not in WITHOUT_FOLDER:
        raise ConfigurationError(f"`dataset: {dataset}` needs `data_dir`, the folder of the log; pass --data_dir.")
    options: dict[str, object] = {} if data.max_refused is None else {"max_refused": data.max_refused}
    if data.construction != "tags":
        return READERS[dataset](data.data_dir, **options)
    if dataset not in TAGGED:
        raise ConfigurationError(
            f"`construction: tags` needs a log with user-typed tags: {', '.join(sorted(TAGGED))}; `dataset` "
            f"is {dataset}. Use `construction: split`, which makes queries from category names."
        )
    return READERS[dataset](data.data_dir, queries="tags", **options)


def name_dataset(data: DataArguments) -> str:
    """Return the name of the reader: `tables` where a table of events is given and nothing else is said.

    Raises:
        ConfigurationError: If the settings do not name a log.
    """
    if data.dataset is not None:
        return data.dataset
    if data.events is None:
        raise ConfigurationError(
            "No log is named: pass --events (and --items) for your own tables, or --dataset and --data_dir for a "
            f"published log ({', '.join(READERS)})."
        )
    return "tables"


def name_log(data: DataArguments) -> str:
    """Return a name of the log for folders: that of its file or folder, without endings."""
    place = data.events if name_dataset(data) == "tables" else data.data_dir or data.dataset
    return re.split("[.@?]", Path(str(place)).name)[0] or "log"


def _read_own_tables(data: DataArguments, scratch: Path | None) -> EventLog:
    if data.events is None:
        raise ConfigurationError("`dataset: tables` needs the table of your events; pass --events.")
    _refuse_folder(data)
    if is_partitioned(data):
        return _join_partitions(_open_log(data))
    given = _given_to_tables(data)
    if data.engine == "local" and not is_large(data):
        return read_tables(data.events, data.items, **given)
    if data.items is None:
        raise ConfigurationError(f"`engine: {data.engine}` needs a table of items; pass --items.")
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partitions-", dir=scratch) as folder:
        logger.info("%s is read in partitions of whole users, with the engine %s.", data.events, data.engine)
        parts = partition_log(data.events, data.items, Path(folder) / "log", engine=data.engine, **given)
        return _join_partitions(parts)


def _refuse_folder(data: DataArguments) -> None:
    if data.data_dir is not None:
        raise ConfigurationError(
            "`data_dir` is given together with your own tables, which do not use it; leave it out."
        )


def _join_partitions(parts: PartitionedLog) -> EventLog:
    return parts.with_events(pa.concat_tables([part.events for part in parts]))


def _is_large(path: Path, memory: int) -> bool:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    sizes = ((file, file.stat().st_size if file.is_file() else 0) for file in files)
    expected = sum(size * (_PARQUET_GROWS if file.suffix == ".parquet" else _TEXT_GROWS) for file, size in sizes)
    return expected > _SHARE_OF_MEMORY * memory


def _read_database(data: DataArguments) -> EventLog:
    """Read own tables by SQL; `events` and `items` are statements."""
    if data.data_dir is None or data.events is None:
        raise ConfigurationError(
            "`dataset: sql` needs a database and a query; pass --data_dir shop.duckdb --events 'SELECT ...' (and "
            "--items 'SELECT ...')."
        )
    for name in ("data_dir", "events", "items"):
        if holds_password(getattr(data, name) or ""):
            raise ConfigurationError(
                f"`{name}` contains a password, and settings are saved with every run; remove it, and pass the "
                "password through the database's own file or variable (~/.pgpass, PGPASSWORD, MYSQL_PWD)."
            )
    events, items = query_tables(data.data_dir, data.events, data.items)
    return read_tables(events, items, name=name_log(data), **_given(data, _OF_FILES))


def _read_repository(data: DataArguments) -> EventLog:
    """Read own tables from the Hub; `data_dir` is its name, and may name a revision after an @."""
    if data.data_dir is None:
        raise ConfigurationError("`dataset: hub` needs a repository; pass --data_dir me/my-log, or a clone's folder.")
    if ignored := [name for name in ("events", "items") if getattr(data, name) is not None]:
        raise ConfigurationError(f"`{ignored[0]}` is given together with `dataset: hub`, which does not use it.")
    is_clone = Path(data.data_dir).is_dir()
    repository, revision = (data.data_dir, "") if is_clone else data.data_dir.partition("@")[::2]
    events, items = load_tables(repository, revision=revision or None)
    given, name = _given(data, _OF_FILES), name_log(data)
    facts = load_facts(repository, revision=revision or None)
    log = None if given.keys() - {"has_time"} else restore_log(events, items, name=name, facts=facts, **given)
    if log is None:
        return note_origin(read_tables(events, items, name=name, **given))
    return note_origin(log) if facts is None else log


def _given_to_tables(data: DataArguments) -> dict[str, Any]:
    given = _given(data)
    if "quote" in given:
        given["quoting"] = given.pop("quote")
    return given


def _given(data: DataArguments, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of own tables that were given, as [`read_tables`] takes them.

    Raises:
        ConfigurationError: If one of `ignored` was given.
    """
    names = (*_OF_TABLES, "max_refused")
    given = {name: getattr(data, name) for name in names if getattr(data, name) not in (None, [])}
    for name in ignored:
        if name in given:
            raise ConfigurationError(
                f"`{name}` is given together with `dataset: {data.dataset}`, which reads no text files."
            )
    if "column_map" in given:
        given["column_map"] = _parse_pairs(data.column_map)
    return given


def _parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigurationError(f"`column_map` has {pair!r}; write ours=theirs, e.g. user_id=customer.")
    named: dict[str, str] = {}
    for name, _, value in (pair.partition("=") for pair in pairs):
        if named.setdefault(name, value) != value:
            raise ConfigurationError(f"`column_map` names {named[name]!r} and {value!r} for {name!r}; leave one out.")
    return named


# Settings of text files.
_OF_FILES = ("delimiter", "quote", "encoding")

# A log that takes more than this share of memory is read in partitions. Parquet is packed, text is not: so many times
# their bytes are there at once while a table is read and checked.
_SHARE_OF_MEMORY, _PARQUET_GROWS, _TEXT_GROWS = 0.3, 20, 5
# Bytes that a partition takes which is read for a plan: about a million events.
_MEMORY_OF_SAMPLE = 1 << 30

# Settings that only the reader of own tables takes.
_OF_TABLES = ("column_map", "time_unit", "timezone", *_OF_FILES, "category_separator", "has_time")

__all__ = [
    "is_large",
    "is_partitioned",
    "look_at_log",
    "name_dataset",
    "name_log",
    "open_partitions",
    "prepare_cold_start",
    "prepare_split",
    "read_log",
]
