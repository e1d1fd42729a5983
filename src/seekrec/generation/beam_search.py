# SPDX-License-Identifier: Apache-2.0
"""Beam search over the identifiers of a catalogue.

It finds what `model.generate` finds with a [`TrieLogitsProcessor`], and differs in how:

- A step looks at the children of the beams only; with `norm="level"` the head computes nothing but the level's codes.
- The encoder states are shared by the beams of a request, and the first step has one row a request (see
  `sessions.py`).
- All identifiers have the same length, so there is no end-of-sequence token and no length penalty.
- A request with fewer allowed identifiers than beams carries fewer beams; it is never filled with copies.
- Requests of one batch may have their own trie, mask, number of beams and number of answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import NotFiniteError, RequestError
from seekrec.generation.inputs import (
    Lane,
    Norm,
    check_prompt,
    check_tries,
    encode,
    make_lanes,
    per_request,
    to_log_probs,
)
from seekrec.generation.masks import TrieMask
from seekrec.generation.sessions import Session, open_session
from seekrec.generation.trie import IdentifierTrie

_NEVER = float("-inf")


@dataclass(frozen=True)
class BeamOutput:
    """Items found for each request, best first.

    Args:
        rows (`list[np.ndarray]`): For each request int64 item rows, distinct.
        scores (`list[np.ndarray]`): For each request float32, natural logarithm of the identifier's probability;
            same order.
    """

    rows: list[np.ndarray]
    scores: list[np.ndarray]


@dataclass
class _Beams:
    """`B` requests, up to `K` beams each, best first.

    Args:
        scores (`torch.Tensor`): float32 `(B, K)`; minus infinity where there is no beam.
        nodes (`torch.Tensor`): int64 `(B, K)`, nodes of the current depth.
        groups (`torch.Tensor`): int64 `(B, K)`, the node of depth `prefix_levels` above each beam; meaningless
            before that depth.
        tokens (`torch.Tensor`): int64 `(B, K)`, the last token.
        parents (`torch.Tensor`): int64 `(B, K)`, the beam of the step before.
    """

    scores: Tensor
    nodes: Tensor
    groups: Tensor
    tokens: Tensor
    parents: Tensor


@torch.no_grad()
def beam_search(
    model: PreTrainedModel,
    input_ids: Tensor | None,
    attention_mask: Tensor | None = None,
    *,
    trie: IdentifierTrie | Sequence[IdentifierTrie],
    level_offsets: np.ndarray | Tensor | Sequence[int] | Sequence[Sequence[int]] | Sequence[np.ndarray],
    decoder_prefix: Tensor,
    num_beams: int | Sequence[int],
    top_k: int | Sequence[int] | None = None,
    masks: TrieMask | np.ndarray | Sequence[TrieMask | np.ndarray | None] | None = None,
    norm: Norm = "vocab",
    max_per_prefix: int | None = None,
    prefix_levels: int = 1,
    encoder_outputs: BaseModelOutput | None = None,
) -> BeamOutput:
    """Find the items whose identifiers the model holds most likely.

    Equal scores are ordered by item row; so are the items of a shared identifier, which have its score. Where two
    identifiers with equal scores compete for the last beam, either may win.

    Args:
        model (`PreTrainedModel`): Encoder-decoder with a head, in evaluation mode; a `peft` wrapper around one is
            taken off.
        input_ids (`torch.Tensor`, *optional*): int64 of shape `(B, S)`; `None` with `encoder_outputs`.
        attention_mask (`torch.Tensor`, *optional*): 1 where the input is real, shape `(B, S)`. Default: everywhere.
        trie (`IdentifierTrie`): The identifiers, one trie for all requests or one for each.
        level_offsets (`np.ndarray`): Integers of shape `(L,)`: the token id of code 0 of each level; or `(B, L)`.
        decoder_prefix (`torch.Tensor`): int64 token ids of shape `(B, P)` that precede the identifier, the decoder's
            start token first. They are read, not scored.
        num_beams (`int` or `Sequence[int]`): Beams, for all requests or for each; raised to `top_k` where that is
            larger.
        top_k (`int` or `Sequence[int]`, *optional*): Items to return. Default: `num_beams`.
        masks (`TrieMask`, *optional*): What may be returned: `trie.mask(where)` or `where` itself, for all requests
            or one (or `None`) for each.
        norm (`str`): `"vocab"` scores a code among all tokens, as `generate` with `length_penalty=0` does; `"level"`
            among the codes of its level, which is faster.
        max_per_prefix (`int`, *optional*): Return at most that many items with the same first `prefix_levels` codes.
            Default: no limit.
        prefix_levels (`int`): See `max_per_prefix`.
        encoder_outputs (`ModelOutput`, *optional*): The encoder's output for the batch, in place of `input_ids`.

    Returns:
        `BeamOutput`: For each request at most `top_k` items; fewer where fewer are allowed (or the beams ended at
        fewer).

    Raises:
        RequestError: If shapes, masks or numbers contradict each other.
        ConfigurationError: If the model cannot be used, or its vocabulary lacks the tokens.
        NotFiniteError: If it computes scores that are not numbers.
    """
    base, num_requests = check_prompt(model, input_ids, attention_mask, decoder_prefix, encoder_outputs, norm)
    if not num_requests:
        return BeamOutput([], [])
    widths = per_request("num_beams", num_beams, num_requests)
    wanted = widths if top_k is None else per_request("top_k", top_k, num_requests)
    widths = np.maximum(widths, wanted)
    tries, row_masks = check_tries(trie, masks, num_requests)
    if max_per_prefix is not None and (max_per_prefix < 1 or not 1 <= prefix_levels <= tries[0].num_levels):
        raise RequestError(
            f"`max_per_prefix` is {max_per_prefix}, `prefix_levels` {prefix_levels}; both must be at least 1, and a "
            "prefix no longer than the identifiers."
        )
    rows = [np.zeros(0, np.int64)] * num_requests
    scores = [np.zeros(0, np.float32)] * num_requests
    answerable = [index for index in range(num_requests) if (mask := row_masks[index]) is None or mask.num_allowed]
    if answerable:
        prompt = encode(base, input_ids, attention_mask, decoder_prefix, encoder_outputs, torch.tensor(answerable))
        device = prompt.states.device
        lanes = make_lanes(base, answerable, tries, row_masks, level_offsets, device)
        session = open_session(base, prompt.states, prompt.attention_mask)
        states = session.start(prompt.decoder_prefix)
        beam_limit = torch.tensor(widths[answerable], device=device)
        beams = _search(session, states, lanes, beam_limit, norm, max_per_prefix, prefix_levels)
        for lane in lanes:
            for position, found, found_scores in _expand(lane, beams, row_masks, answerable, max_per_prefix):
                index = answerable[position]
                rows[index], scores[index] = found[: wanted[index]], found_scores[: wanted[index]]
    return BeamOutput(rows, scores)


def _search(
    session: Session,
    states: Tensor,
    lanes: list[Lane],
    beam_limit: Tensor,
    norm: Norm,
    max_per_prefix: int | None,
    prefix_levels: int,
) -> _Beams:
    """Grow prefixes code by code; return the beams at the leaves."""
    num_requests = len(beam_limit)
    start = torch.zeros((num_requests, 1), dtype=torch.int64, device=states.device)
    beams = _Beams(start.float(), start, start, start, start)
    state_of = torch.arange(num_requests, device=states.device)[:, None]  # row of `states` of each beam, shape (B, K)
    num_levels = lanes[0].trie.num_levels
    for level in range(num_levels):
        partition = session.log_partition(states) if norm == "vocab" else None
        candidates, first_token = _candidates(session, states, partition, state_of, lanes, level, beams)
        is_limited = max_per_prefix is not None and level >= prefix_levels
        beams = _select(*candidates, first_token, beams, beam_limit, max_per_prefix if is_limited else None)
        if level + 1 == prefix_levels:
            beams.groups = beams.nodes
        is_beam = beams.scores > _NEVER
        if not bool(is_beam[:, 0].all()):
            raise NotFiniteError(
                f"The model's scores at level {level} are not numbers (NaN or infinite); check its weights and data "
                "type."
            )
        if level + 1 < num_levels:
            requests, slots = is_beam.nonzero(as_tuple=True)
            parents = state_of[requests, beams.parents[requests, slots]]
            states = session.step(beams.tokens[requests, slots], parents, requests)
            state_of = torch.zeros_like(beams.nodes)
            state_of[requests, slots] = torch.arange(len(requests), device=states.device)
    return beams


def _candidates(
    session: Session,
    states: Tensor,
    partition: Tensor | None,
    state_of: Tensor,
    lanes: list[Lane],
    level: int,
    beams: _Beams,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Score the children of all beams.

    Returns:
        `tuple`: Scores, nodes and codes of shape `(B, K, M)` (scores minus infinity where there is no allowed
        child), and the token id of code 0 for each request, shape `(B, 1)`.
    """
    first_token = torch.zeros((len(state_of), 1), dtype=torch.int64, device=states.device)
    parts = []
    blocks: dict[tuple[int, int], Tensor] = {}  # lanes share blocks where views share levels
    for lane in lanes:
        first, size = lane.offsets[level], lane.trie.codebook_sizes[level]
        if (first, size) not in blocks:
            blocks[first, size] = to_log_probs(session, states, partition, first, size)
        log_probs = blocks[first, size]
        first_token[lane.members] = first
        nodes = lane.take(beams.nodes)
        # At the root all requests have the same children, and there may be millions.
        children = lane.trie.children(level, nodes if level else nodes[:1])
        is_open = children.is_real
        for mask, positions in lane.masks:
            if len(positions) == len(nodes):
                is_open = is_open & mask.allows(level + 1, children.nodes)
            else:
                is_open = is_open.expand(len(nodes), -1, -1).clone()
                own = children.nodes[positions] if level else children.nodes
                is_open[positions] &= mask.allows(level + 1, own)
        gathered = log_probs[lane.take(state_of)[..., None], children.codes]
        scores = torch.where(is_open, lane.take(beams.scores)[..., None] + gathered, _NEVER)
        parts.append((scores, children.nodes.expand_as(scores), children.codes.expand_as(scores)))
    if len(lanes) == 1:
        return parts[0], first_token
    shape = (*state_of.shape, max(scores.shape[-1] for scores, _, _ in parts))
    merged = (
        torch.full(shape, _NEVER, device=states.device),
        torch.zeros(shape, dtype=torch.int64, device=states.device),
        torch.zeros(shape, dtype=torch.int64, device=states.device),
    )
    for lane, part in zip(lanes, parts, strict=True):
        for whole, values in zip(merged, part, strict=True):
            whole[lane.members, :, : values.shape[-1]] = values
    return merged, first_token


def _select(
    scores: Tensor,
    nodes: Tensor,
    codes: Tensor,
    first_token: Tensor,
    beams: _Beams,
    beam_limit: Tensor,
    max_per_group: int | None,
) -> _Beams:
    """Keep the best candidates of each request, best first; as many columns as the fullest request needs."""
    num_children = scores.shape[-1]
    flat = scores.flatten(1)
    width = min(int(beam_limit.max()), flat.shape[1])
    if max_per_group is None:
        best, index = flat.topk(width)
    else:
        flat, index = _limit_groups(scores, beams.groups, max_per_group)
        best, order = flat.topk(min(width, flat.shape[1]))
        index = index.gather(1, order)
    # A request with fewer beams than the widest one keeps only its own number.
    columns = torch.arange(best.shape[1], device=best.device)
    best = torch.where(columns < beam_limit[:, None], best, _NEVER)
    used = max(1, int((best > _NEVER).sum(1).max()))
    best, index = best[:, :used], index[:, :used]
    parents = torch.div(index, num_children, rounding_mode="floor")
    return _Beams(
        scores=best,
        nodes=nodes.flatten(1).gather(1, index),
        groups=beams.groups.gather(1, parents),
        tokens=codes.flatten(1).gather(1, index) + first_token,
        parents=parents,
    )


def _limit_groups(scores: Tensor, groups: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Drop candidates that have `limit` better ones in their group.

    Args:
        scores (`torch.Tensor`): `(B, K, M)`.
        groups (`torch.Tensor`): int64 `(B, K)`.
        limit (`int`): At least 1.

    Returns:
        `tuple`: Scores `(B, n)` of the remaining candidates (dropped ones minus infinity), and their positions in `K
        * M`.
    """
    num_children = scores.shape[-1]
    best, child = scores.topk(min(limit, num_children))  # more from one beam could not survive
    offsets = torch.arange(scores.shape[1], device=scores.device)[:, None] * num_children
    best, order = best.flatten(1).sort(dim=1, descending=True)
    index = (child + offsets).flatten(1).gather(1, order)
    group = groups.gather(1, torch.div(index, num_children, rounding_mode="floor"))
    # Bring groups together, best first; the rank in a group is the distance to where its run begins.
    group, by_group = group.sort(dim=1, stable=True)
    place = torch.arange(group.shape[1], device=group.device).expand_as(group)
    begins = torch.ones_like(group, dtype=torch.bool)
    begins[:, 1:] = group[:, 1:] != group[:, :-1]
    rank = place - torch.where(begins, place, 0).cummax(dim=1).values
    return torch.where(rank < limit, best.gather(1, by_group), _NEVER), index.gather(1, by_group)


def _expand(
    lane: Lane,
    beams: _Beams,
    row_masks: list[TrieMask | None],
    answerable: list[int],
    max_per_prefix: int | None,
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Replace the leaves of a lane by items: (position in the batch, rows, scores) for each request, best first."""
    scores, nodes, groups = map(lane.take, (beams.scores, beams.nodes, beams.groups))
    request, slot = (scores > _NEVER).nonzero(as_tuple=True)
    item_rows, source = lane.trie.expand_leaves(nodes[request, slot])
    request, slot = request[source], slot[source]
    numbers = [tensor.cpu().numpy() for tensor in (item_rows, scores[request, slot], groups[request, slot])]
    bounds = np.searchsorted(request.cpu().numpy(), np.arange(len(lane.members) + 1))
    result = []
    for member, position in enumerate(lane.members.tolist()):
        rows, values, group = (array[bounds[member] : bounds[member + 1]] for array in numbers)
        mask = row_masks[answerable[position]]
        if mask is not None:  # an identifier may be shared by an allowed and a forbidden item
            is_allowed = mask.where[torch.from_numpy(rows).to(mask.where.device)].cpu().numpy()
            rows, values, group = rows[is_allowed], values[is_allowed], group[is_allowed]
        order = np.lexsort((rows, -values))
        rows, values, group = rows[order], values[order], group[order]
        if max_per_prefix is not None:
            keep = _rank_in_group(group) < max_per_prefix
            rows, values = rows[keep], values[keep]
        result.append((position, rows, values))
    return result


def _rank_in_group(group: np.ndarray) -> np.ndarray:
    """Count the earlier entries with the same value."""
    order = np.argsort(group, kind="stable")
    sorted_group = group[order]
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(sorted_group, sorted_group)
    return rank
