# SPDX-License-Identifier: Apache-2.0
"""What the users of requests acted on, as rows of items: what was seen, and what recommenders read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from seekrec.schema import IdMap, Request
from seekrec.util.ragged import Ragged

RowArray = npt.NDArray[np.int64]


def history_rows(requests: Sequence[Request], id_map: IdMap) -> Ragged:
    """Return the items that the users of the requests acted on, oldest first.

    Searches without a click, items that were only shown and items that the catalogue does not hold are left out.

    Args:
        requests (`Sequence[Request]`): The requests.
        id_map ([`IdMap`]): Items of the catalogue.

    Returns:
        `Ragged`: int64 rows of `id_map`, one row of them a request.
    """
    ids = [
        [event.item_id for event in request.history if event.item_id is not None and event.is_interaction]
        for request in requests
    ]
    owners = np.repeat(np.arange(len(requests)), [len(items) for items in ids])
    rows = id_map.convert_to_rows(chain.from_iterable(ids), strict=False)
    known = rows >= 0
    return Ragged.from_owners(rows[known], owners[known], len(requests))


__all__ = ["RowArray", "history_rows"]
