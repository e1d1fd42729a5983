# SPDX-License-Identifier: Apache-2.0
"""Query-driven blocks: HSTU with a second stream for what is asked (IntSR, equations 5-9).

The first stream X_1 holds what happened; the second, X_2, holds **placeholders**: what is asked, each of which sees
tokens of the first stream and itself, and is seen by nothing. So the first stream can be computed once and kept, and
the part of a placeholder's attention that is its own is one product a row, not a matrix (appendix C.2).

What the paper leaves open follows HSTU: a layer norm before the block and one on its mixed values, a residual around
it, no feed-forward layer. Attention weights are SiLU values, not a distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seekrec.models.intsr.configuration_intsr import IntSRConfig

# The base of HSTU's buckets of seconds, and how many there are.
_LOG_STEP = 0.301
_NUM_TIME_BUCKETS = 128


@dataclass(frozen=True)
class Places:
    """Where tokens stand; every tensor has the shape `(batch, length)`.

    Args:
        position (`torch.Tensor`): int64 number among the tokens of its row. Of a placeholder: how many tokens it sees.
        session (`torch.Tensor`): int64; tokens of one session do not see each other's events.
        event (`torch.Tensor`): int64 number of the event it belongs to; of an S token, the first of its session.
        time (`torch.Tensor`): int64 seconds.
        is_scenario (`torch.Tensor`): bool: an S token, which its own session sees.
        item (`torch.Tensor`): int64 catalogue row of the item it brings; -1 for none.
        is_real (`torch.Tensor`): bool: False for padding.
        is_alone (`torch.Tensor`, *optional*): bool: an S token of a session whose events are all left out
            (`history_dropout`): questions of that session see it, nothing else does. None are if not given.
    """

    position: Tensor
    session: Tensor
    event: Tensor
    time: Tensor
    is_scenario: Tensor
    item: Tensor
    is_real: Tensor
    is_alone: Tensor | None = None

    def __post_init__(self) -> None:
        if self.is_alone is None:
            object.__setattr__(self, "is_alone", torch.zeros_like(self.is_real))

    def append(self, other: Places) -> Places:
        """Put other tokens behind these."""
        return Places(**{name: torch.cat([own, getattr(other, name)], dim=1) for name, own in vars(self).items()})


def history_visibility(queries: Places, keys: Places, *, use_session_mask: bool = True) -> Tensor:
    """Say what tokens of the first stream see: causal x session-wise mask (section 3.3.2, appendix D).

    A token sees itself, what came before it in its own event, the S token of its session, and earlier sessions.

    Args:
        queries (`Places`): The tokens that look, `(batch, num_queries)`.
        keys (`Places`): The tokens that are looked at, `(batch, num_keys)`.
        use_session_mask (`bool`): Off: a token sees all that came before it.

    Returns:
        `torch.BoolTensor`: Of shape `(batch, num_queries, num_keys)`.
    """
    allowed = (keys.position[:, None] <= queries.position[:, :, None]) & keys.is_real[:, None]
    if use_session_mask:
        session, event = keys.session[:, None], keys.event[:, None]
        own_session = queries.session[:, :, None]
        is_own = (event == queries.event[:, :, None]) | (keys.is_scenario[:, None] & (session == own_session))
        allowed &= (session < own_session) | is_own
    # An S token that is alone shares its position with the token behind it, so positions do not order the two.
    session, own_session = keys.session[:, None], queries.session[:, :, None]
    return allowed & ((session == own_session) | ((session < own_session) & ~_alone(keys)[:, None]))


def placeholder_visibility(session: Tensor, event: Tensor, keys: Places, *, use_session_mask: bool = True) -> Tensor:
    """Say what placeholders see of the first stream: earlier sessions, and the S token of their own.

    That placeholders are seen by nothing, the invalid-Q mask, needs no matrix: they are in no stream of keys.

    Args:
        session (`torch.LongTensor`): Session of each placeholder, `(batch, num_placeholders)`.
        event (`torch.LongTensor`): The event that it asks for, of the same shape.
        keys (`Places`): The first stream, `(batch, num_keys)`.
        use_session_mask (`bool`): Off: it sees all events before its own.

    Returns:
        `torch.BoolTensor`: Of shape `(batch, num_placeholders, num_keys)`.
    """
    its_session, its_event = session[:, :, None], event[:, :, None]
    if use_session_mask:
        before = keys.session[:, None] < its_session
    else:
        before = keys.event[:, None] < its_event
    before &= ~_alone(keys)[:, None]
    opens = keys.is_scenario[:, None] & (keys.session[:, None] == its_session) & (keys.event[:, None] <= its_event)
    return (before | opens) & keys.is_real[:, None]


def _alone(keys: Places) -> Tensor:
    return torch.zeros_like(keys.is_real) if keys.is_alone is None else keys.is_alone


class RelativeBias(nn.Module):
    """What is added to similarities for a distance in tokens (T5's buckets) and in seconds; shared by all blocks."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        self.num_heads, self.kind = config.num_attention_heads, config.time_bias
        self.num_buckets, self.max_distance = config.num_position_buckets, config.max_position_distance
        heads = config.num_attention_heads
        # Parameters, not embeddings: those have start values of their own.
        self.position = nn.Parameter(torch.empty(self.num_buckets, heads)) if config.use_position_bias else None
        self.time_buckets = nn.Parameter(torch.empty(_NUM_TIME_BUCKETS + 1, heads)) if self.kind == "buckets" else None
        self.slopes = nn.Parameter(torch.empty(heads)) if self.kind == "alibi" else None

    def forward(self, queries: Places, keys: Places) -> Tensor | None:
        """Give the bias, `(batch or 1, num_heads, num_queries, num_keys)`, or None where there is none.

        Without a time bias it has one row where all rows of a batch have the same positions.
        """
        own, others = queries.position, keys.position
        # Rows whose tokens are numbered alike, as those of histories read from the start are, share one bias.
        if bool((own == own[:1]).all() & (others == others[:1]).all()):
            own, others = own[:1], others[:1]
        bias = self._by_distance(own[:, :, None] - others[:, None])
        if self.kind == "none":
            return bias
        return _added(bias, self._by_time((queries.time[:, :, None] - keys.time[:, None]).clamp_min(0)))

    def of(self, distance: Tensor, seconds: Tensor) -> Tensor | None:
        """Give the bias of distances, int64 `(..., queries, keys)`, as `(..., num_heads, queries, keys)`."""
        return _added(self._by_distance(distance), self._by_time(seconds))

    def _by_distance(self, distance: Tensor) -> Tensor | None:
        if self.position is None:
            return None
        distance = distance.clamp_min(0)
        most = int(distance.max()) if distance.numel() else 0
        # Buckets are looked up once for each distance, not once for each pair of tokens.
        return _picked(self.position[self._bucket(torch.arange(most + 1, device=distance.device))], distance)

    def _by_time(self, seconds: Tensor) -> Tensor | None:
        if self.time_buckets is not None:
            number = (seconds.clamp_min(1).float().log() / _LOG_STEP).long().clamp_max(_NUM_TIME_BUCKETS)
            return _picked(self.time_buckets, number)
        if self.slopes is None:
            return None
        return -self.slopes[:, None, None] * torch.log2(1.0 + seconds.float()).unsqueeze(-3).to(self.slopes.dtype)

    def _bucket(self, distance: Tensor) -> Tensor:
        exact = max(1, self.num_buckets // 2)
        far = (distance.clamp_min(1).float() / exact).log() / max(
            torch.log(torch.tensor(self.max_distance / exact)).item(), 1e-6
        )
        wide = exact + (far * (self.num_buckets - exact)).long()
        return torch.where(distance < exact, distance, wide.clamp_max(self.num_buckets - 1)).clamp_max(
            self.num_buckets - 1
        )


def _added(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _picked(table: Tensor, numbers: Tensor) -> Tensor:
    """Give the rows of a table, `(rows, num_heads)`, that int64 `(..., queries, keys)` name, heads before queries."""
    # Picked by head: numbers of one head lie side by side, as those they are added to.
    rows = table.T.index_select(1, numbers.flatten())
    return rows.view(table.shape[1], *numbers.shape).movedim(0, -3)


class QueryDrivenBlock(nn.Module):
    """One block; both streams share its weights."""

    def __init__(self, config: IntSRConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.length = config.max_history if config.attention_scale == "length" else None
        self.input_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.project = nn.Linear(config.hidden_size, 4 * config.hidden_size)  # MLP_1
        self.mixed_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)  # MLP_2
        self.dropout = nn.Dropout(config.dropout)

    def split(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give gates, queries, keys and values (equation 5).

        Args:
            hidden_states (`torch.Tensor`): Of shape `(..., length, hidden_size)`.

        Returns:
            `tuple`: Gates of that shape; the others `(..., num_heads, length, head_size)`.
        """
        gates, *rest = F.silu(self.project(self.input_norm(hidden_states))).chunk(4, dim=-1)
        queries, keys, values = (part.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3) for part in rest)
        return gates, queries, keys, values

    def history(
        self,
        hidden_states: Tensor,
        gates: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        allowed: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Apply the block to the first stream (equations 6 and 8).

        Args:
            hidden_states (`torch.Tensor`): Of shape `(batch, length, hidden_size)`.
            gates (`torch.Tensor`): Of [`split`].
            queries (`torch.Tensor`): Of [`split`].
            keys (`torch.Tensor`): Of these tokens and those before them, `(batch, num_heads, num_keys, head_size)`.
            values (`torch.Tensor`): Likewise.
            allowed (`torch.BoolTensor`): Of shape `(batch, length, num_keys)`.
            bias (`torch.Tensor`, *optional*): Of shape `(batch or 1, num_heads, length, num_keys)`.

        Returns:
            `torch.Tensor`: Of the shape of `hidden_states`.
        """
        scores = queries @ keys.transpose(-1, -2)
        weights = F.silu(scores if bias is None else scores + bias) * allowed[:, None]
        count = allowed.sum(-1)[:, None, :, None]
        return self._finish(hidden_states, gates, weights @ values, count)

    def answer(
        self,
        hidden_states: Tensor,
        keys: Tensor,
        values: Tensor,
        allowed: Tensor,
        bias: Tensor | None,
        own_bias: Tensor | None,
    ) -> Tensor:
        """Apply the block to placeholders (equations 7 and 9); those of one group see the same tokens.

        Args:
            hidden_states (`torch.Tensor`): Of shape `(batch, num_groups, group_size, hidden_size)`.
            keys (`torch.Tensor`): Of the first stream, `(batch, num_heads, num_keys, head_size)`.
            values (`torch.Tensor`): Likewise.
            allowed (`torch.BoolTensor`): Of shape `(batch, num_groups, num_keys)`.
            bias (`torch.Tensor`, *optional*): Of shape `(batch or 1, num_heads, num_groups, num_keys)`.
            own_bias (`torch.Tensor`, *optional*): Of a placeholder to itself, `(num_heads, 1, 1)`.

        Returns:
            `torch.Tensor`: Of the shape of `hidden_states`.
        """
        groups, size = hidden_states.shape[1:3]
        # All placeholders of a row as one list, so that each block of keys is multiplied once and never copied.
        flat = hidden_states.flatten(1, 2)  # (batch, groups * size, hidden_size)
        gates, queries, own_keys, own_values = self.split(flat)
        scores = (queries @ keys.transpose(-1, -2)).unflatten(2, (groups, size))
        if bias is not None:
            scores = scores + bias[:, :, :, None]
        weights = (F.silu(scores) * allowed[:, None, :, None]).flatten(2, 3)
        # M_{2,2} is the identity: only its diagonal is computed, and it scales the rows of V_2.
        own = (queries * own_keys).sum(-1, keepdim=True)  # (batch, heads, groups * size, 1)
        own = F.silu(own if own_bias is None else own + own_bias)
        count = (allowed.sum(-1) + 1).repeat_interleave(size, dim=1)[:, None, :, None]
        return self._finish(flat, gates, weights @ values + own * own_values, count).view_as(hidden_states)

    def _finish(self, hidden_states: Tensor, gates: Tensor, mixed: Tensor, count: Tensor) -> Tensor:
        mixed = mixed / (count.clamp_min(1) if self.length is None else self.length)
        mixed = mixed.transpose(-2, -3).flatten(-2)  # heads side by side again
        return hidden_states + self.dropout(self.output(self.mixed_norm(mixed) * gates))


__all__ = ["Places", "QueryDrivenBlock", "RelativeBias", "history_visibility", "placeholder_visibility"]
