# SPDX-License-Identifier: Apache-2.0
"""The kinds of a query pool that items make by themselves; expected texts are written out by hand."""

import pyarrow as pa
import pytest

from seekrec.errors import ConfigurationError
from seekrec.events.pool_texts import check_pool_kinds, pool_texts
from seekrec.schema import MAX_QUERY_CHARACTERS

ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Mira Oak Lamp", "Mira Steel Kettle", "红色台灯", "Lamp X-300"],
        "description": ["A warm lamp of warm oak.", "The kettle that never drips", None, "  "],
        "categories": [
            [["Home", "Lighting", "Lamps"], ["Gifts"]],
            [["Kitchen", "Kettles"], ["Home", "Kettles"]],
            None,
            [],
        ],
        "brand": ["Mira", "MIRA", None, "Zed"],
    }
)


def test_information_is_name_categories_and_brand():
    # Of a path of several names the first is left out; of what folds alike the first stays.
    assert pool_texts(ITEMS, "information") == [
        ["Mira Oak Lamp", "Lighting", "Lamps", "Gifts", "Mira"],
        ["Mira Steel Kettle", "Kettles", "MIRA"],
        ["红色台灯"],
        ["Lamp X-300", "Zed"],
    ]
    assert pool_texts(ITEMS.drop_columns(["brand"]), "information")[3] == ["Lamp X-300"]
    assert pool_texts(ITEMS, "category") == [["home lighting lamps"], ["kitchen kettles", "home kettles"], [], []]


def test_descriptions_are_cut_between_words():
    assert pool_texts(ITEMS, "description") == [["A warm lamp of warm oak."], ["The kettle that never drips"], [], []]
    # 167 times "words " are 1,002 characters: the last word does not fit.
    long = pa.table({"description": ["words " * 200, "x" * 2000]})
    words, letters = (texts[0] for texts in pool_texts(long, "description"))
    assert words == " ".join(["words"] * 166)
    assert letters == "x" * MAX_QUERY_CHARACTERS


def test_keywords_are_phrases_then_words_by_weight():
    # Words of each item without stop words, numbers and single letters: a: mira oak lamp warm lamp warm oak;
    # b: mira steel kettle kettle drips; c: 红色台灯; d: lamp. In two items of four: mira and lamp, of weight
    # log 2 each time. Brand and last names of paths come first, and their words are not repeated: "mira".
    # a: lamp twice, shared; then oak and warm, twice each with log 4, of this item alone, in their order.
    # b: nothing shared is left; kettle twice, then steel and drips once.
    assert pool_texts(ITEMS, "keywords") == [
        ["mira", "lamps", "gifts", "lamp", "oak", "warm"],
        ["mira", "kettles", "kettle", "steel", "drips"],
        ["红色台灯"],
        ["zed", "lamp"],
    ]


def test_expressions_ask_for_keywords_in_their_script():
    found = pool_texts(ITEMS, "expressions")
    # Row 0 begins with the first pattern, row 1 with the second; a fifth keyword gets the first again.
    assert found[0] == [
        "mira lamps",
        "i am looking for mira",
        "show me the best lamps",
        "which gifts is good",
        "something like lamp",
        "i am looking for oak",
        "show me the best warm",
    ]
    assert found[1][:3] == ["mira kettles", "show me the best mira", "which kettles is good"]
    assert found[2] == ["哪种红色台灯好用"]
    # No pattern for Korean: only what stands together, if anything.
    assert pool_texts(pa.table({"title": ["빨간 램프", "مصباح"]}), "expressions") == [["빨간 램프"], []]


def test_kinds_are_checked():
    check_pool_kinds(["logged", "information", "description", "keywords", "expressions", "category", "item_text"])
    check_pool_kinds(["doc2query=me/my-t5", "paraphrase=/a/folder"])
    for kind in ("titles", "doc2query", "doc2query=", "logged=me/my-t5"):
        with pytest.raises(ConfigurationError, match=f"has the kind '{kind}'; choose among logged, category, inform"):
            check_pool_kinds(["logged", kind])
    with pytest.raises(ConfigurationError, match="Texts of the kind 'doc2query=me/my-t5' cannot be made"):
        pool_texts(ITEMS, "doc2query=me/my-t5")
