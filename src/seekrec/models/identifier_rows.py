# SPDX-License-Identifier: Apache-2.0
"""Making a T5 checkpoint one of ours: its configuration, and rows for identifiers in its token tables."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, T5Config

from seekrec.corpora import IdentifierVocabulary

ConfigT = TypeVar("ConfigT", bound=T5Config)


def config_from_t5(config_class: type[ConfigT], name_or_path: str, settings: dict[str, Any]) -> ConfigT:
    """Read the configuration of a T5 or Flan-T5 checkpoint as one of ours.

    Args:
        config_class (`type`): A subclass of `T5Config`.
        name_or_path (`str`): For example `google/flan-t5-base`.
        settings (`dict`): Fields that are not T5's.

    Returns:
        The configuration.
    """
    plain = T5Config.from_pretrained(name_or_path).to_dict()
    plain.pop("model_type", None)
    # T5 1.1 and Flan-T5 do not scale decoder outputs; the loaded configuration says so by this field alone.
    scales = plain.pop("scale_decoder_outputs", True)
    return config_class(**{**plain, "tie_word_embeddings": bool(scales), **settings})


@torch.no_grad()
def add_identifier_rows(
    model: PreTrainedModel,
    vocabulary: IdentifierVocabulary,
    *,
    codebooks: dict[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """Make room for identifier tokens behind the old vocabulary of a model and give their rows a start.

    Old rows stay bit-equal. A code's row is the mean old row plus its codeword, carried to the model's width by a
    seeded random projection and scaled to the spread of the old rows, so that close codewords start close; without
    codebooks, and for behavior tokens, a seeded normal draw of the same spread takes its place.

    Args:
        model (`PreTrainedModel`): An encoder-decoder whose configuration has the identifier fields.
        vocabulary ([`IdentifierVocabulary`]): Where the tokens stand.
        codebooks (`dict[str, np.ndarray]`, *optional*):
            Codewords of each block (`"M1"`, `"S1"`, ...), float of shape `(codebook_size, any)`.
        seed (`int`): Of the draws.
    """
    table: Any = model.get_input_embeddings()
    old_rows = table.weight.shape[0]
    first, end = vocabulary.first_token_id, vocabulary.end_token_id
    # T5's table is longer than its vocabulary: new tokens start inside it, and it must never shrink.
    rows = max(old_rows, -(-end // 64) * 64)
    if rows != old_rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    table = model.get_input_embeddings()
    weight = table.weight
    known = weight[: min(first, old_rows)].float()
    mean, spread = known.mean(0), known.std()
    generator = torch.Generator().manual_seed(seed)
    width = weight.shape[1]
    new = torch.randn(rows - first, width, generator=generator).to(weight.device) * spread + mean
    for block, position in zip(vocabulary.blocks, range(3, end - first, vocabulary.codebook_size), strict=True):
        if codebooks is None or block not in codebooks:
            continue
        words = torch.as_tensor(codebooks[block], dtype=torch.float32)
        words = words - words.mean(0)
        projection = torch.randn(words.shape[1], width, generator=generator)
        carried = words @ projection
        carried = carried / carried.std().clamp_min(1e-12) * spread.cpu()
        new[position : position + vocabulary.codebook_size] = carried.to(weight.device) + mean
    weight[first:] = new.to(weight.dtype)
    head: Any = model.get_output_embeddings()
    if head.weight.data_ptr() != weight.data_ptr():
        head.weight[first:] = weight[first:]
    config: Any = model.config
    config.first_identifier_token_id = vocabulary.first_token_id
    config.num_shared_levels = vocabulary.num_shared_levels
    config.num_specific_levels = vocabulary.num_specific_levels
    config.codebook_size = vocabulary.codebook_size
    config.views = list(vocabulary.views)


__all__ = ["add_identifier_rows", "config_from_t5"]
