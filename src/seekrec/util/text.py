# SPDX-License-Identifier: Apache-2.0
"""Fold text as people type it: case, punctuation and plurals of queries and of item texts.

Nothing becomes ASCII: letters of any script stay what they are.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from itertools import chain
from typing import Literal, get_args

from seekrec.errors import ConfigurationError

Folding = Literal["case", "punctuation", "plurals", "accents"]

# For an encoder or a generator that was trained on text elsewhere: it knows words with their endings.
TEXT_FOLDING: tuple[Folding, ...] = ("case", "punctuation")
# For one that learns its words from the log alone, where "comedies" may never occur.
WORD_FOLDING: tuple[Folding, ...] = ("case", "punctuation", "plurals")

_LAST_SIGN = min(sys.maxunicode, 0xFFFF)
# Punctuation but what changes the meaning of what it stands with: C#, 50%, R&B.
_PUNCTUATION = re.escape(
    "".join(
        sign
        for sign in map(chr, range(_LAST_SIGN + 1))
        if unicodedata.category(sign).startswith("P") and sign not in "#%&@"
    )
)
_DASHES = re.compile("[\u2010-\u2015\u2212]")
# Between digits it is part of a number: 3.5, 1/4, 24-70.
_SEPARATORS = re.compile(rf"(?<!\d)[{_PUNCTUATION}]+|[{_PUNCTUATION}]+(?!\d)")
_POSSESSIVE = re.compile(r"(?<=\w)['\u2019]s?(?!\w)", re.IGNORECASE)
# Signs that NFKC would write as letters behind the word.
_MARKS_OF_OWNERS = re.compile("[\u2122\u2120\u00ae\u00a9]")
# Accents of Latin, Greek and Cyrillic letters; the breve of the Cyrillic short i makes a letter of its own. Dots and
# vowels of other scripts are not accents.
_ACCENTS = re.compile("[\u0300-\u0305\u0307-\u036f]|(?<![\u0438\u0418])\u0306")

# Scripts written without spaces: Chinese, Japanese, Korean; Thai, Lao, Burmese, Khmer.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
# Vowels and other signs above, below or beside a letter, which Python does not count as part of a word.
_COMBINING = re.escape(
    "".join(sign for sign in map(chr, range(_LAST_SIGN + 1)) if unicodedata.category(sign) in ("Mn", "Mc"))
)
WORD = re.compile(rf"[{_UNSPACED}]+|(?:[^\W_{_UNSPACED}]|(?![{_UNSPACED}])[{_COMBINING}])+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_PLURALS_IN_ES = ("xes", "ches", "shes", "sses")


def fold_text(text: str, folding: Collection[str] = TEXT_FOLDING) -> str:
    """Fold what people type in different ways.

    Width is always folded (Unicode form NFKC: full-width letters become plain ones), and a lone surrogate becomes a
    question mark.

    Args:
        text (`str`): The text.
        folding (`Collection[str]`): `"case"`; `"punctuation"`, which becomes spaces unless it stands between digits,
            so that "sci-fi?" reads "sci fi"; `"plurals"`, as in [`split_words`], and possessive endings;
            `"accents"` of Latin, Greek and Cyrillic letters.

    Returns:
        `str`: The folded text; never empty where the text held something visible.

    Example:
        >>> fold_text("Romantic COMEDY?"), fold_text("1/4 inch T-Shirts", WORD_FOLDING)
        ('romantic comedy', '1/4 inch t shirt')
    """
    if not text.isascii():
        if "punctuation" in folding:
            text = _DASHES.sub("-", _MARKS_OF_OWNERS.sub(" ", text))
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
        if "accents" in folding:
            text = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))
    if "case" in folding:
        text = text.casefold()
    if "plurals" in folding:
        text = _POSSESSIVE.sub("", text)
    if "punctuation" in folding:
        words = _SEPARATORS.sub(" ", text).split()
        text = " ".join(words) if words else text
    if "plurals" in folding:
        text = " ".join(map(_singular, text.split(" ")))
    return text


def split_words(text: str) -> list[str]:
    """Split text into words for matching: case and plural endings folded, unspaced runs cut into pairs of characters.

    Plurals of four letters or more lose their ending: -ies becomes -y; after x, ch, sh and ss -es goes; else -s goes,
    but not of -ss and -us. Category names are plural, titles often are not. It is crude ("lens" becomes "len"), but
    the same for items and queries.

    Args:
        text (`str`): The text.

    Returns:
        `list[str]`: Words in order, repeated as often as they occur.

    Example:
        >>> split_words("Staples, batteries & glass USB-hubs")
        ['staple', 'battery', 'glass', 'usb', 'hub']
    """
    return list(chain.from_iterable(map(_cut, WORD.findall(fold_text(_MARKS_OF_OWNERS.sub(" ", text), ("case",))))))


def check_folding(folding: Collection[str]) -> tuple[Folding, ...]:
    """Return the names in one order.

    Raises:
        ConfigurationError: If a name is unknown.
    """
    known = get_args(Folding)
    unknown = [name for name in folding if name not in known]
    if unknown or isinstance(folding, str):
        raise ConfigurationError(f"`text_folding` is {folding!r}; name some of {', '.join(known)}, or none.")
    return tuple(name for name in known if name in folding)


def _cut(word: str) -> tuple[str, ...]:
    if _IS_UNSPACED.match(word):
        return tuple(word[place : place + 2] for place in range(max(1, len(word) - 1)))
    return (_singular(word),)


@lru_cache(maxsize=200_000)
def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word[-2] in "su":
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(_PLURALS_IN_ES) else word[:-1]


__all__ = ["TEXT_FOLDING", "WORD", "WORD_FOLDING", "Folding", "check_folding", "fold_text", "split_words"]
