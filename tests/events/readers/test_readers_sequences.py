# SPDX-License-Identifier: Apache-2.0
"""User-item sequences in the two published layouts."""

import json

import pytest

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import category_queries, read_sequences

ITEMS = {
    "10": {
        "title": "Duct &amp; Tape",
        "description": "<p>Sticks.</p>",
        "brand": "Acme",
        "categories": "Industrial & Scientific,Tapes, Adhesives & Sealants,Duct Tape",
    },
    "11": {"title": "Flask", "description": ".", "brand": "", "categories": ""},
    "12": {"title": "Scale", "description": "Weighs.", "brand": "Acme", "categories": "Industrial & Scientific"},
}


def write_json(folder, sequences, items=ITEMS):
    (folder / "Toy.inter.json").write_text(sequences if isinstance(sequences, str) else json.dumps(sequences))
    (folder / "Toy.item.json").write_text(items if isinstance(items, str) else json.dumps(items))


def write_text(folder, sequences, items="item_id\tasin\ttext\n1\tB1\tnail lacquer\n2\tB2\tsoap\n3\tB3\tcomb\n"):
    (folder / "sequences.txt").write_text(sequences)
    (folder / "items.tsv").write_text(items)


def test_json_layout(tmp_path):
    write_json(tmp_path, {"b": [10, 11, 10], "a": ["12"]})
    log = read_sequences(tmp_path)
    assert (log.name, log.has_time, log.query_source) == ("Toy", False, "none")
    assert log.events.select(["user_id", "timestamp", "item_id"]).to_pylist() == [
        {"user_id": "a", "timestamp": 0, "item_id": "12"},
        {"user_id": "b", "timestamp": 0, "item_id": "10"},
        {"user_id": "b", "timestamp": 1, "item_id": "11"},
        {"user_id": "b", "timestamp": 2, "item_id": "10"},
    ]
    tape, flask, _ = log.items.to_pylist()
    assert (tape["title"], tape["description"], tape["brand"]) == ("Duct & Tape", "Sticks.", "Acme")
    assert tape["categories"] == [["Industrial & Scientific", "Tapes, Adhesives & Sealants", "Duct Tape"]]
    assert (flask["description"], flask["brand"], flask["categories"]) == (None, None, None)
    # "tapes" and "tape" are different words: there is no stemmer.
    assert category_queries(log.items) == [["industrial scientific tapes adhesives sealants duct tape"], [], []]
    assert any("timestamps are positions in each user's sequence" in note for note in log.notes)


def test_text_layout(tmp_path):
    write_text(tmp_path, "7 1 2\n8 3 1 2\n")
    log = read_sequences(tmp_path)
    assert log.name == tmp_path.name
    assert not log.has_time
    assert log.events["item_id"].to_pylist() == ["1", "2", "3", "1", "2"]
    assert log.events["timestamp"].to_pylist() == [0, 1, 0, 1, 2]
    assert log.items.select(["item_id", "title", "asin"]).to_pylist()[0] == {
        "item_id": "1",
        "title": "nail lacquer",
        "asin": "B1",
    }


def test_an_item_without_text_goes_with_its_events_and_the_places_stay(tmp_path, caplog):
    write_text(tmp_path, "7 1 2 3\n8 3 1\n", "item_id\tasin\ttext\n1\tB1\tlacquer\n2\tB2\t\n3\tB3\tcomb\n")
    with pytest.raises(
        DataError,
        match=r"items.tsv: 1 of 3 rows cannot be used: 1 have neither a title nor a description \(first: line 3, "
        r"item_id '2'\). That is 33.33%, and `max_refused` allows 1.00%. Correct them or raise `max_refused`.",
    ):
        read_sequences(tmp_path)
    log = read_sequences(tmp_path, max_refused=0.4)
    assert log.events.select(["user_id", "timestamp", "item_id"]).to_pydict() == {
        "user_id": ["7", "7", "8", "8"],
        "timestamp": [0, 2, 0, 1],
        "item_id": ["1", "3", "3", "1"],
    }
    lost = (
        "sequences.txt: 1 of 5 rows cannot be used: 1 name an item that the items table does not hold (first: line 1, "
        "position 1 (from 0)"
    )
    assert any(record.message.startswith(f"{lost}, item_id '2')") for record in caplog.records)
    assert f"{lost}). They were left out." in log.notes
    assert sum("cannot be used" in record.message for record in caplog.records) == 2


def test_notes_name_no_user(tmp_path):
    write_json(tmp_path, {"secret": [10, 99], "b": [11]})
    log = read_sequences(tmp_path, max_refused=0.5)
    assert any("1 of 3 rows cannot be used" in note and "(first: row 1 (from 0))" in note for note in log.notes)
    assert "secret" not in " ".join(log.notes)


def test_json_places_are_named(tmp_path):
    write_json(tmp_path, {"a": [10], "b": [11, 99]})
    with pytest.raises(DataError, match=r"Toy.inter.json: .*\(first: user 'b', position 1 \(from 0\), item_id '99'\)"):
        read_sequences(tmp_path)


@pytest.mark.parametrize(
    ("sequences", "items", "message"),
    [
        ({"a": []}, ITEMS, r"Toy.inter.json: user 'a' has \[\]; give a list of at least one item"),
        ({"a": 5}, ITEMS, "user 'a' has 5; give a list"),
        ({"a": [10, 1.5]}, ITEMS, r"user 'a', position 1 \(from 0\) is 1.5; an item is text or a whole number"),
        ({"a": [10, None]}, ITEMS, "is None; an item is"),
        ({}, ITEMS, "Toy.inter.json contains {}; it must contain an object that is not empty"),
        ([1], ITEMS, r"Toy.inter.json contains \[1\]; it must contain an object"),
        ('{"a": [10], "a": [11]}', ITEMS, "Toy.inter.json: the key 'a' occurs more than once"),
        ('{"a": [10]', ITEMS, "Toy.inter.json is not JSON: .* Fetch the file again"),
        ("", ITEMS, "Toy.inter.json is empty"),
        ({"a": [10]}, {"10": "tape"}, "Toy.item.json: item '10' is 'tape'; give an object with a title"),
        ({"a": [10]}, {"10": {"title": 5}}, "Toy.item.json: title of item '10' is 5; it must be text"),
        ({"a": [10]}, {"10": {"brand": "Acme"}}, "1 have neither a title nor a description .first: item '10'"),
    ],
)
def test_bad_json(tmp_path, sequences, items, message):
    write_json(tmp_path, sequences, items)
    with pytest.raises(DataError, match=message):
        read_sequences(tmp_path)


@pytest.mark.parametrize(
    ("sequences", "items", "message"),
    [
        ("7 1\n8\n", None, "sequences.txt: 1 of 2 rows cannot be used: 1 name no item .first: line 2, line '8'"),
        ("7 1\n7 2\n", None, "1 repeat the user of an earlier line .first: line 2, user_id '7'"),
        ("7 1\n", "id\ttext\n1\tx\n", "items.tsv has no column 'item_id'; it has id, text. Rename it"),
        ("7 1\n", "item_id\ttext\n1\tx\n1\ty\n", "1 repeat the item_id of an earlier row .first: line 3, item_id '1'"),
        (
            "7 1\n",
            "item_id\ttext\n1\tx\n2\n",
            "items.tsv: 1 of 2 rows cannot be used: 1 cannot be read .first: line 3, wh",
        ),
    ],
)
def test_bad_text(tmp_path, sequences, items, message):
    write_text(tmp_path, sequences, *([items] if items else []))
    with pytest.raises(DataError, match=message):
        read_sequences(tmp_path)


def test_which_layout(tmp_path):
    with pytest.raises(DataError, match="contains nothing: neither of the layouts 'scientific'"):
        read_sequences(tmp_path)
    write_json(tmp_path, {"a": [10]})
    write_text(tmp_path, "7 1\n")
    with pytest.raises(DataError, match="both of the layouts 'scientific' .* Pass `layout`"):
        read_sequences(tmp_path)
    assert read_sequences(tmp_path, layout="beauty").num_users == 1
    assert read_sequences(tmp_path, layout="scientific").name == "Toy"
    with pytest.raises(ConfigurationError, match="`layout` is 'books'; use one of 'scientific', 'beauty'"):
        read_sequences(tmp_path, layout="books")
    (tmp_path / "Other.item.json").write_text("{}")
    with pytest.raises(
        DataError, match="must contain exactly one .[.]item.json; it holds Other.item.json, Toy.item.json"
    ):
        read_sequences(tmp_path, layout="scientific")
    with pytest.raises(DataError, match="`data_dir` .*absent is not a folder"):
        read_sequences(tmp_path / "absent")
