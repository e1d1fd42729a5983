# SPDX-License-Identifier: Apache-2.0
"""Several systems over as many of the same cases as there is time for, by a clock that moves when one works."""

import numpy as np
import pytest

from seekrec.errors import ConfigurationError
from seekrec.evaluation import build_cases, evaluate_systems, format_table
from seekrec.evaluation.evaluator import evaluate_cases
from seekrec.evaluation.report import NUM_IN_ALL
from seekrec.events import split_log
from seekrec.events.simulator import simulate
from seekrec.schema import BEHAVIORS, IdMap
from seekrec.training.budget import StageTime


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Slow:
    """Scores items by a hash of user and item, and takes some seconds a request."""

    behaviors = BEHAVIORS

    def __init__(self, clock, seconds, factor, num_items):
        self.clock, self.seconds, self.factor, self.num_items = clock, seconds, factor, num_items

    def score_all(self, requests):
        self.clock.now += self.seconds * len(requests)
        users = np.array([[sum(map(ord, request.user_id))] for request in requests])
        return ((users * self.factor + np.arange(self.num_items) * 37) % 101).astype(np.float64)


@pytest.fixture(scope="module")
def shop():
    split = split_log(simulate(6_000, num_items=80, seed=3).log)
    return split, IdMap(split.log.items["item_id"].to_pylist())


def make_systems(clock, num_items):
    return {"one": Slow(clock, 0.5, 13, num_items), "two": Slow(clock, 1.5, 29, num_items)}


def test_all_systems_rank_the_same_sample_until_the_time_is_over(shop):
    split, id_map = shop
    clock = Clock()
    systems = make_systems(clock, len(id_map))
    cases = build_cases(split, id_map, behavior="search", remove_seen=True)
    assert len(cases) > 70
    whole = {row.system: row for row in evaluate_systems(systems, split, id_map, behaviors=["search"])}
    clock.now = 0.0
    # A case takes both together two seconds: of 100 seconds 20 cases take 40, and a quarter of the rest would be 7
    # cases; 20 more are tried, after which 20 seconds are too few for another 20.
    time = StageTime(100.0, 180.0, clock)
    rows = evaluate_cases(systems, cases, split, id_map, time=time, show_progress=False)
    assert [row.num_cases for row in rows] == [40, 40] and clock.now == 80.0
    assert time.left_out == f"{len(cases) - 40} of {len(cases)} cases"
    assert rows[0].cases_fingerprint == rows[1].cases_fingerprint != whole["one"].cases_fingerprint
    kept = np.sort(np.random.default_rng(cases.seed).permutation(len(cases))[:40])
    for row in rows:
        assert np.array_equal(row.ranks, whole[row.system].ranks[kept]) and row.details[NUM_IN_ALL] == len(cases)
    assert f"40 of {len(cases)} cases, for --max_minutes" in format_table(rows)

    with pytest.raises(ConfigurationError, match="`top_k` is 5"):
        evaluate_cases(systems, cases, split, id_map, time=time, top_k=5, show_progress=False)

    # With time for all of them, rows are those that no clock looked at.
    time = StageTime(1e6, 2e6, clock)
    rows = evaluate_systems(systems, split, id_map, behaviors=["search"], time=time)
    for row in rows:
        own = whole[row.system]
        assert np.array_equal(row.ranks, own.ranks) and row.details == {} and time.left_out is None
        assert row.cases_fingerprint == own.cases_fingerprint and row.intervals == own.intervals


def test_behaviors_share_the_time_and_what_gets_none_is_said(shop):
    split, id_map = shop
    clock = Clock()
    systems = make_systems(clock, len(id_map))
    time = StageTime(90.0, 180.0, clock)
    rows = evaluate_systems(systems, split, id_map, time=time, show_progress=False)
    # Each has 45 seconds, of which 20 cases take 40.
    assert [(row.behavior, row.num_cases) for row in rows[::2]] == [("recommendation", 20), ("search", 20)]
    assert "of recommendation" in time.left_out and "of search" in time.left_out
    over = StageTime(0.0, 180.0, clock)
    assert evaluate_systems(systems, split, id_map, time=over, show_progress=False) == []
    assert over.left_out == "recommendation, search"
