# SPDX-License-Identifier: Apache-2.0
"""KuaiSAR and KuaiRec: searches of numbered words, and videos watched in part."""

import pytest

from seekrec.errors import DataError
from seekrec.events.readers.kuairec import read_kuairec
from seekrec.events.readers.kuaisar import read_kuaisar

ITEMS = """\
item_id,caption,author_id,first_level_category_name,second_level_category_name,third_level_category_name
103656000000,"[7, 8]",1,美食 🍜,面条,空
2,[],1,搞笑,空,空
3,,1,空,空,空
"""
SEARCHES = """\
user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,item_id,click_cnt,item_type
1,50,2023-05-22 21:58:52,1684763932919,"[20, 34, 3]",USER_INPUT,103656000000,1,VIDEO
1,50,2023-05-22 21:58:52,1684763932919,"[20, 34, 3]",USER_INPUT,2,0,VIDEO
1,50,2023-05-22 21:58:52,1684763932919,"[20, 34, 3]",USER_INPUT,99,1,LIVE
"""
PLAYS = """\
user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,search_item_related
1,2,60792.0,45400.0,2023-05-22 15:53:20,1684742000500.0,1,0,0,0,0,0
1,103656000000,0.0,45400.0,2023-05-22 15:53:22,1684742002500.0,0,0,0,0,0,0
"""
NAMES = ["timestamp", "behavior", "query", "item_id", "action", "session_id", "page_time"]


def write_kuaisar(folder, searches=SEARCHES, plays=PLAYS):
    (folder / "item_features.csv").write_text(ITEMS, encoding="utf-8")
    (folder / "src_inter.csv").write_text(searches, encoding="utf-8")
    (folder / "rec_inter.csv").write_text(plays, encoding="utf-8")


def test_kuaisar(tmp_path):
    write_kuaisar(tmp_path)
    log = read_kuaisar(tmp_path)
    assert [tuple(event[name] for name in NAMES) for event in log.events.to_pylist()] == [
        (1684742000, "recommendation", None, "2", "click", None, 60.792),
        (1684742002, "recommendation", None, "103656000000", "impression", None, 0.0),
        (1684763932, "search", "20 34 3", "103656000000", "click", "50", None),
        (1684763932, "search", "20 34 3", "2", "impression", "50", None),
    ]
    assert [(i["item_id"], i["title"], i["description"], i["categories"]) for i in log.items.to_pylist()] == [
        ("103656000000", "7 8", "美食 🍜 面条", [["美食 🍜", "面条"]]),
        ("2", "搞笑", "搞笑", [["搞笑"]]),
    ]
    text = " ".join(log.notes)
    assert "1 have neither a title nor a description (first: line 4)" in text
    assert "1 name an item without a text (first: src_inter.csv, line 4)" in text


def test_kuaisar_bad_rows(tmp_path):
    write_kuaisar(tmp_path, SEARCHES + "1,51,x,1684763932919,[5],USER_INPUT,2,maybe,VIDEO\n1,52\n")
    with pytest.raises(DataError, match=r"src_inter.csv, line 6, where .* 2, not 9.*no action.*src_inter.csv, line 5"):
        read_kuaisar(tmp_path)
    assert read_kuaisar(tmp_path, max_refused=0.4).num_events == 4
    write_kuaisar(tmp_path, plays="user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match="rec_inter.csv has no column 'timestamp', only user_id, item_id"):
        read_kuaisar(tmp_path)
    write_kuaisar(tmp_path, searches="")
    with pytest.raises(DataError, match="src_inter.csv is empty"):
        read_kuaisar(tmp_path)


HEADER = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
MATRIX = (
    HEADER
    + "0,5,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.27\n0,6,5,10,x,20200705,1593878904.0,0.5\n"
)


def test_kuairec(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "big_matrix.csv").write_text(MATRIX + "1,7,10,10,x,20200705,1593878905.0,1.0\n")
    # The published small matrix lacks the time of some rows.
    (data / "small_matrix.csv").write_text(MATRIX + "1,6,5,10,,,,0.5\n")
    columns = "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name"
    columns += ",second_level_category_id,second_level_category_name"
    captions = f'{columns}\n5,封面,"面条, 🍜",[美食],1,美食,-124,UNKNOWN\n'
    (data / "kuairec_caption_category.csv").write_text(captions, encoding="utf-8")
    (data / "item_categories.csv").write_text('video_id,feat\n5,[8]\n6,"[27, 9]"\n')
    log = read_kuairec(tmp_path)
    assert log.name == "kuairec-big"
    assert [(e["timestamp"], e["item_id"], e["action"], e["watch_ratio"]) for e in log.events.to_pylist()] == [
        (1593878903, "5", "click", 1.27),
        (1593878904, "6", "impression", 0.5),
        (1593878905, "7", "click", 1.0),
    ]
    assert [(i["title"], i["description"], i["categories"]) for i in log.items.to_pylist()] == [
        ("面条, 🍜", "封面 [美食] 美食", [["美食"]]),
        ("tags 27 9", None, None),
        ("video 7", None, None),
    ]
    small = read_kuairec(data / "small_matrix.csv")
    assert small.name == "kuairec-small" and small.num_events == 2
    assert any("1 have no time (first: line 4)" in note for note in small.notes)
    (data / "big_matrix.csv").write_text(f"{MATRIX}0,6,5,10,x,20200705,1593878906.0,much\n")
    with pytest.raises(
        DataError, match=r"1 have a watch_ratio that is not a number \(first: line 4, watch_ratio 'much'\)"
    ):
        read_kuairec(tmp_path)
