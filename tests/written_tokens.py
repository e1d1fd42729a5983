# SPDX-License-Identifier: Apache-2.0
"""Token ids as text to read: what a corpus says, in the paper's notation."""

from __future__ import annotations

from itertools import groupby

from seekrec.corpora.text import WORD_START
from seekrec.util.constants import LABEL_PADDING


def decode_tokens(tokenizer, token_ids):
    """Write token ids as text.

    Unlike `tokenizer.decode` it puts spaces around identifier tokens, as in `<S_Q> piano; <S_I> <M1_247> <M2_197>`.
    Padding (of labels too) and end of sequence are left out. The result is for reading: text may look like a token.
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
