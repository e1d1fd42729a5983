# SPDX-License-Identifier: Apache-2.0
"""Settings of a recipe: typed dataclasses, which `util.parsing` fills; their docstrings are the help.

The fields of `transformers.TrainingArguments` are settings too (`learning_rate`, `num_train_epochs`, `use_cpu`, ...),
so nothing of the Trainer has to be renamed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from seekrec.embeddings import SASRecConfig
from seekrec.identifiers import VIEW_ORDER, DualRQVAEConfig
from seekrec.identifiers.levels import IdentifierLevels
from seekrec.schema import Behavior, View

# What a recipe does, in this order; `stop_after` names one.
STAGES = ("data", "embeddings", "identifiers", "corpus", "training", "evaluation")


@dataclass
class DataArguments:
    """The log, the construction of its searches, and the split.

    Args:
        dataset (`str`): Reader of the log: MovieLens, user-item sequences, or your own tables.
        data_dir (`str`, *optional*): Folder of the log; MovieLens-100K needs none.
        events_path (`str`, *optional*): With `dataset: tables`: events table (Parquet, CSV, JSON lines).
        items_path (`str`, *optional*): With `dataset: tables`: items table (Parquet, CSV, JSON lines).
        reader_options (`list[str]`):
            Arguments of the reader, as name=value. MovieLens: variant=1m. Tables: the columns' names, as ours=yours
            (user_id=customer), and delimiter, quoting, encoding, has_time, category_separator, max_refused.
        construction (`str`):
            Searches for a log without any: `split` labels each interaction as one of the two, `copy` as both, as the
            papers do.
        split_method (`str`): Events that are held out: the last of each user, or the last day.
        protocol (`str`): `strict` leaks nothing; `paper` does what the released code does.
        split_seed (`int`): Seed of the query construction, the split and the negatives.
        num_cold_items (`int`):
            Number of items that are removed from the log before training, then added to the trained model and
            evaluated; with 0 the rows of new items evaluate those without training events.
    """

    dataset: Literal["movielens", "sequences", "tables"] = "movielens"
    data_dir: str | None = None
    events_path: str | None = None
    items_path: str | None = None
    reader_options: list[str] = field(default_factory=list)
    construction: Literal["split", "copy", "none"] = "split"
    split_method: Literal["leave_one_out", "last_days"] = "leave_one_out"
    protocol: Literal["strict", "paper"] = "strict"
    split_seed: int = 0
    num_cold_items: int = 0


@dataclass
class EmbeddingArguments:
    """Vectors of the items: of their texts, and of SASRec.

    Args:
        semantic_encoder (`str`, *optional*): Name or path of a sentence-transformers model; MiniLM if not given.
        sasrec_hidden_size (`int`): Width of SASRec and, in GenSR, of LightGCN.
        sasrec_num_epochs (`int`): Epochs of SASRec.
    """

    semantic_encoder: str | None = None
    sasrec_hidden_size: int = SASRecConfig.hidden_size
    sasrec_num_epochs: int = 40


@dataclass
class CollaborativeArguments:
    """The frozen table of GenSR's collaborative view.

    Args:
        collaborative_source (`str`): Recommender whose item embeddings the collaborative view reads.
        lightgcn_behaviors (`list[str]`):
            Training events of LightGCN's graph: recommendation, as in the paper, and search.
        lightgcn_num_epochs (`int`): Epochs of LightGCN.
    """

    collaborative_source: Literal["lightgcn", "sasrec"] = "lightgcn"
    lightgcn_behaviors: list[Behavior] = field(default_factory=lambda: ["recommendation"])
    lightgcn_num_epochs: int = 40


@dataclass
class IdentifierArguments(IdentifierLevels):
    """Identifiers learnt from the vectors, on top of [`IdentifierLevels`].

    Args:
        identifier_views (`list[str]`):
            Identifiers of an item; one of the two alone gives TIGER and its collaborative counterpart.
        identifier_learner (`str`): Learner of the identifiers; `atomic`: none, each item is one token (BSR).
        identifier_num_epochs (`int`): Epochs of the identifier learner.
        identifier_learning_rate (`float`): Learning rate of the identifier learner.
        identifier_reduction (`str`):
            Terms of the learner's loss: squared norms (`sum`), as in the paper, or means, as in its code.
    """

    identifier_views: list[View] = field(default_factory=lambda: list(VIEW_ORDER))
    identifier_learner: Literal["dual_rqvae", "residual_kmeans", "atomic"] = "dual_rqvae"
    # The released code takes a learning rate of 1e-3 and 500 epochs, out of proportion for a few thousand items. On
    # Amazon Scientific (4,344 items, one core, 200 epochs in 92 s, seed 0) the relative errors of the semantic and the
    # collaborative vectors were 0.39 and 0.29 with 2e-3, 0.34 and 0.24 with 4e-3; 100 epochs of 4e-3 gave 0.43 and
    # 0.34.
    identifier_num_epochs: int = 200
    identifier_learning_rate: float = 4e-3
    identifier_reduction: Literal["sum", "mean"] = DualRQVAEConfig.reduction


@dataclass
class T5Arguments:
    """Settings of GenSAR and GenSR: a T5 checkpoint by name, or a T5 from scratch, sized by the configuration.

    Args:
        backbone (`str`, *optional*): T5 checkpoint, e.g. google-t5/t5-small; from scratch if not given.
        tokenizer_vocab_size (`int`): Without a backbone: number of pieces of the tokenizer.
        lora_rank (`int`): Above 0: train LoRA adapters of this rank and the new rows only.
        num_beams (`int`): Beam width in evaluation.
    """

    backbone: str | None = None
    tokenizer_vocab_size: int = 4000
    lora_rank: int = 0
    num_beams: int = 50


@dataclass
class EvaluationArguments:
    """The evaluation, and the last stage of a run.

    Args:
        max_validation_cases (`int`, *optional*): Number of cases of each task for model selection.
        max_test_cases (`int`, *optional*): Number of cases of each task in the final table; all if not given.
        candidate_protocols (`list[str]`): Protocols in addition to full ranking.
        num_negatives (`int`): Number of negatives beside the target in protocols with candidates.
        baselines (`bool`): Whether the table also holds the baselines.
        compare_with (`list[str]`): Folders of saved models of the same log, of any family, for the same table.
        stages_dir (`str`, *optional*):
            Folder of the stages before training; runs may share one. <output_dir>/stages if not given.
        stop_after (`str`): The last stage to run.
    """

    # What is measured when the model is trained.
    after_training: ClassVar[tuple[str, ...]] = (
        *("max_test_cases", "candidate_protocols", "baselines", "compare_with", "stages_dir", "stop_after"),
    )

    max_validation_cases: int | None = 2000
    max_test_cases: int | None = None
    candidate_protocols: list[Literal["uniform", "popularity", "bm25"]] = field(default_factory=list)
    num_negatives: int = 99
    baselines: bool = True
    compare_with: list[str] = field(default_factory=list)
    stages_dir: str | None = None
    stop_after: Literal["data", "embeddings", "identifiers", "corpus", "training", "evaluation"] = "evaluation"


__all__ = [
    "STAGES",
    "CollaborativeArguments",
    "DataArguments",
    "EmbeddingArguments",
    "EvaluationArguments",
    "IdentifierArguments",
    "T5Arguments",
]
