# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from datasets import DatasetDict, get_dataset_config_names, load_dataset

from seekrec.corpora import (
    build_corpus,
    corpus_fingerprint,
    describe_corpus,
    load_corpus,
    push_corpus,
    save_corpus,
)
from seekrec.errors import DataError
from seekrec.models import GenSARConfig


@pytest.fixture(scope="module")
def parts(shop_tools):
    return {
        "train": build_corpus(*shop_tools, GenSARConfig(), tasks=("nrip", "nsip", "id2desc_semantic")),
        "test": build_corpus(*shop_tools, GenSARConfig(), tasks=("nrip",), seed=1),
    }


def test_saved_corpora_load_equal(parts, shop_tools, tmp_path):
    folder = tmp_path / "corpus"
    description = {"fingerprint": corpus_fingerprint(*shop_tools, GenSARConfig())}
    save_corpus(parts, folder, description=description)
    for part, corpus in parts.items():
        loaded = load_corpus(folder, part, cache_dir=tmp_path / "cache")
        assert list(loaded) == list(corpus)
        for name, rows in corpus.items():
            assert loaded[name].features == rows.features
            assert loaded[name].to_list() == rows.to_list()
    assert describe_corpus(folder) == {
        "num_rows": {"nrip": {"train": 3, "test": 3}, "nsip": {"train": 2}, "id2desc_semantic": {"train": 6}},
        **description,
    }
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_folder_is_a_repository_of_its_own(parts, tmp_path):
    folder = tmp_path / "corpus"
    save_corpus(parts, folder)
    # Without this package: the README names the configurations.
    assert get_dataset_config_names(str(folder)) == ["nrip", "nsip", "id2desc_semantic"]
    rows = load_dataset(str(folder), "nrip", split="test", cache_dir=str(tmp_path / "cache"))
    assert rows.to_list() == parts["test"]["nrip"].to_list()
    assert "| nsip | train | 2 |" in (folder / "README.md").read_text()


def test_saving_again_replaces_the_whole_folder(parts, tmp_path):
    folder = tmp_path / "corpus"
    save_corpus(parts, folder)
    only = DatasetDict({"nsip": parts["train"]["nsip"]})
    save_corpus({"train": only}, folder)
    assert list(load_corpus(folder, cache_dir=tmp_path / "cache")) == ["nsip"]
    assert not (folder / "nrip").exists()


def test_failed_saving_leaves_the_old_folder(parts, tmp_path, monkeypatch):
    folder = tmp_path / "corpus"
    save_corpus(parts, folder)
    before = json.loads((folder / "corpus.json").read_text())
    monkeypatch.setattr("seekrec.corpora.publish._render_readme", lambda parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_corpus({"train": DatasetDict({"nsip": parts["train"]["nsip"]})}, folder)
    assert json.loads((folder / "corpus.json").read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_refusals(parts, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="other contains other files and no corpus.json; give a new folder"):
        save_corpus(parts, other)
    assert (other / "thesis.txt").read_text() == "precious"
    with pytest.raises(DataError, match="other contains no corpus.json, so it is not a corpus"):
        load_corpus(other)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/corpus.json").write_text('{"num_rows": ')
    with pytest.raises(DataError, match="cut contains a corpus with a damaged file"):
        describe_corpus(tmp_path / "cut")
    with pytest.raises(DataError, match="absent contains no corpus.json"):
        load_corpus(tmp_path / "absent")
    with pytest.raises(DataError, match="There is nothing to save: `parts` has no data set"):
        save_corpus({"train": DatasetDict()}, tmp_path / "new")
    with pytest.raises(DataError, match="There is nothing to publish: `parts` has no data set"):
        push_corpus({}, "me/corpus")
    save_corpus(parts, tmp_path / "corpus")
    with pytest.raises(DataError, match="corpus has no part 'validation'; choose one of those it was saved with"):
        load_corpus(tmp_path / "corpus", "validation")


def test_pushed_as_one_configuration_a_task_by_one_commit(parts, monkeypatch):
    pushed = []

    def upload(folder, **options):
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        pushed.append((options["repo_id"], options["repo_type"], options["private"], files))

    monkeypatch.setattr("seekrec.corpora.publish.upload", upload)
    push_corpus(parts, "me/corpus", private=True)
    files = [
        "README.md",
        "corpus.json",
        "id2desc_semantic/train-00000-of-00001.parquet",
        "nrip/test-00000-of-00001.parquet",
        "nrip/train-00000-of-00001.parquet",
        "nsip/train-00000-of-00001.parquet",
    ]
    assert pushed == [("me/corpus", "dataset", True, files)]
