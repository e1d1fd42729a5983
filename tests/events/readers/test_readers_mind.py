# SPDX-License-Identifier: Apache-2.0
"""MIND: impressions with labels, and earlier clicks without time."""

import calendar

import pytest

from seekrec.errors import DataError
from seekrec.events.readers.mind import read_mind

NEWS = (
    'N1\tsports\trowing\tWer "gewinnt"? 🚣\tAcht im Boot\thttps://x\t[]\t[]\n'
    "N2\tnews\tworld\tخبر\t\thttps://x\t[]\t[]\n"
    "N3\tnews\tworld\t新闻\t\thttps://x\t[]\t[]\n"
)
BEHAVIORS = "1\tU1\t11/15/2019 1:24:44 PM\tN3 N2\tN1-1 N2-0\n2\tU1\t11/15/2019 12:00:00 AM\tN3 N2\tN3-0\n"
DEV = "1\tU2\t11/16/2019 9:05:00 AM\t\tN2-1 N3-0\n2\tU2\t11/16/2019 9:06:00 AM\tN1\tN2 N3\n"


def write(folder, behaviors, news=NEWS):
    folder.mkdir(exist_ok=True)
    (folder / "behaviors.tsv").write_text(behaviors, encoding="utf-8")
    (folder / "news.tsv").write_text(news, encoding="utf-8")


def test_parts(tmp_path):
    write(tmp_path / "MINDsmall_train", BEHAVIORS)
    write(tmp_path / "MINDsmall_dev", DEV)
    log = read_mind(tmp_path)
    # The log begins with the impression at midnight.
    start = calendar.timegm((2019, 11, 15, 0, 0, 0))
    afternoon = start + 13 * 3600 + 24 * 60 + 44
    morning = start + 24 * 3600 + 9 * 3600 + 5 * 60
    names = ["user_id", "timestamp", "item_id", "action", "session_id"]
    assert [tuple(event[name] for name in names) for event in log.events.to_pylist()] == [
        ("U1", start - 2, "N3", "click", None),
        ("U1", start - 1, "N2", "click", None),
        ("U1", start, "N3", "impression", "MINDsmall_train-2"),
        ("U1", afternoon, "N1", "click", "MINDsmall_train-1"),
        ("U1", afternoon, "N2", "impression", "MINDsmall_train-1"),
        ("U2", start - 1, "N1", "click", None),
        ("U2", morning, "N2", "click", "MINDsmall_dev-1"),
        ("U2", morning, "N3", "impression", "MINDsmall_dev-1"),
    ]
    items = log.items.to_pylist()
    assert [item["title"] for item in items] == ['Wer "gewinnt"? 🚣', "خبر", "新闻"]
    assert items[0]["description"] == "Acht im Boot" and items[0]["categories"] == [["sports", "rowing"]]
    text = " ".join(log.notes)
    assert "2 do not say whether the user clicked (first: behaviors.tsv, line 2)" in text
    assert "3 repeat the item_id of an earlier row" in text


def test_bad_rows(tmp_path):
    bad = "3\tU3\tyesterday\t\tN1-1\n4\tU4\n"
    write(tmp_path, BEHAVIORS + bad)
    with pytest.raises(DataError, match=r"line 4, where the number of fields is 2, not 5.*cannot be read.*line 3"):
        read_mind(tmp_path)
    assert read_mind(tmp_path, max_refused=0.4).events["session_id"].to_pylist() == [None, None, "2", "1", "1"]
    write(tmp_path, "1\tU1\t2019-11-15\tN3\tN1-1\n")
    with pytest.raises(DataError, match=r"behaviors.tsv contains no time such as .*but '2019-11-15' \(line 1\)"):
        read_mind(tmp_path)
    write(tmp_path, "")
    with pytest.raises(DataError, match="behaviors.tsv is empty"):
        read_mind(tmp_path)
