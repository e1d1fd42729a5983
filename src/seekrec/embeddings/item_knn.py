# SPDX-License-Identifier: Apache-2.0
"""Item-to-item neighbours from co-occurrence: simple, and strong on many logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.sparse import csr_array, vstack

from seekrec.embeddings.sequences import sasrec_sequences
from seekrec.errors import DataError
from seekrec.events import Split
from seekrec.schema import IdMap
from seekrec.util.ragged import Ragged
from seekrec.util.sparse import add_rows

# Neighbors of an item in a view: many where those of all items are no more than ten million, which are 80 megabytes.
MOST_NEIGHBORS, _FEWER_NEIGHBORS, _MOST_OF_VIEW = 500, 100, 10**7
# Views were no better with decays and numbers chosen by validation, whether by hundreds or by thousands of cases.
DECAY = 0.8
# In sequences two items count half as much where so many stand between them, and nothing a hundred places apart.
_HALF_DISTANCE, _MOST_DISTANCE = 5, 100
# Pairs of items that users have in common and that are counted at most. Above, users count with fewer of their items,
# and sequences with pairs that stand closer.
_MAX_PAIRS = 2 * 10**8
# Pairs that are summed at a time.
_PAIRS_AT_ONCE = 2**24

Nearness = Literal["users", "sequences"]


class ItemNeighbors:
    """The items nearest to each by who acted on them.

    Args:
        similarities (`scipy.sparse.csr_array`): float32 of shape `(num_items, num_items)`: row `i` contains the
            nearest of item `i`, and not itself.
        decay (`float`): Weight of an item of a history against the one after it, above 0 and at most 1.
    """

    def __init__(self, similarities: csr_array, *, decay: float = DECAY) -> None:
        self.similarities = similarities
        self.decay = decay

    @classmethod
    def fit(cls, splits: Iterable[Split], id_map: IdMap) -> ItemNeighbors | None:
        """Count how close together users acted on items in training: the neighbors in sequences that a view reads.

        Args:
            splits (`Iterable[Split]`): As for [`NeighborTables.fit`].
            id_map ([`IdMap`]): Items of the catalogue.

        Returns:
            `ItemNeighbors`: `None` where no two items are in one sequence.
        """
        num_items = len(id_map)
        sequences = _read_sequences(splits, id_map)
        return _as_view(sequence_similarities(sequences, num_items, most_of_view(num_items)))

    def scores(self, histories: Ragged) -> csr_array:
        """Sum the similarities of each item to those of a history of which it is one of the nearest.

        Each item of a history weighs `decay` to the power of how many came after its last mention.

        Args:
            histories (`Ragged`): int64 rows of items, oldest first, a row per request; those of later catalogues have
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
        return cls(table, decay=decay)


def most_of_view(num_items: int) -> int:
    """Return how many neighbors an item has at most in a view of a catalogue of so many items."""
    return MOST_NEIGHBORS if num_items * MOST_NEIGHBORS <= _MOST_OF_VIEW else _FEWER_NEIGHBORS


class NeighborTables:
    """The items nearest to each, by who acted on both or by how close together.

    - `"users"`: the cosine of two items' columns in the table of users and items (1 = acted on in training).
    - `"sequences"`, which views read: the same, where a user adds `5 / (5 + n)` to a pair of items with `n` others
      between them, in the order in which it acted on them, each item where it was last; nothing where more than 99
      stand between. Two items taken one after the other say more of each other than the first and the last of a long
      history. After Sequential Rules (Ludewig and Jannach, 2018), in both directions.

    Args:
        tables (`Mapping[str, scipy.sparse.csr_array]`): By nearness, similarities as for [`ItemNeighbors`].
    """

    def __init__(self, tables: Mapping[Nearness, csr_array]) -> None:
        self.tables = dict(tables)

    @classmethod
    def fit(cls, splits: Iterable[Split], id_map: IdMap) -> NeighborTables:
        """Count who acted on what in training, and keep the `MOST_NEIGHBORS` nearest of each item.

        Where users with many items would make it long, some 200 million pairs of items are counted: by users a seeded
        sample of each one's items, in sequences those that stand closest.

        Args:
            splits (`Iterable[Split]`): A log, or all partitions of one; only training events are used.
            id_map ([`IdMap`]): Items of the catalogue.
        """
        sequences = _read_sequences(splits, id_map)
        return cls(
            {
                "users": item_cosines(_acted(sequences, len(id_map)), MOST_NEIGHBORS),
                "sequences": sequence_similarities(sequences, len(id_map), MOST_NEIGHBORS),
            }
        )

    def of_view(self) -> ItemNeighbors | None:
        """Return what [`ItemNeighbors.fit`] would."""
        return _as_view(self.tables["sequences"])


def _read_sequences(splits: Iterable[Split], id_map: IdMap) -> Ragged:
    """Return the items of each user in training, oldest first, each once."""
    return Ragged.stack([_last_mentions(sasrec_sequences(split, id_map), len(id_map)) for split in splits])


def _as_view(table: csr_array) -> ItemNeighbors | None:
    return ItemNeighbors(keep_largest(table, most_of_view(table.shape[0]))) if table.nnz else None


def _last_mentions(sequences: Ragged, num_items: int) -> Ragged:
    """Return each item of a sequence once, where it was last."""
    owners = sequences.owners()
    pairs = owners * num_items + sequences.values
    _, from_end = np.unique(pairs[::-1], return_index=True)
    last = np.sort(len(pairs) - 1 - from_end)
    return Ragged.from_owners(sequences.values[last], owners[last], len(sequences))


def _acted(sequences: Ragged, num_items: int) -> csr_array:
    """Return who acted on what, a table of users and items, of no more items a user than can be counted."""
    lengths = sequences.lengths
    most = _items_of_user(lengths)
    if most < int(lengths.max(initial=0)):
        owners = sequences.owners()
        order = np.lexsort((np.random.default_rng(0).random(len(owners)), owners))
        is_kept = np.zeros(len(order), bool)
        is_kept[order[np.arange(len(order)) - np.repeat(sequences.offsets[:-1], lengths) < most]] = True
        sequences = sequences.keep(is_kept)
    ones = np.ones(len(sequences.values), np.float32)
    return csr_array((ones, sequences.values, sequences.offsets), shape=(len(sequences), num_items))


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
    blocks = []
    for begin, end in _blocks(pairs):
        block = (by_item[begin:end] @ unit).tocoo()
        others = block.row + begin != block.col
        entries = (block.data[others], (block.row[others], block.col[others]))
        blocks.append(keep_largest(csr_array(entries, shape=block.shape), num_neighbors))
    return csr_array(vstack(blocks, format="csr"))


def sequence_similarities(sequences: Ragged, num_items: int, num_neighbors: int) -> csr_array:
    """Compute the nearest items of each by how close to each other users acted on them; see [`NeighborTables`].

    Args:
        sequences ([`Ragged`]): Item rows of each user, oldest first, each item once.
        num_items (`int`): Items of the catalogue.
        num_neighbors (`int`): How many to keep of each item; ties go to the lower row.

    Returns:
        `scipy.sparse.csr_array`: float32 of shape `(num_items, num_items)`, without the items themselves.
    """
    items, lengths = sequences.values.astype(np.int64), sequences.lengths
    counted = 2 * np.cumsum([np.maximum(lengths - distance, 0).sum() for distance in range(1, _MOST_DISTANCE + 1)])
    most = max(1, int(np.searchsorted(counted, _MAX_PAIRS, "right")))
    weights = (_HALF_DISTANCE / (_HALF_DISTANCE + np.arange(most + 1) - 1)).astype(np.float32)
    place = np.arange(len(items)) - np.repeat(sequences.offsets[:-1], lengths)
    before = np.minimum(place, most)
    after = np.minimum(np.repeat(lengths, lengths) - 1 - place, most)
    pairs = np.zeros(num_items, np.int64)
    np.add.at(pairs, items, before + after)
    number = np.bincount(items, minlength=num_items)
    scales = (1 / np.sqrt(np.maximum(number, 1))).astype(np.float32)
    # Where each item stands, those of an item behind each other.
    order, ends = np.argsort(items, kind="stable"), np.append(0, np.cumsum(number))
    blocks = []
    for begin, end in _blocks(pairs):
        own = order[ends[begin] : ends[end]]
        around = Ragged.from_ranges(own - before[own], before[own] + after[own] + 1)
        of_own = own[around.owners()]
        others = around.values != of_own
        own_places, places = of_own[others], around.values[others]
        rows, columns = items[own_places], items[places]
        values = weights[np.abs(places - own_places)] * scales[rows] * scales[columns]
        block = csr_array((values, (rows - begin, columns)), shape=(end - begin, num_items))
        blocks.append(keep_largest(block, num_neighbors))
    return csr_array(vstack(blocks, format="csr"))


def _blocks(pairs: np.ndarray) -> Iterator[tuple[int, int]]:
    """Return the items to count at a time, so that they have about as many pairs: the first, and the one behind."""
    ends = np.searchsorted(np.cumsum(pairs) // _PAIRS_AT_ONCE, np.arange(pairs.sum() // _PAIRS_AT_ONCE + 1), "right")
    begin = 0
    for end in np.unique(ends).tolist():
        yield begin, end
        begin = end


def keep_largest(table: csr_array, number: int) -> csr_array:
    """Keep the largest entries of each row; ties go to the lower column."""
    return keep_each(table, [number])[number]


def keep_each(table: csr_array, numbers: Sequence[int]) -> dict[int, csr_array]:
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
    "MOST_NEIGHBORS",
    "ItemNeighbors",
    "Nearness",
    "NeighborTables",
    "item_cosines",
    "keep_each",
    "keep_largest",
    "most_of_view",
    "sequence_similarities",
]
