# SPDX-License-Identifier: Apache-2.0
"""The queries of the simulated shop: how they are typed, and what they mean.

A query is a *part* before a noun (a word of a style, a colour, a brand, or nothing) and the noun of a leaf, or a brand
alone. Each may be typed with mistakes and capitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import RequestError
from seekrec.events.simulator.people import People
from seekrec.events.simulator.shelves import NUM_STYLES, Shelves, department_numbers
from seekrec.events.simulator.words import (
    COLOURS,
    LEAVES,
    PALETTES,
    STYLE_WORDS,
    WORDS_PER_STYLE,
    TypedWords,
)
from seekrec.schema import shown

# What stands before the noun; `BRAND_ALONE` stands without one.
NOTHING, STYLE_WORD, COLOUR, BRAND, BRAND_ALONE = range(5)
_KIND_SHARES = (0.3, 0.25, 0.2, 0.15, 0.1)
_SYNONYM_SHARE = 0.25
_MISTAKE_SHARE = 0.12
# In lower case up to the first, with capitals up to the second, then all in capitals.
_CASE_SHARES = (0.75, 0.93)
_CHINESE = 1
_ARABIC = 2


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries by what they mean, one entry per query.

    Args:
        kind (`np.ndarray`): int64: `NOTHING`, `STYLE_WORD`, `COLOUR`, `BRAND` or `BRAND_ALONE`.
        value (`np.ndarray`): int64: which word, colour or brand; 0 for `NOTHING`.
        leaf (`np.ndarray`): int64 leaf of the noun; -1 for `BRAND_ALONE`.
    """

    kind: np.ndarray
    value: np.ndarray
    leaf: np.ndarray


class Language:
    """All that can be typed in a shop, and what it means.

    Args:
        shelves ([`Shelves`]): What there is to ask for.
    """

    def __init__(self, shelves: Shelves) -> None:
        self._departments = department_numbers()
        leaves = LEAVES[: shelves.num_leaves]
        nouns = [name for leaf in leaves for name in (leaf.noun, leaf.synonym, leaf.chinese, leaf.arabic)]
        taken: set[str] = set(nouns) | set(STYLE_WORDS) | set(COLOURS)
        self.nouns = TypedWords(nouns, "", taken)
        parts = [*STYLE_WORDS, *COLOURS, *(brand.lower() for brand in shelves.brands)]
        self.parts = TypedWords(parts, " ", taken)
        # Nothing; then Chinese colours, which no space follows.
        self._first_typed = 1 + len(COLOURS)
        self._part_texts = pa.concat_arrays([pa.array(["", *COLOURS.values()], pa.string()), self.parts.texts])
        self._noun_texts = pa.concat_arrays([self.nouns.texts, pa.array([""], pa.string())])
        num_departments = int(shelves.department_of_brand.max()) + 1
        # Brands are numbered by department, then style.
        self._brands = np.arange(len(shelves.brands)).reshape(num_departments, NUM_STYLES, -1)

    def draw(self, draws: np.random.Generator, people: People, requests: np.ndarray) -> tuple[Queries, pa.Array]:
        """Draw what is typed in some searches.

        Args:
            draws (`np.random.Generator`): That of the block.
            people ([`People`]): Who asks.
            requests (`np.ndarray`): int64 numbers of the searches.

        Returns:
            `tuple`: [`Queries`] and the texts, one for each of `requests`.
        """
        count, user, leaf = len(requests), people.user[requests], people.leaf[requests]
        language = people.language[user]
        kind = np.searchsorted(np.cumsum(_KIND_SHARES)[:-1], draws.random(count), side="right")
        kind = np.where(language == _CHINESE, np.where(kind == COLOUR, COLOUR, NOTHING), kind)
        kind = np.where(language == _ARABIC, NOTHING, kind)
        style = pick(people.style_liking[user], draws.random(count))
        coin = draws.random(count)
        value = np.zeros(count, dtype=np.int64)
        value = np.where(kind == STYLE_WORD, style * WORDS_PER_STYLE + (coin * WORDS_PER_STYLE).astype(int), value)
        palette = PALETTES[style, (coin * PALETTES.shape[1]).astype(int)]
        value = np.where(kind == COLOUR, palette, value)
        brand = self._brands[self._departments[leaf], style, (coin * self._brands.shape[2]).astype(int)]
        value = np.where(kind >= BRAND, brand, value)

        form = np.where(language > 0, language + 1, draws.random(count) < _SYNONYM_SHARE)
        # A mistake is made in one of the words.
        coin = draws.random(count)
        mistake = (coin < _MISTAKE_SHARE) * (1 + (coin / _MISTAKE_SHARE * 3).astype(int).clip(0, 2))
        in_noun = (draws.random(count) < 0.5) | (kind == NOTHING)
        in_noun &= kind != BRAND_ALONE
        case = np.searchsorted(_CASE_SHARES, draws.random(count), side="right")
        noun = self.nouns.numbers(leaf * 4 + form, mistake * in_noun, case)
        noun[kind == BRAND_ALONE] = len(self.nouns.texts)
        starts = np.array([0, 0, len(STYLE_WORDS), len(STYLE_WORDS) + len(COLOURS)])[np.minimum(kind, BRAND)]
        part = self._first_typed + self.parts.numbers(starts + value, mistake * ~in_noun, case)
        part = np.where((language == _CHINESE) & (kind == COLOUR), 1 + value, part)
        part[kind == NOTHING] = 0
        texts = pc.binary_join_element_wise(
            self._part_texts.take(pa.array(part)), self._noun_texts.take(pa.array(noun)), ""
        )
        texts = pc.utf8_rtrim(texts, characters=" ")
        return Queries(kind, value, np.where(kind == BRAND_ALONE, -1, leaf)), texts

    def understand(self, texts: list[str]) -> Queries:
        """Find what queries mean.

        Args:
            texts (`list[str]`): Queries of this shop, as typed.

        Raises:
            RequestError: If a query is none that its users type.
        """
        return Queries(*np.array([self._meaning(text) for text in texts], dtype=np.int64).reshape(-1, 3).T)

    def _meaning(self, text: str) -> tuple[int, int, int]:
        nouns, parts = self._meanings
        if text in nouns:
            return NOTHING, 0, nouns[text]
        if text + " " in parts:
            kind, value = parts[text + " "]
            if kind == BRAND:
                return BRAND_ALONE, value, -1
        for place in range(1, len(text)):
            part, noun = text[:place], text[place:]
            if noun in nouns and part in parts:
                return *parts[part], nouns[noun]
        raise RequestError(
            f"The query {shown(text)} does not occur in this simulated shop; ask about searches of its own log."
        )

    @cached_property
    def _meanings(self) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
        """The leaf of each noun, and kind and value of each part, as typed."""
        nouns = {text: number // 4 for text, number in self.nouns.meanings().items()}
        parts = {name: (COLOUR, value) for value, name in enumerate(COLOURS.values())}
        for text, number in self.parts.meanings().items():
            if number < len(STYLE_WORDS):
                parts[text] = STYLE_WORD, number
            elif number < len(STYLE_WORDS) + len(COLOURS):
                parts[text] = COLOUR, number - len(STYLE_WORDS)
            else:
                parts[text] = BRAND, number - len(STYLE_WORDS) - len(COLOURS)
        return nouns, parts


def pick(weights: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Pick a column of each row, in proportion to its weight.

    Args:
        weights (`np.ndarray`): float64 `(count, num_columns)`.
        fraction (`np.ndarray`): float64 `(count,)`, uniform from 0 to 1.

    Returns:
        `np.ndarray`: int64 `(count,)`.
    """
    return pick_by_totals(np.cumsum(weights, axis=1), fraction)


def pick_by_totals(totals: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Pick as [`pick`] does, from cumulative weights."""
    # A sum over few columns is fastest column by column.
    threshold = fraction * totals[:, -1]
    if totals.shape[1] > NUM_STYLES:
        return (totals[:, :-1] < threshold[:, None]).sum(axis=1)
    return sum((totals[:, column] < threshold for column in range(totals.shape[1] - 1)), np.zeros(len(totals), int))


__all__ = ["BRAND", "BRAND_ALONE", "COLOUR", "NOTHING", "STYLE_WORD", "Language", "Queries", "pick", "pick_by_totals"]
