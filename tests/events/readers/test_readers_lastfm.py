# SPDX-License-Identifier: Apache-2.0
"""Last.fm of HetRec 2011: acts are tags, listening is a number beside them."""

import pytest

from seekrec.errors import DataError
from seekrec.events.readers import read_lastfm

ARTISTS = (
    "id\tname\turl\tpictureURL\n51\tDuran Duran\thttp://x\thttp://y\n52\tBjörk 비욕\thttp://x\t\n53\tNobody\t\t\n"
)
# "sueño" in latin-1, as the publisher has it.
TAGS = "tagID\ttagValue\n1\tnew wave\n2\tsueño\n"
LISTENED = "userID\tartistID\tweight\n2\t51\t13883\n2\t53\t7\n"
TAGGED = [
    "userID\tartistID\ttagID\ttimestamp",
    "2\t51\t1\t1238536800000",
    "2\t51\t2\t1238536800000",
    "2\t52\t2\t1238536801999",
    "3\t52\t1\t1200000000000",
    # The publisher does not name artist 99.
    "3\t99\t1\t1200000001000",
]


def write(folder, tagged=TAGGED):
    (folder / "artists.dat").write_text(ARTISTS, encoding="utf8")
    (folder / "tags.dat").write_text(TAGS, encoding="latin-1")
    (folder / "user_artists.dat").write_text(LISTENED)
    (folder / "user_taggedartists-timestamps.dat").write_text("\n".join(tagged) + "\n")


def rows(log, *names):
    return [tuple(event.values()) for event in log.events.select(names).to_pylist()]


def test_tags_of_one_moment_are_one_act(tmp_path):
    write(tmp_path)
    log = read_lastfm(tmp_path)
    assert rows(log, "user_id", "item_id", "timestamp", "weight") == [
        ("2", "51", 1238536800, 13883),
        ("2", "52", 1238536801, None),
        ("3", "52", 1200000000, None),
    ]
    assert log.items["title"].to_pylist() == ["Duran Duran", "Björk 비욕", "Nobody"]
    assert (log.name, log.query_source, log.has_time) == ("lastfm-hetrec2011", "none", True)
    assert "An event is that a user tagged an artist: 4 moments with 5 tags." in " ".join(log.notes)
    assert "1 name an item without a text (first: line 6)" in " ".join(log.notes)


def test_each_tag_is_a_search_too(tmp_path):
    write(tmp_path)
    log = read_lastfm(tmp_path, queries="tags")
    assert log.query_source == "logged"
    assert rows(log, "user_id", "item_id", "query", "weight") == [
        ("2", "51", None, 13883),
        ("2", "51", "new wave", None),
        ("2", "51", "sueño", None),
        ("2", "52", None, None),
        ("2", "52", "sueño", None),
        ("3", "52", None, None),
        ("3", "52", "new wave", None),
    ]
    assert any(note.startswith("4 searches are tags") for note in log.notes)


def test_bad_rows_are_named(tmp_path):
    write(tmp_path, [*TAGGED, "4\t51\t1\t-428720400000", "4\t51\t1"])
    message = r"2 of 5 rows .* 1 cannot be read \(first: line 8.*1 have a negative timestamp \(first: line 7"
    with pytest.raises(DataError, match=message):
        read_lastfm(tmp_path)
    assert read_lastfm(tmp_path, max_refused=0.5).num_events == 3
    write(tmp_path, [*TAGGED[:-1], "3\t52\t9\t1200000000000"])
    with pytest.raises(DataError, match=r"1 are searches without a query \(first: line 6"):
        read_lastfm(tmp_path, queries="tags")
    (tmp_path / "tags.dat").unlink()
    with pytest.raises(DataError, match="contains no Last.fm files, only artists.dat"):
        read_lastfm(tmp_path)
