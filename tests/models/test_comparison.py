# SPDX-License-Identifier: Apache-2.0
"""Saved models in the table of a recipe."""

from __future__ import annotations

import pytest
from small_shop import make_gensar

from seekrec.catalog import Catalog
from seekrec.errors import ConfigurationError
from seekrec.evaluation import BM25, QUERY_FORMS, Popularity, evaluate_systems, format_table, write_results
from seekrec.events import split_log
from seekrec.models.manifest import replace_part
from seekrec.recipes.arguments import EvaluationArguments
from seekrec.recipes.compare import compare_on_test


def test_saved_models_stand_beside_the_systems(aisles, tmp_path):
    split, catalog, *_ = aisles
    model, processor = make_gensar(aisles)
    folder = tmp_path / "a-run" / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    settings = EvaluationArguments(compare_with=[str(folder)], candidate_protocols=["uniform"], num_negatives=5)
    popularity = {"popularity": Popularity.fit(split, catalog.id_map)}
    rows = compare_on_test(
        popularity,
        split,
        catalog,
        settings,
        make_baselines=lambda tuning: {"counts": popularity["popularity"]},
        beside={"popularity without views": popularity["popularity"]},
        only_candidates=("popularity", "popularity without views", "counts"),
        available_only=True,
        num_beams=8,
        seed=0,
        show_progress=False,
    )
    asked = [(row.system, row.behavior, row.protocol) for row in rows]
    # Both behaviors have test cases in this log; nothing limits what is available, but that is looked at.
    assert asked == [
        ("GenSAR (a-run)", "recommendation", "full, available"),
        ("GenSAR (a-run)", "search", "full, available"),
        ("counts", "recommendation", "uniform-5"),
        ("GenSAR (a-run)", "recommendation", "uniform-5"),
        ("popularity without views", "recommendation", "uniform-5"),
        ("popularity", "recommendation", "uniform-5"),
        ("counts", "search", "uniform-5"),
        ("GenSAR (a-run)", "search", "uniform-5"),
        ("popularity without views", "search", "uniform-5"),
        ("popularity", "search", "uniform-5"),
    ]


@pytest.mark.parametrize(("only_candidates", "protocol"), [((), "full"), (("popularity",), "uniform-5")])
def test_searches_are_asked_as_people_type_them(only_candidates, protocol, aisles):
    split, catalog, *_ = aisles
    settings = EvaluationArguments(candidate_protocols=["uniform"], num_negatives=5, max_validation_cases=7)
    rows = compare_on_test(
        {"popularity": Popularity.fit(split, catalog.id_map)},
        split,
        catalog,
        settings,
        make_baselines=lambda tuning: {"BM25": BM25(catalog.items)},
        only_candidates=only_candidates,
        seed=0,
        show_progress=False,
    )
    forms = [row for row in rows if row.protocol == f"{protocol}, query forms"]
    assert rows[-10:] == forms
    assert [row.system for row in forms[:6]] == [*(f"BM25, {form}" for form in QUERY_FORMS), "popularity, as typed"]
    assert {row.num_cases for row in forms} == {7}
    # BM25 folds case and punctuation; popularity reads no query.
    assert (
        len({row.metrics["ndcg@10"] for row in forms[:4]}) == len({row.metrics["ndcg@10"] for row in forms[5:]}) == 1
    )


def _save_run(aisles, folder, rows, split):
    """A saved GenSAR, and rows that say what it was tested on: (behavior, protocol)."""
    model, processor = make_gensar(aisles)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    popularity = Popularity.fit(split, aisles[1].id_map)
    tested = [
        row
        for asked in rows
        for row in evaluate_systems(
            {"GenSAR": popularity}, split, aisles[1].id_map, num_negatives=5, show_progress=False, **asked
        )
    ]
    with replace_part(folder / "model", "results") as new:
        write_results(new / "results.json", tested)
    return str(folder / "model")


def test_a_saved_model_is_asked_what_it_was_tested_on(aisles, tmp_path):
    split, catalog, *_ = aisles
    asked = {"behaviors": ["search"], "protocols": ["uniform"]}
    folders = [_save_run(aisles, tmp_path / name / "a-run", [asked], split) for name in ("one", "two")]
    settings = EvaluationArguments(compare_with=folders, candidate_protocols=["uniform"], num_negatives=5)
    rows = compare_on_test({}, split, catalog, settings, make_baselines=lambda tuning: {}, seed=0, show_progress=False)
    # Neither is lost because their runs have one name.
    assert [(row.system, row.behavior, row.protocol) for row in rows] == [
        ("GenSAR (one/a-run)", "search", "uniform-5"),
        ("GenSAR (two/a-run)", "search", "uniform-5"),
    ]
    settings.compare_with = [folders[0], folders[0]]
    with pytest.raises(ConfigurationError, match="names a run twice"):
        compare_on_test({}, split, catalog, settings, make_baselines=lambda tuning: {}, seed=0)


def test_a_model_that_was_trained_on_another_split_is_refused(aisles, tmp_path):
    split, catalog, *_ = aisles
    # Its training events hold test cases of this one.
    other = split_log(split.log, method="last_tenth")
    folder = _save_run(aisles, tmp_path / "leaky", [{"behaviors": ["search"]}], other)
    settings = EvaluationArguments(compare_with=[folder])
    with pytest.raises(
        ConfigurationError, match=f"leaky.*, last_tenth, .*{other.fingerprint[:12]}.*, leave_one_out, "
    ):
        compare_on_test({}, split, catalog, settings, make_baselines=lambda tuning: {}, seed=0)


def test_a_model_of_another_catalogue_is_refused(aisles, tmp_path):
    split, catalog, *_ = aisles
    model, processor = make_gensar(aisles)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    settings = EvaluationArguments(compare_with=[str(tmp_path / "model")])
    smaller = Catalog.build(catalog.items.slice(0, 10))
    with pytest.raises(ConfigurationError, match="catalogue of 24 items differs from this data set's 10"):
        compare_on_test({}, split, smaller, settings, make_baselines=lambda tuning: {}, seed=0)


def test_more_baselines_and_measures_are_asked_by_name(aisles):
    split, catalog, *_ = aisles
    popularity = Popularity.fit(split, catalog.id_map)
    settings = EvaluationArguments(
        baselines=["query_log", "item_knn", "sampled_sasrec", "negative_draws"],
        candidate_protocols=["bm25"],
        num_negatives=5,
        measures=True,
        max_validation_cases=5,
    )
    rows = compare_on_test(
        {"ours": popularity},
        split,
        catalog,
        settings,
        make_baselines=lambda tuning: {"SASRec": popularity, "BM25": BM25(catalog.items)},
        train_sampled=lambda: popularity,
        seed=0,
        show_progress=False,
    )
    named = {(row.behavior, row.protocol): [] for row in rows}
    for row in rows:
        named[row.behavior, row.protocol].append(row.system)
    assert named["search", "full"] == [
        "SASRec", "BM25", "query log", "SASRec, sampled softmax", "ours"
    ]  # fmt: skip
    # Only among negatives of BM25 does it matter how they are drawn.
    assert named["recommendation", "bm25-5"] == [
        "SASRec", "item-kNN", "item-kNN x SASRec", "sequential item-kNN", "sequential item-kNN x SASRec",
        "SASRec, sampled softmax", "SASRec less draws", "ours"
    ]  # fmt: skip
    full = [row for row in rows if row.protocol == "full"]
    assert all({"ndcg@10", "coverage@10", "diversity@10"} <= row.metrics.keys() & row.intervals.keys() for row in full)
    assert {row.details.get("role") for row in full if row.system != "ours"} == {"baseline"}
    assert any(protocol.startswith(("full, histories", "full, items")) for _, protocol in named)
    assert "The strongest baseline is" in format_table(rows)
    with pytest.raises(ConfigurationError, match="name `none` alone"):
        EvaluationArguments(baselines=["none", "usual"])
