# SPDX-License-Identifier: Apache-2.0
"""Derive partitioned logs from others: with synthetic searches, or without held-out items.

Both give the same events as [`synthesize_searches`] and [`hold_out_items`] in memory, whatever the number of
partitions. In memory, random numbers are drawn in the order of the log, sorted by user id. So each partition is given
the number of interactions in the whole log before those of its users, and takes its numbers from that position of the
same sequence.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.cases import Cases
from seekrec.events.checks import check_choice
from seekrec.events.cold_start import ColdStart, draw_items
from seekrec.events.columns import impression_mask
from seekrec.events.log import QuerySource, sort_events
from seekrec.events.partitions.engines import Engine, Job, run_partitions
from seekrec.events.partitions.logs import ITEMS_FILE, LOG_FILE, PartitionedLog, open_log
from seekrec.events.partitions.partitioning import describe_log
from seekrec.events.partitions.scatter import EVENTS_FILE, FACTS_FILE, describe_events, read_facts
from seekrec.events.partitions.splits import PartitionedSplit
from seekrec.events.queries import Construction, ItemQueries, SearchCounts, add_searches
from seekrec.events.split import Split
from seekrec.schema import BEHAVIORS, item_texts
from seekrec.util.arrow import alphabetical_ranks, one_array
from seekrec.util.files import replace_folder, sweep_folder, write_json, write_table
from seekrec.util.ragged import Ragged

# Half of the acts become searches; see `synthesize_searches`.
_SEARCH_FRACTION = 0.5
# Draws that are made at once.
_DRAWS = 1 << 20
_USERS_FILE, _HELD_OUT_FILE = "users.parquet", "held_out.parquet"


def construct_searches(
    log: PartitionedLog,
    folder: str | Path,
    *,
    construction: Construction = "split",
    seed: int = 0,
    engine: Engine = "local",
) -> PartitionedLog:
    """Write a log in which interactions are searches, as [`~seekrec.events.synthesize_searches`] makes them.

    Args:
        log ([`PartitionedLog`]): A log without searches.
        folder (`str` or `Path`): Where to write; it appears whole, and replaces an earlier one.
        construction (`str`): See [`~seekrec.events.synthesize_searches`].
        seed (`int`): See [`~seekrec.events.synthesize_searches`].
        engine (`str`): See [`run_partitions`].

    Returns:
        [`PartitionedLog`]: The log with searches.

    Raises:
        DataError: If the log has searches already, or no item has a query.
    """
    check_choice("construction", construction, ("split", "copy"))
    ItemQueries.of(log)
    with replace_folder(folder) as target:
        work = target / "users"
        source = (str(log.folder.resolve()), log.digest)
        counting = [
            Job(str(work / one.folder), source, {"partition": number}) for number, one in enumerate(log.partitions)
        ]
        run_partitions(count_acts, counting, engine=engine)
        firsts, total = _first_acts([Path(job.output) / _USERS_FILE for job in counting])
        for job, first in zip(counting, firsts, strict=True):
            write_table(Path(job.output) / _USERS_FILE, pa.table({"first": first}))
        jobs = [
            Job(
                str(target / one.folder),
                (*source, str(Path(before.output) / _USERS_FILE)),
                {"partition": number, "construction": construction, "seed": seed, "num_acts": total},
            )
            for number, (one, before) in enumerate(zip(log.partitions, counting, strict=True))
        ]
        run_partitions(search_partition, jobs, engine=engine)
        shutil.rmtree(work)
        found = [SearchCounts(**read_facts(job.output)["counts"]) for job in jobs]
        counts = SearchCounts(*(sum(one) for one in zip(*(asdict(own).values() for own in found), strict=True)))
        note = counts.note(construction, _SEARCH_FRACTION, seed)
        _finish(target, log, jobs, log.items, [*log.notes, note], query_source="category")
    return PartitionedLog.load(folder)


def count_acts(job: Job, folder: Path) -> None:
    """Write how many acts each user of a partition did, in the order of the users."""
    events = open_log(*job.inputs).partition(job.settings["partition"]).events
    user_ids, users = _users_of(events)
    acts = np.bincount(users, ~impression_mask(events), minlength=len(user_ids)).astype(np.int64)
    write_table(folder / _USERS_FILE, pa.table({"user_id": user_ids, "num_acts": acts}))


def search_partition(job: Job, folder: Path) -> None:
    """Write the events of a partition with searches, and how many: see [`construct_searches`]."""
    log_folder, digest, users_file = job.inputs
    settings, log = job.settings, open_log(log_folder, digest)
    events = log.partition(settings["partition"]).events
    _, users = _users_of(events)
    users = users[~impression_mask(events)]
    first = pq.read_table(users_file)["first"].to_numpy()
    # What comes before its user in the log, and before it among those of the user.
    starts = np.r_[0, np.flatnonzero(np.diff(users)) + 1] if len(users) else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, len(users)])
    places = first[users] + np.arange(len(users)) - np.repeat(starts, lengths)
    coin, choice = (draws_at(settings["seed"], places + skipped) for skipped in (0, settings["num_acts"]))
    events, counts = add_searches(
        events,
        _queries_of(log_folder, digest),
        coin,
        choice,
        construction=settings["construction"],
        search_fraction=_SEARCH_FRACTION,
    )
    _write_events(folder, sort_events(events), counts=asdict(counts))


def draws_at(seed: int, places: np.ndarray) -> np.ndarray:
    """Return some of the numbers that `np.random.default_rng(seed).random()` gives one after the other.

    Args:
        seed (`int`): The seed.
        places (`np.ndarray`): int64 numbers of the draws, from 0, ascending.

    Returns:
        `np.ndarray`: float64 of the same shape.
    """
    drawn = np.empty(len(places))
    generator = np.random.PCG64(seed)
    at = begin = 0
    while begin < len(places):
        # One number is one step of the generator, which can skip any number of steps.
        generator.advance(int(places[begin]) - at)
        end = int(np.searchsorted(places, places[begin] + _DRAWS))
        span = int(places[end - 1] - places[begin]) + 1
        drawn[begin:end] = np.random.Generator(generator).random(span)[places[begin:end] - places[begin]]
        at, begin = int(places[end - 1]) + 1, end
    return drawn


def hold_out_partitioned(
    split: PartitionedSplit,
    num_items: int,
    folder: str | Path,
    *,
    seed: int,
    engine: Engine = "local",
) -> PartitionedLog:
    """Write a log without some items that test questions look for; see [`~seekrec.events.hold_out_items`].

    Args:
        split ([`PartitionedSplit`]): Split of the whole log.
        num_items (`int`): Number of items.
        folder (`str` or `Path`): Where to write; it appears whole, and replaces an earlier one.
        seed (`int`): Seed of the draw.
        engine (`str`): See [`run_partitions`].

    Returns:
        [`PartitionedLog`]: What is left, to be split and trained on; [`partitioned_cold_start`] returns the rest.

    Raises:
        ConfigurationError: If fewer items can be taken out.
    """
    log = split.log
    texts = item_texts(log.items)
    item_ids = log.items["item_id"].to_pylist()
    has_text = {item_id for item_id, text in zip(item_ids, texts, strict=True) if text}
    asked = [item_id for item_id in _asked_items(split) if item_id in has_text]
    taken = pa.array(sorted(draw_items(asked, num_items, seed=seed, name=log.name)), pa.string())
    is_taken = pc.is_in(log.items["item_id"], value_set=taken)
    with replace_folder(folder) as target:
        write_table(target / _HELD_OUT_FILE, log.items.filter(is_taken))
        source = (str(log.folder.resolve()), log.digest, str(target / _HELD_OUT_FILE))
        jobs = [
            Job(str(target / one.folder), source, {"partition": number}) for number, one in enumerate(log.partitions)
        ]
        run_partitions(hold_out_of_partition, jobs, engine=engine)
        num_events = sum(read_facts(job.output)["num_taken"] for job in jobs)
        note = f"{num_items} items and the {num_events} events on them were held out."
        items = log.items.filter(pc.invert(is_taken))
        _finish(target, log, jobs, items, [*log.notes, note], query_source=log.query_source)
    return PartitionedLog.load(folder)


def hold_out_of_partition(job: Job, folder: Path) -> None:
    """Write the events of a partition that are not on items held out."""
    log_folder, digest, held_out = job.inputs
    events = open_log(log_folder, digest).partition(job.settings["partition"]).events
    taken = pq.read_table(held_out, columns=["item_id"])["item_id"]
    is_taken = pc.is_in(events["item_id"], value_set=one_array(taken))
    left = events.filter(pc.invert(is_taken))
    _write_events(folder, left, num_taken=events.num_rows - left.num_rows)


def partitioned_cold_start(split: PartitionedSplit, folder: str | Path) -> ColdStart:
    """Return the items that [`hold_out_partitioned`] took out, and who asks for them.

    Args:
        split ([`PartitionedSplit`]): Split of the whole log, as it was given to that function.
        folder (`str` or `Path`): The folder that it wrote.
    """
    items = pq.read_table(Path(folder) / _HELD_OUT_FILE)
    return ColdStart(join_askers(split, one_array(items["item_id"])), items, held_out=True)


def join_askers(split: PartitionedSplit, item_ids: pa.Array) -> Split:
    """Return the split of the users whose test questions look for some items, out of all partitions.

    Users and their questions stand in the order in which a log in memory has them.

    Args:
        split ([`PartitionedSplit`]): The split.
        item_ids (`pyarrow.Array`): The items.

    Raises:
        DataError: If nobody asks for one of them.
    """
    events: list[pa.Table] = []
    trained: list[np.ndarray] = []
    cases: dict[str, list[pa.Table]] = {"validation": [], "test": []}
    first = 0
    part: Split | None = None
    for number in range(split.num_partitions):
        asked = _read_cases(split, number, ["user_id", "item_id"])
        users = pc.unique(asked.filter(pc.is_in(asked["item_id"], value_set=item_ids))["user_id"])
        if not len(users):
            continue
        part = split.partition(number)
        is_kept = pc.is_in(part.log.events["user_id"], value_set=users).to_numpy()
        row = first + np.cumsum(is_kept) - 1
        events.append(part.log.events.filter(pa.array(is_kept)))
        trained.append(row[part.train_rows[is_kept[part.train_rows]]])
        for name, tables in cases.items():
            own = part.test if name == "test" else part.validation
            moved = replace(own, histories=Ragged(row[own.histories.values], own.histories.offsets)).to_table()
            tables.append(moved.filter(pc.is_in(moved["user_id"], value_set=users)))
        first += events[-1].num_rows
    if part is None:
        raise DataError(f"No test question of {split.log.name!r} has one of the {len(item_ids)} items as its target.")
    joined = pa.concat_tables(events)
    user_ids, users_of_rows = _users_of(joined)
    rank = alphabetical_ranks(user_ids)
    order = np.argsort(rank[users_of_rows], kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))

    def in_order(tables: list[pa.Table]) -> Cases:
        table = pa.concat_tables(tables).combine_chunks()
        of_user = rank[pc.index_in(table["user_id"], value_set=user_ids).to_numpy()]
        # Questions of one behavior stand together, as `split_log` asks them.
        kind = pc.index_in(table["behavior"], value_set=pa.array(BEHAVIORS)).to_numpy()
        found = Cases.from_table(table.take(pa.array(np.lexsort((of_user, kind)))))
        return replace(found, histories=Ragged(place[found.histories.values], found.histories.offsets))

    return replace(
        part,
        log=split.log.with_events(joined.take(pa.array(order))),
        train_rows=np.sort(place[np.concatenate(trained)]),
        validation=in_order(cases["validation"]),
        test=in_order(cases["test"]),
    )


def _asked_items(split: PartitionedSplit) -> list[str]:
    """Return the distinct items that test questions look for, in the order in which a log in memory has the cases."""
    tables = []
    for number in range(split.num_partitions):
        asked = _read_cases(split, number, ["user_id", "behavior", "item_id"])
        _, places = np.unique(one_array(asked["item_id"]).dictionary_encode().indices, return_index=True)
        tables.append(asked.take(pa.array(np.sort(places))))
    joined = pa.concat_tables(tables)
    users = one_array(joined["user_id"]).dictionary_encode()
    rank = alphabetical_ranks(users.dictionary)
    kind = pc.index_in(joined["behavior"], value_set=pa.array(BEHAVIORS)).to_numpy()
    order = np.lexsort((rank[users.indices.to_numpy()], kind))
    return list(dict.fromkeys(joined["item_id"].take(pa.array(order)).to_pylist()))


def _read_cases(split: PartitionedSplit, number: int, columns: list[str]) -> pa.Table:
    return pq.read_table(split.folder / split.log.partitions[number].folder / "test.parquet", columns=columns)


def _first_acts(files: Sequence[Path]) -> tuple[list[pa.Array], int]:
    """Return for each user of each file how many acts of users with smaller ids there are, and how many in all."""
    tables = [pq.read_table(path) for path in files]
    order = pc.sort_indices(pa.chunked_array([chunk for one in tables for chunk in one["user_id"].chunks])).to_numpy()
    acts = np.concatenate([one["num_acts"].to_numpy() for one in tables])
    first = np.empty(len(acts), np.int64)
    first[order] = np.cumsum(acts[order]) - acts[order]
    ends = np.cumsum([one.num_rows for one in tables])
    return [pa.array(own) for own in np.split(first, ends[:-1])], int(acts.sum())


def _users_of(events: pa.Table) -> tuple[pa.Array, np.ndarray]:
    """Return the users of some events in the order in which they stand, and for each event the number of its user."""
    users = one_array(events["user_id"]).dictionary_encode()
    return users.dictionary, users.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _write_events(folder: Path, events: pa.Table, **facts: object) -> None:
    if not events.num_rows:
        write_json(folder / FACTS_FILE, {"num_events": 0, **facts})
        return
    write_table(folder / EVENTS_FILE, events)
    write_json(folder / FACTS_FILE, {**describe_events(events), **facts})


def _finish(
    target: Path,
    log: PartitionedLog,
    jobs: Sequence[Job],
    items: pa.Table,
    notes: list[str],
    *,
    query_source: QuerySource,
) -> None:
    """Write what makes partitions a log."""
    write_table(target / ITEMS_FILE, items)
    facts = [read_facts(job.output) for job in jobs]
    description = describe_log(log.name, jobs, facts, items, log.has_time, notes, query_source=query_source)
    write_json(target / LOG_FILE, description)
    sweep_folder(target)


@lru_cache(maxsize=1)
def _queries_of(folder: str, digest: str) -> ItemQueries:
    return ItemQueries.of(open_log(folder, digest))


__all__ = [
    "construct_searches",
    "count_acts",
    "draws_at",
    "hold_out_of_partition",
    "hold_out_partitioned",
    "join_askers",
    "partitioned_cold_start",
    "search_partition",
]
