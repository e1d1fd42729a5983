# SPDX-License-Identifier: Apache-2.0
"""A kept state answers as the events it stands for, whatever came in which order, and takes bounded memory."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from small_shop import NUM_ITEMS

from seekrec.schema import Event, Request
from seekrec.serving.engine import LoadedModel, Question
from seekrec.serving.histories import Histories, KeptHistory
from seekrec.serving.metrics import Metrics
from seekrec.serving.store import Store, StoredEvent

MAX_HISTORY = 12  # of the small models


# Of GenSAR, so many of each behavior.
LIMITS = {"recommendation": 8, "search": 4}


@pytest.fixture(params=["intsr", "synergen", "gensar"])
def loaded(request, shops):
    model, processor = copy.deepcopy(shops[request.param])
    if request.param == "gensar":
        for config in (model.config, processor.config):
            config.max_history_recommendations, config.max_history_searches = LIMITS.values()
    loaded = LoadedModel.load((model, processor))
    loaded.keep_states(2**20, Metrics())
    return loaded


@pytest.fixture
def store(store_url):
    store = Store(store_url)
    yield store
    store.close()


def counts(metrics, cache):
    text = metrics.text().decode()
    lines = [line for line in text.splitlines() if line.startswith(f'seekrec_cache_total{{cache="{cache}"')]
    return {line.split('result="')[1].split('"')[0]: float(line.split()[-1]) for line in lines}


def assert_same(answers, expected):
    for answer, items in zip(answers, expected, strict=True):
        assert [item.item_id for item in answer.items] == [item.item_id for item in items]
        assert [item.score for item in answer.items] == pytest.approx([item.score for item in items], abs=1e-3)


def test_histories_that_grow_are_answered_as_the_model_answers_what_it_reads_of_them(loaded, store, monkeypatch):
    """Were it long, the window: the latest 12 known events, from a place on that is a multiple of 3.

    GenSAR: the latest 8 recommendations, from a multiple of 2 on, and the latest 4 searches.
    """
    limits = LIMITS if loaded.family == "gensar" else {None: MAX_HISTORY}
    monkeypatch.setattr("seekrec.serving.states._SHORT_WINDOW", 0)
    rng, metrics = np.random.default_rng(0), Metrics()
    histories = Histories(store, 2**20, metrics)
    model, processor = loaded.model, loaded.processor
    events = {f"u{user}": [] for user in range(3)}
    for step in range(20):
        for user, own in events.items():
            for _ in range(int(rng.integers(3))):
                # One in five comes late.
                late = 500 if own and rng.integers(5) == 0 else 0
                time = 1000 * (step + 1) - late + len(own)
                query = "kitchen" if rng.integers(3) == 0 else None
                item = f"i{rng.integers(NUM_ITEMS + 1)}"  # i24 is unknown
                event = Event(item, "recommendation" if query is None else "search", time, query)
                store.append_events([StoredEvent(f"{user}-{len(own)}", user, event)])
                own.append(event)
        kept = [histories.read(user) for user in events]
        asked = Request(query="office", timestamp=10**6)
        questions = [Question(asked, one.events, one, top_k=30, exclude_seen=True) for one in kept]
        answers = loaded.answer(questions)
        expected = []
        for own in events.values():
            in_time = sorted(own, key=lambda event: event.timestamp)
            known = [event for event in in_time if event.item_id != "i24"]
            window = []
            for kind, most in limits.items():
                asked_for = [event for event in known if kind in (None, event.behavior)]
                places = range(0, len(own) + 3, most // 4)
                start = next(place for place in places if len([e for e in in_time[place:] if e in asked_for]) <= most)
                window += [event for event in in_time[start:] if event in asked_for]
            window.sort(key=lambda event: event.timestamp)
            unseen = np.ones(NUM_ITEMS, bool)
            unseen[[int(event.item_id[1:]) for event in own if event.item_id != "i24"]] = False
            inputs = processor([Request(window, query="office", timestamp=10**6)])
            expected += model.retrieve(inputs, top_k=30, where=unseen, exclude_seen=False)
        assert_same(answers, expected)
    assert max(map(len, events.values())) > MAX_HISTORY + 3
    assert counts(loaded._states._metrics, "state")["extended"] > 10


def test_a_short_window_is_all_that_the_model_reads(loaded):
    rows = np.random.default_rng(0).integers(NUM_ITEMS, size=30).tolist()
    queries = [None if place % 3 else "kitchen" for place in range(30)]
    events = tuple(
        Event(f"i{row}", "recommendation" if query is None else "search", place, query)
        for place, (row, query) in enumerate(zip(rows, queries, strict=True))
    )
    asked = Request(query="office", timestamp=10**6)
    for number in (3, 4, 20, 21, 23, 30):
        kept = KeptHistory("ann", number, tuple(range(1, number + 1)), events[:number])
        answers = loaded.answer([Question(asked, kept.events, kept)])
        whole = Request(kept.events, query="office", timestamp=10**6)
        assert_same(answers, loaded.model.retrieve(loaded.processor([whole])))


def test_events_of_unknown_items_or_of_none_take_no_place_in_a_window(loaded):
    """The model reads the latest events that it knows, however many others came after them."""
    known = tuple(Event(f"i{place}", timestamp=1 + place) for place in range(6))
    events = known + tuple(Event(f"gone{place}" if place % 3 else None, timestamp=10 + place) for place in range(40))
    for number in (6, 7, 20, 46):
        kept = KeptHistory("ann", number, tuple(range(1, number + 1)), events[:number])
        answers = loaded.answer([Question(Request(timestamp=10**6), kept.events, kept)])
        assert_same(answers, loaded.model.retrieve(loaded.processor([Request(known, timestamp=10**6)])))


def test_queries_are_suggested_from_what_is_kept(shops):
    model, processor = copy.deepcopy(shops["gensar"])
    model.config.trained_tasks = ["nsqp"]
    loaded, metrics = LoadedModel.load((model, processor)), Metrics()
    loaded.keep_states(2**20, metrics)
    questions = []
    for number in (0, 3, 7):
        events = tuple(Event(f"i{row}", timestamp=row) for row in range(number))
        kept = KeptHistory(f"u{number}", number, tuple(range(1, number + 1)), events)
        questions += [Question(Request(), events, kept, top_k=3, writes_queries=True)]
    alone = [loaded.answer([replace(one, kept=None)])[0].queries for one in questions]
    assert counts(metrics, "state") == {}
    for _ in range(2):
        assert [answer.queries for answer in loaded.answer(questions)] == alone
    assert counts(metrics, "state") == {"miss": 3, "hit": 3}


def test_histories_are_forgotten_when_memory_ends(store):
    """Bytes are counted as events come and go; those of nobody are not kept."""
    metrics = Metrics()
    for user in range(3):
        event = Event("i1", "search", timestamp=1, query="kitchen")
        store.append_events([StoredEvent(f"{user}-{number}", f"u{user}", event) for number in range(1200)])
    histories = Histories(store, 2**40, metrics)
    assert [len(histories.read(user).events) for user in ("u0", "nobody", "nobody")] == [1000, 0, 0]
    store.append_events([StoredEvent("another", "u0", event)])
    nbytes = histories.read("u0").nbytes
    assert nbytes == histories._bytes == Histories(store, 2**40, metrics).read("u0").nbytes
    assert 200_000 < nbytes < 500_000
    few = Histories(store, 2 * nbytes, metrics)
    for user in ("u0", "u1", "u2", "u2", "u1", "u0"):
        few.read(user)
        assert few._bytes <= 2 * nbytes
    # Two fit.
    assert counts(metrics, "history") == {"miss": 4 + 3 + 1, "hit": 1 + 2}


def test_what_is_new_is_read_and_nothing_else(shops, store):
    metrics = Metrics()
    loaded = LoadedModel.load(copy.deepcopy(shops["intsr"]))
    loaded.keep_states(2**20, metrics)
    read = []
    model = loaded.model.model
    model.register_forward_pre_hook(lambda _, arguments: read.append(int(arguments[0]["history_mask"].sum())))
    histories = Histories(store, 2**20, metrics)
    for number in range(5):
        store.append_events([StoredEvent(str(number), "ann", Event(f"i{number}", timestamp=number))])
        if number >= 2:
            kept = histories.read("ann")
            loaded.answer([Question(Request(), kept.events, kept)] * 2)
    assert read == [3, 1, 1]
    assert counts(metrics, "state") == {"miss": 1, "extended": 2}
    assert counts(metrics, "history") == {"miss": 1, "hit": 2}


def test_states_are_forgotten_when_memory_ends_and_read_again(shops):
    loaded, metrics = LoadedModel.load(copy.deepcopy(shops["intsr"])), Metrics()
    loaded.keep_states(2**20, metrics)
    events = tuple(Event(f"i{number}", timestamp=number) for number in range(8))
    users = [KeptHistory(f"u{user}", 8, tuple(range(1, 9)), events) for user in range(4)]
    questions = [Question(Request(), one.events, one) for one in users]
    whole = [answer.items for answer in loaded.answer(questions)]
    of_all = loaded._states._bytes
    loaded.keep_states(of_all // 2, metrics)
    for question, items in zip(questions * 2, whole * 2, strict=True):
        assert_same(loaded.answer([question]), [items])
        assert loaded._states._bytes <= of_all // 2
    # Two fit; asked in turn, none is there any more when it is asked again.
    assert counts(metrics, "state") == {"miss": 4 + 8}


def test_an_event_of_an_item_that_comes_later_counts_from_then_on(shops):
    loaded = LoadedModel.load(copy.deepcopy(shops["intsr"]))
    loaded.keep_states(2**20)
    events = (Event("i0", timestamp=1), Event("new", timestamp=2))
    kept = KeptHistory("ann", 2, (1, 2), events)
    question = Question(Request(), events, kept)
    before = loaded.answer([question])[0]
    vectors = np.zeros((1, 8), np.float32)
    grown = loaded.catalog.add_items([{"item_id": "new", "title": "a kite"}], semantic_embeddings=vectors)
    loaded.prepare_catalog(grown, 1)()
    after = loaded.answer([question])[0]
    expected = loaded.model.retrieve(loaded.processor([Request(events)]))
    assert_same([after], expected)
    assert [item.score for item in before.items] != [item.score for item in after.items]
