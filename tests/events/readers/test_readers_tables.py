# SPDX-License-Identifier: Apache-2.0
"""A user's own tables: formats, column map, and what is refused."""

import datetime
import gzip
import json
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import read_tables

EVENTS = """user_id,item_id,timestamp,query
u,007,2019-01-01T00:00:00Z,
v,8,1546300860,red soap
u,8,1546300801,
"""
ITEMS = """item_id,title,categories,price
007,Comb,Beauty > Hair,1.5
8,"Soap, red",,2
"""
# 2019-01-01T00:00:00Z is 1546300800 (49 years of 365 days and 12 leap days).
EXPECTED = [
    {"user_id": "u", "timestamp": 1546300800, "behavior": "recommendation", "query": None, "item_id": "007"},
    {"user_id": "u", "timestamp": 1546300801, "behavior": "recommendation", "query": None, "item_id": "8"},
    {"user_id": "v", "timestamp": 1546300860, "behavior": "search", "query": "red soap", "item_id": "8"},
]


def write(folder, events=EVENTS, items=ITEMS, events_name="events.csv", items_name="items.csv"):
    (folder / events_name).write_text(events)
    (folder / items_name).write_text(items)
    return folder / events_name, folder / items_name


def shown(log):
    return log.events.select(list(EXPECTED[0])).to_pylist()


def test_csv(tmp_path):
    log = read_tables(*write(tmp_path))
    assert shown(log) == EXPECTED
    assert (log.name, log.has_time, log.query_source) == ("events", True, "logged")
    comb, soap = log.items.to_pylist()
    assert (comb["item_id"], comb["categories"], comb["price"]) == ("007", [["Beauty", "Hair"]], 1.5)
    assert (soap["title"], soap["categories"], soap["price"]) == ("Soap, red", None, 2.0)
    assert log.notes[0] == "Events from events.csv, items from items.csv."
    assert any("an event with a query is a search" in note for note in log.notes)


def test_all_formats_agree(tmp_path):
    paths = write(tmp_path)
    fingerprint = read_tables(*paths).fingerprint
    events = [dict(zip(EVENTS.split()[0].split(","), row.split(","), strict=True)) for row in EVENTS.split("\n")[1:4]]
    for event in events:
        event["query"] = event["query"] or None
    items = [
        {"item_id": "007", "title": "Comb", "categories": [["Beauty", "Hair"]], "price": 1.5},
        {"item_id": "8", "title": "Soap, red", "categories": None, "price": 2},
    ]
    lines = {"e.jsonl": events, "i.jsonl": items}
    for name, rows in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_tables(tmp_path / "e.jsonl", tmp_path / "i.jsonl").fingerprint == fingerprint
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "e.parquet")
    pq.write_table(pa.Table.from_pylist(items), tmp_path / "i.parquet")
    assert read_tables(tmp_path / "e.parquet", tmp_path / "i.parquet").fingerprint == fingerprint
    (tmp_path / "e.tsv.gz").write_bytes(gzip.compress(EVENTS.replace(",", "\t").encode()))
    assert read_tables(tmp_path / "e.tsv.gz", tmp_path / "i.parquet").fingerprint == fingerprint


def test_pandas_parquet_with_real_times_and_integer_ids(tmp_path):
    times = [datetime.datetime(2019, 1, 1), datetime.datetime(2019, 1, 1, 0, 0, 1)]
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [7.0, 8.0], "timestamp": times}, index=[5, 6])
    frame.to_parquet(tmp_path / "e.parquet", index=True)
    pd.DataFrame({"item_id": [7, 8], "title": ["x", "y"]}).to_parquet(tmp_path / "i.parquet")
    log = read_tables(tmp_path / "e.parquet", tmp_path / "i.parquet", name="mine")
    assert log.name == "mine"
    assert log.events["user_id"].to_pylist() == ["1", "2"]
    assert log.events["item_id"].to_pylist() == ["7", "8"]
    assert log.events["timestamp"].to_pylist() == [1546300800, 1546300801]
    assert not [name for name in log.events.column_names if "index" in name]


def test_column_map(tmp_path):
    events, items = write(
        tmp_path,
        EVENTS.replace("user_id", "customer").replace("item_id", "sku").replace("timestamp", "when"),
        ITEMS.replace("item_id", "sku").replace("title", "item_name"),
    )
    column_map = {"user_id": "customer", "item_id": "sku", "timestamp": "when", "title": "item_name"}
    assert shown(read_tables(events, items, column_map=column_map)) == EXPECTED
    # The same name in one table only, and one for a single table.
    events, items = write(tmp_path, EVENTS.replace("item_id", "sku"), ITEMS.replace("item_id", "code"))
    assert shown(read_tables(events, items, column_map={"item_id": "sku", "items.item_id": "code"})) == EXPECTED
    # A column of our name that is not the mapped one is not kept.
    events, items = write(tmp_path, EVENTS.replace("timestamp,query", "seconds,timestamp"))
    log = read_tables(events, items, column_map={"timestamp": "seconds"})
    assert log.events["timestamp"].to_pylist() == [row["timestamp"] for row in EXPECTED]


@pytest.mark.parametrize(
    ("column_map", "error", "message"),
    [
        (
            {"userid": "u"},
            ConfigurationError,
            "`column_map` has the key 'userid', which is not one of our columns; keys are",
        ),
        ({"films.item_id": "u"}, ConfigurationError, "has the key 'films.item_id'"),
        ({"items.user_id": "u"}, ConfigurationError, "has the key 'items.user_id'"),
        ({"user_id": "x", "session_id": "x"}, DataError, "`column_map` for events has more than one column .x."),
        (
            {"action": "act"},
            DataError,
            "events.csv has no column 'act', which `column_map` names for 'action'; it has us",
        ),
        # Our own name is there in each of these tables: it is not what was asked for.
        *(
            (
                {role: "created_att"},
                DataError,
                f"{table}.csv has no column 'created_att', which `column_map` names for '{role.rpartition('.')[2]}'; "
                "it has .*. Name one of these, or leave the name out.",
            )
            for role, table in (
                ("timestamp", "events"),
                ("query", "events"),
                ("events.timestamp", "events"),
                ("title", "items"),
                ("items.categories", "items"),
                ("item_id", "events"),
                ("items.item_id", "items"),
            )
        ),
        # The column is one of the other table, which has no such role.
        ({"timestamp": "price"}, DataError, "events.csv has no column 'price', which `column_map` names for 'timest"),
        ({"title": "query"}, DataError, "items.csv has no column 'query', which `column_map` names for 'title'"),
    ],
)
def test_bad_column_map(tmp_path, column_map, error, message):
    with pytest.raises(error, match=message):
        read_tables(*write(tmp_path), column_map=column_map)


def test_a_name_for_both_tables_may_be_a_column_of_one(tmp_path):
    """Each table in turn has our own name and the other one the named column; the prefix says which was meant."""
    for changed in ("events", "items"):
        texts = {"events": EVENTS, "items": ITEMS}
        texts[changed] = texts[changed].replace("item_id", "code")
        paths = write(tmp_path, **texts)
        assert shown(read_tables(*paths, column_map={"item_id": "code"})) == EXPECTED
        assert shown(read_tables(*paths, column_map={f"{changed}.item_id": "code"})) == EXPECTED
        other = {"events": "items", "items": "events"}[changed]
        with pytest.raises(DataError, match=f"{other}.csv has no column 'code', which `column_map` names for 'item_i"):
            read_tables(*paths, column_map={f"{other}.item_id": "code"})


def test_names_of_items_without_a_table_of_items_are_refused(tmp_path):
    events, _ = write(tmp_path)
    for role in ("items.item_id", "available_from", "queries"):
        with pytest.raises(
            DataError, match=f"names 'query' for '{role.removeprefix('items.')}' of the items, and there is no"
        ):
            read_tables(events, column_map={role: "query"})
    assert read_tables(events, column_map={"item_id": "item_id"}).num_events == 3


def test_dates_as_ids_and_titles_stay_text(tmp_path):
    write(
        tmp_path,
        '{"user_id": "2020-01-01", "item_id": 1, "timestamp": "2019-01-01"}\n',
        '{"item_id": 1, "title": "1984-01-01"}\n',
        "e.jsonl",
        "i.jsonl",
    )
    log = read_tables(tmp_path / "e.jsonl", tmp_path / "i.jsonl")
    assert log.events.to_pylist()[0]["user_id"] == "2020-01-01"
    assert log.events.to_pylist()[0]["timestamp"] == 1546300800
    assert log.items["title"].to_pylist() == ["1984-01-01"]


def test_a_log_with_order_but_no_time(tmp_path):
    events, items = write(tmp_path, "user_id,item_id\nu,8\nv,8\nu,007\n")
    with pytest.raises(DataError, match="events.csv has no column 'timestamp', only user_id, item_id. Say which one"):
        read_tables(events, items)
    log = read_tables(events, items, has_time=False)
    assert not log.has_time
    assert log.events.select(["user_id", "item_id", "timestamp"]).to_pydict() == {
        "user_id": ["u", "u", "v"],
        "item_id": ["8", "007", "8"],
        "timestamp": [0, 2, 1],
    }
    events, items = write(tmp_path, "user_id,item_id,timestamp\nu,8,2\nu,007,1\n")
    assert read_tables(events, items, has_time=False).events["item_id"].to_pylist() == ["007", "8"]


def test_events_out_of_order_are_sorted_and_counted(tmp_path):
    # Rows of u: 5, 3, 4 (one step down); of v: 9, 1 (one step down).
    rows = [("u", 5), ("v", 9), ("u", 3), ("u", 4), ("v", 1)]
    events, items = write(tmp_path, "user_id,item_id,timestamp\n" + "".join(f"{u},8,{t}\n" for u, t in rows))
    log = read_tables(events, items)
    assert log.events["timestamp"].to_pylist() == [3, 4, 5, 1, 9]
    assert "2 events of events.csv stood after a later one of the same user; they were sorted." in log.notes


def test_prices_with_a_currency_are_numbers(tmp_path):
    items = 'sku,name,price,size\n007,Comb,"$1,299.50",9 cm\n8,Soap,$2,10 cm\n'
    log = read_tables(*write(tmp_path, "user_id,sku,timestamp\nu,8,1\nu,007,2\n", items))
    assert log.items["price"].to_pylist() == [1299.5, 2.0]
    assert log.items["size"].to_pylist() == ["9 cm", "10 cm"]
    assert "'price' of items.csv contains amounts ($): they were read as numbers." in log.notes


def test_a_log_newest_first_keeps_the_order_inside_a_second(tmp_path):
    # What happened, in order; two events of each second.
    truth = [("u", "a", 3), ("u", "b", 3), ("v", "d", 4), ("u", "c", 5), ("v", "a", 6)]
    truth += [("w", "abcd"[number % 4], 10 + number // 2) for number in range(27)]
    expected = sorted(truth, key=lambda row: row[0])

    def read(rows):
        text = "".join(f"{user},{item},{time}\n" for user, item, time in rows)
        items = "item_id,title\n" + "".join(f"{item},soap {item}\n" for item in "abcd")
        log = read_tables(*write(tmp_path, "user_id,item_id,timestamp\n" + text, items))
        columns = log.events.select(["user_id", "item_id", "timestamp"]).to_pydict().values()
        return list(zip(*columns, strict=True)), log.notes

    turned = "The rows of events.csv are newest first; of events of one second the lower row came first."
    found, notes = read(truth[::-1])
    assert found == expected
    assert turned in notes and not any("stood after" in note for note in notes)
    # The latest event stands last: one of 14 steps in time goes the other way.
    found, notes = read([*truth[-2::-1], truth[-1]])
    assert found == expected
    assert (
        turned in notes
        and "1 events of events.csv stood after a later one of the same user; they were sorted." in notes
    )
    found, notes = read(truth)
    assert found == expected and turned not in notes


GOOD = "u,8,1,search,soap\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",8,1,recommendation,", "1 have no user_id .first: line 3, user_id None"),
        ("u,8,,recommendation,", "1 have no timestamp .first: line 3, timestamp None"),
        ("u,8,NaN,recommendation,", "1 have a timestamp that is not a time .first: line 3, timestamp 'NaN'"),
        ("u,8,-1,recommendation,", "1 have a negative timestamp .first: line 3, timestamp -1"),
        (
            "u,8,1546300800000,recommendation,",
            "1 have a timestamp too large for seconds .first: line 3, .*'1546300800000'",
        ),
        ("u,8,1,buy,", "1 have a behavior other than recommendation, search .first: line 3, behavior 'buy'"),
        ("u,8,1,search,", "1 are searches without a query .first: line 3, query None"),
        ("u,8,1,recommendation,soap", "1 are recommendations with a query .first: line 3, query 'soap'"),
        (f"u,8,1,search,{'x' * 10_000}", "1 have a query of more than 1000 characters .first: line 3, query 'xxx"),
        ("u,,1,recommendation,", "1 are recommendations without an item_id .first: line 3, item_id None"),
        ("u,9,1,recommendation,", "1 name an item that the items table does not hold .first: line 3, item_id '9'"),
        ("u,8,1,search,soap", "1 repeat an earlier row .first: line 3, item_id '8'"),
        ("u,8,1", "1 cannot be read .first: line 3, where the number of fields is 3, not 5"),
    ],
)
def test_refused_events(tmp_path, caplog, row, message):
    header = "user_id,item_id,timestamp,behavior,query\n"
    events, items = write(tmp_path, f"{header}{GOOD}{row}\nu,007,2,recommendation,\n")
    with pytest.raises(DataError, match=f"^events.csv: 1 of 3 rows cannot be used: {message}"):
        read_tables(events, items)
    assert not caplog.records
    log = read_tables(events, items, max_refused=0.34)
    assert log.num_events == 2
    # One warning with the value; the notes are published, so they say the same without it.
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].message.endswith("They were left out.")
    (note,) = [note for note in log.notes if "cannot be used" in note]
    shown = re.search(r"first: line 3(.*)\)\. They", caplog.records[0].message).group(1)
    assert note == caplog.records[0].message.replace(shown, "" if row != "u,8,1" else shown)


def test_a_row_counts_for_the_first_rule_it_breaks(tmp_path):
    events, items = write(tmp_path, "user_id,item_id,timestamp\nu,8,1\n,9,\n,9,\nv,9,1\n")
    with pytest.raises(
        DataError,
        match=r"3 of 4 rows cannot be used: 2 have no user_id \(first: line 3, user_id None\); 1 name an item that "
        r"the items table does not hold \(first: line 5, item_id '9'\). That is 75.00%",
    ):
        read_tables(events, items)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",Comb,", "1 have no item_id .first: line 4, item_id None"),
        ("8,Comb,", "1 repeat the item_id of an earlier row .first: line 4, item_id '8'"),
        ("9,,", "1 have neither a title nor a description .first: line 4, item_id '9'"),
        ("9,Comb,soon", "1 have a timestamp that is not a time .first: line 4, available_from 'soon'"),
    ],
)
def test_refused_items(tmp_path, row, message):
    events, items = write(tmp_path, EVENTS, f"item_id,title,available_from\n007,Comb,2019-01-01\n8,Soap,\n{row}\n")
    with pytest.raises(DataError, match=f"^items.csv: 1 of 3 rows cannot be used: {message}"):
        read_tables(events, items)
    log = read_tables(events, items, max_refused=0.34)
    assert log.items["available_from"].to_pylist() == [1546300800, None]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("", "events.csv is empty"),
        ("user_id,item_id,timestamp\n", "`events.csv` is empty; a log needs at least one row"),
        ("user_id,timestamp\nu,1\n", "events.csv has no column 'item_id', only user_id, timestamp"),
        ("user_id,user_id,item_id,timestamp\nu,u,8,1\n", "more than one column 'user_id'"),
        ("user_id,item_id,timestamp\nu,8,20190131\n", "contains 20190131, .* pass time_unit='date_digits'"),
        ("user_id,item_id,timestamp\nu,8,yesterday\n", "'timestamp' contains 'yesterday', which is not a time"),
        ("user_id,item_id,timestamp\nu,9,1\n", "1 of 1 rows cannot be used"),
    ],
)
def test_tables_that_are_always_refused(tmp_path, events, message):
    with pytest.raises(DataError, match=message):
        read_tables(*write(tmp_path, events), max_refused=1.0)


def test_wrong_types_in_parquet(tmp_path):
    _, items = write(tmp_path)
    for values, message in (([True], "column 'timestamp' has type bool"), ([[1]], "has type list<")):
        pq.write_table(pa.table({"user_id": ["u"], "item_id": ["8"], "timestamp": values}), tmp_path / "e.parquet")
        with pytest.raises(DataError, match=message):
            read_tables(tmp_path / "e.parquet", items)
    row = pa.table({"user_id": ["u", "u"], "item_id": ["8", "9"], "timestamp": [1, 2]})
    pq.write_table(row, tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"first: row 1 \(from 0\), item_id '9'"):
        read_tables(tmp_path / "e.parquet", items)


def test_files_that_cannot_be_read(tmp_path):
    events, items = write(tmp_path)
    with pytest.raises(DataError, match="absent.csv is not a file; check the path"):
        read_tables(tmp_path / "absent.csv", items)
    (tmp_path / "events.xlsx").write_text("x")
    with pytest.raises(DataError, match="does not end in one of .parquet, .csv, .tsv"):
        read_tables(tmp_path / "events.xlsx", items)
    (tmp_path / "events.parquet").write_text("x")
    with pytest.raises(DataError, match="events.parquet is not a Parquet file"):
        read_tables(tmp_path / "events.parquet", items)
    (tmp_path / "events.jsonl").write_text('[{"user_id": "u"}]\n')
    with pytest.raises(DataError, match="events.jsonl has no column 'item_id' and no 'timestamp', only user_id. Say"):
        read_tables(tmp_path / "events.jsonl", items)
    (tmp_path / "latin.csv").write_bytes("user_id,item_id,timestamp\n\xe9,8,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="latin.csv, line 2: byte 0xe9 is not UTF-8 text .* `encoding`"):
        read_tables(tmp_path / "latin.csv", items)
    with pytest.raises(ConfigurationError, match="`max_refused` is 2"):
        read_tables(events, items, max_refused=2)


def test_the_line_is_the_one_a_row_starts_on(tmp_path):
    # A line break inside quotes: the third row is on the fourth line.
    events, items = write(tmp_path, 'user_id,item_id,timestamp,note\nu,8,1,"a\nb"\nu,9,2,c\n')
    with pytest.raises(DataError, match=r"first: line 4, item_id '9'"):
        read_tables(events, items)


def test_html_in_texts_of_items_and_queries_is_read_as_the_text_it_shows(tmp_path):
    """Decoded by hand; what merely has signs that HTML has stays, and so do columns that say nothing of an item."""
    items = pa.table(
        {
            "item_id": ["1", "2", "3", "4"],
            "title": ["M&uuml;ller &amp; S&ouml;hne", "R&B &lt;3", "a < b", None],
            "description": ["<p>Soft.</p>\n<p>Red</p>", "x <y and z>\n", None, None],
            "category": ["Furniture &gt; Chairs", '["5&quot; pipes", "R&amp;B"]', "[", None],
            "brand": ["B&amp;O", "H&M", None, "C&amp;A"],
            "link": ["/?a=1&amp;b=2", None, None, None],
        }
    )
    events = pa.table(
        {
            "user_id": ["u", "u", "v"],
            "item_id": ["1", "2", "4"],
            "timestamp": [1546300800, 1546300801, 1546300802],
            "query": ["sofas &amp; chairs", "R&B", None],
        }
    )
    log = read_tables(events, items)
    assert log.items.select(["title", "description", "categories", "brand", "link"]).to_pydict() == {
        "title": ["Müller & Söhne", "R&B <3", "a < b", "C&A"],
        "description": ["Soft. Red", "x <y and z>\n", None, None],
        "categories": [[["Furniture", "Chairs"]], [['5" pipes', "R&B"]], [["["]], None],
        "brand": ["B&O", "H&M", None, "C&A"],
        "link": ["/?a=1&amp;b=2", None, None, None],
    }
    assert log.events["query"].to_pylist() == ["sofas & chairs", "R&B", None]
    notes = " ".join(log.notes)
    assert (
        "HTML in texts of `items` was read as the text it shows: 'title' of 2 items, 'description' of 1 items, "
        "'category' of 1 items, 'brand' of 2 items." in notes
    )
    # Once for the text, once for the names of a list that is written as text.
    assert notes.count("'category' of 1 items") == 2
    assert "`events`: 1 queries held HTML, which was read as the text it shows (first: row 0 (from 0))." in notes
    # Without a table of items each item counts once, however many events describe it.
    described = events.append_column("title", pa.array(["a &amp; b", "c", "d"])).take([0, 0, 1, 2])
    described = described.set_column(2, "timestamp", pa.array([1546300800 + row for row in range(4)]))
    log = read_tables(described)
    assert log.items["title"].to_pylist() == ["a & b", "c", "d"]
    assert any("'title' of 1 items." in note for note in log.notes)


def test_times_that_lie_decades_from_the_others_are_counted():
    """Of a hundred times of one month 0 and 2099 are odd; of half a century none is, and positions are no times."""
    items = pa.table({"item_id": ["1"], "title": ["Comb"]})
    recent = [1_700_000_000 + 20_000 * row for row in range(100)]

    def notes(times, **settings):
        events = pa.table({"user_id": ["u"] * len(times), "item_id": ["1"] * len(times), "timestamp": times})
        return [note for note in read_tables(events, items, **settings).notes if "decades" in note]

    # 4,070,908,800 is 2099-01-01: 129 years of 365 days and 32 leap days (1972 to 2096) of 86,400 seconds.
    said = "times lie decades from most others; if they stand for nothing, leave their rows out (first: row"
    assert notes([*recent, 0, 4_070_908_800, 0]) == [f"`events`: 3 {said} 100 (from 0), 1970-01-01)."]
    assert notes([4_070_908_800, *recent]) == [f"`events`: 1 {said} 0 (from 0), 2099-01-01)."]
    assert notes(recent) == []
    assert notes([*recent, recent[0] - 9 * 365 * 86_400]) == []
    assert notes([800_000_000 + 9_000_000 * row for row in range(100)]) == []
    assert notes([*range(1, 101), 4_070_908_800], has_time=False) == []


def test_items_without_a_title_are_counted_by_what_they_are_called():
    items = pa.table(
        {
            "item_id": ["1", "2", "3", "4", "5"],
            "title": ["Comb", None, " ", None, "Soap"],
            "description": [None, "Soft.", "Red.", None, "Red."],
            "brand": ["A", "B", None, "C", None],
        }
    )
    events = pa.table({"user_id": ["u"], "item_id": ["1"], "timestamp": [1546300800]})

    def notes(table):
        log = read_tables(events, table, max_refused=0.5)
        return [note for note in log.notes if "no title" in note]

    described = "2 are shown by the start of their description."
    assert notes(items) == [
        f"3 items of `items` have no title: 1 are named by their brand and categories and {described}"
    ]
    assert notes(items.drop_columns(["brand"])) == [f"2 items of `items` have no title: {described}"]
    named = "1 items of `items` have no title: 1 are named by their brand and categories."
    assert notes(items.take([0, 3])) == [named]
    assert notes(items.take([0, 4])) == []
