# SPDX-License-Identifier: Apache-2.0
"""One command for an own log, whatever it lacks: it trains, or says in one line how it could."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time

import pyarrow.parquet as pq
import pytest
from own_logs import KINDS, write_own_log
from tiny_runs import metrics, run, run_script

from seekrec.util.clock import process_seconds

FAMILIES = ("gensar", "gensr", "intsr", "synergen")
# What is large is made small; the rest is chosen.
SMALL = {
    "sasrec_num_epochs": 1,
    "num_train_epochs": 1,
    "max_validation_cases": 4,
    "max_test_cases": 4,
    "baselines": "none",
    "disable_tqdm": "true",
    "per_device_train_batch_size": 64,
}
SMALL_T5 = {"identifier_num_epochs": 1, "codebook_size": 8, "d_model": 16, "d_ff": 16, "num_beams": 8, "bf16": "false"}


def options_of(family, encoder):
    small = SMALL | (SMALL_T5 if family == "gensar" else {})
    return [
        "--semantic_encoder",
        str(encoder),
        *(word for name, value in small.items() for word in (f"--{name}", value)),
    ]


def train(family, kind, encoder, folder, *options):
    log = write_own_log(folder / "log", kind)
    words = [*log, *options_of(family, encoder), "--output_dir", folder / "run", *options]
    return run_script(f"train_{family}.py", *words)


# One family each; the others take minutes.
DEFAULT = [
    ("gensar", "all of it"),
    ("intsr", "ids alone"),
    ("intsr", "searches of an order"),
]
CASES = [
    pytest.param(family, kind, marks=[] if (family, kind) in DEFAULT else pytest.mark.slow)
    for family in FAMILIES
    for kind in KINDS
]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_every_kind_of_log_is_trained_on(family, kind, inputs, tmp_path):
    printed = train(family, kind, inputs[1], tmp_path)
    has = KINDS[kind]
    found = metrics(tmp_path / "run")
    name = {"gensar": "GenSAR", "gensr": "GenSR", "intsr": "IntSR", "synergen": "SynerGen"}[family]
    behaviors = {behavior for system, behavior, _ in found if system == name}
    searches = "searches" in has or "categories" in has
    assert behaviors == ({"recommendation", "search"} if searches else {"recommendation"})
    # The report, the plan with its reasons, and the table.
    assert "orders: " in printed and f"plan of {family} for orders" in printed and "ndcg@10" in printed
    chosen = {one["name"]: one["value"] for one in json.loads((tmp_path / "run/model/run.json").read_text())["plan"]}
    assert chosen["construction"] == ("split" if searches and "searches" not in has else "none")
    assert ("SYNTHETIC" in printed) == (chosen["construction"] == "split")
    assert not set(chosen) & set(SMALL)
    if family == "intsr":
        words = ["words"] if "text" in has and searches else []
        categories = ["categories"] if "categories" in has and searches else []
        text = ["text"] if "text" in has else []
        assert chosen["item_reading"] == ["vector", *text, *categories, *words]
        assert chosen["relative_bias"] == ("position" if "order" in has else "buckets")
        times = [] if "order" in has else ["weekday"] if "days" in has else ["hour", "weekday"]
        assert chosen["scenario_features"] == [*times, "page"]


def test_the_same_command_goes_on_with_its_plan_and_the_settings_file_repeats_the_run(inputs, tmp_path):
    first = train("intsr", "all of it", inputs[1], tmp_path, "--hidden_size", "16")
    plan = (tmp_path / "run" / "plan.json").read_bytes()
    again = train("intsr", "all of it", inputs[1], tmp_path, "--hidden_size", "16")
    assert (tmp_path / "run" / "plan.json").read_bytes() == plan
    # Times of first acts are what training draws by; what is saved has those of the file, where it has any.
    assert "item_lifetimes: first_event" in (tmp_path / "run" / "settings.yaml").read_text()
    items = pq.read_table(tmp_path / "run" / "model" / "catalog" / "items.parquet").to_pylist()
    assert {item["item_id"]: item["available_from"] for item in items if item["available_from"]} == {"p0": 978_307_200}
    # All but the seconds, which end a line of a table.
    shown = [[line.rpartition(" ")[0] for line in one.splitlines() if "  " in line][:60] for one in (first, again)]
    assert shown[0] == shown[1]
    settings = tmp_path / "run" / "settings.yaml"
    assert "hidden_size: 16\n" in settings.read_text() and "max_history: 20  # nine of ten" in settings.read_text()
    printed = run_script("train_intsr.py", "--config", settings, "--output_dir", tmp_path / "other")
    assert "plan of" not in printed and metrics(tmp_path / "other") == metrics(tmp_path / "run")


def test_a_refused_run_leaves_a_finished_one_as_it_was(inputs, tmp_path):
    """Here for a model that knows the test, which is found out once the log is read and split."""
    train("intsr", "all of it", inputs[1], tmp_path)
    run = tmp_path / "run"

    def state():
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "stages" not in path.parts}

    other = shutil.copytree(run / "model", tmp_path / "other" / "model")
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "refit": {"learned_from": "everything"}}))
    before = state()
    assert {run / "plan.json", run / "settings.yaml"} <= before.keys()
    for options, said in [
        (["--compare_with", other], "was trained on all events of its log"),
        (["--compare_with", other.parent], f"does not contain a model: there is no config.json; did you mean {other}"),
        (["--compare_with", tmp_path / "no"], "which is not a folder; name that of a model"),
        (["--learning_rate", "-1"], "`learning_rate` is -1; give a number above 0"),
    ]:
        with pytest.raises(SystemExit, match=said):
            train("intsr", "all of it", inputs[1], tmp_path, "--hidden_size", "8", *options)
        assert state() == before


def test_a_dry_run_says_what_it_costs_and_writes_nothing(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = write_own_log(tmp_path / "log", "categories alone")
    for family in FAMILIES:
        printed = run_script(f"train_{family}.py", *log, "--dry_run")
        stages = [line.split()[0] for line in printed.partition("expected:\n")[2].splitlines()]
        learnt = ["identifiers"] if family == "gensar" else []
        assert stages == ["stage", "data", "embeddings", *learnt, "training", "evaluation", "in"]
        assert f"plan of {family} for orders" in printed and "180 events of 30 users, 36 items" in printed
        # What was taken for what, as a split would say it.
        assert "\n  Names of 'category' in products.csv are separated by" in printed
        words = ["--config", "scientific", "--dataset", "tables", *log, "--dry_run", "--output_dir", "run"]
        printed = run_script(f"train_{family}.py", *words)
        assert f"{family} for orders, on" in printed and "plan of" not in printed and "  in all" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.slow
def test_a_budget_of_minutes_is_kept(inputs, tmp_path, monkeypatch):
    """Beside an hour of epochs; what is fitted to the time is kept for the next time."""
    log = write_own_log(tmp_path / "log", "all of it", num_users=200)
    options = ["--semantic_encoder", inputs[1], "--output_dir", tmp_path / "run", "--disable_tqdm", "true"]
    options += ["--baselines", "none", "--hidden_size", "16", "--per_device_train_batch_size", "2"]
    # The clock of a run counts from the start of its process, which here is that of all tests.
    monkeypatch.setattr("seekrec.util.clock._joined", [time.time()])
    started = process_seconds()
    minutes = (started + 20) / 60
    run_script("train_intsr.py", *log, *options, "--max_minutes", minutes)
    assert process_seconds() < started + 35
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    chosen = {one["name"]: one for one in plan["choices"]}
    assert plan["is_measured"] and chosen["num_train_epochs"]["reason"].endswith("s a step, timed")
    assert 0 < chosen["num_train_epochs"]["value"] <= plan["most_epochs"]
    saved = json.loads((tmp_path / "run" / "trainer" / "identity.json").read_text())
    assert saved["length"]["num_train_epochs"] == chosen["num_train_epochs"]["value"]
    settings = (tmp_path / "run" / "settings.yaml").read_text()
    assert f"num_train_epochs: {chosen['num_train_epochs']['value']}" in settings and "max_minutes" not in settings


@pytest.mark.slow
def test_two_processes_have_one_plan(inputs, tmp_path):
    log = write_own_log(tmp_path / "log", "all of it", num_users=60)
    words = ["-m", "seekrec.recipes.command", "train", "intsr", *log, "--output_dir", str(tmp_path / "run")]
    words += ["--num_processes", "2", "--use_cpu", "true", "--ddp_backend", "gloo", "--max_minutes", "3"]
    words += ["--semantic_encoder", str(inputs[1]), "--sasrec_num_epochs", "1", "--disable_tqdm", "true"]
    done = run([sys.executable, *words])
    plans = [line for line in done.stdout.splitlines() if line.startswith("plan of intsr")]
    # Of the command, and of the process that does the stages before training.
    assert len(plans) == 2 and len(set(plans)) == 1
    fits = re.findall(r"fitted to 3 minutes: (.*)", done.stderr)
    assert len(fits) == 2 and len(set(fits)) == 1


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (
            "bought on days",
            ["--construction", "split"],
            "no item of orders has a category path .* Leave it out to train",
        ),
        ("ids alone", ["--column_map", "user_id=visit"], "No user of orders has three interactions or more"),
        ("bought on days", ["--tasks", "search"], "`tasks` is search.*no searches"),
        ("bought on days", ["--max_minutes", "0"], "`max_minutes` is 0"),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_the_way_out(kind, options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=said):
        run_script("train_intsr.py", *write_own_log(tmp_path / "log", kind), *options)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_costs_are_estimated_for_shops_of_any_size():
    lines = run_script("benchmarks/plan_costs.py", "--num_events", 2000, 8000, "--gflops", 100).splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["num_events"], one["family"]) for one in found[:5]] == [
        *((2000, family) for family in ("intsr", "synergen", "gensr", "gensar")),
        (8000, "intsr"),
    ]
    for one in found:
        assert one["minutes_in_all"] == pytest.approx(sum(one["minutes"].values()), abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind", "expected"),
    [
        ("gensr", "all of it", {"retrieve_by": "views", "view_weights": ["validation"]}),
        ("gensr", "ids alone", {"retrieve_by": "views", "prompt_views": ["collaborative"]}),
        ("intsr", "all of it", {"negatives": "popularity"}),
        ("synergen", "ids alone", {"negatives": "popularity"}),
    ],
)
def test_a_catalogue_counts_as_large_from_a_size_on(family, kind, expected, inputs, tmp_path, monkeypatch):
    """What a plan chooses for many items trains as well; here thirty-six are many."""
    monkeypatch.setattr("seekrec.recipes.choices._MAX_ASKED_ITEMS", 20)
    monkeypatch.setattr("seekrec.recipes.choices.MOST_COMPARED_ITEMS", {"intsr": 20, "synergen": 20})
    train(family, kind, inputs[1], tmp_path)
    chosen = {one["name"]: one["value"] for one in json.loads((tmp_path / "run/model/run.json").read_text())["plan"]}
    assert {name: chosen[name] for name in expected} == expected
    assert any(protocol == "full" for _, _, protocol in metrics(tmp_path / "run"))
