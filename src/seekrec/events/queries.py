# SPDX-License-Identifier: Apache-2.0
"""Synthetic searches for logs without any: queries from category paths, and two ways to add them to a log.

The queries are those of Ai et al., "Learning a Hierarchical Embedding Model for Personalized Product Search" (SIGIR
2017), with two differences: there is no Krovetz stemmer, so words keep their endings, and no cut to the words that
reviews use. They are synthetic: `EventLog.query_source` becomes `"category"`, and every report must say so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import Source, check_choice, find_event_problems, refuse
from seekrec.events.columns import impression_mask
from seekrec.events.log import EventLog
from seekrec.schema import MAX_QUERY_CHARACTERS, RECOMMENDATION, SEARCH
from seekrec.util.arrow import is_list, is_text, one_array, to_lists

Construction = Literal["split", "copy"]

# Function words of English and single letters, which are what is left of "3D" or "men's" without its other characters.
STOP_WORDS = frozenset(
    "about above after again against all also although always am among an and another any are around as at be "
    "because been before being below between both but by can cannot could did do does doing down during each "
    "either else etc even ever every few for from further had has have having he her here hers him his how "
    "however if in into is it its itself just least less many may me might mine more most much must my neither "
    "never no nor not now of off often on once only onto or other others our ours out over own per quite rather "
    "same shall she should since so some such than that the their theirs them then there these they this those "
    "though through thus to too toward towards under until up upon us very via was we were what when where "
    "whether which while who whom whose why will with within without would yet you your yours".split()
) | frozenset("abcdefghijklmnopqrstuvwxyz")

_LETTERS_AND_SPACES = re.compile(r"[^\W\d_]+|( )")


def category_queries(items: pa.Table) -> list[list[str]]:
    """Make queries from the category paths of items.

    For each path: join the names with spaces, delete every character that is not a letter ("Sci-Fi" becomes "scifi"),
    use lower case, leave out stop words, and of equal words keep the last. Paths of one level make no query, equal
    queries of one item are given once, and a query longer than `MAX_QUERY_CHARACTERS` is left out.

    Items may bring their own queries in a column `queries` (lists of text; the MovieLens reader does): then these are
    given and the paths are not looked at.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.

    Returns:
        `list[list[str]]`: The queries of each row; an empty list where there are none.

    Raises:
        DataError: If a column `queries` contains anything else than lists of text, or a text that can be no query.

    Example:
    ```python
    >>> import pyarrow as pa
    >>> category_queries(pa.table({"categories": [[["Tools & Home", "Power Tools", "Cordless Drills"]], None]}))
    [['home power tools cordless drills'], []]

    ```
    """
    if "queries" in items.column_names:
        return _own_queries(items)
    paths = one_array(items["categories"]).cast(pa.list_(pa.list_(pa.string())))
    num_paths = pc.fill_null(pc.list_value_length(paths), 0).to_numpy(zero_copy_only=False)
    flat = paths.flatten()
    num_levels = pc.fill_null(pc.list_value_length(flat), 0).to_numpy(zero_copy_only=False)
    # A null name would make the whole path null: it counts as no text.
    names = to_lists(pc.fill_null(flat.flatten(), ""), num_levels)
    joined = pc.binary_join(names, " ").dictionary_encode()
    query_of_path = [_path_to_query(path) for path in joined.dictionary.to_pylist()]
    has_levels = (num_levels > 1).tolist()
    of_path = [
        query_of_path[code] if deep else None
        for code, deep in zip(joined.indices.to_pylist(), has_levels, strict=True)
    ]
    ends = np.cumsum(num_paths).tolist()
    return [
        list(dict.fromkeys(query for query in of_path[end - count : end] if query))
        for end, count in zip(ends, num_paths.tolist(), strict=True)
    ]


def synthesize_searches(
    log: EventLog, *, construction: Construction = "split", search_fraction: float = 0.5, seed: int = 0
) -> EventLog:
    """Turn interactions of a log without searches into searches, each with a query of its item.

    Which query of [`category_queries`] an event gets is drawn with equal chances from the seed. Events with items that
    have no query, and impressions (which nobody searched for), stay as they are.

    Args:
        log (`EventLog`): A log whose `query_source` is `"none"`.
        construction (`str`):
            `"split"`: each event either becomes a search or stays a recommendation, by a coin; nothing counts twice.
            `"copy"`: each event counts as both, the recommendation first, at the same timestamp, as in published
            work. The same act is then seen in both tasks: compare such results only with each other.
        search_fraction (`float`): Chance of a search, from 0 to 1; of `"split"` only.
        seed (`int`): Seed of the coin and of the choice of queries.

    Returns:
        `EventLog`: The log with searches, `query_source` `"category"` and a note that says what was done. Without any
            search (`search_fraction=0`) it is still `"none"`.

    Raises:
        DataError: If the log has searches already, or no item has a query.
        ConfigurationError: If `construction` or `search_fraction` is out of range.
    """
    check_choice("construction", construction, ("split", "copy"))
    if not 0.0 <= search_fraction <= 1.0:
        raise ConfigurationError(f"`search_fraction` is {search_fraction!r}; give a chance from 0 to 1.")
    queries = ItemQueries.of(log)
    num_acts = int((~impression_mask(log.events)).sum())
    generator = np.random.default_rng(seed)
    coin, choice = generator.random(num_acts), generator.random(num_acts)
    events, counts = add_searches(
        log.events, queries, coin, choice, construction=construction, search_fraction=search_fraction
    )
    note = counts.note(construction, search_fraction, seed)
    return replace(log, events=events, query_source=counts.query_source, notes=(*log.notes, note), is_checked=True)


@dataclass(frozen=True, eq=False)
class ItemQueries:
    """The queries of all items, end to end.

    Args:
        item_ids (`pyarrow.Array`): The items.
        texts (`pyarrow.Array`): The queries of the first item, then those of the second, ...
        counts (`np.ndarray`): int64 number of queries of each item.
    """

    item_ids: pa.Array
    texts: pa.Array
    counts: np.ndarray

    @classmethod
    def of(cls, log: LogWithItems) -> ItemQueries:
        """Make the queries of a log's items; see [`category_queries`].

        Raises:
            DataError: If the log has searches already, or no item has a query.
        """
        if log.query_source != "none":
            raise DataError(
                f"Log {log.name!r} has searches already (`query_source` is {log.query_source!r}); use it as it is, or "
                "remove its searches first."
            )
        queries = category_queries(log.items)
        counts = np.array([len(of_item) for of_item in queries], dtype=np.int64)
        if not counts.any():
            raise DataError(
                f"No item of log {log.name!r} has a category path of two or more levels or a column `queries`, so "
                "there is nothing to make queries from; train on recommendations only."
            )
        texts = pa.array([query for of_item in queries for query in of_item], pa.string())
        return cls(one_array(log.items["item_id"]), texts, counts)


class LogWithItems(Protocol):
    """What the queries of a log are made from."""

    @property
    def name(self) -> str:
        """Name of the data set."""

    @property
    def query_source(self) -> str:
        """Where its queries are from."""

    @property
    def items(self) -> pa.Table:
        """Its items."""


@dataclass(frozen=True)
class SearchCounts:
    """What [`add_searches`] made of some events.

    Args:
        num_searches (`int`): Searches.
        num_others (`int`): Recommendations.
        num_without (`int`): Interactions whose item has no query.
    """

    num_searches: int
    num_others: int
    num_without: int

    @property
    def query_source(self) -> Literal["category", "none"]:
        """The `query_source` of the log."""
        return "category" if self.num_searches else "none"

    def note(self, construction: Construction, search_fraction: float, seed: int) -> str:
        """Say what was done, for the notes of the log."""
        how = (
            f"each interaction became a search with chance {search_fraction:g}"
            if construction == "split"
            else "each interaction counts both as a recommendation and as a search"
        )
        return (
            f"Synthetic queries from categories, construction {construction!r}, seed {seed}: {how}; "
            f"{self.num_searches} searches, {self.num_others} {RECOMMENDATION}s; {self.num_without} interactions had "
            "no query to take."
        )


def add_searches(
    events: pa.Table,
    queries: ItemQueries,
    coin: np.ndarray,
    choice: np.ndarray,
    *,
    construction: Construction,
    search_fraction: float = 0.5,
) -> tuple[pa.Table, SearchCounts]:
    """Turn events into searches, as [`synthesize_searches`] says.

    Args:
        events (`pyarrow.Table`): Events without searches.
        queries ([`ItemQueries`]): The queries of the log's items.
        coin (`np.ndarray`): float64 from 0 to 1 for each act, drawn for acts alone: what was merely shown together
            with them changes no draw.
        choice (`np.ndarray`): The same, for the choice of a query.
        construction (`str`): See [`synthesize_searches`].
        search_fraction (`float`): See [`synthesize_searches`].

    Returns:
        `tuple[pyarrow.Table, SearchCounts]`: The events, those of one time in order, and their numbers.
    """
    item_row = pc.index_in(events["item_id"], value_set=queries.item_ids).to_numpy()
    is_act = ~impression_mask(events)
    num_queries = queries.counts[item_row]
    may_search = (num_queries > 0) & is_act
    coins, choices = np.ones(len(events)), np.zeros(len(events))
    coins[is_act], choices[is_act] = coin, choice
    is_search = may_search & (coins < search_fraction) if construction == "split" else may_search
    rows = np.flatnonzero(is_search)
    first_query = (np.cumsum(queries.counts) - queries.counts)[item_row[rows]]
    chosen = first_query + (choices[rows] * num_queries[rows]).astype(np.int64)
    changed = {"behavior": pa.repeat(SEARCH, len(rows)), "query": queries.texts.take(pa.array(chosen))}
    searches = _set_columns(events.take(pa.array(rows)), changed)
    refuse(searches, find_event_problems(searches, queries.item_ids), Source("the synthetic searches"))
    others = events.filter(pa.array(~is_search)) if construction == "split" else events
    # Both parts keep their order; the log's stable sort puts them back together, recommendations first at equal times.
    both = pa.concat_tables([others, searches])
    if construction == "split":
        order = np.argsort(np.concatenate([np.flatnonzero(~is_search), rows]), kind="stable")
        both = both.take(pa.array(order))
    return both, SearchCounts(len(rows), others.num_rows, int((is_act & ~may_search).sum()))


def _path_to_query(path: str) -> str | None:
    """Turn the joined names of one path into a query; `None` if nothing is left or too much."""
    letters = "".join(
        match.group() for match in _LETTERS_AND_SPACES.finditer(path.replace("\t", " ").replace("\n", " "))
    )
    words = [word for word in letters.lower().split() if word not in STOP_WORDS]
    # dict keeps the first of equal keys, so the words go in from the back.
    query = " ".join(reversed(dict.fromkeys(reversed(words))))
    return query if 0 < len(query) <= MAX_QUERY_CHARACTERS else None


def _own_queries(items: pa.Table) -> list[list[str]]:
    column = items["queries"]
    if not is_list(column.type) or not is_text(column.type.value_type):
        raise DataError(f"Column 'queries' of `items` has type {column.type}; it must contain lists of text.")
    queries = column.to_pylist()
    for row, of_item in enumerate(queries):
        for query in of_item or []:
            if not query or not query.strip() or len(query) > MAX_QUERY_CHARACTERS:
                raise DataError(
                    f"`items` row {row} (from 0): column 'queries' contains {query!r:.60}; a query has 1 to "
                    f"{MAX_QUERY_CHARACTERS} characters, at least one of them visible. Leave it out."
                )
    return [of_item or [] for of_item in queries]


def _set_columns(table: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table
