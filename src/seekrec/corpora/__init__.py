# SPDX-License-Identifier: Apache-2.0
"""Instruction corpora: events and items as token ids, task by task."""

from seekrec.corpora.collate import Seq2SeqCollator, StreamCollator
from seekrec.corpora.instructions import CORPUS_FEATURES, build_corpus, corpus_fingerprint
from seekrec.corpora.mixture import MixtureSampler, mix_tasks, rows_per_epoch
from seekrec.corpora.publish import describe_corpus, load_corpus, push_corpus, save_corpus
from seekrec.corpora.segments import CorpusSettings, encode_items, encode_requests
from seekrec.corpora.stream import build_item_queries, build_stream, encode_stream
from seekrec.corpora.templates import TASKS, TEMPLATES, Template, all_wordings
from seekrec.corpora.text import train_tokenizer
from seekrec.corpora.tokens import (
    BEHAVIOR_TOKENS,
    BehaviorToken,
    IdentifierLayout,
    IdentifierVocabulary,
    add_identifier_tokens,
)
from seekrec.util.text import TextEncoder, encode_text, get_text_folding, set_text_folding

__all__ = [
    "BEHAVIOR_TOKENS",
    "CORPUS_FEATURES",
    "TASKS",
    "TEMPLATES",
    "BehaviorToken",
    "CorpusSettings",
    "IdentifierLayout",
    "IdentifierVocabulary",
    "MixtureSampler",
    "Seq2SeqCollator",
    "StreamCollator",
    "Template",
    "TextEncoder",
    "add_identifier_tokens",
    "all_wordings",
    "build_corpus",
    "build_item_queries",
    "build_stream",
    "corpus_fingerprint",
    "describe_corpus",
    "encode_items",
    "encode_requests",
    "encode_stream",
    "encode_text",
    "get_text_folding",
    "load_corpus",
    "mix_tasks",
    "push_corpus",
    "rows_per_epoch",
    "save_corpus",
    "set_text_folding",
    "train_tokenizer",
]
