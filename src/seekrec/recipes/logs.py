# SPDX-License-Identifier: Apache-2.0
"""From settings to a log with searches, and its split: what every recipe begins with."""

from __future__ import annotations

import logging
from pathlib import Path

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
from seekrec.recipes.arguments import DataArguments, parse_column_map
from seekrec.recipes.stages import StageCache

logger = logging.getLogger(__name__)


def prepare_split(data: DataArguments, cache: StageCache) -> Split:
    """Read the log, give it searches if it has none, split it, and print what the audit counts.

    With `num_cold_items` some items leave the log first; [`prepare_cold_start`] gives them.

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
    """Give the items that training knew nothing of: those held out, or those that no training event acts on.

    Args:
        split (`Split`): What [`prepare_split`] gave.
        data ([`DataArguments`]): `num_cold_items` says which.
        cache ([`StageCache`]): Finds the split of the whole log.
    """
    if not data.num_cold_items:
        return ColdStart.of_untrained(split)
    whole = _split_once(_searched_log(data), data, cache)
    return hold_out_items(whole, data.num_cold_items, seed=data.split_seed)[1]


def _searched_log(data: DataArguments) -> EventLog:
    log = read_log(data)
    if log.query_source == "none" and data.construction != "none":
        log = synthesize_searches(
            log, construction=data.construction, search_fraction=data.search_fraction, seed=data.split_seed
        )
    for note in log.notes:
        logger.info("%s: %s", log.name, note)
    return log


def _split_once(log: EventLog, data: DataArguments, cache: StageCache) -> Split:
    settings = {
        "log": log.fingerprint(),
        "name": log.name,
        "method": data.split_method,
        "protocol": data.protocol,
        "num_test_days": data.num_test_days,
        "seed": data.split_seed,
    }

    def make(folder: Path) -> None:
        split_log(
            log,
            method=data.split_method,
            protocol=data.protocol,
            num_test_days=data.num_test_days,
            seed=data.split_seed,
        ).save(folder, include_log=False)

    return cache.run("split", settings, make, lambda folder: Split.load(folder, log=log), libraries=("numpy",))


def read_log(data: DataArguments) -> EventLog:
    """Read the log that the settings name.

    Raises:
        ConfigurationError: If a path that the reader needs is missing.
    """
    if data.dataset == "movielens":
        return read_movielens(data.data_dir, variant=data.movielens_variant)
    if data.dataset == "sequences":
        if data.data_dir is None:
            raise ConfigurationError("`dataset: sequences` needs `data_dir`, the folder of the log; pass --data_dir.")
        return read_sequences(data.data_dir)
    if data.events_path is None or data.items_path is None:
        raise ConfigurationError("`dataset: tables` needs `events_path` and `items_path`; pass both.")
    return read_tables(
        data.events_path,
        data.items_path,
        column_map=parse_column_map(data.column_map),
        max_refused=data.max_refused,
        has_time=data.has_time,
        category_separator=data.category_separator,
        delimiter=data.delimiter,
        quoting=data.quoting,
        encoding=data.encoding,
    )


__all__ = ["prepare_cold_start", "prepare_split", "read_log"]
