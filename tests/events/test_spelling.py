# SPDX-License-Identifier: Apache-2.0
"""Queries typed with one slip are read as they were meant, and all others as they are."""

from __future__ import annotations

import copy

import numpy as np
import pyarrow as pa
import pytest

from seekrec.errors import DataError
from seekrec.evaluation import add_typo
from seekrec.events.spelling import Spelling

SEARCHES = {"romantic comedy": 30, "war drama": 20, "thrillers": 10, "sci-fi action": 5, "1990s": 9, "кофеварка": 1}


def make_items(*titles, categories=None):
    none = [None] * len(titles)
    paths = pa.array(none if categories is None else categories, pa.list_(pa.list_(pa.string())))
    columns = {
        "item_id": [f"i{number}" for number in range(len(titles))],
        "title": pa.array(titles, pa.string()),
        "description": none,
    }
    return pa.table({**columns, "categories": paths})


ITEMS = make_items("The Horses of 1990", "Zorbix battery pack", "咖啡机", categories=[[["Westerns"]], None, None])
SPELLING = Spelling.fit(SEARCHES, ITEMS)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Rmoantic comedyy!", "romantic comedy!"),
        ("romntic  COMEDY", "romantic  COMEDY"),
        ("roman5ic comedy", "roman5ic comedy"),  # digits are never changed
        ("thrillesr", "thrillers"),
        ("thriler", "thriller"),
        ("csi-fi acton", "sci-fi action"),
        ("awr drama", "war drama"),
        ("1990ss", "1990s"),
        ("1991s", "1991s"),
        ("hosres", "horses"),  # of items alone
        ("wetserns", "westerns"),
        ("hrse", "hrse"),  # so short a word is read as one that was searched for alone
        ("zorbix batery", "zorbix battery"),
        ("кофвеарка", "кофеварка"),
        ("咖啡几", "咖啡几"),
        ("gravel x <R_I> ok?", "gravel x <R_I> ok?"),
        ("", ""),
        ("?!", "?!"),
    ],
)
def test_a_slip_is_read_as_the_known_word(typed, meant):
    assert SPELLING.correct(typed) == meant


def test_every_slip_of_a_long_word_is_read_and_no_known_word_changes():
    for query in SEARCHES:
        assert SPELLING.correct(query) is query
    for seed in range(60):
        assert SPELLING.correct(add_typo("romantic comedy", seed)) == "romantic comedy"


def test_of_two_words_the_one_searched_for_more_is_meant():
    items = make_items(*["cart"] * 50)
    assert Spelling.fit({"card": 3, "care": 2}, items).correct("carx") == "card"
    assert Spelling.fit({"care": 3, "card": 2}, items).correct("carx") == "care"
    assert Spelling.fit({"bike": 1}, make_items("carts", "carts", "carry")).correct("cartx") == "cart"


def test_words_of_later_items_are_known():
    grown = make_items(*ITEMS["title"].to_pylist(), "Thriler brand drill", "Kettle")
    known = SPELLING.grown(grown, ITEMS)
    assert known.correct("thriler") == "thriler"
    assert known.correct("kettel") == "kettle" and SPELLING.correct("kettel") == "kettel"
    assert SPELLING.grown(ITEMS, ITEMS) is SPELLING
    # Another title: its words are known at once, and those that no item has any more are not.
    retitled = make_items(*grown["title"].to_pylist()[:-1], "Samovar")
    other = known.grown(retitled, grown)
    assert other.correct("samvoar") == "samovar" and other.correct("kettel") == "kettel"
    assert other.grown(ITEMS, retitled).correct("zorbix samvoar") == "zorbix samvoar"


# Letters of three scripts: more than are tried for a slip.
_SYLLABLES = [*"aeiouyåøßçñбгджзиклмнопрстфхцчшщэюя咖啡機", *map(chr, range(0x1200, 0x1240)), "zo", "rix", "ban"]


def draw_items(draws, num_items):
    """Items whose titles and categories are words of few syllables; some have none."""

    def draw_text():
        return " ".join("".join(draws.choice(_SYLLABLES, 3)) for _ in range(draws.integers(3))) or None

    categories = [[[draw_text()]] if draws.random() < 0.5 else None for _ in range(num_items)]
    return make_items(*(draw_text() for _ in range(num_items)), categories=categories)


def change(draws, items):
    """Other texts of some items, items more, or the last ones gone."""
    other, kind = draw_items(draws, items.num_rows), draws.integers(4)
    if kind == 0:
        return pa.concat_tables([items, draw_items(draws, 3)])
    if kind == 1:
        return items.slice(0, items.num_rows - 2)
    rows = np.arange(items.num_rows) + items.num_rows * (draws.random(items.num_rows) < 0.3)
    return pa.concat_tables([items, other]).take(pa.array(rows))


def test_words_are_the_same_whichever_way_a_catalogue_changed():
    """Grown by each change, grown at once, learnt anew, and saved on the way: one and the same."""
    draws = np.random.default_rng(0)
    searches = {"zorix banban": 2, "абв": 1}
    for _ in range(12):
        first = items = draw_items(draws, 12)
        words = at_once = Spelling.fit(searches, items)
        for step in range(5):
            before, items = items, change(draws, items)
            words = words.grown(items, before)
            if step == 2:
                words = Spelling.from_arrays(words.arrays())
        for other in (at_once.grown(items, first), Spelling.fit(searches, items)):
            assert all(map(np.array_equal, words.arrays().values(), other.arrays().values()))


def test_an_older_file_keeps_its_letters():
    arrays = SPELLING.arrays()
    del arrays["letter_counts"]
    known = Spelling.from_arrays(arrays).grown(make_items(*ITEMS["title"].to_pylist(), "łbłcłd"), ITEMS)
    assert known.correct("romntic") == "romantic" and known.correct("łbxcłd") == "łbłcłd"


def test_words_are_saved_as_hashes_and_damage_is_named():
    arrays = SPELLING.arrays()
    assert all(array.dtype.kind in "if" for array in arrays.values())
    again = Spelling.from_arrays(arrays)
    assert [again.correct(typed) for typed in ("thrillesr", "hosres")] == ["thrillers", "horses"]
    # A processor is copied with them, and goes to other processes.
    assert copy.deepcopy(SPELLING).correct("thrillesr") == "thrillers"
    for broken in ({**arrays, "searches": arrays["searches"][1:]}, {**arrays, "keys": np.sort(arrays["keys"])[::-1]}):
        with pytest.raises(DataError, match="known words cannot be read"):
            Spelling.from_arrays(broken)
    assert Spelling.fit({}, ITEMS) is None
