# SPDX-License-Identifier: Apache-2.0
"""A log of days, as reviews have them: what breaks the released pipeline."""

from small_shop import log_of


def same_day_log():
    """Reviews with day-granular time in rating order, each told twice.

    User "1" has the shape of user 1 of the released Amazon data: early reviews, then three on the last day, in order
    of rating C (4 stars), A, B (5 stars each), which sort as A, B, C by item id. User "0" is as its user 0: the item
    with the greatest id is also the last by rating.
    """
    lines = []
    for user, last_day in (("0", "ABC"), ("1", "CAB")):
        for day, reviewed in ((1, "P"), (2, "Q"), (3, last_day)):
            lines += [(user, day * 86_400, item) for item in reviewed]
            lines += [(user, day * 86_400, item, f"query {item}") for item in sorted(reviewed)]
    return log_of(lines, query_source="category", name="same-day")
