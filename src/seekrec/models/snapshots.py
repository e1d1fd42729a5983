# SPDX-License-Identifier: Apache-2.0
"""What a call answers from: a catalogue that does not change, and what was made of it at first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from seekrec.catalog import Catalog
from seekrec.errors import RequestError
from seekrec.models.new_items import TextNeighbors

ValueT = TypeVar("ValueT")


class LazyValues:
    """Values that are made at first use and kept; several threads may ask at once."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[object, Any]] = {}
        self._lock = threading.RLock()

    def value(self, name: Hashable, make: Callable[[], ValueT], key: object = None) -> ValueT:
        """Return a value, made by the first call and again when `key` is another one.

        Args:
            name (`Hashable`): Which value.
            make (`Callable`): Makes it.
            key (*optional*): What it depends on besides this object.
        """
        kept = self._kept.get(name)
        if kept is None or kept[0] != key:
            with self._lock:
                kept = self._kept.get(name)
                if kept is None or kept[0] != key:
                    kept = self._kept[name] = (key, make())
        value: ValueT = kept[1]
        return value

    def take_values(self, other: LazyValues, names: Iterable[Hashable]) -> None:
        """Take what another one has made already and this one would make alike.

        Args:
            other ([`LazyValues`]): The other one.
            names (`Iterable`): Which values.
        """
        self._kept |= {name: other._kept[name] for name in names if name in other._kept}

    def __deepcopy__(self, memo: dict[int, object]) -> LazyValues:
        # What is never changed is shared. What was made is not: a copy of a model has weights of its own.
        copied = type(self).__new__(type(self))
        copied.__setstate__(self.__getstate__())
        return copied

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        LazyValues.__init__(self)


class CatalogSnapshot(LazyValues):
    """A catalogue and what a model makes of it; nothing in it is ever changed.

    Args:
        catalog ([`Catalog`]): The items that can be answered.
    """

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.catalog, self.num_items = catalog, len(catalog)

    def check_rows(self, name: str, rows: Tensor) -> None:
        """Refuse rows of items that this catalogue does not have: made by a processor with another one.

        Raises:
            RequestError: If one is too large.
        """
        largest = int(rows.max()) if rows.numel() else -1
        if largest >= self.num_items:
            raise RequestError(
                f"`{name}` holds row {largest} of a catalogue, the model's has {self.num_items} items: the inputs "
                "were made with a larger catalogue. Give model and processor the same one; where other threads "
                "answer meanwhile, a grown catalogue to the model first, a smaller one to the processor first."
            )

    def new_rows(self, num_trained: int) -> np.ndarray:
        """Return the items that training knows no event of, int64 rows.

        A trained scorer has never seen one of them as an answer.

        Args:
            num_trained (`int`): Rows of the catalogue that the model was trained with; 0 if that is not known.
        """

        def find() -> np.ndarray:
            return np.flatnonzero(self._is_new(num_trained) & self.catalog.live)

        return self.value("new_rows", find, num_trained)

    def text_neighbors(self, num_trained: int) -> TextNeighbors | None:
        """Return the items whose scores stand for those of the new items; `None` without text vectors to find them by.

        Args:
            num_trained (`int`): As in [`new_rows`].
        """

        def find() -> TextNeighbors | None:
            vectors = self.catalog.embeddings.get("semantic")
            known = np.flatnonzero(~self._is_new(num_trained))
            return None if vectors is None else TextNeighbors.find(vectors, self.new_rows(num_trained), known)

        return self.value("text_neighbors", find, num_trained)

    def _is_new(self, num_trained: int) -> np.ndarray:
        is_new = self.catalog.is_predicted.copy()
        is_new[num_trained or len(is_new) :] = True
        return is_new


def has_same_items(old: Catalog, new: Catalog) -> bool:
    """Return whether identifiers and embeddings are the very same arrays, as after `remove_items`."""
    pairs = ((old.codes, new.codes), (old.embeddings, new.embeddings))
    return all(own.keys() == its.keys() and all(own[view] is its[view] for view in own) for own, its in pairs)


__all__ = ["CatalogSnapshot", "LazyValues", "has_same_items"]
