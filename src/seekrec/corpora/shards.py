# SPDX-License-Identifier: Apache-2.0
"""Training data of a log that is larger than memory: Arrow files, one per partition, memory-mapped when read.

A **shard** is a file with the rows of one task and partition. Each row is independent, so the shards of all partitions
together equal the data made in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import numpy as np
import pyarrow as pa

from seekrec.events.partitions import Job, PartitionedSplit
from seekrec.events.partitions.engines import JsonObject
from seekrec.events.partitions.scatter import read_facts, resume_jobs
from seekrec.events.saved import check_files, read_description, refuse_damage
from seekrec.util.files import replace_file, write_json
from seekrec.util.hashing import file_sha256, table_digest

SHARDS_FILE = "shards.json"
SHARDS_VERSION = 2
# Rows of a batch of a file: few batches to look rows up in, and little memory to write one.
_ROWS_OF_BATCH = 1 << 16


@dataclass(frozen=True)
class ShardInfo:
    """Description of one shard.

    Args:
        path (`str`): Its file, below the folder of all.
        task (`str`): What its rows teach.
        num_rows (`int`): Its rows.
        sha256 (`str`): SHA-256 of its file.
    """

    path: str
    task: str
    num_rows: int
    sha256: str


class ShardWriter:
    """Writes the file of a shard a few rows at a time; a context that closes it.

    Args:
        path (`Path`): The file; there is none if nothing was written.
        task (`str`): What its rows teach.
    """

    def __init__(self, path: Path, task: str) -> None:
        self.path, self.task, self.num_rows = path, task, 0
        self._waiting: list[pa.RecordBatch] = []
        self._writer: pa.RecordBatchWriter | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        if batch.num_rows:
            self._waiting.append(batch)
            self.num_rows += batch.num_rows
        if sum(one.num_rows for one in self._waiting) >= _ROWS_OF_BATCH:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting).combine_chunks()
            self._waiting = []
            if self._writer is None:
                self._writer = pa.ipc.new_file(str(self.path), table.schema)
            self._writer.write_table(table)

    def describe(self) -> list[JsonObject]:
        """Return what [`finish_shards`] reads of the closed file; nothing of one without rows."""
        if not self.num_rows:
            return []
        found = ShardInfo(self.path.name, self.task, self.num_rows, file_sha256(self.path))
        return [asdict(found)]


class Shards:
    """Rows of training data in shards; they are read from the files that hold them, whichever are asked for.

    Rows are numbered from 0 up, one shard after the other.

    Args:
        folder (`str` or `Path`): The folder.

    Raises:
        DataError: If a file is missing or damaged, or was written by another version.
    """

    # What they are called in messages, and the column of lists whose lengths are the rows'.
    kind: ClassVar[str]
    length_column: ClassVar[str]

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        check_files(self.folder, (SHARDS_FILE,), self.kind)
        with refuse_damage(self.folder, self.kind):
            self.description = read_description(self.folder / SHARDS_FILE, SHARDS_VERSION, self.kind)
            self.fingerprint: str = self.description["fingerprint"]
            self.shards = tuple(ShardInfo(**shard) for shard in self.description["shards"])
        check_files(self.folder, [shard.path for shard in self.shards], self.kind)
        # Of each shard the number of its first row; the number of all at the end.
        self.first = np.concatenate([[0], np.cumsum([shard.num_rows for shard in self.shards])]).astype(np.int64)
        self._opened: dict[int, tuple[list[pa.RecordBatch], np.ndarray]] = {}

    def __len__(self) -> int:
        return int(self.first[-1])

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        # Processes that load data map the files themselves.
        return type(self), (self.folder,)

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows of each task."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            counts[shard.task] += shard.num_rows
        return dict(counts)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return the length of some rows, by which batches are put together: int64."""
        found = np.empty(len(rows), dtype=np.int64)
        for batch, own, places in self._batches(rows):
            offsets = np.asarray(batch[self.length_column].offsets)
            found[places] = offsets[own + 1] - offsets[own]
        return found

    def take_table(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """Read some rows, in this order.

        Args:
            rows (`np.ndarray`): int64 row numbers, of any shards.
            columns (`Sequence[str]`, *optional*): Columns to read; all if not given.
        """
        parts, order = [], []
        for batch, own, places in self._batches(rows):
            parts.append((batch if columns is None else batch.select(list(columns))).take(pa.array(own)))
            order.append(places)
        back = np.empty(len(rows), dtype=np.int64)
        back[np.concatenate(order)] = np.arange(len(rows))
        return pa.Table.from_batches(parts).combine_chunks().take(pa.array(back))

    def _batches(self, rows: np.ndarray) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        """Yield the batches that hold some rows, the numbers of these in it, and their places in `rows`."""
        order = np.argsort(rows, kind="stable")
        ordered = np.asarray(rows, dtype=np.int64)[order]
        for number, own, places in _runs(ordered, order, self.first):
            batches, starts = self._open(number)
            for batch, of_batch, found in _runs(own, places, starts):
                yield batches[batch], of_batch, found

    def _open(self, number: int) -> tuple[list[pa.RecordBatch], np.ndarray]:
        if number not in self._opened:
            path = self.folder / self.shards[number].path
            with refuse_damage(path.parent, self.kind):
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                batches = [reader.get_batch(batch) for batch in range(reader.num_record_batches)]
            starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
            self._opened[number] = batches, starts
        return self._opened[number]


def _runs(ordered: np.ndarray, places: np.ndarray, starts: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Cut ascending numbers at `starts`: yield each stretch with numbers, counted from its start, and their places."""
    of_run = np.searchsorted(starts, ordered, side="right") - 1
    for run in np.unique(of_run).tolist():
        begin, end = np.searchsorted(of_run, [run, run + 1])
        yield run, ordered[begin:end] - starts[run], places[begin:end]


def begin_shards(target: Path, split: PartitionedSplit, settings: Mapping[str, object]) -> None:
    """Keep what an interrupted run of the same settings has left in a folder; delete anything else."""
    plan = {
        "version": SHARDS_VERSION,
        "split": split.fingerprint,
        "log": split.log.digest,
        "settings": dict(settings),
    }
    resume_jobs(target, plan, final=SHARDS_FILE, parts="shard-*")


def finish_shards(target: Path, jobs: Sequence[Job], more: Mapping[str, object]) -> None:
    """Describe what jobs have written, each in its folder `shard-*`, with the files named in its facts.

    Args:
        target (`Path`): The folder of all.
        jobs (`Sequence[Job]`): The jobs.
        more (`Mapping`): What else the description holds.
    """
    shards = [
        {**file, "path": f"{Path(job.output).name}/{file['path']}"}
        for job in jobs
        for file in read_facts(job.output)["shards"]
    ]
    digest = table_digest(pa.table({name: [str(shard[name]) for shard in shards] for name in ("task", "sha256")}))
    write_json(target / SHARDS_FILE, {"version": SHARDS_VERSION, **more, "fingerprint": digest, "shards": shards})


def join_arrays(sources: Sequence[Path], target: Path) -> None:
    """Write int64 arrays into one file, one after the other, without holding them in memory."""
    parts = [np.load(source, mmap_mode="r", allow_pickle=False) for source in sources]
    with replace_file(target) as temporary:
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int64, shape=shape)
        start = 0
        for part in parts:
            whole[start : start + len(part)] = part
            start += len(part)
        whole.flush()


__all__ = [
    "SHARDS_FILE",
    "SHARDS_VERSION",
    "ShardInfo",
    "ShardWriter",
    "Shards",
    "begin_shards",
    "finish_shards",
    "join_arrays",
]
