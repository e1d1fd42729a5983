# SPDX-License-Identifier: Apache-2.0
"""What beam search and candidate scoring ask of their arguments, and the encoder pass of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import ConfigurationError, RequestError
from seekrec.generation.sessions import Session, open_session, unwrap, vocabulary_size

# "vocab": probability among all tokens, as `generate` has it. "level": among the codes of the level, which is cheaper.
Norm = Literal["vocab", "level"]


@dataclass(frozen=True)
class Prompt:
    """An encoded batch and what the decoder reads before the identifier.

    Args:
        model (`PreTrainedModel`): The model, unwrapped.
        encoder_states (`torch.Tensor`): Of shape `(B, S, d)`.
        attention_mask (`torch.Tensor`, *optional*): Of shape `(B, S)`.
        decoder_prefix (`torch.Tensor`): int64 token ids of shape `(B, P)`.
    """

    model: PreTrainedModel
    encoder_states: Tensor
    attention_mask: Tensor | None
    decoder_prefix: Tensor

    def open(self, requests: Tensor) -> tuple[Session, Tensor]:
        """Start decoding for some requests (int64, rising); returns the session and the states after the prefix."""
        if len(requests) == len(self.encoder_states):
            states, mask, prefix = self.encoder_states, self.attention_mask, self.decoder_prefix
        else:
            states, prefix = self.encoder_states[requests], self.decoder_prefix[requests]
            mask = None if self.attention_mask is None else self.attention_mask[requests]
        session = open_session(self.model, states, mask)
        return session, session.start(prefix)


def check_prompt(
    model: PreTrainedModel,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    decoder_prefix: Tensor,
    encoder_outputs: BaseModelOutput | None,
) -> tuple[PreTrainedModel, int]:
    """Check the arguments that describe the batch.

    Returns:
        `tuple`: The model, unwrapped, and the number of requests.

    Raises:
        RequestError: If shapes contradict each other, or neither or both of `input_ids` and `encoder_outputs` are
            given.
        ConfigurationError: If the model cannot be used, see [`sessions.unwrap`].
    """
    base = unwrap(model)
    if input_ids is not None and encoder_outputs is None:
        name, source = "input_ids", input_ids
    elif encoder_outputs is not None and input_ids is None:
        name, source = "encoder_outputs", encoder_outputs[0]
    else:
        raise RequestError("Pass either `input_ids` or `encoder_outputs`, not both and not neither.")
    if input_ids is not None and input_ids.ndim != 2:
        raise RequestError(f"`input_ids` has shape {tuple(input_ids.shape)}; pass (batch, length).")
    if attention_mask is not None and attention_mask.shape != source.shape[:2]:
        raise RequestError(
            f"`attention_mask` has shape {tuple(attention_mask.shape)}, `{name}` {tuple(source.shape)}; batch and "
            "length must agree."
        )
    if decoder_prefix.ndim != 2 or decoder_prefix.shape[1] == 0 or len(decoder_prefix) != len(source):
        raise RequestError(
            f"`decoder_prefix` has shape {tuple(decoder_prefix.shape)} for {len(source)} requests; pass (batch, "
            "length) with at least the decoder's start token."
        )
    return base, len(source)


def encode(
    model: PreTrainedModel,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    decoder_prefix: Tensor,
    encoder_outputs: BaseModelOutput | None,
    requests: Tensor,
) -> Prompt:
    """Run the encoder for some requests.

    Args:
        model (`PreTrainedModel`): From [`check_prompt`], which has checked the others too.
        input_ids (`torch.Tensor`, *optional*): int64 of shape `(B, S)`.
        attention_mask (`torch.Tensor`, *optional*): Of shape `(B, S)`.
        decoder_prefix (`torch.Tensor`): int64 of shape `(B, P)`.
        encoder_outputs (`BaseModelOutput`, *optional*): Output of the encoder in place of `input_ids`.
        requests (`torch.Tensor`): int64, rising: the requests to encode.

    Returns:
        `Prompt`: With one row for each of `requests`.
    """
    mask = None if attention_mask is None else attention_mask[requests.to(attention_mask.device)]
    prefix = decoder_prefix[requests.to(decoder_prefix.device)]
    if encoder_outputs is not None:
        states = encoder_outputs[0]
        states = states[requests.to(states.device)]
    else:
        chosen = None if input_ids is None else input_ids[requests.to(input_ids.device)]
        states = model.get_encoder()(input_ids=chosen, attention_mask=mask)[0]
    return Prompt(model, states, mask, prefix.to(states.device))


def check_norm(norm: str) -> None:
    """Refuse an unknown normalisation.

    Raises:
        ConfigurationError: If `norm` is not one of `Norm`.
    """
    if norm not in get_args(Norm):
        raise ConfigurationError(f"`norm` is {norm!r}; use one of {', '.join(get_args(Norm))}.")


def check_level_offsets(
    level_offsets: np.ndarray | Tensor | Sequence[int],
    codebook_sizes: Sequence[int],
    model: PreTrainedModel,
) -> tuple[int, ...]:
    """Check the token blocks of the levels against the model's vocabulary.

    Args:
        level_offsets (`np.ndarray`): Integers of shape `(L,)`: the token id of code 0 of each level.
        codebook_sizes (`Sequence[int]`): Codes per level.
        model (`PreTrainedModel`): The model.

    Returns:
        `tuple[int, ...]`: The offsets.

    Raises:
        ConfigurationError: If their number is not that of the levels, or a block ends beyond the vocabulary.
    """
    offsets = tuple(int(offset) for offset in level_offsets)
    if len(offsets) != len(codebook_sizes):
        raise ConfigurationError(
            f"`level_offsets` has {len(offsets)} entries for identifiers of {len(codebook_sizes)} levels; pass one "
            "for each."
        )
    vocabulary = vocabulary_size(model.get_output_embeddings())
    for level, (offset, size) in enumerate(zip(offsets, codebook_sizes, strict=True)):
        if offset < 0 or offset + size > vocabulary:
            raise ConfigurationError(
                f"The tokens of level {level} are {offset}..{offset + size - 1} (`level_offsets`), the model's "
                f"vocabulary has {vocabulary} tokens; resize the model's embeddings or correct the offsets."
            )
    return offsets


def to_log_probs(session: Session, states: Tensor, partition: Tensor | None, first: int, size: int) -> Tensor:
    """Turn states into log-probabilities of one level's codes.

    Args:
        session (`Session`): Where the states come from.
        states (`torch.Tensor`): Of shape `(R, d)`.
        partition (`torch.Tensor`, *optional*): `session.log_partition` of them for `norm="vocab"`; `None` normalises
            over the level.
        first (`int`): Token id of code 0.
        size (`int`): Codes of the level.

    Returns:
        `torch.Tensor`: float32 of shape `(R, size)`, natural logarithm.
    """
    logits = session.block_logits(states, first, size)
    return torch.log_softmax(logits, -1) if partition is None else logits - partition[:, None]
