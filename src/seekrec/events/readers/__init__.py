# SPDX-License-Identifier: Apache-2.0
"""Readers of logs: one short adapter a source, all on one floor.

Three kinds of readers, told apart by what they are given:

- `READERS`: published logs, by the name that the setting `dataset` takes. Each is given the folder of the files as
  they were published, finds the layout (release, year, packed or not) from names and first lines, and says in one line
  what it found: `READERS["movielens"]("data/ml-1m")`. A reader whose source has user tags (its name is in `TAGGED`)
  also takes `queries="tags"`: each tag that a user typed is then a search that found the item.
- [`read_tables`]: an own log, two tables of any names.
- readers that are given no folder: each is a function of its own, its name in `OTHER_DATASETS`.

A new reader is a function in a module of its own and a line of `READERS`; `recipes/logs.py` turns settings into calls.
"""

from collections.abc import Callable

from seekrec.events.log import EventLog
from seekrec.events.readers.amazon import read_amazon
from seekrec.events.readers.movielens import read_movielens
from seekrec.events.readers.sequences import read_sequences
from seekrec.events.readers.tables import read_tables

# Name of the log -> function of the folder of its files (`str` or `Path`).
READERS: dict[str, Callable[..., EventLog]] = {
    "amazon": read_amazon,
    "movielens": read_movielens,
    "sequences": read_sequences,
}

# The readers that take `queries="tags"`.
TAGGED: frozenset[str] = frozenset()

# The readers that can find or fetch their files themselves: they also take `None` for the folder.
WITHOUT_FOLDER = frozenset({"movielens"})

# What `dataset` may be beside the names in `READERS`.
OTHER_DATASETS = ("tables",)

__all__ = [
    "OTHER_DATASETS",
    "READERS",
    "TAGGED",
    "WITHOUT_FOLDER",
    "read_amazon",
    "read_movielens",
    "read_sequences",
    "read_tables",
]
