# SPDX-License-Identifier: Apache-2.0
"""Yoochoose, Diginetica and Criteo: shops that publish numbers instead of names."""

import calendar
import gzip

import pytest

from seekrec.errors import DataError
from seekrec.events.readers.criteo import read_criteo
from seekrec.events.readers.diginetica import read_diginetica
from seekrec.events.readers.yoochoose import read_yoochoose

CLICKS = """\
1,2014-04-07T10:51:09.277Z,214536502,0
1,2014-04-07T10:54:09.868Z,214536500,5
2,2014-04-07T13:56:37.614Z,214536500,S
2,2014-04-07T13:57:19.373Z,214536502,2089
"""
APRIL = calendar.timegm((2014, 4, 7, 0, 0, 0))


def test_yoochoose(tmp_path):
    (tmp_path / "yoochoose-clicks.dat").write_text(CLICKS)
    (tmp_path / "yoochoose-buys.dat").write_text("2,2014-04-07T14:00:00.000Z,214536500,12462,2\n")
    log = read_yoochoose(tmp_path)
    names = ["user_id", "timestamp", "item_id", "action", "price", "quantity"]
    assert [tuple(event[name] for name in names) for event in log.events.to_pylist()] == [
        ("1", APRIL + 10 * 3600 + 51 * 60 + 9, "214536502", "click", None, None),
        ("1", APRIL + 10 * 3600 + 54 * 60 + 9, "214536500", "click", None, None),
        ("2", APRIL + 13 * 3600 + 56 * 60 + 37, "214536500", "click", None, None),
        ("2", APRIL + 13 * 3600 + 57 * 60 + 19, "214536502", "click", None, None),
        ("2", APRIL + 14 * 3600, "214536500", "purchase", 12462.0, 2.0),
    ]
    assert {i["item_id"]: (i["title"], i["categories"]) for i in log.items.to_pylist()} == {
        "214536500": ("item 214536500", [["category 5"]]),
        "214536502": ("item 214536502", [["brand 2089"]]),
    }
    (tmp_path / "yoochoose-clicks.dat").write_text(CLICKS + "3,2014-04-07T13:57:19.373Z\n4,soon,214536502,0\n")
    message = (
        r"yoochoose-clicks.dat, line 5, where the number of fields is 2, not 4.*yoochoose-clicks.dat, line 6.*'soon'"
    )
    with pytest.raises(DataError, match=message):
        read_yoochoose(tmp_path)


VIEWS = """\
sessionId;userId;itemId;timeframe;eventdate
1;NA;81766;526309;2016-05-09
1;NA;31331;1031018;2016-05-09
2;77;81766;100;2016-05-10
"""
# List 1 is a search, 2 a category, 3 a search without a click, 4 a category without one, 5 withheld.
QUERIES = """\
queryId;sessionId;userId;timeframe;duration;eventdate;searchstring.tokens;categoryId;items;is.test
1;1;NA;500000;307;2016-05-09;16655,244087;0;7518,71,81766,30630;FALSE
2;2;NA;2000;307;2016-05-10;NA;40;71,7518;FALSE
3;2;NA;3000;307;2016-05-10;11;0;71;FALSE
4;2;NA;4000;307;2016-05-10;NA;40;71;FALSE
5;2;NA;5000;307;2016-05-10;12;0;71;TRUE
"""
MAY = calendar.timegm((2016, 5, 9, 0, 0, 0))


def write_diginetica(folder, views=VIEWS):
    (folder / "train-item-views.csv").write_text(views)
    (folder / "train-queries.csv").write_text(QUERIES)
    (folder / "train-clicks.csv").write_text("queryId;timeframe;itemId\n1;520000;81766\n2;2500;7518\n9;1;71\n")
    (folder / "train-purchases.csv").write_text(
        "sessionId;userId;timeframe;eventdate;ordernumber;itemId\n2;77;9000;2016-05-10;5;81766\n"
    )
    (folder / "products.csv").write_text("itemId;pricelog2;product.name.tokens\n81766;2;4875,776\n71;0;NA\n")
    (folder / "product-categories.csv").write_text("itemId;categoryId\n81766;40\n")


def test_diginetica(tmp_path):
    write_diginetica(tmp_path)
    log = read_diginetica(tmp_path)
    day = MAY + 86400
    names = ["user_id", "timestamp", "query", "item_id", "action", "session_id"]
    # The view of 81766 by session 1 is what the click opened; 30630 stood below the click.
    assert [tuple(event[name] for name in names) for event in log.events.to_pylist()] == [
        ("session-1", MAY + 500, "16655 244087", "7518", "impression", "1"),
        ("session-1", MAY + 500, "16655 244087", "71", "impression", "1"),
        ("session-1", MAY + 520, "16655 244087", "81766", "click", "1"),
        ("session-1", MAY + 1031, None, "31331", "view", "1"),
        ("user-77", day, None, "81766", "view", "2"),
        ("user-77", day + 2, None, "7518", "click", "2"),
        ("user-77", day + 2, None, "71", "impression", "2"),
        ("user-77", day + 3, "11", None, "search", "2"),
        ("user-77", day + 9, None, "81766", "purchase", "2"),
    ]
    items = {i["item_id"]: (i["title"], i["categories"], i["price"]) for i in log.items.to_pylist()}
    assert items["81766"] == ("4875 776", [["category 40"]], 3.0)
    assert items["71"] == ("product 71", None, 0.0)
    assert items["31331"] == ("product 31331", None, None)
    text = " ".join(log.notes)
    assert "1 are pages that a click on a list opened (first: train-item-views.csv, line 2)" in text
    assert "1 are lists whose clicks are withheld (first: line 6)" in text
    assert "1 are clicks on a list that is not published (first: line 4)" in text
    assert "1 opened categories without a click are no events." in log.notes


def test_diginetica_bad_rows(tmp_path):
    write_diginetica(tmp_path, VIEWS + "3;NA;81766;soon;2016-05-10\n4;NA\n")
    with pytest.raises(DataError, match=r"train-item-views.csv, line 6, where .* 2, not 5.*timeframe.*line 5"):
        read_diginetica(tmp_path)
    assert read_diginetica(tmp_path, max_refused=0.3).num_events == 9
    # Copies of the views have names with underscores.
    write_diginetica(tmp_path, VIEWS.replace("sessionId;userId;itemId", "session_id;user_id;item_id"))
    assert read_diginetica(tmp_path).num_events == 9
    write_diginetica(tmp_path, "sessionId;itemId\n1;2\n")
    with pytest.raises(DataError, match="train-item-views.csv has no column 'userId', only sessionId, itemId"):
        read_diginetica(tmp_path)


def test_criteo_attribution(tmp_path):
    names = "timestamp uid campaign conversion conversion_timestamp conversion_id attribution click click_pos cost"
    header = names.replace(" ", "\t")
    rows = [
        "0\t20073966\t22589171\t0\t-1\t-1\t0\t0\t-1\t0.1",
        # Both banners led to the purchase at second 900, which counts once.
        "2\t20073966\t9100693\t1\t900\t77\t1\t1\t0\t0.1",
        "5\t20073966\t9100693\t1\t900\t77\t1\t0\t-1\t0.1",
    ]
    path = tmp_path / "criteo_attribution_dataset.tsv.gz"
    path.write_bytes(gzip.compress("\n".join([header, *rows]).encode()))
    log = read_criteo(tmp_path)
    assert log.name == "criteo-attribution"
    assert [(e["timestamp"], e["item_id"], e["action"]) for e in log.events.to_pylist()] == [
        (0, "22589171", "impression"),
        (2, "9100693", "click"),
        (5, "9100693", "impression"),
        (900, "9100693", "purchase"),
    ]
    path.write_bytes(
        gzip.compress("\n".join([header, *rows, "soon\t2\t3\t0\t-1\t-1\t0\t0\t-1\t0.1", "1\t2"]).encode())
    )
    with pytest.raises(DataError, match=r"line 6, where the number of fields is 2, not 10.*line 5, timestamp 'soon'"):
        read_criteo(tmp_path)


def test_criteo_search(tmp_path):
    def row(sale, delay, time, product, title, user):
        middle = "3\t9.5\t-1\tphone\t-1\t-1\tb1\tc1\tc2\t-1\t-1\t-1\t-1\t-1\tDE"
        return f"{sale}\t20.0\t{delay}\t{time}\t{middle}\t{product}\t{title}\tp1\t{user}"

    rows = [
        row(0, -1, 1596439471, "A", "w1 w2", "u"),
        row(1, 100, 1596439500, "B", "-1", "u"),
        row(0, -1, 7, "-1", "x", "u"),
    ]
    (tmp_path / "CriteoSearchData").write_text("\n".join([*rows, row(0, -1, 1596439600, "A", "w1 w2", "u")]))
    log = read_criteo(tmp_path)
    assert [(e["timestamp"], e["item_id"], e["action"]) for e in log.events.to_pylist()] == [
        (1596439471, "A", "click"),
        (1596439500, "B", "click"),
        (1596439600, "A", "click"),
        (1596439600, "B", "purchase"),
    ]
    assert [(i["title"], i["categories"], i["brand"]) for i in log.items.to_pylist()] == [
        ("w1 w2", [["c1", "c2"]], "b1"),
        ("product B", [["c1", "c2"]], "b1"),
    ]
    assert any("1 name no product or no user (first: line 3)" in note for note in log.notes)
    with pytest.raises(DataError, match="contains no Criteo files"):
        (tmp_path / "CriteoSearchData").rename(tmp_path / "other")
        read_criteo(tmp_path)
