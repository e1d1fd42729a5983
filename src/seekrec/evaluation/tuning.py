# SPDX-License-Identifier: Apache-2.0
"""The validation cases that baselines are tuned on, built and ranked like those of the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol, build_cases
from seekrec.events import Split
from seekrec.events.columns import RowArray
from seekrec.schema import Behavior, IdMap

# Scores that a point of a grid goes over: above 50,000 items it sees fewer cases than the most, but never the least.
_MAX_CELLS, _MAX_CASES, _MIN_CASES = 100_000_000, 2000, 200

SystemT = TypeVar("SystemT")


@dataclass(frozen=True, eq=False)
class Tuning:
    """Builds validation cases, each once.

    Args:
        split (`Split`): Has the cases; of a log in partitions a sample.
        id_map ([`IdMap`]): Items of the catalogue.
        protocols (`Sequence[str]`): Protocols of the test in addition to full ranking.
        num_negatives (`int`): See [`build_cases`], like all that follow.
        remove_seen (`bool`): Rule out the items of the request's history in full ranking.
        periods (`tuple[np.ndarray, np.ndarray]`, *optional*): From when until when each item is available.
        counts (`np.ndarray`, *optional*): Of a log in partitions, interactions of each item in training.
        seed (`int`): Seed of the sample and the negatives.
    """

    split: Split
    id_map: IdMap
    protocols: Sequence[RankingProtocol] = ()
    num_negatives: int = 99
    remove_seen: bool = True
    periods: tuple[RowArray, RowArray] | None = None
    counts: np.ndarray | None = None
    seed: int = 0
    _built: dict[Behavior, dict[RankingProtocol, EvaluationCases]] = field(default_factory=dict, init=False)

    def cases(self, behavior: Behavior) -> Mapping[RankingProtocol, EvaluationCases]:
        """Return a seeded sample of the cases of a behavior by protocol, full ranking first; nothing without a case.

        The others have the same cases, but for those that too few negatives are left for.

        Args:
            behavior (`str`): The behavior.
        """
        if behavior not in self._built:
            self._built[behavior] = {}
            for protocol in ("full", *self.protocols) if self.split.targets("validation", behavior) else ():
                self._built[behavior][protocol] = build_cases(
                    self.split,
                    self.id_map,
                    part="validation",
                    behavior=behavior,
                    protocol=protocol,
                    num_negatives=self.num_negatives,
                    remove_seen=self.remove_seen,
                    max_cases=min(_MAX_CASES, max(_MIN_CASES, _MAX_CELLS // len(self.id_map))),
                    seed=self.seed,
                    periods=self.periods if protocol == "full" else None,
                    counts=self.counts,
                )
        return self._built[behavior]


def for_protocol(system: SystemT, protocol: RankingProtocol) -> SystemT:
    """Return a system as it was tuned for a protocol; itself where it was not."""
    found: SystemT = getattr(system, "by_protocol", {}).get(protocol, system)
    return found


__all__ = ["Tuning", "for_protocol"]
