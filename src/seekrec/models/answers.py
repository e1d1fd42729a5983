# SPDX-License-Identifier: Apache-2.0
"""What every family's `retrieve` and `rank` share: which items may be answered, and how an answer is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from seekrec.catalog import Catalog
from seekrec.errors import RequestError
from seekrec.schema import ScoredItem

# One mask or list of item ids for all requests, or one for each; None allows every item.
Where: TypeAlias = "np.ndarray | Sequence[str] | Sequence[np.ndarray | Sequence[str] | None] | None"

_FILTERS = "a boolean mask over the rows of the catalogue, a list of item ids, or None"


def allowed_items(where: Where, catalog: Catalog, num_requests: int) -> list[np.ndarray | None]:
    """Turn `where` into a mask for each request.

    Returns:
        `list`: bool of shape `(num_items,)`, without removed items; `None` where every item is allowed.

    Raises:
        RequestError: If it is no filter, there is not one for each request, or a mask does not fit the catalogue.
    """
    filters: list[Any] = [where] * num_requests if _is_one_filter(where) else list(where)  # type: ignore[arg-type]
    if len(filters) != num_requests:
        raise RequestError(f"`where` has {len(filters)} filters for {num_requests} requests; give one for each.")
    made = {id(one): _mask(one, catalog) for one in filters}  # a filter given many times is looked at once
    return [made[id(one)] for one in filters]


def scored_items(catalog: Catalog, rows: np.ndarray, scores: np.ndarray) -> list[ScoredItem]:
    """Give an answer from rows of the catalogue and their scores."""
    ids = catalog.id_map.convert_to_ids(rows)
    titles = catalog.titles(ids)
    return [
        ScoredItem(item_id, float(score), title) for item_id, score, title in zip(ids, scores, titles, strict=True)
    ]


def _mask(where: Any, catalog: Catalog) -> np.ndarray | None:
    if where is None:
        return catalog.live if catalog.is_removed.any() else None
    if not isinstance(where, np.ndarray):
        if isinstance(where, str) or not isinstance(where, Collection):
            raise RequestError(f"`where` holds {where!r}; a filter is {_FILTERS}.")
        wrong = [one for one in where if not isinstance(one, str)]
        if wrong:
            raise RequestError(
                f"`where` holds {wrong[0]!r} of type {type(wrong[0]).__name__}; a filter is {_FILTERS}."
            )
        where = catalog.where(ids=where)
    if where.dtype != np.bool_ or where.shape != (len(catalog),):
        raise RequestError(
            f"`where` has dtype {where.dtype} and shape {where.shape}; a mask is boolean of shape ({len(catalog)},), "
            "one value for each row of the catalogue."
        )
    return np.asarray(where & catalog.live)


def _is_one_filter(where: Any) -> bool:
    if where is None:
        return True
    if isinstance(where, np.ndarray):
        return where.ndim == 1
    if isinstance(where, (str, Mapping)) or not isinstance(where, Collection):
        raise RequestError(f"`where` is {where!r}; give {_FILTERS}, for all requests or in a list with one for each.")
    return len(where) == 0 or any(isinstance(entry, str) for entry in where)


__all__ = ["Where", "allowed_items", "scored_items"]
