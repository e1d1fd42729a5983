# SPDX-License-Identifier: Apache-2.0
"""Result rows: written as JSON, printed as a table, and compared in pairs.

A number means nothing without its data set, protocol and split: a [`ResultRow`] contains them all, and `compare`
refuses rows that were not measured on the same cases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.evaluation.metrics import SELECTION_METRIC, FloatArray, Interval, metric_values, paired_bootstrap
from seekrec.util.files import write_json, write_table

RESULTS_VERSION = 2  # 1 held the mean rank of a tie

# What a system that is not ours is in a table: its row says so in `details["role"]`.
Role = Literal["baseline", "ceiling", "correction"]
NUM_IN_ALL = "num_cases_in_all"  # in `details`, where there was time for a part of the cases

# Measures of the first items of lists (`measures.py`): a table of their own where rows have them.
LIST_LENGTH = 10
LIST_MEASURES = tuple(
    f"{name}@{LIST_LENGTH}" for name in ("coverage", "novelty", "diversity", "popularity", "popularity_bias")
)

TABLE_METRICS = ("recall@1", "recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "mrr@10")


@dataclass(frozen=True, eq=False)
class ResultRow:
    """What one system reached on one set of cases.

    Args:
        system (`str`): Name of the system.
        dataset (`str`): Name of the log.
        behavior (`str`): `"recommendation"` or `"search"`.
        part (`str`): `"validation"` or `"test"`.
        protocol (`str`): `"full"`, or the kind and number of negatives, such as `"uniform-99"`.
        split_method (`str`): `"leave_one_out"`, `"last_tenth"` or `"last_days"`.
        split_protocol (`str`): `"strict"` or `"paper"`.
        split_fingerprint (`str`), cases_fingerprint (`str`): Ranks can be paired where both agree.
        query_source (`str`): `"category"` means synthetic queries; the table says so.
        seen_removed (`bool`): Whether items of the user's history could not be answered.
        num_cases (`int`), num_items (`int`): Sizes.
        seed (`int`): Seed of the choice of cases, negatives and resamples.
        seconds (`float`): Wall time of asking and ranking, on one machine.
        metrics (`dict[str, float]`): Means by name, such as `"ndcg@10"`.
        intervals (`dict[str, Interval]`): 95% bootstrap intervals of the same.
        details (`dict`): What the system says of itself (a weight chosen on validation, ...); can be written as JSON.
        ranks (`np.ndarray`, *optional*): float64 `(num_cases, 2)`, first and last rank that each case's target can
            have; not part of the JSON.
    """

    system: str
    dataset: str
    behavior: str
    part: str
    protocol: str
    split_method: str
    split_protocol: str
    split_fingerprint: str
    cases_fingerprint: str
    query_source: str
    seen_removed: bool
    num_cases: int
    num_items: int
    seed: int
    seconds: float
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    details: dict[str, object] = field(default_factory=dict)
    ranks: FloatArray | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, object]:
        """Return everything but the ranks, ready for JSON."""
        content = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "ranks"}
        return {**content, "intervals": {name: list(interval) for name, interval in self.intervals.items()}}

    @property
    def setting(self) -> tuple[object, ...]:
        """What must agree for two rows to be compared."""
        return (
            self.behavior,
            self.dataset,
            self.part,
            self.split_method,
            self.split_protocol,
            self.split_fingerprint,
            self.protocol,
            self.seen_removed,
            self.num_cases,
            self.num_items,
            self.query_source,
            self.cases_fingerprint,
        )


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same cases, by one metric.

    `difference` is that of A minus that of B, `interval` its 95% bootstrap interval, `p_value` two-sided.
    """

    system_a: str
    system_b: str
    behavior: str
    protocol: str
    metric: str
    value_a: float
    value_b: float
    difference: float
    interval: Interval
    p_value: float
    num_cases: int

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.system_a} - {self.system_b}, {self.behavior}, {self.protocol}, {self.metric}: "
            f"{self.value_a:.4f} - {self.value_b:.4f} = {self.difference:+.4f} [{low:+.4f}, {high:+.4f}], "
            f"p = {self.p_value:.4f}, {self.num_cases:,} cases"
        )

    def to_dict(self) -> dict[str, object]:
        """Return the fields, ready for JSON."""
        return {**asdict(self), "interval": list(self.interval)}


def write_results(path: str | Path, rows: Sequence[ResultRow]) -> None:
    """Write rows as JSON, and the rank of every case as Parquet beside it, so that systems can be compared in pairs.

    The ranks are in `<name>.ranks.parquet`, columns `row`, `first_rank` and `last_rank`. Rows that were read from a
    file without ranks are written without.

    Args:
        path (`str` or `Path`): The JSON file; its folder is made. It is replaced whole or not at all.
        rows (`Sequence[ResultRow]`): The rows.

    Raises:
        DataError: If some rows have ranks and others none.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {
        "version": RESULTS_VERSION,
        "ranks": None,
        "results": [row.to_dict() for row in rows],
    }
    if any(row.ranks is not None for row in rows):
        table = _ranks_table(rows)
        ranks_path = target.with_suffix(".ranks.parquet")
        write_table(ranks_path, table)
        content["ranks"] = {"file": ranks_path.name, "sha256": _digest(table)}
    write_json(target, content, allow_nan=False)


def read_results(path: str | Path) -> list[ResultRow]:
    """Read rows that [`write_results`] wrote, with their ranks if those were saved.

    Args:
        path (`str` or `Path`): The JSON file.

    Returns:
        `list[ResultRow]`: The rows in the order written.

    Raises:
        DataError: If the file does not contain results of this version, or the ranks are missing or of another run.
    """
    source = Path(path)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        version = content["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{source} does not hold results ({error!r}); pass a file of `write_results`.") from error
    if version != RESULTS_VERSION:
        raise DataError(f"{source} has version {version!r}, this package reads {RESULTS_VERSION}; evaluate again.")
    names = {entry.name for entry in fields(ResultRow)} - {"ranks"}
    all_ranks = _read_ranks(source, content["ranks"], len(content["results"])) if content["ranks"] else None
    rows = []
    for number, entry in enumerate(content["results"]):
        if set(entry) != names:
            raise DataError(
                f"{source}: result {number} has the wrong fields, such as {sorted(set(entry) ^ names)[0]!r}; "
                "evaluate again."
            )
        intervals = {name: Interval(*bounds) for name, bounds in entry["intervals"].items()}
        ranks = None if all_ranks is None else all_ranks[number]
        rows.append(ResultRow(**{**entry, "intervals": intervals, "ranks": ranks}))
    return rows


def compare(
    rows_a: ResultRow | Sequence[ResultRow],
    rows_b: ResultRow | Sequence[ResultRow],
    *,
    metrics: Sequence[str] = (SELECTION_METRIC,),
    seed: int = 0,
    num_samples: int = 10_000,
) -> list[Comparison]:
    """Compare systems by paired bootstrap, in every setting that both sides were measured in.

    Args:
        rows_a (`ResultRow` or `Sequence[ResultRow]`): Rows with ranks.
        rows_b (`ResultRow` or `Sequence[ResultRow]`): Rows to compare them with.
        metrics (`Sequence[str]`): Names such as `"ndcg@10"`.
        seed (`int`): Seed of the resampling.
        num_samples (`int`): As for [`paired_bootstrap`].

    Returns:
        `list[Comparison]`: For each pair of rows on the same cases, each metric.

    Raises:
        DataError: If no two rows were measured on the same cases, or a row has no ranks.
    """
    side_a = [rows_a] if isinstance(rows_a, ResultRow) else list(rows_a)
    side_b = [rows_b] if isinstance(rows_b, ResultRow) else list(rows_b)
    pairs = [(a, b) for a in side_a for b in side_b if a.setting == b.setting]
    if not pairs:
        raise DataError(
            f"No row of {[row.system for row in side_a]} was measured on the same cases as one of "
            f"{[row.system for row in side_b]}: data set, split, behavior, part, protocol, seen items and choice of "
            "cases must agree."
        )
    comparisons = []
    for a, b in pairs:
        ranks_a, ranks_b = _need_ranks(a), _need_ranks(b)
        for metric in metrics:
            values_a, values_b = metric_values(ranks_a, metric), metric_values(ranks_b, metric)
            paired = paired_bootstrap(values_a, values_b, seed=seed, num_samples=num_samples)
            comparisons.append(
                Comparison(
                    system_a=a.system,
                    system_b=b.system,
                    behavior=a.behavior,
                    protocol=a.protocol,
                    metric=metric,
                    value_a=float(values_a.mean()),
                    value_b=float(values_b.mean()),
                    difference=paired.difference,
                    interval=paired.interval,
                    p_value=paired.p_value,
                    num_cases=a.num_cases,
                )
            )
    return comparisons


def format_table(rows: Sequence[ResultRow], *, metrics: Sequence[str] = TABLE_METRICS) -> str:
    """Lay out rows as text: a section for each setting, a line for each system, the best value of a column starred.

    The 95% interval of `ndcg@10` stands next to it. A metric that a row does not have is shown as `-`. Where rows say
    that they are baselines, the strongest is named below; where they have measures of their lists, these follow.

    Args:
        rows (`Sequence[ResultRow]`): The rows; sections and lines keep their order.
        metrics (`Sequence[str]`): The columns.

    Returns:
        `str`: Lines without a line break at the end.
    """
    sections: dict[tuple[object, ...], list[ResultRow]] = {}
    for row in rows:
        sections.setdefault(row.setting, []).append(row)
    texts = []
    for section in sections.values():
        texts.append(_format_section(section, metrics))
        if any(LIST_MEASURES[0] in row.metrics for row in section):
            texts.append(_format_measures(section))
    return "\n\n".join(texts)


def _format_section(rows: Sequence[ResultRow], metrics: Sequence[str]) -> str:
    first = rows[0]
    behavior = first.behavior.capitalize()
    if first.behavior == "search" and first.query_source == "category":
        behavior += " (synthetic queries)"
    ranking = first.protocol
    if ranking.startswith("full"):
        ranking = ranking.replace("full", f"full ranking of {first.num_items:,} items")
    of_all = f" of {first.details[NUM_IN_ALL]:,} cases, for --max_minutes" if NUM_IN_ALL in first.details else " cases"
    heading = (
        f"{behavior}: {first.dataset}, {first.part}, {first.num_cases:,}{of_all}, {ranking}, "
        f"seen items {'removed' if first.seen_removed else 'kept'}\n"
        f"split: {first.split_method}, {first.split_protocol}, {first.split_fingerprint[:12]}; "
        f"cases {first.cases_fingerprint}"
    )
    best = {
        metric: max((f"{row.metrics[metric]:.4f}" for row in rows if metric in row.metrics), default="")
        for metric in metrics
    }
    header = ["system"]
    lines = [[row.system] for row in rows]
    for metric in metrics:
        header.append(f"{metric} ")
        for line, row in zip(lines, rows, strict=True):
            value = f"{row.metrics[metric]:.4f}" if metric in row.metrics else "-"
            line.append(value + ("*" if value == best[metric] else " "))
        if metric == SELECTION_METRIC:
            header.append("95% interval")
            for line, row in zip(lines, rows, strict=True):
                interval = row.intervals.get(metric)
                line.append("-" if interval is None else f"{interval.low:.4f}-{interval.high:.4f}")
    header.append("seconds")
    for line, row in zip(lines, rows, strict=True):
        line.append(f"{row.seconds:.1f}")
    return "\n".join([heading, *_lay_out(header, lines), *_notes(rows)])


def _format_measures(rows: Sequence[ResultRow]) -> str:
    """Lay out the measures of lists, each with its 95% interval."""
    measured = [row for row in rows if LIST_MEASURES[0] in row.metrics]
    lines = []
    for row in measured:
        line = [row.system]
        for name in LIST_MEASURES:
            low, high = row.intervals.get(name, (np.nan, np.nan))
            line.append(f"{row.metrics[name]:.4f} ({low:.4f} to {high:.4f})" if name in row.metrics else "-")
        lines.append(line)
    first = rows[0]
    heading = f"Lists of {first.behavior}: {first.dataset}, {first.part}, {first.num_cases:,} cases, 95% intervals"
    return "\n".join([heading, *_lay_out(["system", *LIST_MEASURES], lines)])


def _lay_out(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a header, a rule and lines with their cells below each other."""
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    table = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *lines)
    ]
    return [table[0], "-" * max(map(len, table)), *table[1:]]


def _notes(rows: Sequence[ResultRow]) -> list[str]:
    """Name the strongest baseline, and say what rows are that are none."""
    notes = []
    roles = [row.details.get("role") for row in rows]
    baselines = [row for row in rows if row.details.get("role") == "baseline" and SELECTION_METRIC in row.metrics]
    if baselines:
        best = max(baselines, key=lambda row: row.metrics[SELECTION_METRIC])
        value = best.metrics[SELECTION_METRIC]
        notes.append(f"The strongest baseline is {best.system}: {SELECTION_METRIC} {value:.4f}.")
    if "ceiling" in roles:
        ceiling = rows[roles.index("ceiling")].system
        notes.append(f"{ceiling} is told which items a query was made for: a ceiling, not a baseline.")
    if "correction" in roles:
        notes.append(
            'A target is rarely drawn as a negative: rows "less draws" take off log(1 + draws) of an item without a '
            "look at the query, and what that gains, the choice of negatives gives away."
        )
    return notes


def _need_ranks(row: ResultRow) -> FloatArray:
    if row.ranks is None:
        raise DataError(f"The row of {row.system!r} ({row.behavior}, {row.protocol}) has no ranks; evaluate again.")
    return row.ranks


def _ranks_table(rows: Sequence[ResultRow]) -> pa.Table:
    ranks = [_need_ranks(row) for row in rows]
    numbers = np.repeat(np.arange(len(rows), dtype=np.int32), [len(values) for values in ranks])
    first, last = np.concatenate([np.empty((0, 2)), *ranks]).T
    return pa.table({"row": numbers, "first_rank": first, "last_rank": last})


def _digest(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for name in ("row", "first_rank", "last_rank"):
        digest.update(np.ascontiguousarray(table.column(name).to_numpy()).tobytes())
    return digest.hexdigest()


def _read_ranks(source: Path, reference: dict[str, str], num_rows: int) -> list[FloatArray]:
    # Only the name is used: a results file cannot point outside its folder.
    path = source.with_name(Path(reference["file"]).name)
    if not path.is_file():
        raise DataError(f"{source} says that its ranks are in {path}, which does not exist; evaluate again.")
    table = pq.read_table(path)
    if _digest(table) != reference["sha256"]:
        raise DataError(f"The ranks in {path} belong to other results than {source}; evaluate again.")
    numbers = table.column("row").to_numpy()
    ranks = np.stack([table.column(name).to_numpy() for name in ("first_rank", "last_rank")], axis=1)
    return [ranks[numbers == number] for number in range(num_rows)]
