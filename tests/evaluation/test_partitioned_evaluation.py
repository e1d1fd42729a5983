# SPDX-License-Identifier: Apache-2.0
"""Cases ranked a block of a partition at a time have the ranks and means of all cases in memory."""

import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ray_cluster import two_nodes
from small_shop import log_of

from seekrec.catalog import Catalog
from seekrec.errors import DataError
from seekrec.evaluation import evaluate_systems
from seekrec.evaluation.baselines import BM25, Popularity
from seekrec.evaluation.partition_cases import PartitionCases
from seekrec.evaluation.partitioned import evaluate_partitions
from seekrec.events import split_log
from seekrec.events.columns import history_rows
from seekrec.events.partitions import partition_log, split_partitions
from seekrec.events.partitions.sampled import read_sample
from seekrec.events.partitions.training_facts import gather_training_facts
from seekrec.events.simulator import simulate
from seekrec.recipes.arguments import EvaluationArguments
from seekrec.recipes.compare import compare_on_test
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
    made = partial(PartitionCases, split, id_map, num_negatives=20, seed=4)
    rows = evaluate_partitions(systems, made(counts=facts.counts, block_cases=7), protocols=options["protocols"])
    assert [(row.system, row.behavior, row.protocol) for row in rows] == [
        (row.system, row.behavior, row.protocol) for row in expected
    ]
    assert len(rows) == 15 and all(row.num_cases > 50 for row in rows)
    for row, other in zip(rows, expected, strict=True):
        assert (row.ranks == other.ranks).all()
        assert (row.metrics, row.intervals) == (other.metrics, other.intervals)
    # A sample is the same sample, from all partitions.
    expected = evaluate_systems(systems, whole, id_map, max_cases=10, show_progress=False)
    rows = evaluate_partitions(systems, PartitionCases(split, id_map), max_cases=10)
    assert {row.num_cases for row in rows} == {10}
    assert all((row.ranks == other.ranks).all() for row, other in zip(rows, expected, strict=True))
    with pytest.raises(DataError, match="need `counts`"):
        evaluate_partitions(systems, made(), protocols=("popularity",))


def test_a_block_of_users_who_acted_on_nearly_everything_has_no_case(tmp_path):
    # User u leaves nothing to draw from, so v alone is asked: for c, among c, d and e.
    lines = [("u", time, item) for time, item in enumerate("abcde")] + [("v", time, "abc"[time]) for time in range(3)]
    log = log_of(lines)
    whole, id_map = split_log(log), IdMap(list("abcde"))
    made = partition_log(log.events, log.items, tmp_path / "log", num_partitions=1)
    split = split_partitions(made, tmp_path / "split")
    systems, options = {"last item": LastItem(id_map)}, {"protocols": ("uniform",)}
    (expected,) = evaluate_systems(systems, whole, id_map, num_negatives=2, show_progress=False, **options)
    (row,) = evaluate_partitions(systems, PartitionCases(split, id_map, num_negatives=2, block_cases=1), **options)
    assert (row.num_cases, row.ranks.tolist()) == (1, expected.ranks.tolist()) == (1, [[1.0, 1.0]])
    none = PartitionCases(split, id_map, num_negatives=3)
    for ask in (
        lambda: evaluate_partitions(systems, none, **options),
        lambda: none.gather("recommendation", "uniform", 1),
    ):
        with pytest.raises(DataError, match="`num_negatives` is 3, but no test case .* has that many items left"):
            ask()


@pytest.mark.parametrize("max_cases", [None, 25])
def test_forms_of_queries_and_measures_are_those_in_memory(shop, max_cases):
    whole, split, facts = shop
    items = whole.log.items
    vectors = {"semantic": np.random.default_rng(0).normal(size=(items.num_rows, 5)).astype(np.float32)}
    vectors["semantic"] /= np.linalg.norm(vectors["semantic"], axis=1, keepdims=True)
    catalog = Catalog.build(items, None, num_shared_levels=0, codebook_size=0, embeddings=vectors)
    settings = EvaluationArguments(max_test_cases=max_cases, measures=True, candidate_protocols=[])
    last_item = {"last item": LastItem(catalog.id_map)}

    def compare(asked, **options):
        return compare_on_test(
            last_item,
            asked,
            catalog,
            settings,
            make_baselines=lambda tuning: {"BM25": BM25(items), "popularity": Popularity(facts.counts)},
            seed=4,
            show_progress=False,
            **options,
        )

    expected, rows = compare(whole), compare(split, counts=facts.counts, tuned_on=whole)
    assert [(row.system, row.behavior, row.protocol) for row in rows] == [
        (row.system, row.behavior, row.protocol) for row in expected
    ]
    protocols = {row.protocol for row in rows}
    assert "full, query forms" in protocols and any("histories up to" in name for name in protocols)
    assert "swapped words" in " ".join(row.system for row in rows)
    assert any("coverage@10" in row.metrics for row in rows)
    for row, other in zip(rows, expected, strict=True):
        assert (row.ranks == other.ranks).all()
        assert (row.metrics, row.intervals) == (other.metrics, other.intervals)


def test_the_sample_has_users_of_all_partitions_with_the_questions_of_memory(shop, tmp_path):
    whole, split, _ = shop
    gather_training_facts(split, tmp_path)
    sample = read_sample(split, [tmp_path / partition.folder for partition in split.log.partitions])
    users = set(sample.log.events["user_id"].to_pylist())
    own = [set(part.log.events["user_id"].to_pylist()) for part in split]
    assert all(len(users & part) > 0.15 * len(part) for part in own)
    assert 0.2 < sample.log.num_events / whole.log.num_events < 0.5
    # What a user has is what it has in memory: training, questions, histories.
    of_users = pc.is_in(whole.log.events["user_id"], value_set=pa.array(sorted(users)))
    assert sample.log.events.equals(whole.log.events.filter(of_users))
    trained = whole.train_events()
    assert sample.train_events().equals(
        trained.filter(pc.is_in(trained["user_id"], value_set=pa.array(sorted(users))))
    )
    for part in ("validation", "test"):
        expected = [request for request in whole.requests(part) if request.user_id in users]
        assert sample.requests(part) == expected and len(expected) > 20
    assert facts_of_queries(split, tmp_path) == facts_of_queries(whole)


def facts_of_queries(split, folder=None):
    if folder is not None:
        facts = gather_training_facts(split, folder)
        return dict(zip(facts.queries.to_pylist(), facts.query_counts.tolist(), strict=True))
    typed = split.log.events["query"].take(split.training_acts()).drop_null().to_pylist()
    return Counter(typed)


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
    cases = PartitionCases(split, id_map, num_negatives=20, counts=facts.counts, block_cases=7)
    protocols = ("full", "popularity")
    expected = evaluate_partitions(systems, cases, protocols=protocols)
    with two_nodes(Path(__file__).parent) as nodes:
        nodes.lose_one_when(lambda: any(tmp_path.glob(".ranks-*/partition-*")))
        rows = evaluate_partitions(systems, cases, protocols=protocols, scratch=tmp_path, engine="ray")
        assert nodes.count_left() == 1 and nodes.lost == [0]
    assert list(tmp_path.iterdir()) == [] and len(rows) == 10
    for row, other in zip(rows, expected, strict=True):
        assert (row.ranks == other.ranks).all()
        assert vars(replace(row, seconds=0, ranks=None)) == vars(replace(other, seconds=0, ranks=None))
