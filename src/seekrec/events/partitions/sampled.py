# SPDX-License-Identifier: Apache-2.0
"""A sample of the users of all partitions as one split in memory, for validation, the plan and examples.

Membership depends on the seed, the user and the share alone. The share is that of the largest partition, so the sample
takes about as much memory as a partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.events.cases import Cases
from seekrec.events.partitions.splits import PartitionedSplit
from seekrec.events.split import SPLIT_PARTS, TRAIN_FILE, Split
from seekrec.schema import SEARCH
from seekrec.util.arrow import alphabetical_ranks, one_array, to_mask
from seekrec.util.files import write_table
from seekrec.util.hashing import hash_fractions, hash_texts

_EVENTS_FILE = "sampled-events.parquet"


def sample_share(split: PartitionedSplit) -> float:
    """Return the share of the users that are sampled: that of the events which the largest partition has."""
    sizes = [partition.num_events for partition in split.log.partitions]
    return max(sizes) / max(1, sum(sizes))


def write_sample(split: Split, share: float, folder: Path) -> None:
    """Write what the sample has of one partition: events, training rows and cases, by rows of these events.

    Args:
        split (`Split`): The partition.
        share (`float`): Share of the users that are sampled.
        folder (`Path`): Where to write.
    """
    timeline = split.timeline
    starts = timeline.first_rows()
    user_ids = split.log.events["user_id"].combine_chunks().take(pa.array(starts))
    is_taken = hash_fractions(split.seed, hash_texts(user_ids), np.zeros(len(starts), np.int64)) < share
    is_kept = is_taken[timeline.user]
    place = np.cumsum(is_kept) - 1
    write_table(folder / _EVENTS_FILE, split.log.events.filter(pa.array(is_kept)))
    rows = split.train_rows[is_kept[split.train_rows]]
    write_table(folder / f"sampled-{TRAIN_FILE}", pa.table({"row": place[rows]}))
    taken_ids = user_ids.filter(pa.array(is_taken))
    for part in SPLIT_PARTS:
        table = split.cases(part).to_table()
        table = table.filter(pc.is_in(table["user_id"], value_set=taken_ids))
        write_table(folder / f"sampled-{part}.parquet", _map_histories(table, place))


def read_sample(split: PartitionedSplit, folders: Sequence[Path]) -> Split:
    """Put the samples of all partitions together, with the users in the order of a log in memory.

    Args:
        split ([`PartitionedSplit`]): The split.
        folders (`Sequence[Path]`): Where [`write_sample`] wrote each.
    """
    events = [pq.read_table(folder / _EVENTS_FILE) for folder in folders]
    first = np.cumsum([0, *(table.num_rows for table in events)])
    joined = pa.concat_tables(events)
    order = order_of_users(one_array(joined["user_id"]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    log = split.log.with_events(joined.take(pa.array(order)))
    rows = [
        begin + pq.read_table(folder / f"sampled-{TRAIN_FILE}")["row"].to_numpy()
        for begin, folder in zip(first, folders, strict=False)
    ]
    cases = {}
    for part in SPLIT_PARTS:
        tables = [
            _map_histories(pq.read_table(folder / f"sampled-{part}.parquet"), place[begin:])
            for begin, folder in zip(first, folders, strict=False)
        ]
        table = pa.concat_tables(tables)
        table = table.take(pa.array(order_of_users(one_array(table["user_id"]))))
        # Searches stand behind all recommendations.
        is_search = to_mask(pc.equal(table["behavior"], SEARCH))
        cases[part] = Cases.from_table(table.take(pa.array(np.argsort(is_search, kind="stable"))))
    return split.of_users(log, np.sort(place[np.concatenate(rows)]), cases["validation"], cases["test"])


def order_of_users(users: pa.Array) -> np.ndarray:
    """Return the stable order of rows by user id, which is that of a log in memory."""
    names = users.dictionary_encode()
    return np.argsort(alphabetical_ranks(names.dictionary)[names.indices.to_numpy()], kind="stable")


def _map_histories(table: pa.Table, place: np.ndarray) -> pa.Table:
    """Return a table of cases whose histories name other rows."""
    cases = Cases.from_table(table)
    values = place[cases.histories.values] if len(cases.histories.values) else cases.histories.values
    return replace(cases, histories=replace(cases.histories, values=values)).to_table()


__all__ = ["order_of_users", "read_sample", "sample_share", "write_sample"]
