# SPDX-License-Identifier: Apache-2.0
"""A T5 that can start from a checkpoint of T5, T5 1.1, Flan-T5 or mT5, and has rows for identifiers in its tables.

T5 1.1, Flan-T5 and mT5 have an output layer of their own (`lm_head`), T5 reads its answers off the token embeddings.
transformers ties the head whenever it can, so the configuration records in `untied_head` what a checkpoint has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import MT5Config, PreTrainedConfig, T5Config, T5ForConditionalGeneration

from seekrec.catalog import Catalog
from seekrec.corpora import IdentifierVocabulary
from seekrec.errors import ConfigurationError
from seekrec.models.configuration_t5 import IdentifierT5Config

# What has the weights of a T5, layer by layer, by the `model_type` of its configuration.
_BACKBONES: dict[str, type[T5Config] | type[MT5Config]] = {"t5": T5Config, "mt5": MT5Config}


class T5Backbone(T5ForConditionalGeneration):
    """Identical to `T5ForConditionalGeneration` except: it can start from a checkpoint, and takes identifier rows.

    Args:
        config ([`IdentifierT5Config`]): Sizes of T5 and of the identifiers.
    """

    config: IdentifierT5Config
    config_class = IdentifierT5Config

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return which weights are tied: the token embeddings of both stacks, and those of the head unless untied.

        `config.tie_word_embeddings` has no say: it is all or nothing, and PEFT sets it off after merging.
        """
        tied: dict[str, str] = dict(self._tied_weights_keys)
        if self.config.untied_head:
            tied.pop("lm_head.weight")
        return tied

    @property
    def modules_outside_t5(self) -> list[str]:
        """Names of the modules that no T5 checkpoint has: trained whole alongside the adapters of the generator."""
        return []

    @classmethod
    def from_t5(cls, name_or_path: str, **settings: object) -> Self:
        """Load the weights of a T5, T5 1.1, Flan-T5 or mT5 checkpoint; `add_identifier_rows` comes next.

        Args:
            name_or_path (`str`): For example `google-t5/t5-small` or `google/flan-t5-base`.
            settings: Fields of the configuration that are not T5's.

        Returns:
            The model, without a catalogue.

        Raises:
            ConfigurationError: If the checkpoint is of another kind, or lacks some of T5's weights.
        """
        fields: dict[str, Any] = {**_read_config(name_or_path), **settings}
        config = cls.config_class(**fields)
        loaded: Any = super().from_pretrained(name_or_path, config=config, output_loading_info=True)
        model, found = loaded
        with torch.device("meta"):
            needed = T5ForConditionalGeneration(config).state_dict()
        missing = sorted(set(found["missing_keys"]) & set(needed))
        if missing:
            raise ConfigurationError(
                f"{name_or_path} lacks {len(missing)} weights of a T5, such as {missing[0]!r}, which would be random. "
                "Pass a checkpoint with an encoder and a decoder, such as 'google/flan-t5-base'."
            )
        model.config.untied_head = model.lm_head.weight is not model.shared.weight
        return model

    @torch.no_grad()
    def add_identifier_rows(
        self, vocabulary: IdentifierVocabulary, *, codebooks: Mapping[str, np.ndarray] | None = None, seed: int = 0
    ) -> None:
        """Make room for identifier tokens behind the old vocabulary and initialize their rows.

        Old rows stay bit-equal, in the token table and in an untied head. A code's row is the mean old row plus its
        codeword, carried to the model's width by a seeded random projection and scaled to the spread of the old rows,
        so that close codewords start close; without codebooks, and for behavior tokens, a seeded normal draw of the
        same spread takes its place. An untied head is given rows in the same way, from its own.

        Args:
            vocabulary ([`IdentifierVocabulary`]): Where the tokens are.
            codebooks (`dict[str, np.ndarray]`, *optional*):
                Codewords of each block (`"M1"`, `"S1"`, ...), floats of shape `(codebook_size, any)`.
            seed (`int`): Seed of the draws.
        """
        old_rows = self.shared.weight.shape[0]
        first = vocabulary.first_token_id
        # T5's table is longer than its vocabulary: new tokens start inside it, and it must never shrink.
        rows = max(old_rows, -(-vocabulary.end_token_id // 64) * 64)
        if rows != old_rows:
            self.resize_token_embeddings(rows, mean_resizing=False)
        tables = [self.shared.weight, self.lm_head.weight] if self.config.untied_head else [self.shared.weight]
        for table in tables:
            known = table[: min(first, old_rows)].float()
            table[first:] = _start_rows(known, rows - first, vocabulary, codebooks or {}, seed).to(table.dtype)
        for module in self.modules():
            # Both stacks have a copy of the configuration.
            if isinstance(config := getattr(module, "config", None), T5Config):
                for name, value in identifier_fields(vocabulary).items():
                    setattr(config, name, value)


def identifier_fields(source: IdentifierVocabulary | Catalog) -> dict[str, object]:
    """Return the fields of a configuration that tell how long identifiers are and, if known, where they begin."""
    names = ("num_shared_levels", "num_specific_levels", "codebook_size")
    fields: dict[str, object] = {name: getattr(source, name) for name in names}
    fields["views"] = list(source.views)
    if isinstance(source, IdentifierVocabulary):
        fields["first_identifier_token_id"] = source.first_token_id
    return fields


def _read_config(name_or_path: str) -> dict[str, object]:
    """Read the configuration of a checkpoint as fields of a `T5Config`."""
    model_type = PreTrainedConfig.get_config_dict(name_or_path)[0].get("model_type")
    if model_type not in _BACKBONES:
        raise ConfigurationError(
            f"{name_or_path} has `model_type` {model_type!r}; a backbone is a T5, T5 1.1, Flan-T5 or mT5 "
            f"({' or '.join(map(repr, _BACKBONES))}), such as 'google/flan-t5-base'."
        )
    plain: dict[str, object] = _BACKBONES[model_type].from_pretrained(name_or_path).to_dict()
    plain.pop("model_type")
    # T5 multiplies decoder states by d_model^-0.5; T5 1.1 and Flan-T5, whose configuration says so by this field, and
    # mT5 do not. `T5Config` takes it by another name.
    scales = plain.pop("scale_decoder_outputs", model_type == "t5")
    return {**plain, "tie_word_embeddings": bool(scales)}


def _start_rows(
    known: Tensor, count: int, vocabulary: IdentifierVocabulary, codebooks: Mapping[str, np.ndarray], seed: int
) -> Tensor:
    """Draw rows for identifier tokens, and for the unused ones behind them, like those known: `(count, width)`."""
    mean, spread = known.mean(0), known.std()
    generator = torch.Generator().manual_seed(seed)
    width = known.shape[1]
    new = torch.randn(count, width, generator=generator).to(known.device) * spread + mean
    for block, position in zip(
        vocabulary.blocks, range(3, vocabulary.num_tokens, vocabulary.codebook_size), strict=True
    ):
        if block not in codebooks:
            continue
        words = torch.as_tensor(codebooks[block], dtype=torch.float32)
        words = words - words.mean(0)
        projection = torch.randn(words.shape[1], width, generator=generator)
        carried = words @ projection
        carried = carried / carried.std().clamp_min(1e-12) * spread.cpu()
        new[position : position + vocabulary.codebook_size] = carried.to(known.device) + mean
    return new


__all__ = ["T5Backbone", "identifier_fields"]
