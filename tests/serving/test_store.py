# SPDX-License-Identifier: Apache-2.0
"""The store, on SQLite and on PostgreSQL: what is sent twice is kept once, what is refused leaves nothing."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pytest
from databases import running_postgres
from sqlalchemy import create_engine, inspect, text

from seekrec.errors import ConfigurationError, DataError
from seekrec.schema import Event
from seekrec.serving import schema_versions
from seekrec.serving.store import ConflictError, ItemChange, State, Store, StoredEvent


@pytest.fixture(scope="session")
def postgres():
    with running_postgres() as make_database:
        yield make_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    return request.getfixturevalue("postgres")()


def act(event_id, user_id="ann", item_id="i1", timestamp=1, **more):
    return StoredEvent(event_id, user_id, Event(item_id, timestamp=timestamp, **more))


def test_events_are_kept_once_in_the_order_in_which_they_came(url):
    store = Store(url)
    first = [act("1"), act("2", "bob"), act("3", item_id="i2", timestamp=0)]
    assert store.append_events(first) == 3
    assert store.append_events([*first, act("4", item_id=None, behavior="search", query="白色 🪑")]) == 1
    expected = [(1, Event("i1", timestamp=1)), (2, Event("i2", timestamp=0))]
    expected.append((3, Event(None, "search", 1, "白色 🪑")))
    assert store.events_after("ann", 0, 10) == expected
    assert store.events_after("ann", 0, 2) == expected[1:]  # the latest
    assert store.events_after("ann", 2, 10) == expected[2:]
    assert store.events_after("nobody", 0, 10) == []
    # An id that is another event's: nothing of the batch is kept.
    for batch in ([act("5"), act("1", timestamp=9)], [act("5"), act("5", timestamp=9)]):
        with pytest.raises(ConflictError, match="give each its own"):
            store.append_events(batch)
    assert len(store.events_after("ann", 0, 10)) == 3
    store.close()
    again = Store(url)
    assert again.events_after("ann", 0, 10) == expected
    again.close()


def test_writers_at_once_leave_no_gap_and_lose_nothing(url):
    stores = [Store(url), Store(url)]

    def write(number):
        batch = [
            act(f"{number}-{one}", user, timestamp=number) for user in ("ann", "bob") for one in (user + "1", user)
        ]
        return stores[number % 2].append_events(batch if number % 3 else batch[::-1])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(write, range(24))) == [4] * 24
    for user in ("ann", "bob"):
        found = stores[0].events_after(user, 0, 1000)
        assert [number for number, _ in found] == list(range(1, 49))
        assert sorted(event.timestamp for _, event in found) == sorted([*range(24)] * 2)
    for store in stores:
        store.close()


def test_of_changes_made_from_one_version_one_is_kept(url):
    one, other = Store(url), Store(url)
    assert one.state() == State(0, None)
    lamp, pan = ItemChange("lamp", {"title": "Lamp", "price": 3}, False), ItemChange("pan", {"title": "Pan"}, False)
    assert one.commit_changes(0, [lamp], "m1", {"lamp": (24, b"parts")}) == 1
    assert other.commit_changes(0, [pan], "m1", {"pan": (24, b"others")}) is None
    assert other.changes_after(0) == (1, [lamp])
    assert other.commit_changes(1, [pan], "m1", {"pan": (25, b"others")}) == 2
    # Columns that a change does not name stay; what changed later comes, in the order in which items were added.
    assert one.commit_changes(2, [ItemChange("lamp", {"price": 4}, True)], "m1", {}) == 3
    gone = ItemChange("lamp", {"title": "Lamp", "price": 4}, True)
    assert other.changes_after(0) == (3, [gone, pan])
    assert other.changes_after(2) == (3, [gone])
    assert other.changes_after(3) == (3, [])
    assert one.placements("m1", ["lamp", "pan", "tray"]) == {"lamp": (24, b"parts"), "pan": (25, b"others")}
    assert one.placements("m2", ["lamp"]) == {}
    one.set_model("second")
    assert other.state() == State(3, "second")
    one.close()
    other.close()


def test_queries_are_suggested_that_several_users_asked(url):
    store = Store(url)
    asked = {
        "red lamp": "ab",
        "Red  LAMP": "bc",
        "red pan": "ab",
        "Red 100%": "abcd",
        "blue": "abcde",
        "redo": "abc",
    }
    store.append_events(
        [
            act(f"{query} {user}", user, None, behavior="search", query=query)
            for query, users in asked.items()
            for user in users
        ]
    )
    # Capitals and spaces make no other query: three users searched for a red lamp.
    assert store.common_queries("red", 10) == ["red 100%", "red lamp", "redo"]
    assert store.common_queries("red ", 10) == ["red 100%", "red lamp"]
    assert store.common_queries(" RED 100%", 10) == ["red 100%"]
    assert store.common_queries("%", 10) == []
    assert store.common_queries("", 1) == ["blue"]
    store.close()


def test_beginnings_that_many_queries_share_are_suggested_alike(url, monkeypatch):
    """Whether the queries of a beginning are read, or those of most users until enough have it."""
    store, beginning = Store(url), "a beginning that is longer than the key, "
    queries = {f"{beginning}{number}": "abcde"[: 3 + number % 3] for number in range(6)}
    store.append_events(
        [
            act(f"{query} {user}", user, None, behavior="search", query=query)
            for query, users in {**queries, "a beginning": "abcde", "ä": "abc"}.items()
            for user in users
        ]
    )
    expected = [f"{beginning}{number}" for number in (2, 5, 1, 4, 0, 3)]
    for few in (1, 100):
        monkeypatch.setattr("seekrec.serving.query_counts._FEW", few)
        assert store.common_queries(beginning, 10) == expected
        assert store.common_queries(f"{beginning}4", 10) == [f"{beginning}4"]
        assert store.common_queries("A", 1) == ["a beginning"] and store.common_queries("Ä", 9) == ["ä"]
        assert store.common_queries("b", 9) == []
    store.close()


# Cases that databases do not fold, marks that they read as patterns, and one that is too long for a key of an index.
QUERIES = [
    "Ärmel",
    "ärmel lang",
    "STRASSE",
    "Straße 1",
    "red 100%",
    "red_lamp",
    "RED",
    "白色 🪑",
    "".join(map(chr, range(0x4E00, 0x51E8))),
]


def draw_searches(count):
    draws = np.random.default_rng(0)
    numbers = zip(draws.integers(8, size=count), draws.integers(len(QUERIES), size=count), strict=True)
    return [act(str(n), f"u{u}", None, behavior="search", query=QUERIES[q]) for n, (u, q) in enumerate(numbers)]


def expected_counts(events, prefix=""):
    """Users of each query that several asked, most first, from the events themselves."""
    users = {
        query.lower(): len({one.user_id for one in events if (one.event.query or "").casefold() == query.casefold()})
        for query in QUERIES
    }
    folded = prefix.casefold()
    return {query: n for query, n in users.items() if n >= 3 and query.casefold().startswith(folded)}


def check_queries(store, events):
    for prefix in ("", "ärm", "ÄRMEL L", "strass", "straß", "RED", "red_", "red 1", "%", "白", "nothing"):
        expected = expected_counts(events, prefix)
        found = store.common_queries(prefix, 20)
        assert sorted(found) == sorted(expected)
        assert [expected[query] for query in found] == sorted(expected.values(), reverse=True)


def test_queries_are_counted_as_events_come_by_whoever_writes(url):
    """Two processes that write at once, and events that are sent again."""
    stores, events = [Store(url), Store(url)], draw_searches(60)
    for first, last in ((0, 20), (15, 60)):
        starts = range(first, last, 5)
        with ThreadPoolExecutor(4) as pool:
            writing = [
                pool.submit(store.append_events, events[start : min(start + 7, last)])
                for start, store in zip(starts, itertools.cycle(stores))
            ]
        assert sum(one.result() for one in writing) == last - min(first, 1) * 20
        for store in stores:
            check_queries(store, events[:last])
    for store in stores:
        store.close()


def test_queries_of_an_older_store_are_counted_when_it_is_opened(url, monkeypatch):
    events = [*draw_searches(40), act("without", "u1"), act("again", "u1", behavior="search", query=QUERIES[0])]
    with monkeypatch.context() as older:
        older.setattr(schema_versions, "STEPS", schema_versions.STEPS[:1])
        Store(url).close()
    engine = create_engine(url)
    assert not inspect(engine).has_table("seekrec_queries")
    with engine.begin() as connection:
        rows = [
            {"event_id": one.event_id, "user_id": one.user_id, "number": n, **asdict(one.event)}
            for n, one in enumerate(events)
        ]
        connection.execute(schema_versions.events.insert(), rows)
    engine.dispose()
    store = Store(url)
    check_queries(store, events)
    more = [act(f"more {user}", user, None, behavior="search", query=QUERIES[5]) for user in ("v1", "v2", "v3", "u1")]
    store.append_events(more)
    check_queries(store, events + more)
    store.close()


def test_stores_of_other_versions(url, monkeypatch):
    """An older one is brought forward and keeps what it has; a newer one is refused and stays as it is."""
    old = Store(url)
    old.append_events([act("1")])
    old.close()

    def add_table(connection):
        connection.exec_driver_sql("CREATE TABLE seekrec_more (number INTEGER)")

    with monkeypatch.context() as newer:
        newer.setattr(schema_versions, "STEPS", (*schema_versions.STEPS, add_table))
        later = Store(url)
        assert len(later.events_after("ann", 0, 10)) == 1
        later.close()
        Store(url).close()  # a second time nothing is left to do
    engine = create_engine(url)
    assert inspect(engine).has_table("seekrec_more")
    with pytest.raises(DataError, match="The store has version 4, this seekrec knows versions up to 3"):
        Store(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM seekrec_schema")).scalars().all() == [4]
    engine.dispose()


def test_processes_that_start_at_once_make_the_tables_once(url):
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: Store(url), range(4)))
    assert stores[0].state() == State(0, None)
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://ann:secret@host/shop", "`store`"),
        ("sqlite://", "without a file"),
        ("sqlite:///:memory:", "without a file"),
        ("no url", "cannot be read as a URL"),
    ],
)
def test_urls_of_no_store(url, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_reached(tmp_path):
    for url in (f"sqlite:///{tmp_path / 'no' / 'folder.sqlite'}", "postgresql+psycopg://ann:secret@127.0.0.1:1/shop"):
        with pytest.raises(DataError, match="The store cannot be opened") as caught:
            Store(url)
        assert "secret" not in str(caught.value)
