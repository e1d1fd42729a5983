# SPDX-License-Identifier: Apache-2.0
"""Baselines retrained on more events, with the choices made when they were tuned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

import numpy as np

from seekrec.embeddings import NeighborTables
from seekrec.evaluation.baselines import Popularity
from seekrec.evaluation.ceilings import DrawCorrection
from seekrec.evaluation.item_knn import ItemKNN
from seekrec.evaluation.more_baselines import QueryLogScorer, RankFusion
from seekrec.evaluation.protocols import Scorer
from seekrec.evaluation.reweighted import ReweightedText
from seekrec.events import Split
from seekrec.events.query_log import QueryLog
from seekrec.schema import IdMap

SystemT = TypeVar("SystemT")


def relearn(
    baselines: Mapping[str, Scorer],
    split: Split,
    id_map: IdMap,
    *,
    whole: Iterable[Split] | None = None,
    counts: np.ndarray | None = None,
    recommenders: Mapping[str, Scorer],
    count_neighbors: Callable[[], NeighborTables],
) -> dict[str, Scorer]:
    """Let baselines learn from the training events of a split; weights, smoothings and neighbours stay as chosen.

    Args:
        baselines (`Mapping[str, Scorer]`): Baselines by name, tuned.
        split (`Split`): Its training events are learned from; its validation is not asked.
        id_map ([`IdMap`]): Items of the catalogue.
        whole (`Iterable[Split]`, *optional*): All partitions, where `split` is a sample of them: these are learned.
        counts (`np.ndarray`, *optional*): Of a log in partitions, interactions of each item in training.
        recommenders (`Mapping[str, Scorer]`): Those that were trained on the split, by the names in `baselines`.
        count_neighbors (`Callable`): Returns the nearest of each item, by the split.

    Returns:
        `dict[str, Scorer]`: By the same names; what learns nothing from events is as it was.
    """
    # Parts are shared: what is weighed twice is learned once.
    learned: dict[int, object] = {id(baselines[name]): scorer for name, scorer in recommenders.items()}
    query_log: QueryLog | None = None

    def learn(system: SystemT) -> SystemT:
        if id(system) not in learned:
            learned[id(system)] = learn_anew(system)
        return cast(SystemT, learned[id(system)])

    def learn_anew(system: object) -> object:
        nonlocal query_log
        match system:
            case Popularity():
                return Popularity.fit(split, id_map) if counts is None else Popularity(counts)
            case QueryLogScorer():
                query_log = query_log or QueryLog.fit(split if whole is None else whole, id_map)
                return QueryLogScorer(query_log.smoothed(system.query_log.smoothing))
            case ItemKNN() | ReweightedText() | RankFusion() | DrawCorrection():
                again = learned[id(system)] = copy.copy(system)  # before its parts: it is its own for a protocol
            case _:
                return system
        match again:
            case ItemKNN():
                again.relearn(count_neighbors())
                again.by_protocol = {name: learn(one) for name, one in again.by_protocol.items()}
            case ReweightedText():
                again.texts = {name: learn(text) for name, text in again.texts.items()}
                again.prior = learn(again.prior)
                again.by_protocol = {name: learn(one) for name, one in again.by_protocol.items()}
            case RankFusion():
                again.systems = {name: learn(one) for name, one in again.systems.items()}
            case DrawCorrection():
                again.system = learn(again.system)
        return again

    return {name: learn(system) for name, system in baselines.items()}


__all__ = ["relearn"]
