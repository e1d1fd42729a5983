# SPDX-License-Identifier: Apache-2.0
"""The GenSAR recipe: tokenizer, corpus, model and Trainer, each from its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from datasets import DatasetDict

from seekrec.corpora import (
    Seq2SeqCollator,
    StreamCollator,
    add_identifier_tokens,
    all_wordings,
    build_corpus,
    build_item_queries,
    build_stream,
    mix_tasks,
)
from seekrec.corpora.partitioned import HISTORIES, ITEM_QUERIES, CorpusShards
from seekrec.corpora.stream import HISTORY_TASKS
from seekrec.errors import ConfigurationError
from seekrec.evaluation import ModelRetriever
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration, GenSARProcessor
from seekrec.models.gensar.modeling_gensar import vector_size
from seekrec.models.gensar.processing_gensar import QueryReadingCollator
from seekrec.models.t5_backbone import identifier_fields
from seekrec.models.words import Vocabulary, item_word_keys, text_word_keys
from seekrec.recipes.items import PreparedItems
from seekrec.recipes.partitioned import prepare_corpus_shards
from seekrec.recipes.t5 import T5Recipe, codebooks_by_block, load_or_train_tokenizer, make_t5
from seekrec.schema import item_texts
from seekrec.training.coded_rows import CodedRows, data_seed, sample_rows
from seekrec.training.shards import ShardCollator
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer
from seekrec.util.parsing import parse_weights

logger = logging.getLogger(__name__)


@dataclass
class TaskArguments:
    """Training tasks, scoring of candidates, and identifiers to compare with.

    Args:
        task_weights (`list[str]`):
            Tasks and their weights in an epoch, as task=weight; other tasks are not trained.
        candidate_scoring (`str`): Order of candidates: by the exact score of each, or by a beam search.
        published_identifiers (`str`, *optional*):
            Folder of *.index.json files of the same items, to compare the identifiers with.
    """

    # Checkpoints are chosen by the whole catalogue.
    after_training: ClassVar[tuple[str, ...]] = ("candidate_scoring", "published_identifiers")

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
    published_identifiers: str | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the tasks that are trained."""
        return {name: weight for name, weight in parse_weights(self.task_weights, "task_weights").items() if weight}


@dataclass
class GenSARRecipe(T5Recipe[GenSARForConditionalGeneration, GenSARProcessor]):
    """GenSAR: identifiers of two views, and a corpus of seven tasks.

    Args:
        config ([`GenSARConfig`]): The model.
        tasks ([`TaskArguments`]): Its training tasks.
    """

    config: GenSARConfig
    tasks: TaskArguments
    name = "GenSAR"

    def prepare_items(self) -> PreparedItems:
        """Learn the identifiers of the items."""
        return self.learn_items(published=self.tasks.published_identifiers)

    def make_processor(self) -> GenSARProcessor:
        """Make the tokenizer, with a token for each code, and the processor that writes requests as the corpus is."""
        self.tokenizer = load_or_train_tokenizer(
            self.t5,
            item_texts(self.catalog.items),
            (self.parts or self.split).training_queries(),
            add_wordings=lambda texts: [*all_wordings(), *texts],
            writes_text=True,
        )
        self.vocabulary = add_identifier_tokens(self.tokenizer, self.catalog)
        return GenSARProcessor.from_config(self.config, self.tokenizer, self.catalog)

    def prepare_corpus(self) -> None:
        """Write the training corpus: a data set for each task with a weight.

        In a stream nrip, nsip and nsqp stand together in the data set `histories`; a task with a lower weight than
        another has that share of its targets.

        Raises:
            ConfigurationError: If a task needs `corpus: stream`.
        """
        shared = (self.catalog, self.tokenizer, self.vocabulary, self.config)
        weights, seed = self.tasks.weights, self.training.seed
        in_histories = {name: weight for name, weight in weights.items() if name in HISTORY_TASKS}
        if self.config.corpus == "instructions":
            if ITEM_QUERIES in weights:
                raise ConfigurationError(
                    f"`task_weights` has {ITEM_QUERIES!r}, which needs `corpus: stream`; set that, or leave it out."
                )
            in_histories = {}
        # They are in the same rows, so a lower weight is fewer of its targets.
        shares = {name: weight / max(in_histories.values()) for name, weight in in_histories.items()}
        others = [name for name in weights if name not in (*in_histories, ITEM_QUERIES)]
        self.rows: DatasetDict | CorpusShards
        if self.parts is not None:
            self.rows = prepare_corpus_shards(
                self.parts,
                self.cache,
                *shared,
                shares=shares,
                tasks=others,
                item_queries=ITEM_QUERIES in weights,
                seed=seed,
                engine=self.data.engine,
            )
            return
        self.rows = DatasetDict()
        if shares:
            self.rows[HISTORIES] = build_stream(self.split, *shared, shares=shares, seed=seed)
        if ITEM_QUERIES in weights:
            self.rows[ITEM_QUERIES] = build_item_queries(*shared)
        if others:
            self.rows.update(build_corpus(self.split, *shared, tasks=others, seed=seed))
        logger.info("corpus: %s", {name: len(rows) for name, rows in self.rows.items()})

    def make_model(self) -> GenSARForConditionalGeneration:
        """Load the backbone, or make one by size, and give it identifier tokens and the catalogue."""
        is_stream, reading = self.config.corpus == "stream", self.config.item_reading
        texts = [item_word_keys(self.catalog.items)] if "words" in reading else []
        if "words" in self.config.query_reading:
            texts.append(text_word_keys(list((self.parts or self.split).training_queries())))
        words = Vocabulary.choose(texts)
        model = make_t5(
            GenSARForConditionalGeneration,
            self.config,
            self.tokenizer,
            backbone=self.t5.backbone,
            **identifier_fields(self.vocabulary),
            trained_tasks=list(self.tasks.weights),
            num_items=len(self.catalog),
            item_vector_size=vector_size(self.catalog) if is_stream and "catalog" in reading else 0,
            query_size=self.catalog.embeddings["semantic"].shape[1] if "text" in self.config.query_reading else 0,
            num_words=len(words),
        )
        model.add_identifier_rows(self.vocabulary, codebooks=codebooks_by_block(self.catalog), seed=self.training.seed)
        model.set_words(words)
        model.set_catalog(self.catalog)
        return model

    def make_trainers(
        self, model: GenSARForConditionalGeneration, evaluate_model: EvaluateModel
    ) -> Iterator[tuple[GenerativeTrainer, Mapping[str, object]]]:
        """Make the training of all tasks at once, which draws them by weight."""
        training, weights = self.training, {**self.tasks.weights, HISTORIES: 1.0}
        training.output_dir = str(self.output_dir / self.trainer_folder)
        training.remove_unused_columns = False
        pad, start = self.tokenizer.pad_token_id, model.config.decoder_start_token_id
        plain = StreamCollator(pad, start) if self.config.corpus == "stream" else Seq2SeqCollator(pad)
        reads = {"words", "text"}.intersection(self.config.query_reading)
        collate = QueryReadingCollator(plain, self.processor) if reads else plain
        data: dict[str, Any]
        if isinstance(self.rows, CorpusShards):
            data = {
                "train_dataset": CodedRows(len(self.rows)),
                "sampler": sample_rows(
                    self.rows, training, weights={name: weights[name] for name in self.rows.num_rows}
                ),
                "data_collator": ShardCollator(self.rows, collate),
            }
        else:
            rows, mixture = mix_tasks(
                self.rows,
                {name: weights[name] for name in self.rows},
                seed=data_seed(training),
                group_by_length=True,
                batch_size=training.per_device_train_batch_size * training.world_size,
            )
            data = {"train_dataset": rows, "sampler": mixture, "data_collator": collate}
        trainer = GenerativeTrainer(
            model=self.with_adapters(model), args=training, evaluate_model=evaluate_model, **data
        )
        yield trainer, {"corpus": self.rows, "tokenizer": self.tokenizer}

    def make_retriever(self, model: GenSARForConditionalGeneration) -> ModelRetriever:
        """Make the system that answers with a model, by beam search."""
        return ModelRetriever(
            model,
            self.processor,
            num_beams=self.num_beams,
            candidate_scoring=self.tasks.candidate_scoring,
        )


__all__ = ["GenSARRecipe", "TaskArguments"]
