# SPDX-License-Identifier: Apache-2.0
"""Instruction corpora: events and items as token ids, task by task."""

from seekrec.corpora.build import CORPUS_FEATURES, build_corpus, corpus_fingerprint
from seekrec.corpora.collate import Seq2SeqCollator
from seekrec.corpora.decode import decode_row, decode_tokens
from seekrec.corpora.mixture import MixtureSampler, mix_tasks, rows_per_epoch
from seekrec.corpora.prompts import encode_requests
from seekrec.corpora.publish import describe_corpus, load_corpus, push_corpus, save_corpus
from seekrec.corpora.questions import encode_description_questions, encode_query_questions
from seekrec.corpora.settings import CorpusSettings
from seekrec.corpora.shared_collate import SharedHistoryCollator
from seekrec.corpora.shared_history import build_item_queries, build_shared_histories, encode_shared_history
from seekrec.corpora.tasks import TASKS
from seekrec.corpora.templates import TEMPLATES, Template, all_wordings
from seekrec.corpora.text import TextEncoder, encode_text, get_text_folding, set_text_folding, train_tokenizer
from seekrec.corpora.tokens import BEHAVIOR_TOKENS, BehaviorToken, IdentifierVocabulary, add_identifier_tokens

__all__ = [
    "BEHAVIOR_TOKENS",
    "CORPUS_FEATURES",
    "TASKS",
    "TEMPLATES",
    "BehaviorToken",
    "CorpusSettings",
    "IdentifierVocabulary",
    "MixtureSampler",
    "Seq2SeqCollator",
    "SharedHistoryCollator",
    "Template",
    "TextEncoder",
    "add_identifier_tokens",
    "all_wordings",
    "build_corpus",
    "build_item_queries",
    "build_shared_histories",
    "corpus_fingerprint",
    "decode_row",
    "decode_tokens",
    "describe_corpus",
    "encode_description_questions",
    "encode_query_questions",
    "encode_requests",
    "encode_shared_history",
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
