# SPDX-License-Identifier: Apache-2.0
"""How many users searched for a query: counted as events come, so that a suggestion reads no events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from seekrec.serving.schema_versions import askers, queries, query_digest, query_row

# A query is suggested to others only when so many have asked it.
MIN_USERS_OF_QUERY = 3


def count_queries(connection: Connection, asked: Iterable[tuple[str, str]]) -> None:
    """Count new searches, in the transaction that keeps them.

    Args:
        connection ([`~sqlalchemy.Connection`]): It has locked the rows of the users.
        asked (`Iterable[tuple[str, str]]`): Users and their queries.
    """
    texts: dict[bytes, str] = {}
    pairs: set[tuple[bytes, str]] = set()
    for user_id, query in asked:
        digest = query_digest(query)
        texts[digest] = query
        pairs.add((digest, user_id))
    if not pairs:
        return
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    keep = make(askers).on_conflict_do_nothing().returning(askers.c.digest)
    rows = [{"digest": digest, "user_id": user_id} for digest, user_id in pairs]
    new = Counter(connection.execute(keep, rows).scalars())
    if not new:
        return
    count = make(queries)
    more = {"num_users": queries.c.num_users + count.excluded.num_users}
    # In one order, so that no two writers wait for each other.
    counted = [query_row(texts[digest], new[digest]) for digest in sorted(new)]
    connection.execute(count.on_conflict_do_update(index_elements=["digest"], set_=more), counted)


def most_asked(connection: Connection, prefix: str, limit: int) -> list[str]:
    """Return the queries that most users asked, of those that begin with a text and that several users asked.

    Args:
        connection ([`~sqlalchemy.Connection`]): To the store.
        prefix (`str`): How they begin, in capitals or not.
        limit (`int`): At most so many.
    """
    wanted = queries.c.num_users >= MIN_USERS_OF_QUERY
    if prefix:
        wanted &= queries.c.folded.startswith(prefix.casefold(), autoescape=True)
    asked = select(queries.c.query).where(wanted).order_by(queries.c.num_users.desc(), queries.c.query).limit(limit)
    return list(connection.execute(asked).scalars())


__all__ = ["MIN_USERS_OF_QUERY", "count_queries", "most_asked"]
