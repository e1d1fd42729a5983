# SPDX-License-Identifier: Apache-2.0
"""A table of events as it comes: out of order, with repeats, impressions, sessions, days without anybody."""

import numpy as np
import pyarrow as pa

NUM_ITEMS = 40


def draw_events(num_events=3_000, num_users=60, *, seed=0, num_bad=0):
    """Draw events in no order; `num_bad` of them name an item that there is not."""
    rng = np.random.default_rng(seed)
    # A user with half of all events: more than the audit examines whole.
    user = np.where(rng.random(num_events) < 0.2, 0, rng.integers(0, num_users, num_events))
    item = rng.integers(0, NUM_ITEMS, num_events)
    is_search = rng.random(num_events) < 0.3
    day = rng.choice([0, 1, 2, 3, 5, 6, 8], num_events)
    has_no_click = is_search & (rng.random(num_events) < 0.2)
    actions = rng.choice(["click", "purchase", "impression"], num_events, p=[0.6, 0.1, 0.3])
    item_ids = [None if none else f"i{one}" for one, none in zip(item, has_no_click, strict=True)]
    queries = [f"搜索 {one % 7}" if asks else None for one, asks in zip(item, is_search, strict=True)]
    for row in rng.choice(num_events, num_bad, replace=False).tolist():
        item_ids[row] = "none such"
    table = pa.table(
        {
            "user_id": [f"ü{number}" for number in user],
            "timestamp": 1_600_000_000 // 86_400 * 86_400 + day * 86_400 + rng.integers(0, 50, num_events) * 1_000,
            "behavior": np.where(is_search, "search", "recommendation"),
            "query": queries,
            "item_id": item_ids,
            "action": np.where(has_no_click, "click", actions),
            "session_id": pa.array([f"s{number // 4}" if number % 3 else None for number in range(num_events)]),
            "rating": rng.integers(1, 6, num_events).astype(np.float64),
        }
    )
    return pa.concat_tables([table, table.slice(0, num_events // 200)])


def draw_items():
    """Items of `draw_events`, and some more."""
    ids = [f"i{number}" for number in range(NUM_ITEMS + 3)]
    return pa.table({"item_id": ids, "title": [f"title {one} 🙂" for one in ids]})
