# SPDX-License-Identifier: Apache-2.0
"""Decide which items may be returned: by `where`, by what the user has seen, and by what is new."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from seekrec.catalog import Catalog
from seekrec.errors import RequestError, UnknownItemError
from seekrec.schema import BEHAVIORS, RECOMMENDATION, shown
from seekrec.util.finite import check_finite

# One mask or list of item ids for all requests, or one for each; None allows every item.
Where: TypeAlias = "np.ndarray | Tensor | Sequence[str] | Sequence[np.ndarray | Tensor | Sequence[str] | None] | None"

# Whether users are not given what they acted on, for all requests or for each; None: in recommendations alone.
ExcludeSeen: TypeAlias = "bool | Sequence[bool | None] | None"

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
    exclude_seen: ExcludeSeen,
    seen_before: np.ndarray | None = None,
) -> Masks:
    """Turn `where`, and what users acted on, into a mask for each request.

    Args:
        where (`np.ndarray`, `torch.Tensor` or `list`, *optional*): What `retrieve` was given.
        catalog ([`Catalog`]): What is answered from.
        inputs: What the processor made of the requests; has `seen_rows`.
        behavior_ids (`Sequence[int]`): Numbers into `BEHAVIORS`, one a request.
        exclude_seen (`bool` or `Sequence`, *optional*): Whether users are not given what they acted on, for all
            requests or for each; `None`, in requests without a query alone.
        seen_before (`np.ndarray`, *optional*): int64 rows that were seen too, `(num_requests, any)`, below 0 for none.

    Returns:
        `list`: bool of shape `(num_items,)`, without removed items; `None` where every item is allowed.

    Raises:
        RequestError: If `where` is not a filter, there is not one for each request, a mask does not fit the catalogue,
            or the inputs do not say what was seen; or there is not one of `exclude_seen` for each request.
    """
    # One filter a request.
    num_requests = len(behavior_ids)
    is_list = isinstance(where, Collection) and not isinstance(where, (str, Mapping))
    if not (where is None or is_list or isinstance(where, (np.ndarray, Tensor))):
        raise RequestError(
            f"`where` is {shown(where)}; pass {_FILTERS}, either one for all requests or a list with one per request."
        )
    if isinstance(where, (np.ndarray, Tensor)):
        where, is_one = where.cpu() if isinstance(where, Tensor) else where, where.ndim < 2
    else:
        is_one = not where or any(isinstance(entry, str) for entry in where)
    filters = [where] * num_requests if is_one else list(cast("Sequence[Where]", where))
    if len(filters) != num_requests:
        raise RequestError(f"`where` has {len(filters)} filters for {num_requests} requests; pass one per request.")

    # Their masks. A filter given many times is looked at once.
    made: dict[int, np.ndarray | None] = {}
    for one in filters:
        if id(one) in made:
            continue
        if one is None:
            made[id(one)] = ~catalog.is_removed if catalog.is_removed.any() else None
            continue
        if not isinstance(one, (np.ndarray, Tensor)):
            if isinstance(one, str) or not isinstance(one, Collection):
                raise RequestError(f"`where` contains {shown(one)}; a filter is {_FILTERS}.")
            wrong = [entry for entry in one if not isinstance(entry, str)]
            if wrong:
                raise RequestError(
                    f"`where` contains {shown(wrong[0])} of type {type(wrong[0]).__name__}; a filter is {_FILTERS}."
                )
        try:
            mask = one if isinstance(one, (np.ndarray, Tensor)) else catalog.where(ids=cast("Sequence[str]", one))
        except UnknownItemError as error:
            raise UnknownItemError(f"`where`: {error}") from None
        if isinstance(mask, Tensor) and mask.dtype == torch.bool:
            mask = mask.cpu().numpy()
        if mask.dtype != np.bool_ or mask.shape != catalog.is_removed.shape:
            raise RequestError(
                f"`where` has dtype {mask.dtype} and shape {tuple(mask.shape)}; a mask is boolean of shape "
                f"({len(catalog)},), one value for each row of the catalogue."
            )
        made[id(one)] = np.asarray(mask & ~catalog.is_removed)
    masks = [made[id(one)] for one in filters]

    # What users have seen.
    recommends = BEHAVIORS.index(RECOMMENDATION)
    given: object = exclude_seen.tolist() if isinstance(exclude_seen, (np.ndarray, Tensor)) else exclude_seen
    wishes = list(given) if isinstance(given, Sequence) else [given] * num_requests
    if len(wishes) != num_requests or not all(wish is None or isinstance(wish, (bool, np.bool_)) for wish in wishes):
        raise RequestError(
            f"`exclude_seen` is {shown(exclude_seen)}; pass True, False or None, either for all requests or one for "
            f"each of the {num_requests}."
        )
    is_excluded = [
        behavior == recommends if wish is None else wish for wish, behavior in zip(wishes, behavior_ids, strict=True)
    ]
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
    for number, (line, known, excluded) in enumerate(zip(rows, is_known, is_excluded, strict=True)):
        if excluded and known.any():
            own = masks[number]
            masks[number] = left = ~catalog.is_removed if own is None else own.copy()
            left[line[known]] = False
    return masks


def without_rows(masks: Masks, rows: np.ndarray, catalog: Catalog) -> Masks:
    """Leave rows of the catalogue out of what each request may be answered with, once for each mask."""
    made: dict[int, np.ndarray | None] = {}
    for mask in masks:
        if id(mask) not in made:
            made[id(mask)] = left = ~catalog.is_removed if mask is None else mask.copy()
            left[rows] = False
    return [made[id(mask)] for mask in masks]


def found_of(scores: Tensor, rows: Tensor, counts: Sequence[int]) -> list[Found]:
    """Cut tables of the best items to what each request gets.

    Args:
        scores (`torch.Tensor`): Best first, of shape `(batch, any)`; minus infinity for none.
        rows (`torch.Tensor`): int64 rows of the catalogue, of the same shape.
        counts (`Sequence[int]`): Items wanted, for each request.

    Raises:
        NotFiniteError: If a score is not a number, or too large.
    """
    found, values = rows.cpu().numpy(), scores.cpu().numpy()
    kept = np.where(values == -np.inf, 0, values)
    check_finite("The scores", kept, "request", "check the weights of the model and its data type")
    numbers = np.minimum(counts, (values > -np.inf).sum(axis=1))
    return [(line[:number], own[:number]) for line, own, number in zip(found, values, numbers, strict=True)]


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
    if 0 < top_k < len(values):
        # To order all of many takes longer than to find the last of the best.
        reach = np.flatnonzero(~(values < np.partition(values, -top_k)[-top_k]))
        rows, values = rows[reach], values[reach]
    order = np.argsort(-values, kind="stable")[:top_k]
    return rows[order], values[order]


__all__ = [
    "ExcludeSeen",
    "Found",
    "Masks",
    "Where",
    "allowed_items",
    "found_of",
    "join_new",
    "without_rows",
]
