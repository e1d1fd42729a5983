# SPDX-License-Identifier: Apache-2.0
"""What validation chooses of views besides their weights: how words of items are weighed, and neighbours are read.

All ways are scored beside each other in one pass over the cases, and what is chosen comes of these scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from seekrec.catalog import Catalog
from seekrec.evaluation.likely_weights import (
    ENOUGH_CASES,
    ScoredCases,
    fit_factors,
    move_weights,
    weights_of,
)
from seekrec.models.views import LEXICAL_CHOICES, Views
from seekrec.schema import SEARCH, Behavior

# Ways to read neighbours that are compared by the answers to which they lead.
_NUM_LIKELIEST = 8
# Views that say nothing without a query.
_READ_QUERIES = ("lexical", "query_log")


@dataclass(frozen=True)
class ViewChoices:
    """Views of a catalogue, and the ways in which two of them may be made.

    Args:
        views ([`Views`]): All views, as they are without a choice.
        words (`Sequence[Views]`): The views with words weighed in each of the ways.
        neighbors (`Sequence[Views]`): Neighbours alone, read in each of the ways.
    """

    views: Views
    words: Sequence[Views]
    neighbors: Sequence[Views]

    @classmethod
    def of(cls, views: Views, catalog: Catalog) -> ViewChoices:
        """List the ways that there are for the items of a catalogue."""
        words = [views.with_words(catalog.items, settings) for settings in LEXICAL_CHOICES]
        nearest = views.item_knn
        ways = [] if nearest is None else nearest.choices()
        alone = replace(views, recommender=None, lexical=None, query_log=None)
        return cls(views, [one for one in words if one is not None], [replace(alone, item_knn=way) for way in ways])

    def names(self, catalog: Catalog, behavior: Behavior) -> list[str]:
        """Return the views that are weighed for a task."""
        there = (self.words[0] if self.words else self.views).names(catalog)
        return [name for name in there if behavior == SEARCH or name not in _READ_QUERIES]

    def asked(self, names: Sequence[str]) -> dict[str, tuple[Views, Mapping[str, float]]]:
        """Return each of these views in each of its ways: by name, what holds it and its weight."""
        ways = {"lexical": self.words, "item_knn": self.neighbors}
        return {
            self._key(name, number): (way, {name: 1.0})
            for name in names
            for number, way in enumerate(ways.get(name, [self.views]))
        }

    def scores(self, scored: ScoredCases, names: Sequence[str], words: int, neighbors: int | None) -> ScoredCases:
        """Return what these views say in one way each, of all that was asked.

        Args:
            scored ([`ScoredCases`]): Of what `asked` returned.
            names (`Sequence[str]`): Views.
            words (`int`): The way to weigh words, of `self.words`.
            neighbors (`int`, *optional*): The way to read neighbours, of `self.neighbors`.
        """
        numbers = {"lexical": words, "item_knn": neighbors or 0}
        return replace(scored, added={name: scored.added[self._key(name, numbers.get(name, 0))] for name in names})

    def choose_neighbors(
        self, scored: Mapping[Behavior, ScoredCases], names: Mapping[Behavior, Sequence[str]], unit: float
    ) -> int | None:
        """Return the way to read neighbours by which all tasks are answered best; `None` for no case.

        It is the one with the best NDCG@10, at weights moved to where that is best, of the eight in which the targets
        are likeliest; the likeliest of all where there are few cases.

        Args:
            scored (`Mapping`): By task, what `asked` returned of `names`.
            names (`Mapping`): By task, its views.
            unit (`float`): As for [`likely_weights`].
        """
        if not scored or not self.neighbors:
            return None
        ways = range(len(self.neighbors))
        lines = [{task: self.scores(own, names[task], 0, way) for task, own in scored.items()} for way in ways]
        fits = [{task: fit_factors(line, names[task], unit=unit) for task, line in of_way.items()} for of_way in lines]

        def loss(way: int) -> float:
            return sum(len(line.own) * fits[way][task][1] for task, line in lines[way].items())

        def found(way: int) -> float:
            likely = {task: weights_of(factors, names[task]) for task, (factors, _) in fits[way].items()}
            return sum(float(line.values(move_weights(line, likely[task])).sum()) for task, line in lines[way].items())

        likeliest = sorted(ways, key=loss)
        is_few = sum(len(own.own) for own in scored.values()) < ENOUGH_CASES
        return likeliest[0] if is_few else max(likeliest[:_NUM_LIKELIEST], key=found)

    def chosen(self, words: int, neighbors: int | None) -> Views:
        """Return the views, each made in one of its ways; neighbours as they are where none is named."""
        made = self.words[words] if self.words else self.views
        return made if neighbors is None else replace(made, item_knn=self.neighbors[neighbors].item_knn)

    def _key(self, name: str, number: int) -> str:
        return f"{name} {number}"


__all__ = ["ViewChoices"]
