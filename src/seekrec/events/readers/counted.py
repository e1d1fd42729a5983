# SPDX-License-Identifier: Apache-2.0
"""What was noticed in rows that are kept: counted, with the first, over a table or over its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from seekrec.events.checks import Source


@dataclass
class Counted:
    """Rows that a note is about, by what is said of them.

    Args:
        found (`dict[str, tuple[int, str]]`): Their number, and where the first stands, by the end of a sentence that
            starts with a number.
    """

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, said: str, rows: np.ndarray, source: Source, *, shown: str = "") -> None:
        """Count rows of a table.

        Args:
            said (`str`): The end of the sentence.
            rows (`np.ndarray`): int64 rows, ascending.
            source ([`Source`]): The table.
            shown (`str`): What the first row holds; nothing that is private.
        """
        if len(rows):
            where = source.name_row(int(rows[0]))
            self.join({said: (len(rows), f"{where}, {shown}" if shown else where)})

    def join(self, others: Mapping[str, tuple[int, str]]) -> None:
        """Add what was counted in rows that follow."""
        for said, (count, first) in others.items():
            before, kept = self.found.get(said, (0, first))
            self.found[said] = (before + count, kept)

    def notes(self, name: str) -> list[str]:
        """Return a sentence for each, about the table of this name."""
        return [f"{name}: {count} {said} (first: {first})." for said, (count, first) in self.found.items()]


__all__ = ["Counted"]
