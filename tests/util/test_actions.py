# SPDX-License-Identifier: Apache-2.0
"""Words of actions mean the same in tables, events and requests."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from seekrec import Event, Request
from seekrec.events.checks import Source
from seekrec.events.columns import EventColumns, RequestColumns, history_rows, impression_mask
from seekrec.events.readers.columns import to_actions
from seekrec.schema import IdMap
from seekrec.util.actions import ACTION_OF_WORD, action_of_word, number_action


@pytest.mark.parametrize(
    ("word", "action"),
    [
        ("page_view", "view"),
        ("AddToCart", "cart"),
        ("transaction", "purchase"),
        ("not_clicked", "impression"),
        (" Not Clicked ", "impression"),
        ("NOT-CLICKED", "impression"),
        ("wishlist", "wishlist"),
        ("Wish List", "Wish List"),
    ],
)
def test_case_and_separators_do_not_count_and_other_words_stay(word, action):
    assert action_of_word(word) == action


@pytest.mark.parametrize("word", [*ACTION_OF_WORD, "NOT_clicked", "View Item List", "Wish List"])
def test_an_event_is_read_as_a_table_is(word):
    """Readers, single events, histories of requests and tables that nobody translated: four ways, one meaning."""
    read, _ = to_actions(pa.chunked_array([[word]]), "action", Source("a table"))
    is_shown = read.to_pylist() == ["impression"]
    event = Event("a", action=word)
    assert (event.action, event.is_impression, event.is_interaction) == (word, is_shown, not is_shown)
    id_map = IdMap(["a"])
    assert history_rows([Request([event])], id_map).lengths.tolist() == [0 if is_shown else 1]
    assert RequestColumns.read([Request([event])], id_map).events.is_shown.tolist() == [is_shown]
    assert impression_mask(pa.table({"action": [word, "click"]})).tolist() == [is_shown, False]


def test_numbers_are_those_of_the_same_letters_then_of_the_same_meaning():
    known = ("cart", "page_view", "Wish")
    words = ["cart", "AddToCart", "page_view", "view", "PageView", "Wish", "wish", "purchase"]
    assert [number_action(word, known) for word in words] == [1, 1, 2, 2, 2, 3, 0, 0]
    # A model that tells both apart: each keeps its own, and other spellings are the word of ours.
    both = ("page_view", "view")
    assert [number_action(word, both) for word in ("page_view", "view", "Page View")] == [1, 2, 2]
    assert number_action("view", ()) == 0


def test_a_log_and_a_request_have_the_same_numbers():
    words = ["page_view", "buy", "Wish", None]
    table = pa.table(
        {
            "user_id": ["u"] * 4,
            "item_id": ["a"] * 4,
            "timestamp": pa.array(np.arange(4)),
            "behavior": ["recommendation"] * 4,
            "query": pa.nulls(4, pa.string()),
            "action": words,
        }
    )
    id_map, actions = IdMap(["a"]), ["purchase", "view"]
    of_log = EventColumns.from_table(table, id_map, actions).action
    events = [Event("a", action=word, timestamp=time) for time, word in enumerate(words) if word is not None]
    of_request = RequestColumns.read([Request(events)], id_map, actions).events.action
    assert of_log.tolist() == [2, 1, 0, 0]
    assert of_request.tolist() == of_log.tolist()[:3]
