# SPDX-License-Identifier: Apache-2.0
"""The options for weighting words of items, of which validation chooses one along with the weights of views.

All options are scored in one pass over the cases, and the choice is made from these scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from seekrec.catalog import Catalog
from seekrec.evaluation.likely_weights import ScoredCases
from seekrec.models.views import LEXICAL_CHOICES, Views
from seekrec.schema import SEARCH, Behavior

# Views that say nothing without a query.
_READ_QUERIES = ("lexical", "query_log")


@dataclass(frozen=True)
class ViewChoices:
    """Views of a catalogue, and the ways in which its words may be weighed.

    Args:
        views ([`Views`]): All views, as they are without a choice.
        words (`Mapping[int, Views]`): By its number, the views with words weighed in each of the ways.
    """

    views: Views
    words: Mapping[int, Views]

    @classmethod
    def of(cls, views: Views, catalog: Catalog) -> ViewChoices:
        """List the ways that there are for the items of a catalogue; of one that has grown, for those of the views."""
        items = catalog.items if len(catalog) == views.num_items else catalog.items.slice(0, views.num_items)
        words = [views.with_words(items, settings) for settings in LEXICAL_CHOICES]
        return cls(views, dict(enumerate(one for one in words if one is not None)))

    def narrow(self, words: int | None) -> ViewChoices:
        """Return what is left once the way to weigh words is chosen, if there is one."""
        return self if words is None else ViewChoices(self.words[words], {words: self.words[words]})

    def names(self, catalog: Catalog, behavior: Behavior) -> list[str]:
        """Return the views that are weighed for a task."""
        there = next(iter(self.words.values()), self.views).names(catalog)
        return [name for name in there if behavior == SEARCH or name not in _READ_QUERIES]

    def asked(self, names: Sequence[str]) -> dict[str, tuple[Views, Mapping[str, float]]]:
        """Return each of these views, that of words in each of its ways: by name, what holds it and its weight."""
        return {
            self._key(name, number): (way, {name: 1.0})
            for name in names
            for number, way in (self.words if name == "lexical" else {0: self.views}).items()
        }

    def scores(self, scored: ScoredCases, names: Sequence[str], words: int | None) -> ScoredCases:
        """Return what these views say in one way each, of all that was asked.

        Args:
            scored ([`ScoredCases`]): Of what `asked` returned.
            names (`Sequence[str]`): Views.
            words (`int`, *optional*): The way to weigh words, of `self.words`.
        """
        return replace(scored, added={name: scored.added[self._key(name, words or 0)] for name in names})

    def _key(self, name: str, number: int) -> str:
        return f"{name} {number}" if name == "lexical" else name


__all__ = ["ViewChoices"]
