# SPDX-License-Identifier: Apache-2.0
"""From a raw log to events: readers, queries, splits and negatives."""

from seekrec.events.log import EventLog

__all__ = ["EventLog"]
