# SPDX-License-Identifier: Apache-2.0
"""What the GenSR recipe is made of: tokenizer, processor, model and Trainer, each from its settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedModel, TrainingArguments

from seekrec.catalog import Catalog
from seekrec.corpora import MixtureSampler, encode_text
from seekrec.embeddings import SASRecForNextItem, recommender_sizes
from seekrec.errors import ConfigurationError
from seekrec.events import Split
from seekrec.models import GenSRConfig, GenSRForConditionalGeneration, GenSRProcessor
from seekrec.models.gensr.features_gensr import describe_items
from seekrec.models.gensr.prompts_gensr import tokenizer_texts
from seekrec.models.t5_backbone import identifier_fields
from seekrec.training.arguments import GeneratorArguments, parse_weights
from seekrec.training.generator import codebooks_by_block, load_or_train_tokenizer, t5_sizes
from seekrec.training.gensr_arguments import GenSRArguments
from seekrec.training.gensr_data import GenSRCollator, TrainingRequests, negative_sampler
from seekrec.training.negatives import CodedRows, CodeSampler
from seekrec.training.trainer import EvaluateModel, GenerativeTrainer


def make_gensr_processor(
    split: Split, catalog: Catalog, generator: GeneratorArguments, settings: GenSRArguments
) -> GenSRProcessor:
    """Make the processor that writes prompts as training does, with the backbone's tokenizer or one from scratch."""
    texts = describe_items(catalog.items, settings.item_text_fields)
    return GenSRProcessor(
        load_or_train_tokenizer(generator, texts, split, add_wordings=tokenizer_texts, writes_text=False),
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
        generator ([`GeneratorArguments`]): The T5.
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
            f"`tokenizer_vocab_size` than {generator.tokenizer_vocab_size}."
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
    if generator.backbone is not None:
        model = GenSRForConditionalGeneration.from_t5(generator.backbone, **shared)
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


__all__ = ["make_gensr_model", "make_gensr_processor", "make_gensr_trainer", "set_collaborative"]
