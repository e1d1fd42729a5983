# SPDX-License-Identifier: Apache-2.0
"""Columns of outside files turned into ours."""

import datetime

import pyarrow as pa
import pytest

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import Source, check_max_refused, refuse, repeats
from seekrec.events.readers.amounts import read_amounts
from seekrec.events.readers.columns import clean_text, to_category_paths, to_ids, to_numbers, to_seconds, to_text
from seekrec.events.readers.times import are_positions, read_times

SOURCE = Source("file.csv")


def column(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (column(["007", "", None, " "]), ["007", None, None, None]),
        (column([7, None]), ["7", None]),
        (column([7.0, None, float("nan")]), ["7", None, None]),
        (column(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.chunked_array([pa.array(["a", "b", "a"]).dictionary_encode()]), ["a", "b", "a"]),
        (column([None, None]), [None, None]),
    ],
)
def test_ids(values, ids):
    assert to_ids(values, "user_id", SOURCE).to_pylist() == ids


def test_ids_of_the_wrong_type():
    with pytest.raises(
        DataError, match="file.csv: column 'user_id' has type double .first value 1.5.; it must contain text"
    ):
        to_ids(column([1.5]), "user_id", SOURCE)
    with pytest.raises(DataError, match="has type list<item: int64> .first value .1.."):
        to_ids(column([[1]]), "user_id", SOURCE)


def test_text():
    assert to_text(column(["x", "", None]), "title", SOURCE).to_pylist() == ["x", None, None]
    assert to_text(column([300]), "title", SOURCE).to_pylist() == ["300"]
    with pytest.raises(DataError, match="column 'title' has type bool"):
        to_text(column([True]), "title", SOURCE)


# 2019-01-01T00:00:00Z is 1546300800: 49 years of 365 days and 12 leap days (1972 to 2016) of 86400 seconds each.
NEW_YEAR = (49 * 365 + 12) * 86400


@pytest.mark.parametrize(
    "values",
    [
        column([NEW_YEAR]),
        column([NEW_YEAR + 0.9]),
        column([str(NEW_YEAR)]),
        column([f"{NEW_YEAR}.5"]),
        column(["1.5463008e9"]),
        column(["2019-01-01T00:00:00Z"]),
        column(["2019-01-01 00:00:00"]),
        column(["2019-01-01"]),
        column(["2019-01-01T02:00:00+02:00"]),
        column(["2019-01-01T00:00:00.999Z"]),
        column([datetime.date(2019, 1, 1)]),
        column([datetime.datetime(2019, 1, 1)], pa.timestamp("ns")),
        column([datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)], pa.timestamp("ms", tz="Europe/Berlin")),
    ],
)
def test_seconds(values):
    seconds, findings = to_seconds(values, "timestamp", SOURCE)
    assert seconds.to_pylist() == [NEW_YEAR]
    assert findings == []


def test_seconds_that_cannot_be_used_are_found():
    seconds, findings = to_seconds(
        column(["2019-01-01", "NaN", None, "soon", "1546300800000", "now"]), "timestamp", SOURCE
    )
    # Milliseconds among dates have one reading.
    assert seconds.to_pylist() == [NEW_YEAR, None, None, None, NEW_YEAR, None]
    assert [(finding.problem, finding.rows.tolist()) for finding in findings] == [
        ("have a timestamp that is not a time", [1, 3, 5])
    ]
    # Beside positions, or whatever 1 and 2 are, they have not.
    seconds, findings = to_seconds(column(["1", "1546300800000", "2"]), "timestamp", SOURCE)
    assert seconds.to_pylist() == [1, None, 2]
    assert [(finding.problem, finding.rows.tolist()) for finding in findings] == [
        ("have a timestamp too large for seconds", [1])
    ]
    seconds, findings = to_seconds(column([1.0, float("nan"), float("inf"), None]), "timestamp", SOURCE)
    assert seconds.to_pylist() == [1, None, None, None]
    assert findings[0].rows.tolist() == [1, 2]
    assert to_seconds(column([None, None]), "timestamp", SOURCE)[0].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("factor", "unit"), [(1, "seconds"), (10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")]
)
def test_units_are_told_apart_by_magnitude(factor, unit):
    numbers = [NEW_YEAR * factor, (NEW_YEAR + 1) * factor, None]
    for values in (numbers, [None if number is None else str(number) for number in numbers]):
        times = read_times(column(values), "timestamp", SOURCE)
        assert times.seconds.to_pylist() == [NEW_YEAR, NEW_YEAR + 1, None]
        assert (times.form, times.findings, times.are_days) == (f"{unit} since 1970", [], False)


def test_a_column_of_several_units_is_read_number_by_number_where_each_has_one_reading():
    numbers = [NEW_YEAR, NEW_YEAR * 1000, NEW_YEAR * 10**6, 7, NEW_YEAR * 1000]
    times = read_times(column(numbers), "timestamp", SOURCE)
    assert times.seconds.to_pylist() == [NEW_YEAR, NEW_YEAR, NEW_YEAR, None, NEW_YEAR]
    assert times.form == "25.0% seconds since 1970, 50.0% milliseconds since 1970, 25.0% microseconds since 1970"
    (finding,) = times.findings
    assert (finding.problem, finding.rows.tolist()) == (
        "have a timestamp that is not a time between 1990 and 2100 in any unit",
        [3],
    )
    # In every unit of 1970's these are of another century.
    with pytest.raises(DataError, match="contains 200000000000, which is not a time between 1990 and 2100"):
        read_times(column([200_000_000_000, 200_000_000_001]), "timestamp", SOURCE)


@pytest.mark.parametrize(
    ("values", "unit", "seconds"),
    [
        ([1546300800.9], "s", NEW_YEAR),
        ([NEW_YEAR // 86400], "days", NEW_YEAR),
        # A spreadsheet's day 1 is 1899-12-31; 1970-01-01 is day 25569.
        (["43466"], "spreadsheet_days", NEW_YEAR),
        ([43466.5], "spreadsheet_days", NEW_YEAR + 43200),
        (["20190101"], "date_digits", NEW_YEAR),
        ([2019], "date_digits", NEW_YEAR),
        ([201901], "date_digits", NEW_YEAR),
        (["20190101000102"], "date_digits", NEW_YEAR + 62),
        (["2019010105"], "date_digits", NEW_YEAR + 5 * 3600),
    ],
)
def test_units_that_are_said(values, unit, seconds):
    times = read_times(column(values), "timestamp", SOURCE, unit=unit)
    assert times.seconds.to_pylist() == [seconds]
    assert times.are_days == (seconds == NEW_YEAR and unit in ("days", "date_digits"))


def test_dates_in_digits_that_do_not_exist_are_found():
    # 2019 has no 29 February, and no month has a 13th number.
    times = read_times(column([20190228, 20190229, 20191301]), "timestamp", SOURCE, unit="date_digits")
    assert times.seconds.to_pylist() == [NEW_YEAR + (31 + 27) * 86400, None, None]
    assert [finding.problem for finding in times.findings] == ["have a timestamp that is not a date in digits"]


@pytest.mark.parametrize(
    "text",
    [
        "2019-01-31 12:00:00 UTC",
        "2019/01/31 12:00:00",
        "2019-01-31T13:00:00.123456789+01:00",
        "2019-01-31 12:00",
        "31.01.2019 12:00:00",
        "31/01/2019 12:00:00",
        "1/31/2019 12:00:00",
        "31/Jan/2019:13:00:00 +0100",
        "Thu, 31 Jan 2019 12:00:00 +0000",
        "Jan 31, 2019 12:00:00",
    ],
)
def test_forms_of_text(text):
    times = read_times(column([text, None]), "timestamp", SOURCE)
    assert times.seconds.to_pylist() == [NEW_YEAR + 30 * 86400 + 43200, None]


def test_day_and_month_are_never_guessed():
    with pytest.raises(
        DataError, match="'timestamp' contains '03/04/2019', in which day and month cannot be told apart"
    ):
        read_times(column(["03/04/2019"]), "timestamp", SOURCE)


def test_days_and_zones():
    days = read_times(column(["2019-01-01", "2019-01-02"]), "timestamp", SOURCE, timezone="Asia/Tokyo")
    assert (days.seconds.to_pylist(), days.are_days) == ([NEW_YEAR, NEW_YEAR + 86400], True)
    # Tokyo is nine hours ahead; what names a zone, or counts seconds, stays.
    values = ["2019-01-01 09:00:00", "2019-01-01T00:00:00Z", str(NEW_YEAR), "2019-01-01"]
    times = read_times(column(values), "timestamp", SOURCE, timezone="Asia/Tokyo")
    assert times.seconds.to_pylist() == [NEW_YEAR, NEW_YEAR, NEW_YEAR, NEW_YEAR - 9 * 3600]
    naive = column([datetime.datetime(2019, 1, 1, 9)], pa.timestamp("ns"))
    assert read_times(naive, "timestamp", SOURCE, timezone="Asia/Tokyo").seconds.to_pylist() == [NEW_YEAR]
    # All of these are noon in UTC, and say so; the zone of the others is not theirs.
    zoned = [
        "2019-01-01 13:00:00+01",
        "2019-01-01 13:00:00.5 +0100",
        "2019-01-01T17:30+05:30",
        "Tue, 01 Jan 2019 13:00:00 +0100",
        "01/Jan/2019:04:00:00 -0800",
        "Tue Jan 01 12:00:00 +0000 2019",
    ]
    for values in (zoned, *([one] for one in zoned)):
        times = read_times(column(values), "timestamp", SOURCE, timezone="Asia/Tokyo")
        assert times.seconds.to_pylist() == [NEW_YEAR + 12 * 3600] * len(values)
        assert times.form == "dates and times with a zone"
    # 2019-10-27 02:30 came twice in Berlin, first at 00:30 UTC; 2019-03-31 02:30 never: an hour on it was 01:00 UTC.
    values = ["2019-10-27 02:30:00", "2019-03-31 02:30:00"]
    times = read_times(column(values), "timestamp", SOURCE, timezone="Europe/Berlin")
    assert times.seconds.to_pylist() == [
        int(datetime.datetime(2019, 10, 27, 0, 30, tzinfo=datetime.UTC).timestamp()),
        int(datetime.datetime(2019, 3, 31, 1, 0, tzinfo=datetime.UTC).timestamp()),
    ]
    with pytest.raises(ConfigurationError, match="`timezone` is 'Mars/Base', which is not a time zone"):
        read_times(column([1]), "timestamp", SOURCE, timezone="Mars/Base")


def test_positions_are_recognised_only_where_nothing_else_is_left():
    users = column([f"u{row % 4}" for row in range(20)])
    of_users = [row // 4 for row in range(20)]
    assert are_positions(users, column(of_users))
    assert are_positions(users, column([str(place + 1) for place in of_users]))
    assert are_positions(users, column(list(range(20))[::-1]))
    assert not are_positions(users, column([*of_users[:-1], 9]))
    assert not are_positions(users, column([*of_users[:-1], None]))
    assert not are_positions(column(["u"]), column([0]))


def test_columns_that_are_no_times_are_refused():
    with pytest.raises(
        DataError, match="file.csv: column 'timestamp' contains 'yesterday', which is not a time; give seconds"
    ):
        to_seconds(column(["yesterday", None]), "timestamp", SOURCE)
    with pytest.raises(
        DataError, match="column 'timestamp' has type bool .first value True.; it must contain integers"
    ):
        to_seconds(column([True]), "timestamp", SOURCE)


def test_category_paths():
    def paths(values, kind=None, separator=">"):
        return to_category_paths(column(values, kind), "categories", SOURCE, separator=separator).to_pylist()

    assert paths(["Toys > Cars", None, "", "Books"]) == [[["Toys", "Cars"]], None, None, [["Books"]]]
    assert paths(["Toys|Cars"], separator="|") == [[["Toys", "Cars"]]]
    assert paths([["Toys", "Cars"], None, [], ["Books"]]) == [[["Toys", "Cars"]], None, None, [["Books"]]]
    assert paths([[["Toys", "Cars"], ["Games"]], None, []]) == [[["Toys", "Cars"], ["Games"]], None, []]
    assert paths([None, None]) == [None, None]
    with pytest.raises(
        DataError, match="column 'categories' has type int64 .first value 1.; it must contain lists of"
    ):
        paths([1])


def test_clean_text():
    dirty = [
        "<b>Salt &amp; pepper</b><br/>mill",
        "  a \t\n b  ",
        "5 < 6 and 7 > 6",
        "<!-- x -->",
        ".",
        "",
        None,
        "&#39;x&#39;",
    ]
    assert clean_text(pa.array(dirty)).to_pylist() == [
        "Salt & pepper mill",
        "a b",
        "5 < 6 and 7 > 6",
        None,
        None,
        None,
        None,
        "'x'",
    ]


def test_numbers():
    assert to_numbers(pa.array(["1", " 2.5", "-3", "1e3"])).tolist() == [1.0, 2.5, -3.0, 1000.0]
    assert all(number != number for number in to_numbers(pa.array(["x", "", None, "1,5", "nan", "inf"])).tolist())


def test_repeats_keeps_the_first_and_nulls_are_equal():
    table = pa.table({"a": ["x", "x", None, None, "x"], "b": [1, 2, 3, 3, 1]})
    assert repeats(table).tolist() == [False, False, False, True, True]


def test_repeats_of_columns_with_more_combinations_than_int64():
    # Five columns of 10,000 different values each: 10**20 combinations, and only the last two rows are equal.
    numbers = [*range(9_999), 9_999, 9_999]
    table = pa.table({name: numbers for name in "abcde"})
    assert repeats(table).tolist() == [False] * 10_000 + [True]


def test_the_cap_is_a_share():
    table = pa.table({"x": [1, 2]})
    with pytest.raises(ConfigurationError, match="`max_refused` is 5; give a share of the rows from 0 to 1"):
        check_max_refused(5)
    with pytest.raises(DataError, match="f.csv: 3 of 5 rows cannot be used: 3 cannot be read .first: line 4, where"):
        refuse(table, [], Source("f.csv", num_unreadable=3, unreadable="line 4, where"), max_refused=0.5)
    assert refuse(table, [], Source("f.csv", num_unreadable=3, unreadable="line 4"), max_refused=0.6)[0] is not None


@pytest.mark.parametrize(
    ("texts", "amounts"),
    [
        (["$12.99", "$1,299.00", None, " "], [12.99, 1299.0, None, None]),
        (["12,99 \u20ac", "1.299,00 \u20ac"], [12.99, 1299.0]),
        (["1\u202f299,00\xa0\u20ac"], [1299.0]),
        (["CHF 1'299.50", "CHF 7"], [1299.5, 7.0]),
        (["US$5", "US$7.5"], [5.0, 7.5]),
        (["100 kr", "250 kr"], [100.0, 250.0]),
        (["1,299.00", "7.5", "12"], [1299.0, 7.5, 12.0]),
        (["1.299,00", "7,5"], [1299.0, 7.5]),
    ],
)
def test_amounts_of_one_currency_are_numbers(texts, amounts):
    found, notes = read_amounts(column(texts), "price", "items.csv")
    assert found.type == pa.float64() and found.to_pylist() == amounts
    assert len(notes) == 1 and notes[0].endswith("they were read as numbers.")


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (["1.299 \u20ac", "2.500 \u20ac"], "two readings"),
        (["$1,29,9"], "no single reading"),
        (["$5", "\u20ac6"], "several currencies, or of none"),
        (["$5", "$6", "6"], "several currencies, or of none"),
        (["$5", "$6", "ask us"], "but 1 texts are none"),
        (["5", "6"], None),
        (["1.5", "2.10"], None),
        (["1,234", "12,345"], None),
        (["1,299.00", "7,5"], "no single reading"),
        (["1,299.00", "about 7"], "but 1 texts are none"),
        (["1 kg"], None),
        (["blue", "$5", "red"], None),
        ([" ", None], None),
    ],
)
def test_other_amounts_stay_text(texts, note):
    found, notes = read_amounts(column(texts), "price", "items.csv")
    assert found.to_pylist() == texts
    assert len(notes) == (note is not None) and all(note in one and "stays text" in one for one in notes)


def test_only_text_is_read_as_amounts():
    for values in (column([1.5, None]), column([["$5"]]), column([None])):
        assert read_amounts(values, "price", "items.csv") == (values, [])
