# SPDX-License-Identifier: Apache-2.0
"""What was noticed in rows that are kept: counted, with the first, over a table or over its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.events.checks import Source
from seekrec.util.arrow import to_mask
from seekrec.util.constants import SECONDS_PER_DAY

# Distance of odd times from the median of all: ten years, and so many median distances.
_FAR, _DISTANCES = 3_653 * SECONDS_PER_DAY, 5


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


def count_odd_times(seconds: pa.Array, source: Source, counted: Counted) -> None:
    """Count times that lie decades from most others: 1970 and 2099 often stand for nothing.

    Half of the times lie nearer to their median than the median distance; odd ones lie ten years and five times that
    distance away.

    Args:
        seconds (`pyarrow.Array`): int64 seconds since the epoch, null for none.
        source ([`Source`]): The table.
        counted ([`Counted`]): Where they are counted.
    """
    rows = np.flatnonzero(to_mask(pc.is_valid(seconds)))
    if not len(rows):
        return
    times = seconds.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)
    distance = np.abs(times - np.median(times))
    odd = np.flatnonzero(distance > _FAR + _DISTANCES * np.median(distance))
    if len(odd):
        counted.add(
            "times lie decades from most others; if they stand for nothing, leave their rows out",
            rows[odd],
            source,
            shown=str(np.datetime64(int(times[odd[0]]), "s").astype("datetime64[D]")),
        )


__all__ = ["Counted", "count_odd_times"]
