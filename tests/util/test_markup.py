# SPDX-License-Identifier: Apache-2.0
"""HTML goes out of texts, and nothing else does."""

from __future__ import annotations

import html

import pyarrow as pa
import pytest

from seekrec.util.markup import strip_column, strip_markup


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("M&uuml;ller &amp; S&ouml;hne", "Müller & Söhne"),
        ("<p>Chaise by Z&#246;e &mdash; in black.</p>\nLovely\tthing", "Chaise by Zöe — in black. Lovely thing"),
        ("Furniture &gt; Chairs", "Furniture > Chairs"),
        ("Salt<br/>Pepper<BR>Mill", "Salt Pepper Mill"),
        ("H<sub>2</sub>O, <b class='x'>bold</b>.", "H2O, bold."),
        ('<a href="/x?a=1&amp;b=2" target=_blank>here</a>', "here"),
        ("a<!-- no > text -->b<script>if (1 < 2) x()</script>c<style>p {}</style>", "a b c"),
        # Written twice, and tags that were written as entities.
        ("R&amp;amp;B &amp;quot;best of&amp;quot;", 'R&B "best of"'),
        ("&lt;p&gt;Text&lt;/p&gt;", "Text"),
        ("100&nbsp;% cotton &#x2013; &#39;soft&#39;", "100 % cotton – 'soft'"),
        ("I &lt;3 you, 2 &lt; 3", "I <3 you, 2 < 3"),
        ("<br>", ""),
    ],
)
def test_html_becomes_the_text_that_a_browser_shows(text, expected):
    assert strip_markup(text) == expected
    assert strip_markup(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "R&B",
        "AT&T; AT&TRADE",
        "Q&A; R&D;",
        "a < b",
        "<3",
        "I <3 U & U <3 me>",
        "5<6 and 7>6",
        "a <b and c> d",
        "x<y>z",
        "<script> on paper",
        "List<String>",
        "?a=1&copy=2&reg",
        "&",
        "&;",
        "&#;",
        "<>",
        "  two   spaces\n and a line ",
        "<unknown>",
        "?!",
    ],
)
def test_text_without_html_stays_as_it_is(text):
    assert strip_markup(text) == text


def test_what_was_escaped_comes_back():
    """The inverse of `html.escape`, for any text that has no tag and single spaces."""
    for text in ('Müller & Söhne "Größe" <3', "a < b > c & d", "5' 7\" & more", "R&B; C&A", "東京 & 大阪"):
        assert strip_markup(html.escape(text)) == text
        assert strip_markup(html.escape(html.escape(text))) == text


def test_columns():
    texts = pa.chunked_array([["a &amp; b", None], ["R&B", "<br>", "x"]])
    stripped, rows = strip_column(texts)
    assert (stripped.to_pylist(), rows.tolist()) == (["a & b", None, "R&B", None, "x"], [0, 3])
    paths = pa.array([[["A &gt; B", "C"], ["<p>"]], None, [["D"]], []], pa.list_(pa.list_(pa.string())))
    stripped, rows = strip_column(paths)
    assert stripped.to_pylist() == [[["A > B", "C"], ["<p>"]], None, [["D"]], []]
    assert (rows.tolist(), stripped.type) == ([0], paths.type)
    for column in (pa.array([1, 2]), pa.array(["a < b", "R&B"]), pa.array([], pa.string()), pa.array([None, None])):
        same, rows = strip_column(column)
        assert same is column and len(rows) == 0


def test_hostile_text_takes_no_long():
    for text in (
        "&amp;" * 2000 + "lt;",
        "<" * 10_000,
        "<a " + "x= " * 3000,
        "<!--" * 2500,
        "<script>" * 1200,
        "&#" * 5000,
    ):
        strip_markup(text)
