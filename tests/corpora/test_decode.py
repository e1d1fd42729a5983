# SPDX-License-Identifier: Apache-2.0
import pytest
from written_tokens import decode_tokens

from seekrec.corpora import encode_text
from seekrec.util.text import shared_encoder

# The paper's own example, section 3.3.1.
HISTORY = "<S_Q> piano; <S_I> <M1_247> <M2_197> <S1_184> <S2_110>; <R_I> <M1_30> <M2_147> <R1_247> <R2_229>"


@pytest.fixture(scope="module")
def history(real_t5):
    tokenizer, vocabulary = real_t5
    separator = shared_encoder(tokenizer).encode_piece("; ")
    semantic = vocabulary.encode([[247, 197, 184, 110]], "semantic")[0].tolist()
    collaborative = vocabulary.encode([[30, 147, 247, 229]], "collaborative")[0].tolist()
    search = [vocabulary.behavior_token_ids["search_query"], *encode_text(tokenizer, ["piano"])[0], *separator]
    click = [vocabulary.item_token_ids["search"], *semantic, *separator]
    return [*search, *click, vocabulary.item_token_ids["recommendation"], *collaborative]


def test_history_reads_as_in_the_paper(real_t5, history):
    tokenizer, _ = real_t5
    assert decode_tokens(tokenizer, history) == HISTORY
    # The paper's notation, not the tokenizer's.
    assert tokenizer.decode(history) != HISTORY


def test_padding_and_ends_are_left_out(real_t5, history):
    tokenizer, _ = real_t5
    padded = [-100, *history, tokenizer.eos_token_id, tokenizer.pad_token_id, -100]
    assert decode_tokens(tokenizer, padded) == HISTORY
    assert decode_tokens(tokenizer, []) == decode_tokens(tokenizer, [-100, 1, 0]) == ""


@pytest.mark.parametrize("text", ["Upright piano, 1995 (second hand)", "<R_I> and </s>", "  many   spaces "])
def test_text_reads_back(trained, text):
    tokenizer, _ = trained
    assert decode_tokens(tokenizer, encode_text(tokenizer, [text])[0]) == " ".join(text.split())
