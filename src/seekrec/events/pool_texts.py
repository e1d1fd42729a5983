# SPDX-License-Identifier: Apache-2.0
"""Texts that could lead to an item, for a query pool in addition to users' queries (IntSR, section 3.2).

The pool has five kinds of queries. Two need external input: users' queries (`logged`), and a text generation model
(`doc2query=MODEL`, `paraphrase=MODEL`; see [`~seekrec.corpora.pseudo_queries`]). The others come from the items alone:

| kind of the paper | names of ours |
|---|---|
| 1. what users typed | `logged` |
| 2. information on the item | `information`: name, categories, brand; `category`: queries of its paths |
| 3. descriptions and their paraphrases | `description`, `paraphrase=MODEL`; `item_text`: with the title |
| 4. keywords of 2 and 3 | `keywords` |
| 5. expressions of searching users | `expressions`: of keywords, by patterns; `doc2query=MODEL` |
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection
from itertools import chain
from typing import Any

import pyarrow as pa

from seekrec.errors import ConfigurationError
from seekrec.events.queries import STOP_WORDS, category_queries
from seekrec.schema import MAX_QUERY_CHARACTERS
from seekrec.util.text import WORD, fold_text

# Made elsewhere: from the log, and from the vectors of the catalogue.
LOGGED, ITEM_TEXT = "logged", "item_text"
# Written by a model, whose name follows an equals sign: what it reads.
WRITTEN_KINDS = ("doc2query", "paraphrase")
# The column of items that says what a thing belongs to, as the paper's IP.
BRAND_COLUMN = "brand"

_NUM_KEYWORDS = 6
_PATTERNS = ("i am looking for {}", "show me the best {}", "which {} is good", "something like {}")
_CHINESE_PATTERNS = ("想买{}", "找好看的{}", "哪种{}好用", "类似{}的东西")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
_LATIN = re.compile(r"[a-z\u00c0-\u024f]")


def check_pool_kinds(kinds: Collection[str]) -> None:
    """Refuse kinds that a query pool does not know.

    Raises:
        ConfigurationError: If one is unknown, or a written one names no model.
    """
    for kind in kinds:
        name, equals, model = kind.partition("=")
        if kind not in (LOGGED, ITEM_TEXT, *_MAKERS) and not (name in WRITTEN_KINDS and equals and model):
            written = " and ".join(f"{one}=MODEL" for one in WRITTEN_KINDS)
            raise ConfigurationError(
                f"The query pool has the kind {kind!r}; choose among {', '.join((LOGGED, *_MAKERS, ITEM_TEXT))}, and "
                f"{written} with a sequence-to-sequence model."
            )


def pool_texts(items: pa.Table, kind: str) -> list[list[str]]:
    """Return the texts of one kind that the items make by themselves.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES`.
        kind (`str`): `"information"`, `"category"`, `"description"`, `"keywords"` or `"expressions"`.

    Returns:
        `list[list[str]]`: For each row, distinct texts of at most `MAX_QUERY_CHARACTERS` characters.

    Raises:
        ConfigurationError: If the kind is another one.
    """
    if kind not in _MAKERS:
        raise ConfigurationError(f"Texts of the kind {kind!r} cannot be made from items, only {', '.join(_MAKERS)}.")
    return _MAKERS[kind](items)


def item_information(items: pa.Table) -> list[list[str]]:
    """Return the name of each item, the names of its categories, and its brand.

    Of a category path the first name is left out where others follow: it says what a shop sells, not what a thing is.

    Example:
        >>> items = pa.table({"title": ["Mira Oak Lamp"], "categories": [[["Home", "Lighting", "Lamps"]]]})
        >>> item_information(items.append_column("brand", [["Mira"]]))
        [['Mira Oak Lamp', 'Lighting', 'Lamps', 'Mira']]
    """
    found = []
    brands = _column(items, BRAND_COLUMN)
    for title, paths, brand in zip(_column(items, "title"), _column(items, "categories"), brands, strict=True):
        names = [name for path in paths or [] if path for name in path[len(path) > 1 :]]
        found.append(_distinct([title, *names, brand]))
    return found


def item_descriptions(items: pa.Table) -> list[list[str]]:
    """Return the description of each item that has one, as far as a query may reach."""
    return [_distinct([text]) for text in _column(items, "description")]


def item_keywords(items: pa.Table) -> list[list[str]]:
    r"""Extract the keywords of each item from its name, categories, brand and description.

    First its brand and the last names of its category paths, whole; then the words of title and description that none
    of these holds, by $n \log(N / N_w)$: $n$ times in the item, in $N_w$ of $N$ items. A word that no other item has
    is a number or a name sooner than something that is searched for, and comes last.

    Returns:
        `list[list[str]]`: At most six for each row, folded as queries are.
    """
    titles, descriptions = _column(items, "title"), _column(items, "description")
    words = [
        [word for word in WORD.findall(fold_text(f"{title or ''} {text or ''}")) if _is_content(word)]
        for title, text in zip(titles, descriptions, strict=True)
    ]
    frequency = Counter(chain.from_iterable(map(set, words)))
    found = []
    brands = _column(items, BRAND_COLUMN)
    for own, paths, brand in zip(words, _column(items, "categories"), brands, strict=True):
        phrases = _distinct([brand, *(path[-1] for path in paths or [] if path)], fold=True)
        used = {word for phrase in phrases for word in WORD.findall(phrase)}
        counts = Counter(word for word in own if word not in used)
        # Of equal words the first in the text.
        ordered = sorted(
            (frequency[word] == 1, -count * math.log(len(words) / frequency[word]), place, word)
            for place, (word, count) in enumerate(counts.items())
        )
        found.append([*phrases, *(word for *_, word in ordered)][:_NUM_KEYWORDS])
    return found


def search_expressions(items: pa.Table) -> list[list[str]]:
    """Write the keywords of each item the way people ask for things.

    Each keyword gets one pattern, in turn and by row, of its script: Latin or Chinese. The first two keywords also
    stand together, as most people type them.

    Returns:
        `list[list[str]]`: Expressions of each row.
    """
    found = []
    for row, keywords in enumerate(item_keywords(items)):
        together = [" ".join(keywords[:2])] if len(keywords) > 1 else []
        asked = []
        for place, keyword in enumerate(keywords):
            patterns = _patterns_for(keyword)
            asked += [patterns[(row + place) % len(patterns)].format(keyword)] if patterns else []
        found.append(_distinct([*together, *asked]))
    return found


def _patterns_for(keyword: str) -> tuple[str, ...]:
    """Return patterns in a language that the keyword may be of; none for scripts that we have none for."""
    if _KANA_OR_HANGUL.search(keyword):
        return ()
    if _HAN.search(keyword):
        return _CHINESE_PATTERNS
    return _PATTERNS if _LATIN.match(keyword) else ()


def _is_content(word: str) -> bool:
    return word not in STOP_WORDS and not word.isnumeric()


def _distinct(texts: list[str | None], *, fold: bool = False) -> list[str]:
    """Return the texts that hold something, cut to the length of a query; of those that fold alike the first."""
    found: dict[str, str] = {}
    for text in texts:
        if text and text.strip():
            cut = cut_text(text.strip())
            folded = fold_text(cut)
            found.setdefault(folded, folded if fold else cut)
    return list(found.values())


def cut_text(text: str) -> str:
    """Cut a text that is longer than a query may be, between words where it has some."""
    if len(text) <= MAX_QUERY_CHARACTERS:
        return text
    cut = text[: MAX_QUERY_CHARACTERS + 1]
    whole = cut.rsplit(None, 1)[0]
    return whole if len(whole) <= MAX_QUERY_CHARACTERS else text[:MAX_QUERY_CHARACTERS]


def _column(items: pa.Table, name: str) -> list[Any]:
    return items[name].to_pylist() if name in items.column_names else [None] * items.num_rows


_MAKERS: dict[str, Callable[[pa.Table], list[list[str]]]] = {
    "category": category_queries,
    "information": item_information,
    "description": item_descriptions,
    "keywords": item_keywords,
    "expressions": search_expressions,
}

__all__ = [
    "BRAND_COLUMN",
    "ITEM_TEXT",
    "LOGGED",
    "WRITTEN_KINDS",
    "check_pool_kinds",
    "cut_text",
    "item_descriptions",
    "item_information",
    "item_keywords",
    "pool_texts",
    "search_expressions",
]
