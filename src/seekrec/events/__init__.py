# SPDX-License-Identifier: Apache-2.0
"""From a raw log to events: readers, queries, splits and negatives."""

from seekrec.events.log import EventLog
from seekrec.events.queries import category_queries, synthesize_searches

__all__ = ["EventLog", "category_queries", "synthesize_searches"]
