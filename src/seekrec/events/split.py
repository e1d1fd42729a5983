# SPDX-License-Identifier: Apache-2.0
"""A split log: the training events and the held-out questions, with saving and loading."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import ConfigurationError, DataError
from seekrec.events.cases import Cases, TrainingHistories, build_requests
from seekrec.events.checks import check_choice
from seekrec.events.log import EventLog
from seekrec.events.saved import check_files, read_description, refuse_damage
from seekrec.events.split_counts import SplitCounts, check_counts
from seekrec.events.timeline import (
    PaperOrder,
    Timeline,
    histories_before,
    is_among,
    merge_histories,
    paper_order,
    paper_targets,
)
from seekrec.schema import BEHAVIORS, Behavior, Request
from seekrec.util.files import write_json, write_table
from seekrec.util.hashing import table_digest

Method = Literal["leave_one_out", "last_tenth", "last_days"]
Protocol = Literal["strict", "paper"]
SplitPart = Literal["validation", "test"]

METHODS: tuple[Method, ...] = ("leave_one_out", "last_tenth", "last_days")
PROTOCOLS: tuple[Protocol, ...] = ("strict", "paper")
# What a second training learns besides: what validation held out, or that and the test.
LearnedAlso = Literal["validation", "everything"]
Kinds = tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]
SPLIT_PARTS: tuple[SplitPart, ...] = ("validation", "test")

SETTINGS = ("method", "protocol", "seed", "num_test_days", "max_history", "keep_impressions")

SPLIT_FILE = "split.json"
TRAIN_FILE = "train_rows.parquet"
LOG_FOLDER = "log"
SPLIT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Split:
    """A log, the rows that training may use, and the held-out questions. Built by [`split_log`].

    Args:
        log (`EventLog`): The log.
        method (`str`): `"leave_one_out"`, `"last_tenth"` or `"last_days"`.
        protocol (`str`): `"strict"` or `"paper"`.
        seed (`int`): Seed of the choice of queries.
        train_rows (`np.ndarray`): int64 rows of `log.events` that training may use, as target or history, ascending.
            With `"paper"` training histories may contain held-out rows besides: that is one of its leaks.
        validation (`Cases`): Questions to choose a model by.
        test (`Cases`): Questions to report.
        num_test_days (`int`, *optional*): Days of the test with `"last_days"`, else `None`.
        max_history (`int`, *optional*): Histories keep the latest so many events; `None` keeps all.
        keep_impressions (`bool`): Whether histories (strict) hold items that were shown but not acted on. Training
            events always do.
    """

    log: EventLog
    method: Method
    protocol: Protocol
    seed: int
    train_rows: np.ndarray
    validation: Cases
    test: Cases
    num_test_days: int | None = None
    max_history: int | None = None
    keep_impressions: bool = False

    @cached_property
    def timeline(self) -> Timeline:
        """The columns of `log.events` as arrays."""
        return Timeline.from_log(self.log)

    @cached_property
    def _paper_order(self) -> PaperOrder:
        return paper_order(self.log, self.timeline)

    def train_events(self) -> pa.Table:
        """Return the events that training may use, in the order of the log."""
        return self.log.events.take(self.train_rows)

    def cases(self, part: SplitPart) -> Cases:
        """Return the cases of a part.

        Raises:
            ConfigurationError: If the part is unknown.
        """
        check_choice("part", part, SPLIT_PARTS)
        return self.test if part == "test" else self.validation

    def training_acts(self) -> np.ndarray:
        """Return the `train_rows` of acts, searches without a click included: int64, ascending."""
        return self.train_rows[~self.timeline.is_impression[self.train_rows]]

    def training_queries(self) -> Mapping[str, int]:
        """Return the queries of training, and how often each was typed."""
        typed = self.log.events["query"].take(self.training_acts()).to_pylist()
        return Counter(query for query in typed if query is not None)

    def training_interactions(self) -> np.ndarray:
        """Return the `train_rows` in which a user acted on an item: int64, ascending."""
        return self.train_rows[self.timeline.is_interaction[self.train_rows]]

    def is_training_target(self) -> np.ndarray:
        """Mark those of `train_rows` that may be training targets: bool of shape `(len(train_rows),)`.

        Strict: every interaction. Paper: those that its filters leave.
        """
        if self.protocol == "strict":
            return self.timeline.is_interaction[self.train_rows]
        return is_among(self.train_rows, paper_targets(self.timeline, self._paper_order)[0])

    def training_targets(self, *, include_queries: bool = False) -> np.ndarray:
        """Return the rows that may be training targets.

        Args:
            include_queries (`bool`): Also searches without a click: their query can be predicted.

        Returns:
            `np.ndarray`: int64 rows of `log.events`, ascending.
        """
        is_target = self.is_training_target()
        if include_queries:
            t = self.timeline
            is_target |= ((t.item < 0) & t.is_search)[self.train_rows]
        return self.train_rows[is_target]

    def training_histories(
        self,
        *,
        max_history: int | None = None,
        max_of_kind: Kinds | None = None,
        target_rows: np.ndarray | None = None,
    ) -> TrainingHistories:
        """Return the history of each training target.

        The size grows with the square of a user's events: on large logs set a limit (histories are cut before they are
        expanded), or ask for some targets at a time.

        Args:
            max_history (`int`, *optional*): Keep the latest so many; `None` takes the split's own `max_history`.
            max_of_kind (`Kinds`, *optional*): For two kinds of events (bool, one entry per event of the log), how many
                latest to keep of each instead; none is kept of neither.
            target_rows (`np.ndarray`, *optional*):
                int64 rows out of [`training_targets`]; `None` takes all that have an item.

        Returns:
            `TrainingHistories`: Strict: the user's training events with an earlier timestamp and another item. Paper:
            what the released pipeline takes for the preceding events.

        Raises:
            DataError: If a row of `target_rows` is not among `train_rows`.
        """
        limits = [limit for limit in (check_max_history(max_history), self.max_history) if limit is not None]
        limit = min(limits, default=None)
        targets = self.training_targets() if target_rows is None else np.asarray(target_rows, dtype=np.int64)
        if target_rows is not None and not (known := is_among(targets, self.train_rows)).all():
            raise DataError(
                f"`target_rows` contains row {targets[~known][0]}, which training may not use; take rows from "
                "Split.training_targets()."
            )
        order = self._paper_order if self.protocol == "paper" else None
        usable = self.train_rows if self.keep_impressions else self.training_acts()
        if max_of_kind is None or limit is not None:
            histories = histories_before(self.timeline, targets, usable, order, limit)
        else:
            kinds = [(most, is_of) for is_of, most in max_of_kind]
            first, second = (histories_before(self.timeline, targets, usable, order, *kind) for kind in kinds)
            histories = merge_histories(
                first, second, np.arange(self.log.num_events) if order is None else order.place
            )
        return TrainingHistories(histories.values, histories.offsets, targets)

    def requests(
        self,
        part: SplitPart,
        behavior: Behavior | None = None,
        *,
        max_history: int | None = None,
        chosen: np.ndarray | None = None,
    ) -> list[Request]:
        """Return the questions of a part.

        Args:
            part (`str`): `"validation"` or `"test"`.
            behavior (`str`, *optional*): `"recommendation"` or `"search"`; `None` for all, in the order of the cases.
            max_history (`int`, *optional*): Keep the latest so many events of each history.
            chosen (`np.ndarray`, *optional*): int64 numbers among these questions: only they are built.

        Returns:
            `list[Request]`: One a case, histories oldest first. Requests share their `Event` objects.

        Raises:
            ConfigurationError: If an argument has an unknown value.
        """
        cases = self.cases(part)
        numbers = cases.select(behavior)
        if chosen is not None:
            numbers = numbers[chosen]
        return build_requests(self.log, cases, numbers, check_max_history(max_history))

    def targets(self, part: SplitPart, behavior: Behavior | None = None) -> list[str]:
        """Return the item ids that answer `requests(part, behavior)`, in the same order."""
        cases = self.cases(part)
        return [cases.item_id[number] for number in cases.select(behavior).tolist()]

    def describe(self) -> dict[str, object]:
        """Return settings and counts; all of it can be written as JSON."""
        return {
            **self._settings(),
            "num_train_events": len(self.train_rows),
            "num_train_users": int(np.count_nonzero(np.bincount(self.timeline.user[self.train_rows]))),
            "num_cases": self.num_cases(),
            "query_source": self.log.query_source,
            "fingerprint": self.fingerprint,
        }

    def counts(self) -> SplitCounts:
        """Count what was split, for the checks of the whole."""
        t = self.timeline
        num_targets = len(self.training_targets(include_queries=True)) if len(self.train_rows) else 0
        # Nothing but whether there is any is asked of the histories, so one event of each will do.
        lengths = self.training_histories(max_history=1).lengths if len(self.train_rows) else np.empty(0)
        return SplitCounts(
            num_events=self.log.num_events,
            num_users=int(t.user[-1]) + 1 if len(t.user) else 0,
            num_train_events=len(self.train_rows),
            num_train_users=int(np.count_nonzero(np.bincount(t.user[self.train_rows]))),
            num_targets=num_targets,
            num_histories=len(lengths),
            num_empty_histories=int((lengths == 0).sum()),
            num_cases=self.num_cases(),
            num_empty_cases={part: int((self.cases(part).histories.lengths == 0).sum()) for part in SPLIT_PARTS},
        )

    def num_cases(self) -> dict[str, dict[str, int]]:
        """Count the questions of each part by behavior."""
        return {
            part: {behavior: len(self.cases(part).select(behavior)) for behavior in BEHAVIORS} for part in SPLIT_PARTS
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the log, the settings, the training rows and the cases: 64 hexadecimal digits."""
        settings = json.dumps({**self._settings(), "log": self.log.fingerprint}, sort_keys=True)
        return table_digest(
            pa.table({"settings": [settings]}), self._train_table(), self.validation.to_table(), self.test.to_table()
        )

    def _settings(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in SETTINGS}

    def _train_table(self) -> pa.Table:
        return pa.table({"row": pa.array(self.train_rows, pa.int64())})

    def save(self, folder: str | Path, *, include_log: bool = True) -> None:
        """Write the split: three Parquet files, the log in the folder `log`, and, last, `split.json`.

        Args:
            folder (`str` or `Path`): Made if it does not exist; an earlier split in it is replaced.
            include_log (`bool`): Write the log too. Without it, `load` needs the log.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        # Without split.json the folder does not load: an interrupted save is never taken for a split.
        (target / SPLIT_FILE).unlink(missing_ok=True)
        if include_log:
            self.log.save(target / LOG_FOLDER)
        tables = {TRAIN_FILE: self._train_table()}
        tables |= {f"{part}.parquet": self.cases(part).to_table() for part in SPLIT_PARTS}
        for file_name, table in tables.items():
            write_table(target / file_name, table)
        description = {"version": SPLIT_VERSION, **self.describe()}
        write_json(target / SPLIT_FILE, description)

    @classmethod
    def load(cls, folder: str | Path, *, log: EventLog | None = None) -> Split:
        """Read a split that `save` wrote.

        Args:
            folder (`str` or `Path`): The folder given to `save`.
            log (`EventLog`, *optional*): The log that was split; `None` reads the one in the folder.

        Raises:
            DataError: If a file is missing, written by another version, or does not belong to the log or the others.
        """
        source = Path(folder)
        check_files(source, (SPLIT_FILE, TRAIN_FILE, *(f"{part}.parquet" for part in SPLIT_PARTS)), "split")
        with refuse_damage(source, "split"):
            description = read_description(source / SPLIT_FILE, SPLIT_VERSION, "split")
            if log is None:
                log = EventLog.load(source / LOG_FOLDER)
            split = cls(
                log=log,
                train_rows=np.asarray(pq.read_table(source / TRAIN_FILE)["row"], dtype=np.int64),
                validation=Cases.from_table(pq.read_table(source / "validation.parquet")),
                test=Cases.from_table(pq.read_table(source / "test.parquet")),
                **{name: description[name] for name in SETTINGS},
            )
            if split.fingerprint != description["fingerprint"]:
                raise DataError(
                    f"The split in {source} has fingerprint {split.fingerprint[:12]} with log {log.name!r}, but "
                    f"{SPLIT_FILE} says {description['fingerprint'][:12]}; a file was changed, or the log is a "
                    "different one. Split the log again."
                )
            check_split(split)
            return split


def check_max_history(max_history: int | None) -> int | None:
    """Return the limit, or refuse one below 1."""
    if max_history is not None and max_history < 1:
        raise ConfigurationError(f"`max_history` is {max_history!r}; give 1 or more, or None for all.")
    return max_history


def check_split(split: Split) -> None:
    """Refuse a split that leaves nothing to train on, and warn where most questions have no history.

    Raises:
        DataError: If training has no event or nothing to ask for, or the test or validation has no question.
    """
    check_counts(split.counts(), split.log.name, split.method, split.protocol)
