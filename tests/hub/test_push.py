# SPDX-License-Identifier: Apache-2.0
"""Models, adapters and data sets go to a Hub and come back; the Hub is `hub_server.py` on loopback."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hub_server import LFS_SUFFIXES, HubServer, Repository, StoredFile
from kite_shop import make_log, result_row, write_family_folder, write_model_folder

from seekrec.corpora import save_corpus
from seekrec.errors import ConfigurationError, DataError
from seekrec.evaluation import write_results
from seekrec.events import read_tables
from seekrec.events.partitions import partition_log
from seekrec.events.readers.hub import read_hub
from seekrec.hub import prepare_adapter, prepare_data_set

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
    "modeling_seekrec.py",
    "processor_config.json",
    "processor_manifest.json",
    "results.json",
    "run.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
DENSE = [
    "README.md",
    "catalog/catalog.json",
    "catalog/codes.safetensors",
    "catalog/embeddings.safetensors",
    "catalog/items.parquet",
    "config.json",
    "model.safetensors",
    "model_manifest.json",
    "modeling_seekrec.py",
    "processor_config.json",
    "processor_manifest.json",
    "query_vectors.safetensors",
]


def run_session(hub, folder):
    finished = subprocess.run(
        [sys.executable, str(SESSION), str(folder)],
        env={**os.environ, **hub.environment(folder / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    # The token is in no output, and no file is written that holds it.
    assert "hf_test" not in finished.stdout + finished.stderr
    return [json.loads((folder / f"{step}.json").read_text()) for step in ("push", "load")]


def write_repositories(hub, folder):
    """Put a model into repositories that answer to arguments alone; return these, and what is asked."""
    files = {
        path.relative_to(folder / "kites").as_posix(): StoredFile(path.read_bytes(), path.suffix in LFS_SUFFIXES)
        for path in (folder / "kites").rglob("*")
        if path.is_file()
    }
    secret = Repository("model", "other/secret", token="s3cr3t")
    old = Repository("model", "other/old")
    nested = Repository("model", "other/nested")
    for repository in (secret, old, nested):
        hub.repositories["model", repository.name] = repository
    secret.commit("main", files, "a model")
    old.tags["v1"] = old.commit("main", files, "a model")
    old.commit("main", {}, "nothing is left")
    nested.commit("main", {f"models/best/{path}": file for path, file in files.items()}, "a model in a folder")
    cache = str(folder / "cache")
    return [
        ("other/secret", {"token": "another"}),
        ("other/secret", {"token": "s3cr3t", "cache_dir": cache}),
        # Without the token nothing comes from the server: all is read from the cache.
        ("other/secret", {"local_files_only": True, "cache_dir": cache}),
        ("other/old", {"revision": "v1"}),
        ("other/nested", {"subfolder": "models/best"}),
    ]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Push, then load in another process; give both reports, the server and the model."""
    folder = tmp_path_factory.mktemp("push")
    model, _ = write_model_folder(folder / "kites")
    for family in ("gensr", "intsr", "synergen"):
        write_family_folder(family, folder / family)
    make_log().save(folder / "log")
    rows = DatasetDict({"nrip": Dataset.from_dict({"input_ids": [[1, 2], [3]], "labels": [[4], [5]]})})
    save_corpus({"train": rows, "validation": rows}, folder / "corpus")
    with HubServer() as hub:
        asked = write_repositories(hub, folder)
        (folder / "asked.json").write_text(json.dumps(asked))
        pushed, loaded = run_session(hub, folder)
    return pushed, loaded, hub, model


def files_of(hub, name, kind="model", revision="main"):
    # What git keeps apart (.gitattributes) is the client's; the rest is ours.
    return [path for path in sorted(hub.repository(name, kind).files(revision)) if path != ".gitattributes"]


def card_of(hub, name, kind="model", revision="main"):
    return hub.repository(name, kind).files(revision)["README.md"].decode()


def test_each_argument_of_loading_reaches_the_catalogue(session):
    report, _, _, model = session
    refused, *loaded = report["asked"]
    assert refused == "OSError" and loaded == [[model.catalog.content_hash] * 2] * 4


def test_what_a_private_repository_holds_is_kept_in_the_cache_that_was_named_alone(session):
    assert session[0]["beside_cache"] == []


def test_pushed_corpora_load_equal(session):
    # Three recommendations and two clicked searches, in two draws of wordings.
    assert session[0]["corpora"] == [
        "train nrip 3 True",
        "train nsip 2 True",
        "validation nrip 3 True",
        "validation nsip 2 True",
        "Corpus me/corpus has no part 'test'; choose one of those it was saved with.",
    ]


def test_what_is_optional_is_imported_when_it_is_asked_for(session):
    """All families have answered, and nothing of the extras was loaded."""
    assert session[1]["optional"] == []


def test_server_knew_every_request(session):
    assert session[2].unknown == []


def test_dry_run_shows_card_and_files_and_uploads_nothing(session):
    report = session[0]
    assert "# me/kites" in report["dry_run"]
    assert "Nothing was uploaded; these files would be:\nREADME.md\ncatalog/catalog.json" in report["dry_run"]
    assert report["exists_after_dry_run"] is False


def test_push_uploads_a_complete_private_repository_as_one_commit(session):
    report, _, hub, _ = session
    assert f"Published 19 files: {hub.url}/me/kites" in report["push"]
    assert "popularity" in report["push"]
    repository = hub.repository("me/kites")
    assert repository.is_private
    assert files_of(hub, "me/kites") == FILES
    assert repository.commits[repository.resolve("main")]["model.safetensors"].is_lfs
    assert b"task_id: search_ndcg_at_10" in repository.files()[".eval_results/seekrec.yaml"]
    # The second push changed nothing.
    contents = [repository.commits[oid] for oid in repository.commits]
    assert all(files == contents[-1] for files in contents[1:])


def test_a_model_pushes_itself_whole(session):
    hub = session[2]
    # Its folder had the processor and the results of these weights.
    assert {"tokenizer.json", "processor_config.json", "results.json", "run.json"} <= set(files_of(hub, "me/gensr"))
    assert "| GenSR | **0.2500** |" in card_of(hub, "me/gensr")
    assert "license: apache-2.0" in card_of(hub, "me/gensr")
    assert hub.repository("me/gensr").is_private
    for family in ("intsr", "synergen"):
        assert files_of(hub, f"me/{family}") == DENSE
        # Other weights than those that were measured.
        assert files_of(hub, f"me/{family}", revision="changed") == DENSE
        assert "No results were saved with these weights." in card_of(hub, f"me/{family}", revision="changed")
    assert files_of(hub, "me/parts") == DENSE


def test_code_of_the_cards_runs(session):
    code = session[0]["code"]
    for name in ("kites", "gensr", "intsr", "synergen", "adapter"):
        lines = code[name].splitlines()
        # Ten items for each request, each with its score. A title may break a line.
        assert sum(line.startswith("i") for line in lines) >= (10 if name == "adapter" else 20), name
        assert name == "adapter" or lines[-1].startswith("[{'item_id': 'i")


def test_loaded_without_importing_the_package_it_answers_as_the_local_one(session):
    pushed, loaded, hub, model = session
    assert "trust_remote_code=True" in loaded["refused"]
    for name, answers in pushed["answers"].items():
        assert [len(answer) for answer in answers] == [12, 12]
        assert loaded["answers"][name] == answers
    assert loaded["answers"]["parts"] != pushed["answers"]["synergen"]  # its weights were changed
    assert [entry["item_id"] for entry in loaded["pipeline"]] == [
        item for item, _, _ in pushed["answers"]["kites"][0][:3]
    ]
    assert loaded["saved"] == dict.fromkeys(loaded["answers"], [])
    assert pushed["catalog_hash"] == model.catalog.content_hash


def test_without_the_package_transformers_says_how_to_install_it(tmp_path, session):
    from transformers.dynamic_module_utils import check_imports

    text = session[2].repository("me/kites").files()["modeling_seekrec.py"].decode()
    (tmp_path / "modeling_seekrec.py").write_text(text.replace("seekrec", "no_such_seekrec"))
    with pytest.raises(ImportError, match="Run `pip install no_such_seekrec`"):
        check_imports(tmp_path / "modeling_seekrec.py")
    assert check_imports(Path(write_module(tmp_path, text))) == []


def write_module(folder, text):
    path = folder / "again.py"
    path.write_text(text)
    return path


def test_an_adapter_names_its_model_and_nothing_of_this_machine(session):
    report, _, hub, _ = session
    assert "Published 3 files" in report["push_adapter"]
    assert files_of(hub, "me/adapter") == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    settings = json.loads(hub.repository("me/adapter").files()["adapter_config.json"])
    assert settings["base_model_name_or_path"] == "me/kites"
    card = card_of(hub, "me/adapter")
    assert "base_model: me/kites" in card and "library_name: peft" in card
    # The adapter changes answers.
    assert report["code"]["adapter"] not in report["code"]["kites"]


def test_a_data_set_comes_back_as_it_was(session):
    report, _, hub, _ = session
    assert files_of(hub, "me/kite-log", "dataset") == [
        "README.md",
        "corpus.json",
        "events/train-00000-of-00001.parquet",
        "items/train-00000-of-00001.parquet",
        "log.json",
        "nrip/train-00000-of-00001.parquet",
        "nrip/validation-00000-of-00001.parquet",
    ]
    log = make_log()
    assert report["data"] == {
        "configs": ["events", "items", "nrip"],
        "fingerprint": read_tables(log.events, log.items).fingerprint,
    }
    card = card_of(hub, "me/kite-log", "dataset")
    assert "license: other" in card
    assert "config_name: nrip" in card
    assert "| nrip | validation | 2 | input_ids, labels |" in card
    assert "/tmp" not in card


def test_a_log_on_the_hub_keeps_what_its_tables_do_not_say(tmp_path):
    log = make_log()
    files = prepare_data_set(tmp_path / "clone", "me/kite-log", log=log)
    assert files[-1] == "log.json"
    read = read_hub(tmp_path / "clone", name=log.name)
    assert read.fingerprint == log.fingerprint
    assert (read.query_source, read.notes) == ("category", ("Made up.",))
    (tmp_path / "clone" / "log.json").write_text('{"has_time": true, "query_source": "guessed", "notes": []}')
    with pytest.raises(DataError, match="contains a log with a damaged file .*guessed"):
        read_hub(tmp_path / "clone")


def test_what_cannot_be_a_repository_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="There is nothing to publish: give a log"):
        prepare_data_set(tmp_path / "data", "me/x")
    (tmp_path / "adapter").mkdir()
    with pytest.raises(ConfigurationError, match="is not an adapter: it lacks adapter_config.json, adapter_model"):
        prepare_adapter(tmp_path / "adapter", tmp_path / "new", "me/x")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/home/me/base"}))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="trained on /home/me/base, which nobody else can load"):
        prepare_adapter(tmp_path / "adapter", tmp_path / "new", "me/x")
    corpus = {"num_rows": {'x"] = 1': {"train": 1}}}
    (tmp_path / "corpus.json").write_text(json.dumps(corpus))
    with pytest.raises(DataError, match="which are not valid names"):
        prepare_data_set(tmp_path / "data", "me/x", corpus=tmp_path)


def test_a_token_is_published_nowhere_and_shown_nowhere(tmp_path, monkeypatch, capsys):
    token = "hf_" + "aBcD1234" * 4
    monkeypatch.setenv("HF_TOKEN", token)
    write_family_folder("intsr", tmp_path / "model")
    rows = [result_row("IntSR", dataset=f"shop of {token}"), result_row("IntSR", "search")]
    write_results(tmp_path / "results.json", rows)
    options = ["--model_dir", tmp_path / "model", "--repo_id", "me/x", "--results", tmp_path / "results.json"]
    monkeypatch.setattr(sys, "argv", ["push_to_hub.py", *map(str, options)])
    with pytest.raises(SystemExit, match=r"README\.md contains what looks like a token") as refused:
        runpy.run_path(str(SESSION.parents[2] / "recipes" / "push_to_hub.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert "shop of ***" in printed.out
    assert token not in printed.out + printed.err + str(refused.value)


def test_a_partitioned_log_is_published_in_files(tmp_path):
    log = make_log()
    log.save(tmp_path / "log")
    parts = partition_log(
        tmp_path / "log" / "events.parquet", tmp_path / "log" / "items.parquet", tmp_path / "parts", num_partitions=3
    )
    files = prepare_data_set(tmp_path / "clone", "me/kite-log", log=parts)
    assert len([name for name in files if name.startswith("events/")]) == parts.num_partitions > 1
    read = read_hub(tmp_path / "clone")
    assert sorted(read.events.to_pylist(), key=str) == sorted(log.events.to_pylist(), key=str)
