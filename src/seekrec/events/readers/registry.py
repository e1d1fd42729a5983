# SPDX-License-Identifier: Apache-2.0
"""The table of readers of published logs, by name."""

from __future__ import annotations

from collections.abc import Callable

from seekrec.events.log import EventLog
from seekrec.events.readers.amazon import read_amazon
from seekrec.events.readers.criteo import read_criteo
from seekrec.events.readers.diginetica import read_diginetica
from seekrec.events.readers.kuairec import read_kuairec
from seekrec.events.readers.kuaisar import read_kuaisar
from seekrec.events.readers.lastfm import read_lastfm
from seekrec.events.readers.mind import read_mind
from seekrec.events.readers.movielens import read_movielens
from seekrec.events.readers.qilin import read_qilin
from seekrec.events.readers.recbole import read_recbole
from seekrec.events.readers.sequences import read_sequences
from seekrec.events.readers.trivago import read_trivago
from seekrec.events.readers.yelp import read_yelp
from seekrec.events.readers.yoochoose import read_yoochoose

# Name of the log -> function of the folder of its files (`str` or `Path`).
READERS: dict[str, Callable[..., EventLog]] = {
    "amazon": read_amazon,
    "criteo": read_criteo,
    "diginetica": read_diginetica,
    "kuairec": read_kuairec,
    "kuaisar": read_kuaisar,
    "lastfm": read_lastfm,
    "mind": read_mind,
    "movielens": read_movielens,
    "qilin": read_qilin,
    "recbole": read_recbole,
    "sequences": read_sequences,
    "trivago": read_trivago,
    "yelp": read_yelp,
    "yoochoose": read_yoochoose,
}

# The readers that take `queries="tags"`.
TAGGED = frozenset({"lastfm", "movielens"})

# The readers that can find or fetch their files themselves: they also take `None` for the folder.
WITHOUT_FOLDER = frozenset({"movielens"})

# What `dataset` may be alongside the names in `READERS`: own tables, from files, a database or the Hub.
OTHER_DATASETS = ("tables", "sql", "hub")

__all__ = ["OTHER_DATASETS", "READERS", "TAGGED", "WITHOUT_FOLDER"]
