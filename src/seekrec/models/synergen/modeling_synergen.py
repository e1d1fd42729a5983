# SPDX-License-Identifier: Apache-2.0
"""SynerGen: a decoder over events that retrieves and ranks, with a query and without.

Unusual here:

- A question is a retrieval token and, for each candidate, a ranking token. The history is read once, kept as a
  [`SynerGenState`], and answers any number of questions; the task mask below makes that exact. In training every event
  of a window is a target that sees what came before its session.
- Rotary attention uses the time between events ([`TimeRotary`]), and a question is placed at the time it is asked.
- Item vectors for comparison are, unless `item_reading` says otherwise, an id embedding plus a projected text vector;
  as tokens, id and text are fused by the MLP, so a new item works by its text on both sides.
- The paper distinguishes token kinds by what is masked. A context token and a ranking token without a query would look
  alike, so here each token includes a learned vector of its kind.

The task mask (section 3.4; the paper's appendix is not public): **context** tokens tell what happened, a **retrieval**
token asks for items, **ranking** tokens ask about one candidate each. What a token (row) sees of another (column):

| sees | earlier session | own session, earlier | other context | itself | own retrieval token | other questions |
|---|---|---|---|---|---|---|
| context | yes | yes | no | yes | no | no |
| retrieval | yes | no | no | yes | it is that | no |
| ranking | yes | no | no | yes | yes | no |

The first three columns are context tokens; "earlier" is by time, for an event of the same second is not earlier. The
third is temporal causality: no later event is seen. The second is session isolation: a question does not see the
events of its own session. The fifth is cross-task alignment. Nothing outside a question sees it, so a history is read
once, and its keys and values answer any number of questions; and no candidate sees another, so its own part of
attention is a product of rows, not a matrix. Both together equal one pass over the whole sequence under the mask; a
test checks this.

Weights start as follows: id embeddings, the projection of text for comparison and the vectors of actions, kinds and
the masked item normal with a spread of 0.02; linear layers normal with `1 / sqrt(inputs)`, those that close a residual
divided by `sqrt(2 * num_hidden_layers)`; biases and learned time scales (as logarithms of a factor) at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from seekrec.embeddings.softmax import full_softmax, info_nce
from seekrec.errors import ConfigurationError
from seekrec.models.dense.item_tower import ItemTower
from seekrec.models.dense.modeling_dense import (
    LAYER_NORM_EPS,
    CatalogItems,
    DensePreTrainedModel,
    DenseRetrieval,
    HistoryState,
    Inputs,
    LatestItem,
    RetrievalLogit,
    TokenPositions,
    seen_of_recommendations,
)
from seekrec.models.losses import unseen_items, without_seen
from seekrec.models.synergen.configuration_synergen import SynerGenConfig

CONTEXT, RETRIEVAL, RANKING = range(3)

# What flex attention's GPU kernel takes at least.
MIN_FLEX_HEAD_SIZE = 16
_TURN = 2 * math.pi
_SLOPE_LIMIT = 10 * _TURN
# Wavelengths of tokens counted in order: those of Su et al.
_ORDER_BASE = 10_000.0

# Cosines and sines of a rotation.
Rotation = tuple[Tensor, Tensor]
KeyAndValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SynerGenState(HistoryState):
    """A history that was read; its keys are rotated.

    Args:
        origin (`torch.Tensor`): int64 time that rotations count from, `(batch,)`: that of the first event.
    """

    origin: Tensor

    def select(self, rows: Tensor) -> Self:
        """Return the states of some rows, in the order asked."""
        return replace(super().select(rows), origin=self.origin[rows])

    def join(self, others: Sequence[Self]) -> Self:
        """Put the states of other users below these; nothing is read again."""
        return replace(super().join(others), origin=torch.cat([one.origin for one in (self, *others)]))


@dataclass(frozen=True)
class AskedQuestions:
    """Questions that were sent through the decoder.

    Args:
        hidden_states (`torch.Tensor`): States of their retrieval tokens, `(batch, num_questions, hidden_size)`.
        rotation (`tuple[torch.Tensor, torch.Tensor]`): Rotation by their time, `(batch, num_questions, 1, num_pairs)`.
        allowed (`torch.BoolTensor`): Context tokens they see, `(batch, num_questions, length)`.
        actions (`torch.LongTensor`): What they ask for, `(batch, num_questions)`.
        retrieval (`tuple`): For each layer key and value of their retrieval tokens.
    """

    hidden_states: Tensor
    rotation: Rotation
    allowed: Tensor
    actions: Tensor
    retrieval: tuple[KeyAndValue, ...]


def context_mask(queries: TokenPositions, keys: TokenPositions) -> Tensor:
    """Compute what context tokens see of each other: those of an earlier time, and themselves.

    Args:
        queries ([`TokenPositions`]): The tokens that look, `(batch, num_queries)`: the last ones of the keys.
        keys ([`TokenPositions`]): The tokens that are looked at, `(batch, num_keys)`.

    Returns:
        `torch.BoolTensor`: True where a token is seen, `(batch, num_queries, num_keys)`; padding sees itself.
    """
    earlier = (keys.time[:, None] < queries.time[:, :, None]) & keys.is_real[:, None]
    num_queries, num_keys = queries.time.shape[1], keys.time.shape[1]
    itself = torch.arange(num_queries, device=earlier.device)[:, None] + num_keys - num_queries
    return earlier | (itself == torch.arange(num_keys, device=earlier.device))


def context_block_mask(time: Tensor, is_real: Tensor) -> BlockMask:
    """Make [`context_mask`] of a history without earlier keys for flex attention, which needs no matrix of it.

    Blocks in which nothing is seen are left out. Flex attention is compiled on a GPU. Elsewhere it runs as it is,
    slowly and without gradients: a way to compare the two.

    Args:
        time (`torch.LongTensor`): Seconds, `(batch, length)`, at least one long.
        is_real (`torch.BoolTensor`): False for padding, `(batch, length)`.

    Returns:
        `torch.nn.attention.flex_attention.BlockMask`: What [`DecoderLayer`] takes.
    """

    def is_seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        earlier: Tensor = (time[batch, key] < time[batch, query]) & is_real[batch, key]
        return earlier | (query == key)

    num_rows, length = time.shape
    make = _compiled(create_block_mask) if time.is_cuda else create_block_mask
    mask: BlockMask = make(is_seen, B=num_rows, H=None, Q_LEN=length, KV_LEN=length, device=time.device)
    return mask


def question_mask(session: Tensor, keys: TokenPositions) -> Tensor:
    """Compute what questions see of context tokens: earlier sessions.

    Args:
        session (`torch.LongTensor`): Session of each question, `(batch, num_questions)`.
        keys ([`TokenPositions`]): The context tokens, `(batch, num_keys)`.

    Returns:
        `torch.BoolTensor`: True where a token is seen, `(batch, num_questions, num_keys)`.
    """
    return (keys.session[:, None] < session[:, :, None]) & keys.is_real[:, None]


def uses_flex(implementation: str | None, device: torch.device, head_size: int) -> bool:
    """Tell whether an `attn_implementation` means flex attention on a device: `"auto"` does on a GPU that takes it."""
    if implementation == "auto":
        return device.type == "cuda" and head_size >= MIN_FLEX_HEAD_SIZE
    return implementation == "flex_attention"


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function)


class TimeRotary(nn.Module):
    """Times and positions to angles; shared by all layers (section 3.4).

    Rotary embedding turns pairs of numbers of queries and keys by an angle in proportion to where they stand, so that
    their product depends on the distance alone. Here they stand at a number of seconds. A Unix time of 1.7e9 in
    float32 is right to 128 seconds; so seconds are counted from an origin of each sequence, in int64, and angles are
    made and reduced to one turn in float64. Twenty years by the shortest scale of two seconds are 2e9 radians, right
    to 4e-7.

    The time scales (seconds of one full turn) grow geometrically, as the wavelengths of usual rotary embedding do.
    They can be trained. The angle between two moments thousands of turns apart has a slope in the scale that is
    thousands of times too steep to follow, so slopes are cut off where the angle is beyond `_SLOPE_LIMIT`: short
    scales stay where they are, and long ones move.
    """

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__()
        num_pairs = config.hidden_size // config.num_attention_heads // 2
        encoding = config.time_encoding.removeprefix("learned_")
        by_order = {"time": 0, "order": num_pairs, "both": num_pairs // 2}[encoding]
        self.num_by_time, self.num_by_order = num_pairs - by_order, by_order
        self.shortest, self.longest = config.time_scales
        learns = encoding != config.time_encoding and self.num_by_time > 0
        self.log_scales = nn.Parameter(torch.empty(self.num_by_time)) if learns else None

    def forward(self, seconds: Tensor, positions: Tensor) -> Rotation:
        """Compute cosines and sines.

        Args:
            seconds (`torch.LongTensor`): Seconds since the origin of the sequence, in any shape.
            positions (`torch.LongTensor`): Numbers of the tokens, in that shape.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: float32 `(*seconds.shape, num_pairs)`.
        """
        # By time: turns a second.
        steps = torch.linspace(0, 1, self.num_by_time, dtype=torch.float64, device=seconds.device)
        turns = (self.longest / self.shortest) ** -steps / self.shortest
        if self.log_scales is None:
            by_time = (seconds.double()[..., None] * turns).remainder(1.0) * _TURN
        else:
            log_scales = self.log_scales.double()
            angles = seconds.double()[..., None] * (turns * torch.exp(-log_scales.detach())) * _TURN
            slope = -angles * (angles.abs() <= _SLOPE_LIMIT)
            by_time = angles.remainder(_TURN) + (log_scales - log_scales.detach()) * slope
        # By order: radians a position.
        steps = torch.arange(self.num_by_order, dtype=torch.float64, device=positions.device)
        by_order = positions.double()[..., None] * _ORDER_BASE ** (-steps / max(self.num_by_order, 1))
        angles = torch.cat([by_time, by_order], dim=-1)
        return angles.cos().float(), angles.sin().float()


def rotate(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the first pairs of numbers of each vector.

    Args:
        vectors (`torch.Tensor`): Vectors `(..., head_size)`.
        cosines (`torch.Tensor`): Cosines `(..., num_pairs)`; a pair is number k and number `num_pairs + k`.
        sines (`torch.Tensor`): Sines `(..., num_pairs)`.

    Returns:
        `torch.Tensor`: Vectors `(..., head_size)`.
    """
    count = cosines.shape[-1]
    cosines, sines = cosines.to(vectors.dtype), sines.to(vectors.dtype)
    first, second = vectors[..., :count], vectors[..., count : 2 * count]
    return torch.cat(
        [first * cosines - second * sines, first * sines + second * cosines, vectors[..., 2 * count :]], dim=-1
    )


class TokenFusion(nn.Module):
    """The MLP that fuses up to four parts to a token, and the vectors it reads besides items (sections 3.2 and 3.3).

    | token | query | item: text | item: id | action |
    |---|---|---|---|---|
    | context | - (with `queries_in_context`, the event's) | the event's item | the event's item | the event's |
    | retrieval | the question's, if it has one | masked | masked | the one asked for |
    | ranking | the question's, if it has one | the candidate | the candidate | the one asked for |

    The first layer of an MLP over parts side by side is a sum of one product for each part; it is written so here,
    which projects each query once however many tokens read it, and nothing for a part that is not there. Parts that
    are learned vectors (actions, the masked item, the kind of token) need no product: they are learned as what it
    would give.
    """

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__()
        self.queries_in_context = config.queries_in_context
        size, width = config.hidden_size, config.fusion_size
        # As in SASRec, rows start small for the sake of the output and are scaled up at the input.
        self.scale = size**0.5
        # Of what is learned of an item: its id, its categories and its words.
        self.ids = nn.Linear(size, width, bias=False) if config.item_reading != ["text"] else None
        self.text = nn.Linear(config.text_size, width, bias=False) if config.text_size else None
        self.queries = nn.Linear(config.query_size, width, bias=False) if "text" in config.query_reading else None
        self.words = nn.Linear(size, width, bias=False) if "words" in config.query_reading else None
        self.actions = nn.Embedding(config.num_actions + 1, width)
        self.mask = nn.Embedding(1, width)
        self.kinds = nn.Embedding(3, width)
        self.output = nn.Sequential(
            nn.GELU(),
            nn.Linear(width, size),
            nn.LayerNorm(size, eps=LAYER_NORM_EPS),
            nn.Dropout(config.token_dropout),
        )

    def forward(
        self,
        kind: int,
        inputs: Inputs,
        actions: Tensor,
        rows: Tensor | None = None,
        items: ItemTower | CatalogItems | None = None,
        words: Tensor | None = None,
    ) -> Tensor:
        """Fuse parts to tokens of one kind.

        Args:
            kind (`int`): `CONTEXT`, of events, `(batch, length)`; `RETRIEVAL`, of questions, `(batch, num_questions)`;
                or `RANKING`, of their candidates, `(batch, num_questions, num_candidates)`.
            inputs (`dict[str, torch.Tensor]`): Has `query_vectors`, and the query rows of events or of questions.
            actions (`torch.LongTensor`): Actions of the events or questions.
            rows (`torch.LongTensor`, *optional*): Items of the tokens, below 0 for none; `None` for masked ones.
            items ([`ItemTower`] or [`CatalogItems`], *optional*): What the rows name.
            words (`torch.Tensor`, *optional*): Queries by their words, `(num_queries, hidden_size)`.

        Returns:
            `torch.Tensor`: Tokens, in the shape of what they are of and `hidden_size`.
        """
        item = self.mask.weight[0]
        if rows is not None and items is not None:
            ids, texts = items.parts(rows)
            parts = [self.ids(ids * self.scale)] if self.ids is not None and ids is not None else []
            if self.text is not None and texts is not None:
                parts.append(self.text(texts))
            item = sum(parts[1:], parts[0]) * (rows >= 0)[..., None]
        query = None
        if kind != CONTEXT or self.queries_in_context:
            query_rows = inputs["history_query_rows" if kind == CONTEXT else "question_query_rows"]
            query = self.read(inputs["query_vectors"], words, query_rows)
        action, mark = self.actions(actions), self.kinds.weight[kind]
        if query is None:
            token = item + mark + action if kind != RANKING else item + (action + mark)[:, :, None]
        elif kind == CONTEXT:
            token = item + mark + action + query
        elif kind == RETRIEVAL:
            token = query + action + item + mark
        else:
            token = item + (query + action + mark)[:, :, None]
        fused: Tensor = self.output(token)
        return fused

    def read(self, vectors: Tensor, words: Tensor | None, rows: Tensor) -> Tensor | None:
        """Return what is read of queries, zero where there is none; `None` where nothing is read of any.

        Args:
            vectors (`torch.Tensor`): Their frozen vectors, `(num_queries, query_size)`.
            words (`torch.Tensor`, *optional*): The same by their words, `(num_queries, hidden_size)`.
            rows (`torch.LongTensor`): Which query each token reads; below 0 for none.
        """
        layers = [layer for layer in (self.queries, self.words) if layer is not None]
        if not layers:
            return None
        if not vectors.numel():
            # Keeps the weights in the graph: several processes must agree on which weights get a gradient.
            weight = layers[0].weight
            unused = sum(layer.weight.sum() for layer in layers) + (0 if words is None else words.sum())
            return weight.new_zeros(*rows.shape, weight.shape[0]) + unused * 0
        read = [] if self.queries is None else [self.queries(vectors.to(self.queries.weight.dtype))]
        if self.words is not None and words is not None:
            read.append(self.words(words * self.scale))
        picked: Tensor = sum(read[1:], read[0])[rows.clamp_min(0)] * (rows >= 0)[..., None]
        return picked


class ResidualLinear(nn.Linear):
    """A linear layer that closes a residual: it starts smaller the more of them there are."""


class DecoderLayer(nn.Module):
    """Attention and a feed-forward layer, each after a layer norm and inside a residual."""

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.attention_input = nn.Linear(size, 3 * size, bias=False)
        self.attention_output = ResidualLinear(size, size, bias=False)
        self.feed_forward_norm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.expand = nn.Linear(size, config.intermediate_size)
        self.contract = ResidualLinear(config.intermediate_size, size)
        self.dropout = nn.Dropout(config.layer_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        rotation: Rotation,
        before: KeyAndValue | None,
        allowed: Tensor | BlockMask | None,
        *,
        asks: bool = False,
        shared: KeyAndValue | None = None,
    ) -> tuple[Tensor, KeyAndValue]:
        """Apply the layer to context tokens, or to tokens of questions, each of which sees itself, too.

        Args:
            hidden_states (`torch.Tensor`): States of context tokens, `(batch, length, hidden_size)`, or of questions,
                `(batch, num_questions, group_size, hidden_size)`; those of one question see the same context tokens.
            rotation (`tuple[torch.Tensor, torch.Tensor]`): Rotation `(batch, length, num_pairs)`, or `(batch,
                num_questions, 1, num_pairs)`.
            before (`tuple[torch.Tensor, torch.Tensor]`, *optional*): Keys and values of the context so far, each
                `(batch, num_heads, num_before, head_size)`.
            allowed (`torch.BoolTensor` or `BlockMask`, *optional*): What is seen: `(batch, length or num_questions,
                num_keys)`, for context tokens a block mask for flex attention, too. `None` where keys and values alone
                are wanted; states are then returned as they came.
            asks (`bool`): Whether these are tokens of questions; `before` is then all of the context.
            shared (`tuple[torch.Tensor, torch.Tensor]`, *optional*): Key and value of each question's retrieval
                token, `(batch, num_heads, num_questions, 1, head_size)`, which its other tokens see.

        Returns:
            `tuple`: States in the shape of `hidden_states`; keys and values of the context with its new tokens, or
            those of the questions' tokens alone.
        """
        parts = self.attention_input(self.attention_norm(hidden_states)).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (self.num_heads, -1)).movedim(-2, 1) for part in parts)
        cosines, sines = (part[:, None] for part in rotation)
        queries, keys = rotate(queries, cosines, sines), rotate(keys, cosines, sines)
        if before is not None and not asks:
            keys, values = torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)
        if allowed is None:
            return hidden_states, (keys, values)
        if isinstance(allowed, BlockMask):
            flex = _compiled(flex_attention) if queries.is_cuda else flex_attention
            mixed: Tensor = flex(queries, keys, values, block_mask=allowed)
        elif before is None or not asks:
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed[:, None])
        else:
            queries, num_keys = queries * queries.shape[-1] ** -0.5, before[0].shape[2]
            # One product over all tokens of all questions, so that the keys need no copy for each question.
            scores = (queries.flatten(2, 3) @ before[0].transpose(-1, -2)).view(*queries.shape[:-1], num_keys)
            scores = scores.float().masked_fill(~allowed[:, None, :, None], float("-inf"))
            # Of itself and of its question's retrieval token, rows in place of a matrix.
            others = [(keys, values)] if shared is None else [(keys, values), shared]
            rows = [(queries * key).sum(-1, keepdim=True).float() for key, _ in others]
            weights = torch.cat([scores, *rows], dim=-1).softmax(-1).to(values.dtype)
            mixed = (weights[..., :num_keys].flatten(2, 3) @ before[1]).view_as(values)
            for number, (_, value) in enumerate(others, num_keys):
                mixed = mixed + weights[..., number : number + 1] * value
        mixed = mixed.movedim(1, -2).flatten(-2)  # heads side by side again
        hidden_states = hidden_states + self.dropout(self.attention_output(mixed))
        expanded = F.gelu(self.expand(self.feed_forward_norm(hidden_states)))
        return hidden_states + self.dropout(self.contract(expanded)), (keys, values)


class SynerGenPreTrainedModel(DensePreTrainedModel):
    """Loading, saving and the start values of SynerGen's weights."""

    config_class = SynerGenConfig
    config: SynerGenConfig
    _no_split_modules = ["DecoderLayer"]
    _supports_sdpa = True
    _supports_flex_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TimeRotary) and module.log_scales is not None:
            init.zeros_(module.log_scales)

    def _linear_spread(self, layer: nn.Linear) -> float:
        depth = 2 * self.config.num_hidden_layers if isinstance(layer, ResidualLinear) else 1
        return float((layer.in_features * depth) ** -0.5)

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
        self.items = ItemTower.from_config(config)
        self.tokens = TokenFusion(config)
        self.rotary = TimeRotary(config)
        self.latest = LatestItem(config.hidden_size) if config.starts_from_latest_item else None
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(
        self, inputs: Inputs, state: SynerGenState | None = None, items: CatalogItems | None = None
    ) -> SynerGenState:
        """Read events as context tokens, behind those of a state.

        Args:
            inputs (`dict[str, torch.Tensor]`): Has the `history_*` tensors and `query_vectors`; see
                `EventSequenceProcessor`.
            state ([`SynerGenState`], *optional*): What the events follow; their sessions are numbered on from its.
            items ([`CatalogItems`], *optional*): What is answered from; the tower if not given.

        Returns:
            [`SynerGenState`]: The state of all events so far.
        """
        mask, time = inputs["history_mask"], inputs["history_timestamps"]
        has_token = mask if self.config.queries_in_context else mask & (inputs["history_item_rows"] >= 0)
        before = mask.new_zeros(len(mask), dtype=torch.long)
        origin, num_events, num_tokens = before, before, before
        if state is not None:
            origin, num_events, num_tokens = state.origin, state.num_events, state.positions.is_real.sum(1)
        if time.shape[1]:
            origin = torch.where(num_events == 0, time[:, 0], origin)
        positions = TokenPositions(
            position=num_tokens[:, None] + has_token.long().cumsum(1) - 1,
            session=inputs["history_session_ids"],
            event=num_events[:, None] + torch.arange(time.shape[1], device=time.device),
            time=time,
            item=inputs["history_item_rows"],
            is_real=has_token,
        )
        rotation = self.rotary(time - origin[:, None], positions.position)
        actions, rows = inputs["history_action_ids"], inputs["history_item_rows"]
        words = self.items.read_queries(inputs) if self.config.queries_in_context else None
        hidden = self.tokens(CONTEXT, inputs, actions, rows, items or self.items, words)
        all_positions = positions if state is None else state.positions.append(positions)
        head_size = self.config.hidden_size // self.config.num_attention_heads
        allowed: Tensor | BlockMask
        # The few events that follow a state are not worth a kernel of their own.
        if state is None and hidden.shape[1] and uses_flex(self.config._attn_implementation, hidden.device, head_size):
            allowed = context_block_mask(positions.time, positions.is_real)
        else:
            allowed = context_mask(positions, all_positions)
        # Questions read keys and values of the last layer, not what it makes of the history.
        last = self.layers[-1] if hidden.shape[1] else None
        all_keys, all_values = [], []
        for number, layer in enumerate(self.layers):
            known = None if state is None else (state.keys[number], state.values[number])
            is_read_on = last is not None and layer is not last
            hidden, (keys, values) = layer(hidden, rotation, known, allowed if is_read_on else None)
            all_keys.append(keys)
            all_values.append(values)
        num_events = num_events + mask.sum(1)
        return SynerGenState(all_positions, tuple(all_keys), tuple(all_values), num_events, None, origin)

    def ask(self, state: SynerGenState, inputs: Inputs, items: CatalogItems | None = None) -> AskedQuestions:
        """Send the retrieval tokens of questions through the decoder.

        Args:
            state ([`SynerGenState`]): What they ask about.
            inputs (`dict[str, torch.Tensor]`): Has the `question_*` tensors and `query_vectors`. Where
                `question_action_ids` are below 0, or not there, the action asked for is the configuration's
                `asked_action`.
            items ([`CatalogItems`], *optional*): As in [`forward`].

        Returns:
            [`AskedQuestions`]: To compare with items, or to [`judge`] candidates.
        """
        session, time = inputs["question_session_ids"], inputs["question_timestamps"]
        allowed = question_mask(session, state.positions)
        seconds = time
        if not self.config.use_target_time:
            seen = state.positions.time[:, None].masked_fill(~allowed, torch.iinfo(torch.int64).min)
            last = seen.amax(-1) if seen.shape[-1] else time
            seconds = torch.where(allowed.any(-1), last, time)
        # Without a history nothing is compared with the question's time, so any origin will do.
        origin = torch.where(state.num_events > 0, state.origin, time[:, 0])
        cosines, sines = self.rotary(seconds - origin[:, None], allowed.sum(-1))
        rotation = cosines[:, :, None], sines[:, :, None]
        actions = inputs.get("question_action_ids")
        usual = torch.full_like(session, self.config.asked_action)
        actions = usual if actions is None else torch.where(actions < 0, usual, actions)
        hidden = self.tokens(RETRIEVAL, inputs, actions, words=self.items.read_queries(inputs))[:, :, None]
        if self.latest is not None:
            behaviors = inputs["question_behavior_ids"]
            hidden = hidden + self.latest(state.positions.item, allowed, behaviors, items or self.items)[:, :, None]
        retrieval = []
        for layer, keys, values in zip(self.layers, state.keys, state.values, strict=True):
            hidden, own = layer(hidden, rotation, (keys, values), allowed, asks=True)
            retrieval.append(own)
        return AskedQuestions(hidden[:, :, 0], rotation, allowed, actions, tuple(retrieval))

    def judge(
        self,
        state: SynerGenState,
        questions: AskedQuestions,
        inputs: Inputs,
        rows: Tensor,
        items: CatalogItems | None = None,
    ) -> Tensor:
        """Send a ranking token for each candidate through the decoder.

        Args:
            state ([`SynerGenState`]): What is asked about.
            questions ([`AskedQuestions`]): What [`ask`] returned.
            inputs (`dict[str, torch.Tensor]`): As for [`ask`].
            rows (`torch.LongTensor`): Candidates, `(batch, num_questions, num_candidates)`; below 0 for none.
            items ([`CatalogItems`], *optional*): As in [`forward`].

        Returns:
            `torch.Tensor`: States `(batch, num_questions, num_candidates, hidden_size)`.
        """
        words = self.items.read_queries(inputs)
        hidden = self.tokens(RANKING, inputs, questions.actions, rows, items or self.items, words)
        rotation, allowed = questions.rotation, questions.allowed
        layers = zip(self.layers, state.keys, state.values, questions.retrieval, strict=True)
        for layer, keys, values, shared in layers:
            hidden, _ = layer(hidden, rotation, (keys, values), allowed, asks=True, shared=shared)
        judged: Tensor = hidden
        return judged


@dataclass
class SynerGenOutput(ModelOutput):
    """What [`SynerGenForSearchAndRecommendation`] returns. Losses are in nats a question.

    Args:
        loss (`torch.FloatTensor`, *optional*): Present when labels are given.
        easy_loss (`torch.FloatTensor`, *optional*): Retrieval against other targets or all items, before alpha.
        hard_loss (`torch.FloatTensor`, *optional*): Retrieval against what was shown, or drawn, alongside the target.
        pointwise_loss (`torch.FloatTensor`, *optional*): Log-loss of clicks; with a ranking head.
        pairwise_loss (`torch.FloatTensor`, *optional*): Loss of the order of pairs; with a ranking head.
        questions (`torch.FloatTensor`): Vectors of the questions, `(batch, num_questions, hidden_size)`.
    """

    loss: Tensor | None = None
    easy_loss: Tensor | None = None
    hard_loss: Tensor | None = None
    pointwise_loss: Tensor | None = None
    pairwise_loss: Tensor | None = None
    questions: Tensor | None = None


class SynerGenForSearchAndRecommendation(SynerGenPreTrainedModel, DenseRetrieval[SynerGenState]):
    """SynerGen with the comparison with items and the ranking head."""

    chosen_fields = ("view_weights", "ranking_scales", "rank_by")
    model: SynerGenModel

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.model = SynerGenModel(config)
        self.retrieval_norm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.ranking_head = None
        if config.ranking_weight:
            self.ranking_head = nn.Sequential(
                nn.LayerNorm(size, eps=LAYER_NORM_EPS), nn.Linear(size, size), nn.GELU(), nn.Linear(size, 1)
            )
        self.retrieval_logit = RetrievalLogit.from_config(config)
        self.post_init()

    @property
    def action_embedding(self) -> nn.Embedding:
        """The vectors of actions."""
        return self.model.tokens.actions

    @property
    def compares_all_items(self) -> bool:
        """Whether a step of training reads the vector of every item."""
        return self.config.negatives == "full" and self.config.easy_weight > 0

    @property
    def judges_candidates(self) -> bool:
        """Whether the ranking head judges the candidates of `rank`."""
        return self.ranking_head is not None and self.config.rank_by != "retrieval"

    def encode_questions(
        self, inputs: Inputs, *, state: SynerGenState | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Compute the vector of each question; see `DenseRetrieval`."""
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        answered: Tensor = self.retrieval_norm(self.model.ask(state, inputs, items).hidden_states)
        return answered

    def score_candidates(
        self,
        inputs: Inputs,
        *,
        state: SynerGenState | None = None,
        items: CatalogItems | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """Compute the click probability of each candidate; see `DenseRetrieval`.

        Without a ranking head, or with `rank_by` retrieval: the score that `retrieve` gives.
        """
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        rows = inputs["candidate_rows"]
        questions = self.model.ask(state, inputs, items)
        if self.ranking_head is not None and self.judges_candidates:
            logits = self.ranking_head(self.model.judge(state, questions, inputs, rows, items))[..., 0]
            return self.judge_candidates(
                logits, lambda: self.retrieval_norm(questions.hidden_states), inputs, items, added
            )
        vectors = self.retrieval_norm(questions.hidden_states)
        return self.answer_scores(vectors, rows, items, inputs["question_behavior_ids"])

    def forward(
        self, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **inputs: Tensor
    ) -> SynerGenOutput:
        """Read windows and answer their questions.

        Args:
            labels (`torch.LongTensor`, *optional*): Catalogue rows, `(batch, num_questions)`; -100 for no question.
            num_items_in_batch (`int`, *optional*): Divides the sum of losses; the number of labels if not given.
            inputs: What `WindowCollator` or the processor makes.

        Returns:
            [`SynerGenOutput`]: With losses if labels are given.
        """
        state = self.model(inputs)
        asked = self.model.ask(state, inputs)
        questions = self.retrieval_norm(asked.hidden_states)
        if labels is None:
            return SynerGenOutput(questions=questions)
        is_asked = labels >= 0
        divisor = int(is_asked.sum()) if num_items_in_batch is None else num_items_in_batch
        config, beside = self.config, _beside(inputs)
        seen = None
        if not config.seen_compete:
            seen = seen_of_recommendations(state.positions.item, asked.allowed, inputs, is_asked)
        easy = self._easy_loss(questions[is_asked], labels[is_asked], is_asked, inputs, seen, divisor)
        shown = without_seen(beside[is_asked], seen)
        hard = self._hard_loss(questions[is_asked], labels[is_asked], shown, is_asked, inputs, divisor)
        loss = config.easy_weight * easy + (1 - config.easy_weight) * hard
        parts: dict[str, Tensor] = {"easy_loss": easy, "hard_loss": hard}
        if self.ranking_head is not None:
            # A corrected draw may be the target, which was clicked.
            others = torch.where(beside == labels[..., None], -1, beside)
            rows = torch.cat([labels.clamp_min(-1)[..., None], others], dim=-1)
            logits = self.ranking_head(self.model.judge(state, asked, inputs, rows))[..., 0]
            if self.retrieval_logit is not None:
                with torch.no_grad():
                    scores = (self.items(rows) * questions[:, :, None]).sum(-1)
                logits = self.retrieval_logit(logits, scores)
            ranking = ranking_losses(logits[is_asked], rows[is_asked] >= 0, divisor=divisor)
            parts |= {"pointwise_loss": ranking.pointwise, "pairwise_loss": ranking.pairwise}
            loss = loss + config.ranking_weight * (ranking.pointwise + ranking.pairwise)
        return SynerGenOutput(loss=loss, questions=questions, **parts)

    def _easy_loss(
        self,
        questions: Tensor,
        labels: Tensor,
        is_asked: Tensor,
        inputs: Inputs,
        seen: Tensor | None,
        divisor: Tensor | int,
    ) -> Tensor:
        config = self.config
        if not config.easy_weight:
            return questions.sum() * 0.0
        if config.negatives == "full":
            all_items = self.items.all()

            def unseen(part: slice) -> Tensor | None:
                return None if seen is None else unseen_items(seen[part], len(all_items))

            return full_softmax(
                questions, all_items, labels, candidates=unseen, temperature=config.temperature, divisor=divisor
            )
        log_q = _log_q(inputs, "label")[is_asked] if config.negatives == "popularity" else None
        first, columns = 0, [labels] if log_q is None else [labels, log_q]
        # The batch is that of all processes. In training alone: any other loss may be one process's own affair.
        if self.training:
            columns, first = gather_columns(*columns)
        return in_batch_loss(
            questions,
            self.items(columns[0]),
            columns[0],
            first=first,
            log_q=None if log_q is None else columns[1],
            temperature=config.temperature,
            divisor=divisor,
        )

    def _hard_loss(
        self,
        questions: Tensor,
        labels: Tensor,
        beside: Tensor,
        is_asked: Tensor,
        inputs: Inputs,
        divisor: Tensor | int,
    ) -> Tensor:
        """Compare targets with what was shown or drawn together with them.

        How the shop chose what it showed is not known; alongside negatives by popularity it counts as chosen by
        popularity, so that shown and drawn items are on one scale.
        """
        if self.config.easy_weight == 1:
            return questions.sum() * 0.0
        # Nothing may stand next to any target; the vectors are read all the same, as in the other processes.
        vectors = self.items(torch.cat([labels[:, None], beside], dim=1))
        scores = (vectors * questions[:, None]).sum(-1)
        own_log_q = log_q = None
        if self.config.negatives == "popularity":
            own_log_q = _log_q(inputs, "label")[is_asked]
            names = ["shown", "negative"] if "negative_rows" in inputs else ["shown"]
            log_q = torch.cat([_log_q(inputs, name)[is_asked] for name in names], dim=-1)
        return info_nce(
            scores[:, 0],
            scores[:, 1:],
            is_valid=beside >= 0,
            positive_log_q=own_log_q,
            negative_log_q=log_q,
            temperature=self.config.temperature,
            divisor=divisor,
        )


def _log_q(inputs: Inputs, name: str) -> Tensor:
    if f"{name}_log_q" not in inputs:
        raise ConfigurationError(
            f"The batch has no `{name}_log_q`, which `negatives: popularity` needs; pass the collator `negatives=` "
            "of that kind."
        )
    return inputs[f"{name}_log_q"]


def _beside(inputs: Inputs) -> Tensor:
    """Return the negatives of each target: impressions, or sampled items; -1 for padding."""
    shown = inputs["shown_item_rows"]
    return torch.cat([shown, inputs["negative_rows"]], dim=-1) if "negative_rows" in inputs else shown


def gather_columns(*columns: Tensor) -> tuple[list[Tensor], int]:
    """Put the entries of all processes one behind the other, in the order of their ranks.

    Only numbers are gathered, rows and probabilities, and no vectors: every process looks the vectors of foreign rows
    up itself. So gradients reach the weights of all processes by the usual mean over processes, and nothing is sent
    backward. Every process must call it in the same step, even with no entry. A process alone gets its own.

    Args:
        columns (`torch.Tensor`): Each `(num_entries,)`, whose number differs between processes; without gradients.

    Returns:
        `tuple`: The columns over all processes, and how many entries come before this process's own.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return list(columns), 0
    own = torch.tensor([len(columns[0])], device=columns[0].device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    counts = torch.cat(found).tolist()
    gathered = []
    for column in columns:
        padded = column.new_zeros(max(counts))
        padded[: len(column)] = column
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        gathered.append(torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]))
    return gathered, sum(counts[: dist.get_rank()])


def in_batch_loss(
    questions: Tensor,
    targets: Tensor,
    labels: Tensor,
    *,
    first: int = 0,
    log_q: Tensor | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """Compute InfoNCE of each target against the other targets of the batch.

    A popular item is a negative more often than a rare one, in proportion to how often it is a target; `log_q` takes
    that back. Another question with the same target is no negative, but with `log_q`, where it is a draw as any other:
    see `seekrec.embeddings.softmax`.

    Args:
        questions (`torch.Tensor`): Vectors of questions, `(num_questions, size)`.
        targets (`torch.Tensor`): Item vectors of the batch's targets, `(num_targets, size)`: those of these questions,
            and of those that other processes ask.
        labels (`torch.LongTensor`): Rows of the targets, `(num_targets,)`.
        first (`int`): Number of targets before that of the first question; the others follow in order.
        log_q (`torch.Tensor`, *optional*): Logarithm of how often each target is one, `(num_targets,)`.
        temperature (`float`): Divides similarities.
        divisor (`int`, *optional*): Divides the sum over questions; their number if not given.

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    scores = questions @ targets.T
    own = slice(first, first + len(questions))
    numbers = torch.arange(len(labels), device=labels.device)
    is_other = numbers[own, None] != numbers
    return info_nce(
        scores.diagonal(first),
        scores,
        is_valid=labels[own, None] != labels if log_q is None else is_other,
        positive_log_q=None if log_q is None else log_q[own],
        negative_log_q=log_q,
        temperature=temperature,
        divisor=divisor,
    )


class RankingLosses(NamedTuple):
    """In nats a question: the log-loss of clicks, and the loss of the order of pairs."""

    pointwise: Tensor
    pairwise: Tensor


def ranking_losses(logits: Tensor, is_real: Tensor, *, divisor: Tensor | int | None = None) -> RankingLosses:
    """Compute the losses of clicks against what was not clicked (section 3.5).

    Every candidate weighs the same, so the sigmoid of a logit is the share of clicks among candidates as they come.

    Args:
        logits (`torch.Tensor`): Logits `(num_questions, num_candidates)`; what was clicked comes first.
        is_real (`torch.BoolTensor`): False for padding, `(num_questions, num_candidates)`.
        divisor (`int`, *optional*): Divides the sums; the number of questions if not given.

    Returns:
        [`RankingLosses`]: Float32 numbers; 0 without questions.
    """
    logits = logits.float()
    clicked = torch.zeros_like(logits)
    clicked[:, 0] = 1
    each = F.binary_cross_entropy_with_logits(logits, clicked, reduction="none")
    pairs = -F.logsigmoid(logits[:, :1] - logits[:, 1:])
    count = max(len(logits), 1) if divisor is None else divisor
    return RankingLosses((each * is_real).sum() / count, (pairs * is_real[:, 1:]).sum() / count)


__all__ = ["SynerGenForSearchAndRecommendation", "SynerGenModel", "SynerGenOutput", "SynerGenPreTrainedModel"]
