# SPDX-License-Identifier: Apache-2.0
"""The arguments of beam search and candidate scoring: their checks, requests by group, the encoder pass."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, SupportsIndex, cast, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import ConfigurationError, RequestError
from seekrec.generation.masks import TrieMask
from seekrec.generation.sessions import Session, unwrap, vocabulary_size
from seekrec.generation.trie import IdentifierTrie
from seekrec.schema import shown

# "vocab": probability among all tokens, as `generate` has it. "level": among the codes of the level, which is cheaper.
Norm = Literal["vocab", "level"]


class Prompt(NamedTuple):
    """An encoded batch and what the decoder reads before the identifier.

    Args:
        states (`torch.Tensor`): Output of the encoder, `(B, S, d)`.
        attention_mask (`torch.Tensor`, *optional*): 1 where the input is real, `(B, S)`.
        decoder_prefix (`torch.Tensor`): int64 token ids of shape `(B, P)`.
    """

    states: Tensor
    attention_mask: Tensor | None
    decoder_prefix: Tensor


def check_prompt(
    model: PreTrainedModel,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    decoder_prefix: Tensor,
    encoder_outputs: BaseModelOutput | None,
    norm: str,
) -> tuple[PreTrainedModel, int]:
    """Check the arguments that describe the batch, and the normalisation.

    Returns:
        `tuple`: The model, unwrapped, and the number of requests.

    Raises:
        RequestError: If shapes contradict each other, or neither or both of `input_ids` and `encoder_outputs` are
            given.
        ConfigurationError: If the model cannot be used, see [`sessions.unwrap`], or `norm` is not one of `Norm`.
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
    if norm not in get_args(Norm):
        raise ConfigurationError(f"`norm` is {norm!r}; use one of {', '.join(get_args(Norm))}.")
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
        attention_mask (`torch.Tensor`, *optional*): 1 where the input is real, `(B, S)`.
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
    return Prompt(states, mask, prefix.to(states.device))


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
        states (`torch.Tensor`): States of the decoder, `(R, d)`.
        partition (`torch.Tensor`, *optional*): `session.log_partition` of them for `norm="vocab"`; `None` normalises
            over the level.
        first (`int`): Token id of code 0.
        size (`int`): Codes of the level.

    Returns:
        `torch.Tensor`: float32 of shape `(R, size)`, natural logarithm.
    """
    logits = session.block_logits(states, first, size)
    return torch.log_softmax(logits, -1) if partition is None else logits - partition[:, None]


@dataclass
class Lane:
    """The requests of a batch that share a trie and token blocks.

    `members` are their positions in the batch being decoded; `masks` pairs a mask with positions in `members`.
    """

    trie: IdentifierTrie
    offsets: tuple[int, ...]
    members: Tensor
    masks: list[tuple[TrieMask, Tensor]]

    def take(self, values: Tensor) -> Tensor:
        """Return the rows of the members, of one row for each request being decoded."""
        return values if len(self.members) == len(values) else values[self.members]


def per_request(name: str, value: object, num_requests: int) -> np.ndarray:
    """Return each request its number.

    Args:
        name (`str`): Name of the argument, for the message.
        value (`int` or `Sequence[int]`): A whole number of any type for all requests, or one for each.
        num_requests (`int`): Requests.

    Returns:
        `np.ndarray`: int64 of shape `(num_requests,)`.

    Raises:
        RequestError: If one is not positive, or there is not one for each request.
    """
    plain = value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value
    given: list[object] = list(plain) if isinstance(plain, Sequence) else [plain] * num_requests
    try:
        # Whole numbers of any kind, numpy's too; True is not one.
        whole = [0 if isinstance(one, bool) else operator.index(cast(SupportsIndex, one)) for one in given]
    except TypeError:
        whole = []
    if len(whole) != num_requests or not all(0 < number < 2**31 for number in whole):
        raise RequestError(
            f"`{name}` is {shown(value)}; pass a positive number, or one for each of the {num_requests} requests of "
            "the batch."
        )
    return np.array(whole, dtype=np.int64)


def check_tries(
    trie: IdentifierTrie | Sequence[IdentifierTrie],
    masks: TrieMask | np.ndarray | Sequence[TrieMask | np.ndarray | None] | None,
    num_requests: int,
) -> tuple[list[IdentifierTrie], list[TrieMask | None]]:
    """Return each request its trie and its mask; `None` where everything is allowed.

    Raises:
        RequestError: If there is not one for each request, the depths of tries differ, or a mask does not belong to
            the request's trie.
    """
    tries = [trie] * num_requests if isinstance(trie, IdentifierTrie) else list(trie)
    if len(tries) != num_requests:
        raise RequestError(f"`trie` has {len(tries)} entries for {num_requests} requests; pass one, or one for each.")
    depths = {one.num_levels for one in tries}
    if len(depths) > 1:
        raise RequestError(
            f"The tries of one batch have identifiers of {sorted(depths)} levels; call once for each length."
        )
    if masks is None or isinstance(masks, (TrieMask, np.ndarray, Tensor)):
        each: list[TrieMask | np.ndarray | None] = [masks] * num_requests
    else:
        each = list(masks)
    if len(each) != num_requests:
        raise RequestError(f"`masks` has {len(each)} entries for {num_requests} requests; pass one, or one for each.")
    made: dict[tuple[int, int], TrieMask | None] = {}  # a mask given many times is counted once for each trie
    for index, (mask, one) in enumerate(zip(each, tries, strict=True)):
        if (id(mask), id(one)) in made:
            continue
        counted = mask if mask is None or isinstance(mask, TrieMask) else one.mask(mask)
        if counted is not None and not one.owns(counted):
            raise RequestError(
                f"The mask of request {index} was made by another trie; make it with `trie.mask(where)` of the trie "
                "searched."
            )
        allows_all = counted is None or counted.num_allowed == one.num_items
        made[id(mask), id(one)] = None if allows_all else counted
    return tries, [made[id(mask), id(one)] for mask, one in zip(each, tries, strict=True)]


def make_lanes(
    model: PreTrainedModel,
    answerable: list[int],
    tries: list[IdentifierTrie],
    row_masks: list[TrieMask | None],
    level_offsets: np.ndarray | Tensor | Sequence[int] | Sequence[Sequence[int]] | Sequence[np.ndarray],
    device: torch.device,
) -> list[Lane]:
    """Group requests by trie and token blocks, and in each group by mask.

    Args:
        model (`PreTrainedModel`): Model whose vocabulary must hold the token blocks.
        answerable (`list[int]`): Requests being decoded, of those that the next three describe.
        tries (`list[IdentifierTrie]`): One for each request.
        row_masks (`list`): One mask or `None` for each request.
        level_offsets (`np.ndarray`): As in [`beam_search`].
        device (`torch.device`): Where to search.

    Raises:
        RequestError: If `level_offsets` has not one row for each request.
        ConfigurationError: If it does not fit the levels or the vocabulary.
    """
    table = np.asarray(level_offsets.cpu() if isinstance(level_offsets, Tensor) else level_offsets)
    if table.ndim == 2 and len(table) != len(tries):
        raise RequestError(
            f"`level_offsets` has {len(table)} rows for {len(tries)} requests; pass one, or one for each."
        )
    members: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for position, index in enumerate(answerable):
        offsets = check_level_offsets(table if table.ndim == 1 else table[index], tries[index].codebook_sizes, model)
        members.setdefault((id(tries[index]), offsets), []).append(position)
    lanes = []
    for (_, offsets), positions in members.items():
        trie = tries[answerable[positions[0]]]
        masked: dict[int, tuple[TrieMask, list[int]]] = {}
        for place, position in enumerate(positions):
            mask = row_masks[answerable[position]]
            if mask is not None:
                masked.setdefault(id(mask), (mask, []))[1].append(place)
        lanes.append(
            Lane(
                trie=trie.to(device),
                offsets=offsets,
                members=torch.tensor(positions, device=device),
                masks=[(mask.to(device), torch.tensor(where, device=device)) for mask, where in masked.values()],
            )
        )
    return lanes
