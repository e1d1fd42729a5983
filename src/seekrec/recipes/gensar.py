# SPDX-License-Identifier: Apache-2.0
"""The GenSAR recipe: tokenizer, corpus, model and Trainer, each from its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora import (
    IdentifierVocabulary,
    Seq2SeqCollator,
    StreamCollator,
    add_identifier_tokens,
    all_wordings,
    build_corpus,
    build_item_queries,
    build_stream,
    mix_tasks,
)
from seekrec.corpora.stream import HISTORY_TASKS
from seekrec.errors import ConfigurationError
from seekrec.evaluation import ModelRetriever
from seekrec.events import Split
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration, GenSARProcessor
from seekrec.models.gensar.modeling_gensar import vector_size
from seekrec.models.t5_backbone import identifier_fields
from seekrec.recipes.arguments import T5Arguments
from seekrec.recipes.items import PreparedItems
from seekrec.recipes.t5 import T5Recipe, codebooks_by_block, load_or_train_tokenizer, scratch_fields
from seekrec.schema import item_texts
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer
from seekrec.util.parsing import parse_weights
from seekrec.util.settings import option_names

logger = logging.getLogger(__name__)

# With `corpus: stream`: the data set that holds nrip, nsip and nsqp together.
HISTORIES = "histories"
# Every item asked for by the queries its categories give, without a history.
ITEM_QUERIES = "item_queries"


@dataclass
class TaskArguments:
    """What the model is trained on and how it orders candidates.

    Args:
        task_weights (`list[str]`):
            Tasks and their weight in an epoch, as task=weight; a task left out is not trained.
        candidate_scoring (`str`): What orders candidates: the model's own score of each, or a beam search.
    """

    task_weights: list[str] = field(
        default_factory=lambda: [
            "nrip=1.0",
            "nsip=1.0",
            "nsqp=0.1",
            "desc2id_semantic=0.1",
            "desc2id_collaborative=0.1",
            "id2desc_semantic=0.1",
            "id2desc_collaborative=0.1",
        ]
    )
    candidate_scoring: Literal["exact", "beams"] = "exact"

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the tasks that are trained."""
        return {name: weight for name, weight in parse_weights(self.task_weights, "task_weights").items() if weight}


def make_tokenizer(
    split: Split, catalog: Catalog, settings: T5Arguments
) -> tuple[PreTrainedTokenizerBase, IdentifierVocabulary]:
    """Load the backbone's tokenizer, or train one on the log's text, and add the identifier tokens.

    Returns:
        `tuple[PreTrainedTokenizerBase, IdentifierVocabulary]`: The tokenizer, and where its identifier tokens are.
    """
    tokenizer = load_or_train_tokenizer(
        settings,
        item_texts(catalog.items),
        split,
        add_wordings=lambda texts: [*all_wordings(), *texts],
        writes_text=True,
    )
    vocabulary = add_identifier_tokens(
        tokenizer,
        num_shared_levels=catalog.num_shared_levels,
        num_specific_levels=catalog.num_specific_levels,
        codebook_size=catalog.codebook_size,
        views=catalog.views,
    )
    return tokenizer, vocabulary


def make_corpus(
    split: Split,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    config: GenSARConfig,
    weights: Mapping[str, float],
    *,
    seed: int,
) -> DatasetDict:
    """Write the training corpus: a data set for each task with a weight.

    In a stream nrip, nsip and nsqp stand together in the data set `histories`; of one that weighs less than another
    only that share of the targets is asked for.

    Raises:
        ConfigurationError: If a task needs `corpus: stream`.
    """
    if config.corpus == "instructions":
        if ITEM_QUERIES in weights:
            raise ConfigurationError(
                f"`task_weights` has {ITEM_QUERIES!r}, which needs `corpus: stream`; set that, or leave it out."
            )
        return build_corpus(split, catalog, tokenizer, vocabulary, config, tasks=list(weights), seed=seed)
    in_histories = {name: weight for name, weight in weights.items() if name in HISTORY_TASKS}
    others = [name for name in weights if name not in (*HISTORY_TASKS, ITEM_QUERIES)]
    corpus = DatasetDict()
    if in_histories:
        corpus[HISTORIES] = build_stream(
            split,
            catalog,
            tokenizer,
            vocabulary,
            config,
            recommend_searched_items=config.recommend_searched_items,
            # They stand in the same rows, so a lower weight is fewer of its targets.
            shares={name: weight / max(in_histories.values()) for name, weight in in_histories.items()},
            seed=seed,
        )
    if ITEM_QUERIES in weights:
        corpus[ITEM_QUERIES] = build_item_queries(catalog, tokenizer, vocabulary, config)
    if others:
        corpus.update(build_corpus(split, catalog, tokenizer, vocabulary, config, tasks=others, seed=seed))
    return corpus


def make_model(
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    settings: T5Arguments,
    config: GenSARConfig,
    weights: Mapping[str, float],
    *,
    seed: int,
) -> GenSARForConditionalGeneration:
    """Load the backbone, or make one by size, and give it identifier tokens and the catalogue."""
    fields = {name: getattr(config, name) for name in option_names(GenSARConfig)}
    fields |= identifier_fields(vocabulary)
    fields["trained_tasks"] = list(weights)
    fields["item_vector_size"] = vector_size(catalog) if config.corpus == "stream" else 0
    if settings.backbone is not None:
        own = {name: value for name, value in fields.items() if name not in GenSARConfig.fields_from_base}
        model = GenSARForConditionalGeneration.from_t5(settings.backbone, **own)
    else:
        model = GenSARForConditionalGeneration(GenSARConfig(**fields, **scratch_fields(config, tokenizer)))
    codebooks = None if catalog.identifier_model is None else codebooks_by_block(catalog)
    model.add_identifier_rows(vocabulary, codebooks=codebooks, seed=seed)
    model.set_catalog(catalog)
    return model


def make_trainer(
    model: PreTrainedModel,
    processor: GenSARProcessor,
    corpus: DatasetDict,
    weights: Mapping[str, float],
    arguments: TrainingArguments,
    *,
    evaluate_model: EvaluateModel | None,
) -> GenerativeTrainer:
    """Put model and corpus into a Trainer that draws tasks by weight."""
    weights = {**weights, HISTORIES: 1.0}
    arguments.remove_unused_columns = False
    batch_size = arguments.per_device_train_batch_size * arguments.world_size
    rows, sampler = mix_tasks(
        corpus,
        {name: weights[name] for name in corpus},
        seed=arguments.data_seed if arguments.data_seed is not None else arguments.seed,
        group_by_length=True,
        batch_size=batch_size,
    )
    pad, start = processor.tokenizer.pad_token_id, model.config.decoder_start_token_id
    return GenerativeTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=StreamCollator(pad, start) if processor.config.corpus == "stream" else Seq2SeqCollator(pad),
        sampler=sampler,
        evaluate_model=evaluate_model,
    )


@dataclass
class GenSARRecipe(T5Recipe[GenSARForConditionalGeneration, GenSARProcessor]):
    """GenSAR: identifiers of two views, and a corpus of seven tasks.

    Args:
        config ([`GenSARConfig`]): The model.
        tasks ([`TaskArguments`]): What it is trained on.
    """

    config: GenSARConfig
    tasks: TaskArguments
    name = "GenSAR"

    def prepare_items(self) -> PreparedItems:
        """Learn the identifiers of the items."""
        return self.learn_items()

    def make_retriever(self, model: GenSARForConditionalGeneration) -> ModelRetriever:
        """Make the system that answers with a model, by beam search."""
        return ModelRetriever(
            model,
            self.processor,
            num_beams=self.num_beams,
            candidate_scoring=self.tasks.candidate_scoring,
            show_progress=False,
        )

    def make_processor(self) -> GenSARProcessor:
        """Make the tokenizer, with a token for each code, and the processor that writes requests as the corpus is."""
        self.tokenizer, self.vocabulary = make_tokenizer(self.split, self.catalog, self.t5)
        return GenSARProcessor.from_config(self.config, self.tokenizer, self.catalog)

    def prepare_corpus(self) -> None:
        """Write the rows of all tasks."""
        self.rows = make_corpus(
            self.split,
            self.catalog,
            self.tokenizer,
            self.vocabulary,
            self.config,
            self.tasks.weights,
            seed=self.training.seed,
        )
        logger.info("corpus: %s", {name: len(rows) for name, rows in self.rows.items()})

    def make_model(self) -> GenSARForConditionalGeneration:
        """Make the model with its start weights."""
        return make_model(
            self.catalog,
            self.tokenizer,
            self.vocabulary,
            self.t5,
            self.config,
            self.tasks.weights,
            seed=self.training.seed,
        )

    def make_trainers(
        self, model: GenSARForConditionalGeneration, evaluate_model: EvaluateModel
    ) -> Iterator[tuple[GenerativeTrainer, Mapping[str, object]]]:
        """Make the training of all tasks at once."""
        self.training.output_dir = str(self.output_dir / "trainer")
        trainer = make_trainer(
            self.with_adapters(model),
            self.processor,
            self.rows,
            self.tasks.weights,
            self.training,
            evaluate_model=evaluate_model,
        )
        yield trainer, {"corpus": self.rows, "tokenizer": self.tokenizer}


__all__ = ["GenSARRecipe", "TaskArguments", "make_corpus", "make_model", "make_tokenizer", "make_trainer"]
