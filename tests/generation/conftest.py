# SPDX-License-Identifier: Apache-2.0
"""Tiny encoder-decoders with random weights, and the slow and obvious way to score identifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

# Tokens 0..39 are text, then blocks of codes; what no test uses follows.
TEXT_TOKENS = 40
VOCABULARY = 200


def build_model(kind: str) -> PreTrainedModel:
    torch.manual_seed(7)
    # An odd scale makes scores spread, so that an error shows.
    t5: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    bart: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
        "init_std": 0.5,
        "decoder_start_token_id": 0,
        "forced_eos_token_id": None,
        "forced_bos_token_id": None,
    }
    model: PreTrainedModel
    if kind == "t5":
        model = T5ForConditionalGeneration(T5Config(**t5, initializer_factor=2.0))
    elif kind == "t5-eager":
        model = T5ForConditionalGeneration._from_config(
            T5Config(**t5, initializer_factor=2.0), attn_implementation="eager"
        )
    elif kind == "t5-1.1":  # gated, and the decoder's output is not scaled
        config = T5Config(**t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        model = T5ForConditionalGeneration(config)
    elif kind == "mt5":
        model = MT5ForConditionalGeneration(MT5Config(**t5))
    elif kind == "bart":
        model = BartForConditionalGeneration(BartConfig(**bart))
        model.final_logits_bias.normal_()
    else:  # an architecture whose layers nobody here knows
        assert kind == "mbart"
        model = MBartForConditionalGeneration(MBartConfig(**bart))
    return model.eval()


_MODELS: dict[str, PreTrainedModel] = {}


@pytest.fixture
def get_model() -> Callable[[str], PreTrainedModel]:
    """Models are built once; no test changes one."""

    def get(kind: str) -> PreTrainedModel:
        if kind not in _MODELS:
            _MODELS[kind] = build_model(kind)
        return _MODELS[kind]

    return get


@pytest.fixture
def tiny_t5(get_model: Callable[[str], PreTrainedModel]) -> PreTrainedModel:
    return get_model("t5")


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    """Requests of different lengths: token ids, mask, and a decoder prefix of start token and behavior token."""

    def make(lengths: list[int], seed: int = 0, prefix_length: int = 2) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        width = max(lengths)
        ids = torch.randint(3, TEXT_TOKENS, (len(lengths), width), generator=generator)
        mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
        prefix = torch.randint(3, TEXT_TOKENS, (len(lengths), prefix_length), generator=generator)
        prefix[:, 0] = 0
        return {"input_ids": ids * mask, "attention_mask": mask, "decoder_prefix": prefix}

    return make


@pytest.fixture
def brute_force() -> Callable[..., np.ndarray]:
    """Teacher-forced log-probability of every identifier, by the whole model, one batch for each request."""

    @torch.no_grad()
    def score(
        model: PreTrainedModel,
        batch: dict[str, torch.Tensor],
        codes: np.ndarray,
        offsets: list[int],
        norm: str = "vocab",
        sizes: tuple[int, ...] = (),
    ) -> np.ndarray:
        tokens = torch.from_numpy(np.asarray(codes)).long() + torch.tensor(offsets)
        result = []
        for row in range(len(batch["input_ids"])):
            length = int(batch["attention_mask"][row].sum())
            ids = batch["input_ids"][row : row + 1, :length].expand(len(tokens), -1)  # no padding at all
            prefix = batch["decoder_prefix"][row : row + 1].expand(len(tokens), -1)
            logits = model(input_ids=ids, decoder_input_ids=torch.cat([prefix, tokens[:, :-1]], 1)).logits.double()
            total = torch.zeros(len(tokens), dtype=torch.float64)
            for level, first in enumerate(offsets):
                at = logits[:, prefix.shape[1] - 1 + level]
                if norm == "level":
                    log_probs = at[:, first : first + sizes[level]].log_softmax(-1)
                    total += log_probs.gather(1, tokens[:, level : level + 1] - first)[:, 0]
                else:
                    total += at.log_softmax(-1).gather(1, tokens[:, level : level + 1])[:, 0]
            result.append(total.numpy())
        return np.stack(result)

    return score
