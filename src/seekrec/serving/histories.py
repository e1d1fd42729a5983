# SPDX-License-Identifier: Apache-2.0
"""Users' histories in memory: bounded, and brought up to date with the store at each use."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from seekrec.schema import Event
from seekrec.serving.messages import MAX_HISTORY
from seekrec.serving.metrics import Metrics
from seekrec.serving.store import Store

# What an event takes in memory besides its texts: its object, its number, and two places in tuples.
_BYTES_OF_AN_EVENT = 210


@dataclass(frozen=True)
class KeptHistory:
    """A user's latest events, in the order of time; of one second, in the order in which they came.

    Args:
        user_id (`str`): Whose.
        number (`int`): Events that the store has.
        numbers (`tuple[int, ...]`): Number of each event, from 1 up in the order in which they came.
        events (`tuple[Event, ...]`): At most `MAX_HISTORY`.
        nbytes (`int`): What they take in memory.
    """

    user_id: str
    number: int = 0
    numbers: tuple[int, ...] = ()
    events: tuple[Event, ...] = ()
    nbytes: int = 0

    def after(self, number: int) -> tuple[Event, ...] | None:
        """Return the events that came after the first `number`; `None` where one belongs before those, by its time."""
        first = next((place for place, own in enumerate(self.numbers) if own > number), len(self.numbers))
        is_behind = all(own > number for own in self.numbers[first:])
        return self.events[first:] if is_behind else None


class Histories:
    """The histories of the users who asked last. Any thread may ask.

    Args:
        store ([`Store`]): Where the events are.
        max_bytes (`int`): What all histories may take.
        metrics ([`Metrics`]): Where it is counted.
    """

    def __init__(self, store: Store, max_bytes: int, metrics: Metrics) -> None:
        self._store, self._max_bytes, self._metrics = store, max_bytes, metrics
        self._kept: OrderedDict[str, KeptHistory] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, user_id: str) -> KeptHistory:
        """Return a user's history as the store has it now; empty for a user without events."""
        with self._lock:
            kept = self._kept.get(user_id)
            if kept is not None:
                self._kept.move_to_end(user_id)
        self._metrics.cache.labels("history", "miss" if kept is None else "hit").inc()
        kept = kept or KeptHistory(user_id)
        if new := self._store.events_after(user_id, kept.number, MAX_HISTORY):
            both = [*zip(kept.numbers, kept.events, strict=True), *new]
            both.sort(key=lambda one: (one[1].timestamp, one[0]))
            numbers, events = zip(*both[-MAX_HISTORY:], strict=True)
            nbytes = kept.nbytes + _nbytes(event for _, event in new)
            nbytes -= _nbytes(event for _, event in both[:-MAX_HISTORY])
            kept = KeptHistory(user_id, new[-1][0], numbers, events, nbytes)
        with self._lock:
            known = self._kept.get(user_id)
            # Of those without events anybody may make up as many as he likes.
            if kept.events and (known is None or known.number < kept.number):
                self._kept[user_id] = kept
                self._bytes += kept.nbytes - (0 if known is None else known.nbytes)
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return kept


def _nbytes(events: Iterable[Event]) -> int:
    return sum(
        _BYTES_OF_AN_EVENT
        + sum(
            sys.getsizeof(text)
            for text in (event.item_id, event.query, event.action, event.session_id, event.geohash)
            if text is not None
        )
        for event in events
    )


__all__ = ["Histories", "KeptHistory"]
