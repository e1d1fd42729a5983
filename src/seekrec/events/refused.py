# SPDX-License-Identifier: Apache-2.0
"""Count the rows of a table that cannot be used, by reason, over the whole table or its parts in turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from seekrec.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """Rows that break one rule.

    Args:
        problem (`str`): The problem, as the end of a sentence that starts with a number of rows.
        rows (`np.ndarray`): int64 rows, ascending.
        column (`str`): The column whose value is shown.
        values (`pyarrow.ChunkedArray`, *optional*): The values to show, one a row, where the table no longer has them.
        is_common (`bool`): Whether logs of shops often have such rows, so that they do not point to a misread file.
    """

    problem: str
    rows: np.ndarray
    column: str
    values: pa.ChunkedArray | None = None
    is_common: bool = False


@dataclass(frozen=True)
class Limits:
    """The largest shares of the rows of a table that may be left out.

    Args:
        damaged (`float`): Share of rows that break a rule; more of them point to a file that was misread.
        all (`float`): Share of these and of rows that are common in logs of shops.
    """

    damaged: float = 0.01
    all: float = 0.1


@dataclass(frozen=True)
class Source:
    """Where a table came from, for messages.

    Args:
        name (`str`): The file or argument.
        name_row (`Callable[[int], str]`): Says where a row of the table stands in the file.
        num_unreadable (`int`): Rows of the file that could not even be cut into columns and are not in the table.
        unreadable (`str`, *optional*): The problem of the first of them, and its position.
        remarks (`tuple[str, ...]`): Remarks on how the file was read, without any of its values.
        names_people (`bool`): Whether `name_row` shows ids of users, which notes must not.
    """

    name: str
    name_row: Callable[[int], str] = "row {} (from 0)".format
    num_unreadable: int = 0
    unreadable: str | None = None
    remarks: tuple[str, ...] = ()
    names_people: bool = False


@dataclass(frozen=True)
class Reason:
    """Count of the rows that broke one rule.

    Args:
        count (`int`): Number of rows.
        row (`int`): The first of them, counted from 0 over the whole table.
        shown (`str`): Its column and value, for the logged warning.
        is_common (`bool`): As in [`Finding`].
    """

    count: int
    row: int
    shown: str
    is_common: bool = False


@dataclass
class Refused:
    """Count of the rows of one table that cannot be used, added up over its parts.

    Args:
        num_rows (`int`): Rows that were looked at.
        reasons (`dict[str, Reason]`): By problem, in the order in which they were found.
    """

    num_rows: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)

    def add(self, table: pa.Table, findings: Sequence[Finding], *, numbers: np.ndarray | None = None) -> np.ndarray:
        """Count what was found in the next part of the table. A row counts for the first rule it breaks.

        Args:
            table (`pyarrow.Table`): The part.
            findings (`Sequence[Finding]`): Problems that were found in it.
            numbers (`np.ndarray`, *optional*): int64 number of each of its rows in the whole table, where they have
                been counted before; else they follow those of the parts before.

        Returns:
            `np.ndarray`: bool of shape `(num_rows,)`: the rows that can be used.
        """
        keep = np.ones(table.num_rows, dtype=bool)
        for finding in findings:
            rows = finding.rows[keep[finding.rows]]
            if len(rows):
                keep[rows] = False
                number = self.num_rows + int(rows[0]) if numbers is None else int(numbers[rows[0]])
                shown = _shown(table, finding, int(rows[0]))
                self._count(finding.problem, Reason(len(rows), number, shown, finding.is_common))
        if numbers is None:
            self.num_rows += table.num_rows
        return keep

    def join(self, other: Refused) -> None:
        """Add what was counted in parts that follow those counted here."""
        for problem, reason in other.reasons.items():
            self._count(problem, replace(reason, row=self.num_rows + reason.row if other.num_rows else reason.row))
        self.num_rows += other.num_rows

    def _count(self, problem: str, reason: Reason) -> None:
        before = self.reasons.get(problem)
        if before is not None:
            reason = replace(min(before, reason, key=lambda one: one.row), count=before.count + reason.count)
        self.reasons[problem] = reason

    def settle(self, source: Source, *, max_refused: float | Limits | None = None) -> str | None:
        """Warn of the rows that were left out, or raise if they are too many.

        Args:
            source (`Source`): Origin of the table.
            max_refused (`float` or [`Limits`], *optional*): The largest share of rows that may be left out; none if
                not given.

        Returns:
            `str`, *optional*: What was left out, for the notes of the log, without any value.

        Raises:
            DataError: If more than `max_refused` of the rows, or all of them, were found.
        """
        described, notes = [], []
        if source.num_unreadable:
            described.append(f"{source.num_unreadable} cannot be read (first: {source.unreadable})")
            notes.append(described[0])
        for problem, reason in self.reasons.items():
            name = source.name_row(reason.row)
            described.append(f"{reason.count} {problem} (first: {name}, {reason.shown})")
            where = f"row {reason.row} (from 0)" if source.names_people else name
            notes.append(f"{reason.count} {problem} (first: {where})")
        if not described:
            return None
        num_rows = self.num_rows + source.num_unreadable
        num_found = sum(reason.count for reason in self.reasons.values())
        num_refused = num_found + source.num_unreadable
        counted = f"{source.name}: {num_refused} of {num_rows} rows cannot be used"
        summary = f"{counted}: {'; '.join(described)}."
        if max_refused is None:
            raise DataError(f"{summary} Correct them or leave them out.")
        limits = max_refused if isinstance(max_refused, Limits) else Limits(max_refused, max_refused)
        num_damaged = num_refused - sum(reason.count for reason in self.reasons.values() if reason.is_common)
        is_damaged = num_damaged > limits.damaged * num_rows
        if is_damaged or num_refused > limits.all * num_rows or num_found == self.num_rows:
            allowed = f"{limits.damaged if is_damaged else limits.all:.2%}"
            of_damaged = " of damaged rows" if is_damaged and limits.damaged < limits.all else ""
            raise DataError(
                f"{summary} That is {num_refused / num_rows:.2%}, and `max_refused` allows {allowed}{of_damaged}. "
                "Correct them or raise `max_refused`."
            )
        logger.warning("%s They were left out.", summary)
        return f"{counted}: {'; '.join(notes)}. They were left out."


def _shown(table: pa.Table, finding: Finding, row: int) -> str:
    value = repr((table[finding.column] if finding.values is None else finding.values)[row].as_py())
    return f"{finding.column} {value if len(value) <= 60 else f'{value[:57]}...'}"


__all__ = ["Finding", "Limits", "Reason", "Refused", "Source"]
