# SPDX-License-Identifier: Apache-2.0
"""Columnar storage of a split: the held-out questions, and the histories of the training targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from seekrec.errors import DataError
from seekrec.events.checks import check_choice
from seekrec.events.log import EventLog
from seekrec.schema import BEHAVIORS, Behavior, Event, Request
from seekrec.util.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Cases:
    """Held-out questions with their answers; every column has one entry per case.

    Args:
        user_id (`list[str]`): User of each case.
        behavior (`list[str]`): `"recommendation"` or `"search"`.
        query (`list[str | None]`): The text searched for; `None` for a recommendation.
        item_id (`list[str]`): The answer: the held-out item, called the target.
        timestamp (`np.ndarray`): int64 timestamp of the held-out interaction.
        histories (`Ragged`): int64 rows of `Split.log.events`, one history a case, oldest first.
        geohash (`list[str | None]`, *optional*): Geohash of each case; `None` if the log has none.
        session_id (`list[str | None]`, *optional*): Session of each held-out interaction; `None` if the log has
            no sessions.
        action (`list[str | None]`, *optional*): Action of each case, `None` for one that does not occur in
            training; the column is `None` if the log has only one action.

    Raises:
        DataError: If the columns differ in length.
    """

    user_id: list[str]
    behavior: list[Behavior]
    query: list[str | None]
    item_id: list[str]
    timestamp: np.ndarray
    histories: Ragged
    geohash: list[str | None] | None = None
    session_id: list[str | None] | None = None
    action: list[str | None] | None = None

    def __post_init__(self) -> None:
        lengths = {
            "user_id": len(self.user_id),
            "behavior": len(self.behavior),
            "query": len(self.query),
            "item_id": len(self.item_id),
            "timestamp": len(self.timestamp),
            "histories": len(self.histories),
            **{name: len(column) for name, column in self._optional().items()},
        }
        if self.histories.offsets[-1] != len(self.histories.values):
            raise DataError(
                f"The offsets of `histories` end at {self.histories.offsets[-1]}, its values are "
                f"{len(self.histories.values)}; the last offset must equal the number of values."
            )
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise DataError(f"The columns of `Cases` differ in length ({found}); give one entry per case in each.")

    def __len__(self) -> int:
        return len(self.item_id)

    def select(self, behavior: Behavior | None = None) -> np.ndarray:
        """Return the numbers of the cases of one behavior.

        Args:
            behavior (`str`, *optional*): `"recommendation"` or `"search"`; `None` for all.

        Returns:
            `np.ndarray`: int64, ascending.

        Raises:
            ConfigurationError: If the behavior is unknown.
        """
        if behavior is None:
            return np.arange(len(self))
        check_choice("behavior", behavior, BEHAVIORS)
        return np.flatnonzero(np.asarray(self.behavior, dtype=object) == behavior)

    def history(self, case: int) -> np.ndarray:
        """Return the rows of one case's history, int64, oldest first."""
        return self.histories[case]

    def request(self, case: int, history: Sequence[Event]) -> Request:
        """Return the question of one case.

        Args:
            case (`int`): Number of the case.
            history (`Sequence[Event]`): Its history, oldest first.
        """
        optional = {name: column[case] for name, column in self._optional().items()}
        return Request(history, self.query[case], int(self.timestamp[case]), self.user_id[case], **optional)

    def _optional(self) -> dict[str, list[str | None]]:
        """Return those of the optional columns that this log has."""
        columns = {"geohash": self.geohash, "session_id": self.session_id, "action": self.action}
        return {name: column for name, column in columns.items() if column is not None}

    def to_table(self) -> pa.Table:
        """Return the cases as a table, the history as a list column."""
        return pa.table(
            {
                "user_id": pa.array(self.user_id, pa.string()),
                "behavior": pa.array(self.behavior, pa.string()),
                "query": pa.array(self.query, pa.string()),
                "item_id": pa.array(self.item_id, pa.string()),
                "timestamp": pa.array(self.timestamp, pa.int64()),
                "history": pa.LargeListArray.from_arrays(
                    pa.array(self.histories.offsets, pa.int64()), pa.array(self.histories.values, pa.int64())
                ),
                **{name: pa.array(column, pa.string()) for name, column in self._optional().items()},
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> Cases:
        """Read the cases from a table that `to_table` made."""
        history = pa.concat_arrays(table["history"].chunks) if table.num_rows else None
        lengths = np.asarray(history.value_lengths()) if history is not None else np.empty(0, dtype=np.int64)
        return cls(
            user_id=table["user_id"].to_pylist(),
            behavior=table["behavior"].to_pylist(),
            query=table["query"].to_pylist(),
            item_id=table["item_id"].to_pylist(),
            timestamp=np.asarray(table["timestamp"], dtype=np.int64),
            histories=Ragged.from_lengths(
                np.empty(0, dtype=np.int64) if history is None else np.asarray(history.flatten()), lengths
            ),
            **{
                name: table[name].to_pylist()
                for name in ("geohash", "session_id", "action")
                if name in table.column_names
            },
        )


def case_hash(*parts: object) -> int:
    """Hash what names a case to 64 bits: the same on every machine, whatever else is in the batch."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def build_requests(log: EventLog, cases: Cases, numbers: np.ndarray, max_history: int | None) -> list[Request]:
    """Build the questions of some cases; they share their `Event` objects.

    Args:
        log (`EventLog`): The log that the cases were taken from.
        cases (`Cases`): The cases.
        numbers (`np.ndarray`): int64, which of them, in which order.
        max_history (`int`, *optional*): Keep the latest so many events of each history.
    """
    ends = cases.histories.offsets[numbers + 1]
    starts = cases.histories.offsets[numbers]
    if max_history is not None:
        starts = np.maximum(starts, ends - max_history)
    ranges = list(zip(starts.tolist(), ends.tolist(), strict=True))
    # Marked, not sorted: the histories of a user with many events contain each of them many times.
    is_used = np.zeros(log.num_events, dtype=bool)
    for start, end in ranges:
        is_used[cases.histories.values[start:end]] = True
    rows = np.flatnonzero(is_used)
    # The one column that may be absent is the last field.
    names = [field.name for field in fields(Event) if field.name in log.events.column_names]
    used = log.events.select(names).take(rows)
    events = np.empty(log.num_events, dtype=object)
    events[rows] = np.fromiter(
        (Event(*values) for values in zip(*used.to_pydict().values(), strict=True)), dtype=object, count=len(rows)
    )
    return [
        cases.request(number, events[cases.histories.values[start:end]].tolist())
        for number, (start, end) in zip(numbers.tolist(), ranges, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class TrainingHistories(Ragged):
    """The targets of training and the history before each.

    Args:
        values (`np.ndarray`): int64 rows of `Split.log.events`; the history of target `k` is
            `values[offsets[k]:offsets[k + 1]]`, oldest first.
        offsets (`np.ndarray`): int64 of length `num_targets + 1`.
        target_rows (`np.ndarray`): int64 rows of `Split.log.events`, one a target.
    """

    target_rows: np.ndarray
