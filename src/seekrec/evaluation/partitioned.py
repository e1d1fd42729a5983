# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a log that is larger than memory: cases are built and ranked a block of a partition at a time.

Nothing but the ranks and the users of the cases is kept, and they are put in the order of users in which a log in
memory has them. So means and intervals are those of [`evaluate_systems`] to the last digit, unless a system's scores
depend on what is asked together.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seekrec.errors import DataError
from seekrec.evaluation.evaluator import check_system, make_row, rank_cases
from seekrec.evaluation.metrics import DEFAULT_K, FloatArray
from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol, Retriever, Scorer, build_cases
from seekrec.evaluation.report import ResultRow
from seekrec.events import Split
from seekrec.events.columns import RowArray
from seekrec.events.partitions import PartitionedSplit
from seekrec.events.split import SplitPart
from seekrec.schema import BEHAVIORS, Behavior, IdMap

# Cases whose requests exist at once.
_BLOCK_CASES = 8_192


@dataclass
class _Gathered:
    """What is kept of the cases of one behavior and protocol."""

    users: list[pa.Array] = field(default_factory=list)
    ranks: dict[str, list[FloatArray]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    last: EvaluationCases | None = None


def evaluate_partitions(
    systems: Mapping[str, Scorer | Retriever],
    split: PartitionedSplit,
    id_map: IdMap,
    *,
    part: SplitPart = "test",
    behaviors: Sequence[Behavior] = BEHAVIORS,
    protocols: Sequence[RankingProtocol] = ("full",),
    num_negatives: int = 99,
    remove_seen: bool = True,
    k: Sequence[int] = DEFAULT_K,
    top_k: int = 50,
    max_cases: int | None = None,
    seed: int = 0,
    periods: tuple[RowArray, RowArray] | None = None,
    counts: np.ndarray | None = None,
    show_progress: bool = False,
    block_cases: int = _BLOCK_CASES,
) -> list[ResultRow]:
    """Evaluate several systems on the same cases of all partitions.

    Args:
        systems (`Mapping[str, Scorer | Retriever]`): See [`evaluate_systems`], like all but the last three.
        split ([`PartitionedSplit`]): Where the cases come from.
        id_map ([`IdMap`]): Items of the catalogue.
        part (`str`): `"validation"` or `"test"`.
        behaviors (`Sequence[str]`): Behaviors to evaluate.
        protocols (`Sequence[str]`): How cases are ranked.
        num_negatives (`int`): Negatives a case, for sampled protocols.
        remove_seen (`bool`): Rule out the items of the request's history in full ranking.
        k (`Sequence[int]`): The cuts of the metrics.
        top_k (`int`): Length of the lists asked of a retriever in full ranking.
        max_cases (`int`, *optional*): Take a seeded sample of so many cases of each behavior.
        seed (`int`): Seed of the sample, the negatives and the bootstrap.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available.
        counts (`np.ndarray`, *optional*): Interactions of each item in the whole training part; needed for negatives
            by popularity and of BM25.
        show_progress (`bool`): Show a progress bar for each system and block of cases.
        block_cases (`int`): Cases whose requests exist at once.

    Returns:
        `list[ResultRow]`: By behavior, then protocol, then system in the order given.

    Raises:
        ConfigurationError: If a system is neither a scorer nor a retriever.
        DataError: If the part holds no case of any of the behaviors, `counts` is missing, or an answer breaks the
            rules.
    """
    for name, system in systems.items():
        check_system(system, name)
    if counts is None and {"popularity", "bm25"} & set(protocols):
        raise DataError("Negatives by popularity need `counts`, which one partition does not know; pass them.")
    totals = {behavior: split.counts.num_cases[part].get(behavior, 0) for behavior in behaviors}
    if not any(totals.values()):
        raise DataError(f"The {part} part of {split.log.name!r} holds no case of {' or '.join(behaviors)}.")
    chosen = {behavior: _choose(total, max_cases, seed) for behavior, total in totals.items()}
    first = dict.fromkeys(behaviors, 0)
    gathered = {(behavior, protocol): _Gathered() for behavior in behaviors for protocol in protocols}
    for partition in split:
        for behavior in behaviors:
            number = len(partition.cases(part).select(behavior))
            begin, first[behavior] = first[behavior], first[behavior] + number
            wanted = chosen[behavior]
            wanted = wanted[(wanted >= begin) & (wanted < begin + number)] - begin
            for protocol in protocols:
                found = gathered[behavior, protocol]
                for cases in _blocks(
                    partition,
                    id_map,
                    wanted,
                    block_cases,
                    part=part,
                    behavior=behavior,
                    protocol=protocol,
                    num_negatives=num_negatives,
                    remove_seen=remove_seen,
                    seed=seed,
                    periods=periods if protocol == "full" else None,
                    counts=counts,
                ):
                    found.last = cases
                    found.users.append(pa.array([request.user_id for request in cases.requests], pa.string()))
                    found.digests.append(cases.fingerprint)
                    for name, system in systems.items():
                        if behavior in system.behaviors:
                            started = time.perf_counter()
                            ranks = rank_cases(
                                system, cases, id_map, name=name, top_k=top_k, show_progress=show_progress
                            )
                            found.ranks.setdefault(name, []).append(ranks)
                            found.seconds[name] = found.seconds.get(name, 0.0) + time.perf_counter() - started
    rows = []
    for found in gathered.values():
        if found.last is None:
            continue
        order = _order_of_users(pa.concat_arrays(found.users))
        digest = hashlib.sha256("".join(found.digests).encode()).hexdigest()[:16]
        for name in systems:
            if name in found.ranks:
                row = make_row(
                    np.concatenate(found.ranks[name])[order],
                    found.last,
                    k,
                    system=name,
                    dataset=split.log.name,
                    split_method=split.method,
                    split_protocol=split.protocol,
                    split_fingerprint=split.fingerprint,
                    cases_fingerprint=digest,
                    query_source=split.log.query_source,
                    seed=seed,
                    seconds=found.seconds[name],
                    details=dict(getattr(systems[name], "details", {})),
                )
                rows.append(row)
    return rows


def _choose(total: int, max_cases: int | None, seed: int) -> np.ndarray:
    if max_cases is None or max_cases >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size=max_cases, replace=False))


def _blocks(
    split: Split, id_map: IdMap, numbers: np.ndarray, size: int, **arguments: object
) -> Iterator[EvaluationCases]:
    for begin in range(0, len(numbers), size):
        yield build_cases(split, id_map, chosen=numbers[begin : begin + size], **arguments)  # type: ignore[arg-type]


def _order_of_users(users: pa.Array) -> np.ndarray:
    """Return the stable order of cases by user id, which is that of a log in memory."""
    names = users.dictionary_encode()
    rank = np.empty(len(names.dictionary), dtype=np.int64)
    rank[pc.sort_indices(names.dictionary).to_numpy()] = np.arange(len(rank))
    return np.argsort(rank[names.indices.to_numpy()], kind="stable")


__all__ = ["evaluate_partitions"]
