# SPDX-License-Identifier: Apache-2.0
"""The two views of a history, and what a candidate filters out of them (GenSR, section 5.1).

Each view has a space of its own: the collaborative one of the frozen table's width d, the semantic one of the
generator's width d'. A place before every history, the *start*, belongs to both: an empty history has an answer too,
and a candidate that resembles nothing of the history can say so, which a softmax over the events alone cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from seekrec.models.gensr.configuration_gensr import GenSRConfig


class ViewLinear(nn.Linear):
    """Identical to `nn.Linear` except: it says how its weights start.

    transformers starts a module of other packages only where that module itself holds the weights, not its parent.

    Args:
        size_in (`int`): Width of the input.
        size_out (`int`): Width of the output.
        start (`str`): `"spread"` keeps the length of vectors, `"small"` makes a tenth of it, `"orthogonal"` keeps
            lengths and angles.
        seed (`int`, *optional*): Orthogonal layers of one seed and size start equal.
        bias (`bool`): Add one, from zero.
    """

    def __init__(
        self,
        size_in: int,
        size_out: int,
        *,
        start: Literal["spread", "small", "orthogonal"] = "spread",
        seed: int | None = None,
        bias: bool = True,
    ) -> None:
        self.start, self.seed = start, seed
        super().__init__(size_in, size_out, bias=bias)

    def start_weights(self) -> None:
        """Draw the weights."""
        if self.start == "orthogonal":
            generator = None
            if self.seed is not None and self.weight.device.type != "meta":
                generator = torch.Generator(self.weight.device).manual_seed(self.seed)
            init.orthogonal_(self.weight, generator=generator)
        else:
            init.normal_(self.weight, std=(0.1 if self.start == "small" else 1.0) * self.in_features**-0.5)
        if self.bias is not None:
            init.zeros_(self.bias)


class ViewEmbedding(nn.Embedding):
    """Identical to `nn.Embedding` except: it starts short, beside item vectors whose entries are near 1."""

    def start_weights(self) -> None:
        """Draw the weights."""
        init.normal_(self.weight, std=0.1)


class Scale(nn.Module):
    """One learnt number that vectors are multiplied with.

    Args:
        value (`float`): Its start.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.weight = nn.Parameter(torch.empty(1))

    def start_weights(self) -> None:
        """Set the number."""
        init.constant_(self.weight, self.value)

    def forward(self, vectors: Tensor) -> Tensor:
        """Multiply vectors of any shape."""
        return vectors * self.weight


class CollaborativeTable(nn.Module):
    """The item embeddings of a recommender, by row of the catalogue.

    Items that came to the catalogue later have rows behind these: predicted from their text, no weights.

    Args:
        num_items (`int`): Rows.
        size (`int`): Width.
        is_trained (`bool`): A parameter if so, else a buffer.
    """

    # What training reads of later items; an answer brings its own.
    later: Tensor | None = None

    def __init__(self, num_items: int, size: int, *, is_trained: bool) -> None:
        super().__init__()
        values = torch.zeros(num_items, size)
        if is_trained:
            self.weight = nn.Parameter(values)
        else:
            self.register_buffer("weight", values)

    def start_weights(self) -> None:
        """Draw rows that say nothing; `set_collaborative_table` brings the real ones."""
        init.normal_(self.weight, std=1.0)

    def forward(self, rows: Tensor, later: Tensor | None = None) -> Tensor:
        """Look up vectors.

        Args:
            rows (`torch.LongTensor`): Of the catalogue, of any shape.
            later (`torch.Tensor`, *optional*): Rows behind the table's own, `(num_later, size)`; those of the
                catalogue set last if not given.

        Returns:
            `torch.Tensor`: Of the shape of `rows` and the width.
        """
        later = self.later if later is None else later
        if later is None or not len(later):
            return F.embedding(rows, self.weight)
        own = len(self.weight)
        known = F.embedding(rows.clamp_max(own - 1), self.weight)
        return torch.where((rows >= own)[..., None], later.to(known)[(rows - own).clamp_min(0)], known)


class HistoryEncoder(nn.Module):
    """One transformer layer over the events of a history (equations 5 and 6).

    Layer norm comes first in each half and residuals surround both, so the layer starts close to its input.

    Args:
        size (`int`): Width.
        num_heads (`int`): Attention heads.
        dropout (`float`): After attention and after the feed-forward layer.
    """

    def __init__(self, size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(size)
        self.attention_input = ViewLinear(size, 3 * size)
        self.attention_output = ViewLinear(size, size, start="small")
        self.feed_forward_norm = nn.LayerNorm(size)
        self.expand = ViewLinear(size, 2 * size)
        self.contract = ViewLinear(2 * size, size, start="small")
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Encode.

        Args:
            states (`torch.Tensor` of shape `(batch, length, size)`): Events.
            mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.

        Returns:
            `torch.Tensor`: Of the shape of `states`.
        """
        batch, length, _ = states.shape
        projected = self.attention_input(self.attention_norm(states)).view(batch, length, 3, self.num_heads, -1)
        query_states, key_states, value_states = projected.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(
            query_states, key_states, value_states, attn_mask=mask[:, None, None, :]
        )
        states = states + self.dropout(self.attention_output(attended.transpose(1, 2).flatten(2)))
        expanded = F.gelu(self.expand(self.feed_forward_norm(states)))
        return states + self.dropout(self.contract(expanded))


@dataclass(frozen=True)
class FilteredHistory:
    """What candidates pick out of a history.

    Args:
        picked (`torch.Tensor`): The mean of the values a candidate attends to, projected (equation 8).
        agreement (`torch.Tensor`): Its query times the mean of the keys it attends to. The sum over a head is the
            similarity that its attention found, which a softmax over the history forgets.
    """

    picked: Tensor
    agreement: Tensor


class SoftFilter(nn.Module):
    """What a candidate picks out of a history: multi-head cross-attention, equations 7 and 8.

    Queries and keys start as one orthogonal map, so attention starts as the similarity of a candidate and an event.

    Args:
        size (`int`): Width.
        num_heads (`int`): Attention heads.
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_projection = ViewLinear(size, size, start="orthogonal", seed=0, bias=False)
        self.key_projection = ViewLinear(size, size, start="orthogonal", seed=0, bias=False)
        self.value_projection = ViewLinear(size, size, start="orthogonal", bias=False)
        self.output_projection = ViewLinear(size, size, start="orthogonal", bias=False)

    def forward(self, candidates: Tensor, states: Tensor, mask: Tensor) -> FilteredHistory:
        """Filter.

        Args:
            candidates (`torch.Tensor` of shape `(batch, num_candidates, size)`): Vectors of the candidates.
            states (`torch.Tensor` of shape `(batch, length, size)`): The encoded history.
            mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.

        Returns:
            [`FilteredHistory`]: Both of its vectors of the shape of `candidates`.
        """
        query_states = self._split(self.query_projection(candidates))
        key_states = self._split(self.key_projection(states))
        value_states = self._split(self.value_projection(states))
        scores = query_states @ key_states.transpose(2, 3) * query_states.shape[-1] ** -0.5
        weights = scores.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(-1)
        # (batch, num_heads, num_candidates, length) with values, and with keys: one attention for both.
        filtered: Tensor = self.output_projection((weights @ value_states).transpose(1, 2).flatten(2))
        return FilteredHistory(filtered, (query_states * (weights @ key_states)).transpose(1, 2).flatten(2))

    def compare(self, candidates: Tensor, vectors: Tensor) -> Tensor:
        """Say where candidates agree with one vector a row: their queries times its key.

        Args:
            candidates (`torch.Tensor` of shape `(batch, num_candidates, size)`): Vectors of the candidates.
            vectors (`torch.Tensor` of shape `(batch, size)`): What each row's candidates are compared with.

        Returns:
            `torch.Tensor`: Of the shape of `candidates`; zero where the vector is.
        """
        agreement: Tensor = self.query_projection(candidates) * self.key_projection(vectors)[:, None]
        return agreement

    def _split(self, states: Tensor) -> Tensor:
        """Give each head its part: (batch, length, size) to (batch, num_heads, length, size of a head)."""
        return states.view(*states.shape[:2], self.num_heads, -1).transpose(1, 2)


class View(nn.Module):
    """One view: events to an encoded history, candidates to filtered histories, both to vectors of a prompt.

    Args:
        config ([`GenSRConfig`]): Heads, dropout, positions, filter.
        size (`int`): Width of the view's space.
        reads_text (`bool`): Items are texts, and so are queries. Every item vector is brought to one length then; not
            the collaborative ones: a recommender writes into their length how popular an item is.
    """

    def __init__(self, config: GenSRConfig, size: int, *, reads_text: bool) -> None:
        super().__init__()
        self.num_positions = config.view_positions
        self.item_norm = nn.LayerNorm(size) if reads_text else nn.Identity()
        self.start = ViewEmbedding(1, size)
        self.behavior_embedding = ViewEmbedding(2, size)
        self.position_embedding = ViewEmbedding(max(1, config.view_positions), size)
        self.encoder = HistoryEncoder(size, config.view_num_heads, config.view_dropout_rate)
        self.filter = SoftFilter(size, config.view_num_heads) if config.soft_filter else None
        self.history_to_prompt = ViewLinear(size, config.d_model)
        self.item_to_prompt = ViewLinear(size, config.d_model)
        self.agreement_to_prompt = self.wanted_agreement_to_prompt = None
        if config.agreement_in_prompt:
            self.agreement_to_prompt = ViewLinear(size, config.d_model, bias=False)
            if reads_text or config.recommender is not None:
                self.wanted_agreement_to_prompt = ViewLinear(size, config.d_model, bias=False)
        # Brings vectors to the length of token embeddings, whose entries T5 draws with this standard deviation.
        self.scale = Scale(config.initializer_factor)

    def encode(self, events: Tensor, mask: Tensor, behaviors: Tensor) -> Tensor:
        """Encode histories.

        Args:
            events (`torch.Tensor` of shape `(batch, length, size)`): One vector an event, oldest first, padded on the
                right.
            mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.
            behaviors (`torch.LongTensor` of shape `(batch, length)`): Numbers into `BEHAVIORS`.

        Returns:
            `torch.Tensor`: Of shape `(batch, 1 + length, size)`, the start first.
        """
        states = events + self.behavior_embedding(behaviors)
        if self.num_positions:
            # The latest event has place 0; what is further back than there are places shares the last.
            places = mask.sum(1, keepdim=True) - 1 - torch.arange(mask.shape[1], device=mask.device)
            states = states + self.position_embedding(places.clamp(0, self.num_positions - 1))
        start = self.start.weight.expand(len(states), 1, -1).to(states.dtype)
        states = torch.cat([start, states], dim=1)
        encoded: Tensor = self.encoder(states, _with_start(mask))
        return encoded

    def picked_vectors(self, candidates: Tensor, states: Tensor, mask: Tensor, wanted: Tensor | None) -> Tensor:
        """Carry what each candidate picks out into the prompt.

        With `agreement_in_prompt` the vector also says where the candidate agrees with what it picks out, and with
        what is wanted now. Without the soft filter it is the mean of the history.

        Args:
            candidates (`torch.Tensor` of shape `(batch, num_candidates, size)`): Vectors of items.
            states (`torch.Tensor` of shape `(batch, 1 + length, size)`): What `encode` gave.
            mask (`torch.BoolTensor` of shape `(batch, length)`): True for an event.
            wanted (`torch.Tensor` of shape `(batch, size)`, *optional*): The query in a view of texts, zero without
                one; the recommender's state in a collaborative one.

        Returns:
            `torch.Tensor`: Of shape `(batch, num_candidates, d_model)`.
        """
        allowed = _with_start(mask)
        if self.filter is None:
            return self.history_vectors(mean_of(states, allowed))[:, None].expand(-1, candidates.shape[1], -1)
        filtered = self.filter(candidates, states, allowed)
        picked = self.history_to_prompt(filtered.picked)
        if self.agreement_to_prompt is not None:
            picked = picked + self.agreement_to_prompt(filtered.agreement)
        if self.wanted_agreement_to_prompt is not None and wanted is not None:
            picked = picked + self.wanted_agreement_to_prompt(self.filter.compare(candidates, wanted))
        carried: Tensor = self.scale(picked)
        return carried

    def history_vectors(self, states: Tensor) -> Tensor:
        """Carry vectors of histories into the prompt: `(..., size)` to `(..., d_model)`."""
        carried: Tensor = self.scale(self.history_to_prompt(states))
        return carried

    def item_vectors(self, items: Tensor) -> Tensor:
        """Carry vectors of items into the prompt: `(..., size)` to `(..., d_model)`."""
        carried: Tensor = self.scale(self.item_to_prompt(items))
        return carried


def pool_tokens(embeddings: Tensor, mask: Tensor) -> Tensor:
    """Pool the token embeddings of texts to one vector each, about as long as one token's.

    Args:
        embeddings (`torch.Tensor` of shape `(num_texts, length, size)`): Token embeddings.
        mask (`torch.BoolTensor` of shape `(num_texts, length)`): True for a token.

    Returns:
        `torch.Tensor`: Of shape `(num_texts, size)`: the sum over the root of the count, zero for an empty text.
    """
    weights = mask.to(embeddings.dtype)
    total = torch.einsum("nld,nl->nd", embeddings, weights)
    return total / weights.sum(1, keepdim=True).clamp(min=1).sqrt()


def mean_of(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the places that a mask allows: `(batch, length, size)` to `(batch, size)`; zero where none is."""
    weights = mask.to(states.dtype)
    return torch.einsum("bld,bl->bd", states, weights) / weights.sum(1, keepdim=True).clamp(min=1)


def _with_start(mask: Tensor) -> Tensor:
    return F.pad(mask, (1, 0), value=True)


__all__ = [
    "CollaborativeTable",
    "FilteredHistory",
    "HistoryEncoder",
    "Scale",
    "SoftFilter",
    "View",
    "ViewEmbedding",
    "ViewLinear",
    "mean_of",
    "pool_tokens",
]
