# SPDX-License-Identifier: Apache-2.0
"""The log that the settings of a recipe name."""

import pytest
from own_logs import write_own_log

from seekrec.errors import ConfigurationError, DataError
from seekrec.recipes.arguments import DataArguments
from seekrec.recipes.logs import name_dataset, name_log, read_log


def write_tables(folder):
    (folder / "events.csv").write_text("customer;item_id;timestamp\nu1;a;1\nu1;b;2\n")
    (folder / "items.csv").write_text("item_id;title\na;red chair\nb;blue chair\n")
    return {"events": str(folder / "events.csv"), "items": str(folder / "items.csv")}


def test_an_own_log_needs_no_other_name_than_its_tables(tmp_path):
    settings = {"column_map": ["user_id=customer"], "delimiter": ";", "max_refused": 0.0, "has_time": False}
    data = DataArguments(**write_tables(tmp_path), **settings, encoding="utf-8", quote="none")
    assert (name_dataset(data), name_log(data)) == ("tables", "events")
    assert read_log(data).events["user_id"].to_pylist() == ["u1", "u1"]


def test_an_own_log_may_stand_in_a_database(tmp_path):
    pytest.importorskip("duckdb")
    write_tables(tmp_path)
    queries = {"events": "SELECT * FROM 'events.csv'", "items": "SELECT * FROM 'items.csv'"}
    options = {"column_map": ["user_id=customer"], "has_time": False}
    data = DataArguments(dataset="sql", data_dir=str(tmp_path), **queries, **options)
    assert (name_dataset(data), name_log(data)) == ("sql", tmp_path.name)
    assert read_log(data).events["user_id"].to_pylist() == ["u1", "u1"]
    assert name_log(DataArguments(dataset="sql", data_dir="postgresql://db/shop?sslmode=require")) == "shop"
    assert name_log(DataArguments(dataset="hub", data_dir="me/my-log@v1.2")) == "my-log"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "No log is named: pass --events"),
        ({"events": "a.csv", "items": "b.csv", "column_map": ["user_id"]}, "`column_map` has 'user_id'; write ours="),
        (
            {"events": "a.csv", "column_map": ["user_id=a", "user_id=b"]},
            "`column_map` names 'a' and 'b' for 'user_id'",
        ),
        ({"events": "a.csv", "items": "b.csv", "data_dir": "x"}, "`data_dir` is given together with your own tables"),
        ({"dataset": "movielens", "delimiter": ";"}, "`delimiter` is given together with `dataset: movielens`"),
        ({"dataset": "sequences"}, "`dataset: sequences` needs `data_dir`"),
        ({"dataset": "sql", "data_dir": "x.duckdb"}, "`dataset: sql` needs a database and a query"),
        (
            {"dataset": "sql", "data_dir": "postgresql://me:pw@db/shop", "events": "SELECT 1"},
            "`data_dir` contains a password, and settings are saved with every run",
        ),
        ({"dataset": "sql", "data_dir": ".", "events": "SELECT 1", "quote": "none"}, "`quote` is given together with"),
        ({"dataset": "hub"}, "`dataset: hub` needs a repository"),
        (
            {"dataset": "hub", "data_dir": "me/log", "events": "e.csv"},
            "`events` is given together with `dataset: hub`",
        ),
        ({"dataset": "sequences", "data_dir": "x", "construction": "tags"}, "needs a log with user-typed tags"),
    ],
)
def test_what_names_no_log_is_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        read_log(DataArguments(**settings))


def test_the_limit_of_refused_rows_holds_for_published_logs(tmp_path):
    (tmp_path / "toy.inter").write_text("user_id:token\titem_id:token\nu\t1\nu\t2\nu\n")
    (tmp_path / "toy.item").write_text("item_id:token\tname:token\n1\tOne\n2\tTwo\n")
    published = {"dataset": "recbole", "data_dir": str(tmp_path)}
    with pytest.raises(DataError, match="1 of 3 rows cannot be used.*`max_refused` allows 1.00%"):
        read_log(DataArguments(**published))
    assert read_log(DataArguments(**published, max_refused=0.4)).num_events == 2


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_large_log_is_read_in_partitions_and_is_the_same_log(engine, tmp_path, monkeypatch):
    if engine == "ray":
        pytest.importorskip("ray")
    options = write_own_log(tmp_path / "shop", "all of it")
    settings = {"events": options[1], "items": options[3]}
    whole = read_log(DataArguments(**settings))
    if engine == "local":
        monkeypatch.setattr("seekrec.recipes.logs.memory_size", lambda: 1000)
    log = read_log(DataArguments(**settings, engine=engine), tmp_path / "run")
    assert log.fingerprint == whole.fingerprint and log.name == whole.name
    assert list((tmp_path / "run").iterdir()) == []


def test_an_engine_reads_own_tables_alone(tmp_path):
    with pytest.raises(
        ConfigurationError, match="`engine` is ray together with `dataset: movielens`, but it reads your own tab"
    ):
        read_log(DataArguments(dataset="movielens", engine="ray"))
    options = write_own_log(tmp_path / "shop", "all of it")
    with pytest.raises(ConfigurationError, match="`engine: ray` needs a table of items; pass --items"):
        read_log(DataArguments(events=options[1], engine="ray"))
