# SPDX-License-Identifier: Apache-2.0
"""Words for what was done with an item: one meaning of each, for tables, events and requests alike."""

from __future__ import annotations

import re
from functools import lru_cache

# The action of an item that was shown and not acted on.
IMPRESSION = "impression"

# Words of actions, as names are compared: ours, and those that mean the same.
_ACTION_WORDS: dict[str, tuple[str, ...]] = {
    "view": ("view", "views", "viewed", "pageview", "pv", "detail", "viewitem", "productview", "itemview"),
    "click": ("click", "clicks", "clicked", "clk", "selectitem", "clickout", "itemclick", "productclick"),
    "purchase": (
        *("purchase", "purchases", "purchased", "buy", "bought", "order", "ordered", "transaction", "conversion"),
        *("sale", "productpurchase"),
    ),
    "cart": ("cart", "addtocart", "atc", "basket", "addtobasket", "addedtocart", "productadded"),
    IMPRESSION: (
        *("impression", "impressions", "impressed", "imp", "shown", "show", "display", "displayed", "exposure"),
        *("exposed", "viewitemlist", "served", "notclicked", "noclick"),
    ),
    "search": ("search", "searches", "searched", "sitesearch", "viewsearchresults", "query"),
}
ACTION_OF_WORD = {word: action for action, words in _ACTION_WORDS.items() for word in words}

_BETWEEN = re.compile(r"[\W_]+")


def plain_name(name: str) -> str:
    """Return a name as names are compared: without case, and without what stands between its parts."""
    return _BETWEEN.sub("", name).casefold()


@lru_cache(maxsize=4096)
def action_of_word(word: str) -> str:
    """Return the action that a word means: "view" for "page_view"; a word that means none of ours stays as it is."""
    return ACTION_OF_WORD.get(plain_name(word), word)


@lru_cache(maxsize=4096)
def number_action(word: str, actions: tuple[str, ...]) -> int:
    """Number a word by the actions that a model tells apart.

    An action of the same letters wins over one of the same meaning, so a model may have a word of its own.

    Args:
        word (`str`): Word of an event or a request.
        actions (`tuple[str, ...]`): The actions, each once.

    Returns:
        `int`: 1 + the position in `actions`, 0 for a word that is not among them.
    """
    meaning = action_of_word(word)
    meanings = [action_of_word(action) for action in actions]
    for wanted, known in ((word, actions), (meaning, actions), (meaning, meanings)):
        if wanted in known:
            return 1 + known.index(wanted)
    return 0


__all__ = ["ACTION_OF_WORD", "IMPRESSION", "action_of_word", "number_action", "plain_name"]
