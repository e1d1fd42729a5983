# SPDX-License-Identifier: Apache-2.0
"""From a raw log to events: readers, queries, splits and negatives."""

from seekrec.events.log import EventLog
from seekrec.events.movielens import read_movielens
from seekrec.events.queries import category_queries, synthesize_searches
from seekrec.events.sequences import read_sequences
from seekrec.events.tables import read_tables

__all__ = [
    "EventLog",
    "category_queries",
    "read_movielens",
    "read_sequences",
    "read_tables",
    "synthesize_searches",
]
