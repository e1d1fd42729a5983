# SPDX-License-Identifier: Apache-2.0
"""A toy log whose split and answers can be read off by eye.

Train   u1: a b          u2: b c          u3: f f   (two events: too few to be tested)
Then    u1: c, d         u2: a, e         (validation, test), each a search with a query of its own
Counts  a 1, b 2, c 1, d 0, e 0, f 2
"""

from __future__ import annotations

import pyarrow as pa
import pytest
from small_shop import log_of

from seekrec.events.split import Split
from seekrec.events.splits import split_log
from seekrec.schema import IdMap

ITEM_IDS = ["a", "b", "c", "d", "e", "f"]

TITLES = ["Red lamp", "Green lamp", "Red chair", "Green chair", "Blue chair", "Garden hose"]


@pytest.fixture
def toy_items() -> pa.Table:
    return pa.table(
        {
            "item_id": ITEM_IDS,
            "title": TITLES,
            "description": ["", "", "", "", None, ""],
            "categories": [[["Home", "Lamps"]]] * 2 + [[["Home", "Chairs"]]] * 3 + [None],
            "available_from": pa.array([None] * 6, pa.int64()),
            "available_until": pa.array([None] * 6, pa.int64()),
        }
    )


@pytest.fixture
def toy_split(toy_items: pa.Table) -> Split:
    rows = [
        ("u1", 1, "a", None),
        ("u1", 2, "b", None),
        ("u1", 3, "c", "red chair"),
        ("u1", 4, "d", "green chairs"),
        ("u2", 1, "b", None),
        ("u2", 2, "c", None),
        ("u2", 3, "a", "red lamp"),
        ("u2", 4, "e", "blue"),
        ("u3", 1, "f", None),
        ("u3", 2, "f", None),
    ]
    return split_log(log_of(rows, items=toy_items, name="toy"))


@pytest.fixture
def toy_id_map() -> IdMap:
    return IdMap(ITEM_IDS)
