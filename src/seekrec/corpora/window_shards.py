# SPDX-License-Identifier: Apache-2.0
"""Windows of a log that is larger than memory: one Arrow file per partition, memory-mapped when read.

A shard contains the output of [`build_training_windows`] for the users of a partition, so all shards together contain
the windows of the whole log. Each row is an independent window; its events, questions and impressions are lists.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.corpora.shards import Shards, ShardWriter, begin_shards, finish_shards, join_arrays
from seekrec.corpora.training_windows import TrainingWindows, build_training_windows
from seekrec.corpora.window_tables import number_queries, windows_from_table, windows_to_table
from seekrec.errors import DataError, LeakageError
from seekrec.events.columns import SessionIds
from seekrec.events.partitions import Job, PartitionedSplit, run_partitions
from seekrec.events.partitions.engines import Engine, JsonObject
from seekrec.events.partitions.logs import open_log
from seekrec.events.partitions.scatter import FACTS_FILE, read_facts
from seekrec.events.partitions.training_facts import TrainingFacts
from seekrec.events.saved import check_files, refuse_damage
from seekrec.schema import BEHAVIORS, Behavior, IdMap
from seekrec.util.files import write_json, write_table

logger = logging.getLogger(__name__)

WINDOWS_FILE = "windows.arrow"
QUERIES_FILE = "queries.parquet"
_COUNTS_FILE, _SEARCHED_FILE, _ACTED_FILE = "counts.parquet", "searched.parquet", "acted.npy"
# Options of [`build_training_windows`].
_OPTIONS = ("geohashes", "max_history", "recommend_searched_items", "session_ids", "use_session_mask")


class WindowShards(Shards):
    """Windows in shards; batches are read from the shards that hold them. Made by [`write_window_shards`].

    Windows are numbered from 0 up, one shard after the other.

    Args:
        folder (`str` or `Path`): The folder.

    Raises:
        DataError: If a file is missing or damaged.
    """

    kind = "windows"
    length_column = "events"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        check_files(self.folder, (QUERIES_FILE,), self.kind)
        with refuse_damage(self.folder, self.kind):
            self.session_ids: SessionIds = self.description["session_ids"]
            self.num_questions: dict[Behavior, int] = self.description["num_questions"]
            self.num_blind: int = self.description["num_blind"]

    def take(self, numbers: Sequence[int] | np.ndarray) -> TrainingWindows:
        """Read some windows.

        Args:
            numbers (`Sequence[int]`): Window numbers, of any shards.

        Returns:
            [`TrainingWindows`]: These windows, in this order; their query rows point to `queries`.
        """
        return windows_from_table(self.take_table(np.asarray(numbers, dtype=np.int64)), self.session_ids)

    def batch(self, numbers: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Lay out some windows; see [`TrainingWindows.batch`]."""
        windows = self.take(numbers)
        return windows.batch(np.arange(len(windows)))

    def user_rows(self, numbers: np.ndarray) -> np.ndarray:
        """Return the int64 user row of some windows; users of all shards are numbered together."""
        return np.asarray(self.take_table(numbers, ["user"])["user"])

    @cached_property
    def queries(self) -> list[str]:
        """Queries of all training events, to which the query rows point."""
        found: list[str] = pq.read_table(self.folder / QUERIES_FILE)["query"].to_pylist()
        return found

    def searched_pairs(self) -> np.ndarray:
        """Return the distinct pairs of an item and a query that led to it; see [`TrainingWindows.searched_pairs`]."""
        tables = [pq.read_table((self.folder / shard.path).parent / _SEARCHED_FILE) for shard in self.shards]
        pairs = [np.stack([table["item"].to_numpy(), table["query"].to_numpy()], axis=1) for table in tables]
        return np.unique(np.concatenate(pairs).astype(np.int64), axis=0)

    def acted_pairs(self, num_items: int) -> np.ndarray:
        """Return who acted on what, memory-mapped; see [`TrainingWindows.acted_pairs`].

        Raises:
            DataError: If `num_items` is not the number of items that the shards were made for.
        """
        if num_items != read_facts((self.folder / self.shards[0].path).parent)["num_items"]:
            raise DataError(
                f"The windows in {self.folder} were made for a different catalogue, not for one of {num_items} items."
            )
        path = self.folder / _ACTED_FILE
        return cast(np.ndarray, np.load(path, mmap_mode="r", allow_pickle=False))

    def question_counts(self, num_items: int) -> np.ndarray:
        """Count how often each item is asked for; see [`TrainingWindows.question_counts`]."""
        counts = np.zeros((len(BEHAVIORS), num_items), dtype=np.int64)
        for shard in self.shards:
            table = pq.read_table((self.folder / shard.path).parent / _COUNTS_FILE)
            counts[table["behavior"].to_numpy(), table["item"].to_numpy()] += table["count"].to_numpy()
        return counts


def write_window_shards(
    split: PartitionedSplit,
    folder: str | Path,
    facts: TrainingFacts,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    geohashes: Sequence[str] = (),
    max_history: int = 50,
    recommend_searched_items: bool = True,
    session_ids: SessionIds | Literal["auto"] = "auto",
    use_session_mask: bool = True,
    engine: Engine = "local",
) -> WindowShards:
    """Write the windows of every partition.

    An interrupted run resumes when it is called again with the same arguments.

    Items are numbered as in `split.log.items`, which is the order of a catalogue that is built from them.

    Args:
        split ([`PartitionedSplit`]): Split whose training events are used.
        folder (`str` or `Path`): Where to write; what other arguments have made there is replaced.
        facts ([`TrainingFacts`]): What all its training events hold.
        behaviors (`Sequence[str]`): Questions of these behaviors are kept, and the windows that have one.
        geohashes (`Sequence[str]`): See [`build_training_windows`], like the next three.
        max_history (`int`): Events of a window.
        recommend_searched_items (`bool`): Ask for the items of searches without their query too.
        session_ids (`str`): Meaning of `session_id`; `"auto"` is guessed from the sessions of all partitions.
        use_session_mask (`bool`): Off for a model whose questions see all that came before.
        engine (`str`): See [`run_partitions`].

    Returns:
        [`WindowShards`]: The windows.

    Raises:
        DataError: If there is no question at all.
        LeakageError: If a question of a strict split sees its own answer.
    """
    if session_ids == "auto":
        session_ids = split.session_ids
    target = Path(folder)
    settings: JsonObject = {
        "behaviors": list(behaviors),
        "geohashes": list(geohashes),
        "max_history": max_history,
        "recommend_searched_items": recommend_searched_items,
        "session_ids": session_ids,
        "use_session_mask": use_session_mask,
    }
    begin_shards(target, split, settings)
    queries = pa.table({"query": facts.queries})
    write_table(target / QUERIES_FILE, queries)
    first_users = np.cumsum([0, *(partition.num_users for partition in split.log.partitions)]).tolist()
    jobs = [
        Job(
            output=str(target / f"shard-{number:05d}"),
            inputs=(str(split.folder), str(target / QUERIES_FILE)),
            settings={**settings, "partition": number, "first_user": first_users[number]},
        )
        for number in range(split.num_partitions)
    ]
    run_partitions(write_shard, jobs, engine=engine)
    found = [read_facts(job.output) for job in jobs]
    counts = {behavior: sum(one["num_questions"][behavior] for one in found) for behavior in BEHAVIORS}
    if not any(counts.values()):
        raise DataError(
            f"The training part of {split.log.name!r} has no interaction that can be a target; check the split."
        )
    if num_leaks := sum(one["num_leaks"] for one in found):
        raise LeakageError(f"{num_leaks} training targets of {split.log.name!r} see their own answer.")
    join_arrays([Path(job.output) / _ACTED_FILE for job in jobs], target / _ACTED_FILE)
    more = {"session_ids": session_ids, "num_questions": counts, "num_blind": sum(one["num_blind"] for one in found)}
    finish_shards(target, jobs, more)
    windows = WindowShards(target)
    written = ", ".join(f"{count} as a {behavior}" for behavior, count in counts.items())
    logger.info(
        "%s: %d windows in %d shards; training targets: %s; %d questions see no event.",
        split.log.name,
        len(windows),
        len(windows.shards),
        written,
        windows.num_blind,
    )
    return windows


def write_shard(job: Job, folder: Path) -> None:
    """Write the windows of one partition: inputs are the folder of the split and the table of queries."""
    settings = job.settings
    whole = PartitionedSplit.load(job.inputs[0])
    id_map = _read_ids(str(whole.log.folder), whole.log.digest)
    windows = build_training_windows(
        whole.partition(settings["partition"]),
        id_map,
        actions=sorted(whole.actions),
        may_be_empty=True,
        **{name: settings[name] for name in _OPTIONS},
    )
    num_leaks = windows.count_leaks() if whole.protocol == "strict" else 0
    if len(settings["behaviors"]) == 1:
        windows = windows.select(settings["behaviors"][0])
    queries = pq.read_table(job.inputs[1])["query"].combine_chunks()
    table = windows_to_table(windows, settings["first_user"], queries)
    with ShardWriter(folder / WINDOWS_FILE, "windows") as writer:
        for batch in table.to_batches():
            writer.write(batch)
    counts = windows.question_counts(len(id_map))
    behavior, item = np.nonzero(counts)
    write_table(folder / _COUNTS_FILE, pa.table({"behavior": behavior, "item": item, "count": counts[behavior, item]}))
    pairs = windows.searched_pairs()
    numbers = number_queries(windows, queries)
    write_table(folder / _SEARCHED_FILE, pa.table({"item": pairs[:, 0], "query": numbers[pairs[:, 1]]}))
    acted = windows.acted_pairs(len(id_map)) + settings["first_user"] * len(id_map)
    np.save(folder / _ACTED_FILE, acted, allow_pickle=False)
    asked = {name: int((windows.behavior == number).sum()) for number, name in enumerate(BEHAVIORS)}
    facts = {
        "num_items": len(id_map),
        "shards": writer.describe(),
        "num_questions": asked,
        "num_blind": int(windows.is_blind.sum()),
        "num_leaks": num_leaks,
    }
    write_json(folder / FACTS_FILE, facts)


@lru_cache(maxsize=1)
def _read_ids(folder: str, digest: str) -> IdMap:
    """Read the ids of a log's items once for all partitions that this process works on."""
    return IdMap(open_log(folder, digest).items["item_id"].to_pylist())


__all__ = ["WINDOWS_FILE", "WindowShards", "write_shard", "write_window_shards"]
