# SPDX-License-Identifier: Apache-2.0
"""Measures of lists for a partitioned log: lists are computed a partition at a time, and measured together."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.evaluation.measures import CaseTraits, add_measures, top_items
from seekrec.evaluation.partition_cases import PartitionCases, is_on_gpu, users_of
from seekrec.evaluation.protocols import EvaluationCases, Retriever, Scorer
from seekrec.evaluation.report import ResultRow
from seekrec.events.partitions import Job, run_partitions
from seekrec.events.partitions.engines import Engine
from seekrec.events.partitions.sampled import order_of_users
from seekrec.events.query_log import QueryLog
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.util.arrow import one_array
from seekrec.util.files import write_table


@dataclass(frozen=True)
class ListPartition:
    """Writes the lists that systems answer the cases of one partition with, and what tells the cases apart.

    Args:
        cases ([`PartitionCases`]): Builds the cases.
        systems (`Mapping[str, Scorer | Retriever]`): As in [`measure_partitions`], like all that follow.
        behaviors (`Sequence[str]`): Behaviors.
        query_log ([`QueryLog`], *optional*): Knows the queries of training.
    """

    cases: PartitionCases
    systems: Mapping[str, Scorer | Retriever]
    behaviors: Sequence[Behavior]
    query_log: QueryLog | None

    def __call__(self, job: Job, folder: Path) -> None:
        """Write a file for each behavior of the partition that a job names."""
        partition = self.cases.split.partition(job.settings["partition"])
        for number, behavior in enumerate(self.behaviors):
            tables = [
                self._list_block(cases, behavior)
                for cases in self.cases.blocks(partition, behavior, "full", job.settings["wanted"][behavior])
            ]
            if tables:
                write_table(_lists_file(folder, number), pa.concat_tables(tables))

    def _list_block(self, cases: EvaluationCases, behavior: Behavior) -> pa.Table:
        traits = CaseTraits.of(cases, self.cases.id_map, self.query_log)
        columns = {"user": users_of(cases), "length": traits.lengths, "target": traits.target_rows}
        if traits.is_known is not None:
            columns["is_known"] = traits.is_known
        for name, system in self.systems.items():
            if behavior in system.behaviors:
                lists = top_items(system, cases, self.cases.id_map)
                columns[f"list {name}"] = pa.FixedSizeListArray.from_arrays(lists.ravel(), lists.shape[1])
        return pa.table(columns)


def measure_partitions(
    rows: Sequence[ResultRow],
    systems: Mapping[str, Scorer | Retriever],
    cases: PartitionCases,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    max_cases: int | None = None,
    vectors: np.ndarray,
    query_log: QueryLog | None = None,
    scratch: str | Path | None = None,
    engine: Engine = "local",
) -> list[ResultRow]:
    """Add the measures of lists to rows of full ranking over all partitions; see [`measure_rows`].

    Args:
        rows (`Sequence[ResultRow]`): What [`evaluate_partitions`] returned for these cases.
        systems (`Mapping[str, Scorer | Retriever]`): Those whose lists are measured.
        cases ([`PartitionCases`]): Builds the cases; its `counts` are those of training.
        behaviors (`Sequence[str]`): Behaviors of the rows.
        max_cases (`int`, *optional*): Number of cases of each behavior.
        vectors (`np.ndarray`): float32 text vectors of unit length, `(num_items, dimension)`.
        query_log ([`QueryLog`], *optional*): Knows the queries of training.
        scratch (`str` or `Path`, *optional*): See [`evaluate_partitions`].
        engine (`str`): See [`run_partitions`].

    Returns:
        `list[ResultRow]`: The rows of groups.

    Raises:
        DataError: If `counts` is missing.
    """
    if cases.counts is None:
        raise DataError(
            "Measures of lists need `counts` over the whole log, which one partition does not have; pass them."
        )
    protocol = "full" if cases.periods is None else "full, available"
    list_partition = ListPartition(cases, dict(systems), tuple(behaviors), query_log)
    groups = []
    with tempfile.TemporaryDirectory(prefix=".ranks-", dir=scratch) as folder:
        jobs = cases.jobs(behaviors, max_cases, Path(folder))
        use_gpu = any(is_on_gpu(system) for system in systems.values())
        run_partitions(list_partition, jobs, engine=engine, use_gpu=use_gpu)
        for number, behavior in enumerate(behaviors):
            files = [path for job in jobs if (path := _lists_file(Path(job.output), number)).is_file()]
            if not files:
                continue
            table = pa.concat_tables([pq.read_table(path) for path in files])
            table = table.take(pa.array(order_of_users(one_array(table["user"]))))
            lists = {
                name: np.stack(table[f"list {name}"].to_numpy())
                for name in systems
                if f"list {name}" in table.column_names
            }
            is_known = np.array(table["is_known"], dtype=bool) if "is_known" in table.column_names else None
            traits = CaseTraits(table["length"].to_numpy(), table["target"].to_numpy(), is_known)
            own = [row for row in rows if row.behavior == behavior and row.protocol == protocol]
            groups += add_measures(own, lists, traits, counts=cases.counts, vectors=vectors)
    return groups


def _lists_file(folder: Path, number: int) -> Path:
    return folder / f"lists-{number}.parquet"


__all__ = ["ListPartition", "measure_partitions"]
