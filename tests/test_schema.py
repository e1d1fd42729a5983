# SPDX-License-Identifier: Apache-2.0
"""What `Event` and `Request` take, and what they name."""

import datetime

import numpy as np
import pytest

from seekrec import Event, Request
from seekrec.errors import RequestError
from seekrec.schema import MAX_SECONDS, name_time_unit

EVENTS = (Event("a", timestamp=1), Event("b", timestamp=2))


@pytest.mark.parametrize(
    "history",
    [list(EVENTS), EVENTS, iter(EVENTS), (event for event in EVENTS), np.array(EVENTS, dtype=object)],
)
def test_a_history_is_read_once_into_a_tuple(history):
    request = Request(history)
    assert request.history == EVENTS
    assert request == Request(list(EVENTS))


def test_integers_of_numpy_become_plain_ones():
    event = Event("a", timestamp=np.int32(5))
    assert (event.timestamp, type(event.timestamp)) == (5, int)
    request = Request([event], timestamp=np.uint64(6))
    assert (request.timestamp, type(request.timestamp)) == (6, int)


@pytest.mark.parametrize(
    ("timestamp", "message"),
    [
        (None, "`timestamp` is None of type NoneType; pass whole seconds"),
        ("2020-01-01", "`timestamp` is '2020-01-01' of type str; pass whole seconds"),
        (np.datetime64("2020-01-01"), "of type datetime64; pass whole seconds"),
        (datetime.datetime(2020, 1, 1), "of type datetime; pass whole seconds"),
        (1.5, "`timestamp` is 1.5 of type float; pass whole seconds"),
        (float("nan"), "`timestamp` is nan of type float"),
        (True, "`timestamp` is True of type bool"),
        (-1, "`timestamp` is negative"),
        (1_700_000_000_000, "looks like milliseconds; .* divide it by 1000"),
        (1_700_000_000_000_000, "looks like microseconds; .* divide it by 1000000"),
    ],
)
def test_what_is_no_second_is_named(timestamp, message):
    with pytest.raises(RequestError, match=message):
        Event("a", timestamp=timestamp)
    if timestamp is not None:
        with pytest.raises(RequestError, match=message):
            Request(timestamp=timestamp)


def test_the_largest_second():
    for write in (lambda: Event("a", timestamp=10**5000), lambda: Request(timestamp=10**5000)):
        with pytest.raises(RequestError, match="larger than 10..30, which looks like nanoseconds"):
            write()
    with pytest.raises(RequestError, match="contains a value that cannot be shown of type int"):
        Request([10**5000])
    assert Event("a", timestamp=MAX_SECONDS).timestamp == MAX_SECONDS
    # The year 5138 in milliseconds is the largest number of milliseconds: one more counts microseconds.
    assert name_time_unit(MAX_SECONDS * 10**3) == ("milliseconds", 10**3)
    assert name_time_unit(MAX_SECONDS * 10**3 + 1) == ("microseconds", 10**6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Event(5), "`item_id` is 5 of type int; pass an item's id"),
        (lambda: Event(" "), "`item_id` is ' ', which has no visible character"),
        (lambda: Event("\ud800"), r"`item_id` contains '\\ud800' at position 0: half of a surrogate pair"),
        (lambda: Event("a", action=None), "`action` of an event is None"),
        (lambda: Event("a", action=1), "`action` is 1 of type int"),
        (lambda: Event("a", session_id=7), "`session_id` is 7 of type int; pass text, or None"),
        (lambda: Event("a", behavior=["search"]), "`behavior` of an event is .'search'."),
        (lambda: Event("a", behavior="search", query="caf\ud800"), "`query` contains .* at position 3"),
        (lambda: Event("a", behavior="search", query=5), "`query` is 5 of type int"),
        (lambda: Event("a", geohash=5), "`geohash` is 5"),
        (lambda: Request(query="caf\ud800"), "`query` contains .* at position 3"),
        (lambda: Request(user_id=3), "`user_id` is 3 of type int"),
        (lambda: Request([None]), "`history` contains None of type NoneType at position 0 .from 0.; pass an Event"),
        (lambda: Request([{"item_id": "a"}]), "`history` contains .* of type dict at position 0"),
        (lambda: Request(None), "`history` is None of type NoneType; pass a list of events"),
        (lambda: Request(""), "`history` is '' of type str"),
        (lambda: Request(EVENTS[0]), "`history` is Event.* of type Event; pass a list of events"),
        (lambda: Request({}), "`history` is .* of type dict"),
        (lambda: Request(frozenset()), "`history` is frozenset.. of type frozenset"),
    ],
)
def test_wrong_fields_are_named(make, message):
    with pytest.raises(RequestError, match=message):
        make()


def test_long_histories_are_fine():
    events = [Event(str(number), timestamp=number) for number in range(20_000)]
    assert len(Request(events, timestamp=20_000).history) == 20_000
