# SPDX-License-Identifier: Apache-2.0
"""Histories that are read once: states that are asked about, grow, are joined and saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seekrec.errors import RequestError
from seekrec.models.dense.catalog_items import CatalogItems
from seekrec.models.dense.read_events import ReadEvents


class HistoryStatesMixin:
    """What a family of vectors does with its `HistoryState`; the family defines [`read_events`]."""

    def read_events(self, inputs: Any, state: Any, items: CatalogItems) -> Any:
        """Read the `history_*` tensors behind a state, or from the start where it is None; gives the state after."""
        raise TypeError(f"{type(self).__name__} must define `read_events`.")

    def current_items(self) -> CatalogItems:
        """Give what a call answers from that begins now; see [`DenseRetrievalMixin`]."""
        raise TypeError(f"{type(self).__name__} must define `current_items`.")

    @torch.no_grad()
    def encode_history(self, inputs: Any) -> Any:
        """Read the histories of requests once, to answer from them any number of times.

        A state is of the weights and the catalogue that it was read with.

        Args:
            inputs ([`~transformers.BatchFeature`]): What the processor made of requests.

        Returns:
            The family's `HistoryState`: pass it as `state=` to `retrieve` and `rank`, or to [`extend`].
        """
        return self._read_all(ReadEvents.from_inputs(self._move(inputs)), self.current_items())

    @torch.no_grad()
    def extend(self, state: Any, inputs: Any) -> Any:
        """Read further events behind histories; equal to reading the latest `max_history` of all at once.

        Only the new events are read, unless older ones fall out of `max_history` or a page view goes on that other
        events stand after: what those saw would be another, so all are read again.

        Args:
            state (`HistoryState`): What was read.
            inputs ([`~transformers.BatchFeature`]): What `processor.events` made of the further events.

        Returns:
            The `HistoryState` of all events.

        Raises:
            RequestError: If the events are of another number of users, or one is older than the last of the state.
        """
        config: Any = self.config  # type: ignore[attr-defined]
        items = self.current_items()
        new = ReadEvents.from_inputs(self._move(inputs))
        events = state.events.append(new)
        if int(events.lengths.max()) > config.max_history:
            return self._read_all(events.latest(config.max_history), items)
        before = state.events.columns["history_mask"]
        numbers = (one.columns["history_session_ids"][:, : before.shape[1]] for one in (state.events, events))
        is_same = torch.equal(*(torch.where(before, number, 0) for number in numbers))
        if not is_same or not before.shape[1]:
            return self._read_all(events, items)
        # The new events with the numbers that their sessions have among all.
        mask = new.columns["history_mask"]
        places = (state.events.lengths[:, None] + mask.long().cumsum(1) - 1).clamp_min(0)
        session = events.columns["history_session_ids"].gather(1, places)
        read = self._read({**new.inputs, "history_session_ids": session}, state, items)
        return replace(read, events=events)

    @torch.no_grad()
    def join_states(self, states: Sequence[Any]) -> Any:
        """Put the states of several users, or of several batches of them, into one batch, in the order given.

        Args:
            states (`Sequence[HistoryState]`): At least one.

        Returns:
            The `HistoryState` of all users.

        Raises:
            RequestError: If there is none.
        """
        if not len(states):
            raise RequestError("`states` is empty; give at least one.")
        return self._read_all(ReadEvents.join([state.events for state in states]), self.current_items())

    def save_state(self, state: Any, path: str | Path) -> None:
        """Write a state as one safetensors file.

        The file holds what was read, as rows of the catalogue, vectors of queries and digests of page views, not what
        the weights made of it: it fits whatever weights read it again.
        """
        state.events.save(path)

    @torch.no_grad()
    def load_state(self, path: str | Path) -> Any:
        """Read what [`save_state`] wrote, with the weights and the catalogue as they are now.

        Raises:
            DataError: If the file is damaged or something else.
            RequestError: If it names items that the catalogue does not hold.
        """
        events = ReadEvents.load(path)
        device: torch.device = self.device  # type: ignore[attr-defined]
        moved = {name: column.to(device) for name, column in events.columns.items()}
        events = ReadEvents(moved, events.query_vectors.to(device), events.seen_rows.to(device))
        return self._read_all(events, self.current_items())

    def with_state(self, inputs: Any, state: Any, items: CatalogItems) -> tuple[dict[str, Any], Any]:
        """Bring inputs to the device; read their history, or put questions about a state behind its last event.

        A question about a page view that the state holds events of is asked as within it.

        Raises:
            RequestError: If the state is of another number of users than the requests.
        """
        inputs = self._move(inputs)
        if state is None:
            return inputs, self._read(inputs, None, items)
        shape = inputs["question_events"]
        if len(state.events) != len(shape):
            raise RequestError(
                f"`state` holds the histories of {len(state.events)} users for {len(shape)} requests; give one for "
                "each, `state.select(rows)` picks and repeats them."
            )
        items.snapshot.check_rows("state", state.places.item)
        keys = inputs.get("question_session_keys")
        keys = torch.full_like(shape, -1) if keys is None else keys
        events, session = state.events.ask_within(keys[:, 0])
        if events is not state.events:
            state = replace(self._read(events.inputs, None, items), events=events)
        times = torch.maximum(inputs["question_timestamps"], events.last("history_timestamps", 0)[:, None])
        return {
            **inputs,
            "question_events": events.lengths[:, None].expand_as(shape),
            "question_session_ids": session[:, None].expand_as(shape),
            "question_timestamps": times,
        }, state

    def _read_all(self, events: ReadEvents, items: CatalogItems) -> Any:
        return replace(self._read(events.inputs, None, items), events=events)

    def _read(self, inputs: Any, state: Any, items: CatalogItems) -> Any:
        items.snapshot.check_rows("history_item_rows", inputs["history_item_rows"])
        return self.read_events(inputs, state, items)

    def _move(self, inputs: Any) -> dict[str, Any]:
        device: torch.device = self.device  # type: ignore[attr-defined]
        return {name: value.to(device) for name, value in inputs.items()}


__all__ = ["HistoryStatesMixin"]
