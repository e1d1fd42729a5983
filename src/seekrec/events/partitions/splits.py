# SPDX-License-Identifier: Apache-2.0
"""Split a partitioned log, a partition at a time, like [`~seekrec.events.split_log`] in memory.

All events of a user are in one partition, so most of a split is decided there. What depends on the whole log (the
held-out days, whether there are searches and sessions, the actions in training) is computed before or merged
afterwards; nothing depends on the number of partitions. Read a split for training like this:

```python
split = PartitionedSplit.load("my_log/split")
for number in shuffled_numbers:
    part = split.partition(number)  # an ordinary Split of some users, with all items
```
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.events.audit import AuditReport, audit, longest_histories
from seekrec.events.cases import Cases
from seekrec.events.columns import SessionIds
from seekrec.events.held_out import HeldOutDays, check_held_out, find_held_out_days, most_interactions
from seekrec.events.log import EventLog
from seekrec.events.partitions.buckets import digest_buckets, join_digests, user_buckets
from seekrec.events.partitions.engines import Engine, Job, JsonObject, run_partitions
from seekrec.events.partitions.logs import LOG_FILE, PartitionedLog, open_log
from seekrec.events.partitions.scatter import FACTS_FILE, read_facts, resume_jobs
from seekrec.events.saved import check_files, read_description, refuse_damage
from seekrec.events.sessions import SessionCounts, count_sessions, session_numbers
from seekrec.events.split import (
    SPLIT_FILE,
    SPLIT_PARTS,
    TRAIN_FILE,
    LearnedAlso,
    Method,
    Protocol,
    Split,
    SplitPart,
    check_max_history,
)
from seekrec.events.split_counts import SplitCounts, check_counts
from seekrec.events.splits import build_split, check_method, keep_actions, training_actions
from seekrec.events.timeline import Timeline
from seekrec.util.files import sweep_folder, write_json, write_table
from seekrec.util.hashing import file_sha256, hash_fractions, hash_texts

SPLIT_VERSION = 1

# The audit examines the histories of so many events for each event of a user, on average: all of them for users with
# up to 40 events, a sample drawn by a hash of user and event for others.
_AUDITED_PER_EVENT = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PartitionedSplit:
    """A split of a partitioned log. Made by [`split_partitions`].

    Args:
        folder (`Path`): The folder.
        log ([`PartitionedLog`]): The log.
        method (`str`): As in [`Split`].
        protocol (`str`): As in [`Split`].
        seed (`int`): As in [`Split`].
        num_test_days (`int`, *optional*): As in [`Split`].
        max_history (`int`, *optional*): As in [`Split`].
        keep_impressions (`bool`): As in [`Split`].
        actions (`tuple[str, ...]`): Actions of training events, impressions left out.
        counts ([`SplitCounts`]): Counts over all partitions.
        sessions ([`SessionCounts`]): What tells whether `session_id` means page views or visits.
        fingerprint (`str`): SHA-256 over the log, the settings and what each user's split is, 64 hexadecimal digits;
            it does not depend on the number of partitions.
    """

    folder: Path
    log: PartitionedLog
    method: Method
    protocol: Protocol
    seed: int
    num_test_days: int | None
    max_history: int | None
    keep_impressions: bool
    actions: tuple[str, ...]
    counts: SplitCounts
    sessions: SessionCounts
    fingerprint: str

    @property
    def num_partitions(self) -> int:
        """Number of partitions."""
        return self.log.num_partitions

    def num_cases(self) -> dict[str, dict[str, int]]:
        """Count the questions of each part by behavior."""
        return self.counts.num_cases

    @property
    def session_ids(self) -> SessionIds:
        """Meaning of `session_id`, guessed from the sessions of all partitions."""
        guess = self.sessions.guess()
        return "page_view" if guess is None else guess.kind

    def partition(self, number: int) -> Split:
        """Return the split of the users of one partition, with all items.

        Its rows are rows of `log.partition(number).events`; it may have no question.

        Args:
            number (`int`): From 0 to `num_partitions - 1`.

        Raises:
            DataError: If a file is damaged.
        """
        folder = self.folder / self.log.partitions[number].folder
        with refuse_damage(folder, "partition of a split"):
            split = self.of_users(
                self.log.partition(number),
                np.asarray(pq.read_table(folder / TRAIN_FILE)["row"], dtype=np.int64),
                *(self.cases(number, part) for part in SPLIT_PARTS),
            )
            return keep_actions(split, self.actions)

    def of_users(self, log: EventLog, train_rows: np.ndarray, validation: Cases, test: Cases) -> Split:
        """Return the split of some users in memory.

        Args:
            log (`EventLog`): Their events.
            train_rows (`np.ndarray`): int64 rows of these, ascending: what is trained on.
            validation (`Cases`): Their questions of each part.
            test (`Cases`): The same.
        """
        return Split(
            log=log,
            method=self.method,
            protocol=self.protocol,
            seed=self.seed,
            train_rows=train_rows,
            validation=validation,
            test=test,
            num_test_days=self.num_test_days,
            max_history=self.max_history,
            keep_impressions=self.keep_impressions,
        )

    def cases(self, number: int, part: SplitPart) -> Cases:
        """Return the questions of one partition, without reading its events.

        Args:
            number (`int`): From 0 to `num_partitions - 1`.
            part (`str`): `"validation"` or `"test"`.
        """
        return Cases.from_table(pq.read_table(self.folder / self.log.partitions[number].folder / f"{part}.parquet"))

    def __iter__(self) -> Iterator[Split]:
        return (self.partition(number) for number in range(self.num_partitions))

    def __len__(self) -> int:
        return self.num_partitions

    @classmethod
    def load(cls, folder: str | Path, *, log: PartitionedLog | None = None) -> PartitionedSplit:
        """Open a split that [`split_partitions`] wrote.

        Args:
            folder (`str` or `Path`): The folder.
            log ([`PartitionedLog`], *optional*): The log, where it has been moved.

        Raises:
            DataError: If a file is missing, written by another version, or does not belong to the log.
        """
        source = Path(folder)
        check_files(source, (SPLIT_FILE,), "partitioned split")
        with refuse_damage(source, "partitioned split"):
            description = read_description(source / SPLIT_FILE, SPLIT_VERSION, "split")
            if log is None:
                log_folder = Path(description["log_folder"])
                check_files(log_folder, (LOG_FILE,), "partitioned log")
                # Shared by all partitions that this process works on: so the items are read once.
                log = open_log(str(log_folder), file_sha256(log_folder / LOG_FILE))
            if log.fingerprint != description["log"]:
                raise DataError(
                    f"The split in {source} belongs to a log with fingerprint {description['log'][:12]}, but the log "
                    f"in {log.folder} has {log.fingerprint[:12]}. Split the log again."
                )
            files = (TRAIN_FILE, *(f"{part}.parquet" for part in SPLIT_PARTS))
            check_files(source, [f"{one.folder}/{name}" for one in log.partitions for name in files], "split")
            return cls(
                folder=source,
                log=log,
                actions=tuple(description["actions"]),
                counts=SplitCounts(**description["counts"]),
                sessions=SessionCounts(**description["sessions"]),
                fingerprint=description["fingerprint"],
                **description["settings"],
            )


def split_partitions(
    log: PartitionedLog,
    folder: str | Path,
    *,
    method: Method = "leave_one_out",
    protocol: Protocol = "strict",
    num_test_days: int = 1,
    seed: int = 0,
    max_history: int | None = None,
    keep_impressions: bool = False,
    also: LearnedAlso | None = None,
    engine: Engine = "local",
    num_workers: int | None = None,
) -> PartitionedSplit:
    """Split and audit a partitioned log.

    A run that is interrupted continues where it stopped when it is called again with the same log and settings.

    Args:
        log ([`PartitionedLog`]): The log.
        folder (`str` or `Path`): Where to write; an earlier split in it is replaced.
        method (`str`): See [`~seekrec.events.split_log`].
        protocol (`str`): See [`~seekrec.events.split_log`].
        num_test_days (`int`): See [`~seekrec.events.split_log`].
        seed (`int`): See [`~seekrec.events.split_log`].
        max_history (`int`, *optional*): See [`~seekrec.events.split_log`].
        keep_impressions (`bool`): See [`~seekrec.events.split_log`].
        also (`str`, *optional*): What is trained on besides; see [`~seekrec.events.splits.learn_held_out`].
        engine (`str`): See [`run_partitions`].
        num_workers (`int`, *optional*): See [`run_partitions`].

    Returns:
        [`PartitionedSplit`]: The split; a strict one has passed [`audit_partitions`].

    Raises:
        ConfigurationError: If an argument has an unknown value.
        DataError: If the log is too short, nothing is left to train on, or `"last_days"` is asked of a log without
            time.
        LeakageError: If a strict split leaks.
    """
    check_method(method, protocol)
    check_max_history(max_history)
    days = None
    if method == "last_days":
        days = find_held_out_days(log.name, np.array(log.interaction_days) if log.has_time else None, num_test_days)
    settings: JsonObject = {
        "method": method,
        "protocol": protocol,
        "seed": seed,
        "num_test_days": num_test_days if days else None,
        "max_history": max_history,
        "keep_impressions": keep_impressions,
    }
    target = Path(folder)
    plan = {"version": SPLIT_VERSION, "log": log.fingerprint, "files": log.digest, "settings": settings, "also": also}
    resume_jobs(target, plan, final=SPLIT_FILE, parts="partition-*")
    jobs = [
        Job(
            output=str(target / partition.folder),
            inputs=(str(log.folder), log.digest),
            settings={**settings, "partition": number, "days": None if days is None else asdict(days), "also": also},
        )
        for number, partition in enumerate(log.partitions)
    ]
    run_partitions(split_partition, jobs, engine=engine, num_workers=num_workers)
    facts = [read_facts(job.output) for job in jobs]
    counts = SplitCounts.total(SplitCounts(**one["counts"]) for one in facts)
    if days is None and also is None:
        most = max(one["most_interactions"] for one in facts)
        check_held_out(sum(counts.num_cases["test"].values()), most, protocol)
    if also is None:
        check_counts(counts, log.name, method, protocol)
    report = _sum_audits(facts)
    if protocol == "strict":
        report.raise_if_leaking()
    actions = sorted({action for one in facts for action in one["actions"]})
    digests = {bucket: digest for one in facts for bucket, digest in one["buckets"].items()}
    description = {
        "version": SPLIT_VERSION,
        "log_folder": str(log.folder.resolve()),
        "log": log.fingerprint,
        "settings": settings,
        "actions": actions,
        "counts": asdict(counts),
        "sessions": asdict(reduce(SessionCounts.plus, (SessionCounts(**one["sessions"]) for one in facts))),
        "audit": report.to_dict(),
        "fingerprint": join_digests({int(bucket): digests[bucket] for bucket in digests}, log.fingerprint, settings),
    }
    write_json(target / SPLIT_FILE, description)
    sweep_folder(target)
    logger.info("Split %s: %s, protocol %s, %d training events.", log.name, method, protocol, counts.num_train_events)
    return PartitionedSplit.load(target, log=log)


def audit_partitions(split: PartitionedSplit) -> AuditReport:
    """Return the leaks of a split, counted when each partition was split and added up.

    Of users with more than 40 events a sample of the training targets was examined, drawn by a hash of the seed, the
    user and the event. The cases always were all examined.
    """
    return _sum_audits([read_facts(split.folder / partition.folder) for partition in split.log.partitions])


def _sum_audits(facts: list[JsonObject]) -> AuditReport:
    return AuditReport.total(AuditReport.from_dict(one["audit"]) for one in facts)


def split_partition(job: Job, folder: Path) -> None:
    """Split and audit one partition: inputs are the folder of the log and the digest of its `partitions.json`."""
    settings = job.settings
    whole = open_log(*job.inputs)
    log = whole.partition(settings["partition"])
    timeline = Timeline.from_log(log)
    days: dict[str, int] | None = settings["days"]
    split = build_split(
        log,
        timeline,
        method=settings["method"],
        protocol=settings["protocol"],
        days=None if days is None else HeldOutDays(**days),
        num_test_days=settings["num_test_days"],
        seed=settings["seed"],
        max_history=settings["max_history"],
        keep_impressions=settings["keep_impressions"],
        has_sessions=whole.has_sessions,
        also=settings["also"],
    )
    user_ids = log.events["user_id"].combine_chunks().take(pa.array(timeline.first_rows()))
    report = audit(split, targets=_sample_targets(split, hash_texts(user_ids)))
    write_table(folder / TRAIN_FILE, pa.table({"row": pa.array(split.train_rows, pa.int64())}))
    for part in SPLIT_PARTS:
        write_table(folder / f"{part}.parquet", split.cases(part).to_table())
    facts = {
        "counts": asdict(split.counts()),
        "sessions": asdict(count_sessions(log.events, timeline, session_numbers(split), split.training_acts())),
        "most_interactions": most_interactions(timeline),
        "actions": training_actions(split),
        "audit": report.to_dict(),
        "buckets": {str(bucket): digest for bucket, digest in _digest(split, user_ids).items()},
    }
    write_json(folder / FACTS_FILE, facts)


def _sample_targets(split: Split, hashes: np.ndarray) -> np.ndarray:
    """Choose the training targets to audit: int64 rows. Each user's depend on nothing but that user and the seed."""
    user, start = split.timeline.user, split.timeline.user_start
    targets = split.training_targets(include_queries=True)
    lengths = np.bincount(user[targets], longest_histories(split, targets), minlength=len(hashes))
    share = _AUDITED_PER_EVENT * np.bincount(user, minlength=len(hashes)) / np.maximum(lengths, 1)
    drawn = hash_fractions(split.seed, hashes[user[targets]], targets - start[targets])
    return targets[drawn < share[user[targets]]]


def _digest(split: Split, user_ids: pa.Array) -> dict[int, str]:
    """Digest the split of the users of each bucket; rows count from each user's first event."""
    timeline = split.timeline
    is_train = np.zeros(len(timeline.user), dtype=bool)
    is_train[split.train_rows] = True
    of_user = user_buckets(user_ids)
    digests = {"train": digest_buckets(pa.table({"is_train": is_train}), of_user[timeline.user])}
    for part in SPLIT_PARTS:
        cases = split.cases(part)
        table = cases.to_table()
        rows = cases.histories.values
        history = pa.LargeListArray.from_arrays(
            pa.array(cases.histories.offsets, pa.int64()), pa.array(rows - timeline.user_start[rows], pa.int64())
        )
        table = table.set_column(table.column_names.index("history"), "history", history)
        buckets = user_buckets(table["user_id"].combine_chunks())
        digests[part] = digest_buckets(table, buckets)
    return {
        bucket: join_digests({number: one.get(bucket, "") for number, one in enumerate(digests.values())})
        for bucket in digests["train"]
    }


__all__ = ["PartitionedSplit", "audit_partitions", "split_partition", "split_partitions"]
