# SPDX-License-Identifier: Apache-2.0
"""Requests: built from anything, answered by each family."""

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_shop import FINDING, make_aisles, make_gensar, make_gensr, make_intsr, make_synergen
from tally import TALLY, fuzzed
from values import ITEMS, events, histories, junk, queries, texts, times

from seekrec import Event, Request


@fuzzed(2500)
@given(st.data())
def test_events_of_anything(data):
    names = [field.name for field in fields(Event)]
    right = data.draw(events())
    arguments = {name: getattr(right, name) for name in names}
    for name in data.draw(st.lists(st.sampled_from(names), max_size=2)):
        arguments[name] = data.draw(mostly(st.just(arguments[name])))
    with TALLY.case("events"):
        event = Event(**arguments)
        # What is accepted stays what it was, and is of the type that is promised.
        for name in names:
            assert getattr(event, name) == arguments[name]
        assert type(event.timestamp) is int and 0 <= event.timestamp <= 10**11
        for name in ("item_id", "query", "action", "session_id"):
            assert getattr(event, name) is None or getattr(event, name).encode().decode() == arguments[name]


def mostly(right, wrong=junk):
    """Right values, and now and then anything."""
    # `one_of` takes equal branches for one, and the branches of a branch for its own.
    return st.integers(0, 7).flatmap(lambda number: right if number else wrong)


@fuzzed(2500)
@given(st.data())
def test_requests_of_anything(data):
    unordered = st.lists(mostly(events()), max_size=4)
    listed = data.draw(mostly(histories, unordered))
    arguments = {
        "history": listed,
        "query": data.draw(mostly(st.one_of(st.none(), queries))),
        "user_id": data.draw(mostly(st.sampled_from([None, "u"]), texts)),
        "timestamp": data.draw(mostly(st.one_of(st.none(), st.just(2_000_000_000), times))),
    }
    instead = data.draw(mostly(st.just(listed)))
    with TALLY.case("requests"):
        if instead is not listed:
            Request(**{**arguments, "history": instead})
            return
        request = Request(**arguments)
        whole = np.array([*listed, None], object)[:-1]
        for other in (tuple(listed), iter(listed), (event for event in listed), whole):
            assert Request(**{**arguments, "history": other}) == request
        assert list(request.history) == listed
        stamps = [event.timestamp for event in listed]
        assert stamps == sorted(stamps)


FAMILIES = ["gensar", "gensr", "gensr_asking", "gensr_finding", "intsr", "synergen"]


@pytest.fixture(scope="module")
def families():
    made = {
        "gensar": make_gensar(make_aisles()),
        "gensr": make_gensr(make_aisles(), query_as_event=True),
        "gensr_asking": make_gensr(make_aisles(), retrieve_by="answer", shared_prompt=True, wording="short"),
        "gensr_finding": make_gensr(make_aisles(), **FINDING),
        "intsr": make_intsr(),
        "synergen": make_synergen(),
    }
    return {name: made[name][:2] for name in made}


def check_answer(answer, allowed, most):
    ids = [scored.item_id for scored in answer]
    assert len(ids) == len(set(ids)) <= most and set(ids) <= set(allowed)
    scores = [scored.score for scored in answer]
    assert all(map(math.isfinite, scores)) and scores == sorted(scores, reverse=True)
    return ids


@pytest.mark.parametrize("family", FAMILIES)
def test_answers(families, family):
    model, processor = families[family]

    @fuzzed(250)
    @given(st.data())
    def ask(data):
        history, query = data.draw(histories), data.draw(st.one_of(st.none(), queries))
        top_k = data.draw(st.integers(1, 30))
        with TALLY.case(f"answers of {family}"):
            request = Request(history, query)
            kept = data.draw(st.lists(st.sampled_from(ITEMS), min_size=1, unique=True))
            where = np.isin(model.catalog.id_map.ids, kept)
            (alone,) = model.retrieve(processor([request]), top_k=top_k)
            check_answer(alone, ITEMS, top_k)
            (read_once,) = model.retrieve(processor([Request(iter(history), query)]), top_k=np.int64(top_k))
            assert [one.item_id for one in read_once] == [one.item_id for one in alone]
            (filtered,) = model.retrieve(processor([request]), top_k=top_k, where=where)
            check_answer(filtered, kept, top_k)
            (ranked,) = model.rank(processor([request], candidates=[kept]))
            assert sorted(check_answer(ranked, kept, len(kept))) == sorted(kept)
            # Beside another request the answer is the same, up to the rounding of near ties.
            beside = model.rank(processor([Request(), request], candidates=[kept, kept]))[1]
            together = {one.item_id: one.score for one in beside}
            assert all(abs(together[one.item_id] - one.score) < 1e-3 for one in ranked)

    ask()


def key_of(value):
    """Items by name; of what is none, each is one of its own: a huge integer cannot even be printed."""
    return value if isinstance(value, str) else id(value)


@pytest.mark.parametrize("family", FAMILIES)
def test_arguments_of_anything(families, family):
    model, processor = families[family]

    @fuzzed(300)
    @given(st.data())
    def ask(data):
        request = data.draw(mostly(st.builds(Request, histories)))
        top_k, where = data.draw(mostly(st.integers(1, 5))), data.draw(mostly(st.none()))
        some = st.lists(mostly(st.sampled_from(ITEMS)), min_size=1, max_size=3, unique_by=key_of)
        candidates = data.draw(mostly(some.map(lambda items: [items])))
        ranks, as_list = data.draw(st.booleans()), data.draw(mostly(st.just(True), st.just(False)))
        with TALLY.case(f"arguments of {family}"):
            if ranks:
                inputs = processor([request] if as_list else request, candidates=candidates)
                (answer,) = model.rank(inputs)
                assert sorted(one.item_id for one in answer) == sorted(candidates[0])
            else:
                for answer in model.retrieve(processor([request]), top_k=top_k, where=where):
                    check_answer(answer, ITEMS, top_k)

    ask()
