# SPDX-License-Identifier: Apache-2.0
"""Items that the same users acted on: the oldest knowledge a recommender has, and on many logs a strong one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array, vstack

from seekrec.embeddings.sequences import interaction_graph
from seekrec.errors import DataError
from seekrec.events import Split
from seekrec.schema import IdMap
from seekrec.util.ragged import Ragged
from seekrec.util.sparse import add_rows

# What validation chooses from. On MovieLens-100K it is few neighbors and a slow decay, on the tags of MovieLens many,
# and on Scientific and Amazon Beauty there is hardly any difference.
_NEIGHBOR_CHOICES, _DECAY_CHOICES = (20, 50, 100, 500), (1.0, 0.95, 0.8, 0.6)
MOST_NEIGHBORS = max(_NEIGHBOR_CHOICES)
# What is taken without a choice; a view has no more neighbors.
NUM_ITEM_NEIGHBORS, DECAY = 100, 0.8
# Pairs of items that users have in common and that are counted at most; above, users count with fewer of their items.
_MAX_PAIRS = 2 * 10**8
# Pairs that are summed at a time.
_PAIRS_AT_ONCE = 2**24

# Users, ascending, and the rows of items that they acted on, both int64.
_Pairs = tuple[np.ndarray, np.ndarray]


class ItemNeighbors:
    """The items nearest to each by who acted on them.

    The similarity of two items is the cosine of their columns in the table of users and items (1 = acted on in
    training).

    Args:
        similarities (`scipy.sparse.csr_array`): float32 of shape `(num_items, num_items)`: row `i` holds the nearest
            of item `i`, and not itself.
        decay (`float`): Weight of an item of a history against the one after it, above 0 and at most 1.
        num_neighbors (`int`): How many an item has at most.
    """

    def __init__(
        self, similarities: csr_array, *, decay: float = DECAY, num_neighbors: int = NUM_ITEM_NEIGHBORS
    ) -> None:
        self.similarities = similarities
        self.decay = decay
        self.num_neighbors = num_neighbors

    @classmethod
    def fit(
        cls,
        split: Split,
        id_map: IdMap,
        *,
        num_neighbors: int = NUM_ITEM_NEIGHBORS,
        decay: float = DECAY,
        whole: Iterable[Split] | None = None,
    ) -> ItemNeighbors:
        """Count who acted on what in training.

        Where users with many items would make it long, each counts with a seeded sample of its items, as large as
        some 200 million pairs of items allow.

        Args:
            split ([`~seekrec.events.Split`]): Only its training events are used.
            id_map ([`IdMap`]): Items of the catalogue.
            num_neighbors (`int`): How many to keep of each item.
            decay (`float`): As for the class.
            whole (`Iterable[Split]`, *optional*): All partitions, where `split` is one of them: they are counted.
        """
        if whole is None:
            own = [_pairs(split, id_map)]
            acted = _acted(lambda: own, len(id_map))
        else:
            acted = _acted(lambda: (_pairs(part, id_map) for part in whole), len(id_map))
        similarities = item_cosines(csr_array(vstack(list(acted), format="csr")), num_neighbors)
        return cls(similarities, decay=decay, num_neighbors=num_neighbors)

    def choices(self, most_neighbors: int) -> dict[tuple[int, float], ItemNeighbors]:
        """Return the ways to read the table that validation chooses from, by number of neighbors and decay.

        Args:
            most_neighbors (`int`): Ways with more are left out.
        """
        numbers = [number for number in _NEIGHBOR_CHOICES if number <= most_neighbors]
        tables = _keep_each(self.similarities, numbers)
        return {
            (number, decay): ItemNeighbors(table, decay=decay, num_neighbors=number)
            for number, table in tables.items()
            for decay in _DECAY_CHOICES
        }

    def read_like(self, other: ItemNeighbors) -> ItemNeighbors:
        """Return this table with as many neighbours, and as slow a decay, as another."""
        kept = keep_largest(self.similarities, other.num_neighbors)
        return ItemNeighbors(kept, decay=other.decay, num_neighbors=other.num_neighbors)

    def scores(self, histories: Ragged) -> csr_array:
        """Sum the similarities of each item to those of a history of which it is one of the nearest.

        Each item of a history weighs `decay` to the power of how many came after its last mention.

        Args:
            histories (`Ragged`): int64 rows of items, oldest first, a row a request; those of later catalogues have
                no neighbors.

        Returns:
            `scipy.sparse.csr_array`: float32 of shape `(num_requests, num_items)`; 0 is not held.
        """
        num_items = self.similarities.shape[0]
        age = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(histories.values))
        is_known = histories.values < num_items
        # The youngest of each pair of request and item: its last mention.
        pairs = (histories.owners() * num_items + histories.values)[is_known]
        pairs, last = np.unique(pairs[::-1], return_index=True)
        weights = (self.decay ** age[is_known][::-1][last].astype(np.float64)).astype(np.float32)
        rows, columns = np.divmod(pairs, num_items)
        asked = csr_array((weights, (rows, columns)), shape=(len(histories), num_items))
        # Few entries of a large catalogue are joined by sorting; many are summed where they belong.
        if np.diff(self.similarities.indptr)[columns].sum() < num_items * len(histories):
            return add_rows(asked, self.similarities)
        found = csr_array(asked @ self.similarities)
        found.sort_indices()
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the table as arrays, for a file of tensors: int64, int32 and float32, by name."""
        return {
            "offsets": self.similarities.indptr.astype(np.int64),
            "items": self.similarities.indices.astype(np.int32),
            "similarities": self.similarities.data.astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], num_items: int, *, decay: float) -> ItemNeighbors:
        """Read what `arrays` returned.

        Args:
            arrays (`Mapping[str, np.ndarray]`): The arrays by name.
            num_items (`int`): Items of the catalogue that they were made for.
            decay (`float`): As for the class.

        Raises:
            DataError: If an array is missing or they do not belong together.
        """
        try:
            parts = (np.asarray(arrays[name]) for name in ("similarities", "items", "offsets"))
            table = csr_array(tuple(parts), shape=(num_items, num_items))
            table.check_format(full_check=True)
            if not 0 < decay <= 1 or not (table.data > 0).all():
                raise ValueError(f"decay {decay!r}, or a similarity that is not above 0")
        except (KeyError, ValueError) as error:
            raise DataError(
                f"The arrays do not make a table of neighbors of {num_items} items ({error}); use those that "
                "ItemNeighbors.arrays() returned."
            ) from error
        return cls(table, decay=decay, num_neighbors=int(np.diff(table.indptr).max(initial=1)))


def _acted(read_pairs: Callable[[], Iterable[_Pairs]], num_items: int) -> Iterator[csr_array]:
    """Return who acted on what, a table of users and items for each split.

    Args:
        read_pairs (`Callable`): Returns the pairs of each split. It is asked twice, once to know how many they are,
            once to count them, so that of partitions no more is held than is counted.
        num_items (`int`): Items of the catalogue.
    """
    numbers = np.concatenate([np.bincount(users) for users, _ in read_pairs()])
    most = _items_of_user(numbers)
    for users, items in read_pairs():
        if most < int(numbers.max(initial=0)):
            order = np.lexsort((np.random.default_rng(0).random(len(users)), users))
            place = np.arange(len(order)) - np.searchsorted(users, users)
            kept = np.sort(order[place < most])
            users, items = users[kept], items[kept]
        shape = (int(users.max(initial=-1)) + 1, num_items)
        yield csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)


def _pairs(split: Split, id_map: IdMap) -> _Pairs:
    """Return users, ascending, and the items that they acted on in training: int64, nothing of a log without such."""
    if not len(split.training_interactions()):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    graph = interaction_graph(split, id_map)
    return graph.users, graph.items


def _items_of_user(numbers: np.ndarray) -> int:
    """Return how many of its items a user counts with, so that the pairs of all stay below the limit."""
    low, high = 1, int(numbers.max(initial=1))
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.square(np.minimum(numbers, middle)).sum()) <= _MAX_PAIRS:
            low = middle
        else:
            high = middle - 1
    return low


def item_cosines(acted: csr_array, num_neighbors: int) -> csr_array:
    """Compute the nearest items of each by the cosine of their columns.

    Args:
        acted (`scipy.sparse.csr_array`): float32 of shape `(num_users, num_items)`.
        num_neighbors (`int`): How many to keep of each item; ties go to the lower row.

    Returns:
        `scipy.sparse.csr_array`: float32 of shape `(num_items, num_items)`, without the items themselves.
    """
    num_items = acted.shape[1]
    lengths = np.sqrt(np.asarray(acted.multiply(acted).sum(axis=0)).ravel())
    unit = acted.multiply(1 / np.maximum(lengths, 1e-12)).tocsr()
    by_item = unit.T.tocsr()
    # Pairs that an item is part of: as many as its users have items.
    pairs = np.zeros(num_items, np.int64)
    np.add.at(pairs, acted.indices, np.repeat(np.diff(acted.indptr), np.diff(acted.indptr)))
    ends = np.searchsorted(np.cumsum(pairs) // _PAIRS_AT_ONCE, np.arange(pairs.sum() // _PAIRS_AT_ONCE + 1), "right")
    blocks = []
    begin = 0
    for end in np.unique(ends).tolist():
        block = (by_item[begin:end] @ unit).tocoo()
        others = block.row + begin != block.col
        entries = (block.data[others], (block.row[others], block.col[others]))
        blocks.append(keep_largest(csr_array(entries, shape=block.shape), num_neighbors))
        begin = end
    return csr_array(vstack(blocks, format="csr"))


def keep_largest(table: csr_array, number: int) -> csr_array:
    """Keep the largest entries of each row; ties go to the lower column."""
    return _keep_each(table, [number])[number]


def _keep_each(table: csr_array, numbers: Sequence[int]) -> dict[int, csr_array]:
    """Keep so many of the largest entries of each row, for each number; sorted once, and only where a row has more."""
    lengths = np.diff(table.indptr)
    found = dict.fromkeys(numbers, table)
    fewer = [number for number in numbers if number < lengths.max(initial=0)]
    if fewer:
        entries = table.tocoo()
        order = np.lexsort((entries.col, -entries.data, entries.row))
    for number in fewer:
        kept = Ragged.from_ranges(table.indptr[:-1], np.minimum(lengths, number))
        chosen = order[kept.values]
        offsets = kept.offsets.astype(table.indptr.dtype)
        found[number] = csr_array((entries.data[chosen], entries.col[chosen], offsets), shape=table.shape)
        found[number].sort_indices()
    return found


__all__ = [
    "DECAY",
    "MOST_NEIGHBORS",
    "NUM_ITEM_NEIGHBORS",
    "ItemNeighbors",
    "item_cosines",
    "keep_largest",
]
