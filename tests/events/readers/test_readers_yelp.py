# SPDX-License-Identifier: Apache-2.0
"""The Yelp Open Dataset: businesses, reviews, tips."""

import gzip
import json

import pytest

from seekrec.errors import DataError
from seekrec.events import category_queries
from seekrec.events.readers import read_yelp

BUSINESSES = [
    {
        "business_id": "b1",
        "name": "Café 東京",
        "city": "Reno",
        "state": "NV",
        "stars": 4.5,
        "attributes": {"WiFi": "u'free'"},
        "categories": "Restaurants, Beer, Wine & Spirits, Sushi Bars",
    },
    {"business_id": "b2", "name": "Odd Jobs", "city": "Reno", "state": None, "attributes": None, "categories": None},
]
REVIEWS = [
    {"review_id": "r1", "user_id": "u1", "business_id": "b1", "stars": 5.0, "date": "2018-07-07 22:09:11"},
    {"review_id": "r2", "user_id": "u1", "business_id": "b2", "stars": 1.0, "date": "2012-01-03 15:28:18"},
    {"review_id": "r3", "user_id": "u2", "business_id": "b9", "stars": 3.0, "date": "2012-01-03 15:28:18"},
]
TIPS = [{"user_id": "u2", "business_id": "b1", "text": "go", "date": "2012-05-18 02:17:21", "compliment_count": 0}]


def write_lines(path, rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_reviews_and_tips(tmp_path):
    for what, content in {"business": BUSINESSES, "review": REVIEWS, "tip": TIPS}.items():
        write_lines(tmp_path / f"yelp_academic_dataset_{what}.json", content)
    log = read_yelp(tmp_path)
    names = ["user_id", "item_id", "timestamp", "action", "rating"]
    # 2012-01-03 15:28:18, 2018-07-07 22:09:11 and 2012-05-18 02:17:21, UTC.
    assert [tuple(event.values()) for event in log.events.select(names).to_pylist()] == [
        ("u1", "b2", 1325604498, "review", 1.0),
        ("u1", "b1", 1531001351, "review", 5.0),
        ("u2", "b1", 1337307441, "tip", None),
    ]
    cafe, jobs = log.items.to_pylist()
    assert (cafe["title"], cafe["city"], cafe["state"]) == ("Café 東京", "Reno", "NV")
    assert cafe["description"] == "Restaurants, Beer, Wine & Spirits, Sushi Bars in Reno, NV"
    assert cafe["categories"] == [["Restaurants"], ["Beer, Wine & Spirits"], ["Sushi Bars"]]
    assert (jobs["description"], jobs["categories"]) == ("Reno", [])
    assert category_queries(log.items) == [["restaurants", "beer, wine & spirits", "sushi bars"], []]
    assert "review.json: 1 of 3 rows cannot be used: 1 name an item without a text (first: line 3)" in log.notes[1]


def test_older_releases_and_parts(tmp_path):
    write_lines(tmp_path / "business.json.gz", [{**BUSINESSES[0], "categories": ["Bars", "Food"]}])
    with pytest.raises(DataError, match="contains no Yelp files, only business.json.gz"):
        read_yelp(tmp_path)
    write_lines(tmp_path / "review.json", [{**REVIEWS[0], "date": "2011-01-26"}])
    log = read_yelp(tmp_path)
    assert log.items["categories"].to_pylist() == [[["Bars"], ["Food"]]]
    assert log.events["timestamp"].to_pylist() == [1296000000]
    # Good lines, and one that is cut off.
    good = [{**REVIEWS[0], "user_id": f"u{number}"} for number in range(200)]
    write_lines(tmp_path / "review.json", good)
    with (tmp_path / "review.json").open("a") as file:
        file.write('{"review_id": "r1", "user_id"\n')
    assert "1 cannot be read (first: line 201" in " ".join(read_yelp(tmp_path).notes)
    (tmp_path / "review.json").write_text("")
    with pytest.raises(DataError, match="review.json is empty"):
        read_yelp(tmp_path)
