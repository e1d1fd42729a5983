# SPDX-License-Identifier: Apache-2.0
"""Training by `transformers.Trainer`: settings, cached stages, and what each family's recipe is made of."""

from seekrec.training.arguments import (
    STAGES,
    CorpusArguments,
    DataArguments,
    EvaluationArguments,
    GeneratorArguments,
    IdentifierArguments,
    ModelArguments,
)
from seekrec.training.collaborative import CollaborativeSource, prepare_collaborative, prepare_lightgcn
from seekrec.training.event_windows import WindowCollator, make_window_optimizer, make_window_trainer
from seekrec.training.generator import add_lora, merge_lora
from seekrec.training.gensar import make_corpus, make_model, make_processor, make_tokenizer, make_trainer
from seekrec.training.gensr import make_gensr_model, make_gensr_processor, make_gensr_trainer, set_collaborative
from seekrec.training.gensr_arguments import CollaborativeArguments, GenSRArguments
from seekrec.training.gensr_data import training_requests
from seekrec.training.identifiers import train_dual_rqvae
from seekrec.training.intsr import (
    make_intsr_collator,
    make_intsr_model,
    make_intsr_processor,
    make_windows,
    training_stages,
    with_lifetimes,
)
from seekrec.training.intsr_arguments import IntSRArguments
from seekrec.training.launch import open_stages, run_recipe, save_trained
from seekrec.training.lightgcn import train_lightgcn
from seekrec.training.log_stages import prepare_cold_start, prepare_split
from seekrec.training.preparation import (
    ItemEmbeddings,
    PreparedItems,
    prepare_embeddings,
    prepare_items,
    prepare_plain_items,
)
from seekrec.training.sasrec import train_sasrec
from seekrec.training.stages import StageCache
from seekrec.training.synergen import (
    make_synergen_collator,
    make_synergen_model,
    make_synergen_processor,
)
from seekrec.training.synergen_arguments import SynerGenArguments
from seekrec.training.trainer import GenerativeTrainer, train_once
from seekrec.training.window_arguments import WindowArguments
from seekrec.util.parsing import parse_arguments

__all__ = [
    "STAGES",
    "CollaborativeArguments",
    "CollaborativeSource",
    "CorpusArguments",
    "DataArguments",
    "EvaluationArguments",
    "GenSRArguments",
    "GenerativeTrainer",
    "GeneratorArguments",
    "IdentifierArguments",
    "IntSRArguments",
    "ItemEmbeddings",
    "ModelArguments",
    "PreparedItems",
    "StageCache",
    "SynerGenArguments",
    "WindowArguments",
    "WindowCollator",
    "add_lora",
    "make_corpus",
    "make_gensr_model",
    "make_gensr_processor",
    "make_gensr_trainer",
    "make_intsr_collator",
    "make_intsr_model",
    "make_intsr_processor",
    "make_model",
    "make_processor",
    "make_synergen_collator",
    "make_synergen_model",
    "make_synergen_processor",
    "make_tokenizer",
    "make_trainer",
    "make_window_optimizer",
    "make_window_trainer",
    "make_windows",
    "merge_lora",
    "open_stages",
    "parse_arguments",
    "prepare_collaborative",
    "prepare_cold_start",
    "prepare_embeddings",
    "prepare_items",
    "prepare_lightgcn",
    "prepare_plain_items",
    "prepare_split",
    "run_recipe",
    "save_trained",
    "set_collaborative",
    "train_dual_rqvae",
    "train_lightgcn",
    "train_once",
    "train_sasrec",
    "training_requests",
    "training_stages",
    "with_lifetimes",
]
