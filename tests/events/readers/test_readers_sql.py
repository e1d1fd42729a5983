# SPDX-License-Identifier: Apache-2.0
"""Logs from databases: what a SELECT returns becomes a log, and messages keep secrets."""

import sqlite3
import sys

import pytest

from seekrec.errors import ConfigurationError, DataError, MissingDependencyError
from seekrec.events.readers.sql import query_tables, read_sql

duckdb = pytest.importorskip("duckdb")

EVENTS = "SELECT buyer AS user_id, sku AS item_id, moment AS timestamp, words AS query FROM acts ORDER BY moment"
ITEMS = "SELECT sku AS item_id, name AS title, sum(price) AS price FROM goods GROUP BY ALL ORDER BY sku"


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE acts (buyer BIGINT, sku VARCHAR, moment TIMESTAMP, words VARCHAR)")
        connection.execute(
            "INSERT INTO acts VALUES (7, 'a', '2024-01-01 00:00:10', '寿司 🍣'), "
            "(7, 'b', '2024-01-01 00:00:20', NULL), (8, 'a', '2024-01-02 00:00:00', 'سوشي')"
        )
        connection.execute(
            "CREATE TABLE goods AS SELECT * FROM (VALUES ('a', '刺身', 3), ('b', 'Ramen', 4)) t(sku, name, price)"
        )
    return path


def test_duckdb_file(shop):
    log = read_sql(shop, EVENTS, ITEMS)
    assert log.name == "shop"
    assert [
        (e["user_id"], e["timestamp"], e["behavior"], e["query"], e["item_id"]) for e in log.events.to_pylist()
    ] == [
        ("7", 1704067210, "search", "寿司 🍣", "a"),
        ("7", 1704067220, "recommendation", None, "b"),
        ("8", 1704153600, "search", "سوشي", "a"),
    ]
    # Sums of integers are decimals in DuckDB.
    assert [(i["item_id"], i["title"], i["price"]) for i in log.items.to_pylist()] == [
        ("a", "刺身", 3),
        ("b", "Ramen", 4),
    ]


def test_files_in_a_folder(shop, tmp_path):
    with duckdb.connect(str(shop)) as connection:
        connection.execute(f"COPY acts TO '{tmp_path}/acts-1.parquet'")
        connection.execute(f"COPY goods TO '{tmp_path}/goods.csv'")
    log = read_sql(
        tmp_path, EVENTS.replace("acts", "'acts-*.parquet'"), ITEMS.replace("goods", "read_csv('goods.csv')")
    )
    assert log.fingerprint == read_sql(shop, EVENTS, ITEMS).fingerprint


def test_only_one_select(shop):
    content = shop.read_bytes()
    for statement, kind in (
        ("DROP TABLE acts", "DROP"),
        ("SELECT 1; DELETE FROM acts", "SELECT and DELETE"),
        ("", "no"),
    ):
        with pytest.raises(ConfigurationError, match=rf"`events` is .*, which is {kind}.*; write one SELECT"):
            query_tables(shop, statement)
    assert shop.read_bytes() == content


def test_errors_show_no_secrets(shop, tmp_path):
    secret = "s3cr3t"
    statement = f"SELECT * FROM postgres_scan('host=db password={secret} user=u', 'public', 'acts') -- {'x' * 200}"
    with pytest.raises(DataError, match=r"`events` .SELECT \* FROM postgres_scan") as caught:
        query_tables(shop, statement)
    assert secret not in str(caught.value) and "x" * 80 not in str(caught.value)
    with pytest.raises(DataError, match=r"`items` 'SELECT \* FROM nowhere' cannot be run: .*nowhere does not exist"):
        query_tables(shop, EVENTS, "SELECT * FROM nowhere")
    with pytest.raises(DataError, match="returns no row"):
        query_tables(shop, "SELECT * FROM acts WHERE moment IS NULL")
    with pytest.raises(DataError, match="does not exist; give a DuckDB or SQLite file"):
        query_tables(tmp_path / "none.duckdb", EVENTS)
    (tmp_path / "text.duckdb").write_text("no database" * 500)
    with pytest.raises(DataError, match="text.duckdb cannot be opened"):
        query_tables(tmp_path / "text.duckdb", EVENTS)
    with pytest.raises(ConfigurationError, match="a URL of 'oracle'"):
        query_tables("oracle://u:s3cr3t@db", EVENTS)
    with pytest.raises(DataError) as caught:
        query_tables(f"postgresql://user:{secret}@127.0.0.1:1/shop", EVENTS)
    assert secret not in str(caught.value) and caught.value.__suppress_context__


def test_without_duckdb(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "seekrec\[duckdb\]"'):
        query_tables(shop, EVENTS)


def test_sqlite(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE acts (buyer, sku, moment, words)")
        connection.execute("INSERT INTO acts VALUES (7, 'a', 1704067210, '寿司')")
    try:
        duckdb.connect(config={"autoinstall_known_extensions": "false"}).execute("LOAD sqlite")
    except duckdb.Error:
        with pytest.raises(DataError, match="extension 'sqlite', which is not installed; install it once"):
            query_tables(path, EVENTS)
    else:
        assert query_tables(path, EVENTS)[0]["query"].to_pylist() == ["寿司"]
