# SPDX-License-Identifier: Apache-2.0
"""Qilin: requests with what was shown for them, as CSV and as Parquet."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seekrec.errors import DataError
from seekrec.events.readers.qilin import read_qilin

NOTES = [(0, "东京 🍣 地图", "三天\n两夜", "food"), (1, None, "只有正文", None), (2, "كتاب", None, "book")]


def entry(note, click, position, page_time, time_name, time, like=0.0):
    flags = {"collect": 0.0, "comment": 0.0, "share": 0.0}
    return {
        "click": click,
        **flags,
        "like": like,
        "note_id": f"{note:024x}",
        "note_idx": note,
        "page_time": page_time,
        "position": position,
        time_name: time,
    }


NAN = float("nan")
SEARCHES = [
    # Note 7 is in no table of notes.
    (
        "寿司 地图",
        5,
        3,
        [
            entry(0, 1.0, 1.0, 12.5, "search_timestamp", 1_700_000_000.0),
            entry(7, 0.0, 2.0, NAN, "search_timestamp", 1_700_000_001.0),
        ],
    )
]
FEEDS = [
    # Liked without a click: an act. Its page was not opened.
    (
        8,
        3,
        [
            entry(2, 0.0, 1.0, -1.0, "request_timestamp", 1_700_000_100_900.0, like=1.0),
            entry(1, 0.0, 2.0, 0.0, "request_timestamp", 1_700_000_100_901.0),
        ],
    )
]
EVENTS = [
    ("3", 1_700_000_000, "寿司 地图", "0", "click", "search-5", 1, 12.5, 0),
    ("3", 1_700_000_001, "寿司 地图", "7", "impression", "search-5", 2, None, 0),
    ("3", 1_700_000_100, None, "2", "click", "recommendation-8", 1, None, 1),
    ("3", 1_700_000_100, None, "1", "impression", "recommendation-8", 2, None, 0),
]


def write_csv(folder):
    def quoted(value):
        return '"' + str(value).replace('"', '""') + '"'

    def shown(entries):
        # numpy puts line breaks where Python has commas.
        return quoted("[" + "\n ".join(map(str, entries)) + "]")

    lines = ["note_title,note_content,taxonomy1_id,note_idx"]
    lines += [f"{quoted(t or '')},{quoted(c or '')},{x or ''},{n}" for n, t, c, x in NOTES]
    (folder / "notes.csv").write_text("\n".join(lines), encoding="utf-8")
    lines = ["query,search_result_details_with_idx,search_idx,user_idx"]
    lines += [f"{query},{shown(entries)},{search},{user}" for query, search, user, entries in SEARCHES]
    (folder / "search_train.csv").write_text("\n".join(lines), encoding="utf-8")
    lines = ["rec_result_details_with_idx,request_idx,user_idx"]
    lines += [f"{shown(entries)},{request},{user}" for request, user, entries in FEEDS]
    (folder / "recommendation_test.csv").write_text("\n".join(lines), encoding="utf-8")


def write_parquet(folder):
    tables = {
        "notes": {
            name: [note[place] for note in NOTES]
            for place, name in enumerate(("note_idx", "note_title", "note_content", "taxonomy1_id"))
        },
        "search_train": {
            name: [search[place] for search in SEARCHES]
            for place, name in enumerate(("query", "search_idx", "user_idx", "search_result_details_with_idx"))
        },
        "recommendation_test": {
            name: [feed[place] for feed in FEEDS]
            for place, name in enumerate(("request_idx", "user_idx", "rec_result_details_with_idx"))
        },
    }
    for name, columns in tables.items():
        (folder / name).mkdir()
        pq.write_table(pa.table(columns), folder / name / "train-00000-of-00001.parquet")


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_requests(tmp_path, write):
    write(tmp_path)
    log = read_qilin(tmp_path)
    names = "user_id timestamp query item_id action session_id position page_time like".split()
    assert [tuple(event[name] for name in names) for event in log.events.to_pylist()] == EVENTS
    items = {
        item["item_id"]: (item["title"], item["description"], item["categories"]) for item in log.items.to_pylist()
    }
    assert items == {
        "0": ("东京 🍣 地图", "三天 两夜", [["food"]]),
        "1": (None, "只有正文", None),
        "2": ("كتاب", None, [["book"]]),
        "7": ("笔记 7", None, None),
    }
    assert "Nothing is published about 1 of 4 items: their title is their id." in log.notes


def test_bad_rows(tmp_path):
    write_csv(tmp_path)
    path = tmp_path / "search_train.csv"
    good = path.read_text(encoding="utf-8")
    path.write_text(
        f"{good}\n夜景,lost,6,3\n夜景,\"[{{'click': 1.0, 'search_timestamp': 5.0}}]\",7,3\n", encoding="utf-8"
    )
    message = (
        r"search_train.csv, line 4, where search_result_details_with_idx is not a list.*without note_idx .*line 5"
    )
    with pytest.raises(DataError, match=message):
        read_qilin(tmp_path)
    assert read_qilin(tmp_path, max_refused=0.5).num_events == 4
    path.write_text("query,user_idx\na,1\n")
    with pytest.raises(DataError, match="search_train.csv has no column 'search_idx', only query, user_idx"):
        read_qilin(tmp_path)
    (tmp_path / "notes.csv").write_text("")
    with pytest.raises(DataError, match="notes.csv is empty"):
        read_qilin(tmp_path)
