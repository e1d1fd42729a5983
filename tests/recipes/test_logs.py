# SPDX-License-Identifier: Apache-2.0
"""The log that the settings of a recipe name."""

import pytest

from seekrec.errors import ConfigurationError
from seekrec.recipes.arguments import DataArguments
from seekrec.recipes.logs import read_log


def write_tables(folder):
    (folder / "events.csv").write_text("customer;item_id;timestamp\nu1;a;1\nu1;b;2\n")
    (folder / "items.csv").write_text("item_id;title\na;red chair\nb;blue chair\n")
    return {"dataset": "tables", "events_path": str(folder / "events.csv"), "items_path": str(folder / "items.csv")}


def test_options_of_the_reader_are_columns_and_how_the_file_is_written(tmp_path):
    options = ["user_id=customer", "delimiter=;", "max_refused=0", "has_time=false", "encoding=utf-8", "quoting=none"]
    log = read_log(DataArguments(**write_tables(tmp_path), reader_options=options))
    assert log.events["user_id"].to_pylist() == ["u1", "u1"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("user_id", "`reader_options` has 'user_id'; write name=value"),
        ("quoting=maybe", "`reader_options` has quoting=maybe; use one of doubled, escaped, none"),
        ("has_time=perhaps", "`reader_options` has has_time=perhaps; use one of true, false"),
        ("max_refused=few", "`reader_options` has max_refused=few; write a number from 0 to 1"),
    ],
)
def test_a_wrong_option_is_named(option, said, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        read_log(DataArguments(**write_tables(tmp_path), reader_options=[option]))


def test_readers_without_options_say_so(tmp_path):
    with pytest.raises(ConfigurationError, match="`reader_options` has 'delimiter'; `dataset: movielens` has variant"):
        read_log(DataArguments(reader_options=["delimiter=;"]))
    with pytest.raises(ConfigurationError, match="`dataset: sequences` has none"):
        read_log(DataArguments(dataset="sequences", data_dir=str(tmp_path), reader_options=["variant=1m"]))
