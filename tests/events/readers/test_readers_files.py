# SPDX-License-Identifier: Apache-2.0
"""Files as people have them: quotes, delimiters, encodings, JSON lines of shops, lists written as text."""

import csv
import gzip
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import read_tables
from seekrec.events.checks import Source
from seekrec.events.readers import json_lines, json_objects
from seekrec.events.readers.columns import to_ids
from seekrec.events.readers.delimited import read_delimited
from seekrec.events.readers.text_files import find_lines
from seekrec.events.readers.written_lists import parse_written_lists

TITLES = ['a "big" lamp', "two\nlines", "tab\tand, comma", '"', "plain", "back\\slash", 'ends with "', "6\\"]


def write_rows(path, rows, **options):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows([["item_id", "title"], *enumerate(rows)])
    return path


def titles(path, **options):
    options = {"delimiter": "\t" if path.suffix == ".tsv" else ","} | options
    return read_delimited(path, **options)[0]["title"].to_pylist()


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".csv", {}),
        (".csv", {"quoting": csv.QUOTE_ALL}),
        (".csv", {"doublequote": False, "escapechar": "\\"}),
        (".csv", {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL}),
        (".tsv", {"delimiter": "\t"}),
        (".tsv", {"delimiter": "\t", "quoting": csv.QUOTE_ALL}),
        (".tsv", {"delimiter": "\t", "doublequote": False, "escapechar": "\\"}),
    ],
)
def test_what_the_csv_module_writes_is_read_back(tmp_path, suffix, options, caplog):
    # The module doubles a backslash outside of quotes too; Spark does not, and two are what stands there.
    is_bare = "escapechar" in options and "quoting" not in options
    rows = [title for title in TITLES if not (is_bare and "\\" in title)]
    assert titles(write_rows(tmp_path / f"f{suffix}", rows, **options)) == rows
    assert not caplog.records


def test_quotes_of_published_tsv_files_are_letters(tmp_path, caplog):
    rows = ['"Strange Al" Novak', '"Giants', "Low tide", 'Nightfall"', '6" nails', '"Heroes"']
    path = tmp_path / "f.tsv"
    path.write_text("item_id\ttitle\n" + "".join(f"{number}\t{title}\n" for number, title in enumerate(rows)))
    table, source = read_delimited(path, delimiter="\t")
    assert table["title"].to_pylist() == rows
    # Two, one, one, one and two.
    (remark,) = source.remarks
    assert remark.startswith(
        'f.tsv: 7 quotes (") were taken for letters (first: line 2); if they enclose fields, pass'
    )
    assert caplog.records[0].message == remark
    # A few whole fields in quotes are letters too, unless the names of the columns stand in quotes as well.
    path.write_text('item_id\ttitle\n1\t"Heroes"\n2\tLow\n')
    assert titles(path) == ['"Heroes"', "Low"]
    assert titles(path, quoting="doubled") == ["Heroes", "Low"]
    path.write_text('"item_id"\t"title"\n1\t"Heroes"\n2\t"Low"\n')
    assert titles(path) == ["Heroes", "Low"]


def test_a_quote_that_encloses_nothing_is_a_letter_in_csv_too(tmp_path, caplog):
    path = tmp_path / "f.csv"
    rows = ['1,6" nails', '2,"a, ""b"""', '3,"Strange Al" Novak', '4,"unclosed', "5,last"]
    path.write_text("\n".join(["item_id,title", *rows]))
    assert titles(path) == ['6" nails', 'a, "b"', '"Strange Al" Novak', '"unclosed', "last"]
    assert "4 quotes" in caplog.records[0].message and "first: line 2" in caplog.records[0].message


def test_rows_that_may_be_one_field_are_asked_about(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('item_id,title\n1,a\n2,"Giants\n3,Low\n4,Nightfall"\n')
    with pytest.raises(DataError, match="f.csv: the quotes on lines 3 and 5 may enclose one field of 3 lines, or be"):
        titles(path)
    assert titles(path, quoting="doubled") == ["a", "Giants\n3,Low\n4,Nightfall"]
    assert titles(path, quoting="none") == ["a", '"Giants', "Low", 'Nightfall"']


def test_the_line_of_a_row(tmp_path):
    path = tmp_path / "f.csv"
    # Lines: 1 header, 2-3 one row, 4 empty, 5 a row, 6 too long, 7 a row; one line ends the old Macintosh way.
    path.write_bytes(b'item_id,title\r\n1,"a\r\nb"\r\n\r\n2,c\n3,d,e\n4,f\r5,g')
    table, source = read_delimited(path, delimiter=",")
    assert table["item_id"].to_pylist() == ["1", "2", "4", "5"]
    assert [source.name_row(row) for row in range(4)] == ["line 2", "line 5", "line 7", "line 8"]
    assert source.unreadable == "line 6, where the number of fields is 3, not 2"


def test_lines_against_splitlines():
    for text in (b"", b"\n", b"a", b"a\n", b"\r\na\r\rb\n\n", b"\r\n\r\n"):
        lines = find_lines(np.frombuffer(text, dtype=np.uint8))
        found = [text[start:end] for start, end in zip(lines.starts, lines.ends, strict=True)]
        assert found == text.splitlines()
        assert lines.numbers.tolist() == list(range(1, len(found) + 1))


EVENTS = "user_id,item_id,timestamp\nu,1,1546300800\nv,2,1546300801\n"
ITEMS = "item_id,title\n1,Café\n2,Naïve\n"


def write(folder, events=EVENTS, items=ITEMS, suffix=".csv", encoding="utf-8"):
    (folder / "e.csv").write_text(events)
    (folder / f"i{suffix}").write_bytes(items.encode(encoding))
    return folder / "e.csv", folder / f"i{suffix}"


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_another_delimiter_is_found_from_the_header(tmp_path, delimiter):
    log = read_tables(*write(tmp_path, EVENTS.replace(",", delimiter), ITEMS.replace(",", delimiter)))
    assert log.events["item_id"].to_pylist() == ["1", "2"]
    assert log.items["title"].to_pylist() == ["Café", "Naïve"]


def test_a_delimiter_is_found_where_no_name_of_the_header_is_known(tmp_path):
    items = "ArtNr;Bezeichnung;Preis\n1;Pfanne;1,80\n2;Messer;2\n"
    log = read_tables(*write(tmp_path, items=items), column_map={"title": "Bezeichnung"})
    assert log.items["title"].to_pylist() == ["Pfanne", "Messer"] and log.items["Preis"].to_pylist() == [1.8, 2.0]
    log = read_tables(*write(tmp_path, items=items))
    assert log.items["title"].to_pylist() == ["1", "2"] and log.items["Preis"].to_pylist() == [1.8, 2.0]


def test_decimal_commas_of_spreadsheets_are_numbers(tmp_path):
    log = read_tables(*write(tmp_path, items="item_id;title;price;code\n1;a;12,5;1,2,3\n2;b;7;4\n"))
    assert log.items["price"].to_pylist() == [12.5, 7.0] and log.items["code"].to_pylist() == ["1,2,3", "4"]
    assert "i.csv: numbers of column price have a decimal comma." in log.notes
    assert "i.csv has ';' between fields." in log.notes


def test_a_delimiter_that_is_said(tmp_path):
    paths = write(tmp_path, EVENTS.replace(",", ":"), ITEMS.replace(",", ":"))
    with pytest.raises(DataError, match="only item_id:title. .* pass the `delimiter` between them"):
        read_tables(*paths)
    assert read_tables(*paths, delimiter=":").num_events == 2
    for wrong in ("::", "é", '"', ""):
        with pytest.raises(ConfigurationError, match="`delimiter` is"):
            read_tables(*paths, delimiter=wrong)
    with pytest.raises(ConfigurationError, match="`quoting` is 'all'; use one of"):
        read_tables(*write(tmp_path, items='item_id,title\n1,"a"\n2,b\n'), quoting="all")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    log = read_tables(*write(tmp_path, encoding=encoding))
    assert log.items["title"].to_pylist() == ["Café", "Naïve"]


def test_an_encoding_that_is_said(tmp_path):
    paths = write(tmp_path, encoding="cp1252")
    with pytest.raises(DataError, match="i.csv, line 2: byte 0xe9 is not UTF-8 text .*Pass the file's `encoding`"):
        read_tables(*paths)
    assert read_tables(*paths, encoding="latin-1").items["title"].to_pylist() == ["Café", "Naïve"]
    with pytest.raises(ConfigurationError, match="`encoding` is 'klingon', an encoding unknown to Python"):
        read_tables(*paths, encoding="klingon")
    for wide in ("utf-16-le", "utf-16-be"):
        log = read_tables(*write(tmp_path, encoding=wide))
        assert log.items["title"].to_pylist() == ["Café", "Naïve"]
        assert f"i.csv has encoding {wide}." in log.notes
    with pytest.raises(DataError, match="i.csv contains zero bytes .* Pass `encoding`, such as 'utf-16-le'"):
        read_tables(*write(tmp_path, items="item_id,title\n1,\0\n"))
    with pytest.raises(DataError, match="i.csv, line 3: byte 0xff is not UTF-8"):
        (tmp_path / "i.csv").write_bytes(b"item_id,title\n1,a\n2,\xff\n")
        read_tables(tmp_path / "e.csv", tmp_path / "i.csv")
    (tmp_path / "i.csv.gz").write_bytes(gzip.compress(ITEMS.encode())[:-9])
    with pytest.raises(DataError, match="i.csv.gz cannot be unpacked"):
        read_tables(tmp_path / "e.csv", tmp_path / "i.csv.gz")


def test_a_null_of_databases(tmp_path):
    log = read_tables(*write(tmp_path, items="item_id,title,description\n1,a,\\N\n2,b,c\n"))
    assert log.items["description"].to_pylist() == [None, "c"]


def jsonl(*rows):
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def read_items(folder, text, **options):
    return read_tables(*write(folder, items=text, suffix=".jsonl"), **options)


def test_columns_that_seekrec_does_not_use_cannot_stop_json_lines(tmp_path):
    rows = [
        {"item_id": "1", "title": "a", "price": 12.5, "more": {"size": 1}},
        {"item_id": 2, "title": "b", "price": "from 3", "more": None},
    ]
    log = read_items(tmp_path, jsonl(*rows))
    assert log.items["item_id"].to_pylist() == ["1", "2"]
    assert log.items["price"].to_pylist() == ["12.5", "from 3"]
    assert log.items["more"].to_pylist() == [{"size": 1}, None]
    assert "i.jsonl: column price contains values of several types; it was read as text." in log.notes


def test_a_line_of_json_that_cannot_be_used_is_one_refused_row(tmp_path):
    good = [{"item_id": str(number), "title": "t"} for number in (1, 2, 3)]
    for row, message in {
        "{": "is not JSON",
        "[1]": "contains list, not an object",
        '{"item_id": "9", "item_id": "8", "title": "x"}': "names a key twice",
        '{"item_id": 1.5, "title": "x"}': "item_id is float, not text or a whole number below 2..53",
        '{"item_id": 1.0324124350072632e+17, "title": "x"}': "item_id is float",
        '{"item_id": "9", "title": true}': "title is bool, not text",
        '{"item_id": "9", "title": "\\ud800"}': "contains half of a surrogate pair",
        "[" * 100_000: "is nested too deep",
    }.items():
        text = "\n" + jsonl(good[0], row, *good[1:])
        with pytest.raises(
            DataError, match=f"1 of 4 rows cannot be used: 1 cannot be read .first: line 3, which {message}"
        ):
            read_items(tmp_path, text)
        assert read_items(tmp_path, text, max_refused=0.25).items["item_id"].to_pylist() == ["1", "2", "3"]
    for text in ("[1, 2]", "[{}]"):
        with pytest.raises(
            DataError, match="i.jsonl cannot be read as JSON. It must contain one object per line, or o"
        ):
            read_items(tmp_path, text)
    with pytest.raises(DataError, match="i.jsonl cannot be read as JSON: line 1, which is not JSON"):
        read_items(tmp_path, "{\n")


@pytest.mark.parametrize("indent", [None, 1])
def test_one_list_of_objects_is_read_in_stretches(tmp_path, monkeypatch, indent):
    monkeypatch.setattr(json_lines, "_STRETCH", 400)
    monkeypatch.setattr(json_objects, "_BLOCK", 64)
    tricky = ['a "quote"', "back\\slash", "\\", "{[", "]},{", "two\nlines", "é商", 'ends \\"']
    rows = [
        # A number in some stretches, text in others, and an object whose braces are no objects.
        {"item_id": row if row < 50 else f"x{row}", "title": tricky[row % 8] + str(row), "more": {"n": [row, {}]}}
        for row in range(100)
    ]
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    log = read_items(tmp_path, text, max_refused=0.0)
    assert log.items["item_id"].to_pylist() == [str(row["item_id"]) for row in rows]
    assert log.items["title"].to_pylist() == [row["title"] for row in rows]
    # Objects one after the other over several lines are the same.
    if indent is not None:
        apart = "\n".join(json.dumps(row, indent=indent) for row in rows)
        assert (
            read_items(tmp_path, apart)
            .items.select(["item_id", "title"])
            .equals(log.items.select(["item_id", "title"]))
        )


def test_what_is_no_object_of_a_list_has_its_line(tmp_path):
    good = ['{"item_id": "1", "title": "a"}', '{"item_id": "2", "title": "b"}']
    for text, message in {
        f'[{good[0]},\n{{"item_id": 3,\n}},{good[1]}]': "line 2, which is not JSON",
        f"[{good[0]},\n\n5,{good[1]}]": "line 1, behind which something stands that is not an object",
        f'[{good[0]},\n{good[1]},\n{{"item_id": 9, "tit': "line 3, which starts an object that does not end",
    }.items():
        with pytest.raises(DataError, match=f"1 of 3 rows cannot be used: 1 cannot be read .first: {message}"):
            read_items(tmp_path, text)
        assert read_items(tmp_path, text, max_refused=0.34).items["item_id"].to_pylist() == ["1", "2"]


def test_a_bad_line_of_a_packed_file_with_line_breaks_in_fields_has_its_number(tmp_path):
    text = 'item_id,title\n1,"a\nb"\n2,c,d\n3,e\n'
    (tmp_path / "e.csv").write_text(EVENTS.replace("v,2", "v,3"))
    (tmp_path / "i.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match="1 of 3 rows .*first: line 4, where the number of fields is 3, not 2"):
        read_tables(tmp_path / "e.csv", tmp_path / "i.csv.gz")
    assert read_tables(tmp_path / "e.csv", tmp_path / "i.csv.gz", max_refused=0.34).num_items == 2


def test_values_of_json_lines_stay_as_they_are(tmp_path):
    large = 2**63 + 5
    rows = [
        {"item_id": large, "title": "2019-01-01", "categories": [["2019-05-01"]], "description": ["a.", "b."]},
        {"item_id": 1, "title": "x" * 3_000_000, "categories": None, "description": None},
        {"item_id": 2, "title": "b", "categories": [["c"]], "description": ["c"]},
    ]
    log = read_items(tmp_path, jsonl(*rows))
    assert log.items["item_id"].to_pylist() == [str(large), "1", "2"]
    assert log.items["title"][0].as_py() == "2019-01-01"
    assert log.items["categories"].to_pylist() == [[["2019-05-01"]], None, [["c"]]]
    assert log.items["description"].to_pylist() == ["a. b.", None, "c"]


def test_floats_that_cannot_tell_ids_apart_are_refused():
    def ids(values, kind=None):
        return to_ids(pa.chunked_array([pa.array(values, kind)]), "user_id", Source("f.csv")).to_pylist()

    assert ids([2.0**53 - 1]) == ["9007199254740991"]
    # float32 has 24 bits: 2**24 + 1 is read as 2**24.
    assert ids([2.0**24 - 1], pa.float32()) == ["16777215"]
    for values, kind in (
        ([2.0**53], None),
        ([2.0**24], pa.float32()),
        ([float("inf")], None),
        ([2.0**11], pa.float16()),
    ):
        with pytest.raises(DataError, match="f.csv: column 'user_id' .* last digits are lost. Write the column again"):
            ids(values if kind != pa.float16() else np.array(values, np.float16), kind)
    with pytest.raises(DataError, match=r"contains 1.03241E\+17 .row 1 .from 0.."):
        ids(["7", "1.03241E+17"])
    # Integers with gaps, as pandas writes them to CSV; one that is none shows that they are names.
    assert ids(["7.0", None, "10.0"]) == ["7", None, "10"]
    assert ids(["7.0", "7.5"]) == ["7.0", "7.5"]
    # A product's own name may look like a number with an exponent.
    assert ids(["1E5", "5e3"]) == ["1E5", "5e3"]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("['Toys', 'Cars']", [["Toys", "Cars"]]),
        ('["Toys", "Men\'s"]', [["Toys", "Men's"]]),
        ("[['Toys', 'Cars'], ['Games']]", [["Toys", "Cars"], ["Games"]]),
        ("['Toys' 'Cars'\n 'Red']", [["Toys", "Cars", "Red"]]),
        (r"['it\'s', 'caf\xe9', '\u706f']", [["it's", "café", "灯"]]),
        ("[]", []),
        ("Toys > Cars", None),
        ("[Toys] > Cars", None),
    ],
)
def test_lists_written_as_text(text, paths):
    found = parse_written_lists(pa.array([text, "Other > Path"]), "categories", Source("f.csv"))
    assert (found or [None])[0] == paths


def test_what_pandas_writes_of_a_column_of_lists_is_read_back(tmp_path):
    lists = [["Toys", "Men's"], ['say "hi"', "a, b"], ["x"]]
    frame = pd.DataFrame({"item_id": [1, 2, 3], "title": list("abc"), "categories": lists})
    log = read_tables(*write(tmp_path, items=frame.to_csv(index=False)))
    assert log.items["categories"].to_pylist() == [[path] for path in lists]
    with pytest.raises(DataError, match="'categories' contains '.Toys, Cars.' .line 2., a list without quotes"):
        read_tables(*write(tmp_path, items='item_id,title,categories\n1,a,"[Toys, Cars]"\n2,b,\n'))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([20240131, 20240201], "contains 20240131, which looks like a date in digits"),
        ([2024013112, 2024020100], "contains 2024013112, which looks like a date in digits"),
        ([20240131120000, 20240201120000], "contains 20240131120000, which looks like a date in digits"),
        ([19753, 19754], "contains 19753, which looks like a number of days; .* multiply by 86400"),
        ([2023, 2024, 5], "contains 2023, which looks like a year"),
    ],
)
def test_numbers_that_are_no_seconds(tmp_path, values, message):
    for kind in (int, str):
        columns = {"user_id": "u", "item_id": ["1"] * len(values), "timestamp": list(map(kind, values))}
        columns["user_id"] = [f"u{value}" for value in values]
        pq.write_table(pa.table(columns), tmp_path / "e.parquet")
        items = write(tmp_path)[1]
        with pytest.raises(DataError, match=f"e.parquet: column 'timestamp' {message}.* pass has_time=False"):
            read_tables(tmp_path / "e.parquet", items)
        log = (
            read_tables(tmp_path / "e.parquet", items, has_time=False, max_refused=0.9)
            if max(values) < 10**11
            else None
        )
        assert log is None or log.num_events == len(values)


def test_milliseconds_are_refused_by_the_log_itself():
    from seekrec import EventLog

    events = pa.table({"user_id": ["u"], "timestamp": [1_700_000_000_000], "item_id": ["a"]})
    with pytest.raises(DataError, match="1 have a timestamp too large for seconds .first: row 0"):
        EventLog("x", events, pa.table({"item_id": ["a"], "title": ["a"]}))


def test_a_table_that_arrow_reads_is_read_the_same_without(tmp_path):
    # The csv module is the other reader: quotes as RFC 4180 has them, random text.
    generator = np.random.default_rng(0)
    letters = np.array(list('ab",\n\\ '))
    rows = ["".join(generator.choice(letters, size=generator.integers(1, 12))) + "z" for _ in range(300)]
    path = write_rows(tmp_path / "f.csv", rows)
    expected = [row[1] for row in csv.reader(io.StringIO(path.read_text(), newline=""))][1:]
    assert titles(path, quoting="doubled") == expected == rows
