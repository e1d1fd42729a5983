# SPDX-License-Identifier: Apache-2.0
"""The papers' exhibits: the runs that they plan, their claims by paired differences, and how they are drawn."""

import json
import runpy
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_data import write_encoder, write_log
from tiny_runs import ROOT

from seekrec.errors import ConfigurationError
from seekrec.evaluation import ResultRow
from seekrec.evaluation.metrics import Interval
from seekrec.recipes import GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe
from seekrec.recipes.gensr_twin import PAIR
from seekrec.recipes.paper_claims import findings_of, numbers_of, rows_of, verdict_of
from seekrec.recipes.paper_report import summarize, write_report
from seekrec.recipes.paper_runs import reproduce
from seekrec.recipes.papers import Source, Trainings, paper_names, read_paper
from seekrec.recipes.variants import as_options
from seekrec.util.parsing import parse_arguments

RECIPES = {kind.family(): kind for kind in (GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe)}


def make_row(ranks, *, system="IntSR", behavior="search", protocol="full", **details):
    ranks = np.asarray(ranks, dtype=np.float64)
    return ResultRow(
        system=system,
        dataset="made up",
        behavior=behavior,
        part="test",
        protocol=protocol,
        split_method="leave_one_out",
        split_protocol="strict",
        split_fingerprint="0" * 64,
        cases_fingerprint="1" * 16,
        query_source="typed",
        seen_removed=True,
        num_cases=len(ranks),
        num_items=100,
        seed=0,
        seconds=1.0,
        metrics={},
        intervals={},
        details=details,
        ranks=np.stack([ranks, ranks], axis=1),
    )


@pytest.mark.parametrize("paper", paper_names())
def test_every_run_of_a_paper_is_one_that_its_recipe_knows(paper):
    content = read_paper(paper)
    for exhibit in content.exhibits.values():
        labels = {*exhibit.rows, *([] if exhibit.measure is None else PAIR)}
        for claim in exhibit.claims:
            named = {*claim.better, *claim.than} - {"baselines"}
            assert named <= labels | ({content.title} if exhibit.systems_of else set()), (exhibit.name, claim.says)
        assert {end for ends in exhibit.arrows.values() for end in ends} <= labels
        for name in exhibit.runs:
            run = content.run(name)
            options = ["--output_dir", "anywhere", "--use_cpu", "true", *as_options({**run.usual, **run.own})]
            parse_arguments(RECIPES[run.family].argument_types(), options)


def test_the_exhibits_that_the_papers_have():
    found = {name: list(read_paper(name).exhibits) for name in paper_names()}
    assert found["intsr"] == ["table 1", "table 2", "table 3", "table 4"]
    assert found["synergen"] == ["table 2", "table 3", "table 4"]
    assert {"table 3", "table 4", "table 5", "figure 1a", "figure 1b"} < set(found["gensar"])
    assert {"figure 4", "figure 5", "figure 6", "figure 7"} < set(found["gensar"])
    with pytest.raises(ConfigurationError, match="`paper` is 'bert'; use one of gensar"):
        read_paper("bert")


def test_a_run_that_changes_nothing_is_the_full_model(tmp_path):
    trainings = Trainings(read_paper("gensar"), str(ROOT / "recipes/gensar/tiny.yaml"), tmp_path, ROOT / "recipes")
    assert trainings.same_as("shared levels = 2").name == "full"
    assert trainings.same_as("shared levels = 3").name == "shared levels = 3"
    assert trainings.folder_of(trainings.same_as("levels = 5")) == tmp_path / "gensar" / "levels---5"
    other = replace(trainings, paper=read_paper("synergen"))
    # What is compared by ids alone reads ids alone.
    for name in ("ids alone", "HSTU"):
        run = other.paper.run(name)
        read = {**run.usual, **run.own}
        assert (read["item_reading"], read["query_reading"]) == ("vector", "none"), name
    with pytest.raises(
        ConfigurationError, match="The paper also needs intsr, whose settings `config` .* does not hold"
    ):
        other.train("HSTU")


def test_a_family_is_not_asked_for_settings_of_others(tmp_path):
    options = [
        "--data_dir",
        "d",
        "--identifier_num_epochs",
        "50",
        "--max-test-cases=5",
        "--task_weights",
        "a=1",
        "b=2",
    ]
    trainings = Trainings(read_paper("gensar"), "any", tmp_path, tmp_path, [*options, "--no_such_setting", "1"])
    assert trainings.options_of("gensar") == [*options, "--no_such_setting", "1"]
    # What no family has is still refused by the run.
    assert trainings.options_of("intsr") == ["--data_dir", "d", "--max-test-cases=5", "--no_such_setting", "1"]


def test_what_the_user_names_replaces_usual_settings_and_not_what_makes_a_run(tmp_path, monkeypatch):
    asked = {}

    def train(script, config, folder, name, options, *, num_train_epochs):
        asked[name] = options
        return tmp_path / "results.json"

    monkeypatch.setattr("seekrec.recipes.papers.run_variant", train)
    monkeypatch.setattr("seekrec.recipes.papers.read_results", lambda path: [])
    options = ["--ranking_weight", "0.5", "--time_encoding", "time"]
    config = str(ROOT / "recipes/synergen/tiny.yaml")
    trainings = Trainings(read_paper("synergen"), config, tmp_path, ROOT / "recipes", options)
    for name in ("full", "without ranking head", "without time-based rotation"):
        trainings.train(name)
    # A later option wins.
    weights = {
        name: [value for word, value in zip(words, words[1:], strict=False) if word == "--ranking_weight"]
        for name, words in asked.items()
    }
    assert weights["full"] == ["1", "0.5"]
    assert weights["without ranking head"] == ["1", "0.5", "0"]
    assert asked["without time-based rotation"][-2:] == ["--time_encoding", "order"]


def test_a_model_with_its_parts_has_them():
    """What a row leaves out, the full model of the paper has, whatever the settings file says."""
    intsr = read_paper("intsr")
    assert intsr.run("full").usual["num_dsf_layers"] == 1
    assert intsr.run("w/o DSFNet").own == {"without": "dsfnet"}
    gensr = read_paper("gensr")
    assert gensr.run("full").usual["filtered_history"] == "picked"  # equations 7 and 8
    assert gensr.run("w/o soft filter").own == {"filtered_history": "mean"}
    assert gensr.run("w/o collaborative view").own == {"prompt_views": "semantic", "contrast_weight": 0}
    for paper in ("gensar", "gensr"):
        runs = {name: read_paper(paper).run(name).own for name in ("TIGER", "generative retrieval")}
        assert all(run["corpus"] == "instructions" for run in runs.values())
        assert runs["TIGER"]["max_history_searches"] == 0 and "max_history_recommendations" not in runs["TIGER"]
        assert {runs["generative retrieval"][f"max_history_{kind}"] for kind in ("recommendations", "searches")} == {0}
    (first, second) = read_paper("gensar").exhibits["figure 1a"].claims
    # Either moves one weight, and asks what it does to the other task.
    assert (first.than, second.than) == (("recommendation 1, search 1",),) * 2


def test_claims_are_paired_differences(tmp_path):
    """The full model finds each target first, the variant second: 1 against 1 / log2(3) in each case."""
    exhibit = read_paper("intsr").exhibits["table 4"]
    full = make_row(np.ones(20))
    results = {
        name: [full if name == "full" else make_row(np.full(20, 2.0)), make_row(np.ones(9), protocol="full, typed")]
        for name in exhibit.runs
    }
    assert list(rows_of(exhibit, results, "search", "full")) == list(exhibit.rows)
    assert rows_of(exhibit, results, "search", "uniform") == {}
    findings = findings_of(exhibit, results)
    first = next(one for one in findings if one.says == "S tokens help")
    gain = 1 - 1 / np.log2(3)
    assert first.difference == pytest.approx(gain) and first.low == pytest.approx(gain)
    assert first.verdict == "holds" and first.behavior == "search" and first.num_cases == 20
    # No part loses more than another: no difference, and nothing decided.
    most = [one for one in findings if one.says == "Without the session mask most is lost"]
    assert [one.difference for one in most] == [0.0] * 4 and summarize(most) == "undecided"
    report = write_report(tmp_path, [], [exhibit], [], findings).read_text()
    assert "Without the session mask most is lost: **undecided** (both answer every case alike)" in report
    numbers = [one for one in numbers_of(exhibit, results) if one.label == "w/o S"]
    assert {one.metric: one.value for one in numbers}["ndcg@10"] == pytest.approx(1 / np.log2(3))


def test_the_best_baseline_is_what_a_model_is_compared_with():
    exhibit = read_paper("intsr").exhibits["table 1"]
    rows = [
        make_row([1, 1, 9, 9], system="BM25", role="baseline"),
        make_row([50, 50, 50, 50], system="popularity", role="baseline"),
        make_row([1, 1, 1, 1], system="ceiling", role="ceiling"),
        make_row([2, 2, 2, 2]),
    ]
    (finding,) = findings_of(exhibit, {"full": rows})
    assert (finding.better, finding.than) == ("IntSR", "BM25")
    # By hand: 1 / log2(3) against the mean of 1 and 1 / log2(10).
    assert finding.difference == pytest.approx(1 / np.log2(3) - (1 + 1 / np.log2(10)) / 2)


def test_what_a_list_is_too_short_for_is_left_out():
    exhibit = read_paper("synergen").exhibits["table 2"]
    short, long = ([7.0, 50.0, np.inf], [7.0, 150.0, np.inf])
    results = {
        run: [make_row(short, system="HSTU, retrieval head", behavior="recommendation")] for run in exhibit.runs
    }
    results["full"] = [make_row(long, system="SynerGen, retrieval head", behavior="recommendation")]
    found = {(one.label, one.metric): one.value for one in numbers_of(exhibit, results)}
    assert found["SynerGen", "recall@200"] == pytest.approx(2 / 3)
    assert found["HSTU (ids)", "recall@50"] == pytest.approx(2 / 3) and ("HSTU (ids)", "recall@200") not in found
    # Among 99 others no target is further down than 100.
    asked = replace(read_paper("synergen").exhibits["table 4"], metrics=("recall@99", "recall@200"))
    row = make_row([7.0, 100.0], system="SynerGen, retrieval head", protocol="bm25-99")
    among = numbers_of(asked, {run: [row] for run in asked.runs})
    assert {(one.metric, one.value) for one in among} == {("recall@99", 0.5)}


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.02, "holds"), (-0.02, -0.01, "does not hold"), (-0.01, 0.02, "undecided")]
)
def test_verdicts(low, high, verdict):
    assert verdict_of((low + high) / 2, Interval(low, high)) == verdict
    assert verdict_of(0.5, None) == "holds"


def test_reports_hold_tables_claims_and_pictures(tmp_path):
    draws = np.random.default_rng(0)
    exhibits, numbers, findings = [], [], []
    for paper, name in (("intsr", "table 4"), ("gensar", "figure 6"), ("trade_off", "trade-off")):
        exhibit = read_paper(paper).exhibits[name]
        system = {"intsr": "IntSR", "gensar": "GenSAR", "trade_off": "SynerGen"}[paper]
        results = {
            run: [
                make_row(draws.integers(1, 30, 40), system=system, behavior=behavior, protocol=protocol)
                for behavior in ("recommendation", "search")
                for protocol in ("full", "uniform-99", "bm25-99")
            ]
            for run in exhibit.runs
        }
        exhibits.append(exhibit)
        numbers += numbers_of(exhibit, results)
        findings += findings_of(exhibit, results)
    report = write_report(tmp_path, ["# Made up"], exhibits, numbers, findings)
    text = report.read_text()
    assert "## Table 4: IntSR without its parts" in text and "search, among 99 random items, 40 cases" in text
    assert "- S tokens help: **" in text
    table = pq.read_table(tmp_path / "numbers.parquet")
    assert table.num_rows == len(numbers) and table.column_names[:3] == ["exhibit", "label", "behavior"]
    assert len(json.loads((tmp_path / "claims.json").read_text())) == len(findings)
    assert [(tmp_path / f"{one.name.replace(' ', '-')}.png").stat().st_size > 10_000 for one in exhibits] == [True] * 3


def test_another_family_has_settings_beside_those_of_the_paper(tmp_path, monkeypatch):
    paper, scripts = read_paper("synergen"), ROOT / "recipes"
    assert "intsr" in {paper.run(run).family for run in paper.exhibits["table 2"].runs}
    given = Trainings(paper, str(scripts / "synergen" / "tiny.yaml"), tmp_path, scripts)
    assert given.settings_of("intsr")[0] == str(scripts / "intsr" / "tiny.yaml")
    # Refused before anything is trained.
    (tmp_path / "own.yaml").write_text("dataset: movielens\n")
    monkeypatch.setattr(Trainings, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(ConfigurationError, match="also needs intsr, whose settings"):
        reproduce(Trainings(paper, str(tmp_path / "own.yaml"), tmp_path, scripts))


def test_a_report_names_no_folder_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainings, "train", lambda *_: [make_row(np.ones(20), system="IntSR", protocol="full")])
    options = ["--data_dir", str(tmp_path / "log"), "--max_test_cases", "5"]
    scripts = ROOT / "recipes"
    trainings = Trainings(read_paper("intsr"), str(scripts / "intsr/tiny.yaml"), tmp_path / "runs", scripts, options)
    trainings.epochs["intsr"] = (1.0, 2.0)
    text = reproduce(trainings, ["table 1"])[0].read_text()
    assert "- with `--data_dir log --max_test_cases 5`" in text and "intsr: `tiny.yaml`" in text
    assert str(tmp_path) not in text and str(ROOT) not in text


def test_rows_without_a_run_are_refused():
    assert read_paper("synergen").exhibits["table 2"].rows["SASRec (ids)"] == Source("full", "SASRec")
    with pytest.raises(ConfigurationError, match="'without wings' is not a variant of intsr; choose from full"):
        read_paper("intsr").run("without wings")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paper", "which"),
    [
        ("intsr", ["table 3"]),
        ("synergen", ["table 2", "table 4"]),
        ("gensar", ["figure 1b", "figure 5", "figure 7", "table 3"]),
        ("gensr", ["table 4"]),
    ],
)
def test_papers_are_reproduced(paper, which, tmp_path, capsys):
    script = runpy.run_path(str(ROOT / "recipes" / "papers.py"))
    arguments = script["PaperArguments"](
        paper=paper,
        config=str(ROOT / "recipes" / "{family}" / "tiny.yaml"),
        data_dir=str(write_log(tmp_path / "log")),
        output_dir=str(tmp_path / "runs"),
        which=which,
        num_train_epochs=1,
    )
    script["main"](arguments, ["--semantic_encoder", str(write_encoder(tmp_path)), "--use_cpu", "true"])
    report = (tmp_path / "runs" / "report" / "report.md").read_text()
    assert "1 epochs (a short schedule; the file has 2)" in report
    table = pq.read_table(tmp_path / "runs" / "report" / "numbers.parquet").to_pylist()
    assert {row["exhibit"] for row in table} == set(which)
    labels = {row["label"] for row in table}
    if paper == "synergen":
        assert {"full, ranking head", "full, retrieval head"} < labels
    printed = capsys.readouterr().out
    assert printed.count("holds") + printed.count("does not hold") + printed.count("undecided") >= len(which)
