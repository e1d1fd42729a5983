# SPDX-License-Identifier: Apache-2.0
"""Cache the encoded histories of users: within a memory limit, extended by new events.

A state covers the window of a history that the model reads: the latest N events, or N of each behavior. In a longer
history the window starts at an event whose number is a multiple of N / 4, so that it moves at most once in N / 4
events and is read again only then; it depends on the history alone, so all processes read the same window. A short
window moves with each event: reading it again costs no more than reading one event.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeGuard

import torch
from transformers import BatchFeature

from seekrec.catalog import Catalog
from seekrec.models.answers import ExcludeSeen, Where
from seekrec.models.states import State
from seekrec.models.views import Boost
from seekrec.schema import SEARCH, Behavior, Event, Request, ScoredItem
from seekrec.serving.histories import KeptHistory
from seekrec.serving.metrics import Metrics
from seekrec.util.ragged import Ragged

# A window moves by this share of its length.
_STEPS_OF_A_WINDOW = 4
# The longest window that moves with each event.
_SHORT_WINDOW = 32


class StateModel(Protocol):
    """A model that reads histories once; see [`~seekrec.models.dense.DenseRetrieval`]."""

    @property
    def keeps_states(self) -> bool:
        """Whether it does, as it is configured."""

    def encode_history(self, inputs: BatchFeature) -> State:
        """Read histories."""

    def extend(self, state: State, inputs: BatchFeature) -> State:
        """Read further events behind them."""

    def join_states(self, states: Sequence[State]) -> State:
        """Put the states of users into one batch."""

    def retrieve(
        self,
        inputs: BatchFeature,
        *,
        top_k: int | Sequence[int],
        where: Where,
        exclude_seen: ExcludeSeen,
        boost: Boost,
        state: State,
    ) -> list[list[ScoredItem]]:
        """Find items."""

    def rank(self, inputs: BatchFeature, *, state: State) -> list[list[ScoredItem]]:
        """Order items."""


class StateProcessor(Protocol):
    """A processor of such a model."""

    @property
    def history_limits(self) -> Mapping[Behavior | None, int]:
        """How many of the latest events are read, by behavior; `None` is any."""

    def __call__(self, requests: Sequence[Request]) -> BatchFeature:
        """Lay out requests."""

    def events(self, histories: Sequence[Sequence[Event]]) -> BatchFeature:
        """Lay out events that follow a state."""


def keeps_states(model: object) -> TypeGuard[StateModel]:
    """Return whether a model reads histories once."""
    return bool(getattr(model, "keeps_states", False))


@dataclass(eq=False)
class _Kept:
    state: State
    number: int  # events of the store that it has seen
    starts: tuple[int, ...]  # for each limit the place among all events from which on they are read, from 0
    has_unknown: bool  # whether an event was left out, because the catalogue lacks its item


class UserStates:
    """The states of one model. One thread uses them.

    Args:
        model ([`StateModel`]): The model.
        processor ([`StateProcessor`]): Its processor.
        max_bytes (`int`): What all states may take.
        metrics ([`Metrics`], *optional*): Where it is counted.
    """

    def __init__(
        self, model: StateModel, processor: StateProcessor, max_bytes: int, metrics: Metrics | None = None
    ) -> None:
        self._model, self._processor, self._max_bytes, self._metrics = model, processor, max_bytes, metrics
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    def use(self, model: StateModel, processor: StateProcessor, has_grown: bool) -> None:
        """Go on with the same model over another catalogue.

        Args:
            model ([`StateModel`]): The model, with that catalogue.
            processor ([`StateProcessor`]): Its processor.
            has_grown (`bool`): Whether it has more items: events that were left out may be known now.
        """
        self._model, self._processor = model, processor
        if has_grown:
            for user_id in [user_id for user_id, one in self._kept.items() if one.has_unknown]:
                self._forget(user_id)

    @torch.no_grad()
    def read(self, histories: Sequence[KeptHistory], catalog: Catalog) -> State:
        """Return the state of each history: kept, extended, or read again.

        Args:
            histories (`Sequence[KeptHistory]`): At least one; the same user may be there twice.
            catalog ([`Catalog`]): The items that are answered from.
        """
        of_users: dict[str, KeptHistory] = {}
        for one in histories:
            other = of_users.setdefault(one.user_id, one)
            if one.number > other.number:
                of_users[one.user_id] = one
        anew: list[KeptHistory] = []
        behind: list[tuple[KeptHistory, tuple[Event, ...]]] = []
        for user_id, history in of_users.items():
            kept, new = self._kept.get(user_id), None
            if kept is not None and (kept.number == history.number or kept.starts == self._starts(history, catalog)):
                new = history.after(kept.number)
            if new is None:
                anew.append(history)
            elif new:
                behind.append((history, new))
            else:
                self._kept.move_to_end(user_id)
            self._count("miss" if new is None else "extended" if new else "hit")
        if behind:
            states = self._model.join_states([self._kept[history.user_id].state for history, _ in behind])
            extended = self._model.extend(states, self._processor.events([new for _, new in behind]))
            self._keep([history for history, _ in behind], [new for _, new in behind], extended, catalog)
        if anew:
            states = self._model.encode_history(self._window_inputs(anew, catalog))
            self._keep(anew, [one.events for one in anew], states, catalog)
        found = self._model.join_states([self._kept[one.user_id].state for one in histories])
        self._shrink()
        return found

    def _starts(self, history: KeptHistory, catalog: Catalog) -> tuple[int, ...]:
        """Return for each limit the place of the first event that the model reads, from 0.

        As the processor counts, which leaves out impressions, events of items that the catalogue lacks, and those
        that are neither of an item nor a search.
        """
        known = catalog.id_map.rows
        start, starts = history.number - len(history.events), []
        for behavior, longest in self._processor.history_limits.items():
            step = 1 if longest <= _SHORT_WINDOW else longest // _STEPS_OF_A_WINDOW
            places = (
                start + place
                for place in range(len(history.events) - 1, -1, -1)
                if behavior in (None, (event := history.events[place]).behavior)
                and not event.is_impression
                and (event.item_id in known or (event.item_id is None and event.behavior == SEARCH))
            )
            first = next(islice(places, longest, None), start - 1) + 1 if longest else start
            starts.append(-(-first // step) * step)
        return tuple(starts)

    def _window(self, history: KeptHistory, catalog: Catalog) -> list[Event]:
        """Return the events that the model reads, and those between them."""
        starts = dict(zip(self._processor.history_limits, self._starts(history, catalog), strict=True))
        places = enumerate(history.events, history.number - len(history.events))
        return [event for place, event in places if place >= starts.get(event.behavior, starts.get(None, 0))]

    def _window_inputs(self, histories: Sequence[KeptHistory], catalog: Catalog) -> BatchFeature:
        """Lay out the windows of histories; what was seen before them is seen, too."""
        windows = [self._window(one, catalog) for one in histories]
        inputs = self._processor([Request(window) for window in windows])
        seen = [
            catalog.id_map.convert_to_rows(
                [event.item_id for event in one.events if event.item_id is not None and not event.is_impression],
                strict=False,
            )
            for one in histories
        ]
        inputs["seen_rows"] = torch.from_numpy(Ragged.from_arrays(seen).pad(-1, width=1))
        return inputs

    def _keep(
        self,
        histories: Sequence[KeptHistory],
        read: Sequence[Sequence[Event]],
        states: State,
        catalog: Catalog,
    ) -> None:
        """Keep the state of each history, of which some events were read now."""
        known = catalog.id_map.rows
        for row, (history, events) in enumerate(zip(histories, read, strict=True)):
            old = self._forget(history.user_id)
            state = (states.select(torch.tensor([row])) if len(histories) > 1 else states).compact()
            has_unknown = any(one.item_id is not None and one.item_id not in known for one in events)
            has_unknown |= old is not None and old.has_unknown
            self._kept[history.user_id] = _Kept(state, history.number, self._starts(history, catalog), has_unknown)
            self._bytes += state.nbytes

    def _forget(self, user_id: str) -> _Kept | None:
        old = self._kept.pop(user_id, None)
        if old is not None:
            self._bytes -= old.state.nbytes
        return old

    def _shrink(self) -> None:
        """Forget those who asked longest ago, until the rest has room."""
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))
        if self._metrics is not None:
            self._metrics.state_bytes.set(self._bytes)

    def _count(self, result: str) -> None:
        if self._metrics is not None:
            self._metrics.cache.labels("state", result).inc()


__all__ = ["StateModel", "StateProcessor", "UserStates", "keeps_states"]
