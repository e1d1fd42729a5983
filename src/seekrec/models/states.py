# SPDX-License-Identifier: Apache-2.0
"""States: encoded histories that answer any number of requests, and can be extended and joined.

Each family stores its own kind: [`StreamState`], [`HistoryState`]. This module defines what all states can do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, NoReturn, Protocol, Self, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature

from seekrec.errors import RequestError
from seekrec.util.files import replace_file


class State(Protocol):
    """Histories that a model has read, a row per user."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""

    def select(self, rows: Tensor) -> Self:
        """Return the states of some rows, in the order asked."""

    def compact(self) -> Self:
        """Remove padding that no row needs, for example after `select`."""

    def join(self, others: Sequence[Self]) -> Self:
        """Concatenate states of other users along the batch dimension; nothing is read again."""


StateT = TypeVar("StateT", bound=State)


class StatefulModel(Generic[StateT]):
    """A model that reads histories once. A state belongs to the weights and the catalogue that it was read with."""

    @abstractmethod
    def encode_history(self, inputs: BatchFeature) -> StateT:
        """Read the histories of requests once, to answer from them any number of times.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of requests.

        Returns:
            [`State`]: Pass it as `state=` to `retrieve` and `rank`, or to [`extend`].

        Raises:
            RequestError: If the model, as it was configured, reads the history again for each request.
        """

    @abstractmethod
    def extend(self, state: StateT, inputs: BatchFeature) -> StateT:
        """Read further events behind histories; equal to reading the latest of all at once.

        Args:
            state ([`State`]): What was read.
            inputs ([`~transformers.BatchFeature`]): What `processor.events` made of the further events.

        Returns:
            [`State`]: The state of all events.

        Raises:
            RequestError: If the events are of another number of users, or one is older than the last of the state.
        """

    @abstractmethod
    def save_state(self, state: StateT, path: str | Path) -> None:
        """Write a state as one safetensors file.

        The file contains what was read, not what the weights made of it: it fits whatever weights read it again.

        Args:
            state ([`State`]): What was read.
            path (`str` or `Path`): The file.
        """

    @abstractmethod
    def load_state(self, path: str | Path) -> StateT:
        """Read what [`save_state`] wrote, with the weights and the catalogue as they are now.

        Args:
            path (`str` or `Path`): The file.

        Returns:
            [`State`]: As if its events had been read now.

        Raises:
            DataError: If the file is damaged or something else.
            RequestError: If it names items that the catalogue does not hold, or the model keeps no states.
        """

    def join_states(self, states: Sequence[StateT]) -> StateT:
        """Put the states of several users, or of several batches of them, into one batch, in the order given.

        Nothing is read again.

        Args:
            states (`Sequence[State]`): At least one.

        Returns:
            [`State`]: The state of all users.

        Raises:
            RequestError: If there is none.
        """
        if not states:
            raise RequestError("`states` is empty; pass at least one.")
        with torch.no_grad():
            return states[0].join(states[1:]) if len(states) > 1 else states[0]


def save_tensors(path: str | Path, kind: str, tensors: Mapping[str, Tensor]) -> None:
    """Write what was read as one safetensors file that says what kind of state it is."""
    arrays = {name: value.cpu().contiguous() for name, value in tensors.items()}
    with replace_file(Path(path)) as temporary:
        save_file(arrays, temporary, metadata={"format": kind, "version": "1"})


def load_tensors(path: str | Path, kind: str) -> dict[str, Tensor]:
    """Read what [`save_tensors`] wrote.

    Raises:
        ValueError: If the file is of another kind.
        SafetensorError: If it is no such file.
    """
    with safe_open(path, framework="pt") as file:
        found = (file.metadata() or {}).get("format")
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
    if found != kind:
        raise ValueError(f"its format is {found!r}")
    return tensors


def check_num_requests(num_users: int, num_requests: int) -> None:
    """Refuse a state of another number of users than there are requests.

    Raises:
        RequestError: If they differ.
    """
    if num_users != num_requests:
        raise RequestError(
            f"`state` contains the histories of {num_users} users for {num_requests} requests; pass one for each, "
            "`state.select(rows)` picks and repeats them."
        )


def check_num_histories(num_users: int, num_lists: int) -> None:
    """Refuse events of another number of users than a state holds.

    Raises:
        RequestError: If they differ.
    """
    if num_users != num_lists:
        raise RequestError(
            f"The state contains the histories of {num_users} users, the events are of {num_lists}; pass a list of "
            "events for each, `state.select(rows)` picks and repeats users."
        )


def refuse_earlier(row: int, before: int, timestamp: int) -> NoReturn:
    """Refuse an event that is older than the one that it follows.

    Args:
        row (`int`): The user.
        before (`int`): Timestamp of the event before it.
        timestamp (`int`): Its own.
    """
    raise RequestError(
        f"An event of user {row} has timestamp {timestamp}, the one before it {before}: a state accepts later events "
        "only. Leave it out, or encode the whole history again in order."
    )


def fill_below(parts: Sequence[Tensor], fill: float = 0, *, at_front: bool = False) -> Tensor:
    """Put batches below each other; what is smaller is filled up at the end, or at the front, of a dimension."""
    sizes = [max(part.shape[dim] for part in parts) for dim in range(parts[0].ndim)]
    padded = []
    for part in parts:
        missing = [size - own for size, own in zip(sizes[:0:-1], part.shape[:0:-1], strict=True)]
        sides = [(count, 0) if at_front else (0, count) for count in missing]
        padded.append(F.pad(part, [one for side in sides for one in side], value=fill))
    return torch.cat(padded)


__all__ = [
    "State",
    "StateT",
    "StatefulModel",
    "check_num_histories",
    "check_num_requests",
    "fill_below",
    "load_tensors",
    "refuse_earlier",
    "save_tensors",
]
