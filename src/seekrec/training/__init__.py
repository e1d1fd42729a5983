# SPDX-License-Identifier: Apache-2.0
"""Training by `transformers.Trainer`: settings, cached stages, and what each family's recipe is made of."""

from seekrec.training.arguments import (
    CorpusArguments,
    DataArguments,
    EvaluationArguments,
    IdentifierArguments,
    ModelArguments,
    parse_arguments,
)
from seekrec.training.gensar import add_lora, make_corpus, make_model, make_processor, make_tokenizer, make_trainer
from seekrec.training.identifiers import train_dual_rqvae
from seekrec.training.preparation import PreparedItems, prepare_items, prepare_split
from seekrec.training.sasrec import train_sasrec
from seekrec.training.stages import StageCache
from seekrec.training.trainer import GenerativeTrainer, find_checkpoint

__all__ = [
    "CorpusArguments",
    "DataArguments",
    "EvaluationArguments",
    "GenerativeTrainer",
    "IdentifierArguments",
    "ModelArguments",
    "PreparedItems",
    "StageCache",
    "add_lora",
    "find_checkpoint",
    "make_corpus",
    "make_model",
    "make_processor",
    "make_tokenizer",
    "make_trainer",
    "parse_arguments",
    "prepare_items",
    "prepare_split",
    "train_dual_rqvae",
    "train_sasrec",
]
