# SPDX-License-Identifier: Apache-2.0
"""Constrain plain `model.generate` to the identifiers of a trie.

The processor keeps no state of the sequences: beams are reordered between steps without notice, so the position in the
trie is looked up again from the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from seekrec.errors import ConfigurationError, RequestError
from seekrec.generation.beam_search import BeamOutput
from seekrec.generation.masks import TrieMask
from seekrec.generation.trie import IdentifierTrie


class TrieLogitsProcessor(LogitsProcessor):
    """Allow only tokens that continue an identifier of the catalogue.

    Call `model.generate` with `max_new_tokens=trie.num_levels`, `do_sample=False` and, to compare scores with
    [`beam_search`], `length_penalty=0.0`. With fewer allowed identifiers than beams `generate` fills its answer with
    copies of valid ones; [`collect_items`] takes them out.

    Args:
        trie (`IdentifierTrie`): The identifiers.
        level_offsets (`Sequence[int]`): The token id of code 0 of each level.
        prompt_length (`int`): Decoder tokens before the identifier, the start token included.
        masks (`TrieMask`, *optional*): What may be returned, for all requests or one (or `None`) for each.
        num_beams (`int`): The `num_beams` of the `generate` call; it tells which rows belong to one request.
        eos_token_id (`int`, *optional*): Token to force after a complete identifier. Default: going on after one is
            an error.

    Raises:
        ConfigurationError: If `level_offsets` has not one entry per level, or a number is not positive.
        RequestError: If a mask was made by another trie.
    """

    def __init__(
        self,
        trie: IdentifierTrie,
        level_offsets: np.ndarray | Tensor | Sequence[int],
        prompt_length: int = 1,
        *,
        masks: TrieMask | Sequence[TrieMask | None] | None = None,
        num_beams: int = 1,
        eos_token_id: int | None = None,
    ) -> None:
        self._offsets = [int(offset) for offset in level_offsets]
        if len(self._offsets) != trie.num_levels:
            raise ConfigurationError(
                f"`level_offsets` has {len(self._offsets)} entries for identifiers of {trie.num_levels} levels; pass "
                "one for each."
            )
        if prompt_length < 1 or num_beams < 1:
            raise ConfigurationError(f"`prompt_length` is {prompt_length}, `num_beams` {num_beams}; both start at 1.")
        each = masks if isinstance(masks, Sequence) else [masks]
        for index, mask in enumerate(each):
            if mask is not None and mask.owner is not trie.masks:
                raise RequestError(
                    f"Mask {index} was made by another trie; make it with `trie.mask(where)` of the trie given here."
                )
        self._trie = trie
        self._prompt_length = prompt_length
        self._masks = list(masks) if isinstance(masks, Sequence) else masks
        self._num_beams = num_beams
        self._eos_token_id = eos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores of all other tokens to minus infinity.

        Args:
            input_ids (`torch.Tensor`): int64 of shape `(rows, length)`: the decoder's tokens so far.
            scores (`torch.Tensor`): Float of shape `(rows, vocabulary)`.

        Returns:
            `torch.Tensor`: Of the shape of `scores`.

        Raises:
            RequestError: If no row of a request can continue: its mask allows nothing, or its tokens are not a prefix
                of an identifier.
            ConfigurationError: If the call does not fit the arguments given before.
        """
        trie = self._trie.to(scores.device)
        depth = input_ids.shape[1] - self._prompt_length
        if depth < 0:
            raise ConfigurationError(
                f"`prompt_length` is {self._prompt_length}, but the decoder has {input_ids.shape[1]} tokens; count "
                "the start token and what follows it before the identifier."
            )
        allowed = torch.full_like(scores, float("-inf"))
        if depth >= trie.num_levels:
            if self._eos_token_id is None:
                raise ConfigurationError(
                    f"Identifiers have {trie.num_levels} codes and `generate` asks for one more; pass "
                    f"`max_new_tokens={trie.num_levels}`, or `eos_token_id` to the processor."
                )
            allowed[:, self._eos_token_id] = scores[:, self._eos_token_id]
            return allowed
        offsets = torch.tensor(self._offsets[:depth], device=scores.device)
        nodes = trie.find(input_ids[:, self._prompt_length :] - offsets)
        children = trie.children(depth, nodes.clamp(min=0))
        is_open = children.is_real & (nodes >= 0)[:, None] & self._allows(depth + 1, children.nodes)
        self._check_rows(is_open.any(1), input_ids)
        row, place = is_open.nonzero(as_tuple=True)
        tokens = children.codes[row, place] + self._offsets[depth]
        allowed[row, tokens] = scores[row, tokens]
        return allowed

    def _allows(self, depth: int, nodes: Tensor) -> Tensor:
        if not isinstance(self._masks, list):
            return (
                torch.ones_like(nodes, dtype=torch.bool)
                if self._masks is None
                else self._masks.to(nodes.device).is_open(depth, nodes)
            )
        if len(self._masks) * self._num_beams != len(nodes):
            raise ConfigurationError(
                f"`masks` has {len(self._masks)} entries and `num_beams` is {self._num_beams}, but `generate` sent "
                f"{len(nodes)} rows; pass one mask for each request, and the `num_beams` of the call."
            )
        result = torch.ones_like(nodes, dtype=torch.bool)
        for index, mask in enumerate(self._masks):
            if mask is not None:
                rows = slice(index * self._num_beams, (index + 1) * self._num_beams)
                result[rows] = mask.to(nodes.device).is_open(depth, nodes[rows])
        return result

    def _check_rows(self, can_continue: Tensor, input_ids: Tensor) -> None:
        # A beam may be dead while another of its request lives: its scores are minus infinity, it will be dropped.
        if len(can_continue) % self._num_beams:
            raise ConfigurationError(
                f"`num_beams` is {self._num_beams}, but `generate` sent {len(can_continue)} rows; pass the "
                "`num_beams` of the call."
            )
        stuck = ~can_continue.view(-1, self._num_beams).any(1)
        if bool(stuck.any()):
            request = int(stuck.nonzero()[0])
            tokens = input_ids[request * self._num_beams, self._prompt_length :].tolist()
            raise RequestError(
                f"Request {request} of the batch cannot continue after the identifier tokens {tokens}: no allowed "
                "identifier starts with them. Leave requests out whose mask allows no item, and pass the call's "
                "`num_beams` and `prompt_length`."
            )


def collect_items(
    sequences: Tensor,
    scores: Tensor | None = None,
    *,
    trie: IdentifierTrie,
    level_offsets: np.ndarray | Tensor | Sequence[int],
    prompt_length: int = 1,
    num_return_sequences: int = 1,
    masks: TrieMask | Sequence[TrieMask | None] | None = None,
) -> BeamOutput:
    """Turn what `generate` returned into items, without its copies.

    Args:
        sequences (`torch.Tensor`): int64 of shape `(B * num_return_sequences, length)`, best first for each request.
        scores (`torch.Tensor`, *optional*): `sequences_scores` of the same call; without them scores are NaN.
        trie (`IdentifierTrie`): The trie of the processor.
        level_offsets (`Sequence[int]`): Those of the processor.
        prompt_length (`int`): That of the processor.
        num_return_sequences (`int`): That of the `generate` call.
        masks (`TrieMask`, *optional*): Those of the processor.

    Returns:
        `BeamOutput`: For each request the distinct items, best first. Sequences that are not an allowed identifier are
        dropped; all items of a shared identifier are given.

    Raises:
        RequestError: If the number of sequences, scores or masks does not fit.
    """
    end = prompt_length + trie.num_levels
    if sequences.shape[0] % num_return_sequences or sequences.shape[1] < end:
        raise RequestError(
            f"`sequences` has shape {tuple(sequences.shape)}; expected a multiple of `num_return_sequences` "
            f"({num_return_sequences}) rows of at least {end} tokens."
        )
    num_requests = sequences.shape[0] // num_return_sequences
    each = list(masks) if isinstance(masks, Sequence) else [masks] * num_requests
    if len(each) != num_requests or (scores is not None and len(scores) != len(sequences)):
        raise RequestError(
            f"{num_requests} requests have {len(each)} masks, {len(sequences)} sequences have "
            f"{'no' if scores is None else len(scores)} scores; the numbers must agree."
        )
    offsets = torch.tensor([int(offset) for offset in level_offsets], device=sequences.device)
    leaves = trie.find(sequences[:, prompt_length:end] - offsets).view(num_requests, num_return_sequences)
    values = torch.full_like(leaves, float("nan"), dtype=torch.float32) if scores is None else scores.float()
    values = values.view(num_requests, num_return_sequences).to(leaves.device)
    rows, row_scores = [], []
    for leaf, value, mask in zip(leaves, values, each, strict=True):
        # The first of equal leaves is the real one: copies come last, near minus a thousand million.
        _, first = np.unique(leaf.cpu().numpy(), return_index=True)
        keep = torch.from_numpy(np.sort(first)).to(leaf.device)
        keep = keep[leaf[keep] >= 0]
        found, source = trie.expand_leaves(leaf[keep])
        found_scores = value[keep][source]
        if mask is not None:
            is_allowed = mask.where.to(found.device)[found]
            found, found_scores = found[is_allowed], found_scores[is_allowed]
        rows.append(found.cpu().numpy())
        row_scores.append(found_scores.cpu().numpy())
    return BeamOutput(rows, row_scores)
