# SPDX-License-Identifier: Apache-2.0
"""Folding of text, by hand; no script is lost."""

from __future__ import annotations

import unicodedata

import pytest

from seekrec.errors import ConfigurationError
from seekrec.util.text import TEXT_FOLDING, WORD_FOLDING, check_folding, fold_text, split_words

ALL = (*WORD_FOLDING, "accents")


@pytest.mark.parametrize(
    "typed",
    [
        "romantic comedy",
        "Romantic Comedy",
        "ROMANTIC COMEDY",
        "romantic comedy?",
        " romantic  comedy ",
        "“Romantic-comedy”",
        "ＲＯＭＡＮＴＩＣ comedy",
    ],
)
def test_queries_as_people_type_them_are_one(typed):
    assert fold_text(typed) == "romantic comedy"
    assert fold_text(typed.replace("y?", "ies?").replace("y", "ies"), WORD_FOLDING) == fold_text(
        "romantic comedy", WORD_FOLDING
    )


@pytest.mark.parametrize(
    ("text", "folding", "folded"),
    [
        ("T-Shirts", TEXT_FOLDING, "t shirts"),
        ("T-Shirts", WORD_FOLDING, "t shirt"),
        ("T-Shirts", ("case",), "t-shirts"),
        ("T-Shirts", (), "T-Shirts"),
        ("1/4 inch, 3.5mm; 24–70", TEXT_FOLDING, "1/4 inch 3.5mm 24-70"),
        ("C# and C++ & R&B, 50% off!", TEXT_FOLDING, "c# and c++ & r&b 50% off"),
        ("Café Müller", TEXT_FOLDING, "café müller"),
        ("Café Müller, Ёлка, Χάος, й", ALL, "cafe muller елка χαοσ й"),
        ("Straße", TEXT_FOLDING, "strasse"),
        ("Brand™ gloves®", TEXT_FOLDING, "brand gloves"),
        ("don’t", TEXT_FOLDING, "don t"),
        ("Children's, dogs’ and CHILDREN'S don't", WORD_FOLDING, "children dog and children don t"),
        ("Children's", TEXT_FOLDING, "children s"),
        ("???", TEXT_FOLDING, "???"),  # nothing would be left
        ("®", TEXT_FOLDING, "®"),
        ("™", ALL, "tm"),
        ("", ALL, ""),
        ("a\ud800b", ("case",), "a?b"),  # a lone surrogate
        ("<R_I> </s>", TEXT_FOLDING, "<r i> < s>"),
    ],
)
def test_fold_text(text, folding, folded):
    assert fold_text(text, folding) == folded


@pytest.mark.parametrize(
    "text",
    [
        "日本語のテスト",
        "ガンダム",
        "中文 搜索",
        "한국어 테스트",
        "مرحبا بالعالم",
        "नमस्ते दुनिया",
        "ภาษาไทย",
        "שלום",
        "привет мир",
    ],
)
def test_no_script_is_lost(text):
    """Whatever is folded: vowels and dots above and below letters are part of them."""
    assert fold_text(text, ALL) == unicodedata.normalize("NFKC", text)
    assert "".join(split_words(text.replace(" ", "")))[:1] == text[:1]


def test_folding_twice_changes_nothing_more():
    for text in ("Romantic COMEDY?", "Ｎｉｋｅ Straße’s 3.5", "नमस्ते, दुनिया!", "ΣΊΣΥΦΟΣ"):
        once = fold_text(text)
        assert fold_text(once) == once


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("Hard-Start KIT, 1/2 inch", ["hard", "start", "kit", "1", "2", "inch"]),
        ("capacitors capacitor", ["capacitor"] * 2),
        ("batteries accessories", ["battery", "accessory"]),
        ("houses boxes switches brushes glasses", ["house", "box", "switch", "brush", "glass"]),
        ("glass bus gas shoes", ["glass", "bus", "gas", "shoe"]),
        ("snake_case", ["snake", "case"]),
        ("ÉTOILES Straße", ["étoile", "strasse"]),
        ("无线鼠标", ["无线", "线鼠", "鼠标"]),
        ("红 lamp灯具", ["红", "lamp", "灯具"]),
        ("Ｎｉｋｅ Shoes™", ["nike", "shoe"]),
        ("ｶﾞﾝﾀﾞﾑ ガンダム", ["ガン", "ンダ", "ダム"] * 2),
        ("नमस्ते दुनिया!", ["नमस्ते", "दुनिया"]),
        ("مرحبا بالعالم؟", ["مرحبا", "بالعالم"]),
        ("한국어", ["한국", "국어"]),
        ("ハリー・ポッター", ["ハリ", "リー", "ポッ", "ッタ", "ター"]),
        ("男・女", ["男", "女"]),
        ("İPEK ŞAL", ["ipek", "şal"]),
        ("™", ["tm"]),
    ],
)
def test_split_words(text, words):
    assert split_words(text) == words


def test_a_text_has_the_words_of_its_folded_form():
    """Answers read queries folded, training and items as they are typed: all signs, between letters of each kind."""
    places = ("ab%scd", "中%s文字", "ハリー%sポッター", "1%s2", " %s ", "กข%sคง")
    different = [
        sign
        for sign in map(chr, [*range(0x20, 0xD800), *range(0xE000, 0x10000)])
        if unicodedata.category(sign)[0] in "PSMC"
        if any(split_words(place % sign) != split_words(fold_text(place % sign)) for place in places)
    ]
    assert different == []


@pytest.mark.parametrize("folding", [["upper"], "case"])
def test_unknown_foldings_are_refused(folding):
    with pytest.raises(ConfigurationError, match="use some of case, punctuation, plurals, accents, or none"):
        check_folding(folding)
