# SPDX-License-Identifier: Apache-2.0
"""Readers of logs: one short adapter a source."""

from seekrec.events.readers.movielens import read_movielens
from seekrec.events.readers.sequences import read_sequences
from seekrec.events.readers.tables import read_tables

__all__ = ["read_movielens", "read_sequences", "read_tables"]
