# SPDX-License-Identifier: Apache-2.0
"""Read tables of any database with SQL, through DuckDB (extra `duckdb`).

One SELECT gives the events, another the items; [`read_tables`] recognises their columns. The database is one of

- a DuckDB file;
- an SQLite file, or a URL such as `postgresql://host/shop` or `mysql://host/shop`, if DuckDB's extension for it is
  installed;
- a folder: the queries then name files in it, such as `FROM 'events/*.parquet'` or `FROM read_csv('items.csv')`.

Everything is opened read-only, only a SELECT is run, and no extension is downloaded. Messages show no passwords.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from seekrec.errors import ConfigurationError, DataError, MissingDependencyError
from seekrec.events.log import EventLog
from seekrec.events.readers.tables import read_tables

if TYPE_CHECKING:
    import duckdb

# Databases that DuckDB attaches, by the scheme of their URL.
_SCHEMES = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql"}
_SQLITE = b"SQLite format 3\x00"

# Rows of a batch; and characters of a statement and of a message of the database that an error shows.
_BATCH_ROWS = 1 << 17
_SHOWN, _SHOWN_MESSAGE = 80, 300

# Passwords in a URL, and after a name in a connection string or an option.
_IN_URL = re.compile(r"://[^/\s@'\"]*@")
_PASSWORD = re.compile(r"(?i)://[^/\s@:'\"]*:[^/\s@'\"]+@|\b(?:password|passwd|pwd|secret)\s*=")
_NAMED = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|secret|token|key_id|credential)\w*)(\s*(?:=|:|\s)\s*)('[^']*'|\"[^\"]*\"|[^\s,;)'\"]+)"
)


def read_sql(
    database: str | Path,
    events: str,
    items: str | None = None,
    *,
    name: str | None = None,
    has_time: bool | None = None,
    max_refused: float | None = None,
) -> EventLog:
    """Read a log from a database.

    ```python
    log = read_sql("shop.duckdb", "SELECT customer, sku, time, search_text FROM clicks", "SELECT sku, name FROM goods")
    ```

    Args:
        database (`str` or `Path`): Database, or folder of files; see above.
        events (`str`): A SELECT with a row per event. Columns may be renamed: `SELECT buyer AS user_id`.
        items (`str`, *optional*): A SELECT with a row per item. Made from the events if not given.
        name (`str`, *optional*): Name of the log; that of the database if not given.
        has_time (`bool`, *optional*): As in [`read_tables`].
        max_refused (`float`, *optional*): As in [`read_tables`].

    Returns:
        `EventLog`: What [`read_tables`] makes of the two tables.

    Raises:
        MissingDependencyError: If DuckDB is not installed.
        ConfigurationError: If a statement is not one SELECT.
        DataError: If the database cannot be opened or queried, or the rows cannot be used.
    """
    tables = query_tables(database, events, items)
    if name is None:
        name = "database" if "://" in str(database) else Path(database).resolve().stem
    return read_tables(tables[0], tables[1], name=name, has_time=has_time, max_refused=max_refused)


def query_tables(database: str | Path, events: str, items: str | None = None) -> tuple[pa.Table, pa.Table | None]:
    """Return the results of two queries, read in batches, as tables that [`read_tables`] takes.

    Args:
        database (`str` or `Path`): See [`read_sql`].
        events (`str`): See [`read_sql`].
        items (`str`, *optional*): See [`read_sql`].

    Returns:
        `tuple`: Events; items, or `None`.

    Raises:
        MissingDependencyError: If DuckDB is not installed.
        ConfigurationError: If a statement is not one SELECT.
        DataError: If the database cannot be opened or queried.
    """
    connection = _connect(str(database))
    try:
        return _query(connection, events, "events"), None if items is None else _query(connection, items, "items")
    finally:
        connection.close()


def _connect(database: str) -> duckdb.DuckDBPyConnection:
    try:
        import duckdb
    except ImportError:
        raise MissingDependencyError(
            'SQL is read through DuckDB, which is not installed; run `pip install "seekrec[duckdb]"`.'
        ) from None

    scheme = _SCHEMES.get(database.partition("://")[0]) if "://" in database else None
    path = Path(database)
    if "://" in database and scheme is None:
        raise ConfigurationError(
            f"`database` is a URL of {database.partition('://')[0]!r}; use one of {', '.join(_SCHEMES)}, or the path "
            "of a DuckDB or SQLite file, or of a folder."
        )
    if scheme is None and not path.exists():
        raise DataError(f"`database` {database} does not exist; give a DuckDB or SQLite file, a folder or a URL.")
    options: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": False}
    try:
        if scheme is None and path.is_file():
            with path.open("rb") as file:
                scheme = "sqlite" if file.read(len(_SQLITE)) == _SQLITE else None
            if scheme is None:
                return duckdb.connect(database, read_only=True, config=options)
        connection = duckdb.connect(config=options)
        if scheme is None:
            connection.execute(f"SET file_search_path = {_quoted(str(path.resolve()))}")
        else:
            _attach(connection, database, scheme)
        return connection
    except (duckdb.Error, OSError) as error:
        shown = f"a {scheme} database" if "://" in database else database
        raise DataError(f"{shown} cannot be opened: {_message(error, database)}") from None


def _attach(connection: duckdb.DuckDBPyConnection, database: str, scheme: str) -> None:
    import duckdb

    try:
        connection.execute(f"LOAD {scheme}")
    except duckdb.Error:
        raise DataError(
            f"A {scheme} database is read with DuckDB's extension {scheme!r}, which is not installed; install it "
            f"once: python -c \"import duckdb; duckdb.execute('INSTALL {scheme}')\"."
        ) from None
    connection.execute(f"ATTACH {_quoted(database)} AS source (TYPE {scheme}, READ_ONLY)")
    connection.execute("USE source")


def _query(connection: duckdb.DuckDBPyConnection, statement: str, argument: str) -> pa.Table:
    import duckdb

    shown = _shown(statement)
    try:
        kinds = [one.type.name for one in connection.extract_statements(statement)]
        if kinds != ["SELECT"]:
            raise ConfigurationError(
                f"`{argument}` is {shown!r}, which is {' and '.join(kinds) or 'no statement'}; write one SELECT."
            )
        relation = connection.sql(statement)
        # The older name was given up.
        read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
        reader = read(_BATCH_ROWS)
        table = pa.Table.from_batches(reader, reader.schema)
    except duckdb.Error as error:
        raise DataError(f"`{argument}` {shown!r} cannot be run: {_message(error)}") from None
    if not table.num_rows:
        raise DataError(f"`{argument}` {shown!r} returns no row; a log needs at least one.")
    return _with_plain_numbers(table)


def _with_plain_numbers(table: pa.Table) -> pa.Table:
    """Turn decimals, which sums and wide integers are, into integers or floats."""
    for place, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            kind = pa.float64() if field.type.scale else pa.int64()
            try:
                column = table[field.name].cast(kind)
            except pa.ArrowInvalid:
                column = table[field.name].cast(pa.string())
            table = table.set_column(place, field.name, column)
    return table


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _shown(statement: str) -> str:
    """Return the start of a statement on one line, without passwords."""
    line = " ".join(_without_secrets(statement).split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


def _message(error: Exception, database: str = "") -> str:
    """Return what a database says, without passwords and without the statement, which it repeats."""
    text = str(error).split("\nLINE ")[0].split("\n\n")[0]
    if "://" in database:
        text = text.replace(database, "...")
    line = " ".join(_without_secrets(text).split())
    return line if len(line) <= _SHOWN_MESSAGE else f"{line[: _SHOWN_MESSAGE - 3]}..."


def holds_password(text: str) -> bool:
    """Return whether a statement, path or URL contains a password: nothing that is recorded may."""
    return _PASSWORD.search(text) is not None


def _without_secrets(text: str) -> str:
    return _NAMED.sub(r"\1\2...", _IN_URL.sub("://...@", text))


__all__ = ["holds_password", "query_tables", "read_sql"]
