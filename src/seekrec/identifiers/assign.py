# SPDX-License-Identifier: Apache-2.0
"""Assign unique identifiers of equal length: colliding items are moved to free codes at the least cost.

Seen as a tree, a prefix of `level` codes has room for `codebook_size ** (num_levels - level)` items. Level by level,
from the root, every prefix with more items than it has room for moves the surplus, chosen by cost, to sibling prefixes
with room. Then no group that shares all codes but the last is larger than the codebook, and in each group a
minimum-cost assignment gives every item a last code of its own. So a level above the last changes only where a group
would be larger than what is below it, and no level has to be visited twice.

Shared levels are assigned once for all views, before the view-specific levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from seekrec.errors import CatalogError, IdentifierCollisionError
from seekrec.identifiers.residual_codes import CodeCosts, fill_nearest
from seekrec.schema import View

# Costs are compared by the million: 64k rows x 256 codes x 4 bytes = 64 MB at a time.
_CHUNK_ROWS = 65_536
_MAX_KEY = 2**62


@dataclass(frozen=True)
class AssignmentResult:
    """Unique identifiers, and what it took.

    Args:
        codes (`dict[str, np.ndarray]`): For each view, int64 of shape `(num_items, num_levels)`; rows are distinct.
        num_colliding_before (`dict[str, int]`): Items of each view that shared their identifier with another item,
            a taken one included.
        num_moved (`dict[str, int]`): Items of each view whose identifier changed.
        moved_per_level (`dict[str, list[int]]`): For each view and level, the items whose code of that level changed.
    """

    codes: dict[View, np.ndarray]
    num_colliding_before: dict[View, int]
    num_moved: dict[View, int]
    moved_per_level: dict[View, list[int]]


def assign_unique(
    codes: Mapping[View, np.ndarray],
    costs: CodeCosts,
    *,
    codebook_size: int,
    num_shared_levels: int,
    taken: Mapping[View, np.ndarray] | None = None,
) -> AssignmentResult:
    """Make identifiers unique in each view by moving items at the least cost.

    Inside a group of items that share all codes but the last, the total cost of the last codes is the least possible;
    among equal totals, items stay. Where a group is larger than the codebook, the surplus that is cheapest to move
    goes to another code of the level above, one by one (a good choice, not always the best), and takes the nearest
    codes below it.

    Args:
        codes (`Mapping[str, np.ndarray]`): For each view, integers of shape `(num_items, num_levels)`, such as
            `EncodedItems.codes`. Not changed.
        costs ([`CodeCosts`]): The cost of each code, such as `EncodedItems.costs`.
        codebook_size (`int`): Codes of every level.
        num_shared_levels (`int`): The first levels, which are equal in all views and stay so.
        taken (`Mapping[str, np.ndarray]`, *optional*): Identifiers of other items, of shape `(num_taken, num_levels)`
            for each view: nobody else gets one of them, and they are not changed.

    Returns:
        [`AssignmentResult`]: The unique identifiers; they depend on the arguments alone.

    Raises:
        IdentifierCollisionError: If there are more items, taken ones included, than identifiers.
        CatalogError: If the shapes of the views differ, a code is outside the codebook, the shared levels of two views
            differ, or two taken identifiers are the same.
    """
    original = {view: np.asarray(own, np.int64) for view, own in codes.items()}
    fixed = {
        view: np.empty((0, own.shape[1]), np.int64) if taken is None else np.asarray(taken[view], np.int64)
        for view, own in original.items()
    }
    first = next(iter(original.values()))
    num_items, num_levels = first.shape
    for kind, table in (("codes", original), ("taken", fixed)):
        _check_codes(kind, table, num_levels, codebook_size, num_shared_levels)
    num_taken = len(next(iter(fixed.values())))
    if num_items + num_taken > codebook_size**num_levels:
        raise IdentifierCollisionError(
            f"{num_items + num_taken} items cannot share {codebook_size**num_levels} identifiers "
            f"(`codebook_size` {codebook_size}, {num_levels} levels); raise `codebook_size` or a number of levels."
        )
    for view, own in fixed.items():
        if len(np.unique(own, axis=0)) < num_taken:
            raise CatalogError(f"Two of the `taken` identifiers of view {view!r} are the same; pass each item once.")

    settled = {view: own.copy() for view, own in original.items()}
    for view in settled:
        is_first = view == next(iter(settled))
        for level in range(0 if is_first else num_shared_levels, num_levels):
            # What is settled together: all views on a shared level.
            together = settled if level < num_shared_levels else {view: settled[view]}
            if level < num_levels - 1:
                _spread(together, costs, fixed[view], view, level, codebook_size, num_shared_levels)
            else:
                _assign_last_level(together, costs, fixed[view], view, codebook_size)
    return AssignmentResult(
        codes=settled,
        num_colliding_before={view: _num_colliding(original[view], fixed[view]) for view in settled},
        num_moved={view: int((settled[view] != original[view]).any(axis=1).sum()) for view in settled},
        moved_per_level={view: (settled[view] != original[view]).sum(axis=0).tolist() for view in settled},
    )


def prefix_groups(codes: np.ndarray, num_prefix_levels: int) -> np.ndarray:
    """Number the distinct prefixes of some identifiers.

    Args:
        codes (`np.ndarray`): Non-negative integers of shape `(num_items, num_levels)`.
        num_prefix_levels (`int`): How many codes make the prefix.

    Returns:
        `np.ndarray`: int64 of shape `(num_items,)`; equal numbers mean equal prefixes, in the order of the prefixes.
    """
    groups, bound = np.zeros(len(codes), np.int64), 1
    for level in range(num_prefix_levels):
        size = int(codes[:, level].max(initial=0)) + 1
        if bound * size > _MAX_KEY:
            # Renumbered, so that the key never outgrows int64, whatever the depth.
            groups = np.unique(groups, return_inverse=True)[1]
            bound = int(groups.max(initial=0)) + 1
        groups = groups * size + codes[:, level]
        bound *= size
    return np.unique(groups, return_inverse=True)[1]


def _num_colliding(codes: np.ndarray, taken: np.ndarray) -> int:
    groups = prefix_groups(np.concatenate([codes, taken]), codes.shape[1])
    return int((np.bincount(groups)[groups[: len(codes)]] > 1).sum())


def _check_codes(
    kind: str, table: Mapping[View, np.ndarray], num_levels: int, codebook_size: int, num_shared_levels: int
) -> None:
    """Refuse codes that are not identifiers of the same items in each view.

    Raises:
        CatalogError: See [`assign_unique`].
    """
    first_view, first = next(iter(table.items()))
    for view, own in table.items():
        if own.shape != (len(first), num_levels):
            raise CatalogError(
                f"`{kind}` of view {view!r} has shape {own.shape}; expected {(len(first), num_levels)}, one row for "
                "each item and one column for each level, in every view."
            )
        if own.size and not 0 <= own.min() <= own.max() < codebook_size:
            raise CatalogError(
                f"`{kind}` of view {view!r} contains codes from {own.min()} to {own.max()}; with `codebook_size` "
                f"{codebook_size} they must be 0 to {codebook_size - 1}."
            )
        if (own[:, :num_shared_levels] != first[:, :num_shared_levels]).any():
            raise CatalogError(
                f"`{kind}` of the views {first_view!r} and {view!r} differ in their first {num_shared_levels} levels, "
                "which are shared; pass codes that agree there or a smaller `num_shared_levels`."
            )


def _spread(
    together: dict[View, np.ndarray],
    costs: CodeCosts,
    taken: np.ndarray,
    view: View,
    level: int,
    codebook_size: int,
    num_shared_levels: int,
) -> None:
    """Move items between the codes of a level, in place, until no prefix contains more items than it has room for."""
    codes = together[view]
    num_items, num_levels = codes.shape
    # A Python number: it may be far larger than int64. No prefix needs more room than there are items.
    capacity = min(codebook_size ** (num_levels - level - 1), num_items + len(taken))
    joint = np.concatenate([codes, taken])
    children = prefix_groups(joint, level + 1)
    too_full = np.flatnonzero(np.bincount(children) > capacity)
    if not len(too_full):
        return
    for members in _whole_groups(prefix_groups(joint, level), np.isin(children, too_full)):
        rows = members[members < num_items]
        room = capacity - np.bincount(joint[members, level], minlength=codebook_size)
        movable = rows[room[codes[rows, level]] < 0]
        moved, targets = _cheapest_moves(costs(view, movable, codes[movable, :level]), codes[movable, level], room)
        for every in together.values():
            every[movable[moved], level] = targets
        fill_nearest(together, costs, movable[moved], level + 1, num_shared_levels)


def _cheapest_moves(prices: np.ndarray, current: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose which items leave a full code, and for which one.

    In each round every item names its cheapest code with room, the cheapest moves are made, and codes that became
    full are closed. A round ends the surplus or closes a code, so there are at most `codebook_size` rounds.

    Args:
        prices (`np.ndarray`): float32 of shape `(n, codebook_size)`.
        current (`np.ndarray`): int64 codes of shape `(n,)`.
        room (`np.ndarray`): int64 of shape `(codebook_size,)`; negative where a code has a surplus. Overwritten.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The moved items (0 to n - 1) and their new codes.
    """
    new = current.copy()
    open_items = np.arange(len(current))
    paid = prices[open_items, current]
    # The cheapest code with room of each item. Looked for again when it is full: a code that is full stays full.
    is_closed = room <= 0
    nearest = _nearest_open(prices, is_closed)
    while (room < 0).any():
        open_items = open_items[room[current[open_items]] < 0]
        if (is_full := room <= 0).sum() > is_closed.sum():
            is_closed = is_full
            again = open_items[is_closed[nearest[open_items]]]
            nearest[again] = _nearest_open(prices[again], is_closed)
        targets = nearest[open_items]
        increase = prices[open_items, targets] - paid[open_items]
        order = np.argsort(increase, kind="stable")
        order = order[_rank_within(current[open_items[order]]) < -room[current[open_items[order]]]]
        order = order[_rank_within(targets[order]) < room[targets[order]]]
        leaving = open_items[order]
        new[leaving] = targets[order]
        np.add.at(room, current[leaving], 1)
        np.subtract.at(room, targets[order], 1)
        open_items = np.setdiff1d(open_items, leaving, assume_unique=True)
    moved = np.flatnonzero(new != current)
    return moved, new[moved]


def _nearest_open(prices: np.ndarray, is_closed: np.ndarray) -> np.ndarray:
    """Return the cheapest code of each item that is not closed, the first of equal ones."""
    is_open = np.flatnonzero(~is_closed)
    return is_open[prices[:, is_open].argmin(axis=1)] if len(is_open) else np.zeros(len(prices), np.int64)


def _rank_within(groups: np.ndarray) -> np.ndarray:
    """Number the elements of each group 0, 1, ... in the order in which they stand."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(groups) else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, len(groups)])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return ranks


def _assign_last_level(
    together: dict[View, np.ndarray], costs: CodeCosts, taken: np.ndarray, view: View, codebook_size: int
) -> None:
    """Assign distinct last codes, at the least total cost, in each group that contains a collision, in place."""
    codes = together[view]
    num_items, num_levels = codes.shape
    joint = np.concatenate([codes, taken])
    identifiers = prefix_groups(joint, num_levels)
    collides = np.bincount(identifiers)[identifiers] > 1
    for batch in _batches(_whole_groups(prefix_groups(joint, num_levels - 1), collides)):
        rows = np.concatenate([group[group < num_items] for group in batch])
        prices = costs(view, rows, codes[rows, : num_levels - 1])
        start = 0
        for group in batch:
            own = group[group < num_items]
            free = np.ones(codebook_size, bool)
            free[joint[group[group >= num_items], num_levels - 1]] = False
            last = _cheapest_codes(prices[start : start + len(own)], codes[own, num_levels - 1], free)
            start += len(own)
            for every in together.values():
                every[own, num_levels - 1] = last


def _whole_groups(groups: np.ndarray, marked: np.ndarray) -> list[np.ndarray]:
    """Return the rows, ascending, of each group that contains a marked row."""
    rows = np.flatnonzero(np.isin(groups, groups[marked]))
    rows = rows[np.argsort(groups[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(groups[rows])) + 1) if len(rows) else []


def _batches(groups: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Put groups together until a batch contains about `_CHUNK_ROWS` rows."""
    sizes = np.cumsum([len(group) for group in groups])
    numbers = sizes // _CHUNK_ROWS
    edges = np.r_[0, np.flatnonzero(np.diff(numbers)) + 1, len(groups)] if len(groups) else np.zeros(1, np.int64)
    return [groups[start:end] for start, end in zip(edges[:-1], edges[1:], strict=True)]


def _cheapest_codes(prices: np.ndarray, current: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Assign a free code of its own to each item of a group, at the least total cost.

    Args:
        prices (`np.ndarray`): Costs of shape `(n, codebook_size)`.
        current (`np.ndarray`): int64 codes of shape `(n,)`, kept where that costs nothing.
        free (`np.ndarray`): bool of shape `(codebook_size,)`; at least `n` are true.

    Returns:
        `np.ndarray`: int64 codes of shape `(n,)`, distinct.
    """
    prices = prices.astype(np.float64)
    # Among equal totals the one that moves fewer items: a discount far below any real difference in cost.
    prices[np.arange(len(current)), current] -= 1e-9 * (1 + np.abs(prices).max()) / len(current)
    free_codes = np.flatnonzero(free)
    prices = prices[:, free_codes]
    if len(prices) == len(free_codes):
        # Each code is given to somebody, so a discount on it changes no choice. Without what items that lie close
        # together agree on, they want different codes, and the search is four times as fast.
        prices -= prices.mean(axis=0)
    _, columns = linear_sum_assignment(prices)
    return free_codes[columns]
