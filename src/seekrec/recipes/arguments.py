# SPDX-License-Identifier: Apache-2.0
"""Settings of a recipe: typed dataclasses, which `util.parsing` fills; their docstrings are the help.

The fields of `transformers.TrainingArguments` are settings too (`learning_rate`, `num_train_epochs`, `use_cpu`, ...),
so nothing of the Trainer has to be renamed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from seekrec.embeddings import SASRecConfig
from seekrec.errors import ConfigurationError
from seekrec.evaluation.more_baselines import MORE_BASELINES, MoreBaseline
from seekrec.events.partitions.engines import Engine
from seekrec.events.readers import OTHER_DATASETS, READERS
from seekrec.events.readers.times import TimeUnit
from seekrec.events.split import LearnedAlso
from seekrec.identifiers import VIEW_ORDER, DualRQVAEConfig
from seekrec.identifiers.levels import IdentifierLevels
from seekrec.schema import Behavior, View

# What a recipe does, in this order; `stop_after` names one.
STAGES = ("data", "embeddings", "identifiers", "corpus", "training", "evaluation")
# Of constructed queries, the split and the negatives of the evaluation. No setting: runs with different seeds of
# training are compared on the same cases.
SPLIT_SEED = 0


@dataclass
class DataArguments:
    """The log, the construction of its searches, and the split.

    What is not said of your own log's tables is recognized from their columns and contents.

    Args:
        dataset (`str`, *optional*): Reader of the log; `tables` where `events` is given.
        data_dir (`str`, *optional*):
            Folder of a published log; MovieLens-100K needs none. With `dataset: sql` the database, with `dataset: hub`
            the repository.
        events (`str`, *optional*): Own log: table of events (Parquet, CSV, TSV, JSON lines), or a SELECT.
        items (`str`, *optional*): Own log: table of items (Parquet, CSV, TSV, JSON lines), or a SELECT.
        column_map (`list[str]`): Own log: names of columns, as ours=theirs: user_id=customer items.item_id=sku.
        time_unit (`str`, *optional*): Own log: unit of times that are numbers, where their size does not say it.
        timezone (`str`, *optional*): Own log: zone of times that name none, such as Europe/Berlin.
        delimiter (`str`, *optional*): Own log: character between the fields of CSV.
        quote (`str`, *optional*): Own log: what quotes mean in CSV: fields with doubled or escaped quotes, or letters.
        encoding (`str`, *optional*): Own log: encoding of text files, such as cp1252.
        category_separator (`str`, *optional*): Own log: what stands between the names of a category path.
        has_time (`bool`, *optional*): Own log: whether events have times, or only an order.
        max_refused (`float`, *optional*): The largest share of a table's rows that may be refused.
        engine (`str`): Where your own log is read, learned from and evaluated: on this machine, or on a Ray cluster.
        construction (`str`):
            Searches for a log without any: `split` labels each interaction as one of the two, `copy` as both, as the
            papers do; `tags` takes what users typed as tags, where the log has such.
        split_method (`str`): Events that are held out: the last of each user, the last tenth, or the last day.
        protocol (`str`): `strict` leaks nothing; `paper` does what the released code does.
        num_cold_items (`int`):
            Number of items that are removed from the log before training, then added to the trained model and
            evaluated; with 0 the rows of new items evaluate those without training events.
    """

    dataset: str | None = field(default=None, metadata={"choices": [*READERS, *OTHER_DATASETS]})
    data_dir: str | None = None
    events: str | None = None
    items: str | None = None
    column_map: list[str] = field(default_factory=list)
    time_unit: TimeUnit | None = None
    timezone: str | None = None
    delimiter: str | None = None
    quote: Literal["doubled", "escaped", "none"] | None = None
    encoding: str | None = None
    category_separator: str | None = None
    has_time: bool | None = None
    max_refused: float | None = None
    engine: Engine = "local"
    construction: Literal["split", "copy", "none", "tags"] = "split"
    split_method: Literal["leave_one_out", "last_tenth", "last_days"] = "leave_one_out"
    protocol: Literal["strict", "paper"] = "strict"
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
    """Identifiers learned from the vectors, on top of [`IdentifierLevels`].

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
    """The evaluation.

    Args:
        max_validation_cases (`int`, *optional*):
            Number of cases of each task for model selection. Weights of views are chosen once, by ten times as many,
            though no more than 10,000 (by as many, where the run has a limit of time).
        max_test_cases (`int`, *optional*): Number of cases of each task in the final table; all if not given.
        candidate_protocols (`list[str]`): Protocols in addition to full ranking.
        num_negatives (`int`): Number of negatives alongside the target in protocols with candidates.
        baselines (`list[str]`):
            What the table also holds: `none`; the `usual` baselines; alongside them clicks by query and word
            (`query_log`), BM25 and dense text fused by rank (`rank_fusion`), items of the same users, and of those the
            ones that they took close together (`item_knn`), a wide SASRec of a sampled softmax (`sampled_sasrec`), and
            two bounds: a search that is told which items a synthetic query was made for (`query_group`), and what the
            choice of BM25's negatives gives away (`negative_draws`); or `all`.
        measures (`bool`):
            Whether the results also say what is in the lists (coverage, novelty, diversity, popularity), and how good
            they are for cold items, first-time queries, long and short histories, and queries typed in rarer forms.
        compare_with (`list[str]`): Folders of saved models of the same log, of any family, for the same table.
    """

    # What is measured when the model is trained.
    after_training: ClassVar[tuple[str, ...]] = (
        "max_test_cases",
        "candidate_protocols",
        "baselines",
        "measures",
        "compare_with",
    )

    max_validation_cases: int | None = 2000
    max_test_cases: int | None = None
    candidate_protocols: list[Literal["uniform", "popularity", "bm25"]] = field(default_factory=list)
    num_negatives: int = 99
    baselines: list[Literal["none", "usual", MoreBaseline, "all"]] = field(default_factory=lambda: ["usual"])
    measures: bool = False
    compare_with: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if "none" in self.baselines and len(self.baselines) > 1:
            raise ConfigurationError(f"`baselines` is {self.baselines}; name `none` alone, or leave it out.")

    @property
    def has_baselines(self) -> bool:
        """Whether the table contains any baseline."""
        return bool(self.baselines) and "none" not in self.baselines

    @property
    def more_baselines(self) -> list[MoreBaseline]:
        """The baselines in addition to the usual ones."""
        return [name for name in MORE_BASELINES if name in self.baselines or "all" in self.baselines]


@dataclass
class RunArguments:
    """The run: its stages, and how long it may take.

    Args:
        stages_dir (`str`, *optional*):
            Folder of the stages before training; runs may share one. <output_dir>/stages if not given.
        stop_after (`str`): The last stage to run.
        max_minutes (`float`, *optional*): Minutes of the whole run: training stops in time for the evaluation.
        dry_run (`bool`): Read the log, print the plan with its time, memory and disk, and write nothing.
        refit (`str`): Train once more, by what validation chose, on what was held out for it (`validation`), or, after
            the test, on all events (`everything`): the model to be used.
    """

    # None of them changes what one step of training does.
    after_training: ClassVar[tuple[str, ...]] = ("stages_dir", "stop_after", "max_minutes", "dry_run", "refit")

    stages_dir: str | None = None
    stop_after: Literal["data", "embeddings", "identifiers", "corpus", "training", "evaluation"] = "evaluation"
    max_minutes: float | None = None
    dry_run: bool = False
    refit: Literal["none", LearnedAlso] = "none"

    def __post_init__(self) -> None:
        if self.max_minutes is not None and self.refit != "none":
            raise ConfigurationError(
                f"`refit` is {self.refit}, which trains a second time for as long as was best the first time, "
                f"together with `max_minutes: {self.max_minutes:g}`; leave out one of them."
            )


__all__ = [
    "SPLIT_SEED",
    "STAGES",
    "CollaborativeArguments",
    "DataArguments",
    "EmbeddingArguments",
    "EvaluationArguments",
    "IdentifierArguments",
    "RunArguments",
    "T5Arguments",
]
