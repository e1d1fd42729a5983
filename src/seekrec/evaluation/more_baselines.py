# SPDX-License-Identifier: Apache-2.0
"""Stronger baselines, chosen by name in the settings.

- `query_log`: clicks for the query and its words in training, alone and times SASRec;
- `rank_fusion`: BM25 and dense text by reciprocal ranks, alone and times SASRec;
- `item_knn`: items that the same users acted on, anywhere in their histories or close together (sequential item-kNN,
  see [`NeighborTables`]), each alone and times SASRec; the two above are also multiplied by them;
- `sampled_sasrec`: a SASRec that is trained by a sampled softmax, on another schedule;
- `query_group`: the items that a synthetic query was made for, times SASRec. Not a baseline but a ceiling: it is given
  what a search engine has to find out;
- `negative_draws`: a system's score minus how often the item is drawn as a negative, for the protocol `bm25`. Not a
  baseline either: it measures what the sampling of negatives gives away.

Every choice is made on validation, separately for each protocol of the test.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from scipy.stats import rankdata

from seekrec.embeddings import NeighborTables
from seekrec.embeddings.item_knn import Nearness
from seekrec.evaluation.baselines import Float32Array, distinct_queries
from seekrec.evaluation.ceilings import DrawCorrection, QueryGroup
from seekrec.evaluation.item_knn import ItemKNN
from seekrec.evaluation.protocols import RankingProtocol, Scorer
from seekrec.evaluation.report import Role
from seekrec.evaluation.reweighted import ReweightedText
from seekrec.evaluation.tuning import Tuning, for_protocol
from seekrec.events import Split
from seekrec.events.query_log import QueryLog
from seekrec.schema import BEHAVIORS, RECOMMENDATION, SEARCH, Behavior, Request

logger = logging.getLogger(__name__)

CEILING = "exact query group x SASRec"
LESS_DRAWS = " less draws"
SAMPLED_SASREC = "SASRec, sampled softmax"

MoreBaseline = Literal["query_log", "rank_fusion", "item_knn", "sampled_sasrec", "query_group", "negative_draws"]

MORE_BASELINES: tuple[MoreBaseline, ...] = get_args(MoreBaseline)

# Baselines by the same users, and what is near by them.
_NEAREST: dict[str, Nearness] = {"item-kNN": "users", "sequential item-kNN": "sequences"}
# Smoothings that a query log chooses from.
_SMOOTHINGS = (0.1, 1.0, 10.0)
# What is added to each rank before it is inverted, as Cormack et al. do.
_RANK_CONSTANT = 60.0


class QueryLogScorer:
    """Items by what was clicked for the query and its words; see [`QueryLog`]. Searches only.

    Args:
        query_log ([`QueryLog`]): The clicks, over the rows of the catalogue.
    """

    behaviors: tuple[Behavior, ...] = (SEARCH,)

    def __init__(self, query_log: QueryLog) -> None:
        self.query_log = query_log
        self.details: dict[str, object] = {"smoothing": query_log.smoothing}

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Score by the query alone; items that were clicked for no word of it get 0. See [`Scorer`]."""
        queries, inverse = distinct_queries(requests, "a query log")
        return np.asarray(self.query_log.scores(queries).toarray()[inverse], dtype=np.float32)


class RankFusion:
    """Several systems by reciprocal ranks (Cormack et al., SIGIR 2009): the sum of `1 / (60 + rank)`.

    Tied items share their mean rank. A list contains the best `depth` items and those that tie with the last of them;
    one that a text scorer gives 0, or any system minus infinity, is not in its list.

    Args:
        systems (`Mapping[str, Scorer]`): Systems by name; requests must be of a behavior that all answer.
        lists_all (`Collection[str]`): Those whose list may contain items of any score.
        depth (`int`): Length of a list.
    """

    def __init__(
        self,
        systems: Mapping[str, Scorer],
        *,
        lists_all: Collection[str] = (),
        depth: int = 1000,
    ) -> None:
        self.systems = dict(systems)
        self.lists_all = frozenset(lists_all)
        self.depth = depth
        answered = [set(system.behaviors) for system in self.systems.values()]
        self.behaviors = tuple(behavior for behavior in BEHAVIORS if all(behavior in own for own in answered))
        self.details: dict[str, object] = {"systems": list(self.systems), "constant": _RANK_CONSTANT, "depth": depth}

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Add up the reciprocal ranks; see [`Scorer`]."""
        fused: Float32Array | None = None
        for name, system in self.systems.items():
            scores = system.score_all(requests)
            fused = np.zeros(scores.shape, np.float32) if fused is None else fused
            for total, row in zip(fused, scores, strict=True):
                lowest = np.partition(row, -self.depth)[-self.depth] if len(row) > self.depth else -np.inf
                least = -np.inf if name in self.lists_all else 0
                listed = np.flatnonzero((row >= lowest) & (row > least))
                total[listed] += 1 / (_RANK_CONSTANT + rankdata(-row[listed], method="average"))
        return np.zeros((0, 0), np.float32) if fused is None else fused


def more_baseline_systems(
    names: Collection[MoreBaseline],
    tuning: Tuning,
    baselines: Mapping[str, Scorer],
    *,
    train_sampled: Callable[[], Scorer] | None = None,
    count_neighbors: Callable[[], NeighborTables] | None = None,
    whole: Iterable[Split] | None = None,
) -> dict[str, Scorer]:
    """Build baselines beside the usual ones by their names in settings.

    One that the log has nothing for is left out: a query log without searches in training, say.

    Args:
        names (`Collection[str]`): See the top of this module.
        tuning ([`Tuning`]): Has the split, whose training events are counted, and the validation cases that weights
            are chosen on.
        baselines (`Mapping[str, Scorer]`): What [`baseline_systems`] made.
        train_sampled (`Callable`, *optional*): Trains the other SASRec; needed for `sampled_sasrec`.
        count_neighbors (`Callable`, *optional*): Returns the nearest of each item, where they are counted already.
        whole (`Iterable[Split]`, *optional*): All partitions, where the split is one of them: they are counted.

    Returns:
        `dict[str, Scorer]`: By their names in reports.
    """
    if not names:
        return {}
    split, id_map = tuning.split, tuning.id_map
    prior, found = baselines["SASRec"], dict[str, Scorer]()
    searches = tuning.cases(SEARCH)

    recommenders = {"SASRec": prior}
    if "item_knn" in names and (cases := tuning.cases(RECOMMENDATION)):
        if count_neighbors is None:
            splits = [split] if whole is None else whole
            tables = NeighborTables.fit(splits, id_map)
        else:
            tables = count_neighbors()
        for name, nearness in _NEAREST.items():
            knn = recommenders[name] = found[name] = ItemKNN.fit(tables, nearness, cases, id_map)
            weighed = ReweightedText({name: knn}, prior, behavior=RECOMMENDATION)
            found[f"{name} x SASRec"] = weighed.fit(cases, forms=("sum",), show_progress=False)

    def add(name: str, system: Scorer, texts: Mapping[str, Scorer] | None = None) -> None:
        found[name] = system
        for prior_name, recommender in recommenders.items():
            if searches:
                reweighted = ReweightedText(texts or {name: system}, recommender)
                found[f"{name} x {prior_name}"] = reweighted.fit(searches, show_progress=False)

    if "query_log" in names:
        query_log = QueryLog.fit(split if whole is None else whole, id_map)
        if query_log.query_clicks.nnz:
            texts = {f"query log, smoothing {one}": QueryLogScorer(query_log.smoothed(one)) for one in _SMOOTHINGS}
            add("query log", texts["query log, smoothing 1.0"], texts)
        else:
            logger.info("No training search led to an item: there is no query log.")
    if "rank_fusion" in names:
        both = {name: baselines[name] for name in ("BM25", "dense text")}
        add("BM25 + dense by rank", RankFusion(both, lists_all=("dense text",)))
    if "sampled_sasrec" in names and train_sampled is not None:
        found[SAMPLED_SASREC] = train_sampled()
    if "query_group" in names and searches and split.log.query_source == "category":
        group = QueryGroup.of_items(split.log.items, id_map)
        found[CEILING] = ReweightedText({"query group": group}, prior).fit(searches, show_progress=False)
    if "negative_draws" in names:
        for name in ("SASRec", CEILING):
            system = found.get(name, baselines.get(name))
            if system is not None:
                tuned = for_protocol(system, "bm25")
                found[f"{name}{LESS_DRAWS}"] = DrawCorrection.fit(
                    tuned, split, id_map, num_negatives=tuning.num_negatives, counts=tuning.counts
                )
    return found


def answers_protocol(system: object, protocol: RankingProtocol) -> bool:
    """Return whether a system is meant for a protocol; all but [`DrawCorrection`] are for any."""
    return protocol in getattr(system, "protocols", (protocol,))


def role_of(name: str) -> Role:
    """Return what a system that is not ours is in a table, by its name there."""
    if name.endswith(LESS_DRAWS):
        return "correction"
    return "ceiling" if name == CEILING else "baseline"


__all__ = [
    "CEILING",
    "LESS_DRAWS",
    "MORE_BASELINES",
    "SAMPLED_SASREC",
    "MoreBaseline",
    "QueryLogScorer",
    "RankFusion",
    "answers_protocol",
    "more_baseline_systems",
    "role_of",
]
