# SPDX-License-Identifier: Apache-2.0
"""Settings of a recipe: typed dataclasses, which `util.parsing` fills.

The fields of `transformers.TrainingArguments` are settings too (`learning_rate`, `num_train_epochs`, `use_cpu`, ...),
so nothing of the Trainer has to be renamed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from seekrec.errors import ConfigurationError

# What a recipe does, in this order; `stop_after` names one.
STAGES = ("data", "embeddings", "identifiers", "corpus", "training", "evaluation")


@dataclass
class DataArguments:
    """Which log, how its searches come about, and how it is split."""

    dataset: Literal["movielens", "sequences", "tables"] = field(
        default="movielens", metadata={"help": "The reader: MovieLens, user-item sequences, or your own tables."}
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "Folder of the log; MovieLens-100K is found without."}
    )
    movielens_variant: str = field(default="100k", metadata={"help": "100k, 1m, latest-small, ..."})
    events_path: str | None = field(default=None, metadata={"help": "Events table (Parquet, CSV, JSON lines)."})
    items_path: str | None = field(default=None, metadata={"help": "Items table (Parquet, CSV, JSON lines)."})
    column_map: list[str] = field(
        default_factory=list, metadata={"help": "Your columns' names, as ours=yours, e.g. user_id=customer."}
    )
    delimiter: str | None = field(
        default=None, metadata={"help": "Of tables: what stands between fields; found from the header if not given."}
    )
    quoting: Literal["doubled", "escaped", "none"] | None = field(
        default=None,
        metadata={"help": "Of tables: what a quote means (see read_tables); found from the file if not given."},
    )
    encoding: str | None = field(
        default=None, metadata={"help": "Of tables: e.g. cp1252, latin-1, utf-16; UTF-8 if not given."}
    )
    has_time: bool = field(
        default=True, metadata={"help": "Of tables: off where timestamps are positions in an order, or missing."}
    )
    category_separator: str = field(
        default=">", metadata={"help": "Of tables: what stands between the names of a category path in text."}
    )
    max_refused: float = field(default=0.01, metadata={"help": "Fraction of bad rows up to which reading goes on."})
    construction: Literal["split", "copy", "none"] = field(
        default="split",
        metadata={
            "help": "Searches for a log without: `split` tells an interaction once, `copy` as both, as the papers do."
        },
    )
    search_fraction: float = field(
        default=0.5, metadata={"help": "Share of interactions told as searches by `split`."}
    )
    split_method: Literal["leave_one_out", "last_days"] = field(
        default="leave_one_out", metadata={"help": "What is held out."}
    )
    protocol: Literal["strict", "paper"] = field(
        default="strict", metadata={"help": "`strict` leaks nothing; `paper` does what the released code does."}
    )
    num_test_days: int = field(default=1, metadata={"help": "Length of the test window of `last_days`."})
    split_seed: int = field(default=0, metadata={"help": "Of the query construction, the split and the negatives."})
    num_cold_items: int = field(
        default=0,
        metadata={
            "help": "So many items leave the log before training, are added to the trained model and asked for; with "
            "0 the rows of new items ask for those that no training event acts on."
        },
    )


@dataclass
class EmbeddingArguments:
    """Vectors of the items: of their texts, and of SASRec."""

    semantic_encoder: str | None = field(
        default=None, metadata={"help": "A sentence-transformers name or path; MiniLM from its wheel if not given."}
    )
    sasrec_hidden_size: int = field(default=64, metadata={"help": "Width of SASRec, the collaborative embedding."})
    sasrec_num_epochs: int = field(default=40, metadata={"help": "Passes of SASRec over the training events."})
    sasrec_dropout: float = field(default=0.3, metadata={"help": "Dropout of SASRec."})
    sasrec_learning_rate: float = field(default=1e-3, metadata={"help": "Step size of SASRec."})
    sasrec_max_history: int = field(default=50, metadata={"help": "Events that SASRec looks back."})


@dataclass
class IdentifierArguments:
    """Identifiers learnt from the vectors."""

    identifier_views: list[str] = field(
        default_factory=lambda: ["semantic", "collaborative"],
        metadata={"help": "Identifiers of an item; one of the two alone gives TIGER and its collaborative twin."},
    )
    num_shared_levels: int = field(default=2, metadata={"help": "Levels both identifiers share."})
    num_specific_levels: int = field(default=2, metadata={"help": "Levels of each identifier's own."})
    codebook_size: int = field(default=256, metadata={"help": "Codes a level."})
    identifier_learner: Literal["dual_rqvae", "residual_kmeans"] = field(
        default="dual_rqvae", metadata={"help": "What learns the identifiers."}
    )
    identifier_num_epochs: int = field(default=200, metadata={"help": "Passes of the identifier learner."})
    identifier_learning_rate: float = field(default=4e-3, metadata={"help": "Step size of the identifier learner."})
    identifier_reduction: Literal["sum", "mean"] = field(
        default="sum",
        metadata={"help": "Terms of the learner's loss: squared norms, as in the paper, or means, as in its code."},
    )


@dataclass
class CorpusArguments:
    """What the model is shown."""

    task_weights: list[str] = field(
        default_factory=lambda: [
            "nrip=1.0",
            "nsip=1.0",
            "nsqp=0.1",
            "desc2id_semantic=0.1",
            "desc2id_collaborative=0.1",
            "id2desc_semantic=0.1",
            "id2desc_collaborative=0.1",
        ],
        metadata={"help": "Tasks and their weight in an epoch, as task=weight; a task left out is not trained."},
    )
    max_history_recommendations: int = field(default=5, metadata={"help": "Latest recommendations kept of a history."})
    max_history_searches: int = field(default=5, metadata={"help": "Latest searches kept of a history."})
    max_query_tokens: int = field(default=64, metadata={"help": "Tokens kept of a query."})
    max_text_tokens: int = field(default=256, metadata={"help": "Tokens kept of an item's description."})
    shared_history: bool = field(
        default=False, metadata={"help": "Encode a user's history once for all targets (causal encoder)."}
    )
    merge_events: bool = field(
        default=False,
        metadata={"help": "With shared_history: the encoder reads an item, and a query, as one vector."},
    )
    recommend_searched_items: bool = field(
        default=False,
        metadata={"help": "With shared_history: ask for a searched item as a recommendation too, without its query."},
    )


@dataclass
class GeneratorArguments:
    """The generator: a T5 checkpoint by name, or one from scratch by size."""

    backbone: str | None = field(
        default=None, metadata={"help": "T5 checkpoint, e.g. google-t5/t5-small; none: from scratch."}
    )
    tokenizer_vocab_size: int = field(default=4000, metadata={"help": "From scratch: pieces of the tokenizer."})
    text_folding: list[str] | None = field(
        default=None,
        metadata={
            "help": "What is folded of queries and texts that the model reads: case, punctuation, plurals, accents. "
            "If not given case and punctuation and, from scratch, plurals."
        },
    )
    d_model: int = field(default=128, metadata={"help": "From scratch: width."})
    d_ff: int = field(default=512, metadata={"help": "From scratch: width of the feed-forward layers."})
    num_layers: int = field(default=3, metadata={"help": "From scratch: encoder layers."})
    num_decoder_layers: int = field(default=3, metadata={"help": "From scratch: decoder layers."})
    num_heads: int = field(default=4, metadata={"help": "From scratch: attention heads."})
    dropout_rate: float = field(default=0.1, metadata={"help": "From scratch: dropout."})
    initializer_factor: float = field(default=0.1, metadata={"help": "From scratch: scale of the start weights."})
    start_from_codebooks: bool = field(
        default=True, metadata={"help": "Start identifier rows from the codewords; else from a normal draw."}
    )
    loss_norm: Literal["vocab", "level"] = field(
        default="vocab",
        metadata={"help": "What a code competes with in the loss: the whole vocabulary, or the codes of its level."},
    )
    lora_rank: int = field(
        default=0, metadata={"help": "Above 0: train LoRA adapters of this rank and the new rows only."}
    )
    lora_alpha: int = field(default=32, metadata={"help": "Scale of LoRA."})


@dataclass
class ModelArguments(GeneratorArguments):
    """The generator of GenSAR, and what GenSAR adds to it."""

    summarize_history: bool = field(
        default=False,
        metadata={"help": "With merge_events: the decoder reads the state of the last event alone."},
    )
    next_item_weight: float = field(
        default=0.0,
        metadata={"help": "With merge_events: weight of a second loss, the next item from the encoder's state alone."},
    )
    distillation_weight: float = field(
        default=0.0,
        metadata={"help": "With next_item_weight: weight of teaching the decoder what the encoder's state says."},
    )
    order_by: Literal["identifier", "next_item"] = field(
        default="identifier",
        metadata={"help": "What orders found items and candidates; next_item, with next_item_weight: the encoder."},
    )
    read_item_vectors: bool = field(
        default=False,
        metadata={"help": "With merge_events: the encoder reads the catalogue's vectors of an item beside its codes."},
    )


@dataclass
class EvaluationArguments:
    """What is measured, and how."""

    num_beams: int = field(default=50, metadata={"help": "Beam width in evaluation."})
    max_validation_cases: int | None = field(
        default=2000, metadata={"help": "Cases of each task for model selection."}
    )
    max_test_cases: int | None = field(
        default=None, metadata={"help": "Cases of each task in the final table; all if not given."}
    )
    candidate_protocols: list[Literal["uniform", "popularity", "bm25"]] = field(
        default_factory=list, metadata={"help": "Protocols beside full ranking."}
    )
    candidate_scoring: Literal["exact", "beams"] = field(
        default="exact", metadata={"help": "What orders candidates: the model's own score of each, or a beam search."}
    )
    num_negatives: int = field(default=99, metadata={"help": "Negatives beside the target in candidate protocols."})
    remove_seen: bool = field(default=True, metadata={"help": "Leave the history's items out of full ranking."})
    on_offer_only: bool = field(
        default=False,
        metadata={"help": "Leave items out of full ranking that are not on offer when a request is made."},
    )
    rivals: bool = field(default=True, metadata={"help": "Off: the table holds the model, and no baselines."})
    compare_with: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of saved models of the same log, of any family, that stand in the table too."},
    )
    published_identifiers: str | None = field(
        default=None, metadata={"help": "Folder of *.index.json files of the same items, to compare identifiers with."}
    )
    stages_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of what is made before training; runs may share one. <output_dir>/stages if none."},
    )
    stop_after: Literal["data", "embeddings", "identifiers", "corpus", "training", "evaluation"] = field(
        default="evaluation", metadata={"help": "The last stage to run."}
    )


def parse_column_map(pairs: Sequence[str]) -> dict[str, str] | None:
    """Read `["user_id=customer"]`; None if empty.

    Raises:
        ConfigurationError: If a pair is not `ours=yours`.
    """
    for pair in pairs:
        if "=" not in pair:
            raise ConfigurationError(f"`column_map` has {pair!r}; write ours=yours, e.g. user_id=customer.")
    return {ours: yours for ours, _, yours in (pair.partition("=") for pair in pairs)} or None


__all__ = [
    "STAGES",
    "CorpusArguments",
    "DataArguments",
    "EmbeddingArguments",
    "EvaluationArguments",
    "GeneratorArguments",
    "IdentifierArguments",
    "ModelArguments",
    "parse_column_map",
]
