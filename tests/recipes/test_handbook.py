# SPDX-License-Identifier: Apache-2.0
"""The pages of the handbook: every command that trains is parsed with its values, those about a log run dry on a tiny
one of the form that they name, and Python is run."""

from __future__ import annotations

import ast
import contextlib
import csv
import importlib
import io
import json
import random
import re
import shlex
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_readme import DOCUMENTS, ROOT, commands_of, fenced
from tiny_runs import run_script

from seekrec.events.log import EventLog
from seekrec.events.partitions import partition_log
from seekrec.events.readers import OTHER_DATASETS, READERS
from seekrec.recipes import GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe
from seekrec.recipes.launch import find_packaged_settings, run_recipe
from seekrec.util.parsing import given_settings, parse_arguments

RECIPES = {kind.family(): kind for kind in (GenSARRecipe, GenSRRecipe, IntSRRecipe, SynerGenRecipe)}
PAGES = sorted((ROOT / "recipes").glob("*.md"))
AISLES = ("garden tools", "kitchen knives", "office paper")
# A command about a log that is not on this machine is parsed alone.
ELSEWHERE = "postgresql://"


def training_command(command: str) -> tuple[str, list[str]] | None:
    """Return the family and the options of a command that trains one."""
    words = shlex.split(command, comments=True)
    for place, word in enumerate(words):
        if script := re.fullmatch(r"recipes/train_(\w+)\.py", word):
            return script[1], words[place + 1 :]
    if words[:2] == ["seekrec", "train"] and len(words) > 2 and words[2] in RECIPES:
        return words[2], words[3:]
    return None


TRAINING = dict.fromkeys(
    command
    for path in DOCUMENTS
    for command in commands_of(path.read_text("utf-8"))
    if training_command(command) and "--help" not in command
)
DRY = [
    pytest.param(command, marks=[pytest.mark.slow] if "--engine ray" in command else [])
    for command in dict.fromkeys(one for path in [ROOT / "README.md", *PAGES] for one in commands_of(path.read_text()))
    if command in TRAINING and ("--events" in command or "--dataset" in command) and ELSEWHERE not in command
]


@pytest.mark.parametrize("command", TRAINING)
def test_settings_of_commands_are_those_of_the_recipe(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    family, options = training_command(command)
    options = find_packaged_settings(family, options)
    recipe = RECIPES[family](*parse_arguments(RECIPES[family].argument_types(), options, ignored=("ddp_backend",)))
    recipe.refuse_ignored(given_settings(options))


def option_of(options: list[str], name: str) -> str | None:
    return options[options.index(name) + 1] if name in options else None


def draw_acts(num_users: int = 24, num_acts: int = 5) -> list[dict[str, object]]:
    rng = random.Random(0)
    rows = []
    for user in range(num_users):
        for act in range(num_acts):
            item = f"p{rng.randrange(12) * 3 + user % 3}"
            query = AISLES[user % 3] if act % 2 else None
            rows.append({"user_id": f"c{user}", "item_id": item, "timestamp": 1_600_000_000 + 90_000 * act + user})
            rows[-1]["query"] = query
    return rows


def draw_goods(separator: str = " > ") -> list[dict[str, object]]:
    return [
        {
            "item_id": f"p{row}",
            "title": f"{AISLES[row % 3]} {row}",
            "categories": separator.join(("Shop", AISLES[row % 3])),
        }
        for row in range(36)
    ]


def write_table(path: Path, rows: list[dict[str, object]], delimiter: str) -> None:
    """Write CSV, Parquet, or a folder of Parquet as Spark does, as the name of the path says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        for part in range(2):
            folder = path / f"day=2024-05-0{part + 1}" if path.name == "events" else path
            folder.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(rows[part::2])
            if "timestamp" in table.column_names:
                place = table.column_names.index("timestamp")
                table = table.set_column(place, "timestamp", table["timestamp"].cast(pa.timestamp("s")))
            # Spark's own kind of timestamps.
            pq.write_table(table, folder / f"part-{part:05d}.snappy.parquet", use_deprecated_int96_timestamps=True)
        (path / "_SUCCESS").touch()


def write_own(folder: Path, options: list[str]) -> None:
    """Write the two tables that options name, with the names of columns and the form that they say."""
    start = options.index("--column_map") + 1 if "--column_map" in options else len(options)
    pairs = []
    while start < len(options) and "=" in options[start]:
        pairs.append(options[start].split("=", 1))
        start += 1
    names, delimiter = dict(pairs), option_of(options, "--delimiter") or ","
    scale = {"ms": 1000}.get(option_of(options, "--time_unit") or "", 1)
    acts = [
        {names.get(name, name): value * scale if name == "timestamp" else value for name, value in row.items()}
        for row in draw_acts()
    ]
    events = folder / str(option_of(options, "--events"))
    if events.name == "partitions":
        partition_log(pa.Table.from_pylist(acts), pa.Table.from_pylist(draw_goods()), events, num_partitions=1)
        return
    write_table(events, acts, delimiter)
    if (items := option_of(options, "--items")) is not None:
        goods = draw_goods(option_of(options, "--category_separator") or " > ")
        named = {ours.removeprefix("items."): theirs for ours, theirs in names.items() if ours.startswith("items.")}
        goods = [{named.get(name, name): value for name, value in row.items()} for row in goods]
        write_table(folder / items, goods, delimiter)


def write_database(folder: Path, place: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    acts, goods = pa.Table.from_pylist(draw_acts()), pa.Table.from_pylist(draw_goods())
    with duckdb.connect(str(folder / place) if place.endswith(".duckdb") else ":memory:") as database:
        database.register("acts", acts)
        database.register("shelf", goods)
        database.execute(
            "CREATE TABLE clicks AS SELECT user_id AS buyer, item_id AS sku, to_timestamp(timestamp) AS created_at, "
            "query AS search_text FROM acts"
        )
        database.execute("CREATE TABLE goods AS SELECT item_id AS sku, title AS name FROM shelf")
        if not place.endswith(".duckdb"):
            (folder / place / "clicks").mkdir(parents=True)
            database.execute("ALTER TABLE clicks RENAME buyer TO customer")
            database.execute(f"COPY clicks TO '{folder / place}/clicks/1.parquet'")
            database.execute(f"COPY goods TO '{folder / place}/goods.csv'")


def write_published(folder: Path, dataset: str) -> None:
    folder.mkdir(parents=True)
    acts, goods = draw_acts(), draw_goods()
    if dataset == "movielens":
        ratings = [f"{row['user_id'][1:]},{row['item_id'][1:]},4.0,{row['timestamp']}" for row in acts]
        movies = [f"{row['item_id'][1:]},{row['title']} (1999),Drama|Comedy" for row in goods]
        (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings, ""]))
        (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies, ""]))
    elif dataset == "amazon":
        reviews = [
            {"reviewerID": row["user_id"], "asin": row["item_id"], "overall": 4.0, "unixReviewTime": row["timestamp"]}
            for row in acts
        ]
        products = [
            {"asin": row["item_id"], "title": row["title"], "categories": [str(row["categories"]).split(" > ")]}
            for row in goods
        ]
        (folder / "reviews_Toys_5.json").write_text("".join(f"{json.dumps(row)}\n" for row in reviews))
        (folder / "meta_Toys.json").write_text("".join(f"{row!r}\n" for row in products))
    elif dataset == "trivago":
        header = "user_id,session_id,timestamp,step,action_type,reference,platform,city,device,current_filters"
        rows = []
        for number, act in enumerate(acts):
            visit = f"{act['user_id']},v{number}"
            place = f'JP,"{AISLES[number // 5 % 3]}, Shop",mobile,,,'
            if act["query"]:
                rows.append(f"{visit},{act['timestamp'] - 1},1,search for destination,{act['query']},{place}")
            rows.append(f"{visit},{act['timestamp']},2,clickout item,{act['item_id'][1:]},{place}")
        (folder / "train.csv").write_text("\n".join([f"{header},impressions,prices", *rows, ""]))
        (folder / "item_metadata.csv").write_text("item_id,properties\n1,Sauna\n")
    else:
        raise AssertionError(f"write a tiny log of {dataset!r} here, and its command is run")


def write_clone(folder: Path) -> None:
    """A repository of the Hub, cloned."""
    acts, goods = pa.Table.from_pylist(draw_acts()), pa.Table.from_pylist(draw_goods())
    acts = acts.append_column(
        "behavior", pa.array(["search" if query else "recommendation" for query in acts["query"].to_pylist()])
    ).append_column("action", pa.array(["click"] * len(acts)))
    goods = goods.set_column(2, "categories", pa.array([[["Shop"]]] * len(goods)))
    configurations = []
    for name, splits in EventLog("log", acts, goods, query_source="logged").to_dataset_dict().items():
        (folder / name).mkdir(parents=True)
        splits["train"].to_parquet(folder / name / "train-00000-of-00001.parquet")
        configurations.append(f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train-*\n")
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configurations) + "---\n")


def write_log(folder: Path, options: list[str]) -> None:
    dataset, place = option_of(options, "--dataset"), option_of(options, "--data_dir")
    if dataset is None:
        write_own(folder, options)
    elif dataset == "sql":
        write_database(folder, str(place))
    elif dataset == "hub":
        write_clone(folder / str(place))
    else:
        write_published(folder / str(place), dataset)


@pytest.mark.parametrize("command", DRY)
def test_commands_read_the_log_that_they_name(command, tmp_path, monkeypatch):
    import datasets

    if "--engine ray" in command:
        pytest.importorskip("ray")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    family, options = training_command(command)
    write_log(tmp_path, options)
    if (config := option_of(options, "--config")) is not None and config.endswith(".yaml"):
        options[options.index("--config") + 1] = str(ROOT / config)
    if "--use_cpu" in options:
        options[options.index("--use_cpu") + 1] = "true"
    for place in options[options.index("--compare_with") + 1 :] if "--compare_with" in options else []:
        if place.startswith("runs/"):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "config.json").write_text("{}")
    before = sorted((tmp_path / "runs").rglob("*"))
    printed = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["seekrec"])
    with contextlib.redirect_stdout(printed):
        run_recipe("handbook", RECIPES[family], [*options, *(() if "--dry_run" in options else ("--dry_run",))])
    assert "events of 24 users" in printed.getvalue() and "in all" in printed.getvalue()
    assert sorted((tmp_path / "runs").rglob("*")) == before


PYTHON = [
    pytest.param(before, code, id=f"{path.stem}-{number}")
    for path in PAGES
    for number, (before, code) in enumerate(fenced(path.read_text("utf-8"), "python"))
]


@pytest.mark.parametrize(("before", "code"), PYTHON)
def test_python_of_the_pages_runs(before, code, tmp_path, monkeypatch):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    if "<!-- not run:" in before:
        return
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path, ["--events", "my/events", "--items", "my/items"])
    exec(compile(code, "a page of the handbook", "exec"), {"__name__": "page"})


def test_the_page_of_data_has_every_dataset():
    page = (ROOT / "recipes" / "data.md").read_text("utf-8")
    told = set(re.findall(r"^\| `(\w+)` \| ", page, flags=re.MULTILINE)) | set(re.findall(r"--dataset (\w+)", page))
    assert {*READERS, *OTHER_DATASETS} - {"tables"} <= told


@pytest.mark.slow
def test_the_page_of_an_own_log_leads_to_answers(tmp_path, monkeypatch):
    # The clock of a run counts from the start of its process, which here is that of all tests.
    monkeypatch.setattr("seekrec.util.clock._joined", [time.time()])
    monkeypatch.chdir(tmp_path)
    page = commands_of((ROOT / "recipes" / "own_log.md").read_text("utf-8"))
    (train,) = [command for command in page if "--max_minutes 10" in command]
    family, options = training_command(train)
    write_log(tmp_path, options)
    small = ["--num_train_epochs", "2", "--sasrec_num_epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["seekrec"])
    run_recipe("handbook", RECIPES[family], [*options, *small])
    printed = {}
    for command in page:
        words = shlex.split(command)
        if words[0] == "python" and "benchmarks" not in command:
            printed[words[1]] = run_script(Path(words[1]).name, *words[2:])
    assert "Found for 'red shoes'" in printed["recipes/demo.py"]
    assert "me/my-shop" in printed["recipes/push_to_hub.py"]
