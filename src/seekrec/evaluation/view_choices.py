# SPDX-License-Identifier: Apache-2.0
"""What validation chooses of views besides their weights: how words of items are weighed, and neighbours are read.

All ways are scored beside each other in one pass over the cases, and what is chosen comes of these scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from seekrec.catalog import Catalog
from seekrec.evaluation.likely_weights import ENOUGH_CASES, ScoredCases, fit_factors, move_weights, weights_of
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
        words (`Mapping[int, Views]`): By its number, the views with words weighed in each of the ways.
        neighbors (`Mapping[int, Views]`): By its number, neighbours alone, read in each of the ways.
    """

    views: Views
    words: Mapping[int, Views]
    neighbors: Mapping[int, Views]

    @classmethod
    def of(cls, views: Views, catalog: Catalog) -> ViewChoices:
        """List the ways that there are for the items of a catalogue."""
        words = [views.with_words(catalog.items, settings) for settings in LEXICAL_CHOICES]
        nearest = views.item_knn
        ways = [] if nearest is None else nearest.choices()
        alone = replace(views, recommender=None, lexical=None, query_log=None)
        there = (one for one in words if one is not None)
        return cls(views, dict(enumerate(there)), {way: replace(alone, item_knn=own) for way, own in enumerate(ways)})

    def narrow(self, words: int | None, neighbors: Collection[int]) -> ViewChoices:
        """Return what there is to choose with words weighed in one way, and neighbours read in some of the ways."""
        kept = {number: way for number, way in self.words.items() if number == words}
        return ViewChoices(self.views, kept, {way: self.neighbors[way] for way in neighbors})

    def names(self, catalog: Catalog, behavior: Behavior) -> list[str]:
        """Return the views that are weighed for a task."""
        there = next(iter(self.words.values()), self.views).names(catalog)
        return [name for name in there if behavior == SEARCH or name not in _READ_QUERIES]

    def asked(self, names: Sequence[str]) -> dict[str, tuple[Views, Mapping[str, float]]]:
        """Return each of these views in each of its ways: by name, what holds it and its weight."""
        ways = {"lexical": self.words, "item_knn": self.neighbors}
        return {
            self._key(name, number): (way, {name: 1.0})
            for name in names
            for number, way in ways.get(name, {0: self.views}).items()
        }

    def scores(
        self, scored: ScoredCases, names: Sequence[str], words: int | None, neighbors: int | None
    ) -> ScoredCases:
        """Return what these views say in one way each, of all that was asked.

        Args:
            scored ([`ScoredCases`]): Of what `asked` returned.
            names (`Sequence[str]`): Views.
            words (`int`, *optional*): The way to weigh words, of `self.words`.
            neighbors (`int`, *optional*): The way to read neighbours, of `self.neighbors`.
        """
        numbers = {"lexical": words or 0, "item_knn": neighbors or 0}
        return replace(scored, added={name: scored.added[self._key(name, numbers.get(name, 0))] for name in names})

    def likeliest_neighbors(
        self,
        scored: Mapping[Behavior, ScoredCases],
        names: Mapping[Behavior, Sequence[str]],
        words: int | None,
        unit: float,
    ) -> list[int]:
        """Return the eight ways to read neighbours in which the targets of all tasks are likeliest, the best first.

        Args:
            scored (`Mapping`): By task, what `asked` returned of `names`; without one there is no way.
            names (`Mapping`): By task, its views.
            words (`int`, *optional*): The way to weigh words.
            unit (`float`): As for [`likely_weights`].
        """

        def loss(way: int) -> float:
            lines = {task: self.scores(own, names[task], words, way) for task, own in scored.items()}
            return sum(len(line.own) * fit_factors(line, names[task], unit=unit)[1] for task, line in lines.items())

        losses = {way: loss(way) for way in self.neighbors} if scored else {}
        return sorted(losses, key=losses.__getitem__)[:_NUM_LIKELIEST]

    def best_neighbors(
        self,
        sampled: Mapping[Behavior, ScoredCases],
        scored: Mapping[Behavior, ScoredCases],
        names: Mapping[Behavior, Sequence[str]],
        words: int | None,
        unit: float,
    ) -> int | None:
        """Return the way to read neighbours by which all tasks are answered best, with weights moved for each.

        It is the first where there are few cases; `None` where there is no way.

        Args:
            sampled (`Mapping`): As for `likeliest_neighbors`: the cases that weights are likely by.
            scored (`Mapping`): By task, all cases: by their NDCG@10 weights are moved and ways compared.
            names (`Mapping`): By task, its views.
            words (`int`, *optional*): The way to weigh words.
            unit (`float`): As for [`likely_weights`].
        """

        def found(way: int) -> float:
            value = 0.0
            for task, own in scored.items():
                sample, line = (self.scores(one, names[task], words, way) for one in (sampled[task], own))
                likely = weights_of(fit_factors(sample, names[task], unit=unit)[0], names[task])
                value += float(line.values(move_weights(line, likely)).sum())
            return value

        is_few = sum(len(own.own) for own in scored.values()) < ENOUGH_CASES
        return next(iter(self.neighbors), None) if is_few else max(self.neighbors, key=found, default=None)

    def chosen(self, words: int | None, neighbors: int | None) -> Views:
        """Return the views, each made in one of its ways; as they are where none is named."""
        made = self.views if words is None else self.words[words]
        return made if neighbors is None else replace(made, item_knn=self.neighbors[neighbors].item_knn)

    def _key(self, name: str, number: int) -> str:
        return f"{name} {number}"


__all__ = ["ViewChoices"]
