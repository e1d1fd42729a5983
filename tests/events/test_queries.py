# SPDX-License-Identifier: Apache-2.0
"""Queries from category paths (rules of Ai et al. 2017) and the two constructions."""

import numpy as np
import pyarrow as pa
import pytest

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import EventLog, category_queries, synthesize_searches


def queries_of(*paths_of_items):
    return category_queries(pa.table({"categories": pa.array(paths_of_items, pa.list_(pa.list_(pa.string())))}))


@pytest.mark.parametrize(
    ("path", "query"),
    [
        # Lower case, "&" deleted, "and" is a stop word.
        (["Home & Kitchen", "Pots and Pans"], "home kitchen pots pans"),
        # Characters that are no letters are deleted, not replaced: words grow together, digits leave nothing.
        (["Films", "Sci-Fi", "Children's"], "films scifi childrens"),
        (["Audio", "2-in-1 Cables", "100"], "audio cables"),
        # "3D" leaves the single letter d, which is a stop word.
        (["3D Printing", "Filament"], "printing filament"),
        # Of equal words the last is kept: industrial moves behind scientific.
        (["Industrial & Scientific", "Industrial Electrical"], "scientific industrial electrical"),
        (["A", "B B"], None),
        (["Books", "The Books"], "books"),
        # One level makes no query, neither do names without letters.
        (["Books"], None),
        (["1", "2"], None),
        ([], None),
        (["Küche", "Töpfe"], "küche töpfe"),
        (["Books", None, "Crime"], "books crime"),
        # 167 words of five letters, 166 spaces between: 5 * 167 + 166 = 1001 characters, one too many.
        (["Books", " ".join(f"{chr(97 + i % 26)}{chr(97 + i // 26)}xyz" for i in range(166))], None),
    ],
)
def test_the_rules(path, query):
    assert queries_of([path]) == [[query] if query else []]


def test_the_longest_query_is_kept():
    # 166 different words of five letters, one of four, 166 spaces between: 5 * 166 + 4 + 166 = 1000.
    words = " ".join(f"{chr(97 + i % 26)}{chr(97 + i // 26)}xyz" for i in range(166))
    assert [len(query) for query in queries_of([["Book", words]])[0]] == [1000]


def test_one_query_a_path_and_equal_ones_once():
    assert queries_of(
        [["Toys", "Cars"], ["Games"], ["Games", "Board"], ["Toys", "Cars!"]],
        None,
        [],
        [None, ["Games", "Board"]],
    ) == [["toys cars", "games board"], [], [], ["games board"]]


def test_categories_without_any_path():
    assert category_queries(pa.table({"categories": pa.nulls(2)})) == [[], []]


def test_items_may_bring_their_own_queries():
    items = pa.table({"categories": [[["Toys", "Cars"]], None], "queries": [["red car", "toy"], None]})
    assert category_queries(items) == [["red car", "toy"], []]
    with pytest.raises(
        DataError, match="Column 'queries' of `items` has type list<item: int64>; it must contain lists of"
    ):
        category_queries(pa.table({"queries": [[1]]}))
    with pytest.raises(
        DataError, match="`items` row 1 .from 0.: column 'queries' contains ' '; a query has 1 to 1000"
    ):
        category_queries(pa.table({"queries": [["a"], [" "]]}))


def make_log(num_events=2000):
    """One user, item a (two queries), b (none) and c (one) in turn, two events a second; each fifth an impression."""
    items = pa.table(
        {
            "item_id": ["a", "b", "c"],
            "title": ["A", "B", "C"],
            "categories": pa.array(
                [[["Toys", "Cars"], ["Toys", "Trucks"]], None, [["Books", "Crime"]]], pa.list_(pa.list_(pa.string()))
            ),
        }
    )
    number = np.arange(num_events)
    events = pa.table(
        {
            "user_id": ["u"] * num_events,
            "item_id": np.array(["a", "b", "c"])[number % 3],
            "timestamp": number // 2,
            "action": np.where(number % 5 == 0, "impression", "click"),
            "number": number,
        }
    )
    return EventLog("toy", events, items)


def test_split_tells_everything_once():
    log = make_log()
    searched = synthesize_searches(log, seed=1)
    events = searched.events.to_pylist()
    # Same rows, same order: only behavior and query change.
    assert searched.events.drop_columns(["behavior", "query"]).equals(log.events.drop_columns(["behavior", "query"]))
    searches = [event for event in events if event["behavior"] == "search"]
    assert {event["query"] for event in searches if event["item_id"] == "a"} == {"toys cars", "toys trucks"}
    assert {event["query"] for event in searches if event["item_id"] == "c"} == {"books crime"}
    assert {event["item_id"] for event in searches} == {"a", "c"}
    assert all(event["action"] == "click" for event in searches)
    assert all(event["query"] is None for event in events if event["behavior"] == "recommendation")
    # Of 2000 events two thirds have an item with a query and four fifths of those are no impressions: about 1067 may
    # be searches, half are. Five standard deviations of that coin are 5 * sqrt(1067) / 2 = 82.
    assert abs(len(searches) - 533) < 82
    cars = sum(event["query"] == "toys cars" for event in searches)
    trucks = sum(event["query"] == "toys trucks" for event in searches)
    assert abs(cars - trucks) < 5 * (cars + trucks) ** 0.5
    assert searched.query_source == "category"
    assert "construction 'split', seed 1: each interaction became a search with chance 0.5" in searched.notes[-1]


def test_copy_tells_everything_twice():
    log = make_log(30)
    searched = synthesize_searches(log, construction="copy")
    # Items a and c in clicks: of 30 rows 20 have them, 4 of those 20 are impressions (rows 0, 5, 15, 20; 10 and 25 are
    # of item b).
    assert searched.num_events == 30 + 16
    told = [(event["number"], event["behavior"]) for event in searched.events.to_pylist()]
    assert sorted(number for number, behavior in told if behavior == "recommendation") == list(range(30))
    # Rows 2 and 3 have one timestamp: both recommendations come first, then the searches.
    assert told[2:7] == [
        (2, "recommendation"),
        (3, "recommendation"),
        (2, "search"),
        (3, "search"),
        (4, "recommendation"),
    ]
    assert "counts both as a recommendation and as a search" in searched.notes[-1]


def test_seed_and_fraction():
    log = make_log(200)
    assert synthesize_searches(log, seed=3).fingerprint == synthesize_searches(log, seed=3).fingerprint
    assert synthesize_searches(log, seed=3).fingerprint != synthesize_searches(log, seed=4).fingerprint
    everything = synthesize_searches(log, search_fraction=1.0).describe()["num_events_by_behavior"]
    assert everything["search"] == synthesize_searches(log, construction="copy").num_events - 200
    nothing = synthesize_searches(log, search_fraction=0.0)
    assert nothing.query_source == "none"
    assert nothing.fingerprint == log.fingerprint


def test_what_is_refused():
    log = make_log(30)
    with pytest.raises(ConfigurationError, match="`construction` is 'both'; use one of 'split', 'copy'"):
        synthesize_searches(log, construction="both")
    with pytest.raises(ConfigurationError, match="`search_fraction` is 1.5; give a chance from 0 to 1"):
        synthesize_searches(log, search_fraction=1.5)
    with pytest.raises(DataError, match="Log 'toy' has searches already .`query_source` is 'category'"):
        synthesize_searches(synthesize_searches(log))
    bare = EventLog("bare", log.events, log.items.drop_columns(["categories"]))
    with pytest.raises(DataError, match="No item of log 'bare' has a category path of two or more levels"):
        synthesize_searches(bare)
