# SPDX-License-Identifier: Apache-2.0
"""Count the leaks of a split: answers revealed by a question or by training.

The counts come from the arrays of the finished split, not from the rules that built it, so they also check the
builder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import LeakageError
from seekrec.events.cases import Cases
from seekrec.events.split import Split
from seekrec.events.timeline import Timeline, is_among, item_rows
from seekrec.schema import SEARCH
from seekrec.util.ragged import Ragged

# Training histories are examined up to so many history rows in all, then a seeded sample of the targets is: about
# 600 MB at the peak. All of MovieLens-100K fits.
MAX_TRAINING_HISTORY_ROWS = 12_000_000


@dataclass(frozen=True)
class PartAudit:
    """Leaks of one part: each number counts cases (for `training`: training targets).

    Args:
        part (`str`): `"validation"`, `"test"` or `"training"`.
        num_targets (`int`): Number of targets examined.
        in_own_history (`int`): The target's item is in its own history.
        pair_trained (`int`): Training uses the target's (user, item) pair, as a target or in a history of either task.
        pair_trained_in_other_task (`int`): Of these, those that training uses as an event of the other behavior.
        history_not_before (`int`): The history contains an event at or after the target's timestamp.
        training_not_before (`int`): Training uses an event of the same user at or after the target's timestamp.

    The two counts of trained pairs and the last one do not apply to `training` and are 0 there.
    """

    part: str
    num_targets: int
    in_own_history: int
    pair_trained: int
    pair_trained_in_other_task: int
    history_not_before: int
    training_not_before: int

    @property
    def num_leaks(self) -> int:
        """Sum of the counts; a case that leaks twice counts twice."""
        return self.in_own_history + self.pair_trained + self.history_not_before + self.training_not_before

    def plus(self, other: PartAudit) -> PartAudit:
        """Add the counts of the same part of other users."""
        mine, its = asdict(self), asdict(other)
        return PartAudit(self.part, **{name: mine[name] + its[name] for name in mine if name != "part"})


@dataclass(frozen=True)
class AuditReport:
    """Leaks of a split. `str()` gives a table.

    Args:
        log_name (`str`): Name of the data set.
        method (`str`): Method of the split.
        protocol (`str`): Protocol of the split.
        validation (`PartAudit`): Counts over the validation cases.
        test (`PartAudit`): Counts over the test cases.
        training (`PartAudit`): Counts over the training targets and their histories.
        num_training_targets (`int`): All training targets; more than `training.num_targets` where only a sample was
            examined.
    """

    log_name: str
    method: str
    protocol: str
    validation: PartAudit
    test: PartAudit
    training: PartAudit
    num_training_targets: int

    @property
    def parts(self) -> tuple[PartAudit, PartAudit, PartAudit]:
        """Validation, test, training."""
        return self.validation, self.test, self.training

    @property
    def num_leaks(self) -> int:
        """Sum over all parts."""
        return sum(part.num_leaks for part in self.parts)

    def to_dict(self) -> dict[str, object]:
        """Return all counts as plain numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, counts: Mapping[str, Any]) -> AuditReport:
        """Read what `to_dict` returned."""
        parts = {part: PartAudit(**counts[part]) for part in ("validation", "test", "training")}
        return cls(**{**counts, **parts})

    @classmethod
    def total(cls, reports: Iterable[AuditReport]) -> AuditReport:
        """Add up the reports of parts of one log that have different users."""
        first, *others = reports
        for other in others:
            first = replace(
                first,
                validation=first.validation.plus(other.validation),
                test=first.test.plus(other.test),
                training=first.training.plus(other.training),
                num_training_targets=first.num_training_targets + other.num_training_targets,
            )
        return first

    def raise_if_leaking(self) -> None:
        """Raise unless every count is zero.

        Raises:
            LeakageError: Naming each count above zero.
        """
        if self.num_leaks == 0:
            return
        names = ("in_own_history", "pair_trained", "history_not_before", "training_not_before")
        found = [
            f"{name} {getattr(part, name)} of {part.num_targets} ({part.part})"
            for part in self.parts
            for name in names
            if getattr(part, name)
        ]
        raise LeakageError(
            f"The split of log {self.log_name!r} (method {self.method!r}, protocol {self.protocol!r}) leaks answers: "
            f"{', '.join(found)}. Build it with split_log(protocol='strict') and do not change its rows."
        )

    def describe(self) -> str:
        """Return the counts as a table to read."""
        columns = (
            ("part", "part"),
            ("targets", "num_targets"),
            ("in own history", "in_own_history"),
            ("pair trained", "pair_trained"),
            ("in other task", "pair_trained_in_other_task"),
            ("history at or after", "history_not_before"),
            ("training at or after", "training_not_before"),
        )
        rows = [[title for title, _ in columns]]
        rows += [[f"{getattr(part, name)}" for _, name in columns] for part in self.parts]
        for column in (3, 4, 6):
            rows[3][column] = "-"
        widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
        lines = [f"Leaks in {self.log_name} ({self.method}, {self.protocol}): {self.num_leaks}"]
        for row in rows:
            numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
        if self.training.num_targets < self.num_training_targets:
            sample = f"training: a sample of {self.training.num_targets} of {self.num_training_targets} targets"
            lines.append(sample + ("; trained pairs are lower bounds" if self.protocol == "paper" else ""))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()


def audit(
    split: Split, *, max_history_rows: int = MAX_TRAINING_HISTORY_ROWS, targets: np.ndarray | None = None
) -> AuditReport:
    """Count the leaks of a split.

    Args:
        split (`Split`): A split of either protocol.
        max_history_rows (`int`): Above so many rows in the training histories, a seeded sample of the training targets
            is examined. The cases always are all examined; but with protocol `"paper"`, whose training histories may
            hold held-out rows, `pair_trained` and `training_not_before` are then lower bounds.
        targets (`np.ndarray`, *optional*): The training targets to examine instead: int64 rows, ascending.

    Returns:
        `AuditReport`: Counts for validation, test and training.
    """
    timeline = split.timeline
    all_targets = split.training_targets(include_queries=True)
    if targets is None:
        targets = all_targets
        longest = longest_histories(split, targets)
        if longest.sum() > max_history_rows:
            shuffled = np.random.default_rng(split.seed).permutation(len(targets))
            enough = int(np.searchsorted(np.cumsum(longest[shuffled]), max_history_rows))
            targets = np.sort(targets[shuffled[: max(enough, 1)]])

    used = np.zeros(len(timeline.user), dtype=bool)
    used[split.train_rows] = True
    in_own_history = history_not_before = 0
    for some in _in_blocks(targets, longest_histories(split, targets)):
        histories = split.training_histories(target_rows=some)
        used[histories.values] = True
        # A search without a click has no item to leak.
        own_item = np.where(timeline.item[some] < 0, -2, timeline.item[some])
        in_own_history += _count_own_item(timeline, histories, own_item)
        history_not_before += _count_late(timeline, histories, timeline.timestamp[some])
    return AuditReport(
        log_name=split.log.name,
        method=split.method,
        protocol=split.protocol,
        validation=_audit_cases(split, "validation", split.validation, used),
        test=_audit_cases(split, "test", split.test, used),
        training=PartAudit(
            part="training",
            num_targets=len(targets),
            in_own_history=in_own_history,
            pair_trained=0,
            pair_trained_in_other_task=0,
            history_not_before=history_not_before,
            training_not_before=0,
        ),
        num_training_targets=len(all_targets),
    )


def longest_histories(split: Split, targets: np.ndarray) -> np.ndarray:
    """Bound the length of the history of each target, int64: no history is longer than the user's earlier events."""
    longest: np.ndarray = targets - split.timeline.user_start[targets]
    return longest if split.max_history is None else np.minimum(longest, split.max_history)


def _in_blocks(targets: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut targets into runs whose histories contain about `MAX_TRAINING_HISTORY_ROWS` rows at most."""
    block = (np.cumsum(lengths) - lengths) // MAX_TRAINING_HISTORY_ROWS
    return np.split(targets, np.flatnonzero(np.diff(block)) + 1) if len(targets) else []


def _audit_cases(split: Split, part: str, cases: Cases, used: np.ndarray) -> PartAudit:
    """Compare the cases with their histories and with the events that training uses (`used`, bool by row)."""
    timeline = split.timeline
    # Ids are looked up again: the cases are what is asked, whatever they were built from.
    user_ids = split.log.events["user_id"].take(timeline.first_rows()).combine_chunks()
    user = np.asarray(pc.index_in(pa.array(cases.user_id, pa.string()), value_set=user_ids), dtype=np.int64)
    item = item_rows(split.log, pa.array(cases.item_id, pa.string()))
    is_search = np.asarray(cases.behavior, dtype=object) == SEARCH

    used_rows = np.flatnonzero(used & (timeline.item >= 0))
    pairs = user * timeline.num_items + item
    trained = is_among(pairs, timeline.pairs(used_rows))
    # Each pair twice, once for each behavior: even numbers recommend, odd ones search.
    trained_tasks = timeline.pairs(used_rows) * 2 + timeline.is_search[used_rows]
    trained_in_other_task = is_among(pairs * 2 + ~is_search, trained_tasks)

    latest = np.full(len(user_ids), np.iinfo(np.int64).min)
    # Rows are sorted by user and time: the last write to each user is its latest.
    all_used = np.flatnonzero(used)
    latest[timeline.user[all_used]] = timeline.timestamp[all_used]
    return PartAudit(
        part=part,
        num_targets=len(cases),
        in_own_history=_count_own_item(timeline, cases.histories, item),
        pair_trained=int(trained.sum()),
        pair_trained_in_other_task=int(trained_in_other_task.sum()),
        history_not_before=_count_late(timeline, cases.histories, cases.timestamp),
        training_not_before=int((latest[user] >= cases.timestamp).sum()),
    )


def _count_own_item(timeline: Timeline, histories: Ragged, own_item: np.ndarray) -> int:
    return int(histories.any(timeline.item[histories.values] == histories.spread(own_item)).sum())


def _count_late(timeline: Timeline, histories: Ragged, own_time: np.ndarray) -> int:
    return int(histories.any(timeline.timestamp[histories.values] >= histories.spread(own_time)).sum())
