# SPDX-License-Identifier: Apache-2.0
"""Readers: what is written comes back, and damage is named."""

import csv
import functools
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tally import TALLY, fuzzed

from seekrec import read_movielens, read_sequences, read_tables
from seekrec.events.readers import (
    json_lines,
    json_objects,
    read_amazon,
    read_criteo,
    read_diginetica,
    read_kuairec,
    read_kuaisar,
    read_lastfm,
    read_mind,
    read_qilin,
    read_recbole,
    read_trivago,
    read_yelp,
    read_yoochoose,
)
from seekrec.events.readers.delimited import read_delimited

# Without lone surrogates and NUL; with everything that has a meaning in some format.
letters = st.one_of(st.sampled_from(list("\"',;\t\n\r|\\[]{}N>ab ")), st.characters(exclude_categories=("Cs", "Cc")))
words = st.text(letters, min_size=1, max_size=12).filter(lambda word: word.strip())
keys = st.text(st.sampled_from("abc019_é"), min_size=1, max_size=4)


@st.composite
def tables(draw):
    items = draw(st.lists(keys, min_size=1, max_size=6, unique=True))
    rows = [{"item_id": item, "title": draw(words), "note": draw(st.one_of(st.just(""), words))} for item in items]
    events = [
        {"user_id": draw(keys), "item_id": draw(st.sampled_from(items)), "timestamp": 1_500_000_000 + number}
        for number in range(draw(st.integers(1, 8)))
    ]
    return events, rows


def expected_items(rows):
    return {row["item_id"]: row["title"] for row in rows}


def check_log(log, events, rows):
    assert dict(zip(log.items["item_id"].to_pylist(), log.items["title"].to_pylist(), strict=True)) == expected_items(
        rows
    )
    read = log.events.select(["user_id", "item_id", "timestamp"]).to_pylist()
    assert sorted(map(repr, read)) == sorted(map(repr, events))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".csv.gz"])
def test_what_is_written_is_read_back(tmp_path, suffix, monkeypatch):
    # A list of objects is looked through in blocks, and read in stretches: many of them even here.
    monkeypatch.setattr(json_objects, "_BLOCK", 7)
    monkeypatch.setattr(json_lines, "_STRETCH", 60)

    @fuzzed(700)
    @given(tables(), st.data())
    def ask(drawn, data):
        events, rows = drawn
        with TALLY.case(f"tables {suffix}"):
            paths = []
            options = {}
            for name, records in (("e", events), ("i", rows)):
                path = tmp_path / f"{name}{suffix}"
                if suffix == ".parquet":
                    pq.write_table(pa.Table.from_pylist(records), path)
                elif suffix == ".jsonl":
                    path.write_text("".join(json.dumps(record) + "\n" for record in records))
                elif suffix == ".json":
                    indent = data.draw(st.sampled_from([None, 1]))
                    text = json.dumps(records, indent=indent, ensure_ascii=data.draw(st.booleans()))
                    path.write_text(text, encoding="utf-8")
                else:
                    text = io.StringIO()
                    delimiter = data.draw(st.sampled_from(",;|")) if suffix.startswith(".csv") else "\t"
                    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
                    writer = csv.DictWriter(text, list(records[0]), delimiter=delimiter, quoting=quoting)
                    writer.writeheader()
                    writer.writerows(records)
                    encoded = text.getvalue().encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
                    path.write_bytes(gzip.compress(encoded) if suffix.endswith(".gz") else encoded)
                    # Said, a dialect has one meaning; what is found is checked below.
                    options = {"quoting": "doubled"}
                paths.append(path)
            check_log(read_tables(*paths, **options), events, rows)

    ask()


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_quotes_that_are_found_are_right_or_asked_for(tmp_path, delimiter):
    path = tmp_path / ("f.csv" if delimiter == "," else "f.tsv")

    @fuzzed(1000)
    @given(
        st.lists(
            st.text(st.sampled_from('ab "\\,\n'), min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=6
        ),
        st.data(),
    )
    def ask(titles, data):
        with TALLY.case("quotes that are found"):
            text = io.StringIO()
            writer = csv.writer(
                text, delimiter=delimiter, quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
            )
            writer.writerows(
                [["item_id", "title"], *([str(number), f"x{title}"] for number, title in enumerate(titles))]
            )
            path.write_bytes(text.getvalue().encode())
            table, _ = read_delimited(path, delimiter=delimiter)
            assert table["title"].to_pylist() == [f"x{title}" for title in titles]

    ask()


@fuzzed(700)
@given(st.lists(st.text(st.sampled_from("ab\"c'"), min_size=1, max_size=5), min_size=2, max_size=8))
def test_letters_of_raw_tab_separated_files_stay(tmp_path_factory, titles):
    # Some quote shows that quotes are letters: one in a field that does not begin with it.
    titles = [*titles, '6" nails']
    path = tmp_path_factory.mktemp("raw") / "f.tsv"
    path.write_text("item_id\ttitle\n" + "".join(f"{number}\t{title}\n" for number, title in enumerate(titles)))
    with TALLY.case("raw .tsv"):
        table, source = read_delimited(path, delimiter="\t")
        assert table["title"].to_pylist() == titles
        assert [source.name_row(row) for row in range(len(titles))] == [
            f"line {row + 2}" for row in range(len(titles))
        ]


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


@fuzzed(800)
@given(st.lists(values, min_size=1, max_size=8), st.lists(st.integers(0, 2**66), min_size=8, max_size=8, unique=True))
def test_unused_columns_of_json_lines_change_nothing(tmp_path_factory, extras, ids):
    folder = tmp_path_factory.mktemp("json")
    rows = [
        {"item_id": number, "title": f"t{number}", "extra": extra} for number, extra in zip(ids, extras, strict=False)
    ]
    events = [
        {"user_id": 2**64 + row, "item_id": rows[row]["item_id"], "timestamp": 1_500_000_000}
        for row in range(len(rows))
    ]
    for name, records in (("e", events), ("i", rows)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    has_surrogate = any("\\ud" in json.dumps(extra) for extra in extras)
    with TALLY.case("unused columns"):
        try:
            log = read_tables(folder / "e.jsonl", folder / "i.jsonl")
        except ValueError:
            assert has_surrogate
            raise
        assert log.items["item_id"].to_pylist() == [str(row["item_id"]) for row in rows]
        assert set(log.events["user_id"].to_pylist()) == {str(event["user_id"]) for event in events}


EVENTS = "user_id,item_id,timestamp,query\nu,1,1546300800,\nv,2,1546300860,red soap\nu,2,1546300801,\n"
ITEMS = 'item_id,title,categories\n1,Comb,Beauty > Hair\n2,"Soap, ""red""",\n'
SEEDS = {
    "i.csv": ITEMS.encode(),
    "i.tsv": ITEMS.replace(",", "\t").encode(),
    "i.jsonl": b'{"item_id": 1, "title": "Comb", "categories": [["a", "b"]]}\n'
    b'{"item_id": 2, "title": "Soap", "categories": null}\n',
    "i.csv.gz": gzip.compress(ITEMS.encode(), mtime=0),
}


def damaged(data, content):
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(content) - 1, 0)))
        match data.draw(st.sampled_from(["set", "insert", "cut", "delete", "double"])):
            case "set" if content:
                content[place] = data.draw(st.integers(0, 255))
            case "insert":
                content[place:place] = data.draw(
                    st.sampled_from([b'"', b"\n", b"\\", b"\r", b"\0", b"\xff", b",", b"\t", b"1e400", b"[", b"{"])
                )
            case "cut":
                del content[place:]
            case "delete":
                del content[place : place + 3]
            case "double":
                content += content[place:]
    return bytes(content)


@pytest.mark.parametrize("name", list(SEEDS))
def test_damaged_items(tmp_path, name):
    (tmp_path / "e.csv").write_text(EVENTS)

    @fuzzed(500)
    @given(st.data())
    def ask(data):
        (tmp_path / name).write_bytes(damaged(data, SEEDS[name]))
        with TALLY.case("damaged items"):
            log = read_tables(tmp_path / "e.csv", tmp_path / name, max_refused=data.draw(st.sampled_from([0.0, 0.9])))
            assert log.num_items >= 1
            # No value of a row stands in a note.
            assert "red soap" not in " ".join(log.notes)

    ask()


@fuzzed(700)
@given(st.data())
def test_damaged_events(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "i.csv").write_text(ITEMS)
    (folder / "e.csv").write_bytes(damaged(data, EVENTS.encode()))
    with TALLY.case("damaged events"):
        log = read_tables(folder / "e.csv", folder / "i.csv", max_refused=data.draw(st.sampled_from([0.0, 0.9])))
        assert set(log.events["item_id"].to_pylist()) <= {"1", "2", None}


@fuzzed(400)
@given(st.data())
def test_columns_of_any_type(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("types")
    kinds = st.sampled_from(
        [
            pa.int8(),
            pa.uint64(),
            pa.float16(),
            pa.float32(),
            pa.float64(),
            pa.string(),
            pa.large_string(),
            pa.binary(),
            pa.bool_(),
            pa.date32(),
            pa.timestamp("ns", "UTC"),
            pa.decimal128(20, 0),
            pa.list_(pa.string()),
            pa.null(),
            pa.duration("s"),
            pa.time64("us"),
        ]
    )
    columns = {}
    for name, base in (
        ("user_id", ["1", "2", "1"]),
        ("item_id", ["1", "2", "2"]),
        ("timestamp", [1, 2, 3]),
        ("query", [None, "x", None]),
        ("behavior", None),
    ):
        values = pa.array(base) if base else pa.array(["recommendation"] * 3)
        if data.draw(st.integers(0, 3)) == 0:
            kind = data.draw(kinds)
            try:
                values = values.cast(kind)
            except (pa.ArrowException, TypeError):
                values = pa.nulls(3, kind)
        columns[name] = values
    pq.write_table(pa.table(columns), folder / "e.parquet")
    (folder / "i.csv").write_text(ITEMS)
    with TALLY.case("types"):
        log = read_tables(folder / "e.parquet", folder / "i.csv", max_refused=0.9)
        assert set(log.events["user_id"].to_pylist()) <= {"1", "2"}


SEQUENCES = {
    "T.inter.json": b'{"a": [1, 2], "b": [2]}',
    "T.item.json": b'{"1": {"title": "Comb"}, "2": {"title": "Soap", "categories": "A,B"}}',
}
RATINGS = {
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,2,5,964982704\n",
    "movies.csv": b'movieId,title,genres\n1,Toy Story (1995),Comedy\n2,"President, The (1995)",Drama|War\n',
}


REVIEWS = {
    "reviews_T_5.json": b'{"reviewerID": "a", "asin": "B1", "overall": 5.0, "unixReviewTime": 964982703}\n'
    b'{"reviewerID": "b", "asin": "B2", "overall": 1.0, "unixReviewTime": 964982704}\n',
    "meta_T.json": b"{'asin': 'B1', 'title': 'Comb', 'categories': [['A', 'B']]}\n"
    b"{'asin': 'B2', 'description': \"Kevin's\", 'brand': 'x'}\n",
    "query_text.txt": b"comb\nsoap\n",
    "test.qrels": b"a_0 0 B1 1\nb_1 0 B2 1\n",
}
PRODUCTS = {
    "T.jsonl": b'{"user_id": "a", "parent_asin": "B1", "rating": 5.0, "timestamp": 1588687728923}\n'
    b'{"user_id": "b", "parent_asin": "B2", "rating": 1.0, "timestamp": 1588687728924}\n',
    "meta_T.jsonl": b'{"parent_asin": "B1", "title": "Comb", "description": ["x"], "categories": ["A", "B"]}\n'
    b'{"parent_asin": "B2", "title": "Soap", "description": [], "categories": [], "main_category": "A"}\n',
}
ARTISTS = {
    "artists.dat": b"id\tname\n1\tAbba\n2\tBj\xc3\xb6rk\n",
    "tags.dat": b"tagID\ttagValue\n7\tpop\n8\tsue\xf1o\n",
    "user_artists.dat": b"userID\tartistID\tweight\n1\t1\t50\n",
    "user_taggedartists-timestamps.dat": b"userID\tartistID\ttagID\ttimestamp\n1\t1\t7\t1238536800000\n"
    b"1\t2\t8\t1238536800000\n",
}
PLACES = {
    "business.json": b'{"business_id": "1", "name": "Bar", "city": "Reno", "categories": "Bars, Food"}\n'
    b'{"business_id": "2", "name": "Gym", "city": null, "categories": null}\n',
    "review.json": b'{"user_id": "a", "business_id": "1", "stars": 5.0, "date": "2018-07-07 22:09:11"}\n'
    b'{"user_id": "b", "business_id": "2", "stars": 1.0, "date": "2018-07-08 22:09:11"}\n',
}
ATOMIC = {
    "t.inter": b"user_id:token\titem_id:token\ttimestamp:float\n1\t1\t964982703\n1\t2\t964982704\n",
    "t.item": b"item_id:token\tname:token_seq\tclass:token_seq\n1\tComb\tA B\n2\tSoap\t\n",
}

REQUESTS = {
    "notes.csv": "note_idx,note_title,note_content,taxonomy1_id\n0,面条,汤,a\n1,,茶,\n".encode(),
    "search_train.csv": "query,search_result_details_with_idx,search_idx,user_idx\n"
    "面,\"[{'click': 1.0, 'collect': 0.0, 'comment': 0.0, 'like': 0.0, 'note_idx': 0, 'page_time': 4.1, "
    "'position': 1.0, 'search_timestamp': 1732744734.0, 'share': 0.0}\n {'click': 0.0, 'collect': 0.0, 'like': 0.0, "
    "'comment': 0.0, 'note_idx': 1, 'page_time': nan, 'position': 2.0, 'search_timestamp': 1732744735.0, "
    "'share': 0.0}]\",3,9\n".encode(),
}
VISITS = {
    "train.csv": b"user_id,session_id,timestamp,step,action_type,reference,city,impressions\n"
    b'A,v,1541595108,1,search for destination,Rome,"Rome, Italy",\n'
    b'A,v,1541595109,2,interaction item info,10,"Rome, Italy",\n'
    b'A,v,1541595110,3,clickout item,10,"Rome, Italy",10|11|12\n'
    b'B,w,1541595111,1,search for poi,Zoo,"Bonn, Germany",\n',
    "item_metadata.csv": b"item_id,properties\n10,Spa|Bar\n",
}
NEWS = {
    "behaviors.tsv": b"1\tU1\t11/15/2019 1:24:44 PM\tN1 N2\tN1-1 N2-0\n2\tU2\t11/15/2019 1:24:45 AM\t\tN2-1\n",
    "news.tsv": b"N1\tsports\tgolf\tTitle\tText\thttps://x\t[]\t[]\nN2\tnews\tworld\tOther\t\thttps://x\t[]\t[]\n",
}
VIDEOS = {
    "item_features.csv": b'item_id,caption,first_level_category_name\n5,"[7, 8]",Food\n6,[],Fun\n',
    "src_inter.csv": b"user_id,search_session_id,search_session_timestamp,keyword,item_id,click_cnt\n"
    b'1,50,1684763932919,"[20, 34]",5,1\n1,50,1684763932919,"[20, 34]",6,0\n',
    "rec_inter.csv": b"user_id,item_id,timestamp,click,playing_time\n"
    b"1,5,1684742000500.0,1,900.0\n1,6,1684742000900.0,0,\n",
}
WATCHED = {
    "big_matrix.csv": b"user_id,video_id,timestamp,watch_ratio\n0,5,1593878903.4,1.2\n0,6,1593878904.4,0.5\n",
    "kuairec_caption_category.csv": b'video_id,caption,first_level_category_name\n5,"a, b",Food\n',
    "item_categories.csv": b'video_id,feat\n6,"[27, 9]"\n',
}
BASKETS = {
    "yoochoose-clicks.dat": b"1,2014-04-07T10:51:09.277Z,21,0\n1,2014-04-07T10:54:09.868Z,22,5\n",
    "yoochoose-buys.dat": b"1,2014-04-07T14:00:00.000Z,21,12462,2\n",
}
LISTS = {
    "train-item-views.csv": b"sessionId;userId;itemId;timeframe;eventdate\n"
    b"1;NA;81;526309;2016-05-09\n2;7;31;10;2016-05-09\n",
    "train-queries.csv": b"queryId;sessionId;userId;timeframe;eventdate;searchstring.tokens;items;is.test\n"
    b"1;1;NA;500000;2016-05-09;16,24;71,81,30;FALSE\n2;2;NA;9;2016-05-09;NA;71;TRUE\n",
    "train-clicks.csv": b"queryId;timeframe;itemId\n1;520000;81\n",
    "products.csv": b"itemId;pricelog2;product.name.tokens\n81;2;48,77\n",
    "product-categories.csv": b"itemId;categoryId\n81;40\n",
}
BANNERS = {
    "criteo_attribution_dataset.tsv": b"timestamp\tuid\tcampaign\tconversion_timestamp\t"
    b"conversion_id\tattribution\tclick\n0\t2\t22\t-1\t-1\t0\t0\n2\t2\t91\t900\t77\t1\t1\n",
}
SPONSORED = {
    "CriteoSearchData": b"0\t9\t-1\t1596439471\t3\t9.5\t-1\tphone\t-1\t-1\tb\tc\t-1\t-1\t-1\t-1\t-1\t-1\t"
    b"DE\tA\tw1\tp\tu\n"
    b"1\t9\t100\t1596439500\t3\t9.5\t-1\tphone\t-1\t-1\tb\tc\t-1\t-1\t-1\t-1\t-1\t-1\tDE\tB\t-1\tp\tu\n",
}


@pytest.mark.parametrize(
    ("files", "read"),
    [
        (SEQUENCES, read_sequences),
        (RATINGS, read_movielens),
        (REVIEWS, read_amazon),
        (PRODUCTS, read_amazon),
        (ARTISTS, functools.partial(read_lastfm, queries="tags")),
        (PLACES, read_yelp),
        (ATOMIC, read_recbole),
        (REQUESTS, read_qilin),
        (VISITS, read_trivago),
        (NEWS, read_mind),
        (VIDEOS, read_kuaisar),
        (WATCHED, read_kuairec),
        (BASKETS, read_yoochoose),
        (LISTS, read_diginetica),
        (BANNERS, read_criteo),
        (SPONSORED, read_criteo),
    ],
    ids=[
        *("sequences", "movielens", "amazon 2014", "amazon 2023", "lastfm", "yelp", "recbole", "qilin", "trivago"),
        *("mind", "kuaisar", "kuairec", "yoochoose", "diginetica", "criteo attribution", "criteo search"),
    ],
)
def test_damaged_releases(tmp_path, files, read):
    @fuzzed(400)
    @given(st.data())
    def ask(data):
        chosen = data.draw(st.sampled_from(list(files)))
        for name, content in files.items():
            (tmp_path / name).write_bytes(damaged(data, content) if name == chosen else content)
        with TALLY.case("damaged releases"):
            assert read(tmp_path, max_refused=data.draw(st.sampled_from([0.0, 0.9]))).num_events >= 1

    ask()
