# SPDX-License-Identifier: Apache-2.0
"""Cases ranked a block of a partition at a time have the ranks and means of all cases in memory."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray_cluster import two_nodes

from seekrec.errors import DataError
from seekrec.evaluation import evaluate_systems
from seekrec.evaluation.baselines import BM25, Popularity
from seekrec.evaluation.partitioned import evaluate_partitions
from seekrec.events import split_log
from seekrec.events.columns import history_rows
from seekrec.events.partitions import partition_log, split_partitions
from seekrec.events.partitions.training_facts import gather_training_facts
from seekrec.events.simulator import simulate
from seekrec.schema import BEHAVIORS, IdMap


class LastItem:
    """Scores items by how near their row is to the last one of the history: ranks differ from case to case."""

    behaviors = BEHAVIORS

    def __init__(self, id_map):
        self.id_map = id_map

    def score_all(self, requests):
        last = [rows[-1] if len(rows) else 0 for rows in history_rows(requests, self.id_map)]
        return -np.abs(np.arange(len(self.id_map)) - np.array(last)[:, None]).astype(np.float64)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    shop = simulate(6_000, num_items=60, seed=5)
    shop.write(folder / "raw")
    log = partition_log(folder / "raw/events", folder / "raw/items.parquet", folder / "log", num_partitions=3)
    split = split_partitions(log, folder / "split")
    return split_log(shop.log), split, gather_training_facts(split, folder / "facts")


def test_ranks_and_means_are_those_of_all_cases_in_memory(shop):
    whole, split, facts = shop
    id_map = IdMap(whole.log.items["item_id"].to_pylist())
    systems = {
        "popularity": Popularity.fit(whole, id_map),
        "BM25": BM25(whole.log.items),
        "last item": LastItem(id_map),
    }
    options = {"protocols": ("full", "uniform", "popularity"), "num_negatives": 20, "seed": 4}
    expected = evaluate_systems(systems, whole, id_map, show_progress=False, **options)
    rows = evaluate_partitions(systems, split, id_map, counts=facts.counts, block_cases=7, **options)
    assert [(row.system, row.behavior, row.protocol) for row in rows] == [
        (row.system, row.behavior, row.protocol) for row in expected
    ]
    assert len(rows) == 15 and all(row.num_cases > 50 for row in rows)
    for row, other in zip(rows, expected, strict=True):
        assert (row.ranks == other.ranks).all()
        assert (row.metrics, row.intervals) == (other.metrics, other.intervals)
    sample = evaluate_partitions(systems, split, id_map, max_cases=10)
    assert {row.num_cases for row in sample} == {10}
    with pytest.raises(DataError, match="need `counts`"):
        evaluate_partitions(systems, split, id_map, protocols=("popularity",))


class Slow(LastItem):
    """Takes its time, in which a node is lost."""

    def score_all(self, requests):
        time.sleep(0.1)
        return super().score_all(requests)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_ranks_alike(shop, tmp_path):
    _, split, facts = shop
    id_map = IdMap(split.log.items["item_id"].to_pylist())
    systems = {"BM25": BM25(split.log.items), "popularity": Popularity(facts.counts), "last item": Slow(id_map)}
    options = {"protocols": ("full", "popularity"), "num_negatives": 20, "counts": facts.counts, "block_cases": 7}
    expected = evaluate_partitions(systems, split, id_map, **options)
    with two_nodes(Path(__file__).parent) as nodes:
        nodes.lose_one_when(lambda: any(tmp_path.glob(".ranks-*/partition-*")))
        rows = evaluate_partitions(systems, split, id_map, scratch=tmp_path, engine="ray", **options)
        assert nodes.count_left() == 1 and nodes.lost == [0]
    assert list(tmp_path.iterdir()) == [] and len(rows) == 10
    for row, other in zip(rows, expected, strict=True):
        assert (row.ranks == other.ranks).all()
        assert vars(replace(row, seconds=0, ranks=None)) == vars(replace(other, seconds=0, ranks=None))
