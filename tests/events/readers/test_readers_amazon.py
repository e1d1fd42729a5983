# SPDX-License-Identifier: Apache-2.0
"""Amazon reviews: three releases in the layouts they were published in, and the queries of Ai et al."""

import gzip
import json

import pytest

from seekrec.errors import DataError
from seekrec.events import category_queries, synthesize_searches
from seekrec.events.readers import read_amazon

# (user, product, stars, time in seconds); the second user names a product without metadata.
REVIEWS = [("U1", "B01", 5.0, 1000), ("U1", "B02", 3.0, 900), ("U2", "B01", 1.0, 1100), ("U2", "B09", 4.0, 1200)]
KEPT = [("U1", "B02", 3.0, 900), ("U1", "B01", 5.0, 1000), ("U2", "B01", 1.0, 1100)]


def pack(path, lines):
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def write_2014(folder, reviews=REVIEWS):
    rows = [
        {"reviewerID": u, "asin": p, "helpful": [0, 1], "reviewText": "né", "overall": s, "unixReviewTime": t}
        for u, p, s, t in reviews
    ]
    pack(folder / "reviews_Toys_5.json.gz", map(json.dumps, rows))
    products = [
        {"asin": "B00", "title": "Nobody reviewed it"},
        {
            "asin": "B01",
            "title": 'Train &amp; track\'s "best" 电车',
            "description": "Runs on <b>wood</b>, 'asin': 'B09', they say.",
            "categories": [["Toys", "Trains & Tracks"], ["Sale"]],
            "price": 9.5,
            "related": {"also_bought": ["B02"]},
        },
        {"asin": "B02", "description": "No title, only this.", "brand": "Näf"},
    ]
    pack(folder / "meta_Toys.json.gz", map(repr, products))


def write_2018(folder):
    rows = [
        {"overall": s, "verified": True, "reviewerID": u, "asin": p, "unixReviewTime": t, "style": {"Color:": "x"}}
        for u, p, s, t in REVIEWS
    ]
    # As published, some reviews stand twice.
    pack(folder / "Toys_5.json.gz", map(json.dumps, [*rows, rows[0]]))
    products = [
        {
            "asin": "B01",
            "title": "Train",
            "description": ["Runs.", "On wood."],
            "category": ["Toys", "Trains &amp; Tracks"],
        },
        {"asin": "B01", "title": "The same once more", "description": [], "category": [], "main_cat": "Toys"},
        {
            "asin": "B02",
            "title": "var aPageStart = (new Date()).getTime();",
            "description": ["Blocks of beech"],
            "category": ["Toys", "</span></span>"],
            "main_cat": "Toys",
            "brand": "Näf",
            "details": {"Weight:": "1 kg"},
        },
    ]
    pack(folder / "meta_Toys.json.gz", map(json.dumps, products))


PRODUCTS_2023 = [
    {
        "main_category": "Toys",
        "title": "Train",
        "description": ["Wood"],
        "categories": ["Toys", "Trains"],
        "store": "Näf",
        "parent_asin": "B01",
    },
    {"main_category": "Toys", "title": "Blocks", "description": [], "categories": [], "parent_asin": "B02"},
]


def write_2023(folder):
    rows = [
        {
            "rating": s,
            "title": "t",
            "text": "x",
            "asin": "CHILD",
            "parent_asin": p,
            "user_id": u,
            "timestamp": t * 1000 + 999,
        }
        for u, p, s, t in REVIEWS
    ]
    (folder / "Toys.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pack(folder / "meta_Toys.jsonl.gz", map(json.dumps, PRODUCTS_2023))


def write_2023_csv(folder):
    parts = {"train": [0, 1], "valid": [2], "test": [3]}
    for part, rows in parts.items():
        lines = ["user_id,parent_asin,rating,timestamp,history"]
        for u, p, s, t in (REVIEWS[row] for row in rows):
            lines.append(f"{u},{p},{s},{t * 1000 + 999},B01 B02")
        pack(folder / f"Toys.{part}.csv.gz", lines)
    pack(folder / "meta_Toys.jsonl.gz", map(json.dumps, PRODUCTS_2023))


WRITERS = {"2014": write_2014, "2018": write_2018, "2023": write_2023, "2023 csv": write_2023_csv}


@pytest.mark.parametrize("release", WRITERS)
def test_every_release_gives_the_same_events(tmp_path, release, caplog):
    WRITERS[release](tmp_path)
    with caplog.at_level("INFO"):
        log = read_amazon(tmp_path)
    events = log.events.select(["user_id", "item_id", "rating", "timestamp"]).to_pylist()
    assert [tuple(event.values()) for event in events] == KEPT
    assert (log.name, log.has_time, log.query_source) == (f"amazon-{release[:4]}-Toys", True, "none")
    assert log.items["item_id"].to_pylist() == ["B01", "B02"]
    # One review of four names a product without metadata: far above the cap, and no reason to stop.
    assert "1 name an item without a text" in " ".join(log.notes)
    assert f"Amazon reviews {release[:4]}: " in caplog.messages[-1]
    assert "3 events of 2 users, 0 of them searches; 2 items." in caplog.messages[-1]


def test_products_of_2014_are_python_dictionaries(tmp_path):
    write_2014(tmp_path)
    train, blocks = read_amazon(tmp_path).items.to_pylist()
    assert train["title"] == 'Train & track\'s "best" 电车'
    assert train["description"] == "Runs on wood , 'asin': 'B09', they say."
    assert train["categories"] == [["Toys", "Trains & Tracks"], ["Sale"]]
    assert (blocks["title"], blocks["description"], blocks["brand"]) == (None, "No title, only this.", "Näf")
    assert blocks["categories"] is None


def test_products_of_2018_and_2023(tmp_path):
    write_2018(tmp_path)
    log = read_amazon(tmp_path)
    train, blocks = log.items.to_pylist()
    assert (train["title"], train["description"]) == ("Train", "Runs. On wood.")
    assert train["categories"] == [["Toys", "Trains & Tracks"]]
    assert (blocks["title"], blocks["description"]) == (None, "Blocks of beech")
    assert blocks["categories"] == [["Toys"]]
    notes = " ".join(log.notes)
    assert (
        "meta_Toys.json.gz: 1 of 3 rows cannot be used: 1 repeat the item_id of an earlier row (first: line 2)"
        in notes
    )
    assert "1 repeat an earlier row (first: line 5)" in notes

    folder = tmp_path / "2023"
    folder.mkdir()
    write_2023(folder)
    train, blocks = read_amazon(folder).items.to_pylist()
    assert (train["categories"], train["brand"], train["description"]) == ([["Toys", "Trains"]], "Näf", "Wood")
    assert (blocks["categories"], blocks["brand"], blocks["description"]) == ([["Toys"]], None, None)


def test_ratings_without_texts(tmp_path):
    pack(tmp_path / "ratings_Toys.csv.gz", [f"{u},{p},{s},{t}" for u, p, s, t in REVIEWS])
    write_2014(tmp_path)
    with pytest.raises(DataError, match=r"several files of reviews \(ratings_Toys.csv.gz, reviews_Toys_5.json.gz\)"):
        read_amazon(tmp_path)
    assert read_amazon(tmp_path / "ratings_Toys.csv.gz").events.num_rows == 3
    # 2018 has the product in front.
    (tmp_path / "Toys.csv").write_text("".join(f"{p},{u},{s},{t}\n" for u, p, s, t in REVIEWS))
    log = read_amazon(tmp_path / "Toys.csv")
    assert (log.name, log.events["user_id"].to_pylist()) == ("amazon-2018-Toys", ["U1", "U1", "U2"])


def test_bad_lines_are_named(tmp_path):
    write_2014(tmp_path)
    path = tmp_path / "meta_Toys.json.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    pack(path, [lines[1], "", "{'asin': 'B02', 'title': open('x')}", "{'asin': 'B02', 'title': 5}", lines[2]])
    with pytest.raises(DataError, match=r"2 of 4 rows .* 2 cannot be read \(first: line 3, which is not a Python"):
        read_amazon(tmp_path)
    assert read_amazon(tmp_path, max_refused=0.5).num_items == 2
    pack(path, ["{'asin': 'B77', 'title': 'x'}"])
    with pytest.raises(DataError, match="meta_Toys.json.gz contains none of the 3 products that are reviewed"):
        read_amazon(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="contains reviews_Toys_5.json.gz but no meta_Toys.json.gz"):
        read_amazon(tmp_path / "reviews_Toys_5.json.gz")


def write_queries(folder):
    # Line 0 is "toys trains tracks", line 2 "wooden toys".
    pack(folder / "query_text.txt.gz", ["toys trains tracks", "", "wooden toys"])
    pack(folder / "train.qrels.gz", ["U1_0 0 B01 1 ", "U1_2 0 B02 1", "U2_0 0 B02 0", "U3_0 0 B77 1"])
    pack(folder / "test.qrels.gz", ["U2_2 0 B01 1"])


def test_queries_of_product_search(tmp_path):
    write_2014(tmp_path)
    # As in a clone of the published repository, whose folders are called like the reviews.
    folder = tmp_path / "queries" / "reviews_Toys_5.json.gz"
    folder.mkdir(parents=True)
    write_queries(folder)
    log = read_amazon(tmp_path)
    assert category_queries(log.items) == [["toys trains tracks", "wooden toys"], ["wooden toys"]]
    assert log.query_source == "none"
    assert "Queries of 2 of 2 products are those of Ai et al. (2017)" in " ".join(log.notes)
    searches = synthesize_searches(log, construction="copy")
    assert searches.query_source == "category"
    assert searches.describe()["num_events_by_behavior"] == {"recommendation": 3, "search": 3}

    pack(folder / "test.qrels.gz", ["U2_1 0 B01 1", "no query"])
    with pytest.raises(DataError, match=r"2 of 6 rows .* 2 name no user, query and product \(first: test.qrels"):
        read_amazon(tmp_path)
