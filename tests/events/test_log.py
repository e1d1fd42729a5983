# SPDX-License-Identifier: Apache-2.0
"""The event log: what it refuses, how it sorts, that it survives a round trip."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekrec.catalog import Catalog
from seekrec.errors import DataError
from seekrec.events import EventLog
from seekrec.schema import EVENT_FEATURES, ITEM_FEATURES
from seekrec.util.hashing import table_digest

ITEMS = pa.table({"item_id": ["a", "b"], "title": ["Apple", "Bread"], "price": [1.5, None]})


def make_log(items=ITEMS, query_source="none", **columns):
    table = {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2]} | columns
    return EventLog("toy", pa.table(table), items, query_source=query_source)


def test_absent_columns_are_filled_and_others_kept():
    log = make_log(stars=[5, 4])
    assert log.events.column_names == [*EVENT_FEATURES, "stars"]
    assert log.items.column_names == [*ITEM_FEATURES, "price"]
    assert log.events.to_pylist()[0] == {
        "user_id": "u",
        "timestamp": 1,
        "behavior": "recommendation",
        "query": None,
        "item_id": "a",
        "action": "click",
        "session_id": None,
        "stars": 5,
    }
    assert log.events.schema.field("timestamp").type == pa.int64()
    assert log.items.schema.field("categories").type == pa.list_(pa.list_(pa.string()))


def test_events_are_sorted_by_user_then_time_and_ties_keep_their_order():
    log = make_log(
        user_id=["v", "u", "v", "u", "u"],
        item_id=["a", "b", "b", "a", "a"],
        timestamp=[2, 7, 1, 7, 3],
        mark=[0, 1, 2, 3, 4],
    )
    # u at 3 (row 4), then the two rows at 7 in the order they came in (1, 3); then v at 1 (row 2) and 2 (row 0).
    assert log.events["mark"].to_pylist() == [4, 1, 3, 2, 0]
    assert log.events["user_id"].to_pylist() == ["u", "u", "u", "v", "v"]


def test_wide_text_dictionaries_and_small_integers_are_cast():
    log = make_log(
        user_id=pa.array(["u", "u"], pa.large_string()).dictionary_encode(), timestamp=pa.array([1, 2], pa.int16())
    )
    assert log.events.schema.field("user_id").type == pa.string()
    assert log.events.schema.field("timestamp").type == pa.int64()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"user_id": ["u", None]},
            r"`events`: 1 of 2 rows cannot be used: 1 have no user_id \(first: row 1 \(from 0\)",
        ),
        ({"user_id": ["u", " "]}, r"1 have no user_id \(first: row 1 \(from 0\), user_id ' '\)"),
        ({"timestamp": pa.array([None, 2], pa.int64())}, r"1 have no timestamp \(first: row 0"),
        ({"timestamp": [-5, 2]}, "1 have a negative timestamp .first: row 0 .from 0., timestamp -5"),
        ({"timestamp": [1.0, 2.0]}, "Column 'timestamp' of `events` has type double, not int64"),
        ({"user_id": [1, 2]}, "Column 'user_id' of `events` has type int64, not string.*read_tables"),
        ({"behavior": ["buy", "recommendation"]}, "1 have a behavior other than recommendation, search .*'buy'"),
        ({"behavior": ["search", "recommendation"]}, "1 are searches without a query .first: row 0"),
        ({"query": [None, "bread"]}, "1 are recommendations with a query .first: row 1 .*'bread'"),
        (
            {"behavior": ["search", "recommendation"], "query": ["x" * 1001, None], "query_source": "logged"},
            "1 have a query of more than 1000 characters .first: row 0 .from 0., query 'xxx.*[.][.][.]",
        ),
        ({"item_id": ["a", None]}, "1 are recommendations without an item_id .first: row 1"),
        ({"item_id": ["a", "zzz"]}, "1 name an item that the items table does not hold .first: row 1 .*'zzz'"),
        ({"action": ["click", None]}, "1 have no action"),
        ({"user_id": [], "item_id": [], "timestamp": []}, "`events` is empty; a log needs at least one row"),
        (
            {"items": pa.table({"item_id": ["a", "a"], "title": ["x", "y"]})},
            "repeat the item_id of an earlier row .*row 1",
        ),
        ({"items": pa.table({"item_id": ["a", None], "title": ["x", "y"]})}, "`items`: .* have no item_id"),
        ({"items": pa.table({"item_id": ["a", "b"]})}, "`items` has no column 'title', only item_id"),
        ({"items": [{"item_id": "a"}]}, "`items` is a list; pass a pyarrow.Table"),
        (
            {
                "items": pa.table(
                    {"item_id": ["a", "b"], "title": ["x", "y"], "available_from": [5, 5], "available_until": [6, 5]}
                )
            },
            "have an available_until that is not after available_from .first: row 1 .from 0., available_until 5",
        ),
        (
            {"items": pa.table({"item_id": ["a"], "title": ["x"], "categories": [["x", "y"]]})},
            "'categories' of `items`",
        ),
        ({"query_source": "category"}, "`query_source` of log 'toy' is 'category' but its events hold no searches"),
    ],
)
def test_what_is_refused(columns, message):
    with pytest.raises(DataError, match=message):
        make_log(**columns)


def test_a_missing_column_and_two_of_one_name_are_refused():
    with pytest.raises(
        DataError, match="`events` has no column 'timestamp', only user_id, item_id. Rename the column"
    ):
        EventLog("toy", pa.table({"user_id": ["u"], "item_id": ["a"]}), ITEMS)
    twice = pa.table([pa.array(["u"]), pa.array(["v"])], names=["user_id", "user_id"])
    with pytest.raises(DataError, match="more than one column 'user_id'"):
        EventLog("toy", twice, ITEMS)


def test_searches_need_a_source():
    with pytest.raises(DataError, match="is 'none' but its events hold searches"):
        make_log(behavior=["search", "recommendation"], query=["bread", None])


def test_a_search_may_have_no_item():
    log = make_log(
        behavior=["search", "recommendation"], query=["bread", None], item_id=[None, "b"], query_source="logged"
    )
    assert log.events["item_id"].to_pylist() == [None, "b"]


def test_describe_counts():
    log = make_log(
        user_id=["u", "u", "v"],
        item_id=["a", "a", None],
        timestamp=[3, 9, 4],
        behavior=["recommendation", "search", "search"],
        query=[None, "bread", "bread"],
        action=["purchase", "click", "click"],
        query_source="logged",
    )
    described = log.describe()
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "name": "toy",
        "num_users": 2,
        "num_items": 2,
        "num_items_with_events": 1,
        "num_events": 3,
        "num_events_by_behavior": {"recommendation": 1, "search": 2},
        "num_events_by_action": {"click": 2, "purchase": 1},
        "num_distinct_queries": 1,
        "first_timestamp": 3,
        "last_timestamp": 9,
        "has_time": True,
        "query_source": "logged",
        "notes": [],
    }


def test_save_and_load_agree(tmp_path):
    log = make_log(stars=[5, 4]).with_notes("a note")
    log.save(tmp_path / "log")
    again = EventLog.load(tmp_path / "log")
    assert again.events.equals(log.events)
    assert again.items.equals(log.items)
    assert (again.name, again.has_time, again.query_source, again.notes) == ("toy", True, "none", ("a note",))
    assert again.fingerprint == log.fingerprint
    # A second save replaces the first and leaves nothing behind.
    make_log(timestamp=[5, 6]).save(tmp_path / "log")
    assert EventLog.load(tmp_path / "log").events["timestamp"].to_pylist() == [5, 6]
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == [
        "events.parquet",
        "items.parquet",
        "log.json",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([["a film", "a play"]] * 2, pa.list_(pa.string())), pa.list_(pa.string())),
        # What CSV and pandas hold and a Parquet file does not: it has times in milliseconds and finer.
        (pa.array([0, None], pa.timestamp("s")), pa.timestamp("ms")),
        (pa.array([[0], None], pa.list_(pa.timestamp("s"))), pa.list_(pa.timestamp("ms"))),
        (pa.array([0, None], pa.time32("s")), pa.time32("ms")),
    ],
)
def test_extra_columns_come_back_as_they_were(tmp_path, values, expected):
    log = make_log()
    log = EventLog(log.name, log.events, log.items.append_column("more", values[: log.num_items]))
    assert log.items["more"].type == expected
    log.save(tmp_path)
    assert EventLog.load(tmp_path).items.equals(log.items)
    catalog = Catalog.build(log.items)
    catalog.save(tmp_path / "catalog")
    assert Catalog.load(tmp_path / "catalog").items.equals(catalog.items)


def test_a_column_that_cannot_be_saved_is_refused():
    log = make_log()
    spans = pa.nulls(log.num_items, pa.month_day_nano_interval())
    with pytest.raises(DataError, match="`items` has a column 'span' of type .* cannot hold; convert it, or leave it"):
        EventLog(log.name, log.events, log.items.append_column("span", spans))


def test_load_refuses_what_is_no_log_or_was_mixed(tmp_path):
    with pytest.raises(
        DataError, match="contains no log.json: it is not a whole event log, or saving it was interrupted"
    ):
        EventLog.load(tmp_path)
    make_log().save(tmp_path)
    pq.write_table(make_log(timestamp=[5, 6]).events, tmp_path / "events.parquet")
    with pytest.raises(DataError, match="a file was changed or comes from another log"):
        EventLog.load(tmp_path)
    make_log().save(tmp_path)
    description = json.loads((tmp_path / "log.json").read_text())
    (tmp_path / "log.json").write_text(json.dumps(description | {"version": 99}))
    with pytest.raises(DataError, match="has version 99, this package reads 1"):
        EventLog.load(tmp_path)


def test_an_interrupted_save_does_not_load(tmp_path, monkeypatch):
    make_log().save(tmp_path)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("seekrec.events.log.pq.write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        make_log(timestamp=[5, 6]).save(tmp_path)
    with pytest.raises(DataError, match="saving it was interrupted"):
        EventLog.load(tmp_path)


def test_fingerprint_is_of_the_content():
    fingerprint = make_log().fingerprint
    assert len(fingerprint) == 64
    assert make_log().with_notes("said").fingerprint == fingerprint
    assert make_log(timestamp=[1, 3]).fingerprint != fingerprint
    assert make_log(items=ITEMS.set_column(1, "title", [["Apple", "Butter"]])).fingerprint != fingerprint
    order_only = EventLog("toy", make_log().events, ITEMS, has_time=False)
    assert order_only.fingerprint != fingerprint


def test_digest_does_not_see_chunks_or_what_lies_under_nulls():
    whole = pa.table(
        {
            "text": ["ab", None, "c", ""],
            "number": [1, None, 3, 4],
            "flag": [True, None, False, True],
            "lists": [[["x"], []], None, [], [["y", None]]],
        }
    )
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 3)])
    padded = pa.concat_tables([whole.slice(2, 1), whole, whole]).slice(1, 4)
    assert table_digest(chunked) == table_digest(padded) == table_digest(whole)
    other_nulls = whole.set_column(1, "number", pa.array([1, 99, 3, 4], mask=pa.array([False, True, False, False])))
    assert table_digest(other_nulls) == table_digest(whole)
    # The same letters cut differently, a null for an empty text, a zero for a null: all are other content.
    assert table_digest(pa.table({"text": ["a", "bc"]})) != table_digest(pa.table({"text": ["ab", "c"]}))
    assert table_digest(pa.table({"text": ["a", ""]})) != table_digest(pa.table({"text": ["a", None]}))
    assert table_digest(pa.table({"n": [1, 0]})) != table_digest(pa.table({"n": pa.array([1, None], pa.int64())}))
    assert table_digest(pa.table({"n": [[1], []]})) != table_digest(pa.table({"n": [[], [1]]}))
    assert table_digest(pa.table({"n": [{"x": 1}]})) != table_digest(pa.table({"n": [{"x": 2}]}))


def test_data_sets_have_one_configuration_for_each_table():
    configurations = make_log().to_dataset_dict()
    assert list(configurations) == ["events", "items"]
    events = configurations["events"]["train"]
    assert isinstance(events, datasets.Dataset)
    assert events.features == EVENT_FEATURES
    assert events[1]["item_id"] == "b"
    assert configurations["items"]["train"].features["categories"] == ITEM_FEATURES["categories"]
