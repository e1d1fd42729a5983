# SPDX-License-Identifier: Apache-2.0
"""Queries that a T5 writes: a small one of random weights, of the configuration of a doc2query model."""

import pyarrow as pa
import pytest
import torch
from tiny_writer import write_writer

from seekrec.corpora.pseudo_queries import TextWriter, texts_to_read, writer_version
from seekrec.errors import ConfigurationError
from seekrec.recipes.items import prepare_written_queries
from seekrec.recipes.stages import StageCache
from seekrec.util.text import fold_text

ITEMS = pa.table(
    {
        "title": ["Oak lamp", "Steel kettle", ""],
        "description": ["A warm lamp", None, " "],
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_writer(tmp_path_factory.mktemp("t5"))


def test_models_read_title_and_description_or_what_they_paraphrase():
    assert texts_to_read(ITEMS, "doc2query") == ["Oak lamp A warm lamp", "Steel kettle", ""]
    assert texts_to_read(ITEMS, "paraphrase") == ["paraphrase: A warm lamp", "", ""]


def test_what_is_written_is_seeded_folded_and_distinct(folder):
    writer = TextWriter(str(folder), device="cpu")
    before = torch.random.get_rng_state()
    texts = texts_to_read(ITEMS, "doc2query")
    written = writer.write(texts, num_texts=5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert writer.write(texts, num_texts=5, seed=1) == written
    assert writer.write(texts, num_texts=5, seed=2) != written
    assert written[2] == [] and 0 < len(written[0]) <= 5
    for of_item in written:
        assert of_item == [fold_text(text) for text in dict.fromkeys(of_item)]


def test_answers_of_the_model_are_data(folder, monkeypatch):
    writer = TextWriter(str(folder), device="cpu")
    answers = ["Which LAMP?", "which lamp", "", " \n", "x" * 1001, "OAK LAMP!", "红色 台灯", "<script>"]
    monkeypatch.setattr(type(writer.tokenizer), "batch_decode", lambda *_, **__: answers)
    # Folded, once each; not the empty, the too long, nor the text itself.
    assert writer.write(["Oak lamp"], num_texts=8) == [["which lamp", "红色 台灯", "<script>"]]
    assert writer.write(["paraphrase: oak lamp"], num_texts=8) == [["which lamp", "红色 台灯", "<script>"]]


def test_what_was_written_is_a_stage(folder, tmp_path, monkeypatch):
    kinds = ["logged", f"doc2query={folder}", "keywords", f"paraphrase={folder}"]
    cache = StageCache(tmp_path / "stages")
    written = prepare_written_queries(ITEMS, kinds, cache, seed=3, report_progress=False)
    assert list(written) == [kinds[1], kinds[3]]
    assert [bool(texts) for texts in written[kinds[1]]] == [True, True, False]
    assert [bool(texts) for texts in written[kinds[3]]] == [True, False, False]
    made = sorted(path.name for path in cache.folder.iterdir())
    monkeypatch.setattr(TextWriter, "__init__", None)
    assert prepare_written_queries(ITEMS, kinds, cache, seed=3, report_progress=False) == written
    assert sorted(path.name for path in cache.folder.iterdir()) == made


def test_a_model_that_is_not_there_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # without waiting for a network
    with pytest.raises(ConfigurationError, match="'nobody/no-model' of the query pool cannot be loaded"):
        writer_version("nobody/no-model")
    version = writer_version(str(folder))
    (tmp_path / "more").write_text("x")
    assert version == writer_version(str(folder)) != writer_version(str(tmp_path))
