# SPDX-License-Identifier: Apache-2.0
r"""The choice model of the simulated shop, used to draw events and to compute probabilities.

In a leaf $\ell$ at time $t$ the user $u$ with the query $q$ (or none) takes item $i$ with chance

$$P(i \mid u, t, q, \ell) = \frac{w_i(t) \, s_u(i) \, b_u(i) \, m_q(i)}{\sum_j w_j(t) \, s_u(j) \, b_u(j) \, m_q(j)}$$

over the items for sale at the time: $w$ is the popularity in the period, $s$ the user's preference for the style, $b$
the fit of price and budget, $m$ the match of item and query. Items are drawn by rejection: a style by $s$, $w$ and the
largest $m$, an item of it by $w$, kept with chance $b$ times $m$ over its largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seekrec.events.simulator.people import REQUEST_SECONDS, People
from seekrec.events.simulator.queries import BRAND, COLOUR, STYLE_WORD, Queries, pick, pick_by_totals
from seekrec.events.simulator.shelves import NUM_STYLES, Shelves
from seekrec.events.simulator.words import COLOURS, PALETTES, WORDS_PER_STYLE

# How an item matches a query, against 1 for one that is what the query says: of its style at least, and of another.
_SAME_STYLE = {STYLE_WORD: 0.4, BRAND: 0.1}
_OTHER_STYLE = 0.03
_OTHER_COLOUR = 0.08
_PRICE_CARE = 0.5
_BUYING = 0.3
# So many times an item is drawn and refused.
_ROUNDS = 40
# float64 `(NUM_STYLES, number of colours)`: whether things of the style come in the colour.
_COMES_IN = np.zeros((NUM_STYLES, len(COLOURS)), dtype=bool)
_COMES_IN[np.arange(NUM_STYLES)[:, None], PALETTES] = True


@dataclass(frozen=True, eq=False)
class Choices:
    """Questions to the rule, one entry a choice.

    Args:
        time (`np.ndarray`): int64 seconds.
        leaf (`np.ndarray`): int64 leaf in which is chosen.
        style_liking (`np.ndarray`): float64 `(count, NUM_STYLES)` of the users; ones for a shop that does not know
            them.
        budget (`np.ndarray`): float64 of the users; NaN where prices do not matter.
        kind (`np.ndarray`): int64 of the query, as in [`Queries`].
        value (`np.ndarray`): int64 of the query.
    """

    time: np.ndarray
    leaf: np.ndarray
    style_liking: np.ndarray
    budget: np.ndarray
    kind: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def select(self, rows: np.ndarray) -> Choices:
        """Return some of them."""
        return Choices(*(column[rows] for column in vars(self).values()))

    @classmethod
    def of_requests(cls, people: People, queries: Queries, requests: np.ndarray, *, by_user: bool) -> Choices:
        """Make the questions of some requests; `queries` are those of all requests.

        With `by_user` the user chooses; else the shop, which knows the query and what sells.
        """
        user = people.user[requests]
        return cls(
            time=people.time[requests],
            leaf=people.leaf[requests],
            style_liking=people.style_liking[user] if by_user else np.ones((len(requests), NUM_STYLES)),
            budget=people.budget[user] if by_user else np.full(len(requests), np.nan),
            kind=queries.kind[requests],
            value=queries.value[requests],
        )


def draw_items(draws: np.random.Generator, shelves: Shelves, choices: Choices) -> np.ndarray:
    """Draw an item for each question.

    Returns:
        `np.ndarray`: int64 places in the order of the shelves.
    """
    chosen = np.full(len(choices), -1, dtype=np.int64)
    period = shelves.period(choices.time)
    # Choices of one leaf and period read the same memory, so they come after each other.
    groups = period * shelves.num_leaves + choices.leaf
    pending = np.argsort(groups.astype(np.min_scalar_type(shelves.masses.size)), kind="stable")
    largest = style_match(shelves, choices.kind, choices.value)
    totals = np.cumsum(shelves.masses[period, choices.leaf] * choices.style_liking * largest, axis=1)
    starts = shelves.shelf_starts
    for _ in range(_ROUNDS):
        if not len(pending):
            break
        fractions = draws.random((3, len(pending)))
        style = pick_by_totals(totals[pending], fractions[0])
        shelf = choices.leaf[pending] * NUM_STYLES + style
        low, high = starts[period[pending], shelf], starts[period[pending], shelf + 1]
        place = shelves.find(low + fractions[1] * (high - low))
        item = place - period[pending] * shelves.num_items
        # Rounding may lead to the next shelf.
        is_there = (item >= shelves.bounds[shelf]) & (item < shelves.bounds[shelf + 1])
        item[~is_there] = 0
        kept = is_there & is_for_sale(shelves, item, choices.time[pending])
        chance = price_match(shelves.price_level[item], choices.budget[pending])
        asked = np.flatnonzero(choices.kind[pending])
        rows = pending[asked]
        match = item_match(shelves, item[asked], choices.kind[rows], choices.value[rows])
        chance[asked] *= match / largest[rows, style[asked]]
        kept &= fractions[2] < chance
        chosen[pending[kept]] = item[kept]
        pending = pending[~kept]
    # For the few that are left all chances are computed.
    last = draws.random(len(pending))
    for leaf in np.unique(choices.leaf[pending]).tolist():
        rows = choices.leaf[pending] == leaf
        of_leaf, chances = leaf_chances(shelves, leaf, choices.select(pending[rows]))
        chosen[pending[rows]] = of_leaf.start + pick(chances, last[rows])
    return chosen


def leaf_chances(shelves: Shelves, leaf: int, choices: Choices) -> tuple[slice, np.ndarray]:
    """Return the chance of each item of one leaf.

    Args:
        shelves ([`Shelves`]): The items.
        leaf (`int`): The leaf.
        choices ([`Choices`]): Questions; their own leaves are not looked at.

    Returns:
        `tuple`: Places of the items of the leaf; float64 `(len(choices), num_items_of_leaf)`, whose rows sum to 1.
    """
    places = slice(int(shelves.bounds[leaf * NUM_STYLES]), int(shelves.bounds[(leaf + 1) * NUM_STYLES]))
    items = np.arange(places.start, places.stop)
    base = shelves.period(choices.time)[:, None] * shelves.num_items
    weights = shelves.cumulative[base + items + 1] - shelves.cumulative[base + items]
    weights *= choices.style_liking[:, shelves.style[items]]
    weights *= price_match(shelves.price_level[items], choices.budget[:, None])
    weights *= item_match(shelves, items, choices.kind[:, None], choices.value[:, None])
    weights *= is_for_sale(shelves, items, choices.time[:, None])
    return places, weights / weights.sum(axis=1, keepdims=True)


def is_for_sale(shelves: Shelves, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return whether items are for sale at a time, and still are when the page is left: bool."""
    return (shelves.begin[item] <= time) & (time + REQUEST_SECONDS <= shelves.end[item])


def price_match(level: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Return how prices suit budgets: float64 from 0 to 1; 1 where the budget is NaN."""
    return np.where(np.isnan(budget), 1.0, np.exp(-0.5 * _PRICE_CARE * np.square(level - budget)))


def buying_chance(level: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Return the chance that what was clicked is bought: float64."""
    return _BUYING * price_match(level, budget)


def style_match(shelves: Shelves, kind: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return how well an item of each style can match each query at best: float64 `(count, NUM_STYLES)`."""
    matches = np.ones((len(kind), NUM_STYLES))
    rows = np.flatnonzero(kind == STYLE_WORD)
    matches[rows] = _OTHER_STYLE
    matches[rows, value[rows] // WORDS_PER_STYLE] = 1.0
    rows = np.flatnonzero(kind >= BRAND)
    matches[rows] = _OTHER_STYLE
    matches[rows, shelves.style_of_brand[value[rows]]] = 1.0
    rows = np.flatnonzero(kind == COLOUR)
    matches[rows] = np.where(_COMES_IN[:, value[rows]].T, 1.0, _OTHER_COLOUR)
    return matches


def item_match(shelves: Shelves, item: np.ndarray, kind: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return how items match queries: float64 from 0 to 1, of the shape that the arguments broadcast to."""
    # A value means a word, a colour or a brand: looked up as another it may be out of range, and is not used.
    word, colour, brand = shelves.word[item], shelves.colour[item], shelves.brand[item]
    same_style = shelves.style[item] == np.where(
        kind >= BRAND,
        shelves.style_of_brand[np.minimum(value, len(shelves.style_of_brand) - 1)],
        value // WORDS_PER_STYLE,
    )
    by_word = np.where(word == value, 1.0, np.where(same_style, _SAME_STYLE[STYLE_WORD], _OTHER_STYLE))
    by_brand = np.where(brand == value, 1.0, np.where(same_style, _SAME_STYLE[BRAND], _OTHER_STYLE))
    by_colour = np.where(colour == value, 1.0, _OTHER_COLOUR)
    is_word, is_colour, is_brand = kind == STYLE_WORD, kind == COLOUR, kind >= BRAND
    return np.where(is_word, by_word, np.where(is_brand, by_brand, np.where(is_colour, by_colour, 1.0)))


__all__ = [
    "Choices",
    "buying_chance",
    "draw_items",
    "is_for_sale",
    "item_match",
    "leaf_chances",
    "price_match",
    "style_match",
]
