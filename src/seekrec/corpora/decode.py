# SPDX-License-Identifier: Apache-2.0
"""Token ids back as text for a person, in the paper's notation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from seekrec.corpora.text import WORD_START

LABEL_PADDING = -100


def decode_tokens(tokenizer: PreTrainedTokenizerBase, token_ids: Iterable[int]) -> str:
    """Write token ids as text.

    Unlike `tokenizer.decode` it puts spaces around identifier tokens, as in `<S_Q> piano; <S_I> <M1_247> <M2_197>`.
    Padding (of labels too) and end of sequence are left out. The result is for reading: text may look like a token.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Has the identifier tokens.
        token_ids (`Iterable[int]`): Ids; -100 is skipped.

    Returns:
        `str`: The text.
    """
    skipped = {LABEL_PADDING, tokenizer.pad_token_id, tokenizer.eos_token_id}
    added = tokenizer.added_tokens_decoder
    written = ""
    for is_added, group in groupby((int(number) for number in token_ids), key=added.__contains__):
        numbers = [number for number in group if number not in skipped]
        if not numbers:
            continue
        if is_added:
            written += "".join(f" {added[number].content}" for number in numbers)
            continue
        # The decoder drops the space before the first word.
        first = str(tokenizer.convert_ids_to_tokens(numbers[0]))
        written += " " * first.startswith(WORD_START) + str(tokenizer.decode(numbers)).lstrip(" ")
    return written.strip()


def decode_row(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> str:
    """Write a row of a corpus as the paper prints its samples.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Has the identifier tokens.
        row (`Mapping`): Has `input_ids` and `labels`.

    Returns:
        `str`: Two lines, the instruction and the response.
    """
    instruction, response = (decode_tokens(tokenizer, row[name]) for name in ("input_ids", "labels"))
    return f"Instruction: {instruction}\nResponse: {response}"
