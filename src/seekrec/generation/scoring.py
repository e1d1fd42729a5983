# SPDX-License-Identifier: Apache-2.0
"""Exact log-probabilities of given candidates.

The candidates of a request form a trie of their own, and every distinct prefix is evaluated once: 100 candidates that
share half of their codes cost half. Lists of different lengths form one batch without padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import ConfigurationError, RequestError
from seekrec.generation.sessions import Norm, Prompt, check_level_offsets, check_prompt, encode, open_session
from seekrec.generation.trie import IdentifierTrie


@torch.no_grad()
def score_candidates(
    model: PreTrainedModel,
    input_ids: Tensor | None,
    attention_mask: Tensor | None = None,
    *,
    codes: Sequence[np.ndarray],
    level_offsets: np.ndarray | Tensor | Sequence[int] | Sequence[Sequence[int]] | Sequence[np.ndarray],
    decoder_prefix: Tensor,
    norm: Norm = "vocab",
    codebook_size: int | Sequence[int] | None = None,
    encoder_outputs: BaseModelOutput | None = None,
    max_rows: int = 4096,
) -> list[np.ndarray]:
    """Compute the log-probability of every candidate's identifier.

    Args:
        model (`PreTrainedModel`): Encoder-decoder with a head, in evaluation mode; a `peft` wrapper around one is
            taken off.
        input_ids (`torch.Tensor`, *optional*): int64 of shape `(B, S)`; `None` with `encoder_outputs`.
        attention_mask (`torch.Tensor`, *optional*): 1 where the input is real, shape `(B, S)`. Default: everywhere.
        codes (`Sequence[np.ndarray]`): For each request the identifiers of its candidates, integers of shape `(C,
            L)`; `C` may differ and may be 0, identifiers may repeat.
        level_offsets (`np.ndarray`): Integers of shape `(L,)`: the token id of code 0 of each level; or `(B, L)`.
        decoder_prefix (`torch.Tensor`): int64 token ids of shape `(B, P)` that precede the identifier, the decoder's
            start token first. They are read, not scored.
        norm (`str`): As in [`beam_search`].
        codebook_size (`int` or `Sequence[int]`, *optional*): Codes per level; needed for `norm="level"`. Default:
            that of the model's configuration, if it has one.
        encoder_outputs (`ModelOutput`, *optional*): The encoder's output for the batch, in place of `input_ids`.
        max_rows (`int`): Candidates decoded at one time; bounds the memory, not the result.

    Returns:
        `list[np.ndarray]`: For each request float32 of shape `(C,)`, natural logarithm, in the order of its
        candidates.

    Raises:
        RequestError: If shapes contradict each other or a code is outside its codebook.
        ConfigurationError: If the model cannot be used, its vocabulary lacks the tokens, or `codebook_size` is
            missing.
    """
    base, num_requests = check_prompt(model, input_ids, attention_mask, decoder_prefix, encoder_outputs, norm)
    if max_rows < 1:
        raise RequestError(f"`max_rows` is {max_rows}; pass at least 1.")
    tables = _check_codes(codes, num_requests)
    lengths = [len(table) for table in tables]
    answerable = [index for index, length in enumerate(lengths) if length]
    if not answerable:
        return [np.zeros(0, np.float32) for _ in lengths]
    flat = np.concatenate([tables[index] for index in answerable])
    owner = np.repeat(np.arange(len(answerable)), [lengths[index] for index in answerable])
    sizes = _check_sizes(
        getattr(base.config, "codebook_size", None) if codebook_size is None else codebook_size, flat, norm
    )
    offsets = _check_offsets(level_offsets, sizes, base, num_requests, answerable)
    prompt = encode(base, input_ids, attention_mask, decoder_prefix, encoder_outputs, torch.tensor(answerable))
    offsets = offsets.to(prompt.states.device)
    # The request is the first code: one trie for all lists.
    keyed = np.column_stack([owner, flat])
    scores = np.empty(len(flat), np.float32)
    order = np.lexsort(keyed.T[::-1])  # parts of neighbours share prefixes
    for chosen in np.split(order, range(max_rows, len(order), max_rows)):
        trie = IdentifierTrie.from_codes(keyed[chosen], (len(answerable), *sizes))
        scores[chosen] = _score_trie(base, prompt, trie, offsets, norm)
    parts = iter(np.split(scores, np.cumsum([lengths[index] for index in answerable])[:-1]))
    return [next(parts) if length else np.zeros(0, np.float32) for length in lengths]


def _score_trie(
    model: PreTrainedModel, prompt: Prompt, trie: IdentifierTrie, offsets: Tensor, norm: Norm
) -> np.ndarray:
    """Score a trie whose first code is the request; return float32 of shape `(num_items,)` by item row."""
    device = prompt.states.device
    trie = trie.to(device)
    owner = trie.codes[0].long()  # node of depth 1 -> request of the prompt
    mask = None if prompt.attention_mask is None else prompt.attention_mask[owner]
    session = open_session(model, prompt.states[owner], mask)
    states = session.start(prompt.decoder_prefix[owner])
    nodes_request = torch.arange(len(owner), device=device)  # node of the current depth -> row of `owner`
    scores = torch.zeros(len(owner), device=device)
    num_levels = trie.num_levels - 1
    for level in range(num_levels):
        codes = trie.codes[level + 1].long()
        num_parents = trie.num_nodes(level + 1)
        _, count = trie.families[level + 1].ranges(torch.arange(num_parents, device=device))
        parents = torch.repeat_interleave(torch.arange(num_parents, device=device), count)
        requests = nodes_request[parents]
        first = offsets[owner[requests], level]
        partition = session.log_partition(states) if norm == "vocab" else None
        step_scores = torch.empty(len(codes), device=device)
        for block in torch.unique(first).tolist():
            logits = session.block_logits(states, block, trie.codebook_sizes[level + 1])
            log_probs = logits.log_softmax(-1) if partition is None else logits - partition[:, None]
            in_block = first == block
            step_scores[in_block] = log_probs[parents[in_block], codes[in_block]]
        scores = scores[parents] + step_scores
        if level + 1 < num_levels:
            states = session.step(first + codes, parents, requests)
        nodes_request = requests
    rows, source = trie.expand_leaves(torch.arange(trie.num_identifiers, device=device))
    result = np.empty(trie.num_items, np.float32)
    result[rows.cpu().numpy()] = scores[source].cpu().numpy()
    return result


def _check_codes(codes: Sequence[np.ndarray], num_requests: int) -> list[np.ndarray]:
    if len(codes) != num_requests:
        raise RequestError(
            f"`codes` has {len(codes)} lists for {num_requests} requests; pass one for each, empty if need be."
        )
    tables = [np.asarray(table) for table in codes]
    widths = {table.shape[1] for table in tables if table.ndim == 2 and len(table)}
    for index, table in enumerate(tables):
        is_table = table.ndim == 2 and table.shape[1] > 0 and table.dtype.kind in "iu"
        if len(table) and (not is_table or len(widths) > 1):
            raise RequestError(
                f"`codes` of request {index} is {table.dtype} of shape {table.shape}; pass integers of shape "
                f"(candidates, levels) with the same number of levels for all requests (seen: {sorted(widths)})."
            )
        if len(table) and table.min() < 0:
            raise RequestError(f"`codes` of request {index} contains {table.min()}; codes start at 0.")
    return tables


def _check_sizes(codebook_size: int | Sequence[int] | None, flat: np.ndarray, norm: Norm) -> tuple[int, ...]:
    largest = flat.max(0)
    if codebook_size is None:
        if norm == "level":
            raise ConfigurationError(
                '`codebook_size` is missing; `norm="level"` needs to know which tokens are the codes of a level.'
            )
        return tuple(int(code) + 1 for code in largest)
    sizes = np.full(flat.shape[1], codebook_size) if np.ndim(codebook_size) == 0 else np.asarray(codebook_size)
    if sizes.shape != largest.shape or (largest >= sizes).any():
        raise RequestError(
            f"`codes` has {flat.shape[1]} levels with codes up to {largest.tolist()}; `codebook_size` is "
            f"{codebook_size}. Every code must be below the size of its codebook."
        )
    return tuple(sizes.tolist())


def _check_offsets(
    level_offsets: np.ndarray | Tensor | Sequence[int] | Sequence[Sequence[int]] | Sequence[np.ndarray],
    sizes: tuple[int, ...],
    model: PreTrainedModel,
    num_requests: int,
    answerable: list[int],
) -> Tensor:
    """Return int64 offsets of shape `(len(answerable), L)`."""
    table = np.asarray(level_offsets.cpu() if isinstance(level_offsets, Tensor) else level_offsets)
    if table.ndim == 1:
        table = np.tile(table, (num_requests, 1))
    elif len(table) != num_requests:
        raise RequestError(
            f"`level_offsets` has {len(table)} rows for {num_requests} requests; pass one, or one for each."
        )
    return torch.tensor([check_level_offsets(table[index], sizes, model) for index in answerable])
