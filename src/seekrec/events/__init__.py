# SPDX-License-Identifier: Apache-2.0
"""From a raw log to events: readers, queries, splits and negatives."""

from seekrec.events.audit import AuditReport, audit
from seekrec.events.cases import Cases, TrainingHistories
from seekrec.events.cold_start import ColdStart, has_training_events, hold_out_items
from seekrec.events.examples import read_examples, write_examples
from seekrec.events.log import EventLog
from seekrec.events.negatives import sample_negatives
from seekrec.events.queries import category_queries, synthesize_searches
from seekrec.events.readers import read_movielens, read_sequences, read_tables
from seekrec.events.spelling import Spelling
from seekrec.events.split import Split
from seekrec.events.splits import split_log

__all__ = [
    "AuditReport",
    "Cases",
    "ColdStart",
    "EventLog",
    "Spelling",
    "Split",
    "TrainingHistories",
    "audit",
    "category_queries",
    "has_training_events",
    "hold_out_items",
    "read_examples",
    "read_movielens",
    "read_sequences",
    "read_tables",
    "sample_negatives",
    "split_log",
    "synthesize_searches",
    "write_examples",
]
