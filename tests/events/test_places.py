# SPDX-License-Identifier: Apache-2.0
"""Events that say where the user was: an optional column, checked where it is there."""

from __future__ import annotations

import pyarrow as pa
import pytest
from small_shop import log_of

from seekrec.errors import DataError, RequestError
from seekrec.events import EventLog, Split, read_tables, split_log
from seekrec.schema import Event, Request

ITEMS = "item_id,title\na,Apple\nb,Bread\nc,Cheese\nd,Dill\n"


def with_places(log, places):
    events = log.events.append_column("geohash", pa.array(places, pa.large_string()))
    return EventLog(log.name, events, log.items, query_source=log.query_source)


def test_a_log_has_places_only_where_it_was_given_them():
    log = log_of([("u", 1, "a"), ("u", 2, "b")])
    assert "geohash" not in log.events.column_names
    placed = with_places(log, ["u33db", None])
    assert placed.events["geohash"].to_pylist() == ["u33db", None]
    assert placed.events.schema.field("geohash").type == pa.string()
    assert placed.fingerprint != log.fingerprint


@pytest.mark.parametrize(
    "bad", ["u33a", "U33D", "", "0123456789bcd", "u3 3"]
)  # "a" is none; 13 characters are too many
def test_what_is_no_geohash_is_refused(bad):
    log = log_of([("u", 1, "a"), ("u", 2, "b")])
    message = (
        f"`events`: 1 of 2 rows cannot be used: 1 have an invalid geohash .first: row 1 .from 0., geohash '{bad}'"
    )
    with pytest.raises(DataError, match=message):
        with_places(log, ["u33d", bad])
    for make in (lambda: Event("a", geohash=bad), lambda: Request(geohash=bad)):
        with pytest.raises(RequestError, match=f"`geohash` is '{bad}'; a geohash has 1 to 12 characters"):
            make()


def test_a_reader_maps_the_column_and_names_the_bad_line(tmp_path):
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    items.write_text(ITEMS)
    # A geohash of digits alone is no number: its zeros stay.
    events.write_text("user_id,item_id,timestamp,cell\nu,a,1,00123\nu,b,2,\nu,c,3,u33!\n")
    with pytest.raises(
        DataError, match=r"^events.csv: 1 of 3 rows .* have an invalid geohash \(first: line 4, geohash 'u33!'\)"
    ):
        read_tables(events, items, column_map={"geohash": "cell"})
    log = read_tables(events, items, column_map={"geohash": "cell"}, max_refused=0.5)
    assert log.events["geohash"].to_pylist() == ["00123", None]
    assert "geohash" not in read_tables(events, items).events.column_names


def test_a_split_asks_where_the_answer_was_given(tmp_path):
    log = with_places(log_of([("u", time, item) for time, item in enumerate("abcd")]), ["9q8", None, "9q9", "9r"])
    split = split_log(log)
    split.save(tmp_path)
    for one in (split, Split.load(tmp_path)):
        # The last two events are the answers of validation and test; what came before is the history.
        assert [request.geohash for request in one.requests("validation")] == ["9q9"]
        (request,) = one.requests("test")
        assert request.geohash == "9r"
        assert [event.geohash for event in request.history] == ["9q8", None, "9q9"]
    plain = split_log(log_of([("u", time, item) for time, item in enumerate("abcd")]))
    assert plain.requests("test")[0].geohash is None and "geohash" not in plain.test.to_table().column_names
