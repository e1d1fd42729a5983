# SPDX-License-Identifier: Apache-2.0
"""Split a log into training, validation and test, so that no answer can be read from the question or from training.

Protocol `strict` (the default) makes one split of each user's timeline for both tasks. For a target (user, item, time)

- the history holds only events of the user with an EARLIER timestamp and another item;
- training holds no event of the user with that item, and none at or after the timestamp of the user's first target.

Method `leave_one_out` takes each user's last distinct (user, item, timestamp) for the test and the last but one for
validation; users with fewer than three stay in training only. Method `last_days` takes every interaction of the last
`num_test_days` days (UTC) for the test, each user's first of the last day before that has any for validation, and
trains on what lies before that day. Either way a held-out interaction is asked as a recommendation and, where a query
can be had ([`find_queries`](held_out.py)), as a search. Only `last_days` trains on no later event of *other* users.

Protocol `paper` does what the released GenSAR pipeline does, for comparison. It leaks. Reproduced are:

- leave-one-out by task: the last two recommendations and the last two searches of each user, each asked in its own
  task only; the copies of a target in the other task, and later events of the other task, stay in training;
- "last" means last by (timestamp, item id), while histories stand by (timestamp, rating), or by timestamp and the
  order of the log where events have no column `rating`: the recommendation at position p is given the first p of the
  other order, and may be one of them itself;
- a search is given every recommendation of its own timestamp, except the last one where that has the same item;
- targets must follow a recommendation and a search (if the log has any), and a user needs three of them in a task.

Not reproduced: 5-core filtering, text cleaning, the one query a pair (readers do that) and the released negatives.
With `last_days`, `paper` asks every interaction of the window in its own task, with these histories; it drops no pair.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import ConfigurationError, DataError
from seekrec.events import held_out
from seekrec.events.audit import audit
from seekrec.events.cases import Cases, TrainingHistories, build_requests
from seekrec.events.checks import check_choice
from seekrec.events.log import EventLog
from seekrec.events.split_checks import check_split
from seekrec.events.storage import check_files, refuse_damage, table_digest
from seekrec.events.timeline import PaperOrder, Timeline, histories_before, is_among, merge_histories, paper_order
from seekrec.schema import BEHAVIORS, Behavior, Request
from seekrec.util.files import replace_file

Method = Literal["leave_one_out", "last_days"]
Protocol = Literal["strict", "paper"]
Part = Literal["validation", "test"]

METHODS: tuple[Method, ...] = ("leave_one_out", "last_days")
PROTOCOLS: tuple[Protocol, ...] = ("strict", "paper")
Kinds = tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]
PARTS: tuple[Part, ...] = ("validation", "test")

SETTINGS = ("method", "protocol", "seed", "num_test_days", "max_history", "keep_impressions")

SPLIT_FILE = "split.json"
TRAIN_FILE = "train_rows.parquet"
LOG_FOLDER = "log"
SPLIT_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Split:
    """A log, the rows that training may use, and the held-out questions. Built by [`split_log`].

    Args:
        log (`EventLog`): The log.
        method (`str`): `"leave_one_out"` or `"last_days"`.
        protocol (`str`): `"strict"` or `"paper"`.
        seed (`int`): Of the choice of queries.
        train_rows (`np.ndarray`): int64 rows of `log.events` that training may use, as target or history, ascending.
            With `"paper"` training histories may hold held-out rows besides: that is one of its leaks.
        validation (`Cases`): Questions to choose a model by.
        test (`Cases`): Questions to report.
        num_test_days (`int`, *optional*): Of method `"last_days"`, else `None`.
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
        """Give the events that training may use, in the order of the log."""
        return self.log.events.take(self.train_rows)

    def cases(self, part: Part) -> Cases:
        """Give the cases of a part.

        Raises:
            ConfigurationError: If the part is unknown.
        """
        check_choice("part", part, PARTS)
        return self.test if part == "test" else self.validation

    def training_acts(self) -> np.ndarray:
        """Give the `train_rows` in which a user did something, be it a search without a click: int64, ascending."""
        return self.train_rows[~self.timeline.is_impression[self.train_rows]]

    def training_interactions(self) -> np.ndarray:
        """Give the `train_rows` in which a user acted on an item: int64, ascending."""
        return self.train_rows[self.timeline.is_interaction[self.train_rows]]

    def is_training_target(self) -> np.ndarray:
        """Say for each of `train_rows` whether training may ask for its item: bool of shape `(len(train_rows),)`.

        Strict: every interaction. Paper: those that its filters leave.
        """
        if self.protocol == "strict":
            return self.timeline.is_interaction[self.train_rows]
        return is_among(self.train_rows, held_out.paper_targets(self.timeline, self._paper_order)[0])

    def training_targets(self, *, include_queries: bool = False) -> np.ndarray:
        """Give the rows that training may ask for.

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
        """Give the history of each training target.

        The size grows with the square of a user's events: on large logs set a limit (histories are cut before they are
        expanded), or ask for some targets at a time.

        Args:
            max_history (`int`, *optional*): Keep the latest so many; `None` takes the split's own `max_history`.
            max_of_kind (`Kinds`, *optional*): For two kinds of events (bool, one entry an event of the log), how many
                latest to keep of each instead; none is kept of neither.
            target_rows (`np.ndarray`, *optional*):
                int64 rows out of [`training_targets`]; `None` takes all that have an item.

        Returns:
            `TrainingHistories`: Strict: the user's training events with an earlier timestamp and another item. Paper:
            what the released pipeline takes for the preceding events.

        Raises:
            DataError: If a row of `target_rows` is not among `train_rows`.
        """
        limits = [limit for limit in (_check_max_history(max_history), self.max_history) if limit is not None]
        limit = min(limits, default=None)
        targets = self.training_targets() if target_rows is None else np.asarray(target_rows, dtype=np.int64)
        if target_rows is not None and not (known := is_among(targets, self.train_rows)).all():
            raise DataError(
                f"`target_rows` holds row {targets[~known][0]}, which training may not use; take rows from "
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
        part: Part,
        behavior: Behavior | None = None,
        *,
        max_history: int | None = None,
        chosen: np.ndarray | None = None,
    ) -> list[Request]:
        """Give the questions of a part.

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
        return build_requests(self.log, cases, numbers, _check_max_history(max_history))

    def targets(self, part: Part, behavior: Behavior | None = None) -> list[str]:
        """Give the item ids that answer `requests(part, behavior)`, in the same order."""
        cases = self.cases(part)
        return [cases.item_id[number] for number in cases.select(behavior).tolist()]

    def describe(self) -> dict[str, Any]:
        """Give settings and counts; all of it can be written as JSON."""
        return {
            **self._settings(),
            "num_train_events": len(self.train_rows),
            "num_train_users": int(np.count_nonzero(np.bincount(self.timeline.user[self.train_rows]))),
            "num_cases": {
                part: {behavior: len(self.cases(part).select(behavior)) for behavior in BEHAVIORS} for part in PARTS
            },
            "query_source": self.log.query_source,
            "fingerprint": self.fingerprint(),
        }

    def fingerprint(self) -> str:
        """Give a SHA-256 over the log, the settings, the training rows and the cases: 64 hexadecimal digits."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        settings = json.dumps({**self._settings(), "log": self.log.fingerprint()}, sort_keys=True)
        return table_digest(
            pa.table({"settings": [settings]}), self._train_table(), self.validation.to_table(), self.test.to_table()
        )

    def _settings(self) -> dict[str, Any]:
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
        tables |= {f"{part}.parquet": self.cases(part).to_table() for part in PARTS}
        for file_name, table in tables.items():
            with replace_file(target / file_name) as path:
                pq.write_table(table, path, compression="zstd")
        description = {"version": SPLIT_VERSION, **self.describe()}
        with replace_file(target / SPLIT_FILE) as path:
            path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

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
        check_files(source, (SPLIT_FILE, TRAIN_FILE, *(f"{part}.parquet" for part in PARTS)), "split")
        with refuse_damage(source, "split"):
            description = json.loads((source / SPLIT_FILE).read_text(encoding="utf-8"))
            if description.get("version") != SPLIT_VERSION:
                raise DataError(
                    f"{source / SPLIT_FILE} has version {description.get('version')!r}, this package reads "
                    f"{SPLIT_VERSION}; save the split again."
                )
            if log is None:
                log = EventLog.load(source / LOG_FOLDER)
            split = cls(
                log=log,
                train_rows=np.asarray(pq.read_table(source / TRAIN_FILE)["row"], dtype=np.int64),
                validation=Cases.from_table(pq.read_table(source / "validation.parquet")),
                test=Cases.from_table(pq.read_table(source / "test.parquet")),
                **{name: description[name] for name in SETTINGS},
            )
            if split.fingerprint() != description["fingerprint"]:
                raise DataError(
                    f"The split in {source} has fingerprint {split.fingerprint()[:12]} with log {log.name!r}, but "
                    f"{SPLIT_FILE} says {description['fingerprint'][:12]}; a file was changed or the log is another. "
                    "Split the log again."
                )
            check_split(split)
            return split


def split_log(
    log: EventLog,
    *,
    method: Method = "leave_one_out",
    protocol: Protocol = "strict",
    num_test_days: int = 1,
    seed: int = 0,
    max_history: int | None = None,
    keep_impressions: bool = False,
) -> Split:
    """Split a log; the module says how.

    Args:
        log (`EventLog`): The log.
        method (`str`): `"leave_one_out"` or `"last_days"`.
        protocol (`str`): `"strict"`, or `"paper"` to compare with published numbers.
        num_test_days (`int`): Of `"last_days"`; ignored otherwise.
        seed (`int`): Of the choice among an item's synthetic queries.
        max_history (`int`, *optional*): Histories keep the latest so many events; `None` keeps all.
        keep_impressions (`bool`): Whether histories (strict) hold items that were shown but not acted on.

    Returns:
        `Split`: The split; strict ones have passed [`audit`].

    Raises:
        ConfigurationError: If an argument has an unknown value.
        DataError: If the log is too short, nothing is left to train on, or `"last_days"` is asked of a log without
            time.
        LeakageError: If a strict split leaks.
    """
    check_choice("method", method, METHODS)
    check_choice("protocol", protocol, PROTOCOLS)
    _check_max_history(max_history)
    if method == "last_days" and num_test_days < 1:
        raise ConfigurationError(f"`num_test_days` is {num_test_days!r}; give 1 or more.")
    t = Timeline.from_log(log)
    order = paper_order(log, t) if protocol == "paper" else None
    if method == "last_days":
        chosen = held_out.last_days(log, t, num_test_days, is_strict=order is None)
    elif order is None:
        chosen = held_out.leave_one_out_strict(t)
    else:
        chosen = held_out.leave_one_out_paper(t, order)

    usable = np.arange(len(t.user)) if keep_impressions else np.flatnonzero(~t.is_impression)
    cases = [
        held_out.ask(log, t, rows, chosen.train_rows, usable=usable, order=order, seed=seed, max_history=max_history)
        for rows in (chosen.validation, chosen.test)
    ]
    split = Split(
        log=log,
        method=method,
        protocol=protocol,
        seed=seed,
        train_rows=chosen.train_rows,
        validation=cases[0],
        test=cases[1],
        num_test_days=num_test_days if method == "last_days" else None,
        max_history=max_history,
        keep_impressions=keep_impressions,
    )
    split.__dict__["timeline"] = t  # already made; fills the cached property
    check_split(split)
    if protocol == "strict":
        audit(split).raise_if_leaking()
    logger.info("Split %s: %s, protocol %s, %d training events.", log.name, method, protocol, len(split.train_rows))
    return split


def _check_max_history(max_history: int | None) -> int | None:
    if max_history is not None and max_history < 1:
        raise ConfigurationError(f"`max_history` is {max_history!r}; give 1 or more, or None for all.")
    return max_history
