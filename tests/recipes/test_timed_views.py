# SPDX-License-Identifier: Apache-2.0
"""Views of a run: made of all partitions, timed without a trace in the model, and then weighed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_shop import log_of, make_log, make_synergen

from seekrec.catalog import Catalog
from seekrec.embeddings import ItemNeighbors, NeighborTables
from seekrec.events import split_log
from seekrec.events.partitions import partition_log, split_partitions
from seekrec.events.partitions.training_facts import gather_training_facts
from seekrec.events.query_log import QueryLog
from seekrec.events.simulator import simulate
from seekrec.events.splits import learn_held_out
from seekrec.models.views import BY_VALIDATION, LEXICAL_CHOICES, LexicalIndex, Views, write_view_weights
from seekrec.recipes.arguments import EvaluationArguments
from seekrec.recipes.partitioned import PartitionedData
from seekrec.recipes.stages import StageCache
from seekrec.recipes.views import choose_views, count_neighbors, fixed_views, relearn_views, timed_views


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    shop = simulate(3_000, num_items=60, seed=5)
    shop.write(folder / "raw")
    log = partition_log(folder / "raw/events", folder / "raw/items.parquet", folder / "log", num_partitions=3)
    split = split_partitions(log, folder / "split")
    data = PartitionedData(split, gather_training_facts(split, folder / "facts"), split.partition(1))
    return split_log(shop.log), data, Catalog.build(shop.log.items)


def test_the_query_log_of_all_partitions_is_that_of_the_log_in_memory(shop):
    whole, data, catalog = shop
    expected, found, of_one = (
        Views.fit(split, catalog, whole=parts).query_log.arrays()
        for split, parts in ((whole, None), (data.sample, data.split), (data.sample, None))
    )
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert of_one["query_clicks"].sum() < expected["query_clicks"].sum()


def test_reading_partitions_is_timed_by_the_largest_and_as_often_as_a_test_reads_them(shop):
    """A clock that shows a second more whenever it is asked: the largest partition takes one second."""
    _, data, catalog = shop
    sizes = [partition.num_events for partition in data.split.log.partitions]
    seconds = sum(sizes) / max(sizes)

    def time_with(only_candidates=(), **settings):
        clock = iter(range(9)).__next__
        return data.time_reads(catalog, EvaluationArguments(**settings), only_candidates, clock=clock)

    assert time_with(baselines=["none"]) == pytest.approx(seconds)
    # Cases and two baselines; then the forms of queries, with measures their lists and the query log of all.
    assert time_with(baselines=["item_knn", "query_log"]) == pytest.approx(4 * seconds)
    assert time_with(baselines=["none"], measures=True) == pytest.approx(3 * seconds)
    assert time_with(["GenSR"], baselines=["none"], candidate_protocols=["uniform"]) == pytest.approx(2 * seconds)


def _counted(fit, made):
    def counted(*args, **kwargs):
        made.append(fit.__self__.__name__)
        return fit(*args, **kwargs)

    return counted


def make_recipe(folder, **cache):
    # Of every second user the validation case is a search.
    lines = [
        (f"u{user}", step, f"i{user % 3 * 8 + step}", ("garden", None)[(user + step) % 2])
        for user in range(30)
        for step in range(7)
    ]
    split = split_log(log_of(lines, items=make_log().items))
    model, processor = make_synergen(view_weights=[BY_VALIDATION])
    return SimpleNamespace(
        cache=StageCache(folder, **cache),
        model=model,
        finishing_cases=None,
        split=split,
        parts=None,
        catalog=model.catalog,
        items=SimpleNamespace(sasrec=None),
        evaluation=EvaluationArguments(max_validation_cases=40, baselines=["item_knn"]),
        views=None,
        neighbors=None,
        processor=processor,
        behaviors=("search", "recommendation"),
        remove_seen=True,
        available_only=False,
    )


def test_timing_views_leaves_the_model_alone_and_keeps_the_views_for_choosing(tmp_path, monkeypatch):
    made = []
    for kind in (NeighborTables, LexicalIndex, QueryLog):
        monkeypatch.setattr(kind, "fit", _counted(kind.fit, made))
    recipe = make_recipe(tmp_path)
    model = recipe.model
    model.train()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with timed_views(recipe, model) as (once, each):
        assert once > 0 and each >= 0
        # So what is timed meanwhile has views.
        assert model.views is not None and model.view_weights
    assert model.training and model.views is None and list(model.config.view_weights) == [BY_VALIDATION]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert recipe.views.names(model.catalog) == ["item_knn", "lexical", "query_log", "semantic"]
    model.eval()
    choose_views(recipe, model)
    assert list(model.config.view_weights) != [BY_VALIDATION] and recipe.views is None
    # Three times or more they were weighed; made was each once, neighbours for the baseline too.
    assert count_neighbors(recipe) is recipe.neighbors
    assert sorted(made) == sorted(["NeighborTables", "QueryLog", *["LexicalIndex"] * len(LEXICAL_CHOICES)])
    # What a training is validated by is part of what it is.
    assert fixed_views(model) == write_view_weights(model.view_weights) != []
    with timed_views(recipe, model) as seconds:
        assert seconds == (0.0, 0.0) and model.views is not None


def test_views_that_there_is_no_time_for_are_left_out_and_said(tmp_path):
    recipe = make_recipe(tmp_path, max_minutes=1, clock=lambda: 50.0)
    recipe.cache.reserve = 12.0
    # Of the 10 seconds that are left all are needed for training and saving.
    with timed_views(recipe, recipe.model) as seconds:
        assert seconds == (0.0, 0.0) and recipe.model.views is None
    assert recipe.finishing_cases == 0
    choose_views(recipe, recipe.model)
    assert recipe.model.views is None and recipe.model.config.view_weights == []
    assert "views" in recipe.cache.left_out

    recipe = make_recipe(tmp_path, max_minutes=1, clock=lambda: 50.0)
    recipe.finishing_cases = 5
    recipe.model.eval()
    choose_views(recipe, recipe.model)
    assert recipe.cache.left_out == {"views": "35 of 40 validation cases that weigh them"}


@pytest.mark.parametrize(("seconds", "is_kept"), [(2.4, True), (2.6, False)])
def test_views_that_take_what_training_needs_are_left_out_before_it(tmp_path, monkeypatch, seconds, is_kept):
    """A quarter of the 10 seconds that are left, and no more."""
    recipe = make_recipe(tmp_path, max_minutes=1, clock=lambda: 50.0)
    monkeypatch.setattr("seekrec.recipes.views.time_cases", lambda run: (run(4), (seconds, 0.01))[1])
    with timed_views(recipe, recipe.model) as found:
        assert found == ((seconds, 0.01) if is_kept else (0.0, 0.0))
        assert (recipe.model.views is not None) == is_kept
    recipe.model.eval()
    choose_views(recipe, recipe.model)
    assert (recipe.model.views is not None) == is_kept == bool(recipe.model.config.view_weights)
    assert ("views" in recipe.cache.left_out) == (not is_kept)
    # What else is chosen after training is not touched.
    assert recipe.finishing_cases is None


@pytest.mark.parametrize("baselines", [["item_knn"], ["none"]])
def test_views_of_a_second_training_are_those_weighed_made_of_its_events(tmp_path, baselines):
    """Neighbours too, whether baselines count them or views alone do."""
    recipe = make_recipe(tmp_path)
    recipe.evaluation = EvaluationArguments(baselines=baselines)
    chosen, _ = make_synergen(view_weights=["search.lexical=2", "search.query_log=1", "recommendation.item_knn=1"])
    words = LEXICAL_CHOICES[1]
    chosen.set_views(
        Views.fit(recipe.split, chosen.catalog, lexical=words, names=["lexical", "query_log", "item_knn"])
    )
    first, recipe.split = recipe.split, learn_held_out(recipe.split)
    relearn_views(recipe, recipe.model, chosen)
    views, ids = recipe.model.views, recipe.catalog.id_map
    assert views.names(recipe.catalog) == ["item_knn", "lexical", "query_log", "semantic"]
    assert views.lexical.settings == words
    expected, before = (ItemNeighbors.fit([split], ids).similarities.toarray() for split in (recipe.split, first))
    np.testing.assert_array_equal(views.item_knn.similarities.toarray(), expected)
    clicks, clicks_before = (QueryLog.fit(split, ids).query_clicks.toarray() for split in (recipe.split, first))
    np.testing.assert_array_equal(views.query_log.query_clicks.toarray(), clicks)
    assert clicks.sum() > clicks_before.sum()
    assert (expected != before).any() and (recipe.neighbors is None) == (baselines == ["none"])
