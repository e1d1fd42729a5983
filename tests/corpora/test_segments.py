# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_tokens import decode_tokens

from seekrec.corpora.segments import InstructionWriter, SegmentTable
from seekrec.errors import UnknownItemError
from seekrec.events.columns import EventColumns, RequestColumns
from seekrec.models import GenSARConfig
from seekrec.schema import Event, IdMap, Request
from seekrec.util.ragged import Ragged


def columns_of(kinds):
    """Events by letter: r recommendation, s search, q search without a click, i impression."""
    written = {
        "r": Event("a"),
        "s": Event("a", "search", query="piano"),
        "q": Event(None, "search", query="piano"),
        "i": Event("a", action="impression"),
    }
    return RequestColumns.read([Request([written[kind] for kind in kinds])], IdMap(["a"])).events


def cut_by_hand(kinds, history, max_recommendations, max_searches):
    kept, left = [], {"r": max_recommendations, "s": max_searches}
    for event in reversed(history):
        kind = "s" if kinds[event] == "q" else kinds[event]
        if left.get(kind, 0) > 0:
            left[kind] -= 1
            kept.append(event)
    return kept[::-1]


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.text("rsqi", min_size=1, max_size=12),
    data=st.data(),
    max_recommendations=st.integers(0, 4),
    max_searches=st.integers(0, 4),
)
def test_cut_keeps_the_latest_of_each_behavior(kinds, data, max_recommendations, max_searches):
    event = st.integers(0, len(kinds) - 1)
    histories = data.draw(st.lists(st.lists(event, max_size=10), max_size=5))
    cut = columns_of(kinds).cut(Ragged.from_lists(histories), max_recommendations, max_searches)
    expected = [cut_by_hand(kinds, history, max_recommendations, max_searches) for history in histories]
    assert cut.to_lists() == expected


def test_columns_of_a_table_and_of_events_agree(shop_log, shop_catalog):
    from_table = EventColumns.from_table(shop_log.events, shop_catalog.id_map)
    events = [
        Event(row["item_id"], row["behavior"], row["timestamp"], row["query"], row["action"])
        for row in shop_log.events.to_pylist()
    ]
    from_events = RequestColumns.read([Request([event]) for event in events], shop_catalog.id_map).events
    # ann: violin, piano -> upright, stool, tuning fork -> nothing, music -> score, bow, drum; then bob.
    assert from_table.item.tolist() == [2, 0, 1, -1, 4, 3, 5, 5, 4, 2]
    assert from_table.is_search.tolist() == [False, True, False, True, True, *[False] * 5]
    assert from_table.queries == ["piano", "tuning fork", "music"]
    assert from_table.query.tolist() == [-1, 0, -1, 1, 2, *[-1] * 5]
    assert not from_table.is_shown.any()
    for name in ("item", "is_search", "query", "queries", "is_shown"):
        assert np.array_equal(getattr(from_table, name), getattr(from_events, name)), name


def test_impressions_are_never_written():
    id_map = IdMap(["a"])
    events = [Event("a", action="impression"), Event("a"), Event(None, "search", query="piano")]
    assert RequestColumns.read([Request(events)], id_map).events.is_shown.tolist() == [True, False, False]
    table = pa.table(
        {
            "item_id": ["a", "a", None],
            "behavior": ["recommendation", "recommendation", "search"],
            "query": pa.array([None, None, "piano"], pa.string()),
            "action": ["impression", "click", "click"],
            "timestamp": [1, 2, 3],
        }
    )
    assert EventColumns.from_table(table, id_map).is_shown.tolist() == [True, False, False]


def test_unknown_items_are_named():
    events = [Event("a"), Event("b"), Event(None, "search", query="b")]
    assert RequestColumns.read([Request(events)], IdMap(["a"])).events.item.tolist() == [0, -1, -1]
    table = pa.table({"item_id": ["a", "b"], "behavior": ["recommendation"] * 2, "query": pa.nulls(2, pa.string())})
    table = table.append_column("action", pa.array(["click"] * 2)).append_column("timestamp", pa.array([1, 2]))
    with pytest.raises(UnknownItemError, match="the first is 'b'"):
        EventColumns.from_table(table, IdMap(["a"]))


def test_events_are_written_as_in_the_paper(shop_log, shop_catalog, trained):
    tokenizer, vocabulary = trained
    columns = EventColumns.from_table(shop_log.events, shop_catalog.id_map)
    table = InstructionWriter(columns, shop_catalog, vocabulary, tokenizer, GenSARConfig())
    # Equation 11: <R_I> and the collaborative identifier; <S_Q> and words; <S_I> and the semantic identifier.
    written = [decode_tokens(tokenizer, row) for row in table.tokens(table.event_segments).to_lists()]
    assert written[:5] == [
        "<R_I> <M1_1> <M2_0> <R1_2>;",
        "<S_Q> piano; <S_I> <M1_0> <M2_1> <S1_2>;",
        "<R_I> <M1_0> <M2_1> <R1_1>;",
        "<S_Q> tuning fork;",
        "<S_Q> music; <S_I> <M1_2> <M2_2> <S1_2>;",
    ]
    # A query token, then at most one of its pieces.
    short = SegmentTable(columns, shop_catalog, vocabulary, tokenizer, GenSARConfig(max_query_tokens=1))
    assert len(short.tokens(short.event_segments.take([3])).to_lists()[0]) == 2
