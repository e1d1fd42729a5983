# SPDX-License-Identifier: Apache-2.0
"""What the GenSAR recipe is made of: tokenizer, corpus, model and Trainer, each from its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora import (
    CorpusSettings,
    IdentifierVocabulary,
    Seq2SeqCollator,
    SharedHistoryCollator,
    add_identifier_tokens,
    all_wordings,
    build_corpus,
    build_item_queries,
    build_shared_histories,
    mix_tasks,
)
from seekrec.corpora.shared_history import HISTORY_TASKS
from seekrec.errors import ConfigurationError
from seekrec.evaluation import ModelRetriever
from seekrec.events import Split
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration, GenSARProcessor
from seekrec.models.gensar.modeling_gensar_items import vector_size
from seekrec.models.t5_backbone import identifier_fields
from seekrec.recipes.arguments import CorpusArguments, ModelArguments, T5Arguments
from seekrec.recipes.items import PreparedItems
from seekrec.recipes.t5 import T5Recipe, codebooks_by_block, load_or_train_tokenizer, t5_sizes
from seekrec.schema import item_texts
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer
from seekrec.util.parsing import parse_weights

logger = logging.getLogger(__name__)

# With `shared_history`: the data set that holds nrip, nsip and nsqp together.
HISTORIES = "histories"
# Every item asked for by the queries its categories give, without a history.
ITEM_QUERIES = "item_queries"


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
    settings: CorpusArguments,
    *,
    seed: int,
) -> DatasetDict:
    """Write the training corpus: a data set for each task with a weight.

    With `shared_history` nrip, nsip and nsqp stand together in the data set `histories`; of one that weighs less than
    another only that share of the targets is asked for.

    Raises:
        ConfigurationError: If a setting needs `shared_history` and that is off.
    """
    weights = parse_weights(settings.task_weights, "task_weights")
    chosen = [name for name, weight in weights.items() if weight > 0]
    written = CorpusSettings(
        tasks=tuple(name for name in chosen if name != ITEM_QUERIES),
        max_history_recommendations=settings.max_history_recommendations,
        max_history_searches=settings.max_history_searches,
        max_query_tokens=settings.max_query_tokens,
        max_text_tokens=settings.max_text_tokens,
        seed=seed,
    )
    if not settings.shared_history:
        for name, is_set in (
            ("merge_events", settings.merge_events),
            ("recommend_searched_items", settings.recommend_searched_items),
            (f"task_weights: {ITEM_QUERIES}", ITEM_QUERIES in chosen),
        ):
            if is_set:
                raise ConfigurationError(f"`{name}` needs `shared_history: true`; set that, or leave it out.")
        return build_corpus(split, catalog, tokenizer, vocabulary, written)
    history_tasks = tuple(name for name in chosen if name in HISTORY_TASKS)
    item_tasks = tuple(name for name in chosen if name not in (*HISTORY_TASKS, ITEM_QUERIES))
    corpus = DatasetDict()
    if history_tasks:
        corpus[HISTORIES] = build_shared_histories(
            split,
            catalog,
            tokenizer,
            vocabulary,
            replace(written, tasks=history_tasks),
            recommend_searched_items=settings.recommend_searched_items,
            # They stand in the same rows, so a lower weight is fewer of its targets.
            shares={name: weights[name] / max(weights[task] for task in history_tasks) for name in history_tasks},
        )
    if ITEM_QUERIES in chosen:
        corpus[ITEM_QUERIES] = build_item_queries(catalog, tokenizer, vocabulary, written)
    if item_tasks:
        corpus.update(build_corpus(split, catalog, tokenizer, vocabulary, replace(written, tasks=item_tasks)))
    return corpus


def make_model(
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: IdentifierVocabulary,
    t5: T5Arguments,
    settings: ModelArguments,
    corpus: CorpusArguments,
    *,
    seed: int,
) -> GenSARForConditionalGeneration:
    """Load the backbone, or make one by size, and give it identifier tokens and the catalogue."""
    shared: dict[str, Any] = {
        "shared_history": corpus.shared_history,
        "merge_events": corpus.merge_events,
        "loss_norm": settings.loss_norm,
        "summarize_history": settings.summarize_history,
        "next_item_weight": settings.next_item_weight,
        "distillation_weight": settings.distillation_weight,
        "order_by": settings.order_by,
        "trained_tasks": [
            name for name, weight in parse_weights(corpus.task_weights, "task_weights").items() if weight
        ],
        "item_vector_size": vector_size(catalog) if settings.read_item_vectors else 0,
        "max_history_recommendations": corpus.max_history_recommendations,
        "max_history_searches": corpus.max_history_searches,
        "max_query_tokens": corpus.max_query_tokens,
        "max_text_tokens": corpus.max_text_tokens,
        **identifier_fields(vocabulary),
    }
    model: GenSARForConditionalGeneration
    if t5.backbone is not None:
        model = GenSARForConditionalGeneration.from_t5(t5.backbone, **shared)
    else:
        model = GenSARForConditionalGeneration(GenSARConfig(**t5_sizes(settings, tokenizer), **shared))
    codebooks = None
    if settings.start_from_codebooks and catalog.identifier_model is not None:
        codebooks = codebooks_by_block(catalog)
    model.add_identifier_rows(vocabulary, codebooks=codebooks, seed=seed)
    model.set_catalog(catalog)
    return model


def make_processor(catalog: Catalog, tokenizer: PreTrainedTokenizerBase, settings: CorpusArguments) -> GenSARProcessor:
    """Make the processor that writes requests as the corpus was written."""
    return GenSARProcessor(
        tokenizer,
        catalog,
        shared_history=settings.shared_history,
        max_history_recommendations=settings.max_history_recommendations,
        max_history_searches=settings.max_history_searches,
        max_query_tokens=settings.max_query_tokens,
        max_text_tokens=settings.max_text_tokens,
    )


def make_trainer(
    model: PreTrainedModel,
    processor: GenSARProcessor,
    corpus: DatasetDict,
    settings: CorpusArguments,
    arguments: TrainingArguments,
    *,
    evaluate_model: EvaluateModel | None,
) -> GenerativeTrainer:
    """Put model and corpus into a Trainer that draws tasks by weight."""
    weights = parse_weights(settings.task_weights, "task_weights")
    weights[HISTORIES] = 1.0
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
        data_collator=SharedHistoryCollator(pad, start) if settings.shared_history else Seq2SeqCollator(pad),
        sampler=sampler,
        evaluate_model=evaluate_model,
    )


@dataclass
class GenSARRecipe(T5Recipe[GenSARForConditionalGeneration, GenSARProcessor]):
    """GenSAR: identifiers of two views, and a corpus of seven tasks.

    Args:
        corpus ([`CorpusArguments`]): What is learned.
        model ([`ModelArguments`]): The model.
    """

    corpus: CorpusArguments
    model: ModelArguments
    name = "GenSAR"

    def prepare_items(self) -> PreparedItems:
        """Learn the identifiers of the items."""
        return self.learn_items()

    def make_retriever(self, model: Any) -> ModelRetriever:
        """Make the system that answers with a model, by beam search."""
        return ModelRetriever(
            model,
            self.processor,
            num_beams=self.num_beams,
            candidate_scoring=self.corpus.candidate_scoring,
            show_progress=False,
        )

    def make_processor(self) -> GenSARProcessor:
        """Make the tokenizer, with a token for each code, and the processor that writes requests as the corpus is."""
        self.tokenizer, self.vocabulary = make_tokenizer(self.split, self.catalog, self.t5)
        return make_processor(self.catalog, self.tokenizer, self.corpus)

    def prepare_corpus(self) -> None:
        """Write the rows of all tasks."""
        self.rows = make_corpus(
            self.split, self.catalog, self.tokenizer, self.vocabulary, self.corpus, seed=self.training.seed
        )
        logger.info("corpus: %s", {name: len(rows) for name, rows in self.rows.items()})

    def make_model(self) -> GenSARForConditionalGeneration:
        """Make the model with its start weights."""
        return make_model(
            self.catalog, self.tokenizer, self.vocabulary, self.t5, self.model, self.corpus, seed=self.training.seed
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
            self.corpus,
            self.training,
            evaluate_model=evaluate_model,
        )
        yield trainer, {"corpus": self.rows, "tokenizer": self.tokenizer}


__all__ = [
    "GenSARRecipe",
    "make_corpus",
    "make_model",
    "make_processor",
    "make_tokenizer",
    "make_trainer",
]
