# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the recipes of the T5 families: tokenizer, sizes, identifier rows and adapters."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5Config

from seekrec.catalog import Catalog
from seekrec.corpora import set_text_folding, train_tokenizer
from seekrec.errors import ConfigurationError
from seekrec.evaluation import ModelRetriever
from seekrec.models.configuration_t5 import IdentifierT5Config
from seekrec.models.interface import GenerativeModel
from seekrec.recipes.answering import ProcessorT
from seekrec.recipes.arguments import IdentifierArguments, T5Arguments
from seekrec.recipes.items import PreparedItems, prepare_items, prepare_plain_items
from seekrec.recipes.recipe import Recipe
from seekrec.util.files import replace_folder
from seekrec.util.settings import option_names
from seekrec.util.text import TEXT_FOLDING, WORD_FOLDING, fold_text

T5T = TypeVar("T5T", bound=GenerativeModel[Any])


def load_or_train_tokenizer(
    settings: T5Arguments,
    texts: Sequence[str],
    queries: Mapping[str, int],
    *,
    add_wordings: Callable[[Sequence[str]], list[str]],
    writes_text: bool,
) -> PreTrainedTokenizerBase:
    """Load the backbone's tokenizer, or train one on texts and the queries of training.

    It folds case and punctuation of what it reads and, trained here, plurals.

    Args:
        settings ([`T5Arguments`]): Backbone, or pieces of a new tokenizer.
        texts (`Sequence[str]`): Texts of the items.
        queries (`Mapping[str, int]`): Queries of training, and how often each was typed.
        add_wordings (`Callable`): Puts our own wordings, which are not folded, alongside the texts of the items.
        writes_text (`bool`): Whether the model also writes text, and so needs words as people wrote them.

    Returns:
        `PreTrainedTokenizerBase`: Without identifier tokens.
    """
    is_scratch = settings.backbone is None
    folding = WORD_FOLDING if is_scratch else TEXT_FOLDING
    tokenizer: PreTrainedTokenizerBase
    if is_scratch:
        folded = {text: fold_text(text, folding) for text in (*texts, *queries)}
        wordings = add_wordings([folded[text] for text in texts])
        typed = (repeat(folded[query], count) for query, count in queries.items())
        written: Iterable[str] = ()
        if writes_text:
            counted = chain(((text, 1) for text in texts), queries.items())
            written = chain.from_iterable(repeat(text, count) for text, count in counted if folded[text] != text)
        tokenizer = train_tokenizer(
            chain(wordings, chain.from_iterable(typed), written), settings.tokenizer_vocab_size
        )
    else:
        tokenizer = AutoTokenizer.from_pretrained(settings.backbone)
    set_text_folding(tokenizer, folding)
    return tokenizer


def scratch_fields(config: T5Config, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the fields of a `T5Config` that follow from its sizes and the tokenizer, for a model from scratch."""
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "d_kv": config.d_model // config.num_heads,
        "initializer_factor": 0.1,
        # T5 multiplies decoder states by d_model^-0.5 unless this is False; from scratch that slows learning.
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }


def make_t5(
    model_class: type[T5T],
    config: IdentifierT5Config,
    tokenizer: PreTrainedTokenizerBase,
    *,
    backbone: str | None,
    **from_data: object,
) -> T5T:
    """Load a backbone, or make a T5 by the sizes of a configuration, with the options of that configuration.

    Args:
        model_class (`type`): Class of the model.
        config ([`IdentifierT5Config`]): The options that were chosen.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer, which says how large the vocabulary is.
        backbone (`str`, *optional*): Name or path of a T5 checkpoint; from scratch if not given.
        from_data (`object`): Fields of the configuration that data decide.
    """
    fields: dict[str, Any] = {name: getattr(config, name) for name in option_names(type(config))} | from_data
    if backbone is None:
        return model_class(type(config)(**fields, **scratch_fields(config, tokenizer)))
    own = {name: value for name, value in fields.items() if name not in config.fields_from_base}
    return model_class.from_t5(backbone, **own)


def codebooks_by_block(catalog: Catalog) -> dict[str, np.ndarray] | None:
    """Return the codewords of each block of identifier tokens (`M1`, `S1`, `R1`, ...); None if none were learned.

    Returns:
        `dict[str, np.ndarray]`: Arrays of shape `(codes, size)`.
    """
    if catalog.identifier_model is None:
        return None
    books = catalog.identifier_model.codebooks()
    letters = {"semantic": "S", "collaborative": "R"}
    named = {f"M{level + 1}": words for level, words in enumerate(books.shared)}
    for view, levels in books.specific.items():
        named.update({f"{letters[view]}{level + 1}": words for level, words in enumerate(levels)})
    return named


def add_lora(model: GenerativeModel[Any], rank: int) -> nn.Module:
    """Wrap a model with LoRA adapters on the generator's queries and values.

    The rows of the identifier tokens are trained together with them, if the model has any, and so is what the family
    adds to T5.
    """
    from peft import LoraConfig, get_peft_model

    rows = None
    # A model that only says Yes and No has no identifier rows.
    if model.config.writes_identifiers:
        new = list(range(model.vocabulary.first_token_id, model.vocabulary.end_token_id))
        # What is tied to the token embeddings follows them.
        rows = {name: new for name in (("shared", "lm_head") if model.config.untied_head else ("shared",))}
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=rank,
        lora_alpha=32,
        target_modules=["q", "v"],
        modules_to_save=model.modules_outside_t5 or None,
        trainable_token_indices=rows,
    )
    return get_peft_model(model, config)


def merge_lora(model: nn.Module, folder: Path) -> None:
    """Save the adapters of a model that has some, and merge them into it.

    Args:
        model (`nn.Module`): Model with or without adapters.
        folder (`Path`): Folder of the adapters; those of an earlier training do not stay there.
    """
    if not hasattr(model, "peft_config"):
        shutil.rmtree(folder, ignore_errors=True)
        return
    adapted: Any = model
    with replace_folder(folder) as new:
        adapted.save_pretrained(new, save_embedding_layers=False)
    adapted.merge_and_unload()


@dataclass
class T5Recipe(Recipe[T5T, ProcessorT]):
    """Shared parts of the recipes of GenSAR and GenSR: learned identifiers, and adapters.

    Args:
        identifiers ([`IdentifierArguments`]): Identifiers of the items.
        t5 ([`T5Arguments`]): Backbone, tokenizer, adapters.
    """

    identifiers: IdentifierArguments
    t5: T5Arguments

    @property
    def num_beams(self) -> int:
        """Beam width in evaluation."""
        return self.t5.num_beams

    def refuse_ignored(self, given: Collection[str]) -> None:
        """Refuse the sizes of a T5 from scratch alongside a backbone."""
        ignored = sorted({"tokenizer_vocab_size", *IdentifierT5Config.fields_from_base}.intersection(given))
        if self.t5.backbone is not None and ignored:
            raise ConfigurationError(
                f"`{ignored[0]}` is given together with `backbone: {self.t5.backbone}`, which has its own; leave out "
                "one of the two."
            )

    def learn_items(self, *, published: str | None = None) -> PreparedItems:
        """Learn the identifiers of the items, or number the items.

        Args:
            published (`str`, *optional*): Folder of published identifiers to compare with.
        """
        if self.identifiers.identifier_learner == "atomic":
            return prepare_plain_items(self.split, self.embeddings, atomic=True, has_events=self.has_events)
        return prepare_items(
            self.split,
            self.embeddings,
            self.identifiers,
            self.cache,
            has_events=self.has_events,
            published=published,
            seed=self.training.seed,
        )

    def with_adapters(self, model: T5T) -> nn.Module:
        """Wrap the model with adapters, where the settings ask for them."""
        self.adapted: nn.Module = add_lora(model, self.t5.lora_rank) if self.t5.lora_rank else model
        return self.adapted

    def finish(self, model: T5T) -> None:
        """Merge the adapters into the model."""
        merge_lora(self.adapted, self.output_dir / "adapter")

    def make_retriever(self, model: T5T) -> ModelRetriever:
        """Make the system that answers with a model, by beam search."""
        return ModelRetriever(model, self.processor, num_beams=self.num_beams)


__all__ = [
    "T5Recipe",
    "add_lora",
    "codebooks_by_block",
    "load_or_train_tokenizer",
    "make_t5",
    "merge_lora",
    "scratch_fields",
]
