# SPDX-License-Identifier: Apache-2.0
"""A model folder is complete before it is published, and nothing unsafe goes with it."""

import json
import shutil
from dataclasses import make_dataclass, replace

import pyarrow as pa
import pytest
from kite_shop import COMMAND, make_catalog, make_log, write_model_folder

from seekrec.errors import CatalogError, CheckpointError, ConfigurationError, DataError
from seekrec.hub import check_model_folder, copy_model, describe_model
from seekrec.recipes.record import record_run
from seekrec.recipes.stages import StageCache


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, _ = write_model_folder(folder)
    return folder, model


@pytest.fixture
def folder(complete, tmp_path):
    return shutil.copytree(complete[0], tmp_path / "model")


def describe(folder):
    return describe_model(folder, repo_id="me/kites", system="GenSAR", license="unknown")


def test_complete_folder_passes(folder, complete):
    assert check_model_folder(folder).content_hash == complete[1].catalog.content_hash


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        "model.safetensors",
        "catalog/catalog.json",
    ],
)
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ConfigurationError, match=f"is not complete: it lacks {name}. Save the model"):
        check_model_folder(folder)


def test_all_missing_files_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="lacks config.json, generation_config.json, .*model.safetensors"):
        check_model_folder(tmp_path)
    with pytest.raises(ConfigurationError, match="nowhere is not a folder"):
        check_model_folder(tmp_path / "nowhere")


def test_missing_shard_is_named(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigurationError, match="lacks model-00001-of-00002.safetensors, model-00002-of-00002"):
        check_model_folder(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(DataError, match="model.safetensors.index.json is not an index"):
        check_model_folder(folder)


def test_damaged_catalog_is_refused(folder):
    (folder / "catalog" / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(CatalogError, match="items.parquet cannot be read"):
        check_model_folder(folder)


def test_catalog_of_another_model_is_refused(folder):
    catalog = make_catalog(make_log())
    catalog.identifier_model.quantizers["semantic"].codebooks += 1
    catalog.save(folder / "catalog")
    with pytest.raises(CatalogError, match="catalog has identifiers .*, the weights were trained for"):
        check_model_folder(folder)


def test_description_is_gathered_from_the_folder(folder, complete):
    run = describe(folder)
    assert run["num_parameters"] == sum(parameter.numel() for parameter in complete[1].parameters())
    assert run["catalog"]["num_items"] == 12
    assert run["command"] == COMMAND
    assert run["log"]["num_events"] == 24
    assert run["example"]["query"] == "Strings"
    assert [item["item_id"] for item in run["example"]["items"]] == ["i0", "i1"]
    semantic = run["identifiers"]["views"]["semantic"]
    assert semantic["after"]["collision_rate"] == 0
    # The catalogue was made by the same learner from the same vectors, so items moved only where they collided.
    assert 0 < semantic["num_moved"] <= 12 * semantic["before"]["collision_rate"] + 1e-9


def test_examples_without_a_title_are_called_what_answers_call_them(folder, complete):
    catalog = complete[1].catalog
    number = catalog.items.schema.get_field_index("title")
    titles = pa.array([None, " ", *catalog.items["title"].to_pylist()[2:]], pa.string())
    changed = replace(catalog, items=catalog.items.set_column(number, "title", titles))
    changed.save(folder / "catalog")
    shown = [item["title"] for item in describe(folder)["example"]["items"]]
    assert shown == changed.titles(["i0", "i1"]) and all(title.strip() for title in shown)


def test_description_without_a_run_file(folder):
    (folder / "run.json").unlink()
    run = describe(folder)
    assert run["command"] is None
    assert run["log"] is None


def test_description_of_a_catalog_without_learner(folder, complete):
    catalog = complete[1].catalog
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"identifier_hash": None}))
    (folder / "model_manifest.json").unlink()  # changed by hand
    plain = type(catalog).build(catalog.items, catalog.codes, num_shared_levels=1, codebook_size=4)
    plain.save(folder / "catalog")
    assert describe(folder)["identifiers"] is None


def test_settings_of_an_older_version_are_described_under_the_names_of_today(folder):
    config = json.loads((folder / "config.json").read_text())
    corpus = config.pop("corpus")
    (folder / "config.json").write_text(json.dumps(config | {"shared_history": corpus == "stream"}))
    (folder / "model_manifest.json").unlink()  # changed by hand
    assert describe(folder)["config"]["corpus"] == corpus


def test_copy_leaves_pickles_and_checkpoints_behind(folder, tmp_path):
    for name in ("optimizer.pt", "training_args.bin", "x.pkl", ".secret", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "model.safetensors").write_text("x")
    files = copy_model(folder, tmp_path / "copy", card="# card\n", eval_results="- a\n")
    assert files == sorted(
        [
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
            "modeling_seekrec.py",
            "notes.txt",
            "processor_config.json",
            "processor_manifest.json",
            "results.json",
            "run.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    )
    assert (tmp_path / "copy" / "README.md").read_text() == "# card\n"
    assert not (folder / "README.md").exists()


def record(folder, *options):
    settings = {"data_dir": "/home/me/acme", "hub_token": "s3cr3t", "backbone": "google/flan-t5-base", "seed": 1}
    settings = make_dataclass("Settings", settings)(**settings)
    command = ["accelerate", "launch", "recipes/train_gensar.py", *options]
    record_run(folder, [], command=command, log=make_log(), arguments=[settings], stages=StageCache(folder))


def test_a_run_is_recorded_without_secrets_and_paths(folder):
    record(folder, "--data_dir", "/home/me/acme", "--hub_token", "s3cr3t")
    run = json.loads((folder / "run.json").read_text())
    assert run["command"] == "accelerate launch recipes/train_gensar.py --data_dir acme --hub_token '***'"
    assert run["settings"] == {"data_dir": "acme", "hub_token": "***", "backbone": "google/flan-t5-base", "seed": 1}
    check_model_folder(folder)
    # Results belong to the weights: those of other weights are not published.
    shutil.copy(folder / "results.json", folder / "kept.json")
    (folder / "results.json").write_text(json.dumps({"version": 1, "results": []}))
    with pytest.raises(CheckpointError, match=r"results\.json is not the file that was saved with the results"):
        check_model_folder(folder)


def test_what_an_older_version_recorded_is_not_published(folder, tmp_path):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"hub_token": "x", "data_dir": "/a/b"}}))
    assert describe(folder)["settings"] == {"hub_token": "***", "data_dir": "b"}
    copy_model(folder, tmp_path / "copy", card="# card\n")
    published = json.loads((tmp_path / "copy" / "run.json").read_text())
    assert published["settings"] == {"hub_token": "***", "data_dir": "b"}
    check_model_folder(tmp_path / "copy")


def test_secrets_and_links_are_not_published(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_API_TOKEN", "s3cr3t-value")
    with pytest.raises(ConfigurationError, match=r"README\.md contains what looks like a token"):
        copy_model(folder, tmp_path / "copy", card="# s3cr3t-value\n")
    (tmp_path / "private.txt").write_text("x")
    (folder / "notes.txt").symlink_to(tmp_path / "private.txt")
    with pytest.raises(ConfigurationError, match=r"notes\.txt is a symbolic link"):
        copy_model(folder, tmp_path / "other", card="# card\n")


def test_the_folder_of_a_run_leads_to_its_model(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    with pytest.raises(
        CheckpointError, match=r"run does not contain a model: there is no config.json; did you mean .*run/model\?"
    ):
        check_model_folder(run)
    check_model_folder(run / "model")
