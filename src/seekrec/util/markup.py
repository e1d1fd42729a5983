# SPDX-License-Identifier: Apache-2.0
"""HTML in texts that were meant as plain ones: entities become characters, tags go, everything else stays."""

from __future__ import annotations

import html
import re
from html.entities import html5

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.util.arrow import is_list, is_text, one_array, to_mask

# Tags that end a word, and those that stand inside of one: H<sub>2</sub>O.
_BLOCKS = (
    "address article aside blockquote body br button caption center dd del details div dl dt embed fieldset "
    "figcaption figure footer form frame h1 h2 h3 h4 h5 h6 head header hr html iframe img input ins label legend li "
    "link main map meta nav noscript object ol optgroup option p param picture pre section select source summary svg "
    "table tbody td textarea tfoot th thead title tr ul video"
)
_INLINE = (
    "a abbr acronym b bdi bdo big cite code em font i kbd mark q s samp small span strike strong sub sup tt u var"
)
_SWITCHES = "allowfullscreen async autoplay checked controls defer disabled hidden loop muted nowrap required selected"

# Attributes have a value or are a switch, so that "a <b and c> d" has none.
_ATTRIBUTE = rf"""(?:[A-Za-z_:@][\w:.-]*\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>=`]+)|(?:{_SWITCHES.replace(" ", "|")})\b)"""
_TAG = re.compile(
    r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>|<!doctype[^<>]*>"
    rf"|</?(?:({_BLOCKS.replace(' ', '|')})|({_INLINE.replace(' ', '|')}))(?:\s+{_ATTRIBUTE})*\s*/?>",
    re.IGNORECASE | re.DOTALL,
)
# With its semicolon: R&B, AT&T and ?a=1&copy=2 have none. What was written twice has `amp;` in front.
_ENTITY = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Texts without it hold no HTML; that one is looked for in whole columns.
_MAY_BE_HTML = r"&#?[A-Za-z0-9]+;|</?[A-Za-z!]"
# Once for what the text is, and again for what was written twice.
_MAX_ROUNDS = 4


def strip_markup(text: str) -> str:
    """Return a text without HTML; text that holds none is returned as it is, whatever `<`, `>` and `&` it has.

    Args:
        text (`str`): Text that may hold entities (`&uuml;`, `&#252;`, written twice as `&amp;uuml;`) or tags of HTML.
    """
    found = text
    for _ in range(_MAX_ROUNDS):
        stripped = _TAG.sub(_space_of_tag, _ENTITY.sub(_character, found))
        if stripped == found:
            break
        found = stripped
    return text if found == text else " ".join(found.split())


def _character(match: re.Match[str]) -> str:
    name = match[1]
    return html.unescape(f"&{name};") if name[0] == "#" or f"{name};" in html5 else match[0]


def _space_of_tag(match: re.Match[str]) -> str:
    return "" if match[3] is not None else " "


def strip_column(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array | pa.ChunkedArray, np.ndarray]:
    """Strip the texts of a column of their HTML; see [`strip_markup`].

    Args:
        column (`pyarrow.Array`): Text, lists of text, or lists of these; a column of another type is left as it is.

    Returns:
        `tuple`: The column, null where nothing is left of a text; int64 rows that had HTML.
    """
    none = np.zeros(0, dtype=np.int64)
    flat = column
    while is_list(flat.type):
        flat = pc.list_flatten(flat)
    if not is_text(flat.type) or not pc.any(pc.match_substring_regex(flat, _MAY_BE_HTML)).as_py():
        return column, none
    array = one_array(column)
    kind = array.type
    if is_text(kind):
        rows = np.flatnonzero(to_mask(pc.match_substring_regex(array, _MAY_BE_HTML)))
    else:
        rows = np.flatnonzero(to_mask(pc.is_valid(array)))
    before = array.take(pa.array(rows)).to_pylist()
    after = [strip_value(value) for value in before]
    changed = np.array([one != other for one, other in zip(before, after, strict=True)], dtype=bool)
    if not changed.any():
        return column, none
    place = np.full(len(array), -1, dtype=np.int64)
    place[rows[changed]] = np.flatnonzero(changed)
    new = pa.array(after, kind).take(pa.array(place, mask=place < 0))
    return pc.if_else(pa.array(place >= 0), new, array), rows[changed]


def strip_value(value: object) -> object:
    """Return a text, a list of texts or a list of these without HTML; `None` where nothing is left of a text."""
    if isinstance(value, list):
        # A name of which nothing is left stays: a path has no gaps.
        return [one if (stripped := strip_value(one)) is None else stripped for one in value]
    return (strip_markup(value) or None) if isinstance(value, str) and value else value


__all__ = ["strip_column", "strip_markup", "strip_value"]
