# SPDX-License-Identifier: Apache-2.0
"""trivago: typed destinations, the acts that follow them, and the lists of clickouts."""

import pytest

from seekrec.errors import DataError
from seekrec.events.readers.trivago import read_trivago

HEADER = (
    "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters,impressions,prices"
)

# Rows of one visit stand out of order; step 7 ends the query; the second visit has a query that leads to nothing.
TRAIN = """\
A,v1,1100,2,search for destination,"京都, Japan",JP,"京都, Japan",mobile,,,
A,v1,1000,1,interaction item image,10,JP,"Osaka, Japan",mobile,,,
A,v1,1200,3,interaction item image,11,JP,"京都, Japan",mobile,,,
A,v1,1210,4,interaction item info,11,JP,"京都, Japan",mobile,,,
A,v1,1220,5,filter selection,Hotel,JP,"京都, Japan",mobile,Hotel,,
A,v1,1230,6,clickout item,11,JP,"京都, Japan",mobile,Hotel,10|11|12|13,5|6|7|8
A,v1,1240,7,search for item,12,JP,"京都, Japan",mobile,,,
A,v1,1250,8,clickout item,12,JP,"京都, Japan",mobile,,13|12,5|6
B,v2,2000,1,search for poi,🏰 قصر,SA,"Riad, Saudi Arabia",mobile,,,
B,v2,2010,2,change of sort order,price only,SA,"Riad, Saudi Arabia",mobile,,,
B,v3,3000,1,interaction item rating,unknown,SA,"Riad, Saudi Arabia",mobile,,,
"""
TEST = """\
B,v3,3010,3,clickout item,,SA,"Riad, Saudi Arabia",mobile,,20|21,5|6
B,v3,3005,2,clickout item,20,SA,"Riad, Saudi Arabia",mobile,,20|21,5|6
"""


def write(folder, train=TRAIN, test=TEST):
    (folder / "train.csv").write_text(f"{HEADER}\n{train}", encoding="utf-8")
    (folder / "test.csv").write_text(f"{HEADER}\n{test}", encoding="utf-8")
    (folder / "item_metadata.csv").write_text("item_id,properties\n11,Sauna|Spa (Wellness)\n", encoding="utf-8")


def test_visits(tmp_path):
    write(tmp_path)
    log = read_trivago(tmp_path)
    names = ["user_id", "timestamp", "query", "item_id", "action", "session_id", "num_acts"]
    assert [tuple(event[name] for name in names) for event in log.events.to_pylist()] == [
        ("A", 1000, None, "10", "interaction", "v1", 1),
        # Image, info and clickout of hotel 11 are one act at the time of the first.
        ("A", 1200, "京都, Japan", "11", "clickout", "v1", 3),
        # Of its list 10 and 12 were acted on in the visit; 13 comes again without the query.
        ("A", 1230, "京都, Japan", "13", "impression", "v1", None),
        ("A", 1240, None, "12", "clickout", "v1", 2),
        ("A", 1250, None, "13", "impression", "v1", None),
        ("B", 2000, "🏰 قصر", None, "search", "v2", None),
        ("B", 3005, None, "20", "clickout", "v3", 1),
        ("B", 3005, None, "21", "impression", "v3", None),
    ]
    items = {item["item_id"]: item for item in log.items.to_pylist()}
    assert items["11"]["title"] == "Hotel 11 in 京都, Japan"
    assert items["11"]["description"] == "Sauna, Spa (Wellness)"
    assert items["11"]["categories"] == [["Japan", "京都"]]
    assert items["10"]["title"] == "Hotel 10 in Osaka, Japan" and items["10"]["description"] is None
    assert log.query_source == "logged"
    assert any("1 are acts on a hotel that the challenge withholds (first: test.csv, line 2)" in n for n in log.notes)
    assert any("1 are acts on a hotel without a number (first: train.csv, line 12)" in n for n in log.notes)


def test_bad_rows(tmp_path):
    write(tmp_path, TRAIN + "B,v9,soon,1,interaction item image,10,SA,,mobile,,,\nB,v9,3,3\n")
    with pytest.raises(
        DataError, match=r"train.csv, line 14, where the number of fields is 4, not 12.*line 13, .*'soon'"
    ):
        read_trivago(tmp_path)
    assert read_trivago(tmp_path, max_refused=0.2).num_events == 8
    (tmp_path / "train.csv").write_text("user_id,session_id\nA,v1\n")
    with pytest.raises(DataError, match="train.csv has no column 'timestamp', only user_id, session_id"):
        read_trivago(tmp_path)
    (tmp_path / "train.csv").write_text("")
    with pytest.raises(DataError, match="train.csv is empty"):
        read_trivago(tmp_path)


def test_folder_without_visits(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="contains no trivago files, only other.csv"):
        read_trivago(tmp_path)
