# SPDX-License-Identifier: Apache-2.0
"""The tables of the store, and the migrations from older versions.

The version of the tables is saved in the store. A newer server migrates an older store when it opens it, step by step,
in one transaction; an older server refuses a newer store.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
)

from seekrec.errors import DataError
from seekrec.serving.query_counts import askers, count_queries, queries

_ROWS_AT_ONCE = 10_000

tables = MetaData()

schema = Table("seekrec_schema", tables, Column("version", Integer, nullable=False))

# One row: the version of the catalogue, and the model that answers (null: that which the server was started with).
state = Table(
    "seekrec_state",
    tables,
    Column("id", Integer, primary_key=True),
    Column("catalog_version", BigInteger, nullable=False),
    Column("model", String, nullable=True),
)

# What was put and deleted since the catalogues of models were made, as it is now; one row per item.
items = Table(
    "seekrec_items",
    tables,
    Column("item_id", String, primary_key=True),
    Column("columns", Text, nullable=False),  # JSON: the columns that were put
    Column("is_removed", Boolean, nullable=False),
    Column("added", BigInteger, nullable=False),  # the order in which items came
    Column("version", BigInteger, nullable=False),  # of the catalogue, at the last change
)
Index("seekrec_items_by_version", items.c.version)

# What a model made of a new item: its row in the catalogue, identifiers and vectors, the same for all processes.
placements = Table(
    "seekrec_placements",
    tables,
    Column("model_version", String, primary_key=True),
    Column("item_id", String, primary_key=True),
    Column("row", BigInteger, nullable=False),
    Column("parts", LargeBinary, nullable=False),  # safetensors
    UniqueConstraint("model_version", "row"),
)

# How many events each user has: the row is locked while events are appended, so their numbers have no gap.
users = Table(
    "seekrec_users",
    tables,
    Column("user_id", String, primary_key=True),
    Column("num_events", BigInteger, nullable=False),
)

events = Table(
    "seekrec_events",
    tables,
    Column("event_id", String, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("number", BigInteger, nullable=False),  # of the user's events, from 1, in the order of arrival
    Column("timestamp", BigInteger, nullable=False),
    Column("behavior", String, nullable=False),
    Column("query", Text, nullable=True),
    Column("item_id", String, nullable=True),
    Column("action", String, nullable=False),
    Column("session_id", String, nullable=True),
    Column("geohash", String, nullable=True),
    UniqueConstraint("user_id", "number"),
)


def _create(connection: Connection) -> None:
    """Make the tables of version 1."""
    tables.create_all(connection, [state, items, placements, users, events])
    connection.execute(state.insert().values(id=1, catalog_version=0, model=None))


def _count_exact_queries(_: Connection) -> None:
    """Version 2 counted queries as they were typed; version 3 counts them again."""


def _count_queries(connection: Connection) -> None:
    """Make the tables of queries, of the events that are there."""
    for table in (queries, askers):
        table.drop(connection, checkfirst=True)
        table.create(connection)
    asked = select(events.c.user_id, events.c.query).where(events.c.query != "").distinct()
    searches = connection.execute(asked, execution_options={"stream_results": True})
    for part in searches.partitions(_ROWS_AT_ONCE):
        count_queries(connection, part)


# Step `n` makes version `n + 1` of version `n`; what stands here is never changed, only added to.
STEPS: tuple[Callable[[Connection], None], ...] = (_create, _count_exact_queries, _count_queries)


def migrate(connection: Connection) -> None:
    """Bring the store to the newest version, within the transaction of the connection.

    Raises:
        DataError: If the store is of a newer version than this one knows.
    """
    if connection.dialect.name == "postgresql":
        # Several processes start at once; the number is the name of this lock.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7335737)")
    found = 0
    if inspect(connection).has_table(schema.name):
        found = connection.execute(select(schema.c.version)).scalar_one_or_none() or 0
    else:
        schema.create(connection)
    if found > len(STEPS):
        raise DataError(
            f"The store has version {found}, this seekrec knows versions up to {len(STEPS)}; use the version of "
            "seekrec that wrote it, or a newer one."
        )
    if found == len(STEPS):
        return
    for step in STEPS[found:]:
        step(connection)
    connection.execute(schema.delete())
    connection.execute(schema.insert().values(version=len(STEPS)))


__all__ = [
    "STEPS",
    "events",
    "items",
    "migrate",
    "placements",
    "schema",
    "state",
    "tables",
    "users",
]
