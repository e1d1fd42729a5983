# SPDX-License-Identifier: Apache-2.0
"""Which items may be answered: what `where` allows, what a user has seen, what is new."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
from torch import Tensor

from seekrec.catalog import Catalog
from seekrec.errors import RequestError
from seekrec.schema import BEHAVIORS, RECOMMENDATION, shown

# One mask or list of item ids for all requests, or one for each; None allows every item.
Where: TypeAlias = "np.ndarray | Sequence[str] | Sequence[np.ndarray | Sequence[str] | None] | None"

# A boolean mask over the rows of the catalogue for each request; None allows every item.
Masks: TypeAlias = "list[np.ndarray | None]"
# int64 rows of the catalogue and their scores, best first.
Found: TypeAlias = "tuple[np.ndarray, np.ndarray]"

_FILTERS = "a boolean mask over the rows of the catalogue, a list of item ids, or None"


def allowed_items(
    where: Where,
    catalog: Catalog,
    inputs: Mapping[str, Tensor],
    behavior_ids: Sequence[int],
    exclude_seen: bool | None,
    seen_before: np.ndarray | None = None,
) -> Masks:
    """Turn `where`, and what users acted on, into a mask for each request.

    Args:
        where (`np.ndarray` or `list`, *optional*): What `retrieve` was given.
        catalog ([`Catalog`]): What is answered from.
        inputs: What the processor made of the requests; has `seen_rows`.
        behavior_ids (`Sequence[int]`): Numbers into `BEHAVIORS`, one a request.
        exclude_seen (`bool`, *optional*): Whether users are not given what they acted on; `None`, in requests without
            a query alone.
        seen_before (`np.ndarray`, *optional*): int64 rows that were seen too, `(num_requests, any)`, below 0 for none.

    Returns:
        `list`: bool of shape `(num_items,)`, without removed items; `None` where every item is allowed.

    Raises:
        RequestError: If `where` is not a filter, there is not one for each request, a mask does not fit the catalogue,
            or the inputs do not say what was seen.
    """
    num_requests = len(behavior_ids)
    filters = [where] * num_requests if _is_one_filter(where) else list(cast("Sequence[Where]", where))
    if len(filters) != num_requests:
        raise RequestError(f"`where` has {len(filters)} filters for {num_requests} requests; give one for each.")
    made = {id(one): _mask(one, catalog) for one in filters}  # a filter given many times is looked at once
    masks = [made[id(one)] for one in filters]
    recommends = BEHAVIORS.index(RECOMMENDATION)
    is_excluded = [behavior == recommends if exclude_seen is None else exclude_seen for behavior in behavior_ids]
    if not any(is_excluded):
        return masks
    if "seen_rows" not in inputs:
        raise RequestError(
            "The inputs do not say what was seen; make them with the model's processor, or pass `exclude_seen=False`."
        )
    rows = inputs["seen_rows"].cpu().numpy()
    if seen_before is not None:
        rows = np.concatenate([rows, seen_before], axis=1)
    # Inputs made with a larger catalogue may name items that cannot be answered anyway.
    is_known = (rows >= 0) & (rows < len(catalog.is_removed))
    return [
        _without(mask, line[known], catalog) if excluded and known.any() else mask
        for mask, line, known, excluded in zip(masks, rows, is_known, is_excluded, strict=True)
    ]


def without_rows(masks: Sequence[np.ndarray | None], rows: np.ndarray, catalog: Catalog) -> Masks:
    """Leave rows of the catalogue out of what each request may be answered with, once for each mask."""
    made = {id(mask): _without(mask, rows, catalog) for mask in masks}
    return [made[id(mask)] for mask in masks]


def join_new(
    found: Found,
    new: np.ndarray,
    scores: np.ndarray,
    allowed: np.ndarray | None,
    top_k: int,
) -> Found:
    """Join what a search found for one request with new items, scored alike.

    Args:
        found (`tuple[np.ndarray, np.ndarray]`): int64 rows of the catalogue and their scores, best first.
        new (`np.ndarray`): int64 rows of the new items; some may have been found too.
        scores (`np.ndarray`): Their scores.
        allowed (`np.ndarray`, *optional*): bool of shape `(num_items,)`; `None` allows every item.
        top_k (`int`): Items wanted.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: At most `top_k` rows and scores, best first.
    """
    rows, values = found
    keep = ~np.isin(new, rows) if allowed is None else allowed[new] & ~np.isin(new, rows)
    rows, values = np.concatenate([rows, new[keep]]), np.concatenate([values, scores[keep].astype(values.dtype)])
    order = np.argsort(-values, kind="stable")[:top_k]
    return rows[order], values[order]


def _mask(where: object, catalog: Catalog) -> np.ndarray | None:
    if where is None:
        return ~catalog.is_removed if catalog.is_removed.any() else None
    if not isinstance(where, np.ndarray):
        if isinstance(where, str) or not isinstance(where, Collection):
            raise RequestError(f"`where` holds {shown(where)}; a filter is {_FILTERS}.")
        wrong = [one for one in where if not isinstance(one, str)]
        if wrong:
            raise RequestError(
                f"`where` holds {shown(wrong[0])} of type {type(wrong[0]).__name__}; a filter is {_FILTERS}."
            )
        where = catalog.where(ids=where)
    if where.dtype != np.bool_ or where.shape != catalog.is_removed.shape:
        raise RequestError(
            f"`where` has dtype {where.dtype} and shape {where.shape}; a mask is boolean of shape ({len(catalog)},), "
            "one value for each row of the catalogue."
        )
    return np.asarray(where & ~catalog.is_removed)


def _without(mask: np.ndarray | None, rows: np.ndarray, catalog: Catalog) -> np.ndarray:
    left = ~catalog.is_removed if mask is None else mask.copy()
    left[rows] = False
    return left


def _is_one_filter(where: object) -> bool:
    if where is None:
        return True
    if isinstance(where, np.ndarray):
        return where.ndim == 1
    if isinstance(where, (str, Mapping)) or not isinstance(where, Collection):
        raise RequestError(
            f"`where` is {shown(where)}; give {_FILTERS}, for all requests or in a list with one for each."
        )
    return len(where) == 0 or any(isinstance(entry, str) for entry in where)


__all__ = [
    "Found",
    "Masks",
    "Where",
    "allowed_items",
    "join_new",
    "without_rows",
]
