# SPDX-License-Identifier: Apache-2.0
"""The tokens of IntSR (section 3.1): S opens a session, then for each event Q (what was searched for), I and F.

```
S  Q  I  F     I  F     S  I  F        events 1 and 2 share a session; 1 was searched for
0  1  2  3     4  5     6  7  8        positions
```

With `merge_event_tokens` an event is one token, the sum of its parts. Placeholders are no part of this: they stand in
the second stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seekrec.models.dense.item_tower import TextProjection
from seekrec.models.dense.read_events import ReadEvents
from seekrec.models.intsr.configuration_intsr import IntSRConfig
from seekrec.models.intsr.modeling_intsr_blocks import Places

_HOUR, _DAY = 3600, 86_400
# What a placeholder asks: anything, items for a query, or how good one item is.
UNIVERSAL, SEARCHED, CANDIDATE = range(3)


@dataclass(frozen=True)
class HistoryState:
    """A history that was read: what later tokens and placeholders need of it. Each row is one user.

    Args:
        places (`Places`): Where its tokens stand, `(batch, length)`.
        keys (`tuple[torch.Tensor, ...]`): For each block `(batch, num_heads, length, head_size)`.
        values (`tuple[torch.Tensor, ...]`): Likewise.
        outputs (`torch.Tensor`, *optional*): What the last block gives, `(batch, length, hidden_size)`; plain HSTU
            alone needs it.
        num_events (`torch.Tensor`): int64 events read, `(batch,)`.
        events ([`ReadEvents`], *optional*): Those events; there in what a model gives to its callers.
    """

    places: Places
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    outputs: Tensor | None
    num_events: Tensor
    events: ReadEvents | None = None

    def last(self, name: str) -> Tensor:
        """Give the largest `session` or `time` of each row, int64 `(batch,)`; -1 without a token."""
        values = getattr(self.places, name).masked_fill(~self.places.is_real, -1)
        return values.amax(1) if values.shape[1] else values.new_full((len(values),), -1)

    def select(self, rows: Tensor) -> HistoryState:
        """Give the states of some rows, in the order asked."""
        return HistoryState(
            Places(**{name: value[rows] for name, value in vars(self.places).items()}),
            tuple(part[rows] for part in self.keys),
            tuple(part[rows] for part in self.values),
            None if self.outputs is None else self.outputs[rows],
            self.num_events[rows],
            None if self.events is None else self.events.select(rows),
        )


class TokenEmbedder(nn.Module):
    """Events, scenarios and questions to vectors."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        self.config = config
        size, features = config.hidden_size, config.scenario_features
        # As in SASRec, rows start small for the sake of the output and are scaled up at the input.
        self.scale = size**0.5
        self.actions = nn.Embedding(config.num_actions + 1, size)
        self.queries = TextProjection(config.query_size, size, bias=False) if config.use_queries else None
        reads_scenario = config.use_dsfnet or config.use_scenario_tokens
        self.hours = nn.Embedding(24, size) if "hour" in features and reads_scenario else None
        self.weekdays = nn.Embedding(7, size) if "weekday" in features and reads_scenario else None
        has_places = "geohash" in features and reads_scenario
        self.geohashes = nn.Embedding(config.num_geohashes + 1, size) if has_places else None
        self.pages = nn.Embedding(2, size) if "page" in features else None
        self.tasks = nn.Embedding(2, size) if config.use_dsfnet and config.num_dsf_layers else None
        self.placeholders = nn.Embedding(3, size) if config.use_placeholders else None
        self.start = None if config.use_placeholders else nn.Embedding(1, size)
        self.dropout = nn.Dropout(config.embedding_dropout)

    def history(
        self, inputs: Any, items: Callable[[Tensor], Tensor], state: HistoryState | None
    ) -> tuple[Tensor, Places, Tensor]:
        """Write events as tokens.

        Args:
            inputs: Has the `history_*` tensors and `query_vectors`.
            items (`Callable`): Catalogue rows to vectors.
            state ([`HistoryState`], *optional*): What the events follow; their sessions are numbered on from its.

        Returns:
            `tuple`: Vectors `(batch, length, hidden_size)`, their [`Places`], and int64 events by row, `(batch,)`.
        """
        mask, time, session = inputs["history_mask"], inputs["history_timestamps"], inputs["history_session_ids"]
        opens = torch.ones_like(mask)
        opens[:, 1:] = session[:, 1:] != session[:, :-1]
        first_event = torch.zeros_like(time[:, :1])
        first_position = first_event
        if state is not None:
            opens[:, :1] &= session[:, :1] > state.last("session")[:, None]
            first_event, first_position = state.num_events[:, None], state.places.is_real.sum(1, keepdim=True)
        # What training left out of the history is no event, but the session it was in has its S token all the same.
        opens = opens & inputs.get("scenario_mask", mask)
        parts, present = self._event_tokens(inputs, items, opens)
        kinds = parts.shape[2]
        event = (first_event + torch.arange(mask.shape[1], device=mask.device)).expand_as(session)
        is_scenario = torch.zeros_like(present)
        is_scenario[..., 0] = kinds == 4
        # S, Q, I, F; or all in one.
        item = torch.full_like(event[..., None].expand_as(present), -1)
        item[..., 2 if kinds == 4 else 0] = inputs["history_item_rows"]
        flat = present.flatten(1)
        places = Places(
            position=torch.zeros_like(flat, dtype=torch.long),
            session=session[..., None].expand_as(present).flatten(1),
            event=event[..., None].expand_as(present).flatten(1),
            time=time[..., None].expand_as(present).flatten(1),
            is_scenario=is_scenario.flatten(1),
            item=item.flatten(1),
            is_real=flat,
            is_alone=(is_scenario & _lost_sessions(session, inputs)[..., None]).flatten(1),
        )
        vectors = parts.flatten(1, 2)
        if kinds > 1:
            # Slots without a token go to the end of the row and are cut off there.
            order = (~flat).byte().argsort(dim=1, stable=True)[:, : int(flat.sum(1).max()) if flat.numel() else 0]
            vectors = vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[-1]))
            places = Places(**{name: value.gather(1, order) for name, value in vars(places).items()})
        positions = torch.arange(places.is_real.shape[1], device=mask.device).expand_as(places.is_real)
        if "scenario_mask" in inputs and places.is_alone is not None:
            # What later tokens do not see takes no position: a history without those sessions would not have it.
            positions = positions - (places.is_alone.long().cumsum(1) - places.is_alone.long())
        return self.dropout(vectors), replace(places, position=first_position + positions), mask.sum(1)

    def _event_tokens(self, inputs: Any, items: Callable[[Tensor], Tensor], opens: Tensor) -> tuple[Tensor, Tensor]:
        """Give the tokens of each event, `(batch, events, 1 or 4, hidden_size)`, and which of them there are."""
        rows, query_rows = inputs["history_item_rows"], inputs["history_query_rows"]
        behavior, has_item = inputs["history_behavior_ids"], rows >= 0
        has_query = query_rows >= 0 if self.queries is not None else torch.zeros_like(has_item)
        item = items(rows) * self.scale
        if self.pages is not None:
            item = item + self.pages(behavior) * self.scale
        action = self.actions(inputs["history_action_ids"]) * self.scale
        query = self.query(query_rows, inputs["query_vectors"], item)
        if self.config.merge_event_tokens:
            merged = item + action + query
            if self.config.use_scenario_tokens:
                merged = merged + self.setting(inputs, "history", merged)
            return merged[:, :, None], inputs["history_mask"][:, :, None]
        scenario = self.setting(inputs, "history", item) if self.config.use_scenario_tokens else torch.zeros_like(item)
        parts = torch.stack([scenario, query, item, action], dim=2)
        opens, mask = opens & self.config.use_scenario_tokens, inputs["history_mask"]
        return parts, torch.stack([opens, has_query & mask, has_item & mask, has_item & mask], dim=2)

    def scenario_token(self, inputs: Any, state: HistoryState) -> tuple[Tensor, Places] | None:
        """Write the S token that opens the session of a request; None where every question has its own already."""
        beyond = inputs["question_events"][:, 0] >= state.num_events
        # A page view of which the history holds events has its S token.
        beyond = beyond & (inputs["question_session_ids"][:, 0] > state.last("session"))
        if self.config.merge_event_tokens or not self.config.use_scenario_tokens or not bool(beyond.any()):
            return None
        time, session = inputs["question_timestamps"][:, :1], inputs["question_session_ids"][:, :1]
        like = state.keys[0].new_zeros(*inputs["question_timestamps"].shape, self.config.hidden_size)
        places = Places(
            position=state.places.is_real.sum(1, keepdim=True),
            session=session,
            event=inputs["question_events"][:, :1],
            time=time,
            is_scenario=torch.ones_like(time, dtype=torch.bool),
            item=torch.full_like(time, -1),
            is_real=beyond[:, None],
        )
        return self.dropout(self.setting(inputs, "question", like)[:, :1]), places

    def question(self, inputs: Any, candidates: Tensor | None = None) -> Tensor:
        """Write placeholders (section 3.2).

        Args:
            inputs: Has the `question_*` tensors and `query_vectors`.
            candidates (`torch.Tensor`, *optional*): Items, `(batch, num_questions, num_candidates, hidden_size)`.

        Returns:
            `torch.Tensor`: Of shape `(batch, num_questions, num_candidates or 1, hidden_size)`.
        """
        table: Any = self.placeholders
        query_rows, behavior = inputs["question_query_rows"], inputs["question_behavior_ids"]
        if self.queries is None:
            query_rows = torch.full_like(query_rows, -1)
        kind = torch.where(query_rows >= 0, SEARCHED, UNIVERSAL)
        like = table.weight.new_zeros(*query_rows.shape, self.config.hidden_size)
        content = self.query(query_rows, inputs["query_vectors"], like)
        if self.pages is not None:
            content = content + self.pages(behavior) * self.scale
        if self.config.merge_event_tokens and self.config.use_scenario_tokens:
            content = content + self.setting(inputs, "question", like)
        if candidates is None:
            return self.dropout(content + table(kind) * self.scale)[:, :, None]
        own = candidates * self.scale + table.weight[CANDIDATE] * self.scale
        return self.dropout(content[:, :, None] + own)

    def scenario(self, inputs: Any) -> Tensor:
        """Give R of equation 10 for each question: time, place and page, and task; `(batch, questions, 2 * size)`."""
        behavior = inputs["question_behavior_ids"]
        tasks: Any = self.tasks
        task = tasks(behavior)
        around = self.setting(inputs, "question", torch.zeros_like(task))
        if self.pages is not None:
            around = around + self.pages(behavior) * self.scale
        return torch.cat([around, task * self.scale], dim=-1)

    def setting(self, inputs: Any, of: str, like: Tensor) -> Tensor:
        """Give the vectors of when and where, of the shape of `like`; `of` is "history" or "question"."""
        vectors, timestamps = torch.zeros_like(like), inputs[f"{of}_timestamps"]
        if self.hours is not None:
            vectors = vectors + self.hours(timestamps.remainder(_DAY) // _HOUR) * self.scale
        if self.weekdays is not None:
            vectors = vectors + self.weekdays((timestamps // _DAY).remainder(7)) * self.scale
        if self.geohashes is not None:
            vectors = vectors + self.geohashes(inputs[f"{of}_geohash_ids"]) * self.scale
        return vectors

    def query(self, rows: Tensor, vectors: Tensor, like: Tensor) -> Tensor:
        """Give the projected vectors of queries, zero where there is none, of the shape of `like`."""
        if self.queries is None:
            return torch.zeros_like(like)
        if not vectors.numel():
            # Keeps the weight in the graph: several processes must agree on which weights get a gradient.
            return torch.zeros_like(like) + self.queries.weight.sum() * 0
        projected = self.queries(vectors.to(self.queries.weight.dtype)) * self.scale
        return projected[rows.clamp_min(0)] * (rows >= 0)[..., None]


def _lost_sessions(session: Tensor, inputs: Any) -> Tensor:
    """Say of each event whether training left out all events of its session; bool, of the shape of `session`."""
    mask = inputs["history_mask"]
    if "scenario_mask" not in inputs or not mask.shape[1]:
        return torch.zeros_like(mask)
    kept = mask.new_zeros(len(mask), int(session.max()) + 1, dtype=torch.long)
    return kept.scatter_add(1, session, mask.long()).gather(1, session) == 0


__all__ = ["HistoryState", "TokenEmbedder"]
