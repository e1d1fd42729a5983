# SPDX-License-Identifier: Apache-2.0
"""Models and data sets go to a Hub and come back; the Hub is `hub_server.py` on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from kite_shop import write_model_folder

SESSION = Path(__file__).with_name("push_session.py")
FILES = [
    ".eval_results/seekrec.yaml",
    "README.md",
    "catalog/catalog.json",
    "catalog/codes.safetensors",
    "catalog/embeddings.safetensors",
    "catalog/identifier_config.json",
    "catalog/identifier_model.safetensors",
    "catalog/items.parquet",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model_manifest.json",
    "processor_config.json",
    "processor_manifest.json",
    "results.json",
    "run.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Run `push_session.py` once; give its report, the server and the model."""
    folder = tmp_path_factory.mktemp("push")
    model, _ = write_model_folder(folder / "model")
    with HubServer() as hub:
        finished = subprocess.run(
            [sys.executable, str(SESSION), str(folder / "model"), str(folder / "report.json")],
            env={**os.environ, **hub.environment(folder / "home"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads((folder / "report.json").read_text()), hub, model


def test_server_knew_every_request(session):
    assert session[1].unknown == []


def test_dry_run_shows_card_and_files_and_uploads_nothing(session):
    report, _, _ = session
    assert "# me/kites" in report["dry_run"]
    assert "Nothing was uploaded; these files would be:\nREADME.md\ncatalog/catalog.json" in report["dry_run"]
    assert report["exists_after_dry_run"] is False


def test_push_uploads_a_complete_private_repository(session):
    report, hub, _ = session
    assert f"Published 18 files: {hub.url}/me/kites" in report["push"]
    assert "popularity" in report["push"]
    repository = hub.repository("me/kites")
    assert repository.is_private
    # What git keeps apart (.gitattributes) is the client's; the rest is ours.
    assert [path for path in sorted(repository.files()) if path != ".gitattributes"] == FILES
    assert repository.commits[repository.resolve("main")]["model.safetensors"].is_lfs
    assert b"task_id: search_ndcg_at_10" in repository.files()[".eval_results/seekrec.yaml"]


def test_second_push_changes_nothing(session):
    report, hub, _ = session
    assert "Published 18 files" in report["push_again"]
    repository = hub.repository("me/kites")
    contents = [repository.commits[oid] for oid in repository.commits]
    assert all(files == contents[-1] for files in contents[1:])


def test_snapshot_is_what_was_pushed(session):
    report, hub, _ = session
    assert [name for name in report["snapshot"] if name != ".gitattributes"] == FILES


def test_loaded_model_answers_as_the_local_one(session):
    report, _, _ = session
    assert [len(answer) for answer in report["hub"]] == [12, 12]
    assert report["hub"] == report["local"]


def test_pipeline_answers_as_the_model(session):
    report, _, _ = session
    for answer, expected in zip(report["pipeline"], report["hub"], strict=True):
        assert [entry["item_id"] for entry in answer] == [item_id for item_id, _, _ in expected]
        # The batch is the same, so is the sum of log-probabilities up to the rounding of a float32.
        assert [entry["score"] for entry in answer] == pytest.approx([score for _, _, score in expected], abs=1e-5)


def test_code_of_the_card_runs(session):
    report, _, _ = session
    lines = report["card_code"].splitlines()
    # Ten items for each of two requests, each with its score, and the pipeline's list. A title may break a line.
    assert sum(line.startswith("i") for line in lines) == 20
    assert lines[-1].startswith("[{'item_id': 'i")


def test_catalog_is_loaded_from_the_repository(session):
    report, _, model = session
    assert report["catalog_hash"] == model.catalog.content_hash


def test_data_set_comes_back_with_its_card(session):
    report, hub, _ = session
    assert report["data_set"] == {"configs": ["events", "items"], "is_equal": {"events": True, "items": True}}
    card = hub.repository("me/kite-log", "dataset").files()["README.md"].decode()
    assert "config_name: events" in card
    assert "license: other" in card
    assert "**The queries are synthetic queries:**" in card
