# SPDX-License-Identifier: Apache-2.0
"""Why an item may have been answered: what it has in common with a history, a query, and other items.

These are facts of the catalogue that people can check, not a trace of what the model computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seekrec.catalog import Catalog
from seekrec.catalog.checks import TEXT_COLUMNS
from seekrec.errors import DataError
from seekrec.events.matching import item_words
from seekrec.schema import View
from seekrec.util.text import split_words

# Items of a history, and siblings, that are named.
_MAX_NEAREST = 3
_MAX_SIBLINGS = 6


@dataclass(frozen=True)
class Path:
    """An item's identifier.

    Args:
        codes (`list[int]`): From the coarsest level to the finest.
        siblings (`list[str]`): Ids of other live items below the same code of the last level but one.
        num_siblings (`int`): How many there are.
    """

    codes: list[int]
    siblings: list[str]
    num_siblings: int


@dataclass(frozen=True)
class Reasons:
    """What an item has in common.

    Args:
        nearest (`list[tuple[str, float]]`): Ids of the items of a history with texts most like its own, and the
            cosines of their vectors.
        words (`list[str]`): Words of the query that its text has.
        paths (`dict[str, Path]`): Its identifier by view; empty where items have none.
    """

    nearest: list[tuple[str, float]]
    words: list[str]
    paths: dict[View, Path]


def find_reasons(catalog: Catalog, item_id: str, history: Sequence[str], query: str | None) -> Reasons:
    """Find what an item has in common with a history, a query and other items.

    Args:
        catalog ([`Catalog`]): The items.
        item_id (`str`): The item.
        history (`Sequence[str]`): Ids of items that the user acted on; unknown ones are left out.
        query (`str`, *optional*): What was searched for.

    Raises:
        UnknownItemError: If the catalogue does not hold the item.
    """
    row = int(catalog.id_map.convert_to_rows([item_id])[0])
    return Reasons(
        nearest=_nearest(catalog, row, history),
        words=[] if query is None else _shared_words(catalog, row, query),
        paths={view: _path(catalog, view, row) for view in catalog.views},
    )


def _nearest(catalog: Catalog, row: int, history: Sequence[str]) -> list[tuple[str, float]]:
    vectors = catalog.embeddings.get("semantic")
    rows = catalog.id_map.convert_to_rows(dict.fromkeys(history), strict=False)
    rows = rows[(rows >= 0) & (rows != row)]
    if vectors is None or not len(rows):
        return []
    lengths = np.linalg.norm(vectors[rows], axis=1) * np.linalg.norm(vectors[row])
    cosines = vectors[rows] @ vectors[row] / np.maximum(lengths, 1e-12)
    best = np.argsort(-cosines, kind="stable")[:_MAX_NEAREST]
    return list(zip(catalog.id_map.convert_to_ids(rows[best]), cosines[best].tolist(), strict=True))


def _shared_words(catalog: Catalog, row: int, query: str) -> list[str]:
    try:
        words = set(item_words(catalog.items.select(["item_id", *TEXT_COLUMNS]).slice(row, 1))[0])
    except DataError:  # its text has no word
        return []
    return [word for word in dict.fromkeys(split_words(query)) if word in words]


def _path(catalog: Catalog, view: View, row: int) -> Path:
    codes = catalog.codes[view]
    is_sibling = (codes[:, :-1] == codes[row, :-1]).all(axis=1) & catalog.live
    is_sibling[row] = False
    siblings = np.flatnonzero(is_sibling)
    named = catalog.id_map.convert_to_ids(siblings[:_MAX_SIBLINGS])
    return Path(codes[row].tolist(), named, len(siblings))


__all__ = ["Path", "Reasons", "find_reasons"]
