# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a log that is larger than memory: cases are built and ranked a block of a partition at a time.

Partitions are ranked one after the other, or by several processes, on this machine or a Ray cluster.

Only the ranks and users of the cases are kept, sorted by user as in a log in memory. So means and intervals equal
those of [`evaluate_systems`] to the last digit, unless a system's scores depend on how requests are batched.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seekrec.errors import DataError
from seekrec.evaluation.evaluator import check_system, make_row, rank_cases
from seekrec.evaluation.metrics import DEFAULT_K
from seekrec.evaluation.partition_cases import PartitionCases, is_on_gpu, users_of
from seekrec.evaluation.protocols import CaseFacts, EvaluationCases, RankingProtocol, Retriever, Scorer, none_left
from seekrec.evaluation.report import ResultRow
from seekrec.evaluation.tuning import for_protocol
from seekrec.events.partitions import Job, run_partitions
from seekrec.events.partitions.engines import Engine, JsonObject
from seekrec.events.partitions.sampled import order_of_users
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.util.files import write_json, write_table

_FACTS_FILE = "facts.json"


@dataclass
class _Ranked:
    """What is kept of the cases of one behavior and protocol: their users, and ranks by system.

    Args:
        facts ([`CaseFacts`], *optional*): What all of them share; `None` where there are none.
        users (`list[pyarrow.Array]`): Users of the cases, a block after the other.
        ranks (`dict[str, list[np.ndarray]]`): By system, float64 of shape `(num_cases, 2)` for each block.
        seconds (`dict[str, float]`): By system, time of asking and ranking.
        digests (`list[str]`): Fingerprints of the blocks.
    """

    facts: CaseFacts | None = None
    users: list[pa.Array] = field(default_factory=list)
    ranks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)

    def join(self, other: _Ranked) -> None:
        """Add the cases of another partition."""
        self.facts = other.facts or self.facts
        self.users += other.users
        self.digests += other.digests
        for name, ranks in other.ranks.items():
            self.ranks.setdefault(name, []).extend(ranks)
            self.seconds[name] = self.seconds.get(name, 0.0) + other.seconds[name]

    def write(self, path: Path) -> JsonObject:
        """Write users and ranks as Parquet; return the rest as JSON could hold it."""
        if self.facts is None:
            return {}
        columns: dict[str, pa.Array] = {"user": pa.concat_arrays(self.users)}
        for number, ranks in enumerate(self.ranks.values()):
            first, last = np.concatenate(ranks).T
            columns |= {f"first_{number}": pa.array(first), f"last_{number}": pa.array(last)}
        write_table(path, pa.table(columns))
        return {"facts": asdict(self.facts), "seconds": self.seconds, "digests": self.digests}

    @classmethod
    def read(cls, path: Path, content: JsonObject) -> _Ranked:
        """Read what `write` wrote and returned."""
        if not content:
            return cls()
        table = pq.read_table(path)
        found = cls(CaseFacts(**content["facts"]), [table["user"].combine_chunks()])
        found.seconds, found.digests = dict(content["seconds"]), list(content["digests"])
        for number, name in enumerate(found.seconds):
            sides = [table[f"{side}_{number}"].to_numpy() for side in ("first", "last")]
            found.ranks[name] = [np.stack(sides, axis=1)]
        return found


@dataclass(frozen=True)
class RankPartition:
    """Ranks the cases of one partition with all systems; it holds them, so that each process loads them once.

    Args:
        cases ([`PartitionCases`]): Builds the cases.
        systems (`Mapping[str, Scorer | Retriever]`): As in [`evaluate_partitions`], like all that follow.
        behaviors (`Sequence[str]`): Behaviors.
        protocols (`Sequence[str]`): Protocols.
        top_k (`int`): Length of lists.
        show_progress (`bool`): Whether progress bars are shown.
    """

    cases: PartitionCases
    systems: Mapping[str, Scorer | Retriever]
    behaviors: Sequence[Behavior]
    protocols: Sequence[RankingProtocol]
    top_k: int
    show_progress: bool

    def __call__(self, job: Job, folder: Path) -> None:
        """Rank the cases of the partition that a job names, and write what is kept of them."""
        partition = self.cases.split.partition(job.settings["partition"])
        kept = []
        for number, (behavior, protocol) in enumerate(product(self.behaviors, self.protocols)):
            found = _Ranked()
            for cases in self.cases.blocks(partition, behavior, protocol, job.settings["wanted"][behavior]):
                found.join(self._rank_block(cases, behavior, protocol))
            kept.append(found.write(_ranks_file(folder, number)))
        write_json(folder / _FACTS_FILE, kept)

    def _rank_block(self, cases: EvaluationCases, behavior: Behavior, protocol: RankingProtocol) -> _Ranked:
        found = _Ranked(cases.facts, [users_of(cases)], digests=[cases.fingerprint])
        for name, system in self.systems.items():
            if behavior in system.behaviors:
                started = time.perf_counter()
                ranks = rank_cases(
                    for_protocol(system, protocol),
                    cases,
                    self.cases.id_map,
                    name=name,
                    top_k=self.top_k,
                    show_progress=self.show_progress,
                )
                found.ranks[name] = [ranks]
                found.seconds[name] = time.perf_counter() - started
        return found


def evaluate_partitions(
    systems: Mapping[str, Scorer | Retriever],
    cases: PartitionCases,
    *,
    behaviors: Sequence[Behavior] = BEHAVIORS,
    protocols: Sequence[RankingProtocol] = ("full",),
    k: Sequence[int] = DEFAULT_K,
    top_k: int = 50,
    max_cases: int | None = None,
    show_progress: bool = False,
    scratch: str | Path | None = None,
    engine: Engine = "local",
) -> list[ResultRow]:
    """Evaluate several systems on the same cases of all partitions.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): See [`evaluate_systems`], like the next six.
        cases ([`PartitionCases`]): Builds the cases. It needs `counts` for negatives by popularity and of BM25.
        behaviors (`Sequence[str]`): Behaviors to evaluate.
        protocols (`Sequence[str]`): How cases are ranked.
        k (`Sequence[int]`): The cuts of the metrics.
        top_k (`int`): Length of the lists asked of a retriever in full ranking.
        max_cases (`int`, *optional*): Take a seeded sample of so many cases of each behavior.
        show_progress (`bool`): Show a progress bar for each system and block of cases.
        scratch (`str` or `Path`, *optional*): Where the ranks of partitions are kept until all are there; all nodes
            of a Ray cluster must see it. The system's folder if not given.
        engine (`str`): See [`run_partitions`]. With Ray, systems travel to each process once.

    Returns:
        `list[ResultRow]`: By behavior, then protocol, then system in the order given.

    Raises:
        ConfigurationError: If a system is neither a scorer nor a retriever.
        DataError: If the part contains no case of any of the behaviors, `counts` is missing, or an answer breaks the
            rules.
    """
    split, part = cases.split, cases.part
    for name, system in systems.items():
        check_system(system, name)
    if cases.counts is None and {"popularity", "bm25"} & set(protocols):
        raise DataError(
            "Negatives by popularity need `counts` over the whole log, which one partition does not have; pass them."
        )
    if not any(split.counts.num_cases[part].get(behavior, 0) for behavior in behaviors):
        raise DataError(f"The {part} part of {split.log.name!r} contains no case of {' or '.join(behaviors)}.")
    rank_partition = RankPartition(
        cases, dict(systems), tuple(behaviors), tuple(protocols), top_k, show_progress and engine == "local"
    )
    gathered = {kind: _Ranked() for kind in product(behaviors, protocols)}
    with tempfile.TemporaryDirectory(prefix=".ranks-", dir=scratch) as folder:
        jobs = cases.jobs(behaviors, max_cases, Path(folder))
        use_gpu = any(is_on_gpu(system) for system in systems.values())
        run_partitions(rank_partition, jobs, engine=engine, use_gpu=use_gpu)
        for job in jobs:
            kept = json.loads((Path(job.output) / _FACTS_FILE).read_text(encoding="utf-8"))
            for number, (found, content) in enumerate(zip(gathered.values(), kept, strict=True)):
                found.join(_Ranked.read(_ranks_file(Path(job.output), number), content))
    rows = []
    for (behavior, protocol), found in gathered.items():
        if found.facts is None:
            if split.counts.num_cases[part].get(behavior, 0):
                raise none_left(part, split.log.name, cases.num_negatives)
            continue
        order = order_of_users(pa.concat_arrays(found.users))
        digest = hashlib.sha256("".join(found.digests).encode()).hexdigest()[:16]
        for name in systems:
            if name in found.ranks:
                row = make_row(
                    np.concatenate(found.ranks[name])[order],
                    found.facts,
                    k,
                    split,
                    name=name,
                    system=for_protocol(systems[name], protocol),
                    cases_fingerprint=digest,
                    seed=cases.seed,
                    seconds=found.seconds[name],
                )
                rows.append(row)
    return rows


def _ranks_file(folder: Path, number: int) -> Path:
    return folder / f"ranks-{number}.parquet"


__all__ = ["RankPartition", "evaluate_partitions"]
