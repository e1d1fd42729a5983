# SPDX-License-Identifier: Apache-2.0
"""Columns of outside files turned into ours."""

import datetime

import pyarrow as pa
import pytest

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.checks import Source, check_max_refused, refuse, repeats
from seekrec.events.readers.columns import clean_text, to_category_paths, to_ids, to_numbers, to_seconds, to_text

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
        DataError, match="file.csv: column 'user_id' has type double .first value 1.5.; it must hold text"
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
    seconds, findings = to_seconds(column(["2019-01-01", "NaN", None, "soon", "1546300800000"]), "timestamp", SOURCE)
    assert seconds.to_pylist() == [NEW_YEAR, None, None, None, None]
    assert [(finding.problem, finding.rows.tolist()) for finding in findings] == [
        ("have a timestamp that is not a time", [1, 3]),
        ("have a timestamp too large for seconds", [4]),
    ]
    seconds, findings = to_seconds(column([1.0, float("nan"), float("inf"), None]), "timestamp", SOURCE)
    assert seconds.to_pylist() == [1, None, None, None]
    assert findings[0].rows.tolist() == [1, 2]
    assert to_seconds(column([None, None]), "timestamp", SOURCE)[0].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("factor", "unit"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")]
)
def test_finer_units_are_refused(factor, unit):
    with pytest.raises(
        DataError, match=rf"'timestamp' holds \d+, which looks like {unit}; .* divide the column by {factor}"
    ):
        to_seconds(column([NEW_YEAR * factor, NEW_YEAR * factor + 1, None]), "timestamp", SOURCE)


def test_columns_that_are_no_times_are_refused():
    with pytest.raises(
        DataError, match="file.csv: column 'timestamp' holds 'yesterday', which is not a time; give seconds"
    ):
        to_seconds(column(["yesterday", None]), "timestamp", SOURCE)
    with pytest.raises(DataError, match="column 'timestamp' has type bool .first value True.; it must hold integers"):
        to_seconds(column([True]), "timestamp", SOURCE)


def test_category_paths():
    def paths(values, kind=None, separator=">"):
        return to_category_paths(column(values, kind), "categories", SOURCE, separator=separator).to_pylist()

    assert paths(["Toys > Cars", None, "", "Books"]) == [[["Toys", "Cars"]], None, None, [["Books"]]]
    assert paths(["Toys|Cars"], separator="|") == [[["Toys", "Cars"]]]
    assert paths([["Toys", "Cars"], None, [], ["Books"]]) == [[["Toys", "Cars"]], None, None, [["Books"]]]
    assert paths([[["Toys", "Cars"], ["Games"]], None, []]) == [[["Toys", "Cars"], ["Games"]], None, []]
    assert paths([None, None]) == [None, None]
    with pytest.raises(DataError, match="column 'categories' has type int64 .first value 1.; it must hold lists of"):
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
