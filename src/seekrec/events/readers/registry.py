# SPDX-License-Identifier: Apache-2.0
"""The table of readers of published logs, by name."""

from __future__ import annotations

from collections.abc import Callable

from seekrec.events.log import EventLog
from seekrec.events.readers.amazon import read_amazon
from seekrec.events.readers.movielens import read_movielens
from seekrec.events.readers.sequences import read_sequences

# Name of the log -> function of the folder of its files (`str` or `Path`).
READERS: dict[str, Callable[..., EventLog]] = {
    "amazon": read_amazon,
    "movielens": read_movielens,
    "sequences": read_sequences,
}

# The readers that take `queries="tags"`.
TAGGED = frozenset({"movielens"})

# The readers that can find or fetch their files themselves: they also take `None` for the folder.
WITHOUT_FOLDER = frozenset({"movielens"})

# What `dataset` may be beside the names in `READERS`.
OTHER_DATASETS = ("tables",)

__all__ = ["OTHER_DATASETS", "READERS", "TAGGED", "WITHOUT_FOLDER"]
