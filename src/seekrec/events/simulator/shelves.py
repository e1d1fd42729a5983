# SPDX-License-Identifier: Apache-2.0
"""The shelves of the simulated shop: its items, their attributes, and their popularity over time.

Items are sorted by *shelf*: leaf, then style. The items of one shelf in one period are then a contiguous range of an
array of cumulative weights, and an item is drawn by one search in that array.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seekrec.events.simulator.words import (
    LEAVES,
    PALETTES,
    STYLES,
    WORDS_PER_STYLE,
    brand_names,
)

DAY = 86_400
# The first second of 2025.
START = 1_735_689_600
NUM_STYLES = len(STYLES)
NUM_TASTES = 6
# A leaf has so many items at least, and so many of them never leave the shelves.
ITEMS_OF_LEAF, LASTING_ITEMS = 6, 3
MIN_ITEMS = 2 * ITEMS_OF_LEAF
# Stands for a time that never comes.
NEVER = 2**62

_PERIOD_DAYS = 14
_POPULARITY_SPREAD = 1.1
_DRIFT = 0.7
_NOVELTY, _NOVELTY_DAYS = 1.0, 21.0
_LASTING_SHARE = 0.4
_SHELF_DAYS = 60.0
_ITEMS_OF_BRAND = 20


@dataclass(frozen=True, eq=False)
class Shelves:
    """Items in the order of the shelves, one entry per item, and the tastes that leaves and styles speak to.

    Args:
        num_days (`int`): Length of the log.
        num_leaves (`int`): The first so many of `LEAVES` are sold.
        leaf (`np.ndarray`): int64 leaf.
        style (`np.ndarray`): int64 style.
        word (`np.ndarray`): int64, which of `STYLE_WORDS` its title holds.
        colour (`np.ndarray`): int64 colour.
        brand (`np.ndarray`): int64 brand.
        price_level (`np.ndarray`): float64; 0 is the average of the leaf, 1 a step dearer.
        begin (`np.ndarray`): int64 second from which on it is for sale; -`NEVER` for always.
        end (`np.ndarray`): int64 second from which on it no longer is; `NEVER` for open.
        popularity (`np.ndarray`): float64 weight, before drift.
        phase (`np.ndarray`): float64 `(num_items, 2)`: speed and phase of the drift.
        row (`np.ndarray`): int64 row of the table of items.
        brands (`list[str]`): Names.
        department_of_brand (`np.ndarray`): int64.
        style_of_brand (`np.ndarray`): int64.
        leaf_tastes (`np.ndarray`): float64 `(num_leaves, NUM_TASTES)`.
        style_tastes (`np.ndarray`): float64 `(NUM_STYLES, NUM_TASTES)`.
    """

    num_days: int
    num_leaves: int
    leaf: np.ndarray
    style: np.ndarray
    word: np.ndarray
    colour: np.ndarray
    brand: np.ndarray
    price_level: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    popularity: np.ndarray
    phase: np.ndarray
    row: np.ndarray
    brands: list[str]
    department_of_brand: np.ndarray
    style_of_brand: np.ndarray
    leaf_tastes: np.ndarray
    style_tastes: np.ndarray

    @classmethod
    def draw(cls, num_items: int, seed: int, num_days: int) -> Shelves:
        """Draw the items of a shop.

        Args:
            num_items (`int`): How many.
            seed (`int`): Seed of the shop.
            num_days (`int`): Length of the log in days.
        """
        draws = np.random.default_rng(np.random.SeedSequence([seed, 0]))
        num_leaves = min(num_items // ITEMS_OF_LEAF // 2 or 1, len(LEAVES))
        leaf_share = draws.dirichlet(np.full(num_leaves, 3.0))
        fixed = np.repeat(np.arange(num_leaves), ITEMS_OF_LEAF)
        drawn = draws.choice(num_leaves, size=num_items - len(fixed), p=leaf_share)
        leaf = np.concatenate([fixed, drawn])
        style = draws.integers(NUM_STYLES, size=num_items)
        is_lasting = draws.random(num_items) < _LASTING_SHARE
        is_lasting[: len(fixed)] |= np.arange(len(fixed)) % ITEMS_OF_LEAF < LASTING_ITEMS
        order = np.lexsort((style, leaf))
        leaf, style, is_lasting = leaf[order], style[order], is_lasting[order]

        departments = department_numbers()[:num_leaves]
        num_departments = int(departments.max()) + 1
        per_cell = int(np.clip(num_items // (num_departments * NUM_STYLES * _ITEMS_OF_BRAND), 2, 40))
        brand_cells = num_departments * NUM_STYLES
        brand = (departments[leaf] * NUM_STYLES + style) * per_cell + draws.integers(per_cell, size=num_items)
        brand_level = draws.normal(0.0, 0.6, size=brand_cells * per_cell)
        cell_of_brand = np.repeat(np.arange(brand_cells), per_cell)

        begin = START + DAY * draws.integers(-60, num_days, size=num_items)
        end = begin + DAY * (15 + draws.exponential(_SHELF_DAYS, num_items)).astype(np.int64)
        # What is not gone when the log ends, has no end that anybody knows.
        end = np.where(is_lasting | (end > START + DAY * num_days), NEVER, end)
        # Nor does anybody remember when things began that were there from the first day.
        begin = np.where(is_lasting | (begin <= START), -NEVER, begin)
        # Gone before the log begins: it would be nobody's.
        end = np.where(end <= START + DAY, NEVER, end)
        return cls(
            num_days=num_days,
            num_leaves=num_leaves,
            leaf=leaf,
            style=style,
            word=style * WORDS_PER_STYLE + draws.integers(WORDS_PER_STYLE, size=num_items),
            colour=PALETTES[style, draws.integers(PALETTES.shape[1], size=num_items)],
            brand=brand,
            price_level=brand_level[brand] + draws.normal(0.0, 0.5, size=num_items),
            begin=begin,
            end=end,
            popularity=np.exp(draws.normal(0.0, _POPULARITY_SPREAD, size=num_items)),
            phase=draws.random((num_items, 2)),
            row=draws.permutation(num_items),
            brands=brand_names(brand_cells * per_cell, draws),
            department_of_brand=cell_of_brand // NUM_STYLES,
            style_of_brand=cell_of_brand % NUM_STYLES,
            leaf_tastes=draws.normal(size=(num_leaves, NUM_TASTES)),
            style_tastes=draws.normal(size=(NUM_STYLES, NUM_TASTES)),
        )

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(self.leaf)

    @property
    def num_periods(self) -> int:
        """Popularity is the same all through a period, and drifts from one to the next."""
        return -(-self.num_days // _PERIOD_DAYS)

    def period(self, time: np.ndarray) -> np.ndarray:
        """Return the period of each time, int64; the first or the last outside of the log."""
        return np.clip((time - START) // (_PERIOD_DAYS * DAY), 0, self.num_periods - 1)

    @cached_property
    def bounds(self) -> np.ndarray:
        """int64 `(num_leaves * NUM_STYLES + 1,)`: where each shelf begins in the columns, and the last one ends."""
        shelf = self.leaf * NUM_STYLES + self.style
        return np.searchsorted(shelf, np.arange(self.num_leaves * NUM_STYLES + 1))

    @cached_property
    def cumulative(self) -> np.ndarray:
        """float64 `(num_periods * num_items + 1,)`: cumulative weights of the items, period after period, from 0."""
        totals = np.zeros(self.num_periods * self.num_items + 1)
        weights = np.concatenate([self.weights(period) for period in range(self.num_periods)])
        np.cumsum(weights, out=totals[1:])
        return totals

    @cached_property
    def shelf_starts(self) -> np.ndarray:
        """float64 `(num_periods, num_leaves * NUM_STYLES + 1)`: the cumulative weight at each of `bounds`."""
        return self.cumulative[np.arange(self.num_periods)[:, None] * self.num_items + self.bounds]

    @cached_property
    def masses(self) -> np.ndarray:
        """float64 `(num_periods, num_leaves, NUM_STYLES)`: the weights of each shelf together."""
        return np.diff(self.shelf_starts, axis=1).reshape(self.num_periods, self.num_leaves, NUM_STYLES)

    def find(self, weights: np.ndarray) -> np.ndarray:
        """Return the entry of `cumulative` up to which each weight reaches, and no further: int64.

        It is a search in a sorted array, at the cost of a few look-ups, whatever its length.
        """
        step = (weights * (len(self._near) / self.cumulative[-1])).astype(np.int64)
        place = self._near[np.minimum(step, len(self._near) - 1)].astype(np.int64)
        place = np.minimum(place, len(self.cumulative) - 2)
        short = np.flatnonzero(self.cumulative[place + 1] <= weights)
        while len(short):
            place[short] += 1
            short = short[self.cumulative[place[short] + 1] <= weights[short]]
        return place

    @cached_property
    def _near(self) -> np.ndarray:
        """int32 entries of `cumulative` that equal steps of the weight reach."""
        count = len(self.cumulative)
        steps = np.arange(count) * (self.cumulative[-1] / count)
        return (np.searchsorted(self.cumulative, steps, side="right") - 1).astype(np.int32)

    def weights(self, period: int) -> np.ndarray:
        """Return how much each item is taken in a period: float64 `(num_items,)`, 0 where it is not for sale."""
        begin = START + period * _PERIOD_DAYS * DAY
        end = begin + _PERIOD_DAYS * DAY
        speed, phase = 0.5 + 1.5 * self.phase[:, 0], self.phase[:, 1]
        weights = self.popularity * np.exp(_DRIFT * np.sin(2 * np.pi * (speed * period / self.num_periods + phase)))
        is_new = self.begin > -NEVER
        age = np.maximum((begin + end) / 2 - self.begin[is_new], 0.0) / DAY
        weights[is_new] *= np.exp(_NOVELTY * np.exp(-age / _NOVELTY_DAYS))
        return np.where((self.begin < end) & (self.end > begin), weights, 0.0)


def department_numbers() -> np.ndarray:
    """Return the department of each of `LEAVES`: int64, in the order they come."""
    names = list(dict.fromkeys(leaf.department for leaf in LEAVES))
    return np.array([names.index(leaf.department) for leaf in LEAVES])


__all__ = ["DAY", "MIN_ITEMS", "NEVER", "NUM_STYLES", "NUM_TASTES", "START", "Shelves", "department_numbers"]
