# SPDX-License-Identifier: Apache-2.0
"""The decoder of SynerGen: events to a state that is kept, questions and candidates to vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from seekrec.models.dense.catalog_items import CatalogItems
from seekrec.models.dense.item_tower import ItemTower, LatestItem, TextProjection
from seekrec.models.dense.read_events import ReadEvents
from seekrec.models.synergen.configuration_synergen import SynerGenConfig
from seekrec.models.synergen.modeling_synergen_attention import context_block_mask, uses_flex
from seekrec.models.synergen.modeling_synergen_blocks import (
    CONTEXT,
    RETRIEVAL,
    DecoderLayer,
    Places,
    ResidualLinear,
    task_mask,
)
from seekrec.models.synergen.modeling_synergen_rotary import TimeRotary
from seekrec.models.synergen.modeling_synergen_tokens import TokenFusion


@dataclass(frozen=True)
class HistoryState:
    """A history that was read: what later tokens need of it. Each row is one user.

    Args:
        places ([`Places`]): Where its tokens stand, `(batch, length)`.
        keys (`tuple[torch.Tensor, ...]`): For each layer `(batch, num_heads, length, head_size)`, rotated.
        values (`tuple[torch.Tensor, ...]`): Likewise, as they are.
        origin (`torch.Tensor`): int64 time that rotations count from, `(batch,)`: of the first event.
        num_events (`torch.Tensor`): int64 events read, `(batch,)`.
        events ([`ReadEvents`], *optional*): Those events; there in what a model gives to its callers.
    """

    places: Places
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    origin: Tensor
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
            self.origin[rows],
            self.num_events[rows],
            None if self.events is None else self.events.select(rows),
        )


@dataclass(frozen=True)
class Questions:
    """Questions that were sent through the decoder.

    Args:
        hidden_states (`torch.Tensor`): Of their retrieval tokens, `(batch, num_questions, hidden_size)`.
        rotation (`tuple[torch.Tensor, torch.Tensor]`): Of their time, `(batch, num_questions, 1, num_pairs)`.
        allowed (`torch.BoolTensor`): Context tokens they see, `(batch, num_questions, length)`.
        actions (`torch.LongTensor`): What they ask for, `(batch, num_questions)`.
        retrieval (`tuple`): For each layer key and value of their retrieval tokens; `None` where those are not seen.
    """

    hidden_states: Tensor
    rotation: tuple[Tensor, Tensor]
    allowed: Tensor
    actions: Tensor
    retrieval: tuple[tuple[Tensor, Tensor] | None, ...]


class SynerGenPreTrainedModel(PreTrainedModel):
    """Loading, saving and the start values of SynerGen's weights."""

    config_class = SynerGenConfig
    config: SynerGenConfig
    base_model_prefix = "model"
    main_input_name = "history_item_rows"
    _no_split_modules = ["DecoderLayer"]
    _supports_sdpa = True
    _supports_flex_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Embedding, TextProjection)):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            depth = 2 * self.config.num_hidden_layers if isinstance(module, ResidualLinear) else 1
            init.normal_(module.weight, mean=0.0, std=(module.in_features * depth) ** -0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, LatestItem):
            module.start_weights()
        elif isinstance(module, TimeRotary) and module.log_scales is not None:
            init.zeros_(module.log_scales)

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """Take `attn_implementation`: `"auto"`, by the device at every call, or `"sdpa"` or `"flex_attention"`.

        Raises:
            ValueError: If it is something else.
        """
        if requested_attention in (None, "auto"):
            return "auto"
        if requested_attention not in ("sdpa", "flex_attention"):
            raise ValueError(
                f"`attn_implementation` is {requested_attention!r}; use one of auto, sdpa, flex_attention."
            )
        chosen: str = super().get_correct_attn_implementation(requested_attention, is_init_check)
        return chosen


class SynerGenModel(SynerGenPreTrainedModel):
    """The decoder: histories to states, questions to vectors."""

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__(config)
        self.items = ItemTower(config.num_items, config.hidden_size, config.text_size, config.use_ids)
        self.tokens = TokenFusion(config)
        self.rotary = TimeRotary(config)
        self.latest = LatestItem(config.hidden_size) if config.starts_from_latest_item else None
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Give the module that turns items into vectors."""
        return self.items

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the module that turns items into vectors."""
        self.items = value  # type: ignore[assignment]

    def forward(
        self, inputs: Any, state: HistoryState | None = None, items: CatalogItems | None = None
    ) -> HistoryState:
        """Read events as context tokens, behind those of a state.

        Args:
            inputs: Has the `history_*` tensors and `query_vectors`; see `EventSequenceProcessor`.
            state ([`HistoryState`], *optional*): What the events follow; their sessions are numbered on from its.
            items ([`CatalogItems`], *optional*): What is answered from; the tower if not given.

        Returns:
            [`HistoryState`]: Of all events so far.
        """
        mask, time = inputs["history_mask"], inputs["history_timestamps"]
        has_token = mask if self.config.queries_in_context else mask & (inputs["history_item_rows"] >= 0)
        before = mask.new_zeros(len(mask), dtype=torch.long)
        session, origin, num_events, num_tokens = inputs["history_session_ids"], before, before, before
        if state is not None:
            origin, num_events, num_tokens = state.origin, state.num_events, state.places.is_real.sum(1)
        if time.shape[1]:
            origin = torch.where(num_events == 0, time[:, 0], origin)
        places = Places(
            kind=torch.full_like(time, CONTEXT),
            session=session,
            time=time,
            event=num_events[:, None] + torch.arange(time.shape[1], device=time.device),
            question=torch.full_like(time, -1),
            item=inputs["history_item_rows"],
            is_real=has_token,
        )
        order = num_tokens[:, None] + has_token.long().cumsum(1) - 1
        rotation = self.rotary(time - origin[:, None], order)
        hidden = self.tokens.context(inputs, items or self.items)
        return self._read(hidden, rotation, places, state, origin, num_events + mask.sum(1))

    def _read(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        places: Places,
        state: HistoryState | None,
        origin: Tensor,
        num_events: Tensor,
    ) -> HistoryState:
        keys_places = places if state is None else state.places.append(places)
        head_size = self.config.hidden_size // self.config.num_attention_heads
        allowed: Any
        # The few events that follow a state are not worth a kernel of their own.
        if state is None and hidden.shape[1] and uses_flex(self.config._attn_implementation, hidden.device, head_size):
            allowed = context_block_mask(places.time, places.is_real)
        else:
            first = keys_places.time.shape[1] - places.time.shape[1]
            allowed = task_mask(places, keys_places, first=first)
        all_keys, all_values = [], []
        layers: Any = self.layers
        for number, layer in enumerate(layers):
            queries, keys, values = layer.split(hidden, rotation)
            if state is not None:
                keys = torch.cat([state.keys[number], keys], dim=2)
                values = torch.cat([state.values[number], values], dim=2)
            all_keys.append(keys)
            all_values.append(values)
            # Questions read keys and values of the last layer, not what it makes of the history.
            if number + 1 < len(layers) and hidden.shape[1]:
                hidden = layer.history(hidden, queries, keys, values, allowed)
        return HistoryState(keys_places, tuple(all_keys), tuple(all_values), origin, num_events)

    def ask(self, state: HistoryState, inputs: Any, items: CatalogItems | None = None) -> Questions:
        """Send the retrieval tokens of questions through the decoder.

        Args:
            state ([`HistoryState`]): What they ask about.
            inputs: Has the `question_*` tensors and `query_vectors`. Where `question_action_ids` are below 0, or not
                there, the action asked for is the configuration's `asked_action`.
            items ([`CatalogItems`], *optional*): As in [`forward`].

        Returns:
            [`Questions`]: To compare with items, or to [`judge`] candidates.
        """
        session, event, time = (inputs[f"question_{name}"] for name in ("session_ids", "events", "timestamps"))
        asked = Places(
            kind=torch.full_like(session, RETRIEVAL),
            session=session,
            time=time,
            event=event,
            question=torch.zeros_like(session),
            item=torch.full_like(session, -1),
            is_real=session >= 0,
        )
        behind = state.places.time.shape[1]
        allowed = task_mask(asked, state.places, first=behind, use_session_mask=self.config.use_session_mask)
        seconds = time
        if not self.config.use_target_time:
            seen = state.places.time[:, None].masked_fill(~allowed, torch.iinfo(torch.int64).min)
            last = seen.amax(-1) if behind else time
            seconds = torch.where(allowed.any(-1), last, time)
        # Without a history nothing is compared with the question's time, so any origin will do.
        origin = torch.where(state.num_events > 0, state.origin, time[:, 0])
        cosines, sines = self.rotary(seconds - origin[:, None], allowed.sum(-1))
        rotation = cosines[:, :, None], sines[:, :, None]
        actions = inputs.get("question_action_ids")
        usual = torch.full_like(session, self.config.asked_action)
        actions = usual if actions is None else torch.where(actions < 0, usual, actions)
        hidden = self.tokens.retrieval(inputs, actions)
        if self.latest is not None:
            behaviors = inputs["question_behavior_ids"]
            hidden = hidden + self.latest(state.places.item, allowed, behaviors, items or self.items)[:, :, None]
        seen_by_ranking: list[tuple[Tensor, Tensor] | None] = []
        layers: Any = self.layers
        for layer, keys, values in zip(layers, state.keys, state.values, strict=True):
            hidden, own = layer.answer(hidden, rotation, keys, values, allowed)
            seen_by_ranking.append(own if self.config.align_tasks else None)
        return Questions(hidden[:, :, 0], rotation, allowed, actions, tuple(seen_by_ranking))

    def judge(
        self, state: HistoryState, questions: Questions, inputs: Any, rows: Tensor, items: CatalogItems | None = None
    ) -> Tensor:
        """Send a ranking token for each candidate through the decoder.

        Args:
            state ([`HistoryState`]): What is asked about.
            questions ([`Questions`]): What [`ask`] gave.
            inputs: As for [`ask`].
            rows (`torch.LongTensor`): Candidates, `(batch, num_questions, num_candidates)`; below 0 for none.
            items ([`CatalogItems`], *optional*): As in [`forward`].

        Returns:
            `torch.Tensor`: Of shape `(batch, num_questions, num_candidates, hidden_size)`.
        """
        hidden = self.tokens.ranking(inputs, questions.actions, rows, items or self.items)
        layers: Any = self.layers
        for number, layer in enumerate(layers):
            hidden, _ = layer.answer(
                hidden,
                questions.rotation,
                state.keys[number],
                state.values[number],
                questions.allowed,
                questions.retrieval[number],
            )
        return hidden


__all__ = ["HistoryState", "Questions", "SynerGenModel", "SynerGenPreTrainedModel"]
