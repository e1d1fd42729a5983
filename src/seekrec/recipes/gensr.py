# SPDX-License-Identifier: Apache-2.0
"""What the GenSR recipe is made of: tokenizer, processor, model and Trainer, each from its settings."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora import MixtureSampler, encode_text
from seekrec.embeddings import SASRecForNextItem, recommender_sizes
from seekrec.errors import ConfigurationError
from seekrec.evaluation import rival_systems
from seekrec.evaluation.protocols import RankingProtocol, Scorer
from seekrec.events import Split
from seekrec.models import GenSRConfig, GenSRForConditionalGeneration, GenSRProcessor
from seekrec.models.gensr.features_gensr import describe_items
from seekrec.models.gensr.prompts_gensr import tokenizer_texts
from seekrec.models.t5_backbone import identifier_fields
from seekrec.recipes.arguments import CollaborativeArguments, GeneratorArguments, T5Arguments
from seekrec.recipes.collaborative import prepare_collaborative, prepare_lightgcn
from seekrec.recipes.items import PreparedItems, prepare_plain_items
from seekrec.recipes.t5 import T5Recipe, codebooks_by_block, load_or_train_tokenizer, t5_sizes
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.training.coded_rows import CodedRows, CodeSampler
from seekrec.training.gensr_arguments import GenSRArguments
from seekrec.training.gensr_data import GenSRCollator, TrainingRequests, negative_sampler, training_requests
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer
from seekrec.util.parsing import parse_weights

logger = logging.getLogger(__name__)


def make_gensr_processor(split: Split, catalog: Catalog, t5: T5Arguments, settings: GenSRArguments) -> GenSRProcessor:
    """Make the processor that writes prompts as training does, with the backbone's tokenizer or one from scratch."""
    texts = describe_items(catalog.items, settings.item_text_fields)
    return GenSRProcessor(
        load_or_train_tokenizer(t5, texts, split, add_wordings=tokenizer_texts, writes_text=False),
        catalog,
        wording=settings.wording,
        prompt_views=settings.prompt_views,
        history_in_prompt=settings.history_in_prompt,
        query_as_event=settings.query_as_event,
        scores_candidates=settings.yes_no_weight > 0,
        writes_identifiers=settings.identifier_weight > 0,
        retrieve_by=settings.retrieve_by,
        item_text_fields=settings.item_text_fields,
        max_item_tokens=settings.max_item_tokens,
        max_query_tokens=settings.max_query_tokens,
        max_history=settings.max_history,
    )


def make_gensr_model(
    catalog: Catalog,
    processor: GenSRProcessor,
    collaborative: np.ndarray | SASRecForNextItem,
    t5: T5Arguments,
    generator: GeneratorArguments,
    settings: GenSRArguments,
    *,
    seed: int,
) -> GenSRForConditionalGeneration:
    """Load the backbone, or make one by size, and give it the collaborative table, identifier rows and the catalogue.

    Args:
        catalog (`Catalog`): Items and identifiers.
        processor ([`GenSRProcessor`]): Its tokenizer.
        collaborative (`np.ndarray` or [`SASRecForNextItem`]): The frozen table, float32 of shape `(num_items, any)`,
            or the recommender whose table it is: then the model reads the recommender's states, too.
        t5 ([`T5Arguments`]): Backbone or tokenizer.
        generator ([`GeneratorArguments`]): Sizes without a backbone, and the loss of codes.
        settings ([`GenSRArguments`]): The views, prompts and losses.
        seed (`int`): Of the identifier rows.

    Raises:
        ConfigurationError: If Yes and No are not two tokens.
    """
    tokenizer = processor.tokenizer
    yes, no = (tokens[0] for tokens in encode_text(tokenizer, ["Yes", "No"], as_written=True))
    if yes == no:
        raise ConfigurationError(
            "Yes and No begin with the same token of this tokenizer; use another backbone, or a larger "
            f"`tokenizer_vocab_size` than {t5.tokenizer_vocab_size}."
        )
    shared: dict[str, Any] = {
        name: getattr(settings, name)
        for name in (
            "train_collaborative_table",
            "view_num_heads",
            "view_dropout_rate",
            "view_positions",
            "prompt_views",
            "soft_filter",
            "agreement_in_prompt",
            "history_in_prompt",
            "query_as_event",
            "shared_prompt",
            "yes_no_loss",
            "yes_no_weight",
            "identifier_weight",
            "retrieve_by",
            "contrast_weight",
            "contrast_temperature",
            "wording",
            "item_text_fields",
            "max_item_tokens",
            "max_query_tokens",
            "max_history",
        )
    }
    if isinstance(collaborative, SASRecForNextItem):
        shared["recommender"] = recommender_sizes(collaborative)
        size = collaborative.config.hidden_size
    else:
        size = collaborative.shape[1]
    shared |= {
        "collaborative_size": size,
        "loss_norm": generator.loss_norm,
        # Where nothing is written the catalogue must still be the one the model was trained with, and transformers
        # wants a token that is there.
        "first_identifier_token_id": 0,
        **identifier_fields(processor.vocabulary if processor.writes_identifiers else catalog),
        "yes_token_id": yes,
        "no_token_id": no,
    }
    model: GenSRForConditionalGeneration
    if t5.backbone is not None:
        model = GenSRForConditionalGeneration.from_t5(t5.backbone, **shared)
    else:
        model = GenSRForConditionalGeneration(GenSRConfig(**t5_sizes(generator, tokenizer), **shared))
    set_collaborative(model, collaborative)
    if processor.writes_identifiers:
        has_books = generator.start_from_codebooks and catalog.identifier_model is not None
        codebooks = codebooks_by_block(catalog) if has_books else None
        model.add_identifier_rows(processor.vocabulary, codebooks=codebooks, seed=seed)
    model.set_catalog(catalog)
    return model


def set_collaborative(model: GenSRForConditionalGeneration, collaborative: np.ndarray | SASRecForNextItem) -> None:
    """Give a model the vectors of its collaborative view: a table, or a recommender with its table and layers."""
    if isinstance(collaborative, SASRecForNextItem):
        model.set_recommender(collaborative)
    else:
        model.set_collaborative_table(collaborative)


def make_gensr_trainer(
    model: PreTrainedModel,
    processor: GenSRProcessor,
    split: Split,
    requests: TrainingRequests,
    settings: GenSRArguments,
    arguments: TrainingArguments,
    *,
    evaluate_model: EvaluateModel | None,
) -> GenerativeTrainer:
    """Put model and requests into a Trainer.

    With `tasks` other than `"joint"` an epoch asks one task alone, as many requests as both have: equal steps.

    Raises:
        ConfigurationError: If `task_weights` names another task.
    """
    seed = arguments.data_seed if arguments.data_seed is not None else arguments.seed
    counts = requests.count()
    if settings.tasks == "joint" and settings.task_weights:
        weights = {behavior: 0.0 for behavior in counts} | parse_weights(settings.task_weights, "task_weights")
        if unknown := sorted(set(weights) - set(counts)):
            raise ConfigurationError(
                f"`task_weights` names {unknown[0]!r}; the tasks are {' and '.join(counts)}, as in "
                "recommendation=1 search=2."
            )
    elif settings.tasks == "joint":
        # By their numbers: no request comes twice before all came once.
        weights = {behavior: float(count) for behavior, count in counts.items()}
    else:
        weights = {behavior: float(behavior == settings.tasks) for behavior in counts}
    arguments.remove_unused_columns = False
    sampler = None
    if settings.yes_no_weight:
        sampler = negative_sampler(split, processor.catalog, requests, settings, seed=seed)
    collate = GenSRCollator(requests, processor, sampler)
    rows = MixtureSampler(
        counts,
        weights,
        epoch_size=len(requests),
        seed=seed,
        lengths=collate.lengths,
        batch_size=arguments.per_device_train_batch_size * arguments.world_size,
    )
    return GenerativeTrainer(
        model=model,
        args=arguments,
        train_dataset=CodedRows(len(requests)),
        data_collator=collate,
        sampler=CodeSampler(rows),
        evaluate_model=evaluate_model,
    )


@dataclass
class GenSRRecipe(T5Recipe[GenSRForConditionalGeneration, GenSRProcessor]):
    """GenSR: prompts with a collaborative and a semantic view, Yes or No of candidates, and identifiers if wished.

    Args:
        collaborative ([`CollaborativeArguments`]): The table of the collaborative view.
        prompts ([`GenSRArguments`]): Prompts, tasks, negatives and losses.
        generator ([`GeneratorArguments`]): The T5.
    """

    collaborative: CollaborativeArguments
    prompts: GenSRArguments
    generator: GeneratorArguments
    name = "GenSR"

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """What the model is trained and asked for."""
        return BEHAVIORS if self.prompts.tasks == "joint" else (self.prompts.tasks,)

    @property
    def selection_protocols(self) -> Sequence[RankingProtocol]:
        """The protocols of validation that choose the checkpoint."""
        return self.prompts.selection_protocols

    @property
    def only_candidates(self) -> Collection[str]:
        """GenSR, where it writes no identifiers: it orders candidates and cannot search all items."""
        return () if self.prompts.identifier_weight or self.prompts.retrieve_by == "answer" else (self.name,)

    def prepare_embeddings(self) -> None:
        """Embed texts, train SASRec and LightGCN, and choose what the collaborative view reads of these."""
        super().prepare_embeddings()
        seed = self.training.seed
        self.lightgcn, self.graph = prepare_lightgcn(
            self.split, self.collaborative, self.cache, hidden_size=self.embedding.sasrec_hidden_size, seed=seed
        )
        self.source = prepare_collaborative(
            self.split,
            self.embeddings.sasrec,
            self.lightgcn,
            self.embedding,
            self.collaborative,
            self.prompts,
            self.cache,
            seed=seed,
        )

    def prepare_items(self) -> PreparedItems:
        """Learn identifiers, if the model writes any."""
        if self.prompts.identifier_weight and self.prompts.identifiers == "dual":
            return self.learn_items()
        return prepare_plain_items(self.split, self.embeddings, atomic=self.prompts.identifier_weight > 0)

    def make_processor(self) -> GenSRProcessor:
        """Make the processor with its tokenizer."""
        return make_gensr_processor(self.split, self.catalog, self.t5, self.prompts)

    def prepare_corpus(self) -> None:
        """Gather what is asked in training."""
        self.requests = training_requests(self.split, self.catalog, self.prompts, seed=self.training.seed)
        logger.info("requests: %s", self.requests.count())

    def make_model(self) -> GenSRForConditionalGeneration:
        """Make the model with its start weights and the collaborative table."""
        return make_gensr_model(
            self.catalog,
            self.processor,
            self.source.training,
            self.t5,
            self.generator,
            self.prompts,
            seed=self.training.seed,
        )

    def make_trainers(
        self, model: GenSRForConditionalGeneration, evaluate_model: EvaluateModel
    ) -> Iterator[tuple[GenerativeTrainer, Mapping[str, object]]]:
        """Make the training of both tasks at once."""
        self.training.output_dir = str(self.output_dir / "trainer")
        trainer = make_gensr_trainer(
            self.with_adapters(model),
            self.processor,
            self.split,
            self.requests,
            self.prompts,
            self.training,
            evaluate_model=evaluate_model,
        )
        yield trainer, {"requests": self.requests, "tokenizer": self.processor.tokenizer}

    def finish(self, model: GenSRForConditionalGeneration) -> None:
        """Merge adapters, and answer from then on with the collaborative vectors of all events."""
        super().finish(model)
        if self.source.answering is not self.source.training:
            set_collaborative(model, self.source.answering)

    def make_baselines(self) -> Mapping[str, Scorer]:
        """Make the baselines, LightGCN among them."""
        return rival_systems(
            self.split, self.catalog, self.items.sasrec, lightgcn=self.lightgcn, user_ids=self.graph.user_ids
        )


__all__ = ["GenSRRecipe", "make_gensr_model", "make_gensr_processor", "make_gensr_trainer", "set_collaborative"]
