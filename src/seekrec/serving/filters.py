# SPDX-License-Identifier: Apache-2.0
"""Turn a typed filter into a mask over catalogue rows; columns and values are data, never executed."""

from __future__ import annotations

import numpy as np

from seekrec.catalog import Catalog
from seekrec.errors import RequestError
from seekrec.serving.messages import Where


def allowed_rows(where: Where, catalog: Catalog) -> np.ndarray:
    """Mark the items that a filter allows.

    Args:
        where ([`Where`]): The filter.
        catalog ([`Catalog`]): The items.

    Returns:
        `np.ndarray`: bool of shape `(num_items,)`.

    Raises:
        RequestError: If a column, a value or its type does not fit the items.
    """
    conditions: list[tuple[str, object]] = [*where.equals.items(), *where.one_of.items()]
    conditions += [(column, (bounds.lowest, bounds.highest)) for column, bounds in where.range.items()]
    mask = catalog.live if where.available_at is None else catalog.available(where.available_at)
    try:
        for column, wanted in conditions:
            mask &= catalog.matches(column, wanted)
    except RequestError as error:
        raise RequestError(f"`where` cannot be used: {error}") from error
    return mask


__all__ = ["allowed_rows"]
