# SPDX-License-Identifier: Apache-2.0
"""The GenSR recipe: tokenizer, processor, model and Trainer, each from its settings."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from torch import nn
from transformers import TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora import encode_text
from seekrec.embeddings import LightGCNModel, SASRecForNextItem, recommender_sizes
from seekrec.errors import ConfigurationError
from seekrec.evaluation import baseline_systems
from seekrec.evaluation.baselines import LightGCNScorer
from seekrec.evaluation.protocols import RankingProtocol, Scorer
from seekrec.evaluation.tuning import Tuning
from seekrec.events import Split
from seekrec.events.training_negatives import NegativeSampler
from seekrec.models import GenSRConfig, GenSRForConditionalGeneration, GenSRProcessor
from seekrec.models.gensr.processing_gensr import describe_items, tokenizer_texts
from seekrec.models.t5_backbone import identifier_fields
from seekrec.recipes.arguments import CollaborativeArguments, T5Arguments
from seekrec.recipes.collaborative import best_epochs, prepare_collaborative, prepare_lightgcn
from seekrec.recipes.items import PreparedItems
from seekrec.recipes.partitioned import prepare_request_shards
from seekrec.recipes.t5 import T5Recipe, codebooks_by_block, load_or_train_tokenizer, make_t5
from seekrec.recipes.views import ALONE
from seekrec.schema import BEHAVIORS, Behavior
from seekrec.training.coded_rows import CodedRows, data_seed, sample_rows
from seekrec.training.gensr_batches import EncodedRequests, GenSRCollator, RequestSource
from seekrec.training.gensr_data import RequestArguments, TrainingRequests, negative_sampler, training_requests
from seekrec.training.gensr_shards import RequestShards
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer

logger = logging.getLogger(__name__)


def make_gensr_processor(
    queries: Mapping[str, int], catalog: Catalog, t5: T5Arguments, config: GenSRConfig
) -> GenSRProcessor:
    """Make the processor that writes prompts as training does, with the backbone's tokenizer or one from scratch."""
    texts = describe_items(catalog.items, config.item_text_fields)
    tokenizer = load_or_train_tokenizer(t5, texts, queries, add_wordings=tokenizer_texts, writes_text=False)
    return GenSRProcessor.from_config(config, tokenizer, catalog)


def make_gensr_model(
    catalog: Catalog,
    processor: GenSRProcessor,
    collaborative: np.ndarray | SASRecForNextItem,
    t5: T5Arguments,
    config: GenSRConfig,
    *,
    seed: int,
) -> GenSRForConditionalGeneration:
    """Load the backbone, or make one by size, and give it the collaborative table, identifier rows and the catalogue.

    Args:
        catalog (`Catalog`): Items and identifiers.
        processor ([`GenSRProcessor`]): The processor, which has the tokenizer.
        collaborative (`np.ndarray` or [`SASRecForNextItem`]): The frozen table, float32 of shape `(num_items, any)`,
            or the recommender whose table it is: then the model reads the recommender's states, too.
        t5 ([`T5Arguments`]): Backbone or tokenizer.
        config ([`GenSRConfig`]): The model's settings; what the data decide is filled in here.
        seed (`int`): Seed of the identifier rows.

    Raises:
        ConfigurationError: If Yes and No are not two tokens.
    """
    tokenizer = processor.tokenizer
    yes, no = (tokens[0] for tokens in encode_text(tokenizer, ["Yes", "No"], as_written=True))
    if yes == no:
        raise ConfigurationError(
            "Yes and No begin with the same token in this tokenizer; use another backbone, or a larger "
            f"`tokenizer_vocab_size` than {t5.tokenizer_vocab_size}."
        )
    recommender = None
    if isinstance(collaborative, SASRecForNextItem):
        recommender, size = recommender_sizes(collaborative), collaborative.config.hidden_size
    else:
        size = collaborative.shape[1]
    identifiers = identifier_fields(processor.vocabulary if config.writes_identifiers else catalog)
    # Where nothing is written the catalogue must still be the one the model was trained with, and transformers wants a
    # token that is there.
    identifiers.setdefault("first_identifier_token_id", 0)
    model = make_t5(
        GenSRForConditionalGeneration,
        config,
        tokenizer,
        backbone=t5.backbone,
        wording=config.wording,
        recommender=recommender,
        collaborative_size=size,
        yes_token_id=yes,
        no_token_id=no,
        **identifiers,
    )
    set_collaborative(model, collaborative)
    if config.writes_identifiers:
        model.add_identifier_rows(processor.vocabulary, codebooks=codebooks_by_block(catalog), seed=seed)
    model.set_catalog(catalog)
    return model


def set_collaborative(model: GenSRForConditionalGeneration, collaborative: np.ndarray | SASRecForNextItem) -> None:
    """Set the source of a model's collaborative view: a table, or a recommender with its table and layers."""
    if isinstance(collaborative, SASRecForNextItem):
        model.set_recommender(collaborative)
    else:
        model.set_collaborative_table(collaborative)


def make_gensr_trainer(
    model: nn.Module,
    processor: GenSRProcessor,
    split: Split,
    requests: TrainingRequests | RequestShards,
    settings: RequestArguments,
    arguments: TrainingArguments,
    *,
    evaluate_model: EvaluateModel | None,
) -> GenerativeTrainer:
    """Put model and requests into a Trainer.

    Where `task_weights` names one task an epoch asks that one alone, as many requests as both have: equal steps.
    """
    seed = data_seed(arguments)
    arguments.remove_unused_columns = False
    negatives: NegativeSampler | None = None
    source: RequestSource
    rows: RequestShards | Mapping[str, int]
    if isinstance(requests, RequestShards):
        source = rows = requests
        counts, lengths = requests.num_rows, None
        if processor.config.scores_candidates:
            negatives = requests.sampler(settings, len(processor.catalog), seed=seed)
    else:
        if processor.config.scores_candidates:
            negatives = negative_sampler(split, processor.catalog, requests, settings, seed=seed)
        source = EncodedRequests(requests, processor)
        rows = counts = requests.count()
        lengths = source.lengths
    # By their numbers, if not by weights: no request comes twice before all came once.
    weights = {name: settings.weights.get(name, 0.0) for name in counts} if settings.weights else None
    sampler = sample_rows(rows, arguments, lengths=lengths, weights=weights, epoch_size=len(requests))
    return GenerativeTrainer(
        model=model,
        args=arguments,
        train_dataset=CodedRows(len(requests)),
        data_collator=GenSRCollator(source, processor, negatives),
        sampler=sampler,
        evaluate_model=evaluate_model,
    )


@dataclass
class GenSRRecipe(T5Recipe[GenSRForConditionalGeneration, GenSRProcessor]):
    """GenSR: prompts with a collaborative and a semantic view, Yes or No of candidates, and identifiers if wished.

    Args:
        collaborative ([`CollaborativeArguments`]): The table of the collaborative view.
        config ([`GenSRConfig`]): The model.
        asked ([`RequestArguments`]): Its training requests.
    """

    collaborative: CollaborativeArguments
    config: GenSRConfig
    asked: RequestArguments
    name = "GenSR"

    def __post_init__(self) -> None:
        super().__post_init__()
        # A model from scratch knows no sentences.
        if self.t5.backbone is None:
            self.config.wording = "short"
        else:
            self.config.wording = "compact" if self.config.shared_prompt else "sentence"

    @property
    def behaviors(self) -> tuple[Behavior, ...]:
        """Behaviors that the model is trained and evaluated on."""
        return tuple(behavior for behavior in BEHAVIORS if behavior in self.asked.weights) or BEHAVIORS

    @property
    def selection_protocols(self) -> Sequence[RankingProtocol]:
        """The protocols of validation that choose the checkpoint: those of the table for what is trained."""
        # Views are weighed when the model has learned.
        searches = self.config.writes_identifiers and self.config.retrieve_by != "views"
        full: list[RankingProtocol] = ["full"] if searches else []
        if not self.config.scores_candidates:
            return full
        return [*self.evaluation.candidate_protocols, *full] or ["uniform"]

    @property
    def only_candidates(self) -> Collection[str]:
        """GenSR where it retrieves nothing, and without the views that find items: these order candidates alone."""
        alone = f"{self.name}{ALONE}"
        if self.config.retrieve_by == "views":
            return (alone,)
        searches = self.config.writes_identifiers or self.config.retrieve_by == "answer"
        return () if searches else (self.name, alone)

    def prepare_data(self) -> None:
        """Read the log and split it.

        Raises:
            ConfigurationError: If LightGCN is to be trained on a log that is larger than memory.
        """
        super().prepare_data()
        if self.parts is not None and self.collaborative.collaborative_source == "lightgcn":
            raise ConfigurationError(
                f"{self.parts.split.log.name!r} is trained from partitions, but LightGCN (`collaborative_source: "
                "lightgcn`) needs all users and interactions in memory; pass --collaborative_source sasrec."
            )

    def prepare_embeddings(self) -> None:
        """Embed texts, train SASRec and LightGCN, and choose what the collaborative view reads of these."""
        super().prepare_embeddings()
        seed = self.training.seed
        self.lightgcn: LightGCNModel | None = None
        if self.parts is None:
            self.lightgcn, self.graph = prepare_lightgcn(
                self.split, self.collaborative, self.cache, hidden_size=self.embedding.sasrec_hidden_size, seed=seed
            )
        self.source = prepare_collaborative(
            self.split,
            self.embeddings.sasrec,
            self.lightgcn,
            self.embedding,
            self.collaborative,
            self.cache,
            seed=seed,
            reads_states=self.config.filtered_history == "recommender",
            num_unseen_events=self.asked.num_unseen_events,
            whole=None if self.parts is None else self.parts.split,
        )

    def prepare_items(self) -> PreparedItems:
        """Learn identifiers, if the model writes any."""
        return self.learn_items() if self.config.writes_identifiers else super().prepare_items()

    def make_processor(self) -> GenSRProcessor:
        """Make the processor with its tokenizer."""
        return make_gensr_processor((self.parts or self.split).training_queries(), self.catalog, self.t5, self.config)

    def prepare_corpus(self) -> None:
        """Collect the training requests."""
        self.requests: TrainingRequests | RequestShards
        if self.parts is not None:
            self.requests = prepare_request_shards(
                self.parts,
                self.cache,
                self.processor,
                self.asked,
                seed=self.training.seed,
                engine=self.data.engine,
            )
            return
        self.requests = training_requests(
            self.split, self.catalog, self.asked, max_history=self.config.max_history, seed=self.training.seed
        )
        logger.info("requests: %s", self.requests.count())

    def make_model(self) -> GenSRForConditionalGeneration:
        """Make the model with its start weights and the collaborative table."""
        return make_gensr_model(
            self.catalog,
            self.processor,
            self.source.training,
            self.t5,
            self.config,
            seed=self.training.seed,
        )

    def make_trainers(
        self, model: GenSRForConditionalGeneration, evaluate_model: EvaluateModel
    ) -> Iterator[tuple[GenerativeTrainer, Mapping[str, object]]]:
        """Make the training of both tasks at once."""
        self.training.output_dir = str(self.output_dir / self.trainer_folder)
        trainer = make_gensr_trainer(
            self.with_adapters(model),
            self.processor,
            self.split,
            self.requests,
            self.asked,
            self.training,
            evaluate_model=evaluate_model,
        )
        learnt_from = {"requests": self.requests, "tokenizer": self.processor.tokenizer}
        if "full" in self.selection_protocols:
            learnt_from["retrieve_by"] = self.config.retrieve_by  # validation depends on it
        yield trainer, learnt_from

    def finish(self, model: GenSRForConditionalGeneration) -> None:
        """Merge adapters, and answer from then on with the collaborative vectors of all events."""
        super().finish(model)
        if self.source.answering is not self.source.training:
            set_collaborative(model, self.source.answering)

    def take_epochs(self, first: Self) -> None:
        """Train for the epochs after which validation was best in a first training, LightGCN, too."""
        super().take_epochs(first)
        if first.lightgcn is not None:
            epochs = best_epochs(first.lightgcn)
            self.collaborative = replace(first.collaborative, lightgcn_num_epochs=epochs)

    def recommenders(self) -> dict[str, Scorer]:
        """Return the recommenders among the baselines, LightGCN where it was trained."""
        found = super().recommenders()
        if self.lightgcn is not None:
            found["LightGCN"] = LightGCNScorer(self.lightgcn, self.catalog.id_map, self.graph.user_ids)
        return found

    def make_baselines(self, tuning: Tuning) -> Mapping[str, Scorer]:
        """Make the baselines, LightGCN among them where it was trained."""
        if self.lightgcn is None:
            return super().make_baselines(tuning)
        return baseline_systems(
            tuning, self.catalog, self.items.sasrec, lightgcn=self.lightgcn, user_ids=self.graph.user_ids
        )


__all__ = ["GenSRRecipe", "make_gensr_model", "make_gensr_processor", "make_gensr_trainer", "set_collaborative"]
