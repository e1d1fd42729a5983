# SPDX-License-Identifier: Apache-2.0
"""Count how many users searched for a query, as events arrive, so that suggestions need not read events.

Queries that differ only in case and spaces count as one; it is suggested in lower case.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

# A query is suggested to others only when so many have asked it.
MIN_USERS_OF_QUERY = 3
# Enough that no two queries have one digest.
_DIGEST_BYTES = 16
# Bytes of the beginning of a query that are the key of an index.
_KEY_BYTES = 32
# Queries of one beginning that are sorted to find the commonest. Where there are more of them, they are so often among
# all that those of most users are read until enough have that beginning.
_FEW = 1_000

_tables = MetaData()

# What users searched for, and how many of them, by a digest: a long query is no key of an index.
queries = Table(
    "seekrec_queries",
    _tables,
    Column("digest", LargeBinary(_DIGEST_BYTES), primary_key=True),
    Column("query", Text, nullable=False),
    Column("folded", Text, nullable=False),  # databases fold the case of ASCII alone
    Column(
        "beginning", LargeBinary(_KEY_BYTES), nullable=False
    ),  # of `folded`; databases do not agree on orders of text
    Column("num_users", BigInteger, nullable=False),
)
# A number, no parameter: it is what databases compare with the condition of the index.
_IS_COMMON = queries.c.num_users >= literal_column(str(MIN_USERS_OF_QUERY))
Index("seekrec_queries_by_users", queries.c.num_users)
Index("seekrec_queries_by_beginning", queries.c.beginning, sqlite_where=_IS_COMMON, postgresql_where=_IS_COMMON)

# Who searched for it.
askers = Table(
    "seekrec_askers",
    _tables,
    Column("digest", LargeBinary(_DIGEST_BYTES), primary_key=True),
    Column("user_id", String, primary_key=True),
)


def fold_query(query: str) -> str:
    """Return what queries that count as one have in common; a space at the end stays, as in what is being typed."""
    folded = " ".join(query.casefold().split())
    return f"{folded} " if folded and query[-1].isspace() else folded


def count_queries(connection: Connection, asked: Iterable[tuple[str, str]]) -> None:
    """Count new searches, in the transaction that keeps them.

    Args:
        connection ([`~sqlalchemy.Connection`]): It has locked the rows of the users.
        asked (`Iterable[tuple[str, str]]`): Users and their queries.
    """
    rows: dict[bytes, dict[str, object]] = {}
    pairs: set[tuple[bytes, str]] = set()
    for user_id, query in asked:
        row = _query_row(query)
        if not row["folded"]:
            continue
        digest = hashlib.blake2b(str(row["folded"]).encode(), digest_size=_DIGEST_BYTES).digest()
        rows[digest] = row
        pairs.add((digest, user_id))
    if not pairs:
        return
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    keep = make(askers).on_conflict_do_nothing().returning(askers.c.digest)
    new = Counter(
        connection.execute(keep, [{"digest": digest, "user_id": user_id} for digest, user_id in pairs]).scalars()
    )
    if not new:
        return
    count = make(queries)
    more = {"num_users": queries.c.num_users + count.excluded.num_users}
    # In one order, so that no two writers wait for each other.
    counted = [{"digest": digest, **rows[digest], "num_users": new[digest]} for digest in sorted(new)]
    connection.execute(count.on_conflict_do_update(index_elements=["digest"], set_=more), counted)


def _query_row(query: str) -> dict[str, object]:
    folded = fold_query(query.strip())
    return {"query": " ".join(query.lower().split()), "folded": folded, "beginning": folded.encode()[:_KEY_BYTES]}


def most_asked(connection: Connection, prefix: str, limit: int) -> list[str]:
    """Return the queries that most users asked, of those that begin with a text and that several users asked.

    Args:
        connection ([`~sqlalchemy.Connection`]): To the store.
        prefix (`str`): How they begin, in capitals or not.
        limit (`int`): At most so many.
    """
    folded = fold_query(prefix)
    users: ColumnElement[int] = queries.c.num_users
    asked = select(queries.c.query).where(_IS_COMMON)
    if folded:
        asked = asked.where(queries.c.folded.startswith(folded, autoescape=True))
        first = folded.encode()[:_KEY_BYTES]
        # No byte of UTF-8 is 255.
        begins = (queries.c.beginning >= first) & (queries.c.beginning < first + b"\xff")
        some = select(queries.c.beginning).where(_IS_COMMON & begins).limit(_FEW).subquery()
        if connection.execute(select(func.count()).select_from(some)).scalar_one() < _FEW:
            # By what no index holds, or the one of users is taken for the order.
            asked, users = asked.where(begins), users + 0
    return list(connection.execute(asked.order_by(users.desc(), queries.c.query).limit(limit)).scalars())


__all__ = ["MIN_USERS_OF_QUERY", "askers", "count_queries", "fold_query", "most_asked", "queries"]
