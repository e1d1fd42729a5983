# SPDX-License-Identifier: Apache-2.0
"""Baselines that learn from what validation held out: the parts are those of more events, what was chosen stays."""

from __future__ import annotations

import numpy as np
import pytest
from fixed_scores import Fixed, split_shop

from seekrec.embeddings import ItemNeighbors, NeighborTables
from seekrec.embeddings.item_knn import keep_largest
from seekrec.evaluation.baselines import Popularity
from seekrec.evaluation.item_knn import ItemKNN
from seekrec.evaluation.more_baselines import MORE_BASELINES, SAMPLED_SASREC, QueryLogScorer, more_baseline_systems
from seekrec.evaluation.relearned import relearn
from seekrec.evaluation.reweighted import combine_scores
from seekrec.evaluation.tuning import Tuning, for_protocol
from seekrec.events.query_log import QueryLog
from seekrec.events.splits import learn_held_out
from seekrec.schema import Event, IdMap, Request

REQUESTS = [Request([Event("i1"), Event("i7")], query=query) for query in ("lamp", "chair", "hose")]


@pytest.fixture(scope="module")
def shop():
    """What baselines of a shop were tuned to, and what they have learned since."""
    split = split_shop(6, lambda user, step: (user * user + step * 3) % 10)
    id_map = IdMap(split.log.items["item_id"].to_pylist())
    before = {
        "popularity": Popularity.fit(split, id_map),
        "BM25": Fixed([1] * 10, ("search",)),
        "dense text": Fixed(np.arange(10.0)),
        "SASRec": Fixed(np.arange(10.0)),
    }
    before |= more_baseline_systems(
        MORE_BASELINES,
        Tuning(split, id_map, ("uniform",), num_negatives=3),
        before,
        train_sampled=lambda: Fixed(np.arange(10.0) / 2),
        count_neighbors=lambda: NeighborTables.fit([split], id_map),
    )
    learning = learn_held_out(split)
    recommenders = {"SASRec": Fixed(-np.arange(10.0)), SAMPLED_SASREC: Fixed(-np.arange(10.0) / 2)}
    after = relearn(
        before,
        learning,
        id_map,
        recommenders=recommenders,
        count_neighbors=lambda: NeighborTables.fit([learning], id_map),
    )
    return before, after, recommenders, learning, id_map


def test_what_counts_counts_the_events_held_out_before(shop):
    before, after, recommenders, learning, id_map = shop
    assert list(after) == list(before)
    # Each of twelve users has one more interaction, or several where the pair occurs earlier.
    assert after["popularity"].counts.sum() == len(learning.training_interactions())
    assert after["popularity"].counts.sum() >= before["popularity"].counts.sum() + 12
    for name, trained in recommenders.items():
        assert after[name] is trained
    assert after["BM25"] is before["BM25"] and after["dense text"] is before["dense text"]
    smoothing = before["query log"].details["smoothing"]
    expected = QueryLogScorer(QueryLog.fit(learning, id_map).smoothed(smoothing)).score_all(REQUESTS)
    np.testing.assert_array_equal(after["query log"].score_all(REQUESTS), expected)
    assert (expected != before["query log"].score_all(REQUESTS)).any()


def test_weights_and_neighbours_stay_as_they_were_chosen_for_each_protocol(shop):
    before, after, recommenders, learning, id_map = shop
    tables = NeighborTables.fit([learning], id_map)
    for protocol in ("full", "uniform"):
        for name, nearness in (("item-kNN", "users"), ("sequential item-kNN", "sequences")):
            old, new = (for_protocol(one[name], protocol) for one in (before, after))
            assert new.details == old.details
            near = ItemNeighbors(
                keep_largest(tables.tables[nearness], old.details["num_neighbours"]), decay=old.details["decay"]
            )
            np.testing.assert_array_equal(new.score_all(REQUESTS), ItemKNN(near, id_map).score_all(REQUESTS))

        old, new = (for_protocol(one["query log x SASRec"], protocol) for one in (before, after))
        assert new.details == old.details
        log = QueryLog.fit(learning, id_map).smoothed(float(old.text.split()[-1]))
        prior = recommenders["SASRec"].score_all(REQUESTS)
        expected = combine_scores(QueryLogScorer(log).score_all(REQUESTS), prior, old.form, old.weight)
        np.testing.assert_array_equal(new.score_all(REQUESTS), expected)
    # What was tuned is left alone.
    assert before["query log x SASRec"].prior is before["SASRec"]


def test_corrections_and_ceilings_take_the_new_recommender(shop):
    before, after, recommenders, *_ = shop
    old, new = before["SASRec less draws"], after["SASRec less draws"]
    off = old.corrections["search"]
    np.testing.assert_allclose(new.score_all(REQUESTS), recommenders["SASRec"].score_all(REQUESTS) - off, rtol=1e-6)
    ceiling = after["exact query group x SASRec"]
    assert ceiling.prior is recommenders["SASRec"]
    assert ceiling.texts["query group"] is before["exact query group x SASRec"].texts["query group"]
    # A system that is weighed in several others is learned once.
    assert after["query log x item-kNN"].prior is after["item-kNN"]
