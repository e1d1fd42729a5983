# SPDX-License-Identifier: Apache-2.0
"""Beam search over the identifiers of a catalogue.

It finds the same items as `model.generate` with a [`TrieLogitsProcessor`], but more efficiently:

- A step looks at the children of the beams only; with `norm="level"` the head computes only the level's codes.
- The encoder states are shared by the beams of a request; the first step has one row per request (`sessions.py`).
- All identifiers have the same length, so there is no end-of-sequence token and no length penalty. A request with
  fewer allowed identifiers than beams carries fewer beams, never copies.
- Requests of one batch may have their own trie, mask, number of beams and number of answers.
- What is `added` to the scores of items steers the beams: they hold the prefixes with the highest score plus the most
  that is added to an item below (`bounds.py`). A best item is missed only if, at some level, at least `num_beams`
  other prefixes have a higher bound; with `exact` none is missed (`exact_search.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from seekrec.errors import NotFiniteError, RequestError
from seekrec.generation.asked_bounds import AddedNumbers
from seekrec.generation.bounds import Bounds, bounds_of_requests
from seekrec.generation.exact_search import Dropped, ExactSearch
from seekrec.generation.masks import TrieMask
from seekrec.generation.sessions import Norm, Session, check_level_offsets, check_prompt, encode, open_session
from seekrec.generation.trie import IdentifierTrie
from seekrec.schema import shown

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
        tokens (`torch.Tensor`): int64 `(B, K)`, the last token.
        parents (`torch.Tensor`): int64 `(B, K)`, the beam of the step before.
    """

    scores: Tensor
    nodes: Tensor
    tokens: Tensor
    parents: Tensor


@dataclass
class Lane:
    """The requests of a batch that share a trie and token blocks.

    Args:
        trie ([`IdentifierTrie`]): The trie.
        offsets (`tuple[int, ...]`): Token id of code 0 of each level.
        positions (`list[int]`): Positions of the requests in the batch being decoded.
        members (`torch.Tensor` or `slice`): The same as an index; a slice that takes all where one lane has all.
        masks (`list`): Each mask of the lane with the places in `positions` that it is of.
        mask_of (`list`): The mask of each request; `None` where everything is allowed.
        bounds ([`Bounds`], *optional*): Of what is added to scores.
    """

    trie: IdentifierTrie
    offsets: tuple[int, ...]
    positions: list[int]
    members: Tensor | slice
    masks: list[tuple[TrieMask, Tensor]]
    mask_of: list[TrieMask | None]
    bounds: Bounds | None = None


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
    added: np.ndarray | Tensor | AddedNumbers | None = None,
    exact: bool = False,
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
        added (`np.ndarray`, *optional*): float32 of shape `(num_items,)` or `(B, num_items)`, or what makes it:
            finite numbers that are added to scores. Items are found and returned by the sum.
        exact (`bool`): Look behind the prefixes that beams dropped until none can hide a better item than the `top_k`
            returned, whatever the number of beams. Where very many are about equally likely, this ends in an error.
        encoder_outputs (`ModelOutput`, *optional*): The encoder's output for the batch, in place of `input_ids`.

    Returns:
        `BeamOutput`: For each request at most `top_k` items; fewer where fewer are allowed (or the beams ended at
        fewer).

    Raises:
        RequestError: If shapes, masks or numbers contradict each other.
        ConfigurationError: If the model cannot be used, or its vocabulary lacks the tokens.
        NotFiniteError: If it computes scores that are not numbers.
        SearchLimitError: If an exact answer is not certain after 100 rounds of 256 prefixes a request.
    """
    base, num_requests = check_prompt(model, input_ids, attention_mask, decoder_prefix, encoder_outputs, norm)
    if not num_requests:
        return BeamOutput([], [])
    widths = per_request("num_beams", num_beams, num_requests)
    wanted = widths if top_k is None else per_request("top_k", top_k, num_requests)
    widths = np.maximum(widths, wanted)
    answerable, lanes = make_lanes(base, trie, masks, level_offsets, num_requests)
    rows = [np.zeros(0, np.int64)] * num_requests
    scores = [np.zeros(0, np.float32)] * num_requests
    if answerable:
        prompt = encode(base, input_ids, attention_mask, decoder_prefix, encoder_outputs, torch.tensor(answerable))
        device = prompt.states.device
        for lane in lanes:
            lane.trie = lane.trie.to(device)
            lane.members = slice(None) if len(lanes) == 1 else torch.tensor(lane.positions, device=device)
            lane.masks = [(mask.to(device), places.to(device)) for mask, places in lane.masks]
            if exact or added is not None:
                requests = [answerable[position] for position in lane.positions]
                lane.bounds = bounds_of_requests(lane.trie, added, requests, lane.mask_of)
        session = open_session(base, prompt.states, prompt.attention_mask)
        states = session.start(prompt.decoder_prefix)
        dropped: list[Dropped] | None = [] if exact else None
        beams = _search(session, states, lanes, torch.tensor(widths[answerable], device=device), norm, dropped)
        for lane in lanes:
            # Replace leaves by items: beam by beam, the beams of a request together.
            lane_scores, nodes = beams.scores[lane.members], beams.nodes[lane.members]
            request, slot = (lane_scores > _NEVER).nonzero(as_tuple=True)
            item_rows, source = lane.trie.expand_leaves(nodes[request, slot])
            request, slot = request[source], slot[source]
            items, values = item_rows.cpu().numpy(), lane_scores[request, slot].cpu().numpy()
            ends = np.searchsorted(request.cpu().numpy(), np.arange(len(lane.positions)), side="right").tolist()
            own: list[tuple[np.ndarray, np.ndarray]] = []
            for position, mask, start, end in zip(lane.positions, lane.mask_of, [0, *ends], ends, strict=False):
                found, found_scores = items[start:end], values[start:end]
                if mask is not None:  # an identifier may be shared by an allowed and a forbidden item
                    is_allowed = mask.where[torch.from_numpy(found).to(mask.where.device)].cpu().numpy()
                    found, found_scores = found[is_allowed], found_scores[is_allowed]
                index = answerable[position]
                order = np.lexsort((found, -found_scores))
                order = order if lane.bounds is not None else order[: wanted[index]]
                rows[index], scores[index] = found[order], found_scores[order]
                own.append((rows[index], scores[index]))
            if lane.bounds is not None:
                asked = [answerable[position] for position in lane.positions]
                parts = lane.trie, lane.offsets, lane.positions, lane.bounds, norm, wanted[asked]
                for index, sums in zip(asked, ExactSearch(base, prompt, *parts).finish(own, dropped), strict=True):
                    rows[index], scores[index] = sums
    return BeamOutput(rows, scores)


def make_lanes(
    model: PreTrainedModel,
    trie: IdentifierTrie | Sequence[IdentifierTrie],
    masks: TrieMask | np.ndarray | Sequence[TrieMask | np.ndarray | None] | None,
    level_offsets: np.ndarray | Tensor | Sequence[int] | Sequence[Sequence[int]] | Sequence[np.ndarray],
    num_requests: int,
) -> tuple[list[int], list[Lane]]:
    """Group the requests that can be answered by trie and token blocks, and in each group by mask.

    Args:
        model (`PreTrainedModel`): Model whose vocabulary must hold the token blocks.
        trie ([`IdentifierTrie`]): As in [`beam_search`], like the next two.
        masks (`TrieMask`, *optional*): What may be returned.
        level_offsets (`np.ndarray`): Token id of code 0 of each level.
        num_requests (`int`): Requests of the batch.

    Returns:
        `tuple[list[int], list[Lane]]`: The requests whose mask allows an item, and the lanes they decode in.

    Raises:
        RequestError: If there is not a trie, a mask or a row of offsets for each request, the depths of tries differ,
            or a mask does not belong to the request's trie.
        ConfigurationError: If `level_offsets` does not fit the levels or the vocabulary.
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
    table = np.asarray(level_offsets.cpu() if isinstance(level_offsets, Tensor) else level_offsets)
    if table.ndim == 2 and len(table) != num_requests:
        raise RequestError(
            f"`level_offsets` has {len(table)} rows for {num_requests} requests; pass one, or one for each."
        )
    made: dict[tuple[int, int], TrieMask | None] = {}  # a mask given many times is counted once for each trie
    answerable: list[int] = []
    groups: dict[tuple[int, tuple[int, ...]], tuple[IdentifierTrie, list[int], list[TrieMask | None]]] = {}
    for index, (given, one) in enumerate(zip(each, tries, strict=True)):
        key = id(given), id(one)
        if key not in made:
            mask = given if given is None or isinstance(given, TrieMask) else one.mask(given)
            if mask is not None and mask.owner is not one.masks:
                raise RequestError(
                    f"The mask of request {index} was made by another trie; make it with `trie.mask(where)` of the "
                    "trie searched."
                )
            made[key] = None if mask is None or mask.num_allowed == one.num_items else mask
        mask = made[key]
        if mask is None or mask.num_allowed:
            offsets = check_level_offsets(table if table.ndim == 1 else table[index], one.codebook_sizes, model)
            _, members, mask_of = groups.setdefault((id(one), offsets), (one, [], []))
            members.append(len(answerable))
            mask_of.append(mask)
            answerable.append(index)
    lanes = []
    for (_, offsets), (one, members, mask_of) in groups.items():
        places: dict[int, tuple[TrieMask, list[int]]] = {}
        for place, mask in enumerate(mask_of):
            if mask is not None:
                places.setdefault(id(mask), (mask, []))[1].append(place)
        masked = [(mask, torch.tensor(where)) for mask, where in places.values()]
        lanes.append(Lane(one, offsets, members, slice(None), masked, mask_of))
    return answerable, lanes


def _search(
    session: Session, states: Tensor, lanes: list[Lane], beam_limit: Tensor, norm: Norm, dropped: list[Dropped] | None
) -> _Beams:
    """Grow prefixes code by code; return the beams at the leaves, and what they left in `dropped`, if it is a list."""
    num_requests = len(beam_limit)
    start = torch.zeros((num_requests, 1), dtype=torch.int64, device=states.device)
    beams = _Beams(start.float(), start, start, start)
    state_of = torch.arange(num_requests, device=states.device)[:, None]  # row of `states` of each beam, shape (B, K)
    num_levels = lanes[0].trie.num_levels
    for level in range(num_levels):
        partition = session.log_partition(states) if norm == "vocab" else None
        limits = beam_limit if dropped is None else None  # what is dropped and looked behind must be known too
        found, first_token = _candidates(session, states, partition, state_of, lanes, level, beams, limits)
        scores, nodes, codes, keys = found
        # Keep the best of each request, best first; as many columns as the fullest request needs.
        flat = keys.flatten(1)
        best, index = flat.topk(min(int(beam_limit.max()), flat.shape[1]))
        # A request with fewer beams than the widest one keeps only its own number.
        best = torch.where(torch.arange(best.shape[1], device=best.device) < beam_limit[:, None], best, _NEVER)
        used = max(1, int((best > _NEVER).sum(1).max()))
        best, index = best[:, :used], index[:, :used]
        if dropped is not None:
            left = F.pad(flat, (0, 1)).scatter(1, torch.where(best > _NEVER, index, flat.shape[1]), _NEVER)
            dropped.append(Dropped(left[:, :-1], scores.flatten(1), nodes.flatten(1)))
        if keys is not scores:
            best = torch.where(best > _NEVER, scores.flatten(1).gather(1, index), _NEVER)
        beams = _Beams(
            scores=best,
            nodes=nodes.flatten(1).gather(1, index),
            tokens=codes.flatten(1).gather(1, index) + first_token,
            parents=torch.div(index, scores.shape[-1], rounding_mode="floor"),
        )
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
    limits: Tensor | None,
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Score the children of all beams.

    Returns:
        `tuple`: Scores, nodes, codes and what beams are chosen by of shape `(B, K, M)` (scores minus infinity where
        there is no allowed child), and the token id of code 0 for each request, shape `(B, 1)`.
    """
    first_token = torch.zeros((len(state_of), 1), dtype=torch.int64, device=states.device)
    parts = []
    blocks: dict[tuple[int, int], Tensor] = {}  # lanes share blocks where views share levels
    for lane in lanes:
        first, size = lane.offsets[level], lane.trie.codebook_sizes[level]
        if (first, size) not in blocks:
            logits = session.block_logits(states, first, size)
            blocks[first, size] = logits.log_softmax(-1) if partition is None else logits - partition[:, None]
        log_probs = blocks[first, size]
        first_token[lane.members] = first
        nodes = beams.nodes[lane.members]
        # At the root all requests have the same children, and there may be millions.
        children = lane.trie.children(level, nodes if level else nodes[:1])
        is_open = children.is_real
        for mask, positions in lane.masks:
            if len(positions) == len(nodes):
                is_open = is_open & mask.is_open(level + 1, children.nodes)
            else:
                is_open = is_open.expand(len(nodes), -1, -1).clone()
                is_open[positions] &= mask.is_open(level + 1, children.nodes[positions if level else slice(None)])
        gathered = log_probs[state_of[lane.members][..., None], children.codes]
        scores = torch.where(is_open, beams.scores[lane.members][..., None] + gathered, _NEVER)
        keys = scores
        if lane.bounds is not None:
            own, lines = None if limits is None else limits[lane.members], torch.arange(len(nodes)).to(nodes)
            keys = lane.bounds.keys(level + 1, lines, scores, children.nodes, own)
        parts.append((scores, children.nodes.expand_as(scores), children.codes.expand_as(scores), keys))
    if len(lanes) == 1:
        return parts[0], first_token
    shape = (*state_of.shape, max(scores.shape[-1] for scores, *_ in parts))
    merged = [part.new_full(shape, fill) for part, fill in zip(parts[0], [_NEVER, 0, 0, _NEVER], strict=True)]
    for lane, part in zip(lanes, parts, strict=True):
        for whole, values in zip(merged, part, strict=True):
            whole[lane.members, :, : values.shape[-1]] = values
    return (merged[0], merged[1], merged[2], merged[0] if lanes[0].bounds is None else merged[3]), first_token


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
