# SPDX-License-Identifier: Apache-2.0
"""The persistent store of a server: events of users, changes of the catalogue, and the current model.

SQLite by default, PostgreSQL by URL. Several processes share one store. An acknowledged change has been committed;
what readers get (`events_after`, `changes_after`) has no gaps, even if a transaction commits late.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, Engine, RowMapping, create_engine, event, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from seekrec.errors import ConfigurationError, DataError, MissingDependencyError, RequestError
from seekrec.schema import BEHAVIORS, Event
from seekrec.serving import schema_versions as tables
from seekrec.serving.query_counts import count_queries, most_asked

# Threads that read at once, and that write to a database with many writers: each has a connection of its own.
NUM_READERS = 8
_NUM_WRITERS = 8
_POOL = {"pool_size": NUM_READERS + _NUM_WRITERS, "max_overflow": 8}
# How long a writer waits for another one, in seconds.
_LOCK_S = 30.0
_USABLE = "use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME."
# Execution option of a transaction that writes.
_WRITES = "seekrec_writes"
# Values of one `IN (...)`, below the limit of every SQLite.
_MAX_IN = 500
# One object for all events of a kind.
_BEHAVIORS = {name: name for name in BEHAVIORS}


class ConflictError(RequestError):
    """What is asked contradicts what the store or the catalogue holds."""


@dataclass(frozen=True)
class StoredEvent:
    """An event as it is kept.

    Args:
        event_id (`str`): Its id.
        user_id (`str`): Whose it is.
        event ([`Event`]): What was done.
    """

    event_id: str
    user_id: str
    event: Event


@dataclass(frozen=True)
class ItemChange:
    """An item as it was last put or deleted.

    Args:
        item_id (`str`): Its id.
        columns (`dict`): The columns that were put.
        is_removed (`bool`): Whether it is out of answers.
    """

    item_id: str
    columns: Mapping[str, object]
    is_removed: bool


@dataclass(frozen=True)
class State:
    """What all processes agree on.

    Args:
        catalog_version (`int`): Number of changes of the catalogue.
        model (`str`, *optional*): Name of the model that answers; `None` for that of the start.
    """

    catalog_version: int
    model: str | None


class Store:
    """A database with the tables of [`schema_versions`].

    Args:
        url (`str`): A URL of SQLAlchemy: `sqlite:///file` or `postgresql+psycopg://...`.

    Raises:
        ConfigurationError: If the URL cannot be read, or names another database.
        MissingDependencyError: If the driver is not installed.
        DataError: If the store was written by a newer version.
    """

    def __init__(self, url: str) -> None:
        self._engine = _open(url)
        try:
            with self._write() as connection:
                tables.migrate(connection)
        except OperationalError as error:
            raise DataError(
                f"The store cannot be opened: {error.orig}. Check its URL, and that it may be written to."
            ) from error
        except DataError:
            self.close()
            raise

    @property
    def num_writers(self) -> int:
        """Threads of a process that may write at once; SQLite has one writer, for whom others wait unfairly."""
        return 1 if self._engine.dialect.name == "sqlite" else _NUM_WRITERS

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # ---- events ----

    def append_events(self, added: Sequence[StoredEvent]) -> int:
        """Append events, each once however often it is sent.

        Args:
            added (`Sequence[StoredEvent]`): Events in the order in which they came.

        Returns:
            `int`: How many are new.

        Raises:
            ConflictError: If an id is that of another event; nothing is appended then.
        """
        given: dict[str, StoredEvent] = {}
        for one in added:
            if given.setdefault(one.event_id, one) != one:
                raise ConflictError(
                    f"`events` use the id {one.event_id!r} for two different events; give each its own."
                )
        with self._write() as connection:
            of_users: dict[str, list[StoredEvent]] = defaultdict(list)
            for one in given.values():
                of_users[one.user_id].append(one)
            # In one order, so that no two writers wait for each other.
            for user_id in sorted(of_users):
                self._lock_user(connection, user_id)
            there = {one.event_id: one for one in self._events_of_ids(connection, list(given))}
            for event_id, kept in there.items():
                if kept != given[event_id]:
                    raise ConflictError(
                        f"`events` contain {event_id!r}, which is already the id of another event; give each its own."
                    )
            for user_id in sorted(of_users):
                new = [one for one in of_users[user_id] if one.event_id not in there]
                if not new:
                    continue
                own = tables.users.c.user_id == user_id
                counted = update(tables.users).where(own).values(num_events=tables.users.c.num_events + len(new))
                last = connection.execute(counted.returning(tables.users.c.num_events)).scalar_one()
                rows = [_event_row(one, last - len(new) + number) for number, one in enumerate(new, start=1)]
                connection.execute(insert(tables.events), rows)
            searches = [one for one in given.values() if one.event.query and one.event_id not in there]
            count_queries(connection, [(one.user_id, one.event.query or "") for one in searches])
        return len(given) - len(there)

    def _lock_user(self, connection: Connection, user_id: str) -> None:
        """Make the row of a user, and keep other writers from it until the transaction ends."""
        make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        made = make(tables.users).values(user_id=user_id, num_events=0)
        # An update that changes nothing locks the row.
        connection.execute(
            made.on_conflict_do_update(index_elements=["user_id"], set_={"num_events": tables.users.c.num_events})
        )

    def _events_of_ids(self, connection: Connection, ids: Sequence[str]) -> Iterator[StoredEvent]:
        for start in range(0, len(ids), _MAX_IN):
            chosen = tables.events.c.event_id.in_(ids[start : start + _MAX_IN])
            for row in connection.execute(select(tables.events).where(chosen)).mappings():
                yield _stored_event(row)

    def events_after(self, user_id: str, number: int, limit: int) -> list[tuple[int, Event]]:
        """Return a user's latest events that came after the first `number`, in the order in which they came.

        Args:
            user_id (`str`): Whose.
            number (`int`): Events that are known already.
            limit (`int`): At most so many, the latest.

        Returns:
            `list[tuple[int, Event]]`: Numbers from 1 up, and the events.
        """
        own = (tables.events.c.user_id == user_id) & (tables.events.c.number > number)
        asked = select(tables.events).where(own).order_by(tables.events.c.number.desc()).limit(limit)
        with self._engine.connect() as connection:
            rows = connection.execute(asked).mappings().all()
        return [(row["number"], _stored_event(row).event) for row in reversed(rows)]

    def common_queries(self, prefix: str, limit: int) -> list[str]:
        """Return the queries that most users asked; see [`most_asked`]."""
        with self._engine.connect() as connection:
            return most_asked(connection, prefix, limit)

    # ---- catalogue and model ----

    def state(self) -> State:
        """Return what all processes agree on now."""
        with self._engine.connect() as connection:
            row = connection.execute(select(tables.state)).mappings().one()
        return State(row["catalog_version"], row["model"])

    def set_model(self, name: str) -> None:
        """Let another model answer, in all processes."""
        with self._write() as connection:
            connection.execute(update(tables.state).values(model=name))

    def changes_after(self, version: int) -> tuple[int, list[ItemChange]]:
        """Return the version of the catalogue, and the items that changed after another one, in the order they came.

        Args:
            version (`int`): What is known already; 0 for nothing.
        """
        asked = select(tables.items).where(tables.items.c.version > version).order_by(tables.items.c.added)
        with self._engine.connect() as connection:
            # The version first: what is committed meanwhile is of a later version, and comes again next time.
            now: int = connection.execute(select(tables.state.c.catalog_version)).scalar_one()
            rows = connection.execute(asked).mappings().all()
        changes = [ItemChange(row["item_id"], json.loads(row["columns"]), row["is_removed"]) for row in rows]
        return now, changes

    def placements(self, model_version: str, item_ids: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Return what a model made of new items: the row of each, and its identifiers and vectors."""
        found: dict[str, tuple[int, bytes]] = {}
        own, table = tables.placements.c.model_version == model_version, tables.placements
        with self._engine.connect() as connection:
            for start in range(0, len(item_ids), _MAX_IN):
                chosen = own & table.c.item_id.in_(item_ids[start : start + _MAX_IN])
                for row in connection.execute(select(table).where(chosen)).mappings():
                    found[row["item_id"]] = (row["row"], row["parts"])
        return found

    def commit_changes(
        self,
        version: int,
        changes: Sequence[ItemChange],
        model_version: str,
        placed: Mapping[str, tuple[int, bytes]],
    ) -> int | None:
        """Keep changes of the catalogue that were made from a version of it, if it is still that.

        Args:
            version (`int`): The version that they were made from.
            changes (`Sequence[ItemChange]`): The items that change, each with the columns that do.
            model_version (`str`): The model that placed new items.
            placed (`Mapping`): The row of each new item, and its identifiers and vectors.

        Returns:
            `int`, *optional*: The new version; `None` if another process was faster, and nothing was kept.
        """
        now = tables.state.c.catalog_version
        with self._write() as connection:
            moved = update(tables.state).where(now == version).values(catalog_version=now + 1)
            if connection.execute(moved).rowcount == 0:
                return None
            last = connection.execute(select(func.max(tables.items.c.added))).scalar_one() or 0
            make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            old = self._columns_of(connection, [one.item_id for one in changes])
            for number, one in enumerate(changes, start=1):
                columns = {**old.get(one.item_id, {}), **one.columns}
                changed = {
                    "columns": json.dumps(columns, ensure_ascii=False),
                    "is_removed": one.is_removed,
                    "version": version + 1,
                }
                row = make(tables.items).values(item_id=one.item_id, added=last + number, **changed)
                connection.execute(row.on_conflict_do_update(index_elements=["item_id"], set_=changed))
            self._insert_placements(connection, model_version, placed)
        return version + 1

    def place(self, model_version: str, placed: Mapping[str, tuple[int, bytes]]) -> bool:
        """Keep what a model made of items that came while another one answered.

        Args:
            model_version (`str`): The model.
            placed (`Mapping`): The row of each item, and its identifiers and vectors.

        Returns:
            `bool`: False if another process was faster, and nothing was kept.
        """
        try:
            with self._write() as connection:
                self._insert_placements(connection, model_version, placed)
        except IntegrityError:
            return False
        return True

    def _insert_placements(
        self, connection: Connection, model_version: str, placed: Mapping[str, tuple[int, bytes]]
    ) -> None:
        rows = [
            {"model_version": model_version, "item_id": item_id, "row": row, "parts": parts}
            for item_id, (row, parts) in placed.items()
        ]
        if rows:
            connection.execute(insert(tables.placements), rows)

    def _columns_of(self, connection: Connection, item_ids: Sequence[str]) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = {}
        for start in range(0, len(item_ids), _MAX_IN):
            chosen = tables.items.c.item_id.in_(item_ids[start : start + _MAX_IN])
            asked = select(tables.items.c.item_id, tables.items.c.columns).where(chosen)
            found |= {item_id: json.loads(columns) for item_id, columns in connection.execute(asked)}
        return found

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection


def _open(url: str) -> Engine:
    """Open a database."""
    # Errors end in logs, where no text of users may stand.
    hidden = {"hide_parameters": True}
    try:
        place = make_url(url)
        kind = place.get_backend_name()
        if kind == "postgresql":
            return create_engine(place, pool_pre_ping=True, **_POOL, **hidden)
        if kind != "sqlite" or place.database in (None, "", ":memory:"):
            # Not the URL: there may be a password in it.
            raise ConfigurationError(f"`store` is a {kind} URL without a file, or of an unsupported kind; {_USABLE}")
        engine = create_engine(place, connect_args={"timeout": _LOCK_S}, **_POOL, **hidden)
    except ArgumentError as error:
        raise ConfigurationError(f"`store` cannot be read as a URL; {_USABLE}") from error
    except (NoSuchModuleError, ImportError) as error:
        raise MissingDependencyError(
            'The store needs a driver that is not installed; run pip install "seekrec[postgres]".'
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    """Write ahead, so that readers do not wait for writers, and reach the disk before a commit returns."""
    connection.isolation_level = None  # the driver begins no transaction of its own
    for setting in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads and then writes must be the only writer from its start, or it fails where another wrote.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _event_row(one: StoredEvent, number: int) -> dict[str, object]:
    kept = asdict(one.event)
    return {"event_id": one.event_id, "user_id": one.user_id, "number": number, **kept}


def _stored_event(row: RowMapping) -> StoredEvent:
    kept = {one.name: row[one.name] for one in fields(Event)}
    kept["behavior"] = _BEHAVIORS.get(kept["behavior"], kept["behavior"])
    return StoredEvent(row["event_id"], row["user_id"], Event(**kept))


__all__ = [
    "NUM_READERS",
    "ConflictError",
    "ItemChange",
    "State",
    "Store",
    "StoredEvent",
]
