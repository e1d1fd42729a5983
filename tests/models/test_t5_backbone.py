# SPDX-License-Identifier: Apache-2.0
"""Backbones: what a checkpoint of T5, T5 1.1 or mT5 knew is there after identifier rows, saving, LoRA and merging.

The checkpoints are small and random, with the configurations of the published ones; the reference is transformers' own
model of the same files.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_shop import CODEBOOK_SIZE, REQUESTS, VECTOR_SIZES, make_log
from transformers import (
    AutoModel,
    BartConfig,
    LongT5Config,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedConfig,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from seekrec.catalog import Catalog
from seekrec.catalog.checks import VIEWS
from seekrec.corpora import (
    IdentifierVocabulary,
    Seq2SeqCollator,
    build_corpus,
)
from seekrec.errors import ConfigurationError
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration, GenSARProcessor, GenSRForConditionalGeneration
from seekrec.models.t5_backbone import identifier_fields

SIZES = {"vocab_size": 320, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
FIRST = 300  # 300 pieces, 320 rows, as T5 has 32,100 pieces and 32,128 rows
FAMILIES = (GenSARForConditionalGeneration, GenSRForConditionalGeneration)


def write_checkpoint(folder, kind: str):
    """Write a random checkpoint as published; returns transformers' own model of it."""
    torch.manual_seed(3)
    gated = {"feed_forward_proj": "gated-gelu"}
    if kind == "mt5":
        config, model_class = MT5Config(**SIZES, **gated), MT5ForConditionalGeneration
    else:
        config, model_class = T5Config(**SIZES, **({} if kind == "t5" else gated)), T5ForConditionalGeneration
    config.decoder_start_token_id = 0
    config.save_pretrained(folder)
    weights = {name: value.clone() for name, value in model_class(config).state_dict().items()}
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        del weights[name]
    if kind != "t5":
        # A head of its own, of another spread than the table; the published configurations say it by this name.
        weights["lm_head.weight"] = 3 * torch.randn(SIZES["vocab_size"], SIZES["d_model"])
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**content, "tie_word_embeddings": False}))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return model_class.from_pretrained(folder).eval()


@pytest.fixture(scope="module", params=["t5", "t5-1.1", pytest.param("mt5", marks=pytest.mark.slow)])
def backbone(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return str(folder), write_checkpoint(folder, request.param)


@torch.no_grad()
def old_logits(model) -> torch.Tensor:
    """Logits of the old tokens, by T5's own forward."""
    tokens = torch.arange(5, 29).view(2, 12)
    answer = torch.arange(40, 52).view(2, 6)
    plain = (
        MT5ForConditionalGeneration if isinstance(model, MT5ForConditionalGeneration) else T5ForConditionalGeneration
    )
    return plain.forward(model, input_ids=tokens, decoder_input_ids=answer).logits[..., :FIRST]


def assert_as_before(model, reference) -> None:
    assert torch.equal(model.shared.weight[:FIRST], reference.shared.weight[:FIRST])
    assert torch.equal(model.lm_head.weight[:FIRST], reference.lm_head.weight[:FIRST])
    is_tied = reference.lm_head.weight is reference.shared.weight
    assert (model.lm_head.weight is model.shared.weight) == is_tied == (not model.config.untied_head)
    for stack in (model.encoder, model.decoder):
        assert stack.embed_tokens.weight is model.shared.weight
    torch.testing.assert_close(old_logits(model), old_logits(reference), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_identifier_rows_leave_the_backbone_as_it_was(backbone, family, aisles, tmp_path):
    path, reference = backbone
    vocabulary = IdentifierVocabulary(FIRST, 1, 1, CODEBOOK_SIZE, VIEWS)
    model = family.from_t5(path).eval()
    assert_as_before(model, reference)
    model.add_identifier_rows(vocabulary)  # within the unused rows
    assert_as_before(model, reference)
    larger = IdentifierVocabulary(FIRST, 2, 3, 40, VIEWS)
    model.add_identifier_rows(larger)  # behind them: the tables grow
    assert model.config.vocab_size == model.lm_head.out_features == 640  # 300 + 3 + 8 blocks of 40 = 623
    assert_as_before(model, reference)
    model.save_pretrained(tmp_path / "saved")
    loaded = family.from_pretrained(tmp_path / "saved").eval()
    assert_as_before(loaded, reference)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert loaded.vocabulary == larger


def test_new_rows_of_a_head_are_like_its_old_ones(tmp_path):
    reference = write_checkpoint(tmp_path, "t5-1.1")
    model = GenSARForConditionalGeneration.from_t5(str(tmp_path))
    words = np.zeros((40, 4), dtype=np.float32)
    words[20:] = 1.0  # two clusters of equal codewords
    vocabulary = IdentifierVocabulary(FIRST, 2, 3, 40, VIEWS)
    model.add_identifier_rows(vocabulary, codebooks={"M1": words})
    for table, old in ((model.shared, reference.shared), (model.lm_head, reference.lm_head)):
        ratio = table.weight[FIRST:].std() / old.weight[:FIRST].std()
        assert 0.8 < ratio.item() < 1.2
        block = table.weight[FIRST + 3 : FIRST + 43]
        assert torch.equal(block[0], block[19]) and torch.equal(block[20], block[39])
        assert not torch.equal(block[0], block[20])


# PEFT says so of every model with a head of its own.
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied after merging:UserWarning")
def test_lora_and_merging_leave_the_backbone_as_it_was(backbone, aisles, tmp_path):
    from peft import PeftModel

    from seekrec.recipes.t5 import add_lora

    path, reference = backbone
    split, catalog, tokenizer, vocabulary = aisles
    first = vocabulary.first_token_id  # these come before the 300th, which changes nothing here
    model = GenSARForConditionalGeneration.from_t5(path, dropout_rate=0.0)
    model.add_identifier_rows(vocabulary)
    model.set_catalog(catalog)
    started = {"shared": model.shared.weight.detach().clone(), "lm_head": model.lm_head.weight.detach().clone()}
    model.save_pretrained(tmp_path / "base")
    wrapped = add_lora(model, 4)
    corpus = build_corpus(split, catalog, tokenizer, vocabulary, model.config, tasks=("nrip",))
    batch = Seq2SeqCollator(tokenizer.pad_token_id)([corpus["nrip"][row] for row in range(8)])
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        loss = wrapped(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wrapped.eval().save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    inputs = GenSARProcessor(tokenizer, catalog)(REQUESTS)
    trained = wrapped.retrieve(inputs, top_k=3, exclude_seen=False)

    base = AutoModel.from_pretrained(tmp_path / "base")
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").eval().merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for one in (merged, AutoModel.from_pretrained(tmp_path / "merged").eval()):
        for name, before in started.items():
            after = getattr(one, name).weight
            assert torch.equal(after[:first], before[:first])
            assert torch.equal(after[:first], getattr(reference, name).weight[:first])
            assert not torch.equal(after[first : vocabulary.end_token_id], before[first : vocabulary.end_token_id])
        assert (one.lm_head.weight is one.shared.weight) == (reference.lm_head.weight is reference.shared.weight)
        assert one.encoder.embed_tokens.weight is one.decoder.embed_tokens.weight is one.shared.weight
        for answer, other in zip(trained, one.retrieve(inputs, top_k=3, exclude_seen=False), strict=True):
            assert [item.item_id for item in answer] == [item.item_id for item in other]
            np.testing.assert_allclose([item.score for item in answer], [item.score for item in other], atol=1e-4)


def make_deep_catalog(num_shared: int, num_specific: int) -> Catalog:
    """The aisles with identifiers of any length: item number in base 3, padded with zeros."""
    log, levels = make_log(), num_shared + num_specific
    digits = np.stack([np.arange(24) // 3**place % 3 for place in range(levels)], axis=1)
    if levels < 3:  # 24 items in two levels
        digits = np.stack(np.divmod(np.arange(24), 3), axis=1)
    draws = np.random.default_rng(0)
    embeddings = {view: draws.normal(size=(24, size)) for view, size in VECTOR_SIZES.items()}
    codes = {"semantic": digits, "collaborative": digits}
    return Catalog.build(
        log.items, codes, num_shared_levels=num_shared, codebook_size=CODEBOOK_SIZE, embeddings=embeddings
    )


@pytest.mark.parametrize(("num_shared", "num_specific"), [(1, 1), pytest.param(1, 2, marks=pytest.mark.slow), (2, 3)])
def test_any_backbone_merges_events_and_reads_item_vectors(num_shared, num_specific, aisles, tmp_path):
    """Wherever identifier tokens begin and however long identifiers are."""
    write_checkpoint(tmp_path, "t5-1.1")
    split, _, tokenizer, _ = aisles
    catalog = make_deep_catalog(num_shared, num_specific)
    vocabulary = IdentifierVocabulary(FIRST, num_shared, num_specific, CODEBOOK_SIZE, VIEWS)
    shared = {"corpus": "stream", "item_vector_size": 8}
    for given in ({}, identifier_fields(vocabulary)):
        model = GenSARForConditionalGeneration.from_t5(str(tmp_path), **shared, **given).eval()
        model.add_identifier_rows(vocabulary)
        model.set_catalog(catalog)
        # Two items and a query between them: three events, whatever the number of tokens.
        item = [FIRST, *(vocabulary.level_offsets["collaborative"] + catalog.codes["collaborative"][5]).tolist()]
        tokens = torch.tensor([[*item, FIRST + 1, 7, 8, *item]])
        events = model.encoder.encode_events(tokens, None)
        assert events.event_of_token.tolist() == [[0] * len(item) + [1] * 3 + [2] * len(item)]
        places = [0, len(item) + 3]
        expected = [5 if place in places else -1 for place in range(tokens.shape[1])]
        assert model.encoder.item_vectors.find_rows(tokens).tolist() == [expected]
        model.save_pretrained(tmp_path / "saved")
        loaded = AutoModel.from_pretrained(tmp_path / "saved").eval()
        torch.testing.assert_close(loaded.encoder(input_ids=tokens)[0], model.encoder(input_ids=tokens)[0])


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (BartConfig(), "'bart'"),
        (LongT5Config(), "'longt5'"),
        (GenSARConfig(), "'gensar'"),
        (PreTrainedConfig(), "None"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_another_kind_of_checkpoint_is_refused(config, named, family, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=f"has `model_type` {named}; a backbone is a T5, T5 1.1, Flan-T5 or"):
        family.from_t5(str(tmp_path))


def test_a_checkpoint_without_a_decoder_is_refused(tmp_path):
    T5EncoderModel(T5Config(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"lacks \d+ weights of a T5, such as 'decoder.block.0"):
        GenSARForConditionalGeneration.from_t5(str(tmp_path))
