# SPDX-License-Identifier: Apache-2.0
"""IntSR: a decoder over scenario, query, item and feedback tokens that retrieves and ranks (Yan et al.).

Unusual here:

- Questions are **placeholders** in a separate stream: the history is read once, kept as an [`IntSRState`], and answers
  any number of questions or candidates (appendix C). In training every event of a window is a target that sees what
  came before its session.
- Item vectors are, unless `item_reading` says otherwise, an id embedding plus a projected text vector, on both sides:
  as tokens, and as what the output is compared with.
- Without placeholders (`without`) this is plain HSTU over items.

The tokens of the first stream (section 3.1): S opens a session, then for each event Q (what was searched for), I, F.

```
S  Q  I  F     I  F     S  I  F        events 1 and 2 share a session; 1 was searched for
0  1  2  3     4  5     6  7  8        positions
```

With `merge_event_tokens` an event is one token, the sum of its parts. Placeholders stand in the second stream: each
sees tokens of the first and itself, and is seen by nothing. So the first stream can be computed once and kept, and a
placeholder's own part of attention is one product per row, not a matrix (equations 5-9, appendix C.2). Details that
the paper leaves open follow HSTU: a layer norm before the block and one on its mixed values, a residual connection, no
feed-forward layer. Attention weights are SiLU values, not a distribution.

Weights start as follows: embeddings and projections of text normal with a spread of 0.02; the linear layers of blocks
and DSFNet normal with `1 / sqrt(inputs)`, the last of DSFNet like the embeddings; the position bias at 1, so that
attention starts as a mean over visible keys, whereas SiLU of zero would give no attention at all; ALiBi's slopes at `2
** (-8 * (head + 1) / num_heads)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from seekrec.embeddings.row_shards import RowShards
from seekrec.embeddings.softmax import Candidates, full_softmax, info_nce, parts
from seekrec.errors import ConfigurationError
from seekrec.models.dense.item_tower import ItemTower, TextProjection
from seekrec.models.dense.modeling_dense import (
    INITIALIZER_RANGE,
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
from seekrec.models.intsr.configuration_intsr import IntSRConfig
from seekrec.models.losses import unseen_items, without_seen
from seekrec.models.states import fill_below
from seekrec.util.constants import SECONDS_PER_DAY, SECONDS_PER_HOUR

# What a placeholder asks: anything, items for a query, or how good one item is.
UNIVERSAL, SEARCHED, CANDIDATE = range(3)
# The base of HSTU's buckets of seconds, and how many there are.
_LOG_STEP = 0.301
_NUM_TIME_BUCKETS = 128
# Scenarios of DSFNet, N_g.
_NUM_SCENARIOS = 2
# Pairs of a query and a key that attention holds at a time; 64 MiB of float32.
_PAIRS_OF_A_BLOCK = 2**24


@dataclass(frozen=True)
class IntSRPositions(TokenPositions):
    """Where tokens stand.

    Args:
        is_scenario (`torch.Tensor`): bool: an S token, which its own session sees; its event is the first of that.
    """

    is_scenario: Tensor


@dataclass(frozen=True)
class IntSRState(HistoryState):
    """A history that was read.

    Args:
        last_session (`torch.Tensor`): int64 latest session of each row, `(batch,)`; -1 without a token.
        outputs (`torch.Tensor`, *optional*): What the last block returns, `(batch, length, hidden_size)`; plain HSTU
            alone needs it.
    """

    positions: IntSRPositions
    last_session: Tensor
    outputs: Tensor | None

    def select(self, rows: Tensor) -> Self:
        """Return the states of some rows, in the order asked."""
        outputs = None if self.outputs is None else self.outputs[rows]
        return replace(super().select(rows), last_session=self.last_session[rows], outputs=outputs)

    def take_tokens(self, columns: Tensor) -> Self:
        """Return the state with some of the tokens of each row, int64 `(batch, num_kept)`."""
        taken = super().take_tokens(columns)
        if self.outputs is None:
            return taken
        return replace(taken, outputs=self.outputs.gather(1, columns[..., None].expand(-1, -1, self.outputs.shape[2])))

    def join(self, others: Sequence[Self]) -> Self:
        """Put the states of other users below these; nothing is read again."""
        states = [self, *others]
        outputs = [one.outputs for one in states if one.outputs is not None]
        return replace(
            super().join(others),
            last_session=torch.cat([one.last_session for one in states]),
            outputs=fill_below(outputs) if outputs else None,
        )


def history_visibility(queries: IntSRPositions, keys: IntSRPositions, *, use_session_mask: bool = True) -> Tensor:
    """Compute what tokens of the first stream see: causal x session-wise mask (section 3.3.2, appendix D).

    A token sees itself, what came before it in its own event, the S token of its session, and earlier sessions.

    Args:
        queries ([`IntSRPositions`]): The tokens that look, `(batch, num_queries)`.
        keys ([`IntSRPositions`]): The tokens that are looked at, `(batch, num_keys)`.
        use_session_mask (`bool`): Off: a token sees all that came before it.

    Returns:
        `torch.BoolTensor`: True where a token is seen, `(batch, num_queries, num_keys)`.
    """
    allowed = (keys.position[:, None] <= queries.position[:, :, None]) & keys.is_real[:, None]
    if use_session_mask:
        session, event = keys.session[:, None], keys.event[:, None]
        own_session = queries.session[:, :, None]
        is_own = (event == queries.event[:, :, None]) | (keys.is_scenario[:, None] & (session == own_session))
        allowed &= (session < own_session) | is_own
    return allowed


def placeholder_visibility(
    session: Tensor, event: Tensor, keys: IntSRPositions, *, use_session_mask: bool = True
) -> Tensor:
    """Compute what placeholders see of the first stream: earlier sessions, and the S token of their own.

    That placeholders are seen by nothing, the invalid-Q mask, needs no matrix: they are in no stream of keys.

    Args:
        session (`torch.LongTensor`): Session of each placeholder, `(batch, num_placeholders)`.
        event (`torch.LongTensor`): The event that each asks for, `(batch, num_placeholders)`.
        keys ([`IntSRPositions`]): The first stream, `(batch, num_keys)`.
        use_session_mask (`bool`): Off: it sees all events before its own.

    Returns:
        `torch.BoolTensor`: True where a token is seen, `(batch, num_placeholders, num_keys)`.
    """
    its_session, its_event = session[:, :, None], event[:, :, None]
    if use_session_mask:
        before = keys.session[:, None] < its_session
    else:
        before = keys.event[:, None] < its_event
    opens = keys.is_scenario[:, None] & (keys.session[:, None] == its_session) & (keys.event[:, None] <= its_event)
    return (before | opens) & keys.is_real[:, None]


class TokenEmbedder(nn.Module):
    """Events, scenarios and questions to vectors."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        self.config = config
        size, features = config.hidden_size, config.scenario_features
        # As in SASRec, rows start small for the sake of the output and are scaled up at the input.
        self.scale = size**0.5
        self.actions = nn.Embedding(config.num_actions + 1, size)
        reads_text = "text" in config.query_reading
        self.queries = TextProjection(config.query_size, size, bias=False) if reads_text else None
        self.writes_scenarios = config.has_scenario_tokens
        reads_scenario = "dsfnet" not in config.without or self.writes_scenarios
        self.hours = nn.Embedding(24, size) if "hour" in features and reads_scenario else None
        self.weekdays = nn.Embedding(7, size) if "weekday" in features and reads_scenario else None
        has_areas = "geohash" in features and reads_scenario
        self.geohashes = nn.Embedding(config.num_geohashes + 1, size) if has_areas else None
        self.pages = nn.Embedding(2, size) if "page" in features else None
        self.tasks = nn.Embedding(2, size) if "dsfnet" not in config.without and config.num_dsf_layers else None
        self.placeholders = nn.Embedding(3, size) if "placeholders" not in config.without else None
        self.start = nn.Embedding(1, size) if "placeholders" in config.without else None
        self.dropout = nn.Dropout(config.token_dropout)

    def history(
        self, inputs: Inputs, items: Callable[[Tensor], Tensor], words: Tensor | None, state: IntSRState | None
    ) -> tuple[Tensor, IntSRPositions]:
        """Write events as tokens.

        Args:
            inputs (`dict[str, torch.Tensor]`): Has the `history_*` tensors and `query_vectors`.
            items (`Callable`): Catalogue rows to vectors.
            words (`torch.Tensor`, *optional*): Queries by their words, `(num_queries, hidden_size)`.
            state ([`IntSRState`], *optional*): What the events follow; their sessions are numbered on from its.

        Returns:
            `tuple`: Vectors `(batch, length, hidden_size)` and their [`IntSRPositions`].
        """
        mask, time, session = inputs["history_mask"], inputs["history_timestamps"], inputs["history_session_ids"]
        rows, query_rows = inputs["history_item_rows"], inputs["history_query_rows"]
        # S opens a session, also behind a state.
        opens = torch.ones_like(mask)
        opens[:, 1:] = session[:, 1:] != session[:, :-1]
        first_event = torch.zeros_like(time[:, :1])
        first_position = first_event
        if state is not None:
            opens[:, :1] &= session[:, :1] > state.last_session[:, None]
            first_event, first_position = state.num_events[:, None], state.positions.is_real.sum(1, keepdim=True)
        # The vectors of S, Q, I and F: `(batch, events, 4, hidden_size)`; or of all in one.
        item = items(rows) * self.scale
        if self.pages is not None:
            item = item + self.pages(inputs["history_behavior_ids"]) * self.scale
        action = self.actions(inputs["history_action_ids"]) * self.scale
        query = self.query(query_rows, inputs["query_vectors"], words, item)
        if self.config.merge_event_tokens:
            merged = item + action + query
            if self.writes_scenarios:
                merged = merged + self.setting(inputs, "history", merged)
            vectors, present = merged[:, :, None], mask[:, :, None]
        else:
            scenario = self.setting(inputs, "history", item) if self.writes_scenarios else torch.zeros_like(item)
            vectors = torch.stack([scenario, query, item, action], dim=2)
            has_scenario, has_item = opens & mask & self.writes_scenarios, (rows >= 0) & mask
            has_query = (query_rows >= 0) & mask & bool(self.config.query_reading)
            present = torch.stack([has_scenario, has_query, has_item, has_item], dim=2)
        # Where they stand.
        kinds = vectors.shape[2]
        event = (first_event + torch.arange(mask.shape[1], device=mask.device)).expand_as(session)
        is_scenario, brought = torch.zeros_like(present), torch.full_like(present, -1, dtype=torch.long)
        is_scenario[..., 0] = kinds == 4
        brought[..., 2 if kinds == 4 else 0] = rows
        shared = [part[..., None].expand_as(present) for part in (session, event, time)]
        slots = [part.flatten(1) for part in (*shared, brought, present, is_scenario)]
        vectors = vectors.flatten(1, 2)
        if kinds > 1:
            # Slots without a token go to the end of the row and are cut off there.
            is_real = present.flatten(1)
            longest = int(is_real.sum(1).max()) if is_real.numel() else 0
            order = (~is_real).byte().argsort(dim=1, stable=True)[:, :longest]
            vectors = vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[-1]))
            slots = [part.gather(1, order) for part in slots]
        numbers = torch.arange(slots[0].shape[1], device=mask.device).expand_as(slots[0])
        return self.dropout(vectors), IntSRPositions(first_position + numbers, *slots)

    def question(self, inputs: Inputs, words: Tensor | None, candidates: Tensor | None = None) -> Tensor:
        """Write placeholders (section 3.2).

        Args:
            inputs (`dict[str, torch.Tensor]`): Has the `question_*` tensors and `query_vectors`.
            words (`torch.Tensor`, *optional*): Queries by their words, `(num_queries, hidden_size)`.
            candidates (`torch.Tensor`, *optional*): Items, `(batch, num_questions, num_candidates, hidden_size)`.

        Returns:
            `torch.Tensor`: Vectors `(batch, num_questions, num_candidates or 1, hidden_size)`.
        """
        if self.placeholders is None:
            raise ConfigurationError("`without` includes the placeholders, so there are none to ask with.")
        query_rows, behavior = inputs["question_query_rows"], inputs["question_behavior_ids"]
        if not self.config.query_reading:
            query_rows = torch.full_like(query_rows, -1)
        kind = torch.where(query_rows >= 0, SEARCHED, UNIVERSAL)
        like = self.placeholders.weight.new_zeros(*query_rows.shape, self.config.hidden_size)
        content = self.query(query_rows, inputs["query_vectors"], words, like)
        if self.pages is not None:
            content = content + self.pages(behavior) * self.scale
        if self.config.merge_event_tokens and self.writes_scenarios:
            content = content + self.setting(inputs, "question", like)
        if candidates is None:
            alone: Tensor = self.dropout(content + self.placeholders(kind) * self.scale)
            return alone[:, :, None]
        own = candidates * self.scale + self.placeholders.weight[CANDIDATE] * self.scale
        written: Tensor = self.dropout(content[:, :, None] + own)
        return written

    def setting(self, inputs: Inputs, of: str, like: Tensor) -> Tensor:
        """Return the vectors of when and where, in the shape of `like`; `of` is "history" or "question"."""
        vectors, timestamps = torch.zeros_like(like), inputs[f"{of}_timestamps"]
        if self.hours is not None:
            vectors = vectors + self.hours(timestamps.remainder(SECONDS_PER_DAY) // SECONDS_PER_HOUR) * self.scale
        if self.weekdays is not None:
            vectors = vectors + self.weekdays((timestamps // SECONDS_PER_DAY).remainder(7)) * self.scale
        if self.geohashes is not None:
            vectors = vectors + self.geohashes(inputs[f"{of}_geohash_ids"]) * self.scale
        return vectors

    def query(self, rows: Tensor, vectors: Tensor, words: Tensor | None, like: Tensor) -> Tensor:
        """Return what is read of queries, zero where there is none, in the shape of `like`."""
        weights = [part for part in (None if self.queries is None else self.queries.weight, words) if part is not None]
        if not weights or not vectors.numel():
            # Keeps the weights in the graph: several processes must agree on which weights get a gradient.
            return torch.zeros_like(like) + sum(weight.sum() for weight in weights) * 0
        read = [] if self.queries is None else [self.queries(vectors.to(self.queries.weight.dtype)) * self.scale]
        if words is not None:
            read.append(words * self.scale)
        picked: Tensor = sum(read[1:], read[0])[rows.clamp_min(0)] * (rows >= 0)[..., None]
        return picked


class RelativeBias(nn.Module):
    """What is added to similarities for a distance in tokens (T5's buckets) and in seconds; shared by all blocks."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        heads, kind = config.num_attention_heads, config.relative_bias
        self.num_heads, self.num_buckets = heads, config.num_position_buckets
        # From here on one bucket.
        self.max_distance = 4 * config.max_history
        # Parameters, not embeddings: those have start values of their own.
        self.position = nn.Parameter(torch.empty(self.num_buckets, heads)) if kind != "none" else None
        self.time_buckets = nn.Parameter(torch.empty(_NUM_TIME_BUCKETS + 1, heads)) if kind == "buckets" else None
        self.slopes = nn.Parameter(torch.empty(heads)) if kind == "alibi" else None

    def start_weights(self) -> None:
        """Initialise so that attention starts as a mean over visible keys."""
        if self.position is not None:
            init.ones_(self.position)
        if self.time_buckets is not None:
            init.zeros_(self.time_buckets)
        if self.slopes is not None:
            heads = torch.arange(1, self.num_heads + 1)
            init.copy_(self.slopes, 2.0 ** (-8.0 * heads / self.num_heads))

    def forward(self, own: Tensor, others: Tensor, own_time: Tensor, other_time: Tensor) -> Tensor | None:
        """Compute the bias of each query for each key, by blocks of queries as [`attend`] reads them.

        Args:
            own (`torch.LongTensor`): Positions of the queries, `(batch, num_queries)`.
            others (`torch.LongTensor`): Positions of the keys, `(batch, num_keys)`.
            own_time (`torch.LongTensor`): Seconds of the queries, `(batch, num_queries)`.
            other_time (`torch.LongTensor`): Seconds of the keys, `(batch, num_keys)`.

        Returns:
            `torch.Tensor`, *optional*: Of shape `(batch or 1, num_heads, num_queries, num_keys)`: without a time bias
            it has one row where all rows of a batch have the same positions. `None` where there is no bias.
        """
        if self.position is None:
            return None
        # Rows whose tokens are numbered alike, as those of histories read from the start are, share one bias.
        if len(own) > 1 and bool((own == own[:1]).all() & (others == others[:1]).all()):
            own, others = own[:1], others[:1]
        per_block = max(1, _PAIRS_OF_A_BLOCK // max(1, len(own_time) * self.num_heads * others.shape[1]))
        if per_block < own.shape[1]:
            blocks = zip(own.split(per_block, dim=1), own_time.split(per_block, dim=1), strict=True)
            return torch.cat(
                [
                    checkpoint(self, some, others, time, other_time, use_reentrant=False, preserve_rng_state=False)
                    for some, time in blocks
                ],
                dim=2,
            )
        distance = (own[:, :, None] - others[:, None]).clamp_min(0)
        # T5's buckets: half of them for one distance each, the others wider and wider. They are looked up once for
        # each distance, not once for each pair of tokens.
        distances = torch.arange((int(distance.max()) if distance.numel() else 0) + 1, device=distance.device)
        exact = max(1, self.num_buckets // 2)
        far = (distances.clamp_min(1).float() / exact).log() / max(
            torch.log(torch.tensor(self.max_distance / exact)).item(), 1e-6
        )
        wide = (exact + (far * (self.num_buckets - exact)).long()).clamp_max(self.num_buckets - 1)
        buckets = torch.where(distances < exact, distances, wide).clamp_max(self.num_buckets - 1)
        picks = [(self.position[buckets], distance)]
        if self.time_buckets is not None:
            seconds = own_time[:, :, None] - other_time[:, None]
            number = (seconds.clamp_min(1).float().log() / _LOG_STEP).long().clamp_max(_NUM_TIME_BUCKETS)
            picks.append((self.time_buckets, number))
        # By head: numbers of one head lie side by side, as those they are added to.
        parts = [
            table.T.index_select(1, numbers.flatten()).view(self.num_heads, *numbers.shape).movedim(0, -3)
            for table, numbers in picks
        ]
        bias = sum(parts[1:], parts[0])
        if self.slopes is not None:
            seconds = own_time[:, :, None] - other_time[:, None]
            passed = torch.log2(1.0 + seconds.clamp_min(0).float()).unsqueeze(-3).to(self.slopes.dtype)
            bias = bias - self.slopes[:, None, None] * passed
        return bias


def attend(queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, bias: Tensor | None) -> Tensor:
    """Sum values by `silu(q k + bias)`, before the division by what is seen (equations 6 and 7).

    Long histories are read by blocks of queries: one block of pairs is in memory at a time, and in training it is
    computed again on the way back.

    Args:
        queries (`torch.Tensor`): Queries `(batch, num_heads, num_groups * group_size, head_size)`; those of one group
            see the same tokens.
        keys (`torch.Tensor`): Keys `(batch, num_heads, num_keys, head_size)`.
        values (`torch.Tensor`): Values in that shape.
        allowed (`torch.BoolTensor`): What groups see, `(batch, num_groups, num_keys)`.
        bias (`torch.Tensor`, *optional*): Added to similarities, `(batch or 1, num_heads, num_groups, num_keys)`.

    Returns:
        `torch.Tensor`: In the shape of `queries`.
    """
    (batch, num_groups, num_keys), num_heads = allowed.shape, queries.shape[1]
    size = queries.shape[2] // max(num_groups, 1)
    per_block = max(1, _PAIRS_OF_A_BLOCK // max(1, batch * num_heads * size * num_keys))
    if per_block < num_groups:
        blocks = zip(
            queries.split(per_block * size, dim=2),
            allowed.split(per_block, dim=1),
            itertools.repeat(None) if bias is None else bias.split(per_block, dim=2),
            strict=False,
        )
        return torch.cat(
            [
                checkpoint(attend, some, keys, values, seen, added, use_reentrant=False, preserve_rng_state=False)
                for some, seen, added in blocks
            ],
            dim=2,
        )
    scores = (queries @ keys.transpose(-1, -2)).unflatten(2, (num_groups, size))
    if bias is not None:
        scores = scores + bias[:, :, :, None]
    return (F.silu(scores) * allowed[:, None, :, None]).flatten(2, 3) @ values


class QueryDrivenBlock(nn.Module):
    """One block; both streams share its weights."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        # What attention is divided by, as in HSTU; the keys that are seen, with placeholders.
        self.length = config.max_history if "placeholders" in config.without else None
        self.input_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.project = nn.Linear(config.hidden_size, 4 * config.hidden_size)  # MLP_1
        self.mixed_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)  # MLP_2
        self.dropout = nn.Dropout(config.layer_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        before: tuple[Tensor, Tensor] | None,
        allowed: Tensor | None,
        bias: Tensor | None,
        own_bias: Tensor | None = None,
        *,
        asks: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Apply the block to tokens of the first stream (equations 5, 6 and 8) or to placeholders (5, 7 and 9).

        Args:
            hidden_states (`torch.Tensor`): States `(batch, num_groups * group_size, hidden_size)`. Placeholders of
                one group see the same tokens; tokens of the first stream are groups of one.
            before (`tuple[torch.Tensor, torch.Tensor]`, *optional*): Keys and values of the first stream so far, each
                `(batch, num_heads, num_before, head_size)`.
            allowed (`torch.BoolTensor`, *optional*): What groups see, `(batch, num_groups, num_keys)`. `None` where
                keys and values alone are wanted; states are then returned as they came.
            bias (`torch.Tensor`, *optional*): Added to similarities, `(batch or 1, num_heads, num_groups, num_keys)`.
            own_bias (`torch.Tensor`, *optional*): Added to that of a placeholder to itself, `(1, num_heads, 1, 1)`.
            asks (`bool`): Whether these are placeholders, which nothing sees but each itself.

        Returns:
            `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: States in the shape of `hidden_states`; keys and values
            of the first stream, with those of its tokens that were given.
        """
        gates, *rest = F.silu(self.project(self.input_norm(hidden_states))).chunk(4, dim=-1)
        queries, own_keys, own_values = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in rest)
        keys, values = (own_keys, own_values) if before is None else before
        if before is not None and not asks:
            keys, values = torch.cat([keys, own_keys], dim=2), torch.cat([values, own_values], dim=2)
        if allowed is None:
            return hidden_states, keys, values
        mixed = attend(queries, keys, values, allowed, bias)
        count = allowed.sum(-1)
        if asks:
            # M_{2,2} is the identity: only its diagonal is computed, and it scales the rows of V_2.
            own = (queries * own_keys).sum(-1, keepdim=True)  # (batch, heads, groups * size, 1)
            own = F.silu(own if own_bias is None else own + own_bias)
            mixed = mixed + own * own_values
            count = (count + 1).repeat_interleave(hidden_states.shape[1] // max(count.shape[1], 1), dim=1)
        mixed = mixed / (count[:, None, :, None].clamp_min(1) if self.length is None else self.length)
        mixed = mixed.transpose(1, 2).flatten(2)  # heads side by side again
        return hidden_states + self.dropout(self.output(self.mixed_norm(mixed) * gates)), keys, values


class LastDSFLinear(nn.Linear):
    """The last layer of DSFNet: it starts with the small weights of embeddings."""


class DSFNet(nn.Module):
    """Layers whose weights are mixed from those of several scenarios, or as many plain ones (equations 10-13).

    Weights are never put together for each row: with `W_l = sum_g gamma_g W_g` the product is
    `sum_g gamma_g (x W_g + b_g)`, one product for all scenarios. The paper gives no activation: SiLU stands between
    layers. A residual around all of them, which it does not mention, and small weights in the last one let the model
    begin as if they were not there.
    """

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        size, self.num_scenarios = config.hidden_size, _NUM_SCENARIOS if "dsfnet" not in config.without else 1
        kinds = [nn.Linear] * (config.num_dsf_layers - 1) + [LastDSFLinear]
        self.layers = nn.ModuleList(kind(size, self.num_scenarios * size) for kind in kinds)
        self.gates = self.filter = None
        if "dsfnet" not in config.without:
            # R is the setting of the question (time, area), its page and its task tag, two vectors of this width.
            self.gates = nn.ModuleList(nn.Linear(2 * size, _NUM_SCENARIOS) for _ in range(config.num_dsf_layers))
            self.filter = nn.Linear(3 * size, size)

    def forward(self, hidden_states: Tensor, scenario: Tensor | None) -> Tensor:
        """Apply the layers.

        Args:
            hidden_states (`torch.Tensor`): States `(..., hidden_size)`.
            scenario (`torch.Tensor`, *optional*): R of equation 10, `(..., 2 * hidden_size)`; plain layers read none.

        Returns:
            `torch.Tensor`: States in the shape of `hidden_states`.
        """
        mixed = hidden_states
        if self.filter is not None and scenario is not None:
            mixed = mixed * torch.sigmoid(self.filter(torch.cat([mixed, scenario], dim=-1)))
        for number, layer in enumerate(self.layers):
            by_scenario = layer(mixed).unflatten(-1, (self.num_scenarios, -1))
            if self.gates is None:
                mixed = by_scenario[..., 0, :]
            else:
                weight = 2 * torch.sigmoid(self.gates[number](scenario))
                mixed = (weight[..., None] * by_scenario).sum(-2)
            if number + 1 < len(self.layers):
                mixed = F.silu(mixed)
        return hidden_states + mixed


class IntSRPreTrainedModel(DensePreTrainedModel):
    """Loading, saving and the start values of IntSR's weights."""

    config_class = IntSRConfig
    config: IntSRConfig
    _no_split_modules = ["QueryDrivenBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RelativeBias):
            module.start_weights()

    def _linear_spread(self, layer: nn.Linear) -> float:
        return INITIALIZER_RANGE if isinstance(layer, LastDSFLinear) else float(layer.in_features**-0.5)


class IntSRModel(IntSRPreTrainedModel):
    """The decoder: histories to states, questions to vectors."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__(config)
        self.items = ItemTower.from_config(config)
        self.tokens = TokenEmbedder(config)
        self.bias = RelativeBias(config)
        self.latest = LatestItem(config.hidden_size) if config.starts_from_latest_item else None
        self.layers = nn.ModuleList(QueryDrivenBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(
        self, inputs: Inputs, state: IntSRState | None = None, items: CatalogItems | Tensor | None = None
    ) -> IntSRState:
        """Read events.

        Args:
            inputs (`dict[str, torch.Tensor]`): Has the `history_*` tensors and `query_vectors`; see
                `EventSequenceProcessor`.
            state ([`IntSRState`], *optional*): What the events follow.
            items ([`CatalogItems`] or `torch.Tensor`, *optional*): What is answered from, or the vectors of the whole
                catalogue; the tower if not given.

        Returns:
            [`IntSRState`]: The state of all events so far.
        """
        vectors, positions = self.tokens.history(inputs, self.lookup(items), self.items.read_queries(inputs), state)
        read = self.read(vectors, positions, state)
        return replace(read, num_events=read.num_events + inputs["history_mask"].sum(1))

    def lookup(self, items: CatalogItems | Tensor | None) -> Callable[[Tensor], Tensor]:
        """Return the function from catalogue rows to vectors; below 0 is not an item."""
        if items is None:
            return self.items
        if isinstance(items, CatalogItems) and isinstance(items.tower.ids, RowShards):
            return items
        vectors = items.vectors if isinstance(items, CatalogItems) else items
        return lambda rows: vectors[rows.clamp_min(0)] * (rows >= 0)[..., None]

    def read(self, vectors: Tensor, positions: IntSRPositions, state: IntSRState | None) -> IntSRState:
        """Send tokens of the first stream through all blocks, behind those of a state (equations 5, 6 and 8)."""
        all_positions = positions if state is None else state.positions.append(positions)
        allowed = history_visibility(
            positions, all_positions, use_session_mask="session_mask" not in self.config.without
        )
        bias = self.bias(positions.position, all_positions.position, positions.time, all_positions.time)
        # Placeholders read keys and values of the last block, not what it makes of the history.
        last = None if "placeholders" in self.config.without else self.layers[-1]
        all_keys, all_values, hidden = [], [], vectors
        for number, block in enumerate(self.layers):
            before = None if state is None else (state.keys[number], state.values[number])
            hidden, keys, values = block(hidden, before, None if block is last else allowed, bias)
            all_keys.append(keys)
            all_values.append(values)
        outputs = None
        if last is None:
            outputs = hidden if state is None or state.outputs is None else torch.cat([state.outputs, hidden], dim=1)
        sessions = all_positions.session.masked_fill(~all_positions.is_real, -1)
        return IntSRState(
            positions=all_positions,
            keys=tuple(all_keys),
            values=tuple(all_values),
            num_events=positions.event.new_zeros(len(vectors)) if state is None else state.num_events,
            events=None,
            last_session=F.pad(sessions, (0, 1), value=-1).amax(1),
            outputs=outputs,
        )

    def answer(
        self,
        state: IntSRState,
        inputs: Inputs,
        items: CatalogItems | Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Send questions through all blocks (equations 5, 7 and 9).

        Args:
            state ([`IntSRState`]): What they ask about.
            inputs (`dict[str, torch.Tensor]`): Has the `question_*` tensors and `query_vectors`.
            items ([`CatalogItems`] or `torch.Tensor`, *optional*): As in [`forward`].
            candidates (`torch.LongTensor`, *optional*): Catalogue rows `(batch, num_questions, num_candidates)`: a
                placeholder for each, which sees what its question sees, and itself.

        Returns:
            `torch.Tensor`: States `(batch, num_questions, num_candidates or 1, hidden_size)`.
        """
        session, event, time = (inputs[f"question_{name}"] for name in ("session_ids", "events", "timestamps"))
        tokens, config = self.tokens, self.config
        # A request of a new session reads the S token that opens it. A page view of which the history contains events
        # has its own, and so has every question of training.
        opens = (event[:, 0] >= state.num_events) & (session[:, 0] > state.last_session)
        if tokens.writes_scenarios and not config.merge_event_tokens and bool(opens.any()):
            nothing = state.keys[0].new_zeros(*time.shape, config.hidden_size)
            positions = IntSRPositions(
                position=state.positions.is_real.sum(1, keepdim=True),
                session=session[:, :1],
                event=event[:, :1],
                time=time[:, :1],
                item=torch.full_like(time[:, :1], -1),
                is_real=opens[:, None],
                is_scenario=torch.ones_like(opens[:, None]),
            )
            state = self.read(tokens.dropout(tokens.setting(inputs, "question", nothing)[:, :1]), positions, state)
        allowed = placeholder_visibility(
            session, event, state.positions, use_session_mask="session_mask" not in config.without
        )
        if state.outputs is not None:
            return self._last_states(state.outputs, allowed)
        # How many tokens a question sees is its position.
        stands, nowhere = allowed.sum(-1), session.new_zeros(1, 1)
        bias = self.bias(stands, state.positions.position, time, state.positions.time)
        own_bias = self.bias(nowhere, nowhere, nowhere, nowhere)
        lookup = self.lookup(items)
        words = self.items.read_queries(inputs)
        hidden = tokens.question(inputs, words, None if candidates is None else lookup(candidates))
        if self.latest is not None and candidates is None:
            behaviors = inputs["question_behavior_ids"]
            latest = self.latest(state.positions.item, allowed, behaviors, lookup)
            hidden = hidden + latest[:, :, None]
        shape = hidden.shape
        # All placeholders of a row as one list, so that each block of keys is multiplied once and never copied.
        hidden = hidden.flatten(1, 2)
        for block, keys, values in zip(self.layers, state.keys, state.values, strict=True):
            hidden, _, _ = block(hidden, (keys, values), allowed, bias, own_bias, asks=True)
        return hidden.view(shape)

    def _last_states(self, outputs: Tensor, allowed: Tensor) -> Tensor:
        """Return what plain HSTU compares with items: the state of the last token seen, or a start vector."""
        if self.tokens.start is None:
            raise ConfigurationError("The model has placeholders, so there is no start vector.")
        start = self.tokens.start.weight * self.tokens.scale
        numbers = torch.arange(1, allowed.shape[-1] + 1, device=allowed.device)
        last = (allowed * numbers).amax(-1) if allowed.shape[-1] else allowed.sum(-1)
        padded = torch.cat([start.expand(len(outputs), 1, -1), outputs], dim=1)
        return padded.gather(1, last[..., None].expand(-1, -1, padded.shape[-1]))[:, :, None]


@dataclass
class IntSROutput(ModelOutput):
    """What [`IntSRForSearchAndRecommendation`] returns.

    Args:
        loss (`torch.FloatTensor`, *optional*): In nats a question; present when labels are given.
        retrieval_loss (`torch.FloatTensor`, *optional*): Its first part (equation 14).
        ranking_loss (`torch.FloatTensor`, *optional*): Its second part, before its weight; with `ranking_weight`.
        questions (`torch.FloatTensor`): Vectors of the questions, `(batch, num_questions, hidden_size)`.
    """

    loss: Tensor | None = None
    retrieval_loss: Tensor | None = None
    ranking_loss: Tensor | None = None
    questions: Tensor | None = None


class IntSRForSearchAndRecommendation(IntSRPreTrainedModel, DenseRetrieval[IntSRState]):
    """IntSR with DSFNet, the comparison with items and the ranking head."""

    model: IntSRModel

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__(config)
        self.model = IntSRModel(config)
        self.dsfnet = DSFNet(config) if config.num_dsf_layers else None
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.ranking_head = None
        if config.ranking_weight:
            size = config.hidden_size
            self.ranking_head = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, 1))
        self.retrieval_logit = RetrievalLogit.from_config(config)
        self.post_init()

    @property
    def action_embedding(self) -> nn.Embedding:
        """The vectors of actions."""
        return self.model.tokens.actions

    @property
    def compares_all_items(self) -> bool:
        """Whether a step of training reads the vector of every item."""
        return self.config.negatives in ("full", "hard")

    @property
    def judges_candidates(self) -> bool:
        """Whether the ranking head judges the candidates of `rank`."""
        return self.ranking_head is not None

    def encode_questions(
        self, inputs: Inputs, *, state: IntSRState | None = None, items: CatalogItems | None = None
    ) -> Tensor:
        """Compute the vector of each question; see `DenseRetrieval`."""
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        return self._outputs(state, inputs, items)[:, :, 0]

    def score_candidates(
        self,
        inputs: Inputs,
        *,
        state: IntSRState | None = None,
        items: CatalogItems | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """Compute the probability of an act on each candidate; see `DenseRetrieval`.

        Without a ranking head: the score that `retrieve` gives.
        """
        items = items or self.current_items()
        inputs, state = self.with_state(inputs, state, items)
        rows = inputs["candidate_rows"]
        if self.ranking_head is not None:
            logits = self.ranking_head(self._outputs(state, inputs, items, rows))[..., 0]
            return self.judge_candidates(
                logits, lambda: self._outputs(state, inputs, items)[:, :, 0], inputs, items, added
            )
        vectors = self._outputs(state, inputs, items)[:, :, 0]
        return self.answer_scores(vectors, rows, items, inputs["question_behavior_ids"])

    def forward(
        self, labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **inputs: Tensor
    ) -> IntSROutput:
        """Read windows and answer their questions.

        Args:
            labels (`torch.LongTensor`, *optional*): Catalogue rows, `(batch, num_questions)`; -100 for no question.
            num_items_in_batch (`int`, *optional*): Divides the sum of losses; the number of labels if not given.
            inputs: What `WindowCollator` or the processor makes.

        Returns:
            [`IntSROutput`]: With losses if labels are given.
        """
        all_items = self.items.all() if self.compares_all_items or labels is None else None
        state = self.model(inputs, items=all_items)
        questions = self._outputs(state, inputs, all_items)[:, :, 0]
        if labels is None:
            return IntSROutput(questions=questions)
        is_asked = labels >= 0
        divisor = int(is_asked.sum()) if num_items_in_batch is None else num_items_in_batch
        seen = None
        if not self.config.seen_compete:
            visible = placeholder_visibility(
                inputs["question_session_ids"],
                inputs["question_events"],
                state.positions,
                use_session_mask="session_mask" not in self.config.without,
            )
            seen = seen_of_recommendations(state.positions.item, visible, inputs, is_asked)
        retrieval = self._retrieval_loss(
            questions[is_asked], labels[is_asked], is_asked, inputs, all_items, seen, divisor
        )
        loss, ranking = retrieval, None
        if self.ranking_head is not None:
            # Each target is ranked among negatives (appendix C.1). A corrected draw may be the target.
            negatives = _negative_rows(inputs)[..., : self.config.num_ranking_negatives]
            negatives = torch.where(negatives == labels[..., None], -1, negatives)
            rows = torch.cat([labels.clamp_min(-1)[..., None], negatives], dim=-1)
            logits = self.ranking_head(self._outputs(state, inputs, all_items, rows))[..., 0]
            if self.retrieval_logit is not None:
                with torch.no_grad():
                    scores = (self.model.lookup(all_items)(rows) * questions[:, :, None]).sum(-1)
                logits = self.retrieval_logit(logits, scores)
            ranking = candidate_loss(logits[is_asked], rows[is_asked] >= 0, divisor=divisor)
            loss = loss + self.config.ranking_weight * ranking
        return IntSROutput(loss=loss, retrieval_loss=retrieval, ranking_loss=ranking, questions=questions)

    def _retrieval_loss(
        self,
        questions: Tensor,
        labels: Tensor,
        is_asked: Tensor,
        inputs: Inputs,
        all_items: Tensor | None,
        seen: Tensor | None,
        divisor: Tensor | int,
    ) -> Tensor:
        config = self.config
        if all_items is None:
            rows = without_seen(_negative_rows(inputs)[is_asked], seen)
            pair = torch.cat([labels[:, None], rows], dim=1)
            scores = (self.items(pair) * questions[:, None]).sum(-1)
            is_corrected = config.negatives == "popularity"
            return info_nce(
                scores[:, 0],
                scores[:, 1:],
                is_valid=rows >= 0,
                positive_log_q=inputs["label_log_q"][is_asked] if is_corrected else None,
                negative_log_q=inputs["negative_log_q"][is_asked] if is_corrected else None,
                temperature=config.temperature,
                divisor=divisor,
            )
        times = inputs["question_timestamps"][is_asked]

        def available(part: slice) -> Tensor | None:
            there = self.available_items(times[part]) if "alignment" not in config.without else None
            if seen is None:
                return there
            unseen = unseen_items(seen[part], len(all_items))
            return unseen if there is None else unseen & there

        if config.negatives == "hard":
            return hard_negatives(
                questions,
                all_items,
                labels,
                count=config.num_training_negatives,
                candidates=available,
                temperature=config.temperature,
                divisor=divisor,
            )
        return full_softmax(
            questions, all_items, labels, candidates=available, temperature=config.temperature, divisor=divisor
        )

    def _outputs(
        self,
        state: IntSRState,
        inputs: Inputs,
        items: CatalogItems | Tensor | None,
        candidates: Tensor | None = None,
    ) -> Tensor:
        """Answer questions, or judge candidates, through all blocks, DSFNet and the last norm.

        Returns:
            `torch.Tensor`: `(batch, num_questions, num_candidates or 1, hidden_size)`.
        """
        hidden_states = self.model.answer(state, inputs, items, candidates)
        if self.dsfnet is not None:
            # R of equation 10: time and area, page, and task; plain layers in the place of DSFNet read none.
            tokens, behavior, scenario = self.model.tokens, inputs["question_behavior_ids"], None
            if tokens.tasks is not None:
                task = tokens.tasks(behavior)
                around = tokens.setting(inputs, "question", torch.zeros_like(task))
                if tokens.pages is not None:
                    around = around + tokens.pages(behavior) * tokens.scale
                scenario = torch.cat([around, task * tokens.scale], dim=-1)
                scenario = scenario[:, :, None].expand(*hidden_states.shape[:3], -1)
            hidden_states = self.dsfnet(hidden_states, scenario)
        normed: Tensor = self.output_norm(hidden_states)
        return normed


def _negative_rows(inputs: Inputs) -> Tensor:
    if "negative_rows" not in inputs:
        raise ConfigurationError(
            "The batch has no `negative_rows`, which drawn `negatives` and `ranking_weight` need; pass "
            "`negatives=` to the collator."
        )
    return inputs["negative_rows"]


def hard_negatives(
    questions: Tensor,
    items: Tensor,
    labels: Tensor,
    *,
    count: int,
    candidates: Candidates | None = None,
    temperature: float = 1.0,
    divisor: Tensor | int | None = None,
) -> Tensor:
    """Compute the loss of the target against the items most similar to the question at this moment (section 4.3).

    Args:
        questions (`torch.Tensor`): Vectors of questions, `(num_questions, size)`.
        items (`torch.Tensor`): Vectors of all items, `(num_items, size)`.
        labels (`torch.LongTensor`): Rows of the targets, `(num_questions,)`.
        count (`int`): Number of negatives of a question.
        candidates (`Callable`, *optional*): As in [`full_softmax`].
        temperature (`float`): As in [`full_softmax`].
        divisor (`int`, *optional*): As in [`full_softmax`].

    Returns:
        `torch.Tensor`: A float32 number in nats; 0 without questions.
    """
    count, rows, is_valid = min(count, len(items) - 1), [], []
    with torch.no_grad():
        for part in parts(len(questions), len(items), questions.device):
            scores = (questions[part] @ items.T).scatter(1, labels[part, None], float("-inf"))
            allowed = None if candidates is None else candidates(part)
            if allowed is not None:
                scores = scores.masked_fill(~allowed, float("-inf"))
            hardest = scores.topk(count)
            rows.append(torch.cat([labels[part, None], hardest.indices], dim=1))
            is_valid.append(torch.isfinite(hardest.values))
    if not rows:
        return (questions.sum() + items.sum() * 0).float()
    scores = (items[torch.cat(rows)] * questions[:, None]).sum(-1)
    return info_nce(
        scores[:, 0], scores[:, 1:], is_valid=torch.cat(is_valid), temperature=temperature, divisor=divisor
    )


def candidate_loss(logits: Tensor, is_real: Tensor, *, divisor: Tensor | int | None = None) -> Tensor:
    """Compute the loss of ranking a target among candidates: a softmax over the group, plus a log-loss on each.

    The softmax orders; the log-loss makes the sigmoid of a logit a probability. IntSR names no loss for its logits.

    Args:
        logits (`torch.Tensor`): Logits `(num_questions, num_candidates)`; the target comes first.
        is_real (`torch.BoolTensor`): False for padding, `(num_questions, num_candidates)`.
        divisor (`int`, *optional*): Divides the sum over questions; their number if not given.

    Returns:
        `torch.Tensor`: A float32 number in nats.
    """
    logits = logits.float()
    wanted = torch.zeros_like(logits)
    wanted[:, 0] = 1
    by_order = info_nce(logits[:, 0], logits[:, 1:], is_valid=is_real[:, 1:], divisor=divisor)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * is_real
    means = each.sum(1) / is_real.sum(1).clamp_min(1)
    return by_order + means.sum() / (max(len(logits), 1) if divisor is None else divisor)


__all__ = ["IntSRForSearchAndRecommendation", "IntSRModel", "IntSROutput", "IntSRPreTrainedModel"]
