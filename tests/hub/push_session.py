# SPDX-License-Identifier: Apache-2.0
"""What a user does with the Hub, in a process of its own: `python push_session.py MODEL_FOLDER REPORT`.

It runs in a subprocess of the tests, because huggingface_hub reads its address when it is imported.
"""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

import datasets
import huggingface_hub
from huggingface_hub import HfApi
from kite_shop import make_log
from transformers import AutoModel, AutoProcessor, pipeline

import seekrec
from seekrec.hub import render_dataset_card

ROOT = Path(__file__).parents[2]
REQUESTS = [seekrec.Request(), seekrec.Request(history=[seekrec.Event("i3")], query="kites")]


def run_recipe(*options):
    printed = io.StringIO()
    sys.argv = ["push_to_hub.py", *options]
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(ROOT / "recipes" / "push_to_hub.py"), run_name="__main__")
    return printed.getvalue()


def run_code(blocks):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        namespace = {}
        for block in blocks:
            exec(block, namespace)
    return printed.getvalue()


def answers_of(name_or_path):
    model = AutoModel.from_pretrained(name_or_path).eval()
    processor = AutoProcessor.from_pretrained(name_or_path)
    return [
        [(item.item_id, item.title, item.score) for item in answer]
        for answer in model.retrieve(processor(REQUESTS), top_k=12)
    ]


def push_data_set():
    log = make_log()
    parts = log.to_dataset_dict()
    tables = [
        {"config": name, "split": "train", "num_rows": len(part["train"]), "columns": part["train"].column_names}
        for name, part in parts.items()
    ]
    card = render_dataset_card(
        ROOT / "hub_cards" / "dataset.md",
        {
            "repo_id": "me/kite-log",
            "license": "other",
            "tags": ["seekrec"],
            "description": "What people flew.",
            "configs": {},
            "tables": tables,
            "log": log.describe(),
            "command": "python recipes/prepare_data.py",
        },
    )
    api = HfApi()
    api.create_repo("me/kite-log", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="me/kite-log", repo_type="dataset"
    )
    for name, part in parts.items():
        part.push_to_hub("me/kite-log", config_name=name)
    loaded = {name: datasets.load_dataset("me/kite-log", name, split="train") for name in parts}
    return {
        "configs": datasets.get_dataset_config_names("me/kite-log"),
        "is_equal": {name: loaded[name].to_list() == parts[name]["train"].to_list() for name in parts},
    }


def main(model_folder, report_path):
    options = ["--model_dir", str(model_folder), "--repo_id", "me/kites"]
    report = {"dry_run": run_recipe(*options, "--dry_run", "true")}
    report["exists_after_dry_run"] = HfApi().repo_exists("me/kites")
    report["push"] = run_recipe(*options, "--private", "true", "--dataset_id", "me/kite-log")
    report["push_again"] = run_recipe(*options, "--private", "true", "--dataset_id", "me/kite-log")

    snapshot = Path(huggingface_hub.snapshot_download("me/kites"))
    report["snapshot"] = sorted(
        path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()
    )
    card = (snapshot / "README.md").read_text(encoding="utf-8")
    report["card_code"] = run_code(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    report["local"], report["hub"] = answers_of(model_folder), answers_of("me/kites")
    report["pipeline"] = pipeline("search-and-recommendation", model="me/kites")(REQUESTS, top_k=12)
    report["catalog_hash"] = seekrec.Catalog.load("me/kites").content_hash
    report["data_set"] = push_data_set()
    Path(report_path).write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
