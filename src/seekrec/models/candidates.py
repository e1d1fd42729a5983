# SPDX-License-Identifier: Apache-2.0
"""What every processor checks of the requests and candidates it is given."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seekrec.errors import ConfigurationError, RequestError, UnknownItemError
from seekrec.events.columns import history_rows
from seekrec.schema import Event, IdMap, Request, shown
from seekrec.util.ragged import Ragged

logger = logging.getLogger(__name__)

# What a processor does with events whose items its catalogue does not hold.
Unknown = Literal["skip", "raise"]

# Items that a message names.
_MAX_NAMED = 5


def check_unknown(unknown: str) -> Unknown:
    """Give what is done with items of a history that the catalogue does not hold.

    Raises:
        ConfigurationError: If it is neither `"skip"` nor `"raise"`.
    """
    for choice in get_args(Unknown):
        if unknown == choice:
            chosen: Unknown = choice
            return chosen
    raise ConfigurationError(f"`unknown` is {unknown!r}; use one of {', '.join(get_args(Unknown))}.")


def check_requests(requests: Request | Iterable[Request], return_tensors: str = "pt") -> list[Request]:
    """Give a list of requests.

    Args:
        requests ([`Request`] or a list of them): What a processor was called with.
        return_tensors (`str`): Only `"pt"`.

    Returns:
        `list[Request]`: At least one.

    Raises:
        RequestError: If there is none, an entry is none, or `return_tensors` is unknown.
    """
    if not isinstance(requests, Iterable) and not isinstance(requests, Request):
        raise RequestError(f"`requests` is {shown(requests)}; give a seekrec.Request, or a list of them.")
    asked = [requests] if isinstance(requests, Request) else list(requests)
    if not asked:
        raise RequestError("`requests` is empty; give at least one.")
    for position, request in enumerate(asked):
        if not isinstance(request, Request):
            raise RequestError(f"`requests[{position}]` is a {type(request).__name__}; give a seekrec.Request.")
    if return_tensors != "pt":
        raise RequestError(f"`return_tensors` is {shown(return_tensors)}; only 'pt' exists.")
    return asked


def known_histories(requests: Sequence[Request], id_map: IdMap, unknown: Unknown) -> list[Request]:
    """Give requests whose histories name items of the catalogue only.

    Args:
        requests (`Sequence[Request]`): What was asked.
        id_map ([`IdMap`]): Of the catalogue.
        unknown (`str`): `"skip"` leaves events with other items out and logs how many, so that one does not keep a
            whole batch from its answers; `"raise"` refuses them.

    Raises:
        UnknownItemError: With `"raise"`, if there is one.
    """
    kept = known_events([request.history for request in requests], id_map, unknown)
    return [
        request if len(events) == len(request.history) else replace(request, history=events)
        for request, events in zip(requests, kept, strict=True)
    ]


def known_events(histories: Sequence[Sequence[Event]], id_map: IdMap, unknown: Unknown) -> list[list[Event]]:
    """Give the events whose items the catalogue holds, and those without an item; see [`known_histories`]."""
    kept = [[event for event in events if event.item_id is None or event.item_id in id_map] for events in histories]
    lost = [number for number, events in enumerate(histories) if len(kept[number]) < len(events)]
    if lost:
        first = next(event.item_id for event in histories[lost[0]] if event not in kept[lost[0]])
        count = sum(map(len, histories)) - sum(map(len, kept))
        found = f"{count} events of {len(lost)} of {len(histories)} histories have items that the catalogue lacks"
        if unknown == "raise":
            raise UnknownItemError(
                f"{found}, the first is {first!r} in history {lost[0]}; add the items to the catalogue, leave the "
                "events out, or make the processor with `unknown='skip'`."
            )
        logger.warning("%s, the first is %r; they are left out.", found, first)
    return kept


def candidate_rows(candidates: Sequence[Sequence[str]], num_requests: int, id_map: IdMap) -> NDArray[np.int64]:
    """Turn candidates into rows of the catalogue.

    Args:
        candidates (`list[list[str]]`): Item ids, a list for each request.
        num_requests (`int`): Requests.
        id_map ([`IdMap`]): Of the catalogue.

    Returns:
        `np.ndarray`: int64 of shape `(num_requests, most_candidates)`, at least one column, -1 for padding.

    Raises:
        RequestError: If there is not a list for each request, an entry is no item id, or an item is named twice.
        UnknownItemError: If a candidate is not in the catalogue.
    """
    if isinstance(candidates, str) or not isinstance(candidates, (Sequence, np.ndarray)):
        raise RequestError(f"`candidates` is {shown(candidates)}; give a list of item ids for each request.")
    if len(candidates) != num_requests:
        raise RequestError(f"`candidates` has {len(candidates)} lists for {num_requests} requests; give one for each.")
    lines = [_check_candidates(line, position) for position, line in enumerate(candidates)]
    rows = []
    for position, line in enumerate(lines):
        found = id_map.convert_to_rows(line, strict=False)
        if (found < 0).any():
            unknown = [item for item, row in zip(line, found.tolist(), strict=True) if row < 0]
            named = ", ".join(map(repr, unknown[:_MAX_NAMED])) + (", ..." if len(unknown) > _MAX_NAMED else "")
            raise UnknownItemError(
                f"`candidates[{position}]` names {len(unknown)} items that the catalogue lacks: {named}; add the "
                "items to the catalogue or leave them out."
            )
        rows.append(found)
    return Ragged.from_arrays(rows).pad(-1, width=1)


def _check_candidates(line: object, position: int) -> list[str]:
    if isinstance(line, str):
        raise RequestError(f"`candidates[{position}]` is the text {shown(line)}; give a list of item ids.")
    if not isinstance(line, Iterable):
        raise RequestError(f"`candidates[{position}]` is {shown(line)}; give a list of item ids.")
    items = list(line)
    for item in items:
        if not isinstance(item, str):
            raise RequestError(
                f"`candidates[{position}]` holds {shown(item)} of type {type(item).__name__}; item ids are text."
            )
    if len(set(items)) != len(items):
        twice = next(one for one in items if items.count(one) > 1)
        raise RequestError(f"`candidates[{position}]` names {twice!r} more than once; name each item once.")
    return items


def seen_rows(requests: Sequence[Request], id_map: IdMap) -> NDArray[np.int64]:
    """Give what the users of requests acted on, be it more than a model reads of a history.

    Returns:
        `np.ndarray`: int64 rows of the catalogue, of shape `(num_requests, most_seen)`, at least one column, -1 for
        padding.
    """
    return history_rows(requests, id_map).pad(-1, width=1)


__all__ = [
    "Unknown",
    "candidate_rows",
    "check_requests",
    "check_unknown",
    "known_events",
    "known_histories",
    "seen_rows",
]
