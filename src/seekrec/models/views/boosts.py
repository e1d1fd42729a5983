# SPDX-License-Identifier: Apache-2.0
"""Boosts: numbers from the caller that are added to the scores of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from seekrec.catalog import Catalog
from seekrec.errors import RequestError, UnknownItemError
from seekrec.models.views.parts import Numbers
from seekrec.schema import shown

# Either way. No score of a model comes near it, and sums in float32 still tell apart items boosted alike whose scores
# differ by a thousandth.
MAX_BOOST = 1e4

# Numbers of all items, for all requests or for each; or of some items by id, for all requests.
Boost: TypeAlias = (
    "np.ndarray | torch.Tensor | Sequence[float] | Sequence[Sequence[float]] | Mapping[str, float] | None"
)


def read_boost(boost: Boost, catalog: Catalog, num_requests: int, device: torch.device) -> Numbers | None:
    """Check what `retrieve` was given.

    Args:
        boost (`np.ndarray` or `dict`, *optional*): Numbers of the shape `(num_items,)` or `(num_requests, num_items)`,
            or by item id, zero for the others.
        catalog ([`Catalog`]): The items.
        num_requests (`int`): Size of the batch.
        device (`torch.device`): Where they are added.

    Returns:
        [`Numbers`], *optional*: float32; `None` for no boost.

    Raises:
        RequestError: If the numbers do not fit the catalogue or the batch, or one is out of range or not finite.
        UnknownItemError: If the catalogue does not contain an id.
    """
    if boost is None:
        return None
    if isinstance(boost, Mapping):
        wrong = [one for one in boost.items() if not isinstance(one[1], (int, float, np.number))]
        if wrong:
            raise RequestError(f"`boost` maps {shown(wrong[0][0])} to {shown(wrong[0][1])}; give each id a number.")
        values = np.zeros(len(catalog), np.float32)
        try:
            rows = catalog.id_map.convert_to_rows(boost)
        except UnknownItemError as error:
            raise UnknownItemError(f"`boost`: {error}") from None
        values[rows] = _to_float32(list(boost.values()))
    else:
        values = _to_float32(boost)
    if values.shape not in ((len(catalog),), (num_requests, len(catalog))):
        raise RequestError(
            f"`boost` has shape {values.shape}; give one number for each of the {len(catalog)} items, for all "
            f"requests or for each of the {num_requests}."
        )
    numbers = torch.from_numpy(values)
    # One reading, where numbers for each request take as long as a small model; NaN is both the least and the most.
    least, most = (edge.item() for edge in torch.aminmax(numbers)) if values.size else (0, 0)
    if not -MAX_BOOST <= least <= most <= MAX_BOOST:
        place = tuple(int(axis[0]) for axis in np.nonzero(~(np.abs(values) <= MAX_BOOST)))
        raise RequestError(
            f"`boost` is {values[place]} for the item in row {place[-1]}; give numbers from {-MAX_BOOST:,.0f} to "
            f"{MAX_BOOST:,.0f}, and use `where` to exclude items."
        )
    return Numbers(numbers.to(device))


def _to_float32(boost: object) -> npt.NDArray[np.float32]:
    try:
        if isinstance(boost, torch.Tensor):
            boost = boost.detach().float().cpu()
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused as such
            return np.asarray(boost, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"`boost` is {shown(boost)}; give numbers, or a number by item id.") from error


__all__ = ["MAX_BOOST", "Boost", "read_boost"]
