# SPDX-License-Identifier: Apache-2.0
"""Assign users to partitions, and compute digests that do not depend on the number of partitions.

The **bucket** of a user is the first ten bits of XXH64 (seed 0) of the UTF-8 bytes of its id: a number from 0 to 1023
that any language with xxHash can compute. A partition contains the users of consecutive buckets: of `P` partitions,
bucket `b` is in number `b * P // 1024`. The content of each bucket is digested separately, so that the digest over all
buckets, in order, is that of the whole log.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from seekrec.errors import ConfigurationError
from seekrec.events.timeline import Timeline
from seekrec.util.arrow import one_array
from seekrec.util.hashing import hash_numbers, hash_texts, json_digest, table_digest

NUM_BUCKETS = 1024
_BUCKET_SHIFT = np.uint64(64 - 10)

# Each partition is a file that stays open while the log is scattered.
MAX_PARTITIONS = 512


def user_buckets(user_ids: pa.Array) -> np.ndarray:
    """Return the bucket of each user: int64 from 0 to `NUM_BUCKETS - 1`."""
    return (hash_texts(user_ids) >> _BUCKET_SHIFT).astype(np.int64)


def partition_of_bucket(buckets: np.ndarray, num_partitions: int) -> np.ndarray:
    """Return the partition of each bucket: int64."""
    return buckets * num_partitions // NUM_BUCKETS


def event_keys(events: pa.Table, timeline: Timeline) -> np.ndarray:
    """Return a key of each event of a log: uint64 of its user and its place among the user's events, nothing else."""
    users = hash_texts(one_array(events["user_id"]).take(pa.array(timeline.first_rows())))
    return hash_numbers(users[timeline.user], np.arange(len(timeline.user)) - timeline.user_start)


def check_num_partitions(num_partitions: int) -> None:
    """Refuse a number of partitions that is out of range.

    Raises:
        ConfigurationError: If it is outside 1..`MAX_PARTITIONS`.
    """
    if not 1 <= num_partitions <= MAX_PARTITIONS:
        raise ConfigurationError(f"`num_partitions` is {num_partitions!r}; give 1 to {MAX_PARTITIONS}.")


def digest_buckets(table: pa.Table, buckets: np.ndarray) -> dict[int, str]:
    """Digest the rows of each bucket, in their order.

    Args:
        table (`pyarrow.Table`): The rows.
        buckets (`np.ndarray`): int64 bucket of each row.

    Returns:
        `dict[int, str]`: By bucket, ascending; buckets without rows are left out.
    """
    rows = np.argsort(buckets, kind="stable")
    ends = np.searchsorted(buckets[rows], np.arange(NUM_BUCKETS + 1)).tolist()
    ordered = table.take(pa.array(rows)).combine_chunks()
    return {
        bucket: table_digest(ordered.slice(ends[bucket], ends[bucket + 1] - ends[bucket]))
        for bucket in range(NUM_BUCKETS)
        if ends[bucket + 1] > ends[bucket]
    }


def join_digests(digests: dict[int, str], *rest: object) -> str:
    """Digest the digests of buckets in order, and what else belongs to them: 64 hexadecimal digits."""
    return json_digest([[digests[bucket] for bucket in sorted(digests)], *rest])


def digest_table_buckets(events: pa.Table) -> dict[int, str]:
    """Digest the events of each bucket of a table that is sorted by user."""
    users = one_array(events["user_id"]).dictionary_encode()
    buckets = user_buckets(users.dictionary)[users.indices.to_numpy()]
    return digest_buckets(events, buckets)


__all__ = [
    "MAX_PARTITIONS",
    "NUM_BUCKETS",
    "check_num_partitions",
    "digest_buckets",
    "digest_table_buckets",
    "event_keys",
    "join_digests",
    "partition_of_bucket",
    "user_buckets",
]
