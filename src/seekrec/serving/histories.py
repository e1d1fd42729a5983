# SPDX-License-Identifier: Apache-2.0
"""Histories of users in memory: bounded, and each time brought up to date with the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from seekrec.schema import Event
from seekrec.serving.messages import MAX_HISTORY
from seekrec.serving.metrics import Metrics
from seekrec.serving.store import Store


@dataclass(frozen=True)
class KeptHistory:
    """A user's events.

    Args:
        number (`int`): Events that were read from the store.
        events (`tuple[Event, ...]`): The latest `MAX_HISTORY` of them, in the order of time.
    """

    number: int = 0
    events: tuple[Event, ...] = ()


class Histories:
    """The histories of the users who asked last. Any thread may ask.

    Args:
        store ([`Store`]): Where the events are.
        num_users (`int`): Users whose histories are held.
        metrics ([`Metrics`]): Where it is counted.
    """

    def __init__(self, store: Store, num_users: int, metrics: Metrics) -> None:
        self._store, self._num_users, self._metrics = store, num_users, metrics
        self._kept: OrderedDict[str, KeptHistory] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, user_id: str) -> KeptHistory:
        """Return a user's history as the store has it now; empty for a user without events."""
        with self._lock:
            kept = self._kept.get(user_id)
            if kept is not None:
                self._kept.move_to_end(user_id)
        self._metrics.cache.labels("miss" if kept is None else "hit").inc()
        kept = kept or KeptHistory()
        if new := self._store.events_after(user_id, kept.number, MAX_HISTORY):
            # Those of one second stay in the order in which they came.
            events = sorted([*kept.events, *(event for _, event in new)], key=lambda event: event.timestamp)
            kept = KeptHistory(new[-1][0], tuple(events[-MAX_HISTORY:]))
        with self._lock:
            known = self._kept.get(user_id)
            if known is None or known.number < kept.number:
                self._kept[user_id] = kept
            while len(self._kept) > self._num_users:
                self._kept.popitem(last=False)
        return kept


__all__ = ["Histories", "KeptHistory"]
