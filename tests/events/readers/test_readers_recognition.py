# SPDX-License-Identifier: Apache-2.0
"""Columns of an own log recognised by name and content, and what is refused rather than guessed."""

import datetime
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekrec.errors import DataError
from seekrec.events import read_tables
from seekrec.events.readers.column_names import plain_name
from seekrec.events.report import summarize_log

NEW_YEAR = 1546300800
ITEMS = pa.table({"sku": [7, 8], "name": ["Comb", "Soap"], "category": ["Beauty > Hair", None], "price": [1.5, 2.0]})


def shop(**columns):
    """Three events of two users; `columns` are added, or taken away by None."""
    base = {
        "customerId": ["u", "u", "v"],
        "sku": [7, 8, 8],
        "ts": [NEW_YEAR * 1000, (NEW_YEAR + 60) * 1000, (NEW_YEAR + 120) * 1000],
    }
    return pa.table({name: values for name, values in (base | columns).items() if values is not None})


def test_names_are_compared_without_case_and_what_stands_between():
    assert {plain_name(name) for name in ("userId", "USER_ID", "User ID", "user-id", " user.id")} == {"userid"}
    assert plain_name("商品_ID") == "商品id"


def test_a_shop_is_read_and_says_what_was_taken_for_what(caplog):
    caplog.set_level("INFO")
    events = shop(
        **{
            "Search Term": [None, "red soap", "soap"],
            "event_type": ["page_view", "AddToCart", "not_clicked"],
            "VisitID": ["a", "a", "b"],
            "device": ["ios", "ios", "web"],
        }
    )
    log = read_tables(events, ITEMS, name="shop")
    expected = {
        "user_id": ["u", "u", "v"],
        "timestamp": [NEW_YEAR, NEW_YEAR + 60, NEW_YEAR + 120],
        "behavior": ["recommendation", "search", "search"],
        "query": [None, "red soap", "soap"],
        "item_id": ["7", "8", "8"],
        "action": ["view", "cart", "impression"],
        "session_id": ["a", "a", "b"],
    }
    # Columns of events that nothing uses are not read; those of items are what masks ask for.
    assert log.events.to_pydict() == expected
    assert log.items["title"].to_pylist() == ["Comb", "Soap"] and log.items["price"].to_pylist() == [1.5, 2.0]
    assert log.items["categories"].to_pylist() == [[["Beauty", "Hair"]], None]
    assert log.notes[1] == (
        "`events`: user_id is 'customerId' (its name); timestamp is 'ts' (milliseconds since 1970); query is "
        "'Search Term' (its name); item_id is 'sku' (100.0% of its ids are in `items`); action is 'event_type' (its "
        "name); session_id is 'VisitID' (its name). Not read: device."
    )
    assert "  user_id          customerId  (its name)" in [record.message for record in caplog.records]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        # Two clocks that disagree, whatever their names.
        (
            {"ts": None, "timestamp": [NEW_YEAR] * 3, "created_at": [NEW_YEAR + 5] * 3},
            r"`events`: 'timestamp' and 'created_at' could each be the timestamp; say which, such as --column_map "
            r"timestamp=timestamp \(column_map=\{'timestamp': 'timestamp'\}\)",
        ),
        ({"visitor": ["x", "y", "z"]}, "'customerId' and 'visitor' could each be the user_id"),
        # One message about everything.
        (
            {"ts": None, "customerId": None, "when": ["a", "b", "c"]},
            "`events` has no column 'user_id' and no 'timestamp', only sku, when. Say which one holds it: "
            "--column_map user_id=its_name timestamp=its_name",
        ),
        # Times of day are no times.
        ({"ts": None, "time": ["10:00", "10:01", "10:02"]}, "column 'time' was not taken for timestamp"),
    ],
)
def test_what_has_two_readings_or_none_is_refused_in_one_message(columns, message):
    with pytest.raises(DataError, match=message):
        read_tables(shop(**columns), ITEMS)


def test_what_says_the_same_twice_is_no_choice():
    days = [datetime.date(2019, 1, 1)] * 3
    log = read_tables(shop(date=days, user=["u", "u", "v"], created_at=[NEW_YEAR + 60 * k for k in range(3)]), ITEMS)
    assert log.events["timestamp"].to_pylist() == [NEW_YEAR, NEW_YEAR + 60, NEW_YEAR + 120]


def test_ids_of_items_are_those_that_the_items_table_holds():
    # As in reviews that name the variant and its product; `parent_asin` is what the items have.
    columns = {"sku": None, "asin": ["x", "y", "z"], "parent_asin": ["7", "8", "8"]}
    log = read_tables(shop(**columns), ITEMS.rename_columns(["parent_asin", "name", "category", "price"]))
    assert log.events["item_id"].to_pylist() == ["7", "8", "8"]
    # A name that says nothing: its content does.
    log = read_tables(shop(sku=None, thing=[7, 8, 8], stars=[5, 4, 3]), ITEMS)
    assert log.events["item_id"].to_pylist() == ["7", "8", "8"]
    with pytest.raises(DataError, match="'thing' and 'other' could each be the item_id"):
        read_tables(shop(sku=None, thing=[7, 8, 8], other=[8, 8, 7]), ITEMS)


def test_names_alone_are_not_trusted():
    # Numbers are no typed text, words of devices no actions, and ids of categories no names.
    events = shop(query_string=[1, 2, 3], type=["ios", "web", "web"], q=["a", None, None])
    items = ITEMS.set_column(2, "category", pa.array([12, 13]))
    log = read_tables(events, items)
    assert log.events["query"].to_pylist() == ["a", None, None]
    assert log.events["action"].to_pylist() == ["click"] * 3
    assert log.items["categories"].to_pylist() == [None, None] and log.items["category"].to_pylist() == [12, 13]
    assert "`items`: column 'category' was not taken for categories: it holds numbers." in log.notes
    assert any("column 'query_string' was not taken for query: it holds numbers" in note for note in log.notes)


def test_flags_of_clicks_are_clicks_and_impressions():
    assert read_tables(shop(is_click=[True, False, True]), ITEMS).events["action"].to_pylist() == [
        "click",
        "impression",
        "click",
    ]
    # A join with a table of clicks has nothing where there was none, and pandas makes floats of that.
    for values in ([1, None, 1], [1.0, None, 1.0], ["1.0", None, "1.0"], ["t", "", "t"], ["Yes", "No", "yes"]):
        log = read_tables(shop(clicked=values), ITEMS)
        assert log.events["action"].to_pylist() == ["click", "impression", "click"]
        note = "Rows of `events` that do not say whether the item was clicked are impressions."
        assert (note in log.notes) == ("No" not in values)
    # Words that are none of ours stay, and are named.
    log = read_tables(shop(action=["Buy", "wishlist", None]), ITEMS)
    assert log.events["action"].to_pylist() == ["purchase", "wishlist", "click"]
    assert "Actions of `events` that were kept as they are: wishlist." in log.notes
    assert "Rows of `events` without an action count as clicks." in log.notes


def test_words_that_programs_write_for_nothing_are_nothing():
    events = shop(query=["nan", "red soap", "NULL"], session=["None", "s", "s"], action=["Buy", "<NA>", "view"])
    log = read_tables(events, ITEMS)
    assert log.events["query"].to_pylist() == [None, "red soap", None]
    assert log.events["behavior"].to_pylist() == ["recommendation", "search", "recommendation"]
    assert log.events["session_id"].to_pylist() == [None, "s", "s"]
    assert log.events["action"].to_pylist() == ["purchase", "click", "view"]
    assert "Taken for nothing in column 'query' of `events`: 'nan' and 'NULL'." in log.notes
    # Users of that name would be one user.
    with pytest.raises(DataError, match="2 have no user_id"):
        read_tables(shop(customerId=["u", "nan", "nan"]), ITEMS)
    # Once it may be the title of a song.
    log = read_tables(shop(), ITEMS.set_column(1, "name", pa.array(["None", "Soap"])))
    assert log.items["title"].to_pylist() == ["None", "Soap"]
    named = ITEMS.set_column(1, "name", pa.array(["None", "None"])).append_column("brand", pa.array(["A", "B"]))
    assert read_tables(shop(), named).items["title"].to_pylist() == ["A Beauty Hair", "B"]


def test_typed_text_is_recognised_and_titles_of_pages_are_not():
    rows = 200
    typed = [f"red soap {row % 50}" if row % 2 else None for row in range(rows)]
    events = {"uid": ["u"] * rows, "sku": [7] * rows, "ts": [NEW_YEAR + row for row in range(rows)]}
    log = read_tables(pa.table(events | {"box": typed}), ITEMS)
    assert log.events["query"].null_count == rows // 2
    assert "query is 'box' (it contains text as people type it)" in log.notes[1]
    pages = [None if text is None else text.title() for text in typed]
    assert read_tables(pa.table(events | {"page": pages}), ITEMS).events["query"].null_count == rows


def _log_with(column, rows=400):
    events = {"uid": ["u"] * rows, "sku": [7] * rows, "ts": [NEW_YEAR + row for row in range(rows)]}
    return pa.table(events | {"Suchbegriff": [column[row % len(column)] for row in range(rows)]})


def test_typed_text_may_have_capitals(caplog):
    """Half of the different searches have a capital, and some are typed in several ways; a few have signs."""
    words = [f"red soap {row}" for row in range(50)]
    typed = [text for n, word in enumerate(words) for text in (word.title() if n % 2 else word, None)]
    typed[1::20] = [word.upper() for word in words[:5]]
    for column in (typed, [*typed, "3/4 hose", None]):
        log = read_tables(_log_with(column), ITEMS)
        assert "query is 'Suchbegriff' (it contains text as people type it)" in log.notes[1]
        assert log.query_source == "logged"
    assert "looks like typed text" not in caplog.text


@pytest.mark.parametrize(
    ("column", "is_pointed_out"),
    [
        # Capitals, and each text in one way: half of them are typed, perhaps.
        ([f"{'Red' if row % 2 else 'red'} soap {row}" if row % 3 else None for row in range(100)], True),
        # Every event has one: a log of searches, or something else.
        ([f"red soap {row}" for row in range(60)], True),
        # Titles, names of places, addresses, codes, single words, and texts that are all different.
        ([f"Red Soap {row}" if row % 2 else None for row in range(100)], False),
        ([f"New York {chr(65 + row % 26)}" if row % 2 else None for row in range(60)], False),
        ([f"see https://shop.example/{row} now" if row % 2 else None for row in range(100)], False),
        ([f"soap-{row}" if row % 2 else None for row in range(100)], False),
        (
            [f"a text that says at length more than is typed {row}" if row % 2 else None for row in range(99)],
            False,
        ),
        ([f"red soap {row}" if row % 2 else None for row in range(400)], False),
    ],
)
def test_what_may_be_searches_is_not_taken_and_loudly_pointed_out(column, is_pointed_out, caplog):
    log = read_tables(_log_with(column), ITEMS)
    assert log.query_source == "none"
    hint = (
        "'Suchbegriff' looks like typed text; pass --column_map query=Suchbegriff "
        "(column_map={'query': 'Suchbegriff'}) if it holds searches."
    )
    assert (hint in caplog.text) == (hint in " ".join(log.notes)) == is_pointed_out
    assert all(record.levelname == "WARNING" for record in caplog.records if "typed text" in record.message)
    if is_pointed_out:
        named = read_tables(_log_with(column), ITEMS, column_map={"query": "Suchbegriff"})
        assert named.query_source == "logged" and "typed text" not in " ".join(named.notes)


def test_titles_and_brands_are_not_pointed_out(caplog):
    table = _log_with([f"{'Red' if row % 2 else 'red'} soap {row}" if row % 3 else None for row in range(100)])
    for name in ("brand", "product_name", "color", "summary"):
        read_tables(table.rename_columns(["uid", "sku", "ts", name]), ITEMS)
    assert "typed text" not in caplog.text


@pytest.mark.parametrize(
    ("ids", "hint"),
    [
        ([" 07 ", "08\t", "08"], "the same but for spaces around them. Write the tables again without them"),
        (["07 ", " 08", "07 "], "the same but for spaces around them"),
        (["7", "8", "8"], "the same but for zeros at the front"),
        (["07", "08", "09"], None),
    ],
)
def test_ids_that_nearly_agree_are_pointed_out(ids, hint, caplog):
    items = pa.table({"sku": ["07", "08"], "name": ["Comb", "Soap"]})
    with pytest.raises(DataError, match="name an item that the items table does not hold"):
        read_tables(shop(sku=ids), items)
    said = [record.message for record in caplog.records if "the same but for" in record.message]
    assert len(said) == (hint is not None)
    if hint is not None:
        assert said[0].startswith("Ids in 'sku' of `events` and 'sku' of `items` are ") and hint in said[0]


def test_many_views_beside_clicks_are_pointed_out():
    log = read_tables(shop(action=["view", "view", "click"]), ITEMS)
    assert any("If it means that an item was only shown, write 'impression'" in note for note in log.notes)


def test_sessions_stand_for_users_where_there_are_none():
    log = read_tables(shop(customerId=None, session=[1, 1, 2]), ITEMS)
    assert log.events["user_id"].to_pylist() == ["1", "1", "2"]
    assert log.events["session_id"].to_pylist() == [None] * 3
    assert "user_id is 'session' (there are no users: each session counts as one)" in log.notes[1]


def test_order_without_time_is_recognised_and_can_be_overruled():
    # Ten events each of two users, numbered from 1.
    events = pa.table({"uid": ["u", "v"] * 10, "item_id": [7, 8] * 10, "time": [row // 2 + 1 for row in range(20)]})
    log = read_tables(events, ITEMS)
    assert not log.has_time and log.events["timestamp"].to_pylist()[:3] == [1, 2, 3]
    assert any("it was taken for positions in an order" in note for note in log.notes)
    assert read_tables(events, ITEMS, has_time=True).has_time


def test_days_keep_repeats_and_say_that_they_have_no_order():
    log = read_tables(shop(ts=["2019-01-01"] * 3, customerId=["u"] * 3), ITEMS)
    # The second and third row are two acts on item 8 as likely as one that was written twice.
    assert (log.num_events, summarize_log(log).times_are_days) == (3, True)
    assert "Times of `events` are days: events of one day have no order inside it." in log.notes
    digits = read_tables(shop(ts=[20190101, 20190102, 20190103]), ITEMS, time_unit="date_digits")
    assert digits.events["timestamp"].to_pylist() == [NEW_YEAR, NEW_YEAR + 86400, NEW_YEAR + 2 * 86400]


def test_items_are_made_from_events_where_there_is_no_other_table():
    events = shop(product_name=["Comb", None, "Soap"], category=["Hair", "Bath", "Other"], title=None)
    log = read_tables(events)
    # The first that is there counts, item by item.
    assert log.items.select(["item_id", "title", "categories"]).to_pydict() == {
        "item_id": ["7", "8"],
        "title": ["Comb", "Soap"],
        "categories": [[["Hair"]], [["Bath"]]],
    }
    assert "There is no table of items: 2 were made from `events`." in log.notes


def test_items_without_titles_are_named_by_what_else_they_have(caplog):
    items = pa.table({"id": [7, 8], "brand": ["Acme", None], "category": ["Beauty > Hair", "Bath"]})
    log = read_tables(shop(), items)
    assert log.items["title"].to_pylist() == ["Acme Beauty Hair", "Bath"]
    assert summarize_log(log).has_text
    bare = read_tables(shop())
    assert bare.items["title"].to_pylist() == ["7", "8"] and not summarize_log(bare).has_text
    assert "ids stand for the titles of items" in caplog.records[-1].message


def test_categories_in_several_columns_are_one_path():
    items = ITEMS.append_column("SubCategory", pa.array(["Combs", None])).set_column(2, "category", [["Hair", "Bath"]])
    assert read_tables(shop(), items).items["categories"].to_pylist() == [[["Hair", "Combs"]], [["Bath"]]]
    levels = pa.table({"sku": [7, 8], "name": ["a", "b"], "cat_l2": ["Combs", None], "cat_l1": ["Hair", "Bath"]})
    assert read_tables(shop(), levels).items["categories"].to_pylist() == [[["Hair", "Combs"]], [["Bath"]]]


@pytest.mark.parametrize(
    ("texts", "path"),
    [
        (["Hair | Combs", "Bath"], ["Hair", "Combs"]),
        (["Hair / Combs", "Bath"], ["Hair", "Combs"]),
        # A stroke is often part of a name: it is only pointed out.
        (["Audio/Video", "Bath/Body"], ["Audio/Video"]),
    ],
)
def test_what_separates_the_names_of_a_path(texts, path):
    log = read_tables(shop(), ITEMS.set_column(2, "category", [texts]))
    assert log.items["categories"][0].as_py() == [path]
    if len(path) == 1:
        assert any("pass category_separator='/'" in note for note in log.notes)
        split = read_tables(shop(), ITEMS.set_column(2, "category", [texts]), category_separator="/")
        assert split.items["categories"][0].as_py() == [["Audio", "Video"]]


def test_what_shops_lose_is_no_damage():
    # Of 50 events 4 name an item that is gone (8 %, and 10 % may); one time of 50 is damaged (2 %, and 1 % may).
    rows = 50
    columns = {
        "user_id": ["u"] * rows,
        "item_id": [7] * (rows - 4) + [99] * 4,
        "timestamp": [str(NEW_YEAR + row) for row in range(rows)],
    }
    assert read_tables(pa.table(columns), ITEMS).num_events == 46
    with pytest.raises(DataError, match="4 of 50 rows .* That is 8.00%, and `max_refused` allows 1.00%"):
        read_tables(pa.table(columns), ITEMS, max_refused=0.01)
    columns["timestamp"][0] = "soon"
    with pytest.raises(DataError, match="That is 10.00%, and `max_refused` allows 1.00% of damaged rows"):
        read_tables(pa.table(columns), ITEMS)


def test_a_folder_as_spark_writes_it(tmp_path):
    folder = tmp_path / "events"
    for day, users, skus in (("2019-01-01", ["u", "u"], [7, 7]), ("2019-01-02", ["v"], [8])):
        part = folder / f"event_date={day}"
        part.mkdir(parents=True)
        hours = [pd.Timestamp(day) + pd.Timedelta(hours=hour) for hour in range(len(users))]
        table = pa.table({"uid": users, "sku": skus, "ts": pa.array(hours, pa.timestamp("us", "UTC"))})
        if day == "2019-01-02":
            # A column that came later.
            table = table.append_column("q", pa.array(["soap"]))
        pq.write_table(table, part / "part-00000.snappy.parquet")
    (folder / "_SUCCESS").touch()
    log = read_tables(folder, ITEMS)
    # The day of the partition says less than the time.
    assert log.events["timestamp"].to_pylist() == [NEW_YEAR, NEW_YEAR + 3600, NEW_YEAR + 86400]
    assert log.events["query"].to_pylist() == [None, None, "soap"] and log.name == "events"
    with pytest.raises(
        DataError, match=r"first: event_date=2019-01-02/part-00000.snappy.parquet, row 0 \(from 0\), it"
    ):
        read_tables(folder, ITEMS.slice(0, 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty contains no Parquet file; name a file, or a folder of Parquet files"):
        read_tables(tmp_path / "empty", ITEMS)


def test_columns_of_json_are_recognised_too(tmp_path):
    rows = [
        {"uid": row, "asin": "B0" if row % 2 else "B1", "unixReviewTime": NEW_YEAR + row, "extra": {"a": [row]}}
        for row in range(30)
    ]
    (tmp_path / "e.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "i.jsonl").write_text('{"asin": "B0", "title": "x"}\n{"asin": "B1", "title": "y"}\n')
    log = read_tables(tmp_path / "e.json", tmp_path / "i.jsonl")
    assert log.num_events == 30 and log.events.column_names[-1] == "session_id"


def test_logs_as_shops_publish_them(tmp_path, caplog):
    """Columns of much used logs: of cosmetics in one table, of fashion with days, and without a header."""
    caplog.set_level("INFO")
    text = (
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2019-01-01 00:00:00 UTC,view,7,2053013555631882655,home.pans,acme,1.5,1,a-b\n"
        "2019-01-01 00:01:00 UTC,cart,8,2053013555631882655,,zenith,2.5,1,a-b\n"
    )
    (tmp_path / "cosmetics.csv").write_text(text)
    log = read_tables(tmp_path / "cosmetics.csv")
    assert log.events["timestamp"].to_pylist() == [NEW_YEAR, NEW_YEAR + 60]
    assert log.events["session_id"].to_pylist() == ["a-b", "a-b"]
    assert log.items["title"].to_pylist() == ["acme home pans", "zenith"]

    (tmp_path / "bought.csv").write_text("t_dat,customer_id,article_id,price\n2019-01-01,u,0108,0.05\n")
    (tmp_path / "articles.csv").write_text("article_id,product_code,prod_name,detail_desc\n0108,10,Top,Soft.\n")
    log = read_tables(tmp_path / "bought.csv", tmp_path / "articles.csv")
    assert log.events.select(["item_id", "timestamp"]).to_pydict() == {"item_id": ["0108"], "timestamp": [NEW_YEAR]}
    assert log.items.select(["title", "description"]).to_pylist() == [{"title": "Top", "description": "Soft."}]
    # The same table written by a program that takes ids for numbers.
    numbers = pa.table({"t_dat": ["2019-01-01"], "customer_id": ["u"], "article_id": [108]})
    with pytest.raises(DataError, match="name an item that the items table does not hold"):
        read_tables(numbers, tmp_path / "articles.csv")
    assert "the same but for zeros at the front" in caplog.text

    (tmp_path / "taobao.csv").write_text("1,2268318,2520377,pv,1511544070\n1,2333346,2520771,pv,1511561733\n")
    with pytest.raises(DataError, match="If the first line is data, write a line of names above it"):
        read_tables(tmp_path / "taobao.csv")
