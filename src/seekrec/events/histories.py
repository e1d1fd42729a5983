# SPDX-License-Identifier: Apache-2.0
"""What the users of requests acted on, as rows of items: what was seen, and what recommenders read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from seekrec.schema import IdMap, Request

RowArray = npt.NDArray[np.int64]


def history_rows(requests: Sequence[Request], id_map: IdMap) -> tuple[RowArray, RowArray]:
    """Give the items that the users of the requests acted on, oldest first.

    Searches without a click, items that were only shown and items that the catalogue does not hold are left out.

    Args:
        requests (`Sequence[Request]`): The requests.
        id_map ([`IdMap`]): Items of the catalogue.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: int64 offsets `(len(requests) + 1,)` and int64 rows: those of request i are
            `rows[offsets[i] : offsets[i + 1]]`.
    """
    ids = [
        [event.item_id for event in request.history if event.item_id is not None and event.is_interaction]
        for request in requests
    ]
    owners = np.repeat(np.arange(len(requests)), [len(items) for items in ids])
    rows = id_map.convert_to_rows(chain.from_iterable(ids), strict=False)
    known = rows >= 0
    return offsets_of(owners[known], len(requests)), rows[known]


def offsets_of(owners: RowArray, num_owners: int) -> RowArray:
    """Give where the entries of each owner begin and end, from the ascending owners of all entries.

    Args:
        owners (`np.ndarray`): int64 number of the owner of each entry.
        num_owners (`int`): Owners, those without an entry included.

    Returns:
        `np.ndarray`: int64 of length `num_owners + 1`.
    """
    return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=num_owners))]).astype(np.int64)


__all__ = ["RowArray", "history_rows", "offsets_of"]
