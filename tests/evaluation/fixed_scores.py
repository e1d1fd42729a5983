# SPDX-License-Identifier: Apache-2.0
"""A system whose scores are known, and a shop whose searches are."""

import numpy as np
import pyarrow as pa
from small_shop import log_of

from seekrec.events.splits import split_log
from seekrec.schema import BEHAVIORS


class Fixed:
    """Gives each request the same scores."""

    def __init__(self, scores, behaviors=BEHAVIORS):
        self.scores = np.array(scores, dtype=np.float32)
        self.behaviors = behaviors

    def score_all(self, requests):
        return np.tile(self.scores, (len(requests), 1))


def split_shop(num_steps, item_of):
    """Twelve users who search and browse in turn: lamps, items 0 to 3, chairs, 4 to 7, and hoses, 8 and 9."""
    kinds = {f"i{row}": ["lamp", "lamp", "chair", "chair", "hose"][row // 2] for row in range(10)}
    rows = []
    for user in range(12):
        for step in range(num_steps):
            item = f"i{item_of(user, step)}"
            rows.append((f"u{user:02}", step, item, kinds[item] if (user + step) % 2 else None))
    items = pa.table(
        {
            "item_id": list(kinds),
            "title": [f"{kind} {item}" for item, kind in kinds.items()],
            "description": [""] * 10,
            "queries": [[kind] for kind in kinds.values()],
        }
    )
    return split_log(log_of(rows, items=items, query_source="category"))
