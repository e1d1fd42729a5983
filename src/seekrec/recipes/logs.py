# SPDX-License-Identifier: Apache-2.0
"""From settings to a log with searches, and its split: the first stage of every recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seekrec.errors import ConfigurationError
from seekrec.events import (
    ColdStart,
    EventLog,
    Split,
    audit,
    hold_out_items,
    read_movielens,
    read_sequences,
    read_tables,
    split_log,
    synthesize_searches,
)
from seekrec.recipes.arguments import DataArguments
from seekrec.recipes.stages import StageCache

logger = logging.getLogger(__name__)


def prepare_split(data: DataArguments, cache: StageCache) -> Split:
    """Read the log, add searches if it has none, split it, and print the audit.

    With `num_cold_items` some items leave the log first; [`prepare_cold_start`] returns them.

    Raises:
        ConfigurationError: If the settings do not name a log.
        DataError: If the log cannot be used.
        LeakageError: If a strict split leaks.
    """
    split = _split_once(_searched_log(data), data, cache)
    if data.num_cold_items:
        log, _ = hold_out_items(split, data.num_cold_items, seed=data.split_seed)
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
    whole = _split_once(_searched_log(data), data, cache)
    return hold_out_items(whole, data.num_cold_items, seed=data.split_seed)[1]


def _searched_log(data: DataArguments) -> EventLog:
    log = read_log(data)
    if log.query_source == "none" and data.construction != "none":
        log = synthesize_searches(log, construction=data.construction, seed=data.split_seed)
    for note in log.notes:
        logger.info("%s: %s", log.name, note)
    return log


def _split_once(log: EventLog, data: DataArguments, cache: StageCache) -> Split:
    settings = {
        "log": log.fingerprint(),
        "name": log.name,
        "method": data.split_method,
        "protocol": data.protocol,
        "seed": data.split_seed,
    }

    def make(folder: Path) -> None:
        split = split_log(log, method=data.split_method, protocol=data.protocol, seed=data.split_seed)
        split.save(folder, include_log=False)

    return cache.run("split", settings, make, lambda folder: Split.load(folder, log=log), libraries=("numpy",))


def read_log(data: DataArguments) -> EventLog:
    """Read the log that the settings name.

    Raises:
        ConfigurationError: If a path that the reader needs is missing, or an option is not one of the reader's.
    """
    options = _parse_pairs(data.reader_options)
    if data.dataset == "movielens":
        _check_names(options, ("variant",), data.dataset)
        return read_movielens(data.data_dir, variant=options.get("variant", "100k"))
    if data.dataset == "sequences":
        _check_names(options, (), data.dataset)
        if data.data_dir is None:
            raise ConfigurationError("`dataset: sequences` needs `data_dir`, the folder of the log; pass --data_dir.")
        return read_sequences(data.data_dir)
    if data.events_path is None or data.items_path is None:
        raise ConfigurationError("`dataset: tables` needs `events_path` and `items_path`; pass both.")
    own = {name: read(name, options.pop(name)) for name, read in _OF_TABLES.items() if name in options}
    return read_tables(data.events_path, data.items_path, column_map=options or None, **own)


def _parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigurationError(f"`reader_options` has {pair!r}; write name=value, e.g. user_id=customer.")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _check_names(options: Mapping[str, str], known: Sequence[str], dataset: str) -> None:
    if unknown := [name for name in options if name not in known]:
        raise ConfigurationError(
            f"`reader_options` has {unknown[0]!r}; `dataset: {dataset}` has {', '.join(known) or 'none'}."
        )


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value not in choices:
            raise ConfigurationError(f"`reader_options` has {name}={value}; use one of {', '.join(choices)}.")
        return value

    return read


def _share(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigurationError(f"`reader_options` has {name}={value}; write a number from 0 to 1.") from None


# What `read_tables` takes beside the names of columns, and how it is read.
_OF_TABLES: dict[str, Callable[[str, str], Any]] = {
    "delimiter": lambda name, value: value,
    "quoting": _one_of("doubled", "escaped", "none"),
    "encoding": lambda name, value: value,
    "has_time": lambda name, value: _one_of("true", "false")(name, value.lower()) == "true",
    "category_separator": lambda name, value: value,
    "max_refused": _share,
}


__all__ = ["prepare_cold_start", "prepare_split", "read_log"]
