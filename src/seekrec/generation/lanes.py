# SPDX-License-Identifier: Apache-2.0
"""Requests that differ in one batch: what each may return, grouped so that equal things are computed once."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from seekrec.errors import RequestError
from seekrec.generation.inputs import check_level_offsets
from seekrec.generation.masks import TrieMask
from seekrec.generation.trie import IdentifierTrie
from seekrec.schema import shown


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
        """Give the rows of the members, of one row for each request being decoded."""
        return values if len(self.members) == len(values) else values[self.members]


def per_request(name: str, value: object, num_requests: int) -> np.ndarray:
    """Give each request its number.

    Args:
        name (`str`): Of the argument.
        value (`int` or `Sequence[int]`): A whole number of any type for all requests, or one for each.
        num_requests (`int`): Requests.

    Returns:
        `np.ndarray`: int64 of shape `(num_requests,)`.

    Raises:
        RequestError: If one is not positive, or there is not one for each request.
    """
    plain = value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value
    given: list[object] = list(plain) if isinstance(plain, Sequence) else [plain] * num_requests
    numbers = np.array(given if all(map(_is_count, given)) else [0], dtype=np.int64)
    if numbers.shape != (num_requests,) or (numbers < 1).any():
        raise RequestError(
            f"`{name}` is {shown(value)}; pass a positive number, or one for each of the {num_requests} requests of "
            "the batch."
        )
    return numbers


def _is_count(value: object) -> bool:
    # Whole numbers of any kind, numpy's too; True is none.
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, SupportsIndex):
        return False
    try:
        return 0 < operator.index(value) < 2**31
    except TypeError:
        return False


def check_tries(trie: IdentifierTrie | Sequence[IdentifierTrie], num_requests: int) -> list[IdentifierTrie]:
    """Give each request its trie.

    Raises:
        RequestError: If there is not one for each request, or their depths differ.
    """
    tries = [trie] * num_requests if isinstance(trie, IdentifierTrie) else list(trie)
    if len(tries) != num_requests:
        raise RequestError(f"`trie` has {len(tries)} entries for {num_requests} requests; pass one, or one for each.")
    depths = {one.num_levels for one in tries}
    if len(depths) > 1:
        raise RequestError(
            f"The tries of one batch have identifiers of {sorted(depths)} levels; call once for each length."
        )
    return tries


def check_masks(
    masks: TrieMask | np.ndarray | Sequence[TrieMask | np.ndarray | None] | None, tries: list[IdentifierTrie]
) -> list[TrieMask | None]:
    """Give each request its mask; `None` where everything is allowed.

    Raises:
        RequestError: If there is not one for each request, or one does not belong to the request's trie.
    """
    if masks is None or isinstance(masks, (TrieMask, np.ndarray, Tensor)):
        each: list[TrieMask | np.ndarray | None] = [masks] * len(tries)
    else:
        each = list(masks)
    if len(each) != len(tries):
        raise RequestError(f"`masks` has {len(each)} entries for {len(tries)} requests; pass one, or one for each.")
    checked: list[TrieMask | None] = []
    for index, (mask, trie) in enumerate(zip(each, tries, strict=True)):
        made = mask if mask is None or isinstance(mask, TrieMask) else trie.mask(mask)
        if made is not None and not trie.owns(made):
            raise RequestError(
                f"The mask of request {index} was made by another trie; make it with `trie.mask(where)` of the trie "
                "searched."
            )
        checked.append(None if made is None or made.num_allowed == trie.num_items else made)
    return checked


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
