# SPDX-License-Identifier: Apache-2.0
"""RecBole's atomic files."""

import pytest

from seekrec.errors import DataError
from seekrec.events import category_queries, read_movielens
from seekrec.events.readers import read_recbole

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tvector:float_seq\n"


def test_types_behind_names(tmp_path):
    (tmp_path / "toy.inter").write_text(INTER + "7\t1\t4.5\t881250949\n007\t2\t\t881250950.5\n7\t9\t1\t881250950\n")
    films = "1\tToy Story\t1995\tAnimation Comedy\t0.1 0.2\n2\tאסתר\tunknown\t\t0\n"
    (tmp_path / "toy.item").write_text(ITEM + films, encoding="utf8")
    log = read_recbole(tmp_path)
    assert (log.name, log.has_time) == ("toy", True)
    assert log.events.select(["user_id", "item_id", "timestamp", "rating"]).to_pylist() == [
        {"user_id": "007", "item_id": "2", "timestamp": 881250950, "rating": None},
        {"user_id": "7", "item_id": "1", "timestamp": 881250949, "rating": 4.5},
    ]
    assert log.items.column_names[-2:] == ["queries", "release_year"]
    assert log.items["title"].to_pylist() == ["Toy Story", "אסתר"]
    assert log.items["categories"].to_pylist() == [[["Animation"], ["Comedy"]], []]
    assert category_queries(log.items) == [["animation", "comedy"], []]
    assert "1 name an item without a text (first: line 4)" in " ".join(log.notes)


def test_other_names_parts_and_no_times(tmp_path):
    header = "review_id:token\tuser_id:token\tbusiness_id:token\tstars:float\n"
    (tmp_path / "yelp.train.inter").write_text(header + "r1\tu1\tb2\t5\nr2\tu1\tb1\t4\n")
    (tmp_path / "yelp.valid.inter").write_text(header + "r3\tu1\tb2\t3\nr4\tu1\n")
    places = "b1\tBar\tFood, 'Night Life'\nb2\tGym\tActive Life, Gyms\n"
    (tmp_path / "yelp.item").write_text("business_id:token\titem_name:token_seq\tcategories:token_seq\n" + places)
    with pytest.raises(DataError, match=r"1 cannot be read \(first: yelp.valid.inter, line 3"):
        read_recbole(tmp_path)
    log = read_recbole(tmp_path, max_refused=0.3)
    assert log.has_time is False
    assert log.events["item_id"].to_pylist() == ["b2", "b1", "b2"]
    assert log.events["review_id"].to_pylist() == ["r1", "r2", "r3"]
    assert log.items["categories"].to_pylist() == [[["Food"], ["Night Life"]], [["Active Life"], ["Gyms"]]]


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "a.item").write_text("item_id:token\tprice:float\nx\t1\n")
    (tmp_path / "b.inter").write_text("user_id:token\titem_id:token\nu\tx\n")
    with pytest.raises(DataError, match="contains a.item but no a.inter"):
        read_recbole(tmp_path)
    (tmp_path / "b.inter").rename(tmp_path / "a.inter")
    with pytest.raises(DataError, match="has no column that ends in title or name, only item_id, price"):
        read_recbole(tmp_path)
    (tmp_path / "a.inter").write_text("user_id\titem_id\nu\tx\n")
    with pytest.raises(DataError, match="a.inter has a column 'user_id'; .* a type follows the name"):
        read_recbole(tmp_path)
    (tmp_path / "a.inter").write_text("user_id:token\tthing:token\nu\tx\n")
    with pytest.raises(DataError, match="have no column of tokens in common"):
        read_recbole(tmp_path)


def test_the_copy_of_movielens_has_the_same_events(tmp_path):
    (tmp_path / "toy.inter").write_text(INTER + "1\t1\t5\t300\n1\t2\t3\t100\n")
    (tmp_path / "toy.item").write_text(ITEM.replace("\tvector:float_seq", "") + "1\tA\t1999\tWar\n2\tB\t1998\tWar\n")
    ours, films = read_recbole(tmp_path), read_movielens(tmp_path)
    assert ours.events.equals(films.events)
