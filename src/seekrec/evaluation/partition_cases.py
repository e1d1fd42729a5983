# SPDX-License-Identifier: Apache-2.0
"""Build the cases of a partitioned log, a block of a partition at a time; they equal those of the log in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol, Retriever, Scorer, build_cases, none_left
from seekrec.events import Split
from seekrec.events.columns import RowArray
from seekrec.events.partitions import Job, PartitionedSplit
from seekrec.events.partitions.sampled import order_of_users
from seekrec.events.split import SplitPart
from seekrec.schema import Behavior, IdMap
from seekrec.util.ragged import Ragged

# Cases whose requests exist at once.
BLOCK_CASES = 8_192


@dataclass(frozen=True)
class PartitionCases:
    """Builds the cases of a partition, a block at a time.

    Args:
        split ([`PartitionedSplit`]): Where the cases come from.
        id_map ([`IdMap`]): Items of the catalogue.
        part (`str`): `"validation"` or `"test"`.
        num_negatives (`int`): See [`build_cases`], like all that follow but the last.
        remove_seen (`bool`): Rule out the items of the request's history in full ranking.
        seed (`int`): Seed of samples, negatives and intervals.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available.
        counts (`np.ndarray`, *optional*): Interactions of each item in the whole training part.
        block_cases (`int`): Cases whose requests exist at once.
    """

    split: PartitionedSplit
    id_map: IdMap
    part: SplitPart = "test"
    num_negatives: int = 99
    remove_seen: bool = True
    seed: int = 0
    periods: tuple[RowArray, RowArray] | None = None
    counts: np.ndarray | None = None
    block_cases: int = BLOCK_CASES

    def blocks(
        self, split: Split, behavior: Behavior, protocol: RankingProtocol, wanted: Sequence[int] | None
    ) -> Iterator[EvaluationCases]:
        """Build cases of one behavior and protocol.

        Args:
            split (`Split`): The partition.
            behavior (`str`): The behavior.
            protocol (`str`): The protocol.
            wanted (`Sequence[int]`, *optional*): Their numbers; all if not given.
        """
        number = len(split.cases(self.part).select(behavior))
        chosen = np.arange(number) if wanted is None else np.array(wanted, dtype=np.int64)
        for begin in range(0, len(chosen), self.block_cases):
            cases = build_cases(
                split,
                self.id_map,
                part=self.part,
                behavior=behavior,
                protocol=protocol,
                num_negatives=self.num_negatives,
                remove_seen=self.remove_seen,
                seed=self.seed,
                periods=self.periods if protocol == "full" else None,
                chosen=chosen[begin : begin + self.block_cases],
                counts=self.counts,
            )
            if len(cases):  # all of a block may be of users who acted on nearly everything
                yield cases

    def choose(self, behaviors: Sequence[Behavior], max_cases: int | None) -> list[dict[Behavior, RowArray | None]]:
        """Choose the cases that a log in memory would have, of each partition; `None` is all.

        Args:
            behaviors (`Sequence[str]`): Behaviors.
            max_cases (`int`, *optional*): Number of cases of each behavior.
        """
        found: list[dict[Behavior, RowArray | None]] = [{} for _ in range(self.split.num_partitions)]
        totals = self.split.counts.num_cases[self.part]
        large = [name for name in behaviors if max_cases is not None and totals.get(name, 0) > max_cases]
        for one in found:
            one.update(dict.fromkeys(behaviors))
        users: dict[Behavior, list[pa.Array]] = {behavior: [] for behavior in large}
        for number in range(self.split.num_partitions if large else 0):
            cases = self.split.cases(number, self.part)
            ids = pa.array(cases.user_id, pa.string())
            for behavior in large:
                users[behavior].append(ids.take(pa.array(cases.select(behavior))))
        for behavior in large:
            order = order_of_users(pa.concat_arrays(users[behavior]))
            drawn = np.random.default_rng(self.seed).choice(len(order), size=max_cases, replace=False)
            chosen = np.sort(order[drawn])
            ends = np.cumsum([len(own) for own in users[behavior]])
            for one, own, end in zip(found, users[behavior], ends.tolist(), strict=True):
                begin = end - len(own)
                one[behavior] = chosen[(chosen >= begin) & (chosen < end)] - begin
        return found

    def jobs(self, behaviors: Sequence[Behavior], max_cases: int | None, folder: Path) -> list[Job]:
        """Return a job for each partition, which names its cases."""
        return [
            Job(
                str(folder / f"partition-{number:05d}"),
                (str(self.split.folder),),
                {
                    "partition": number,
                    "wanted": {name: None if rows is None else rows.tolist() for name, rows in wanted.items()},
                },
            )
            for number, wanted in enumerate(self.choose(behaviors, max_cases))
        ]

    def gather(self, behavior: Behavior, protocol: RankingProtocol, max_cases: int) -> EvaluationCases:
        """Build a sample of the cases of all partitions, in the order that a log in memory has.

        Args:
            behavior (`str`): The behavior.
            protocol (`str`): The protocol.
            max_cases (`int`): Number of cases.
        """
        blocks = [
            block
            for number, wanted in enumerate(self.choose([behavior], max_cases))
            if (rows := wanted[behavior]) is None or len(rows)
            for block in self.blocks(
                self.split.partition(number), behavior, protocol, None if rows is None else rows.tolist()
            )
        ]
        if not blocks:
            raise none_left(self.part, self.split.log.name, self.num_negatives)
        return join_cases(blocks)


def join_cases(blocks: Sequence[EvaluationCases]) -> EvaluationCases:
    """Join cases of one kind from several partitions, in the order of their users.

    Args:
        blocks (`Sequence[EvaluationCases]`): At least one.
    """
    requests = [request for block in blocks for request in block.requests]
    order = order_of_users(pa.array([request.user_id for request in requests], pa.string()))
    targets = [target for block in blocks for target in block.target_ids]
    tables = [block.candidate_rows for block in blocks if block.candidate_rows is not None]
    width = max((table.shape[1] for table in tables), default=0)
    padded = [np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=-1) for table in tables]
    return replace(
        blocks[0],
        requests=[requests[place] for place in order.tolist()],
        target_ids=[targets[place] for place in order.tolist()],
        target_rows=np.concatenate([block.target_rows for block in blocks])[order],
        case_numbers=np.arange(len(order)),
        seen=Ragged.stack([block.seen for block in blocks]).take(order),
        candidate_rows=np.concatenate(padded)[order] if padded else None,
    )


def users_of(cases: EvaluationCases) -> pa.Array:
    """Return the user of each case."""
    return pa.array([request.user_id for request in cases.requests], pa.string())


def is_on_gpu(system: Scorer | Retriever) -> bool:
    """Return whether the weights of a system lie on a GPU: another process needs one to take them over."""
    return str(getattr(getattr(system, "model", None), "device", "cpu")).startswith("cuda")


__all__ = ["BLOCK_CASES", "PartitionCases", "is_on_gpu", "join_cases", "users_of"]
