# SPDX-License-Identifier: Apache-2.0
"""Logs of a few lines for the tests of splits, audits and negatives."""

import pyarrow as pa

from seekrec.events.log import EventLog


def make_log(lines, *, items=None, queries=None, query_source=None, has_time=True, name="small"):
    """Build a log from lines of (user_id, timestamp, item_id[, query[, action]])."""
    full = [(*line, *(None, "click")[len(line) - 3 :]) for line in lines]
    if items is None:
        items = sorted({line[2] for line in full if line[2] is not None})
    table = {"item_id": items, "title": [f"title {item}" for item in items]}
    if queries is not None:
        table["queries"] = pa.array([queries.get(item, []) for item in items], pa.list_(pa.string()))
    if query_source is None:
        query_source = "logged" if any(line[3] is not None for line in full) else "none"
    return EventLog(
        name=name,
        events=pa.table(
            {
                "user_id": pa.array([line[0] for line in full], pa.string()),
                "timestamp": pa.array([line[1] for line in full], pa.int64()),
                "behavior": ["recommendation" if line[3] is None else "search" for line in full],
                "query": pa.array([line[3] for line in full], pa.string()),
                "item_id": pa.array([line[2] for line in full], pa.string()),
                "action": [line[4] for line in full],
            }
        ),
        items=pa.table(table),
        has_time=has_time,
        query_source=query_source,
    )


def same_day_log():
    """Reviews with day-granular time in rating order, each told twice: what breaks the released pipeline.

    User "1" has the shape of user 1 of the released Amazon data: early reviews, then three on the last day, in order
    of rating C (4 stars), A, B (5 stars each), which sort as A, B, C by item id. User "0" is as its user 0: the item
    with the greatest id is also the last by rating.
    """
    lines = []
    for user, last_day in (("0", "ABC"), ("1", "CAB")):
        for day, reviewed in ((1, "P"), (2, "Q"), (3, last_day)):
            lines += [(user, day * 86_400, item) for item in reviewed]
            lines += [(user, day * 86_400, item, f"query {item}") for item in sorted(reviewed)]
    return make_log(lines, query_source="category", name="same-day")
