# SPDX-License-Identifier: Apache-2.0
"""Instruction corpora: events and items as token ids, task by task."""

from seekrec.corpora.text import TextEncoder, encode_text, train_tokenizer
from seekrec.corpora.tokens import BEHAVIOR_TOKENS, BehaviorToken, IdentifierVocabulary, add_identifier_tokens

__all__ = [
    "BEHAVIOR_TOKENS",
    "BehaviorToken",
    "IdentifierVocabulary",
    "TextEncoder",
    "add_identifier_tokens",
    "encode_text",
    "train_tokenizer",
]
