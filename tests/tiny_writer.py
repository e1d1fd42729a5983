# SPDX-License-Identifier: Apache-2.0
"""A model that writes queries, of random weights."""

import torch
from transformers import T5Config, T5ForConditionalGeneration

from seekrec.corpora import train_tokenizer


def write_writer(folder):
    """Save a model as doc2query/msmarco-t5-base-v1 is: T5 1.0 with ReLU and tied tables."""
    words = ["oak lamp warm steel kettle red blue cup", "Which Lamp Is Good? paraphrase: 红色 台灯"]
    tokenizer = train_tokenizer(words * 20, 300)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
