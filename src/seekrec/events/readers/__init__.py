# SPDX-License-Identifier: Apache-2.0
"""Readers of logs: one short adapter per source, on a common foundation.

There are three kinds of readers:

- `READERS`: published logs, by their name in the setting `dataset`. Each takes the folder of the published files,
  detects the layout (release, year, compressed or not) from names and first lines, and reports in one line what it
  found: `READERS["movielens"]("data/ml-1m")`. A reader whose source has user tags (its name is in `TAGGED`) also takes
  `queries="tags"`: each tag that a user typed is then a search that found the item.
- [`read_tables`]: your own log, two tables with any column names.
- [`read_sql`] and [`read_hub`]: your own tables from a database, or from a repository of the Hub. Their names are in
  `OTHER_DATASETS`.

A new reader is a function in its own module and a line in `registry.py`; `recipes/logs.py` turns settings into calls.
"""

from seekrec.events.readers.amazon import read_amazon
from seekrec.events.readers.criteo import read_criteo
from seekrec.events.readers.diginetica import read_diginetica
from seekrec.events.readers.hub import read_hub
from seekrec.events.readers.kuairec import read_kuairec
from seekrec.events.readers.kuaisar import read_kuaisar
from seekrec.events.readers.lastfm import read_lastfm
from seekrec.events.readers.mind import read_mind
from seekrec.events.readers.movielens import read_movielens
from seekrec.events.readers.qilin import read_qilin
from seekrec.events.readers.recbole import read_recbole
from seekrec.events.readers.registry import OTHER_DATASETS, READERS, TAGGED, WITHOUT_FOLDER
from seekrec.events.readers.sequences import read_sequences
from seekrec.events.readers.sql import read_sql
from seekrec.events.readers.tables import read_tables
from seekrec.events.readers.trivago import read_trivago
from seekrec.events.readers.yelp import read_yelp
from seekrec.events.readers.yoochoose import read_yoochoose

__all__ = [
    "read_hub",
    "read_sql",
    "read_criteo",
    "read_diginetica",
    "read_yoochoose",
    "read_kuairec",
    "read_kuaisar",
    "read_mind",
    "read_trivago",
    "read_qilin",
    "OTHER_DATASETS",
    "READERS",
    "TAGGED",
    "WITHOUT_FOLDER",
    "read_amazon",
    "read_lastfm",
    "read_movielens",
    "read_recbole",
    "read_sequences",
    "read_tables",
    "read_yelp",
]
