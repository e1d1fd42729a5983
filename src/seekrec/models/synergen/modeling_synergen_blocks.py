# SPDX-License-Identifier: Apache-2.0
"""The task mask of SynerGen and the layers that keep to it (section 3.4; the paper's appendix is not public).

Three kinds of token stand in one sequence: **context** tokens tell what happened, a **retrieval** token asks for
items, **ranking** tokens ask about one candidate each. A question is a retrieval token and its ranking tokens. What a
token (row) sees of another (column):

| sees | earlier session | own session, earlier | other context | itself | own retrieval token | other questions |
|---|---|---|---|---|---|---|
| context | yes | yes | no | yes | no | no |
| retrieval | yes | no | no | yes | it is that | no |
| ranking | yes | no | no | yes | yes | no |

The first three columns are context tokens; "earlier" is by time, for an event of the same second is not earlier.
The third is temporal causality: no later event is seen. The second is session isolation: a question does not know what
was done in the session that it belongs to. The fifth is cross-task alignment.
Nothing sees a question from outside, so a history is read once, its keys and values are kept, and any
number of questions is answered from them; and no candidate sees another, so what is its own in attention is a product
of rows, not a matrix. Both together equal one pass of the whole sequence under [`task_mask`], and a test says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from seekrec.models.synergen.configuration_synergen import SynerGenConfig
from seekrec.models.synergen.modeling_synergen_attention import attend
from seekrec.models.synergen.modeling_synergen_rotary import rotate

CONTEXT, RETRIEVAL, RANKING = range(3)

# Cosines and sines of a rotation.
Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Places:
    """Where tokens stand; every tensor has the shape `(batch, length)`.

    Args:
        kind (`torch.Tensor`): int64: `CONTEXT`, `RETRIEVAL` or `RANKING`.
        session (`torch.Tensor`): int64: of the event, or of the event asked for.
        time (`torch.Tensor`): int64 seconds.
        event (`torch.Tensor`): int64 number of the event; of a question, of the event asked for.
        question (`torch.Tensor`): int64 number of the question; -1 for a context token.
        item (`torch.Tensor`): int64 catalogue row of the item it brings; -1 for none.
        is_real (`torch.Tensor`): bool: False for padding, which nothing sees.
    """

    kind: Tensor
    session: Tensor
    time: Tensor
    event: Tensor
    question: Tensor
    item: Tensor
    is_real: Tensor

    def append(self, other: Places) -> Places:
        """Put other tokens behind these."""
        return Places(**{name: torch.cat([own, getattr(other, name)], dim=1) for name, own in vars(self).items()})


def task_mask(
    queries: Places, keys: Places, *, first: int = 0, use_session_mask: bool = True, align_tasks: bool = True
) -> Tensor:
    """Say what tokens see: the table above.

    Args:
        queries (`Places`): The tokens that look, `(batch, num_queries)`.
        keys (`Places`): The tokens that are looked at, `(batch, num_keys)`.
        first (`int`): The place among the keys of the first of the queries; a token sees itself, padding too.
            Behind all keys, where the queries are not among them.
        use_session_mask (`bool`): Off: questions see all earlier events.
        align_tasks (`bool`): Off: ranking tokens do not see retrieval tokens.

    Returns:
        `torch.BoolTensor`: Of shape `(batch, num_queries, num_keys)`.
    """
    kind, of_context = queries.kind[:, :, None], keys.kind[:, None] == CONTEXT
    before = keys.time[:, None] < queries.time[:, :, None]
    if use_session_mask:
        known = keys.session[:, None] < queries.session[:, :, None]
    else:
        known = keys.event[:, None] < queries.event[:, :, None]
    allowed = of_context & torch.where(kind == CONTEXT, before, known)
    if align_tasks:
        same = keys.question[:, None] == queries.question[:, :, None]
        allowed |= (kind == RANKING) & (keys.kind[:, None] == RETRIEVAL) & same
    allowed &= keys.is_real[:, None]
    itself = torch.arange(queries.time.shape[1], device=kind.device)[:, None] + first
    return allowed | (itself == torch.arange(keys.time.shape[1], device=kind.device))


class ResidualLinear(nn.Linear):
    """A linear layer that closes a residual: it starts smaller the more of them there are."""


class DecoderLayer(nn.Module):
    """Attention and a feed-forward layer, each after a layer norm and inside a residual."""

    def __init__(self, config: SynerGenConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.attention_input = nn.Linear(size, 3 * size, bias=False)
        self.attention_output = ResidualLinear(size, size, bias=False)
        self.feed_forward_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.expand = nn.Linear(size, config.intermediate_size)
        self.contract = ResidualLinear(config.intermediate_size, size)
        self.dropout = nn.Dropout(config.dropout)

    def split(self, hidden_states: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Give queries, keys and values, the first two rotated.

        Args:
            hidden_states (`torch.Tensor`): Of shape `(batch, ..., hidden_size)`.
            rotation (`tuple[torch.Tensor, torch.Tensor]`): Of shape `(batch, ..., num_pairs)`.

        Returns:
            `tuple[torch.Tensor, ...]`: Each of shape `(batch, num_heads, ..., head_size)`.
        """
        parts = self.attention_input(self.attention_norm(hidden_states)).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (self.num_heads, -1)).movedim(-2, 1) for part in parts)
        cosines, sines = (part[:, None] for part in rotation)
        return rotate(queries, cosines, sines), rotate(keys, cosines, sines), values

    def history(
        self, hidden_states: Tensor, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | BlockMask
    ) -> Tensor:
        """Apply the layer to context tokens.

        Args:
            hidden_states (`torch.Tensor`): Of shape `(batch, length, hidden_size)`.
            queries (`torch.Tensor`): Of [`split`].
            keys (`torch.Tensor`): Of these tokens and those before them, `(batch, num_heads, num_keys, head_size)`.
            values (`torch.Tensor`): Likewise.
            allowed (`torch.BoolTensor` or `BlockMask`): What [`attend`] takes.

        Returns:
            `torch.Tensor`: Of the shape of `hidden_states`.
        """
        return self._finish(hidden_states, attend(queries, keys, values, allowed))

    def answer(
        self,
        hidden_states: Tensor,
        rotation: Rotation,
        keys: Tensor,
        values: Tensor,
        allowed: Tensor,
        shared: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Apply the layer to tokens of questions; those of one question see the same context tokens.

        Args:
            hidden_states (`torch.Tensor`): Of shape `(batch, num_questions, group_size, hidden_size)`.
            rotation (`tuple[torch.Tensor, torch.Tensor]`): Of shape `(batch, num_questions, 1, num_pairs)`.
            keys (`torch.Tensor`): Of the context, `(batch, num_heads, num_keys, head_size)`.
            values (`torch.Tensor`): Likewise.
            allowed (`torch.BoolTensor`): Of shape `(batch, num_questions, num_keys)`.
            shared (`tuple[torch.Tensor, torch.Tensor]`, *optional*): Key and value of each question's retrieval
                token, `(batch, num_heads, num_questions, 1, head_size)`.

        Returns:
            `tuple`: States of the shape of `hidden_states`, and the tokens' own keys and values.
        """
        queries, own_keys, own_values = self.split(hidden_states, rotation)
        queries = queries * queries.shape[-1] ** -0.5
        num_keys = keys.shape[2]
        # One product over all tokens of all questions, so that the keys need no copy for each question.
        scores = (queries.flatten(2, 3) @ keys.transpose(-1, -2)).view(*queries.shape[:-1], num_keys)
        scores = scores.float().masked_fill(~allowed[:, None, :, None], float("-inf"))
        rows = [(queries * own_keys).sum(-1, keepdim=True)]
        if shared is not None:
            rows.append((queries * shared[0]).sum(-1, keepdim=True))
        weights = torch.cat([scores, *(row.float() for row in rows)], dim=-1).softmax(-1).to(values.dtype)
        mixed = (weights[..., :num_keys].flatten(2, 3) @ values).view_as(own_values)
        mixed = mixed + weights[..., num_keys : num_keys + 1] * own_values
        if shared is not None:
            mixed = mixed + weights[..., num_keys + 1 :] * shared[1]
        return self._finish(hidden_states, mixed), (own_keys, own_values)

    def _finish(self, hidden_states: Tensor, mixed: Tensor) -> Tensor:
        mixed = mixed.movedim(1, -2).flatten(-2)  # heads side by side again
        hidden_states = hidden_states + self.dropout(self.attention_output(mixed))
        expanded = F.gelu(self.expand(self.feed_forward_norm(hidden_states)))
        return hidden_states + self.dropout(self.contract(expanded))


__all__ = ["CONTEXT", "RANKING", "RETRIEVAL", "DecoderLayer", "Places", "ResidualLinear", "task_mask"]
