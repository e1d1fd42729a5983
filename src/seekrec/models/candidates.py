# SPDX-License-Identifier: Apache-2.0
"""What every processor checks of the requests and candidates it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seekrec.errors import RequestError
from seekrec.events.histories import history_rows
from seekrec.schema import IdMap, Request


def check_requests(requests: Request | Sequence[Request], return_tensors: str = "pt") -> list[Request]:
    """Give a list of requests.

    Args:
        requests ([`Request`] or a list of them): What a processor was called with.
        return_tensors (`str`): Only `"pt"`.

    Returns:
        `list[Request]`: At least one.

    Raises:
        RequestError: If there is none, an entry is none, or `return_tensors` is unknown.
    """
    asked = [requests] if isinstance(requests, Request) else list(requests)
    if not asked:
        raise RequestError("`requests` is empty; give at least one.")
    for position, request in enumerate(asked):
        if not isinstance(request, Request):
            raise RequestError(f"`requests[{position}]` is a {type(request).__name__}; give a seekrec.Request.")
    if return_tensors != "pt":
        raise RequestError(f"`return_tensors` is {return_tensors!r}; only 'pt' exists.")
    return asked


def candidate_rows(candidates: Sequence[Sequence[str]], num_requests: int, id_map: IdMap) -> NDArray[np.int64]:
    """Turn candidates into rows of the catalogue.

    Args:
        candidates (`list[list[str]]`): Item ids, a list for each request.
        num_requests (`int`): Requests.
        id_map ([`IdMap`]): Of the catalogue.

    Returns:
        `np.ndarray`: int64 of shape `(num_requests, most_candidates)`, at least one column, -1 for padding.

    Raises:
        RequestError: If there is not a list for each request, or an item is named twice.
        UnknownItemError: If a candidate is not in the catalogue.
    """
    if len(candidates) != num_requests:
        raise RequestError(f"`candidates` has {len(candidates)} lists for {num_requests} requests; give one for each.")
    for position, line in enumerate(candidates):
        if isinstance(line, str):
            raise RequestError(f"`candidates[{position}]` is the text {line!r}; give a list of item ids.")
        if len(set(line)) != len(line):
            twice = next(one for one in line if list(line).count(one) > 1)
            raise RequestError(f"`candidates[{position}]` names {twice!r} more than once; name each item once.")
    rows = np.full((num_requests, max([1, *map(len, candidates)])), -1, dtype=np.int64)
    for position, line in enumerate(candidates):
        rows[position, : len(line)] = id_map.convert_to_rows(line)
    return rows


def seen_rows(requests: Sequence[Request], id_map: IdMap) -> NDArray[np.int64]:
    """Give what the users of requests acted on, be it more than a model reads of a history.

    Returns:
        `np.ndarray`: int64 rows of the catalogue, of shape `(num_requests, most_seen)`, at least one column, -1 for
        padding.
    """
    offsets, items = history_rows(requests, id_map)
    lengths = np.diff(offsets)
    rows = np.full((len(requests), max(1, int(lengths.max(initial=0)))), -1, dtype=np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = items
    return rows


__all__ = ["candidate_rows", "check_requests", "seen_rows"]
